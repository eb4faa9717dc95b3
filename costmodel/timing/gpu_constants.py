"""Constants of kernels that neither stream nor multiply matrices, and of the caches between kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CACHES", "GPU", "CacheConstants", "GpuConstants"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConstants:
    """Rates of kernels that neither stream nor multiply matrices; shares of the fp32 vector peak unless said."""

    #: Depthwise convolutions by kernel, from families of timm models on RTX 3090 and 4090 that agree on both machines:
    #: cuDNN's NHWC kernel up to 7x7 and beyond (its cliff), cuDNN's NCHW kernel, PyTorch's own.
    depthwise: Mapping[str, float] = field(
        default_factory=lambda: {"nhwc": 0.21, "nhwc_large": 0.014, "nchw": 0.07, "native": 0.045}, hash=False
    )
    #: cuDNN's depthwise kernel for tensors beyond 32-bit indices fetches its window anew for each output [B a tap]:
    #: 100 ps an output of 3x3, on RTX 3090 and 4090 alike (EfficientNets, Xceptions; above 192 channels the 3090 is
    #: up to four times slower, for a reason not known).
    depthwise_wide_tap_bytes: float = 10.0
    #: Flash attention pads the head's width to this [elements] and adds this much work a row [elements].
    attention_width_step: int = 32
    attention_width_extra: int = 12
    attention_length_step: int = 64
    #: Share of the tensor-core peak that flash attention reaches.
    attention_efficiency: float = 0.97
    #: Average pooling: a thread walks the window of its output [lane cycles a tap]. Poolformers on RTX 3090 and 4090
    #: give 71 and 63 in NCHW, 40 and 40 in NHWC.
    pool_tap_cycles: Mapping[str, float] = field(default_factory=lambda: {"nchw": 65.0, "nhwc": 40.0}, hash=False)
    #: Bilinear up-sampling in NCHW: one thread a pixel walks all planes [s a plane].
    resample_plane_s: float = 0.265e-6
    #: Factorizations: share of the lanes' peak that their blocked products reach, and the time of a column, whose norm
    #: or pivot the next one waits for [s]. Set from general knowledge, nothing here was measured: their spread is wide.
    factorization_share: float = 0.2
    factorization_column_s: float = 2e-6


GPU = GpuConstants()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConstants:
    """How L2 serves a tensor that was just written.

    ``full`` and ``gone``: bytes touched since, over the capacity, up to which all and from which none is left.
    ``speedup``: rate of hits over that of DRAM on large-L2 GPUs (5 TB/s against 1 TB/s on an RTX 4090, an L40S).
    """

    full: float = 0.6
    gone: float = 1.4
    speedup: float = 5.0


CACHES = CacheConstants()
