"""Conditions and fronts over rows that are written here, so that what they should choose is known."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.errors import InputError
from costmodel.sweeps.columns import COLUMNS, named
from costmodel.sweeps.pareto import pareto
from costmodel.sweeps.where import condition

ROW = {
    "model": "resnet18", "hw": "a100-sxm-80gb", "batch": 8, "latency_s": 0.004, "fits": True, "bound": "memory",
    "peak_memory_bytes": 2 * 10**9, "macs": 4 * 10**9, "energy_j": None, "reason": None, "phase": "inference",
    "throughput_per_s": 2000.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("latency_ms < 5", True),
        ("latency_ms<5 and fits", True),
        ("not fits or batch == 4", False),
        ("1 < batch <= 8", True),
        ("latency_s * 1000 / batch == 0.5", True),
        ("bound == 'memory' and hw in ('t4', 'a100')", True),  # by its alias
        ("hw != 'a100'", False),
        ("hw == 'A100' and machine in ('T4', 'A100')", True),  # as --hw takes them
        ("memory_gb == 2 and memory < 2e9 + 1 and peak_memory_bytes > -1", True),
        ("gmacs == 4 and macs == 4e9", True),
        ("model == 'resnet18' or latency_ms > 5", True),
        ("fits == True", True),
        # what is not known decides nothing
        ("energy_j < 1", False),
        ("not energy_j < 1", False),
        ("energy_j < 1 or fits", True),
        ("energy_mj < 1 and fits", False),
        ("latency_ms / (batch - 8) < 1", False),
    ],
)
def test_conditions(text, holds):
    assert condition(text)(ROW) is holds


@pytest.mark.parametrize(
    "text", ["bound == memory", "bound != 3", "model < 3", "'a' == batch", "'a' * 999999999999 == hw"]
)
def test_texts_and_numbers_are_never_compared(text):
    """Without its quotes a text is the name of a column: bound == memory would keep nothing, without a word."""
    with pytest.raises(InputError, match="compares texts with numbers"):
        condition(text)(ROW)


@pytest.mark.parametrize(
    "text",
    ["", "latency_ms <", "lattency < 5", "__import__('os').system('x')", "batch.real", "(lambda: 1)()",
     "[x for x in ()]",
     "batch ** 9", "batch if fits else 1", "f'{batch}'", "model[0] == 'r'", "batch is 8", "batch := 3", "batch == None",
     "{1: 2} == batch", "b'x' == model"],
)  # fmt: skip
def test_nothing_else_is_understood(text):
    with pytest.raises(InputError):
        condition(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("latency_ms", "latency_ms alone is a quantity"), ("fits and not reason", "reason alone is a text"),
        ("batch or fits", "batch alone is a count"), ("1 + 1", "1 \\+ 1 alone"), ("fits and 5", "5 alone"),
    ],
)  # fmt: skip
def test_what_is_neither_true_nor_false_is_no_condition(text, part):
    """It would keep nothing, without a word."""
    with pytest.raises(InputError, match=part):
        condition(text)


def test_a_near_name_is_offered_and_texts_are_not_numbers():
    with pytest.raises(InputError, match="did you mean latency_ms"):
        condition("latencyms < 5")
    with pytest.raises(InputError, match="texts with numbers"):
        condition("model < 5")(ROW)


def test_every_column_can_be_named():
    for column in COLUMNS:
        assert named(column.key).column is column


def row(number: int, values: tuple[float, ...], **more: object) -> dict[str, object]:
    return {**ROW, "model": str(number), "macs": values[0], "latency_s": values[1], **more}


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=12))
def test_the_front_is_what_nobody_beats(values):
    rows = [row(i, each) for i, each in enumerate(values)]
    kept = {r["model"] for r in pareto(rows, ("macs", "latency"))}
    for r in rows:
        mine = (r["macs"], r["latency_s"])
        beaten = any(
            o["macs"] <= mine[0] and o["latency_s"] <= mine[1] and (o["macs"], o["latency_s"]) != mine for o in rows
        )
        assert (r["model"] in kept) is not beaten


def test_machines_and_batches_have_fronts_of_their_own_and_what_does_not_fit_beats_nobody():
    one, two = row(1, (2, 2.0)), row(2, (1, 1.0), hw="t4")
    other_batch, too_large = row(3, (1, 1.0), batch=1), row(4, (1, 1.0), fits=False)
    assert pareto([one, two, other_batch, too_large], ("macs", "latency")) == [one, two, other_batch]


def test_more_throughput_is_better_over_batches():
    rows = [row(1, (1, 1.0), batch=1, throughput_per_s=1.0), row(2, (1, 1.5), batch=2, throughput_per_s=1.3),
            row(3, (1, 4.0), batch=4, throughput_per_s=1.0)]  # fmt: skip
    assert [r["model"] for r in pareto(rows, ("throughput", "latency"))] == ["1", "2"]


@pytest.mark.parametrize("names", [("macs",), ("macs", "macs"), ("macs", "bound"), ("macs", "nonsense")])
def test_what_is_no_front(names):
    with pytest.raises(InputError):
        pareto([ROW], names)


def test_all_pairs_of_equal_points_stay():
    rows = [row(i, (1, 1.0)) for i in range(3)]
    assert pareto(rows, ("macs", "latency")) == rows
    assert len(list(itertools.combinations(rows, 2))) == 3
