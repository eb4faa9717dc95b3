"""The backward of recurrent networks, whole or by the cell.

Conventions

* Every weight matrix is used twice per token: for the gradient of what it multiplies and for its own. So the MACs are
  twice the forward's, less the first layer's input products where the input's gradient is not asked for, and less the
  weights' own where theirs are not.
* A bias's gradient is a sum over tokens: 1 FLOP per token but one, and element.
* The cell's pointwise work per token and hidden unit, from the gates that the forward kept, with h's gradient from
  above and from the next step added first (1). d s (1 - s) for a sigmoid s and d (1 - t t) for a tanh t are 3 FLOP.

      tanh, relu   1, and 3 or a comparison                                                              =  4, 2
      LSTM         1, tanh(c'): 1, do = dh t: 1, dc' = dc + dh o (1 - t t): 5, di, dg, df, dc: 4,
                   three sigmoids and a tanh: 12                                                         = 24
      GRU          1, dz = dh (h - n): 2, dn = dh (1 - z): 2, dh z: 1, tanh: 3, into the product of the hidden
                   state: 1, dr: 1, two sigmoids: 6, the two parts of h's gradient: 1                    = 18
"""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.cost import Cost
from costmodel.formulas.operands import Specs, nbytes
from costmodel.formulas.recurrent import DROPOUT_FLOPS, GATES
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, floor_div, product
from costmodel.tensor import TensorSpec

__all__ = ["cudnn_rnn_backward", "fused_gru_cell_backward", "fused_lstm_cell_backward", "mkldnn_rnn_layer_backward"]

#: Kinds of recurrence by the number that cuDNN and oneDNN give them: relu, tanh, LSTM, GRU.
KINDS = ("rnn", "rnn", "lstm", "gru")
#: Vector FLOP per token and hidden unit, by the same number.
CELL_BACKWARD_FLOPS = (2, 4, 24, 18)


def _recurrence_backward(
    mode: int,
    tokens: Dim,
    steps: Dim,
    params: Sequence[TensorSpec],
    dropout: float,
    directions: int,
    by_input: bool,
    by_weight: bool,
    by_state: bool = True,
) -> Cost:
    """Work of all layers and directions, whose parameters are listed flat as in the forward; no traffic.

    Without ``by_state`` the first time step's product with the hidden matrix, which gives the first state's gradient,
    is spared.
    """
    matrices = [p for p in params if len(p.shape) == 2]
    biases = [p for p in params if len(p.shape) == 1]
    hidden = floor_div(matrices[0].shape[0], GATES[KINDS[mode]])
    projected = matrices[1].shape[1] != hidden
    per_cell = 3 if projected else 2
    cells = len(matrices) // per_cell
    elements = sum(m.numel for m in matrices)
    first = sum(matrices[per_cell * d].numel for d in range(directions))
    spared = 0 if by_state else floor_div(tokens, steps) * sum(m.numel for m in matrices[1::per_cell])
    macs = tokens * (elements * (1 + by_weight) - (0 if by_input else first)) - spared
    vector = tokens * CELL_BACKWARD_FLOPS[mode] * hidden * cells
    if by_weight:
        vector = vector + (tokens - 1) * sum(b.numel for b in biases)
    if dropout:
        vector = vector + tokens * (DROPOUT_FLOPS - 1) * matrices[1].shape[1] * (cells - directions)
    # A step is a cell, a product with the hidden matrix (and one with the projection); the rest is done for all steps.
    outside = cells - (0 if by_input else directions) + (len(matrices) if by_weight else 0)
    return Cost(
        matrix_flops=2 * macs,
        vector_flops=vector,
        launches=cells * per_cell * steps + outside,
        activations=tokens
        * (sum(m.shape[1] for m in matrices) - (0 if by_input else directions * matrices[0].shape[1]))
        + (elements if by_weight else 0),
    )


@formula("aten._cudnn_rnn_backward")
def cudnn_rnn_backward(
    input: TensorSpec,
    weight: Sequence[TensorSpec],
    hx: TensorSpec,
    cx: TensorSpec | None,
    output: TensorSpec,
    grad_output: TensorSpec | None,
    grad_hy: TensorSpec | None,
    grad_cy: TensorSpec | None,
    mode: int,
    batch_first: bool = False,
    dropout: float = 0.0,
    train: bool = True,
    bidirectional: bool = False,
    batch_sizes: Sequence[Dim] = (),
    reserve: TensorSpec | None = None,
    output_mask: Sequence[bool] = (True, True, True, True),
    *,
    out: Specs,
) -> Cost:
    """Gradients by input, states and weights of all layers in one call; ``mode`` 0 relu, 1 tanh, 2 LSTM, 3 GRU.

    What the forward kept (``reserve``) is read; the packed copy of the weights is the weights.

    >>> from costmodel.tensor import f32
    >>> x, h, w = f32(3, 2, 5), f32(1, 2, 7), [f32(28, 5), f32(28, 7), f32(28), f32(28)]
    >>> y = f32(3, 2, 7)
    >>> cost = cudnn_rnn_backward(x, w, h, h, y, y, None, None, 2, out=(x, h, h, w))
    >>> cost.macs                                      # twice 3*2 tokens * (28*5 + 28*7)
    4032
    >>> cost.vector_flops                              # 6 tokens * 7 units * 24 + 5 sums * 2*28 biases
    1288
    >>> mask = False, False, False, True                # less the input's 6 * 28*5, and the first step's 2 * 28*7
    >>> cudnn_rnn_backward(x, w, h, h, y, y, None, None, 2, output_mask=mask, out=w).macs
    2800
    """
    tokens = product(input.shape[:-1])
    steps = len(batch_sizes) or input.shape[1 if batch_first and len(input.shape) > 2 else 0]
    by_input, by_weight = output_mask[0], output_mask[3]
    directions = 2 if bidirectional else 1
    work = _recurrence_backward(
        mode, tokens, steps, weight, dropout if train else 0, directions, by_input, by_weight, output_mask[1]
    )
    read = nbytes(input, list(weight), hx, cx, output, grad_output, grad_hy, grad_cy, reserve)
    return work + Cost(bytes_read=read, bytes_written=nbytes(out))


@formula("aten.mkldnn_rnn_layer_backward")
def mkldnn_rnn_layer_backward(
    input: TensorSpec,
    weight1: TensorSpec,
    weight2: TensorSpec,
    weight3: TensorSpec,
    weight4: TensorSpec,
    hx_: TensorSpec,
    cx_tmp: TensorSpec,
    output: TensorSpec,
    grad_output: TensorSpec | None = None,
    grad_hy: TensorSpec | None = None,
    grad_cy: TensorSpec | None = None,
    mode: int = 2,
    batch_first: bool = False,
    workspace: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """One layer in one direction: two matrices and two biases, all gradients.

    >>> from costmodel.tensor import f32
    >>> x, h, y, w = f32(3, 2, 5), f32(2, 7), f32(3, 2, 7), (f32(28, 5), f32(28, 7), f32(28), f32(28))
    >>> mkldnn_rnn_layer_backward(x, *w, h, h, y, y, out=(x, *w, h, h)).macs
    4032
    """
    tokens, steps = product(input.shape[:-1]), input.shape[1 if batch_first else 0]
    params = (weight1, weight2, weight3, weight4)
    work = _recurrence_backward(mode, tokens, steps, params, 0, 1, True, True)
    read = nbytes(input, params, hx_, cx_tmp, output, grad_output, grad_hy, grad_cy, workspace)
    return work + Cost(bytes_read=read, bytes_written=nbytes(out))


@formula("aten._thnn_fused_lstm_cell_backward_impl")
def fused_lstm_cell_backward(
    grad_hy: TensorSpec | None,
    grad_cy: TensorSpec | None,
    cx: TensorSpec,
    cy: TensorSpec,
    workspace: TensorSpec,
    has_bias: bool = False,
    *,
    out: Specs,
) -> Cost:
    """The pointwise part of an LSTM cell's backward, one step: 23 FLOP a unit; biases sum their gates over the batch.

    >>> from costmodel.tensor import f32
    >>> c, gates = f32(2, 7), f32(2, 28)
    >>> fused_lstm_cell_backward(c, c, c, c, gates, True, out=(gates, c, f32(28))).vector_flops      # 14*23 + 28
    350
    """
    sums = workspace.numel - workspace.shape[-1] if has_bias else 0
    flops = (CELL_BACKWARD_FLOPS[2] - 1) * cx.numel + sums
    return Cost(
        vector_flops=flops,
        bytes_read=nbytes(grad_hy, grad_cy, cx, cy, workspace),
        bytes_written=nbytes(out),
        launches=1 + bool(has_bias),
    )


@formula("aten._thnn_fused_gru_cell_backward")
def fused_gru_cell_backward(grad_hy: TensorSpec, workspace: TensorSpec, has_bias: bool = False, *, out: Specs) -> Cost:
    """The pointwise part of a GRU cell's backward, one step: 16 FLOP a unit; biases of both sides are sums.

    >>> from costmodel.tensor import f32
    >>> h, gates = f32(2, 7), f32(2, 21)
    >>> fused_gru_cell_backward(h, f32(2, 35), True, out=(gates, gates, h, f32(21), f32(21))).vector_flops
    266
    """
    batch, hidden = product(grad_hy.shape[:-1]), grad_hy.shape[-1]
    sums = 2 * 3 * hidden * (batch - 1) if has_bias else 0
    return Cost(
        vector_flops=(CELL_BACKWARD_FLOPS[3] - 2) * grad_hy.numel + sums,
        bytes_read=nbytes(grad_hy, workspace),
        bytes_written=nbytes(out),
        launches=3 if has_bias else 1,
    )
