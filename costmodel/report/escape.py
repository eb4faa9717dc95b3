"""Names and texts that come from outside (modules, files, error messages), made harmless for each format.

The one place for it: a renderer shows no text that has not passed through the function of its format. What nobody can
see on a page (control characters, marks that turn the direction of writing) is spelt out as an escape in all of them.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any

from costmodel.report.text import plain

__all__ = ["for_csv", "for_html", "for_latex", "for_markdown", "for_terminal", "markdown_target", "visible"]

#: Signs that mean something to markdown wherever they stand, an underscore only at a word's edge, and
#: ``<`` only where a tag or an address could begin.
_SPECIAL = re.compile(r"([\\`*|\[\]~])|(?<![^\W_])(_)|(_)(?![^\W_])|(<)(?=[A-Za-z/!?])|(&)(?=[#\w]+;)")
_BLOCK_START = re.compile(r"^(#|>|[-+](?=\s|$)|=+$|-+$)")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")

#: A cell that begins so is a formula to a spreadsheet; behind apostrophes too, so that one more can be told from them.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_UNSEEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")


def visible(text: str, *, besides: str = "") -> str:
    """``text`` with what cannot be seen spelt out, but for the characters ``besides``; unassigned ones stay.

    >>> visible("a\\x00b\\u202ec")
    'a\\\\x00b\\\\u202ec'
    """
    return "".join(
        c.encode("unicode_escape").decode("ascii") if c not in besides and unicodedata.category(c) in _UNSEEN else c
        for c in text
    )


def one_line(text: str) -> str:
    """``text`` with every run of white space as one blank, what else cannot be seen spelt out."""
    return visible(re.sub(r"\s+", " ", text).strip())


def for_terminal(text: str, *, ascii_only: bool = False) -> str:
    """``text`` on one line in narrow characters: nothing steers the terminal, columns line up."""
    return plain(text, ascii_only=ascii_only)


def for_html(text: str, *, keep_lines: bool = False) -> str:
    """``text`` as HTML that shows it, in an element or in a quoted attribute; ``keep_lines`` for ``<pre>``.

    >>> for_html('<b> & "x"\\x1b')
    '&lt;b&gt; &amp; &quot;x&quot;\\\\x1b'
    """
    return html.escape(visible(text, besides="\n\t") if keep_lines else one_line(text))


def for_markdown(text: str) -> str:
    r"""``text`` on one line, so that markdown shows it as it is, in a paragraph as in a cell of a table.

    >>> print(for_markdown("a|b *c* batch_norm __init__ <0.1 <script>"))
    a\|b \*c\* batch_norm \_\_init\_\_ <0.1 \<script>
    """
    text = one_line(text)
    text = _SPECIAL.sub(lambda match: "\\" + match.group(0), text)
    text = _BLOCK_START.sub(lambda match: "\\" + match.group(0), text)
    return _NUMBERED.sub(r"\1\\\2", text)


#: What LaTeX takes for something else than itself, and our own signs that a plain font may lack.
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "×": r"$\times$", "µ": r"$\mu$", "μ": r"$\mu$", "–": "--",
    "−": "$-$", "…": r"\ldots{}", "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$", "→": r"$\rightarrow$",
    "▲": r"$\uparrow$", "▼": r"$\downarrow$", "·": r"$\cdot$", "√": r"$\surd$", "²": "$^2$", "³": "$^3$",
}  # fmt: skip


def for_latex(text: str) -> str:
    r"""``text`` on one line as LaTeX that shows it, without commands of its own; signs that a Latin font lacks are
    spelt out.

    >>> print(for_latex("a_b & 50 % of 3×3 \\input{x} é 日"))
    a\_b \& 50 \% of 3$\times$3 \textbackslash{}input\{x\} é U+65E5
    """
    return "".join(_LATEX.get(c, c) if c.isascii() or c in _LATEX else _latin(c) for c in one_line(text))


def _latin(character: str) -> str:
    return character if unicodedata.name(character, "").startswith("LATIN") else f"U+{ord(character):04X}"


def markdown_target(path: str) -> str:
    """A path as the target of a link or picture.

    >>> markdown_target("a b(1).svg")
    'a%20b%281%29.svg'
    """
    from urllib.parse import quote

    return quote(path, safe="/.-_~")


def for_csv(value: Any) -> Any:
    """The value of a cell: numbers as they are, text that a spreadsheet would run as a formula behind an apostrophe.

    A reader who wants the name itself takes one apostrophe away where a text is apostrophes before one of
    ``= + - @``, a tab or an end of line; no other text is changed.

    >>> for_csv("=1+1"), for_csv("conv1"), for_csv(-1.5)
    ("'=1+1", 'conv1', -1.5)
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
