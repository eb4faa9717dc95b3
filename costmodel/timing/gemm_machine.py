"""GemmMachine: the figures of a GPU that the time of a matrix product reads, and the rules that fill gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from costmodel.errors import ProfileError, librarian

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile

_Value = TypeVar("_Value")

__all__ = ["ELEMENT_BYTES", "GemmEngine", "GemmMachine", "running_clock"]

ELEMENT_BYTES: Mapping[str, int] = {"fp64": 8, "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}

#: L2 rate by micro-benchmark over the published one [1]: 5405 of 7219 GB/s on the A100.
_L2_MEASURED_SHARE = 0.75
#: L2 rate where no figure is known [B/clock/unit]: 35.5 A100, 37.5 H100 beside 14.8 L40, by micro-benchmark.
_L2_BYTES_PER_CLOCK: Mapping[str, float] = {"HBM": 35.0, "GDDR": 15.0}
#: Boards fed by the slot alone have 75 W; the T4 among them falls towards its base clock in long fp32 GEMMs.
_SLOT_POWER_W = 75.0
#: Clock that such a board settles at in long products over its base clock [1]: T4, NeuSight's linear above 20 ms.
_SLOT_CLOCK = 1.22
#: Clock that a GeForce board holds in long tensor-core work over the boost clock on its box [1]: NVIDIA states the
#: clock that every board reaches, GPU Boost raises it until power or temperature stops it. Whole timm models on
#: RTX 3090 and 4090 give 1.12 and 1.08; data-center boards are sold at the clock they run at.
_GEFORCE_CLOCK = 1.10
#: Share of the FFMA rate that SGEMM reaches before the feed of large tiles (7 % for 128x128) [1]: plain and batched
#: products, by compute capability. Fitted to NeuSight's linear (weight read transposed) and bmm (not transposed) on
#: P100, V100 and A100; above 1 the feed brings it below the peak again.
_SIMT_EFFICIENCY: Mapping[str, tuple[float, float]] = {"6": (0.78, 1.0), "7.0": (1.0, 1.0), "8": (0.93, 1.03)}
_SIMT_EFFICIENCY_ELSEWHERE = (0.95, 0.95)
#: Tiles of batched SGEMM [rows, columns], by compute capability. NeuSight's bmm (row-major) shows one kernel for all
#: shapes on Ampere and on Pascal (cuBLAS, column-major, calls it 128x64); V100 and T4 behave as with 64x64 alone.
_SIMT_BATCHED_TILES: Mapping[str, tuple[tuple[int, int], ...]] = {"6": ((64, 128),), "8": ((128, 128),)}
_SIMT_BATCHED_TILES_ELSEWHERE = ((128, 128), (128, 64), (64, 128), (64, 64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # hashed by identity: caches ask often
class GemmEngine:
    """Where the products of one dtype run.

    ``flop_per_clock`` is the dense peak of one unit [FLOP/clock]; ``matrix`` tells tensor cores from FMA lanes;
    ``efficiency`` is the share of the peak that the inner loop of a large tile reaches [1], ``batched_efficiency`` that
    of a batched product; ``batched_tiles`` are the tiles of batched products where others than those of plain ones.
    """

    flop_per_clock: float
    clock_hz: float
    matrix: bool
    element_bytes: int
    efficiency: float = 1.0
    batched_efficiency: float = 1.0
    batched_tiles: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GemmMachine:
    """One GPU for the time of matrix products; all but ``dram_fraction`` and ``l2_bytes_per_s`` stand on datasheets.

    ``l2_bytes`` is what one unit sees: the L2 of A100 and H100 is two halves that hold copies of each other's
    lines, so half their capacity. ``multicast`` is the number of units that share one read of an operand (thread
    block clusters: 2 on Hopper and data-center Blackwell). ``sustained_share`` is the clock under long load over
    ``clock_hz``. ``row_reach_bytes`` is the row pitch at which address translation has taken half of its toll.
    """

    unit_count: int
    clock_hz: float
    dram_bytes_per_s: float  # pin rate
    dram_fraction: float = 0.85
    l2_bytes: float
    l2_bytes_per_s: float  # reads, by micro-benchmark
    engines: Mapping[str, GemmEngine]
    multicast: int = 1
    sustained_share: float = 1.0
    row_reach_bytes: float | None = None

    def engine(self, dtype: str) -> GemmEngine:
        """The engine of a dtype; raises :class:`ProfileError` naming those there are."""
        found = self.engines.get(dtype)
        if found is None:
            raise ProfileError(
                librarian(
                    f"no engine multiplies {dtype} matrices on this machine",
                    there_is=sorted(self.engines),
                    do="Choose another dtype, or add its peak to the hardware profile",
                )
            )
        return found

    def dram_rate(self, share: float) -> float:
        """B/s at this share of the rate of long element-wise kernels; never above the pin rate."""
        return self.dram_bytes_per_s * min(1.0, self.dram_fraction * share)

    @classmethod
    def from_profile(cls, profile: HardwareProfile) -> GemmMachine:
        """The machine of a hardware profile, with the rules of this module where the profile is silent."""
        capability = profile.compute_capability or ""
        l2 = profile.find_memory_level("l2")
        split_l2 = profile.architecture.rsplit(" ", 1)[-1] in ("GA100", "GH100")
        capacity = (l2.capacity_bytes if l2 and l2.capacity_bytes else 0.0) / (2 if split_l2 else 1)
        return cls(
            unit_count=profile.unit_count,
            clock_hz=profile.clock_hz,
            dram_bytes_per_s=profile.dram_bytes_per_s,
            dram_fraction=profile.achievable_dram_fraction,
            l2_bytes=capacity,
            l2_bytes_per_s=_l2_rate(profile),
            engines=_engines(profile),
            multicast=2 if capability in ("9.0", "10.0", "10.3") else 1,
            sustained_share=_sustained_share(profile),
            row_reach_bytes=76e3 if capability.startswith("6") else None,
        )


def running_clock(profile: HardwareProfile) -> float:
    """Clock of long tensor-core work over the one that the peaks are stated for [1]."""
    return _GEFORCE_CLOCK if "GeForce" in profile.title else 1.0


def _l2_rate(profile: HardwareProfile) -> float:
    level = profile.find_memory_level("l2")
    if level is not None and level.measured_bandwidth_bytes_per_s:
        return level.measured_bandwidth_bytes_per_s
    if level is not None and level.bandwidth_bytes_per_s:
        return _L2_MEASURED_SHARE * level.bandwidth_bytes_per_s
    kind = "HBM" if profile.dram.kind.startswith("HBM") else "GDDR"
    return _L2_BYTES_PER_CLOCK[kind] * profile.unit_count * profile.clock_hz


def _sustained_share(profile: HardwareProfile) -> float:
    if profile.power_w is None or profile.power_w > _SLOT_POWER_W or profile.base_clock_hz is None:
        return 1.0
    return min(1.0, _SLOT_CLOCK * profile.base_clock_hz / profile.clock_hz)


def _engines(profile: HardwareProfile) -> dict[str, GemmEngine]:
    """For each dtype its matrix engine, or else its FMA lanes."""
    found = {}
    simt = _of_capability(_SIMT_EFFICIENCY, profile, _SIMT_EFFICIENCY_ELSEWHERE)
    for dtype, size in ELEMENT_BYTES.items():
        matrix = profile.find_peak("matrix", dtype)
        peak = matrix or profile.find_peak("vector", dtype)
        if peak is None:
            continue
        clock = peak.clock_hz or profile.clock_hz
        per_clock = peak.flop_per_clock or peak.flop_per_s / (profile.unit_count * clock)
        if matrix is not None:
            clock *= running_clock(profile)
        found[dtype] = GemmEngine(
            flop_per_clock=per_clock,
            clock_hz=clock,
            matrix=matrix is not None,
            element_bytes=size,
            efficiency=1.0 if matrix else simt[0],
            batched_efficiency=1.0 if matrix else simt[1],
            batched_tiles=() if matrix else _of_capability(_SIMT_BATCHED_TILES, profile, _SIMT_BATCHED_TILES_ELSEWHERE),
        )
    return found


def _of_capability(table: Mapping[str, _Value], profile: HardwareProfile, elsewhere: _Value) -> _Value:
    capability = profile.compute_capability or ""
    return table.get(capability, table.get(capability.split(".")[0], elsewhere))
