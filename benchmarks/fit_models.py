"""Fit the constants that whole models identify, and say how well they carry over.

    python benchmarks/fit_models.py --measured ../shared/measured [--rows 600]

Only constants that no operator data settle are here: the clock that GeForce boards hold, the DRAM share of GDDR6X,
the rates of depthwise and strided kernels, of L2 hits. The model is evaluated once at the shipped constants and once
with each of them raised by 10 %; in between, log latency is taken as linear in log constant. Constants minimise the
absolute log error, drawn weakly (as by --prior rows) to the neutral guesses. Printed: shipped, neutral, fitted on all
rows, on one GPU, on the other; errors in the sample, across halves of the families, and across the two GPUs.

Eager rows of the timm file alone are used; compiled and CPU rows are judged with the same constants.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.analysis import Analysis
from costmodel.errors import CostmodelError
from costmodel.execution import Execution, Variant
from costmodel.hardware import load
from costmodel.hardware.profile import ACHIEVABLE_DRAM_FRACTION
from costmodel.timing import CONSTANTS, Constants, step_timeline
from costmodel.traced import load_trace

STEP = 1.1

#: What it is, its name in the bundle of constants, and a neutral guess.
NAMED: list[tuple[str, str, float]] = [
    ("GeForce clock / boost clock", "clock.least_clock_gain", 1.05),
    ("strided / contiguous time", "streaming.rates.strided", 1.3),
    ("cat / contiguous time", "streaming.rates.cat", 1.3),
    ("reduction / contiguous time", "streaming.rates.reduction", 1.2),
    ("depthwise NHWC / vector peak", "kernels.depthwise.nhwc", 0.2),
    ("depthwise NCHW / vector peak", "kernels.depthwise.nchw", 0.07),
    ("depthwise native / vector peak", "kernels.depthwise.native", 0.05),
    ("cycles a tap, average pool NCHW", "kernels.pool_tap_cycles.nchw", 50.0),
    ("bytes a tap, depthwise over 2^31", "kernels.depthwise_wide_tap_bytes", 8.0),
    ("flash attention / matrix peak", "kernels.attention_efficiency", 0.95),
    ("L2 hit rate / DRAM rate", "caches.speedup", 5.0),
]
#: The one figure that belongs to a profile: the share of its pin rate that GDDR6X reaches.
GDDR6X = "DRAM share of GDDR6X"

#: name, shipped value, neutral guess
CONSTANTS_FITTED: list[tuple[str, float, float]] = [
    *((label, CONSTANTS.value(name), guess) for label, name, guess in NAMED),
    (GDDR6X, ACHIEVABLE_DRAM_FRACTION["GDDR6X"], 0.92),
]


def varied(label: str, factor: float) -> tuple[Constants, float]:
    """The bundle with one constant multiplied, and the factor of the DRAM share of GDDR6X."""
    if label == GDDR6X:
        return CONSTANTS, factor
    return CONSTANTS.scaled(next(name for known, name, _ in NAMED if known == label), factor), 1.0


def read_rows(folder: Path, limit: int, seed: int) -> list[dict[str, str]]:
    """Eager inference rows of the two GPUs, a random sample of whole models."""
    with gzip.open(folder / "timm_models.csv.gz", "rt") as file:
        rows = [r for r in csv.DictReader(file) if r["phase"] == "infer" and r["mode"] == "eager"]
    rows = [r for r in rows if r["device"] in ("rtx3090", "rtx4090")]
    models = sorted({r["model"] for r in rows})
    random.Random(seed).shuffle(models)  # noqa: S311 - a sample, not a secret
    kept: list[dict[str, str]] = []
    by_model: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    for model in models:
        if len(kept) >= limit:
            break
        kept += by_model[model]
    return kept


def analyses(rows: list[dict[str, str]], cached_only: bool) -> Iterator[tuple[dict[str, str], Any, Execution]]:
    """Each row with its trace; a row that cannot be traced is named."""
    for row in rows:
        size = int(row["image_size"])
        try:
            if cached_only and not _is_cached(row, size):
                continue
            sizes = {"height": size, "width": size}
            request = f"timm:{row['model']}"
            trace = load_trace(request, symbols=("batch",), sizes=sizes, variant=Variant(row["layout"]))
            if row["torch"] >= "2.9" and any("+reparameterized" in note for note in trace.graph.notes):
                request += "+reparameterized"  # as timm's later files were made
                trace = load_trace(request, symbols=("batch",), sizes=sizes, variant=Variant(row["layout"]))
        except CostmodelError as error:
            print(f"left out: {row['model']}: {str(error).splitlines()[0]}")
            continue
        execution = Execution.of(
            batch=int(row["batch"]), dtype=row["dtype"], layout=row["layout"], torch=row["torch"],
            fast_norm=True, tf32_matmul=True,
        )  # fmt: skip
        yield row, trace, execution


def _is_cached(row: dict[str, str], size: int) -> bool:
    from costmodel import cache

    parts = {
        "symbols": ["batch"],
        "layout": row["layout"],
        "sizes": {"height": size, "width": size},
        "input_shape": None,
    }
    folder = cache.cache_dir()
    return folder is not None and (folder / f"{cache.key('timm:' + row['model'], parts)}.json").exists()


def latency(
    row: dict[str, str], trace: Any, execution: Execution, constants: Constants = CONSTANTS, dram: float = 1.0
) -> float:
    hardware = load(row["device"])
    if hardware.dram.kind == "GDDR6X":
        hardware = replace(hardware, achievable_dram_fraction=dram * hardware.achievable_dram_fraction)
    analysis = Analysis(
        name=trace.name, source=trace.source, record=trace.graph, hardware=hardware, execution=execution
    )
    return step_timeline(analysis.plan, analysis.bound, hardware, analysis.issued, constants).latency_s


def fit(residual: np.ndarray, slopes: np.ndarray, start: np.ndarray, prior: float) -> np.ndarray:
    """Factors (logs) that minimise sum |residual + slopes x| + prior * |x - start|^2, by reweighted least squares."""
    x = start.copy()
    for _ in range(60):
        weight = 1 / np.maximum(np.abs(residual + slopes @ x), 0.01)
        left = slopes.T @ (weight[:, None] * slopes) + prior * np.eye(len(x)) / 0.01
        x = np.linalg.solve(left, prior * start / 0.01 - slopes.T @ (weight * residual))
    return x


def score(errors: np.ndarray) -> str:
    share = np.abs(np.exp(errors) - 1)
    return f"{100 * np.median(share):.1f} / {100 * np.quantile(share, 0.9):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=Path("../shared/measured"))
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", type=float, default=0.3, help="weight of the neutral guess, in rows")
    parser.add_argument("--cached-only", action="store_true", help="leave out rows whose model is not traced yet")
    arguments = parser.parse_args()
    found = list(analyses(read_rows(arguments.measured, arguments.rows, arguments.seed), arguments.cached_only))
    rows = [row for row, _, _ in found]
    measured = np.log([1e-3 * float(row["latency_ms"]) for row in rows])

    def predicted(constants: Constants = CONSTANTS, dram: float = 1.0) -> np.ndarray:
        return np.log([latency(row, trace, execution, constants, dram) for row, trace, execution in found])

    shipped = predicted()
    slopes = []
    for label, _, _ in CONSTANTS_FITTED:
        slopes.append((predicted(*varied(label, STEP)) - shipped) / np.log(STEP))
    slopes_of = np.array(slopes).T
    residual = shipped - measured
    neutral = np.log([guess / value for _, value, guess in CONSTANTS_FITTED])
    device = np.array([row["device"] for row in rows])
    half = np.array([int(hashlib.sha256(row["family"].encode()).hexdigest(), 16) % 2 for row in rows])

    def fitted(mask: np.ndarray) -> np.ndarray:
        return fit(residual[mask], slopes_of[mask], neutral, arguments.prior)

    everything = np.ones(len(rows), bool)
    columns = {"all": fitted(everything)} | {name: fitted(device == name) for name in sorted(set(device))}
    print(f"{len(rows)} rows\n{'constant':34}{'shipped':>9}{'neutral':>9}" + "".join(f"{name:>10}" for name in columns))
    for i, (name, value, guess) in enumerate(CONSTANTS_FITTED):
        print(f"{name:34}{value:9.3f}{guess:9.3f}" + "".join(f"{value * np.exp(x[i]):10.3f}" for x in columns.values()))
    crossed, across = residual.copy(), residual.copy()
    for side in (0, 1):
        crossed[half == side] += slopes_of[half == side] @ fitted(half != side)
    for name in sorted(set(device)):
        across[device == name] += slopes_of[device == name] @ fitted(device != name)
    kinds = {
        "shipped": residual,
        "neutral guesses": residual + slopes_of @ neutral,
        "fitted on all": residual + slopes_of @ columns["all"],
        "other families": crossed,
        "other GPU": across,
    }
    groups = sorted({(row["device"], row["layout"]) for row in rows})
    print(
        f"\n{'median / p90 of |error|, %':34}"
        + "".join(f"{d[3:] + ' ' + layout:>16}" for d, layout in groups)
        + f"{'all':>16}"
    )
    for kind, errors in kinds.items():
        cells = [score(errors[[r["device"] == d and r["layout"] == layout for r in rows]]) for d, layout in groups]
        print(f"{kind:34}" + "".join(f"{cell:>16}" for cell in [*cells, score(errors)]))


if __name__ == "__main__":
    main()
