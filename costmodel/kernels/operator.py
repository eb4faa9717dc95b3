"""Operator: one call with the dtypes of the run, and what can be read off its tensors' strides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from costmodel.cost import Cost
from costmodel.execution import Execution
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import LOOP, Channels, Loop
from costmodel.symbols import product
from costmodel.tensor import TensorSpec, tensors_in

__all__ = [
    "LINEAR",
    "RULES",
    "Operator",
    "Rule",
    "channel_blocks",
    "copy_kernel",
    "dense_order",
    "has_unit_stride",
    "in_double",
    "is_channels_last",
    "is_contiguous",
    "is_dense",
    "rule",
    "visited_keys",
    "window_elements",
]

#: Layers whose weight is [N, K], by the name of their operator.
LINEAR = frozenset({"linear", "linear_dynamic", "linear_relu_dynamic", "linear_dynamic_fp16"})


@dataclass(slots=True)  # not frozen: made some fifty times in a re-evaluation, and freezing takes as long as the rest
class Operator:
    """One call with the dtypes of the run: everything that decides its kernels."""

    op: str
    arguments: dict[str, Any]
    results: Any
    cost: Cost
    execution: Execution
    hardware: HardwareProfile

    @property
    def name(self) -> str:
        return self.op.rpartition(".")[2]

    @property
    def input(self) -> TensorSpec:
        return self.arguments["input"]  # type: ignore[no-any-return]

    @property
    def out(self) -> TensorSpec:
        """The first result; of an operator that puts out no tensor, the number that the host reads."""
        if isinstance(self.results, (tuple, list)):
            return self.results[0] if self.results else TensorSpec((), next(tensors_in(self.arguments)).dtype)
        return self.results  # type: ignore[no-any-return]

    def kernel(self, algorithm: str, **changes: Any) -> Kernel:
        """A kernel with the operator's own FLOPs and bytes, unless ``changes`` say otherwise."""
        cost = self.cost
        values: dict[str, Any] = {
            "vector_flops": cost.vector_flops,
            "bytes_read": cost.bytes_read,
            "bytes_written": cost.bytes_written,
            "count": cost.launches,
            "elements": self.out.numel,
        }
        return Kernel(op=self.op, algorithm=algorithm, **{**values, **changes})


def in_double(operator: Operator, kernels: Iterable[Kernel]) -> tuple[Kernel, ...]:
    """Kernels of an operator; where it puts out double precision, its lanes calculate in it."""
    if operator.out.dtype not in _DOUBLE:
        return tuple(kernels)
    return tuple(
        replace(k, dtype="fp64", accumulate="fp64") if k.vector_flops and not k.matrix_flops else k for k in kernels
    )


_DOUBLE = frozenset({"float64", "complex128"})


def dense_order(spec: TensorSpec) -> list[int]:
    """Dimensions from the slowest to the fastest, size-1 dimensions left out."""
    strides = spec.strides or ()
    return sorted((d for d, size in enumerate(spec.shape) if size != 1), key=lambda d: (-strides[d], d))  # type: ignore[operator]


def is_dense(spec: TensorSpec) -> bool:
    """Whether the elements lie without gaps, in whatever order of dimensions.

    >>> is_dense(TensorSpec((2, 3), strides=(1, 2))), is_dense(TensorSpec((2, 3), strides=(6, 1)))
    (True, False)
    """
    if spec.strides is None:
        return True
    expected: Any = 1
    for d in reversed(dense_order(spec)):
        if spec.strides[d] != expected:
            return False
        expected = expected * spec.shape[d]
    return True


def has_unit_stride(spec: TensorSpec) -> bool:
    """Whether rows or columns of each matrix of a tensor lie in one piece, as libraries of products ask for.

    >>> has_unit_stride(TensorSpec((8, 4), strides=(1, 8))), has_unit_stride(TensorSpec((8, 4), strides=(8, 2)))
    (True, False)
    """
    if spec.strides is None or len(spec.shape) < 2:
        return True
    return 1 in spec.strides[-2:] or 1 in spec.shape[-2:]


def is_contiguous(spec: TensorSpec) -> bool:
    """Whether the elements lie in row-major order without gaps."""
    return spec.strides is None or (
        is_dense(spec) and dense_order(spec) == [d for d, n in enumerate(spec.shape) if n != 1]
    )


def is_channels_last(spec: TensorSpec) -> bool:
    """Whether a 4-d tensor lies as (N, H, W, C): channels fastest.

    >>> is_channels_last(TensorSpec((2, 3, 4, 4), strides=(48, 1, 12, 3))), is_channels_last(TensorSpec((2, 3, 4, 4)))
    (True, False)
    """
    if len(spec.shape) != 4 or spec.strides is None:
        return False
    return spec.strides[1] == 1 and is_dense(spec)


def copy_kernel(op: str, spec: TensorSpec, algorithm: str = "contiguous_copy", access: str = "strided") -> Kernel:
    """A copy into another order, or out of one: every element read and written once. Either end of it is scratch."""
    read: int = spec.nbytes  # type: ignore[assignment]
    elements: int = spec.numel  # type: ignore[assignment]
    written = elements * spec.itemsize
    return Kernel(
        op=op, algorithm=algorithm, bytes_read=read, bytes_written=written, scratch_bytes=written, access=access,
        elements=elements,
    )  # fmt: skip


def channel_blocks(operator: Operator) -> Channels | Loop:
    """How a batch norm in training walks its input: in channels last by blocks of channels, where cuDNN's kernels for
    half precision run, which PyTorch takes beside a scale in fp32 (``cudnnBatchNormalizationForwardTrainingEx``);
    through NCHW one element at a time."""
    x, weight = operator.input, operator.arguments.get("weight")
    if len(x.shape) != 4 or not operator.hardware.gpu.convolutions.converts_layout:
        return LOOP
    count: int = x.shape[1]  # type: ignore[assignment]
    if not is_channels_last(x):
        early = not operator.execution.software.at_least_torch(1, 13)
        return Channels(count, last=False, item_bytes=x.itemsize, early=early)
    by_cudnn = weight is not None and weight.dtype == "float32" and x.dtype == "float16"
    return Channels(count) if by_cudnn else LOOP


def window_elements(operator: Operator) -> int:
    """Elements under the window of a pooling operator; 0 for others."""
    window = operator.arguments.get("kernel_size")
    if window is None:
        return 0
    return window**2 if isinstance(window, int) else product(tuple(window))  # type: ignore[return-value]


Rule = Callable[[Operator], Iterator[Kernel]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as what these operators launch in eager mode on a GPU."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def visited_keys(operator: Operator) -> int:
    """Keys that a query of FlexAttention meets, on average."""
    query, pairs = operator.arguments["query"], operator.arguments.get("pairs")
    keys: int = operator.arguments["key"].shape[-2]
    return keys if pairs is None else -(-pairs // (operator.arguments["mask_heads"] * query.shape[-2]))
