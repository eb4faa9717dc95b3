"""How the time model runs a kernel: what a profiler's name of it would say, and what each level of memory serves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from costmodel.devices import ByFamily
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Attention, Product, product_of
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.gpu import GpuModel, gpu_model, product_time, row_reuse
from costmodel.timing.timeline import Slot

__all__ = ["Geometry", "Traffic", "kernel_geometry", "traffic_of"]


class Geometry(NamedTuple):
    """What the time model chose for a kernel.

    ``algorithm``   how it works: that of the plan, or what a library chooses instead (winograd, fft)
    ``tile``        the part of the result that one block makes, (rows, columns) in elements; None for what has none
    ``waves``       tiles of the busiest unit; None for what has none
    ``split_k``     parts into which the reduction is cut
    ``loaded_bytes``  B that all tiles together load and store through the last cache that units share: each operand as
                    often as tiles need it; None where the model does not say
    """

    algorithm: str
    tile: tuple[int, int] | None = None
    waves: int | None = None
    split_k: int = 1
    loaded_bytes: float | None = None


class Traffic(NamedTuple):
    """Who serves the traffic of one launch, in B: ``dram`` the device's memory, ``cache`` hits on what was just
    written; None where the model of the machine does not follow its caches launch by launch."""

    dram_bytes: float | None
    cache_bytes: float | None


def kernel_geometry(kernel: Kernel, hardware: HardwareProfile, constants: Constants = CONSTANTS) -> Geometry:
    """The algorithm, tile and waves by which the time of ``kernel`` was worked out."""
    return _GEOMETRY.of(hardware)(kernel, hardware, constants)


def traffic_of(kernel: Kernel, slot: Slot, hardware: HardwareProfile, constants: Constants = CONSTANTS) -> Traffic:
    """Bytes of a launch by the level that serves them. They add up to the traffic of its kernel."""
    return _TRAFFIC.of(hardware)(kernel, slot, constants)


def _on_gpu(kernel: Kernel, hardware: HardwareProfile, constants: Constants) -> Geometry:
    model = gpu_model(hardware, constants)
    if (window := model.window_on_lanes(kernel)) is not None:
        found = model.convolved(window)
        return Geometry(found.algorithm, found.tile)
    product = product_of(kernel.shape)
    if product is None or kernel.algorithm == "direct_depthwise":
        return Geometry(kernel.algorithm, loaded_bytes=None if isinstance(kernel.shape, Attention) else kernel.bytes)
    return _of_product(kernel, product, model)


def _of_product(kernel: Kernel, product: Product, model: GpuModel) -> Geometry:
    found = product_time(kernel, model)
    if found is None or found.tile == (0, 0):  # a matrix times a vector is read once
        return Geometry(kernel.algorithm, loaded_bytes=kernel.bytes)
    rows, columns = found.tile
    engine = model.products.engine(kernel.algorithm if kernel.algorithm in model.products.engines else kernel.dtype)
    size, weight_size = engine.operand_bytes
    tiles = product.batch * math.ceil(product.m / rows) * math.ceil(product.n / columns)
    operands = tiles * product.k * (rows * size / row_reuse(kernel, model) + columns * weight_size)
    result = product.batch * product.m * product.n * max(size, 2)
    return Geometry(kernel.algorithm, found.tile, found.waves, found.split_k, operands + result)


def _as_planned(kernel: Kernel, hardware: HardwareProfile, constants: Constants) -> Geometry:
    """Machines whose models do not look into a kernel."""
    return Geometry(kernel.algorithm)


def _behind_l2(kernel: Kernel, slot: Slot, constants: Constants) -> Traffic:
    """What the L2 serves is faster by a constant, which is how the share of memory time tells it."""
    gain = 1 - 1 / constants.caches.speedup
    hits = kernel.bytes * min(1.0, (1 - slot.memory_share) / gain) if gain else 0.0
    return Traffic(kernel.bytes - hits, hits)


def _not_followed(kernel: Kernel, slot: Slot, constants: Constants) -> Traffic:
    return Traffic(None, None)


_GEOMETRY = ByFamily[Callable[[Kernel, HardwareProfile, Constants], Geometry]](
    cuda=_on_gpu, rocm=_on_gpu, cpu=_as_planned, accelerator=_as_planned
)
_TRAFFIC = ByFamily[Callable[[Kernel, Slot, Constants], Traffic]](
    cuda=_behind_l2, rocm=_behind_l2, cpu=_not_followed, accelerator=_not_followed
)
