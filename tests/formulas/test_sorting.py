"""Sorting and searching: real algorithms on numbers that count never need more than the convention says."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.cost import Cost
from costmodel.formulas.registry import cost_of
from costmodel.formulas.sorting import ceil_log2
from costmodel.symbols import bind, from_code, symbol, to_code
from costmodel.tensor import TensorSpec, f32

from . import counting
from .counting import Counted, max_, min_, total


def _cost(name: str, arguments: dict[str, Any], out: Any) -> Cost:
    cost = cost_of(name if "." in name else f"aten.{name}", arguments, out)
    assert cost is not None
    return cost


def indices(*shape: Any) -> TensorSpec:
    return TensorSpec(shape, "int64")


def merge_sort(keys: list[Any]) -> list[Any]:
    if len(keys) < 2:
        return keys
    left, right = merge_sort(keys[: len(keys) // 2]), merge_sort(keys[len(keys) // 2 :])
    merged = []
    while left and right:
        merged.append((right if right[0] < left[0] else left).pop(0))
    return merged + left + right


def worst_merge_sort(length: int) -> int:
    """Comparisons when every merge runs to its end."""
    if length < 2:
        return 0
    return worst_merge_sort(length // 2) + worst_merge_sort(length - length // 2) + length - 1


def binary_search(keys: list[Any], value: Any) -> int:
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@given(st.integers(1, 1 << 39))
def test_stages_are_the_least_power_of_two(size: int) -> None:
    stages = ceil_log2(size)
    assert 2**stages >= size
    assert stages == 0 or 2 ** (stages - 1) < size


@pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 196, 4097])
def test_symbolic_stages_agree_and_survive_storage(size: int) -> None:
    stages = ceil_log2(symbol("n"))
    assert bind(stages, {"n": size}) == math.ceil(math.log2(size))
    assert bind(from_code(to_code(stages)), {"n": size}) == math.ceil(math.log2(size))


@pytest.mark.parametrize("length", [1, 2, 7, 8, 64])
def test_sort_bounds_a_merge_sort(length: int) -> None:
    generator = random.Random(length)  # noqa: S311 - test data
    with counting.counting() as tally:
        result = merge_sort([Counted(generator.random()) for _ in range(length)])
    assert all(a.value <= b.value for a, b in itertools.pairwise(result))
    cost = _cost("sort", {"input": f32(3, length), "dim": 1}, (f32(3, length), indices(3, length)))
    assert tally.flops <= worst_merge_sort(length)
    assert 3 * worst_merge_sort(length) <= cost.vector_flops <= 3 * (worst_merge_sort(length) + length)
    assert (cost.bytes_read, cost.bytes_written, cost.launches) == (12 * length, (12 + 24) * length, 1)


def test_the_sorted_dimension_decides() -> None:
    by_rows = _cost("sort", {"input": f32(8, 4), "dim": -1}, (f32(8, 4), indices(8, 4)))
    by_columns = _cost("argsort", {"input": f32(4, 8), "dim": 0}, indices(4, 8))
    assert by_rows.vector_flops == by_columns.vector_flops == 32 * 2
    assert _cost("median", {"input": f32(8, 4)}, f32()).vector_flops == 32 * 5


@pytest.mark.parametrize(("length", "k"), [(10, 1), (64, 5), (100, 8)])
def test_topk_bounds_sorted_insertion(length: int, k: int) -> None:
    """Each key is compared with the worst kept; where it is better, a binary search finds its place."""
    generator = random.Random(k)  # noqa: S311 - test data
    keys = [Counted(generator.random()) for _ in range(length)]
    kept: list[Any] = []
    with counting.counting() as tally:
        for key in keys:
            if len(kept) < k or kept[0] < key:
                kept.insert(binary_search(kept, key), key)
                kept = kept[-k:]
    assert [x.value for x in kept] == sorted(x.value for x in keys)[-k:]
    cost = _cost("topk", {"input": f32(length), "k": k}, (f32(k), indices(k)))
    assert length - 1 <= tally.flops <= cost.vector_flops + k


@pytest.mark.parametrize("length", [1, 7, 8, 100])
def test_search_bounds_a_binary_search(length: int) -> None:
    keys = [Counted(float(i)) for i in range(length)]
    counts = []
    for value in range(-1, length + 1):
        with counting.counting() as tally:
            binary_search(keys, Counted(value - 0.5))
        counts.append(tally.flops)
    one = _cost("searchsorted", {"sorted_sequence": f32(length), "input": f32(1)}, indices(1))
    many = _cost("bucketize", {"input": f32(6), "boundaries": f32(length)}, indices(6))
    assert one.vector_flops == max(counts)
    assert many.vector_flops == 6 * max(counts)


def test_unique_sorts_and_compares_neighbours() -> None:
    arguments, out = {"input": f32(16)}, (f32(4), indices(16))
    with counting.counting() as tally:
        [a != b for a, b in itertools.pairwise(counting.array(16))]
    ordered = _cost("sort", {"input": f32(16)}, out)
    assert _cost("_unique2", arguments, out).vector_flops == ordered.vector_flops + tally.flops
    assert _cost("unique_consecutive", arguments, out).vector_flops == tally.flops


def test_nonzero_compares_every_element() -> None:
    with counting.counting() as tally:
        [x != 0 for x in counting.array(6)]
    assert _cost("nonzero", {"input": f32(2, 3)}, indices(4, 2)).vector_flops == tally.flops


def test_membership_compares_with_every_test_element() -> None:
    with counting.counting() as tally:
        for x in counting.array(6):
            hits = [x == y for y in counting.array(4)]
            found = hits[0]
            for hit in hits[1:]:
                found = counting.apply("or", lambda a, b: a or b, found, hit)
    arguments = {"elements": f32(2, 3), "test_elements": f32(4)}
    assert _cost("isin", arguments, TensorSpec((2, 3), "bool")).vector_flops == tally.flops


def test_histogram_adds_each_element_once() -> None:
    assert _cost("bincount", {"input": indices(50)}, indices(10)).vector_flops == 50


def test_drawing_from_weights() -> None:
    weights = counting.array(8, low=0.1, high=1.0)
    with counting.counting() as tally:
        sums = list(itertools.accumulate(weights))
        normalized = [s / sums[-1] for s in sums]
    assert normalized[-1].value == 1.0
    worst = 4  # a binary search among 8 sums, the last of which is 1: at most 3 of them are looked at
    cost = _cost("multinomial", {"input": f32(2, 8), "num_samples": 5}, indices(2, 5))
    assert cost.vector_flops == 2 * tally.flops + 10 * (worst - 1)


def suppress(boxes: list[tuple[Any, ...]], threshold: float) -> list[int]:
    """Non-maximum suppression of boxes in order of their score, every overlap computed."""
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    kept = [True] * len(boxes)
    for i, j in itertools.combinations(range(len(boxes)), 2):
        a, b = boxes[i], boxes[j]
        left, top = max_(a[0], b[0]), max_(a[1], b[1])
        right, bottom = min_(a[2], b[2]), min_(a[3], b[3])
        shared = max_(right - left, 0) * max_(bottom - top, 0)
        overlap = shared / (areas[i] + areas[j] - shared)
        if overlap > threshold and kept[i]:
            kept[j] = False
    return [i for i, keep in enumerate(kept) if keep]


def test_suppression_is_bounded_by_all_pairs() -> None:
    corners = [(0, 0, 4, 4), (1, 1, 5, 5), (10, 10, 12, 12), (0, 0, 4, 3), (11, 10, 13, 12)]
    boxes = [tuple(map(Counted, map(float, box))) for box in corners]
    with counting.counting() as tally:
        kept = suppress(boxes, 0.5)
    assert kept == [0, 1, 2, 4]
    arguments = {"dets": f32(5, 4), "scores": f32(5), "iou_threshold": 0.5}
    by_score = _cost("sort", {"input": f32(5)}, (f32(5), indices(5)))
    assert _cost("torchvision.nms", arguments, indices(4)).vector_flops == by_score.vector_flops + tally.flops
    n = symbol("boxes")
    symbolic = _cost("torchvision.nms", {"dets": f32(n, 4), "scores": f32(n)}, indices(4))
    assert symbolic.bind({"boxes": 5}) == _cost("torchvision.nms", arguments, indices(4))


def test_running_total_helper_counts_one_less() -> None:
    with counting.counting() as tally:
        total(counting.array(8))
    assert tally.flops == 7
