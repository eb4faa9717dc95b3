"""Einstein sums against torch's counter, their index space, and the products that they write in other words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from costmodel.cost import Cost
from costmodel.formulas import contraction
from costmodel.formulas.einsum import bilinear, einsum, trilinear
from costmodel.formulas.registry import cost_of
from costmodel.tensor import f32

from .counting import Counted, array, counting, values
from .differential import check_symbolic, meta, ran

#: Equations, shapes and the vector FLOP beside the matrix products, worked out by hand.
GRID = [
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], 0),
    ("bij,jk->bik", [(2, 3, 4), (4, 5)], 0),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)], 0),
    ("bqhd,bkhd->bhqk", [(2, 4, 3, 5), (2, 6, 3, 5)], 0),
    ("nctv,vw->nctw", [(2, 3, 4, 5), (5, 5)], 0),
    ("ij,jk", [(2, 3), (3, 4)], 0),
    ("...ij,jk", [(2, 7, 3, 4), (4, 5)], 0),
    ("...ij,...jk->...ik", [(2, 7, 3, 4), (7, 4, 5)], 0),
    ("i...j,j...->i...", [(3, 2, 4), (4, 2)], 0),
    ("i,i->", [(3,), (3,)], 0),
    ("ij,j->i", [(3, 4), (4,)], 0),
    ("bij,bj->b", [(2, 3, 4), (2, 4)], 2 * 3 * 4 - 2 * 4),  # i is summed first: 3 rows into one
    ("bij,bjk->bi", [(2, 3, 4), (2, 4, 5)], 2 * 4 * 5 - 2 * 4),  # k is summed first
    ("ab,ac->", [(2, 3), (2, 5)], (2 * 3 - 2) + (2 * 5 - 2)),
    ("aab,ac->b", [(2, 2, 3), (2, 5)], 2 * 5 - 2),  # the diagonal is a view; c is summed first
    ("i,j->ij", [(3,), (4,)], 12),
    ("ij,ij->ij", [(3, 4), (3, 4)], 12),
    ("ij,ik->ijk", [(2, 3), (2, 4)], 24),
    ("ij,kl->", [(2, 3), (4, 5)], (6 - 1) + (20 - 1) + 1),  # two sums and a product
    ("ij->", [(3, 4)], 11),
    ("abc->c", [(2, 3, 5)], 30 - 5),
    ("ab,bc,cd,de->ae", [(2, 3), (3, 5), (5, 7), (7, 11)], 0),
    ("bn,anm,bm->ba", [(2, 3), (4, 3, 5), (2, 5)], 0),
    ("ab,cd,bc,de->ae", [(2, 3), (5, 7), (3, 5), (7, 11)], 2 * 3 * 5 * 7),  # the first pair shares nothing
    ("ab,cd,ac->bd", [(2, 3), (5, 7), (2, 5)], 2 * 3 * 5 * 7),
    ("ab,ab,ab->", [(2, 3), (2, 3), (2, 3)], 6),
    ("ij,jk->ik", [(3, 1), (1, 4)], 12),  # nothing to accumulate over a single j
    ("bij,jk->bik", [(2, 3, 4), (1, 5)], (24 - 6) + 30),  # j of size 1 on the right: a sum, an outer product
    ("Zz,zA", [(2, 3), (3, 4)], 0),
]


@pytest.mark.parametrize(("equation", "shapes", "vector_flops"), GRID)
def test_as_torch_counts(equation, shapes, vector_flops):
    cost, flops = ran("einsum", equation, [meta(*s) for s in shapes])
    assert cost.matrix_flops == flops
    assert cost.vector_flops == vector_flops
    result = torch.einsum(equation, *(torch.empty(s) for s in shapes))
    assert cost.bytes_written == 4 * result.numel()
    assert cost.bytes_read == 4 * sum(int(np.prod(s)) for s in shapes)


@pytest.mark.parametrize("path", [[0, 1, 0, 1], [1, 2, 0, 1], [0, 2, 0, 1]])
def test_a_path_is_followed(path):
    shapes = [(2, 3), (3, 5), (5, 7)]
    cost, flops = ran("einsum", "ab,bc,cd->ad", [meta(*s) for s in shapes], path=path)
    assert cost.matrix_flops == flops
    in_order = {(0, 1): 2 * 3 * 5 + 2 * 5 * 7, (1, 2): 3 * 5 * 7 + 2 * 3 * 7, (0, 2): 2 * 3 * 5 * 7}
    assert cost.macs == in_order[tuple(path[:2])]


def test_along_a_path_a_product_goes_to_the_end():
    """(ab)(cd) first, then bracket against bracket; left to right it would be ((ab)c)d."""
    shapes = [(2, 3), (3, 5), (5, 7), (7, 11)]
    operands = [meta(*s) for s in shapes]
    cost, flops = ran("einsum", "ab,bc,cd,de->ae", operands, path=[0, 1, 0, 1, 0, 1])
    assert cost.matrix_flops == flops
    assert cost.macs == 2 * 3 * 5 + 5 * 7 * 11 + 2 * 5 * 11
    assert ran("einsum", "ab,bc,cd,de->ae", operands)[0].macs == 2 * 3 * 5 + 2 * 5 * 7 + 2 * 7 * 11


@pytest.mark.parametrize("equation", ["ii->i", "ij->ji", "abc->cab", "ij", "...ij->...ji", "ab->"])
def test_views_are_free(equation):
    shape = (1, 1) if equation == "ab->" else (3, 3, 3) if equation == "abc->cab" else (3, 3)
    cost, flops = ran("einsum", equation, [meta(*shape)])
    assert cost == Cost()
    assert flops == 0


@pytest.mark.parametrize(("equation", "shapes"), [row[:2] for row in GRID if len(row[1]) == 2 and not row[2]])
def test_macs_of_a_pair_are_its_index_space(equation, shapes):
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.partition("->")[0].split(","), shapes, strict=True):
        covered = [f"<{i}>" for i in range(len(shape) - len(term.replace("...", "")) - 1, -1, -1)]
        labels = [*term.partition("...")[0], *covered, *term.partition("...")[2]]
        sizes.update(zip(labels, shape, strict=True))
    cost = einsum(equation, [f32(*s) for s in shapes], out=f32())
    assert cost.macs == len(list(itertools.product(*map(range, sizes.values()))))


def test_the_same_product_in_other_words():
    out = f32(7, 2, 4)
    bmm = contraction.mm(f32(7, 2, 3), f32(7, 3, 4), out=out)
    assert einsum("bij,bjk->bik", [f32(7, 2, 3), f32(7, 3, 4)], out=out) == bmm
    linear = contraction.linear(f32(7, 2, 3), f32(4, 3), out=out)
    assert einsum("...k,nk->...n", [f32(7, 2, 3), f32(4, 3)], out=out) == linear


def test_symbolic_sizes():
    def build(n):
        return {"equation": "bhqd,bhkd->bhqk", "tensors": [f32(n, 2, n, 8), f32(n, 2, n, 8)]}, f32(n, 2, n, n)

    check_symbolic("aten.einsum", build, (2, 7, 197))  # at size 1 torch contracts nothing where labels vanish


# bilinear


@pytest.mark.parametrize("has_bias", [True, False])
def test_bilinear_counts_what_loops_count(has_bias):
    (n, i, j, k) = 2, 3, 4, 5
    x1, x2, weight, bias = array(n, i), array(n, j, seed=1), array(k, i, j, seed=2), array(k, seed=3)
    out = np.empty((n, k), dtype=object)
    with counting() as tally:
        for row, o in np.ndindex(n, k):
            total = Counted(0.0)
            for b in range(j):
                inner = Counted(0.0)
                for a in range(i):
                    inner = inner + x1[row, a] * weight[o, a, b]
                total = total + inner * x2[row, b]
            out[row, o] = total + bias[o] if has_bias else total
    tensors = [torch.tensor(values(a).astype(float)) for a in (x1, x2, weight, bias)]
    reference = torch.nn.functional.bilinear(*tensors[:3], tensors[3] if has_bias else None)
    assert np.allclose(values(out).astype(float), reference.numpy())
    cost = bilinear(f32(n, i), f32(n, j), f32(k, i, j), f32(k) if has_bias else None, out=f32(n, k))
    assert (cost.macs, cost.flops) == (tally["mul"], tally.flops)


@pytest.mark.parametrize("lead", [(6,), (2, 3)])
def test_bilinear_is_two_einsums(lead):
    arguments = {"input1": f32(*lead, 3), "input2": f32(*lead, 4), "weight": f32(5, 3, 4)}
    cost = cost_of("aten.bilinear", arguments, f32(*lead, 5))
    chain = einsum("...i,kij,...j->...k", [f32(*lead, 3), f32(5, 3, 4), f32(*lead, 4)], out=f32(*lead, 5))
    assert (cost.matrix_flops, cost.vector_flops, cost.bytes) == (chain.matrix_flops, chain.vector_flops, chain.bytes)
    assert cost.activations == chain.activations


def test_trilinear_is_what_bilinear_dispatches():
    expansions = [1, 3], [0], [1, 2], [2, 3]
    cost, _ = ran("_trilinear", meta(2, 3), meta(5, 3, 4), meta(2, 4), *expansions)
    whole = bilinear(f32(2, 3), f32(2, 4), f32(5, 3, 4), out=f32(2, 5))
    assert (cost.macs, cost.bytes) == (whole.macs, whole.bytes)
    assert cost == trilinear(f32(2, 3), f32(5, 3, 4), f32(2, 4), *expansions, out=f32(2, 5))
