"""HardwareProfile: peaks, memory levels, units, clocks and fixed times of one machine.

All rates are dense, in FLOP/s with 2 FLOP per multiply-accumulate, at the clock for which the vendor
states them; bandwidths are the memory's pin rate. What fraction of them a kernel reaches is the
business of the time model, but for the two kinds of figures that belong to a machine:
:data:`ACHIEVABLE_DRAM_FRACTION` and :class:`Overheads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from costmodel.devices import CpuGeneration, Family, Generation, GpuGeneration
from costmodel.errors import InputError, ProfileError, librarian
from costmodel.hardware.calibration import Calibration

__all__ = [
    "ACHIEVABLE_DRAM_FRACTION",
    "BOARDS",
    "DTYPES",
    "ENGINES",
    "KINDS",
    "OVERHEADS",
    "CoreGroup",
    "HardwareProfile",
    "Limits",
    "MemoryLevel",
    "Overheads",
    "Peak",
    "default_accumulate",
]

ENGINES = ("matrix", "vector")
DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp64", "fp8", "int8")
KINDS = ("gpu", "cpu", "accelerator")
#: Whom a board is sold to, which decides what its clock means: NVIDIA states for a GeForce the clock that every board
#: reaches, for others the clock that they run at; CPUs of laptops are held to their base power for long loads.
BOARDS = ("geforce", "workstation", "data_center", "embedded", "laptop")


def default_accumulate(engine: str, dtype: str) -> str:
    """The type in which PyTorch accumulates by default: fp32 for the narrow floats of a matrix engine.

    >>> default_accumulate("matrix", "fp16"), default_accumulate("vector", "fp16")
    ('fp32', 'fp16')
    """
    if dtype == "int8":
        return "int32"
    return "fp32" if engine == "matrix" and dtype in ("fp16", "bf16", "tf32", "fp8") else dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The dense peak of one engine for one dtype.

    Where the peak is a sum over different cores (performance and efficiency cores), ``units`` is
    their number, ``clock_hz`` that of the first kind and ``flop_per_clock`` the mean at that clock.
    The three are None where the vendor does not publish what the peak is made of. ``measured``: the rate that this
    machine was seen to reach, at the clock that it held, and no datasheet's.
    """

    engine: str
    dtype: str
    accumulate: str
    flop_per_s: float
    units: int | None
    clock_hz: float | None
    flop_per_clock: float | None  # of one unit
    source: str
    verified: bool
    measured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreGroup:
    """Cores of one kind: performance cores, or efficiency cores. ``simd_bits`` is the width of their vectors."""

    count: int
    clock_hz: float
    flop_per_clock: float  # fp32, of one core
    simd_bits: int

    @property
    def flop_per_s(self) -> float:
        """fp32 FLOP/s of all cores of the group."""
        return self.count * self.clock_hz * self.flop_per_clock


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLevel:
    """DRAM or a cache; capacity and bandwidth are of one unit where ``per_unit``, else of the device."""

    name: str  # dram, l3, l2, l1
    capacity_bytes: float | None
    bandwidth_bytes_per_s: float | None  # as the vendor publishes it
    kind: str  # memory type: HBM2e, GDDR6, DDR4, ...; "cache"
    per_unit: bool
    source: str
    verified: bool
    inline_ecc: bool = False  # error correction takes a share of the memory itself, and is on by default
    measured_bandwidth_bytes_per_s: float | None = None  # by somebody's micro-benchmark; its source is in the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """Times that do not depend on the size of a kernel."""

    kernel_fixed_cycles: float  # start, pipeline fill and drain of a kernel, in clock cycles
    dispatch_s: float  # host time for one operator in eager mode
    sync_s: float  # host time to wait for the device once


#: By kind of machine; a profile's [overheads] table wins.
OVERHEADS: Mapping[str, Overheads] = {
    # Graph-replayed bf16 GEMMs have a floor of 3.3 µs on an A100 (1.41 GHz) and 1.9 µs on an L40S (2.52 GHz):
    # about 4500 clock cycles on both. Fits to data of both transfer between the two only in this unit.
    # Dispatch: about 5 µs of host time per PyTorch operator, a usual figure that the measured models do not contradict.
    # Sync: general knowledge, unverified; it matters for runs of few kernels alone.
    "gpu": Overheads(kernel_fixed_cycles=4500, dispatch_s=5e-6, sync_s=10e-6),
    "accelerator": Overheads(kernel_fixed_cycles=4500, dispatch_s=5e-6, sync_s=10e-6),
    # No kernel is launched, but inside a model an operator finds its code and tables pushed out of the caches.
    # Round-robin micro-benchmarks on a two-core Zen 3 guest, µs: conv 97, batch norm 73, relu 18 (mean 63);
    # linear 63, layer norm 54, gelu 94, add 19 (mean 58). In a hot loop they are four times smaller.
    "cpu": Overheads(kernel_fixed_cycles=0, dispatch_s=60e-6, sync_s=0.0),
}

#: Share of the pin rate that large streaming kernels reach, by memory type; +- 0.07 where nothing was measured.
#: A profile's ``achievable`` wins (T4, P100, V100, the A100 of 40 GB on PCIe and the L40S have one).
ACHIEVABLE_DRAM_FRACTION: Mapping[str, float] = {
    # fp32 element-wise operations over more than 200 MB (public NeuSight measurements): A100 40 GB 0.82, V100 0.88.
    "HBM2": 0.85,
    # Whole models (timm's published timings), reading two bytes for each written: RTX 3090 0.957, RTX 4090 0.945.
    "GDDR6X": 0.945,
    # Skinny bf16 GEMMs on an L40S, 0.83. The T4 (0.76) has a value of its own.
    "GDDR6": 0.83,
    # 99.9 GB/s measured by kerncraft on a Xeon Gold 6148 with six channels of DDR4-2666 (128 GB/s); DDR5 by analogy.
    "DDR4": 0.78,
    "DDR5": 0.78,
}
_FRACTION_ELSEWHERE = 0.85  # mean of the types measured on GPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one unit (SM, CU) can hold at a time; None where unknown or meaningless."""

    warp_size: int | None = None  # threads
    max_warps: int | None = None
    max_blocks: int | None = None
    registers: int | None = None  # of 4 bytes
    shared_memory_bytes: float | None = None
    shared_memory_per_block_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareProfile:
    """One machine, read from one TOML file by :func:`costmodel.hardware.load`."""

    name: str
    title: str
    vendor: str
    kind: str  # gpu, cpu, accelerator
    architecture: str
    compute_capability: str | None
    aliases: tuple[str, ...]
    unit_count: int  # SMs, CUs, cores
    clock_hz: float  # boost
    base_clock_hz: float | None  # guaranteed under any load; None where the vendor does not say
    matrix_clock_hz: float  # of the matrix engines; the boost clock unless the vendor says otherwise
    peaks: Mapping[tuple[str, str, str], Peak] = field(hash=False)
    memory: tuple[MemoryLevel, ...]
    overheads: Overheads
    limits: Limits
    power_w: float | None
    notes: tuple[str, ...]
    path: Path
    achievable_dram_fraction: float  # of the pin rate, by large streaming kernels
    generation: Generation = field(hash=False)
    board: str = ""  # of BOARDS; empty where nothing depends on it
    cores: tuple[CoreGroup, ...] = ()  # of a CPU, by kind, the fastest first
    usual_host: str = ""  # name of the host that it is usually met with; empty where the file names none
    met_with: tuple[str, ...] = ()  # names of the quickest and slowest hosts that it is met with
    measured_slowdown: float | None = None  # of its own host over the reference core, by ``costmodel calibrate`` [1]
    calibration: Calibration | None = field(default=None, hash=False)  # measured by ``costmodel calibrate``
    power_cap_w: float | None = None  # a limit that was asked for, below the board's own

    @property
    def family(self) -> Family:
        """The software stack that drives this machine."""
        return self.generation.family

    @property
    def is_cpu(self) -> bool:
        """Whether operators run on the host's own cores."""
        return self.kind == "cpu"

    @property
    def is_gpu(self) -> bool:
        """Whether this is a GPU."""
        return self.kind == "gpu"

    @property
    def power_limit_w(self) -> float | None:
        """What the board may draw [W]: the limit that was asked for, else its own; None where nobody knows."""
        return self.power_w if self.power_cap_w is None else self.power_cap_w

    def limited(self, power_w: float | None) -> HardwareProfile:
        """The same machine at a power limit [W]; None is its own. Raises InputError for one above its own."""
        if power_w == self.power_cap_w:
            return self
        if power_w is not None and self.power_w is not None and power_w > self.power_w:
            raise InputError(
                f"a power limit of {power_w:g} W is asked for, and {self.name} draws {self.power_w:g} W at most\n"
                "  choose a lower limit, or change [power] tdp in a copy of its profile"
            )
        return replace(self, power_cap_w=power_w)

    @property
    def clock_follows_power(self) -> bool:
        """Whether a package of CPU cores is held to its base power for long, so that its clock goes with the load."""
        return self.is_cpu and self.board == "laptop"

    @property
    def states_least_clock(self) -> bool:
        """Whether the stated clock is one that every board reaches, and most exceed under load."""
        return self.board == "geforce"

    @property
    def gpu(self) -> GpuGeneration:
        """The generation of a GPU; raises :class:`ProfileError` for other machines."""
        if not isinstance(self.generation, GpuGeneration):
            raise ProfileError(f"{self.name!r} is no GPU: its generation is {self.generation.title}")
        return self.generation

    @property
    def cpu(self) -> CpuGeneration:
        """The generation of a CPU; raises :class:`ProfileError` for other machines."""
        if not isinstance(self.generation, CpuGeneration):
            raise ProfileError(f"{self.name!r} is no CPU: its generation is {self.generation.title}")
        return self.generation

    @property
    def has_tf32(self) -> bool:
        """Whether a matrix engine takes fp32 operands as TF32."""
        return self.find_peak("matrix", "tf32") is not None

    @property
    def kernel_fixed_s(self) -> float:
        """Fixed time of one kernel on the device, in seconds."""
        return self.overheads.kernel_fixed_cycles / self.clock_hz

    def find_peak(self, engine: str, dtype: str, accumulate: str | None = None) -> Peak | None:
        """The peak, or None where the machine has none; ``accumulate`` defaults to what PyTorch uses."""
        return self.peaks.get((engine, dtype, accumulate or default_accumulate(engine, dtype)))

    def peak(self, engine: str, dtype: str, accumulate: str | None = None) -> Peak:
        """The peak of an engine; raises :class:`ProfileError` naming what there is."""
        found = self.find_peak(engine, dtype, accumulate)
        if found is None:
            asked = f"{engine} {dtype} with {accumulate or default_accumulate(engine, dtype)} accumulate"
            there_is = [f"{e} {d} ({a})" for e, d, a in self.peaks]
            raise ProfileError(
                librarian(
                    f"the hardware profile {self.name!r} has no peak for {asked}",
                    there_is=there_is,
                    do=f"Choose another dtype, or add a table [{engine}.{dtype}] to {self.path}",
                )
            )
        return found

    def find_memory_level(self, name: str) -> MemoryLevel | None:
        """The memory level of this name, or None."""
        return next((level for level in self.memory if level.name == name), None)

    def memory_level(self, name: str) -> MemoryLevel:
        """The memory level of this name; raises :class:`ProfileError` naming what there is."""
        found = self.find_memory_level(name)
        if found is None:
            raise ProfileError(
                librarian(
                    f"the hardware profile {self.name!r} has no memory level {name!r}",
                    there_is=[level.name for level in self.memory],
                    do=f"Add a table [memory.{name}] to {self.path}",
                )
            )
        return found

    @property
    def dram(self) -> MemoryLevel:
        """Device memory; every profile has it, with a bandwidth."""
        return self.memory_level("dram")

    @property
    def dram_bytes_per_s(self) -> float:
        """Pin bandwidth of device memory, in B/s."""
        bandwidth = self.dram.bandwidth_bytes_per_s
        assert bandwidth is not None, "reading a profile demands it"  # noqa: S101 - for the type checker
        return bandwidth

    def ridge_point(self, engine: str, dtype: str, accumulate: str | None = None) -> float:
        """Arithmetic intensity, in FLOP/B, above which the peak and not the pin bandwidth is the roof."""
        return self.peak(engine, dtype, accumulate).flop_per_s / self.dram_bytes_per_s


def default_dram_fraction(memory_type: str) -> float:
    """The achievable share of the pin rate for a type of memory.

    >>> default_dram_fraction("GDDR6X"), default_dram_fraction("HBM9")
    (0.945, 0.85)
    """
    return ACHIEVABLE_DRAM_FRACTION.get(memory_type, _FRACTION_ELSEWHERE)
