"""Kernels of a training step on a GPU and the dtypes of its gradients, counted by hand on small modules."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import costmodel  # noqa: E402
from costmodel.execution import NodePhase  # noqa: E402
from costmodel.kernels.shapes import Convolution  # noqa: E402

N, C, K, SIDE = 4, 16, 32, 8
IMAGE = torch.empty(N, C, SIDE, SIDE, device="meta")
X, Y = (
    N * C * SIDE * SIDE,
    N * K * SIDE * SIDE,
)  # elements into and out of a convolution


def analysis(module, *inputs, dtype="fp16", layout="nhwc", hw="rtx3090", **conditions):
    found = costmodel.analyze(module, inputs, hw=hw, dtype=dtype, layout=layout, phase="training")
    return found.at(**conditions) if conditions else found


def kernels(found, op, phase=NodePhase.BACKWARD):
    """Kernels of an operator's nodes in one part of the step, in program order."""
    nodes, plan = found.record.nodes, found.plan
    launched = [(nodes[launch.nodes[-1]], plan.kernels[launch.kernel]) for launch in plan.launches]
    return [k for node, k in launched if node.op == f"aten.{op}" and node.phase is phase]


def test_a_convolution_has_a_gradient_of_its_data_and_one_of_its_weight():
    net = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.Conv2d(C, K, 3, padding=1, bias=False), nn.ReLU())
    data, weight = kernels(analysis(net, IMAGE), "convolution_backward")[:2]
    macs = Y * C * 9
    assert (data.algorithm, weight.algorithm) == ("implicit_gemm_dgrad", "implicit_gemm_wgrad")
    assert data.matrix_flops == weight.matrix_flops == 2 * macs
    assert data.shape.product.macs == weight.shape.product.macs == macs
    assert (data.shape.product.m, data.shape.product.n, data.shape.product.k) == (N * SIDE * SIDE, C, 9 * K)
    assert (weight.shape.product.m, weight.shape.product.n, weight.shape.product.k) == (9 * C, K, N * SIDE * SIDE)
    filters = K * C * 9
    assert (data.bytes_read, data.bytes_written) == (2 * (Y + filters), 2 * X)
    assert (weight.bytes_read, weight.bytes_written) == (2 * (Y + X), 2 * filters)


def test_nobody_asks_for_the_gradient_of_an_image():
    run = kernels(analysis(nn.Sequential(nn.Conv2d(C, K, 3, bias=False), nn.ReLU()), IMAGE), "convolution_backward")
    assert [kernel.algorithm for kernel in run] == ["implicit_gemm_wgrad"]


def test_at_stride_two_a_pixel_meets_a_quarter_of_the_taps():
    net = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.Conv2d(C, K, 2, stride=2, bias=False), nn.ReLU())
    data = kernels(analysis(net, IMAGE), "convolution_backward")[0]
    assert (data.shape.product.m, data.shape.product.n, data.shape.product.k) == (N * SIDE * SIDE, C, K)
    assert data.shape.product.macs == N * (SIDE // 2) ** 2 * K * C * 4


@pytest.mark.parametrize(("side", "padding", "phases"), [(2, 0, 4), (1, 0, 1), (3, 1, 4)])
def test_miopen_takes_the_phases_of_a_stride_one_by_one(side: int, padding: int, phases: int) -> None:
    """Each phase of the input's pixels is a product of its own over the taps that it meets; where some meet none the
    result is set to zero first. Every second element of a row is written: twice its sectors."""
    layer = nn.Conv2d(C, K, side, stride=2, padding=padding, bias=False)
    found = analysis(nn.Sequential(nn.Conv2d(C, C, 1, bias=False), layer, nn.ReLU()), IMAGE, hw="mi100", layout="nchw")
    run = [k for k in kernels(found, "convolution_backward") if k.algorithm != "implicit_gemm_wgrad"][: phases + 1]
    zeroed = [k for k in run if k.algorithm == "elementwise"]
    data = [k for k in run if k.algorithm == "implicit_gemm_dgrad"][:phases]
    assert [k.bytes_written for k in zeroed] == ([] if phases == 4 else [2 * X])
    macs = N * (SIDE // 2) ** 2 * K * C * side**2
    assert sum(k.matrix_flops for k in data) == 2 * macs
    assert {k.shape.product.m for k in data} == {N * (SIDE // 2) ** 2}
    assert {k.shape.product.k for k in data} == {K * side**2 // phases}
    assert sum(k.bytes_written for k in data) == 2 * (2 * X) * phases // 4
    assert sum(k.bytes_read for k in data) == pytest.approx(2 * (Y // 4 + K * C * side**2), abs=phases)


def test_nchw_half_precision_is_converted_around_each_of_the_two():
    net = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.Conv2d(C, K, 3, padding=1, bias=False), nn.ReLU())
    run = [k.algorithm for k in kernels(analysis(net, IMAGE, layout="nchw"), "convolution_backward")]
    assert run[:6] == [
        "nchw_to_nhwc", "implicit_gemm_dgrad", "nhwc_to_nchw", "nchw_to_nhwc", "nchw_to_nhwc", "implicit_gemm_wgrad",
    ]  # fmt: skip
    assert run[6:] == ["implicit_gemm_wgrad"]  # 1x1: products on the tensors as they lie


def test_on_lanes_a_gradient_at_stride_one_is_a_convolution_of_its_own():
    net = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.Conv2d(C, K, 3, padding=1, bias=False), nn.ReLU())
    data = kernels(analysis(net, IMAGE, dtype="fp32", layout="nchw", hw="v100-sxm-16gb"), "convolution_backward")[0]
    assert isinstance(data.shape, Convolution) and data.engine == "vector"
    window = data.shape.window
    assert (window.in_channels, window.out_channels, window.padding) == (K, C, (1, 1))
    assert window.out_size == (SIDE, SIDE)


def test_a_bias_is_a_sum_over_pixels():
    run = kernels(analysis(nn.Sequential(nn.Conv2d(C, K, 1), nn.ReLU()), IMAGE), "convolution_backward")
    bias = run[-1]
    assert (bias.algorithm, bias.bytes_read, bias.bytes_written) == ("reduction", 2 * Y, 2 * K)


def test_batch_norm_reads_its_input_and_the_gradient_twice():
    net = nn.Sequential(nn.Conv2d(C, K, 3, padding=1, bias=False), nn.BatchNorm2d(K), nn.ReLU())
    found = analysis(net, IMAGE)
    forward = kernels(found, "native_batch_norm", NodePhase.FORWARD)
    backward = kernels(found, "native_batch_norm_backward")
    statistics = 8 * K
    assert sum(k.bytes_read for k in forward) == 2 * 2 * Y + statistics
    assert sum(k.bytes_read for k in backward) == 2 * (2 * Y + 2 * Y) + statistics
    assert backward[-1].bytes_written == 2 * Y


# -- dtypes under autocast ---------------------------------------------------------------------------------------------


def casts(found, phase):
    nodes, plan = found.record.nodes, found.plan
    launched = [(nodes[launch.nodes[-1]], plan.kernels[launch.kernel]) for launch in plan.launches]
    return [k for node, k in launched if k.algorithm == "cast" and node.phase is phase]


class Residual(nn.Module):
    """A residual stream in fp32 (a norm with a learnt scale keeps it there) around a linear layer in fp16."""

    def __init__(self, readers: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(C)
        self.layers = nn.ModuleList(nn.Linear(C, C, bias=False) for _ in range(readers))

    def forward(self, x):
        normal = self.norm(x)
        return x + sum(layer(normal) for layer in self.layers)


ROWS = torch.empty(N, SIDE, C, device="meta")


def test_weights_and_their_gradients_are_cast_once_a_step():
    found = analysis(nn.Sequential(nn.Linear(C, C, bias=False), nn.Linear(C, C, bias=False)), ROWS, dtype="amp_fp16")
    forward, backward = casts(found, NodePhase.FORWARD), casts(found, NodePhase.BACKWARD)
    weight = (4 * C * C, 2 * C * C)
    assert [(k.bytes_read, k.bytes_written) for k in forward].count(weight) == 2
    assert [(k.bytes_written, k.bytes_read) for k in backward].count(weight) == 2


@pytest.mark.parametrize("readers", [1, 3])
def test_each_reader_of_a_wide_tensor_gives_a_narrow_gradient_that_is_cast_before_it_is_added(readers):
    found = analysis(Residual(readers), ROWS, dtype="amp_fp16")
    rows = N * SIDE * C
    forward, backward = casts(found, NodePhase.FORWARD), casts(found, NodePhase.BACKWARD)
    assert [(k.bytes_read, k.bytes_written) for k in forward].count((4 * rows, 2 * rows)) == readers
    assert [(k.bytes_read, k.bytes_written) for k in backward].count((2 * rows, 4 * rows)) == readers


def test_backward_reads_what_forward_was_cast_to():
    found = analysis(nn.Sequential(nn.Linear(C, C, bias=False), nn.Linear(C, C, bias=False)), ROWS, dtype="amp_fp16")
    products = kernels(found, "mm")
    assert products and all((k.dtype, k.shape.item_bytes) == ("fp16", 2) for k in products if k.matrix_flops)


def test_a_model_in_half_precision_casts_nothing():
    found = analysis(Residual(), ROWS, dtype="fp16")
    assert not casts(found, NodePhase.FORWARD) and not casts(found, NodePhase.BACKWARD)


# -- attention ---------------------------------------------------------------------------------------------------------

HEADS, LENGTH, WIDTH = 2, 64, 32


class Attended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * HEADS * WIDTH, bias=False)

    def forward(self, x):
        query, key, value = self.qkv(x).view(N, LENGTH, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0)
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)


SEQUENCE = torch.empty(N, LENGTH, C, device="meta")
SCORES = N * HEADS * LENGTH * LENGTH


def test_fused_attention_has_five_products_backward_to_two_forward():
    found = analysis(Attended(), SEQUENCE)
    (run,) = [k for k in found.plan.kernels if k.algorithm == "flash_attention_backward"]
    assert run.matrix_flops == 5 * 2 * SCORES * WIDTH


def test_before_pytorch_2_attention_is_written_out_and_its_scores_lie_in_memory():
    found = analysis(Attended(), SEQUENCE, torch="1.12")
    nodes, plan = found.record.nodes, found.plan
    products = [
        nodes[launch.nodes[-1]].phase
        for launch in plan.launches
        if plan.kernels[launch.kernel].algorithm == "early_batched_gemm"
    ]
    assert products.count(NodePhase.FORWARD) == 2 and products.count(NodePhase.BACKWARD) == 4
    (softmax, backward) = [k for k in plan.kernels if k.algorithm == "softmax" and k.elements == SCORES]
    assert (softmax.bytes_read, backward.bytes_read) == (2 * SCORES, 4 * SCORES)


def test_every_sheet_of_backward_formulas_says_how_its_operators_work() -> None:
    from costmodel.formulas import registry
    from costmodel.kernels.algorithm import algorithm_of

    sheets = {}
    for op in registry.known_operators():
        found = registry.lookup(op)
        sheet = "" if found is None else found.__module__.rpartition(".")[2]  # None: free
        if sheet.startswith("backward_"):
            sheets[sheet] = algorithm_of(op, {})
    assert sheets and not any(algorithm.startswith("backward") for algorithm in sheets.values())


# -- a CPU -------------------------------------------------------------------------------------------------------------


def test_a_cpu_reorders_what_each_of_the_two_gradients_reads():
    net = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.Conv2d(C, K, 3, padding=1, bias=False), nn.ReLU())
    found = analysis(net, IMAGE, dtype="fp32", layout="nchw", hw="xeon-6148")
    run = kernels(found, "convolution_backward")[:8]
    assert [k.algorithm for k in run] == [
        "reorder_activations", "reorder_weights", "implicit_gemm", "reorder_activations",  # dy and w in, dx out
        "reorder_activations", "reorder_activations", "implicit_gemm", "reorder_weights",  # x and dy in, dw out
    ]  # fmt: skip
    assert [k.matrix_flops for k in run if k.matrix_flops] == [2 * Y * C * 9] * 2
    assert sum(k.starts for k in run) == 1  # one call of PyTorch's


def test_a_gradient_through_a_maximum_walks_the_maxima():
    net = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.MaxPool2d(2), nn.ReLU())
    found = analysis(net, IMAGE, dtype="fp32", layout="nchw", hw="xeon-6148")
    (pool,) = kernels(found, "max_pool2d_with_indices_backward")
    assert pool.elements == X // 4


@pytest.mark.parametrize(
    ("groups", "width", "out", "direct"),
    [(32, 4, 4, False), (32, 32, 32, False), (32, 64, 64, True), (2, 32, 64, True), (8, 8, 8, False), (64, 4, 8, True)],
)
def test_which_weight_gradients_of_groups_run_on_lanes(groups, width, out, direct):
    """ResNeXt's groups on tensor cores; ResNeSt's and SENet's, and wide ones, in cuDNN's direct kernel."""
    conv = nn.Conv2d(groups * width, groups * out, 3, padding=1, groups=groups, bias=False)
    image = torch.empty(2, groups * width, 4, 4, device="meta")
    (run,) = kernels(analysis(nn.Sequential(conv, nn.ReLU()), image), "convolution_backward")
    assert (run.algorithm == "grouped_direct_wgrad") is direct
    assert run.engine == ("vector" if direct else "matrix")
    assert run.matrix_flops == 2 * 2 * 16 * groups * out * width * 9


def test_odd_channels_are_padded_by_the_cudnn_of_pytorch_1_alone():
    net = nn.Sequential(nn.Conv2d(C, 12, 3, padding=1, bias=False), nn.ReLU())
    early = kernels(analysis(net, IMAGE, torch="1.12"), "convolution_backward")
    late = kernels(analysis(net, IMAGE), "convolution_backward")
    assert [k.algorithm for k in early] == ["pad_channels", "implicit_gemm_wgrad"]
    assert (early[0].bytes_read, early[0].bytes_written) == (2 * 12 * N * SIDE**2, 2 * 16 * N * SIDE**2)
    assert [k.algorithm for k in late] == ["implicit_gemm_wgrad"]


def test_batch_norm_of_channels_that_do_not_fill_a_block_takes_longer_a_byte():
    def seconds_a_byte(channels):
        net = nn.Sequential(nn.Conv2d(C, channels, 1, bias=False), nn.BatchNorm2d(channels))
        image = torch.empty(64, C, 64, 64, device="meta")
        found = analysis(net, image, dtype="amp_fp16")
        nodes, plan = found.record.nodes, found.plan
        slots = [
            (plan.kernels[launch.kernel], slot)
            for launch, slot in zip(plan.launches, found.timeline, strict=True)
            if nodes[launch.nodes[-1]].op == "aten.native_batch_norm_backward"
        ]
        return sum(slot.busy_s for _, slot in slots) / sum(kernel.bytes for kernel, _ in slots)

    assert seconds_a_byte(64) < 0.9 * seconds_a_byte(32)
    assert seconds_a_byte(40) < 0.6 * seconds_a_byte(36)  # no multiple of eight
