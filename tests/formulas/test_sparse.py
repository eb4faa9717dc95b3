"""Products of sparse matrices and of quantized layers against counting loops."""

from __future__ import annotations

import numpy as np
import torch

from costmodel.formulas.contraction import linear
from costmodel.formulas.quantized import linear_dynamic
from costmodel.formulas.sparse import sparse_mm
from costmodel.tensor import TensorSpec, f32

from .counting import array, counting, values


def test_a_sparse_product_counts_what_loops_over_its_elements_count():
    stored, dense = array(4), array(5, 7, seed=1)
    rows, columns = (0, 1, 1, 4), (2, 0, 3, 4)
    out = np.zeros((6, 7), dtype=object)
    with counting() as tally:
        for element, i, j in zip(stored, rows, columns, strict=True):
            for n in range(7):
                out[i, n] = out[i, n] + element * dense[j, n]  # sums start at zero, as they do in torch
    matrix = torch.sparse_coo_tensor(torch.tensor([rows, columns]), torch.tensor(values(stored).astype(float)), (6, 5))
    assert np.allclose(values(out).astype(float), (matrix @ torch.tensor(values(dense).astype(float))).numpy())
    cost = sparse_mm(f32(6, 5), f32(5, 7), 4, 4 * 16, out=f32(6, 7))
    assert cost.flops == tally.flops
    assert cost.bytes == 4 * (4 + 5 * 7 + 6 * 7) + 4 * 2 * 8  # values, dense matrix, result; two int64 indices each


def test_a_full_sparse_matrix_costs_the_macs_of_a_dense_one():
    full = sparse_mm(f32(6, 5), f32(5, 7), 6 * 5, out=f32(6, 7))
    assert full.matrix_flops == linear(f32(7, 5), f32(6, 5), out=f32(7, 6)).matrix_flops


def test_a_quantized_layer_does_the_products_of_the_plain_one():
    x, bias, out = f32(4, 5), f32(6), f32(4, 6)
    plain, quantized = linear(x, f32(6, 5), bias, out=out), linear_dynamic(x, TensorSpec((6, 5), "int8"), bias, out=out)
    assert quantized.matrix_flops == plain.matrix_flops
    assert plain.bytes_read - quantized.bytes_read == 3 * 6 * 5  # three of four bytes a weight
