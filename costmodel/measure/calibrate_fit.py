"""From timed micro-benchmarks to the figures of a calibration: tables by elements, rates and bandwidths by regression.

The equations are those of ``timing/cpu_calibrated.py``; what a kernel's size contributes comes from its
:func:`~costmodel.timing.cpu_calibrated.work_of`, so that prediction and calibration cannot disagree on it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.hardware.calibration import KernelTime
from costmodel.kernels.plan import Kernel
from costmodel.timing.cpu_calibrated import kind_of, work_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Timed", "cold_curve", "fit_kernels", "non_negative_least_squares"]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A micro-benchmark with its time in a full round [s], and, for a tiny one, in warmer and warmer surroundings.

    ``warmer_s`` holds, from the hottest: a loop over this call alone, then rounds over operators of ever more bytes;
    the full round is the coldest.
    """

    kernels: tuple[Kernel, ...]
    in_place: bool
    seconds: float
    warmer_s: tuple[float, ...] = ()
    host: str = ""

    @property
    def main(self) -> Kernel | None:
        """The kernel that does the work; None where the host alone does something."""
        return max(self.kernels, key=lambda k: (k.starts, k.matrix_flops), default=None)

    @property
    def kind(self) -> str:
        return self.host if self.main is None else kind_of(self.main, in_place=self.in_place)

    @property
    def nbytes(self) -> int:
        """Bytes that its kernels move."""
        return sum(kernel.bytes for kernel in self.kernels)


def fit_kernels(timed: Sequence[Timed]) -> dict[str, KernelTime]:
    """Figures of every kind among ``timed``. Raises ValueError for a kind without a tiny benchmark."""
    kinds: dict[str, list[Timed]] = {}
    for item in timed:
        kinds.setdefault(item.kind, []).append(item)
    contractions = {kind for kind, items in kinds.items() if any(i.main and i.main.matrix_flops for i in items)}
    convolutions = {kind: kinds[kind] for kind in contractions if kind.startswith("conv")}
    found = _fit_rates(convolutions)
    for kind, items in kinds.items():
        if kind not in found:
            found |= _fit_rates({kind: items}) if kind in contractions else {kind: _table(kind, items)}
    return found


def _tiny(kind: str, items: Sequence[Timed]) -> Timed:
    found = next((item for item in items if item.warmer_s), None)
    if found is None:
        raise ValueError(f"no tiny benchmark of {kind}: its fixed time cannot be told from the rest")
    return found


def _table(kind: str, items: Sequence[Timed]) -> KernelTime:
    """Fixed times from the tiny benchmark, and the time beyond it by elements, never falling."""
    tiny = _tiny(kind, items)
    points: dict[int, list[float]] = {}
    for item in items:
        walked = work_of(item.main).elements if item.main else 0
        points.setdefault(walked, []).append(item.seconds)
    elements, times, highest = [], [], 0.0
    for walked in sorted(points):
        highest = max(highest, statistics.median(points[walked]) - tiny.seconds)
        elements.append(walked)
        times.append(highest)
    alone = len(elements) == 1
    return KernelTime(
        hot_s=min(tiny.warmer_s[0], tiny.seconds),
        cold_s=tiny.seconds,
        elements=() if alone else tuple(elements),
        time_s=() if alone else tuple(times),
    )


#: Rates above this [1/s] are the regression's way to say that a part costs nothing.
_FASTEST = 1e13
#: Benchmarks of a kind from which on its tiny ones are not needed in the regression.
_LEAST_SIZED = 4


# -- rates -----------------------------------------------------------------------------------------


def _fit_rates(kinds: Mapping[str, Sequence[Timed]]) -> dict[str, KernelTime]:
    """Rates and bandwidths of kinds that share their reorders, by least squares on relative errors, none negative."""
    import numpy

    items = [(kind, item) for kind, members in kinds.items() for item in _sized(members)]
    if not items:
        return {}
    rows = [_parts(kind, item) for kind, item in items]
    names = sorted({name for row in rows for name in row})
    seconds = numpy.array([item.seconds for _, item in items])
    matrix = numpy.array([[row.get(name, 0.0) for name in names] for row in rows]) / seconds[:, None]
    scale = numpy.abs(matrix).max(axis=0)
    cost = non_negative_least_squares(matrix / scale, numpy.ones(len(items))) / scale
    return _kernel_times(kinds, dict(zip(names, cost.tolist(), strict=True)))


def _sized(members: Sequence[Timed]) -> Sequence[Timed]:
    """Without the tiny ones, which run on one thread: what threads cost would be missing from the fixed time."""
    sized = [item for item in members if not item.warmer_s]
    return sized if len(sized) >= _LEAST_SIZED else members


def _parts(kind: str, item: Timed) -> dict[tuple[str, str], float]:
    """What the time of one benchmark is a weighted sum of: (kind, part) -> quantity."""
    row: dict[tuple[str, str], float] = {}
    for kernel in item.kernels:
        work = work_of(kernel)
        owner = kind if kernel is item.main else kind_of(kernel)
        parts = {"starts": work.starts, "flops": work.flops, "activations": work.activation_bytes,
                 "weights": work.weight_bytes, "elements": work.elements, "matrices": work.matrices}  # fmt: skip
        for part, quantity in parts.items():
            if quantity:
                row[owner, part] = row.get((owner, part), 0.0) + quantity
    return row


def _kernel_times(kinds: Mapping[str, Sequence[Timed]], cost: Mapping[tuple[str, str], float]) -> dict[str, KernelTime]:
    def rate(owner: str, part: str) -> float | None:
        seconds = cost.get((owner, part), 0.0)
        return 1 / seconds if seconds * _FASTEST > 1 else None

    found = {}
    for owner in dict.fromkeys(owner for owner, _ in cost):
        fixed: dict[str, Any] = {}
        if owner in kinds:
            hot = _tiny(owner, kinds[owner]).warmer_s[0]
            cold = cost.get((owner, "starts"), 0.0)
            fixed = {"hot_s": min(hot, cold), "cold_s": cold}
        each = cost.get((owner, "elements"), 0.0)
        found[owner] = KernelTime(
            **fixed,
            flop_per_s=rate(owner, "flops"),
            activation_bytes_per_s=rate(owner, "activations"),
            weight_bytes_per_s=rate(owner, "weights"),
            matrix_s=cost.get((owner, "matrices"), 0.0),
            elements=(0, 1_000_000) if each else (),
            time_s=(0.0, each * 1e6) if each else (),
        )
    return found


def non_negative_least_squares(matrix: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """x >= 0 that makes matrix @ x come close to target: the active-set method of Lawson and Hanson (1974), ch. 23.

    >>> import numpy
    >>> non_negative_least_squares(numpy.array([[1.0, 1.0], [1.0, -1.0]]), numpy.array([1.0, 3.0])).round(9).tolist()
    [2.0, 0.0]
    """
    import numpy

    count = matrix.shape[1]
    solution, passive = numpy.zeros(count), numpy.zeros(count, dtype=bool)
    for _ in range(3 * count):
        gradient = matrix.T @ (target - matrix @ solution)
        if passive.all() or gradient[~passive].max() <= 1e-9 * (1 + numpy.abs(gradient).max()):
            break
        passive[numpy.where(passive, -numpy.inf, gradient).argmax()] = True
        while True:
            trial = numpy.zeros(count)
            trial[passive] = numpy.linalg.lstsq(matrix[:, passive], target, rcond=None)[0]
            if trial[passive].min(initial=1.0) > 0:
                solution = trial
                break
            falling = passive & (trial <= 0)
            step = (solution[falling] / (solution[falling] - trial[falling])).min()
            solution = solution + step * (trial - solution)
            passive &= solution > 1e-15
            if not passive.any():
                break
    return solution


# -- cold and hot ----------------------------------------------------------------------------------


def cold_curve(timed: Sequence[Timed], most_bytes: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(bytes that an operator moves on average, how cold fixed times then are): medians over the tiny benchmarks.

    ``most_bytes`` limit the operators of the warmer rounds; the full round, whose fixed times are cold, is the last.
    """
    tiny = [item for item in timed if item.warmer_s and item.seconds > item.warmer_s[0]]
    rounds = [[i for i in timed if i.warmer_s or i.nbytes <= most] for most in most_bytes]
    sizes = [sum(i.nbytes for i in members) / max(len(members), 1) for members in (*rounds, timed)]
    shares: list[float] = []
    for level in range(1, len(sizes)):
        share = [(i.warmer_s[level] - i.warmer_s[0]) / (i.seconds - i.warmer_s[0]) for i in tiny]
        shares.append(min(max(statistics.median(share or [1.0]), *shares, 0.0), 1.0))
    curve = dict(zip(sizes, (*shares, 1.0), strict=True))  # rounds over the same operators are one
    return tuple(sorted(curve)), tuple(curve[size] for size in sorted(curve))
