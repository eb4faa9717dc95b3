"""Layers and blocks in their own symbols: what a textbook claims about a convolution, from the formulas themselves.

>>> from costmodel.claims import conv, depthwise_separable, maps, ratio
>>> from costmodel.symbols import symbol
>>> x, c_out, k = maps("C_in", "H", "W"), symbol("C_out"), symbol("K")
>>> ratio(depthwise_separable(c_out, k)(x), conv(c_out, k)(x), "macs")
K**(-2) + 1/C_out
"""

from __future__ import annotations

from costmodel.claims.blocks import channel_shuffle, max_unpool, shortcut, squeeze_excitation
from costmodel.claims.bounds import LowerBound, group_convolution_access, memory_access_bound
from costmodel.claims.catalogue import LAYERS, Entry, build, entry
from costmodel.claims.design import QUANTITIES, Design, Layer, maps, ratio, sequence
from costmodel.claims.layers import (
    concat,
    conv,
    conv_transpose,
    deform_conv,
    depthwise_separable,
    fully_connected,
    global_average_pool,
    pooled_head,
    upsample,
)
from costmodel.claims.ridge import Crossing, intensity, node_crossing, ridge_crossing

__all__ = [
    "LAYERS",
    "QUANTITIES",
    "Crossing",
    "Design",
    "Entry",
    "Layer",
    "LowerBound",
    "build",
    "channel_shuffle",
    "concat",
    "conv",
    "conv_transpose",
    "deform_conv",
    "depthwise_separable",
    "entry",
    "fully_connected",
    "global_average_pool",
    "group_convolution_access",
    "intensity",
    "maps",
    "max_unpool",
    "memory_access_bound",
    "node_crossing",
    "pooled_head",
    "ratio",
    "ridge_crossing",
    "sequence",
    "shortcut",
    "squeeze_excitation",
    "upsample",
]
