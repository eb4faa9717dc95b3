"""with_optimizer(): a training graph with the calls of ``torch.optim`` and GradScaler in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from costmodel.devices import Family
from costmodel.execution import Execution, NodePhase, Optimizer, Phase
from costmodel.graph import OpGraph
from costmodel.optimizer.parameters import (
    Parameter,
    parameters_of,
    step_for_each,
    step_for_lists,
    step_fused,
    step_in_bytes,
)
from costmodel.optimizer.scaler import Scaler
from costmodel.optimizer.sparse import ROWS, check_sparse, step_rows
from costmodel.optimizer.weave import Ref, Weave
from costmodel.tensor import Role

__all__ = ["Implementation", "StepKind", "append_optimizer", "kind_of", "with_optimizer"]

_CLASSES = {"none": "", "sgd": "torch.optim.sgd.SGD", "momentum": "torch.optim.sgd.SGD",
            "nesterov": "torch.optim.sgd.SGD", "adam": "torch.optim.adam.Adam",
            "adamw": "torch.optim.adamw.AdamW", "adam8bit": "bitsandbytes.optim.adam.Adam8bit",
            "sparse_adam": "torch.optim.adam.Adam"}  # fmt: skip


class Implementation(str, Enum):
    """torch's three ways through a list of parameters."""

    FOREACH = "foreach"
    FUSED = "fused"
    FOR_LOOP = "for_loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepKind:
    """What decides the calls of an optimizer's step: the key of a graph that has them.

    ``counters``  where foreach and for-loop keep counts of steps: in the ``HOST``'s memory beside a GPU; on a CPU that
                  is the device's own (``STATE``)
    ``scales``    whether a GradScaler takes part
    ``zeroes``    ``zero_grad`` sets gradients to zero instead of throwing them away, so that backward adds to them
    """

    optimizer: Optimizer
    implementation: Implementation = Implementation.FOREACH
    counters: Role = Role.HOST
    scales: bool = False
    zeroes: bool = False


def kind_of(execution: Execution, family: Family) -> StepKind:
    """What ``torch.optim`` and GradScaler do in a run: foreach where it is the default, on GPUs since torch 2.0, which
    is also since when ``zero_grad`` throws gradients away (``set_to_none=True``)."""
    optimizer, modern = execution.optimizer, execution.software.at_least_torch(2, 0)
    implementation = Implementation.FOREACH if modern and family.issues_ahead else Implementation.FOR_LOOP
    return StepKind(
        optimizer=optimizer,
        implementation=Implementation.FUSED if optimizer.fused else implementation,
        counters=Role.HOST if family.issues_ahead else Role.STATE,
        scales=optimizer.scales(execution.precision),
        zeroes=not modern,
    )


def with_optimizer(graph: OpGraph, execution: Execution, family: Family) -> OpGraph:
    """``graph`` of a training step with the optimizer's nodes (phase ``OPTIMIZER``) at its end, and GradScaler's where
    the run has one. Any other graph, and one without gradients, is given back itself.

    Made once for each kind of step and kept with the graph, so that the same run has the same object.
    """
    if execution.phase is not Phase.TRAINING or not graph.gradients:
        return graph
    kind = kind_of(execution, family)
    known: OpGraph | None = graph.memo.get(kind)
    if known is None:
        known = graph.memo[kind] = append_optimizer(graph, kind)
    return known


def append_optimizer(graph: OpGraph, kind: StepKind) -> OpGraph:
    """A copy of ``graph``, whose ``gradients`` say what each parameter's gradient is, with the nodes of one step."""
    weave = Weave(graph, _CLASSES[kind.optimizer.algorithm])
    parameters = parameters_of(graph)
    for parameter in parameters:
        if parameter.name in graph.sparse_rows:
            parameter.tensors[ROWS] = graph.sparse_rows[parameter.name]
    check_sparse(parameters, kind.optimizer)
    if kind.zeroes:
        _accumulate(weave, [p for p in parameters if ROWS not in p.tensors])
    scaler = Scaler.of(weave) if kind.scales else None
    if scaler is not None:
        scaler.scale_loss()
    if kind.optimizer.algorithm != "none":
        _step(weave, parameters, kind, scaler)
    gradients = {parameter.name: parameter.tensors["grad"] for parameter in parameters}
    general = None if graph.general is None else append_optimizer(graph.general, kind)
    return weave.woven(gradients={**graph.gradients, **gradients}, general=general)


def _step(weave: Weave, parameters: Sequence[Parameter], kind: StepKind, scaler: Scaler | None) -> None:
    """All parameters by one optimizer; rows of sparse gradients by themselves, whose company SGD takes one by one too
    (``_multi_tensor_sgd``)."""
    rows = [p for p in parameters if ROWS in p.tensors]
    optimizer = kind.optimizer
    if optimizer.algorithm == "sparse_adam":
        kind = replace(kind, optimizer=replace(optimizer, algorithm="adam"))
    elif rows and kind.implementation is Implementation.FOREACH:
        kind = replace(kind, implementation=Implementation.FOR_LOOP)
    _step_dense(weave, parameters, [p for p in parameters if ROWS not in p.tensors], kind, scaler)
    for parameter in rows:
        step_rows(weave, parameter, optimizer)
    if scaler is not None:
        scaler.update()


def _step_dense(
    weave: Weave, every: Sequence[Parameter], parameters: Sequence[Parameter], kind: StepKind, scaler: Scaler | None
) -> None:
    """Gradients of ``every`` parameter scaled back, and the step of those whose gradients are dense."""
    if kind.optimizer.algorithm == "adam8bit":
        if scaler is not None:
            scaler.unscale(every)
        step_in_bytes(weave, parameters)
    elif kind.implementation is Implementation.FUSED:
        scale, found_inf = (None, None) if scaler is None else scaler.check(every)
        step_fused(weave, parameters, kind.optimizer, scale, found_inf)
    else:
        if scaler is not None:
            scaler.unscale(every)
        if kind.implementation is Implementation.FOREACH:
            step_for_lists(weave, parameters, kind.optimizer, kind.counters)
        else:
            step_for_each(weave, parameters, kind.optimizer, kind.counters)


def _accumulate(weave: Weave, parameters: Sequence[Parameter]) -> None:
    """``zero_grad(set_to_none=False)`` ahead of the step, and each gradient added to what is there once it is made."""
    graph = weave.graph
    for parameter in parameters:
        made = parameter.tensors["grad"]
        maker = graph.tensors[made].producer
        kept = weave.like(parameter.tensors["param"], Role.STATE, f"{parameter.name}.grad")
        (zeroed,) = weave.call("aten.zero", {"input": Ref(kept)}, writes=[kept], before=0,
                               name=f"{parameter.name}.zero_grad", module=parameter.module)  # fmt: skip
        forward = None if maker is None else graph.nodes[maker].forward
        (parameter.tensors["grad"],) = weave.call(
            "aten.add", {"input": Ref(zeroed), "other": Ref(made)}, writes=[zeroed], phase=NodePhase.BACKWARD,
            name=f"{parameter.name}.accumulate_grad", module=parameter.module, forward=forward, after=maker,
        )  # fmt: skip
