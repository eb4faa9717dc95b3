"""torch.compile on a CPU: TorchInductor's C++ loops and the library calls between them.

TorchInductor without freezing decides for channels_last on every CPU graph with a
convolution (``GraphLowering.decide_layout_opt``): activations need no reorder, weights of k x k kernels are
copied to channels_last by a loop of Inductor's and then reordered by oneDNN. Everything that is neither a
convolution, a matrix product nor attention becomes C++ loops, fused along chains.

Loops load and store every tensor in the dtype of the run and calculate in fp32. What autocast casts is cast in the loop
that makes it; weights, inputs and results of library calls are cast by loops of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from costmodel.execution import Execution
from costmodel.formulas import is_free
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.algorithm import algorithm_of
from costmodel.kernels.calls import Calls, run_dtypes, storage_scale
from costmodel.kernels.cpu import (
    CONVOLUTIONS,
    convolution_kernels,
    cpu_kernels,
    in_order,
    moved,
)
from costmodel.kernels.operator import Operator, window_elements
from costmodel.kernels.plan import Kernel, KernelPlan, Launch, storages_of, stored_bytes
from costmodel.kernels.shapes import Loop
from costmodel.symbols import product
from costmodel.tensor import ITEMSIZE_BYTES, tensors_in

__all__ = ["compiled_cpu_plan"]

#: Cycles of the vector unit that one vector of elements costs in a loop, by operator; 1 for the rest. Batch norm is
#: not folded: Inductor takes root and quotient of the variance anew for every element (24 + 16 cycles a 512-bit
#: vector in Agner Fog's tables for Skylake-X, and five loads). Elementary functions are SLEEF's polynomials.
VECTOR_CYCLES: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"), 45.0),
        **dict.fromkeys(("softmax", "_softmax", "_safe_softmax", "log_softmax"), 150.0),
        **dict.fromkeys(("sigmoid", "silu", "tanh", "exp", "softplus", "log", "sin", "cos", "pow", "mish"), 120.0),
        **dict.fromkeys(("gelu", "erf"), 160.0),
        **dict.fromkeys(("div", "sqrt", "rsqrt", "linalg_vector_norm"), 16.0),
        **dict.fromkeys(("hardswish", "hardsigmoid"), 5.0),
    }
)
#: Cycles a single element costs in loops that Inductor leaves scalar, or as good as: Welford's update divides once an
#: element; masks, computed indices and rows shorter than a vector defeat vectorization. With the elementary
#: functions above these are fitted to timm's compiled models on one AVX-512 machine, rounded.
SCALAR_CYCLES: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "rms_norm"), 18.0),
        **dict.fromkeys(("cat", "stack"), 10.0),
        **dict.fromkeys(("clone", "constant_pad_nd", "roll", "im2col", "col2im", "reflection_pad2d", "index"), 18.0),
        **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), 25.0),
    }
)
#: The same for a layer norm over the channels of a picture that a convolution reads; the likely reason is that its
#: loops follow the logical NCHW order while the data lie channels last. Fitted likewise.
CHANNEL_NORM_CYCLES = 60.0
#: The same for what takes a single core: a window of more than 25 elements is left to ATen, whose channels-last
#: kernel gives each output pixel to one thread, and a global pool has one pixel. Fitted likewise.
SERIAL_CYCLES: Mapping[str, float] = MappingProxyType({"adaptive_avg_pool2d": 12.0})
#: Algorithms whose operators Inductor turns into loops of its own.
_LOOPS = {"elementwise", "reduction", "copy", "normalization", "softmax", "pool", "resample"}


#: Who calls a kernel of the libraries' own, where it is not the wrapper: a copy rides in a loop.
_CALLER = {"fused_loop": "loop"}


@dataclass(slots=True)
class _Loop:
    """A fused C++ loop nest in the making: its nodes, what it reads and what it writes, by storage."""

    start: int
    nodes: list[int] = field(default_factory=list)
    reads: dict[int, int] = field(default_factory=dict)
    writes: dict[int, int] = field(default_factory=dict)
    vector_flops: int = 0
    lane_cycles: int = 0  # cycles of the vector unit times its lanes
    window_reads: int = 0  # elements read under pooling windows
    elements: int = 0
    passes: int = 1
    strided: bool = False
    inlines: bool = True  # point-wise throughout: a consumer can compute it on the fly


def compiled_cpu_plan(graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
    """Kernels of one step of ``graph`` (bound to numbers) after ``torch.compile`` on a CPU, freezing off.

    Raises FormulaError when a formula fails.
    """
    return _Inductor(graph, execution, hardware).run()


class _Inductor:
    """Walks a graph once: external kernels as they come, loops gathered along chains."""

    def __init__(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> None:
        self.graph, self.hardware, self.calls = graph, hardware, Calls(graph, execution, hardware)
        self.written: dict[int, tuple[int, _Loop | None]] = {}  # storage -> last node that wrote it, and its loop
        self.loops: dict[int, _Loop] = {}  # start -> loop
        self.external: dict[int, tuple[Kernel, ...]] = {}
        self.types, self.precision = run_dtypes(graph, execution), execution.precision
        self.cast: set[tuple[int, str]] = set()  # (tensor, dtype): activations that are at hand in another dtype
        self.readers = self._count_readers()
        self.convolved = self._read_by_convolutions()
        self.results = {graph.tensors[t].storage for t in graph.outputs}
        peak = hardware.find_peak("vector", "fp32")
        self.lanes = (peak.flop_per_clock if peak and peak.flop_per_clock else 32) / 4  # two pipes, two FLOP each

    def run(self) -> KernelPlan:
        for index, node in enumerate(self.graph.nodes):
            if is_free(node.op):
                continue
            operator = self.calls.operator(node.call, self.types[index])
            if not (operator.cost.launches or operator.cost.flops or operator.cost.bytes):
                continue  # an operator that returns its operand as it is
            algorithm = algorithm_of(operator.op, operator.arguments)
            if algorithm in _LOOPS and not operator.cost.matrix_flops:
                self._into_loop(index, operator, algorithm)
            else:
                self._external(index, operator)
        return self._plan()

    def _nbytes(self, tensor: int, dtype: str) -> int:
        """B of a tensor of the graph in a dtype."""
        spec = self.graph.specs[self.graph.tensors[tensor].spec]
        nbytes: int = spec.nbytes  # type: ignore[assignment]
        return nbytes if dtype == spec.dtype else nbytes // spec.itemsize * ITEMSIZE_BYTES[dtype]

    def _casts(self, index: int) -> Iterator[Kernel]:
        """Loops that cast what a library call wants in another dtype, unless the loop that makes it does."""
        node, types = self.graph.nodes[index], self.types[index]
        for position in types.casts:
            tensor, wanted = node.inputs[position], types.inputs[position]
            storage, low = self.graph.tensors[tensor].storage, self._nbytes(tensor, wanted)
            if (tensor, wanted) in self.cast:
                continue
            self.cast.add((tensor, wanted))
            loop = self.written.get(storage, (0, None))[1]
            if loop is None:
                elements: int = self.graph.specs[self.graph.tensors[tensor].spec].numel  # type: ignore[assignment]
                yield Kernel(
                    op="aten._to_copy", algorithm="fused_loop", shape=Loop(lane_cycles=elements), elements=elements,
                    bytes_read=self._nbytes(tensor, types.had[position]), bytes_written=low,
                )  # fmt: skip
            elif self.readers[storage] > 1 or storage in self.results:
                loop.writes[storage] += low
            else:
                loop.writes[storage] = low

    def _count_readers(self) -> dict[int, int]:
        """Per storage, the nodes that compute from it, views left out."""
        readers: dict[int, int] = {}
        for node in self.graph.nodes:
            if not is_free(node.op):
                for storage in {self.graph.tensors[t].storage for t in node.inputs}:
                    readers[storage] = readers.get(storage, 0) + 1
        return readers

    def _read_by_convolutions(self) -> set[int]:
        """Storages that a convolution reads."""
        convolutions = (n for n in self.graph.nodes if n.op.rpartition(".")[2] in CONVOLUTIONS)
        return {self.graph.tensors[t].storage for node in convolutions for t in node.inputs}

    def _external(self, index: int, operator: Operator) -> None:
        """A call out of the compiled code. Copies of strided operands ride in the loops that produce them."""
        if operator.name in CONVOLUTIONS:
            kernels = (*self._laid_out(index, operator), *convolution_kernels(operator, channels_last=True))
        else:
            kernels = tuple(k for k in cpu_kernels(operator) if k.algorithm != "strided_copy")
        called = (*self._casts(index), *kernels)
        self.external[index] = tuple(replace(k, caller=_CALLER.get(k.algorithm, "wrapper")) for k in called)
        for tensor in self.graph.nodes[index].outputs:
            self.written[self.graph.tensors[tensor].storage] = (index, None)

    def _laid_out(self, index: int, operator: Operator) -> Iterator[Kernel]:
        """Copies ahead of a convolution, into channels_last.

        A slice of the channels of a channels-last tensor is no dense tensor: it is copied. So are weights of k x k.
        """
        read = self.graph.tensors[self.graph.nodes[index].inputs[0]]
        if self.graph.storages[read.storage].nbytes > self.graph.specs[read.spec].nbytes:  # both as traced
            copy = moved(operator, operator.input, "fused_loop")
            yield replace(copy, inside=False, shape=Loop(lane_cycles=copy.elements))
        weight = operator.arguments["weight"]
        if product(weight.shape[2:]) > 1:
            yield moved(operator, weight, "copy_weights")

    def _into_loop(self, index: int, operator: Operator, algorithm: str) -> None:
        node, types = self.graph.nodes[index], self.types[index]
        storages = {self.graph.tensors[t].storage for t in node.inputs}
        loop = self._loop_for(index, storages)
        for storage in storages:
            self._inline(storage, loop)
        for tensor, dtype in zip(node.inputs, types.had or types.inputs, strict=True):
            storage = self.graph.tensors[tensor].storage
            if self.written.get(storage, (0, None))[1] is not loop:
                loop.reads[storage] = max(self._nbytes(tensor, dtype), loop.reads.get(storage, 0))
        for tensor, dtype in zip(node.outputs, types.outputs, strict=True):
            storage = self.graph.tensors[tensor].storage
            loop.writes[storage] = self._nbytes(tensor, dtype)
            self.written[storage] = (index, loop)
        self._count(loop, index, operator, algorithm)

    def _loop_for(self, index: int, storages: set[int]) -> _Loop:
        """The loop of the latest producer, if all else was ready before that loop began; or a new one."""
        writers = [self.written[s] for s in storages if s in self.written]
        _, loop = max(writers, key=lambda w: w[0], default=(0, None))
        if loop is not None and all(made is loop or at < loop.start for at, made in writers):
            return loop
        loop = self.loops[index] = _Loop(start=index)
        return loop

    def _inline(self, storage: int, into: _Loop) -> None:
        """Move a point-wise loop with one reader into that reader: its result is never stored."""
        loop = self.written.get(storage, (0, None))[1]
        if loop is None or loop is into or not loop.inlines or len(loop.writes) != 1:
            return
        if storage in self.results or self.readers[storage] > 1:
            return
        del self.loops[loop.start]
        into.nodes += loop.nodes
        into.reads |= loop.reads
        into.vector_flops += loop.vector_flops
        into.lane_cycles += loop.lane_cycles
        into.elements += loop.elements
        into.strided |= loop.strided
        self.written[storage] = (self.written[storage][0], into)

    def _count(self, loop: _Loop, index: int, operator: Operator, algorithm: str) -> None:
        loop.nodes.append(index)
        elements = max(t.numel for t in (operator.out, *tensors_in(operator.arguments)))
        loop.vector_flops += operator.cost.vector_flops  # type: ignore[operator]
        loop.lane_cycles += int(elements * self._cycles(index, operator))
        loop.elements += elements
        if algorithm == "pool":
            loop.window_reads += operator.out.numel * window_elements(operator)  # type: ignore[operator]
        joins = operator.name in ("cat", "stack")
        pointwise = (algorithm in ("elementwise", "copy") or "batch_norm" in operator.name) and not joins
        loop.passes += len(self.graph.nodes[index].inputs) - 1 if joins else not pointwise
        loop.inlines &= pointwise
        loop.strided |= algorithm in ("elementwise", "copy") and not in_order(operator)

    def _cycles(self, index: int, operator: Operator) -> float:
        """Cycles of an element, in units of a vector instruction's share of it."""
        name = operator.name
        if name in SERIAL_CYCLES:
            return SERIAL_CYCLES[name] * self.lanes * self.hardware.unit_count
        if "layer_norm" in name and self.graph.tensors[self.graph.nodes[index].outputs[0]].storage in self.convolved:
            return CHANNEL_NORM_CYCLES * self.lanes
        return SCALAR_CYCLES[name] * self.lanes if name in SCALAR_CYCLES else VECTOR_CYCLES.get(name, 1.0)

    def _plan(self) -> KernelPlan:
        steps = {**self.external, **{start: (self._kernel(loop),) for start, loop in self.loops.items()}}
        kernels: dict[Kernel, int] = {}
        launches: list[Launch] = []
        for start in sorted(steps):
            loop = self.loops.get(start)
            nodes = (start,) if loop is None else tuple(sorted(loop.nodes))
            reads, writes = storages_of(self.graph, nodes)
            if loop is not None:
                reads = tuple(read for read in reads if read.storage in loop.reads)
                writes = tuple(self._stored(loop))
            launches += [Launch(kernels.setdefault(k, len(kernels)), nodes, reads, writes) for k in steps[start]]
        return KernelPlan(tuple(kernels), tuple(launches), self._storage_bytes(launches))

    def _storage_bytes(self, launches: Sequence[Launch]) -> tuple[float, ...]:
        """B of each storage; 0 for results that no kernel stores."""
        touched = {storage for launch in launches for storage in (*launch.writes, *(r.storage for r in launch.reads))}
        made = {self.graph.tensors[t].storage for node in self.graph.nodes for t in node.outputs}
        gone = made - touched - self.results
        nbytes = stored_bytes(self.graph, storage_scale(self.graph, self.types, self.precision))
        return tuple(0.0 if storage in gone else n for storage, n in enumerate(nbytes))

    def _stored(self, loop: _Loop) -> dict[int, int]:
        """B of what a loop stores, by storage: what others read or the graph puts out, or its only result."""
        inside: dict[int, int] = {}
        for node in loop.nodes:
            for storage in {self.graph.tensors[t].storage for t in self.graph.nodes[node].inputs}:
                inside[storage] = inside.get(storage, 0) + 1
        kept = {s: b for s, b in loop.writes.items() if s in self.results or self.readers.get(s, 0) != inside.get(s, 0)}
        return kept or loop.writes

    def _kernel(self, loop: _Loop) -> Kernel:
        """One loop nest: outside operands read once, results that others read written once."""
        last = self.graph.nodes[max(loop.nodes)].op
        return Kernel(
            op=last,
            algorithm="fused_pool" if loop.window_reads else "fused_loop",
            vector_flops=loop.vector_flops,
            bytes_read=sum(loop.reads.values()),
            bytes_written=sum(self._stored(loop).values()),
            elements=loop.elements,
            shape=Loop(loop.lane_cycles, loop.window_reads),
            access="strided" if loop.strided else "elementwise",
            count=loop.passes,
            caller="loop",
        )
