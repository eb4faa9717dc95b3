"""Layers by name, with symbols for their sizes: what ``costmodel formula conv2d`` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from costmodel.claims import blocks, layers
from costmodel.claims.design import Design, Layer, maps, sequence
from costmodel.errors import InputError, librarian, near_matches
from costmodel.symbols import Dim, symbol

__all__ = ["LAYERS", "Entry", "build", "entry"]

Sizes = Mapping[str, Dim]


@dataclass(frozen=True, slots=True)
class Entry:
    """A layer's name, what it is, the input [N, ...] and the sizes that can be given, and how it is made of them."""

    name: str
    about: str
    input: tuple[str, ...]
    sizes: tuple[str, ...]
    make: Callable[[Sizes], Layer]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol of its closed forms."""
        return ("N", *self.input, *self.sizes)


_MAPS = ("C_in", "H", "W")
_ENTRIES = (
    Entry("conv1d", "convolution over a sequence", ("C_in", "L"), ("C_out", "K", "s", "d", "g"),
          lambda v: layers.conv(v["C_out"], v["K"], stride=v["s"], dilation=v["d"], groups=v["g"])),
    Entry("conv2d", "convolution; s stride, d dilation, g groups", _MAPS, ("C_out", "K", "s", "d", "g"),
          lambda v: layers.conv(v["C_out"], v["K"], stride=v["s"], dilation=v["d"], groups=v["g"])),
    Entry("conv3d", "convolution over films and volumes", ("C_in", "T", "H", "W"), ("C_out", "K", "s", "d", "g"),
          lambda v: layers.conv(v["C_out"], v["K"], stride=v["s"], dilation=v["d"], groups=v["g"])),
    Entry("conv_transpose2d", "transposed convolution, output s times as large", _MAPS, ("C_out", "K", "s"),
          lambda v: layers.conv_transpose(v["C_out"], v["K"], stride=v["s"])),
    Entry("deform_conv2d", "deformable convolution with its offsets' convolution", _MAPS, ("C_out", "K"),
          lambda v: layers.deform_conv(v["C_out"], v["K"])),
    Entry("depthwise", "one filter a channel", _MAPS, ("K", "s"),
          lambda v: layers.depthwise(v["K"], stride=v["s"])),
    Entry("depthwise_separable", "depthwise KxK, then 1x1", _MAPS, ("C_out", "K", "s"),
          lambda v: layers.depthwise_separable(v["C_out"], v["K"], stride=v["s"])),
    Entry("bottleneck", "1x1 to C_mid, KxK, 1x1 to C_out", _MAPS, ("C_mid", "C_out", "K"),
          lambda v: sequence(layers.conv(v["C_mid"], 1), layers.conv(v["C_mid"], v["K"]), layers.conv(v["C_out"], 1))),
    Entry("squeeze_excitation", "pool, C/r, C, scale", _MAPS, ("r",),
          lambda v: blocks.squeeze_excitation(v["r"])),
    Entry("channel_shuffle", "channels of g groups interleaved", _MAPS, ("g",),
          lambda v: blocks.channel_shuffle(v["g"])),
    Entry("shortcut", "addition of another tensor", _MAPS, (), lambda v: blocks.shortcut()),
    Entry("concat", "C_other maps set beside the input's", _MAPS, ("C_other",),
          lambda v: layers.concat(v["C_other"])),
    Entry("upsample_bilinear", "up-sampling by s", _MAPS, ("s",), lambda v: layers.upsample(v["s"])),
    Entry("max_unpool", "maxima put back where they were", _MAPS, ("s",), lambda v: blocks.max_unpool(v["s"])),
    Entry("fully_connected", "flatten, then a matrix", _MAPS, ("C_out",),
          lambda v: layers.fully_connected(v["C_out"])),
    Entry("global_average_pool", "the mean of every map", _MAPS, (), lambda v: layers.global_average_pool()),
    Entry("pooled_head", "global average pooling, then a matrix", _MAPS, ("C_out",),
          lambda v: layers.pooled_head(v["C_out"])),
)  # fmt: skip

#: Every layer of the catalogue by its name.
LAYERS: Mapping[str, Entry] = {e.name: e for e in _ENTRIES}

#: Sizes that are a number unless they are given: one sample, and plain convolutions.
_USUAL: Mapping[str, int] = {"N": 1, "s": 1, "d": 1, "g": 1}
#: Layers that would be nothing at such a number.
_ALWAYS_OPEN = {("conv_transpose2d", "s"), ("upsample_bilinear", "s"), ("max_unpool", "s"), ("channel_shuffle", "g")}


def entry(name: str) -> Entry:
    """The layer of this name; raises InputError naming what there is."""
    if name not in LAYERS:
        near = near_matches(name, LAYERS)
        raise InputError(librarian(f"no layer is called {name!r}", there_is=list(LAYERS), near=near))
    return LAYERS[name]


def build(name: str, sizes: Sizes | None = None, *, dtype: str = "float32") -> Design:
    """A layer of the catalogue with ``sizes`` by name; the others stay symbols, but for the batch N, and for stride,
    dilation and groups of a plain convolution, which are 1 unless given (``symbol("g")`` keeps one open).

    Raises InputError for an unknown layer or size.

    >>> build("conv2d", {"C_in": 24, "C_out": 48, "K": 3}).params
    10368
    """
    made, given = entry(name), dict(sizes or {})
    for size in given:
        if size not in made.symbols:
            near = near_matches(size, made.symbols)
            raise InputError(librarian(f"{name} has no size {size!r}", there_is=made.symbols, near=near))
    usual = {size: number for size, number in _USUAL.items() if (name, size) not in _ALWAYS_OPEN}
    values: dict[str, Dim] = {size: given.get(size, usual.get(size, symbol(size))) for size in made.symbols}
    return made.make(values)(maps(*(values[axis] for axis in made.input), batch=values["N"], dtype=dtype))
