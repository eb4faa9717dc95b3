"""One operator, many names: what a profiler calls it, what a graph calls it, what a fused kernel's name says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

__all__ = ["CONTRACTIONS", "class_of", "fused_text", "is_fused", "names_in_fused", "op_of", "signature"]

#: Operators that do the same work under different names: a composite and what it calls on some device, the form that
#: a compiler leaves. class -> names, without namespace.
_CLASSES = {
    "convolution": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution"
    " mkldnn_convolution cudnn_convolution cudnn_convolution_relu cudnn_convolution_add_relu thnn_conv2d"
    " _slow_conv2d_forward _conv_depthwise2d miopen_convolution slow_conv3d_forward _convolution_pointwise"
    " _convolution_pointwise_ convolution_overrideable conv_depthwise3d slow_conv_dilated2d",
    "matmul": "linear matmul mm bmm addmm baddbmm addbmm mv addmv einsum dot _linear_pointwise _addmm_activation"
    " mkl_linear _mkl_linear",
    "attention": "scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention"
    " _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention"
    " _scaled_dot_product_cudnn_attention _flash_attention_forward _efficient_attention_forward",
    "softmax": "softmax _softmax _safe_softmax",
    "log_softmax": "log_softmax _log_softmax",
    "batch_norm": "batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training"
    " cudnn_batch_norm _batch_norm_impl_index _batch_norm_no_update",
    "layer_norm": "layer_norm native_layer_norm",
    "group_norm": "group_norm native_group_norm instance_norm",
    "rms_norm": "rms_norm _fused_rms_norm",
    "max_pool": "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices"
    " _low_memory_max_pool2d_with_offsets _low_memory_max_pool_with_offsets",
    "avg_pool": "avg_pool1d avg_pool2d avg_pool3d",
    "adaptive_avg_pool": "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d"
    " _adaptive_avg_pool3d",
    "view": "view _unsafe_view reshape _reshape_alias flatten unflatten",
    "copy": "clone contiguous _to_copy copy copy_ to",
    "recurrent": "lstm gru rnn_tanh rnn_relu _cudnn_rnn mkldnn_rnn_layer",
}
_CLASS_OF = {name: kind for kind, names in _CLASSES.items() for name in names.split()}

#: Classes whose work is multiply-accumulate: what tells one model from another.
CONTRACTIONS = frozenset({"convolution", "matmul", "attention", "recurrent"})

#: Inductor: ``graph_0_cpp_fused_add_relu_3``, ``triton_poi_fused_add_relu_3``; what the fused operators are.
_FUSED = re.compile(r"(?:^|_)(?:cpp|triton(?:_[a-z]+)?|cpu)_fused_(.*?)(?:_\d+)?$")

#: What a compiler makes of an operator, beside the names of its class: fused names tell what was left of it.
_DECOMPOSED = {
    "adaptive_avg_pool": ("mean",),
    "silu": ("sigmoid", "mul"),
    "hardswish": ("hardtanh", "div", "clamp"),
    "hardsigmoid": ("hardtanh", "div", "clamp"),
    "hardtanh": ("clamp",),
    "relu6": ("hardtanh", "clamp"),
    "gelu": ("erf", "mul"),
    "constant_pad_nd": ("pad",),
    "rms_norm": ("rsqrt", "pow", "mean"),
}


def op_of(event: str) -> str:
    """The graph's name of an operator by the profiler's: in-place packets by their plain name.

    >>> op_of("aten::relu_"), op_of("aten::_softmax"), op_of("aten::__and__")
    ('aten.relu', 'aten._softmax', 'aten.__and__')
    """
    namespace, colons, packet = event.partition("::")
    if not colons:
        return event
    plain = packet[:-1] if packet.endswith("_") and not packet.endswith("__") else packet
    return f"{namespace}.{plain}"


def class_of(op: str) -> str:
    """The class of an operator: names that stand for the same work; its own name where it has but one.

    >>> class_of("aten.conv2d") == class_of("aten.cudnn_convolution"), class_of("aten.relu")
    (True, 'relu')
    """
    packet = op.rpartition(".")[2]
    return _CLASS_OF.get(packet, packet)


def fused_text(name: str) -> str:
    """What the name of a fused kernel says of the operators in it, or "" for another name.

    >>> fused_text("graph_0_cpp_fused__native_batch_norm_legit_no_training_relu_2")
    '_native_batch_norm_legit_no_training_relu'
    >>> fused_text("triton_per_fused_native_layer_norm_12"), fused_text("ampere_sgemm_128x64_tn")
    ('native_layer_norm', '')
    """
    found = _FUSED.search(name)
    return found.group(1) if found else ""


def is_fused(name: str) -> bool:
    """Whether a compiler generated this kernel."""
    return bool(fused_text(name))


def names_in_fused(op: str, text: str) -> bool:
    """Whether the fused operators of ``text`` (see :func:`fused_text`) can contain this operator of a graph.

    >>> names_in_fused("aten.batch_norm", "_native_batch_norm_legit_no_training_relu")
    True
    >>> names_in_fused("aten.add", "addmm_relu"), names_in_fused("aten.relu", "addmm_relu")
    (False, True)
    """
    packet = op.rpartition(".")[2]
    kind = class_of(op)
    words = {packet, *_CLASSES.get(kind, "").split(), *_DECOMPOSED.get(kind, ()), *_DECOMPOSED.get(packet, ())}
    return any(re.search(rf"(?:^|_){re.escape(word)}(?:_|$)", text) for word in words)


def signature(op: str, shapes: Iterable[tuple[int, ...]] | None) -> tuple[object, ...] | None:
    """What must agree for two calls of a class to be the same work; None where shapes are unknown.

    Products by their sizes (batch, M, N, K), however they are called; convolutions by image and weight; anything
    else by the shapes of its tensors.

    >>> signature("aten.linear", [(1, 197, 768), (3072, 768), (3072,)])
    (1, 197, 3072, 768)
    >>> signature("aten.addmm", [(3072,), (197, 768), (768, 3072)])
    (1, 197, 3072, 768)
    """
    if shapes is None:
        return None
    sizes = tuple(shape for shape in shapes if shape)
    kind = class_of(op)
    if kind == "matmul":
        return _product(op.rpartition(".")[2], sizes)
    if kind == "convolution":
        return sizes[:2] if len(sizes) >= 2 else None
    if kind == "attention":
        return sizes[:3] if len(sizes) >= 3 else None
    return sizes or None


def _product(packet: str, sizes: tuple[tuple[int, ...], ...]) -> tuple[object, ...] | None:
    if packet in ("linear", "_linear_pointwise", "mkl_linear", "_mkl_linear"):
        if len(sizes) < 2 or len(sizes[1]) != 2:
            return None
        return 1, math.prod(sizes[0][:-1]), sizes[1][0], sizes[0][-1]
    operands = [shape for shape in sizes if len(shape) >= 2][-2:]
    if packet in ("baddbmm", "addbmm"):
        operands = [shape for shape in sizes[1:] if len(shape) >= 2][:2]
    if packet == "bmm":
        operands = [shape for shape in sizes if len(shape) >= 2][:2]
    if packet == "einsum" or len(operands) != 2:
        return None
    left, right = operands
    if len(right) == 2:  # a product of one matrix: leading sizes of the left are rows
        return 1, math.prod(left[:-1]), right[-1], left[-1]
    batch = max(math.prod(left[:-2]), math.prod(right[:-2]))
    return batch, left[-2], right[-1], left[-1]
