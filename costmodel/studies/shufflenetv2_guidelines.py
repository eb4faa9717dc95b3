"""ShuffleNet V2's four guidelines: equal FLOPs, unequal speed, measured by the paper, explained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from costmodel.analysis import Analysis
from costmodel.report.columns import number_column, text_column
from costmodel.report.document import Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import pairs
from costmodel.studies.bench import Bench
from costmodel.studies.registry import Report, study
from costmodel.studies.tables import causes_table
from costmodel.studies.words import listed

__all__ = ["CASES", "PAPER", "Case", "off_by", "report", "speed"]

PAPER = "Ma, Zhang, Zheng, Sun: ShuffleNet V2, arXiv:1807.11164, tables 1 to 4, GTX 1080Ti"
MACHINE, BATCH = "gtx1080ti", 1


class Case(NamedTuple):
    """A design against the reference of its table: batches a second over the reference's as the paper measured them,
    a range over the widths that it tried or one."""

    guideline: str
    what: str
    network: str
    reference: str
    measured: tuple[float, ...]


#: Ratios of the paper's tables; table 4 gives 2,842 / 2,427, 2,376 / 2,066 and 1,782 / 1,436 at 32, 64, 128 channels.
CASES = (
    Case("G1", "channels 1:12 instead of 1:1", "g1_1to12", "g1_1to1", (0.51,)),
    Case("G2", "8 groups instead of 1", "g2_8groups", "g2_1groups", (0.26,)),
    Case("G3", "four fragments in series instead of one", "g3_4fragment_series", "g3_1fragment", (0.31,)),
    Case("G4", "neither ReLU nor shortcut instead of both", "g4_plain", "g4_relu_shortcut", (1.15, 1.24)),
)
MEANINGS = {
    "G1": ("Equal channel width minimizes memory access cost",
           "At equal MACs, h·w·(c1 + c2) + c1·c2 is smallest where c1 = c2 (proved in published_figures.md, A14)."),
    "G2": ("Excessive group convolution increases memory access cost",
           "Groups divide the MACs of a layer; spending them on more channels makes every tensor larger."),
    "G3": ("Fragmentation reduces parallelism",
           "Small operators leave units idle, and each is another start, another bias and another trip through "
           "memory."),
    "G4": ("Element-wise operations are not negligible",
           "ReLU and additions have almost no FLOPs and move whole tensors."),
}  # fmt: skip


def micro(bench: Bench, name: str, *, hw: str = MACHINE, batch: int = BATCH) -> Analysis:
    """A micro-network of the paper."""
    return bench.analysis(f"zoo:shufflenetv2_{name}", hw=hw, batch=batch)


def speed(bench: Bench, case: Case, *, on_device: bool = False, **where: Any) -> float:
    """Predicted steps a second over the reference's, as the paper gives them: nothing is scaled to equal MACs.

    ``on_device`` leaves out the time in which the GPU waits for Python, as a leaner framework would.
    """

    def rate(name: str) -> float:
        analysis = micro(bench, name, **where)
        return 1 / (bench.split(analysis).busy_s if on_device else analysis.latency)

    return rate(case.network) / rate(case.reference)


@study("shufflenetv2_guidelines")
def report(bench: Bench) -> Report:
    """The four guidelines, each with its micro-networks, causes and the paper's measurement."""
    chapters = [_opening(bench), *(_guideline(bench, case) for case in CASES), _elsewhere(bench)]
    notes = Notes(
        (
            PAPER,
            "fp32, eager PyTorch, 56x56 maps, ten blocks; predicted, nothing was run",
            *micro(bench, "g1_1to1").conventions,
        )
    )
    return Report((*chapters, Document("Conventions", (notes,))), {"shufflenetv2_guidelines.svg": _figure(bench)})


def measured_text(measured: Sequence[float]) -> str:
    """A measured ratio, or the ends of a range."""
    return " to ".join(f"{value:.2f}" for value in measured)


def _opening(bench: Bench) -> Document:
    found = {case.guideline: (speed(bench, case), speed(bench, case, on_device=True)) for case in CASES}
    right = [c for c in CASES if all((ours < 1) == (c.measured[0] < 1) for ours in found[c.guideline])]
    measured = listed([f"{measured_text(c.measured)} ({c.guideline})" for c in CASES])
    predicted = listed([f"{found[c.guideline][0]:.2f} ({c.guideline})" for c in CASES])
    device = listed([f"{found[c.guideline][1]:.2f}" for c in CASES])
    text = (
        "Four pairs of small networks, the two of a pair with FLOPs that are equal within 5 %. If FLOPs set the time, "
        f"they would be about equally fast. On a GTX 1080Ti the paper measured these ratios of speed: {measured}. From "
        f"operators and a datasheet the analyzer predicts {predicted} for eager PyTorch, and {device} for the "
        f"GPU alone: both on the right side of 1 in {len(right)} of {len(CASES)}, "
        f"PyTorch off by up to {_furthest(found, 0):.1f} times and "
        f"the GPU alone by up to {_furthest(found, 1):.1f} times. What it adds is the reason: which "
        "microseconds they are."
    )
    rows = [
        {"g": c.guideline, "what": c.what, "measured": measured_text(c.measured), "ours": found[c.guideline][0],
         "device": found[c.guideline][1], "batch8": speed(bench, c, batch=8),
         "a100": speed(bench, c, hw="a100", batch=64)}
        for c in CASES
    ]  # fmt: skip
    table = Table(
        columns=(
            text_column("g", "rule"), text_column("what", "changed at (nearly) equal FLOPs"),
            text_column("measured", "measured speed (×)"), number_column("ours", "PyTorch", "×", decimals=2),
            number_column("device", "GPU alone", "×", decimals=2),
            number_column("batch8", "at batch 8", "×", decimals=2),
            number_column("a100", "A100, batch 64", "×", decimals=2),
        ),
        rows=tuple(rows),
    )  # fmt: skip
    figure = Figure("figures/shufflenetv2_guidelines.svg", "Measured and predicted speed at equal FLOPs")
    return Document(
        "ShuffleNet V2's guidelines: equal FLOPs, unequal speed",
        (Paragraph(text), figure, table, Paragraph(_batch(bench))),
    )


def off_by(ours: float, measured: Sequence[float]) -> float:
    """The factor by which a prediction is off a measured ratio, or the nearer end of a range; 1 within the range.

    >>> off_by(1.2, (1.15, 1.24)), off_by(0.6, (0.3,))
    (1.0, 2.0)
    """
    return max(min(measured) / ours, ours / max(measured), 1.0)


def _furthest(found: Mapping[str, tuple[float, float]], which: int) -> float:
    """The factor by which one of the two predictions, PyTorch or the GPU alone, is off in the worst case."""
    return max(off_by(found[case.guideline][which], case.measured) for case in CASES)


#: Table 1, first row: channels 1:1 on the GPU, in batches a second.
FIRST_ROW_PER_S = 1480


def _batch(bench: Bench) -> str:
    """Which batches the paper can have used: its tables do not say."""
    flops = micro(bench, "g1_1to1", batch=1).totals.flops
    peak = micro(bench, "g1_1to1").hardware.peak("vector", "fp32").flop_per_s
    needs = [batch * flops * FIRST_ROW_PER_S for batch in (1, 8)]
    verdict = "more than" if needs[1] > peak else "within"
    most = int(peak / needs[0])
    return (
        f"The paper's tables do not state the batch. Their first row, {FIRST_ROW_PER_S:,} batches/s, is "
        f"{needs[0] / 1e12:.1f} TFLOP/s at batch 1 and {needs[1] / 1e12:.0f} TFLOP/s at batch 8, {verdict} the "
        f"card's peak of {peak / 1e12:.0f}: no batch above {most} fits under it, and this page takes one picture. The "
        "framework is not PyTorch, hence the column for the GPU alone."
    )


def _guideline(bench: Bench, case: Case) -> Document:
    title, meaning = MEANINGS[case.guideline]
    here, there = micro(bench, case.network), micro(bench, case.reference)
    splits = {_short(case.reference): bench.split(there), _short(case.network): bench.split(here)}
    grown = {
        share.label: share.seconds - next((s.seconds for s in bench.split(there).causes if s.cause == share.cause), 0.0)
        for share in bench.split(here).causes
    }
    change = here.latency - there.latency
    largest = sorted(grown, key=lambda label: -abs(grown[label]))[:3]
    worst = sorted(largest, key=lambda label: -grown[label] / change)
    moved = here.totals.traffic_bytes / there.totals.traffic_bytes
    text = (
        f"{meaning} {case.what[0].upper()}{case.what[1:]}: {here.totals.macs / there.totals.macs:.2f} times the "
        f"MACs, {moved:.2f} times the traffic, {here.totals.kernels / there.totals.kernels:.2f} times the kernels, "
        f"{here.latency / there.latency:.2f} times the time. Of the {1e6 * abs(change):,.0f} µs "
        f"{'more' if change > 0 else 'less'}, "
        f"{listed([f'{1e6 * grown[label]:+,.0f} µs are {label}' for label in worst])}."
    )
    return Document(f"{case.guideline}: {title}", (Paragraph(text), causes_table(splits)))


def _short(name: str) -> str:
    return name.partition("_")[2].replace("_", " ")


def _elsewhere(bench: Bench) -> Document:
    names = [f"g1_{r}" for r in ("1to1", "1to2", "1to6", "1to12")] + [f"g2_{g}groups" for g in (1, 2, 4, 8)]
    names += [
        "g3_1fragment",
        "g3_2fragment_series",
        "g3_4fragment_series",
        "g3_2fragment_parallel",
        "g3_4fragment_parallel",
    ]
    names += ["g4_relu_shortcut", "g4_relu", "g4_shortcut", "g4_plain"]
    rows = []
    for name in names:
        first, here = micro(bench, next(n for n in names if n[:2] == name[:2])), micro(bench, name)
        rows.append(
            {"name": name.replace("_", " "), "macs": here.totals.macs / first.totals.macs,
             "traffic": here.totals.traffic_bytes / first.totals.traffic_bytes, "kernels": here.totals.kernels,
             "step": 1e6 * here.latency, "device": 1e6 * bench.split(here).busy_s,
             "a100": 1e6 * micro(bench, name, hw="a100", batch=64).latency}
        )  # fmt: skip
    table = Table(
        columns=(
            text_column("name", "micro-network"), number_column("macs", "MACs", "× first", decimals=2),
            number_column("traffic", "traffic", "× first", decimals=2), number_column("kernels", "kernels", decimals=0),
            number_column("step", "GTX 1080Ti, batch 1", "µs", decimals=0),
            number_column("device", "GPU alone", "µs", decimals=0),
            number_column("a100", "A100, batch 64", "µs", decimals=0),
        ),
        rows=tuple(rows),
    )  # fmt: skip
    return Document("All micro-networks", (table,))


def _figure(bench: Bench) -> str:
    rows = {
        f"{c.guideline}: {c.what}": (
            sum(c.measured) / len(c.measured),
            speed(bench, c),
            speed(bench, c, on_device=True),
        )
        for c in CASES
    }
    series = ("measured (paper)", "predicted, PyTorch", "predicted, GPU alone")
    return pairs(rows, series, "speed over the reference; 1 by FLOPs", "Speed at equal FLOPs, GTX 1080Ti")
