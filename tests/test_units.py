"""Quantities: every factor is written out here by hand, none is taken from the code."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from costmodel.errors import InputError
from costmodel.units import (
    UNITS,
    format_bytes,
    format_count,
    format_percent,
    format_quantity,
    format_seconds,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("312 TFLOP/s", "FLOP/s", 312e12),
        ("624 TOP/s", "FLOP/s", 624e12),
        ("156.8 GFLOP/s", "FLOP/s", 156.8e9),
        ("1.5 PFLOP/s", "FLOP/s", 1.5e15),
        ("1.41 GHz", "Hz", 1.41e9),
        ("1410 MHz", "Hz", 1.41e9),
        ("2039 GB/s", "B/s", 2.039e12),  # decimal: what vendors mean
        ("2.039 TB/s", "B/s", 2.039e12),
        ("40 MiB", "B", 40 * 1024 * 1024),
        ("96 KiB", "B", 98304),
        ("80 GB", "B", 80e9),
        ("1 GiB", "B", 1073741824),
        ("2.4 us", "s", 2.4e-6),
        ("2.4 µs", "s", 2.4e-6),  # micro sign
        ("2.4 μs", "s", 2.4e-6),  # Greek mu
        ("3 ms", "s", 3e-3),
        ("7 ns", "s", 7e-9),
        ("3.186 Gbit/s", "bit/s", 3.186e9),
        ("400 W", "W", 400.0),
        ("4.1 GFLOP", "FLOP", 4.1e9),
        ("  5W ", "W", 5.0),
        ("1e3 GB/s", "B/s", 1e12),
        ("-3 W", "W", -3.0),
    ],
)
def test_parse(text: str, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit", "says"),
    [
        ("312 TFLOPS", "FLOP/s", 'never "FLOPS"'),
        ("312", "FLOP/s", "has no unit"),
        ("fast", "FLOP/s", "is not a quantity in FLOP/s"),
        ("", "B", "is not a quantity in B"),
        ("1 GB", "B/s", "GB/s"),
        ("2039 Gb/s", "B/s", "GB/s"),
        ("96 KB", "B", "KiB for 1024 B"),
        ("1.41 GHz extra", "Hz", "is not a quantity"),
        ("2 h", "s", "ms"),
        ("3 kB", "Hz", "GHz"),
    ],
)
def test_parse_errors_say_which_units_exist(text: str, unit: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_quantity(text, unit)
    assert says in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_bare_number_is_not_a_quantity() -> None:
    with pytest.raises(InputError, match="not a quantity"):
        parse_quantity(312, "W")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.09e9, "FLOP", "4.09 GFLOP"),
        (25_557_032, "", "25.6 M"),
        (1.53e12, "B/s", "1.53 TB/s"),
        (0, "FLOP", "0 FLOP"),
        (7, "FLOP", "7 FLOP"),
        (999, "", "999"),
        (1000, "", "1.00 k"),
        (999_999, "", "1.00 M"),  # rounding carries into the next prefix
        (999.6e9, "FLOP/s", "1.00 TFLOP/s"),
        (1.5, "FLOP/B", "1.50 FLOP/B"),
        (0.25, "FLOP/B", "0.250 FLOP/B"),
        (-4.09e9, "FLOP", "-4.09 GFLOP"),
        (3.2e18, "FLOP", "3200 PFLOP"),
        (math.inf, "FLOP/B", "inf FLOP/B"),
    ],
)
def test_format_quantity(value: float, unit: str, text: str) -> None:
    assert format_quantity(value, unit) == text


def test_digits() -> None:
    assert format_quantity(312.04e12, "FLOP/s", 5) == "312.04 TFLOP/s"
    assert format_quantity(2.039e12, "B/s", 2) == "2.0 TB/s"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (812e-6, "812 µs"),
        (1.234, "1.23 s"),
        (12.5e-9, "12.5 ns"),
        (999.7e-6, "1.00 ms"),
        (3600.4, "3600 s"),
        (0, "0 s"),
        (0.2e-9, "0.200 ns"),
    ],
)
def test_format_seconds(value: float, text: str) -> None:
    assert format_seconds(value) == text


def test_bytes_are_written_with_decimal_prefixes() -> None:
    assert format_bytes(40 * 2**20) == "41.9 MB"  # 40 * 1.048576
    assert format_bytes(80e9) == "80.0 GB"
    assert format_bytes(512) == "512 B"


def test_counts_and_percentages() -> None:
    assert format_count(53) == "53"
    assert format_count(11_689_512) == "11.7 M"
    assert [format_percent(f) for f in (0, 0.5, 1, 0.00364, 0.067, 12.5)] == [
        "0 %", "50 %", "100 %", "0.36 %", "6.7 %", "1250 %",
    ]  # fmt: skip


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_what_is_written_reads_back(unit: str) -> None:
    for value in (1.0, 3.21e-4, 2.5, 640.0, 1.77e6, 9.99e11):
        if value < 1 and unit != "s":
            continue
        assert parse_quantity(format_quantity(value, unit, 6), unit) == pytest.approx(value, rel=1e-5)


def test_import_needs_nothing_heavy() -> None:
    code = "import costmodel.units, sys; print(sorted({'torch', 'numpy', 'sympy', 'networkx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
