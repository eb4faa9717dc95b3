"""Predictions held against measurements, as documents and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from costmodel.report.accuracy_memory import memory_accuracy_json, memory_groups_table, worst_memory_table
from costmodel.report.accuracy_values import judged_values, score_columns, score_values
from costmodel.report.columns import number_column, quantity_column, share_column, signed_share_column, text_column
from costmodel.report.document import Block, Column, Document, Notes, Paragraph, Row, Table
from costmodel.validate import (
    BASELINES,
    Group,
    Judged,
    ModelRow,
    Validation,
    by_class,
    by_family,
    by_owner,
    by_regime,
    grouped,
    pooled,
)

__all__ = [
    "CONVENTIONS",
    "accuracy_document",
    "accuracy_json",
    "baselines_table",
    "groups_table",
    "narrowed",
    "regimes_table",
    "rows_table",
    "unusable_table",
]

CONVENTIONS = (
    "error: predicted / measured - 1; median and p90 are of its absolute value, bias is its own (signed) median",
    "Spearman: rank correlation of predicted and measured time",
    "covered: share of rows whose predicted interval holds the measured time; width: mean of (high - low) / predicted",
    "uncosted: mean share of the predicted time that operators without a formula take",
    "FLOPs, scaled: FLOPs times the one scale with the least median |log error| on the very rows of the setting (first "
    "table); a setting of one or two rows has none",
    "datasheet roofline: sum over operators of max(FLOP / peak, bytes / bandwidth), operators as written in the "
    "dtype of the run; 85 %: the same at 85 % of both roofs, and 3 µs for each kernel",
    "operators timed as eager calls: max(floor, lead + kernel), floor and lead of the host read off the smallest calls "
    "of the same file, device and operator; rows not 30 % above it are groups of their own, at the floor",
    "what bounds the step: host-bound where the device is predicted to wait for its host half of the time or more, "
    "device-bound where less than a tenth; rows on GPUs",
    "an interval holds what nobody said: the hosts that a machine is met with unless --host names one, an older "
    "PyTorch where a row names no release, the copy of inputs where it does not say where they lay",
    "likely owner: the class of kernels that takes the largest share of the predicted time",
)

_HEADINGS = {"at_floor": "at floor", "op": "operator", "owner": "class of kernels"}


def accuracy_document(validation: Validation, *, worst: int = 15) -> Document:
    """The page: scores by group beside the baselines, by family and by class of kernels, the worst rows, and what
    could not be judged. ``worst`` rows are listed (0: none)."""
    judged = validation.judged
    blocks: list[Block] = [Paragraph(_counts(validation))]
    if validation.memory:
        blocks += [memory_groups_table(validation.memory)]
        blocks += [worst_memory_table(validation.memory, worst)] * bool(worst)
    if not judged:
        blocks += [unusable_table(validation)] * bool(validation.unusable)
        return Document("Predicted against measured", (*blocks, Notes(CONVENTIONS[:1], title="Conventions")))
    blocks += [
        groups_table(grouped(judged), "By group"),
        baselines_table(grouped(judged), "Baselines on the same rows, median / p90"),
        groups_table(pooled(judged), "Pooled; rows at the floor left out"),
        baselines_table(pooled(judged), "Baselines, pooled, median / p90"),
    ]
    blocks += [_with_owner(groups_table(by_family(judged), "By family of architectures, the worst first"))] * any(
        isinstance(item.row, ModelRow) and item.row.family for item in judged
    )
    blocks += [regimes_table(judged)] * any(item.waiting_share is not None for item in judged)
    blocks += [_hosts_table(validation)] * bool(validation.hosts)
    blocks.append(groups_table(by_owner(judged), "By the class of kernels that takes most of the predicted time"))
    blocks += [_classes_table(judged)] * any(len(item.time_shares) > 1 for item in judged)
    blocks += [_worst_table(judged, worst)] * bool(worst)
    blocks += [unusable_table(validation)] * bool(validation.unusable)
    blocks.append(Notes(CONVENTIONS, title="Conventions"))
    return Document("Predicted against measured", tuple(blocks))


def _counts(validation: Validation) -> str:
    found = [item.row.file for item in validation.judged] + [item.row.file for item in validation.memory]
    files, count = len(set(found)), len(found)
    rows = f"{count:,} {'row' if count == 1 else 'rows'}"
    parts = [f"{rows} of {files} {'file' if files == 1 else 'files'} judged"]
    parts += [f"{validation.not_sampled:,} usable rows not in the sample"] * bool(validation.not_sampled)
    parts.append(f"{len(validation.unusable):,} rows not usable")
    return ", ".join(parts) + "."


# -- tables ------------------------------------------------------------------------------------


#: Columns of a table at most, so that a page can be read without scrolling to the side.
MOST_COLUMNS = 9


def groups_table(groups: Sequence[Group], title: str) -> Table:
    """One line a group: what it is and its score. What all groups share stands in the title."""
    rows = [_group_row(group) for group in groups]
    keys, shared = _parted(groups)
    table = Table(
        title=_with_shared(title, shared),
        columns=(
            *(_key_column(key) for key in keys),
            *score_columns(),
            share_column("interval_width", "width", importance=60),
            share_column("uncosted_share", "uncosted", importance=30),
            *_baseline_data(),
        ),
        rows=tuple(rows),
    )
    return narrowed(table)


def regimes_table(judged: Sequence[Judged]) -> Table:
    """Whole models on GPUs by what bounds them: their host, their device, or both in turn."""
    return groups_table(by_regime(judged), "By what bounds the step")


def _hosts_table(validation: Validation) -> Table:
    """The hosts that were found from the eager rows, and with which all rows are predicted here."""
    rows = [asdict(host) for host in validation.hosts]
    columns = (
        text_column("device", "device", importance=100),
        text_column("host", "host", importance=60),
        text_column("torch", "PyTorch", importance=60),
        number_column("slowdown", "slowdown", decimals=2, importance=99),
        quantity_column("copy_bytes_per_s", "copies", "B/s", [row["copy_bytes_per_s"] for row in rows], importance=80),
        number_column("rows", "eager rows", decimals=0, importance=50),
    )
    title = "One host for each machine, found from its eager rows: host time over the reference core's"
    return Table(title=title, columns=columns, rows=tuple(rows))


def baselines_table(groups: Sequence[Group], title: str) -> Table:
    """One line a group: median / p90 of our error beside those of each baseline on the same rows."""
    rows = [_group_row(group) for group in groups]
    keys, shared = _parted(groups)
    short = {"flops": "FLOPs, scaled", "roofline": "roofline", "roofs_85": "85 % of roofs"}
    pairs = (
        Column(key=key, heading=heading, unit="%", render=_pair, importance=95, in_data=False)
        for key, heading in (("ours", "costmodel"), *((name, short[name]) for name in BASELINES))
    )
    table = Table(
        title=_with_shared(title, shared),
        columns=(
            *(_key_column(key) for key in keys),
            Column(key="n", heading="rows", render="{:,}".format, importance=90),
            *pairs,
        ),
        rows=tuple(rows),
    )
    return narrowed(table)


def narrowed(table: Table, most: int = MOST_COLUMNS) -> Table:
    """The table with its ``most`` most important columns on pages; data formats keep all."""
    shown = sorted(table.page_columns, key=lambda column: -column.importance)[:most]
    columns = (
        column if column in shown or not column.on_page else replace(column, on_page=False) for column in table.columns
    )
    return replace(table, columns=tuple(columns))


def _parted(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """(keys in which groups differ, values that all of them share)."""
    keys = list(dict.fromkeys(key for group in groups for key in group.keys))
    if len({group.keys.get("phase") for group in groups}) == 1:
        keys = [key for key in keys if key != "phase"]
    values = {key: list(dict.fromkeys(group.keys.get(key) for group in groups)) for key in keys}
    differing = [key for key in keys if len(values[key]) > 1 or len(groups) == 1]
    shared = [str(values[key][0]) for key in keys if key not in differing and values[key][0] not in (None, "", False)]
    shown = [key for key in differing if any(value not in (None, "", False) for value in values[key])]
    return shown, shared


def _with_shared(title: str, shared: Sequence[str]) -> str:
    return f"{title}: {', '.join(shared)}" if shared else title


def _pair(pair: tuple[float, float] | None) -> str:
    """Median and p90 in percent; a dash where there is no such score."""
    return "–" if pair is None else f"{100 * pair[0]:.1f} / {100 * pair[1]:.1f}"


def _with_owner(table: Table) -> Table:
    """The same groups, with the class of kernels that takes most of their time."""
    first, *rest = table.columns
    owner = text_column("likely_owner", "likely owner", shortest=16, importance=85)
    return narrowed(replace(table, columns=(first, owner, *rest)))


def _key_column(key: str) -> Column:
    return text_column(
        key,
        _HEADINGS.get(key, key),
        render=lambda v: "yes" if v is True else "" if v is False else str(v),
        importance=95,
    )


def _baseline_data() -> Iterable[Column]:
    """Median and p90 of each baseline, for data formats; pages have a table of their own."""
    for name in BASELINES:
        for key in ("median_ape", "p90_ape"):
            yield share_column(f"{name}_{key}", f"{name} {key}", on_page=False)


def _group_row(group: Group) -> Row:
    row: dict[str, Any] = {**group.keys, **score_values(group.score), "likely_owner": group.owner}
    row |= {name: getattr(group, name) for name in ("interval_coverage", "interval_width", "uncosted_share")}
    row["ours"] = (group.score.median_ape, group.score.p90_ape)
    row |= dict.fromkeys(BASELINES)
    for name, score in group.baselines.items():
        row |= {
            name: (score.median_ape, score.p90_ape),
            f"{name}_median_ape": score.median_ape,
            f"{name}_p90_ape": score.p90_ape,
        }
    return row


def _classes_table(judged: Sequence[Judged], least_share: float = 0.002) -> Table:
    """Classes of kernels that take a share of the time worth naming, and the errors that go with them."""
    keys = ("name", "n", "mean_share", "weighted_bias", "weighted_ape")
    found = [{key: getattr(item, key) for key in keys} for item in by_class(judged)]
    return Table(
        title="Errors weighted by each class's share of the predicted time",
        columns=(
            text_column("name", "class of kernels", importance=99),
            Column(key="n", heading="rows", render="{:,}".format, importance=90),
            share_column("mean_share", "of the time", importance=95),
            signed_share_column("weighted_bias", "mean error", importance=98),
            share_column("weighted_ape", "mean |error|", importance=97),
        ),
        rows=tuple(row for row in found if row["mean_share"] >= least_share),
    )


def _worst_table(judged: Sequence[Judged], count: int) -> Table:
    """The rows furthest off, above or below alike, each with its likely owner."""
    ranked = sorted(judged, key=_distance, reverse=True)[:count]
    return rows_table(ranked, f"The {len(ranked)} rows furthest off")


def _distance(item: Judged) -> float:
    """How far off, by a factor: half as much is as wrong as twice as much."""
    ratio = item.predicted_s / item.measured_s
    return max(ratio, 1 / ratio) if ratio > 0 else float("inf")


def rows_table(judged: Sequence[Judged], title: str = "") -> Table:
    """One line a row, with exact values in data formats."""
    rows = [(values := judged_values(item)) | {"run": _run_words(values)} for item in judged]
    times = [row[key] for row in rows for key in ("measured_s", "predicted_s")]  # one unit for both
    return Table(
        title=title,
        columns=(
            text_column("file", "file", on_page=False),
            Column(key="line", heading="line", on_page=False),
            text_column("model", "model", shortest=20, importance=99),
            text_column("device", "device", importance=90),
            Column(key="run", heading="run", align="left", importance=50, shortest=12, in_data=False),
            *(text_column(key, key, on_page=False) for key in ("dtype", *_CONDITIONS)),
            quantity_column("measured_s", "measured", "s", times, decimals=2, importance=80),
            quantity_column("predicted_s", "predicted", "s", times, decimals=2, importance=81),
            Column(key="latency_low_s", heading="low", on_page=False),
            Column(key="latency_high_s", heading="high", on_page=False),
            signed_share_column("error", "error", importance=98),
            text_column("owner", "likely owner", shortest=16, importance=70),
            share_column("owner_share", "of its time", importance=60),
            text_column("family", "family", on_page=False),
        ),
        rows=tuple(rows),
    )


_CONDITIONS = ("layout", "mode", "batch", "image_size", "algorithm")


def _run_words(row: Mapping[str, Any]) -> str:
    """The conditions of a row in one cell: ``amp_fp16, nhwc, eager, batch 256, 224 px``."""
    batch, size = row.get("batch"), row.get("image_size")
    words = (row["dtype"], row.get("layout"), row.get("mode"), f"batch {batch}" if batch else "",
             f"{size} px" if size else "", row.get("algorithm"))  # fmt: skip
    return ", ".join(str(word) for word in words if word)


#: Characters that the examples of one reason may take beyond the first.
_EXAMPLES_WIDTH = 120


def unusable_table(validation: Validation) -> Table:
    """Reasons with their counts, the files they occur in and a few examples."""
    counts = Counter((row.reason, row.file) for row in validation.unusable)
    examples: dict[tuple[str, str], list[str]] = {}
    for row in validation.unusable:
        named = examples.setdefault((row.reason, row.file), [])
        about = row.about or "row"
        example = f"{about} (line {row.line})"
        fits = not named or (len(named) < 3 and sum(map(len, named)) + len(example) <= _EXAMPLES_WIDTH)
        if fits and not any(other.startswith(f"{about} (line") for other in named):
            named.append(example)
    rows = tuple(
        {"reason": reason, "n": count, "file": file.rpartition("/")[2], "examples": ", ".join(examples[reason, file])}
        for (reason, file), count in counts.most_common()
    )
    return Table(
        title="Rows that could not be used, by reason",
        columns=(
            text_column("reason", "reason", importance=99, shortest=40),
            Column(key="n", heading="rows", render="{:,}".format, importance=98),
            text_column("file", "file", importance=50),
            text_column("examples", "examples", importance=40, shortest=30),
        ),
        rows=rows,
    )


# -- JSON --------------------------------------------------------------------------------------


def accuracy_json(validation: Validation) -> dict[str, Any]:
    """``{"groups": [...], "rows": [...]}``, besides pooled and family groups, unusable rows; shares as fractions."""
    judged = validation.judged
    return {
        "schema_version": 1,
        "groups": [_group_json(group) for group in grouped(judged)],
        "pooled": [_group_json(group) for group in pooled(judged)],
        "families": [_group_json(group) for group in by_family(judged)],
        "classes": [asdict(item) for item in by_class(judged)],
        "owners": [_group_json(group) for group in by_owner(judged)],
        "regimes": [_group_json(group) for group in by_regime(judged)],
        "hosts": [asdict(host) for host in validation.hosts],
        "memory": memory_accuracy_json(validation.memory),
        "rows": [judged_values(item) for item in judged],
        "unusable": [
            {"file": row.file, "line": row.line, "reason": row.reason, "about": row.about}
            for row in validation.unusable
        ],
        "not_sampled": validation.not_sampled,
        "conventions": list(CONVENTIONS),
    }


def _group_json(group: Group) -> dict[str, Any]:
    return {
        **group.keys,
        **score_values(group.score),
        "interval_coverage": group.interval_coverage,
        "interval_width": group.interval_width,
        "uncosted_share": group.uncosted_share,
        "likely_owner": group.owner,
        "baselines": {name: score_values(score) for name, score in group.baselines.items()},
    }
