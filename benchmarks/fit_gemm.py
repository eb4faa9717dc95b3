"""Reproduce the constants of ``costmodel.timing.gemm`` and print their errors.

    python benchmarks/fit_gemm.py [--measured FOLDER] [--rows N] [--no-fit] [--only bf16|fp32]

Errors are median / 90th percentile of \\|predicted / measured - 1\\| in percent, with the constants that the package
ships, with constants fitted to all devices (shared), to the device itself (own) and to the other devices (left out).

bf16 (A100 SXM, L40S): graph replay. The weights were copied until they filled L2 once, at most five times, and used
in turn; input and output were the same in every launch. That is seen in the L40S data: products are fast where
ceil(96 MiB / weight) copies fit in its L2 and slow where they do not. fp32 (NeuSight): eager calls between two
events, so that each latency is a dispatch time of the device and operator plus the kernel; rows above 1.5 times the
smallest latencies count.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.hardware import load
from costmodel.timing import CONSTANTS, Constants
from costmodel.timing.gemm import gemm_time
from costmodel.timing.gemm_machine import GemmMachine
from costmodel.validate.replay import COPIES

Array = Any  # numpy arrays of float

FITTED = (
    "products.stream_share",
    "products.fixed_cycles",
    "products.l2_share",
    "products.memory_overlap",
    "products.k_latency_cycles",
    "products.epilogue_bytes_per_cycle",
    "products.split_fixed_cycles",
    "products.split_passes",
    "products.l2_usable",
    "products.l2_fade",
    "products.gemv_fixed_cycles",
    "products.gemv_passes",
)
#: No A100 row lies near the edge of its L2: alone, it leaves the edge at the nominal capacity, nearly sharp.
EDGE = {"products.l2_usable": 1.0, "products.l2_fade": 0.1}
FITTED_SIMT = ("products.simt_feed", "products.row_toll")
#: Boards whose power limit slows these products, which no constant here knows; ``fit_libraries.py`` takes them.
HELD_BY_POWER = ("t4",)
ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Measurements of one device and operator: sizes, seconds, and the conditions of the benchmark."""

    device: str
    operator: str
    machine: GemmMachine
    dtype: str
    sizes: Array  # (rows, 4): m, n, k, batch
    seconds: Array
    dispatch_s: float = 0.0
    reported_l2_bytes: float = 0.0

    def sample(self, count: int) -> Rows:
        """``count`` rows at random, always the same."""
        if count >= len(self.seconds):
            return self
        chosen = np.random.default_rng(0).choice(len(self.seconds), count, replace=False)
        return dataclasses.replace(self, sizes=self.sizes[chosen], seconds=self.seconds[chosen])


def machine_of(device: str) -> GemmMachine:
    """The machine of a profile."""
    return GemmMachine.from_profile(load(device))


def read(path: Path, operators: Sequence[str]) -> list[Rows]:
    """All rows of these operators, by device and operator."""
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    with gzip.open(path, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["op"] not in operators:
                continue
            a = [int(size) for size in row["input"].split("x")]
            b = [int(size) for size in row["other"].split("x")]
            batch, n = (a[0], b[2]) if row["op"] == "bmm" else (1, b[0])
            m = a[-2] if row["op"] == "bmm" else math.prod(a[:-1])
            found.setdefault((row["device"], row["op"]), []).append((m, n, a[-1], batch, float(row["latency_us"])))
    result = []
    for (device, operator), values in sorted(found.items()):
        table = np.array(values, dtype=float)
        result.append(Rows(device, operator, machine_of(device), "", table[:, :4], table[:, 4] * 1e-6))
    return result


def read_bf16(folder: Path) -> list[Rows]:
    rows = read(folder / "ops_gemm_bf16.csv.gz", ["linear_no_bias"])
    level = {each.device: load(each.device).memory_level("l2").capacity_bytes for each in rows}
    return [dataclasses.replace(each, dtype="bf16", reported_l2_bytes=level[each.device]) for each in rows]


def read_fp32(folder: Path) -> list[Rows]:
    result = []
    for each in read(folder / "ops_neusight.csv.gz", ["linear", "bmm"]):
        if each.device in HELD_BY_POWER:
            continue
        floor = float(np.quantile(each.seconds, 0.01))
        above = each.seconds > 1.5 * floor
        dispatch = floor - CONSTANTS.products.fixed_cycles / each.machine.clock_hz
        result.append(
            dataclasses.replace(
                each, dtype="fp32", sizes=each.sizes[above], seconds=each.seconds[above], dispatch_s=dispatch
            )
        )
    return result


def reuse(rows: Rows) -> tuple[Array, Array] | None:
    """Bytes between two uses of (input and output, weight) in the graph-replay benchmark."""
    if not rows.reported_l2_bytes:
        return None
    m, n, k, _ = rows.sizes.T
    weight, other = 2 * n * k, 2 * m * (n + k)
    copies = np.minimum(COPIES, np.ceil(rows.reported_l2_bytes / weight))
    return weight + other, copies * weight + other


def predict(rows: Rows, c: Constants) -> Array:
    """Seconds of every row, by the package's own model."""
    distance = reuse(rows)
    between = [None] * len(rows.seconds) if distance is None else list(zip(*distance, strict=True))
    return rows.dispatch_s + np.array(
        [
            gemm_time(
                *map(int, sizes), dtype=rows.dtype, hw=rows.machine, bytes_cold=False, reuse_bytes=bytes_between,
                constants=c.products,
            ).seconds
            for sizes, bytes_between in zip(rows.sizes, between, strict=True)
        ]
    )  # fmt: skip


def error(rows: Rows, constants: Constants) -> str:
    relative = 100 * np.abs(predict(rows, constants) / rows.seconds - 1)
    return f"{np.median(relative):5.1f} /{np.quantile(relative, 0.9):5.1f}"


def with_values(constants: Constants, values: dict[str, float]) -> Constants:
    for name, value in values.items():
        constants = constants.scaled(name, value / constants.value(name))
    return constants


def fit(rows: Sequence[Rows], names: Sequence[str], start: Constants) -> Constants:
    """Least soft absolute deviation of log time; a weak pull to the start keeps what data leave open."""
    from scipy.optimize import least_squares

    origin = np.log([start.value(name) for name in names])
    total = sum(len(each.seconds) for each in rows)

    def constants(x: Array) -> Constants:
        return with_values(start, {name: math.exp(value) for name, value in zip(names, x, strict=True)})

    def residuals(x: Array) -> Array:
        parts = [np.log(predict(each, constants(x)) / each.seconds) for each in rows]
        return np.concatenate([*parts, 0.03 * math.sqrt(total / 1000) * (x - origin)])

    found = least_squares(
        residuals, origin, loss="soft_l1", f_scale=0.06, diff_step=0.01, max_nfev=12, x_scale=0.1, method="trf"
    )
    return constants(found.x)


def told(constants: Constants, names: Sequence[str]) -> str:
    return ", ".join(f"{name.partition('.')[2]} {constants.value(name):.4g}" for name in names)


def report(rows: Sequence[Rows], names: Sequence[str], count: int, refit: bool) -> None:
    columns: dict[str, list[str]] = {"shipped": [error(each, CONSTANTS) for each in rows]}
    if refit:
        few = [each.sample(count) for each in rows]
        shared = fit(few, names, CONSTANTS)
        print("shared:", told(shared, names))
        columns["shared"] = [error(each, shared) for each in rows]
        columns["own"], columns["left out"] = [], []
        for device in sorted({each.device for each in rows}):
            for kind, chosen in (("own", True), ("left out", False)):
                part = [each for each in few if (each.device == device) is chosen]
                free = [name for name in names if any(each.device == "l40s" for each in part) or name not in EDGE]
                nominal = {name: value for name, value in EDGE.items() if name in names and name not in free}
                constants = fit(part, free, with_values(CONSTANTS, nominal))
                print(f"{device} {kind}:", told(constants, free))
                columns[kind] += [error(each, constants) for each in rows if each.device == device]
    print(f"\n{'device':16} {'operator':15} {'rows':>6}", *(f"{kind:>14}" for kind in columns))
    for index, each in enumerate(rows):
        print(
            f"{each.device:16} {each.operator:15} {len(each.seconds):6}",
            *(f"{c[index]:>14}" for c in columns.values()),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measured", type=Path, default=ROOT.parent / "shared" / "measured")
    parser.add_argument("--rows", type=int, default=1500, help="rows of each device and operator to fit")
    parser.add_argument("--no-fit", action="store_true", help="errors of the shipped constants only")
    parser.add_argument("--only", choices=("bf16", "fp32"))
    options = parser.parse_args()
    if options.only != "fp32":
        report(read_bf16(options.measured), FITTED, options.rows, not options.no_fit)
    if options.only != "bf16":
        report(read_fp32(options.measured), FITTED_SIMT, options.rows, not options.no_fit)


if __name__ == "__main__":
    main()
