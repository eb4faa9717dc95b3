"""The page and the figures of the study `flops_mislead`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

from flops_mislead_nets import GPU
from flops_mislead_results import Outcome, Result

from costmodel.hardware import HardwareProfile
from costmodel.report.columns import number_column, quantity_column, text_column
from costmodel.report.document import Column, Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import pairs
from costmodel.units import format_percent

__all__ = ["figures", "page"]

PAPER = "Ma, Zhang, Zheng, Sun: ShuffleNet V2, ECCV 2018 (arXiv:1807.11164), tables 1 to 4"
WANTED = 0.9  # share of the pairs whose order is to be right


def page(hardware: HardwareProfile, found: Sequence[Outcome], rounds: int, disturbed: int) -> list[Document]:
    """The chapters of the page."""
    noise = noise_of(found)
    made = Notes(_conventions(hardware, found, rounds, disturbed, noise))
    return [
        Document("Where FLOPs mislead", (Paragraph(_opening(hardware, found, noise)), _orders(found, noise))),
        *(_chapter(outcome, noise) for outcome in found),
        Document("Widths that fill no block", (Paragraph(_missed(found, noise)), _missed_table(found))),
        Document("How this was measured", (made,)),
    ]


def noise_of(found: Sequence[Outcome]) -> float:
    """How far the medians of two halves of the rounds are apart, at the 90th percentile over all networks."""
    repeats = sorted(result.repeat for outcome in found for result in outcome.results)
    return repeats[int(0.9 * (len(repeats) - 1))]


def _opening(hardware: HardwareProfile, found: Sequence[Outcome], noise: float) -> str:
    apart, right = (sum(counts) for counts in zip(*(o.pairs(noise) for o in found), strict=True))
    four = [o for o in found if o.experiment.key in ("G1", "G2", "G3", "G4")]
    apart_four, right_four = (sum(counts) for counts in zip(*(o.pairs(noise) for o in four), strict=True))
    slowest = max(
        (max(r.measured_s for r in o.results) / min(r.measured_s for r in o.results), o.experiment.title)
        for o in found
        if o.experiment.equal_flops
    )
    by_flops, equal = (sum(counts) for counts in zip(*(o.by_flops(noise) for o in found), strict=True))
    verdict = "as asked for" if right_four >= WANTED * apart_four else "fewer than asked for"
    return (
        f"{len({r.cpu.name for o in found for r in o.results})} small networks in {len(found)} experiments, each a "
        "set of variants that FLOPs call equal or put in an order. They were predicted from their operators and a "
        f"machine's profile, and measured on {hardware.title} with PyTorch in eager mode at batch 1. Networks of equal "
        f"FLOPs differed by up to {slowest[0]:.1f} times ({slowest[1]}). Of the pairs in ShuffleNet V2's four "
        f"experiments that differ by more than the noise of {format_percent(noise)}, the predicted order is the "
        f"measured one in {right_four} of {apart_four} ({format_percent(right_four / apart_four)}; {verdict}: "
        f"{format_percent(WANTED)}), and in {right} of {apart} ({format_percent(right / apart)}) over all experiments. "
        f"FLOPs alone order {by_flops} of the {apart} ({format_percent(by_flops / apart)}) and call {equal} equal."
    )


def _orders(found: Sequence[Outcome], noise: float) -> Table:
    rows = []
    for outcome in found:
        apart, right = outcome.pairs(noise)
        errors = [abs(r.cpu.latency / r.measured_s - 1) for r in outcome.results]
        count = len(outcome.results)
        rows.append(
            {"experiment": outcome.experiment.title, "pairs": count * (count - 1) // 2, "apart": apart,
             "right": right, "flops": outcome.by_flops(noise)[0],
             "error": 100 * statistics.median(errors), "worst": 100 * max(errors)}
        )  # fmt: skip
    columns = (
        text_column("experiment", "experiment"), number_column("pairs", "pairs", decimals=0),
        number_column("apart", "differ", decimals=0), number_column("right", "order right", decimals=0),
        number_column("flops", "by FLOPs", decimals=0),
        number_column("error", "median error", "%"), number_column("worst", "largest error", "%"),
    )  # fmt: skip
    return Table(columns=columns, rows=tuple(rows), title="Order of the variants, and error of the predicted times")


def _chapter(outcome: Outcome, noise: float) -> Document:
    experiment = outcome.experiment
    figure = f"figures/flops_mislead_{experiment.key.lower()}.svg"
    text = f"{experiment.question} {_sentence(outcome)} {_missed_most(outcome, noise)}"
    return Document(experiment.title, (Paragraph(text), Figure(figure, f"{experiment.title}: speed"), _table(outcome)))


# -- widths that are no multiple of the vector width -------------------------------------------------

LANES = 8  # fp32 lanes of AVX2, and channels of a block in oneDNN's layout aBcd8b


def _is_ragged(result: Result) -> bool:
    """Whether a convolution reads or writes maps whose channels are no multiple of 8 (a picture's three aside)."""
    graph = result.cpu.bound
    for node in graph.nodes:
        if "conv" in node.op:
            weight = graph.arguments(graph.calls[node.call])["weight"].shape
            groups = graph.arguments(graph.calls[node.call]).get("groups", 1)
            if any(width % LANES and width != 3 for width in (weight[0], weight[1] * groups)):
                return True
    return False


def _parts(found: Sequence[Outcome]) -> dict[str, list[Result]]:
    """Every network once, by whether all its channels fill whole blocks."""
    once = {r.cpu.name: r for o in found for r in o.results}.values()
    return {
        "multiples of 8": [r for r in once if not _is_ragged(r)],
        "others": [r for r in once if _is_ragged(r)],
    }


def _missed(found: Sequence[Outcome], noise: float) -> str:
    even = [(o, o.without(_is_ragged)) for o in found]
    apart, right = (sum(counts) for counts in zip(*(o.pairs(noise) for _, o in even), strict=True))
    return (
        "oneDNN's convolutions work on blocks of 8 channels (layout aBcd8b). Where a width is no multiple of 8, the "
        "blocks are padded and a general reorder (jit:uni in the lines of ONEDNN_VERBOSE=1) takes the place of the "
        "fast one (jit:blk) on either side of it; in groups, another algorithm runs (gemm). 90 and 180 channels, "
        "which G1 to G3 take to keep FLOPs equal, are such widths. These measurements showed it, and the prediction "
        "took it over afterwards (calibration times such reorders by themselves: they are about three times slower), "
        "so the order of the variants is no independent test of it. "
        f"Among networks whose widths are all multiples of 8 the order is right in {right} of {apart} pairs "
        f"({format_percent(right / apart)})."
    )


def _missed_table(found: Sequence[Outcome]) -> Table:
    rows = [
        {
            "what": what,
            "count": len(results),
            "error": 100 * statistics.median(abs(r.cpu.latency / r.measured_s - 1) for r in results),
            "bias": 100 * (statistics.median(r.cpu.latency / r.measured_s for r in results) - 1),
        }
        for what, results in _parts(found).items()
        if results
    ]
    columns = (
        text_column("what", "channels"), number_column("count", "networks", decimals=0),
        number_column("error", "median error", "%"), number_column("bias", "bias", "%"),
    )  # fmt: skip
    return Table(columns=columns, rows=tuple(rows))


def _sentence(outcome: Outcome) -> str:
    """What was found: the variant furthest from what FLOPs say, and what is different about it."""
    first = outcome.results[0]
    factor = {r.name: _surplus(r, first) for r in outcome.results[1:]}
    worst = max(outcome.results[1:], key=lambda r: abs(factor[r.name] - 1))
    more = "longer" if factor[worst.name] > 1 else "shorter"
    times = factor[worst.name] if factor[worst.name] > 1 else 1 / factor[worst.name]
    moved = worst.cpu.totals.traffic_bytes / first.cpu.totals.traffic_bytes
    return (
        f"Furthest from what its FLOPs say is '{worst.name}': {times:.2f} times {more} for each FLOP than "
        f"'{first.name}' (predicted {_ratio(_surplus(worst, first, predicted=True), factor[worst.name] > 1):.2f}), "
        f"with {moved:.2f} times the bytes moved and {worst.cpu.totals.kernels} kernels to {first.cpu.totals.kernels}."
    )


def _missed_most(outcome: Outcome, noise: float) -> str:
    """How well the prediction does here: pairs in order, the variant furthest off, and the largest step of a series."""
    apart, right = outcome.pairs(noise)
    worst = max(outcome.results, key=lambda r: abs(r.cpu.latency / r.measured_s - 1))
    text = (
        f"The predicted order is right in {right} of {apart} pairs; furthest off is '{worst.name}', predicted at "
        f"{worst.cpu.latency / worst.measured_s:.2f} of its time."
    )
    if outcome.experiment.key != "channels":
        return text
    before, after = max(pairwise(outcome.results), key=lambda pair: pair[1].measured_s / pair[0].measured_s)
    measured, predicted = after.measured_s / before.measured_s, after.cpu.latency / before.cpu.latency
    missed = ": what a block of padded channels costs is underestimated" if measured > 1.1 * predicted else ""
    return (
        f"{text} The step from {before.name} to {after.name} channels is {measured:.2f} times measured and "
        f"{predicted:.2f} predicted{missed}."
    )


def _ratio(surplus: float, longer: bool) -> float:
    return surplus if longer else 1 / surplus


def _surplus(result: Result, first: Result, predicted: bool = False) -> float:
    """Time for each MAC over that of the reference; 1 where FLOPs tell the truth."""
    flops = result.cpu.totals.macs / first.cpu.totals.macs
    times = result.cpu.latency / first.cpu.latency if predicted else result.measured_s / first.measured_s
    return times / flops


def _rows(outcome: Outcome) -> list[dict[str, object]]:
    first = outcome.results[0]
    rows = []
    for r in outcome.results:
        row: dict[str, object] = {
            "name": r.name,
            "gflops": r.cpu.totals.flops / 1e9,
            "traffic": r.cpu.totals.traffic_bytes / 1e6,
            "measured_s": r.measured_s,
            "predicted_s": r.cpu.latency,
            "ratio": r.cpu.latency / r.measured_s,
            "by_flops": first.cpu.totals.macs / r.cpu.totals.macs,
            "measured_speed": first.measured_s / r.measured_s,
            "predicted_speed": first.cpu.latency / r.cpu.latency,
            "gpu_speed": first.gpu.latency / r.gpu.latency,
        }
        if r.published_gpu is not None:
            row |= {"published_gpu": r.published_gpu, "published_arm": r.published_arm}
        rows.append(row)
    return rows


def _table(outcome: Outcome) -> Table:
    rows = _rows(outcome)
    times = [float(row[key]) for row in rows for key in ("measured_s", "predicted_s")]  # type: ignore[arg-type]
    columns: list[Column] = [
        text_column("name", "variant"),
        number_column("gflops", "GFLOP", decimals=2),
        number_column("traffic", "moved", "MB"),
        quantity_column("measured_s", "measured", "s", times),
        quantity_column("predicted_s", "predicted", "s", times),
        number_column("ratio", "pred./meas.", decimals=2),
        number_column("by_flops", "speed by FLOPs", "×", decimals=2),
        number_column("measured_speed", "measured", "×", decimals=2),
        number_column("predicted_speed", "predicted", "×", decimals=2),
        number_column("gpu_speed", f"predicted {GPU}", "×", decimals=2),
    ]
    if "published_gpu" in rows[0]:
        columns.append(number_column("published_gpu", "published GTX 1080Ti", "×", decimals=2))
        columns.append(number_column("published_arm", "published ARM", "×", decimals=2))
    return Table(columns=tuple(columns), rows=tuple(rows))


def figures(found: Sequence[Outcome]) -> dict[str, str]:
    """One figure an experiment: speed over the reference, by FLOPs, measured, predicted, published."""
    drawn = {}
    for outcome in found:
        keys = {
            "by_flops": "by FLOPs",
            "measured_speed": "measured, this CPU",
            "predicted_speed": "predicted, this CPU",
            "gpu_speed": "predicted, GTX 1080Ti",
        }
        rows = _rows(outcome)
        if "published_gpu" in rows[0]:
            keys["published_gpu"] = "published, GTX 1080Ti"
        values = {str(row["name"]): tuple(float(row[key]) for key in keys) for row in rows}  # type: ignore[arg-type]
        axis = f"speed over '{outcome.results[0].name}'"
        text = pairs(values, tuple(keys.values()), axis, outcome.experiment.title)
        drawn[f"flops_mislead_{outcome.experiment.key.lower()}.svg"] = text
    return drawn


def _conventions(
    hardware: HardwareProfile, found: Sequence[Outcome], rounds: int, disturbed: int, noise: float
) -> tuple[str, ...]:
    from costmodel.measure.latency import last_level_cache_bytes

    half = statistics.median(r.repeat for o in found for r in o.results)
    cores = hardware.unit_count
    return (
        f"the machine: {hardware.title}, {cores} cores used, last level cache "
        f"{last_level_cache_bytes() >> 20} MiB (shared with other guests of its host)",
        f"predictions for it use the profile that costmodel calibrate wrote there: {_calibrated(hardware)}",
        "a round calls every network once to warm its caches and twice timed, the networks in a new random order; "
        f"{rounds} rounds count, {disturbed} in which other processes used the cores do not; medians over rounds",
        "moved: bytes that the kernels of the prediction read and write, on this CPU with its reorders into and out of "
        "blocked layouts; so it differs from the traffic of the same networks on a GPU (shufflenetv2_guidelines.md)",
        f"noise: the medians of odd and even rounds are {format_percent(half)} apart at the median network and "
        f"{format_percent(noise)} at the 90th percentile; a pair counts where it differs by more than the latter",
        f"published: {PAPER}; speeds over the first row of each table, GTX 1080Ti and an ARM core; the paper's "
        "networks for ARM are narrower, so that only ratios compare, and its framework is not PyTorch",
        "fp32, row-major tensors, eager mode, batch 1, inference; 2 FLOPs for a MAC; no normalization in stacks",
        "measured numbers are not the same twice: python benchmarks/flops_mislead.py measures and writes this page",
    )


def _calibrated(hardware: HardwareProfile) -> str:
    peak = hardware.find_peak("vector", "fp32")
    return "" if peak is None else f"{peak.flop_per_s / 1e9:.0f} GFLOP/s, {hardware.dram_bytes_per_s / 1e9:.0f} GB/s"
