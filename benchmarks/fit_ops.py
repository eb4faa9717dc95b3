"""Reproduce the constants of ``costmodel.timing.streaming`` and ``.convolution`` and print their errors.

    python benchmarks/fit_ops.py [--measured FOLDER] [--rows N] [--only streaming|convolution]

Errors are median / 90th percentile of |predicted / measured - 1| in percent: with constants fitted to the device
itself (own), with the constants that the package ships (shipped), fitted to all devices (shared), and fitted to the
other devices (left out). Rows count above the dispatch floor: more than 1.3 times the smallest latencies.

The timings are eager calls between two events: ``max(floor, before + kernel)``. ``before`` is the host's time until
the kernel starts, ``floor - after``; ``after``, until the second event is recorded, does not depend on the operator.
While convolutions were measured, the host slowed down steadily (the same shapes, in the same order, on every GPU:
by 0.25 ms on A100 and V100, 0.4 on T4, 0.7 on P100 from first to last row). That line is estimated from the
small kernels of each device and is no part of the model.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.hardware import HardwareProfile, load
from costmodel.kernels.shapes import Window
from costmodel.timing.convolution import (
    CONVOLUTION,
    ConvolutionConstants,
    convolution_time,
    eligible,
)
from costmodel.timing.machine import GpuMachine
from costmodel.timing.streaming import LANE_CYCLES, STREAMING, StreamingConstants, streaming_time

TWO_READS = ("add", "mul", "div", "pow")
AFTER_LAUNCH = 0.46  # share of the floor of an element-wise call that follows the launch
FITTED: dict[str, tuple[str, ...]] = {
    "softmax": (
        "warp_row_cost",
        "warp_row_cost_misaligned",
        "block_softmax_row_cycles",
        "block_softmax_element_cycles",
        "softmax_overlap",
    ),
    "layer_norm": (
        "layer_norm_row_cycles",
        "layer_norm_element_cycles",
        "reread_from",
        "reread_span",
        "layer_norm_overlap",
    ),
    "implicit_gemm": ("gemm_efficiency", "gemm_lead", "gemm_exposed"),
    "winograd": (
        "fused_efficiency",
        "fused_lead",
        "fused_exposed",
        "batched_efficiency",
        "batched_lead",
        "batched_exposed",
        "batched_feed",
        "transform_cost",
    ),
    "fft": ("fft_efficiency", "fft_transform_cost"),
}
#: Where every fit starts, by the ending of a constant's name: round guesses, so that no fit knows the shipped values.
NEUTRAL = {
    "efficiency": 1.0,
    "lead": 20.0,
    "exposed": 0.5,
    "feed": 4.0,
    "cost": 1.0,
    "misaligned": 1.1,
    "row_cycles": 300.0,
    "element_cycles": 0.5,
    "from": 0.7,
    "span": 0.7,
    "overlap": 2.0,
}
OF_LABEL = {"winograd": ("winograd", "winograd_nonfused"), "implicit_gemm": ("implicit_gemm",), "fft": ("fft",)}


@dataclasses.dataclass(slots=True)
class Row:
    """One measurement; ``before_s`` is host time ahead of the kernel, ``case`` what its model needs."""

    latency_s: float
    before_s: float
    case: Any
    label: str = ""
    position: float = 0.0  # in the order of measuring, 0 to 1


Predict = Callable[[Any, GpuMachine, Any], float]  # case, machine, constants -> seconds


def machine_of(profile: HardwareProfile, dram_fraction: float | None = None) -> GpuMachine:
    """What the time models read of a profile, at another share of its pin rate where one is given."""
    machine = GpuMachine.from_profile(profile)
    return machine if dram_fraction is None else dataclasses.replace(machine, dram_fraction=dram_fraction)


def read(path: Path) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Rows by device and operator, in the order of the file."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["device"], row["op"]), []).append(row)
    return found


def sizes(text: str) -> list[int]:
    return [int(size) for size in text.split("x")]


def subsample(rows: Sequence[Row], count: int) -> list[Row]:
    return list(rows[:: max(1, len(rows) // count)])


def errors(rows: Sequence[Row], machine: GpuMachine, predict: Predict, constants: Any) -> np.ndarray:
    return np.array([(r.before_s + predict(r.case, machine, constants)) / r.latency_s - 1 for r in rows])


def fit(
    data: dict[str, list[Row]], machines: dict[str, GpuMachine], predict: Predict, start: Any, names: tuple[str, ...]
) -> Any:
    """Coordinate search in the logarithm of each constant for the least mean |log error|, devices weighing the same."""

    def loss(constants: Any) -> float:
        return sum(
            float(np.abs(np.log1p(np.maximum(errors(rows, machines[d], predict, constants), -0.9))).mean())
            for d, rows in data.items()
        )

    best, lowest, step = start, loss(start), 0.5
    while step > 0.02:
        improved = False
        for name in names:
            for factor in (1 + step, 1 / (1 + step)):
                trial = dataclasses.replace(best, **{name: getattr(best, name) * factor})
                if name.endswith("overlap") and not 1 <= getattr(trial, name) <= 8:
                    continue
                value = loss(trial)
                if value < lowest - 1e-5:
                    best, lowest, improved = trial, value, True
        step = step if improved else step / 2
    return best


def score(values: np.ndarray) -> str:
    median, tail = np.quantile(np.abs(values), [0.5, 0.9]) * 100
    return f"{median:5.1f} /{tail:5.1f}"


def table(
    title: str,
    data: dict[str, list[Row]],
    machines: dict[str, GpuMachine],
    predict: Predict,
    start: Any,
    names: tuple[str, ...],
    count: int,
) -> Any:
    """Fit, print errors by device, return the shared constants."""
    few = {d: subsample(rows, count) for d, rows in data.items()}
    ends = {name: next(end for end in NEUTRAL if name.endswith(end)) for name in names}
    neutral = dataclasses.replace(start, **{name: NEUTRAL[end] for name, end in ends.items()})
    shared = fit(few, machines, predict, neutral, names)
    print(f"\n{title}: " + ", ".join(f"{n} {getattr(shared, n):.3g} (shipped {getattr(start, n):.3g})" for n in names))
    for device, rows in data.items():
        own = fit({device: few[device]}, machines, predict, neutral, names)
        others = {d: r for d, r in few.items() if d != device}
        left_out = fit(others, machines, predict, neutral, names) if others else neutral
        scores = [score(errors(rows, machines[device], predict, c)) for c in (own, start, shared, left_out)]
        bias = 100 * float(np.median(errors(rows, machines[device], predict, start)))
        of_own, shipped, of_all, left = scores
        print(
            f"  {device:16s} {len(rows):5d} rows  own {of_own}  shipped {shipped} ({bias:+.0f})  shared {of_all}"
            f"  left out {left}"
        )
    return shared


def vector_rows(raw: list[dict[str, str]], floor_s: float, after_s: float, label: str) -> list[Row]:
    """Rows above the floor; the case is (rows, row length)."""
    rows = []
    for r in raw:
        latency = float(r["latency_us"]) * 1e-6
        if latency > 1.3 * floor_s:
            rows.append(Row(latency, floor_s - after_s, tuple(sizes(r["input"])), label))
    return rows


def predict_vector(case: tuple[str, tuple[int, int]], machine: GpuMachine, constants: StreamingConstants) -> float:
    op, (count, length) = case
    kind = op if op in ("softmax", "layer_norm") else "elementwise"
    elements = count * length
    return streaming_time(
        (8.0 if op in TWO_READS else 4.0) * elements,
        4.0 * elements,
        elements=elements,
        rows=count,
        row_length=length,
        kind=kind,
        machine=machine,
        lane_cycles=LANE_CYCLES.get(op.removesuffix("_scalar"), 4.0),
        constants=constants,
    ).seconds


def pin_share(rows: Sequence[Row], profile: HardwareProfile, bytes_per_element: float) -> float:
    """Share of the pin rate of large tensors: slope of latency over bytes."""
    bytes_moved = np.array([bytes_per_element * r.case[1][0] * r.case[1][1] for r in rows])
    latency = np.array([r.latency_s for r in rows])
    large = latency > np.quantile(latency, 0.5)
    return float(1 / np.polyfit(bytes_moved[large], latency[large], 1)[0] / profile.dram_bytes_per_s)


def write_cost(two_to_one: float, one_to_one: float) -> float:
    """Time of a written over a read byte, from the shares reached at 2 reads : 1 write and at 1 : 1."""
    read = 3 / two_to_one - 2 / one_to_one
    return (2 / one_to_one - read) / read


def streaming(raw: dict[tuple[str, str], list[dict[str, str]]], count: int) -> None:
    devices = sorted({d for d, op in raw if op == "add"})
    ops = sorted({op for _, op in raw} - {"linear", "bmm", "conv2d"})
    floors = {k: float(np.quantile([float(r["latency_us"]) for r in rows], 0.02)) * 1e-6 for k, rows in raw.items()}
    data: dict[str, dict[str, list[Row]]] = {op: {} for op in ops}
    profiles = {d: load(d) for d in devices}
    fixed = {d: machine_of(profiles[d]).kernel_fixed_s for d in devices}
    for device in devices:
        for op in ops:
            after = AFTER_LAUNCH * min(floors[device, op], floors[device, "add"])
            rows = vector_rows(raw[device, op], floors[device, op], after + fixed[device], op)
            data[op][device] = [dataclasses.replace(r, case=(op, r.case)) for r in rows]
    fractions = {d: pin_share(data["add"][d], profiles[d], 12) for d in devices}
    costs = {d: write_cost(fractions[d], pin_share(data["gelu"][d], profiles[d], 8)) for d in devices}
    own = {d: machine_of(profiles[d], fractions[d]) for d in devices}
    print("share of the pin rate, 2 reads : 1 write:", {d: round(f, 3) for d, f in fractions.items()})
    print(
        f"write_cost {np.median(list(costs.values())):.2f} (shipped {STREAMING.write_cost}):",
        {d: round(c, 2) for d, c in costs.items()},
    )
    print("\nelement-wise: own share of the pin rate | the profile's")
    for device in devices:
        given = machine_of(profiles[device])
        for op in ops:
            if op in ("softmax", "layer_norm"):
                continue
            rows = data[op][device]
            scores = [score(errors(rows, m, predict_vector, STREAMING)) for m in (own[device], given)]
            print(f"  {device:16s} {op:10s} {len(rows):4d} rows  own {scores[0]}  profile {scores[1]}")
        everything = [r for op in ops if op not in ("softmax", "layer_norm") for r in data[op][device]]
        scores = [score(errors(everything, m, predict_vector, STREAMING)) for m in (own[device], given)]
        print(f"  {device:16s} all        {len(everything):4d} rows  own {scores[0]}  profile {scores[1]}")
    for op in ("softmax", "layer_norm"):
        table(op, data[op], own, predict_vector, STREAMING, FITTED[op], count)


def conv_shape(r: dict[str, str]) -> Window:
    batch, channels, height, width = sizes(r["input"])
    out, _, kernel_h, kernel_w = sizes(r["other"])
    stride, padding = ([int(float(v)) for v in r[k].split("x")] for k in ("stride", "padding"))
    return Window(
        batch=batch,
        in_channels=channels,
        height=height,
        width=width,
        out_channels=out,
        kernel=(kernel_h, kernel_w),
        stride=(stride[0], stride[-1]),
        padding=(padding[0], padding[-1]),
    )


def predict_conv(case: tuple[Window, tuple[str, ...]], machine: GpuMachine, constants: ConvolutionConstants) -> float:
    shape, algorithms = case
    return convolution_time(shape, machine=machine, algorithms=algorithms, constants=constants).seconds


def set_host(rows: Sequence[Row], machine: GpuMachine, constants: ConvolutionConstants) -> tuple[float, float]:
    """Host time ahead of the kernel, a line over the order of measuring, from the 40 % smallest kernels."""
    kernel = np.array([predict_conv(r.case, machine, constants) for r in rows])
    rest = np.array([r.latency_s for r in rows]) - kernel
    position = np.array([r.position for r in rows])
    small = kernel <= np.quantile(kernel, 0.4)
    bins = np.minimum((position * 12).astype(int), 11)
    middles = [float(position[small & (bins == b)].mean()) for b in range(12)]
    medians = [float(np.median(rest[small & (bins == b)])) for b in range(12)]
    slope, start = np.polyfit(middles, medians, 1)
    for row in rows:
        row.before_s = start + slope * row.position
    return float(start), float(slope)


def convolution(raw: dict[tuple[str, str], list[dict[str, str]]], count: int) -> None:
    devices = sorted(d for d, op in raw if op == "conv2d")
    machines = {d: machine_of(load(d)) for d in devices}
    data: dict[str, dict[str, list[Row]]] = {label: {d: [] for d in devices} for label in OF_LABEL}
    for device in devices:
        everything = raw[device, "conv2d"]
        for index, r in enumerate(everything):
            label = r["algorithm"]
            row = Row(
                float(r["latency_us"]) * 1e-6, 0.0, (conv_shape(r), OF_LABEL[label]), label, index / len(everything)
            )
            data[label][device].append(row)
        start, drift = set_host([r for of in data.values() for r in of[device]], machines[device], CONVOLUTION)
        print(f"{device}: host {start * 1e6:.0f} µs ahead of the kernel, {drift * 1e6:+.0f} µs from first to last row")
    for label, of in data.items():
        enough = {d: rows for d, rows in of.items() if len(rows) >= 30}
        table(f"conv2d, {label} as measured", enough, machines, predict_conv, CONVOLUTION, FITTED[label], count)
    print("\nconv2d, the model's own choice of algorithm")
    for device in devices:
        rows = [dataclasses.replace(r, case=(r.case[0], None)) for of in data.values() for r in of[device]]
        choices(rows, machines[device], f"  {device:16s}")
        middle = float(np.median([r.before_s for r in rows]))
        constant = [dataclasses.replace(r, before_s=middle) for r in rows]
        fixed_host = score(errors(constant, machines[device], predict_conv, CONVOLUTION))
        print(f"  {'':16s} the same, host time taken as constant: {fixed_host}")


def choices(rows: Sequence[Row], machine: GpuMachine, head: str) -> None:
    times = [convolution_time(r.case[0], machine=machine) for r in rows]
    error = np.array([(r.before_s + t.seconds) / r.latency_s - 1 for r, t in zip(rows, times, strict=True)])
    right = np.mean([t.algorithm in OF_LABEL[r.label] for r, t in zip(rows, times, strict=True)])
    bias = 100 * np.median(error)
    print(f"{head} {len(rows):5d} rows  {score(error)} ({bias:+.0f})  algorithm right {100 * right:.0f} %")


def deepbench(path: Path) -> None:
    """Kernels of real networks, best of cuDNN's algorithms; no constant is fitted to them."""
    print("\nDeepBench (no constant fitted; kernel time, best algorithm)")
    for (device, _), raw in read(path).items():
        machine, rows = machine_of(load(device)), []
        for r in raw:
            name = r["algorithm"].lower()
            label = "fft" if "fft" in name else "winograd" if "winograd" in name else "implicit_gemm"
            rows.append(Row(float(r["latency_us"]) * 1e-6, 0.0, (conv_shape(r), None), label))
        choices(rows, machine, f"  {device:16s}")
        for label in OF_LABEL:
            of = [
                dataclasses.replace(r, case=(r.case[0], tuple(set(OF_LABEL[label]) & set(eligible(r.case[0])))))
                for r in rows
                if r.label == label
            ]
            if of:
                value = errors(of, machine, predict_conv, CONVOLUTION)
                print(f"  {'':16s} {label:14s} {len(of):3d} rows  {score(value)} ({100 * np.median(value):+.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=Path(__file__).parents[1] / ".." / "shared" / "measured")
    parser.add_argument("--rows", type=int, default=150, help="rows a device that a fit reads (errors read all)")
    parser.add_argument("--only", choices=("streaming", "convolution"))
    options = parser.parse_args()
    raw = read(options.measured / "ops_neusight.csv.gz")
    if options.only != "convolution":
        streaming(raw, options.rows)
    if options.only != "streaming":
        convolution(raw, options.rows)
        deepbench(options.measured / "ops_deepbench_conv.csv.gz")


if __name__ == "__main__":
    main()
