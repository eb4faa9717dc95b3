"""Calibration: a fake clock instead of time, figures that must be found again, and nothing half-written."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

from costmodel import hardware
from costmodel.cli import main
from costmodel.errors import InputError
from costmodel.hardware import HardwareProfile
from costmodel.hardware.read import parse_toml, profile_from
from costmodel.host import span_of
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Attention, Product
from costmodel.measure import calibrate, calibrate_cpu, microbench_cpu
from costmodel.measure.calibrate import calibrate_cpu as run_calibration
from costmodel.measure.calibrate_cpu import Roofs, Rounds, time_entries
from costmodel.measure.calibrate_cuda import calibrate_cuda, cuda_profile_text
from costmodel.measure.calibrate_fit import Timed, cold_curve, fit_kernels, non_negative_least_squares
from costmodel.measure.machine_cpu import Busy, cpu_facts
from costmodel.measure.microbench import Entry, kernels_of
from costmodel.measure.microbench_cpu import cpu_entries
from costmodel.timing.gemm_machine import GemmMachine
from costmodel.timing.gpu import gpu_kernel_time
from costmodel.timing.machine import GpuMachine


class FakeClock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def call(self, seconds: float) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            self.now += seconds
            return torch.ones(2, 2)

        return run


def relu(shape: tuple[int, ...], call: Callable[[], Any] | None = None, *, tiny: bool = False) -> Entry:
    x = torch.ones(shape)
    return Entry(f"relu {shape}", "aten.relu", {"input": x}, call or (lambda: torch.relu(x)), (x,), tiny=tiny)


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing else runs."""
    monkeypatch.setattr(calibrate_cpu, "busy_seconds", lambda: Busy(0.0, 0.0, 0.0, 0.0))


# -- timing ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("undisturbed")
def test_every_entry_is_timed_by_the_clock_alone() -> None:
    clock = FakeClock()
    entries = [relu((2, 2), clock.call(2e-6), tiny=True), relu((4, 4), clock.call(7e-6))]
    rounds = time_entries(entries, hardware.load("i9-10940x"), seconds=1e-3, clock=clock)
    assert [item.seconds for item in rounds.timed] == pytest.approx([2e-6, 7e-6])
    assert rounds.timed[0].warmer_s == pytest.approx([2e-6] * 5)  # a loop, and rounds over four sizes
    assert rounds.timed[1].warmer_s == ()
    assert rounds.spread == pytest.approx(0, abs=1e-9)
    assert rounds.drift == pytest.approx(0, abs=1e-9)
    assert rounds.disturbed == 0


def test_rounds_in_which_others_used_the_cores_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third reading of the system's counters finds that another process has had a whole second of the cores."""
    used, reading = 0.0, itertools.count()

    def busy() -> Busy:
        nonlocal used
        used += 1.0 if next(reading) % 3 == 0 else 0.0
        return Busy(0.0, used, 0.0, there=float(next(reading)))

    monkeypatch.setattr(calibrate_cpu, "busy_seconds", busy)
    clock = FakeClock()
    entries = [relu((2, 2), clock.call(2e-6), tiny=True)]
    rounds = time_entries(entries, hardware.load("i9-10940x"), seconds=1e-4, clock=clock)
    assert 0 < rounds.disturbed < 1
    assert rounds.samples > 0


def test_a_spread_is_the_interquartile_range_over_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of 1, 2, 3, 4, 5 µs over and over: quartiles 2 and 4, median 3."""
    monkeypatch.setattr(calibrate_cpu, "busy_seconds", lambda: Busy(0.0, 0.0, 0.0, 0.0))
    clock, durations = FakeClock(), itertools.cycle([1e-6, 2e-6, 3e-6, 4e-6, 5e-6])

    def run() -> torch.Tensor:
        clock.now += next(durations)
        return torch.ones(2, 2)

    rounds = time_entries([relu((2, 2), run, tiny=True)], hardware.load("i9-10940x"), seconds=3e-3, clock=clock)
    assert rounds.spread == pytest.approx(2 / 3, rel=0.02)


def test_touching_writes_what_a_producer_would_have_written() -> None:
    entry = relu((2, 2))
    before = entry.activations[0]._version
    entry.touch()
    assert entry.activations[0]._version > before
    assert entry.activations[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """All benchmarks on the meta device: shapes and calls, no numbers."""

    def shaped(*shape: Any) -> torch.Tensor:
        return torch.empty(shape[0] if isinstance(shape[0], tuple) else shape, device="meta")

    monkeypatch.setattr(microbench_cpu, "_random", shaped)
    return cpu_entries()


def test_every_kind_has_a_tiny_benchmark_and_all_names_differ(entries: list[Entry]) -> None:
    machine = hardware.load("i9-10940x")
    assert len({entry.name for entry in entries}) == len(entries) > 200
    with torch.inference_mode():
        timed = [
            Timed(kernels=kernels_of(e, machine) if e.arguments else (), in_place=e.in_place, seconds=1.0)
            for e in entries
        ]
    tiny = {item.kind for item, entry in zip(timed, entries, strict=True) if entry.tiny}
    assert {item.kind for item in timed} == tiny
    moved = sum(tensor.nbytes for entry in entries for tensor in entry.activations)
    assert moved > 4 * 32 * 2**20  # a round pushes everything out of a large last level cache, several times


# -- figures ---------------------------------------------------------------------------------------


def linear(m: int, k: int, n: int) -> Kernel:
    """A matrix product by hand: two FLOP a multiply-accumulate, four bytes a number."""
    return Kernel(
        "aten.linear", "gemm", matrix_flops=2 * m * k * n, bytes_read=4 * (m * k + k * n), bytes_written=4 * m * n,
        shape=Product(m, n, k), elements=m * n,
    )  # fmt: skip


def test_rates_are_found_again() -> None:
    """Times made of 60 µs, 100 GFLOP/s, 8 GB/s for weights and 16 GB/s for activations."""
    timed = []
    for m, k, n in ((8, 16, 16), (196, 192, 576), (49, 768, 3072), (1024, 1024, 1024), (3136, 96, 384), (16, 512, 512)):
        seconds = 60e-6 + 2 * m * k * n / 100e9 + 4 * k * n / 8e9 + 4 * (m * k + m * n) / 16e9
        warmer = (10e-6, 20e-6) if m == 8 else ()
        timed.append(Timed(kernels=(linear(m, k, n),), in_place=False, seconds=seconds, warmer_s=warmer))
    found = fit_kernels(timed)["linear"]
    assert found.flop_per_s == pytest.approx(100e9, rel=1e-6)
    assert found.weight_bytes_per_s == pytest.approx(8e9, rel=1e-6)
    assert found.activation_bytes_per_s == pytest.approx(16e9, rel=1e-6)
    assert (found.hot_s, found.cold_s) == pytest.approx((10e-6, 60e-6))


def test_a_table_holds_what_lies_beyond_the_fixed_time_and_never_falls() -> None:
    def one(elements: int, seconds: float, warmer: tuple[float, ...] = ()) -> Timed:
        kernel = Kernel("aten.relu", "elementwise", elements=elements)
        return Timed(kernels=(kernel,), in_place=True, seconds=seconds, warmer_s=warmer)

    found = fit_kernels([one(100, 10e-6, (2e-6, 5e-6)), one(1000, 9e-6), one(5000, 30e-6)])["relu_in_place"]
    assert (found.hot_s, found.cold_s) == (2e-6, 10e-6)
    assert found.elements == (100, 1000, 5000)
    assert found.time_s == pytest.approx((0.0, 0.0, 20e-6))


def test_a_kind_without_a_tiny_benchmark_is_refused() -> None:
    with pytest.raises(ValueError, match="no tiny benchmark of relu"):
        fit_kernels([Timed(kernels=(Kernel("aten.relu", "elementwise", elements=9),), in_place=False, seconds=1.0)])


def test_least_squares_without_negatives_is_the_best_of_all_subsets() -> None:
    """Every choice of columns that may differ from 0 is tried; the best whose solution is not negative wins."""
    random = numpy.random.default_rng(0)
    for _ in range(20):
        matrix, target = random.normal(size=(8, 4)), random.normal(size=8)
        best = float(numpy.sum(target**2))
        for count in range(1, 5):
            for columns in itertools.combinations(range(4), count):
                x, *_ = numpy.linalg.lstsq(matrix[:, columns], target, rcond=None)
                if (x >= 0).all():
                    best = min(best, float(numpy.sum((matrix[:, columns] @ x - target) ** 2)))
        found = non_negative_least_squares(matrix, target)
        assert (found >= 0).all()
        assert float(numpy.sum((matrix @ found - target) ** 2)) == pytest.approx(best)


def test_the_cold_curve_lies_between_the_loop_and_the_full_round() -> None:
    """A tiny operator of 8 B takes 1 µs in a loop, 2 µs among small ones, 5 µs among all: a quarter of the way."""
    tiny = Timed(
        kernels=(Kernel("aten.relu", "elementwise", elements=1, bytes_read=4, bytes_written=4),),
        in_place=False, seconds=5e-6, warmer_s=(1e-6, 2e-6),
    )  # fmt: skip
    large = Timed(
        kernels=(Kernel("aten.relu", "elementwise", elements=1, bytes_read=500, bytes_written=492),),
        in_place=False, seconds=1e-3,
    )  # fmt: skip
    sizes, shares = cold_curve([tiny, large], [100])
    assert sizes == (8.0, 500.0)  # alone; the mean of 8 and 992
    assert shares == pytest.approx((0.25, 1.0))


# -- the file --------------------------------------------------------------------------------------


def few() -> list[Entry]:
    return [relu((2, 2), tiny=True), relu((64, 64)), relu((256, 256))]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, undisturbed: None) -> None:
    """No roofs and no page faults to measure."""
    monkeypatch.setattr(calibrate, "measure_roofs", lambda capacities, **_: roofs_for(capacities))
    monkeypatch.setattr(calibrate, "page_fault_seconds", lambda **_: 1.9e-6)


def roofs_for(capacities: dict[str, float]) -> Roofs:
    bandwidths = {**dict.fromkeys(capacities, 1e11), "dram": 2e10}
    return Roofs(flop_per_s={"fp32": 1e11}, single_thread_flop_per_s=5e10, bytes_per_s=bandwidths)


@pytest.mark.usefixtures("quick")
def test_the_profile_is_an_ordinary_one(tmp_path: Path) -> None:
    ticks = itertools.count()
    text = run_calibration("mine", command="costmodel calibrate -o mine.toml", version="9.9", seconds=1e-3, entries=few,
                           clock=lambda: next(ticks) * 1e-6)  # fmt: skip
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    assert [p for p in hardware.check(path) if p.severity == "error"] == []
    profile = hardware.load(path)
    assert profile.is_cpu and profile.unit_count == cpu_facts().cores
    assert "costmodel calibrate -o mine.toml" in profile.peak("vector", "fp32").source
    assert f"costmodel 9.9, torch {torch.__version__}" in profile.peak("vector", "fp32").source
    assert profile.calibration is not None
    assert profile.calibration.page_fault_s == pytest.approx(1.9e-6)
    assert set(profile.calibration.kernels) == {"relu"}
    assert profile.calibration.kernels["relu"].elements == (4, 4096, 65536)


def test_a_busy_machine_is_told_by_how_much_its_timings_scatter() -> None:
    rounds = Rounds(timed=[], samples=1, spread=0.61, drift=0.3, steal=0.02, repeats=2)
    note = calibrate.scatter_note(rounds, 0.35)
    assert "2 repeated bursts" in note and "scatter by 61%" in note and "below 35%" in note and "wider" in note
    assert calibrate.scatter_note(dataclasses.replace(rounds, spread=0.3), 0.35) == ""


def scattering(clock: FakeClock, factors: Iterable[float]) -> Callable[[], torch.Tensor]:
    durations = iter(factors)

    def run() -> torch.Tensor:
        clock.now += 1e-6 * next(durations)
        return torch.ones(2, 2)

    return run


@pytest.mark.usefixtures("undisturbed")
def test_what_scatters_is_repeated_and_the_calmest_bursts_count() -> None:
    """A machine that is busy for two bursts of three, in which calls take 5 to 9 us, and quiet from then on: 2.

    A burst of 100 us is 15 such calls, and 60 more over small operators alone.
    """
    clock = FakeClock()
    busy = itertools.chain(itertools.islice(itertools.cycle([5.0, 9.0]), 150), itertools.repeat(2.0))
    entries = [relu((4, 4), scattering(clock, busy))]
    rounds = time_entries(entries, hardware.load("i9-10940x"), seconds=3e-4, most_spread=0.35, clock=clock)
    assert rounds.repeats == 1  # a fourth burst: then two calm ones and a busy one count
    assert rounds.spread == pytest.approx(0, abs=1e-9)
    assert rounds.timed[0].seconds == pytest.approx(2e-6)


@pytest.mark.usefixtures("undisturbed")
def test_repeating_ends_and_the_scatter_is_said() -> None:
    clock = FakeClock()
    entries = [relu((4, 4), scattering(clock, itertools.cycle([1.0, 9.0])))]
    rounds = time_entries(entries, hardware.load("i9-10940x"), seconds=3e-4, most_spread=0.35, clock=clock)
    assert rounds.repeats == calibrate_cpu.REPEATS
    assert rounds.spread > 0.35


@pytest.mark.usefixtures("quick")
def test_a_busy_machine_gets_a_profile_whose_predictions_have_wider_intervals(tmp_path: Path) -> None:
    """The same machine quiet and with timings that scatter by 60 %: the same prediction, a wider interval, and why."""
    import costmodel

    ticks = itertools.count()
    text = run_calibration("mine", command="costmodel calibrate -o mine.toml", version="9.9", seconds=1e-3, entries=few,
                           clock=lambda: next(ticks) * 1e-6)  # fmt: skip
    found = []
    for spread in (0.1, 0.6):
        path = tmp_path / f"mine{spread}.toml"
        path.write_text(re.sub(r"^spread = .*$", f"spread = {spread}", text, flags=re.MULTILINE), encoding="utf-8")
        found.append(costmodel.analyze(torch.nn.ReLU(), torch.ones(4, 64), hw=str(path)))
    (quiet, busy) = found
    assert busy.totals.latency_s == quiet.totals.latency_s
    assert busy.totals.latency_high_s > 1.5 * quiet.totals.latency_high_s
    assert busy.totals.latency_low_s < quiet.totals.latency_low_s
    assert any("scattered by 60%" in line for line in busy.conventions)
    assert not any("scattered" in line for line in quiet.conventions)


def test_an_interrupted_calibration_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("old", encoding="utf-8")

    def interrupted(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "calibrate_cpu", interrupted)
    assert main(["calibrate", "-o", str(path)]) == 130
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.toml"]


def test_the_command_writes_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    monkeypatch.setattr(calibrate, "calibrate_cpu", lambda name, *, command, **_: f"# {name}: {command}\n")
    assert main(["calibrate", "-o", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == "# mine: costmodel calibrate -o mine.toml\n"
    assert "--hw" in capsys.readouterr().out


def test_a_profile_must_be_called_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "-o", str(tmp_path / "mine.json")])
    assert ended.value.code == 2
    assert ".toml" in capsys.readouterr().err


# -- CUDA ------------------------------------------------------------------------------------------


def calibrated(monkeypatch: pytest.MonkeyPatch, title: str, major: int, minor: int) -> HardwareProfile:
    """The profile that calibration writes of a GPU of 100 units that reached 80 TFLOP/s in fp16 and 20 in fp32."""
    facts = SimpleNamespace(name=title, major=major, minor=minor, multi_processor_count=100, clock_rate=1.5e6,
                            total_memory=24 * 2**30, L2_cache_size=6 * 2**20)  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    rates = {"fp32": 20e12, "tf32": 40e12, "fp16": 80e12, "bf16": 80e12}
    text = cuda_profile_text("mine", "cuda", rates, 8e11, 2e-6, 1.75, 1e-5, "costmodel calibrate", "9.9")
    return profile_from(parse_toml(text), Path("mine.toml"))


def test_a_measured_peak_is_the_rate_at_the_clock_that_the_board_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GeForce exceeds the clock on its box, and boards fall below their boost clock: both are in what was timed."""
    profile = calibrated(monkeypatch, "NVIDIA GeForce RTX 3090", 8, 6)
    engine = GemmMachine.from_profile(profile).engine("fp16")
    assert engine.flop_per_clock * engine.clock_hz * 100 == pytest.approx(80e12)
    assert GpuMachine.from_profile(profile).vector_flop_per_s == pytest.approx(20e12)
    attention = Kernel(op="aten.scaled_dot_product_attention", algorithm="flash_attention", engine="matrix",
                       dtype="fp16", shape=Attention(4096, 4096, 64, 64), matrix_flops=4 * 64 * 4096**2 * 64,
                       )  # fmt: skip
    assert attention.matrix_flops / gpu_kernel_time(attention, profile).compute_s < 80e12


@pytest.mark.parametrize(("title", "version", "kind", "rate"), [
    ("NVIDIA GeForce RTX 3090", (8, 6), "GDDR", 15), ("NVIDIA A100-SXM4-40GB", (8, 0), "HBM", 35),
])  # fmt: skip
def test_the_memory_of_a_calibrated_gpu_is_its_generations(
    monkeypatch: pytest.MonkeyPatch, title: str, version: tuple[int, int], kind: str, rate: int
) -> None:
    """L2 by micro-benchmark feeds a unit of a GPU with GDDR about 15 B a clock, with HBM about 35."""
    profile = calibrated(monkeypatch, title, *version)
    assert profile.dram.kind == kind
    assert GemmMachine.from_profile(profile).l2_bytes_per_s == pytest.approx(rate * 100 * 1.5e9)


def test_a_calibrated_gpu_is_issued_to_by_the_host_it_was_measured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = calibrated(monkeypatch, "NVIDIA GeForce RTX 3090", 8, 6)
    assert profile.measured_slowdown == 1.75
    span = span_of("usual", profile)
    assert span.is_named and span.assumed.slowdown == 1.75


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_without_a_gpu_there_is_nothing_to_calibrate() -> None:
    with pytest.raises(InputError, match="cuda"):
        calibrate_cuda("mine", command="costmodel calibrate -o mine.toml --device cuda", version="9.9")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gets_an_ordinary_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        calibrate_cuda("mine", command="costmodel calibrate -o mine.toml --device cuda", version="9.9"),
        encoding="utf-8",
    )
    assert [p for p in hardware.check(path) if p.severity == "error"] == []
    assert hardware.load(path).is_gpu
