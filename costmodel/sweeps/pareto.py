"""The points of a sweep that no other beats in everything asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from costmodel.errors import InputError
from costmodel.sweeps.columns import Named, named

__all__ = ["objectives", "pareto"]


def objectives(names: Sequence[str]) -> list[Named]:
    """The columns that names mean. Raises InputError for fewer than two, for one twice, and for one of texts."""
    found = [named(name) for name in names]
    keys = [each.column.key for each in found]
    if len(found) < 2 or len(set(keys)) < len(keys):
        raise InputError("a Pareto front is of two quantities or more, such as macs,latency")
    for name, each in zip(names, found, strict=True):
        if each.column.kind not in ("count", "number"):
            raise InputError(f"{name} is no quantity that can be less or more")
    return found


def pareto(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Rows, in their order, that no row of the same machine and batch beats: none is at least as good in every
    objective and better in one. Throughput is better if more, everything else if less.

    The batch is free, and not part of the comparison, where throughput is an objective. Points that failed or do not
    fit beat nobody, and are left out.
    """
    chosen = objectives(names)
    free_batch = any(each.column.key in ("throughput_per_s", "batch") for each in chosen)
    groups: dict[tuple[Any, ...], list[tuple[tuple[float, ...], int]]] = {}
    for number, row in enumerate(rows):
        values = [value for each in chosen if (value := row.get(each.column.key)) is not None]
        if row.get("fits") is False or len(values) < len(chosen):
            continue
        signed = (-v if each.column.more_is_better else v for v, each in zip(values, chosen, strict=True))
        key = (row["hw"], row["phase"], None if free_batch else row["batch"])
        groups.setdefault(key, []).append((tuple(signed), number))
    kept = [number for members in groups.values() for number in _front(members)]
    return [rows[number] for number in sorted(kept)]


def _front(members: Sequence[tuple[tuple[float, ...], int]]) -> list[int]:
    """Numbers of the members that none dominates; in order of the first value, only earlier ones can."""
    front: list[tuple[tuple[float, ...], int]] = []
    for values, number in sorted(members):
        if not any(best != values and all(b <= v for b, v in zip(best, values, strict=True)) for best, _ in front):
            front.append((values, number))
    return [number for _, number in front]
