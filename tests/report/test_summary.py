"""The page about an analysis: its parts add up, its sentences hold, and what is not known is named."""

import math
import re
from dataclasses import replace

import pytest

import costmodel
from costmodel.errors import InputError
from costmodel.report.as_terminal import TerminalStyle, render_terminal
from costmodel.report.document import Code, KeyValues, Notes, Paragraph
from costmodel.report.rows import rows_table
from costmodel.report.summary import analysis_document, coverage_sentence, machines_document
from costmodel.report.text import common_path
from costmodel.units import format_seconds

ADDS = ("flops", "matrix_flops", "vector_flops", "macs", "params", "bytes_read", "bytes_written", "kernels")


def facts(document):
    return dict(next(block for block in document.blocks if isinstance(block, KeyValues)).pairs)


@pytest.mark.parametrize("by", ["op", "module", "type"])
@pytest.mark.parametrize("top", [None, 0, 1, 5, 1000])
def test_shown_rows_and_the_rest_add_up_to_the_total(fake, by, top):
    analysis = fake.realistic()
    table = rows_table(analysis, by=by, top=top)
    *rest, total = table.footer
    parts = [*table.rows, *rest]
    for key in ADDS:
        assert sum(row[key] for row in parts) == total[key] == getattr(analysis.totals, key)
    assert math.fsum(row["latency_s"] for row in parts) == pytest.approx(total["latency_s"], rel=1e-12)
    assert math.fsum(row["time_share"] for row in parts) == pytest.approx(1.0, rel=1e-12)
    assert total["time_share"] == pytest.approx(1.0, rel=1e-12)
    assert sum(row["count"] for row in parts) == total["count"] == len(analysis.operators)


def test_the_top_rows_are_the_longest_and_the_others_are_counted(fake):
    letters = "abcdefgh"
    operators = fake.with_shares([fake.FakeRow(module=m, latency_s=float(i % 5)) for i, m in enumerate(letters)])
    table = rows_table(fake.FakeAnalysis(operators=operators), top=3)
    assert [(row["module"], row["latency_s"]) for row in table.rows] == [("e", 4.0), ("d", 3.0), ("c", 2.0)]
    assert table.footer[0]["module"] == "… 5 more"
    assert table.footer[0]["latency_s"] == 0 + 1 + 0 + 1 + 2


def test_operators_that_are_alike_are_one_row_of_the_top(fake):
    machine = {"peak": 1e12, "bandwidth": 1e11}
    blocks = [fake.conv(f"layers.2.blocks.{n}.conv1", 1, 64, 64, 3, 14, **machine) for n in range(12)]
    other = [fake.conv("layers.3.blocks.0.conv1", 1, 64, 64, 3, 28, **machine)]
    analysis = fake.FakeAnalysis(operators=fake.with_shares(blocks + other))
    table = rows_table(analysis, top=20)
    assert [row["module"] for row in table.rows] == ["layers.2.blocks.*.conv1", "layers.3.blocks.0.conv1"]
    assert [row["count"] for row in table.rows] == [12, 1]
    assert table.rows[0]["macs"] == 12 * 64 * 64 * 9 * 14 * 14
    assert table.rows[0]["latency_s"] == pytest.approx(12 * blocks[0].latency_s)
    assert len(rows_table(analysis).rows) == 13  # all rows: one each


def test_times_that_differ_by_rounding_do_not_part_the_blocks_of_a_stage():
    analysis = costmodel.analyze("resnet50", hw="a100")
    table = rows_table(analysis, top=1000)
    # ResNet-50's third stage has six blocks; the first one's 1x1 and strided 3x3 see maps of another size
    blocks = {row["module"]: row["count"] for row in table.rows if re.fullmatch(r"layer3\.\*\.conv\d", row["module"])}
    assert blocks == {"layer3.*.conv1": 5, "layer3.*.conv2": 5, "layer3.*.conv3": 6}


def test_operators_that_differ_in_anything_stay_apart(fake):
    base = fake.FakeRow(module="a.0", latency_s=1.0)
    others = [
        replace(base, module="a.1", **change)
        for change in ({"latency_s": 2.0}, {"bound": "memory"}, {"op": "aten.linear"}, {"inputs": "1x3"}, {"flops": 2})
    ]
    operators = fake.with_shares([base, *others, replace(base, module="b.0")])
    assert len(rows_table(fake.FakeAnalysis(operators=operators), top=20).rows) == 7


def test_a_star_stands_only_for_numbers_that_differ():
    assert common_path(["layers.2.blocks.0.fc1", "layers.2.blocks.17.fc1"]) == "layers.2.blocks.*.fc1"
    assert common_path(["layers.1.bn1", "layers.2.bn2"]) == "layers.*.bn*"
    assert common_path(["conv1"]) == "conv1"


def test_all_rows_stay_in_order_of_execution(fake):
    analysis = fake.realistic()
    for top in (None, 0):
        assert [row["name"] for row in rows_table(analysis, top=top).rows] == [row.name for row in analysis.operators]


def test_printed_shares_sum_to_a_hundred(fake):
    analysis = fake.realistic()
    table = rows_table(analysis, by="type")
    column = next(column for column in table.columns if column.key == "time_share")
    shown = [float(column.cell(row).replace("<", "")) for row in table.rows]
    assert sum(shown) == pytest.approx(100, abs=0.05 * len(shown) + 1e-9)
    assert column.cell(table.footer[-1]) == "100.0"


def test_the_first_ten_lines_say_how_long_and_why(fake):
    """Recounted here: the time and the FLOPs under each bound."""
    analysis = fake.realistic()
    memory = [row for row in analysis.operators if row.bound == "memory"]
    milliseconds = 1e3 * sum(row.latency_s for row in memory)
    percent = 100 * milliseconds / (1e3 * analysis.totals.latency_s)
    flops_percent = 100 * sum(row.flops for row in memory) / sum(row.flops for row in analysis.operators)
    head = "\n".join(render_terminal(analysis_document(analysis)).split("\n")[:10])
    expected = (
        f"{milliseconds:.2f} ms ({percent:.0f} %) in {len(memory)} operators with {flops_percent:.2f} % of the FLOPs"
    )
    assert expected in head
    assert f"{1e3 * analysis.totals.latency_s:.1f} ms (" in head
    assert "; 2.22 ms of it in batch_norm" in head  # 53 batch norms: 711.3 MB at 320 GB/s


def test_half_of_the_time_is_counted_from_the_longest(fake):
    seconds = [8.0, 1.0, 4.0, 3.0, 2.0]  # 18 in all: 8 is less than half, 8 + 4 is more
    operators = fake.with_shares([fake.FakeRow(latency_s=s, flops=1) for s in seconds])
    assert facts(analysis_document(fake.FakeAnalysis(operators=operators)))["half the time"] == "in 2 of 5 operators"


def test_bounds_that_take_no_time_are_not_mentioned(fake):
    operators = fake.with_shares([fake.FakeRow(latency_s=1.0, bound="launch"), fake.FakeRow(bound="free", kernels=0)])
    labels = facts(analysis_document(fake.FakeAnalysis(operators=operators)))
    assert "launch-bound" in labels and not {"compute-bound", "memory-bound", "free-bound"} & labels.keys()


def test_throughput_is_batch_over_latency(fake):
    operators = fake.with_shares([fake.FakeRow(latency_s=0.004)])
    assert "2,000 samples/s" in facts(analysis_document(fake.FakeAnalysis(operators=operators, batch=8)))["latency"]


def test_a_model_without_operators_has_a_page(fake):
    text = render_terminal(analysis_document(fake.FakeAnalysis(operators=())))
    assert "Coverage: all of 0 operators" in text and "samples/s" not in text


def test_shared_parameters_are_explained_where_the_sum_differs(fake):
    one = fake.FakeRow(params=1000, latency_s=1.0, energy_j=50.0)
    operators = fake.with_shares([one, one])
    shared = fake.FakeAnalysis(operators=operators, totals_changed={"params": 1000})
    text = " ".join(render_terminal(analysis_document(shared)).split())
    assert "parameters: the rows add up to 2.00 k, the total is 1.00 k (those that operators share count once)" in text
    assert rows_table(shared).footer[-1]["params"] == 1000
    assert "add up" not in render_terminal(analysis_document(fake.FakeAnalysis(operators=operators)))


def test_parameters_that_no_operator_reads_are_no_shared_ones(fake):
    operators = fake.with_shares([fake.FakeRow(params=1000, latency_s=1.0, energy_j=50.0)])
    unread = fake.FakeAnalysis(operators=operators, totals_changed={"params": 3000})
    text = " ".join(render_terminal(analysis_document(unread)).split())
    assert "parameters: the rows add up to 1.00 k, the total is 3.00 k (no operator reads the others)" in text


def test_closed_forms_findings_and_conventions_are_told(fake):
    analysis = fake.realistic()
    document = analysis_document(analysis)
    assert next(b for b in document.blocks if isinstance(b, Code)).text == analysis.closed_forms["flops"]
    notes = [block for block in document.blocks if isinstance(block, Notes)]
    assert [item.partition(":")[0] for item in notes[0].items] == [
        format_seconds(f.seconds_at_stake) for f in analysis.findings
    ]  # as they are ranked
    assert notes[1].items == analysis.symbol_notes
    assert set(analysis.conventions) <= set(notes[-1].items) and "predicted" in notes[-1].items[0]


def test_full_coverage_is_one_sentence(fake):
    document = analysis_document(fake.FakeAnalysis(operators=(fake.FakeRow(), fake.FakeRow(bound="free"))))
    sentence = [block for block in document.blocks if isinstance(block, Paragraph)][-1].text
    assert sentence == "Coverage: all of 2 operators, of the bytes and of the time: 1 with a formula, 1 free (views)."


def test_operators_without_a_formula_are_named_with_their_shares(fake):
    uncosted = (fake.unknown("mylib.swiglu", 3, 0.25, 0.5), fake.unknown("mylib.rope", 1, 0.05, 0.1))
    operators = tuple(fake.FakeRow() for _ in range(8))
    sentence = coverage_sentence(fake.FakeAnalysis(operators=operators, uncosted=uncosted).coverage)
    assert "50 % of 8 operators, 70 % of the bytes, 40 % of the time" in sentence
    assert "4 without: mylib.swiglu ×3 (25 % of the bytes, 50 % of the time); mylib.rope ×1 (5.0 %" in sentence


def test_columns_are_those_asked_for_and_the_name(fake):
    table = rows_table(fake.realistic(), columns=["macs", "latency_s"])
    assert [column.key for column in table.page_columns] == ["module", "op", "macs", "latency_s"]
    assert "flops" in [column.key for column in table.data_columns]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "layer"}, "'layer'[\\s\\S]*module"),
        ({"top": -1}, "-1"),
        ({"columns": ["latency"]}, "'latency'[\\s\\S]*latency_s"),
    ],
)
def test_wrong_requests_say_what_there_is(fake, options, message):
    with pytest.raises(InputError, match=message):
        rows_table(fake.realistic(), **options)


def test_machines_are_ranked_by_latency_and_each_number_is_of_its_analysis(fake):
    slow = fake.realistic(hw="t4")
    fast = fake.realistic(hw="a100", operators=fake.with_shares(fake.resnet50(peak=156e12, bandwidth=2.0e12)))
    document = machines_document([slow, fast])
    first, second = document.tables[0].records()
    assert (first["hardware"], second["hardware"]) == ("a100", "t4")
    for record, analysis in ((first, fast), (second, slow)):
        assert record["latency_s"] == analysis.totals.latency_s
        assert record["samples_per_s"] * analysis.totals.latency_s == pytest.approx(8)
        assert sum(record[f"{bound}_share"] for bound in ("compute", "memory", "launch")) == pytest.approx(1.0)
    ratio = slow.totals.latency_s / fast.totals.latency_s
    assert f"{ratio:.2f}" in render_terminal(document, TerminalStyle(width=140))


def test_types_of_operators_are_ranked_even_when_all_are_shown(fake):
    seconds = [row["latency_s"] for row in rows_table(fake.realistic(), by="type").rows]
    assert len(seconds) == 8
    assert seconds == sorted(seconds, reverse=True)


def test_modules_that_are_alike_are_one_row_of_the_top(fake):
    operators = fake.with_shares([fake.conv(f"stage{n}", 1, 8, 8, 3, 14) for n in range(4)])
    table = rows_table(fake.FakeAnalysis(operators=operators), by="module", top=5)
    assert [(row["name"], row["count"]) for row in table.rows] == [("stage*", 4)]


def test_figures_of_one_sample_where_a_step_has_several(fake):
    analysis = fake.realistic()
    facts = dict(block for block in analysis_document(analysis).blocks[1].pairs)
    batch, totals = analysis.execution.batch, analysis.totals
    assert batch == 8 and f"{totals.macs / batch / 1e9:.2f} GMAC" in facts["a sample"]
    assert f"at batch {batch}" in facts["a sample"]
    alone = fake.realistic(batch=1)
    assert "a sample" not in dict(analysis_document(alone).blocks[1].pairs)


def test_a_power_limit_that_no_clock_keeps_is_said():
    analysis = costmodel.analyze("torchvision:resnet18", hw="t4", power_limit=5)
    assert analysis.totals.power_w > 5
    assert "no clock keeps this step within 5 W" in dict(analysis_document(analysis).blocks[1].pairs)["energy"]
    kept = costmodel.analyze("torchvision:resnet18", hw="t4", power_limit=60)
    assert "no clock" not in dict(analysis_document(kept).blocks[1].pairs)["energy"]
