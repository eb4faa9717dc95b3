"""Graphs of measured operators: costs by arithmetic, and shapes that do not fit."""

from __future__ import annotations

import pytest

from costmodel.costing import cost_graph
from costmodel.errors import InputError
from costmodel.formulas import lookup
from costmodel.validate.operators import known, operator_graph
from costmodel.validate.rows import OperatorRow


def row(op: str, input: tuple[int, ...], other: tuple[int, ...] = (), **options: object) -> OperatorRow:
    values = {"file": "", "line": 2, "device": "t4", "dtype": "fp32", "latency_s": 1e-3, **options}
    return OperatorRow(op=op, input=input, other=other, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("measured", "out", "macs"),
    [
        (row("linear", (7, 4, 5), (6, 5)), (7, 4, 6), 7 * 4 * 6 * 5),
        (row("linear_no_bias", (4, 5), (6, 5)), (4, 6), 4 * 6 * 5),
        (row("bmm", (3, 4, 5), (3, 5, 6)), (3, 4, 6), 3 * 4 * 6 * 5),
        (row("matmul", (4, 5), (5, 6)), (4, 6), 4 * 6 * 5),
        (row("conv2d", (2, 8, 10, 12), (16, 8, 3, 3)), (2, 16, 8, 10), 2 * 16 * 8 * 10 * 8 * 9),
        (
            row("conv2d", (2, 8, 10, 12), (16, 8, 3, 3), stride=(2,), padding=(1,)),
            (2, 16, 5, 6),
            2 * 16 * 5 * 6 * 8 * 9,
        ),
        (row("conv2d", (2, 8, 9, 9), (8, 1, 3, 3), padding=(1, 1), groups=8), (2, 8, 9, 9), 2 * 8 * 81 * 9),
        (row("conv2d", (2, 8, 10, 12), (16, 8, 3, 3), dilation=(2,)), (2, 16, 6, 8), 2 * 16 * 6 * 8 * 8 * 9),
        # the gradient of a convolution's input has the input's shape, and as many products as the convolution
        (
            row("conv2d_backward_input", (2, 8, 9, 12), (16, 8, 3, 3), stride=(2,)),
            (2, 8, 9, 12),
            2 * 16 * 4 * 5 * 8 * 9,
        ),
        # and so has that of its weight, of the weight's shape
        (row("conv2d_backward_weight", (2, 8, 9, 12), (16, 8, 3, 3), stride=(2,)), (16, 8, 3, 3), 2 * 16 * 4 * 5 * 72),
        (row("add", (4, 5), (4, 5)), (4, 5), 0),
        (row("softmax", (4, 5)), (4, 5), 0),
        (row("layer_norm", (4, 5)), (4, 5), 0),
    ],
    ids=lambda value: value.model if isinstance(value, OperatorRow) else "",
)
def test_result_and_macs(measured: OperatorRow, out: tuple[int, ...], macs: int) -> None:
    graph = operator_graph(measured)
    (node,) = graph.nodes
    assert graph.specs[graph.tensors[node.outputs[0]].spec].shape == out
    assert cost_graph(graph).total.macs == macs


@pytest.mark.parametrize(
    ("measured", "read", "written"),
    [
        (row("add", (4, 5), (4, 5)), 160, 80),
        (row("mul_scalar", (4, 5)), 80, 80),
        (row("pow_scalar", (4, 5)), 80, 80),
        (row("relu", (4, 5)), 80, 80),
        (row("linear", (4, 5), (6, 5)), 4 * (20 + 30 + 6), 4 * 24),
        (row("layer_norm", (4, 5)), 4 * (20 + 5 + 5), 80),
    ],
    ids=lambda value: value.model if isinstance(value, OperatorRow) else "",
)
def test_bytes_are_every_operand_once(measured: OperatorRow, read: int, written: int) -> None:
    total = cost_graph(operator_graph(measured)).total
    assert (total.bytes_read, total.bytes_written) == (read, written)


@pytest.mark.parametrize("op", known())
def test_every_operator_has_a_formula(op: str) -> None:
    shapes = {"bmm": ((2, 3, 4), (2, 4, 5)), "matmul": ((3, 4), (4, 5)), "conv2d": ((1, 2, 8, 8), (4, 2, 3, 3))}
    shapes |= dict.fromkeys(("conv2d_bias", "conv2d_backward_input", "conv2d_backward_weight"), shapes["conv2d"])
    shapes |= {"linear": ((4, 5), (6, 5)), "linear_no_bias": ((4, 5), (6, 5))}
    heads = ((1, 2, 3, 8), (1, 2, 5, 8))
    shapes |= dict.fromkeys(("sdpa_context", "sdpa_encoder", "sdpa_generation"), heads)
    graph = operator_graph(row(op, *shapes.get(op, ((4, 5),))))
    assert lookup(graph.nodes[0].op) is not None


@pytest.mark.parametrize(
    ("op", "input", "other"),
    [
        ("linear", (4, 5), (6, 7)),
        ("linear", (4, 5), ()),
        ("bmm", (3, 4, 5), (2, 5, 6)),
        ("bmm", (4, 5), (5, 6)),
        ("matmul", (2, 4, 5), (3, 5, 6)),
        ("conv2d", (2, 8, 10, 12), (16, 7, 3, 3)),
        ("conv2d", (2, 8, 2, 2), (16, 8, 3, 3)),
        ("conv2d", (2, 8, 10), (16, 8, 3)),
        ("add", (4, 5), (4, 6)),
        ("add", (5,), (4, 5)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(op: str, input: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        operator_graph(row(op, input, other))
