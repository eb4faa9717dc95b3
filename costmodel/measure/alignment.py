"""Two sequences that tell the same story: which element of one is which of the other, in order.

A longest common subsequence with weights: pairs are scored by how well they agree, no pair may cross another, and the
total is as large as can be. Exact, by dynamic programming with one numpy row at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

__all__ = ["Token", "align"]

#: Scores. A contraction outweighs what surrounds it; equal sizes outweigh equal names.
_KIND, _NAME, _SIZES, _UNKNOWN_SIZES, _CONTRACTION = 2, 1, 4, 2, 8


@dataclass(frozen=True, slots=True)
class Token:
    """One element: its class, its own name, and its sizes (None: unknown, agrees with any).

    ``exact`` elements pair only with elements whose sizes agree.
    """

    kind: str
    name: str = ""
    sizes: Hashable | None = None
    exact: bool = False


def align(left: Sequence[Token], right: Sequence[Token]) -> list[tuple[int, int]]:
    """Pairs (index in ``left``, index in ``right``) of the best alignment, in order.

    >>> a = [Token("conv"), Token("relu"), Token("conv")]
    >>> b = [Token("conv"), Token("copy"), Token("conv")]
    >>> align(a, b)
    [(0, 0), (2, 2)]
    """
    import numpy as np

    if not left or not right:
        return []
    scorer = _Scorer(right)
    best = np.zeros((len(left) + 1, len(right) + 1), dtype=np.int32)
    for i, token in enumerate(left):
        row = np.maximum(best[i, 1:], best[i, :-1] + scorer.row(token))
        best[i + 1, 1:] = np.maximum.accumulate(row)
    return _pairs(best, left, scorer)


class _Scorer:
    """Scores of one token against all of the right-hand sequence."""

    def __init__(self, right: Sequence[Token]) -> None:
        import numpy as np

        self._codes: dict[Hashable, int] = {}
        self.kinds = np.array([self._code(("kind", t.kind)) for t in right])
        self.names = np.array([self._code(("name", t.name)) for t in right])
        self.sizes = np.array([-1 if t.sizes is None else self._code(("sizes", t.sizes)) for t in right])
        self.rows: dict[Token, numpy.ndarray] = {}

    def _code(self, value: Hashable) -> int:
        return self._codes.setdefault(value, len(self._codes))

    def row(self, token: Token) -> numpy.ndarray:
        """Scores against every element of the right; 0 where the two cannot be a pair."""
        known = self.rows.get(token)
        if known is None:
            known = self.rows[token] = self._row(token)
        return known

    def _row(self, token: Token) -> numpy.ndarray:
        import numpy as np

        same_kind = self.kinds == self._code(("kind", token.kind))
        same_name = self.names == self._code(("name", token.name))
        if token.sizes is None:
            same_sizes, unknown = np.zeros_like(same_kind), np.ones_like(same_kind)
        else:
            same_sizes, unknown = self.sizes == self._code(("sizes", token.sizes)), self.sizes == -1
        score = _KIND + _NAME * same_name + _SIZES * same_sizes + _UNKNOWN_SIZES * unknown
        if token.exact:
            score = (score + _CONTRACTION) * (same_sizes | unknown)
        return (score * same_kind).astype(np.int32)


def _pairs(best: numpy.ndarray, left: Sequence[Token], scorer: _Scorer) -> list[tuple[int, int]]:
    """Walk back through the table of best totals."""
    pairs = []
    i, j = best.shape[0] - 1, best.shape[1] - 1
    while i and j:
        score = scorer.row(left[i - 1])[j - 1]
        if score and best[i, j] == best[i - 1, j - 1] + score:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
