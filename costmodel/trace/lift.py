"""From concrete sizes to exact expressions.

A trace is a concrete run; its sizes are integers. To find the expression behind an integer, the module
is run at several chosen sizes and every integer is followed across the runs:

* batch: the runs use a large prime as batch, so an integer that the prime divides is a multiple of the
  batch (nothing is allocated on the meta device). An integer that could still be hiding a batch is
  settled by one more run at another prime.
* height, width, sequence length: the integer's values at all runs are a *fingerprint*. Convolutions and
  pools give the expression by their own rule; for everything else it is looked for among what is already
  known: multiples, sums, products, rounded quotients. An expression counts only if it reproduces the
  fingerprint at every run, one of which takes no part in the search.

A fingerprint that nothing explains raises :class:`Unliftable`; the caller then keeps the number and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from costmodel.symbols import Dim, ceil_div, floor_div, symbol

__all__ = ["BATCH_PRIMES", "BatchLift", "Fingerprint", "SizeLift", "Unliftable"]

#: Two primes far above any size that a model fixes by itself, and small enough for 64-bit byte counts.
BATCH_PRIMES = (1_000_003, 1_000_033)

#: Strides and window sizes to round by: powers of two first, they are what networks use.
_DIVISORS = (2, 4, 8, 16, 32, 64, *(d for d in range(3, 64) if d & (d - 1)))

Fingerprint = tuple[int, ...]


class Unliftable(Exception):
    """No expression was found for a size; ``values`` are what it was at each run."""

    def __init__(self, values: Fingerprint) -> None:
        super().__init__(f"no expression gives {values}")
        self.values = values


class BatchLift:
    """Reads integers of runs at one or two prime batches as polynomials in ``batch``.

    >>> lift = BatchLift(BATCH_PRIMES[:1])
    >>> lift((64 * 1_000_003,)), lift((56,))
    (64*batch, 56)
    """

    def __init__(self, primes: Sequence[int], name: str = "batch") -> None:
        self.primes, self.name = tuple(primes), name
        self._known: dict[Fingerprint, Dim] = {}

    def __call__(self, values: Fingerprint) -> Dim:
        known = self._known.get(values)
        if known is None:
            known = self._known[values] = self._lift(values)
        return known

    def _lift(self, values: Fingerprint) -> Dim:
        power, rest = split_batch(values, self.primes)
        if len(set(rest)) == 1:
            return rest[0] * symbol(self.name) ** power if power and rest[0] else rest[0]
        slope = Fraction(values[1] - values[0], self.primes[1] - self.primes[0])
        offset = values[0] - slope * self.primes[0]
        if slope.denominator != 1 or offset.denominator != 1:
            raise Unliftable(values)
        return int(slope) * symbol(self.name) + int(offset)

    def is_doubtful(self, value: int) -> bool:
        """Whether one run leaves open if ``value`` holds a batch: B + 1 or B // 2 would look like this."""
        return abs(value) >= self.primes[0] // 8 and value % self.primes[0] != 0


def split_batch(values: Fingerprint, primes: Sequence[int]) -> tuple[int, Fingerprint]:
    """Take the highest common power of the batch out: (power, remaining factors).

    >>> split_batch((3 * 7 * 7, 5 * 7 * 7), (7, 7))
    (2, (3, 5))
    """
    power = 0
    while any(values) and all(v % p == 0 for v, p in zip(values, primes, strict=True)):
        values = tuple(v // p for v, p in zip(values, primes, strict=True))
        power += 1
    return power, values


class SizeLift:
    """Finds expressions in several symbols from their values at several runs.

    ``points``: the sizes of each run, batch included (a prime).

    >>> lift = SizeLift([{"batch": 7, "height": h} for h in (224, 261, 195, 317)])
    >>> lift((7 * 224, 7 * 261, 7 * 195, 7 * 317))
    batch*height
    >>> lift((112, 131, 98, 159))                     # rounded up in every run
    ceiling(height/2)
    """

    def __init__(self, points: Sequence[Mapping[str, int]], *, divisible: bool = False) -> None:
        """``divisible``: the sizes are multiples of the model's total stride, so that quotients need no rounding."""
        self._divisible = divisible
        self.batches = tuple(point["batch"] for point in points) if "batch" in points[0] else (0,) * len(points)
        self._with_batch = "batch" in points[0]
        self._bases = {tuple(p[name] for p in points): symbol(name) for name in points[0] if name != "batch"}
        self._known: dict[Fingerprint, Dim] = dict(self._bases)

    def __call__(self, values: Fingerprint, hints: Iterable[tuple[Dim, Fingerprint]] = ()) -> Dim:
        """The expression behind ``values``. ``hints`` are candidates with their own values, tried first."""
        if (
            values[0] == values[-1]
            and len(set(values)) == 1
            and not (self._with_batch and values[0] % self.batches[0] == 0)
        ):
            return values[0]
        power, rest = self._split(values)
        if self._divisible and power == 0 and rest not in self._known:
            exact = next(self._exact_quotients(rest), None)
            if exact is not None:
                self._known[rest] = exact
        for expression, expected in hints:
            if expected == values and rest not in self._known:
                if power == 0:
                    self._known[rest] = expression
                return expression
        found = self._spatial(rest)
        return found * symbol("batch") ** power if power else found

    def _split(self, values: Fingerprint) -> tuple[int, Fingerprint]:
        return split_batch(values, self.batches) if self._with_batch else (0, values)

    def _spatial(self, values: Fingerprint) -> Dim:
        if len(set(values)) == 1:
            return values[0]
        known = self._known.get(values)
        if known is None:
            known = next(self._search(values), None)
            if known is None:
                raise Unliftable(values)
            self._known[values] = known
        return known

    def _search(self, values: Fingerprint) -> Iterator[Dim]:
        """Candidates that reproduce ``values``, simplest kind first."""
        yield from self._affine(values)
        yield from self._rounded(values)
        yield from self._products(values)
        yield from self._rounded_products(values)
        yield from self._sums(values)

    def _exact_quotients(self, values: Fingerprint) -> Iterator[Dim]:
        """height/32 + 1: no rounding is needed where all sizes are multiples."""
        for known, expression in self._bases.items():
            slope = Fraction(values[1] - values[0], known[1] - known[0])
            offset = values[0] - slope * known[0]
            fits = all(v == slope * k + offset for v, k in zip(values, known, strict=True))
            if slope != 0 and offset.denominator == 1 and fits:
                yield _times(expression, slope) + int(offset)

    def _affine(self, values: Fingerprint) -> Iterator[Dim]:
        for known, expression in self._known.items():
            ratio = _constant_ratio(values, known)
            if ratio is not None:
                yield _times(expression, ratio)
        for known, expression in self._known.items():
            step = _line(values, known)
            if step is not None:
                yield _times(expression, step[0]) + step[1]

    def _rounded(self, values: Fingerprint) -> Iterator[Dim]:
        """Quotients rounded down or up, their multiples, and what is missing to the next multiple."""
        for known, expression in list(self._known.items()):
            for d in _DIVISORS:
                up = tuple(-(-k // d) for k in known)
                down = tuple(k // d for k in known)
                for rounded, candidate in ((up, ceil_div), (down, floor_div)):
                    step = _line(values, rounded)
                    if step is not None and step[0] in (1, d) and abs(step[1]) <= 2:
                        yield _times(candidate(expression, d), step[0]) + step[1]
                if values == tuple(d * u - k for u, k in zip(up, known, strict=True)):
                    yield d * ceil_div(expression, d) - expression

    def _products(self, values: Fingerprint) -> Iterator[Dim]:
        known = list(self._known.items())
        for first, expression in known:
            if all(f and v % f == 0 for v, f in zip(values, first, strict=True)):
                rest = tuple(v // f for v, f in zip(values, first, strict=True))
                for second, other in known:
                    ratio = _constant_ratio(rest, second)
                    if ratio is not None:
                        yield _times(expression * other, ratio)
        for i, (first, expression) in enumerate(known):
            for second, other in known[i:]:
                step = _line(values, tuple(a * b for a, b in zip(first, second, strict=True)))
                if step is not None:
                    yield _times(expression * other, step[0]) + step[1]

    def _rounded_products(self, values: Fingerprint) -> Iterator[Dim]:
        """A known size times a rounded quotient of another: windows along one axis."""
        for first, expression in list(self._known.items()):
            if all(f and v % f == 0 for v, f in zip(values, first, strict=True)):
                rest = tuple(v // f for v, f in zip(values, first, strict=True))
                for candidate in self._rounded(rest):
                    yield expression * candidate

    def _sums(self, values: Fingerprint) -> Iterator[Dim]:
        known = list(self._known.items())
        for i, (first, expression) in enumerate(known):
            rest = tuple(v - f for v, f in zip(values, first, strict=True))
            for second, other in known[i:]:
                ratio = _constant_ratio(rest, second)
                if ratio is not None:
                    yield expression + _times(other, ratio)


def _constant_ratio(values: Fingerprint, known: Fingerprint) -> Fraction | None:
    if known[0] == 0:
        return None
    if any(v * known[0] != values[0] * k for v, k in zip(values, known, strict=True)):
        return None
    return Fraction(values[0], known[0])


def _line(values: Fingerprint, known: Fingerprint) -> tuple[Fraction, int] | None:
    """(slope, offset) of values = slope * known + offset, both whole, or None."""
    run = known[1] - known[0]
    if run == 0:
        return None
    slope = Fraction(values[1] - values[0], run)
    if slope == 0 or slope.denominator != 1:
        return None
    offset = values[0] - slope * known[0]
    if any(v != slope * k + offset for v, k in zip(values, known, strict=True)):
        return None
    return slope, int(offset)


def _times(expression: Dim, ratio: Fraction) -> Dim:
    if ratio.denominator == 1:
        return expression * ratio.numerator
    return expression * ratio.numerator / ratio.denominator
