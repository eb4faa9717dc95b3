"""Rules about the run as a whole: the host, starts of kernels, branches, precision, and beaten rooflines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from costmodel.engines import engine_names
from costmodel.explain.case import HOST_SHARE, Case
from costmodel.explain.chains import longest_path
from costmodel.explain.rule import Finding, listed, rule
from costmodel.host import INSTANT
from costmodel.timing import step_timeline
from costmodel.units import format_percent, format_quantity, format_seconds

__all__ = ["batch_that_fills"]

#: Largest batch that is tried for filling the device [samples].
MOST_BATCH = 1024


@rule("launch_bound")
def launch_bound(case: Case) -> Iterator[Finding]:
    """The host cannot issue operators as fast as the device runs them."""
    waited = case.split.seconds("host")
    if not case.matters(waited, HOST_SHARE):
        return
    seconds = {node: causes["host"] for node, causes in case.split.by_node.items() if "host" in causes}
    nodes, count, busy = case.by_stake(seconds), len(case.analysis.bound.nodes), case.split.busy_s
    batch = batch_that_fills(case)
    busy_from = f"; batch {batch} would keep it busy" if batch else ""
    change, saving = _quicker_mode(case)
    yield Finding(
        rule="launch_bound",
        nodes=case.names(nodes),
        seconds_at_stake=waited,
        message=f"the host issues {count:,} operators in {format_seconds(case.latency_s)}, the device works for "
        f"{format_seconds(busy)} of it and waits for {format_seconds(waited)}{_where_it_waits(case)}{busy_from}",
        evidence={"operators": count, "device_busy_s": busy, "batch_that_fills": batch or "not found"},
        change=change,
        saving_s=saving,
    )


def _where_it_waits(case: Case) -> str:
    """In which part of a step with several the device waits: Python forward, autograd's thread, the optimizer."""
    waits = {phase.value: causes.get("host", 0.0) for phase, causes in case.split.by_phase.items()}
    told = [f"{format_seconds(seconds)} {name}" for name, seconds in waits.items() if seconds > 0]
    return f" ({', '.join(told)})" if len(waits) > 1 else ""


def _quicker_mode(case: Case) -> tuple[str, float | None]:
    """The engine under which this host holds the step back least, what it saves, and what the others would take."""
    now = case.analysis.execution.engine
    others = {name: case.at(mode=name) for name in engine_names(case.analysis.execution.phase) if name != now}
    seconds = {name: found.latency for name, found in others.items() if found is not None}
    best = min(seconds, key=seconds.__getitem__, default=now)
    if seconds.get(best, case.latency_s) >= case.latency_s:
        return "", None
    told = [f"{name} would take {format_seconds(seconds[name])}" for name in sorted(seconds, key=seconds.__getitem__)]
    return f"mode {', '.join(told)}", case.latency_s - seconds[best]


@rule("synchronization")
def synchronization(case: Case) -> Iterator[Finding]:
    """The host reads a value of the device (``.item()``, a mask as an index, ``nonzero``) and waits for it.

    It issues nothing until the value is there, so that the queue runs empty. At stake is what the step gains on a host
    that need not wait.
    """
    analysis = case.analysis
    reading = sorted(analysis.bound.synchronizing)
    if not reading:
        return
    nodes = [replace(node, synchronizes=False) for node in analysis.bound.nodes]
    free = replace(analysis.bound, nodes=nodes, memo={})
    lost = analysis.latency - step_timeline(analysis.plan, free, analysis.hardware, analysis.issued).latency_s
    if not case.matters(lost):
        return
    where = case.names(reading)
    yield Finding(
        rule="synchronization",
        nodes=where,
        seconds_at_stake=lost,
        message=f"{len(reading):,} times the host waits for a value of the device ({listed(where)}): "
        f"the queue runs empty, which costs {case.of_step(lost)}",
        evidence={"synchronizations": len(reading)},
        change="keep the value on the device, or read it once after the step",
        saving_s=lost,
    )


@rule("power_limited")
def power_limited(case: Case) -> Iterator[Finding]:
    """The board draws what it may, so that its clock falls: at stake is what a board without a limit would gain."""
    slowed = [slot for slot in case.analysis.timeline if slot.held_hz is not None]
    lost = case.split.seconds("power")
    if not slowed or not case.matters(lost):
        return
    hardware, totals = case.analysis.hardware, case.analysis.totals
    busy = sum(slot.busy_s for slot in slowed)
    held = sum((slot.held_hz or 0.0) * slot.busy_s for slot in slowed) / busy
    seconds = {node: causes["power"] for node, causes in case.split.by_node.items() if "power" in causes}
    yield Finding(
        rule="power_limited",
        nodes=case.names(case.by_stake(seconds)),
        seconds_at_stake=lost,
        message=f"the board may draw {hardware.power_limit_w:.0f} W and the step asks for more: its clock falls to "
        f"{format_quantity(held, 'Hz')}, which costs {case.of_step(lost)}",
        evidence={"power_limit_w": hardware.power_limit_w or 0.0, "power_w": totals.power_w or 0.0, "held_hz": held},
    )


def batch_that_fills(case: Case) -> int | None:
    """The smallest batch at which the device waits for no more than a tenth of the step; None up to 1024.

    The wait is what the step gains on the same machine with a host that takes no time.
    """

    def waits(batch: int) -> bool:
        now = case.at(batch=batch)
        return now is None or now.latency - now.at(host=INSTANT.name).latency > HOST_SHARE * now.latency

    high = case.analysis.execution.batch
    while waits(high):
        high *= 2
        if high > MOST_BATCH:
            return None
    low = max(high // 2, case.analysis.execution.batch)  # waits, or is the batch of now
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if waits(middle) else (low, middle)
    return high


@rule("small_kernels")
def small_kernels(case: Case) -> Iterator[Finding]:
    """Many kernels whose start, fill and drain take as long as their work."""
    fixed = case.split.seconds("fixed")
    if not case.analysis.hardware.family.issues_ahead or not fixed >= 0.15 * case.split.busy_s > 0:
        return
    if not case.matters(fixed):
        return
    seconds = {node: causes.get("fixed", 0.0) for node, causes in case.split.by_node.items()}
    nodes, count = case.by_stake(seconds), sum(start.kernel.starts for start in case.starts)
    yield Finding(
        rule="small_kernels",
        nodes=case.names(nodes),
        seconds_at_stake=fixed,
        message=f"{count:,} kernels spend {format_seconds(fixed)} of {format_seconds(case.split.busy_s)} on the device "
        f"on starting, filling and draining, {format_seconds(fixed / count)} each",
        evidence={"kernels": count, "seconds_each": fixed / count},
        **_fewer_starts(case, "fixed"),
    )


def _fewer_starts(case: Case, cause: str) -> dict[str, Any]:
    """Change and saving: fusion, or a larger batch where the step is fused already."""
    batch = 8 * case.analysis.execution.batch
    advice = case.advised("starts")
    if advice is None:
        return case.on_device(f"batch {batch} pays it once", case.cause_saving_s(cause, batch=batch))
    change, conditions = advice
    return case.on_device(change, case.cause_saving_s(cause, **conditions) if conditions else None)


@rule("framework_overhead")
def framework_overhead(case: Case) -> Iterator[Finding]:
    """On a CPU every operator of a model finds its code cold and ends in a join of all threads."""
    overhead = case.split.seconds("framework")
    if not case.matters(overhead, 0.05):
        return
    seconds = {node: causes.get("framework", 0.0) for node, causes in case.split.by_node.items()}
    count = len(case.starts)
    yield Finding(
        rule="framework_overhead",
        nodes=case.names(case.by_stake(seconds)),
        seconds_at_stake=overhead,
        message=f"{count:,} kernels pay {case.of_step(overhead)} for dispatch, "
        "cold code and joining threads, whatever their FLOPs",
        evidence={"kernels": count, "share": overhead / case.latency_s},
        **_fewer_starts(case, "framework"),
    )


@rule("fragmentation")
def fragmentation(case: Case) -> Iterator[Finding]:
    """Branches that depend on nothing but their block's input run one after the other in one stream.

    Side by side they could share no more than what they leave unused: units that idle, and the start and drain of
    kernels. On a full device nothing is gained.
    """
    whole = sum(case.device_s.values())
    length, path = longest_path(case.analysis.bound, case.device_s)
    hidden = {node: seconds for node, seconds in _unused_s(case).items() if node not in set(path)}
    nodes = case.by_stake(hidden)
    stake = sum(hidden[node] for node in nodes)
    if not case.matters(stake) or stake < 0.1 * whole:
        return
    yield Finding(
        rule="fragmentation",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{listed(case.names(nodes))} lie on parallel branches and run one behind the other: "
        f"{format_seconds(whole)} on the device where the longest path takes {format_seconds(length)}, and "
        f"{format_seconds(stake)} of what lies beside it are idle units, starts and drains of kernels",
        evidence={"critical_path_s": length, "sum_s": whole, "nodes_beside_the_path": len(nodes)},
        change="fewer, wider branches, or several streams (not evaluated)",
    )


def _unused_s(case: Case) -> dict[int, float]:
    """Seconds of each node that another kernel beside it could use: those it wastes on units that idle, starts and
    drains, as far as twice its work would not take twice its time."""
    double = case.at(batch=2 * case.analysis.execution.batch)
    longer = Case(double).device_s if double is not None else {}
    found = {}
    for node, seconds in case.device_s.items():
        causes = case.split.by_node.get(node, {})
        wasted = causes.get("tiles", 0.0) + causes.get("fixed", 0.0)
        found[node] = max(min(wasted, seconds, seconds - longer.get(node, 0.0) / 2), 0.0)
    return found


@rule("casts")
def casts(case: Case) -> Iterator[Finding]:
    """Autocast casts weights in every step, and activations where lists of operators meet."""
    seconds = {node: causes["casts"] for node, causes in case.split.by_node.items() if causes.get("casts", 0.0) > 0}
    stake, target = sum(seconds.values()), case.analysis.execution.precision.autocast
    if not case.matters(stake) or target is None:
        return
    nodes = case.by_stake(seconds)
    count = sum(start.kernel.algorithm == "cast" for start in case.starts)
    yield Finding(
        rule="casts",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"autocast copies {count:,} tensors into another dtype in every step, {case.of_step(stake)}"
        f" without a FLOP, most for {listed(case.names(nodes))}",
        evidence={"casts": count},
        **_converted(case, target),
    )


def _converted(case: Case, target: str) -> dict[str, Any]:
    """Change and saving of a model that is converted as a whole, which is no advice for one in training."""
    if case.analysis.bound.gradients:
        return {}
    change = f"model.to({target}) holds the weights in the lower precision"
    return {"change": change, "saving_s": case.saving_s(dtype=target)}


@rule("tf32_off")
def tf32_off(case: Case) -> Iterator[Finding]:
    """fp32 matrix products leave the tensor cores idle: PyTorch allows TF32 in convolutions only."""
    saving = case.saving_s(dtype="tf32") if case.analysis.execution.precision.operands == "fp32" else None
    if saving is None or not case.analysis.hardware.has_tf32:
        return
    seconds: dict[int, float] = {}
    for start in case.starts:
        kernel = start.kernel
        product = kernel.matrix_flops and kernel.algorithm in ("gemm", "batched_gemm", "efficient_attention")
        if product and (kernel.engine, kernel.dtype) == ("vector", "fp32"):
            seconds[start.node] = seconds.get(start.node, 0.0) + start.seconds
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake) or not case.matters(saving):
        return
    yield Finding(
        rule="tf32_off",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{listed(case.names(nodes))} run in fp32 on the vector lanes, {format_seconds(stake)} for "
        f"{format_percent(case.flop_share(nodes))} of the FLOPs, while the tensor cores could take them as TF32",
        evidence={"flop_share": case.flop_share(nodes)},
        change='torch.set_float32_matmul_precision("high") allows TF32 in matrix products',
        saving_s=saving,
    )


@rule("beats_the_roofline")
def beats_the_roofline(case: Case) -> Iterator[Finding]:
    """Why a measurement can lie below FLOPs over the fp32 peak, or bytes over the bandwidth."""
    reasons, stakes = [], dict[int, float]()
    for cause, words in (("winograd", "Winograd or FFT spares {} of multiplications that FLOPs count"),
                         ("cache_hits", "{} of traffic with device memory is served by the cache, which holds what "
                                        "was just written")):  # fmt: skip
        gains = {node: -causes[cause] for node, causes in case.split.by_node.items() if causes.get(cause, 0.0) < 0}
        if case.matters(sum(gains.values())):
            reasons.append(words.format(format_seconds(sum(gains.values()))))
            _add(stakes, gains)
    by_tf32 = _tf32_gain(case)
    if case.matters(sum(by_tf32.values())):
        seconds = format_seconds(sum(by_tf32.values()))
        reasons.append(f"convolutions in TF32 take {seconds} less than their FLOPs at the peak of the fp32 lanes")
        _add(stakes, by_tf32)
    if not reasons:
        return
    stake, nodes = sum(stakes.values()), case.by_stake(stakes)
    yield Finding(
        rule="beats_the_roofline",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message="no loss but a gain: " + "; ".join(reasons),
        evidence={"reasons": len(reasons)},
        is_gain=True,
    )


def _tf32_gain(case: Case) -> dict[int, float]:
    """Seconds by node that kernels in TF32 stay below their FLOPs at the fp32 peak of the vector lanes."""
    peak = case.analysis.hardware.find_peak("vector", "fp32")
    found: dict[int, float] = {}
    for start in case.starts:
        if peak is not None and start.kernel.dtype == "tf32":
            gain = start.kernel.matrix_flops / peak.flop_per_s - start.seconds
            if gain > 0:
                found[start.node] = found.get(start.node, 0.0) + gain
    return found


def _add(sums: dict[int, float], more: dict[int, float]) -> None:
    for node, seconds in more.items():
        sums[node] = sums.get(node, 0.0) + seconds
