"""torch.profiler around a few steps of a model, read back as any other trace."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from costmodel.measure.events import STEP, Recording, read_trace

__all__ = ["record_steps", "silent_stderr"]


def record_steps(
    call: Callable[[], object],
    *,
    device: str = "cpu",
    steps: int = 5,
    before: Callable[[], object] | None = None,
    keep: Path | None = None,
) -> Recording:
    """Profile ``steps`` calls, after one whose times are thrown away: the profiler's own first step is slow.

    ``before`` runs untimed before each. ``keep`` is a file to which the trace is copied.
    """
    activities = [ProfilerActivity.CPU]
    if device.startswith("cuda"):
        activities.append(ProfilerActivity.CUDA)
    with tempfile.TemporaryDirectory() as folder:
        path = keep or Path(folder) / "trace.json"
        with silent_stderr():
            with profile(activities=activities, record_shapes=True, acc_events=True) as profiler:
                for number in range(steps + 1):
                    if before is not None:
                        before()
                    with record_function(STEP if number else "costmodel::first"):
                        call()
                        if device.startswith("cuda"):
                            torch.cuda.synchronize(device)
            profiler.export_chrome_trace(str(path))
        return read_trace(path)


@contextmanager
def silent_stderr() -> Iterator[None]:
    """The profiler's C++ library writes remarks to file descriptor 2; they are not for the user."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
