"""Rules about traffic that FLOPs do not show: element-wise kernels, copies, weights, squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from costmodel.explain.case import Case
from costmodel.explain.causes import cause_of
from costmodel.explain.chains import readers, source
from costmodel.explain.rule import Finding, listed, rule
from costmodel.formulas import is_free
from costmodel.kernels import Kernel
from costmodel.nodes import operator_word
from costmodel.tensor import TensorSpec
from costmodel.units import format_bytes, format_percent, format_seconds

__all__ = ["foldable_norms", "squeeze_excitations"]

_ELEMENTWISE = ("elementwise", "normalization", "unfused")


def _seconds_of(case: Case, *causes: str) -> dict[int, float]:
    """Seconds by node of some causes."""
    sums = {n: sum(parts.get(cause, 0.0) for cause in causes) for n, parts in case.split.by_node.items()}
    return {node: seconds for node, seconds in sums.items() if seconds > 0}


@rule("elementwise_memory_bound")
def elementwise(case: Case) -> Iterator[Finding]:
    """Activation, normalization, addition: next to no FLOPs, but every tensor through memory."""
    seconds = _seconds_of(case, *_ELEMENTWISE)
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    ops = {operator_word(case.analysis.bound.nodes[node].op) for node in nodes}
    kinds = {"bias" if "conv" in op or op in ("linear", "addmm") else op for op in ops}
    share = case.flop_share(node for node in nodes if not case.analysis.node_costs.of_node(node).matrix_flops)
    if not case.matters(stake) or stake / case.latency_s <= share:
        return
    unfused = case.split.seconds("unfused")
    yield Finding(
        rule="elementwise_memory_bound",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{len(nodes):,} element-wise and normalizing operators ({listed(sorted(kinds), 3)}) have "
        f"{format_percent(share)} of the FLOPs and, their starts aside, {case.of_step(stake)}: "
        "they move bytes" + (f", {format_seconds(unfused)} of it intermediate results" if unfused else ""),
        evidence={"flop_share": share, "unfused_s": unfused},
        **_fused(case),
    )


def _fused(case: Case) -> dict[str, Any]:
    """Change and saving of fusing chains, where the engine does not yet.

    On a CPU, where loops take copies and pooling in, the saving is that of the whole step.
    """
    advice = case.advised("traffic")
    if advice is None:
        return {}
    change, conditions = advice
    causes = _ELEMENTWISE if case.analysis.hardware.family.issues_ahead else ()
    return case.on_device(change, case.cause_saving_s(*causes, **conditions) if conditions else None)


@rule("batch_norm_unfolded")
def batch_norm(case: Case) -> Iterator[Finding]:
    """At inference a batch normalization is a scale and a shift that the convolution before it could do."""
    convolution_of = {} if case.analysis.bound.gradients else foldable_norms(case)
    if case.analysis.engine.fuses_pointwise or not convolution_of:
        return
    seconds = {node: case.device_s.get(node, 0.0) for node in convolution_of}
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    family = case.analysis.hardware.family
    saving = case.latency_s - case.without(
        list(convolution_of), lambda node: _bias(case, node, convolution_of[node]) if family.adds_bias_apart else None
    )
    remark = f", though {family.dnn}'s bias, which takes its place, is a kernel of its own"
    remark = remark if family.adds_bias_apart else ""
    yield Finding(
        rule="batch_norm_unfolded",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{len(nodes):,} batch normalizations after convolutions take {case.of_step(stake)}"
        f" for {format_percent(case.flop_share(nodes))} of the FLOPs",
        evidence={"normalizations": len(nodes)},
        change=f"fold them into the convolutions' weights{remark}",
        saving_s=saving,
    )


def foldable_norms(case: Case) -> dict[int, int]:
    """Batch normalizations that alone read a convolution's result, each with that convolution."""
    graph, found = case.analysis.bound, dict[int, int]()
    read_by = readers(graph)
    for index, node in enumerate(graph.nodes):
        if "batch_norm" not in node.op:
            continue
        tensor = source(graph, node.inputs[0])
        producer = graph.tensors[tensor].producer
        if producer is not None and "conv" in graph.nodes[producer].op and read_by.get(tensor) == [index]:
            found[index] = producer
    return found


def _bias(case: Case, norm: int, convolution: int) -> Kernel | None:
    """The kernel that adds the bias of a folded convolution; none where one is added already, or by depthwise."""
    arguments, conv = case.arguments(convolution), case.convolutions.get(convolution)
    if arguments.get("bias") is not None or (conv is not None and conv.is_depthwise):
        return None
    norms = next(s.kernel for s in case.starts if s.node == norm)
    return Kernel("aten.conv2d", "bias", vector_flops=norms.elements, bytes_read=norms.bytes_read,
                  bytes_written=norms.bytes_written)  # fmt: skip


@rule("layout_copies")
def layout_copies(case: Case) -> Iterator[Finding]:
    """Tensors copied into the order that a kernel wants, around the kernel."""
    seconds = _seconds_of(case, "layout")
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    kernels = [start.kernel for start in case.starts if cause_of(start.kernel) == "layout"]
    nbytes = sum(kernel.bytes for kernel in kernels)
    weights = sum(kernel.bytes for kernel in kernels if kernel.algorithm in ("reorder_weights", "copy_weights"))
    around_convolutions = sum(seconds[node] for node in nodes if node in case.convolutions)
    yield Finding(
        rule="layout_copies",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{len(kernels):,} copies move {format_bytes(nbytes)} into another order, {case.of_step(stake)}"
        f" without a FLOP, most around {listed(case.names(nodes))}",
        evidence={"copies": len(kernels), "bytes": nbytes, "bytes_of_weights": weights},
        **(case.in_channels_last() if around_convolutions > stake / 2 else {}),
    )


@rule("data_movement")
def movement(case: Case) -> Iterator[Finding]:
    """Concatenations, shuffles, rolls, gathers: 0 FLOPs, one read and one write of each tensor."""
    moving = [s for s in case.starts if cause_of(s.kernel) == "movement"]
    seconds: dict[int, float] = {}
    for start in moving:
        seconds[start.node] = seconds.get(start.node, 0.0) + start.seconds
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    nbytes = sum(start.kernel.bytes for start in moving)
    kinds = sorted({operator_word(case.analysis.bound.nodes[node].op) for node in nodes})
    yield Finding(
        rule="data_movement",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{len(nodes):,} operators ({listed(kinds, 3)}) only move {format_bytes(nbytes)}: "
        f"{format_percent(case.flop_share(nodes))} of the FLOPs, {case.of_step(stake)}",
        evidence={"bytes": nbytes},
    )


@rule("explicit_im2col")
def explicit_im2col(case: Case) -> Iterator[Finding]:
    """A matrix of windows in memory is K^2 / s^2 times the image; libraries' convolutions form it on chip."""
    starts = [s for s in case.starts if cause_of(s.kernel) == "im2col"]
    seconds = {start.node: start.seconds for start in starts}
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    read, written = (sum(getattr(s.kernel, name) for s in starts) for name in ("bytes_read", "bytes_written"))
    yield Finding(
        rule="explicit_im2col",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{listed(case.names(nodes))} write the windows of {format_bytes(read)} of images out as "
        f"{format_bytes(written)}, {case.of_step(stake)} before a FLOP is done",
        evidence={"bytes_read": read, "bytes_written": written, "blow_up": written / max(read, 1)},
        change="conv2d forms the matrix on chip and never stores it (another graph; not evaluated)",
    )


@rule("weights_at_small_batch")
def weights_at_small_batch(case: Case) -> Iterator[Finding]:
    """A few samples read all weights of a layer: bytes, not FLOPs, set its time."""
    seconds: dict[int, float] = {}
    nbytes = 0
    for start in case.starts:
        weight = case.arguments(start.node).get("weight")
        slot = case.analysis.timeline[start.position]
        if not isinstance(weight, TensorSpec) or not start.kernel.matrix_flops or slot.memory_s <= slot.compute_s:
            continue
        stored = start.kernel.bytes_read
        activations = sum(spec.numel for spec in case.outputs(start.node))  # type: ignore[misc]
        if weight.numel > 4 * activations and stored:
            seconds[start.node] = seconds.get(start.node, 0.0) + start.seconds
            nbytes += stored
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    batch = case.analysis.execution.batch
    saving = case.cause_saving_s(batch=8 * batch)
    yield Finding(
        rule="weights_at_small_batch",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{listed(case.names(nodes))} read {format_bytes(nbytes)} for {batch} sample{'s' * (batch > 1)}: "
        f"{format_percent(case.flop_share(nodes))} of the FLOPs, {case.of_step(stake)}"
        f", memory-bound",
        evidence={"bytes": nbytes, "flop_share": case.flop_share(nodes)},
        **case.on_device(f"batch {8 * batch} reads them once for 8 times the samples", saving),
    )


@rule("squeeze_and_excitation")
def squeeze_and_excitation(case: Case) -> Iterator[Finding]:
    """Squeeze-and-excitation adds hardly a FLOP, but two passes over the maps and a chain of tiny kernels."""
    blocks = squeeze_excitations(case)
    nodes = {node for block in blocks for node in block}
    rows = case.analysis.rows()
    seconds = {node: rows[node].latency_s for node in nodes if rows[node].latency_s > 0}
    stake, longest = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    own_kernels = not case.analysis.engine.fuses_pointwise
    yield Finding(
        rule="squeeze_and_excitation",
        nodes=case.names(longest),
        seconds_at_stake=stake,
        message=f"{len(blocks)} squeeze-and-excitation blocks have {format_percent(case.flop_share(nodes))} of the "
        f"FLOPs and take {case.of_step(stake)} in {len(seconds):,} operators",
        evidence={"blocks": len(blocks), "flop_share": case.flop_share(nodes)},
        change="without the blocks" if own_kernels else "",
        saving_s=case.latency_s - case.without(sorted(nodes), lambda _: None) if own_kernels else None,
    )


def squeeze_excitations(case: Case) -> list[tuple[int, ...]]:
    """The nodes of each block: the pooling, the gate of 1x1 maps, and the scaling of the maps by it."""
    graph, blocks = case.analysis.bound, []
    for index, node in enumerate(graph.nodes):
        if node.op != "aten.mul" or len(node.inputs) != 2:
            continue
        shapes = [graph.specs[graph.tensors[t].spec].shape for t in node.inputs]
        full = max(range(2), key=lambda i: _numel(shapes[i]))
        gate, map_shape = shapes[1 - full], shapes[full]
        if (
            len(gate) == 4
            and len(map_shape) == 4
            and gate[:2] == map_shape[:2]
            and _numel(gate[2:]) == 1 < _numel(map_shape[2:])
        ):
            block = _gate(case, node.inputs[1 - full])
            if block:
                blocks.append((*block, index))
    return blocks


def _gate(case: Case, tensor: int) -> list[int]:
    """Nodes from the pooling of a map to the gate ``tensor``; empty where there is no pooling behind it."""
    graph, found = case.analysis.bound, list[int]()
    for _ in range(12):
        producer = graph.tensors[tensor].producer
        if producer is None:
            return []
        node = graph.nodes[producer]
        if not is_free(node.op):
            found.append(producer)
        tensor = node.inputs[0]
        if "pool" in node.op or node.op == "aten.mean":
            return found[::-1]
    return []


def _numel(shape: tuple[object, ...]) -> int:
    count = 1
    for size in shape:
        count *= size  # type: ignore[operator]
    return count
