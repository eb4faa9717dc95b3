"""Fit the energy constants of processes and memories, and say what they are worth on boards left out.

    python benchmarks/fit_power.py --measured ../shared/measured [--rows 60]

What identifies them: seconds of whole timm models on a board that its limit slows (RTX PRO 6000 Max-Q) and on boards
that it does not (RTX 3090, 4090); fp32 products on boards that the slot feeds (T4, L4), networks on T4 and V100;
seconds, watts and joules of training steps under lowered limits (Zeus: A40, V100). Training is not modelled: a step is
taken to be a forward pass three times over, stretched to each network's own seconds at the highest limit, which it does
not reach; what is held against the measurement is its seconds relative to those at 250 W, and its joules.

Every window of launches is worked out once at full clock; energies and clocks follow from the constants. Constants
minimise the soft absolute log error, drawn weakly to the values that they start from. Printed: shipped, fitted on all,
fitted without each board; errors (median / 90th percentile, %) of each group with the three.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from costmodel.analysis import Analysis
from costmodel.devices.power import DRAM_PJ_PER_BYTE, PROCESSES
from costmodel.errors import CostmodelError
from costmodel.execution import Execution, Variant
from costmodel.hardware import HardwareProfile, load
from costmodel.kernels import Kernel
from costmodel.timing.constants import CONSTANTS
from costmodel.timing.power import POWER, Load, Power, PowerConstants
from costmodel.timing.step import Step
from costmodel.timing.timeline import Kind
from costmodel.traced import load_trace
from costmodel.validate import read_measured
from costmodel.validate.judged import operator_analysis
from costmodel.validate.rows import OperatorRow

#: Forward passes that a training step is taken for: the backward pass multiplies twice as often.
TRAINING = 3
#: Batches of Zeus that are taken: the largest of a network, and smaller ones down to this part of it.
ZEUS_BATCHES = 2
#: What Zeus trained: our request, the sizes of an input, and devices by their names there.
ZEUS: Mapping[str, tuple[str, dict[str, int]]] = {
    "resnet50": ("resnet50", {}),
    "bert_base_uncased": ("hf:bert", {"seq_len": 384}),
    "shufflenetv2": ("torchvision:shufflenet_v2_x1_0", {}),
}
ZEUS_DEVICES = {"a40": "a40", "v100": "v100-pcie-32gb"}
#: Boards and engines of timm's timings that are taken.
TIMM = (
    *(("rtxpro6000-maxq", "eager"), ("rtxpro6000-maxq", "compile")),
    *(("rtx4090", "eager"), ("rtx4090", "compile"), ("rtx3090", "eager")),
)
#: Boards whose limits no network reaches: what slows them is an error of the constants alone, which weighs thrice.
UNLIMITED = ("rtx3090", "rtx4090")
#: Seconds above which what the host adds to an eager call hardly shows.
LEAST_S = 0.5e-3
#: The same of NVIDIA's DeepLearningExamples.
NVIDIA_NETWORKS: Mapping[str, str] = {"resnet50_v1.5": "resnet50", "resnext101_32x4d": "timm:resnext101_32x4d"}
NVIDIA_DEVICES = {"T4": "t4", "V100-SXM-16GB": "v100-sxm-16gb"}
NVIDIA_BATCH = 128
#: Batch at which the GPU waits for its data nearly all the time: ShuffleNet V2's power is that of a board that waits.
IDLE_BATCH = 8
#: Weight of a group of rows, whatever their number, and of a starting value [groups].
PRIOR = 0.01

#: (where, name): a field of a process, a type of memory, or a field of PowerConstants.
FITTED: tuple[tuple[str, str], ...] = (
    *((process, name) for process in ("12ffn", "8n", "4n")
      for name in ("static_w_per_unit", "clock_w_per_unit", "matrix_pj_per_flop", "lane_pj_per_flop", "voltage_slope",
                   "least_voltage")),
    *(("dram", kind) for kind in ("HBM2", "GDDR6", "GDDR6X", "GDDR7")),
    ("power", "waiting_share"), ("power", "pause_s"), ("power", "gddr_standby_pj_per_byte"),
)  # fmt: skip


#: What one would guess before any fit: static and clock power of a unit by the idle power of such boards, energies of
#: operations falling with the process, of memories by the literature. Fits start there.
NEUTRAL = dict(
    zip(
        FITTED,
        (
            *(0.45, 0.6, 0.6, 5.0, 0.8, 0.65),
            *(0.8, 0.8, 0.6, 4.5, 0.8, 0.65),
            *(0.3, 1.0, 0.3, 4.0, 0.8, 0.65),
            *(40.0, 100.0, 90.0, 80.0, 0.3, 0.5e-3, 30.0),
        ),
        strict=True,
    )
)


@dataclass(frozen=True)
class Case:
    """One measurement.

    ``loads``      kernels of a forward pass, each with its load, the share of its bytes that DRAM serves, and a count
    ``alone``      whether it is run between two pauses
    ``times``      how often the forward pass runs
    ``quantity``   what was measured: "s", "J" or "idle W", the power of a board that mostly waits for its host
    ``reference``  the case that seconds are relative to, by position; None: they are as they are
    ``stretch``    seconds of its kernels over the predicted ones
    """

    group: str
    board: str
    hardware: HardwareProfile
    loads: tuple[tuple[Kernel, Load, float, int], ...]
    waited_s: float
    alone: bool
    times: int
    quantity: str
    measured: float
    extra_s: float = 0.0
    reference: int | None = None
    stretch: float = 1.0


def cases_of(analysis: Analysis, *, times: int = 1, **fields: Any) -> Case:
    """The windows of a step as one case; energies are left to the constants."""
    step = Step(analysis.plan, analysis.bound, analysis.hardware, analysis.issued)
    full = Step(
        analysis.plan, analysis.bound, replace(analysis.hardware, power_w=None, power_cap_w=None), analysis.issued
    )
    kernels, gain = analysis.plan.kernels, 1 - 1 / CONSTANTS.caches.speedup
    of_kind = step.loads()
    counts: Counter[tuple[int, Load]] = Counter()
    for launch, kind in zip(analysis.plan.launches, step.flow.alike, strict=True):
        counts[launch.kernel, of_kind[kind]] += 1
    loads = tuple(
        (kernels[index], one, max(0.0, 1 - (1 - one.share) / gain), count) for (index, one), count in counts.items()
    )
    waited = full.timeline().waited_s
    return Case(hardware=analysis.hardware, loads=loads, waited_s=waited, times=times, **fields)


def timm_cases(folder: Path, rows: int) -> Iterator[Case]:
    """Whole models, the same number of each board and engine; only such as are traced already."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    with gzip.open(folder / "timm_models.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["phase"] == "infer" and row["layout"] == "nchw":
                groups[row["device"], row["mode"]].append(row)
    for device, mode in TIMM:
        some = groups[device, mode]
        random.Random(1).shuffle(some)  # noqa: S311 - a sample, not a secret
        kept = 0
        for row in some:
            if kept >= rows:
                break
            try:
                sizes = {"height": int(row["image_size"]), "width": int(row["image_size"])}
                trace = load_trace(f"timm:{row['model']}", sizes=sizes, use_cache="only")
                execution = Execution.of(batch=int(row["batch"]), dtype=row["dtype"], mode=mode, torch=row["torch"],
                                         fast_norm=True, tf32_matmul=True)  # fmt: skip
                analysis = Analysis(name=trace.name, source=trace.source, record=trace.graph, hardware=load(device),
                                    execution=execution)  # fmt: skip
                found = cases_of(
                    analysis, group=f"{device} {mode}", board=device, alone=False, quantity="s",
                    measured=1e-3 * float(row["latency_ms"]),
                )  # fmt: skip
            except CostmodelError:
                continue
            kept += 1
            yield found


def nvidia_cases(folder: Path) -> Iterator[Case]:
    """Networks that NVIDIA timed in PyTorch on T4 and V100, at the batch that fills them."""
    with gzip.open(folder / "nvidia_dle_inference.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if (row["framework"], row["engine"]) == ("PyTorch", "framework")]
    for row in rows:
        device, half = NVIDIA_DEVICES.get(row["device"], ""), row["precision"] == "Mixed Precision"
        request = NVIDIA_NETWORKS.get(row["model"])
        if not device or request is None or float(row["batch"] or 0) != NVIDIA_BATCH:
            continue
        trace = load_trace(request, variant=Variant("nhwc" if half else "nchw"))
        execution = Execution.of(batch=NVIDIA_BATCH, dtype="amp_fp16" if half else "fp32",
                                 layout="nhwc" if half else "nchw")  # fmt: skip
        analysis = Analysis(name=trace.name, source=trace.source, record=trace.graph, hardware=load(device),
                            execution=execution)  # fmt: skip
        yield cases_of(analysis, group=f"{device} networks", board=device, alone=False, quantity="s",
                       measured=NVIDIA_BATCH / float(row["throughput_per_s"]))  # fmt: skip


def operator_cases(folder: Path, rows: int) -> Iterator[Case]:
    """fp32 products of T4 and L4, alone between two synchronizations."""
    for file, device in (("ops_neusight.csv.gz", "t4"), ("ops_neusight_l4_mi100.csv.gz", "l4")):
        rows_at_hand = [row for row in read_measured([str(folder / file)]).rows if isinstance(row, OperatorRow)]
        for op in ("linear", "bmm"):
            some = [row for row in rows_at_hand if row.device == device and row.op == op and row.latency_s > LEAST_S]
            random.Random(1).shuffle(some)  # noqa: S311 - a sample, not a secret
            for row in some[: 2 * rows]:
                yield cases_of(
                    operator_analysis(row, load(device)), group=f"{device} {op}", board=device,
                    alone=True, quantity="s", measured=row.latency_s,
                )  # fmt: skip


def zeus_cases(folder: Path, start: int) -> Iterator[Case]:
    """Training steps under every limit: seconds relative to the highest one, and joules at each network's largest
    batch. ``start``: the position of the first case."""
    curves: dict[tuple[str, str, int], dict[int, tuple[float, float]]] = defaultdict(dict)
    with gzip.open(folder / "energy_zeus.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["step_ms"] and row["network"] in ZEUS and row["optimizer"] != "adam":
                key = (row["network"], row["device"], int(row["batch"]))
                curves[key][int(row["power_limit_w"])] = 1e-3 * float(row["step_ms"]), float(row["average_power_w"])
    largest: dict[tuple[str, str], int] = {}
    for network, device, batch in curves:
        largest[network, device] = max(batch, largest.get((network, device), 0))
    position, ready = start, list[Case]()
    for (network, device, batch), curve in sorted(curves.items()):
        if network == "shufflenetv2" and batch == IDLE_BATCH:
            loads = next(case.loads for case in ready if case.board == device)
            yield Case(group=f"{device} zeus idle", board=device, hardware=load(ZEUS_DEVICES[device]), loads=loads,
                       waited_s=0.0, alone=False, times=1, quantity="idle W",
                       measured=float(np.median([watts for _, watts in curve.values()])))  # fmt: skip
            position += 1
        if batch * ZEUS_BATCHES < largest[network, device] or network == "shufflenetv2":
            continue
        request, sizes = ZEUS[network]
        trace = load_trace(request, sizes=sizes)
        full = load(ZEUS_DEVICES[device])
        analysis = Analysis(name=trace.name, source=trace.source, record=trace.graph, hardware=full,
                            execution=Execution.of(batch=batch, tf32_matmul=True))  # fmt: skip
        first, highest = position, max(curve)
        base = cases_of(analysis, group="", board="", alone=False, quantity="s", measured=1.0)
        unlimited = replace(base, hardware=replace(full, power_w=None))
        stretch = curve[highest][0] / (TRAINING * predicted(unlimited, POWER)[0])
        reference = 250
        for limit in sorted(curve, key=lambda limit: limit != reference):
            hardware = full.limited(None if limit >= (full.power_w or limit) else limit)
            common = {"board": device, "alone": False}
            one = replace(base, times=TRAINING, group=f"{device} zeus time", hardware=hardware, reference=first,
                          measured=curve[limit][0] / curve[reference][0], stretch=stretch, **common)  # fmt: skip
            yield one
            ready.append(one)
            position += 1
            if batch == largest[network, device]:
                yield replace(one, group=f"{device} zeus joules", quantity="J", reference=None,
                              measured=curve[limit][0] * curve[limit][1])  # fmt: skip
                position += 1


def constants_of(values: Mapping[tuple[str, str], float]) -> PowerConstants:
    """The bundle with these values."""
    processes = dict(PROCESSES)
    for name, process in PROCESSES.items():
        own = {field: value for (where, field), value in values.items() if where == name}
        processes[name] = replace(process, **own)
    dram = {**DRAM_PJ_PER_BYTE, **{kind: value for (where, kind), value in values.items() if where == "dram"}}
    others = {field: value for (where, field), value in values.items() if where == "power"}
    return replace(POWER, processes=MappingProxyType(processes), dram_pj_per_byte=MappingProxyType(dram), **others)


def shipped() -> dict[tuple[str, str], float]:
    """The constants as they are."""
    found = {}
    for where, name in FITTED:
        source = {"dram": DRAM_PJ_PER_BYTE, "power": POWER}.get(where) or PROCESSES[where]
        found[where, name] = source[name] if where == "dram" else getattr(source, name)  # type: ignore[index]
    return found


def predicted(case: Case, constants: PowerConstants) -> tuple[float, float]:
    """(seconds, J) of a case."""
    power = Power(case.hardware, constants)
    launched: list[tuple[Load, Kind, int]] = []
    for kernel, one, dram_share, count in case.loads:
        part = one.part
        if case.stretch != 1:
            k = case.stretch
            part = part._replace(
                compute_s=k * part.compute_s, memory_s=k * part.memory_s, fixed_s=k * part.fixed_s,
                serial_s=k * part.serial_s,
            )  # fmt: skip
        switched_j, moved_j = power.switched_j(kernel), power.moved_j(kernel, dram_share)
        load = one._replace(part=part, switched_j=switched_j, moved_j=moved_j)
        launched.append((load, power.kind(load), count))
    pause_s = constants.pause_s if case.alone else 0.0
    held = min(power.held_hz(launched, case.waited_s, pause_s), max(load.clock_hz for load, _, _ in launched))
    seconds, joules = power.window(launched, case.waited_s, held, pause_s)
    return case.times * (seconds - pause_s), case.times * joules


def errors(cases: list[Case], constants: PowerConstants) -> np.ndarray:
    """Log of predicted over measured, by case."""
    both = [predicted(case, constants) for case in cases]
    found = []
    for case, (seconds, joules) in zip(cases, both, strict=True):
        value = joules if case.quantity == "J" else seconds
        if case.quantity == "idle W":
            value = Power(case.hardware, constants).waiting_w(case.hardware.clock_hz)
        if case.reference is not None:
            value /= both[case.reference][0]
        found.append(math.log(value / case.measured))
    return np.array(found)


def fit(cases: list[Case], start: Mapping[tuple[str, str], float], rounds: int) -> dict[tuple[str, str], float]:
    """Constants that minimise the mean of each group's |error| (0.02 and less count as squares)."""
    keys = list(start)
    origin = np.log([start[key] for key in keys])
    x = origin.copy()
    count = Counter(case.group for case in cases)
    weights = np.array([(3 if case.board in UNLIMITED else 1) / count[case.group] for case in cases])

    def residuals(x: np.ndarray) -> np.ndarray:
        return errors(cases, constants_of(dict(zip(keys, np.exp(x), strict=True))))

    prior = np.array([PRIOR * (4 if where == "dram" else 1) for where, _ in keys])

    def loss(found: np.ndarray, x: np.ndarray) -> float:
        return float(weights @ np.minimum(np.sqrt(found**2 + 4e-4), 0.5) + prior @ (x - origin) ** 2)

    now = residuals(x)
    for _ in range(rounds):
        slopes = np.array([(residuals(x + 0.05 * unit) - now) / 0.05 for unit in np.eye(len(x))]).T
        weight = weights / np.maximum(np.abs(now), 0.02) * (np.abs(now) < 0.5)
        left = slopes.T @ (weight[:, None] * slopes) + np.diag(2 * prior)
        step = np.linalg.solve(left, -slopes.T @ (weight * now) - 2 * prior * (x - origin))
        size = 1.0
        best = loss(now, x)
        while size > 0.05:
            tried = np.clip(x + size * np.clip(step, -0.7, 0.7), origin - 1.5, origin + 1.5)
            floors = [position for position, key in enumerate(keys) if key[1] == "least_voltage"]
            tried[floors] = np.clip(tried[floors], math.log(0.45), math.log(0.9))
            after = residuals(tried)
            if loss(after, tried) < best:
                break
            size /= 2
        else:
            break
        print(f"loss {loss(after, tried):.4f}", file=sys.stderr, flush=True)
        gained = best - loss(after, tried)
        x, now = tried, after
        if gained < 2e-4:
            break
    return dict(zip(keys, map(float, np.exp(x)), strict=True))


def score(found: Iterable[float]) -> str:
    share = np.abs(np.expm1(np.array(list(found))))
    return f"{100 * np.median(share):.1f} / {100 * np.quantile(share, 0.9):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=Path("../shared/measured"))
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--left-out", action="store_true", help="fit without each board too (minutes)")
    arguments = parser.parse_args()
    cases = [*timm_cases(arguments.measured, arguments.rows), *operator_cases(arguments.measured, arguments.rows)]
    cases += nvidia_cases(arguments.measured)
    cases += zeus_cases(arguments.measured, len(cases))
    now = shipped()
    columns = {"shipped": now, "all": fit(cases, NEUTRAL, arguments.rounds)}
    boards = sorted({case.board for case in cases})
    if arguments.left_out:
        for board in boards:
            some, moved = [], {}
            for position, case in enumerate(cases):
                if case.board != board:
                    moved[position] = len(some)
                    some.append(replace(case, reference=None if case.reference is None else moved[case.reference]))
            columns[f"without {board}"] = fit(some, NEUTRAL, arguments.rounds)
    print(f"{len(cases)} cases\n{'constant':30}" + "".join(f"{name.removeprefix('without '):>17}" for name in columns))
    for key in now:
        print(f"{' '.join(key):30}" + "".join(f"{values[key]:17.3g}" for values in columns.values()))
    errors_of = {name: errors(cases, constants_of(values)) for name, values in columns.items()}
    print(f"\n{'median / p90 of |error|, %':30}{'rows':>6}{'shipped':>15}{'all':>15}{'left out':>15}{'bias':>8}")
    for group in sorted({case.group for case in cases}):
        mask = np.array([case.group == group for case in cases])
        board = next(case.board for case in cases if case.group == group)
        cells = [score(errors_of[name][mask]) for name in ("shipped", "all", f"without {board}") if name in columns]
        bias = f"{100 * np.median(errors_of['all'][mask]):+.1f}"
        print(f"{group:30}{mask.sum():6}" + "".join(f"{cell:>15}" for cell in cells) + f"{bias:>8}")


if __name__ == "__main__":
    main()
