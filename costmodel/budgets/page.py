"""Verdicts as a page: what was held to what, and the layers that made it grow; and as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from costmodel.budgets.gate import Held, Verdict
from costmodel.nodes import operator_word
from costmodel.report.as_json import SCHEMA_VERSION
from costmodel.report.columns import NONE, text_column
from costmodel.report.document import Block, Column, Document, Notes, Table
from costmodel.units import format_percent

__all__ = ["held_table", "sentences", "verdicts_document", "verdicts_json"]

#: Layers that are named for each limit that is broken.
_MOST_LAYERS = 5


def verdicts_document(verdicts: Sequence[Verdict]) -> Document:
    """One page for all verdicts: the limits, those that are broken first, and what explains these."""
    held = [(verdict, each) for verdict in verdicts for each in verdict.held]
    broken = [(verdict, each) for verdict, each in held if not each.ok]
    blocks: list[Block] = [held_table(verdicts)]
    blocks += _layers_tables([(verdict, each) for verdict, each in broken if each.by])
    notes = dict.fromkeys(f"{v.model}: {note}" if len(verdicts) > 1 else note for v in verdicts for note in v.notes)
    if any(each.kind == "baseline" and each.ok and each.before and each.value < each.before * 0.99 for _, each in held):
        notes["some costs fell by more than 1 %: --write-baseline holds later changes to the new ones"] = None
    blocks += [Notes(tuple(notes))] * bool(notes)
    many = f"{len(held)} limit{'s' if len(held) != 1 else ''}"
    title = f"{len(broken)} of {many} broken" if broken else f"{many} kept" if len(held) == 1 else f"all {many} kept"
    return Document(title, tuple(blocks))


def held_table(verdicts: Sequence[Verdict]) -> Table:
    """One row a limit, those that are broken first."""
    rows = [_row(verdict, each) for verdict in verdicts for each in verdict.held]
    rows.sort(key=lambda row: row["ok"])
    columns = (
        text_column("verdict", "", importance=99),
        text_column("model", "model", importance=95, shortest=16),
        text_column("hw", "machine", importance=80, shortest=8),
        text_column("said", "conditions", importance=10, shortest=12),
        text_column("quantity", "quantity", importance=98),
        Column(key="before_text", heading="baseline", importance=70, in_data=False),
        Column(key="value_text", heading="now", importance=97, in_data=False),
        Column(key="limit_text", heading="limit", importance=96, in_data=False),
        Column(key="change_text", heading="change", importance=90, in_data=False),
        *(Column(key=key, heading=key, on_page=False) for key in ("kind", "before", "value", "limit", "unit", "ok")),
    )
    may_be_empty = ("before_text", "change_text", "said")
    shown = [column for column in columns if column.key not in may_be_empty or any(row[column.key] for row in rows)]
    return Table(columns=tuple(shown), rows=tuple(rows))


def _row(verdict: Verdict, each: Held) -> dict[str, Any]:
    text = each.quantity.text
    change = "" if not each.before else _signed(each.value / each.before - 1)
    limit = f"{'≥' if each.quantity.is_floor else '≤'} {text(each.limit)}"
    return {
        "verdict": "ok" if each.ok else "BROKEN", "model": verdict.model, "hw": verdict.hw, "said": verdict.said,
        "quantity": each.quantity.name, "before_text": "" if each.before is None else text(each.before),
        "value_text": text(each.value), "limit_text": limit, "change_text": change, "kind": each.kind,
        "before": each.before, "value": each.value, "limit": each.limit, "unit": each.quantity.unit, "ok": each.ok,
    }  # fmt: skip


def _signed(share: float) -> str:
    return f"{'+' if share >= 0 else '-'}{format_percent(abs(share))}" if share else "0 %"


def _layers_tables(broken: Sequence[tuple[Verdict, Held]]) -> Iterator[Table]:
    """What explains each limit that is broken; counts that are the same on several machines once for all of them."""
    alike: dict[tuple[str, Any], list[tuple[Table, str]]] = {}
    for verdict, each in broken:
        table = _layers_table(verdict, each)
        rows = tuple(tuple(row.values()) for row in table.rows)
        alike.setdefault((f"{verdict.model} {verdict.said} {each.quantity.name}", rows), []).append((table, verdict.hw))
    for tables in alike.values():
        table, machines = tables[0][0], list(dict.fromkeys(hw for _, hw in tables))
        yield replace(table, title=table.title.format(machines=" and ".join(machines)))


def _layers_table(verdict: Verdict, each: Held) -> Table:
    """The table of one limit; its title has a place for the names of machines."""
    is_growth = each.before is not None
    text = each.quantity.text if each.quantity.of_layer or each.quantity.name == "memory" else _seconds
    grown = [growth for growth in each.by if not is_growth or growth.amount_now > growth.amount_before]
    kept = grown[:_MOST_LAYERS]
    rows = tuple(
        {
            "layer": growth.name, "op": operator_word(growth.op),
            "before": text(growth.amount_before) if growth.amount_before else NONE,
            "now": text(growth.amount_now), "more": _more(growth.amount_now - growth.amount_before, text),
        }
        for growth in kept
    )  # fmt: skip
    if each.quantity.name == "memory":
        what = "what grew of what lies there at the peak" if is_growth else "what lies there at the peak"
    else:
        what = "layers that grew" if is_growth else "largest layers"
    of = f" ({len(kept)} of {len(grown)})" if len(kept) < len(grown) else ""
    model = verdict.model.replace("{", "{{").replace("}", "}}")
    title = f"{model} on {{machines}}: {each.quantity.name}, {what}{of}"
    columns = [text_column("layer", "layer", importance=99, shortest=24)]
    columns += [text_column("op", "operator", importance=60)] if each.quantity.name != "memory" else []
    columns += [Column(key="before", heading="baseline", importance=80)] if is_growth else []
    columns.append(Column(key="now", heading="now", importance=90))
    columns += [Column(key="more", heading="more", importance=95)] if is_growth else []
    return Table(columns=tuple(columns), rows=rows, title=title)


def _seconds(value: float) -> str:
    from costmodel.units import format_seconds

    return format_seconds(value)


def _more(value: float, text: Any) -> str:
    return f"+{text(value)}" if value >= 0 else f"-{text(-value)}"


def sentences(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """One sentence for each limit that is broken: what an assertion says."""
    for verdict in verdicts:
        for each in (each for each in verdict.held if not each.ok):
            text = each.quantity.text
            what = f"{each.quantity.name} of {verdict.model} on {verdict.hw}"
            if each.before is None:
                yield f"{what} is {text(each.value)}, the budget {text(each.limit)}{_named(each)}"
            else:
                grew = _signed(each.value / each.before - 1) if each.before else "from nothing"
                yield f"{what} grew by {grew}, from {text(each.before)} to {text(each.value)}{_named(each)}"


def _named(each: Held) -> str:
    is_growth = each.before is not None
    layers = [growth.name for growth in each.by if not is_growth or growth.amount_now > growth.amount_before][:3]
    if not layers:
        return ""
    return f" ({'by' if is_growth else 'most of it in'} {', '.join(layers)})"


def verdicts_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Everything that was held to anything, with the layers that explain what is broken."""
    return {
        "schema_version": SCHEMA_VERSION,
        "ok": all(verdict.ok for verdict in verdicts),
        "checks": [
            {
                **{
                    key: row[key]
                    for key in ("model", "hw", "quantity", "kind", "before", "value", "limit", "unit", "ok")
                },
                "conditions": verdict.said,
                "by": [
                    {
                        "layer": g.now or None,
                        "was": g.before or None,
                        "op": g.op,
                        "before": g.amount_before,
                        "now": g.amount_now,
                    }
                    for g in each.by
                ],
            }
            for verdict in verdicts
            for each in verdict.held
            for row in [_row(verdict, each)]
        ],
        "notes": [f"{verdict.model}: {note}" for verdict in verdicts for note in verdict.notes],
    }
