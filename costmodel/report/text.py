"""Text that fits: plain characters, shortened names, wrapped sentences and expressions."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

__all__ = [
    "common_path",
    "is_unicode",
    "module_spans",
    "plain",
    "shorten",
    "shorten_list",
    "to_ascii",
    "wrap_expression",
    "wrap_words",
]

#: How characters of ours read where only ASCII can be shown.
_ASCII = {
    "…": "...", "–": "-", "—": "-", "×": "x", "·": "*", "µ": "u", "μ": "u", "≤": "<=", "≥": ">=", "≈": "~",
    "−": "-", "→": "->", "²": "^2", "³": "^3", "⌈": "ceil(", "⌉": ")", "⌊": "floor(", "⌋": ")", "\u00a0": " ",
    "\u202f": " ", "“": '"', "”": '"', "‘": "'", "’": "'", "√": "sqrt", "▲": "^", "▼": "v",
}  # fmt: skip


def is_unicode(encoding: str | None) -> bool:
    """Whether text in this encoding can hold every character.

    >>> is_unicode("UTF-8"), is_unicode("latin-1"), is_unicode(None)
    (True, False, False)
    """
    return (encoding or "").lower().replace("_", "-").startswith(("utf-8", "utf8", "utf-16", "utf16"))


def to_ascii(text: str) -> str:
    """``text`` in ASCII: our own signs spelt out, anything else escaped.

    >>> to_ascii("3×224 in 5 µs … ⌈H/32⌉ ä")
    '3x224 in 5 us ... ceil(H/32) \\\\xe4'
    """
    spelt = "".join(_ASCII.get(character, character) for character in text)
    return spelt.encode("ascii", "backslashreplace").decode("ascii")


def plain(text: str, *, ascii_only: bool = False) -> str:
    """``text`` on one line in characters that are one column wide each; all others are escaped.

    Control characters, which could steer a terminal, never get through.

    >>> plain("a\\x1b[31mb 模")
    'a\\\\x1b[31mb \\\\u6a21'
    """
    if ascii_only:
        text = to_ascii(text)
    text = re.sub(r"\s+", " ", text)
    return "".join(c if _is_narrow(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def _is_narrow(character: str) -> bool:
    if character < "\x7f":
        return character >= " "
    return (
        character.isprintable()
        and unicodedata.east_asian_width(character) not in "WF"
        and unicodedata.category(character) not in ("Mn", "Me", "Mc")
        and not "\u1160" <= character <= "\u11ff"
    )


def shorten(text: str, width: int, *, ellipsis: str = "…") -> str:
    """``text`` in at most ``width`` characters, the middle left out: both ends of a module path say most.

    >>> shorten("stages.2.blocks.17.mlp.fc1", 16)
    'stages.….mlp.fc1'
    """
    if len(text) <= width:
        return text
    room = width - len(ellipsis)
    if room < 2:
        return text[: max(width, 0)]
    tail = (room + 1) // 2
    return text[: room - tail] + ellipsis + text[len(text) - tail :]


def shorten_list(text: str, width: int, *, ellipsis: str = "…") -> str:
    """A list in at most ``width`` characters, its last items left out; where the first is too long, that one shortened.

    >>> shorten_list("conv1 2.3 ms, layer1.conv1 1.2 ms, fc 3 µs", 36), shorten_list("conv1 2.3 ms, fc 3 µs", 9)
    ('conv1 2.3 ms, layer1.conv1 1.2 ms, …', 'conv…3 ms')
    """
    if len(text) <= width:
        return text
    items = text.split(", ")
    for count in range(len(items) - 1, 0, -1):
        kept = ", ".join([*items[:count], ellipsis])
        if len(kept) <= width:
            return kept
    return shorten(items[0], width, ellipsis=ellipsis)


def common_path(paths: Sequence[str]) -> str:
    """Paths that differ by numbers only as one, with a ``*`` for each number that differs.

    >>> common_path(["layers.2.blocks.0.mlp.fc1", "layers.2.blocks.17.mlp.fc1"])
    'layers.2.blocks.*.mlp.fc1'
    """
    pieces = zip(*(re.split(r"(\d+)", path) for path in paths), strict=True)
    return "".join(piece[0] if len(set(piece)) == 1 else "*" for piece in pieces)


def module_spans(parts: Sequence[tuple[str, float, float]]) -> Iterator[tuple[str, float, float]]:
    """Spans (path, start, end) of modules and all that enclose them, outer ones first, from those of what they run.

    >>> list(module_spans([("a.b", 0, 1), ("a.c", 1, 3), ("d", 3, 4)]))
    [('a', 0, 3), ('a.b', 0, 1), ('a.c', 1, 3), ('d', 3, 4)]
    """
    found: list[tuple[str, float, list[float]]] = []
    open_spans: list[tuple[str, float, list[float]]] = []
    for path, start, end in parts:
        names = path.split(".") if path else []
        prefixes = [".".join(names[: level + 1]) for level in range(len(names))]
        kept = 0
        while kept < min(len(prefixes), len(open_spans)) and open_spans[kept][0] == prefixes[kept]:
            kept += 1
        del open_spans[kept:]
        for prefix in prefixes[kept:]:
            open_spans.append((prefix, start, [end]))
            found.append(open_spans[-1])
        for _, _, ends in open_spans:
            ends[0] = max(ends[0], end)
    yield from ((path, start, ends[0]) for path, start, ends in found)


def wrap_words(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    """Lines of at most ``width`` characters, the first behind ``first``, the others behind ``rest``."""
    return textwrap.wrap(
        text, max(width, len(rest) + 4, len(first) + 4), initial_indent=first, subsequent_indent=rest,
        break_on_hyphens=False,
    ) or [first.rstrip()]  # fmt: skip


def wrap_expression(text: str, width: int, *, first: str = "", rest: str = "    ") -> list[str]:
    """An expression in lines that begin with an operator, as in print; broken elsewhere only if it must be.

    >>> wrap_expression("a*b + c*d - e", 8, rest=" ")
    ['a*b', ' + c*d', ' - e']
    """
    lines, line = [], first
    for term in _terms(text):
        if line.strip() and line != first and len(line) + len(term) > width:
            lines.append(line)
            line = rest + term.lstrip()
        else:
            line += term
    return [piece for line in [*lines, line] for piece in _hard_wrapped(line.rstrip(), width, rest)]


def _terms(text: str) -> Iterator[str]:
    """Pieces that each begin with a binary plus or minus; joined they give ``text`` again."""
    yield from re.split(r"(?= [+-] )", text)


def _hard_wrapped(line: str, width: int, rest: str) -> Iterator[str]:
    """``line`` cut after a ``*`` or ``/`` where there is one, else anywhere."""
    while len(line) > width:
        cut = max(line.rfind("*", len(rest) + 1, width), line.rfind("/", len(rest) + 1, width)) + 1
        cut = cut if cut > len(rest) + 1 else width
        yield line[:cut]
        line = rest + line[cut:]
    yield line
