"""Sentences that compare do so from like with like: each of these tests stands for a sentence that once did not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from costmodel.report.figures import Dot, Roof, roofline
from costmodel.studies import Bench, published_figures, resnet50_a100, section_d, shufflenetv2_guidelines, speed_lines
from costmodel.studies.bench import KINDS
from costmodel.studies.claim_lines import tally
from costmodel.studies.shufflenetv2_guidelines import CASES, micro, off_by, speed
from costmodel.studies.tables import peaks_note
from costmodel.studies.vgg_vs_googlenet_stem import lines as stem_lines
from costmodel.studies.vgg_vs_googlenet_stem import stems
from costmodel.studies.words import slower

REPORTS = Path(__file__).parents[2] / "reports"


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def test_both_stems_count_their_pools(bench: Bench) -> None:
    """VGG-16 in fp32: convolutions of 224, 112 and 56 wide maps, and a pool after each pair or three, in bytes."""
    convolutions = 4 * (2 * 64 * 224**2 + 2 * 128 * 112**2 + 3 * 256 * 56**2)
    pools = 4 * (64 * 112**2 + 128 * 56**2 + 256 * 28**2)
    found = stems(bench)
    assert found["VGG-16"].mebibytes == (convolutions + pools) / 2**20
    assert found["VGG-16 as published"].mebibytes == (convolutions - 4 * 256 * 56**2) / 2**20  # 42.875
    assert [name for name, stem in found.items() if stem.layers[-1].maps == "28x28"] == ["GoogLeNet", "VGG-16"]
    memory = next(line for line in stem_lines(bench) if line.claim == "VGG-16: memory")
    assert memory.ours == "51.30 MiB (6.9 times)"  # 51.30 / 7.46


def test_speeds_are_compared_as_the_paper_measured_them(bench: Bench) -> None:
    """Batches a second: nothing is scaled to equal MACs, on either side."""
    for case in CASES:
        ratio = micro(bench, case.reference).latency / micro(bench, case.network).latency
        assert speed(bench, case) == pytest.approx(ratio)


def test_the_papers_fourth_table_is_a_range_of_its_three_widths() -> None:
    rows = {32: (2842, 2427), 64: (2376, 2066), 128: (1782, 1436)}
    ratios = [round(plain / both, 2) for plain, both in rows.values()]
    measured = next(case.measured for case in CASES if case.guideline == "G4")
    assert measured == (min(ratios), max(ratios))
    assert off_by(1.2, measured) == 1.0 and off_by(2.48, measured) == pytest.approx(2.0)


def test_a_guideline_agrees_only_where_both_predictions_are_near(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_is_far(*_: Any, on_device: bool = False, **__: Any) -> float:
        return 5.0 if on_device else 0.51

    monkeypatch.setattr(shufflenetv2_guidelines, "speed", one_is_far)
    first = next(line for line in speed_lines._guidelines(bench))
    assert first.verdict == "differs" and "1.00 and 9.80 times" in first.derivation  # 5 / 0.51


def test_multiples_of_8_that_lose_time_do_not_bear_the_claim_out(bench: Bench) -> None:
    widths = {
        shape[0]
        for node in bench.analysis("mobilenet_v2").bound.nodes
        if "conv" in node.op
        for graph in [bench.analysis("mobilenet_v2").bound]
        for shape in [graph.arguments(graph.calls[node.call])["weight"].shape]  # type: ignore[attr-defined]
    }
    assert all(width % 8 == 0 for width in widths)
    lost, share = section_d.channel_loss(bench, section_d.run(bench, "mobilenet_v2"))
    assert lost > 0 and share > 0.01
    (line,) = [line for line in speed_lines.lines(bench) if line.number == "D8"]
    assert line.verdict == "differs"
    assert "nothing" not in line.ours  # ResNet-50's first convolution reads 3 channels, which fill no tile either


def test_peaks_are_named_where_columns_have_different_ones(bench: Bench) -> None:
    plain, pooled = (bench.split(bench.analysis(name, batch=64)) for name in ("char_cnn", "char_cnn_gap"))
    assert plain.peak != pooled.peak
    (note,) = peaks_note({"plain": plain, "pooled": pooled})
    assert "plain at fp32 on vector units (19.5 TFLOP/s); pooled at tf32 on matrix units (156 TFLOP/s)" in note.text  # type: ignore[union-attr]
    assert peaks_note({"plain": plain, "again": plain}) == ()


def test_faster_is_said_of_speeds_and_slower_of_times() -> None:
    assert slower(1 / 1.49) == "49.0 % faster"  # 1.49 times as many a second, not the 32.9 % of time that are saved
    assert slower(1.1) == "10.0 % slower"


def test_the_opening_counts_the_claims_about_speed_too(bench: Bench) -> None:
    counts = tally(speed_lines.lines(bench))
    page = (REPORTS / "published_figures.md").read_text(encoding="utf-8")
    assert f"the predictions bear out {counts['agrees']} and differ from {counts['differs']}" in page
    assert set(published_figures.sections(bench)) >= {"B: networks"}


def test_the_knee_is_the_batch_that_the_finding_names(bench: Bench) -> None:
    one = bench.analysis("resnet50")
    finding = next(found for found in bench.findings(one) if found.rule == "launch_bound")
    assert f"batch {finding.evidence['batch_that_fills']} in fp32" in resnet50_a100._knee(bench)


def test_a_kind_has_the_same_colour_in_every_roofline() -> None:
    def colour(kinds: list[str], kind: str) -> str:
        dots = [Dot(10.0, 1e12, 1e-3 * (k == kind) + 1e-6, k) for k in kinds]
        drawn = roofline(dots, [Roof("peak", 1e13)], 1e12, "t", KINDS)
        found = dict.fromkeys(re.findall(r"fill: (#[0-9a-f]{6}); fill-opacity: 0\.6", drawn))
        return list(found)[sorted(kinds, key=KINDS.index).index(kind)]

    assert colour(["normalization", "pooling"], "pooling") == colour(["linear", "normalization", "pooling"], "pooling")


@pytest.mark.parametrize("path", sorted(REPORTS.glob("**/*.md")), ids=lambda path: path.name)
def test_pages_show_code_as_code_and_fit_a_screen(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "\\`" not in text
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) < 260 if "\n|" in text else True
