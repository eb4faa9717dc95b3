"""Cosine similarity and the Euclidean distance by a matrix product, against counting loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from costmodel.formulas.registry import cost_of
from costmodel.formulas.similarity import cosine_similarity, euclidean_dist
from costmodel.tensor import f32

from .counting import Counted, array, counting, max_, sqrt, total, values
from .differential import check_symbolic


@pytest.mark.parametrize(("pairs", "length"), [(2, 3), (1, 1), (4, 7)])
def test_cosine_similarity_counts_what_loops_count(pairs, length):
    x, y = array(pairs, length), array(pairs, length, seed=1)
    with counting() as tally:
        out = []
        for a, b in zip(x, y, strict=True):
            norm_a, norm_b = (max_(sqrt(total(v * v for v in vector)), 1e-8) for vector in (a, b))
            out.append(total((u / norm_a) * (v / norm_b) for u, v in zip(a, b, strict=True)))
    tensors = [torch.tensor(values(a).astype(float)) for a in (x, y)]
    assert np.allclose(values(np.array(out)).astype(float), torch.cosine_similarity(*tensors).numpy())
    cost = cosine_similarity(f32(pairs, length), f32(pairs, length), out=f32(pairs))
    assert cost.vector_flops == tally.flops
    assert cost.bytes == 4 * (2 * pairs * length + pairs)


@pytest.mark.parametrize(
    ("x", "y", "dim"), [((5, 1, 8), (1, 6, 8), -1), ((2, 8, 5), (8, 1), 1), ((1, 8), (4, 8), 1), ((4, 1), (4, 8), 1)]
)
def test_cosine_similarity_of_operands_that_broadcast(x, y, dim):
    out = torch.cosine_similarity(torch.empty(x), torch.empty(y), dim)
    cost = cosine_similarity(f32(*x), f32(*y), dim, out=f32(*out.shape))
    assert cost.vector_flops == out.numel() * (8 * 8 + 1)
    assert cost.bytes_read == 4 * (np.prod(x) + np.prod(y))


def test_euclidean_distance_counts_what_loops_count():
    x, y = array(4, 3), array(5, 3, seed=1)
    out = np.empty((4, 5), dtype=object)
    with counting() as vector:
        squares_x, squares_y = ([total(v * v for v in row) for row in rows] for rows in (x, y))
        scaled = [[-2 * v for v in row] for row in x]
    one = Counted(1.0)
    with counting() as tally:
        for i, j in np.ndindex(4, 5):
            square = Counted(0.0)
            for u, v in zip([*scaled[i], squares_x[i], one], [*y[j], one, squares_y[j]], strict=True):
                square = square + u * v
            out[i, j] = sqrt(max_(square, 0.0))
    reference = torch.cdist(*(torch.tensor(values(a).astype(float)) for a in (x, y)))
    assert np.allclose(values(out).astype(float), reference.numpy())
    cost = euclidean_dist(f32(4, 3), f32(5, 3), out=f32(4, 5))
    assert cost.macs == tally["mul"]
    assert cost.flops == tally.flops + vector.flops


def test_symbolic_sizes():
    check_symbolic("aten.cosine_similarity", lambda n: ({"x1": f32(n, n), "x2": f32(n, n)}, f32(n)), (2, 9))
    check_symbolic("aten._euclidean_dist", lambda n: ({"x1": f32(n, 3), "x2": f32(5, 3)}, f32(n, 5)), (1, 9))
    assert cost_of("aten.cosine_similarity", {"x1": f32(2, 3), "x2": f32(2, 3)}, f32(2)) is not None
