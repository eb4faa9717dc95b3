"""What a page and its data say of memory: how much, when, for what, whether it fits, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from costmodel.memory.verdict import WORDS
from costmodel.report.columns import number_column, quantity_column, text_column
from costmodel.report.document import Block, Notes, Table
from costmodel.units import format_bytes, format_seconds

__all__ = ["memory_blocks", "memory_facts", "memory_json", "verdict_sentence"]

#: Modules and kinds on a page.
_MOST_MODULES, _MOST_KINDS = 5, 6
#: A page goes down the tree of modules until this many share the memory of the peak.
_ENOUGH_MODULES, _DEEPEST = 6, 4


def memory_facts(analysis: Any) -> Iterator[tuple[str, str]]:
    """Lines of the page's facts."""
    memory, moment = analysis.memory, analysis.memory.moment
    where = f" in {moment.during} ({moment.phase})" if moment.during else ""
    yield "peak memory", f"{format_bytes(memory.allocated_bytes)}{where}: {_largest(moment.by_kind, _MOST_KINDS)}"
    holders = {name or "(model)": sum(kinds.values()) for name, kinds in modules_of(moment).items()}
    if len(holders) > 1:
        yield "of modules", _largest(holders, _MOST_MODULES)
    yield "process", _process(memory)


def _largest(parts: dict[str, float], most: int) -> str:
    ranked = sorted(parts.items(), key=lambda item: -item[1])
    shown = [f"{format_bytes(nbytes)} {name}" for name, nbytes in ranked[:most]]
    rest = sum(nbytes for _, nbytes in ranked[most:])
    return ", ".join([*shown, *([f"{format_bytes(rest)} elsewhere"] if rest else [])])


def _process(memory: Any) -> str:
    need, have = memory.verdict.need, memory.usable_bytes
    interval = f"{format_bytes(memory.process_bytes)} ({format_bytes(need.low)} to {format_bytes(need.high)})"
    cached = f", {format_bytes(memory.reserved_bytes)} of it reserved by the allocator" if memory.has_blocks else ""
    of = "; how much memory the machine has is not known" if have is None else f" of {format_bytes(have.usual)}"
    return f"{interval}{of}{cached}" + (f": {memory.verdict.word}" if have is not None else "")


def modules_of(moment: Any) -> dict[str, dict[str, float]]:
    """What modules hold at the peak, at the depth where enough of them share it."""
    found: dict[str, dict[str, float]] = {}
    for depth in range(1, _DEEPEST + 1):
        found = moment.by_module(depth)
        if len(found) >= _ENOUGH_MODULES:
            break
    return found


def verdict_sentence(analysis: Any) -> str:
    """Whether the step fits, in one sentence; empty where it surely does or nobody knows."""
    verdict = analysis.memory.verdict
    if verdict.have is None or verdict.word == "fits":
        return ""
    need, have = format_bytes(analysis.memory.process_bytes), format_bytes(verdict.have.usual)
    if verdict.fits:
        return f"Memory is tight: a process of {need} is predicted, and {have} are there."
    return f"DOES NOT FIT ({verdict.word}): the process takes {need}, and a process can have {have}. {_most(analysis)}"


def _most(analysis: Any) -> str:
    most = analysis.max_batch()
    if most is None:
        return "The batch is fixed."
    return f"The largest batch that fits is {most:,}." if most else "Not even a batch of 1 fits."


def memory_blocks(analysis: Any) -> Iterator[Block]:
    """Ahead of everything else where the step does not fit: the verdict, and what would make it fit."""
    said = verdict_sentence(analysis)
    if not said:
        return
    yield Notes((said,))
    if analysis.memory.fits:
        return
    found = analysis.remedies
    if found.each:
        yield _table(found)
    yield Notes((_smallest(found), *(f"not evaluated: {change.name}: {why}" for change, why in found.refused)))


def _smallest(found: Any) -> str:
    if found.smallest is None:
        return "No combination of these changes makes it fit."
    chosen = found.smallest
    longer = f"{format_seconds(abs(chosen.extra_s))} {'more' if chosen.extra_s >= 0 else 'less'}"
    return (
        f"The smallest change that fits: {chosen.name} (`{chosen.flags}`): {format_bytes(chosen.process_bytes)}, "
        f"{longer} for the same samples."
    )


def _table(found: Any) -> Table:
    rows = [remedy_json(remedy) for remedy in found.each]
    saved, total = ([row[key] for row in rows] for key in ("saved_bytes", "process_memory_bytes"))
    extra = quantity_column(
        "extra_s", "extra time", "s", [abs(row["extra_s"]) for row in rows], decimals=2, importance=80
    )
    return Table(
        title="What would make it fit, in order of disruption",
        columns=(
            text_column("name", "change", shortest=16, importance=99),
            text_column("flags", "flag", shortest=16, importance=98),
            quantity_column("saved_bytes", "saves", "B", saved, decimals=1, importance=90),
            quantity_column("process_memory_bytes", "process then", "B", total, decimals=1, importance=95),
            text_column("verdict", "fits", importance=97, render=_FITS.__getitem__),
            extra,
            number_column("batch", "batch", importance=30, decimals=0),
        ),
        rows=tuple(rows),
    )


#: The verdict in a word that a column has room for.
_FITS = dict(zip(WORDS, ("yes", "tight", "likely not", "no", "unknown"), strict=True))


def remedy_json(remedy: Any) -> dict[str, Any]:
    """One remedy as a plain dict; ``extra_s`` is for as many samples as the step had."""
    return {
        "name": remedy.name,
        "flags": remedy.flags,
        "meaning": "; ".join(change.meaning for change in remedy.changes),
        "saved_bytes": remedy.saved_bytes,
        "process_memory_bytes": remedy.process_bytes,
        "verdict": remedy.verdict,
        "fits": remedy.fits,
        "extra_s": remedy.extra_s,
        "batch": remedy.batch,
    }


def memory_json(analysis: Any) -> dict[str, Any]:
    """The interval, the peak, and, where the step does not fit, the largest batch that does and the remedies."""
    memory, moment = analysis.memory, analysis.memory.moment
    verdict = memory.verdict
    refused = verdict.fits is False
    found = analysis.remedies if refused else None
    return {
        "verdict": verdict.word,
        "process_bytes": verdict.need._asdict(),
        "usable_bytes": None if verdict.have is None else verdict.have._asdict(),
        "context_bytes": memory.context_bytes._asdict(),
        "tensor_bytes": memory.peak_bytes,
        "peak": {
            "during": moment.during,
            "module": moment.module,
            "phase": moment.phase,
            "kinds": moment.by_kind,
            "modules": [
                {"module": name, "bytes": sum(kinds.values()), "kinds": kinds}
                for name, kinds in modules_of(moment).items()
            ],
        },
        "max_batch": analysis.max_batch() if refused else None,
        "remedies": [remedy_json(remedy) for remedy in found.each] if found else [],
        "smallest_remedy": remedy_json(found.smallest) if found and found.smallest else None,
    }
