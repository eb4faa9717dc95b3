"""Fit the two figures of a power-limited CPU's clock (``timing/cpu_clock.py``), and say what they are worth.

    python benchmarks/fit_cpu_clock.py [--measured FOLDER] [--rows N]

Rows: timm's compiled models on an i7-12700H whose traces are cached. Every step is worked out once at the base clocks;
its clock, and so its time, follows from the two figures. Printed: median / 90th percentile of the error in percent at
base clocks, with the shipped figures and with fitted ones; the last also for each half of the families, with figures
fitted to the other half.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from costmodel.analysis import Analysis
from costmodel.errors import CostmodelError
from costmodel.execution import Execution, Variant
from costmodel.hardware import load
from costmodel.timing.cpu import cpu_step_times
from costmodel.timing.cpu_clock import held_clock
from costmodel.timing.cpu_constants import CPU
from costmodel.traced import load_trace

ROOT = Path(__file__).parents[1]
DEVICE = "i7-12700h"
#: Values that are tried: power of full multiply-add pipes, and the share of the peak at which base power is drawn.
POWERS, LOADS = np.arange(1.0, 12.1, 1.0), np.arange(0.2, 0.91, 0.02)


@dataclass(frozen=True)
class Row:
    """One model: seconds at base clocks that follow the clock, that do not, at the peak; and as measured."""

    family: str
    clocked_s: float
    memory_s: float
    peak_s: float
    measured_s: float

    def seconds(self, clock: float) -> float:
        return self.clocked_s / clock + self.memory_s

    def predicted_s(self, power: float, load_share: float) -> float:
        constants = replace(CPU, multiply_add_power=power, complex_load=load_share)
        clock = 1.0
        for _ in range(8):
            clock = (clock * held_clock(self.peak_s / clock / self.seconds(clock), constants)) ** 0.5
        return self.seconds(clock)


def rows(folder: Path, count: int) -> Iterator[Row]:
    hardware = replace(load(DEVICE), board="")
    peak = hardware.peak("vector", "fp32").flop_per_s
    with gzip.open(folder / "timm_models.csv.gz", "rt") as file:
        found = [row for row in csv.DictReader(file) if row["device"] == DEVICE and row["family"] != "vgg"]
    random.Random(1).shuffle(found)  # noqa: S311 - a sample, not a secret
    for row in found[:count]:
        sizes = {"height": int(row["image_size"]), "width": int(row["image_size"])}
        try:
            execution = Execution.of(batch=int(row["batch"]), dtype=row["dtype"], layout=row["layout"],
                                     mode=row["mode"], torch=row["torch"])  # fmt: skip
            variant = Variant.of(execution, hardware.family.torch_device)
            trace = load_trace(f"timm:{row['model']}", sizes=sizes, variant=variant, use_cache="only")
            analysis = Analysis(name=trace.name, source=trace.source, record=trace.graph, hardware=hardware,
                                execution=execution)  # fmt: skip
            parts = cpu_step_times(analysis.plan, analysis.bound, hardware, analysis.issued)
        except CostmodelError:
            continue
        # What no clock changes is what is left of a kernel at an endless clock.
        memory = sum(part._replace(compute_s=0.0, fixed_s=0.0).seconds() for part in parts)
        whole = sum(part.seconds() for part in parts)
        kernels = analysis.plan.kernels
        flops = sum(kernels[launch.kernel].matrix_flops for launch in analysis.plan.launches)
        yield Row(row["family"], whole - memory, memory, flops / peak, 1e-3 * float(row["latency_ms"]))


def errors(found: Sequence[Row], power: float, load_share: float) -> np.ndarray:
    return np.array([row.predicted_s(power, load_share) / row.measured_s for row in found])


def fitted(found: Sequence[Row]) -> tuple[float, float]:
    """The pair with the least soft absolute log error."""

    def loss(power: float, load_share: float) -> float:
        return float(np.mean(np.sqrt(np.log(errors(found, power, load_share)) ** 2 + 0.05**2)))

    return min(((float(p), float(s)) for p in POWERS for s in LOADS), key=lambda pair: loss(*pair))


def told(ratios: np.ndarray) -> str:
    error = 100 * np.abs(ratios - 1)
    return f"{np.median(error):.1f} / {np.quantile(error, 0.9):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measured", type=Path, default=ROOT.parent / "shared" / "measured")
    parser.add_argument("--rows", type=int, default=300)
    options = parser.parse_args()
    found = list(rows(options.measured, options.rows))
    print(f"{len(found)} models on {DEVICE}")
    print("at base clocks  ", told(errors(found, 0.0, 0.0)))
    print("shipped         ", told(errors(found, CPU.multiply_add_power, CPU.complex_load)))
    power, share = fitted(found)
    print("fitted          ", told(errors(found, power, share)), f"  power {power:.2f}, load {share:.2f}")
    families = sorted({row.family for row in found})
    halves = [[row for row in found if (families.index(row.family) % 2) == half] for half in (0, 1)]
    left_out = [errors(halves[1 - half], *fitted(halves[half])) for half in (0, 1)]
    print("families left out", told(np.concatenate(left_out)))


if __name__ == "__main__":
    main()
