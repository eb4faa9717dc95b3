"""Checkpointed blocks, frozen and low-rank weights: what autograd makes of them, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import costmodel
from costmodel.errors import InputError
from costmodel.execution import Execution, NodePhase, Trained

WIDTH, ROWS = 64, 10
MACS = ROWS * WIDTH * WIDTH


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(x)))


def model(blocks: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Sequential(*(Block() for _ in range(blocks))),
                         nn.Linear(WIDTH, 5, bias=False))  # fmt: skip


def step(module: nn.Module | None = None, rows: int = ROWS, **words: str) -> costmodel.Analysis:
    module = model() if module is None else module
    return costmodel.analyze(
        module, torch.empty(rows, WIDTH), hw="a100", phase="training", optimizer="none", loss=lambda out: out.sum(),
        **words,
    )  # fmt: skip


def macs(analysis: costmodel.Analysis, phase: NodePhase) -> int:
    return sum(row.macs for row in analysis.rows() if row.phase == phase.value)


HEAD = ROWS * WIDTH * 5


def test_a_checkpointed_block_runs_its_forward_pass_again():
    """Forward: 7 products and the head; backward twice that, less the gradient of the input.

    A block runs again until all that was saved of it is there (``early_stop``): its first product, not its second.
    """
    plain, found = step(), step(checkpoint="blocks")
    assert macs(plain, NodePhase.FORWARD) == macs(found, NodePhase.FORWARD) == 7 * MACS + HEAD
    assert macs(plain, NodePhase.BACKWARD) == 2 * (7 * MACS + HEAD) - MACS
    assert macs(found, NodePhase.BACKWARD) - macs(plain, NodePhase.BACKWARD) == 3 * MACS
    assert "checkpointed: 3 blocks (Block) run again in the backward pass" in found.model.notes


def test_a_checkpointed_block_keeps_its_input_alone():
    """Of 40 blocks the plain step saves the input and the result of the ReLU, the other one the input, and while one
    block is taken back what that saves."""
    plain, found = (step(model(40), 1000, **words).memory for words in ({}, {"checkpoint": "blocks"}))
    row = 4 * 1000 * WIDTH
    assert 2 * 40 * row <= plain.moment.by_kind["saved for backward"] <= 2 * 40 * row + 3 * row
    assert 40 * row <= found.activation_bytes <= 40 * row + 8 * row


def test_frozen_weights_take_no_gradients_and_nothing_runs_back_to_them():
    found = step(trainable="head")
    assert list(found.record.gradients) == ["2.weight"]
    assert macs(found, NodePhase.BACKWARD) == HEAD  # the weight's gradient alone
    assert "trained: 2 alone, all other weights are frozen" in found.model.notes


def test_low_rank_weights_are_trained_beside_frozen_ones():
    """Rank 4: two matrices of 4 x 64 beside each of 7 layers; their gradients and those of the head are taken."""
    found = step(trainable="lora:4")
    assert found.totals.params == 7 * WIDTH * WIDTH + 5 * WIDTH + 7 * 2 * 4 * WIDTH
    assert len(found.record.gradients) == 7 * 2 + 1
    assert macs(found, NodePhase.FORWARD) == 7 * (MACS + 2 * ROWS * WIDTH * 4) + HEAD
    kept = found.at(optimizer="adam").memory.state_bytes
    assert kept == 2 * 4 * (7 * 2 * 4 * WIDTH + 5 * WIDTH)


def test_the_users_module_stays_as_it_was():
    module = model()
    kinds = [type(part) for part in module.modules()]
    step(module, checkpoint="blocks", trainable="lora:4")
    assert [type(part) for part in module.modules()] == kinds
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert not any("low_rank" in name for name, _ in module.named_parameters())


def test_what_cannot_be_done_is_told():
    with pytest.raises(InputError, match="repeats none"):
        step(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5)), checkpoint="blocks")
    with pytest.raises(InputError, match="none besides its last layer"):
        step(nn.Linear(WIDTH, 5), trainable="lora:4")
    with pytest.raises(InputError, match="lora:RANK"):
        Execution.of(trainable="some")
    with pytest.raises(InputError, match="checkpoint"):
        Execution.of(checkpoint="all")
    with pytest.raises(InputError, match="belongs to training"):
        costmodel.analyze("resnet18", hw="a100", checkpoint="blocks")


@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet18", 8), ("timm:vit_tiny_patch16_224", 12), ("timm:swin_tiny_patch4_window7_224", 12)]
)
def test_blocks_of_known_networks_are_found(name, blocks):
    """8 basic blocks in ResNet-18, 12 in ViT, 2 + 2 + 6 + 2 in Swin-T."""
    found = costmodel.analyze(name, hw="a100", phase="training", checkpoint="blocks", use_cache=False)
    assert any(f"checkpointed: {blocks} blocks" in note for note in found.model.notes)


def test_words_of_a_usual_step_say_nothing_of_it():
    assert "trained" not in Execution.of(phase="training").words
    assert Execution.of(phase="training", checkpoint="blocks").words["trained"] == "checkpointed blocks"
    assert Trained(trainable="lora:16").words == {"trainable": "lora:16"}
