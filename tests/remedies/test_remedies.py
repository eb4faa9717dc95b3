"""Remedies: each is the step predicted again; the smallest combination fits, and no smaller one does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import costmodel
from costmodel.hardware import load
from costmodel.report.as_terminal import render_terminal
from costmodel.report.document import Document
from costmodel.report.memory import memory_blocks


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(x)))


def step(gigabytes: float, *, rows: int = 20_000, width: int = 256, **words: str) -> costmodel.Analysis:
    """A chain of 24 blocks on an A100 with other memory."""
    model = nn.Sequential(
        nn.Linear(width, width), nn.Sequential(*(Block(width) for _ in range(24))), nn.Linear(width, 9)
    )
    machine = load("a100")
    levels = tuple(
        replace(level, capacity_bytes=gigabytes * 1e9) if level.name == "dram" else level for level in machine.memory
    )
    small = replace(machine, memory=levels)
    return costmodel.analyze(
        model, torch.empty(rows, width), hw=small, phase="training", **{"optimizer": "adam", **words}
    )


@pytest.fixture(scope="module")
def crowded():
    return step(4)


def test_remedies_come_in_order_of_disruption_each_with_the_flag_to_paste(crowded):
    assert not crowded.totals.fits
    flags = [remedy.flags for remedy in crowded.remedies.each]
    batch = f"--batch {crowded.max_batch()}"
    order = ["--dtype amp_bf16", "--checkpoint blocks", batch, "--optimizer momentum", "--optimizer adam8bit",
             "--trainable lora:16", "--trainable head"]  # fmt: skip
    assert flags == [flag for flag in order if flag in flags]
    assert {"--dtype amp_bf16", "--checkpoint blocks", "--optimizer momentum", "--trainable head"} <= set(flags)


def test_the_page_says_in_a_word_whether_each_change_is_enough(crowded):
    table = next(block for block in memory_blocks(crowded) if hasattr(block, "rows"))
    column = next(c for c in table.page_columns if c.key == "verdict")
    said = {column.cell(row) for row in table.rows}
    assert said <= {"yes", "tight", "likely not", "no"} and {"yes", "no"} <= said
    assert len(render_terminal(Document("", (table,))).splitlines()[1]) <= 100
    assert "…" not in render_terminal(Document("", (table,)))


def test_each_remedy_is_the_step_predicted_again(crowded):
    for remedy in crowded.remedies.each:
        again = crowded.at(**remedy.words)
        assert remedy.process_bytes == again.memory.process_bytes
        assert remedy.saved_bytes == crowded.memory.process_bytes - remedy.process_bytes > 0
        assert remedy.fits == again.totals.fits
        if remedy.batch == crowded.execution.batch:
            assert remedy.extra_s == pytest.approx(again.latency - crowded.latency)


def test_checkpointing_costs_time_and_autocast_saves_some(crowded):
    by_flag = {remedy.flags: remedy for remedy in crowded.remedies.each}
    assert by_flag["--checkpoint blocks"].extra_s > 0
    assert by_flag["--dtype amp_bf16"].extra_s < 0


@pytest.mark.parametrize("gigabytes", [6, 4, 2.2])
def test_the_smallest_combination_fits_and_no_smaller_one_does(gigabytes):
    found = step(gigabytes).remedies
    chosen = found.smallest
    assert chosen is not None
    assert chosen.fits
    alone = [remedy for remedy in found.each if remedy.fits and not remedy.changes[0].is_last]
    if len(chosen.changes) > 1:
        assert not alone
    elif alone:
        assert chosen == alone[0]
    assert all(part in chosen.flags for change in chosen.changes for part in map(str, change.words.values()))


def test_a_step_that_fits_needs_none_and_its_page_offers_none():
    found = step(80, rows=100)
    assert found.totals.fits
    assert "What would make it fit" not in found.to_markdown()


def test_where_nothing_else_helps_it_is_a_smaller_batch():
    """Frozen, low-rank and checkpointed already, in half precision, without states: only samples are left."""
    found = step(0.8, rows=40_000, optimizer="none", trainable="head", checkpoint="blocks", dtype="amp_bf16")
    assert found.totals.fits is False
    assert found.remedies.smallest.words == {"batch": found.max_batch()}
