"""costs.json: what models cost when somebody last agreed to it, layer by layer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from costmodel.analysis import Analysis
from costmodel.budgets.layers import LAYER_KEYS, Layer, layers_of
from costmodel.budgets.quantities import QUANTITIES, REGRESSIONS
from costmodel.errors import InputError, librarian
from costmodel.version import VERSION

__all__ = ["Baseline", "Entry", "entry_of", "read_baseline"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model on one machine under some conditions, as :func:`costmodel.analyze` takes them.

    ``totals`` are the quantities of :data:`REGRESSIONS`; ``memory`` is what lies in memory at the peak [B], by kind.
    """

    model: str
    hw: str
    conditions: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is of."""
        return self.model, self.hw, json.dumps(dict(self.conditions), sort_keys=True)


def entry_of(model: str, analysis: Analysis, conditions: Mapping[str, Any], hw: str | None = None) -> Entry:
    """What an analysis leaves in a baseline, where ``model`` and ``hw`` (default: its name) say how to make it again.

    Times keep nine digits, which no release of a library moves.
    """
    return Entry(
        model=model,
        hw=hw or analysis.hardware.name,
        conditions={name: value for name, value in conditions.items() if value is not None},
        totals={name: _rounded(QUANTITIES[name].value(analysis)) for name in REGRESSIONS},
        memory={kind: _rounded(nbytes) for kind, nbytes in analysis.memory.moment.by_kind.items()},
        layers=tuple(
            layer._replace(amounts={key: _rounded(value) for key, value in layer.amounts.items()})
            for layer in layers_of(analysis)
        ),
    )


def _rounded(value: float) -> float:
    return int(value) if float(value).is_integer() else float(f"{value:.9g}")


class Baseline:
    """Entries by what they are of, in the order of the file. ``version`` is that of the costmodel that wrote it."""

    def __init__(self, entries: Iterable[Entry] = (), version: str = "", path: str = "") -> None:
        self.entries = {entry.key: entry for entry in entries}
        self.version, self.path = version, path

    def put(self, entry: Entry) -> None:
        """Add an entry, in place of one of the same model, machine and conditions."""
        self.entries[entry.key] = entry

    def find(self, entry: Entry) -> Entry:
        """The entry of the same model, machine and conditions. Raises InputError where there is none."""
        if entry.key in self.entries:
            return self.entries[entry.key]
        said = ", ".join(f"{name}={value}" for name, value in entry.conditions.items())
        there_is = list(dict.fromkeys(f"{other.model} on {other.hw}" for other in self.entries.values()))
        raise InputError(
            librarian(
                f"{self.path} has no entry for {entry.model} on {entry.hw}{' with ' + said if said else ''}",
                there_is=there_is or "none",
                do="--write-baseline adds it.",
            )
        )

    def to_json(self) -> str:
        """The text of the file: a line for each layer, so that a change shows as such in a diff."""
        head = {
            "schema_version": SCHEMA_VERSION,
            "costmodel": VERSION,
            "layer": ["name", "op", "outputs", *LAYER_KEYS],
        }
        lines = json.dumps(head, indent=1)[:-2] + ',\n "entries": ['
        lines += ",".join(f"\n{_entry_text(entry)}" for entry in self.entries.values())
        return lines + "\n ]\n}\n"


def _entry_text(entry: Entry) -> str:
    said = {"model": entry.model, "hw": entry.hw, "conditions": dict(entry.conditions), "totals": dict(entry.totals)}
    head = json.dumps({**said, "memory": dict(entry.memory)}, indent=1)[:-2]
    rows = [json.dumps([layer.name, layer.op, layer.outputs, *layer.amounts.values()]) for layer in entry.layers]
    text = f'{head},\n "layers": [\n  ' + ",\n  ".join(rows) + "\n ]\n}"
    return "\n".join(f"  {line}" for line in text.splitlines())


def read_baseline(path: str | os.PathLike[str]) -> Baseline:
    """A file that ``--write-baseline`` wrote. Raises InputError where it is missing or something else."""
    file = Path(path)
    if not file.is_file():
        raise InputError(librarian(f"there is no baseline {path}", do=f"--baseline {path} --write-baseline writes it."))
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its schema is version {data['schema_version']}")
        entries = [_entry(record, data["layer"][3:]) for record in data["entries"]]
        return Baseline(entries, str(data["costmodel"]), str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        why = f": {error}" if isinstance(error, (OSError, ValueError)) else ", or a damaged one"
        do = f"Name another file, or remove it: --baseline {path} --write-baseline then writes it."
        raise InputError(librarian(f"{path} is no baseline of costmodel check{why}", do=do)) from error


def _entry(record: Mapping[str, Any], keys: list[str]) -> Entry:
    layers = tuple(
        Layer(name, op, outputs, {**dict.fromkeys(LAYER_KEYS, 0), **_numbers(dict(zip(keys, amounts, strict=True)))})
        for name, op, outputs, *amounts in map(_row, record["layers"])
    )
    totals = _numbers(record["totals"])
    if missing := [name for name in REGRESSIONS if name not in totals]:
        raise ValueError(f"{record['model']} has no {', '.join(missing)}")  # which would pass whatever it grows to
    return Entry(model=str(record["model"]), hw=str(record["hw"]), conditions=dict(record["conditions"]), totals=totals,
                 memory=_numbers(record["memory"]), layers=layers)  # fmt: skip


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """``values``, all of them finite: nothing is above a limit that is no number. Raises ValueError for others."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}, which is no number")
    return dict(values)


def _row(layer: list[Any]) -> list[Any]:
    if not isinstance(layer, list) or len(layer) < 3:
        raise ValueError(f"{layer!r} is no layer")
    return layer
