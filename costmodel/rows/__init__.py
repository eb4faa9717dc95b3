"""What an analysis tells its readers: rows that add up, totals, and one table of the quantities that there are."""

from __future__ import annotations

from costmodel.rows.conventions import conventions_of
from costmodel.rows.kernels import KernelRow, kernel_rows
from costmodel.rows.making import asked_of, bound_shares, coverage_of, node_rows, totals_of, works_of
from costmodel.rows.quantities import QUANTITIES, Quantities, Quantity, Work
from costmodel.rows.row import ModelInfo, Row, Totals, grouped, rows_by

__all__ = [
    "QUANTITIES",
    "KernelRow",
    "ModelInfo",
    "Quantities",
    "Quantity",
    "Row",
    "Totals",
    "Work",
    "asked_of",
    "bound_shares",
    "conventions_of",
    "coverage_of",
    "grouped",
    "kernel_rows",
    "node_rows",
    "rows_by",
    "totals_of",
    "works_of",
]
