"""Matrix products: linear layers, matrix and vector products of every rank, batched or not.

Conventions: 2 matrix FLOP per MAC; an addend (bias, the ``input`` of ``addmm``) adds one vector FLOP per
output element; every operand is read once in its stored size, however it broadcasts. Torch's own counter
(``torch.utils.flop_counter``) counts the same for every matrix product, and nothing for ``dot``, ``mv`` and
the like, which are contractions all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.cost import Cost
from costmodel.errors import FormulaError
from costmodel.formulas.operands import contraction_cost
from costmodel.formulas.registry import cost_of, formula
from costmodel.symbols import Dim, product
from costmodel.tensor import TensorSpec

__all__ = [
    "addbmm",
    "addmm",
    "addmm_activation",
    "addmv",
    "addr",
    "baddbmm",
    "dot",
    "grouped_mm",
    "linear",
    "matmul",
    "mm",
    "mv",
    "outer",
    "scaled_mm",
    "tensordot",
    "vecdot",
    "weight_only_mm",
]


@formula("aten.linear", "aten.mkldnn_linear")
def linear(input: TensorSpec, weight: TensorSpec, bias: TensorSpec | None = None, *, out: TensorSpec) -> Cost:
    """out[*, N] = input[*, K] @ weight[N, K].T + bias[N]

    Each output element is a dot product of length K: K MACs, 2 FLOP each; a bias adds one FLOP.

    >>> from costmodel.tensor import f32
    >>> linear(f32(4, 5), f32(6, 5), out=f32(4, 6)).matrix_flops     # 4*6 outputs, 5 MACs each
    240
    """
    macs = out.numel * input.shape[-1]
    return contraction_cost(macs, input, weight, bias, out=out, vector_flops=0 if bias is None else out.numel)


@formula("aten.matmul", "aten.linalg_matmul", "aten.inner")
def matmul(input: TensorSpec, other: TensorSpec, *, out: TensorSpec) -> Cost:
    """out[*batch, M, N] = input[*, M, K] @ other[*, K, N]; a vector has no M or no N; batches broadcast.

    Whatever the ranks, each output element is a dot product of length K, the input's last dimension.
    (``inner`` contracts the last dimensions of both.) An ``inner`` with a scalar is a plain product.

    >>> from costmodel.tensor import f32
    >>> matmul(f32(7, 1, 2, 3), f32(5, 3, 4), out=f32(7, 5, 2, 4)).macs    # 7*5*2*4 outputs, 3 MACs each
    840
    >>> matmul(f32(3), f32(3), out=f32()).macs
    3
    """
    if not (input.shape and other.shape):
        return contraction_cost(0, input, other, out=out, vector_flops=out.numel, activations=0)
    return contraction_cost(out.numel * input.shape[-1], input, other, out=out)


@formula("aten.mm", "aten.bmm", "aten._int_mm")
def mm(input: TensorSpec, mat2: TensorSpec, *, out: TensorSpec) -> Cost:
    """out[M, N] = input[M, K] @ mat2[K, N], or a batch of these: K MACs per output element.

    >>> from costmodel.tensor import f32
    >>> mm(f32(7, 2, 3), f32(7, 3, 4), out=f32(7, 2, 4)).macs              # 7*2*4 outputs, 3 MACs each
    168
    """
    return contraction_cost(out.numel * input.shape[-1], input, mat2, out=out)


@formula("aten.mv")
def mv(input: TensorSpec, vec: TensorSpec, *, out: TensorSpec) -> Cost:
    """out[M] = input[M, K] @ vec[K]: K MACs per output element.

    >>> from costmodel.tensor import f32
    >>> mv(f32(2, 3), f32(3), out=f32(2)).macs
    6
    """
    return contraction_cost(input.numel, input, vec, out=out)


@formula("aten.dot")
def dot(input: TensorSpec, tensor: TensorSpec, *, out: TensorSpec) -> Cost:
    """out = sum over K of input[K] * tensor[K]: K MACs.

    >>> from costmodel.tensor import f32
    >>> dot(f32(3), f32(3), out=f32()).macs
    3
    """
    return contraction_cost(input.numel, input, tensor, out=out)


@formula("aten.vdot")
def vdot(input: TensorSpec, other: TensorSpec, *, out: TensorSpec) -> Cost:
    """As :func:`dot`; of complex vectors the first is conjugated (a change of sign, not counted).

    >>> from costmodel.tensor import f32
    >>> vdot(f32(3), f32(3), out=f32()).macs
    3
    """
    return contraction_cost(input.numel, input, other, out=out)


@formula("aten.linalg_vecdot")
def vecdot(x: TensorSpec, y: TensorSpec, dim: int = -1, *, out: TensorSpec) -> Cost:
    """out[*] = sum over dimension ``dim`` of x * y, which broadcast.

    >>> from costmodel.tensor import f32
    >>> vecdot(f32(2, 3), f32(3), out=f32(2)).macs
    6
    """
    return contraction_cost(out.numel * common_size(x, y, dim), x, y, out=out)


def common_size(x: TensorSpec, y: TensorSpec, dim: int) -> Dim:
    """Size of dimension ``dim`` (counted in the broadcast shape) of two tensors that broadcast.

    >>> from costmodel.tensor import f32
    >>> common_size(f32(5, 1), f32(2, 5, 3), 2), common_size(f32(5, 1), f32(2, 5, 3), -2)
    (3, 5)
    """
    from_right = dim if dim < 0 else dim - max(len(x.shape), len(y.shape))
    sizes = [t.shape[from_right] for t in (x, y) if len(t.shape) >= -from_right]
    return next((size for size in sizes if size != 1), 1)


def _added(
    addend: TensorSpec, beta: Any, alpha: Any, macs: Dim, x: TensorSpec, y: TensorSpec, out: TensorSpec, **more: Dim
) -> Cost:
    """beta * addend + alpha * (x times y, which takes ``macs``); the addend is not read at beta 0.

    Vector FLOP: one addition, a product for each factor that is not 1, and ``vector_flops`` more.
    """
    products = (0 if alpha == 1 else out.numel) + (0 if beta == 1 or beta == 0 else addend.numel)
    vector_flops = products + (0 if beta == 0 else out.numel) + more.pop("vector_flops", 0)
    return contraction_cost(macs, None if beta == 0 else addend, x, y, out=out, vector_flops=vector_flops, **more)


@formula("aten.addmm")
def addmm(
    input: TensorSpec, mat1: TensorSpec, mat2: TensorSpec, beta: float = 1, alpha: float = 1, *, out: TensorSpec
) -> Cost:
    """out[M, N] = beta * input + alpha * mat1[M, K] @ mat2[K, N]; ``input`` broadcasts, and is not read at beta 0.

    >>> from costmodel.tensor import f32
    >>> cost = addmm(f32(6), f32(4, 5), f32(5, 6), out=f32(4, 6))
    >>> cost.macs, cost.vector_flops                                    # 4*6 outputs: 5 MACs and one addition each
    (120, 24)
    """
    return _added(input, beta, alpha, out.numel * mat1.shape[-1], mat1, mat2, out)


@formula("aten.baddbmm")
def baddbmm(
    input: TensorSpec, batch1: TensorSpec, batch2: TensorSpec, beta: float = 1, alpha: float = 1, *, out: TensorSpec
) -> Cost:
    """out[B, M, N] = beta * input + alpha * batch1[B, M, K] @ batch2[B, K, N]: a batch of :func:`addmm`.

    >>> from costmodel.tensor import f32
    >>> baddbmm(f32(4, 6), f32(7, 4, 5), f32(7, 5, 6), out=f32(7, 4, 6)).macs         # 7*4*6 outputs, 5 MACs each
    840
    """
    return addmm(input, batch1, batch2, beta, alpha, out=out)


@formula("aten.addbmm")
def addbmm(
    input: TensorSpec, batch1: TensorSpec, batch2: TensorSpec, beta: float = 1, alpha: float = 1, *, out: TensorSpec
) -> Cost:
    """out[M, N] = beta * input + alpha * sum over B of batch1[B, M, K] @ batch2[B, K, N]: B * K MACs per element.

    >>> from costmodel.tensor import f32
    >>> addbmm(f32(4, 6), f32(7, 4, 5), f32(7, 5, 6), out=f32(4, 6)).macs             # 4*6 outputs, 7*5 MACs each
    840
    """
    return _added(input, beta, alpha, batch1.numel * out.shape[-1], batch1, batch2, out)


@formula("aten.addmv")
def addmv(
    input: TensorSpec, mat: TensorSpec, vec: TensorSpec, beta: float = 1, alpha: float = 1, *, out: TensorSpec
) -> Cost:
    """out[M] = beta * input + alpha * mat[M, K] @ vec[K].

    >>> from costmodel.tensor import f32
    >>> addmv(f32(4), f32(4, 5), f32(5), out=f32(4)).macs
    20
    """
    return _added(input, beta, alpha, mat.numel, mat, vec, out)


@formula("aten.outer", "aten.ger")
def outer(input: TensorSpec, vec2: TensorSpec, *, out: TensorSpec) -> Cost:
    """out[M, N] = input[M] * vec2[N]: a product each, nothing accumulated, so vector work.

    >>> from costmodel.tensor import f32
    >>> outer(f32(2), f32(3), out=f32(2, 3)).vector_flops
    6
    """
    return contraction_cost(0, input, vec2, out=out, vector_flops=out.numel, activations=0)


@formula("aten.addr")
def addr(
    input: TensorSpec, vec1: TensorSpec, vec2: TensorSpec, beta: float = 1, alpha: float = 1, *, out: TensorSpec
) -> Cost:
    """out[M, N] = beta * input + alpha * vec1[M] * vec2[N]: a product and an addition each.

    >>> from costmodel.tensor import f32
    >>> addr(f32(2, 3), f32(2), f32(3), out=f32(2, 3)).vector_flops
    12
    """
    return _added(input, beta, alpha, 0, vec1, vec2, out, vector_flops=out.numel, activations=0)


@formula("aten.tensordot")
def tensordot(
    input: TensorSpec, other: TensorSpec, dims_self: Sequence[int], dims_other: Sequence[int] = (), *, out: TensorSpec
) -> Cost:
    """Contracts dimensions ``dims_self`` of ``input`` with ``dims_other`` of ``other``; the rest become the output's.

    >>> from costmodel.tensor import f32
    >>> tensordot(f32(2, 3, 4), f32(4, 3, 5), [1, 2], [1, 0], out=f32(2, 5)).macs      # 2*5 outputs, 3*4 MACs each
    120
    """
    return contraction_cost(out.numel * product(input.shape[d] for d in dims_self), input, other, out=out)


@formula("aten._addmm_activation")
def addmm_activation(
    input: TensorSpec,
    mat1: TensorSpec,
    mat2: TensorSpec,
    beta: float = 1,
    alpha: float = 1,
    use_gelu: bool = False,
    *,
    out: TensorSpec,
) -> Cost:
    """:func:`addmm` and, in the same kernel, ReLU (a comparison per element) or GELU in its tanh form.

    >>> from costmodel.tensor import f32
    >>> addmm_activation(f32(6), f32(4, 5), f32(5, 6), out=f32(4, 6)).vector_flops      # 4*6 additions and comparisons
    48
    """
    activation = activation_flops(out, "gelu" if use_gelu else "relu", approximate="tanh")
    return addmm(input, mat1, mat2, beta, alpha, out=out) + Cost(vector_flops=activation)


def activation_flops(values: TensorSpec, name: str, approximate: str = "none") -> Dim:
    """Vector FLOP of ReLU or GELU on every element: the pointwise sheet's GELU, for a fused operator."""
    if name == "relu":
        return values.numel
    cost = cost_of("aten.gelu", {"input": values, "approximate": approximate}, values)
    if cost is None:
        raise FormulaError("a fused GELU needs the formula of aten.gelu\n  import costmodel.formulas.pointwise")
    return cost.vector_flops


@formula("aten._scaled_mm")
def scaled_mm(
    input: TensorSpec,
    mat2: TensorSpec,
    scale_a: TensorSpec | None = None,
    scale_b: TensorSpec | None = None,
    bias: TensorSpec | None = None,
    *,
    out: TensorSpec,
) -> Cost:
    """out[M, N] = scale_a * scale_b * (input[M, K] @ mat2[K, N]) + bias[N]: float8 operands, two products per element.

    >>> from costmodel.tensor import TensorSpec, f32
    >>> a, b = TensorSpec((16, 32), "float8_e4m3fn"), TensorSpec((32, 16), "float8_e4m3fn")
    >>> cost = scaled_mm(a, b, f32(), f32(), out=f32(16, 16))
    >>> cost.macs, cost.vector_flops, cost.bytes_read              # 16*16*32, 2*16*16, 16*32 + 32*16 + 4 + 4
    (8192, 512, 1032)
    """
    vector_flops = out.numel * (2 if bias is None else 3)
    return contraction_cost(
        out.numel * input.shape[-1], input, mat2, scale_a, scale_b, bias, out=out, vector_flops=vector_flops
    )


@formula("aten._weight_int8pack_mm", "aten._weight_int4pack_mm")
def weight_only_mm(
    input: TensorSpec,
    mat2: TensorSpec,
    scales: TensorSpec | None = None,
    qScaleAndZeros: TensorSpec | None = None,
    *,
    out: TensorSpec,
) -> Cost:
    """out[M, N] = input[M, K] @ (scales * mat2)[K, N]: a weight of 8 or 4 bits that is widened inside the product.

    K MACs per output element. The packed weight is read as it is stored, whatever the order of its elements, and a
    scale multiplies each output element.

    >>> from costmodel.tensor import TensorSpec, f32
    >>> cost = weight_only_mm(f32(16, 32), TensorSpec((8, 32), "int8"), f32(8), out=f32(16, 8))
    >>> cost.macs, cost.vector_flops, cost.bytes_read              # 16*8*32, 16*8, 4*16*32 + 8*32 + 4*8
    (4096, 128, 2336)
    """
    return contraction_cost(
        out.numel * input.shape[-1], input, mat2, scales, qScaleAndZeros, out=out, vector_flops=out.numel
    )


@formula("aten._grouped_mm")
def grouped_mm(
    input: TensorSpec,
    mat2: TensorSpec,
    offs: TensorSpec | None = None,
    bias: TensorSpec | None = None,
    *,
    out: TensorSpec,
) -> Cost:
    """The experts of a mixture: every row of input[T, K] meets one of the matrices mat2[G, K, N].

    K MACs per output element, wherever the rows of the groups (``offs``) end. Of two matrices the common
    dimension is what is cut into groups: input[M, K] @ mat2[K, N] gives out[G, M, N] with M * K * N MACs in all.
    All matrices are read, whether or not a row meets them: which ones do is not known before running.

    >>> from costmodel.tensor import f32
    >>> grouped_mm(f32(10, 4), f32(3, 4, 5), f32(3), out=f32(10, 5)).macs               # 10*5 outputs, 4 MACs each
    200
    >>> grouped_mm(f32(6, 10), f32(10, 5), f32(3), out=f32(3, 6, 5)).macs               # 6*10*5
    300
    """
    both_matrices = len(input.shape) == len(mat2.shape) == 2
    macs = input.numel * mat2.shape[-1] if both_matrices else out.numel * input.shape[-1]
    return contraction_cost(macs, input, mat2, offs, bias, out=out, vector_flops=0 if bias is None else out.numel)
