"""Predicted memory held against measured, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.report.accuracy_values import score_columns, score_values
from costmodel.report.columns import number_column, quantity_column, signed_share_column, text_column
from costmodel.report.document import Column, Table
from costmodel.validate import JudgedMemory, MemoryGroup, memory_groups

__all__ = ["memory_accuracy_json", "memory_groups_table", "memory_rows_table", "worst_memory_table"]

_KEYS = ("device", "dtype", "layout", "mode", "phase", "memory_kind")


def memory_groups_table(judged: Sequence[JudgedMemory]) -> Table:
    """One line a group."""
    rows = [_group_json(group) for group in memory_groups(judged)]
    return Table(
        title="Peak memory by group",
        columns=(
            *(text_column(key, key.replace("_", " "), importance=60) for key in _KEYS),
            *score_columns(),
        ),
        rows=tuple(rows),
    )


def worst_memory_table(judged: Sequence[JudgedMemory], count: int) -> Table:
    """The rows furthest off, above or below alike."""
    ranked = sorted(judged, key=lambda item: -max(1 + item.error, 1 / (1 + item.error)))[:count]
    return memory_rows_table(ranked, f"The {len(ranked)} rows of memory furthest off")


def memory_rows_table(judged: Sequence[JudgedMemory], title: str = "") -> Table:
    """One line a row, with exact values in data formats."""
    rows = [_row_json(item) for item in judged]
    sizes = [row[key] for row in rows for key in ("measured_bytes", "predicted_bytes")]
    return Table(
        title=title,
        columns=(
            text_column("file", "file", on_page=False),
            Column(key="line", heading="line", on_page=False),
            text_column("model", "model", shortest=20, importance=99),
            text_column("device", "device", importance=90),
            *(text_column(key, key, on_page=False) for key in ("dtype", "layout", "mode", "phase", "memory_kind")),
            number_column("batch", "batch", decimals=0, importance=70),
            quantity_column("measured_bytes", "measured", "B", sizes, decimals=2, importance=80),
            quantity_column("predicted_bytes", "predicted", "B", sizes, decimals=2, importance=81),
            Column(key="low_bytes", heading="low", on_page=False),
            Column(key="high_bytes", heading="high", on_page=False),
            signed_share_column("error", "error", importance=98),
            text_column("verdict", "verdict", importance=40),
        ),
        rows=tuple(rows),
    )


def memory_accuracy_json(judged: Sequence[JudgedMemory]) -> dict[str, Any]:
    """``{"groups": [...], "rows": [...]}``."""
    groups = [_group_json(group) for group in memory_groups(judged)]
    return {"groups": groups, "rows": [_row_json(item) for item in judged]}


def _group_json(group: MemoryGroup) -> dict[str, Any]:
    return {**group.keys, **score_values(group.score), "interval_coverage": group.interval_coverage}


def _row_json(item: JudgedMemory) -> dict[str, Any]:
    row = item.row
    words = {key: getattr(row, key) for key in ("file", "line", "model", "device", "dtype", "layout", "mode", "phase")}
    return {
        **words,
        "batch": row.batch,
        "memory_kind": row.kind,
        "measured_bytes": row.memory_bytes,
        "predicted_bytes": item.predicted_bytes,
        "low_bytes": item.low_bytes,
        "high_bytes": item.high_bytes,
        "error": item.error,
        "verdict": item.verdict,
    }
