"""One table of quantities: rows, totals, tables, JSON and its schema hold every entry, and nothing else adds up."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import nn

import costmodel
from costmodel.report import as_json
from costmodel.report.rows import rows_table
from costmodel.rows import QUANTITIES, Row, Totals


@pytest.fixture(scope="module")
def analysis():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    return costmodel.analyze(network.eval(), torch.empty(2, 3, 16, 16), hw="a100")


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: q.key)
def test_every_reader_knows_every_quantity(analysis, quantity):
    rows = analysis.rows()
    assert getattr(analysis.totals, quantity.key) == pytest.approx(sum(getattr(row, quantity.key) for row in rows))
    value = as_json.analysis_json(analysis)
    described = as_json.schema()["$defs"]
    tables = (described["row"]["properties"], described["analysis"]["properties"]["totals"]["properties"])
    columns = {column.key: column for column in rows_table(analysis).columns}
    for known in (value["totals"], value["ops"][0], *tables, columns):
        assert (quantity.key in known) == quantity.in_data
    if quantity.in_data:
        assert all(table[quantity.key]["description"] == quantity.meaning for table in tables)
        assert columns[quantity.key].heading == quantity.heading
        assert columns[quantity.key].on_page == (quantity.importance is not None)


def test_rows_and_totals_hold_no_amount_beside_the_table():
    keys = {quantity.key for quantity in QUANTITIES}
    numbers = {int, float, "int", "float"}
    beside = {kind: {f.name for f in fields(kind) if f.type in numbers} - keys for kind in (Row, Totals)}
    assert beside[Row] == {"count", "share"}
    assert beside[Totals] == {"param_bytes", "peak_memory_bytes", "latency_low_s", "latency_high_s"}


def test_the_schema_of_each_quantity_has_its_kind():
    assert {q.key for q in QUANTITIES if not q.is_whole} == {"latency_s", "energy_j"}
    assert {q.unit for q in QUANTITIES} == {"FLOP", "MAC", "B", "s", "J", ""}
