"""Write reports/accuracy_cpu.md: eager fp32 predictions with a calibrated profile against this CPU's own timings.

    costmodel calibrate -o my_machine.toml
    python benchmarks/accuracy_cpu.py my_machine.toml --store FOLDER --measure 170      # again and again, in portions
    python benchmarks/accuracy_cpu.py my_machine.toml --store FOLDER --report-only

``--measure SECONDS`` adds visits to ``FOLDER``: a visit is one model in all conditions, the models with the fewest
visits first, in random order; batch 8, which takes longest, is measured every second time. Visits are spread in time
because a shared machine is slower in some minutes than in others; the median over visits is what predictions are held
against, and the difference between the medians of the even and the odd visits is the repeat noise. Calls during which
other processes used the cores are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpu_models import FAMILIES, is_development

from costmodel.analysis import Analysis
from costmodel.errors import CostmodelError
from costmodel.execution import Execution, Variant
from costmodel.hardware import HardwareProfile, load
from costmodel.hardware.read import read_raw
from costmodel.report import Document
from costmodel.report.as_markdown import render_markdown
from costmodel.report.columns import number_column, share_column, text_column
from costmodel.report.document import Block, KeyValues, Notes, Paragraph, Table
from costmodel.report.output import put
from costmodel.traced import load_trace
from costmodel.validate.statistics import quantile, score

#: Condition -> (words, batch, layout, image edge in pixels; None: the model's own).
CONDITIONS: dict[str, tuple[str, int, str, int | None]] = {
    "b1": ("batch 1", 1, "nchw", None),
    "small": ("batch 1, 128 px", 1, "nchw", 128),
    "b8": ("batch 8", 8, "nchw", None),
    "nhwc": ("batch 1, channels_last", 1, "nhwc", None),
}
#: Share of the cores [1] that others may use during a group of calls that counts, beside what rounding to ticks makes.
MOST_OTHERS = 0.03
#: A group of calls lasts so long, so that ticks can tell; a condition is given up after this [s].
_LEAST_GROUP_S, _MOST_SECONDS = 0.2, 12.0
TARGETS = {"b1": (0.08, 0.18), "small": (0.08, 0.18), "b8": (0.10, 0.22), "nhwc": (0.10, 0.22)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", type=Path, help="what `costmodel calibrate` wrote on this machine")
    parser.add_argument("--store", type=Path, required=True, metavar="FOLDER", help="where measured visits are kept")
    parser.add_argument("--measure", type=float, metavar="SECONDS", help="measure for so long, then end")
    parser.add_argument("--report-only", action="store_true", help="write the report from what was measured")
    parser.add_argument("-o", "--output", type=Path, default=Path("reports/accuracy_cpu.md"), metavar="FILE")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.store, arguments.measure)
    if arguments.report_only or not arguments.measure:
        put(render_markdown(report(load(str(arguments.profile)), arguments.store)), arguments.output)
        print(f"wrote {arguments.output}", file=sys.stderr)
    return 0


# -- measuring ---------------------------------------------------------------------------------------


def measure(store: Path, seconds: float) -> None:
    """Visit models for about ``seconds``; each visit is appended to the model's file as it ends."""
    import torch

    store.mkdir(parents=True, exist_ok=True)
    torch.empty(32 * 2**20 - 2**16, dtype=torch.uint8)  # as at calibration: the mmap threshold rises to its ceiling
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        visits = {name: sum(row["cond"] == "b1" for row in _lines(store, name)) for name in FAMILIES}
        model = min(FAMILIES, key=lambda name: (visits[name], random.random()))  # noqa: S311 (no secret)
        rows = [_visit(model, condition) for condition in CONDITIONS if condition != "b8" or visits[model] % 2 == 0]
        with _file(store, model).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        print(model, *(f"{row['cond']} {statistics.median(row['ms']):.1f} ms" for row in rows if "ms" in row))


def _visit(model: str, condition: str) -> dict[str, Any]:
    """One model in one condition: milliseconds of each call, page faults a call, and who else used the cores."""
    import resource

    from costmodel.measure.latency import WarmUp, end_to_end
    from costmodel.measure.machine_cpu import busy_seconds
    from costmodel.measure.running import prepare

    _, batch, layout, edge = CONDITIONS[condition]
    try:
        model_run = prepare(model, Execution.of(batch=batch, layout=layout), image_size=edge)
        model_run.check()
    except CostmodelError as error:
        return {"cond": condition, "fail": str(error).splitlines()[0]}
    calls, no_warm_up = 0, WarmUp(window=1, least_calls=0, most_calls=0)

    def run() -> None:
        nonlocal calls
        calls += 1
        model_run.call()

    warm_up = WarmUp(window=1, tolerance=0.1, least_calls=2, most_calls=4)
    once = end_to_end(run, repeats=1, warm_up=warm_up, most_seconds=0.0, least_repeats=1).median_s
    group = max(1, math.ceil(_LEAST_GROUP_S / once))
    wanted, ends = (4 if batch > 1 else 9), time.monotonic() + _MOST_SECONDS
    samples: list[float] = []
    began, faults, calls = busy_seconds(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt, 0
    while len(samples) < wanted and time.monotonic() < ends:
        before = busy_seconds()
        taken = end_to_end(run, repeats=group, warm_up=no_warm_up, most_seconds=math.inf).samples_s
        if before.others_until(busy_seconds()) <= MOST_OTHERS:
            samples += taken
    if len(samples) < min(wanted, 3):
        return {"cond": condition, "fail": "other processes used the cores"}
    return {
        "cond": condition,
        "ms": [1e3 * sample for sample in samples],
        "faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / calls,
        "steal": began.stolen_until(busy_seconds()),
        "at": time.time(),
    }


def _file(store: Path, model: str) -> Path:
    return store / f"{model.replace(':', '__')}.jsonl"


def _lines(store: Path, model: str) -> list[dict[str, Any]]:
    path = _file(store, model)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


# -- judging -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One model in one condition: predicted and measured seconds, and the medians of its visits."""

    model: str
    condition: str
    predicted_s: float
    visits_s: tuple[float, ...]

    @property
    def measured_s(self) -> float:
        return statistics.median(self.visits_s)

    @property
    def ratio(self) -> float:
        return self.predicted_s / self.measured_s

    @property
    def repeat(self) -> float | None:
        """How far the median of the odd visits is from that of the even ones; None for a single visit."""
        if len(self.visits_s) < 2:
            return None
        return abs(statistics.median(self.visits_s[1::2]) / statistics.median(self.visits_s[::2]) - 1)


def judged(hardware: HardwareProfile, store: Path) -> Iterable[Judged]:
    """Everything that was measured undisturbed, with its prediction."""
    for model in FAMILIES:
        rows = [row for row in _lines(store, model) if "ms" in row and row.get("other", 0.0) <= 0.04]
        for condition in CONDITIONS:
            visits = tuple(statistics.median(row["ms"]) / 1e3 for row in rows if row["cond"] == condition)
            if visits:
                predicted = predict(model, condition, hardware)
                yield Judged(model=model, condition=condition, predicted_s=predicted, visits_s=visits)


def predict(model: str, condition: str, hardware: HardwareProfile) -> float:
    """Predicted seconds of one step."""
    _, batch, layout, edge = CONDITIONS[condition]
    sizes = {"height": edge, "width": edge} if edge else None
    trace = load_trace(model, variant=Variant(layout), sizes=sizes)
    execution = Execution.of(batch=batch, layout=layout)
    return Analysis(
        name=trace.name, source=trace.source, record=trace.graph, hardware=hardware, execution=execution
    ).latency


# -- the report --------------------------------------------------------------------------------------


def report(hardware: HardwareProfile, store: Path) -> Document:
    """The page: the machine, scores by condition and half, every model, conventions."""
    items = list(judged(hardware, store))
    blocks: list[Block] = [
        Paragraph(
            "Eager PyTorch on the CPU below, fp32, two threads, random weights: time of one step as predicted from a "
            "trace and a profile that costmodel calibrate wrote, against measured time. Constants come from "
            "micro-benchmarks of single operators; none was fitted to a model. The structure of the time model was "
            "chosen with the development half of the models in view; the other half was scored, and its scores "
            "and two listings of its models were seen on the way, so it is no untouched set."
        ),
        KeyValues(tuple(_machine(hardware))),
        _scores(items),
        Paragraph(_against_aims(_scores(items), _noise(items))),
        _noise(items),
        _models(items),
        Notes(_notes(items), title="How to read this"),
    ]
    return Document("Accuracy on a calibrated CPU", tuple(blocks))


def _machine(hardware: HardwareProfile) -> Iterable[tuple[str, str]]:
    raw: Mapping[str, Any] = read_raw(hardware.path)
    common = raw["calibration"]
    caches = (f"{level.upper()} {raw['memory'][level]['capacity']}" for level in ("l1", "l2", "l3")
              if level in raw["memory"])  # fmt: skip
    yield "CPU", f"{hardware.title}, {hardware.unit_count} cores, {raw['units'].get('simd', '')}"
    yield "caches", ", ".join(caches)
    yield "memory", f"{raw['memory']['dram'].get('capacity', '')}, {raw['memory']['dram']['bandwidth']} measured"
    yield "fp32 peak", f"{raw['vector']['fp32']['peak']} measured, {common['single_thread_peak']} on one thread"
    yield "calibration", common["source"]
    yield "its timings", f"{common['samples']:,}; spread {common['spread']:.0%}, drift {common['drift']:.0%}"


def _score_row(name: str, condition: str, items: Sequence[Judged]) -> dict[str, Any]:
    found = score([item.predicted_s for item in items], [item.measured_s for item in items])
    median, p90 = TARGETS[condition]
    families = {FAMILIES[item.model] for item in items}
    return {
        "condition": CONDITIONS[condition][0],
        "half": name,
        "models": len(items),
        "families": len(families),
        "median": found.median_ape,
        "p90": found.p90_ape,
        "bias": found.bias,
        "spearman": found.spearman,
        "target": f"{median:.0%} / {p90:.0%}",
    }


def _scores(items: Sequence[Judged]) -> Table:
    rows = []
    for condition in CONDITIONS:
        mine = [item for item in items if item.condition == condition]
        halves = {
            "all": mine,
            "development": [item for item in mine if is_development(item.model)],
            "test": [item for item in mine if not is_development(item.model)],
        }
        rows += [_score_row(name, condition, half) for name, half in halves.items() if half]
    columns = (
        text_column("condition", "condition"),
        text_column("half", "models of"),
        number_column("models", "models", decimals=0),
        number_column("families", "families", decimals=0),
        share_column("median", "median |error|"),
        share_column("p90", "p90 |error|"),
        share_column("bias", "bias"),
        number_column("spearman", "Spearman", decimals=3),
        text_column("target", "aim, median / p90"),
    )
    return Table(columns=columns, rows=tuple(rows), title="Errors")


def _against_aims(scores: Table, noise: Table) -> str:
    """Where the scores of all models meet their aims, and how large the repeat noise is beside the errors."""
    whole = [row for row in scores.rows if row["half"] == "all"]
    aims = {words: TARGETS[key] for key, (words, *_) in CONDITIONS.items()}
    median = [row["condition"] for row in whole if row["median"] <= aims[row["condition"]][0]]
    p90 = [row["condition"] for row in whole if row["p90"] <= aims[row["condition"]][1]]
    errors = ", ".join(f"{100 * row['median']:.1f}" for row in whole)
    repeats = ", ".join(f"{100 * row['repeat_median']:.1f}" for row in noise.rows)
    return (
        f"Over all models the median meets its aim in {len(median)} of {len(whole)} conditions, p90 in {len(p90)} "
        f"({'; '.join(p90) or 'none'}). The repeat noise is of the size of the error: odd and even visits differ by "
        f"{repeats} % at the median model, predictions err by {errors} %."
    )


def _noise(items: Sequence[Judged]) -> Table:
    rows = []
    for condition, (words, *_) in CONDITIONS.items():
        mine = [item for item in items if item.condition == condition]
        repeats = [item.repeat for item in mine if item.repeat is not None]
        single = [abs(v / item.measured_s - 1) for item in mine if len(item.visits_s) > 2 for v in item.visits_s]
        if mine:
            rows.append({
                "condition": words,
                "visits": statistics.mean(len(item.visits_s) for item in mine),
                "repeat_median": quantile(repeats, 0.5) if repeats else None,
                "repeat_p90": quantile(repeats, 0.9) if repeats else None,
                "single_median": quantile(single, 0.5) if single else None,
                "single_p90": quantile(single, 0.9) if single else None,
            })  # fmt: skip
    columns = (
        text_column("condition", "condition"),
        number_column("visits", "visits a model"),
        share_column("repeat_median", "odd against even visits, median"),
        share_column("repeat_p90", "p90"),
        share_column("single_median", "one visit against the median of all, median"),
        share_column("single_p90", "p90 of it"),
    )
    return Table(columns=columns, rows=tuple(rows), title="Repeat noise of the measurements")


def _models(items: Sequence[Judged]) -> Table:
    by_model: dict[str, dict[str, Any]] = {}
    for item in items:
        row = by_model.setdefault(
            item.model,
            {"model": item.model, "family": FAMILIES[item.model],
             "half": "development" if is_development(item.model) else "test"},
        )  # fmt: skip
        row[f"{item.condition}_measured"] = 1e3 * item.measured_s
        row[f"{item.condition}_ratio"] = item.ratio
    columns = [text_column("model", "model"), text_column("family", "family"), text_column("half", "half")]
    for condition, (words, *_) in CONDITIONS.items():
        columns.append(number_column(f"{condition}_measured", words, "ms"))
        columns.append(number_column(f"{condition}_ratio", "predicted / measured", decimals=2))
    return Table(columns=tuple(columns), rows=tuple(by_model.values()), title="Models")


def _notes(items: Sequence[Judged]) -> tuple[str, ...]:
    refused = sorted(set(FAMILIES) - {item.model for item in items if item.condition == "small"})
    return (
        "Error: |predicted / measured - 1|; bias: its signed median; Spearman: rank correlation over the models.",
        "Measured: the median over visits of the median of 9 calls (batch 8: 4) after warming up.",
        "The allocator is that of a process that has run for a while: one block of 32 MiB was freed before.",
        f"Not measured at 128 px, since they do not run at that size or were always disturbed: "
        f"{', '.join(name.partition(':')[2] for name in refused) or 'none'}.",
        "Written by python benchmarks/accuracy_cpu.py PROFILE --store FOLDER --report-only.",
    )


if __name__ == "__main__":
    sys.exit(main())
