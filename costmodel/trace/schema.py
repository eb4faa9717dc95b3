"""What the recorder needs to know of an operator's overload, looked up once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["KEPT_WHOLE", "Schema", "schema_of"]

#: Composite operators recorded as one node: the level at which people think, autocast decides and formulas exist.
KEPT_WHOLE = frozenset(
    """linear bilinear matmul einsum conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    scaled_dot_product_attention batch_norm layer_norm group_norm instance_norm rms_norm lstm gru rnn_tanh rnn_relu
    softmax log_softmax max_pool1d max_pool2d max_pool3d avg_pool1d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d one_hot _pad_packed_sequence silu_backward mish_backward _fused_rms_norm""".split()
)


#: Operators that put something into some places of an operand.
_IN_PART = frozenset(
    """
    scatter scatter_add scatter_reduce index_copy index_fill index_add index_reduce index_put _index_put_impl
    """.split()
)

#: Namespaces and operators that may be special.
_SPECIAL = frozenset(
    {"profiler", "quantized", *(f"aten.{op}" for op in ("_sparse_addmm", "_sparse_mm", "addmm", "mm", "mv", "matmul"))}
)


@dataclass(frozen=True, slots=True)
class Schema:
    """One overload.

    ``op``         namespace and packet, without the underscore of in-place packets: ``aten.relu``
    ``names``      of its arguments, ``input`` for ``self``
    ``written``    arguments that it writes in place
    ``out``        those of them that are places for its results (``torch.add(a, b, out=c)``): it reads nothing of them
    ``in_part``    whether it changes a part of an operand in place, which its formula must know
    ``decompose``  whether it is a composite without a meaning of its own
    ``factory``    whether it makes a tensor out of none, on a device
    ``special``    whether it may be a call that the meta device cannot run: see :mod:`costmodel.trace.special`
    ``random``     whether its result is drawn anew each time
    """

    op: str
    names: tuple[str, ...]
    written: tuple[str, ...]
    out: tuple[str, ...]
    in_part: bool
    decompose: bool
    factory: bool
    random: bool
    special: bool


_SCHEMAS: dict[Any, Schema] = {}


def schema_of(overload: Any) -> Schema:
    """The schema of an overload such as ``torch.ops.aten.add.Tensor``."""
    known = _SCHEMAS.get(overload)
    if known is not None:
        return known
    schema = overload._schema
    namespace, _, packet = schema.name.partition("::")
    names = tuple("input" if a.name == "self" else a.name for a in schema.arguments)
    written = tuple(n for n, a in zip(names, schema.arguments, strict=True) if a.alias_info and a.alias_info.is_write)
    plain = packet[:-1] if written and packet.endswith("_") and not packet.endswith("__") else packet
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(overload.name(), "CompositeImplicitAutograd")
    return _SCHEMAS.setdefault(
        overload,
        Schema(
            op=f"{namespace}.{plain}",
            names=names,
            written=written,
            in_part=packet.endswith("_") and plain in _IN_PART,
            out=tuple(name for name, a in zip(names, schema.arguments, strict=True) if a.is_out),
            decompose=composite and packet not in KEPT_WHOLE,
            factory=any(a.name == "device" for a in schema.arguments)
            and not any(_is_tensor_type(a) for a in schema.arguments),
            special=namespace in _SPECIAL or f"{namespace}.{packet}" in _SPECIAL,
            random=torch.Tag.nondeterministic_seeded in overload.tags,
        ),
    )


def _is_tensor_type(argument: Any) -> bool:
    return "Tensor" in str(argument.type)
