"""Sweeps: many points of a design space in one tidy table.

``grid`` spans the points, ``running`` works them out (here, in processes, on a Dask cluster), ``table`` holds the rows;
``where`` and ``pareto`` choose among them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from costmodel.execution import dtype_word
from costmodel.hardware import HardwareProfile
from costmodel.sweeps.axes import image_sizes, numbers
from costmodel.sweeps.grid import Grid, Point, machines_of, requests_of
from costmodel.sweeps.journal import Journal, journal_path
from costmodel.sweeps.running import Progress, run
from costmodel.sweeps.table import Sweep

__all__ = ["Grid", "Journal", "Point", "Progress", "Sweep", "sweep"]


def sweep(
    models: str | Sequence[str],
    *,
    hw: str | HardwareProfile | Sequence[str | HardwareProfile],
    batch: int | str | Sequence[int] | None = None,
    image_size: int | str | Sequence[int | tuple[int, int]] | None = None,
    seq_len: int | str | Sequence[int] | None = None,
    context: int | str | Sequence[int] | None = None,
    dtype: str | Sequence[str] | None = None,
    weights: str | Sequence[str] | None = None,
    mode: str | Sequence[str] = "eager",
    layout: str | Sequence[str] = "nchw",
    phase: str | Sequence[str] = "inference",
    where: str | None = None,
    pareto: Sequence[str] | None = None,
    jobs: int = 1,
    dask: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **others: Any,
) -> Sweep:
    """Every combination of the values given, as one row each of a tidy table.

    ``models`` are requests; braces in one are alternatives, ``timm:vit_small_patch16_224(depth={8,10,12})``, and
    ``timm:resnet*`` is every model of such a name. ``hw`` may be "all". Numbers may be texts, ``"1,2,4..256"``. Sizes
    and dtypes default to each model's own, the batch to 1. ``others`` are further words of :func:`costmodel.analyze`
    that all points share (``host``, ``power_limit``, ``inputs_on``, ``optimizer``, ``kv_dtype``, ``use_cache``, ...).

    A point that fails is a row with its ``reason``. ``jobs`` processes or the workers of a Dask scheduler (its address)
    give the same rows. ``resume`` names the file that the rows are for: those that are finished are kept beside it, in
    ``FILE.partial``, for the same call to go on with; the caller removes it. ``where`` and ``pareto`` choose rows
    (:meth:`Sweep.where`, :meth:`Sweep.pareto`).

    Raises InputError for words that do not exist and where no point has numbers.

    >>> sweep(["resnet18", "resnet34"], hw=["t4", "a100"], batch="1,2..64").pareto("macs", "latency")   # doctest: +SKIP
    """
    if where is not None:
        from costmodel.sweeps.where import condition

        condition(where)  # told before a long run
    if pareto is not None:
        from costmodel.sweeps.pareto import objectives

        objectives(pareto)
    grid = Grid(
        models=requests_of([models] if isinstance(models, str) else models),
        machines=machines_of([hw] if isinstance(hw, (str, HardwareProfile)) else hw),
        batch=_numbers(batch, "batch"),
        image_size=_images(image_size),
        seq_len=_numbers(seq_len, "seq_len"),
        context=_numbers(context, "context"),
        dtype=(None,) if dtype is None else tuple(map(dtype_word, _words(dtype))),
        weights=(None,) if weights is None else _words(weights),
        mode=_words(mode),
        layout=_words(layout),
        phase=_words(phase),
        others=others,
    )
    if resume is None:
        rows = run(grid, jobs=jobs, dask=dask, progress=progress)
    else:
        with Journal(journal_path(resume), grid.fingerprint()) as journal:
            rows = run(grid, jobs=jobs, dask=dask, journal=journal, progress=progress)
    found = Sweep(rows, grid.axes)
    if where is not None:
        found = found.where(where)
    return found if pareto is None else found.pareto(*pareto)


def _words(value: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else tuple(value)


def _numbers(value: int | str | Sequence[int] | None, what: str) -> tuple[int | None, ...]:
    if value is None:
        return (None,)
    return numbers(value, what) if isinstance(value, str) else (value,) if isinstance(value, int) else tuple(value)


def _images(value: Any) -> tuple[tuple[int, int] | None, ...]:
    if value is None:
        return (None,)
    if isinstance(value, str):
        return image_sizes(value)
    listed = [value] if isinstance(value, int) else value
    return tuple((each, each) if isinstance(each, int) else tuple(each) for each in listed)
