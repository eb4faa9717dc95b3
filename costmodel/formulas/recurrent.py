"""Recurrent networks: LSTM, GRU and simple ones, whole or by the cell.

Conventions

* Every weight matrix is used once per token: MACs = tokens * the elements of all matrices (input, hidden and
  projection, of every layer and direction). Every bias element is added once per token.
* The gates' sums and the cell's pointwise work are vector FLOP per token and hidden unit. A sigmoid,
  1 / (1 + exp(-x)), is 4 FLOP; tanh and relu are 1.

      tanh, relu   Wx + Uh: 1, its nonlinearity: 1                                                     =  2
      LSTM         4 gates' sums: 4, 3 sigmoids and 2 tanh: 14, c' = f c + i g: 3, h = o tanh(c'): 1      = 22
      GRU          3 gates' sums: 3, 2 sigmoids and 1 tanh: 9, r * (Un h): 1, h' = n + z (h - n): 3      = 16

* Traffic: every operand and result once; that the hidden weights are read again in every time step is a property
  of the machine's caches.
* Launches: per layer and direction one product for all inputs, and per time step one product and one cell
  (and one projection): the steps depend on each other, whatever the machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.cost import Cost
from costmodel.formulas.operands import Specs, nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, floor_div, product
from costmodel.tensor import TensorSpec

__all__ = [
    "cudnn_rnn",
    "fused_gru_cell",
    "fused_lstm_cell",
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "mkldnn_rnn_layer",
    "simple_rnn",
    "simple_rnn_cell",
]

#: Rows of the gates' weights per hidden unit, and vector FLOP per token and hidden unit besides the biases.
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
CELL_FLOPS = {"rnn": 2, "lstm": 22, "gru": 16}
#: Dropout between layers in training: a comparison and a product.
DROPOUT_FLOPS = 2


def _recurrence(
    kind: str, tokens: Dim, steps: Dim, params: Sequence[TensorSpec], dropout: float = 0.0, directions: int = 1
) -> Cost:
    """Work of all layers and directions, whose parameters are listed flat; no traffic.

    ``params`` holds, for each layer and direction, the input matrix [gates * H, I], the hidden matrix [gates * H, P],
    then biases (vectors) and, of an LSTM with projections, the matrix [P, H].
    """
    matrices = [p for p in params if len(p.shape) == 2]
    biases = [p for p in params if len(p.shape) == 1]
    hidden = floor_div(matrices[0].shape[0], GATES[kind])
    projected = matrices[1].shape[1] != hidden
    cells = len(matrices) // (3 if projected else 2)
    vector = CELL_FLOPS[kind] * hidden * cells + sum(b.numel for b in biases)
    if dropout:
        vector = vector + DROPOUT_FLOPS * matrices[1].shape[1] * (cells - directions)
    return Cost(
        matrix_flops=2 * tokens * sum(m.numel for m in matrices),
        vector_flops=tokens * vector,
        launches=cells * (1 + (3 if projected else 2) * steps),
        activations=tokens * sum(m.shape[0] for m in matrices),
    )


def _tokens_and_steps(data: TensorSpec, batch_sizes: TensorSpec | None, batch_first: bool) -> tuple[Dim, Dim]:
    """Tokens of a padded [T, N, I] (or [N, T, I]) or packed [tokens, I] input, and its time steps."""
    tokens = product(data.shape[:-1])
    if batch_sizes is not None:
        return tokens, batch_sizes.shape[0]
    return tokens, data.shape[1 if batch_first and len(data.shape) > 2 else 0]


def _source(input: TensorSpec | None, data: TensorSpec | None) -> TensorSpec:
    """The one of the two that is given: a padded ``input`` or packed ``data``."""
    source = data if input is None else input
    if source is None:
        raise TypeError("a recurrent operator needs input or data")
    return source


def _network(
    kind: str,
    data: TensorSpec,
    hx: Specs,
    params: Sequence[TensorSpec],
    batch_sizes: TensorSpec | None,
    dropout: float,
    bidirectional: bool,
    batch_first: bool,
    out: Specs,
) -> Cost:
    """A whole recurrent network, with its traffic."""
    tokens, steps = _tokens_and_steps(data, batch_sizes, batch_first)
    work = _recurrence(kind, tokens, steps, params, dropout, 2 if bidirectional else 1)
    return work + Cost(bytes_read=nbytes(data, hx, params, batch_sizes), bytes_written=nbytes(out))


@formula("aten.lstm")
def lstm(
    input: TensorSpec | None = None,
    hx: Specs = None,
    params: Sequence[TensorSpec] = (),
    dropout: float = 0.0,
    train: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    data: TensorSpec | None = None,
    batch_sizes: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """Long short-term memory (Hochreiter and Schmidhuber 1997), padded (``input``) or packed (``data``).

    >>> from costmodel.tensor import f32
    >>> cost = lstm(f32(3, 2, 5), [f32(1, 2, 7)] * 2, [f32(28, 5), f32(28, 7), f32(28), f32(28)], out=f32(3, 2, 7))
    >>> cost.macs                                      # 3*2 tokens * (28*5 + 28*7)
    2016
    >>> cost.vector_flops                              # 3*2 tokens * (7 units * 22 + 2*28 biases)
    1260
    """
    active = dropout if train else 0
    return _network("lstm", _source(input, data), hx, params, batch_sizes, active, bidirectional, batch_first, out)


@formula("aten.gru")
def gru(
    input: TensorSpec | None = None,
    hx: Specs = None,
    params: Sequence[TensorSpec] = (),
    dropout: float = 0.0,
    train: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    data: TensorSpec | None = None,
    batch_sizes: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078; the reset after the product, as in cuDNN).

    >>> from costmodel.tensor import f32
    >>> gru(f32(3, 2, 5), f32(1, 2, 7), [f32(21, 5), f32(21, 7)], out=f32(3, 2, 7)).macs      # 3*2 * (21*5 + 21*7)
    1512
    """
    active = dropout if train else 0
    return _network("gru", _source(input, data), hx, params, batch_sizes, active, bidirectional, batch_first, out)


@formula("aten.rnn_tanh", "aten.rnn_relu")
def simple_rnn(
    input: TensorSpec | None = None,
    hx: Specs = None,
    params: Sequence[TensorSpec] = (),
    dropout: float = 0.0,
    train: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    data: TensorSpec | None = None,
    batch_sizes: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """h' = tanh(W x + b + U h + d), or relu (Elman 1990).

    >>> from costmodel.tensor import f32
    >>> simple_rnn(f32(3, 2, 5), f32(1, 2, 7), [f32(7, 5), f32(7, 7)], out=f32(3, 2, 7)).macs     # 3*2 * (7*5 + 7*7)
    504
    """
    active = dropout if train else 0
    return _network("rnn", _source(input, data), hx, params, batch_sizes, active, bidirectional, batch_first, out)


#: Kinds of recurrence by the number that cuDNN and oneDNN give them.
MODES = ("rnn", "rnn", "lstm", "gru")


@formula("aten._cudnn_rnn")
def cudnn_rnn(
    input: TensorSpec,
    weight: Sequence[TensorSpec],
    hx: TensorSpec,
    cx: TensorSpec | None,
    mode: int,
    batch_first: bool = False,
    dropout: float = 0.0,
    train: bool = False,
    bidirectional: bool = False,
    *,
    out: Specs,
) -> Cost:
    """All layers in one call; ``mode`` 0 relu, 1 tanh, 2 LSTM, 3 GRU.

    >>> from costmodel.tensor import f32
    >>> cudnn_rnn(f32(3, 2, 5), [f32(21, 5), f32(21, 7)], f32(1, 2, 7), None, 3, out=f32(3, 2, 7)).macs
    1512
    """
    active = dropout if train else 0
    return _network(MODES[mode], input, [hx, cx], weight, None, active, bidirectional, batch_first, out)


@formula("aten.mkldnn_rnn_layer")
def mkldnn_rnn_layer(
    input: TensorSpec,
    weight0: TensorSpec,
    weight1: TensorSpec,
    weight2: TensorSpec,
    weight3: TensorSpec,
    hx_: TensorSpec,
    cx_: TensorSpec,
    mode: int,
    batch_first: bool = False,
    *,
    out: Specs,
) -> Cost:
    """One layer in one direction: two matrices and two biases.

    >>> from costmodel.tensor import f32
    >>> states = f32(2, 7), f32(2, 7)
    >>> mkldnn_rnn_layer(f32(3, 2, 5), f32(28, 5), f32(28, 7), f32(28), f32(28), *states, mode=2, out=f32(3, 2, 7)).macs
    2016
    """
    params = (weight0, weight1, weight2, weight3)
    return _network(MODES[mode], input, [hx_, cx_], params, None, 0, False, batch_first, out)


def _cell(kind: str, input: TensorSpec, hx: Specs, params: Sequence[TensorSpec | None], out: Specs) -> Cost:
    """One time step of one layer."""
    given = [p for p in params if p is not None]
    work = _recurrence(kind, product(input.shape[:-1]), 1, given)
    return work + Cost(bytes_read=nbytes(input, hx, given), bytes_written=nbytes(out))


@formula("aten.lstm_cell")
def lstm_cell(
    input: TensorSpec,
    hx: Sequence[TensorSpec],
    w_ih: TensorSpec,
    w_hh: TensorSpec,
    b_ih: TensorSpec | None = None,
    b_hh: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """One step of an :func:`lstm`.

    >>> from costmodel.tensor import f32
    >>> lstm_cell(f32(2, 5), [f32(2, 7)] * 2, f32(28, 5), f32(28, 7), out=(f32(2, 7), f32(2, 7))).macs     # 2*28*(5+7)
    672
    """
    return _cell("lstm", input, hx, (w_ih, w_hh, b_ih, b_hh), out)


@formula("aten.gru_cell")
def gru_cell(
    input: TensorSpec,
    hx: TensorSpec,
    w_ih: TensorSpec,
    w_hh: TensorSpec,
    b_ih: TensorSpec | None = None,
    b_hh: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """One step of a :func:`gru`.

    >>> from costmodel.tensor import f32
    >>> gru_cell(f32(2, 5), f32(2, 7), f32(21, 5), f32(21, 7), out=f32(2, 7)).macs                         # 2*21*(5+7)
    504
    """
    return _cell("gru", input, hx, (w_ih, w_hh, b_ih, b_hh), out)


@formula("aten.rnn_tanh_cell", "aten.rnn_relu_cell")
def simple_rnn_cell(
    input: TensorSpec,
    hx: TensorSpec,
    w_ih: TensorSpec,
    w_hh: TensorSpec,
    b_ih: TensorSpec | None = None,
    b_hh: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """One step of a :func:`simple_rnn`.

    >>> from costmodel.tensor import f32
    >>> simple_rnn_cell(f32(2, 5), f32(2, 7), f32(7, 5), f32(7, 7), out=f32(2, 7)).macs                    # 2*7*(5+7)
    168
    """
    return _cell("rnn", input, hx, (w_ih, w_hh, b_ih, b_hh), out)


def _pointwise_cell(kind: str, gates: TensorSpec, state: TensorSpec, *others: TensorSpec | None, out: Specs) -> Cost:
    """The cell after its matrix products: gates' sums, their biases, nonlinearities, the new state."""
    biases = sum(b is not None for b in others[1:])
    return Cost(
        vector_flops=CELL_FLOPS[kind] * state.numel + biases * gates.numel,
        bytes_read=nbytes(gates, state, *others),
        bytes_written=nbytes(out),
        launches=1,
    )


@formula("aten._thnn_fused_lstm_cell")
def fused_lstm_cell(
    input_gates: TensorSpec,
    hidden_gates: TensorSpec,
    cx: TensorSpec,
    input_bias: TensorSpec | None = None,
    hidden_bias: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """The pointwise part of an :func:`lstm_cell`, with or without its biases.

    >>> from costmodel.tensor import f32
    >>> state = f32(2, 7)
    >>> fused_lstm_cell(f32(2, 28), f32(2, 28), state, out=(state, state, f32(2, 28))).vector_flops        # 2*7*22
    308
    """
    return _pointwise_cell("lstm", input_gates, cx, hidden_gates, input_bias, hidden_bias, out=out)


@formula("aten._thnn_fused_gru_cell")
def fused_gru_cell(
    input_gates: TensorSpec,
    hidden_gates: TensorSpec,
    hx: TensorSpec,
    input_bias: TensorSpec | None = None,
    hidden_bias: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """The pointwise part of a :func:`gru_cell`, with or without its biases.

    >>> from costmodel.tensor import f32
    >>> fused_gru_cell(f32(2, 21), f32(2, 21), f32(2, 7), out=(f32(2, 7), f32(2, 35))).vector_flops        # 2*7*16
    224
    """
    return _pointwise_cell("gru", input_gates, hx, hidden_gates, input_bias, hidden_bias, out=out)
