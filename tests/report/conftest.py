"""Analyses made by hand, with the reader's interface of an analysis and every number written or counted here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace
from typing import Any

import pytest

from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import load
from costmodel.host import HostProfile, HostSpan
from costmodel.kernels import KernelPlan
from costmodel.memory import Footprint
from costmodel.remedies import Remedies
from costmodel.rows import QUANTITIES, Quantities
from costmodel.tensor import TensorSpec

SUMMED = tuple(quantity.key for quantity in QUANTITIES if quantity.is_whole)


@dataclass(frozen=True, kw_only=True)
class FakeRow(Quantities):
    name: str = "conv1.conv2d"
    op: str = "aten.conv2d"
    module: str = "conv1"
    count: int = 1
    kernels: int = 1
    share: float = 0.0
    bound: str = "compute"
    algorithm: str = ""
    inputs: str = ""
    outputs: str = ""
    phase: str = "forward"
    forward: str = ""
    intensity: float | None = None


@dataclass(frozen=True, kw_only=True)
class FakeAnalysis:
    operators: tuple[FakeRow, ...]
    name: str = "resnet50"
    hw: str = "t4"
    batch: int = 8
    closed_forms: Any = field(default_factory=dict)
    symbol_notes: tuple[str, ...] = ()
    assumed: tuple[Any, ...] = ()
    executed: str = ""
    findings: tuple[Any, ...] = ()
    uncosted: tuple[Any, ...] = ()
    conventions: tuple[str, ...] = ("2 FLOPs per MAC", "padding positions are counted")
    dtype_notes: tuple[str, ...] = ()
    timeline: tuple[Any, ...] = ()
    totals_changed: Any = None

    @property
    def model(self) -> Any:
        inputs = (TensorSpec((self.batch, 3, 224, 224), name="x"),)
        return SimpleNamespace(name=self.name, source="torchvision", inputs=inputs, notes=())

    @property
    def hardware(self) -> Any:
        return SimpleNamespace(name=self.hw, title=f"NVIDIA {self.hw.upper()}", power_limit_w=70.0)

    @property
    def execution(self) -> Any:
        return Execution.of(batch=self.batch, sizes={"height": 224})

    @property
    def host_span(self) -> Any:
        hosts = (HostProfile(name=name) for name in ("middling", "quick", "slow"))
        return HostSpan(*hosts)

    @property
    def totals(self) -> Any:
        seconds = math.fsum(row.latency_s for row in self.operators)
        sums = {key: sum(getattr(row, key) for row in self.operators) for key in SUMMED}
        values = sums | {
            "param_bytes": 4 * sums["params"],
            "peak_memory_bytes": 4 * sums["params"] + 7,
            "reserved_memory_bytes": self.memory.reserved_bytes,
            "process_memory_bytes": self.memory.process_bytes,
            "fits": self.memory.fits,
            "latency_s": seconds,
            "latency_low_s": 0.9 * seconds,
            "latency_high_s": 1.2 * seconds,
            "energy_j": 50.0 * seconds,
            "energy_low_j": 40.0 * seconds,
            "energy_high_j": 60.0 * seconds,
            "power_w": 50.0 if seconds else None,
            "power_low_w": 45.0,
            "power_high_w": 55.0,
        }
        return SimpleNamespace(**(values | (self.totals_changed or {})))

    @property
    def memory(self) -> Any:
        """Weights and nothing else."""
        elements = sum(row.params for row in self.operators)
        graph = OpGraph({}, [], [], [], [], [], [], [], parameters={"fc.weight": elements} if elements else {})
        return Footprint(
            parameter_bytes=4 * elements, buffer_bytes=0, input_bytes=7, constant_bytes=0, state_bytes=0,
            activation_bytes=0, peak_launch=None, plan=KernelPlan((), ()), graph=graph, hardware=load("t4"),
        )  # fmt: skip

    remedies = Remedies((), None)

    def max_batch(self) -> int:
        return 1

    @property
    def bounds(self) -> dict[str, float]:
        shares: dict[str, float] = {}
        for row in self.operators:
            shares[row.bound] = shares.get(row.bound, 0.0) + row.share
        return shares

    @property
    def coverage(self) -> Any:
        free = sum(row.bound == "free" for row in self.operators)
        unknown = sum(entry.count for entry in self.uncosted)
        ops = len(self.operators)
        return SimpleNamespace(ops=ops, costed=ops - free - unknown, free=free, uncosted=self.uncosted)

    @property
    def feature_maps(self) -> list[tuple[str, None]]:
        return [("", None) for _ in self.operators]

    def rows(self, by: str = "op") -> list[FakeRow]:
        if by == "op":
            return list(self.operators)
        groups: dict[str, list[FakeRow]] = {}
        keys = {"module": lambda row: row.module.split(".")[0], "phase": lambda row: row.phase}
        for row in self.operators:
            groups.setdefault(keys.get(by, lambda row: row.op)(row), []).append(row)
        return [_merged(name, rows) for name, rows in groups.items()]


def _merged(name: str, rows: list[FakeRow]) -> FakeRow:
    sums = {key: sum(getattr(row, key) for row in rows) for key in (*SUMMED, "count", "latency_s", "energy_j", "share")}
    moved = sums["bytes_read"] + sums["bytes_written"]
    return replace(rows[0], name=name, **sums, intensity=sums["flops"] / moved if moved else None)


def row(module: str, op: str, *, macs: int = 0, vector: int = 0, params: int = 0, read: int, written: int,
        peak: float = 8.1e12, bandwidth: float = 320e9, **options: Any) -> FakeRow:  # fmt: skip
    """An operator at the roofline of a T4: 8.1 TFLOP/s, 320 GB/s, at least 5 µs."""
    times = {"compute": (2 * macs + vector) / peak, "memory": (read + written) / bandwidth, "launch": 5e-6}
    bound = max(times, key=lambda b: times[b])
    return FakeRow(
        name=f"{module}.{op}", op=f"aten.{op}", module=module, flops=2 * macs + vector, matrix_flops=2 * macs,
        vector_flops=vector, macs=macs, params=params, bytes_read=read, bytes_written=written, bound=bound,
        activations=written // 4 if macs else 0, latency_s=times[bound], energy_j=50.0 * times[bound],
        intensity=(2 * macs + vector) / (read + written), **options,
    )  # fmt: skip


def with_shares(rows: list[FakeRow]) -> tuple[FakeRow, ...]:
    """The rows with their shares of the time, which a sum over the latencies gives."""
    seconds = math.fsum(r.latency_s for r in rows)
    return tuple(replace(r, share=r.latency_s / seconds if seconds else 0.0) for r in rows)


def conv(
    module: str, batch: int, c_in: int, c_out: int, kernel: int, size: int, stride: int = 1, **machine: float
) -> FakeRow:  # fmt: skip
    out = size // stride
    macs, params = batch * c_out * out * out * c_in * kernel * kernel, c_out * c_in * kernel * kernel
    return row(
        module, "conv2d", macs=macs, params=params, read=4 * (batch * c_in * size * size + params),
        written=4 * batch * c_out * out * out, algorithm="gemm" if kernel == 1 else "implicit_gemm",
        inputs=f"{batch}x{c_in}x{size}x{size}", outputs=f"{batch}x{c_out}x{out}x{out}", **machine,
    )  # fmt: skip


def elementwise(module: str, op: str, elements: int, operands: int = 1, params: int = 0, **machine: float) -> FakeRow:
    read = 4 * operands * elements
    return row(module, op, vector=elements, params=params, read=read, written=4 * elements, **machine)


def resnet50(batch: int = 8, **machine: float) -> list[FakeRow]:
    """ResNet-50 v1.5 by the table of its paper: stem, then 3, 4, 6, 3 bottlenecks."""
    rows = [conv("conv1", batch, 3, 64, 7, 224, 2, **machine)]
    rows += [elementwise("bn1", "batch_norm", batch * 64 * 112**2, params=128, **machine)]
    rows += [elementwise("relu", "relu", batch * 64 * 112**2, **machine)]
    rows += [elementwise("maxpool", "max_pool2d", batch * 64 * 56**2, 4, **machine)]
    c_in, size = 64, 56
    for stage, (blocks, mid) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), start=1):
        for block in range(blocks):
            path, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            small, c_out = size // stride, 4 * mid
            shapes = [(c_in, mid, 1, size, 1), (mid, mid, 3, size, stride), (mid, c_out, 1, small, 1)]
            for number, (ci, co, kernel, side, step) in enumerate(shapes, start=1):
                elements = batch * co * (side // step) ** 2
                rows += [conv(f"{path}.conv{number}", batch, ci, co, kernel, side, step, **machine)]
                rows += [elementwise(f"{path}.bn{number}", "batch_norm", elements, params=2 * co, **machine)]
                if number < 3:
                    rows += [elementwise(f"{path}.relu", "relu", elements, **machine)]
            if block == 0:
                rows += [conv(f"{path}.downsample.0", batch, c_in, c_out, 1, size, stride, **machine)]
                elements = batch * c_out * small**2
                rows += [elementwise(f"{path}.downsample.1", "batch_norm", elements, params=2 * c_out, **machine)]
            rows += [elementwise(path, "add", batch * c_out * small**2, 2, **machine)]
            rows += [elementwise(f"{path}.relu", "relu", batch * c_out * small**2, **machine)]
            c_in, size = c_out, small
    rows += [elementwise("avgpool", "adaptive_avg_pool2d", batch * 2048, 49, **machine)]
    rows += [replace(FakeRow(), name="flatten", op="aten.flatten", module="", bound="free", kernels=0)]
    rows += [row("fc", "linear", macs=batch * 2048 * 1000, params=2049000, read=4 * (batch * 2048 + 2049000),
                 written=4 * batch * 1000, algorithm="gemm", **machine)]  # fmt: skip
    return rows


def finding(seconds: float, message: str) -> Any:
    return SimpleNamespace(rule="padding", seconds_at_stake=seconds, message=message, nodes=("layer4.1.conv2",))


def unknown(op: str, count: int, bytes_share: float, time_share: float) -> Any:
    return SimpleNamespace(op=op, count=count, bytes=4096, bytes_share=bytes_share, time_share=time_share)


def realistic(**changes: Any) -> FakeAnalysis:
    """ResNet-50 at batch 8 with everything that a page can hold."""
    values: dict[str, Any] = {
        "operators": with_shares(resnet50()),
        "closed_forms": {
            "flops": "batch*(51380224*ceiling(height/32)*ceiling(width/32) "
            "+ 7225344*ceiling(height/16)*ceiling(width/16) + 3010560*ceiling(height/8)*ceiling(width/8) "
            "+ 1204224*ceiling(height/4)*ceiling(width/4) + 4096000)"
        },
        "symbol_notes": ("seq_len stays 196: the position grid is fixed",),
        "findings": (
            finding(11e-6, "layer4.1.conv2, layer4.2.conv2: 18 % of 0.46 GFLOP multiply padding (3x3 on 7x7 maps)"),
            finding(1.2e-3, "53 batch_norm re-read what the convolution before them wrote; folding them saves it"),
        ),
        "uncosted": (unknown("torchvision.nms", 2, 0.031, 0.04),),
    }  # fmt: skip
    return FakeAnalysis(**(values | changes))


@pytest.fixture(scope="session")
def fake() -> Any:
    """The makers above, by name: fixtures of one session, so that hypothesis may use them."""
    names = (FakeRow, FakeAnalysis, conv, elementwise, resnet50, finding, unknown, realistic, with_shares)
    return SimpleNamespace(**{thing.__name__: thing for thing in names}, row_fields=[f.name for f in fields(FakeRow)])
