"""Fit the records of fused attention (``costmodel.devices.attention``) again, and print their errors.

    python benchmarks/fit_attention.py [--measured FOLDER] [--rows N] [--only NAME] [--no-fit]

Errors are median / 90th percentile of \\|predicted / measured - 1\\| in percent, over rows above 20 µs and over all, by
operator: of every row with the record as shipped; of the other half of the rows with its constants fitted to one half
(own), the halves by hash of the shape; and of the heads of one width with the constants fitted to the others (width).
"""

from __future__ import annotations

import argparse
import math
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from costmodel.devices.attention import AttentionKernels
from costmodel.hardware import HardwareProfile, load
from costmodel.kernels.shapes import Attention
from costmodel.timing.attention import AttentionMachine, attention_time
from costmodel.timing.gpu import gpu_model
from costmodel.validate import OperatorRow, read_measured
from costmodel.validate.judged import operator_analysis

ROOT = Path(__file__).parents[1]
#: What is fitted, and between what: shares of a peak stay shares.
BOUNDS = {
    "efficiency": (0.05, 1.0),
    "exponentials": (0.3, 300.0),
    "block_cycles": (300, 12000),
    "alone": (0.5, 2.0),
    "tail": (0.05, 2.0),
    "start": (0.8, 6.0),
    "dram_share": (0.7, 1.05),
    "l2_share": (0.4, 1.0),
    "part_cycles": (10, 1500),
}
#: Shorter rows are mostly starts of kernels [s].
LEAST_S = 20e-6
#: Fewest rows of a width that are held apart.
LEAST_ROWS = 100


@dataclass(frozen=True)
class Timed:
    """A row, the attention in it, and what its other kernels take [s]."""

    row: OperatorRow
    shape: Attention
    traffic_bytes: float
    machine: AttentionMachine
    others_s: float

    def ratio(self, kernels: AttentionKernels) -> float:
        """Predicted over measured time."""
        own = attention_time(self.shape, kernels, self.machine, self.traffic_bytes).seconds()
        return (self.others_s + own) / self.row.latency_s

    @property
    def half(self) -> bool:
        """In which half of the shapes it lies."""
        return bool(zlib.crc32(repr((self.row.input, self.row.other)).encode()) & 1)


@dataclass(frozen=True)
class Fit:
    """Rows of one record on one machine."""

    hardware: HardwareProfile
    kernels: AttentionKernels
    rows: Sequence[Timed]

    def told(self, kernels: AttentionKernels, chosen: Callable[[Timed], bool] = lambda timed: True) -> str:
        """Errors of the chosen rows by operator."""
        found = []
        for op in sorted({timed.row.op for timed in self.rows}):
            rows = [timed for timed in self.rows if timed.row.op == op and chosen(timed)]
            if rows:
                errors = np.array([100 * abs(timed.ratio(kernels) - 1) for timed in rows])
                longer = errors[[timed.row.latency_s > LEAST_S for timed in rows]]
                parts = [f"{np.median(e):4.1f} /{np.quantile(e, 0.9):5.1f}" for e in (longer, errors) if len(e)]
                found.append(f"{op.removeprefix('sdpa_')} {', all '.join(parts)} ({len(rows)})")
        return "  ".join(found)


def timed(row: OperatorRow, hardware: HardwareProfile) -> Timed:
    analysis = operator_analysis(row, hardware)
    model = gpu_model(analysis.hardware)
    ((kernel, shape),) = ((k, k.shape) for k in analysis.plan.kernels if isinstance(k.shape, Attention))
    others_s = analysis.latency - model.seconds(kernel).seconds()
    return Timed(row, shape, kernel.bytes, model.attention_machine(kernel), others_s)


def read(folder: Path, only: str) -> Iterator[Fit]:
    groups: dict[tuple[str, str], list[OperatorRow]] = {}
    for row in read_measured([folder / "ops_attention.csv.gz"]).rows:
        if isinstance(row, OperatorRow):
            groups.setdefault((row.device, row.algorithm), []).append(row)
    for (device, name), rows in sorted(groups.items()):
        hardware = load(device)
        kernels = hardware.gpu.attention_kernels(name)
        if kernels is not None and only in name:
            yield Fit(hardware, kernels, [timed(row, hardware) for row in rows])


def sampled(rows: Sequence[Timed], count: int) -> list[Timed]:
    """As many rows of every operator."""
    found = []
    for op in sorted({timed.row.op for timed in rows}):
        of_op = [timed for timed in rows if timed.row.op == op]
        found += random.Random(0).sample(of_op, min(count, len(of_op)))  # noqa: S311
    return found


def fitted(kernels: AttentionKernels, rows: Sequence[Timed]) -> AttentionKernels:
    """Least soft absolute deviation of log time; a weak pull to the record keeps what is left open."""
    from scipy.optimize import least_squares

    names = [name for name in BOUNDS if name != "part_cycles" or kernels.splits]
    low, high = (np.log([BOUNDS[name][end] for name in names]) for end in (0, 1))
    values = [float(getattr(kernels if name != "part_cycles" else kernels.splits, name)) for name in names]
    start = np.clip(np.log(values), low + 1e-3, high - 1e-3)

    def made(x: np.ndarray) -> AttentionKernels:
        values = {name: math.exp(v) for name, v in zip(names, x, strict=True)}
        splits = kernels.splits and replace(kernels.splits, part_cycles=values.pop("part_cycles"))
        return replace(kernels, splits=splits, **values)

    def residuals(x: np.ndarray) -> np.ndarray:
        record = made(x)
        return np.concatenate([np.log([timed.ratio(record) for timed in rows]), 0.3 * (x - start)])

    found = least_squares(
        residuals, start, bounds=(low, high), loss="soft_l1", f_scale=0.1, diff_step=0.01, max_nfev=12
    )
    return made(found.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measured", type=Path, default=ROOT.parent / "shared" / "measured")
    parser.add_argument("--rows", type=int, default=300, help="rows of each operator that are fitted (default: 300)")
    parser.add_argument("--only", default="", help="records whose name holds this")
    parser.add_argument("--no-fit", action="store_true", help="errors of the shipped records only")
    options = parser.parse_args()
    for fit in read(options.measured, options.only):
        name = f"{fit.kernels.name:22} {fit.hardware.name:14}"
        print(f"{name} shipped   {fit.told(fit.kernels)}", flush=True)
        if options.no_fit:
            continue
        own = fitted(fit.kernels, sampled([timed for timed in fit.rows if timed.half], options.rows))
        print(f"{name} own       {fit.told(own, lambda timed: not timed.half)}", flush=True)
        for width in sorted({timed.shape.width for timed in fit.rows}):
            apart = [timed for timed in fit.rows if timed.shape.width == width]
            if LEAST_ROWS <= len(apart) <= len(fit.rows) - LEAST_ROWS:
                rest = [timed for timed in fit.rows if timed.shape.width != width]
                other = fitted(fit.kernels, sampled(rest, options.rows))
                print(f"{name} width {width:3d} {fit.told(other, lambda timed, w=width: timed.shape.width == w)}")
        values = [f"{constant} {getattr(own, constant):.3g}" for constant in BOUNDS if constant != "part_cycles"]
        values += [f"part_cycles {own.splits.part_cycles:.3g}"] if own.splits else []
        print("  own:", ", ".join(values), flush=True)


if __name__ == "__main__":
    main()
