"""Predictions held against measurements, as documents and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Block, Column, Document, Notes, Paragraph, Row, Table
from costmodel.validate import (
    BASELINES,
    Group,
    Judged,
    ModelRow,
    Score,
    Validation,
    by_class,
    by_family,
    by_owner,
    grouped,
    pooled,
)

__all__ = ["CONVENTIONS", "accuracy_document", "accuracy_json", "groups_table", "rows_table", "unusable_table"]

CONVENTIONS = (
    "error: predicted / measured - 1; median and p90 are of its absolute value, bias is its own (signed) median",
    "Spearman: rank correlation of predicted and measured time",
    "covered: share of rows whose predicted interval holds the measured time; width: mean of (high - low) / predicted",
    "uncosted: mean share of the predicted time that operators without a formula take",
    "FLOPs × one fitted scale: that with the least median |log error| on the very rows of the setting (first table)",
    "datasheet roofline: sum over operators of max(FLOP / peak, bytes / bandwidth), operators as written in the "
    "dtype of the run; 85 %: the same at 85 % of both roofs, and 3 µs for each kernel",
    "operators timed as eager calls: max(floor, lead + kernel), floor and lead of the host read off the smallest calls "
    "of the same file, device and operator; rows not 30 % above it are groups of their own, at the floor",
    "likely owner: the class of kernels that takes the largest share of the predicted time",
)

_HEADINGS = {"at_floor": "at floor", "op": "operator", "owner": "class of kernels"}
_ROW_KEYS = ("file", "line", "model", "device", "dtype")


def accuracy_document(validation: Validation, *, worst: int = 15) -> Document:
    """The page: scores by group beside the baselines, by family and by class of kernels, the worst rows, and what
    could not be judged. ``worst`` rows are listed (0: none)."""
    judged = validation.judged
    blocks: list[Block] = [
        Paragraph(_counts(validation)),
        groups_table(grouped(judged), "By group"),
        groups_table(pooled(judged), "Pooled; rows at the floor left out"),
    ]
    blocks += [_with_owner(groups_table(by_family(judged), "By family of architectures, the worst first"))] * any(
        isinstance(item.row, ModelRow) and item.row.family for item in judged
    )
    blocks.append(groups_table(by_owner(judged), "By the class of kernels that takes most of the predicted time"))
    blocks += [_classes_table(judged)] * any(len(item.time_shares) > 1 for item in judged)
    blocks += [_worst_table(judged, worst)] * bool(worst)
    blocks += [unusable_table(validation)] * bool(validation.unusable)
    blocks.append(Notes(CONVENTIONS, title="Conventions"))
    return Document("Predicted against measured", tuple(blocks))


def _counts(validation: Validation) -> str:
    files = len({item.row.file for item in validation.judged})
    count = len(validation.judged)
    rows = f"{count:,} {'row' if count == 1 else 'rows'}"
    parts = [f"{rows} of {files} {'file' if files == 1 else 'files'} judged"]
    parts += [f"{validation.not_sampled:,} usable rows not in the sample"] * bool(validation.not_sampled)
    parts.append(f"{len(validation.unusable):,} rows not usable")
    return ", ".join(parts) + "."


# -- tables ------------------------------------------------------------------------------------


def groups_table(groups: Sequence[Group], title: str) -> Table:
    """One line a group: what it is, its score, and the baselines' median and p90."""
    rows = [_group_row(group) for group in groups]
    keys = list(dict.fromkeys(key for group in groups for key in group.keys if key != "phase"))
    shown = [key for key in keys if any(row.get(key) not in (None, "", False) for row in rows)]
    return Table(
        title=title,
        columns=(
            *(_key_column(key) for key in shown),
            Column(key="n", heading="rows", render="{:,}".format, importance=90),
            share_column("median_ape", "median", importance=99),
            share_column("p90_ape", "p90", importance=98),
            _signed_share_column("bias", "bias", importance=80),
            number_column("spearman", "Spearman", decimals=3, importance=70),
            share_column("interval_coverage", "covered", importance=75),
            share_column("interval_width", "width", importance=60),
            share_column("uncosted_share", "uncosted", importance=30),
            *_baseline_columns(),
        ),
        rows=tuple(rows),
    )


def _with_owner(table: Table) -> Table:
    """The same groups, with the class of kernels that takes most of their time."""
    first, *rest = table.columns
    owner = text_column("likely_owner", "likely owner", shortest=16, importance=85)
    return replace(table, columns=(first, owner, *rest))


def _key_column(key: str) -> Column:
    return text_column(
        key,
        _HEADINGS.get(key, key),
        render=lambda v: "yes" if v is True else "" if v is False else str(v),
        importance=95,
    )


def _signed_share_column(key: str, heading: str, **options: Any) -> Column:
    return Column(key=key, heading=heading, unit="%", render=lambda value: f"{100 * value:+.1f}", **options)


def _baseline_columns() -> Iterable[Column]:
    """Median and p90 of each baseline in one cell on pages, apart in data."""
    short = {"flops": "FLOPs", "roofline": "roofline", "roofs_85": "85 %"}
    for name in BASELINES:
        yield Column(
            key=name,
            heading=short[name],
            unit="%",
            render=lambda pair: f"{100 * pair[0]:.0f} / {100 * pair[1]:.0f}",
            importance=50,
            in_data=False,
        )
        for key in ("median_ape", "p90_ape"):
            yield share_column(f"{name}_{key}", f"{short[name]} {key}", on_page=False)


def _group_row(group: Group) -> Row:
    row: dict[str, Any] = {**group.keys, **_score_json(group.score), "likely_owner": group.owner}
    row |= {name: getattr(group, name) for name in ("interval_coverage", "interval_width", "uncosted_share")}
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
            _signed_share_column("weighted_bias", "mean error", importance=98),
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
    rows = [_judged_json(item) for item in judged]
    conditions = [
        text_column(key, key, importance=40)
        for key in ("layout", "mode", "batch", "image_size", "algorithm")
        if any(row.get(key) not in (None, "") for row in rows)
    ]
    return Table(
        title=title,
        columns=(
            text_column("file", "file", on_page=False),
            Column(key="line", heading="line", on_page=False),
            text_column("model", "model", shortest=20, importance=99),
            text_column("device", "device", importance=90),
            text_column("dtype", "dtype", importance=50),
            *conditions,
            quantity_column(
                "measured_s", "measured", "s", [row["measured_s"] for row in rows], decimals=2, importance=80
            ),
            quantity_column(
                "predicted_s", "predicted", "s", [row["predicted_s"] for row in rows], decimals=2, importance=81
            ),
            share_column("latency_low_s", "low", on_page=False),
            share_column("latency_high_s", "high", on_page=False),
            _signed_share_column("error", "error", importance=98),
            text_column("owner", "likely owner", shortest=16, importance=70),
            share_column("owner_share", "of its time", importance=60),
            text_column("family", "family", importance=20),
        ),
        rows=tuple(rows),
    )


def unusable_table(validation: Validation) -> Table:
    """Reasons with their counts, the files they occur in and a few examples."""
    counts = Counter((row.reason, row.file) for row in validation.unusable)
    examples: dict[tuple[str, str], list[str]] = {}
    for row in validation.unusable:
        named = examples.setdefault((row.reason, row.file), [])
        about = row.about or "row"
        if len(named) < 3 and not any(example.startswith(f"{about} (line") for example in named):
            named.append(f"{about} (line {row.line})")
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
        "rows": [_judged_json(item) for item in judged],
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
        **_score_json(group.score),
        "interval_coverage": group.interval_coverage,
        "interval_width": group.interval_width,
        "uncosted_share": group.uncosted_share,
        "likely_owner": group.owner,
        "baselines": {name: _score_json(score) for name, score in group.baselines.items()},
    }


def _score_json(score: Score) -> dict[str, Any]:
    return {key: getattr(score, key) for key in ("n", "median_ape", "p90_ape", "bias", "spearman")}


def _judged_json(item: Judged) -> dict[str, Any]:
    row = item.row
    values: dict[str, Any] = {key: getattr(row, key) for key in _ROW_KEYS}
    values |= _model_conditions(row) if isinstance(row, ModelRow) else _operator_conditions(row)
    return values | {
        "measured_s": item.measured_s,
        "predicted_s": item.predicted_s,
        "latency_low_s": item.low_s,
        "latency_high_s": item.high_s,
        "error": item.error,
        "owner": item.owner,
        "owner_share": item.time_shares.get(item.owner, 0.0),
        "uncosted_share": item.uncosted_share,
        "flops": item.flops,
        "roofline_s": item.roofline_s,
        "roofs_85_s": item.roofs_85_s,
    }


def _model_conditions(row: ModelRow) -> Mapping[str, Any]:
    same = row.sizes.get("height") == row.sizes.get("width")
    values = {key: getattr(row, key) for key in ("layout", "mode", "phase", "torch", "batch", "family")}
    return values | {"image_size": row.sizes.get("height") if same else None, "sizes": dict(row.sizes)}


def _operator_conditions(row: Any) -> Mapping[str, Any]:
    shapes = {key: list(getattr(row, key)) for key in ("input", "other", "stride", "padding")}
    values = {key: getattr(row, key) for key in ("op", "groups", "algorithm", "timing", "at_floor", "floor_s")}
    return values | shapes
