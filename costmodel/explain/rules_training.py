"""Rules about a training step: what its backward pass, its normalizations and its optimizer take beside their FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from costmodel.execution import NodePhase
from costmodel.explain.case import Case
from costmodel.explain.causes import CAUSES
from costmodel.explain.rule import Finding, listed, rule
from costmodel.units import format_bytes, format_percent, format_seconds

#: How far the backward pass may part from what its FLOPs say before it is worth a sentence [1].
PARTS_FROM = 0.1
#: Share of the step from which the optimizer is named [1].
OPTIMIZER_SHARE = 0.03
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm")


def _nodes(case: Case, phase: NodePhase) -> list[int]:
    return [index for index, node in enumerate(case.analysis.bound.nodes) if node.phase is phase]


@rule("backward_is_not_twice")
def backward(case: Case) -> Iterator[Finding]:
    """Two gradients for each product make twice the FLOPs of the forward pass; the time is another matter."""
    by_phase = case.split.by_phase
    if NodePhase.BACKWARD not in by_phase:
        return
    ahead, behind = by_phase[NodePhase.FORWARD], by_phase[NodePhase.BACKWARD]
    forward_s, backward_s = sum(ahead.values()), sum(behind.values())
    nodes = {phase: _nodes(case, phase) for phase in (NodePhase.FORWARD, NodePhase.BACKWARD)}
    forward_flops = case.flops(nodes[NodePhase.FORWARD])
    if not forward_s or not forward_flops:
        return
    flop_ratio, ratio = case.flops(nodes[NodePhase.BACKWARD]) / forward_flops, backward_s / forward_s
    apart = backward_s - flop_ratio * forward_s
    if not case.matters(abs(apart)) or abs(ratio / flop_ratio - 1) < PARTS_FROM:
        return
    more = {cause: behind.get(cause, 0.0) - flop_ratio * ahead.get(cause, 0.0) for cause in {*ahead, *behind}}
    same_way = sorted((c for c in more if c != "flops" and more[c] * apart > 0), key=lambda c: (-abs(more[c]), c))[:2]
    named = " and ".join(f"{CAUSES[cause].label} ({format_seconds(abs(more[cause]))})" for cause in same_way)
    mostly = f", mostly {'more' if apart > 0 else 'less'} of {named}" if named else ""
    stakes = {node: sum(case.split.by_node.get(node, {}).values()) for node in nodes[NodePhase.BACKWARD]}
    yield Finding(
        rule="backward_is_not_twice",
        nodes=case.names(case.by_stake(stakes)),
        seconds_at_stake=abs(apart),
        message=f"the backward pass takes {format_seconds(backward_s)}, {ratio:.2f} times the forward pass's "
        f"{format_seconds(forward_s)}, with {flop_ratio:.2f} times its FLOPs: {format_seconds(abs(apart))} "
        f"{'more' if apart > 0 else 'less'} than they say{mostly}",
        evidence={"time_ratio": ratio, "flop_ratio": flop_ratio, "forward_s": forward_s, "backward_s": backward_s},
        is_gain=apart < 0,
    )


@rule("normalization_in_training")
def normalization(case: Case) -> Iterator[Finding]:
    """A norm that takes the batch's statistics reads its input twice forward, and input and gradient twice backward."""
    graph = case.analysis.bound
    if not graph.gradients:
        return
    norms = [i for i, node in enumerate(graph.nodes) if any(word in node.op for word in _NORMS)]
    seconds = case.device_s_of(norms)
    stake, nodes, share = sum(seconds.values()), case.by_stake(seconds), case.flop_share(norms)
    if not case.matters(stake, 0.05) or stake / case.latency_s <= share:
        return
    phases = {phase: sum(s for n, s in seconds.items() if graph.nodes[n].phase is phase) for phase in NodePhase}
    layers = sum(graph.nodes[n].phase is NodePhase.FORWARD for n in norms)
    moved = sum(start.kernel.bytes for start in case.starts if start.node in seconds)
    yield Finding(
        rule="normalization_in_training",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{layers:,} normalizations take {case.of_step(stake)}, {format_seconds(phases[NodePhase.FORWARD])} "
        f"forward and {format_seconds(phases[NodePhase.BACKWARD])} backward, for {format_percent(share)} of the "
        f"FLOPs: they move {format_bytes(moved)}, and in training no convolution can take them in",
        evidence={"flop_share": share, "layers": layers, "bytes": moved},
    )


@rule("optimizer_traffic")
def optimizer(case: Case) -> Iterator[Finding]:
    """Weights, gradients and states pass through memory once a step, however many samples it has."""
    graph, execution = case.analysis.bound, case.analysis.execution
    nodes = _nodes(case, NodePhase.OPTIMIZER)
    seconds = {node: sum(case.split.by_node.get(node, {}).values()) for node in nodes}
    stake = sum(seconds.values())
    if not nodes or not case.matters(stake, OPTIMIZER_SHARE):
        return
    moved = sum(start.kernel.bytes for start in case.starts if graph.nodes[start.node].phase is NodePhase.OPTIMIZER)
    starts = sum(start.kernel.starts for start in case.starts if graph.nodes[start.node].phase is NodePhase.OPTIMIZER)
    yield Finding(
        rule="optimizer_traffic",
        nodes=case.names(case.by_stake(seconds)),
        seconds_at_stake=stake,
        message=f"the optimizer ({execution.optimizer}) moves {format_bytes(moved)} in {starts:,} kernels for "
        f"{format_percent(case.flop_share(nodes))} of the FLOPs: {case.of_step(stake)} at batch {execution.batch}, and "
        "no less at a smaller one",
        evidence={"bytes": moved, "kernels": starts, "parameters": len(graph.gradients)},
        **_fused(case),
    )


def _fused(case: Case) -> dict[str, Any]:
    """Change and saving of the fused implementation, where the step does not have it."""
    optimizer = case.analysis.execution.optimizer
    if optimizer.fused or optimizer.algorithm == "none":
        return {}
    return {"change": "fused=True reads and writes each tensor once", "saving_s": case.saving_s(fused_optimizer=True)}


@rule("recomputed")
def recomputed(case: Case) -> Iterator[Finding]:
    """Checkpoints give up what the forward pass has computed and compute it once more in the backward pass."""
    graph = case.analysis.bound
    again = [i for i in _nodes(case, NodePhase.BACKWARD) if graph.nodes[i].forward is None and graph.nodes[i].module]
    seconds = {node: sum(case.split.by_node.get(node, {}).values()) for node in again}
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    modules = list(dict.fromkeys(graph.nodes[node].module for node in again))
    yield Finding(
        rule="recomputed",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"checkpoints compute {listed(modules)} once more in the backward pass: "
        f"{format_percent(case.flop_share(again))} of the FLOPs, {case.of_step(stake)}, which memory is bought with",
        evidence={"flop_share": case.flop_share(again), "operators": len(again)},
    )
