"""Memory of a training step: counted by hand, and held against torch's own timeline of allocations on this CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import costmodel
from costmodel.memory.liveness import scratch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.training_memory import MOST_OFF, OPTIMIZERS, measured_peak, predicted_and_measured

WIDTH, ROWS = 100, 500
WEIGHT, ROW = 4 * WIDTH * WIDTH, 4 * ROWS * WIDTH


def chain(*layers: nn.Module) -> costmodel.Analysis:
    return costmodel.analyze(
        nn.Sequential(*layers), torch.empty(ROWS, WIDTH), hw="a100", phase="training", optimizer="none",
        loss=lambda out: out.sum(),
    )  # fmt: skip


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH, bias=False)


def test_what_is_saved_lives_until_the_node_that_reads_it_has_run():
    """Four layers of tanh: forward, each saves its result and its input; the peak is early in the backward pass.

    At its start the four results of products are gone (tanh saves its own result, the product its operand) and those of
    tanh are there, the last of which is the output, which its caller holds; the last layer's gradients come to them.
    """
    found = chain(*(layer for _ in range(4) for layer in (linear(), nn.Tanh()))).memory
    assert found.parameter_bytes == 4 * WEIGHT
    saved = found.moment.by_kind
    assert found.moment.phase == "backward"
    assert saved["saved for backward"] == 4 * ROW + 4  # the loss with them
    assert found.activation_bytes == 4 * ROW + 4 + 2 * ROW + WEIGHT  # dx is made while dy and dw are there


def test_gradients_stay_to_the_end_of_the_step_and_the_optimizer_reads_them():
    """Large weights, few rows: when the last gradient is made all are there; Adam's update holds one more of each."""
    layers = nn.Sequential(*(nn.Linear(400, 400, bias=False) for _ in range(3)))
    weights = 3 * 4 * 400 * 400
    step = costmodel.analyze(layers, torch.empty(2, 400), hw="a100", phase="training", optimizer="none").memory
    assert 2 * weights <= step.peak_bytes < 2 * weights + 20 * 4 * 2 * 400
    sgd, momentum, adam = (
        costmodel.analyze(layers, torch.empty(2, 400), hw="a100", phase="training", optimizer=name).memory
        for name in ("sgd", "momentum", "adam")
    )
    assert (sgd.state_bytes, momentum.state_bytes, adam.state_bytes) == (0, weights, 2 * weights)
    assert momentum.peak_bytes - sgd.peak_bytes == weights
    assert adam.moment.phase == "optimizer"
    assert adam.moment.by_kind["gradients"] == weights
    assert adam.peak_bytes >= 5 * weights  # weights, gradients, two states, and what the update makes of them


def test_autocasts_copies_of_weights_live_as_long_as_the_backward_pass_reads_them():
    """Two layers under autocast: both copies of weights are there when the forward pass ends."""
    layers = nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(2)))
    found = costmodel.analyze(
        layers, torch.empty(1, 1000), hw="a100", phase="training", optimizer="none", dtype="amp_bf16"
    ).memory
    copy = 2 * 1000 * 1000
    assert found.parameter_bytes == 4 * 1000 * 1000 * 2
    assert found.activation_bytes >= 2 * copy


@pytest.mark.parametrize("dtype", ["amp_fp16", "amp_bf16"])
def test_gradients_under_autocast_lie_in_memory_in_the_dtype_of_their_weights(dtype):
    """Products write them in half precision; what the optimizer finds in .grad are copies in fp32, and no others."""
    layers = nn.Sequential(nn.Linear(400, 400), nn.Linear(400, 400, bias=False), nn.Conv1d(2, 40, 1))
    weights = sum(parameter.numel() for parameter in layers.parameters())
    found = costmodel.analyze(
        layers, torch.empty(2, 400), hw="a100", phase="training", optimizer="adam", dtype=dtype
    ).memory
    assert found.moment.phase == "optimizer"
    assert found.moment.by_kind["gradients"] == 4 * weights
    assert found.peak_bytes >= 5 * 4 * weights


def test_a_second_use_of_a_weight_adds_to_its_gradient_in_place():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(500, 500, bias=False)

        def forward(self, x):
            return self.layer(self.layer(x))

    found = costmodel.analyze(
        Twice(), torch.empty(1, 500), hw="a100", phase="training", optimizer="none", loss=lambda out: out.sum()
    ).memory
    weight = 4 * 500 * 500
    assert 3 * weight <= found.peak_bytes < 3 * weight + 20 * 4 * 500  # the weight, its gradient, the one to be added


def test_a_step_that_does_not_fit_says_what_a_batch_may_be():
    found = costmodel.analyze("resnet50", hw="t4", batch=1024, phase="training")
    assert found.totals.fits is False
    most = found.max_batch()
    assert 0 < most < 1024
    assert found.at(batch=most).totals.fits
    assert not found.at(batch=most + 1).totals.fits


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_the_peak_of_a_step_is_that_of_torchs_timeline(optimizer):
    """The sample in CI of benchmarks/training_memory.py, which takes 20 networks."""
    torch.manual_seed(0)
    block = [nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *block, nn.MaxPool2d(2), nn.Conv2d(16, 64, 3), nn.GELU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 256), nn.Dropout(0.1), nn.LayerNorm(256),
        nn.Linear(256, 100),
    )  # fmt: skip
    image = torch.rand(8, 3, 32, 32)
    found = costmodel.analyze(model, image, hw="xeon-6148", phase="training", optimizer=optimizer)
    measured = measured_peak(model.train(), (image,), OPTIMIZERS[optimizer])
    assert found.memory.peak_bytes == pytest.approx(measured, rel=0.05)


def test_what_the_gradients_of_a_convolution_are_converted_to_is_one_block():
    """64 to 64 channels, 3x3 on 56x56, 4 images: x, dx and twice dy in NHWC, each 64 * 56 * 56 * 4 images * 4 B."""
    layers = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1))
    step = {"hw": "a100", "phase": "training", "optimizer": "none"}
    found = costmodel.analyze(layers, torch.empty(4, 3, 56, 56), **step)
    whole = 4 * (64 * 56 * 56 * 4 * 4)
    taken = scratch(found.plan, found.bound)
    assert whole in {size for sizes in taken for size in sizes}
    expanded = whole // 4  # the gradient of a sum is of stride 0, and made whole first
    assert found.memory.moment.by_kind["scratch"] == whole + expanded
    last = costmodel.analyze(layers, torch.empty(4, 3, 56, 56), layout="nhwc", **step)
    assert max(size for sizes in scratch(last.plan, last.bound) for size in sizes) == expanded


def test_an_8_bit_adam_keeps_two_bytes_a_weight_and_two_scales_a_block():
    """A matrix of 1024 x 1024 in blocks of 256 elements; a bias of 1024 keeps its states in fp32."""
    layer = nn.Linear(1024, 1024)
    found = costmodel.analyze(layer, torch.empty(1, 1024), hw="a100", phase="training", optimizer="adam8bit")
    assert found.memory.state_bytes == 2 * 1024 * 1024 + 2 * 4 * 1024 * 1024 // 256 + 2 * 4 * 1024
    assert [row.op for row in found.rows()].count("bitsandbytes.adam_blockwise") == 2
    assert not found.coverage.uncosted


@pytest.mark.parametrize("request_", ["torchvision:mobilenet_v3_small", "timm:ghostnet_100"])
def test_networks_of_the_benchmark(request_):
    predicted, measured = predicted_and_measured(request_, "momentum")
    assert predicted == pytest.approx(measured, rel=MOST_OFF)
