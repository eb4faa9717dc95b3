"""What other counters print, as a page: our count, theirs, and line by line why they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.report.columns import number_column, text_column
from costmodel.report.document import Block, Column, Document, KeyValues, Notes, Table
from costmodel.units import format_percent, format_quantity

if TYPE_CHECKING:
    from costmodel.reconcile import Account, Difference

__all__ = ["reconciled_document", "reconciled_json", "reconciled_table"]

#: Operators named in a line.
_NAMED = 3

CONVENTIONS = (
    "worked out from the rules in each tool's source, release as named; nothing was run",
    "ours in the tool's unit: MACs, or two FLOP a MAC; everything else that a model computes has no MACs",
    "timm's table of results states fvcore's count of one picture, taken with attention that is not fused",
    "FlopCounterMode is taken with gradients enabled, or on a GPU; without them MultiheadAttention may take a fused "
    "path that it does not see, as may scaled_dot_product_attention on a CPU",
    "ptflops is taken with its default backend, which hooks modules",
)


def reconciled_document(model: str, inputs: str, macs: int, flops: int, accounts: Sequence[Account]) -> Document:
    """The page of one model: its inputs in words, our totals of one sample, and an account for each tool."""
    ours = f"{format_quantity(macs, 'MAC')}, {format_quantity(flops, 'FLOP')} with everything outside of MACs"
    blocks: list[Block] = [
        KeyValues((("input", inputs), ("ours", f"{ours} ({macs:,} and {flops:,})"))),
        _totals_table(accounts),
    ]
    blocks += [_reasons(account) for account in accounts if account.differences or account.openly]
    blocks.append(Notes(CONVENTIONS, title="Conventions"))
    return Document(f"{model}: what other counters print, and why", tuple(blocks))


def _totals_table(accounts: Sequence[Account]) -> Table:
    rows = tuple(
        {
            "tool": account.tool.name,
            "prints": account.tool.prints,
            "amount": account.total,
            "unit": account.tool.unit,
            "ours": account.ours,
            "ratio": account.total / account.ours if account.ours else None,
            "release": account.tool.release,
        }
        for account in accounts
    )
    return Table(
        title="One sample",
        columns=(
            text_column("tool", "tool", importance=99),
            text_column("prints", "prints as", importance=80),
            Column(key="amount", heading="exactly", render="{:,}".format, importance=95),
            text_column("unit", "counts", importance=90),
            number_column("ratio", "to ours", "×", decimals=3, importance=97),
            text_column("release", "rules of", importance=40),
        ),
        rows=rows,
    )


def _reasons(account: Account) -> Notes:
    """A line a reason, from our count to the tool's."""
    unit, ours, whole = account.tool.unit, account.ours, account.total - account.ours
    title = f"{account.tool.name} prints {account.total:,} {account.tool.prints}; ours: {ours:,} {unit}"
    items = [f"{_signed(found.amount, unit, ours)} {_reason(found)}" for found in account.differences]
    items += [f"{_signed(found.amount, unit, ours)} if there are {_reason(found)}" for found in account.openly]
    if len(account.differences) > 1:
        items.append(f"{_signed(whole, unit, ours)} in all")
    return Notes(tuple(items), title=title)


def _signed(amount: int, unit: str, ours: int) -> str:
    share = f" ({format_percent(abs(amount) / ours)})" if ours else ""
    return f"{'−' if amount < 0 else '+'}{format_quantity(abs(amount), unit)}{share}:"


def _reason(found: Difference) -> str:
    """The reason, and where: how many nodes, which operators, the one with most of it."""
    more = "" if len(found.operators) <= _NAMED else f" and {len(found.operators) - _NAMED} more"
    operators = ", ".join(found.operators[:_NAMED]) + more
    return f"{found.reason} ({found.count} {operators}; most in {found.example})"


def reconciled_table(accounts: Sequence[Account]) -> Table:
    """A row a tool and reason, for data formats; the row without a reason is our count."""
    rows = []
    for account in accounts:
        about = {"tool": account.tool.name, "prints": account.tool.prints, "unit": account.tool.unit}
        rows.append({**about, "amount": account.ours, "reason": "ours"})
        for counted, differences in ((True, account.differences), (False, account.openly)):
            for found in differences:
                rows.append({**about, "amount": found.amount, "reason": found.reason, "nodes": found.count,
                             "example": found.example, "counted": counted})  # fmt: skip
        rows.append({**about, "amount": account.total, "reason": "total"})
    keys = ("tool", "prints", "unit", "reason", "amount", "nodes", "example", "counted")
    return Table(columns=tuple(text_column(key, key) for key in keys), rows=tuple(rows))


def reconciled_json(model: str, macs: int, flops: int, accounts: Sequence[Account]) -> dict[str, Any]:
    """Plain dicts and lists; amounts of one sample, exact."""
    return {
        "schema_version": 1,
        "model": model,
        "macs": macs,
        "flops": flops,
        "tools": [
            {
                "tool": account.tool.name,
                "prints": account.tool.prints,
                "unit": account.tool.unit,
                "release": account.tool.release,
                "ours": account.ours,
                "total": account.total,
                "differences": [_difference_json(found) for found in account.differences],
                "not_in_total": [_difference_json(found) for found in account.openly],
            }
            for account in accounts
        ],
        "conventions": list(CONVENTIONS),
    }


def _difference_json(found: Difference) -> dict[str, Any]:
    return {
        "reason": found.reason,
        "amount": found.amount,
        "operators": list(found.operators),
        "nodes": found.count,
        "example": found.example,
    }
