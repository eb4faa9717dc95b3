"""Generations: every profile has one, each is complete, and nothing above asks for a chip by its name."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from costmodel.devices import (
    FAMILIES,
    ByFamily,
    CpuGeneration,
    GpuGeneration,
    find_generation,
    generation,
    generation_names,
)
from costmodel.devices.family import CPU, CUDA
from costmodel.errors import ProfileError
from costmodel.execution import Execution
from costmodel.hardware import load, names
from costmodel.kernels import eager_plan
from costmodel.timing.gemm import gemm_time
from costmodel.timing.gemm_machine import GemmMachine
from costmodel.validate.operators import operator_graph
from costmodel.validate.rows import OperatorRow

PACKAGE = Path(__file__).parents[2] / "costmodel"
GPUS = [generation(name) for name in generation_names() if isinstance(generation(name), GpuGeneration)]


@pytest.mark.parametrize("name", names())
def test_every_shipped_profile_names_a_generation_of_its_kind(name: str) -> None:
    profile = load(name)
    assert f'generation = "{profile.generation.name}"' in profile.path.read_text(encoding="utf-8")
    assert (profile.family is CPU) == profile.is_cpu == isinstance(profile.generation, CpuGeneration)
    assert (profile.family.name == "rocm") == (profile.is_gpu and profile.vendor == "AMD")


@pytest.mark.parametrize("of", GPUS, ids=lambda g: g.name)
def test_a_capability_means_one_generation(of: GpuGeneration) -> None:
    assert of.capabilities
    for capability in of.capabilities:
        assert find_generation(capability) is of


@pytest.mark.parametrize("of", GPUS, ids=lambda g: g.name)
def test_tiles_are_whole_instructions_and_efficiencies_are_shares(of: GpuGeneration) -> None:
    for kernels in (of.matrix_products, of.simt_products, *(record.kernels for record in of.quantized_products)):
        assert kernels.tiles
        assert kernels.batched_tiles
        by_rows = [tile for _, tiles in kernels.by_rows for tile in tiles]
        for tile in (*kernels.tiles, *kernels.batched_tiles, *by_rows):
            assert all(edge % 8 == 0 and edge >= 8 for edge in tile)
        assert min(kernels.efficiency, kernels.batched_efficiency) > 0.35
        assert max(kernels.efficiency, kernels.batched_efficiency) < 1.07  # the feed of 128x128 takes 7 % of it
    assert (of.dense_fp16_flop_per_clock is None) == ("fp16" not in of.matrix_dtypes)


#: Generations with the matrix cores that MIOpen's kernels were measured on.
CDNA = [g for g in GPUS if g.family.name == "rocm" and g.matrix_dtypes and not g.name.startswith("rdna")]


@pytest.mark.parametrize("of", CDNA, ids=lambda g: g.name)
def test_miopen_takes_images_as_they_lie(of: GpuGeneration) -> None:
    """With matrix cores NCHW convolutions have no conversions around them; cuDNN's have two."""
    row = OperatorRow(
        file="", line=2, device="", op="conv2d", dtype="fp16", input=(8, 64, 28, 28), other=(64, 64, 3, 3),
        padding=(1, 1), latency_s=1e-3,
    )  # fmt: skip

    def algorithms(generation: GpuGeneration) -> list[str]:
        machine = dataclasses.replace(load("mi100"), generation=generation)
        graph = operator_graph(row)
        plan = eager_plan(graph, Execution.of(dtype="fp16"), machine)
        return [kernel.algorithm for kernel in plan.kernels]

    assert algorithms(of) == ["implicit_gemm"]
    cudnn = dataclasses.replace(of, convolutions=generation("ampere").convolutions)
    assert algorithms(cudnn) == ["nchw_to_nhwc", "implicit_gemm", "nhwc_to_nchw"]


@pytest.mark.parametrize("of", [g for g in GPUS if g.family.name == "rocm"], ids=lambda g: g.name)
def test_what_is_assumed_of_amds_libraries_is_said(of: GpuGeneration) -> None:
    assert any("rocBLAS" in words and "MIOpen" in words for words in of.assumptions)


def test_an_unknown_generation_is_refused_with_those_there_are() -> None:
    with pytest.raises(ProfileError, match="amper") as caught:
        generation("amper")
    assert "ampere" in str(caught.value)


def test_a_table_by_family_has_all_families() -> None:
    with pytest.raises(ValueError, match="cuda"):
        ByFamily(cuda=1)
    table = ByFamily(**{name: name.upper() for name in FAMILIES})
    assert table[CUDA] == "CUDA"
    assert table.of(load("mi100")) == "ROCM"


def test_how_kernels_differ_from_the_shared_constants_is_read_from_the_record() -> None:
    """Each figure of a record moves the product that it bounds: launch, short tile, long square one."""
    profile = load("h100-sxm-80gb")
    kernels = generation("hopper").matrix_products

    def seconds(m: int, n: int, k: int, **changed: float) -> float:
        of = dataclasses.replace(profile.gpu, matrix_products=dataclasses.replace(kernels, **changed))
        machine = GemmMachine.from_profile(dataclasses.replace(profile, generation=of))
        return gemm_time(m, n, k, hw=machine, bytes_cold=False).seconds

    tiny, narrow, wide, square = (16, 64, 64), (16, 64, 1024), (8192, 8192, 32), (8192, 8192, 8192)
    twice = 2 * kernels.start
    assert seconds(*tiny, start=twice) - seconds(*tiny) == pytest.approx(kernels.start * 4400 / 1.98e9)
    assert seconds(*narrow, step_latency=4 * kernels.step_latency) > 1.2 * seconds(*narrow)
    assert seconds(*wide, result_rate=kernels.result_rate / 2) > 1.2 * seconds(*wide)
    assert seconds(*square, operand_rate=kernels.operand_rate / 4) > 1.5 * seconds(*square)
    assert seconds(*square, efficiency=kernels.efficiency / 2) == pytest.approx(2 * seconds(*square), rel=0.1)


def test_a_new_generation_is_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy generation with small tiles only, and a profile that names it: products are made of its tiles."""
    toy = dataclasses.replace(
        generation("ampere"),
        name="toy",
        capabilities=("99.0",),
        matrix_products=dataclasses.replace(
            generation("ampere").matrix_products, tiles=((32, 32),), batched_tiles=((64, 64),)
        ),
    )
    machine = GemmMachine.from_profile(dataclasses.replace(load("a100-sxm-80gb"), generation=toy))
    assert gemm_time(8192, 8192, 8192, hw=machine).tile == (32, 32)
    assert gemm_time(512, 512, 512, 16, hw=machine).tile == (64, 64)


#: Names that belong into hardware, devices and tests: instruction sets, chips, boards by their brand.
_CHIPS = re.compile(r"compute.capability|\bcapability\b|\bsm_?\d\d\b|\bgfx\d|\bG[APVH]1?0\d\b|geforce", re.IGNORECASE)
#: Capabilities as texts. The pages of studies hold texts of other figures.
_CAPABILITIES = re.compile("|".join(re.escape(f'"{c}"') for of in GPUS for c in of.capabilities))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_chips_are_named_in_hardware_and_devices_alone(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    if room in ("hardware", "devices"):
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        found = _CHIPS.search(line) or (room != "studies" and _CAPABILITIES.search(line))
        assert not found, f"{path.name}:{number} names a chip: {line.strip()}"


@pytest.mark.parametrize("room", ["kernels", "engines", "timing", "explain", "host"])
def test_no_room_below_the_pages_asks_for_a_kind_of_machine(room: str) -> None:
    """What differs by family stands in tables by family, and facts about it are asked by their names."""
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            asks = re.search(r"\bis_(cpu|gpu)\b|\.vendor\b|hardware\.kind\b|family\.name\b|family (is|==)", line)
            assert not asks, f"{path.relative_to(PACKAGE)}:{number} asks for a kind of machine: {line.strip()}"
