"""Rows by kernel: they add up to the step, levels add up to the traffic, tiles say what they load."""

from __future__ import annotations

import csv
import io
import json
import math

import jsonschema
import pytest
import torch
from torch import nn

import costmodel
from costmodel.errors import InputError
from costmodel.report import render
from costmodel.report.as_json import schema
from costmodel.timing.geometry import kernel_geometry

#: 108 units of an A100, each with one tile in hand.
UNITS = 108


class Block(nn.Module):
    """Four alike convolutions of 3x3 with batch norm and ReLU, and a head."""

    def __init__(self) -> None:
        super().__init__()
        pairs = [(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()) for _ in range(4)]
        self.features = nn.Sequential(*(layer for pair in pairs for layer in pair))
        self.head = nn.Linear(64, 1000)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture(scope="module")
def analysis():
    return costmodel.analyze(Block().eval(), torch.empty(32, 64, 56, 56), hw="a100")


@pytest.mark.parametrize("hw", ["a100", "v100", "i9-10940x"])
@pytest.mark.parametrize("mode", ["eager", "compile"])
def test_launches_add_up_to_the_step(analysis, hw, mode):
    there = analysis.at(hw=hw, mode=mode)
    rows = there.kernels
    assert len(rows) == len(there.plan.launches)
    assert math.fsum(row.latency_s for row in rows) == pytest.approx(there.latency, rel=1e-12)
    assert math.fsum(row.share for row in rows) == pytest.approx(1.0)
    assert sum(row.bytes for row in rows) == there.totals.traffic_bytes
    assert sum(row.starts for row in rows) == there.totals.kernels
    assert {name for row in rows for name in row.nodes} <= {node.name for node in there.bound.nodes}


def test_levels_add_up_to_the_traffic_and_a_small_step_hits_in_the_cache(analysis):
    rows = analysis.at(batch=4).kernels  # results of 3.2 MB, and an L2 of 40 MB
    for row in rows:
        assert row.dram_bytes + row.cache_bytes == pytest.approx(row.bytes)
    relu = next(row for row in rows if row.op == "aten.relu")
    assert relu.cache_bytes == pytest.approx(relu.bytes_read)  # batch norm has just written it
    large = next(row for row in analysis.at(batch=256).kernels if row.op == "aten.relu")  # of 206 MB
    assert large.cache_bytes < 0.01 * large.bytes
    assert analysis.at(hw="i9-10940x").kernels[0].dram_bytes is None  # not followed there


def test_tiles_load_each_operand_as_often_as_they_need_it():
    product = costmodel.analyze(nn.Linear(1024, 4096, bias=False).eval(), torch.empty(8192, 1024), hw="a100")
    (row,) = product.at(dtype="fp16").kernels
    rows, columns = row.tile
    tiles = math.ceil(8192 / rows) * math.ceil(4096 / columns)
    assert row.waves == math.ceil(tiles * row.split_k / UNITS)
    assert row.loaded_bytes == 2 * (tiles * 1024 * (rows + columns) + 8192 * 4096)
    assert row.loaded_bytes > row.bytes  # that is what tiles are for: less would be magic
    assert row.units == "matrix fp16"


def test_a_kernel_says_what_the_library_chooses(analysis):
    volta = [row for row in analysis.at(hw="v100").kernels if row.op == "aten.conv2d"]
    assert {row.algorithm for row in volta} <= {"winograd", "winograd_nonfused", "fft", "implicit_gemm"}
    assert {row.algorithm for row in volta} != {"implicit_gemm"}  # 3x3 at stride 1 is what Winograd is for
    assert all(row.tile and min(row.tile) > 0 for row in volta)
    kernel = analysis.plan.kernels[analysis.plan.launches[0].kernel]
    assert kernel_geometry(kernel, analysis.hardware).algorithm == kernel.algorithm


def test_a_fused_kernel_names_all_that_it_serves(analysis):
    fused = max(analysis.at(mode="compile").kernels, key=lambda row: len(row.nodes))
    assert len(fused.nodes) > 1


def test_a_page_folds_alike_kernels_and_fits(analysis):
    page = render(analysis, by="kernel", top=5)
    assert max(map(len, page.splitlines())) <= 100
    assert "groups of alike kernels" in page and "features.*" in page
    everything = render(analysis, by="kernel", top=0)
    assert f"All {len(analysis.kernels)} kernels, in the order" in everything


def test_data_formats_hold_every_launch(analysis):
    value = json.loads(render(analysis, "json", by="kernel"))
    jsonschema.validate(value, schema())
    assert value["groups"]["by"] == "kernel" and len(value["groups"]["rows"]) == len(analysis.kernels)
    rows = list(csv.DictReader(io.StringIO(render(analysis, "csv", by="kernel"))))
    assert math.fsum(float(row["latency_s"]) for row in rows) == pytest.approx(analysis.latency)
    assert {row["tile"] for row in rows if row["algorithm"] == "implicit_gemm"} != {""}
    for format in ("markdown", "html"):
        assert "winograd" in render(analysis.at(hw="v100"), format, by="kernel")


def test_unknown_columns_are_named_with_those_there_are(analysis):
    with pytest.raises(InputError, match="dram_bytes"):
        render(analysis, by="kernel", columns=["dram"])
