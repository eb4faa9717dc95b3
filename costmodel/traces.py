"""The traces of one model that its analyses share: one in hand serves where it holds, else another is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from costmodel.errors import InputError
from costmodel.execution import Execution, Variant
from costmodel.graph import OpGraph
from costmodel.symbols import checked_size

__all__ = ["Retrace", "Trace", "Traces"]

#: (batch, sizes asked for, which program) -> the same model traced so that it holds there, and its closed forms.
Retrace = Callable[[int, Mapping[str, int], Variant], tuple[OpGraph, Mapping[str, str] | None]]


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace of the model, its closed forms, and what it was asked for: batch, sizes, program."""

    record: OpGraph
    closed_forms: Mapping[str, str] | None
    batch: int
    asked: Mapping[str, int]
    variant: Variant

    def fits(self, batch: int, asked: Mapping[str, int], *, verified: bool) -> bool:
        """Whether it answers for another batch and other sizes; sizes that it keeps as numbers must be those."""
        opened = {name: size for name, size in asked.items() if name in self.record.symbols}
        fixed, here = asked.items() - opened.items(), self.asked.items()
        if fixed != {(name, size) for name, size in here if name not in self.record.symbols}:
            return False
        if "batch" not in self.record.symbols:
            return batch == self.batch and self.record.serves(None, opened, verified=verified)
        return self.record.serves(batch, opened, verified=verified)


class Traces:
    """What was traced of the model called ``name`` so far, the latest first, and how to trace it elsewhere.

    Without ``retrace``, a trace is taken to hold wherever its symbols allow.
    """

    def __init__(self, name: str, first: Trace, retrace: Retrace | None) -> None:
        self.name, self.retrace = name, retrace
        self.made: list[Trace] = []
        self._keep(first)

    def _keep(self, trace: Trace) -> None:
        """Put ``trace`` first, and last the general one that it is a special case of."""
        self.made.insert(0, trace)
        if trace.record.general is not None:
            self.made.append(replace(trace, record=trace.record.general))

    def in_hand(self) -> Traces:
        """These traces, and no other ever: each answers wherever its symbols allow."""
        found = Traces(self.name, self.made[0], None)
        found.made = list(self.made)
        return found

    def serving(self, execution: Execution, asked: Mapping[str, int], device: str, *, now: Execution) -> Trace:
        """A trace of the execution's program that holds at its batch, at these sizes and on this kind of device, made
        anew where there is none.

        Raises InputError where none can be made because how the one of ``now`` was made is not known.
        """
        batch, variant = execution.batch, Variant.of(execution, device)
        for trace in self.made:
            here = self.retrace is None or trace.record.device in ("", device)
            alike = trace.variant.anywhere == variant.anywhere
            if alike and here and trace.fits(batch, asked, verified=self.retrace is not None):
                return trace
        if self.retrace is None:
            self._refuse(execution, asked, now)
        for name, size in {"batch": batch, **asked}.items():
            checked_size(name, size)
        graph, closed_forms = self.retrace(batch, asked, variant)
        trace = Trace(graph, closed_forms, batch, dict(asked), variant)
        self._keep(trace)
        return trace

    def _refuse(self, execution: Execution, asked: Mapping[str, int], now: Execution) -> NoReturn:
        """Raise InputError: no trace answers for the execution, and how they were made is not known."""
        layout, record = execution.layout, self.made[0].record
        if all(trace.variant.layout != layout for trace in self.made):
            raise InputError(
                f"{self.name} was traced in {now.layout}, and how it was made is not known here\n"
                f"  analyze(..., layout={layout!r}) traces it in {layout}"
            )
        if all(trace.variant.phase is not execution.phase for trace in self.made):
            raise InputError(
                f"{self.name} was traced for {now.phase.value}, and how it was made is not known here\n"
                f"  analyze(..., phase={execution.phase.value!r}) traces the other"
            )
        if all(trace.variant.train_mode != execution.in_train_mode for trace in self.made):
            raise InputError(
                f"{self.name} was traced with train_mode={now.in_train_mode}, and how it was made is not known here\n"
                f"  analyze(..., train_mode={execution.in_train_mode}) traces the other"
            )
        if execution.batch != now.batch and "batch" not in record.symbols:
            raise InputError(f"the batch of {self.name} was traced as the number {now.batch} and cannot change")
        record.check_binding(asked)
        raise InputError(f"{self.name} was traced at other sizes, and how it was made is not known here")
