"""Rows that state parameters or MACs are held only against the network that has them.

The network of these tests is relu(linear(x)) from 5 to 6 features: 5*6 + 6 = 36 parameters, 30 MACs a sample, and 12
other FLOPs (a bias and a ReLU for each of 6 results).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.report import render
from costmodel.report.accuracy import accuracy_document
from costmodel.validate import read_measured, validate
from costmodel.validate.published import Stated, stated

from .measured_files import MODEL_HEADER, FakeTraces, model_row, write

HEADER = f"{MODEL_HEADER},params_m,gmacs"


@pytest.mark.parametrize(
    ("params_m", "gmacs", "reason"),
    [
        ("", "", ""),
        ("0.000036", "", ""),
        ("0.00004", "", ""),  # 36 reads as 40 in tens
        ("0.000035", "", "another network: parameters as built differ"),
        ("0.00003", "", "another network: parameters as built differ"),
        ("36e-6", "", ""),
        ("0.000036", "0.000000030", ""),
        ("0.000036", "0.000000042", ""),  # a tool that counts every other FLOP as one more
        ("0.000036", "0.000000043", "another network: MACs as built differ"),
        ("0.000036", "0.000000029", "another network: MACs as built differ"),
        ("0.000036", "0.00000003", ""),
        ("0.000036", "none", ""),  # no figure, nothing to hold against
    ],
)
def test_a_row_of_another_network_is_refused_with_its_reason(
    tmp_path: Path, params_m: str, gmacs: str, reason: str
) -> None:
    path = write(tmp_path, HEADER, f"{model_row()},,", f"{model_row()},{params_m},{gmacs}")
    result = validate(read_measured([path]), trace=FakeTraces())
    assert [row.reason for row in result.unusable] == [reason] * bool(reason)
    assert len(result.judged) == 2 - bool(reason)


def test_the_report_counts_such_rows_and_says_by_how_much_they_differ(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, f"{model_row()},,", *[f"{model_row(batch=n)},0.000071," for n in (1, 2, 4)])
    text = render(accuracy_document(validate(read_measured([path]), trace=FakeTraces())), "markdown")
    assert "1 row of 1 file judged, 3 rows not usable" in text
    assert "two_ops: 36 parameters as built, 71 in the row (line 3)" in text
    assert "(line 4)" not in text  # the same once more says nothing


def test_what_other_counters_leave_out_may_be_missing() -> None:
    """A figure between the MACs without recurrent layers and all of them is this network's."""
    lstm = Stated(9.74e9, 5e6)
    assert lstm.holds(9.73e9, 16.5e9) and not lstm.holds(16.5e9, 16.9e9)


def test_half_a_unit_of_the_last_digit_is_the_tolerance() -> None:
    figure = stated({"gmacs": "1.82"}, "gmacs", 1e9)
    assert figure is not None
    assert figure.holds(1.8249e9, 1.8249e9) and figure.holds(1.8151e9, 1.8151e9)
    assert not figure.holds(1.8251e9, 1.9e9)
    assert stated({"gmacs": "0"}, "gmacs", 1e9) is None and stated({}, "gmacs", 1e9) is None
