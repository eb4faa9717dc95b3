"""Kernels of PyTorch on a CPU: reorders counted by hand, what channels_last spares, what Inductor fuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from costmodel.engines.inductor.cpu import compiled_cpu_plan
from costmodel.execution import Execution
from costmodel.formulas import cost_of
from costmodel.hardware import load
from costmodel.kernels.cpu import cpu_kernels
from costmodel.kernels.operator import Operator
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.kernels.shapes import Convolution, Product
from costmodel.tensor import Role, TensorSpec, f32

if TYPE_CHECKING:
    from torch import nn

    from costmodel.graph import OpGraph

CPU = load("i9-10940x")


def operator(op: str, out: TensorSpec, **arguments: Any) -> Operator:
    cost = cost_of(op, arguments, out)
    assert cost is not None
    return Operator(op, arguments, out, cost, Execution(), CPU)


def nhwc(*shape: int) -> TensorSpec:
    """A float32 tensor of logical shape N, C, H, W whose channels lie fastest."""
    _, c, h, w = shape
    return TensorSpec(shape, strides=(c * h * w, 1, w * c, c))


def conv(x: TensorSpec, weight: TensorSpec, out: TensorSpec, **arguments: Any) -> tuple[Kernel, ...]:
    return cpu_kernels(operator("aten.conv2d", out, input=x, weight=weight, **arguments))


def algorithms(kernels: tuple[Kernel, ...]) -> list[str]:
    return [kernel.algorithm for kernel in kernels]


def test_an_eager_nchw_convolution_reorders_input_weight_and_output() -> None:
    kernels = conv(f32(1, 8, 6, 6), f32(16, 8, 3, 3), f32(1, 16, 6, 6), padding=1)
    assert algorithms(kernels) == ["reorder_activations", "reorder_weights", "implicit_gemm", "reorder_activations"]
    before, weight, product, after = kernels
    assert (before.bytes_read, before.bytes_written) == (4 * 8 * 36, 4 * 8 * 36)  # 8 channels of 36 pixels, 4 B each
    assert (weight.bytes_read, weight.bytes_written) == (4 * 16 * 8 * 9, 4 * 16 * 8 * 9)
    assert (after.bytes_read, after.bytes_written) == (4 * 16 * 36, 4 * 16 * 36)
    assert product.matrix_flops == 2 * 16 * 36 * 8 * 9  # a MAC for each output element, input channel and tap
    assert product.shape == Convolution(Product(36, 16, 8 * 9))


@pytest.mark.parametrize(("channels", "access"), [(16, "elementwise"), (18, "padded")])
def test_reorders_tell_whether_channels_fill_their_blocks(channels: int, access: str) -> None:
    before, *_, after = conv(f32(1, 8, 6, 6), f32(channels, 8, 1, 1), f32(1, channels, 6, 6))
    assert (before.access, after.access) == ("elementwise", access)


@pytest.mark.parametrize(("width", "reorders"), [(88, 2), (90, 0), (4, 2)])
def test_groups_that_do_not_fill_their_blocks_are_multiplied_as_they_lie(width: int, reorders: int) -> None:
    """As oneDNN's verbose mode shows for two groups of 88 (jit:avx2) and of 90 channels (gemm:jit)."""
    x, weight = f32(1, 2 * width, 6, 6), f32(2 * width, width, 1, 1)
    kernels = conv(x, weight, f32(1, 2 * width, 6, 6), groups=2)
    assert algorithms(kernels).count("reorder_activations") == reorders


def test_channels_last_reorders_only_the_weight() -> None:
    kernels = conv(nhwc(1, 8, 6, 6), f32(16, 8, 3, 3), nhwc(1, 16, 6, 6), padding=1)
    assert algorithms(kernels) == ["reorder_weights", "implicit_gemm"]


@pytest.mark.parametrize(("channels", "reorders"), [(1, 1), (3, 1), (4, 1), (5, 2)])
def test_the_first_layer_reads_a_plain_image(channels: int, reorders: int) -> None:
    kernels = conv(f32(1, channels, 6, 6), f32(16, channels, 3, 3), f32(1, 16, 6, 6), padding=1)
    assert algorithms(kernels).count("reorder_activations") == reorders


@pytest.mark.parametrize(
    ("groups", "algorithm"), [(1, "gemm"), (4, "grouped_implicit_gemm"), (8, "im2col_gemm"), (32, "direct_depthwise")]
)
def test_narrow_groups_fall_back_to_im2col(groups: int, algorithm: str) -> None:
    """32 channels: 8 a group is the narrowest that oneDNN blocks; 4 a group is not; 1 a group is depthwise."""
    kernels = conv(nhwc(1, 32, 6, 6), f32(32, 32 // groups, 1, 1), nhwc(1, 32, 6, 6), groups=groups)
    assert kernels[-1].algorithm == algorithm


def test_only_the_call_itself_has_a_fixed_time() -> None:
    kernels = conv(f32(1, 8, 6, 6), f32(16, 8, 3, 3), f32(1, 16, 6, 6), padding=1)
    assert [kernel.starts for kernel in kernels] == [0, 0, 1, 0]


def test_linear_is_one_product_of_rows_columns_and_depth() -> None:
    (kernel,) = cpu_kernels(operator("aten.linear", f32(2, 5, 7), input=f32(2, 5, 3), weight=f32(7, 3)))
    assert (kernel.algorithm, kernel.shape, kernel.matrix_flops) == ("gemm", Product(10, 7, 3), 2 * 10 * 7 * 3)


def test_a_batched_product_keeps_its_batch() -> None:
    (kernel,) = cpu_kernels(operator("aten.matmul", f32(2, 6, 5, 7), input=f32(2, 6, 5, 3), other=f32(2, 6, 3, 7)))
    assert (kernel.algorithm, kernel.shape) == ("batched_gemm", Product(5, 7, 3, 12))


def test_operands_whose_orders_differ_are_strided() -> None:
    (same,) = cpu_kernels(operator("aten.add", f32(1, 8, 6, 6), input=f32(1, 8, 6, 6), other=f32(1, 8, 6, 6)))
    (mixed,) = cpu_kernels(operator("aten.add", f32(1, 8, 6, 5), input=f32(1, 8, 6, 5), other=nhwc(1, 8, 6, 5)))
    assert (same.algorithm, mixed.algorithm) == ("elementwise", "strided_elementwise")


def test_layer_norm_copies_a_strided_input() -> None:
    turned = TensorSpec((6, 8), strides=(1, 6))
    weight = TensorSpec((8,), role=Role.PARAMETER)
    kernels = cpu_kernels(
        operator("aten.layer_norm", f32(6, 8), input=turned, normalized_shape=[8], weight=weight, bias=weight)
    )
    assert algorithms(kernels) == ["strided_copy", "normalization"]
    assert kernels[0].bytes == 2 * 4 * 48


def test_views_run_nothing() -> None:
    assert cpu_kernels(operator("aten.view", f32(6), input=f32(2, 3), size=[6])) == ()


# -- compiled --------------------------------------------------------------------------------------


def traced(module: nn.Module, *shape: int) -> OpGraph:
    import torch

    from costmodel.sources import from_module
    from costmodel.trace import trace

    return trace(from_module(module.eval(), (torch.zeros(shape),))).bind({})


def plan_of(graph: OpGraph, dtype: str = "fp32") -> KernelPlan:
    return compiled_cpu_plan(graph, Execution.of(mode="compile", dtype=dtype), CPU)


def launched(plan: KernelPlan) -> list[str]:
    return [plan.kernels[launch.kernel].algorithm for launch in plan.launches]


@pytest.fixture(scope="module")
def conv_norm_relu() -> OpGraph:
    from torch import nn

    return traced(nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()), 1, 8, 6, 6)


def test_norm_and_relu_after_a_convolution_are_one_loop(conv_norm_relu: OpGraph) -> None:
    plan = plan_of(conv_norm_relu)
    assert launched(plan) == ["copy_weights", "reorder_weights", "implicit_gemm", "fused_loop"]
    loop = plan.kernels[plan.launches[-1].kernel]
    assert loop.bytes_written == 4 * 16 * 36  # the result of relu alone
    assert loop.bytes_read == 4 * 16 * 36 + 4 * 4 * 16  # the convolution's, and four vectors of 16 channels


def test_every_operator_that_runs_is_launched_once(conv_norm_relu: OpGraph) -> None:
    plan = plan_of(conv_norm_relu)
    served = {node for launch in plan.launches for node in launch.nodes}
    assert served == set(range(len(conv_norm_relu.nodes)))


def test_a_residual_is_added_in_the_loop_that_normalizes() -> None:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.norm_a, self.norm_b = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.norm_a(self.a(x)) + self.norm_b(self.b(x)))

    plan = plan_of(traced(Block(), 1, 8, 6, 6))
    assert launched(plan) == ["reorder_weights", "gemm", "reorder_weights", "gemm", "fused_loop"]
    loop = plan.kernels[plan.launches[-1].kernel]
    assert loop.bytes_written == 4 * 8 * 36
    assert loop.bytes_read == 2 * (4 * 8 * 36 + 4 * 4 * 8)  # both convolutions' results, four vectors of 8 each


def test_a_result_that_two_calls_read_is_stored() -> None:
    import torch
    from torch import nn

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x))
            return self.left(y) * self.right(y)

    plan = plan_of(traced(Fork(), 5, 8))
    assert launched(plan) == ["gemm", "fused_loop", "gemm", "gemm", "fused_loop"]


def test_compiled_loops_move_no_more_than_eager_operators(conv_norm_relu: OpGraph) -> None:
    plan = plan_of(conv_norm_relu)
    kernels = [plan.kernels[launch.kernel] for launch in plan.launches]
    fused = sum(kernel.bytes for kernel in kernels if kernel.algorithm == "fused_loop")
    apart = 0
    for node in conv_norm_relu.nodes[1:]:
        call = conv_norm_relu.calls[node.call]
        cost = cost_of(call.op, conv_norm_relu.arguments(call), conv_norm_relu.results(call))
        assert cost is not None
        apart += cost.bytes  # type: ignore[assignment, operator]
    assert fused < apart


def test_a_slice_of_channels_is_copied_ahead_of_a_convolution() -> None:
    """Half of the channels of a channels-last picture lie with gaps: 4 of 8 channels of 36 pixels are copied."""
    import torch
    from torch import nn

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x.chunk(2, 1)[0])

    plan = plan_of(traced(Half(), 1, 8, 6, 6))
    assert launched(plan) == ["fused_loop", "reorder_weights", "gemm"]
    assert plan.kernels[plan.launches[0].kernel].bytes == 2 * 4 * 4 * 36


def test_cat_starts_a_loop_for_each_of_its_operands() -> None:
    import torch
    from torch import nn

    class Join(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, y, x], 1)

    from costmodel.sources import from_module
    from costmodel.trace import trace

    graph = trace(from_module(Join().eval(), (torch.zeros(2, 3), torch.zeros(2, 5)))).bind({})
    (kernel,) = plan_of(graph).kernels
    assert kernel.count == 3
    assert kernel.bytes_written == 4 * 2 * (3 + 5 + 3)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_the_width_moves_half_the_bytes_in_every_kernel(conv_norm_relu: OpGraph, dtype: str) -> None:
    """``model.to(dtype)``: every tensor of this network is floating-point, so each kernel moves half as much."""
    full, half = plan_of(conv_norm_relu), plan_of(conv_norm_relu, dtype)
    assert launched(half) == launched(full)
    for launch, narrow in zip(full.launches, half.launches, strict=True):
        wide, thin = full.kernels[launch.kernel], half.kernels[narrow.kernel]
        assert (2 * thin.bytes_read, 2 * thin.bytes_written) == (wide.bytes_read, wide.bytes_written)
        assert (thin.matrix_flops, thin.elements) == (wide.matrix_flops, wide.elements)
    counted = 8  # the norm's int64 counter of batches stays as it is
    assert sum(half.storage_bytes) - counted == (sum(full.storage_bytes) - counted) / 2


def test_autocast_casts_what_no_loop_makes_by_loops_of_their_own(conv_norm_relu: OpGraph) -> None:
    """Image, weight and bias of the convolution are read in fp32 and written in bf16; the norm reads bf16."""
    plan = plan_of(conv_norm_relu, "amp_bf16")
    *casts, copied, reordered, product, loop = [plan.kernels[launch.kernel] for launch in plan.launches]
    sizes = [8 * 36, 16 * 8 * 9, 16]
    assert sorted((k.bytes_read, k.bytes_written) for k in casts) == sorted((4 * n, 2 * n) for n in sizes)
    assert {k.op for k in casts} == {"aten._to_copy"}
    assert copied.bytes_read == reordered.bytes_read == 2 * 16 * 8 * 9
    assert product.bytes_written == 2 * 16 * 36
    assert loop.bytes_read == 2 * 16 * 36 + 4 * 4 * 16  # statistics and weights of the norm stay in fp32


def test_what_a_loop_makes_for_a_product_alone_it_stores_in_the_products_dtype() -> None:
    """relu between two linear layers under autocast: its loop reads bf16 and stores bf16; nothing is cast apart."""
    import torch
    from torch import nn

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(self.first(x)))

    plan = plan_of(traced(Wide(), 5, 8), "amp_bf16")
    (norm,) = (k for k in plan.kernels if k.op == "aten.layer_norm")
    assert norm.bytes_written == 2 * 5 * 8  # the norm calculates in fp32, and only the last layer reads it
