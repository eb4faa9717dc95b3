"""CSV: what is read back is exactly what was there."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.errors import OutputError
from costmodel.report import render
from costmodel.report.as_csv import render_csv
from costmodel.report.document import Column, Document, Table

INTEGERS = ("flops", "macs", "params", "bytes_read", "bytes_written", "activations", "kernels")


def unguarded(cell):
    """The text of a cell without the apostrophe that keeps a spreadsheet from running it."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'")[:1] in tuple("=+-@\t\n＝＋－＠") else cell


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


@settings(deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r")), min_size=1, max_size=4
    ),
    flops=st.integers(0, 10**25),
    seconds=st.floats(0, 1e6),
)
def test_names_integers_and_floats_read_back_exactly(fake, names, flops, seconds):
    operators = [fake.FakeRow(name=name, module=name, flops=flops, latency_s=seconds) for name in names]
    back = read(render(fake.FakeAnalysis(operators=tuple(operators)), "csv"))
    assert [unguarded(row["name"]) for row in back] == names
    assert all(int(row["flops"]) == flops and float(row["latency_s"]) == seconds for row in back)


@given(st.text(alphabet="=+-@\t'x1｜＝ ", max_size=6))
def test_no_cell_of_text_is_a_formula_and_numbers_stay_numbers(name):
    table = Table(columns=(Column(key="a", heading="a"), Column(key="b", heading="b")), rows=({"a": name, "b": -1.5},))
    (row,) = read(render_csv([Document("t", (table,))]))
    assert not row["a"].startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
    assert unguarded(row["a"]) == name
    assert float(row["b"]) == -1.5


def test_sums_over_the_rows_are_the_totals(fake):
    analysis = fake.realistic()
    back = read(render(analysis, "csv", top=5))  # data formats hold all rows whatever a page shows
    assert len(back) == len(analysis.operators)
    for key in INTEGERS:
        assert sum(int(row[key]) for row in back) == getattr(analysis.totals, key)
    assert sum(float(row["latency_s"]) for row in back) == pytest.approx(analysis.totals.latency_s, rel=1e-12)
    assert sum(float(row["time_share"]) for row in back) == pytest.approx(1.0, rel=1e-12)


def test_several_machines_are_one_table_that_names_them(fake):
    analyses = [fake.realistic(hw="t4"), fake.realistic(hw="l4")]
    back = read(render(analyses, "csv"))
    assert [row["hardware"] for row in back] == [a.hw for a in analyses for _ in a.operators]


def test_what_does_not_exist_is_an_empty_cell(fake):
    back = read(render(fake.FakeAnalysis(operators=(fake.FakeRow(bound="free", intensity=None),)), "csv"))
    assert back[0]["intensity_flop_per_byte"] == ""


def test_a_report_without_one_table_is_refused():
    table = Table(columns=(Column(key="a", heading="a"),), rows=())
    other = Table(columns=(Column(key="b", heading="b"),), rows=())
    with pytest.raises(OutputError, match="has 0"):
        render_csv([Document("t")])
    with pytest.raises(OutputError, match="has 2"):
        render_csv([Document("t", (table, table))])
    with pytest.raises(OutputError, match="different columns"):
        render_csv([Document("t", (table,)), Document("u", (other,))])
