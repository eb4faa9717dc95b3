"""Figures of any model: they are drawn whole, say what they draw, and refuse what they cannot draw."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch import nn

import costmodel
from costmodel.cli import main
from costmodel.errors import InputError, OutputError
from costmodel.report.model_figures import FIGURES, draw_figure, roofline_dots, write_figure

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def analysis():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 32, 3, padding=1)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()) for _ in range(4)
            )
            self.head = nn.Linear(32, 10)

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = x + block(x)
            return self.head(x.mean((2, 3)))

    return costmodel.analyze(Net().eval(), torch.empty(16, 3, 64, 64), hw="a100")


@pytest.mark.parametrize("hw", ["a100", "i9-10940x"])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_and_the_same_every_time(analysis, name, hw):
    there = analysis.at(hw=hw)
    drawn = draw_figure(name, [there]).svg()
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own text
    assert root.tag == f"{SVG}svg" and len(list(root.iter(f"{SVG}path"))) > 20
    assert draw_figure(name, [there]).svg() == drawn


def test_no_dot_lies_above_the_roof_and_areas_are_the_time_of_kernels_that_compute(analysis):
    dots = roofline_dots(analysis)
    computing = [row for row in analysis.kernels if row.flops]
    assert sum(dot.seconds for dot in dots) == pytest.approx(sum(row.busy_s for row in computing))
    peak = max(peak.flop_per_s for peak in analysis.hardware.peaks.values())
    for dot in dots:
        assert dot.flop_per_s <= min(peak, dot.intensity * analysis.hardware.dram_bytes_per_s)


@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_the_suffix_says_the_format(analysis, tmp_path, suffix, begins):
    path = tmp_path / f"figure.{suffix}"
    write_figure("causes", [analysis], path)
    assert path.read_bytes().startswith(begins)


def test_several_machines_share_one_figure_of_batches(analysis):
    several = draw_figure("batches", [analysis, analysis.at(hw="t4")]).svg()
    assert several != draw_figure("batches", [analysis]).svg()
    with pytest.raises(InputError, match="--figure batches"):
        draw_figure("roofline", [analysis, analysis.at(hw="t4")])


def test_what_cannot_be_drawn_is_said(analysis, tmp_path):
    with pytest.raises(InputError, match="roofline"):
        draw_figure("rooflines", [analysis])
    with pytest.raises(OutputError, match=r"\.svg, \.pdf, \.png"):
        write_figure("causes", [analysis], tmp_path / "figure.gif")
    nothing = costmodel.analyze(nn.Flatten(), torch.empty(2, 3, 4), hw="a100")
    for name in FIGURES:
        with pytest.raises(InputError, match="nothing to draw"):
            draw_figure(name, [nothing])
    copies = costmodel.analyze(nn.ZeroPad2d(1), torch.empty(2, 3, 4, 4), hw="a100")
    with pytest.raises(InputError, match="computes nothing"):
        draw_figure("roofline", [copies])


def test_the_command_line_draws_into_a_file_and_asks_for_one_before_it_traces(capsys, tmp_path):
    path = tmp_path / "timeline.svg"
    assert main(["analyze", "resnet18", "--hw", "t4", "--figure", "timeline", "-o", str(path)]) == 0
    assert path.read_text().startswith("<?xml") and not capsys.readouterr().out
    assert main(["analyze", "no_such_model", "--hw", "t4", "--figure", "timeline"]) == 2
    assert "-o timeline.svg" in capsys.readouterr().err
