"""The interval around a predicted latency."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from costmodel.kernels import KernelPlan
from costmodel.timing.timeline import Timeline

__all__ = ["COVERAGE_SIGMAS", "Drawn", "HostLatencies", "at_confidence", "drawn", "step_interval"]

#: Half the width of an interval that holds 90 % of a normal distribution, in standard deviations.
COVERAGE_SIGMAS = 1.645
#: What all kernels of a step share: clock, temperature, version of the libraries [1]. Between two releases of PyTorch
#: the same model on the same GPU differs by 1-3 % at the median and 6-15 % at the 90th percentile.
SHARED_SPREAD = 0.04
#: What a kernel of one shape has for itself [1]: half of the public GEMM timings err by 6 %, a tenth by more than 18 %.
#: In a model of many shapes it averages out.
SHAPE_SPREAD = 0.09


#: Standard deviation of a board's average power over the prediction [1], beside that of its time.
POWER_SPREAD = 0.15


class Drawn(NamedTuple):
    """What a step draws, with the intervals that should hold nine of ten measurements: power [W] and energy [J]."""

    power_w: float
    power_low_w: float
    power_high_w: float
    energy_low_j: float
    energy_high_j: float


class HostLatencies(NamedTuple):
    """Seconds of one step under the hosts that it may run with: the quickest, the one assumed, the slowest."""

    quickest: float
    assumed: float
    slowest: float


def step_interval(
    plan: KernelPlan, timeline: Timeline, unrest: float = 0.0, hosts: HostLatencies | None = None
) -> tuple[float, float]:
    """(low, high) [s] that should hold nine of ten measurements.

    Kernels of one algorithm have an error in common, and each shape has one of its own; errors of different algorithms
    and of different shapes are taken to be independent. ``unrest`` is a relative spread [1] that all kernels share
    besides: that of the timings which a machine was calibrated with. ``hosts`` says how far the step moves with the
    host, whose error is not the kernels'.
    """
    low, high = _device_interval(plan, timeline, unrest)
    if hosts is None or not hosts.assumed:
        return low, high
    return low * hosts.quickest / hosts.assumed, high * hosts.slowest / hosts.assumed


def at_confidence(low: float, predicted: float, high: float, confidence: float) -> float:
    """The value that a measurement stays below with the probability ``confidence`` [1], where (low, high) holds nine of
    ten around ``predicted``: its error is taken to be log-normal, with a width of its own on each side.

    >>> at_confidence(4.0, 5.0, 8.0, 0.5), round(at_confidence(4.0, 5.0, 8.0, 0.95), 3)
    (5.0, 8.0)
    """
    if not (0 < low <= predicted <= high):
        return high if confidence > 0.5 else low if confidence < 0.5 else predicted
    sigmas = NormalDist().inv_cdf(confidence) / COVERAGE_SIGMAS
    end = high if sigmas >= 0 else low
    return float(predicted * (end / predicted) ** abs(sigmas)) if sigmas else predicted


def drawn(timeline: Timeline, interval: tuple[float, float], limit_w: float | None) -> Drawn | None:
    """Power and energy of a step whose time lies in ``interval`` [s]; None where its energy is not modelled.

    Errors of time and of power are taken to be independent; no board draws more than its limit for long.
    """
    power, energy, seconds = timeline.power_w, timeline.energy_j, timeline.latency_s
    if not math.isfinite(power) or not seconds:
        return None
    most = math.exp(COVERAGE_SIGMAS * POWER_SPREAD)
    low, high = power / most, min(power * most, max(limit_w or math.inf, power))
    sooner, later = (abs(math.log(end / seconds)) for end in interval)
    least, largest = math.hypot(sooner, math.log(power / low)), math.hypot(later, math.log(high / power))
    return Drawn(power, low, high, energy / math.exp(least), energy * math.exp(largest))


def _device_interval(plan: KernelPlan, timeline: Timeline, unrest: float) -> tuple[float, float]:
    latency, by_algorithm, by_shape = 0.0, dict[str, float](), dict[int, float]()
    kernels, alike, kinds = plan.kernels, plan.alike, timeline.kinds
    kernel_of = dict(zip(timeline.of_launch, plan.called, strict=True))
    for kind, seconds in timeline.of_kinds:
        algorithm, shape = kernels[kernel_of[kind]].algorithm, alike[kernel_of[kind]]
        latency += seconds
        by_algorithm[algorithm] = by_algorithm.get(algorithm, 0.0) + kinds[kind].spread * seconds
        by_shape[shape] = by_shape.get(shape, 0.0) + SHAPE_SPREAD * seconds
    if not latency:
        return 0.0, 0.0
    spread = math.hypot(SHARED_SPREAD * latency, unrest * latency, *by_algorithm.values(), *by_shape.values()) / latency
    factor = math.exp(COVERAGE_SIGMAS * spread)
    return latency / factor, latency * factor
