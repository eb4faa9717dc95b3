"""Calibration of a host: how long PyTorch's own code takes on one of its cores, against the reference core.

Tiny tensors: there is next to nothing to compute, so a call's time is Python, dispatcher, checks, allocation. On the
CPU that is all; on a CUDA device the launch and cuDNN's descriptors come on top, which is the path that a step takes.
"""

from __future__ import annotations

import datetime
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from costmodel.execution import Software
from costmodel.host import costs_of
from costmodel.measure.latency import check_device, pinned_threads, spread_of
from costmodel.measure.machine_cpu import cpu_facts
from costmodel.measure.profile_text import toml_text

__all__ = ["REFERENCE_US", "HostFigures", "calibrate_host", "host_figures", "host_slowdown", "reference_us"]

Progress = Callable[[str, int, int], None]

#: What the calls of :func:`_calls` take on the CPU of a host that counts as 1 [µs]: by this module, PyTorch 2.13, on a
#: guest of two cores of an AMD EPYC at 2.6 GHz. Unverified: no host was timed both ways. It counts as 1 because its
#: empty tensor takes what the table of PyTorch 2 has for an allocation (0.8 µs), and servers of its years are at 0.85
#: and 1.3 in the catalogue; slowdowns from the CPU alone are written with :data:`CPU_SPREAD`.
REFERENCE_US: Mapping[str, float] = MappingProxyType(
    {"module": 0.56, "empty": 0.82, "view": 0.37, "add": 0.79, "linear": 1.04, "conv2d": 2.02, "batch_norm": 2.80}
)
#: One standard deviation of a slowdown that was read off the CPU alone, over the real one [1]: hosts differ in how
#: launches and descriptors compare with the rest. On a device it is the timings' own, and at least the second.
CPU_SPREAD, LEAST_SPREAD = 0.25, 0.05
_ROUNDS, _CALLS = 400, 200
#: Share of the rounds that are quicker than what counts [1].
_QUIET = 0.1
_COPIED_ELEMENTS = 12 * 3 * 224 * 224


class HostFigures(NamedTuple):
    """µs of each call, and how far rounds scattered: interquartile range over the median, the median of all calls."""

    call_us: Mapping[str, float]
    spread: float


def reference_us(device: str = "cpu") -> Mapping[str, float]:
    """What the calls take on the reference core, by name: measured for a CPU, of PyTorch 2's table for a GPU."""
    if device == "cpu":
        return REFERENCE_US
    costs = costs_of(Software())
    classes, result = costs.classes, costs.allocation
    return {
        "module": costs.module,
        "empty": result,
        "view": classes["view"],
        "add": classes["pointwise"] + result,
        "linear": classes["product"] + result,
        "conv2d": classes["convolution"] + result,
        "batch_norm": classes["normalization"] + result,
    }


def _calls(device: str) -> dict[str, Callable[[], Any]]:
    """Calls of tiny tensors by what they show; each is of another part of PyTorch's code."""
    x, rows = torch.ones(1, 8, 4, 4, device=device), torch.ones(1, 8, device=device)
    weight, square = torch.ones(8, 8, 1, 1, device=device), torch.ones(8, 8, device=device)
    ones, bare = torch.ones(8, device=device), torch.nn.Identity().eval()
    return {
        "module": lambda: bare(x),
        "empty": lambda: torch.empty(8, device=device),
        "view": lambda: x.view(8, 16),
        "add": lambda: x + x,
        "linear": lambda: F.linear(rows, square),
        "conv2d": lambda: F.conv2d(x, weight),
        "batch_norm": lambda: F.batch_norm(x, ones, ones, ones, ones),
    }


def host_figures(
    device: str = "cpu",
    *,
    rounds: int = _ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
    calls: Mapping[str, Callable[[], Any]] | None = None,
) -> HostFigures:
    """Time each call in turn, round after round, so that what else the machine does falls on all of them alike.

    A call's figure is the tenth percentile of its rounds: a neighbour can only add time. On a device calls are
    issued and not waited for; between rounds the device catches up.
    """
    wait = (lambda: None) if device == "cpu" else torch.cuda.synchronize
    samples: dict[str, list[float]] = {}
    with pinned_threads(1), torch.inference_mode():
        chosen = calls or _calls(device)
        for call in chosen.values():
            _seconds_of(call, _CALLS, clock)
        for done in range(rounds):
            for name, call in chosen.items():
                wait()
                samples.setdefault(name, []).append(_seconds_of(call, _CALLS, clock))
            if progress is not None and (done + 1) % 10 == 0:
                progress("operators of tiny tensors", done + 1, rounds)
    figures = {name: 1e6 * _quiet(taken) for name, taken in samples.items()}
    return HostFigures(figures, statistics.median(map(spread_of, samples.values())))


def _seconds_of(call: Callable[[], Any], count: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(count):
        call()
    return (clock() - started) / count


def _quiet(samples: Sequence[float]) -> float:
    return sorted(samples)[int(_QUIET * len(samples))]


def host_slowdown(figures: HostFigures, device: str = "cpu") -> float:
    """Times that this host takes what the reference core does: the geometric mean over the calls [1]."""
    reference = reference_us(device)
    return math.exp(statistics.fmean(math.log(figures.call_us[name] / us) for name, us in reference.items()))


def _copy_bytes_per_s() -> float:
    """Rate at which ordinary memory is copied to the CUDA device: twelve pictures, the median of nine copies."""
    images, seconds = torch.ones(_COPIED_ELEMENTS), []
    for _ in range(10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        images.to("cuda")
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 4 * _COPIED_ELEMENTS / statistics.median(seconds[1:])


def calibrate_host(
    name: str,
    *,
    command: str,
    version: str,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
) -> str:
    """This machine's host profile as TOML, in a few seconds. ``device`` "cuda" times the launches to a GPU.

    Raises InputError for a device that is not there.
    """
    if device != "cpu":
        check_device(device)
    figures = host_figures(device, clock=clock, progress=progress)
    has_gpu = device != "cpu" or torch.cuda.is_available()
    copy = {"pageable_copy": f"{_copy_bytes_per_s() / 1e9:.3g} GB/s"} if has_gpu else {}
    title, day = cpu_facts().title, datetime.date.today().isoformat()
    spread = math.hypot(CPU_SPREAD, figures.spread) if device == "cpu" else max(LEAST_SPREAD, figures.spread)
    reference = reference_us(device)
    measured = ", ".join(f"{call} {us:.2f} ({reference[call]:.2f})" for call, us in figures.call_us.items())
    top: dict[str, Any] = {
        "name": name,
        "title": f"{title}, as measured",
        "cpu": title,
        "slowdown": float(f"{host_slowdown(figures, device):.3g}"),
        "spread": round(spread, 3),
        **copy,
        "source": f"{command} (costmodel {version}, torch {torch.__version__}, {platform.system()}, {day})",
        "notes": [f"µs of a call on this host (on the reference core): {measured}"],
    }
    if device == "cpu":
        top["notes"].append("read off the CPU alone: launches to a GPU were not timed (--device cuda times them)")
    return toml_text({"": top}, source="", heading=f"{title}, as measured by `{command}` on {day}.")
