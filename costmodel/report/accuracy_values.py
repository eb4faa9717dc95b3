"""Judged rows and scores as plain values, by the names that tables and JSON share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.report.columns import number_column, share_column, signed_share_column
from costmodel.report.document import Column
from costmodel.validate import Judged, ModelRow, Score

__all__ = ["judged_values", "score_columns", "score_values"]

_ROW_KEYS = ("file", "line", "model", "device", "dtype")


def score_values(score: Score) -> dict[str, Any]:
    """Number of rows, errors (fractions) and rank correlation."""
    return {key: getattr(score, key) for key in ("n", "median_ape", "p90_ape", "bias", "spearman")}


def score_columns() -> tuple[Column, ...]:
    """Columns of what :func:`score_values` gives, and of how many rows the intervals hold."""
    return (
        Column(key="n", heading="rows", render="{:,}".format, importance=90),
        share_column("median_ape", "median", importance=99),
        share_column("p90_ape", "p90", importance=98),
        signed_share_column("bias", "bias", importance=80),
        share_column("interval_coverage", "covered", importance=75),
        number_column("spearman", "Spearman", decimals=3, importance=70),
    )


def judged_values(item: Judged) -> dict[str, Any]:
    """What the row says of its run, measured and predicted seconds, and what the prediction is made of."""
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
