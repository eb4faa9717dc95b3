"""Fit what PyTorch asks of the host, and say how well it carries over to hosts that it was not fitted to.

    python benchmarks/fit_hosts.py --measured ../shared/measured

Two tables of costs (``costmodel/host/costs.py``) are fitted to public timings at small batches, each together with one
slowdown for each machine, and where images lay on the host with one rate of their copy:

    PyTorch 2   ``small_batch_hosts.csv`` (eager, compiled and captured steps of six machines), and the RX 7900 XTX of
                ``torchvision_batch12.csv.gz``
    PyTorch 1   the other machines of ``torchvision_batch12.csv.gz``; rows that name no release are of that era

A step takes ``max over launches (issued + what the device has still to do)``; ``issued`` is linear in the costs, so it
is worked out once for each cost alone. Costs and slowdowns minimise the soft absolute log error (SciPy), every setting
of a machine weighing the same, drawn weakly (``--prior``) to neutral guesses: what the parts take on a CPU and a launch
on top, and one cost for all operators in PyTorch 1. The guesses also hold the scale that costs and slowdowns share.

Printed: costs as shipped, guessed and fitted; the machines; the errors with each, and with costs **fitted to the other
machines alone**, where a machine's own slowdown and copy are found from its eager rows. ``small_batch_compile.csv`` is
judged, nothing is fitted to it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from costmodel.analysis import Analysis
from costmodel.execution import Software
from costmodel.hardware import load
from costmodel.host import HostCosts, HostProfile, captured, compiled, costs_of, operators
from costmodel.traced import load_trace
from costmodel.validate import Flags, read_measured
from costmodel.validate.conditions import execution_of
from costmodel.validate.fitted_hosts import machine_of
from costmodel.validate.run import load_row

#: File -> what its rows do not say: the era of those that name no release; inputs on the host, since the same network
#: in fp32 and in half differs by one constant whatever the network, the copy of 3.6 MB; modules in train mode.
FILES = {
    "torchvision_batch12.csv.gz": Flags(torch="1.4", conditions={"inputs": "host"}),
    "small_batch_hosts.csv": Flags(conditions={"train_mode": "yes"}),
    "small_batch_compile.csv": Flags(),
}
JUDGED_ONLY = "small_batch_compile.csv"
REFERENCE = HostProfile(name="reference")
#: The machine whose host is the reference core.
OF_REFERENCE = "h100-sxm-80gb together 2.5.0"
COPY_BYTES_PER_S = 3.5e9
#: Costs that are no class of operators.
PARTS = ("module", "allocation", "launch", "conversion", "inner", "cast", "autocast")
#: Neutral guesses [µs on the reference core].
MODERN_GUESS = {
    "module": 0.8, "allocation": 0.8, "launch": 2.0, "conversion": 2.0, "inner": 4.0, "cast": 5.0, "autocast": 0.5,
    "view": 2.0, "pointwise": 4.0, "movement": 5.0, "concatenation": 5.0, "reduction": 6.0, "pooling": 6.0,
    "normalization": 10.0, "statistics": 20.0, "product": 10.0, "attention": 12.0, "convolution": 15.0,
    "native_convolution": 10.0, "recurrent": 60.0,
    "compiled.call": 50.0, "compiled.generated": 6.0, "compiled.product": 6.0, "compiled.convolution": 15.0,
    "compiled.other": 6.0, "compiled.statistics": 20.0,
    **{f"{part}.{name}": value for part in ("reduce_overhead", "cudagraph")
       for name, value in (("call", 50.0), ("statistics", 20.0), ("gap_us", 1.0))},
}  # fmt: skip
#: "On older PyTorch an operator costs nearly the same whatever it is"; views a third.
OLD_GUESS = dict.fromkeys(MODERN_GUESS, 14.0) | {
    "module": 0.8, "allocation": 0.8, "launch": 4.0, "conversion": 14.0, "inner": 7.0, "view": 5.0,
}  # fmt: skip


@dataclass
class Step:
    """One row: µs of each cost at each launch, what the device has to do from a launch on [s], B that are copied."""

    row: Any
    file: str
    part: str
    names: list[str]
    issued: np.ndarray
    device_s: np.ndarray
    copied_bytes: float

    @property
    def machine(self) -> str:
        """As :mod:`costmodel.validate.fitted_hosts` tells machines apart: device, host, and release of PyTorch."""
        _, host, torch = machine_of(self.row)
        return f"{self.row.device} {host or self.file.partition('_batch')[0]} {torch}".strip()

    def latency_s(self, costs: Mapping[str, float], slowdown: float, copy_bytes_per_s: float) -> float:
        scale = np.array([costs[name] if name.endswith("gap_us") else slowdown * costs[name] for name in self.names])
        begun = self.copied_bytes / copy_bytes_per_s
        return begun + float((scale @ self.issued + self.device_s).max())


def table(costs: HostCosts) -> dict[str, float]:
    """Every cost of a table by name, those of compiled and captured steps too."""
    found = {name: getattr(costs, name) for name in PARTS}
    found |= costs.classes
    for part in ("compiled", "reduce_overhead", "cudagraph"):
        found |= {
            f"{part}.{field.name}": getattr(getattr(costs, part), field.name) for field in fields(getattr(costs, part))
        }
    return found


def with_only(costs: HostCosts, name: str) -> HostCosts:
    """The table with 1 µs for one cost and nothing for the others."""

    def alone(key: str) -> float:
        return float(key == name)

    parts = {
        part: replace(getattr(costs, part), **{f.name: alone(f"{part}.{f.name}") for f in fields(getattr(costs, part))})
        for part in ("compiled", "reduce_overhead", "cudagraph")
    }
    own = {key: alone(key) for key in PARTS}
    return replace(costs, classes=MappingProxyType({key: alone(key) for key in costs.classes}), **own, **parts)


def step_of(row: Any, file: str) -> Step:
    """The row's step, traced and lowered, with what each cost alone would make of its issue times."""
    trace = load_row(row, load_trace)
    analysis = Analysis(name=trace.name, source=trace.source, record=trace.graph, hardware=load(row.device),
                        execution=execution_of(row, trace.graph.symbols))  # fmt: skip
    shipped = costs_of(analysis.execution.software)
    part = {"eager": "eager", "compile": "compiled", "reduce-overhead": "reduce_overhead"}.get(row.mode, "cudagraph")
    names = [
        name
        for name in table(shipped)
        if (part == "eager") != ("." in name) and (part == "eager" or name.startswith(part))
    ]
    issued = [_issued(analysis, with_only(shipped, name), part) for name in names]
    busy = np.array([slot.busy_s for slot in analysis.timeline])
    copied = analysis.issuing.input_bytes if analysis.execution.inputs == "host" else 0.0
    return Step(row, file, part, names, np.array(issued), np.cumsum(busy[::-1])[::-1], copied)


def _issued(analysis: Analysis, costs: HostCosts, part: str) -> list[float]:
    plan, graph = analysis.plan, analysis.bound
    if part == "eager":
        return operators(plan, graph, REFERENCE, costs, analysis.execution.precision.autocast is not None)
    return (
        compiled(plan, graph, REFERENCE, costs)
        if part == "compiled"
        else captured(plan, graph, REFERENCE, getattr(costs, part))
    )


@dataclass
class Fit:
    """Costs by name, and (slowdown, B/s of copies) by machine."""

    costs: dict[str, float]
    hosts: dict[str, tuple[float, float]]


def weights(steps: Sequence[Step]) -> np.ndarray:
    """One for each setting of a machine, spread over its rows."""
    keys = [(step.machine, step.row.dtype, step.part) for step in steps]
    return np.array([1 / math.sqrt(keys.count(key)) for key in keys])


def used(steps: Iterable[Step]) -> list[str]:
    """Names of the costs that some of these steps pay."""
    return sorted({n for step in steps for n, some in zip(step.names, step.issued.any(axis=1), strict=True) if some})


def fitted(steps: Sequence[Step], guess: Mapping[str, float], prior: float) -> Fit:
    """Costs and hosts that fit these rows best, found together."""
    names = used(steps)
    machines = sorted({step.machine for step in steps})
    start = {machine: host_of_rows([s for s in steps if s.machine == machine], guess) for machine in machines}
    x0 = np.log([*(guess[n] for n in names), *(v for m in machines for v in start[m])])
    held = weights(steps)
    measured = np.log([step.row.latency_s for step in steps])

    def parsed(x: np.ndarray) -> Fit:
        values = np.exp(x)
        hosts = {m: tuple(values[len(names) + 2 * i : len(names) + 2 * i + 2]) for i, m in enumerate(machines)}
        if OF_REFERENCE in hosts:
            hosts[OF_REFERENCE] = (1.0, COPY_BYTES_PER_S)
        return Fit({**guess, **dict(zip(names, map(float, values), strict=False))}, hosts)

    def residuals(x: np.ndarray) -> np.ndarray:
        fit = parsed(x)
        predicted = np.log([step.latency_s(fit.costs, *fit.hosts[step.machine]) for step in steps])
        drawn = np.full(len(x), 1e-3)
        drawn[: len(names)] = math.sqrt(prior)
        return np.concatenate([held * (predicted - measured), drawn * (x - x0)])

    return parsed(least_squares(residuals, x0, loss="soft_l1", f_scale=0.01, max_nfev=40).x)


def host_of_rows(steps: Sequence[Step], costs: Mapping[str, float]) -> tuple[float, float]:
    """(slowdown, B/s of copies) of one machine, from its eager rows alone."""
    eager = [step for step in steps if step.part == "eager"]
    copies = np.geomspace(1e9, 14e9, 20) if any(step.copied_bytes for step in eager) else (COPY_BYTES_PER_S,)
    grid = ((slowdown, copy) for slowdown in np.geomspace(0.4, 5, 45) for copy in copies)

    def misfit(host: tuple[float, float]) -> float:
        return sum(min(abs(math.log(s.latency_s(costs, *host) / s.row.latency_s)), 0.5) for s in eager)

    return min(grid, key=misfit)


def errors(steps: Iterable[Step], fit: Fit) -> dict[tuple[str, ...], list[float]]:
    """|pred/measured - 1| by file, mode and, where a file has one mode, machine and dtype."""
    found: dict[tuple[str, ...], list[float]] = {}
    for step in steps:
        key = (
            step.file,
            step.row.mode,
            "" if step.file == "small_batch_hosts.csv" else f"{step.row.device} {step.row.dtype}",
        )
        error = step.latency_s(fit.costs, *fit.hosts[step.machine]) / step.row.latency_s - 1
        found.setdefault(key, []).append(abs(error))
    return found


def with_hosts(steps: Sequence[Step], costs: dict[str, float]) -> Fit:
    """These costs, each machine with the host of its own eager rows."""
    machines = sorted({step.machine for step in steps})
    return Fit(costs, {m: host_of_rows([s for s in steps if s.machine == m], costs) for m in machines})


def printed_pair(values: Sequence[float]) -> str:
    return f"{100 * np.median(values):.1f} / {100 * np.quantile(values, 0.9):.1f}"


def print_costs(names: Iterable[str], columns: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\n{'µs on the reference core':30}" + "".join(f"{kind:>9}" for kind in columns))
    for name in names:
        print(f"{name:30}" + "".join(f"{costs[name]:9.1f}" for costs in columns.values()))


def print_machines(rows: Sequence[Step], hosts: Mapping[str, tuple[float, float]]) -> None:
    print(f"\n{'machine':44}{'rows':>6}{'slowdown':>10}{'copies, GB/s':>14}")
    for machine, (slowdown, copy) in hosts.items():
        mine = [step for step in rows if step.machine == machine]
        rate = f"{copy / 1e9:.1f}" if any(step.copied_bytes for step in mine) else "-"
        print(f"{machine:44}{len(mine):6}{slowdown:10.2f}{rate:>14}")


def without_each(steps: Sequence[Step], guess: Mapping[str, float], prior: float) -> dict[tuple[str, ...], list[float]]:
    """Errors of each machine with costs fitted to the others, and its own host from its eager rows."""
    found: dict[tuple[str, ...], list[float]] = {}
    for machine in sorted({step.machine for step in steps}):
        left = [step for step in steps if step.machine == machine]
        costs = fitted([step for step in steps if step.machine != machine], guess, prior).costs
        for key, values in errors(left, with_hosts(left, costs)).items():
            found.setdefault(key, []).extend(values)
    return found


def report(
    title: str, steps: Sequence[Step], judged: Sequence[Step], shipped: dict[str, float], guess: dict[str, float],
    prior: float,
) -> None:  # fmt: skip
    """Fit one era and print all that was found."""
    rows, fit = [*steps, *judged], fitted(steps, guess, prior)
    print(f"\n{title}: {len(steps)} rows fitted to, {len(judged)} only judged")
    print_costs(used(steps), {"shipped": shipped, "guess": guess, "fitted": fit.costs})
    own = with_hosts(rows, shipped)
    print_machines(rows, own.hosts)
    kinds = {
        "shipped": errors(rows, own),
        "guess": errors(rows, with_hosts(rows, guess)),
        "fitted": errors(rows, with_hosts(rows, fit.costs)),
        "machine left out": without_each(steps, guess, prior),
    }
    print(f"\n{'median / p90 of |error|, %':58}{'rows':>5}" + "".join(f"{kind:>17}" for kind in kinds))
    for key in kinds["shipped"]:
        cells = [printed_pair(found[key]) if key in found else "-" for found in kinds.values()]
        print(f"{', '.join(filter(None, key)):58}{len(kinds['shipped'][key]):5}" + "".join(f"{c:>17}" for c in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=Path("../shared/measured"))
    parser.add_argument("--prior", type=float, default=3e-4, help="weight of the guesses (log of their ratio, squared)")
    arguments = parser.parse_args()
    measured = {file: read_measured([arguments.measured / file], flags).rows for file, flags in FILES.items()}
    steps = [step_of(row, file) for file, rows in measured.items() for row in rows if row.phase == "inference"]
    old = [step for step in steps if step.row.torch.startswith("1")]
    new = [step for step in steps if not step.row.torch.startswith("1")]
    report("PyTorch 1", old, [], table(costs_of(Software(torch="1.7"))), OLD_GUESS, arguments.prior)
    fitted_to = [step for step in new if step.file != JUDGED_ONLY]
    judged = [step for step in new if step.file == JUDGED_ONLY]
    report("PyTorch 2", fitted_to, judged, table(costs_of(Software())), MODERN_GUESS, arguments.prior)


if __name__ == "__main__":
    main()
