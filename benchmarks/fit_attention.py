"""Fit the records of fused attention (``costmodel.devices.attention``) again, and print their errors.

    python benchmarks/fit_attention.py [--measured FOLDER] [--rows N] [--no-fit]

Errors are median / 90th percentile of \\|predicted / measured - 1\\| in percent over rows above 20 µs, by operator:
with the record as shipped, and with its constants fitted to half of the rows (own), on the other half.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from costmodel.devices.attention import AttentionKernels
from costmodel.hardware import HardwareProfile, load
from costmodel.validate import OperatorRow, read_measured
from costmodel.validate.judged import judge_operator

ROOT = Path(__file__).parents[1]
CONSTANTS = ("efficiency", "exponentials", "block_cycles", "alone", "tail", "start", "dram_share")
#: Shorter rows are mostly starts of kernels [s].
LEAST_S = 20e-6


@dataclass(frozen=True)
class Fit:
    """Rows of one record on one machine, by operator."""

    hardware: HardwareProfile
    kernels: AttentionKernels
    rows: dict[str, Sequence[OperatorRow]]

    def machine(self, kernels: AttentionKernels) -> HardwareProfile:
        """The machine with other constants in the place of the record's."""
        generation = self.hardware.gpu
        records = tuple(kernels if record.name == kernels.name else record for record in generation.attention)
        return replace(self.hardware, generation=replace(generation, attention=records))

    def ratios(self, kernels: AttentionKernels, part: slice) -> dict[str, np.ndarray]:
        """Predicted over measured time of every row, by operator."""
        machine = self.machine(kernels)
        return {
            op: np.array([judge_operator(row, machine).error + 1 for row in rows[part]])
            for op, rows in self.rows.items()
        }


def read(folder: Path, count: int) -> list[Fit]:
    groups: dict[tuple[str, str], dict[str, list[OperatorRow]]] = {}
    for row in read_measured([folder / "ops_attention.csv.gz"]).rows:
        if isinstance(row, OperatorRow) and row.latency_s > LEAST_S:
            groups.setdefault((row.device, row.algorithm), {}).setdefault(row.op, []).append(row)
    fits = []
    for (device, name), by_op in sorted(groups.items()):
        hardware = load(device)
        kernels = next(record for record in hardware.gpu.attention if record.name == name)
        sample = random.Random(0)  # noqa: S311
        rows = {op: sample.sample(rows, min(2 * count, len(rows))) for op, rows in sorted(by_op.items())}
        fits.append(Fit(hardware, kernels, rows))
    return fits


def told(ratios: dict[str, np.ndarray]) -> str:
    errors = {op.removeprefix("sdpa_"): 100 * np.abs(found - 1) for op, found in ratios.items()}
    return "  ".join(f"{op} {np.median(e):4.1f} /{np.quantile(e, 0.9):5.1f}" for op, e in errors.items())


def fitted(fit: Fit, part: slice) -> AttentionKernels:
    """Least soft absolute deviation of log time; a weak pull to the record keeps what is left open."""
    from scipy.optimize import least_squares

    names = [*CONSTANTS, *(["part_cycles"] if fit.kernels.splits else [])]

    def value(name: str) -> float:
        return float(getattr(fit.kernels if name in CONSTANTS else fit.kernels.splits, name))

    start = np.log([value(name) for name in names])

    def kernels(x: np.ndarray) -> AttentionKernels:
        values = {name: math.exp(v) for name, v in zip(names, x, strict=True)}
        splits = fit.kernels.splits and replace(fit.kernels.splits, part_cycles=values.pop("part_cycles"))
        return replace(fit.kernels, splits=splits, **values)

    def residuals(x: np.ndarray) -> np.ndarray:
        found = fit.ratios(kernels(x), part)
        return np.concatenate([*(np.log(ratios) for ratios in found.values()), 0.5 * (x - start)])

    return kernels(least_squares(residuals, start, loss="soft_l1", f_scale=0.1, diff_step=0.01, max_nfev=8).x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measured", type=Path, default=ROOT.parent / "shared" / "measured")
    parser.add_argument("--rows", type=int, default=250, help="rows of each operator that are fitted (default: 250)")
    parser.add_argument("--only", default="", help="records whose name holds this")
    parser.add_argument("--no-fit", action="store_true", help="errors of the shipped records only")
    options = parser.parse_args()
    first, second = slice(None, options.rows), slice(options.rows, None)
    for fit in read(options.measured, options.rows):
        if options.only not in fit.kernels.name:
            continue
        name = f"{fit.kernels.name:22} {fit.hardware.name:14}"
        print(f"{name} shipped  {told(fit.ratios(fit.kernels, slice(None)))}", flush=True)
        if options.no_fit:
            continue
        own = fitted(fit, first)
        print(f"{name} own      {told(fit.ratios(own, second))}")
        values = [f"{constant} {getattr(own, constant):.3g}" for constant in CONSTANTS]
        print(
            "  own:",
            ", ".join([*values, f"part_cycles {own.splits.part_cycles:.3g}" if own.splits else ""]),
            flush=True,
        )


if __name__ == "__main__":
    main()
