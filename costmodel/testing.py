"""Costs in tests: ``assert_within(model, hw="a100", latency="10ms")``, and a baseline that pytest holds models to.

>>> from costmodel.testing import assert_within
>>> assert_within("resnet50", hw="a100", batch=8, latency="10 ms", params="30M")            # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.api import analyze
from costmodel.budgets import QUANTITIES, Baseline, Verdict, entry_of, hold, parse_allowance, parse_limit, read_baseline
from costmodel.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from costmodel.hardware import HardwareProfile

__all__ = ["CostBaseline", "assert_within"]


def assert_within(
    model: str | nn.Module,
    inputs: Any = None,
    *,
    hw: str | HardwareProfile,
    confidence: float | None = None,
    **limits_and_conditions: Any,
) -> None:
    """Raise AssertionError, naming the layers that take most, where a model breaks one of the limits given.

    Limits are ``latency``, ``throughput`` (at least), ``flops``, ``macs``, ``params``, ``activations``, ``memory``,
    ``kernels`` and ``energy``: numbers in s, B and J, or texts with units ("10 ms", "5G", "8 GiB"). Everything else is
    a condition of :func:`costmodel.analyze`. ``confidence`` [1] holds the ends of intervals to the limits, at which a
    measurement keeps to them with that probability, and not the predicted values.
    Raises InputError for a limit that is none, and what :func:`costmodel.analyze` raises.
    """
    __tracebackhide__ = True
    given = limits_and_conditions
    budget = {name: parse_limit(name, limit) for name, limit in given.items() if name in QUANTITIES}
    conditions = {name: word for name, word in given.items() if name not in QUANTITIES}
    if not budget:
        raise InputError(f"assert_within holds nothing to anything\n  say one of {', '.join(QUANTITIES)}")
    if confidence is not None and not 0 < confidence < 1:
        raise InputError(f"confidence is a probability between 0 and 1, not {confidence!r}")
    analysis = analyze(model, inputs, hw=hw, **conditions)
    entry = entry_of(_name(model, analysis.name), analysis, conditions)
    _assert([hold(entry, analysis, budget=budget, confidence=confidence)])


class CostBaseline:
    """Costs that a file remembers, for tests: ``baseline.assert_kept(model, hw="t4")``.

    ``update`` writes what is asked for in place of checking it, as ``pytest --update-costs`` does; :meth:`save` then
    writes the file. Raises InputError for a file that is no baseline.
    """

    def __init__(self, path: str | os.PathLike[str], *, update: bool = False) -> None:
        self.path, self.update, self.changed = Path(path), update, False
        known = self.path.is_file() or not update
        self.baseline = read_baseline(self.path) if known else Baseline(path=str(self.path))

    def assert_kept(
        self,
        model: str | nn.Module,
        inputs: Any = None,
        *,
        hw: str | HardwareProfile,
        max_regression: str = "1%",
        name: str | None = None,
        **conditions: Any,
    ) -> None:
        """Raise AssertionError, naming the layers that grew, where a model costs more than the file says.

        ``name`` is what a module is called there, its class's name if not given; ``conditions`` are those of
        :func:`costmodel.analyze`. Raises InputError where the file has no such entry.
        """
        __tracebackhide__ = True
        analysis = analyze(model, inputs, hw=hw, **conditions)
        entry = entry_of(name or _name(model, analysis.name), analysis, conditions)
        if self.update:
            self.baseline.put(entry)
            self.changed = True
            return
        _assert([hold(entry, analysis, baseline=self.baseline, allowance=parse_allowance(max_regression))])

    def save(self) -> None:
        """Write the file where entries were updated. Raises OutputError."""
        if self.changed:
            from costmodel.report.output import put

            put(self.baseline.to_json(), self.path)


def _name(model: str | nn.Module, name: str) -> str:
    return model if isinstance(model, str) else name


def _assert(verdicts: Iterable[Verdict]) -> None:
    from costmodel.budgets.page import sentences

    __tracebackhide__ = True
    broken = list(sentences(list(verdicts)))
    if broken:
        raise AssertionError("\n".join(broken))
