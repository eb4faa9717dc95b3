"""PyTorch on a CPU: the kernels that each operator starts, eager and compiled.

Convolutions run in oneDNN, whose fast kernels want blocked or channels-last operands. An eager NCHW convolution
therefore reorders its input, its weight and its output in every call; oneDNN caches code, not weights. Matrix
products run in MKL or oneDNN on the matrices as they lie. Which kernel runs is stated here, with its bytes; how
fast it is, in ``timing/cpu.py``.

TorchInductor without freezing (:func:`compiled_cpu_plan`) decides for channels_last on every CPU graph with a
convolution (``GraphLowering.decide_layout_opt``): activations need no reorder, weights of k x k kernels are
copied to channels_last by a loop of Inductor's and then reordered by oneDNN. Everything that is neither a
convolution, a matrix product nor attention becomes C++ loops, fused along chains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from costmodel.formulas import cost_of, default_cost, is_free
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.algorithm import algorithm_of, engine_for
from costmodel.kernels.eager import Operator, is_channels_last, is_contiguous, is_dense
from costmodel.kernels.plan import Execution, Kernel, KernelPlan, Launch
from costmodel.kernels.precision import contraction_dtype
from costmodel.symbols import product
from costmodel.tensor import TensorSpec

__all__ = ["compiled_cpu_plan", "cpu_kernels"]

#: Input channels up to which oneDNN's first-layer kernels read a plain NCHW image.
PLAIN_INPUT_CHANNELS = 4
#: Channels a group below which oneDNN has no blocked kernel and falls back to im2col and GEMM.
BLOCKED_GROUP_CHANNELS = 8

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution", "_convolution", "mkldnn_convolution"}
_CONVOLUTIONS |= {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_PRODUCTS = {"linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "linalg_vecdot", "mv", "dot"}
_ATTENTION = {"scaled_dot_product_attention"}
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
        **dict.fromkeys(("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "rms_norm"), 22.0),
        **dict.fromkeys(("cat", "stack"), 10.0),
        **dict.fromkeys(("clone", "constant_pad_nd", "roll", "im2col", "col2im", "reflection_pad2d", "index"), 16.0),
        **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), 25.0),
    }
)
#: Algorithms whose operators Inductor turns into loops of its own.
_LOOPS = {"elementwise", "reduction", "copy", "normalization", "softmax", "pool", "resample"}


def cpu_kernels(operator: Operator) -> tuple[Kernel, ...]:
    """Kernels of one eager operator on a CPU, in order; none for a view."""
    if not (operator.cost.launches or operator.cost.flops or operator.cost.bytes):
        return ()
    if operator.name in _CONVOLUTIONS:
        return tuple(_convolution(operator, compiled=False))
    if operator.name in _PRODUCTS:
        return tuple(_matrix_product(operator))
    if operator.name in _ATTENTION:
        return (_attention(operator),)
    return tuple(_plain(operator))


# -- contractions --------------------------------------------------------------------------------


def _convolution(operator: Operator, *, compiled: bool) -> Iterator[Kernel]:
    """Reorders of what oneDNN does not take as it lies, around the convolution.

    The activations of a channels-last call stay as they are, and so does an image of up to four channels;
    weights are reordered in every call.
    """
    x, weight, out = operator.input, operator.arguments["weight"], operator.out
    plain = not compiled and not (is_channels_last(x) or is_channels_last(out))
    if plain and x.shape[1] > PLAIN_INPUT_CHANNELS:
        yield _moved(operator, x, "reorder_activations")
    if compiled and product(weight.shape[2:]) > 1:
        yield _moved(operator, weight, "copy_weights")
    yield _moved(operator, weight, "reorder_weights")
    yield _convolution_kernel(operator, weight)
    if plain:
        yield _moved(operator, out, "reorder_activations")


def _convolution_kernel(operator: Operator, weight: TensorSpec) -> Kernel:
    """The convolution itself; as a matrix product it has pixels x output channels x window."""
    out, groups = operator.out, operator.arguments.get("groups", 1)
    geometry = (out.numel // out.shape[1], weight.shape[0] // groups, product(weight.shape[1:]), groups)
    algorithm = algorithm_of(operator.op, operator.arguments)
    if algorithm == "grouped_implicit_gemm" and weight.shape[1] < BLOCKED_GROUP_CHANNELS:
        algorithm = "im2col_gemm"
    return _contraction(operator, algorithm, geometry)


def _contraction(operator: Operator, algorithm: str, geometry: Any = None) -> Kernel:
    """A kernel of multiply-accumulates on the units that the machine has for the dtype of the run."""
    operand = next((t.dtype for t in _tensors(operator.arguments) if "float" in t.dtype), "float32")
    wanted = contraction_dtype(operator.op, operator.execution, operand, operator.hardware.has_tf32)
    engine, dtype, accumulate = engine_for("gemm", wanted, operator.hardware)
    units = {"engine": engine, "dtype": dtype, "accumulate": accumulate}
    return operator.kernel(algorithm, matrix_flops=operator.cost.matrix_flops, gemm=geometry, **units)


def _moved(operator: Operator, spec: TensorSpec, algorithm: str) -> Kernel:
    """Every element of ``spec`` read once and written once in another order, inside the operator's call."""
    nbytes: int = spec.nbytes  # type: ignore[assignment]
    elements: int = spec.numel  # type: ignore[assignment]
    return Kernel(
        op=operator.op,
        algorithm=algorithm,
        bytes_read=nbytes,
        bytes_written=elements * spec.itemsize,
        elements=elements,
        count=0,
    )


def _matrix_product(operator: Operator) -> Iterator[Kernel]:
    """MKL's GEMM; operands that it cannot take as they lie are copied first."""
    tensors = [t for t in _tensors(operator.arguments) if len(t.shape) > 1] or list(_tensors(operator.arguments))
    second, out = tensors[-1], operator.out
    for tensor in tensors:
        if not _gemm_ready(tensor):
            yield replace(_moved(operator, tensor, "strided_copy"), count=1)
    batch = 1 if operator.name == "linear" else max(product(out.shape[:-2]), 1) if len(second.shape) > 2 else 1
    n = second.shape[0] if operator.name == "linear" else out.shape[-1] if len(second.shape) > 1 else 1
    m = max(out.numel // max(n * batch, 1), 1)
    k = operator.cost.matrix_flops // max(2 * m * n * batch, 1)
    algorithm = "gemm" if batch == 1 else "batched_gemm"
    yield _contraction(operator, algorithm, (m, n, k, batch))


def _gemm_ready(spec: TensorSpec) -> bool:
    """Whether rows or columns of each matrix lie in one piece."""
    if spec.strides is None or len(spec.shape) < 2:
        return True
    return 1 in spec.strides[-2:] or 1 in spec.shape[-2:] or is_dense(spec)


def _attention(operator: Operator) -> Kernel:
    """Flash attention for CPUs: blocks of the scores stay in L2."""
    query, key = operator.arguments["query"], operator.arguments["key"]
    geometry = (query.shape[-2], key.shape[-2], query.shape[-1], product(query.shape[:-2]))
    return _contraction(operator, "flash_attention", geometry)


# -- everything else -----------------------------------------------------------------------------


def _plain(operator: Operator) -> Iterator[Kernel]:
    """One kernel that reads its operands and writes its result; norms copy a strided input first."""
    algorithm = algorithm_of(operator.op, operator.arguments)
    if algorithm == "normalization" and "batch_norm" not in operator.name and not is_contiguous(operator.input):
        yield replace(_moved(operator, operator.input, "strided_copy"), count=1)
    if operator.cost.matrix_flops:
        yield _contraction(operator, algorithm)
        return
    if algorithm == "copy" and not _in_order(operator):
        algorithm = "strided_copy"
    elif algorithm == "elementwise" and not _in_order(operator):
        algorithm = "strided_elementwise"
    yield operator.kernel(algorithm, row_length=_window_elements(operator))


def _in_order(operator: Operator) -> bool:
    """Whether all full-size operands lie in the same order as the result, so that rows are walked as they lie."""
    out = operator.out
    full = [t for t in _tensors(operator.arguments) if t.numel == out.numel]
    return len({_order(t) for t in (*full, out)}) <= 1


def _order(spec: TensorSpec) -> tuple[int, ...]:
    """Sizes from the slowest to the fastest dimension, those of size 1 left out."""
    strides = spec.strides or tuple(product(spec.shape[d + 1 :]) for d in range(len(spec.shape)))
    dims = (d for d, n in enumerate(spec.shape) if n != 1)
    return tuple(spec.shape[d] for d in sorted(dims, key=lambda d: (-strides[d], d)))  # type: ignore[operator]


def _window_elements(operator: Operator) -> int:
    """Elements under the window of a pooling operator; 0 for others."""
    window = operator.arguments.get("kernel_size")
    if window is None:
        return 0
    return window**2 if isinstance(window, int) else product(tuple(window))  # type: ignore[return-value]


def _tensors(value: Any) -> Iterator[TensorSpec]:
    if isinstance(value, TensorSpec):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


# -- compiled --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Loop:
    """A fused C++ loop nest in the making: its nodes, what it reads and what it writes, by storage."""

    start: int
    nodes: list[int] = field(default_factory=list)
    reads: dict[int, int] = field(default_factory=dict)
    writes: dict[int, int] = field(default_factory=dict)
    vector_flops: int = 0
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
        self.graph, self.execution, self.hardware = graph, execution, hardware
        self.written: dict[int, tuple[int, _Loop | None]] = {}  # storage -> last node that wrote it, and its loop
        self.loops: dict[int, _Loop] = {}  # start -> loop
        self.external: dict[int, tuple[Kernel, ...]] = {}
        self.operators: dict[int, Operator] = {}
        self.readers = self._count_readers()
        self.results = {graph.tensors[t].storage for t in graph.outputs}
        peak = hardware.find_peak("vector", "fp32")
        self.lanes = (peak.flop_per_clock if peak and peak.flop_per_clock else 32) / 4  # two pipes, two FLOP each

    def run(self) -> KernelPlan:
        for index, node in enumerate(self.graph.nodes):
            if is_free(node.op):
                continue
            operator = self.operators.get(node.call) or self._operator(node.call)
            if not (operator.cost.launches or operator.cost.flops or operator.cost.bytes):
                continue  # an operator that returns its operand as it is
            algorithm = algorithm_of(operator.op, operator.arguments)
            if algorithm in _LOOPS and not operator.cost.matrix_flops:
                self._into_loop(index, operator, algorithm)
            else:
                self._external(index, operator)
        return self._plan()

    def _operator(self, index: int) -> Operator:
        call = self.graph.calls[index]
        arguments, results = self.graph.arguments(call), self.graph.results(call)
        cost = cost_of(call.op, arguments, results)
        if cost is None:
            cost = default_cost(arguments, results)
        found = Operator(call.op, arguments, results, cost, self.execution, self.hardware)
        self.operators[index] = found
        return found

    def _count_readers(self) -> dict[int, int]:
        """Per storage, the nodes that compute from it, views left out."""
        readers: dict[int, int] = {}
        for node in self.graph.nodes:
            if not is_free(node.op):
                for storage in {self.graph.tensors[t].storage for t in node.inputs}:
                    readers[storage] = readers.get(storage, 0) + 1
        return readers

    def _external(self, index: int, operator: Operator) -> None:
        """A call out of the compiled code. Copies of strided operands ride in the loops that produce them."""
        if operator.name in _CONVOLUTIONS:
            kernels = tuple(self._channels_last_input(index, operator)) + tuple(_convolution(operator, compiled=True))
        else:
            kernels = tuple(k for k in cpu_kernels(operator) if k.algorithm != "strided_copy")
        self.external[index] = tuple(replace(k, variant="compiled") for k in kernels)
        for tensor in self.graph.nodes[index].outputs:
            self.written[self.graph.tensors[tensor].storage] = (index, None)

    def _channels_last_input(self, index: int, operator: Operator) -> Iterator[Kernel]:
        """A slice of the channels of a channels-last tensor is no dense tensor: it is copied ahead of a convolution."""
        read = self.graph.tensors[self.graph.nodes[index].inputs[0]]
        if self.graph.storages[read.storage].nbytes > operator.input.nbytes:
            copy = _moved(operator, operator.input, "fused_loop")
            yield replace(copy, count=1, vector_flops=copy.elements)

    def _into_loop(self, index: int, operator: Operator, algorithm: str) -> None:
        inputs = [self.graph.tensors[t] for t in self.graph.nodes[index].inputs]
        storages = {t.storage for t in inputs}
        loop = self._loop_for(index, storages)
        for storage in storages:
            self._inline(storage, loop)
        for tensor in inputs:
            if self.written.get(tensor.storage, (0, None))[1] is not loop:
                nbytes: int = self.graph.specs[tensor.spec].nbytes  # type: ignore[assignment]
                loop.reads[tensor.storage] = max(nbytes, loop.reads.get(tensor.storage, 0))
        for output in self.graph.nodes[index].outputs:
            made = self.graph.tensors[output]
            loop.writes[made.storage] = self.graph.specs[made.spec].nbytes  # type: ignore[assignment]
            self.written[made.storage] = (index, loop)
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
        into.elements += loop.elements
        into.strided |= loop.strided
        self.written[storage] = (self.written[storage][0], into)

    def _count(self, loop: _Loop, index: int, operator: Operator, algorithm: str) -> None:
        loop.nodes.append(index)
        elements = max(t.numel for t in (operator.out, *_tensors(operator.arguments)))
        loop.vector_flops += int(elements * self._cycles(operator.name))
        loop.elements += elements
        if algorithm == "pool":
            loop.window_reads += operator.out.numel * _window_elements(operator)  # type: ignore[operator]
        joins = operator.name in ("cat", "stack")
        pointwise = (algorithm in ("elementwise", "copy") or "batch_norm" in operator.name) and not joins
        loop.passes += len(self.graph.nodes[index].inputs) if joins else not pointwise
        loop.inlines &= pointwise
        loop.strided |= algorithm in ("elementwise", "copy") and not _in_order(operator)

    def _cycles(self, name: str) -> float:
        """Cycles of an element times the lanes of a vector."""
        return SCALAR_CYCLES[name] * self.lanes if name in SCALAR_CYCLES else VECTOR_CYCLES.get(name, 1.0)

    def _plan(self) -> KernelPlan:
        steps = {**self.external, **{start: (self._kernel(loop),) for start, loop in self.loops.items()}}
        kernels: dict[Kernel, int] = {}
        launches = []
        for start in sorted(steps):
            nodes = tuple(sorted(self.loops[start].nodes)) if start in self.loops else (start,)
            launches += [Launch(kernels.setdefault(k, len(kernels)), nodes) for k in steps[start]]
        return KernelPlan(tuple(kernels), tuple(launches), (1.0,) * len(self.graph.storages))

    def _kernel(self, loop: _Loop) -> Kernel:
        """One loop nest: outside operands read once, results that others read written once."""
        inside: dict[int, int] = {}
        for node in loop.nodes:
            for storage in {self.graph.tensors[t].storage for t in self.graph.nodes[node].inputs}:
                inside[storage] = inside.get(storage, 0) + 1
        kept = {s: b for s, b in loop.writes.items() if s in self.results or self.readers.get(s, 0) != inside.get(s, 0)}
        last = self.graph.nodes[max(loop.nodes)].op
        return Kernel(
            op=last,
            algorithm="pool" if loop.window_reads else "fused_loop",
            vector_flops=loop.vector_flops,
            bytes_read=sum(loop.reads.values()),
            bytes_written=sum((kept or loop.writes).values()),
            elements=loop.elements,
            row_length=loop.window_reads,
            access="strided" if loop.strided else "elementwise",
            count=loop.passes,
            variant="compiled",
        )
