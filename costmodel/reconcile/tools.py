"""What each counter counts for an operator, as its source says, and how that differs from our MACs.

A rule yields (amount more than ours, reason); amounts are in the tool's unit. Operators for which nothing is yielded
are counted alike: as many MACs (or twice as many FLOP) as ours, or nothing by both.

A graph does not know whether a function was called as ``torch.matmul(x, y)`` or as ``x @ y``, which patches of
functions do not see: the sign is assumed, and ``openly`` yields what else would be counted. Activations are assumed to
come from ``torch.nn.functional`` or its modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from costmodel.reconcile.seen import Seen

__all__ = ["TOOLS", "Tool"]

Part = tuple[int, str]
Rule = Callable[[Seen], Iterator[Part]]


@dataclass(frozen=True, slots=True)
class Tool:
    """A counter: what it is called, the unit of what it prints and under which name, the release whose source was read,
    its rules, and those for what it counts besides where operators are written as functions."""

    name: str
    unit: Literal["MAC", "FLOP"]
    prints: str
    release: str
    differences: Rule
    openly: Rule = lambda node: iter(())


# -- reasons -----------------------------------------------------------------------------------

LEFT_OUT = "left out"
BIAS = "biases counted, one an output"
NORMS = "normalization counted"
ACTIVATIONS = "activations counted, one an element"
TWICE = "activations and pooling counted twice: by the module's hook and by the patched function that it calls"
POOLING = "pooling counted"
RESAMPLING = "resampling counted"
SOFTMAX = "softmax counted"
GROUPS_TWICE = "transposed convolutions divided by their groups twice"
TRANSPOSED = "transposed convolutions counted at the output's positions"
ATTENTION = "attention left out: the fused operator has no rule"
SUBCLASS = "left out: its class is no layer of torch.nn itself, and hooks go by exact type"
OUTSIDE = "products outside of layers left out: hooks see modules alone"
NOT_CALLED = "layers inside of MultiheadAttention left out: their forward is never called"
TOKENS = "linear layers counted once a sample, not once a position"
PARAMETERS = "parameters of normalization, biases and embeddings counted as multiply-adds"
RECURRENT = "gates, biases and states of recurrent layers counted"
PRODUCTS_BY_SIGN = "products of tensors left out: @ is not patched"
PLACES = "modules that hang in several places of the model counted once for each of them"
PLACES_SQUARED = "modules that hang in several places counted once for each and hook: the square of the places"
OPEN_PRODUCTS = "products written as functions (torch.matmul) and not with @"
OPEN_SOFTMAX = "calls of torch.nn.functional.softmax, not x.softmax"
OPEN_ELEMENTWISE = "calls of torch.{0} or x.{0}, not its sign"


def _left_out(node: Seen, factor: int, reason: str) -> Iterator[Part]:
    if node.macs:
        yield -factor * node.macs, reason


def _in_each_place(rule: Rule, factor: int, patched: Callable[[Seen], int] = lambda node: 0, power: int = 1) -> Rule:
    """A rule of a counter that adds up along the tree of modules, and so counts what hangs in several places again.

    ``factor`` is its unit over MACs; what its ``patched`` functions count is added up beside the tree. Where each visit
    of the tree hooks a module anew, each of its calls is counted so many times as well: ``power`` 2.
    """

    def differences(node: Seen) -> Iterator[Part]:
        parts = list(rule(node))
        yield from parts
        if node.places > 1:
            hooked = factor * node.macs + sum(amount for amount, _ in parts) - patched(node)
            yield (node.places**power - 1) * hooked, PLACES if power == 1 else PLACES_SQUARED

    return differences


def _each_time(rule: Rule) -> Rule:
    """What functions count, where that is added up along the tree of modules."""
    return lambda node: ((amount * node.places, reason) for amount, reason in rule(node))


# -- torch.utils.flop_counter ------------------------------------------------------------------

#: Products for which it has no formula, and which nothing below it decomposes into one.
_WITHOUT_FORMULA = ("mv", "dot", "vdot", "outer", "ger", "addr", "addmv")


def _flop_counter_mode(node: Seen) -> Iterator[Part]:
    """Two a MAC of products, convolutions and attention, and nothing else."""
    if node.op in _WITHOUT_FORMULA:
        yield from _left_out(node, 2, f"{LEFT_OUT}: no formula")


# -- fvcore ------------------------------------------------------------------------------------

_PRODUCTS = ("linear", "addmm", "mm", "bmm", "matmul", "einsum")
_NORMS = ("layer_norm", "group_norm", "instance_norm")


def _fvcore(node: Seen) -> Iterator[Part]:
    """One a MAC of products and convolutions; 2 an element of batch norm, 5 of others (1 and 4 without weights)."""
    if (cost := _norm_cost(node)) is not None:
        yield node.elements_in * cost, f"{NORMS}, {cost} an element"
    elif node.op == "adaptive_avg_pool2d":
        yield node.elements_in, f"{POOLING}, one an element of its input"
    elif node.op == "upsample_nearest2d":
        yield node.elements_out, RESAMPLING
    elif node.op in ("upsample_bilinear2d", "grid_sampler"):
        yield 4 * node.elements_out, RESAMPLING
    elif "attention" in node.op:
        yield from _left_out(node, 1, ATTENTION)
    elif node.macs and not (node.is_convolution or node.op in _PRODUCTS):
        yield from _left_out(node, 1, f"{LEFT_OUT}: {node.op} has no rule")


def _norm_cost(node: Seen) -> int | None:
    """What fvcore and calflops count for an element of a norm: less where batch norm has its statistics at hand."""
    affine = node.has("weight")
    if node.op == "batch_norm" and node.arguments.get("training") is not True:
        return 2 if affine else 1
    return (5 if affine else 4) if node.op in ("batch_norm", *_NORMS) else None


def _timm(node: Seen) -> Iterator[Part]:
    """fvcore's count, made with attention as the two products that it is."""
    if "attention" not in node.op:
        yield from _fvcore(node)


# -- thop --------------------------------------------------------------------------------------

_THOP_CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
_THOP_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "InstanceNorm1d", "InstanceNorm2d",
               "InstanceNorm3d", "SyncBatchNorm")  # fmt: skip
_AVERAGES = ("AvgPool1d", "AvgPool2d", "AvgPool3d")
_ADAPTIVE = ("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d")
_UPSAMPLE_COST = {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}


def _thop(node: Seen) -> Iterator[Part]:
    """One a MAC of layers by exact type; norms 4 an element with weights, 2 without; some pooling and resampling."""
    if node.layer in _THOP_CONVOLUTIONS and node.is_convolution:
        channels = node.input[1] // int(node.arguments.get("groups", 1))
        counted = node.elements_out * channels * math.prod(node.shape("weight")[2:])
        yield counted - node.macs, TRANSPOSED
    elif node.layer == "Linear" and node.op == "linear":
        return
    elif node.layer in _THOP_NORMS and "norm" in node.op:
        cost = 4 if node.has("weight") else 2
        yield cost * node.elements_in, f"{NORMS}, {cost} an element"
    elif node.layer in _AVERAGES and "avg_pool" in node.op:
        yield node.elements_out, f"{POOLING}, one an output"
    elif node.layer in _ADAPTIVE and "avg_pool" in node.op:
        window = math.prod(i / o for i, o in zip(node.input[2:], node.output[2:], strict=True))
        yield int((window + 1) * node.elements_out), f"{POOLING}, its window and one more an output"
    elif node.layer == "Softmax" and "softmax" in node.op:
        length = node.input[int(node.arguments.get("dim", -1))]
        yield node.elements_in // length * (3 * length - 1), f"{SOFTMAX}, 3 an element"
    elif node.layer == "Upsample" and node.op.startswith("upsample"):
        mode = next((mode for mode in ("nearest", "bilinear", "bicubic", "linear") if mode in node.op), "")
        yield _UPSAMPLE_COST.get(mode, 0) * node.elements_out, RESAMPLING
    elif node.layer == "PReLU" and "prelu" in node.op:
        yield node.elements_in, ACTIVATIONS
    elif node.layer in _GATES and node.op in _RECURRENT:
        steps, hidden, _, biased = _recurrent(node)
        gates, states = _GATES[node.layer], {"RNN": 0, "GRU": 4, "LSTM": 4}[node.layer]
        yield steps * sum(gates * h * (3 if biased else 1) + states * h for h in hidden), RECURRENT
    elif node.macs:
        yield from _left_out(node, 1, _why_no_hook(node))


#: Gates of a recurrent layer, by its class, and the operators that it comes to.
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def _recurrent(node: Seen) -> tuple[int, list[int], int, bool]:
    """Steps times samples, the hidden size of each layer and direction, elements of all biases, whether any are."""
    parameters = [spec.shape for spec in node.arguments["params"]]
    hidden = [int(shape[1]) for shape in parameters if len(shape) == 2][1::2]
    biases = sum(int(shape[0]) for shape in parameters if len(shape) == 1)
    return math.prod(node.input[:2]), hidden, biases, biases > 0


def _why_no_hook(node: Seen) -> str:
    """Why a hook by exact type sees no products of a node."""
    if node.layer == "MultiheadAttention":
        return NOT_CALLED
    if node.op in ("linear",) or node.is_convolution:
        return SUBCLASS if node.kind.rpartition(".")[2].startswith(("Linear", "Conv", "Std", "Scaled")) else OUTSIDE
    return OUTSIDE


# -- ptflops -----------------------------------------------------------------------------------

_PT_ACTIVATIONS = {"ReLU": "relu", "ReLU6": "hardtanh", "PReLU": "prelu", "ELU": "elu", "LeakyReLU": "leaky_relu",
                   "GELU": "gelu"}  # fmt: skip
#: Functions of torch.nn.functional that it patches, by the operators that they come to.
_PATCHED = ("relu", "prelu", "elu", "hardtanh", "gelu", "silu")
_PT_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
             "GroupNorm", "LayerNorm")  # fmt: skip
#: Its handler for timm's attention takes the place of what its children count.
_TIMM_ATTENTION = "timm.layers.attention.Attention"


def _ptflops(node: Seen) -> Iterator[Part]:
    """One a MAC of layers by exact type, biases, norms, activations and pooling (those twice)."""
    if node.layer == "MultiheadAttention" or _TIMM_ATTENTION in (node.kind, *node.inside):
        yield from _ptflops_attention(node)
        return
    if _is_product_layer(node):
        yield (node.elements_out if node.has("bias") else 0), BIAS
    elif node.layer in _PT_NORMS and "norm" in node.op:
        # InstanceNorm without weights counts one; layer norm has no attribute "affine", and counts one in any case
        affine = node.layer != "LayerNorm" and node.has("weight")
        yield node.elements_in * (2 if affine else 1), f"{NORMS}, {2 if affine else 1} an element"
    elif node.layer in _GATES and node.op in _RECURRENT:
        steps, hidden, biases, _ = _recurrent(node)
        states = {"RNN": 1, "GRU": 7, "LSTM": 10}[node.layer]
        yield steps * (sum(states * h for h in hidden) + biases), RECURRENT
    elif node.op == "leaky_relu" and node.layer == "LeakyReLU":
        yield node.elements_in, ACTIVATIONS
    elif node.op in _NO_SIGN:
        return
    elif node.macs:
        yield from _left_out(node, 1, _why_no_hook(node))
    yield from _ptflops_functions(node)


#: Products that are written as functions alone, which are patched.
_NO_SIGN = ("mm", "bmm")


def _ptflops_patched(node: Seen) -> int:
    """What its patched functions count, which no module is asked for."""
    functions = sum(amount for amount, reason in _ptflops_functions(node) if reason != TWICE)
    return functions + (node.macs if node.op in _NO_SIGN else 0)


def _is_product_layer(node: Seen) -> bool:
    """Whether it is a convolution or a linear layer of torch.nn itself."""
    return (node.layer in _THOP_CONVOLUTIONS and node.is_convolution) or (node.layer == node.op.title() == "Linear")


def _ptflops_functions(node: Seen) -> Iterator[Part]:
    """Activations and pooling: a hook and, below it, the patched function."""
    hooked = node.op == _PT_ACTIVATIONS.get(node.layer, "")
    if node.op in _PATCHED:
        yield node.elements_in, ACTIVATIONS
        if hooked:
            yield node.elements_in, TWICE
    elif _is_softmax_layer(node):
        yield node.elements_in, f"{SOFTMAX}, one an element"
    elif "pool" in node.op:
        yield node.elements_in, f"{POOLING}, one an element of its input"
        if node.layer.endswith(("Pool1d", "Pool2d", "Pool3d")):
            yield node.elements_in, TWICE
    elif node.op.startswith("upsample"):
        yield node.elements_out, RESAMPLING
        if node.layer == "Upsample":
            yield node.elements_out, TWICE


def _ptflops_attention(node: Seen) -> Iterator[Part]:
    """Its formulas of attention: products of queries, keys and values, their scaling, softmax, and biases."""
    if "attention" in node.op:
        *batch, queries, width = node.shape("query")
        keys = node.shape("key")[-2]
        heads = math.prod(batch)
        yield heads * queries * width, "scaling of queries in attention counted"
        yield heads * queries * keys, f"{SOFTMAX}, one an element"
    elif node.layer == "MultiheadAttention" and node.op == "linear":
        yield (node.elements_out if node.has("bias") else 0), BIAS
    elif node.kind != _TIMM_ATTENTION and node.macs:
        yield from _left_out(
            node, 1, "projections of timm's Attention left out: its own handler stands for its children"
        )


def _is_softmax_layer(node: Seen) -> bool:
    """torch.nn.Softmax calls the function that is patched; a tensor's own method is none."""
    return node.layer == "Softmax" and "softmax" in node.op


def _functions(factor: int) -> Rule:
    """Of ptflops and calflops: what patched functions count where they are written as such."""

    def openly(node: Seen) -> Iterator[Part]:
        if node.op == "matmul":
            yield factor * node.macs, OPEN_PRODUCTS
        elif node.op in ("add", "mul") and not node.in_place:
            yield node.elements_out, OPEN_ELEMENTWISE.format(node.op)
        elif node.op == "softmax" and not node.layer:
            yield node.elements_in, OPEN_SOFTMAX

    return openly


def _products_alone(node: Seen) -> Iterator[Part]:
    """Of calflops, whose MACs are of products alone."""
    if node.op == "matmul":
        yield node.macs, OPEN_PRODUCTS


# -- torchinfo ---------------------------------------------------------------------------------


def _torchinfo(node: Seen) -> Iterator[Part]:
    """Parameters of each layer: times the output's positions of convolutions, times the samples of everything else."""
    if node.layer in _GATES and node.op in _RECURRENT:
        steps, _, biases, _ = _recurrent(node)
        yield steps * biases, BIAS
        return
    if not _is_layer(node):
        yield from _left_out(node, 1, NOT_CALLED if node.layer == "MultiheadAttention" else OUTSIDE)
        return
    samples = node.output[0]
    weight, bias = (math.prod(node.shape(name)) if node.has(name) else 0 for name in ("weight", "bias"))
    if node.is_convolution:
        positions = samples * math.prod(node.output[2:])
        yield bias * positions, BIAS
        yield weight * positions - node.macs, TRANSPOSED
    elif node.op == "linear":
        yield samples * weight - node.macs, TOKENS
        yield samples * bias, BIAS
    else:
        yield samples * (weight + bias), PARAMETERS


#: Operators of layers, and a word that the class of such a layer has.
_LAYERS = {"conv": "Conv", "linear": "Linear", "norm": "Norm", "embedding": "Embedding", "prelu": "PReLU"}


def _is_layer(node: Seen) -> bool:
    """Whether the operator is all that a module with a weight of its own and without modules inside does.

    timm's norms with activations hold modules, and so count as none.
    """
    name = node.kind.rpartition(".")[2]
    found = any(op in node.op and word in name for op, word in _LAYERS.items())
    return found and (node.has("weight") or node.has("bias")) and "norm_act" not in node.kind


# -- calflops ----------------------------------------------------------------------------------


def _calflops_macs(node: Seen) -> Iterator[Part]:
    """MACs of linear layers and convolutions, whoever calls them."""
    yield from _calflops_products(node, 1)


def _calflops_products(node: Seen, factor: int) -> Iterator[Part]:
    if node.is_transposed:
        groups = int(node.arguments.get("groups", 1))
        yield factor * (node.macs // groups - node.macs), GROUPS_TWICE
    if node.macs and not (node.is_convolution or node.op == "linear"):
        why = ATTENTION if "attention" in node.op else f"{LEFT_OUT}: {node.op} is not patched"
        yield from _left_out(node, factor, PRODUCTS_BY_SIGN if node.op == "matmul" else why)


#: Arguments of resampling by a factor.
_SCALES = ("scale_factors", "scales", "scales_h", "scales_w", "scales_d")


def _calflops_bias(node: Seen) -> int:
    """An output of a convolution each; of a transposed one, those that it would have were it none."""
    if not node.is_transposed:
        return node.elements_out
    dims = len(node.input) - 2
    stride, padding, dilation = (_each(node.arguments.get(name, default), dims)
                                 for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)))  # fmt: skip
    kernel = node.shape("weight")[2:]
    sizes = [
        (size + 2 * padding[i] - (dilation[i] * (kernel[i] - 1) + 1)) // stride[i] + 1
        for i, size in enumerate(node.input[2:])
    ]
    return node.input[0] * node.shape("weight")[1] * math.prod(sizes)


def _each(value: Any, dims: int) -> tuple[int, ...]:
    values = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(map(int, values)) * (dims if len(values) == 1 else 1)


def _calflops_flops(node: Seen) -> Iterator[Part]:
    """Two a MAC of those, biases of convolutions, norms, activations and pooling of torch.nn.functional."""
    if node.layer in _GATES and node.op in _RECURRENT:
        steps, hidden, biases, _ = _recurrent(node)
        gates, states = _GATES[node.layer], {"RNN": 1, "GRU": 7, "LSTM": 10}[node.layer]
        yield steps * (sum((states - 2 * gates) * h for h in hidden) + biases), RECURRENT
        return
    yield from _calflops_products(node, 2)
    if node.is_convolution and node.has("bias"):
        yield _calflops_bias(node), BIAS
    elif (cost := _norm_cost(node)) is not None:
        yield node.elements_in * cost, f"{NORMS}, {cost} an element"
    elif node.op in (*_PATCHED, "leaky_relu"):
        yield node.elements_in, ACTIVATIONS
    elif _is_softmax_layer(node):
        yield node.elements_in, f"{SOFTMAX}, one an element"
    elif node.op.startswith("upsample"):
        by_factor = any(node.arguments.get(name) for name in _SCALES)
        yield node.elements_in if by_factor else math.prod(node.output[2:]), f"{RESAMPLING}, its input or its size"
    elif "pool" in node.op:
        yield node.elements_in, f"{POOLING}, one an element of its input"


TOOLS = (
    Tool("FlopCounterMode", "FLOP", "total FLOPs", "torch 2.13", _flop_counter_mode),
    Tool("fvcore", "MAC", "flops", "fvcore 0.1.5", _fvcore),
    Tool("timm's table", "MAC", "GMACs", "timm's results", _timm),
    Tool("thop", "MAC", "MACs", "thop 0.1.1", _in_each_place(_thop, 1, power=2)),
    Tool("ptflops", "MAC", "MACs", "ptflops 0.7.5", _in_each_place(_ptflops, 1, _ptflops_patched), _functions(1)),
    Tool("torchinfo", "MAC", "mult-adds", "torchinfo 1.8", _torchinfo),
    Tool("calflops", "MAC", "MACs", "calflops 0.3.2", _in_each_place(_calflops_macs, 1), _each_time(_products_alone)),
    Tool("calflops", "FLOP", "FLOPs", "calflops 0.3.2", _in_each_place(_calflops_flops, 2), _each_time(_functions(2))),
)
