"""Every published claim: what was published, what the analyzer finds, agrees or corrected, and why."""

from __future__ import annotations

from costmodel.report.document import Block, Document, Figure, Notes, Paragraph
from costmodel.report.figures import pairs
from costmodel.studies import char_cnn, section_a, section_b, section_d, speed_lines, vgg_vs_googlenet_stem
from costmodel.studies.bench import Bench
from costmodel.studies.claim_lines import Line, lines_table, tally
from costmodel.studies.registry import Report, study

__all__ = ["report", "sections"]

SPEED = (
    "The claims about speed, and below the table what the analyzer finds in each. Times are predicted, nothing was "
    "run; a claim that holds in one place may differ in another."
)

SOURCES = (
    "convolution arithmetic: MobileNet arXiv:1704.04861, VGG arXiv:1409.1556, ShuffleNet V2 arXiv:1807.11164, "
    "squeeze-and-excitation arXiv:1709.01507, and lectures and articles that teach it",
    "networks: their papers, torchvision's and timm's tables; 224x224 unless said; counts are MACs where it says MAC",
    "parameters count every weight once, batch normalization's two a channel included, its running statistics not",
)


def sections(bench: Bench) -> dict[str, list[Line]]:
    """Sections A to C as lines, by title."""
    return {
        "A: convolution arithmetic, in symbols": section_a.lines(bench),
        "B: networks": section_b.lines(bench),
        "B: shares and ratios": [*section_b.share_lines(bench), *char_cnn.lines(bench)],
        "C: a lecture's table of stems": vgg_vs_googlenet_stem.lines(bench),
    }


@study("published_figures")
def report(bench: Bench) -> Report:
    """All claims, the corrected ones first."""
    found = sections(bench)
    tables = [Document(title, _lines(lines)) for title, lines in found.items()]
    speeds = speed_lines.lines(bench)
    speed = Document("D: where FLOPs mislead", (Paragraph(SPEED), *_lines(speeds), *section_d.passages(bench)))
    chapters = (_opening(found, speeds), *tables, speed, Document("Sources", (Notes(SOURCES),)))
    return Report(chapters, {"published_figures.svg": _figure(bench)})


def _lines(lines: list[Line]) -> tuple[Block, ...]:
    """The claims as a table that fits a screen, and below it how each figure comes about."""
    how = tuple(f"{line.number}: {line.derivation}" for line in lines if line.derivation)
    return (lines_table(lines, derived=False), *[Notes(how, title="How")] * bool(how))


def _opening(found: dict[str, list[Line]], speeds: list[Line]) -> Document:
    lines = [line for section in found.values() for line in section]
    counts = tally(lines)
    wrong = list({line.claim: line for line in lines if line.verdict == "corrected"}.values())
    text = (
        "The literature on efficient CNNs, and the lectures and articles that teach it, make the claims below. Of "
        f"{len(lines) - counts.get('counted', 0)} figures, {counts.get('agrees', 0)} come out of the analyzer as "
        f"published and {len(wrong)} do not; for those the table says what was published, what is right, and below it "
        f"how the error came about. Of {len(speeds)} further claims, about speed (section D), the predictions bear out "
        f"{tally(speeds).get('agrees', 0)} and differ from {tally(speeds).get('differs', 0)}. Every network "
        "is analyzed by its name, with a formula for each of its operators. The most quoted one is SqueezeNet's: fifty "
        "times fewer weights than AlexNet, and not less work but "
        f"{_squeezenet(lines)} as much."
    )
    how = [Notes(tuple(f"{line.number}: {line.derivation}" for line in wrong), title="How the errors came about")]
    figure = Figure(
        "figures/published_figures.svg", "Parameters and MACs of six networks, in multiples of AlexNet's",
        "Weights and work are two things: SqueezeNet has a fiftieth of AlexNet's weights and more MACs.",
    )  # fmt: skip
    return Document(
        "Published figures, recomputed", (Paragraph(text), lines_table(wrong, "Corrected", derived=False), *how, figure)
    )


def _squeezenet(lines: list[Line]) -> str:
    """What came out for SqueezeNet's computation."""
    return next(line.ours for line in lines if line.number == "SqueezeNet" and "computation" in line.claim)


def _figure(bench: Bench) -> str:
    base = bench.analysis("alexnet").totals
    names = {"SqueezeNet 1.0": "squeezenet", "ShuffleNet V2": "shufflenet_v2_x1_0", "MobileNet V2": "mobilenet_v2",
             "GoogLeNet": "googlenet", "ResNet-50": "resnet50", "VGG-16": "vgg16"}  # fmt: skip
    rows = {}
    for title, name in names.items():
        totals = bench.analysis(name).totals
        rows[title] = (totals.params / base.params, totals.macs / base.macs)
    return pairs(rows, ("parameters", "MACs"), "times AlexNet's", "Fewer weights are not less work: over AlexNet's")
