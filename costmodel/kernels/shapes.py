"""Shapes of work: what a kernel's time depends on beside its FLOPs and bytes, one kind of shape for each kind of work.

A kernel has exactly one shape; who times, explains or reports it asks which (``isinstance`` or ``match``) and finds
sizes whose names say what they are. All sizes are in elements unless said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from costmodel.tensor import TensorSpec

__all__ = [
    "LOOP",
    "Attention",
    "Channels",
    "Columns",
    "Convolution",
    "Depthwise",
    "Loop",
    "Planes",
    "Pooling",
    "Product",
    "Rows",
    "Shape",
    "Window",
    "product_of",
]


@dataclass(frozen=True, slots=True)
class Product:
    """``batch`` matrix products of A[m, k] and B[k, n], whose elements take ``item_bytes`` each in memory."""

    m: int
    n: int
    k: int
    batch: int = 1
    item_bytes: int = 4

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all of them."""
        return self.m * self.n * self.k * self.batch

    @property
    def weight_bytes(self) -> int:
        """B of B[k, n], the weight of a linear layer."""
        return self.n * self.k * self.item_bytes

    @property
    def is_vector(self) -> bool:
        """Whether this is a matrix times a vector, which has no tiles."""
        return self.batch == 1 and min(self.m, self.n) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A 2-d convolution of (batch, in_channels, height, width), padded alike on both sides."""

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of_call(cls, arguments: Mapping[str, Any]) -> Window | None:
        """The convolution that an operator is called for, by its arguments' schema names; None for other ranks.

        Padding by name: ``same`` is half of what the dilated window reaches beyond one pixel, ``valid`` none.

        >>> x, weight = TensorSpec((1, 3, 8, 8)), TensorSpec((4, 3, 3, 3))
        >>> Window.of_call({"input": x, "weight": weight, "padding": "same", "dilation": 2}).padding
        (2, 2)
        """
        x, weight = arguments.get("input"), arguments.get("weight")
        if not isinstance(x, TensorSpec) or not isinstance(weight, TensorSpec):
            return None
        if len(x.shape) != 4 or len(weight.shape) != 4:
            return None
        kernel: Any = tuple(weight.shape[2:])
        dilation, stride = (_pair(arguments.get(name, 1)) for name in ("dilation", "stride"))
        padding = arguments.get("padding", 0)
        if isinstance(padding, str):
            padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)] if padding == "same" else 0
        batch, in_channels, height, width = x.shape
        return cls(
            batch=batch, in_channels=in_channels, height=height, width=width, out_channels=weight.shape[0],
            kernel=kernel, stride=stride, padding=_pair(padding), dilation=dilation, groups=arguments.get("groups", 1),
        )  # type: ignore[arg-type]  # fmt: skip

    @property
    def in_size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.height, self.width

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the output.

        >>> Window(batch=1, in_channels=3, height=224, width=224, out_channels=64, kernel=(7, 7),
        ...        stride=(2, 2), padding=(3, 3)).out_size
        (112, 112)
        """
        reach_h, reach_w = self.dilation[0] * (self.kernel[0] - 1), self.dilation[1] * (self.kernel[1] - 1)
        return (
            (self.height + 2 * self.padding[0] - reach_h - 1) // self.stride[0] + 1,
            (self.width + 2 * self.padding[1] - reach_w - 1) // self.stride[1] + 1,
        )

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is convolved by itself."""
        return self.groups == self.in_channels > 1

    @property
    def is_pointwise(self) -> bool:
        """Whether this is a matrix product over channels: a dense 1x1 convolution."""
        return self.kernel == (1, 1) and self.groups == 1


def _pair(value: Any) -> tuple[int, int]:
    values = [value, value] if isinstance(value, int) else list(value) * 2
    return values[0], values[1]


class Depthwise(str, Enum):
    """Whose depthwise kernel runs, and for which layout; a key of the time model's rates.

    cuDNN's for channels_last, for windows up to 7x7 and for larger ones; its kernel for tensors beyond 32-bit indices,
    which fetches the window anew for each output; its NCHW kernel; and PyTorch's own.
    """

    NHWC = "nhwc"
    NHWC_LARGE = "nhwc_large"
    NHWC_WIDE = "nhwc_wide"
    NCHW = "nchw"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution: as a product of output positions by output channels over the window's elements, and its window.

    ``window`` is None where the model of windows does not reach (1-d, 3-d); ``depthwise`` says which kernel convolves
    channel by channel, None for others.
    """

    product: Product
    window: Window | None = None
    depthwise: Depthwise | None = None


@dataclass(frozen=True, slots=True)
class Attention:
    """Scaled dot-product attention whose scores stay on chip: ``heads`` of the whole batch, each ``width`` wide.

    ``shared_by`` query heads read the same keys and values (grouped-query attention), ``value_width`` is the width of
    a value where it is another; ``causal`` says that query i sees no key after i; ``sequences`` is how many the heads
    are of.
    """

    queries: int
    keys: int
    width: int
    heads: int
    shared_by: int = 1
    values: int = 0
    causal: bool = False
    sequences: int = 1

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, of the whole batch."""
        return self.heads // self.shared_by

    @property
    def value_width(self) -> int:
        """Width of a value [elements]."""
        return self.values or self.width


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of ``length`` elements that are normalized together: softmax, layer norm."""

    length: int


@dataclass(frozen=True, slots=True)
class Channels:
    """A walk over pixels of ``count`` channels: channels ``last``, by blocks that each take a fixed number of them;
    otherwise channel by channel, an element at a time. ``item_bytes``: B of an element; ``early``: by cuDNN's kernels
    of the time before PyTorch 1.13."""

    count: int
    last: bool = True
    item_bytes: int = 2
    early: bool = False


@dataclass(frozen=True, slots=True)
class Pooling:
    """A thread an output, which walks the ``taps`` elements of its window one by one."""

    taps: int
    channels_last: bool = False


@dataclass(frozen=True, slots=True)
class Planes:
    """A thread a pixel, which walks ``count`` planes (images times channels) one by one."""

    count: int


@dataclass(frozen=True, slots=True)
class Columns:
    """``matrices`` walked column by column, ``steps`` columns each, of which each waits for the one before.

    ``in_turn``: the matrices follow one another on a GPU as well.
    """

    steps: int
    matrices: int
    in_turn: bool = False


@dataclass(frozen=True, slots=True)
class Loop:
    """An element-wise walk.

    ``lane_cycles`` and ``window_reads`` belong to generated loops of a CPU: cycles of its vector unit times its lanes,
    elementary functions expanded, and elements read under pooling windows.
    """

    lane_cycles: int = 0
    window_reads: int = 0


#: The plain walk of most kernels.
LOOP = Loop()

Shape = Product | Convolution | Attention | Rows | Channels | Pooling | Planes | Columns | Loop


def product_of(shape: Shape) -> Product | None:
    """The matrix products that a kernel runs as, by itself or as a convolution; None for other shapes."""
    if isinstance(shape, Product):
        return shape
    return shape.product if isinstance(shape, Convolution) else None
