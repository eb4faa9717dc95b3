"""Graphs of one operator, built from a measured row without torch, so that rows go through the same analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.errors import InputError
from costmodel.graph import OpGraph
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.symbols import product
from costmodel.tensor import Role, TensorSpec
from costmodel.validate.rows import OperatorRow

__all__ = ["is_known", "known", "operator_graph"]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """An operator's packet, its tensors by schema name (weights starred), the rest of its arguments, its result."""

    op: str
    tensors: Mapping[str, Shape]
    out: Shape
    arguments: Mapping[str, Any]


def operator_graph(row: OperatorRow) -> OpGraph:
    """The graph of one node that the row measured; sizes are numbers, dtypes fp32 as in a trace.

    Raises InputError when the row's shapes do not fit its operator.

    >>> row = OperatorRow(file="", line=2, device="t4", op="linear", dtype="fp32", input=(4, 5), other=(6, 5),
    ...                   latency_s=1e-3)
    >>> graph = operator_graph(row)
    >>> graph.nodes[0].op, [spec.shape for spec in graph.specs]
    ('aten.linear', [(4, 5), (6, 5), (6,), (4, 6)])
    """
    try:
        return _graph(_KNOWN[row.op](row))
    except (ValueError, IndexError) as error:
        raise InputError(f"the shapes of {row.model} do not fit: {error}") from error


def is_known(op: str) -> bool:
    """Whether rows of this operator can be judged."""
    return op in _KNOWN


def known() -> list[str]:
    """The operators that a measured file may hold."""
    return sorted(_KNOWN)


def _graph(call: _Call) -> OpGraph:
    roles = [Role.PARAMETER if name.startswith("*") else Role.INPUT for name in call.tensors]
    shapes = [*call.tensors.values(), call.out]
    specs = [TensorSpec(shape, role=role) for shape, role in zip(shapes, [*roles, Role.ACTIVATION], strict=True)]
    count = len(specs) - 1
    named = [(name.lstrip("*"), SpecRef(i)) for i, name in enumerate(call.tensors)]
    weights = {
        name: int(product(spec.shape))
        for (name, _), spec in zip(named, specs, strict=False)
        if spec.role is Role.PARAMETER
    }
    names = [*(name for name, _ in named), ""]
    return OpGraph(
        symbols={},
        specs=specs,
        calls=[Call(call.op, (*named, *call.arguments.items()), (SpecRef(count),))],
        storages=[Storage(spec.nbytes, spec.dtype, spec.role) for spec in specs],
        tensors=[Tensor(i, i, 0 if i == count else None, names[i]) for i in range(count + 1)],
        nodes=[OpNode(call.op.removeprefix("aten."), call.op, "", "", 0, tuple(range(count)), (count,))],
        inputs=[i for i in range(count) if specs[i].role is Role.INPUT],
        outputs=[count],
        parameters=weights,
        parameter_bytes_of={"float32": 4 * sum(weights.values())},
    )


def _must(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _linear(row: OperatorRow, *, bias: bool) -> _Call:
    """input[*, K] @ weight[N, K].T"""
    rows, inner = row.other
    _must(row.input[-1] == inner, f"{row.input[-1]} features against {inner}")
    tensors = {"input": row.input, "*weight": row.other, **({"*bias": (rows,)} if bias else {})}
    return _Call("aten.linear", tensors, (*row.input[:-1], rows), {})


def _bmm(row: OperatorRow) -> _Call:
    """input[B, M, K] @ mat2[B, K, N]"""
    (batch, rows, inner), (batches, inners, columns) = row.input, row.other
    _must((batch, inner) == (batches, inners), "the batch or the inner size differs")
    return _Call("aten.bmm", {"input": row.input, "mat2": row.other}, (batch, rows, columns), {})


def _matmul(row: OperatorRow) -> _Call:
    """input[*, M, K] @ other[*, K, N] of equal leading sizes"""
    _must(row.input[:-2] == row.other[:-2] and row.input[-1] == row.other[-2], "the leading or the inner size differs")
    return _Call("aten.matmul", {"input": row.input, "other": row.other}, (*row.input[:-1], row.other[-1]), {})


def _pair(sizes: Sequence[int], default: int) -> tuple[int, int]:
    return (sizes[0], sizes[-1]) if sizes else (default, default)


def _conv2d(row: OperatorRow, *, bias: bool) -> _Call:
    """input[N, C, H, W] with weight[O, C/groups, kH, kW]"""
    (batch, channels, *image), (out, inner, *kernel) = row.input, row.other
    _must(len(image) == len(kernel) == 2, "four sizes each are needed")
    _must(
        channels == inner * row.groups and out % row.groups == 0,
        f"{channels} channels in {row.groups} groups of {inner}",
    )
    stride, padding, dilation = _pair(row.stride, 1), _pair(row.padding, 0), _pair(row.dilation, 1)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = [(i + 2 * p - r) // s + 1 for i, r, s, p in zip(image, reach, stride, padding, strict=True)]
    _must(min(sizes) > 0, "the kernel is larger than the padded image")
    tensors = {"input": row.input, "*weight": row.other, **({"*bias": (out,)} if bias else {})}
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": row.groups}
    return _Call("aten.conv2d", tensors, (batch, out, *sizes), arguments)


def _gradient(row: OperatorRow, out: tuple[int, ...], mask: tuple[bool, bool, bool]) -> _Call:
    """One gradient of a convolution of input[N, C, H, W] with weight[O, C/groups, kH, kW], as in a training step."""
    forward = _conv2d(row, bias=False)
    tensors = {"grad_output": forward.out, "input": row.input, "*weight": row.other}
    arguments = {"bias_sizes": None, **forward.arguments, "transposed": False, "output_padding": (0, 0)}
    return _Call("aten.convolution_backward", tensors, out, {**arguments, "output_mask": mask})


def _conv2d_backward_weight(row: OperatorRow) -> _Call:
    """The gradient of the weight."""
    return _gradient(row, row.other, (False, True, False))


def _conv2d_backward_input(row: OperatorRow) -> _Call:
    """The gradient of the input."""
    return _gradient(row, row.input, (True, False, False))


def _attention(row: OperatorRow, *, causal: bool) -> _Call:
    """query[B, H, L, E] against key and value[B, H_kv, S, E], whose heads are shared."""
    (batch, heads, _, width), (batches, kv_heads, _, widths) = row.input, row.other
    _must((batch, width) == (batches, widths), "the batch or the width of a head differs")
    tensors = {"query": row.input, "key": row.other, "value": row.other}
    arguments = {"is_causal": causal, "enable_gqa": heads != kv_heads}
    return _Call("aten.scaled_dot_product_attention", tensors, row.input, arguments)


def _unary(op: str, **arguments: Any) -> Callable[[OperatorRow], _Call]:
    return lambda row: _Call(f"aten.{op}", {"input": row.input}, row.input, arguments)


def _binary(op: str, second: str = "other") -> Callable[[OperatorRow], _Call]:
    def build(row: OperatorRow) -> _Call:
        other = row.other or row.input
        _must(len(other) <= len(row.input), "the second operand has more dimensions")
        trailing = row.input[len(row.input) - len(other) :]
        _must(all(b in (a, 1) for a, b in zip(trailing, other, strict=True)), "the second operand does not broadcast")
        return _Call(f"aten.{op}", {"input": row.input, second: other}, row.input, {})

    return build


def _scalar(op: str, second: str = "other") -> Callable[[OperatorRow], _Call]:
    return lambda row: _Call(f"aten.{op}", {"input": row.input}, row.input, {second: 3.0})


def _layer_norm(row: OperatorRow) -> _Call:
    """Over the last dimension, with weight and bias."""
    length = row.input[-1:]
    tensors = {"input": row.input, "*weight": length, "*bias": length}
    return _Call("aten.layer_norm", tensors, row.input, {"normalized_shape": length, "eps": 1e-5})


_UNARY = """relu gelu tanh sigmoid silu exp log sqrt rsqrt neg abs erf sin cos hardswish hardsigmoid hardtanh leaky_relu
elu softplus mish relu6""".split()
_SECOND = {"pow": "exponent"}

_KNOWN: dict[str, Callable[[OperatorRow], _Call]] = {
    "linear": lambda row: _linear(row, bias=True),
    "linear_no_bias": lambda row: _linear(row, bias=False),
    "bmm": _bmm,
    "matmul": _matmul,
    "conv2d": lambda row: _conv2d(row, bias=False),
    "conv2d_backward_input": _conv2d_backward_input,
    "conv2d_backward_weight": _conv2d_backward_weight,
    "conv2d_bias": lambda row: _conv2d(row, bias=True),
    "sdpa_context": lambda row: _attention(row, causal=True),
    **dict.fromkeys(("sdpa_encoder", "sdpa_generation"), lambda row: _attention(row, causal=False)),
    "softmax": _unary("softmax", dim=-1),
    "log_softmax": _unary("log_softmax", dim=-1),
    "layer_norm": _layer_norm,
    **{op: _unary(op) for op in _UNARY},
    **{op: _binary(op, _SECOND.get(op, "other")) for op in ("add", "sub", "mul", "div", "pow", "maximum", "minimum")},
    **{f"{op}_scalar": _scalar(op, _SECOND.get(op, "other")) for op in ("add", "sub", "mul", "div", "pow")},
}
