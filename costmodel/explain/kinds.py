"""Kinds of operators, as people speak of them: what pages and figures colour by."""

from __future__ import annotations

from collections.abc import Mapping

from costmodel.analysis import Analysis

__all__ = ["KINDS", "kind_of"]

#: In the order of legends.
KINDS = ("wide convolution", "1x1 convolution", "depthwise convolution", "linear", "normalization", "element-wise",
         "pooling", "data movement", "attention", "recurrent", "optimizer")  # fmt: skip
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "softmax")
_MOVES = ("cat", "clone", "contiguous", "copy", "permute", "roll", "index", "embedding", "_to_copy", "stack")
_PRODUCTS = ("linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "einsum")
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu", "_cudnn_rnn")


def kind_of(analysis: Analysis) -> Mapping[str, str]:
    """The kind of every operator, by name: one of :data:`KINDS`."""
    graph = analysis.bound
    return {
        node.name: _kind(node.op.removeprefix("aten."), graph.arguments(graph.calls[node.call])) for node in graph.nodes
    }


def _kind(op: str, arguments: Mapping[str, object]) -> str:
    """A backward operator is of the kind of its forward one.

    >>> _kind("native_layer_norm_backward", {}), _kind("_fused_rms_norm", {}), _kind("_fused_adam_", {})
    ('normalization', 'normalization', 'optimizer')
    """
    plain = op.removesuffix("_backward")
    if "conv" in plain and "weight" in arguments:
        return _convolution(arguments)
    if plain.startswith(("_foreach_", "_fused_", "_amp_")) and "rms_norm" not in plain:
        return "optimizer"
    if plain in _PRODUCTS:
        return "linear"
    if "attention" in plain:
        return "attention"
    if plain in _RECURRENT:
        return "recurrent"
    if any(norm in plain for norm in _NORMS):
        return "normalization"
    if "pool" in plain or plain in ("mean", "sum"):
        return "pooling"
    return "data movement" if plain in _MOVES else "element-wise"


def _convolution(arguments: Mapping[str, object]) -> str:
    shape, groups = arguments["weight"].shape, arguments.get("groups", 1)  # type: ignore[attr-defined]
    if groups == shape[0] and groups != 1:
        return "depthwise convolution"
    return "1x1 convolution" if all(size == 1 for size in shape[2:]) else "wide convolution"
