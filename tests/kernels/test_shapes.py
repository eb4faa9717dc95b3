"""Shapes of kernels: sizes that multiply out to the FLOPs, one kind for each kind of work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from costmodel.engines import lower
from costmodel.execution import Execution
from costmodel.hardware import load
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Attention, Convolution, Loop, Pooling, Product, Rows, Window, product_of
from costmodel.tensor import TensorSpec

GPU, CPU = load("rtx3090"), load("i9-10940x")


class Everything(nn.Module):
    """A convolution, its norm, a pool, attention, a layer norm and a product, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.pool = nn.Conv2d(8, 16, 3, padding=1), nn.AvgPool2d(2)
        self.norm, self.last = nn.LayerNorm(16), nn.Linear(16, 24)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.convolution(image))).flatten(2).mT.unflatten(2, (2, 8)).transpose(1, 2)
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        return self.last(self.norm(x.transpose(1, 2).flatten(2)))


@pytest.fixture(scope="module")
def of_shape(traced):
    """Kernels of the network by the kind of their shape, on a machine."""

    def run(hardware, mode: str) -> dict[type, list[Kernel]]:
        plan = lower(traced(Everything(), torch.empty(3, 8, 6, 6)), Execution.of(mode=mode), hardware)
        found: dict[type, list[Kernel]] = {}
        for kernel in plan.kernels:
            found.setdefault(type(kernel.shape), []).append(kernel)
        return found

    return run


@pytest.mark.parametrize("mode", ["eager", "compile"])
@pytest.mark.parametrize("hardware", [GPU, CPU], ids=lambda h: h.name)
def test_sizes_of_contractions_multiply_out_to_their_flops(of_shape, hardware, mode) -> None:
    found = of_shape(hardware, mode)
    (convolved,), (product,), (attended,) = found[Convolution], found[Product], found[Attention]
    assert convolved.shape.product == Product(3 * 36, 16, 8 * 9)
    assert product.shape == Product(3 * 9, 24, 16)
    assert attended.shape == Attention(9, 9, 8, 3 * 2, sequences=3)
    assert convolved.matrix_flops == 2 * convolved.shape.product.macs
    assert product.matrix_flops == 2 * product.shape.macs
    assert attended.matrix_flops == 4 * 9 * 9 * 8 * 6  # scores, and the values that they weigh


def test_rows_and_pools_say_how_far_a_thread_walks(of_shape) -> None:
    found = of_shape(GPU, "eager")
    assert [kernel.shape for kernel in found[Rows]] == [Rows(16)]
    assert [kernel.shape for kernel in found[Pooling]] == [Pooling(4)]


def test_generated_loops_of_a_cpu_keep_flops_and_cycles_apart(of_shape) -> None:
    """relu is a FLOP an element and at least a cycle of a lane; a layer norm takes many more cycles than FLOPs."""
    loops = [kernel for kernel in of_shape(CPU, "compile")[Loop] if kernel.caller == "loop"]
    (norm,) = (kernel for kernel in loops if kernel.op == "aten.layer_norm")
    assert norm.shape.lane_cycles > norm.vector_flops > 0
    assert sum(kernel.shape.window_reads for kernel in loops) == 3 * 16 * 9 * 4  # outputs of the pool, 4 taps each


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), ((2, 1), (0, 3), (1, 2))])
def test_a_windows_output_is_what_torch_puts_out(stride, padding, dilation) -> None:
    x, weight = torch.empty(2, 4, 11, 13), torch.empty(6, 4, 3, 3)
    out = nn.functional.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation)
    arguments = {"input": TensorSpec(tuple(x.shape)), "weight": TensorSpec(tuple(weight.shape)),
                 "stride": stride, "padding": padding, "dilation": dilation}  # fmt: skip
    window = Window.of_call(arguments)
    assert window is not None
    assert window.out_size == tuple(out.shape[2:])


def test_other_ranks_have_no_window_and_other_work_no_product() -> None:
    assert Window.of_call({"input": TensorSpec((1, 3, 8)), "weight": TensorSpec((4, 3, 3))}) is None
    assert product_of(Rows(8)) is None
    assert product_of(Convolution(Product(4, 3, 2))) == Product(4, 3, 2)
