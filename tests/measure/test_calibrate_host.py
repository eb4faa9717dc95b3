"""A host measured on its CPU: a fake clock instead of time, slowdowns that must be found again, a file that is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from costmodel.cli import main
from costmodel.host import read_host
from costmodel.measure.calibrate_host import REFERENCE_US, host_figures, host_slowdown, reference_us


class FakeClock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, 0

    def __call__(self) -> float:
        return self.now

    def call(self, seconds: float, disturbed_every: int = 0) -> Callable[[], None]:
        def run() -> None:
            self.calls += 1
            late = disturbed_every and self.calls % disturbed_every == 0
            self.now += seconds + (1e-3 if late else 0.0)

        return run


def calls(clock: FakeClock, slowdown: float, disturbed_every: int = 0) -> dict[str, Callable[[], None]]:
    return {name: clock.call(slowdown * us * 1e-6, disturbed_every) for name, us in REFERENCE_US.items()}


@pytest.mark.parametrize("slowdown", [0.5, 1.0, 2.7])
def test_a_host_that_takes_so_much_longer_has_that_slowdown(slowdown: float) -> None:
    clock = FakeClock()
    figures = host_figures(rounds=20, clock=clock, calls=calls(clock, slowdown))
    assert host_slowdown(figures) == pytest.approx(slowdown)
    assert figures.spread == pytest.approx(0, abs=1e-6)


def test_neighbours_that_disturb_most_rounds_do_not_count() -> None:
    """One call in 300 is 1 ms late: two rounds of 200 calls in three."""
    clock = FakeClock()
    figures = host_figures(rounds=60, clock=clock, calls=calls(clock, 2.0, disturbed_every=300))
    assert host_slowdown(figures) == pytest.approx(2.0)


def test_a_gpu_adds_the_launch_to_what_launches_and_nothing_to_the_rest() -> None:
    cpu, gpu = reference_us(), reference_us("cuda")
    assert set(cpu) == set(gpu)
    assert all(gpu[name] - cpu[name] > 2 for name in ("add", "linear", "conv2d", "batch_norm"))  # a launch is 2 to 5 µs
    assert abs(gpu["module"] - cpu["module"]) < 0.5 and abs(gpu["empty"] - cpu["empty"]) < 0.5


def test_the_command_writes_a_host_that_other_commands_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, started = tmp_path / "mine.toml", time.perf_counter()
    assert main(["calibrate", "--host-only", "-o", str(path)]) == 0
    assert time.perf_counter() - started < 30
    assert f"use it as --host {path}" in capsys.readouterr().out
    host = read_host(path)
    assert host.name == "mine" and host.cpu and "calibrate --host-only" in host.source
    assert 0.1 < host.slowdown < 20
    assert (host.pageable_copy_bytes_per_s is not None) == torch.cuda.is_available()
    assert main(["hw", "check", str(path)]) == 0
    assert main(["hw", "show", str(path)]) == 0
    assert "slowdown" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_without_a_gpu_its_launches_cannot_be_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    assert main(["calibrate", "--host-only", "--device", "cuda", "-o", str(path)]) == 2
    assert "cuda" in capsys.readouterr().err
    assert not path.exists()
