"""ResNet-50 A to D: the FLOPs that a better stem and shortcut add, and what they cost in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.analysis import Analysis
from costmodel.explain import Split
from costmodel.report.columns import number_column, share_column, text_column
from costmodel.report.document import Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import bars
from costmodel.studies.bench import Bench, device_seconds, kind_of
from costmodel.studies.registry import Report, study
from costmodel.studies.tables import by_stage, causes_table, networks_table
from costmodel.studies.words import listed, more, percent, slower

__all__ = ["VARIANTS", "report", "variants"]

PAPER = "He, Zhang, Zhang, Zhang, Xie, Li: Bag of Tricks for Image Classification with CNNs, arXiv:1812.01187"
#: Letter -> what changed.
VARIANTS = {
    "A": "stride in the first 1x1 of a block",
    "B": "stride in the 3x3",
    "C": "B with three 3x3 for the 7x7 stem",
    "D": "C with an average pool in the shortcut",
}
#: (machine, batch): where the letters are compared.
PLACES = (("a100", 1), ("a100", 8), ("a100", 64), ("a100", 256), ("t4", 1), ("t4", 64), ("v100-sxm-16gb", 64))
BATCH = 64


def variants(bench: Bench, hw: str = "a100", batch: int = BATCH) -> dict[str, Analysis]:
    """The four networks in autocast fp16 and channels_last, by letter."""
    return {
        letter: bench.analysis(f"resnet50_{letter.lower()}", hw=hw, batch=batch, dtype="amp_fp16", layout="nhwc")
        for letter in VARIANTS
    }


@study("resnet_abcd")
def report(bench: Bench) -> Report:
    """FLOPs, time and causes from A to D on several machines and batch sizes."""
    found = variants(bench)
    splits = {letter: bench.split(a) for letter, a in found.items()}
    named = {f"ResNet-50-{letter}": a for letter, a in found.items()}
    named_splits = {f"ResNet-50-{letter}": s for letter, s in splits.items()}
    chapters = (
        _opening(bench),
        Document(
            f"Batch {BATCH} on an A100",
            (networks_table(named, named_splits), causes_table(named_splits, "From FLOPs to time")),
        ),
        Document("Stage by stage", by_stage([found["A"], found["D"]])),
        _added(found, splits),
        _places(bench),
        Document(
            "Conventions",
            (
                Notes(
                    (
                        PAPER,
                        "every run: autocast fp16, channels_last, eager PyTorch; predicted, nothing was run",
                        *found["A"].conventions,
                    )
                ),
            ),
        ),
    )
    return Report(chapters, {"resnet_abcd.svg": _figure(found, splits)})


def ratios(bench: Bench, hw: str, batch: int) -> tuple[float, float]:
    """(FLOPs, time) of D over A."""
    found = variants(bench, hw, batch)
    return found["D"].totals.flops / found["A"].totals.flops, found["D"].latency / found["A"].latency


def _opening(bench: Bench) -> Document:
    flops, one = ratios(bench, "a100", 1)
    _, many = ratios(bench, "a100", 256)
    waits = bench.split(variants(bench, "a100", 1)["D"])
    cheap = [place for place in PLACES if ratios(bench, *place)[1] < (1 + flops) / 2]
    shares = [bench.split(variants(bench, *place)["D"]) for place in cheap]
    host = [found.seconds("host") / found.latency_s for found in shares]
    where = (
        f"Of the places below it is well under the FLOPs at {listed([f'batch {b} on {hw}' for hw, b in cheap])}, "
        f"where the GPU waits for the host for {percent(min(host))} to {percent(max(host))} of the time."
        if cheap
        else "In none of the places below is it well under the FLOPs."
    )
    text = (
        f"ResNet-50-D has {more(flops)} FLOPs than ResNet-50-A. The paper rounds them to 3.8 and 4.3 G, 13 % more, and "
        "says that training is about 3 % slower. Is work so cheap? That depends on what the machine waits for. At "
        "batch 1 an A100 waits for Python "
        f"for {percent(waits.seconds('host') / waits.latency_s)} of D's time, and D is {slower(one)}: what counts is "
        f"the number of operators. At batch 256 the GPU is busy, and D is {slower(many)}. {_reason(bench)} {where}"
    )
    figure = Figure("figures/resnet_abcd.svg", f"Time by kind of operator, A to D, batch {BATCH} on an A100")
    title = f"ResNet-50 A, B, C, D: what {100 * (flops - 1):.0f} % more FLOPs cost"
    return Document(title, (Paragraph(text), figure))


def _reason(bench: Bench) -> str:
    """Which kinds of operators the added time is in, at a batch that keeps the GPU busy."""
    found = variants(bench)
    added = _added_rows(found, {letter: bench.split(a) for letter, a in found.items()})
    convs = [row for row in added if "convolution" in row["kind"]]
    first = max((row for row in added if row not in convs), key=lambda row: row["us"])
    return (
        f"The convolutions have {percent(sum(r['flops'] for r in convs))} of the added FLOPs and "
        f"{percent(sum(r['time'] for r in convs))} of the added time at batch {BATCH}; {first['kind']} alone, next "
        f"to nothing in FLOPs, has {percent(first['time'])}."
    )


def _by_kind(analysis: Analysis, found: Split) -> dict[str, float]:
    kinds, on_device = kind_of(analysis), device_seconds(analysis, found)
    sums: dict[str, float] = {}
    for name, value in on_device.items():
        sums[kinds[name]] = sums.get(kinds[name], 0.0) + value
    return sums


def _added_rows(found: Mapping[str, Analysis], splits: Mapping[str, Split]) -> list[dict[str, Any]]:
    """From A to D, kind by kind: FLOPs and seconds added."""
    flops = {letter: _flops_by_kind(found[letter]) for letter in "AD"}
    times = {letter: _by_kind(found[letter], splits[letter]) for letter in "AD"}
    more_flops = found["D"].totals.flops - found["A"].totals.flops
    more_time = splits["D"].busy_s - splits["A"].busy_s
    rows: list[dict[str, Any]] = []
    for kind in times["D"]:
        added, taken = flops["D"].get(kind, 0) - flops["A"].get(kind, 0), times["D"][kind] - times["A"].get(kind, 0.0)
        rows.append({"kind": kind, "flops": added / more_flops, "us": 1e6 * taken, "time": taken / more_time})
    return [row for row in rows if row["flops"] or row["us"]]


def _added(found: Mapping[str, Analysis], splits: Mapping[str, Split]) -> Document:
    text = (
        "Differences between the two networks, kind by kind: D has other convolutions than A, not A's and some more, "
        "so a row is no rate at which anything runs."
    )
    table = Table(
        columns=(
            text_column("kind", "kind of operator"), share_column("flops", "of the added FLOPs"),
            number_column("us", "added time", "µs", decimals=0), share_column("time", "of the added time"),
        ),
        rows=tuple(_added_rows(found, splits)),
    )  # fmt: skip
    return Document(f"What D adds to A at batch {BATCH}", (Paragraph(text), table))


def _flops_by_kind(analysis: Analysis) -> dict[str, int]:
    kinds, sums = kind_of(analysis), dict[str, int]()
    for row in analysis.rows():
        sums[kinds[row.name]] = sums.get(kinds[row.name], 0) + row.flops
    return sums


def _places(bench: Bench) -> Document:
    rows = []
    for hw, batch in PLACES:
        found = variants(bench, hw, batch)
        flops, time = ratios(bench, hw, batch)
        waits = bench.split(found["D"]).seconds("host") / found["D"].latency
        rows.append({"hw": hw, "batch": batch, "a": 1e3 * found["A"].latency, "d": 1e3 * found["D"].latency,
                     "flops": flops - 1, "time": time - 1, "host": waits})  # fmt: skip
    table = Table(
        columns=(
            text_column("hw", "machine"), number_column("batch", "batch", decimals=0),
            number_column("a", "A", "ms", decimals=2), number_column("d", "D", "ms", decimals=2),
            share_column("flops", "more FLOPs"), share_column("time", "more time"),
            share_column("host", "D waits for the host"),
        ),
        rows=tuple(rows),
    )  # fmt: skip
    return Document("D over A by machine and batch", (table,))


def _figure(found: Mapping[str, Analysis], splits: Mapping[str, Split]) -> str:
    rows = {
        f"{letter}: {VARIANTS[letter]}": {
            k: 1e3 * v for k, v in sorted(_by_kind(found[letter], splits[letter]).items())
        }
        for letter in VARIANTS
    }
    return bars(rows, "ms", f"Time on the device, batch {BATCH}, A100, autocast fp16", decimals=2)
