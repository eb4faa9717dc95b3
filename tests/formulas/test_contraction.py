"""Matrix products against counting loops, laws and torch's counter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from costmodel.cost import Cost
from costmodel.formulas import contraction, pointwise
from costmodel.formulas.registry import cost_of
from costmodel.tensor import TensorSpec, f32

from .counting import Counted, array, counting, values
from .differential import check_symbolic, meta, ran


@pytest.mark.parametrize(("m", "k", "n"), [(4, 5, 6), (1, 3, 2), (2, 1, 1)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_counts_what_loops_count(m, k, n, has_bias):
    x, weight, bias = array(m, k), array(n, k, seed=1), array(n, seed=2)
    out = np.empty((m, n), dtype=object)
    with counting() as tally:
        for i, j in np.ndindex(m, n):
            total = Counted(0.0)
            for c in range(k):
                total = total + x[i, c] * weight[j, c]
            out[i, j] = total + bias[j] if has_bias else total
    tensors = [torch.tensor(values(a).astype(float)) for a in (x, weight, bias)]
    reference = torch.nn.functional.linear(tensors[0], tensors[1], tensors[2] if has_bias else None)
    assert np.allclose(values(out).astype(float), reference.numpy())
    cost = contraction.linear(f32(m, k), f32(n, k), f32(n) if has_bias else None, out=f32(m, n))
    assert (cost.macs, cost.flops, cost.activations) == (tally["mul"], tally.flops, m * n)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 3, 5)])
def test_linear_of_every_rank_as_torch_counts(lead):
    cost, flops = ran("linear", meta(*lead, 4), meta(6, 4), meta(6))
    rows = int(np.prod(lead))
    assert cost.matrix_flops == flops == 2 * rows * 4 * 6
    assert cost.bytes_read == 4 * (rows * 4 + 6 * 4 + 6)
    arguments = {"input": f32(*lead, 4), "weight": f32(6, 4), "bias": f32(6)}
    assert cost_of("aten.mkldnn_linear", arguments, f32(*lead, 6)) == cost


#: Shapes of every combination of ranks; torch counts those that become mm or bmm, not dot and mv.
RANKS = [
    ((3,), (3,), 1, False),
    ((2, 3), (3,), 2, False),
    ((5, 2, 3), (3,), 10, False),
    ((3,), (3, 4), 4, True),
    ((3,), (5, 3, 4), 20, True),
    ((2, 3), (3, 4), 8, True),
    ((5, 2, 3), (3, 4), 40, True),
    ((2, 3), (5, 3, 4), 40, True),
    ((5, 2, 3), (5, 3, 4), 40, True),
    ((6, 1, 2, 3), (5, 3, 4), 240, True),
    ((6, 5, 2, 3), (6, 5, 3, 4), 240, True),
    ((1, 2, 3), (7, 3, 4), 56, True),
]


@pytest.mark.parametrize(("left", "right", "outputs", "counted_by_torch"), RANKS)
@pytest.mark.parametrize("operator", ["matmul", "linalg_matmul"])
def test_matmul_of_every_rank(left, right, outputs, counted_by_torch, operator):
    cost, flops = ran(operator, meta(*left), meta(*right))
    assert cost.macs == 3 * outputs  # each output is a dot product of length 3
    assert flops == (cost.matrix_flops if counted_by_torch else 0)
    assert cost.bytes_read == 4 * (np.prod(left) + np.prod(right))
    assert (cost.activations, cost.bytes_written) == (outputs, 4 * outputs)


@pytest.mark.parametrize(
    ("operator", "shapes"),
    [
        ("mm", [(4, 5), (5, 6)]),
        ("bmm", [(7, 4, 5), (7, 5, 6)]),
        ("addmm", [(6,), (4, 5), (5, 6)]),
        ("addmm", [(4, 6), (4, 5), (5, 6)]),
        ("baddbmm", [(7, 4, 6), (7, 4, 5), (7, 5, 6)]),
        ("baddbmm", [(1, 1, 6), (7, 4, 5), (7, 5, 6)]),
    ],
)
def test_dispatched_products_as_torch_counts(operator, shapes):
    cost, flops = ran(operator, *(meta(*s) for s in shapes))
    assert cost.matrix_flops == flops > 0
    assert cost.bytes_read == 4 * sum(np.prod(s) for s in shapes)
    assert cost.vector_flops == (cost.activations if len(shapes) == 3 else 0)


@pytest.mark.parametrize(
    ("operator", "shapes", "equation"),
    [
        ("mv", [(4, 5), (5,)], "mk,k->m"),
        ("dot", [(5,), (5,)], "k,k->"),
        ("vdot", [(5,), (5,)], "k,k->"),
        ("addmv", [(4,), (4, 5), (5,)], "m,mk,k->m"),
        ("addbmm", [(4, 6), (7, 4, 5), (7, 5, 6)], "mn,bmk,bkn->mn"),
        ("linalg_vecdot", [(4, 5), (4, 5)], "mk,mk->m"),
        ("inner", [(2, 5), (3, 5)], "mk,nk->mn"),
    ],
)
def test_macs_are_the_index_space_of_the_contraction(operator, shapes, equation):
    """One MAC for every combination of the indices of the product (an addend's indices are among them)."""
    cost, _ = ran(operator, *(meta(*s) for s in shapes))
    terms, _, output = equation.partition("->")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms.split(","), shapes, strict=True):
        sizes.update(zip(term, shape, strict=True))
    assert cost.macs == len(list(itertools.product(*map(range, sizes.values()))))
    outputs = int(np.prod([sizes[label] for label in output]))
    assert cost.vector_flops == (outputs if len(shapes) == 3 else 0)
    assert cost.activations == outputs


def test_vecdot_broadcasts():
    for x, y, dim in [((4, 5), (5,), -1), ((2, 1, 5), (3, 5), -1), ((5, 1), (2, 5, 3), -2)]:
        cost, _ = ran("linalg_vecdot", meta(*x), meta(*y), dim=dim)
        assert cost.macs == torch.empty(x).mul(torch.empty(y)).numel()


def test_tensordot_is_the_matrix_product_of_its_unfoldings():
    cost, flops = ran("tensordot", meta(2, 3, 4), meta(4, 3, 5), [1, 2], [1, 0])
    assert cost.matrix_flops == flops == 2 * 2 * 5 * (3 * 4)


@pytest.mark.parametrize(("beta", "alpha"), [(0, 1), (0, 2), (1, 1), (1, 2), (0.5, 1), (0.5, 2)])
@pytest.mark.parametrize("operator", ["addmm", "addmv", "addr", "addbmm", "baddbmm"])
def test_factors_of_the_addend_and_of_the_product(operator, beta, alpha):
    """beta * addend + alpha * product, element by element: what is multiplied by 1 or 0 is not multiplied."""
    shapes = {
        "addmm": [(4, 6), (4, 5), (5, 6)], "addmv": [(4,), (4, 5), (5,)], "addr": [(4, 6), (4,), (6,)],
        "addbmm": [(4, 6), (2, 4, 5), (2, 5, 6)], "baddbmm": [(2, 4, 6), (2, 4, 5), (2, 5, 6)],
    }[operator]  # fmt: skip
    cost, _ = ran(operator, *(meta(*s) for s in shapes), beta=beta, alpha=alpha)
    with counting() as tally:
        for _ in range(int(np.prod(shapes[0]))):
            addend, product = Counted(1.0), Counted(2.0)
            if operator == "addr":
                product = product * Counted(3.0)
            scaled = product if alpha == 1 else alpha * product
            if beta:
                (addend if beta == 1 else beta * addend) + scaled
    assert cost.vector_flops == tally.flops
    assert cost.bytes_read == 4 * sum(np.prod(s) for s in (shapes if beta else shapes[1:]))


def test_outer_products_multiply_and_do_not_accumulate():
    for operator in ("outer", "ger"):
        cost, _ = ran(operator, meta(4), meta(6))
        assert (cost.macs, cost.vector_flops, cost.activations) == (0, 4 * 6, 0)
        assert (cost.bytes_read, cost.bytes_written) == (4 * (4 + 6), 4 * 24)


def test_inner_with_a_scalar_is_a_plain_product():
    cost, _ = ran("inner", meta(), meta(4, 6))
    assert (cost.macs, cost.vector_flops) == (0, 24)


def test_laws_of_products():
    """bmm = batch times mm; addmm = mm and an addition; baddbmm a batch of it; addbmm sums the batch."""
    mm = contraction.mm(f32(4, 5), f32(5, 6), out=f32(4, 6))
    bmm = contraction.mm(f32(7, 4, 5), f32(7, 5, 6), out=f32(7, 4, 6))
    assert bmm == 7 * mm + Cost(launches=-6)
    addmm = contraction.addmm(f32(6), f32(4, 5), f32(5, 6), out=f32(4, 6))
    assert addmm == mm + Cost(vector_flops=24, bytes_read=4 * 6)
    assert addmm == contraction.linear(f32(4, 5), f32(6, 5), f32(6), out=f32(4, 6))
    addbmm = contraction.addbmm(f32(4, 6), f32(7, 4, 5), f32(7, 5, 6), out=f32(4, 6))
    assert addbmm.macs == bmm.macs


def test_global_average_pooling_divides_the_classifier_by_the_plane():
    """Flatten + fully connected against pooling + fully connected: the weights shrink by 1 / (H * W)."""
    c, h, w, classes = 64, 7, 5, 10
    flat = contraction.linear(f32(1, c * h * w), f32(classes, c * h * w), out=f32(1, classes))
    pooled = contraction.linear(f32(1, c), f32(classes, c), out=f32(1, classes))
    assert flat.macs == h * w * pooled.macs


@pytest.mark.parametrize(("use_gelu", "per_element"), [(False, 1), (True, 8)])
def test_fused_activation_is_addmm_and_the_activation(use_gelu, per_element):
    arguments = {"input": f32(6), "mat1": f32(4, 5), "mat2": f32(5, 6), "use_gelu": use_gelu}
    out = f32(4, 6)
    fused = cost_of("aten._addmm_activation", arguments, out)
    alone = pointwise.gelu(out, "tanh", out=out).vector_flops if use_gelu else 24
    assert fused == contraction.addmm(f32(6), f32(4, 5), f32(5, 6), out=out) + Cost(vector_flops=alone)
    assert alone == per_element * 24


def test_scaled_mm_as_torch_counts():
    f8 = torch.float8_e4m3fn
    a, b = meta(16, 32, dtype=f8), meta(48, 32, dtype=f8).t()
    cost, flops = ran("_scaled_mm", a, b, meta(), meta(), out_dtype=torch.bfloat16)
    assert cost.matrix_flops == flops == 2 * 16 * 32 * 48
    assert cost.bytes_read == 16 * 32 + 32 * 48 + 4 + 4
    assert cost.bytes_written == 2 * 16 * 48


def test_int_mm_reads_bytes_and_writes_words():
    out = TensorSpec((32, 16), "int32")
    cost = cost_of("aten._int_mm", {"input": TensorSpec((32, 8), "int8"), "mat2": TensorSpec((8, 16), "int8")}, out)
    assert (cost.macs, cost.bytes_read, cost.bytes_written) == (32 * 8 * 16, 32 * 8 + 8 * 16, 4 * 32 * 16)


@pytest.mark.parametrize("ends", [[4, 4, 10], [10, 10, 10], [1, 9, 10]])
def test_grouped_mm_is_its_experts_one_by_one(ends):
    """Whichever rows meet which expert, T * K * N MACs."""
    starts = [0, *ends[:-1]]
    parts = [
        contraction.mm(f32(end - start, 4), f32(4, 5), out=f32(end - start, 5))
        for start, end in zip(starts, ends, strict=True)
    ]
    grouped = contraction.grouped_mm(f32(10, 4), f32(3, 4, 5), TensorSpec((3,), "int32"), out=f32(10, 5))
    assert grouped.macs == sum(p.macs for p in parts)
    assert grouped.bytes_read == 4 * (10 * 4 + 3 * 4 * 5) + 4 * 3


def test_grouped_mm_of_two_matrices_cuts_the_common_dimension():
    parts = [contraction.mm(f32(6, k), f32(k, 5), out=f32(6, 5)) for k in (2, 5, 3)]
    grouped = contraction.grouped_mm(f32(6, 10), f32(10, 5), f32(3), out=f32(3, 6, 5))
    assert grouped.macs == sum(p.macs for p in parts)


@pytest.mark.parametrize("operator", ["linear", "matmul", "addmm", "mm", "mv", "addbmm", "tensordot"])
def test_symbolic_sizes(operator):
    dims = {"dims_self": [1], "dims_other": [0]}
    builders = {
        "linear": lambda n: ({"input": f32(n, 4, n), "weight": f32(6, n), "bias": f32(6)}, f32(n, 4, 6)),
        "matmul": lambda n: ({"input": f32(n, 1, 4, n), "other": f32(3, n, 5)}, f32(n, 3, 4, 5)),
        "addmm": lambda n: ({"input": f32(n), "mat1": f32(n, 3), "mat2": f32(3, n), "alpha": 2}, f32(n, n)),
        "mm": lambda n: ({"input": f32(n, 3), "mat2": f32(3, n)}, f32(n, n)),
        "mv": lambda n: ({"input": f32(n, 3), "vec": f32(3)}, f32(n)),
        "addbmm": lambda n: ({"input": f32(4, n), "batch1": f32(n, 4, 3), "batch2": f32(n, 3, n)}, f32(4, n)),
        "tensordot": lambda n: ({"input": f32(2, n), "other": f32(n, 3), **dims}, f32(2, 3)),
    }
    check_symbolic(f"aten.{operator}", builders[operator], (1, 2, 8, 197))
