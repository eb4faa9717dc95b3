"""Calibration of a CUDA GPU: GEMM and convolution rates by dtype, streaming bandwidth, launch and fixed times.

The time model of GPUs reads peaks, bandwidth and overheads of a profile; this measures those three. Rates are the
fastest that large products and convolutions reach, so they are achieved rates, not the datasheet's.
"""

from __future__ import annotations

import datetime
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from costmodel.hardware import cuda_identity, cuda_memory
from costmodel.measure.calibrate_host import host_figures, host_slowdown
from costmodel.measure.latency import check_device, stopwatch
from costmodel.measure.profile_text import toml_text

__all__ = ["calibrate_cuda", "cuda_profile_text"]

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_GEMM_EDGES = (2048, 4096, 8192)
#: (batch, channels in and out, picture edge, kernel edge)
_CONVOLUTIONS = ((64, 256, 56, 3), (64, 512, 28, 3), (64, 256, 56, 1), (64, 1024, 14, 1))
_STREAM_ELEMENTS = (2**22, 2**25, 2**27)
_REPEATS = 9  # timed calls, of which the median counts

Progress = Callable[[str, int, int], None]


def calibrate_cuda(
    name: str, *, command: str, version: str, device: str = "cuda", progress: Progress | None = None
) -> str:
    """Measure the GPU ``device`` and return its profile as TOML. Raises InputError where there is none."""
    check_device(device)
    tell = progress or (lambda phase, done, count: None)
    with torch.inference_mode(), torch.cuda.device(device):
        rates = {}
        for done, dtype in enumerate(_DTYPES):
            rates[dtype] = _with_tf32(dtype == "tf32", lambda dtype=dtype: _fastest_rate(dtype, device))  # type: ignore[misc]
            tell("products and convolutions", done + 1, len(_DTYPES))
        streams = []
        for done, count in enumerate(_STREAM_ELEMENTS):
            streams.append(_stream_rate(count, device))
            tell("streams", done + 1, len(_STREAM_ELEMENTS))
        fixed_s, sync_s = _fixed_seconds(device), _sync_seconds()
        slowdown = host_slowdown(host_figures(device, progress=progress), device)
    return cuda_profile_text(name, device, rates, max(streams), fixed_s, slowdown, sync_s, command, version)


def _with_tf32(allowed: bool, run: Callable[[], float]) -> float:
    """Run with TF32 in products and convolutions switched as asked, and put back afterwards."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        return run()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def _fastest_rate(dtype: str, device: str) -> float:
    """FLOP/s of the fastest of several large products and convolutions (channels_last)."""
    kind, rates = _DTYPES[dtype], []
    for edge in _GEMM_EDGES:
        x, y = (torch.randn(edge, edge, device=device, dtype=kind) for _ in range(2))
        rates.append(2 * edge**3 / _median(lambda x=x, y=y: torch.mm(x, y), device))  # type: ignore[misc]
    for batch, channels, edge, k in _CONVOLUTIONS:
        image = torch.randn(batch, channels, edge, edge, device=device, dtype=kind)
        image = image.to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, k, k, device=device, dtype=kind).to(memory_format=torch.channels_last)
        seconds = _median(lambda i=image, w=weight, k=k: F.conv2d(i, w, padding=k // 2), device)  # type: ignore[misc]
        rates.append(2 * batch * edge**2 * channels**2 * k**2 / seconds)
    return max(rates)


def _stream_rate(elements: int, device: str) -> float:
    """B/s of an addition of fp32 tensors: two read, one written."""
    x, y, out = (torch.ones(elements, device=device) for _ in range(3))
    return 12 * elements / _median(lambda: torch.add(x, y, out=out), device)


def _fixed_seconds(device: str) -> float:
    """Device time of one small kernel: the slope of a CUDA graph's time over its number of kernels."""
    x = torch.ones(32, device=device)
    seconds = {count: _median(_graph_of(x, count).replay, device) for count in (100, 500)}
    return max(seconds[500] - seconds[100], 0.0) / 400


def _graph_of(x: torch.Tensor, count: int) -> Any:
    graph = torch.cuda.CUDAGraph()
    x.add_(1)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(count):
            x.add_(1)
    return graph


def _sync_seconds() -> float:
    """Host time to wait for a device that is idle."""
    samples = []
    for _ in range(100):
        started = time.perf_counter()
        torch.cuda.synchronize()
        samples.append(time.perf_counter() - started)
    return statistics.median(samples)


def _median(run: Callable[[], Any], device: str) -> float:
    watch = stopwatch(device)
    for _ in range(3):
        run()
    return statistics.median(watch(run) for _ in range(_REPEATS))


def cuda_profile_text(
    name: str,
    device: str,
    rates: dict[str, float],
    stream_bytes_per_s: float,
    fixed_s: float,
    slowdown: float,
    sync_s: float,
    command: str,
    version: str,
) -> str:
    """The profile of a GPU that reached these rates (FLOP/s by dtype, B/s) and times, beside a host of this slowdown
    over the reference core, as TOML.

    Peaks are marked as measured: the clock that the board held is in them.
    """
    facts: Any = torch.cuda.get_device_properties(device)
    day = datetime.date.today().isoformat()
    cuda = torch.version.cuda
    source = f"{command} (costmodel {version}, torch {torch.__version__}, CUDA {cuda}, {platform.system()}, {day})"
    clock_hz = float(getattr(facts, "clock_rate", 0)) * 1e3 or 1.5e9
    tables: dict[str, dict[str, Any]] = {
        "": {"name": name, "title": facts.name, "vendor": "NVIDIA", "kind": "gpu",
             **cuda_identity(facts.name, facts.major, facts.minor), "aliases": []},
        "units": {"count": facts.multi_processor_count, "clock": f"{clock_hz / 1e9:.4g} GHz"},
    }  # fmt: skip
    for dtype, rate in rates.items():
        tables["vector.fp32" if dtype == "fp32" else f"matrix.{dtype}"] = {
            "peak": f"{rate / 1e12:.4g} TFLOP/s", "measured": True,
        }  # fmt: skip
    tables["memory.dram"] = {
        "type": cuda_memory(facts.major, facts.minor), "capacity": f"{facts.total_memory / 2**30:.4g} GiB",
        "bandwidth": f"{stream_bytes_per_s / 1e9:.4g} GB/s", "achievable": 1.0,
    }  # fmt: skip
    if l2 := int(getattr(facts, "L2_cache_size", 0)):
        tables["memory.l2"] = {"capacity": f"{l2 / 2**20:g} MiB"}
    tables["overheads"] = {"kernel_fixed_cycles": round(fixed_s * clock_hz), "sync": f"{sync_s * 1e6:.4g} µs"}
    tables["host"] = {"slowdown": float(f"{slowdown:.3g}")}
    return toml_text(tables, source=source, heading=f"{facts.name}, as measured by `{command}` on {day}.")
