"""A serving library (vLLM, SGLang, TensorRT-LLM): the program that it runs of a model that writes text, captured.

Four things are otherwise than in PyTorch. The cache lies in pages that a kernel writes the new keys and values into,
where transformers' cache is copied as a whole for each token. Projections of the same input (queries, keys and values;
gate and up) are one product. A latent cache is attended to as it lies (:mod:`costmodel.engines.absorbed`). Element-wise
chains and norms are kernels of the library, as few as Inductor would make of them, and a step is replayed as a CUDA
graph: between two steps the library's scheduler, sampler and detokenizer run on the host.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from costmodel.devices.attention import AttentionKernels
from costmodel.engines.absorbed import absorbed
from costmodel.engines.capture import refuse_without_graphs
from costmodel.engines.engine import Advice
from costmodel.engines.inductor import Inductor
from costmodel.engines.registry import register
from costmodel.errors import InputError
from costmodel.execution import Execution, Phase
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.host import HostProfile, captured, costs_of
from costmodel.kernels.attention import in_library
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.nodes import Call, OpNode, SpecRef, Storage
from costmodel.tensor import CACHED, Role

__all__ = ["Serving"]

#: Linear layers, and the arguments of theirs that are collected where they are merged.
_LINEAR = {"aten.linear": ("weight", "bias"), "costmodel.packed_linear": ("weight", "scales", "zeros", "bias")}
#: Fused attention of a serving library, by what a generation has, the first that there is.
_ATTENTION = ("flash_attention_3", "flash_attention_paged", "flash_attention")
#: Products that widen weights, and the library's kernels for them.
_WIDENING = {"int4_weight_gemm": "marlin_int4_gemm", "int8_weight_gemm": "marlin_int8_gemm"}


@register
class Serving(Inductor):
    """Kernels of a serving library, captured."""

    name = "serving"
    title = "served"
    help = "as a serving library (vLLM) runs it: pages of a cache, merged projections, captured"
    captures = True
    has_own_loop = True
    spellings: ClassVar[tuple[str, ...]] = ("vllm",)
    phases: ClassVar[frozenset[Phase]] = frozenset({Phase.PREFILL, Phase.DECODE})
    advice: ClassVar[Mapping[str, Advice]] = MappingProxyType({})
    compile_options: ClassVar[Mapping[str, Any] | None] = None  # type: ignore[assignment]  # torch does not make it

    def check(self, execution: Execution) -> None:
        """Raise InputError for what is no prompt and no step of writing text."""
        if execution.phase not in self.phases:
            asked = f"mode {self.name} runs prompts and steps of writing text, not a step of {execution.phase.value}"
            raise InputError(f"{asked}\n  say --phase prefill or --phase decode with it (hf: models)")

    def program(self, graph: OpGraph) -> OpGraph:
        """The traced program with its cache in pages and its projections merged; kept with the graph."""
        if "served" not in graph.memo:
            graph.memo["served"] = _told(_merged(_paged(absorbed(graph))))
        found: OpGraph = graph.memo["served"]
        return found

    def lower(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
        """Kernels between the library's own. Raises InputError where the machine has no graphs to capture."""
        refuse_without_graphs(self.name, hardware)
        plan = super().lower(graph, execution, hardware)
        found = (hardware.gpu.attention_kernels(name) for name in _ATTENTION)
        attention = next((kernels for kernels in found if kernels is not None), None)
        return _of_the_library(plan, attention)

    def issued(self, plan: KernelPlan, graph: OpGraph, execution: Execution, host: HostProfile) -> list[float]:
        """The host's work for a step, then one call."""
        return captured(plan, graph, host, costs_of(execution.software).serving)


def _told(graph: OpGraph) -> OpGraph:
    """The program with a word on attention that is written out: scores [N, H, L, S] that a softmax of its own takes."""

    def takes_scores(node: OpNode) -> bool:
        name = node.op.rpartition(".")[2]
        return name in ("softmax", "_softmax") and len(graph.specs[graph.tensors[node.inputs[0]].spec].shape) == 4

    layers = sum(map(takes_scores, graph.nodes))
    if not layers:
        return graph
    note = (
        f"attention of {layers} layers is written out, as transformers runs it where the configuration asks for eager "
        "attention (a cap of scores, sinks): a serving library has a fused kernel for it, which moves fewer bytes"
    )
    return replace(graph, notes=(*graph.notes, note), general=None, memo={})


def _of_the_library(plan: KernelPlan, attention: AttentionKernels | None) -> KernelPlan:
    """The library's own kernels where it has them: attention over pages, Marlin's products with widened weights."""
    made: list[Kernel] = []
    places: list[range] = []  # of the kernels that stand for each
    for kernel in plan.kernels:
        own = replace(kernel, algorithm=_WIDENING.get(kernel.algorithm, kernel.algorithm))
        run = in_library(own, attention) if attention and own.algorithm == "flash_attention" else (own,)
        places.append(range(len(made), len(made) + len(run)))
        made.extend(run)
    launches = tuple(replace(launch, kernel=index) for launch in plan.launches for index in places[launch.kernel])
    return replace(plan, kernels=tuple(made), launches=launches)


def _paged(graph: OpGraph) -> OpGraph:
    """New keys and values are written behind those of the cache, which grow in place."""
    caches = {i for i in graph.inputs if graph.tensors[i].name.startswith(CACHED)}
    calls, nodes, tensors, storages = list(graph.calls), [], list(graph.tensors), list(graph.storages)
    moved: dict[int, int] = {}  # storage of a grown cache -> that of the cache
    for node in graph.nodes:
        if not (
            node.op == "aten.cat" and len(node.inputs) == 2 and node.inputs[0] in caches and _by_tokens(graph, node)
        ):
            nodes.append(node)
            continue
        cache, new = node.inputs
        (out,) = node.outputs
        made = Call(
            "costmodel.cache_write",
            (("cache", SpecRef(tensors[cache].spec)), ("new", SpecRef(tensors[new].spec))),
            graph.calls[node.call].outputs,
        )
        calls.append(made)
        nodes.append(replace(node, op=made.op, call=len(calls) - 1, in_place=True))
        grown, place = tensors[out].storage, tensors[cache].storage
        storages[place] = Storage(storages[grown].nbytes, storages[grown].dtype, Role.INPUT)
        moved[grown] = place
    tensors = [replace(t, storage=moved.get(t.storage, t.storage)) for t in tensors]
    return replace(graph, calls=calls, nodes=nodes, tensors=tensors, storages=storages, general=None, memo={})


def _by_tokens(graph: OpGraph, node: OpNode) -> bool:
    """Whether a join is of keys or values [N, H, L, E] along L. The window of a recurrent layer's convolution
    [N, C, K], joined along K, is a state of one size and has no pages."""
    spec, arguments = graph.specs[graph.tensors[node.outputs[0]].spec], dict(graph.calls[node.call].arguments)
    return len(spec.shape) == 4 and arguments.get("dim", 0) in (-2, 2)


def _merged(graph: OpGraph) -> OpGraph:
    """Linear layers of one parent that read the same tensor are one product, run where the first of them ran."""
    groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for index, node in enumerate(graph.nodes):
        if node.op in _LINEAR and any(part.isdigit() for part in node.module.split(".")):
            groups[node.op, node.module.rpartition(".")[0], node.inputs[0]].append(index)
    calls, nodes = list(graph.calls), list(graph.nodes)
    known: dict[Call, int] = {}
    gone: set[int] = set()
    for (op, _, _), members in groups.items():
        if len(members) < 2:
            continue
        node, made = _one_product(graph, op, [nodes[index] for index in members])
        if made not in known:
            known[made] = len(calls)
            calls.append(made)
        nodes[members[0]] = replace(node, call=known[made])
        gone |= set(members[1:])
    if not gone:
        return graph
    place = {}
    for index in range(len(nodes)):
        place[index] = index - sum(1 for other in gone if other < index) if index not in gone else -1
    merged_into = {index: place[members[0]] for members in groups.values() for index in members}

    def moved(index: int) -> int:
        return merged_into[index] if index in gone else place[index]

    kept = [
        replace(node, after=tuple(sorted({moved(i) for i in node.after})))
        for index, node in enumerate(nodes)
        if index not in gone
    ]
    tensors = [t if t.producer is None else replace(t, producer=moved(t.producer)) for t in graph.tensors]
    return replace(graph, calls=calls, nodes=kept, tensors=tensors, general=None, memo={})


def _one_product(graph: OpGraph, op: str, members: list[OpNode]) -> tuple[OpNode, Call]:
    """The node and the call that stand for several linear layers."""
    collected: dict[str, list[Any]] = {name: [] for name in _LINEAR[op]}
    tensors: dict[str, list[int]] = {name: [] for name in _LINEAR[op]}
    for node in members:
        refs = iter(node.inputs)
        for name, value in graph.calls[node.call].arguments:
            if isinstance(value, SpecRef):
                tensor = next(refs)
                if name in collected:
                    collected[name].append(value)
                    tensors[name].append(tensor)
    first = graph.calls[members[0].call]
    plain = tuple((n, v) for n, v in first.arguments if n in ("narrows", "method", "bits"))
    taken = tuple((name, tuple(refs)) for name, refs in collected.items() if refs)
    call = Call(
        "costmodel.merged_linear",
        (("input", SpecRef(graph.tensors[members[0].inputs[0]].spec)), *taken, *plain),
        tuple(output for node in members for output in graph.calls[node.call].outputs),
    )
    parent = members[0].module.rpartition(".")[0]
    inputs = (members[0].inputs[0], *(tensor for listed in tensors.values() for tensor in listed))
    outputs = tuple(tensor for node in members for tensor in node.outputs)
    after = tuple(sorted({index for node in members for index in node.after}))
    names = "+".join(node.module.rpartition(".")[2] for node in members)
    node = replace(members[0], name=f"{parent}.{names}", module=parent, op=call.op, inputs=inputs, outputs=outputs,
                   after=after)  # fmt: skip
    return node, call
