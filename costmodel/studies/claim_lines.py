"""One line a published claim: what was published, what the analyzer finds, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from costmodel.report.columns import text_column
from costmodel.report.document import Table

__all__ = ["Line", "lines_table", "tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A claim by its number in the collection, and how it fares.

    ``agrees`` None: nothing was published to agree with. A line that does not agree says in ``derivation`` why, and is
    ``corrected`` where its figure can be counted, else (a time) ``differs``.
    """

    number: str
    claim: str
    published: str
    ours: str
    agrees: bool | None
    derivation: str = ""
    counts: bool = True

    @property
    def verdict(self) -> str:
        """``agrees``, ``corrected`` or ``differs``, or ``counted`` where no figure was published."""
        if self.agrees is None:
            return "counted"
        return "agrees" if self.agrees else "corrected" if self.counts else "differs"


def lines_table(lines: Iterable[Line], title: str = "", *, derived: bool = True) -> Table:
    """The lines as a table; ``derived`` shows how each figure comes about."""
    keys = [("number", "no."), ("claim", "claim"), ("published", "published"), ("ours", "costmodel"),
            ("verdict", "verdict"), *([("derivation", "how")] if derived else [])]  # fmt: skip
    rows = tuple({key: getattr(line, key) for key, _ in keys} for line in lines)
    return Table(title=title, columns=tuple(text_column(key, head) for key, head in keys), rows=rows)


def tally(lines: Iterable[Line]) -> dict[str, int]:
    """How many lines have each verdict."""
    found: dict[str, int] = {}
    for line in lines:
        found[line.verdict] = found.get(line.verdict, 0) + 1
    return found
