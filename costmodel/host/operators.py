"""What an operator costs the host in eager mode, before any kernel of it can start."""

from __future__ import annotations

from costmodel.formulas import is_free, lookup

__all__ = ["HOST_WEIGHTS", "host_weight"]

#: Host time of an operator over a host's ``dispatch_s`` (5 µs) [1], by the sheet of its formula. Set from the
#: dispatch floors of single eager calls between CUDA events on an A100 (NeuSight): 24 µs element-wise, 30 bmm, 52
#: linear, 59 convolution, of which about 12 µs are the events and the kernel itself.
HOST_WEIGHTS = {
    "views": 0.6,
    "pointwise": 2.4,
    "movement": 2.4,
    "reduction": 3.0,
    "pooling": 3.0,
    "resampling": 3.0,
    "normalization": 4.0,
    "einsum": 6.0,
    "attention": 5.0,
    "contraction": 5.0,
    "convolution": 7.0,
    "recurrent": 12.0,
}
_ELSEWHERE = 3.0


def host_weight(op: str) -> float:
    """Host time of one call of ``op`` from Python, modules included, over the host's ``dispatch_s`` [1]."""
    if is_free(op):
        return HOST_WEIGHTS["views"]
    formula = lookup(op)
    sheet = "" if formula is None else formula.__module__.rpartition(".")[2]
    return HOST_WEIGHTS.get(sheet, _ELSEWHERE)
