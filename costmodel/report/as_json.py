"""Analyses and documents as JSON: exact integers, floats that read back the same, units in the keys.

One analysis is one object. Several (one model on several machines) are
``{"schema_version": 1, "analyses": [...]}`` with the same objects inside. Both follow
``schema/analysis.schema.json``, which ships with the package; keys may be added, none is taken away
within a schema version.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from costmodel.report.document import Block, Code, Document, KeyValues, Notes, Paragraph, Table
from costmodel.report.kernel_table import kernel_record
from costmodel.report.memory import memory_json
from costmodel.report.rows import known, record, word
from costmodel.report.summary import per_sample
from costmodel.rows import QUANTITIES

__all__ = [
    "SCHEMA_VERSION",
    "analyses_json",
    "analysis_json",
    "document_json",
    "dump_json",
    "execution_json",
    "finding_json",
    "schema",
]

SCHEMA_VERSION = 1

_IN_DATA = tuple(quantity for quantity in QUANTITIES if quantity.in_data)
_TOTALS = (
    *(quantity.key for quantity in _IN_DATA),
    *("param_bytes", "peak_memory_bytes", "reserved_memory_bytes", "process_memory_bytes", "fits"),
    *("latency_low_s", "latency_high_s"),
    *("power_w", "power_low_w", "power_high_w", "energy_low_j", "energy_high_j"),
)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what :func:`analysis_json` and :func:`analyses_json` give.

    The file holds all but the quantities that add up, which stand in their own table.
    """
    from importlib.resources import files

    file = files("costmodel.report") / "schema" / "analysis.schema.json"
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    amounts = {
        quantity.key: {
            "type": "integer" if quantity.is_whole else ["number", "null"] if quantity.unit == "J" else "number",
            "minimum": 0,
            "description": quantity.meaning,
        }
        for quantity in _IN_DATA
    }
    parts = loaded["$defs"]
    for described in (parts["row"], parts["analysis"]["properties"]["totals"]):
        described["properties"] = {**amounts, **described["properties"]}
    return loaded


def analysis_json(analysis: Any, *, by: str = "op") -> dict[str, Any]:
    """One analysis as plain dicts and lists. ``groups`` holds the rows where ``by`` is not ``op``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": _model(analysis.model),
        "hardware": {"name": analysis.hardware.name, "title": analysis.hardware.title},
        "execution": execution_json(analysis),
        "totals": {key: known(getattr(analysis.totals, key)) for key in _TOTALS},
        "per_sample": per_sample(analysis),
        "memory": memory_json(analysis),
        "bounds": {word(bound): share for bound, share in analysis.bounds.items()},
        "closed_forms": dict(analysis.closed_forms or {}),
        "symbol_notes": list(analysis.symbol_notes),
        "coverage": _coverage(analysis.coverage),
        **_phases(analysis),
        "ops": [record(row) for row in analysis.rows(by="op")],
        **({"groups": {"by": by, "rows": _group_records(analysis, by)}} if by != "op" else {}),
        "findings": [finding_json(finding) for finding in analysis.findings],
        "assumed": [assumed_json(answer) for answer in analysis.assumed],
        "executed": analysis.executed,
        "conventions": list(analysis.conventions),
    }


def _phases(analysis: Any) -> dict[str, Any]:
    """The parts of a step that has several, such as forward, backward and optimizer."""
    rows = analysis.rows(by="phase")
    return {"phases": [record(row) for row in rows]} if len(rows) > 1 else {}


def _group_records(analysis: Any, by: str) -> list[dict[str, Any]]:
    if by == "kernel":
        return [kernel_record(row) for row in analysis.kernels]
    return [record(row) for row in analysis.rows(by=by)]


def analyses_json(analyses: Sequence[Any], *, by: str = "op") -> dict[str, Any]:
    """Several analyses in one object."""
    return {"schema_version": SCHEMA_VERSION, "analyses": [analysis_json(analysis, by=by) for analysis in analyses]}


def document_json(document: Document) -> dict[str, Any]:
    """Any document: its title, and its blocks with exact values in the tables."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": document.title,
        "blocks": [_block(block) for block in document.blocks],
    }


def dump_json(value: Any) -> str:
    """JSON text in ASCII, so that any pipe carries it. Raises ValueError for NaN and infinities."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _model(model: Any) -> dict[str, Any]:
    return {
        "name": model.name,
        "source": model.source,
        "inputs": [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in model.inputs],
        "notes": list(model.notes),
    }


def execution_json(analysis: Any) -> dict[str, Any]:
    """How it runs; ``host`` is the one that was assumed, ``host_span`` those that the interval reaches over."""
    execution, span = analysis.execution, analysis.host_span
    return {
        "batch": execution.batch,
        "sizes": dict(execution.sizes),
        **execution.words,
        "power_limit_w": execution.power_limit_w,
        "host": span.assumed.name,
        "host_span": [span.quickest.name, span.slowest.name],
    }


def assumed_json(assumption: Any) -> dict[str, Any]:
    """An answer that was taken for a question about values, and the line of the model that asks."""
    return {key: getattr(assumption, key) for key in ("name", "answer", "where", "count")}


def _coverage(coverage: Any) -> dict[str, Any]:
    keys = ("op", "count", "bytes", "bytes_share", "time_share")
    return {
        "ops": coverage.ops,
        "costed": coverage.costed,
        "free": coverage.free,
        "uncosted": [{key: getattr(entry, key) for key in keys} for entry in coverage.uncosted],
    }


def finding_json(finding: Any) -> dict[str, Any]:
    """One finding as a plain dict; ``saving_s`` is None where the change could not be evaluated."""
    return {
        "rule": finding.rule,
        "seconds_at_stake": finding.seconds_at_stake,
        "message": finding.message,
        "nodes": list(finding.nodes),
        "evidence": dict(getattr(finding, "evidence", {})),
        "change": getattr(finding, "change", ""),
        "saving_s": getattr(finding, "saving_s", None),
        "is_gain": getattr(finding, "is_gain", False),
    }


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Table):
        return {"kind": "table", "title": block.title, "rows": block.records()}
    if isinstance(block, KeyValues):
        return {"kind": "facts", "facts": dict(block.pairs)}
    if isinstance(block, Notes):
        return {"kind": "notes", "title": block.title, "items": list(block.items)}
    if isinstance(block, (Paragraph, Code)):
        return {"kind": type(block).__name__.lower(), "text": block.text}
    return {"kind": "figure", "path": block.path, "alt": block.alt, "caption": block.caption}
