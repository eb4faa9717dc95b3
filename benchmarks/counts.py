"""Exactness on every architecture: our MACs and parameters against torch's own counters.

    python benchmarks/counts.py                       # all of timm's architectures
    python benchmarks/counts.py --source torchvision  # all of torchvision's
    python benchmarks/counts.py --match 'vit_*' --jobs 2 -o counts.csv

MACs are held against ``torch.utils.flop_counter.FlopCounterMode`` on the meta device, parameters against
``sum(p.numel())``. Prints every mismatch, failure and operator without a formula; exit status 1 if any.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields


@dataclass
class Result:
    """One architecture: our counts beside torch's."""

    model: str
    macs: int = 0
    macs_torch: int = 0
    params: int = 0
    params_torch: int = 0
    ops: int = 0
    uncosted: str = ""
    failure: str = ""
    trace_s: float = 0.0

    @property
    def is_exact(self) -> bool:
        return not self.failure and self.macs == self.macs_torch and self.params == self.params_torch


def count(request: str) -> Result:
    """Analyze one model both ways at batch 1."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from costmodel.costing import cost_graph
    from costmodel.sources import resolve
    from costmodel.trace import trace
    from costmodel.trace.forward import meta_copy

    result = Result(request)
    try:
        loaded = resolve(request)
        reference = meta_copy(loaded.module)
        result.params_torch = sum(p.numel() for p in reference.parameters())
        args, kwargs = loaded.inputs({"batch": 1})
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            reference(*args, **kwargs)
        result.macs_torch = counter.get_total_flops() // 2
        started = time.perf_counter()
        graph = trace(loaded)
        costs = cost_graph(graph.bind({"batch": 1} if "batch" in graph.symbols else {}))
        result.trace_s = time.perf_counter() - started
        result.macs, result.params, result.ops = costs.total.macs, graph.param_count, len(graph.nodes)
        result.uncosted = " ".join(f"{op}({n})" for op, n in costs.uncosted.items())
        if "batch" not in graph.symbols:
            result.uncosted += "".join(f" [{note}]" for note in graph.notes if " stays " in note)
    except Exception as error:  # a survey must name every failure, whatever it is
        result.failure = f"{type(error).__name__}: {error}".replace("\n", " | ")
    return result


def requests(source: str, match: str) -> list[str]:
    """All models of a source."""
    from costmodel.sources import known_models

    # How many boxes a detector keeps depends on the picture: of those, the backbone is counted.
    found = [m for m in known_models(None) if m.source == source and fnmatch.fnmatch(m.name, match)]
    detectors = {m.name for m in found if (m.family or "").startswith("detection.")}
    return [f"{source}:{m.name}{'.backbone' if m.name in detectors else ''}" for m in found]


def survey(names: list[str], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(count, names)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=60) as pool:
        yield from pool.imap_unordered(count, names, chunksize=4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="timm", choices=("timm", "torchvision", "zoo"))
    parser.add_argument("--match", default="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("-o", "--output", help="all results as CSV")
    arguments = parser.parse_args()
    names = requests(arguments.source, arguments.match)
    results = []
    for result in survey(names, arguments.jobs):
        results.append(result)
        if not result.is_exact or result.uncosted:
            what = (
                result.failure
                or f"MACs {result.macs} torch {result.macs_torch}, params {result.params} torch {result.params_torch}"
            )
            print(f"{result.model}: {what} {result.uncosted}", flush=True)
        if len(results) % 100 == 0:
            print(f"{len(results)} of {len(names)}", file=sys.stderr, flush=True)
    if arguments.output:
        with open(arguments.output, "w", newline="") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Result)])
            writer.writeheader()
            writer.writerows(asdict(r) for r in sorted(results, key=lambda r: r.model))
    failures = [r for r in results if r.failure]
    mismatches = [r for r in results if not r.failure and not r.is_exact]
    uncosted = Counter(op for r in results for op in r.uncosted.split())
    found = f"{len(mismatches)} mismatches, {len(failures)} failures, {len(uncosted)} uncosted operators"
    print(f"{len(results)} architectures: {found}")
    for op, models in uncosted.most_common():
        print(f"  {op}: {models} models")
    return 1 if failures or mismatches or uncosted else 0


if __name__ == "__main__":
    sys.exit(main())
