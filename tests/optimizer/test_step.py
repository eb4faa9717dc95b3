"""The optimizer's nodes against a real step of torch.optim under a dispatch mode: operators, tensors, order."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.costing import cost_graph
from costmodel.devices.family import CPU, CUDA
from costmodel.execution import Execution, NodePhase, Optimizer
from costmodel.graph import OpGraph
from costmodel.graph_json import from_json, to_json
from costmodel.hardware import load
from costmodel.kernels import eager_plan
from costmodel.kernels.multi_tensor import launches
from costmodel.optimizer import Implementation, StepKind, append_optimizer, kind_of, with_optimizer
from costmodel.tensor import Role, tensors_in

from .graphs import SHAPES, training_graph

torch = pytest.importorskip("torch")

TORCH = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
}
#: Calls that ask nothing of a device: of the profiler, of Python's numbers, and reads of counts of steps, which foreach
#: keeps on the host and which a for-loop on a CPU finds in its own memory.
UNSEEN = ("profiler.", "aten.lift_fresh", "aten._local_scalar_dense")


def shapes_in(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
        return [tuple(t.shape) for t in value]
    return None


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes of every call: operator without the underscore of in-place ones, shapes of its tensors and lists."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.replace("::", ".")
        name = name[:-1] if name.endswith("_") else name
        values = [shapes_in(v) for v in (*args, *(kwargs or {}).values())]
        self.seen.append((name, [v for v in values if v is not None]))
        return func(*args, **(kwargs or {}))


def real_step(algorithm: str, *, device: str = "meta", scaler: bool = False, **options: Any) -> list[Any]:
    """Calls of the second step of a real optimizer, which has its states by then."""
    parameters = [torch.nn.Parameter(torch.ones(shape, device=device)) for shape in SHAPES]
    kind, own = TORCH[algorithm]
    optimizer = kind(parameters, **own, **options)
    scale = torch.amp.GradScaler("cpu", enabled=scaler)
    for _ in range(2):
        calls = Calls()
        for parameter in parameters[:-1]:
            parameter.grad = torch.zeros_like(parameter)
        loss = torch.ones((), device=device, requires_grad=True)
        with calls:
            scale.scale(loss)
            scale.step(optimizer)
            scale.update()
    return [call for call in calls.seen if scaler or not call[0].startswith(UNSEEN)]


def derived(graph: OpGraph, kind: StepKind) -> list[Any]:
    """The same of the nodes of the optimizer's phase, in program order."""
    found = []
    for node in append_optimizer(graph, kind).nodes:
        if node.phase is NodePhase.OPTIMIZER or node.name == "grad_scaler.loss":
            call = dict(appended_arguments(graph, kind, node))
            found.append((node.op, [v for v in map(spec_shapes, call.values()) if v is not None]))
    return found


def appended_arguments(graph: OpGraph, kind: StepKind, node: Any) -> Any:
    whole = append_optimizer(graph, kind)
    return whole.arguments(whole.calls[node.call])


def spec_shapes(value: Any) -> Any:
    if isinstance(value, list):
        return [tuple(t.shape) for t in tensors_in(value)] or None
    return tuple(value.shape) if hasattr(value, "shape") else None


def flat(calls: list[Any]) -> list[Any]:
    return [(name, [v for v in values if v != []]) for name, values in calls]


@pytest.mark.parametrize("decay", [None, True])
@pytest.mark.parametrize("algorithm", TORCH)
def test_lists_are_what_torch_dispatches(algorithm: str, decay: bool | None) -> None:
    options = {"weight_decay": 1e-2} if decay else {}
    kind = StepKind(optimizer=Optimizer(algorithm=algorithm, weight_decay=decay))
    real = flat(real_step(algorithm, foreach=True, **options))
    expected = [
        (name, values[:1] if name == "aten._foreach_add" and values[1:] == [()] else values) for name, values in real
    ]
    assert derived(training_graph(), kind) == expected


@pytest.mark.parametrize("algorithm", TORCH)
def test_a_loop_is_what_torch_dispatches(algorithm: str) -> None:
    kind = StepKind(
        optimizer=Optimizer(algorithm=algorithm), implementation=Implementation.FOR_LOOP, counters=Role.STATE
    )
    assert derived(training_graph(), kind) == flat(real_step(algorithm, device="cpu", foreach=False))


@pytest.mark.parametrize("algorithm", TORCH)
def test_fused_is_what_torch_dispatches(algorithm: str) -> None:
    kind = StepKind(optimizer=Optimizer(algorithm=algorithm, fused=True), implementation=Implementation.FUSED)
    assert derived(training_graph(), kind) == flat(real_step(algorithm, device="cpu", fused=True))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("algorithm", ["momentum", "adam"])
def test_a_scaler_is_what_torch_dispatches(algorithm: str, fused: bool) -> None:
    way = Implementation.FUSED if fused else Implementation.FOREACH
    kind = StepKind(optimizer=Optimizer(algorithm=algorithm, fused=fused), implementation=way, scales=True)
    real = real_step(algorithm, device="cpu", scaler=True, fused=fused, foreach=None if fused else True)
    one_read = next((i for i, call in enumerate(real) if call[0] == "aten._local_scalar_dense"), None)
    real = [call for i, call in enumerate(real) if i == one_read or not call[0].startswith(UNSEEN)]
    expected = [
        (name, values[:1] if name == "aten._foreach_add" and values[1:] == [()] else values)
        for name, values in flat(real)
    ]
    found = derived(training_graph(), kind)
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert found == expected


def test_only_a_scaler_that_reads_synchronizes() -> None:
    for fused, reads in ((False, 1), (True, 0)):
        way = Implementation.FUSED if fused else Implementation.FOREACH
        kind = StepKind(optimizer=Optimizer(fused=fused), implementation=way, scales=True)
        assert len(append_optimizer(training_graph(), kind).synchronizing) == reads


def test_the_scale_goes_before_backward_and_after_its_seed() -> None:
    nodes = append_optimizer(training_graph(), StepKind(optimizer=Optimizer(), scales=True)).nodes
    names = [node.name for node in nodes]
    assert names[:4] == ["loss", "grad_scaler.loss", "seed", "grad_scaler.seed"]
    assert [n.phase.value for n in nodes[:4]] == ["forward", "forward", "backward", "backward"]
    assert all(n.forward == 0 for n in nodes if n.name.startswith("grad0"))
    assert nodes[2].inputs == nodes[1].outputs and nodes[4].inputs == nodes[3].outputs


def test_parameters_go_in_groups_by_dtype() -> None:
    """Three parameters have gradients: float32, float64, float32, so two groups, and twice the calls of one."""
    graph = training_graph(dtypes=["float32", "float64", "float32", "float32"])
    kind = StepKind(optimizer=Optimizer(algorithm="momentum"))
    lists = [[str(t.dtype) for t in tensors_in(appended_arguments(graph, kind, n)["input"])]
             for n in append_optimizer(graph, kind).nodes if n.phase is NodePhase.OPTIMIZER]  # fmt: skip
    assert lists == [["float32", "float32"]] * 3 + [["float64"]] * 3


def test_zeroed_gradients_are_added_to() -> None:
    """torch 1: zero_ of each gradient first, an addition for each once it is made, a loop over parameters last."""
    kind = kind_of(Execution.of(torch="1.7.0"), CUDA)
    assert kind.zeroes
    graph = append_optimizer(training_graph(), kind)
    ops = [(n.op, n.phase.value) for n in graph.nodes]
    assert ops[:3] == [("aten.zero", "optimizer")] * 3
    assert ops.count(("aten.add", "backward")) == 3
    assert ops[-3:] == [("aten.mul", "optimizer"), ("aten.add", "optimizer"), ("aten.add", "optimizer")]
    made = {graph.nodes[i].name: i for i in range(len(graph.nodes))}
    assert made["layer1.weight.accumulate_grad"] == made["grad1"] + 1


@pytest.mark.parametrize("algorithm", ["none", *TORCH])
def test_states_are_as_large_as_the_parameters_with_gradients(algorithm: str) -> None:
    graph = append_optimizer(training_graph(), StepKind(optimizer=Optimizer(algorithm=algorithm)))
    held = sum(s.nbytes for s in graph.storages if s.role is Role.STATE)
    weights = 4 * (4 * 3 * 2 * 2 + 4 + 5 * 4)
    assert held == weights * {"none": 0, "sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 2}[algorithm]


def test_the_graph_is_sound() -> None:
    fused = StepKind(optimizer=Optimizer(fused=True), implementation=Implementation.FUSED, scales=True)
    for kind in (StepKind(optimizer=Optimizer(algorithm="adam"), scales=True, zeroes=True), fused):
        raw = training_graph()
        graph = append_optimizer(raw, kind)
        made = {t for node in graph.nodes for t in node.outputs}
        assert all((t.producer is not None) == (i in made) for i, t in enumerate(graph.tensors))
        assert all(max(graph.predecessors(i), default=-1) < i for i in range(len(graph.nodes)))
        assert len({node.name for node in graph.nodes}) == len(graph.nodes)
        again = from_json(to_json(graph))
        assert (again.nodes, again.calls, again.tensors) == (graph.nodes, graph.calls, graph.tensors)
        assert len(raw.nodes) == 5 and not any(n.phase is NodePhase.OPTIMIZER for n in raw.nodes)


def test_traffic_of_adam_is_counted() -> None:
    """Per parameter element, in floats: lerp 2+1, mul 1+1, addcmul 3+1, sqrt 1+1, div 1+1, add 1+1, addcdiv 3+1."""
    graph = append_optimizer(training_graph(), StepKind(optimizer=Optimizer(algorithm="adam")))
    costs = cost_graph(graph)
    elements = 4 * 3 * 2 * 2 + 4 + 5 * 4
    moved = sum(costs.of_node(i).bytes for i, n in enumerate(graph.nodes) if n.phase is NodePhase.OPTIMIZER)
    assert moved == 4 * elements * (3 + 2 + 4 + 2 + 2 + 2 + 4)
    flops = sum(costs.of_node(i).flops for i, n in enumerate(graph.nodes) if n.phase is NodePhase.OPTIMIZER)
    assert flops == elements * (3 + 1 + 3 + 1 + 1 + 1 + 3)
    assert costs.uncosted["aten._foreach_add"] == 0


def test_counts_of_steps_launch_nothing() -> None:
    graph = append_optimizer(training_graph(), StepKind(optimizer=Optimizer(algorithm="adam")))
    plan = eager_plan(graph, Execution(), load("a100"))
    first = next(i for i, n in enumerate(graph.nodes) if n.name == "optimizer.step.add")
    assert all(first not in launch.nodes for launch in plan.launches)
    assert sum(graph.nodes[launch.nodes[0]].phase is NodePhase.OPTIMIZER for launch in plan.launches) == 7


def test_a_call_starts_as_many_kernels_as_its_tensors_need() -> None:
    """ResNet-50 has 161 tensors, 64 of which fit a kernel of two lists with 4 kB of arguments: 64 + 64 + 33."""
    assert len(list(launches([10] * 161, 64, 320))) == 3
    assert list(launches([320 * 65536 + 1], 64, 320)) == [320 * 65536, 1]
    assert sum(launches([70000, 5, 0, 200000], 2, 3)) == 270005


def test_the_run_decides_how() -> None:
    assert kind_of(Execution(), CUDA).implementation is Implementation.FOREACH
    assert kind_of(Execution(), CPU).implementation is Implementation.FOR_LOOP
    assert kind_of(Execution.of(torch="1.13"), CUDA).implementation is Implementation.FOR_LOOP
    assert kind_of(Execution.of(fused_optimizer=True), CPU).implementation is Implementation.FUSED
    assert kind_of(Execution.of(dtype="amp_fp16"), CUDA).scales
    assert not kind_of(Execution.of(dtype="amp_bf16"), CUDA).scales
    assert not kind_of(Execution.of(dtype="amp_fp16", grad_scaler="no"), CUDA).scales


def test_other_phases_and_graphs_without_gradients_are_left_alone() -> None:
    graph = training_graph()
    assert with_optimizer(graph, Execution(), CUDA) is graph


def test_an_analysis_has_the_step_of_its_run() -> None:
    """SGD without momentum on a GPU: one call for all; on a CPU one for each parameter. Closed forms count it too."""
    import costmodel

    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 4))
    inputs = torch.zeros(3, 6)
    on_gpu = costmodel.analyze(module, (inputs,), hw="a100", phase="training", optimizer="sgd")
    count = {row.name: row.count for row in on_gpu.rows("phase")}
    assert (count["optimizer"], on_gpu.record.nodes[-1].op) == (1, "aten._foreach_add")
    on_cpu = on_gpu.at(hw="i9-10940x")
    assert {row.name: row.count for row in on_cpu.rows("phase")}["optimizer"] == 4
    adam = on_gpu.at(optimizer="adam")
    weights = 6 * 5 + 5 + 5 * 4 + 4
    assert adam.totals.flops - on_gpu.totals.flops == weights * (13 - 2)
    assert adam.totals.macs == on_gpu.totals.macs
    assert on_gpu.at(optimizer="adam") is not adam and on_gpu.at(optimizer="adam").record is adam.record
    batch = adam.execution.batch
    assert eval(adam.closed_forms["flops"], {"batch": batch}) == adam.totals.flops  # noqa: S307 - our own text


def test_an_optimizer_belongs_to_training() -> None:
    import costmodel
    from costmodel.errors import InputError

    with pytest.raises(InputError, match="optimizer belongs to training"):
        costmodel.analyze("resnet18", hw="a100", optimizer="adam")
    with pytest.raises(InputError, match="no optimizer 'adan'"):
        Optimizer(algorithm="adan")
