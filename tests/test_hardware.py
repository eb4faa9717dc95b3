"""Hardware profiles: shipped files multiplied out by the test's own arithmetic, published figures, and errors."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from costmodel import hardware
from costmodel.errors import ProfileError, UnknownHardwareError
from costmodel.hardware import HardwareProfile, load
from costmodel.hardware.catalogue import _load_as_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = sorted((Path(__file__).parent.parent / "hw_profiles").glob("*.toml"))


@pytest.fixture(autouse=True)
def _no_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSTMODEL_HW_PATH", raising=False)


# --- every shipped file, multiplied out without the code under test -------------------------------------------------

POWERS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def number(text: str) -> float:
    """'1.41 GHz' as 1.41e9: decimal prefixes alone, as all products here use."""
    match = re.fullmatch(r"([\d.]+) ([KMGT]?)(FLOP/s|OP/s|Hz|B/s|bit/s|B|W)", text)
    assert match, text
    return float(match[1]) * POWERS[match[2]]


def allowed(table: dict[str, Any]) -> float:
    """1 %, or what the file states with a reason; never above 2.4 %."""
    if "tolerance" not in table:
        return 0.01
    assert table["why"]
    stated = float(table["tolerance"].rstrip(" %")) / 100
    assert stated <= 0.024
    return stated


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_numbers_of_a_file_multiply(path: Path) -> None:
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    assert raw["name"] == path.stem
    for engine in ("matrix", "vector"):
        for word, table in raw.get(engine, {}).items():
            parts = table["made_of"] if isinstance(table["made_of"], list) else [table["made_of"]]
            product = 0.0
            for part in parts:
                product += part["units"] * number(part["clock"]) * part["flop_per_clock"]
            assert product == pytest.approx(number(table["peak"]), rel=allowed(table)), (engine, word)
            assert sum(part["units"] for part in parts) == raw["units"]["count"]
            assert len(table["source"]) > 3
    dram = raw["memory"]["dram"]
    if "made_of" in dram:
        product = dram["made_of"]["bus_bits"] * number(dram["made_of"]["rate"]) / 8
        assert product == pytest.approx(number(dram["bandwidth"]), rel=allowed(dram))
    else:
        assert dram["source"].startswith("measured")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_laws_of_one_machine(path: Path) -> None:
    profile = load(path)
    assert profile.kind in ("gpu", "cpu")
    assert profile.peak("vector", "fp32").flop_per_s > 0, "every kernel needs this fallback"
    half, half_acc16 = profile.find_peak("matrix", "fp16"), profile.find_peak("matrix", "fp16", "fp16")
    if half and half_acc16:
        geforce = "GeForce" in profile.title
        assert half_acc16.flop_per_s / half.flop_per_s == pytest.approx(2 if geforce else 1, rel=0.02)
    bf16, tf32 = profile.find_peak("matrix", "bf16"), profile.find_peak("matrix", "tf32")
    if half and bf16 and profile.name != "mi100":  # CDNA 1 alone runs bf16 at half rate
        assert bf16.flop_per_s == pytest.approx(half.flop_per_s, rel=0.01)
    if half and tf32:
        assert tf32.flop_per_s == pytest.approx(half.flop_per_s / 2, rel=0.025)  # B200: vendor rounding
    if profile.dram.capacity_bytes:
        assert profile.dram.capacity_bytes > 100 * profile.memory_level("l2").capacity_bytes * (profile.is_gpu or 1 / 8)
    assert 0.5 < profile.achievable_dram_fraction <= 1


def test_shipped_files_have_no_problem_but_honest_notes() -> None:
    found = [(name, problem) for name in hardware.names() for problem in hardware.check(name)]
    assert {problem.severity for _, problem in found} == {"note"}
    assert all("unverified" in problem.message for _, problem in found)


# --- published figures ----------------------------------------------------------------------------------------------

#: name, engine, dtype, accumulate, TFLOP/s as the vendor prints it (dense)
PUBLISHED_PEAKS = [
    # "NVIDIA Ampere Architecture In-Depth", table 3
    ("a100-sxm-80gb", "matrix", "bf16", None, 312), ("a100-sxm-80gb", "vector", "fp32", None, 19.5),
    ("a100-sxm-80gb", "matrix", "tf32", None, 156), ("a100-sxm-80gb", "vector", "fp64", None, 9.7),
    ("a100-sxm-80gb", "matrix", "fp64", None, 19.5), ("a100-sxm-80gb", "matrix", "int8", None, 624),
    ("v100-sxm-16gb", "matrix", "fp16", None, 125), ("v100-sxm-16gb", "vector", "fp32", None, 15.7),
    ("p100-sxm-16gb", "vector", "fp32", None, 10.6),
    # H100 whitepaper and datasheet (989 dense, 1979 sparse)
    ("h100-sxm-80gb", "matrix", "fp16", None, 989.4), ("h100-sxm-80gb", "matrix", "fp8", None, 1978.9),
    ("h200-sxm-141gb", "matrix", "bf16", None, 989.5), ("h100-pcie-80gb", "matrix", "bf16", None, 756),
    ("b200-sxm", "matrix", "bf16", None, 2250),
    # Ada whitepaper appendix A; GA102 whitepaper; "NVIDIA Turing Architecture In-Depth"; Blackwell whitepaper
    ("rtx4090", "matrix", "fp16", None, 165.2), ("rtx4090", "matrix", "fp16", "fp16", 330.3),
    ("rtx4090", "vector", "fp32", None, 82.6), ("rtx4090", "matrix", "fp8", None, 330.3),
    ("rtx3090", "matrix", "fp16", None, 71), ("rtx3090", "matrix", "fp16", "fp16", 142),
    ("rtx2080ti", "matrix", "fp16", None, 53.8), ("rtx5090", "matrix", "fp16", None, 209.5),
    # datasheets
    ("t4", "matrix", "fp16", None, 65), ("t4", "vector", "fp32", None, 8.1), ("l4", "matrix", "fp16", None, 121),
    ("l40s", "matrix", "bf16", None, 362.05), ("a10", "matrix", "bf16", None, 125),
    # AMD CDNA whitepapers
    ("mi300x", "matrix", "fp16", None, 1307.4), ("mi210", "matrix", "fp16", None, 181),
    ("mi100", "matrix", "bf16", None, 92.28), ("mi100", "matrix", "fp16", None, 184.6),
]  # fmt: skip


@pytest.mark.parametrize(("name", "engine", "dtype", "accumulate", "tflop_per_s"), PUBLISHED_PEAKS)
def test_published_peaks(name: str, engine: str, dtype: str, accumulate: str | None, tflop_per_s: float) -> None:
    assert load(name).peak(engine, dtype, accumulate).flop_per_s == pytest.approx(tflop_per_s * 1e12, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "gb_per_s", "gb", "l2_mib"),
    [
        ("a100-sxm-80gb", 2039, 80, 40), ("a100-sxm-40gb", 1555, 40, 40), ("a100-pcie-40gb", 1555, 40, 40),
        ("a100-pcie-80gb", 1935, 80, 40), ("h100-sxm-80gb", 3352, 80, 50), ("h200-sxm-141gb", 4800, 141, 50),
        ("v100-sxm-16gb", 900, 16, 6), ("t4", 320, 16, 4), ("l4", 300, 24, 48), ("rtx3090", 936, 24, 6),
        ("rtx4090", 1008, 24, 72), ("gtx1080ti", 484, 11, 2.75), ("mi300x", 5300, 192, 32),
    ],
)  # fmt: skip
def test_published_memories(name: str, gb_per_s: float, gb: float, l2_mib: float) -> None:
    profile = load(name)
    assert profile.dram_bytes_per_s == pytest.approx(gb_per_s * 1e9)
    assert profile.dram.capacity_bytes == pytest.approx(gb * 1e9)
    assert profile.memory_level("l2").capacity_bytes == l2_mib * 1024 * 1024


def test_a_whole_profile() -> None:
    h100 = load("h100")
    assert (h100.unit_count, h100.clock_hz, h100.matrix_clock_hz) == (132, 1.98e9, 1.83e9)
    assert h100.peak("matrix", "fp16").clock_hz == 1.83e9  # 132 x 1.83e9 x 4096 = 989.4e12
    assert (h100.compute_capability, h100.power_w, h100.limits.max_warps) == ("9.0", 700.0, 64)
    assert h100.limits.shared_memory_bytes == 228 * 1024
    assert h100.has_tf32
    assert h100.is_gpu
    assert not h100.is_cpu
    assert h100.ridge_point("matrix", "bf16") == pytest.approx(989.4e12 / 3352e9)
    l1 = h100.memory_level("l1")
    assert (l1.per_unit, l1.kind) == (True, "cache")
    assert hash(h100) == hash(load("h100"))
    with pytest.raises(AttributeError):
        h100.name = "x"  # type: ignore[misc]


def test_machines_without_tf32() -> None:
    assert [
        name for name in ("v100", "t4", "gtx1080ti", "rtx2080ti", "mi210", "i9-10940x") if load(name).has_tf32
    ] == []


def test_overheads() -> None:
    a100, l40s, cpu = load("a100"), load("l40s"), load("i9-10940x")
    assert a100.kernel_fixed_s == pytest.approx(3.3e-6, rel=0.05)  # measured floors of small GEMMs
    assert l40s.kernel_fixed_s == pytest.approx(1.9e-6, rel=0.07)
    assert cpu.kernel_fixed_s == 0
    assert cpu.overheads.dispatch_s > a100.overheads.dispatch_s > 0


def test_a_processor_with_two_kinds_of_cores() -> None:
    peak = load("i7-12700h").peak("vector", "fp32")
    assert peak.flop_per_s == pytest.approx(6 * 2.3e9 * 32 + 8 * 1.7e9 * 16)
    assert peak.units == 14
    assert peak.flop_per_clock == pytest.approx(peak.flop_per_s / 14 / 2.3e9)
    assert not peak.verified


# --- names ----------------------------------------------------------------------------------------------------------

#: Devices of the public timings that predictions are validated with: timm, NeuSight, AIConfigurator, DeepBench, NVIDIA.
MEASURED_DEVICES = [
    "rtx3090", "rtx4090", "i9-10940x", "a100-pcie-40gb", "a100-pcie-80gb", "p100-pcie-16gb", "t4", "v100-pcie-32gb",
    "a100-sxm-80gb", "l40s", "gtx1080ti", "p100-sxm-16gb", "v100-sxm-16gb",
    "A10", "A100-SXM4-40GB(DGX)", "A100-SXM4-80GB(DGX)", "A30", "A40", "T4", "V100-SXM-16GB", "V100-SXM-32GB",
]  # fmt: skip


@pytest.mark.parametrize("name", MEASURED_DEVICES)
def test_measured_devices_are_known(name: str) -> None:
    assert load(name).name == name.lower().replace("(dgx)", "").replace("sxm4", "sxm")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("a100", "a100-sxm-80gb"), ("h100", "h100-sxm-80gb"), ("h200", "h200-sxm-141gb"), ("v100", "v100-sxm-16gb"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"), ("Tesla T4", "t4"), ("NVIDIA H100 80GB HBM3", "h100-sxm-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"), ("Tesla V100-SXM2-16GB", "v100-sxm-16gb"),
    ],
)  # fmt: skip
def test_aliases_and_what_drivers_call_a_device(asked: str, name: str) -> None:
    assert load(asked).name == name


def test_names_aliases_and_catalogue_agree() -> None:
    assert hardware.names() == sorted(path.stem for path in FILES)
    assert hardware.aliases()["a100"] == "a100-sxm-80gb"
    assert not set(hardware.aliases()) & set(hardware.names())
    rows = {row.name: row for row in hardware.catalogue()}
    assert list(rows) == hardware.names()
    a100, t4 = rows["a100-sxm-80gb"], rows["t4"]
    assert (a100.fp32, a100.tf32, a100.fp16, a100.bf16) == (19.5e12, 156e12, 312e12, 312e12)
    assert (t4.tf32, t4.bf16, t4.dram_bytes_per_s, t4.l2_bytes) == (None, None, 320e9, 4 * 2**20)
    assert rows["graviton3"].l2_bytes == 64 * 2**20


def test_unknown_name_reads_like_a_librarian() -> None:
    with pytest.raises(UnknownHardwareError) as caught:
        load("rtx409")
    text = str(caught.value)
    assert "no hardware profile is called 'rtx409'" in text
    assert "\n    a10   " in text and "a100-sxm-80gb" in text  # in columns
    assert re.search(r"did you mean .*rtx4090", text)
    assert "hw_profiles/<name>.toml" in text


@pytest.mark.parametrize("asked", ["", "../t4", "no/such.toml", "a100 h100"])
def test_other_unknown_names(asked: str) -> None:
    with pytest.raises(UnknownHardwareError):
        load(asked)


def test_missing_peak_and_level_name_what_there_is() -> None:
    with pytest.raises(ProfileError, match=r"no peak for matrix bf16 with fp32 accumulate\n  there are: .*matrix fp16"):
        load("v100").peak("matrix", "bf16")
    with pytest.raises(ProfileError, match="no memory level 'l3'\n  there are: dram, l2, l1"):
        load("v100").memory_level("l3")
    assert load("v100").find_peak("matrix", "bf16") is None


def test_describe_gives_every_figure_with_its_source() -> None:
    facts = {(fact.section, fact.key): fact for fact in hardware.describe(load("a100"))}
    peak = facts["matrix.bf16", "peak"]
    assert peak.value == "312 TFLOP/s"
    assert "Ampere Architecture In-Depth" in peak.source
    assert facts["matrix.bf16", "made_of"].value == "108 x 1.41 GHz x 2048 FLOP/clock"
    assert facts["units", "base_clock"].source.startswith("unverified")
    assert facts["derived", "ridge point, matrix bf16 (fp32)"].value == "153 FLOP/B"  # 312e12 / 2039e9 = 153.0
    assert all(fact.source for fact in facts.values() if fact.section not in ("machine", "notes"))


def test_a_cpu_with_two_kinds_of_cores_keeps_them_apart() -> None:
    """i7-12700H: 6 performance cores of 2 x 8 lanes at 2.3 GHz, 8 efficiency cores of 2 x 4 lanes at 1.7 GHz."""
    fast, slow = load("i7-12700h").cores
    assert (fast.count, fast.clock_hz, fast.flop_per_clock) == (6, 2.3e9, 2 * 8 * 2)
    assert (slow.count, slow.clock_hz, slow.flop_per_clock) == (8, 1.7e9, 2 * 4 * 2)
    assert fast.simd_bits == slow.simd_bits == 256
    assert fast.flop_per_s + slow.flop_per_s == pytest.approx(441.6e9 + 217.6e9)


@pytest.mark.parametrize("name", [n for n in hardware.names() if load(n).is_cpu])
def test_the_cores_of_a_cpu_add_up_to_its_units_and_its_peak(name: str) -> None:
    profile = load(name)
    assert sum(group.count for group in profile.cores) == profile.unit_count
    assert sum(group.flop_per_s for group in profile.cores) == pytest.approx(
        profile.peak("vector", "fp32").flop_per_s, rel=0.01
    )


# --- where it runs --------------------------------------------------------------------------------------------------


def test_found_in_an_installed_package_too(tmp_path: Path) -> None:
    """In a wheel the files lie in costmodel/hw_profiles."""
    root = Path(__file__).parent.parent
    skip = shutil.ignore_patterns("__pycache__")
    for part in ("__init__.py", "errors.py", "units.py", "version.py"):
        (tmp_path / "costmodel").mkdir(exist_ok=True)
        shutil.copy(root / "costmodel" / part, tmp_path / "costmodel" / part)
    for room in ("devices", "hardware"):
        shutil.copytree(root / "costmodel" / room, tmp_path / "costmodel" / room, ignore=skip)
    shutil.copytree(root / "hw_profiles", tmp_path / "costmodel" / "hw_profiles")
    code = "import costmodel.hardware as h; print(h.load('a100').path)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert Path(done.stdout.strip()) == (tmp_path / "costmodel/hw_profiles/a100-sxm-80gb.toml").resolve(), done.stderr


def test_import_needs_nothing_heavy() -> None:
    code = "import costmodel.hardware, sys; print(sorted({'torch', 'numpy', 'sympy', 'networkx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_loading_one_machine_reads_one_file_and_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Path.read_text
    _load_as_of.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda self, **kw: read.append(self.name) or original(self, **kw))
    load("a100-sxm-80gb")
    assert read == ["a100-sxm-80gb.toml"]
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        load("a100-sxm-80gb")
        best = min(best, time.process_time() - start)
    assert best < 0.010


def test_types() -> None:
    assert isinstance(load("t4"), HardwareProfile)
    assert all(isinstance(key, tuple) and len(key) == 3 for key in load("t4").peaks)
