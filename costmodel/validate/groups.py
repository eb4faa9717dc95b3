"""Judged rows by group, family and class of kernels, with their scores beside the baselines'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.validate.judged import Judged
from costmodel.validate.memory import MemoryGroup
from costmodel.validate.rows import ModelRow, OperatorRow
from costmodel.validate.statistics import Score, fitted_scale, score

__all__ = [
    "ClassError",
    "Group",
    "as_one",
    "by_class",
    "by_family",
    "by_owner",
    "by_regime",
    "fail_budget",
    "grouped",
    "pooled",
]

#: Fewest rows of a setting whose FLOPs may be scaled to them: a scale fitted to one or two rows says nothing of FLOPs.
LEAST_FITTED = 3

_MODEL_KEYS = ("device", "dtype", "layout", "mode", "phase")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that belong together: what they share, their score, and the baselines' scores on the same rows.

    ``interval_coverage`` is the share of rows whose interval holds the measured time, ``interval_width`` the mean of
    (high - low) / predicted, ``uncosted_share`` the mean share of the predicted time without a formula.
    """

    keys: Mapping[str, str | bool | None]
    score: Score
    interval_coverage: float
    interval_width: float
    uncosted_share: float
    baselines: Mapping[str, Score]
    owner: str = ""
    """The class of kernels that takes most of the rows' predicted time: the likely owner of their error."""

    @property
    def at_floor(self) -> bool:
        """Whether host time hides the kernels of these rows."""
        return bool(self.keys.get("at_floor"))


def grouped(judged: Iterable[Judged]) -> list[Group]:
    """A group for each (device, dtype, layout, mode, phase); for operators also op, algorithm and timing."""
    found = list(judged)
    scales = _scales(found)
    return [_group(_keys(rows[0]), rows, scales) for _, rows in _sorted(found, lambda item: item.row.group)]


def as_one(judged: Sequence[Judged]) -> Group:
    """All rows as one group; FLOPs keep the scales of the rows' own settings."""
    return _group({}, judged, _scales(judged))


def pooled(judged: Sequence[Judged]) -> list[Group]:
    """Coarser groups: whole models by mode and phase over all devices; operators by device and op over algorithms, and
    by op over all devices, rows at the floor left out."""

    def key(item: Judged, *, by_device: bool) -> tuple[tuple[str, str], ...]:
        row = item.row
        if isinstance(row, ModelRow):
            return (("mode", row.mode), ("phase", row.phase))
        if row.at_floor:
            return ()
        device = (("device", row.device), ("dtype", row.dtype)) if by_device else ()
        return (*device, ("op", row.op))

    scales = _scales(judged)
    by_device = _sorted(
        [item for item in judged if isinstance(item.row, OperatorRow)], lambda i: key(i, by_device=True)
    )
    over_all = _sorted(judged, lambda item: key(item, by_device=False))
    return [_group(dict(keys), rows, scales) for keys, rows in [*by_device, *over_all] if keys]


def by_family(judged: Iterable[Judged]) -> list[Group]:
    """Whole models by family of architectures, the worst median first; rows that name none are left out."""
    named = [(item.row.family, item) for item in judged if isinstance(item.row, ModelRow) and item.row.family]
    scales = _scales([item for _, item in named])
    families: dict[str, list[Judged]] = {}
    for family, item in named:
        families.setdefault(family, []).append(item)
    groups = [_group({"family": family}, rows, scales) for family, rows in sorted(families.items())]
    return sorted(groups, key=lambda group: -group.score.median_ape)


def by_owner(judged: Sequence[Judged]) -> list[Group]:
    """Rows by the class of kernels that takes most of their predicted time, the largest class first."""
    scales = _scales(judged)
    groups = [_group({"owner": key[0]}, rows, scales) for key, rows in _sorted(judged, lambda item: (item.owner,))]
    return sorted(groups, key=lambda group: -group.score.n)


#: Name of a regime -> the least share of the predicted time during which the device waits for its host.
REGIMES = {"host-bound": 0.5, "mixed": 0.1, "device-bound": 0.0}


def by_regime(judged: Iterable[Judged]) -> list[Group]:
    """Whole models on devices that a host issues to, by how long the device is predicted to wait (:data:`REGIMES`)."""
    regimes: dict[str, list[Judged]] = {name: [] for name in REGIMES}
    for item in judged:
        if (share := item.waiting_share) is not None:
            regimes[next(name for name, least in REGIMES.items() if share >= least)].append(item)
    scales = _scales([item for items in regimes.values() for item in items])
    return [_group({"regime": name}, items, scales) for name, items in regimes.items() if items]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassError:
    """A class of kernels: in how many rows it runs, its mean share of the predicted time over all rows, and the errors
    of those rows weighted by the share that it takes of each. A class whose rows err more the more of it they run is
    where to look."""

    name: str
    n: int
    mean_share: float
    weighted_bias: float
    weighted_ape: float


def by_class(judged: Sequence[Judged]) -> list[ClassError]:
    """Every class of kernels, the one with the largest share of the time first."""
    found = []
    for name, mean_share in class_shares(judged).items():
        rows = [(item.time_shares[name], item.error) for item in judged if name in item.time_shares]
        whole = sum(share for share, _ in rows) or 1.0
        found.append(
            ClassError(
                name=name,
                n=len(rows),
                mean_share=mean_share,
                weighted_bias=sum(share * error for share, error in rows) / whole,
                weighted_ape=sum(share * abs(error) for share, error in rows) / whole,
            )
        )
    return sorted(found, key=lambda item: (-item.mean_share, item.name))


def class_shares(judged: Sequence[Judged]) -> dict[str, float]:
    """Mean share of the predicted time of each class of kernels."""
    shares: dict[str, float] = {}
    for item in judged:
        for name, share in item.time_shares.items():
            shares[name] = shares.get(name, 0.0) + share / len(judged)
    return shares


def fail_budget(groups: Iterable[Group | MemoryGroup], max_median: float | None, max_p90: float | None) -> list[str]:
    """A sentence for every group over a budget (fractions); groups at the floor say nothing of kernels and are free."""
    failed = []
    for group in groups:
        if isinstance(group, Group) and group.at_floor:
            continue
        name = ", ".join(str(value) for value in group.keys.values() if value)
        for what, value, limit in (
            ("median", group.score.median_ape, max_median),
            ("90th percentile", group.score.p90_ape, max_p90),
        ):
            if limit is not None and value > limit:
                failed.append(f"{name}: the {what} of |error| is {value:.1%}, the budget {limit:.1%}")
    return failed


def _sorted(judged: Iterable[Judged], key: Callable[[Judged], tuple[Any, ...]]) -> list[tuple[Any, list[Judged]]]:
    groups: dict[tuple[Any, ...], list[Judged]] = {}
    for item in judged:
        groups.setdefault(key(item), []).append(item)
    return sorted(groups.items())


def _scales(judged: Iterable[Judged]) -> dict[tuple[str, ...], float]:
    """The one scale of FLOPs for each setting of at least :data:`LEAST_FITTED` rows, by the rows' group: coarser and
    finer tables take it from there."""
    return {
        key: fitted_scale([row.flops for row in rows], [row.measured_s for row in rows])
        for key, rows in _sorted(judged, lambda item: item.row.group)
        if len(rows) >= LEAST_FITTED
    }


def _keys(item: Judged) -> dict[str, str | bool | None]:
    """What a group's rows share. Operators have no layout, mode of their own: those of a plain eager call."""
    row = item.row
    if isinstance(row, ModelRow):
        return dict(zip(_MODEL_KEYS, row.group, strict=True))
    keys: dict[str, str | bool | None] = {"device": row.device, "dtype": row.dtype}
    keys |= {"layout": "nchw", "mode": "eager", "phase": "inference"}
    return keys | {"op": row.op, "algorithm": row.algorithm, "timing": row.timing, "at_floor": row.at_floor}


def _group(
    keys: Mapping[str, str | bool | None], rows: Sequence[Judged], scales: Mapping[tuple[str, ...], float]
) -> Group:
    measured = [row.measured_s for row in rows]
    widths = [(row.high_s - row.low_s) / row.predicted_s for row in rows if row.predicted_s]
    count = len(rows)
    return Group(
        keys=keys,
        score=score([row.predicted_s for row in rows], measured),
        interval_coverage=sum(row.is_covered for row in rows) / count,
        interval_width=sum(widths) / count,
        uncosted_share=sum(row.uncosted_share for row in rows) / count,
        owner=max(class_shares(rows).items(), key=lambda pair: pair[1], default=("", 0.0))[0],
        baselines={
            **_scaled_flops(rows, scales),
            "roofline": score([row.roofline_s for row in rows], measured),
            "roofs_85": score([row.roofs_85_s for row in rows], measured),
        },
    )


def _scaled_flops(rows: Sequence[Judged], scales: Mapping[tuple[str, ...], float]) -> dict[str, Score]:
    """The score of scaled FLOPs on the rows whose setting has a scale; nothing where none has."""
    fitted = [row for row in rows if row.row.group in scales]
    if not fitted:
        return {}
    return {"flops": score([scales[r.row.group] * r.flops for r in fitted], [r.measured_s for r in fitted])}
