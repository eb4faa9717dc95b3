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
import tomllib

from costmodel.hardware import load
from costmodel.timing.gemm import GEMM, MATRIX_TILES, SIMT_TILES, GemmConstants, gemm_time
from costmodel.timing.gemm_machine import GemmMachine
from costmodel.validate.replay import COPIES

Array = Any  # numpy arrays of float

FITTED = (
    "stream_share",
    "fixed_cycles",
    "l2_share",
    "memory_overlap",
    "k_latency_cycles",
    "epilogue_bytes_per_cycle",
    "split_fixed_cycles",
    "split_passes",
    "l2_usable",
    "l2_fade",
    "gemv_fixed_cycles",
    "gemv_passes",
)
#: No A100 row lies near the edge of its L2: alone, it leaves the edge at the nominal capacity, nearly sharp.
EDGE = {"l2_usable": 1.0, "l2_fade": 0.1}
FITTED_SIMT = ("simt_feed", "row_toll", "power_window_s")
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
    """The machine of a profile; a base clock that only the file tells counts too."""
    profile = load(device)
    machine = GemmMachine.from_profile(profile)
    base = tomllib.loads(profile.path.read_text())["units"].get("base_clock", "")
    if device == "t4" and machine.sustained_share == 1.0 and base:
        ghz = float(base.split()[0]) / (1000 if "MHz" in base else 1)
        machine = dataclasses.replace(machine, sustained_share=ghz * 1e9 / profile.clock_hz)
    return machine


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
        floor = float(np.quantile(each.seconds, 0.01))
        above = each.seconds > 1.5 * floor
        dispatch = floor - GEMM.fixed_cycles / each.machine.clock_hz
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


def predict(rows: Rows, c: GemmConstants) -> Array:
    """Seconds of every row: :func:`gemm_time` over arrays."""
    hw, engine = rows.machine, rows.machine.engine(rows.dtype)
    m, n, k, batch = rows.sizes.T
    size, units, clock = engine.element_bytes, hw.unit_count, engine.clock_hz

    def missing(distance: Array) -> Array:
        return np.clip((distance / hw.l2_bytes / c.l2_usable - 1) / c.l2_fade, 0, 1)

    def join(one: Array, other: Array, power: float = c.memory_overlap) -> Array:
        return (one**power + other**power) ** (1 / power)

    a, b = (m * k + m * n) * size * batch, k * n * size * batch
    distance = reuse(rows)
    miss_a, miss_b = (missing(a + b),) * 2 if distance is None else (missing(distance[0]), missing(distance[1]))
    memory = (a * miss_a + b * miss_b) / hw.dram_rate(c.stream_share)
    per_unit = hw.l2_bytes_per_s * c.l2_share / clock / units
    step = 32 if engine.matrix else 8
    toll: Array = 1.0
    if hw.row_reach_bytes is not None:
        toll = 1 + c.row_toll / (1 + (hw.row_reach_bytes / (k * size)) ** 3)
    most = np.where(batch > 1, 1, np.minimum(c.split_max, np.ceil(k / c.split_min_k)))
    best = np.full((3, len(m)), np.inf)  # seconds, compute, start
    for height, width in MATRIX_TILES if engine.matrix else SIMT_TILES:
        multiply = 2 * height * width / engine.flop_per_clock
        multiply = multiply / np.where(batch > 1, engine.batched_efficiency, engine.efficiency)
        if not engine.matrix:
            multiply = multiply * (1 + c.simt_feed * (height + width) / (height * width))
        shared = max(height, width) / hw.multicast + min(height, width) if engine.matrix else height + width
        feed = size * shared / per_unit
        epilogue = max(size, 2) * height * width / c.epilogue_bytes_per_cycle if engine.matrix else 0.0
        count = np.ceil(m / height) * np.ceil(n / width) * batch
        barred = (
            (batch > 1) & ((height, width) not in (engine.batched_tiles or SIMT_TILES)) if not engine.matrix else False
        )
        for fills in (0, 1, 2, 3, 4):
            split = np.minimum(most, np.maximum(1, fills * units // count))
            parts = count * split
            rounds = np.ceil(parts / units)
            power = c.feed_overlap
            loop = ((rounds * multiply * toll) ** power + (parts / units * feed) ** power) ** (1 / power)
            loop = np.maximum(loop, np.maximum(rounds * feed / c.l2_unit_burst, rounds * c.k_latency_cycles))
            passes = c.split_passes if fills <= 1 else c.split_wave_passes
            is_split = split > 1
            written = rounds * epilogue * np.where(is_split, 2 * c.split_passes, 1)
            part = np.maximum(np.where(is_split, c.split_min_k, 0), np.ceil(k / split / step) * step)
            compute = (loop * part + written) / clock
            added = c.split_fixed_cycles / hw.clock_hz
            added = added + passes * split * 4 * m * n / (hw.l2_bytes_per_s * c.l2_share)
            start = c.fixed_cycles / hw.clock_hz + np.where(is_split, added, 0)
            seconds = np.where(barred, np.inf, start + join(compute, memory))
            best = np.where(seconds < best[0], [seconds, compute, start], best)
    stream = np.maximum(
        c.gemv_passes * np.maximum(m, n) * k * size / hw.l2_bytes_per_s,
        2 * np.maximum(m, n) * k / (engine.flop_per_clock * clock * units),
    )
    fixed = c.gemv_fixed_cycles / hw.clock_hz + 0 * stream
    matrix = memory * hw.dram_rate(c.stream_share) / hw.dram_rate(c.gemv_stream_share)
    best = np.where(
        (batch == 1) & (np.minimum(m, n) == 1), [fixed + join(stream, matrix, c.feed_overlap), stream, fixed], best
    )
    if hw.sustained_share < 1:
        held = best[0] / (best[0] + c.power_window_s)
        best[0] = best[2] + join(best[1] * (1 + (1 / hw.sustained_share - 1) * held), memory)
    return best[0] + rows.dispatch_s


def check(rows: Rows, count: int = 200) -> None:
    """The arrays above say what the package says."""
    few = rows.sample(count)
    distance = reuse(few)
    for index, ours in enumerate(predict(few, GEMM)):
        m, n, k, batch = (int(value) for value in few.sizes[index])
        between = None if distance is None else (float(distance[0][index]), float(distance[1][index]))
        said = gemm_time(
            m, n, k, batch, dtype=few.dtype, hw=few.machine, bytes_cold=False, reuse_bytes=between, steady=False
        )
        if not math.isclose(said.seconds + few.dispatch_s, ours, rel_tol=1e-9):
            raise AssertionError(f"{few.device} {m, n, k, batch}: package {said.seconds}, here {ours - few.dispatch_s}")


def error(rows: Rows, constants: GemmConstants) -> str:
    relative = 100 * np.abs(predict(rows, constants) / rows.seconds - 1)
    return f"{np.median(relative):5.1f} /{np.quantile(relative, 0.9):5.1f}"


def fit(rows: Sequence[Rows], names: Sequence[str], start: GemmConstants) -> GemmConstants:
    """Least soft absolute deviation of log time; a weak pull to the start keeps what data leave open."""
    from scipy.optimize import least_squares

    origin = np.log([getattr(start, name) for name in names])
    total = sum(len(each.seconds) for each in rows)

    def constants(x: Array) -> GemmConstants:
        return dataclasses.replace(start, **{name: math.exp(value) for name, value in zip(names, x, strict=True)})

    def residuals(x: Array) -> Array:
        parts = [np.log(predict(each, constants(x)) / each.seconds) for each in rows]
        return np.concatenate([*parts, 0.03 * math.sqrt(total / 1000) * (x - origin)])

    found = least_squares(
        residuals, origin, loss="soft_l1", f_scale=0.06, diff_step=0.01, max_nfev=12, x_scale=0.1, method="trf"
    )
    return constants(found.x)


def told(constants: GemmConstants, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {getattr(constants, name):.4g}" for name in names)


def report(rows: Sequence[Rows], names: Sequence[str], count: int, refit: bool) -> None:
    for each in rows:
        check(each)
    columns: dict[str, list[str]] = {"shipped": [error(each, GEMM) for each in rows]}
    if refit:
        few = [each.sample(count) for each in rows]
        shared = fit(few, names, GEMM)
        print("shared:", told(shared, names))
        columns["shared"] = [error(each, shared) for each in rows]
        columns["own"], columns["left out"] = [], []
        for device in sorted({each.device for each in rows}):
            for kind, chosen in (("own", True), ("left out", False)):
                part = [each for each in few if (each.device == device) is chosen]
                free = [name for name in names if any(each.device == "l40s" for each in part) or name not in EDGE]
                nominal = {name: value for name, value in EDGE.items() if name in names and name not in free}
                constants = fit(part, free, dataclasses.replace(GEMM, **nominal))
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
