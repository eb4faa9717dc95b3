"""The accuracy report: one page that can be read, links that lead somewhere, and nothing left unsaid."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

import pytest

from costmodel.report.accuracy_pages import accuracy_pages
from costmodel.validate import Judged, ModelRow, OperatorRow, Unusable, Validation


def model(line: int, **changed: object) -> Judged:
    values: dict[str, object] = {
        "file": "a/nets.csv", "line": line, "model": f"net|{line}", "request": "", "device": "t4", "dtype": "fp16",
        "layout": "nchw", "mode": "eager", "phase": "inference", "batch": 8, "latency_s": 1e-3 * line,
        "family": f"family{line % 3}",
    }  # fmt: skip
    row = ModelRow(**{**values, **changed})  # type: ignore[arg-type]
    return Judged(row=row, predicted_s=1.1 * row.latency_s, low_s=row.latency_s, high_s=2 * row.latency_s,
                  flops=1e9 * line, roofline_s=5e-4 * line, roofs_85_s=6e-4 * line,
                  time_shares={"conv2d, gemm": 0.75, "add": 0.25})  # fmt: skip


def operator(line: int, **changed: object) -> Judged:
    values: dict[str, object] = {"file": "a/ops.csv", "line": line, "device": "t4", "op": "bmm", "dtype": "fp32",
                                 "input": (2, 3, 4), "latency_s": 1e-9 * line * 10**line}  # fmt: skip
    row = OperatorRow(**{**values, **changed})  # type: ignore[arg-type]
    return Judged(row=row, predicted_s=0.5 * row.latency_s, low_s=0.0, high_s=1.0, flops=1.0, roofline_s=1e-6,
                  roofs_85_s=2e-6, time_shares={"bmm, gemm": 1.0})  # fmt: skip


@pytest.fixture(scope="module")
def pages() -> Mapping[str, str]:
    nets = [model(i, device=("t4", "v100")[i % 2], mode=("eager", "compile")[i % 2], dtype=("fp16", "fp32")[i // 8])
            for i in range(1, 14)]  # fmt: skip
    ops = [operator(i, op=op, algorithm="fft" * (i % 2)) for i in range(1, 5) for op in ("bmm", "add", "mul")]
    unusable = Unusable(file="a/nets.csv", line=99, reason="another network: MACs as built differ", about="x: 1, 2")
    return accuracy_pages(
        {"nets": Validation(tuple(nets), (unusable,), 7), "ops": Validation(tuple(ops), ())},
        ["odd.csv: another format (a, b)"],
        {"nets": ("figures/accuracy_nets.svg", "13 points drawn of 13.")},
        "python benchmarks/accuracy_report.py MEASURED",
    )


def tables(page: str) -> list[list[str]]:
    return [block.split("\n") for block in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)]


def test_no_table_has_more_than_nine_columns(pages: Mapping[str, str]) -> None:
    for path, page in pages.items():
        for table in tables(page):
            assert len(re.findall(r"(?<!\\)\|", table[0])) - 1 <= 9, (path, table[0])


def test_the_first_page_is_one_page_and_says_what_columns_mean_before_it_shows_any(pages: Mapping[str, str]) -> None:
    first = pages["accuracy.md"]
    assert first.count("\n") < 120
    assert 0 < first.index("What the columns mean") < first.index("## Summary") < first.index("| measurements")
    assert "a sample of the rows" in first  # seven were not
    assert "25 rows of 2 files" in first  # 13 networks and 12 operators
    assert "another network: MACs as built differ" in first and "not in the sample" in first
    assert "odd.csv: another format (a, b)" in first


def test_every_link_leads_to_a_page_or_a_report_beside_it(pages: Mapping[str, str]) -> None:
    others = {"fitted_constants.md", "accuracy_cpu.md"}
    for path, page in pages.items():
        for text, target in re.findall(r"(?<!!)\[([^]]*)\]\(([^)]*)\)", page):
            found = PurePosixPath(path).parent / target
            parts: list[str] = []
            for part in found.parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            assert "/".join(parts) in {*pages, *others}, (path, text, target)


def test_names_and_code_show_as_themselves(pages: Mapping[str, str]) -> None:
    assert all("\\`" not in page for page in pages.values())
    assert "net\\|13" in pages["accuracy/nets.md"]


def test_both_times_of_a_row_have_one_unit(pages: Mapping[str, str]) -> None:
    """From 10 ns to 40 µs measured, half of it predicted: the unit that suits the largest, for both."""
    heads = [table[0] for table in tables(pages["accuracy/ops.md"]) if "measured (" in table[0]]
    assert heads
    for head in heads:
        (measured,), (predicted,) = re.findall(r"measured \((\S+)\)", head), re.findall(r"predicted \((\S+)\)", head)
        assert measured == predicted


def test_a_scale_fitted_to_two_rows_is_not_shown() -> None:
    two = {"few": Validation(tuple(operator(i) for i in (1, 2)), ())}
    (summary,) = [t for t in tables(accuracy_pages(two, [], {}, "c")["accuracy.md"]) if "measurements" in t[0]]
    cells = [cell.strip() for cell in summary[2].split("|")[1:-1]]
    heads = [cell.strip() for cell in summary[0].split("|")[1:-1]]
    row = dict(zip(heads, cells, strict=True))
    assert row["FLOPs, scaled (%)"] == "–" and "/" in row["roofline (%)"]
