"""The character CNN of an article, in its three versions: parameters saved, and time not."""

from __future__ import annotations

from costmodel.analysis import Analysis
from costmodel.report.columns import number_column, text_column
from costmodel.report.document import Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import bars
from costmodel.studies.bench import Bench
from costmodel.studies.claim_lines import Line, lines_table
from costmodel.studies.registry import Report, study
from costmodel.studies.tables import causes_table, peaks_note
from costmodel.studies.words import percent, slower, times

__all__ = ["lines", "report"]

VERSIONS = {
    "fully connected": "char_cnn",
    "1x1 bottleneck": "char_cnn_bottleneck",
    "global average pooling": "char_cnn_gap",
}
#: Batches of an A100 at which the versions are compared for the title.
BATCHES = tuple(2**n for n in range(13))
PLACES = (("a100", 1), ("a100", 64), ("a100", 4096), ("epyc-7763", 1), ("epyc-7763", 64))


def _params(analysis: Analysis, part: str) -> int:
    return sum(row.params for row in analysis.rows() if row.name.startswith(part))


def lines(bench: Bench) -> list[Line]:
    """The article's figures."""
    plain, narrow, pooled = (bench.analysis(name) for name in VERSIONS.values())
    second = _params(plain, "maps.second"), _params(narrow, "maps.second")
    first_linear = next(row for row in plain.rows() if row.op == "aten.linear").params
    heads = _params(pooled, "head1"), _params(pooled, "head2")
    return [
        Line(number="Char-CNN", claim="second block, plain and with a 1x1 bottleneck", published="3,504, 2,076",
             ours=f"{second[0]:,}, {second[1]:,}", agrees=second == (3_504, 2_076),
             derivation="convolutions with biases"),
        Line(number="Char-CNN", claim="first fully connected layer, 7,200 to 128", published="921,728",
             ours=f"{first_linear:,}", agrees=first_linear == 921_728, derivation="7,200·128 + 128"),
        Line(number="Char-CNN", claim="heads of the version with global average pooling", published="54, 1,274",
             ours=f"{heads[0]}, {heads[1]:,}", agrees=heads == (54, 1_274),
             derivation="with their batch normalization"),
    ]  # fmt: skip


@study("char_cnn")
def report(bench: Bench) -> Report:
    """Parameters, MACs and time of the three versions."""
    many = {title: bench.analysis(name, batch=64) for title, name in VERSIONS.items()}
    splits = {title: bench.split(a) for title, a in many.items()}
    chapters = (
        _opening(bench),
        _table(bench),
        Document("The article's figures", (lines_table(lines(bench)),)),
        Document("Batch 64 on an A100, by cause", (causes_table(splits), *peaks_note(splits))),
        _lengths(bench),
        Document(
            "Conventions", (Notes(("times are predicted, nothing was run", *many["fully connected"].conventions)),)
        ),
    )
    return Report(chapters, {"char_cnn.svg": _figure(bench)})


def _opening(bench: Bench) -> Document:
    plain, narrow, pooled = (bench.analysis(name) for name in VERSIONS.values())
    head = sum(row.params for row in plain.rows() if row.name.startswith("head"))
    many = [bench.analysis(name, batch=4096) for name in VERSIONS.values()]
    batch64 = [bench.analysis(name, batch=64) for name in VERSIONS.values()]
    text = (
        f"A small CNN that reads 300 characters has {plain.totals.params:,} parameters, "
        f"{percent(head / plain.totals.params)} of them in the fully connected head. Two tricks of the literature "
        f"shrink it: a 1x1 bottleneck saves {plain.totals.params - narrow.totals.params:,}, global average pooling "
        f"{narrow.totals.params - pooled.totals.params:,}, which leaves {pooled.totals.params:,}: "
        f"{times(plain.totals.params / pooled.totals.params)} fewer, with "
        f"{times(plain.totals.macs / pooled.totals.macs)} fewer MACs. Faster? On an A100 at batch 64 the smallest "
        f"version is {slower(batch64[2].latency / batch64[0].latency)} than the largest: it starts "
        f"{batch64[2].totals.kernels} kernels instead of {batch64[0].totals.kernels}, and "
        f"{percent(bench.split(batch64[2]).seconds('host') / batch64[2].latency)} of its time the GPU waits for the "
        f"next one; at batch 4096 it is {slower(many[2].latency / many[0].latency)}. "
        "Where the host sets the pace, a small network costs operators, not FLOPs."
    )
    figure = Figure("figures/char_cnn.svg", "Time of the three versions at batch 64 on an A100, by cause")
    smaller = f"A character CNN made {plain.totals.params / pooled.totals.params:.0f} times smaller"
    title = f"{smaller}{_faster_from(bench)}"
    return Document(title, (Paragraph(text), figure))


def _faster_from(bench: Bench) -> str:
    """How the title goes on: from which batch on an A100 the smallest version is faster than the largest."""
    largest, *_, smallest = VERSIONS.values()
    wins = [b for b in BATCHES if bench.analysis(smallest, batch=b).latency < bench.analysis(largest, batch=b).latency]
    if not wins:
        return ", and no faster"
    return f", and faster from batch {wins[0]:,} on" if wins[0] > 1 else ""


def _table(bench: Bench) -> Document:
    rows = []
    for title, name in VERSIONS.items():
        found = bench.analysis(name)
        row: dict[str, object] = {
            "name": title,
            "params": found.totals.params,
            "macs": found.totals.macs / 1e6,
            "kernels": found.totals.kernels,
        }
        for hw, batch in PLACES:
            row[f"{hw}/{batch}"] = 1e6 * bench.analysis(name, hw=hw, batch=batch).latency
        rows.append(row)
    places = (number_column(f"{hw}/{batch}", f"{hw}, batch {batch}", "µs", decimals=0) for hw, batch in PLACES)
    columns = (
        text_column("name", "version"), number_column("params", "parameters", decimals=0),
        number_column("macs", "MMAC", decimals=2),
        number_column("kernels", "kernels", decimals=0), *places,
    )  # fmt: skip
    return Document("Three versions", (Table(columns=columns, rows=tuple(rows)),))


def _lengths(bench: Bench) -> Document:
    counts = [bench.analysis("char_cnn_gap", seq_len=length).totals for length in (300, 1200)]
    text = (
        "The fully connected head fixes the length of the text at 300 characters: its weights are for 7,200 "
        f"features. Pooling lets go of that: the same {counts[0].params:,} parameters read 1,200 characters, for "
        f"{counts[1].macs / counts[0].macs:.2f} times the MACs."
    )
    return Document("Any length of text", (Paragraph(text),))


def _figure(bench: Bench) -> str:
    rows = {}
    for title, name in VERSIONS.items():
        split = bench.split(bench.analysis(name, batch=64))
        waits, fixed = split.seconds("host"), split.seconds("fixed")
        rows[title] = {
            "waiting for the host": 1e6 * waits,
            "kernel starts": 1e6 * fixed,
            "arithmetic and memory": 1e6 * (split.latency_s - waits - fixed),
        }
    return bars(rows, "µs", "Char-CNN, batch 64, A100, fp32", decimals=0)
