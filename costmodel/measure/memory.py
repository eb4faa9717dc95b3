"""The most memory that a call takes, from torch's own allocator: what lies there before it, and what it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

from costmodel.measure.profiling import silent_stderr

__all__ = ["peak_memory_bytes"]


def peak_memory_bytes(run: Callable[[], object], held: Iterable[torch.Tensor], device: str = "cpu") -> int:
    """B at most while ``run`` runs once more: of the caching allocator on a GPU (``max_memory_allocated``), on the CPU
    the bytes of ``held``, each tensor once, and the largest sum of the allocations and releases that the profiler's
    timeline shows."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    storages = [tensor.untyped_storage() for tensor in held]
    before = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    with silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return before + most
