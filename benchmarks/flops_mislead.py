"""Write reports/flops_mislead.md: where FLOPs mislead, predicted for a GPU and this CPU, measured on this CPU.

    costmodel calibrate -o my_machine.toml
    python benchmarks/flops_mislead.py my_machine.toml --store FOLDER --measure 160     # again and again, in portions
    python benchmarks/flops_mislead.py my_machine.toml --store FOLDER --report-only

``--measure SECONDS`` adds rounds to ``FOLDER``. In a round every network is called a few times, the networks in a new
random order, so that what else a shared machine does falls on all alike; a round during which other processes used
the cores does not count. Measured numbers are not the same twice; the page says how far two halves of the rounds are
apart.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flops_mislead_nets import EXPERIMENTS, GPU
from flops_mislead_page import figures, page
from flops_mislead_results import Outcome, Result

from costmodel.api import analyze
from costmodel.hardware import HardwareProfile, load
from costmodel.report.as_markdown import render_chapters
from costmodel.report.output import put

#: Share of the cores that others may use during a round that counts.
MOST_OTHERS = 0.05
CALLS = 2  # timed calls of a network in a round, after one that only warms its caches


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", help="what `costmodel calibrate` wrote on this machine, or a profile's name")
    parser.add_argument("--store", type=Path, required=True, metavar="FOLDER", help="where measured rounds are kept")
    parser.add_argument("--measure", type=float, metavar="SECONDS", help="measure for so long, then end")
    parser.add_argument("--report-only", action="store_true", help="write the report from what was measured")
    parser.add_argument("-o", "--output", type=Path, default=Path("reports/flops_mislead.md"), metavar="FILE")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.store, arguments.measure)
    if arguments.report_only or not arguments.measure:
        write(load(arguments.profile), arguments.store, arguments.output)
    return 0


def requests() -> list[str]:
    """Every network once."""
    return list(dict.fromkeys(v.request for e in EXPERIMENTS for v in e.variants))


# -- measuring ---------------------------------------------------------------------------------------


def measure(store: Path, seconds: float) -> None:
    """Add rounds for about ``seconds``; each is appended to the store's file as it ends."""
    from costmodel.execution import Execution
    from costmodel.measure.machine_cpu import busy_seconds
    from costmodel.measure.running import prepare

    ends = time.monotonic() + seconds
    calls = {request: prepare(request, Execution()).call for request in requests()}
    store.mkdir(parents=True, exist_ok=True)
    for call in calls.values():
        call()
    while time.monotonic() < ends:
        before = busy_seconds()
        order = list(calls)
        random.shuffle(order)
        timed = {request: _timed(calls[request]) for request in order}
        others = before.others_until(busy_seconds())
        row = {"others": others, "seconds": {_key(request): times for request, times in timed.items()}}
        with (store / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"a round: others used {100 * others:.0f} % of the cores", file=sys.stderr)


def _timed(call: Any) -> list[float]:
    """Seconds of a few calls after one that warms."""
    call()
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def _key(request: str) -> str:
    """A request without the folder that this checkout happens to lie in."""
    return request.rpartition("/")[2]


# -- judging -----------------------------------------------------------------------------------------


def read_rounds(store: Path) -> tuple[list[dict[str, Any]], int]:
    """(rounds that count, those that others disturbed)."""
    lines = (store / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    calm = [row["seconds"] for row in rows if row["others"] <= MOST_OTHERS]
    return calm, len(rows) - len(calm)


def outcomes(hardware: HardwareProfile, rounds: Sequence[dict[str, Any]]) -> list[Outcome]:
    """Every experiment, predicted and measured."""
    on_cpu = {request: analyze(request, hw=hardware) for request in requests()}
    on_gpu = {request: analysis.at(hw=GPU) for request, analysis in on_cpu.items()}
    return [
        Outcome(
            experiment,
            tuple(
                Result(
                    v.name,
                    on_cpu[v.request],
                    on_gpu[v.request],
                    tuple(statistics.median(row[_key(v.request)]) for row in rounds),
                    v.gpu,
                    v.arm,
                )
                for v in experiment.variants
            ),
        )
        for experiment in EXPERIMENTS
    ]


def write(hardware: HardwareProfile, store: Path, output: Path) -> None:
    """The page and its figures."""
    rounds, disturbed = read_rounds(store)
    found = outcomes(hardware, rounds)
    (output.parent / "figures").mkdir(parents=True, exist_ok=True)
    for name, text in figures(found).items():
        put(text, output.parent / "figures" / name)
    put(render_chapters(page(hardware, found, len(rounds), disturbed)), output)
    print(f"wrote {output}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
