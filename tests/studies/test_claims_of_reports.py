"""What the reports claim, held against the literature's own figures and against laws."""

from __future__ import annotations

import re

import pytest

from costmodel.studies import Bench, section_a, section_b, section_d, speed_lines, training, training_steps
from costmodel.studies.claim_lines import Line, lines_table, tally
from costmodel.studies.section_b import rounded_like
from costmodel.studies.tables import causes_table, kinds_table
from costmodel.studies.vgg_vs_googlenet_stem import lines as stem_lines


@pytest.fixture(scope="module")
def bench() -> Bench:
    """One bench for all."""
    return Bench()


def test_section_a_agrees_but_for_the_articles_matrix(bench: Bench) -> None:
    lines = section_a.lines(bench)
    assert [line.number for line in lines] == [f"A{n}" for n in range(1, 18)]
    assert [line.number for line in lines if line.verdict != "agrees"] == ["A12"]


def test_shares_agree_but_for_squeezenets_computation(bench: Bench) -> None:
    lines = section_b.share_lines(bench)
    assert [(line.number, line.published) for line in lines if line.verdict == "corrected"] == [("SqueezeNet", "1/510")]
    assert next(line.ours for line in lines if line.published == "1/510") == "1.15 times"


def test_stems_agree_but_for_what_was_miscounted(bench: Bench) -> None:
    lines = {line.claim: line for line in stem_lines(bench)}
    agreed = {claim for claim, line in lines.items() if line.verdict == "agrees"}
    assert agreed == {"GoogLeNet: memory", "GoogLeNet: params"}
    assert lines["GoogLeNet: MMAC"].ours == "477.7" and "480.8" in lines["GoogLeNet: MMAC"].derivation
    assert lines["VGG-16: MMAC"].ours == "9,335.1 (19.5 times)"
    assert lines["VGG-16: memory"].derivation.startswith("42.875 MiB of six")


def test_a_network_whose_count_is_off_by_one_does_not_agree(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section_b, "NETWORKS", {"resnet18": ("ResNet-18", "11,689,513", "1.814 G")})
    assert section_b.lines(bench)[0].verdict == "corrected"
    monkeypatch.setattr(section_b, "NETWORKS", {"resnet18": ("ResNet-18", "11,689,512", "1.815 G")})
    assert section_b.lines(bench)[0].verdict == "corrected"
    monkeypatch.setattr(section_b, "NETWORKS", {"resnet18": ("ResNet-18", "11,689,512", "1.814 G")})
    assert section_b.lines(bench)[0].verdict == "agrees"


def test_figures_are_rounded_to_the_digits_published() -> None:
    assert rounded_like(144_907_992, "144.9 M") == "144.9 M"
    assert rounded_like(144_907_992, "140 M") == "140 M"
    assert rounded_like(146_000_000, "140 M") == "150 M"


def test_verdicts_are_counted() -> None:
    lines = [Line(number="1", claim="c", published="p", ours="o", agrees=a) for a in (True, True, False, None)]
    assert tally(lines) == {"agrees": 2, "corrected": 1, "counted": 1}
    assert [row["verdict"] for row in lines_table(lines).rows] == ["agrees", "agrees", "corrected", "counted"]


@pytest.mark.parametrize("number", section_d.PASSAGES)
def test_passages_about_speed_are_sentences_with_numbers(number: str, bench: Bench) -> None:
    _, passage = section_d.PASSAGES[number]
    said = list(passage(bench))
    assert said and all(text.endswith(".") for text in said)
    assert re.search(r"\d+(\.\d+)? ?(µs|ms|%|times|measured|predicted)", " ".join(said))


def test_ten_claims_about_speed_each_with_a_verdict(bench: Bench) -> None:
    numbers = [f"D{n}" for n in range(1, 11)]
    assert list(section_d.PASSAGES) == numbers
    lines = speed_lines.lines(bench)
    assert list(dict.fromkeys(line.number for line in lines)) == numbers
    assert {line.verdict for line in lines} <= {"agrees", "differs"}, "a time is never corrected"
    assert all(re.search(r"\d", line.ours) for line in lines)


def test_where_flops_mislead_most(bench: Bench) -> None:
    """The claims that any sound model of a GPU bears out: few FLOPs, much time, and causes beyond the roofline."""
    verdicts = {line.number: line.verdict for line in speed_lines.lines(bench)}
    assert {number: verdicts[number] for number in ("D3", "D4", "D6", "D10")} == dict.fromkeys(
        ("D3", "D4", "D6", "D10"), "agrees"
    )


@pytest.mark.parametrize(("hw", "batch"), [("a100", 1), ("t4", 16)])
def test_causes_and_kinds_add_up(hw: str, batch: int, bench: Bench) -> None:
    analysis = bench.analysis("resnet18", hw=hw, batch=batch)
    found = bench.split(analysis)
    table = causes_table({"net": found})
    assert sum(row["net"] for row in table.rows) == pytest.approx(analysis.latency, rel=1e-3)
    assert table.footer[0]["net"] == pytest.approx(analysis.latency)
    kinds = kinds_table(analysis, found)
    assert sum(row["time_share"] for row in kinds.rows) == pytest.approx(1)
    assert sum(row["flop_share"] for row in kinds.rows) == pytest.approx(1)


def test_published_training_steps_are_predicted(bench: Bench) -> None:
    """The table of the report on training holds timings by others; none is missed by more than a fifth."""
    (_, table, _) = training._measured(bench).blocks
    errors = [row["error"] for row in table.rows]
    assert len(errors) == len(training.PUBLISHED) > 4
    assert max(map(abs, errors)) < 0.2


def test_what_the_report_on_training_says_of_backward_passes(bench: Bench) -> None:
    """FLOPs: two products for each, but none for the pictures' gradient; a network without that is at 2 exactly."""
    found = {name: training_steps.trained(bench, name) for name in ("ResNet-50", "BERT-base")}
    resnet, bert = (training_steps.ratios(analysis)[0] for analysis in found.values())
    assert 1.9 < resnet < bert < 2.01
    rows = training_steps.parts(found["BERT-base"])
    assert rows["backward"].macs == pytest.approx(2 * rows["forward"].macs, rel=0.01)
