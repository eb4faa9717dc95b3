"""A grid worked out: here, in processes of this machine, or on a Dask cluster; the rows are the same."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any, TypeAlias

from costmodel.errors import InputError, librarian
from costmodel.sweeps.columns import COLUMNS
from costmodel.sweeps.evaluate import Record, evaluate, evaluated, failed
from costmodel.sweeps.grid import Grid, Task
from costmodel.sweeps.journal import Journal

__all__ = ["Progress", "run"]

#: How long a scheduler may take to answer before it is said not to be there, as Dask spells times.
ANSWERS_WITHIN = "10s"

#: Called with points done and points in all.
Progress: TypeAlias = "Callable[[int, int], None]"

_DIED = "the process died"


def run(
    grid: Grid,
    *,
    jobs: int = 1,
    dask: str | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """One record for each point of the grid, in its order.

    ``jobs`` processes of this machine, or the workers of the Dask scheduler at the address ``dask``, which need the
    same costmodel and find traces in their own cache. Points in the ``journal`` are not worked out again, and new ones
    are added to it as they come. Raises InputError where there is no such scheduler, or no point has numbers.
    """
    count = len(grid.points())
    whole = {column.key for column in COLUMNS}
    earlier = journal.done if journal else {}
    found: dict[int, Record] = {
        n: r for n, r in earlier.items() if n in range(count) and r.keys() >= whole and not _died(r)
    }
    if progress:
        progress(len(found), count)
    for number, record in _records(grid, jobs, dask, found):
        found[number] = record
        if journal is not None:
            journal.add(number, record)
        if progress:
            progress(len(found), count)
    rows = [{column.key: found[number].get(column.key) for column in COLUMNS} for number in range(count)]
    if all(row["reason"] for row in rows):
        if journal is not None:
            journal.remove()
        raise InputError(_nothing(rows))
    return rows


def _records(grid: Grid, jobs: int, dask: str | None, done: Iterable[int]) -> Iterator[tuple[int, Record]]:
    if dask is not None:
        return _on_dask(grid.tasks(jobs=max(jobs, 2), done=done), dask)
    tasks = grid.tasks(jobs=jobs, done=done)
    if jobs <= 1 or len(tasks) <= 1:
        return (each for task in tasks for each in evaluate(task))
    return _in_processes(tasks, jobs)


def _in_processes(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Record]]:
    """In processes that start afresh (torch does not fork well)."""
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[list[tuple[int, Record]]], Task] = {pool.submit(evaluated, task): task for task in tasks}
        try:
            for future in as_completed(waiting):
                error = future.exception()
                yield from _lost(waiting.pop(future), error) if error else future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _on_dask(tasks: Sequence[Task], address: str) -> Iterator[tuple[int, Record]]:
    """On the workers of a Dask cluster; a task whose workers die is a row of reasons, as everywhere."""
    try:
        from distributed import Client
        from distributed import as_completed as as_done
    except ImportError as error:
        raise InputError(librarian("--dask needs Dask", do="pip install 'torch-costmodel[dask]'")) from error
    try:
        client: Any = Client(address, timeout=ANSWERS_WITHIN, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        do = "Give the address that `dask scheduler` prints, such as tcp://10.0.0.5:8786."
        raise InputError(librarian(f"no Dask scheduler answers at {address}", do=do)) from error
    with client:
        waiting = {client.submit(evaluated, task, pure=False): task for task in tasks}
        for future in as_done(list(waiting), loop=client.loop):
            task, died = waiting.pop(future), future.exception()
            yield from _lost(task, died) if died is not None else future.result()
            future.release()


def _lost(task: Task, error: BaseException) -> list[tuple[int, Record]]:
    """Rows of a task whose process did not live to tell; they are tried again when a sweep goes on."""
    lines = str(error).splitlines() or [""]
    reason = f"{_DIED}: {type(error).__name__}: {lines[0]}"[:300]
    return [(number, failed(point, reason)) for number, point in task.points]


def _died(record: Record) -> bool:
    return str(record.get("reason") or "").startswith(_DIED)


def _nothing(rows: Sequence[Record]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    most = sorted(counts.items(), key=lambda pair: -pair[1])[:10]
    return librarian("no point of the sweep has numbers", do="\n".join(f"{n} x {reason}" for reason, n in most))
