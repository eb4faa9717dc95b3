"""Fit the constants of the backward pass, and say how well they carry over to other families and machines.

    python benchmarks/fit_training.py [--measured FOLDER] [--rows 120] [--cached-only]

A sample of timm's training steps on an RTX 3090 (every family in proportion to its rows) gives the constants of
``costmodel.timing.gradients``; the forward pass keeps those that inference settled. The model is evaluated at the
shipped constants and once with each of them raised by 15 %; in between, log latency is taken as linear in log
constant. Constants minimise the absolute log error, drawn weakly to the shipped ones. Printed: shipped and fitted, the
error in the sample and across halves of the families (by a hash of their names), then the error of the shipped
constants on machines and networks that no constant here was fitted to, but for two that say so where they stand
(batch norm in NCHW of half precision and before PyTorch 1.13: ResNet-50).
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from fit_models import fit, score

from costmodel.analysis import Analysis
from costmodel.errors import CostmodelError
from costmodel.hardware import load
from costmodel.timing import CONSTANTS, Constants, step_timeline
from costmodel.traced import load_trace
from costmodel.validate import Flags, ModelRow, read_measured
from costmodel.validate.conditions import execution_of
from costmodel.validate.run import load_row, sample

STEP = 1.15

#: What it is, and its name in the bundle of constants.
NAMED: list[tuple[str, str]] = [
    ("data gradient of a convolution / forward rate", "gradients.data_share"),
    ("weight gradient / forward rate", "gradients.weight_share"),
    ("depthwise data gradient, NHWC / vector peak", "gradients.depthwise_data.nhwc"),
    ("depthwise weight gradient, NHWC / vector peak", "gradients.depthwise_weight.nhwc"),
    ("statistics / contiguous time", "streaming.rates.statistics"),
    ("batch norm: exposed share of empty blocks", "gradients.norm_block_exposed"),
    ("batch norm: extra time of odd channels", "gradients.norm_misaligned"),
    ("sums over rows, B a clock and block", "gradients.sum_block_bytes_per_clock"),
    ("batched products before PyTorch 2 / later ones", "gradients.early_batched"),
    ("grouped weight gradient on lanes / vector peak", "gradients.grouped_direct"),
]
#: Files of training steps that are judged only.
OTHERS = ("train_resnet50.csv.gz", "train_nvidia_dle.csv", "train_bert_squad.csv.gz", "transformers_neusight_train.csv")


def training_rows(file: Path) -> list[ModelRow]:
    """The training steps of a file."""
    rows = read_measured([file], Flags()).rows
    return [row for row in rows if isinstance(row, ModelRow) and row.phase == "training"]


def analyses(rows: Sequence[ModelRow], trace: Callable[..., object]) -> Iterator[tuple[ModelRow, Analysis]]:
    """Each row with its analysis; a model that cannot be traced is named."""
    named: set[str] = set()
    for row in rows:
        try:
            traced = load_row(row, trace)
        except CostmodelError as error:
            if row.model not in named:
                print(f"left out: {row.model}: {str(error).splitlines()[0]}")
            named.add(row.model)
            continue
        execution = execution_of(row, traced.graph.symbols)
        yield (
            row,
            Analysis(
                name=traced.name,
                source=traced.source,
                record=traced.graph,
                hardware=load(row.device),
                execution=execution,
            ),
        )


def log_errors(found: Sequence[tuple[ModelRow, Analysis]], constants: Constants = CONSTANTS) -> np.ndarray:
    """log of predicted over measured."""
    return np.array(
        [
            math.log(step_timeline(a.plan, a.bound, a.hardware, a.issued, constants).latency_s / row.latency_s)
            for row, a in found
        ]
    )


def half(family: str) -> int:
    return hashlib.sha256(family.encode()).digest()[0] % 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=Path("../shared/measured"))
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--cached-only", action="store_true", help="leave out networks of timm that are not traced yet")
    arguments = parser.parse_args()
    trace: Callable[..., object] = partial(load_trace, use_cache="only") if arguments.cached_only else load_trace

    chosen = by_family(training_rows(arguments.measured / "timm_models.csv.gz"), arguments.rows)
    found = list(analyses(chosen, trace))
    shipped = log_errors(found)
    slopes = np.stack([log_errors(found, CONSTANTS.scaled(name, STEP)) - shipped for _, name in NAMED], 1)
    slopes /= math.log(STEP)
    start = np.zeros(len(NAMED))
    best = fit(shipped, slopes, start, prior=1.0)
    halves = np.array([half(row.family) for row, _ in found])
    across = np.empty_like(shipped)
    for side in (0, 1):
        other = fit(shipped[halves != side], slopes[halves != side], start, prior=1.0)
        across[halves == side] = (shipped + slopes @ other)[halves == side]

    print(f"{len(found)} training steps on an RTX 3090")
    print(f"{'constant':52s} {'shipped':>10s} {'fitted':>10s}")
    for (label, name), change in zip(NAMED, best, strict=True):
        print(f"{label:52s} {CONSTANTS.value(name):10.3g} {CONSTANTS.value(name) * math.exp(change):10.3g}")
    print(f"error, median / 90th percentile [%]: shipped {score(shipped)}, fitted {score(shipped + slopes @ best)}, "
          f"across halves of the families {score(across)}")  # fmt: skip
    for name in OTHERS:
        rest = list(analyses(training_rows(arguments.measured / name), load_trace))
        if rest:
            print(f"{name:36s} {len(rest):3d} rows, shipped constants: {score(log_errors(rest))}")


def by_family(rows: Sequence[ModelRow], limit: int) -> list[ModelRow]:
    """A sample of so many rows, from each family in proportion to its size."""
    named = [replace(row, device=row.family) for row in rows]  # rows are sampled by their group
    kept = {(row.model, row.line) for row in sample(named, limit, seed=0) if isinstance(row, ModelRow)}
    return [row for row in rows if (row.model, row.line) in kept]


if __name__ == "__main__":
    main()
