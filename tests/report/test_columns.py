"""Columns: one unit for all cells, rounded for people, so that parts add up to the whole in print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.report.columns import intensity_column, number_column, quantity_column, share_column, text_column
from costmodel.report.document import Column, Document, Notes, Paragraph, Table

FACTORS = {"p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=20))
def test_printed_parts_add_up_to_the_printed_whole(seconds):
    column = quantity_column("latency_s", "time", "s", seconds)
    printed = [float(column.render(value).replace(",", "").replace("<", "")) for value in seconds]
    whole = float(column.render(sum(seconds)).replace(",", "").replace("<", ""))
    assert sum(printed) == pytest.approx(whole, abs=0.1 * (len(seconds) + 1))  # each cell is rounded to 0.1


@given(st.floats(1e-9, 1e15))
def test_the_largest_cell_reads_back_to_three_digits(value):
    column = quantity_column("flops", "FLOPs", "s", [value])
    shown = float(column.render(value).replace(",", "")) * FACTORS.get(column.unit.removesuffix("s"), 1e15)
    assert shown == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("largest", "unit", "cell"),
    [(9.9, "", "10"), (11.0, "", "11"), (25_557_032, "M", "25.6"), (9_999, "", "9,999"), (10_001, "k", "10.0")],
)
def test_prefixes_change_at_ten_thousand(largest, unit, cell):
    column = quantity_column("params", "params", "", [largest, 1])
    assert (column.unit, column.render(largest)) == (unit, cell)


def test_whole_numbers_without_prefix_have_no_decimals_and_bytes_no_fractions():
    column = quantity_column("bytes", "bytes", "B", [3])
    assert (column.unit, column.render(3)) == ("B", "3")


def test_nothing_zero_and_tiny_are_three_things():
    column = quantity_column("flops", "FLOPs", "FLOP", [5e9])
    assert [column.render(value) for value in (None, 0, 12, 5e9)] == ["–", "0", "<0.1", "5,000.0"]
    assert number_column("x", "x").render(float("inf")) == "–"


def test_an_all_zero_column_has_a_plain_unit():
    assert quantity_column("flops", "FLOPs", "FLOP", [0, 0]).unit == "FLOP"


def test_shares_show_percent():
    assert share_column("time_share", "share").render(0.3796) == "38.0"


def test_small_intensities_keep_two_decimals():
    column = intensity_column("intensity_flop_per_byte", "FLOP/B")
    assert [column.render(value) for value in (0.083, 9.994, 10.0, 142.36)] == ["0.08", "9.99", "10.0", "142.4"]


def test_missing_text_is_a_dash_or_what_was_asked():
    assert text_column("algorithm", "algorithm").render("") == "–"
    assert text_column("name", "module", empty="(model)").render("") == "(model)"


def test_a_table_keeps_exact_values_and_leaves_the_footer_out():
    columns = (
        Column(key="n", heading="n", render=lambda n: f"~{n // 10}0"),
        Column(key="p", heading="p", in_data=False),
    )
    table = Table(columns=columns, rows=({"n": 17, "p": 1}, {"p": 2}), footer=({"n": 17},))
    assert table.records() == [{"n": 17}, {"n": None}]
    assert [column.cell(table.rows[1]) for column in columns] == ["", "2"]


def test_documents_know_their_tables():
    table = Table(columns=(), rows=())
    assert Document("a", (Paragraph("b"), table, Notes(("c",)))).tables == (table,)
