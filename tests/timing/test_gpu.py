"""Time of one kernel on a GPU: never under the roofs, and in proportion where the law is plain."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.hardware import HardwareProfile, load, names
from costmodel.kernels import Kernel
from costmodel.kernels.shapes import Attention, Convolution, Depthwise, Planes, Pooling, Product, Rows, Window
from costmodel.timing import KernelSeconds
from costmodel.timing.convolution import convolution_time
from costmodel.timing.gemm import gemm_time
from costmodel.timing.gemm_machine import GemmMachine
from costmodel.timing.gpu import gpu_kernel_time
from costmodel.timing.gpu_constants import GPU
from costmodel.timing.machine import GpuMachine
from costmodel.timing.streaming import STREAMING, streaming_time

A100 = load("a100-sxm-40gb")
GPUS = sorted(name for name in names() if load(name).is_gpu)
times = st.floats(1e-9, 1.0)


def elementwise(nbytes, **changes):
    values = {"bytes_read": nbytes, "bytes_written": nbytes, "elements": nbytes // 4, **changes}
    return Kernel(op="aten.relu", algorithm="elementwise", **values)


@given(times, times, times, st.sampled_from([math.inf, 1.0, 2.5]), st.floats(0, 1))
def test_overlap_lies_between_the_longer_part_and_the_sum(compute, memory, fixed, overlap, share):
    found = KernelSeconds(compute, memory, fixed, overlap).seconds(share)
    longer = max(compute, share * memory)
    assert fixed + longer <= found * (1 + 1e-9)
    assert found <= (fixed + compute + share * memory) * (1 + 1e-9)


@pytest.mark.parametrize("name", GPUS)
def test_streaming_never_beats_the_pin_rate_and_ends_near_it(name):
    hardware = load(name)
    nbytes = 10**9
    seconds = gpu_kernel_time(elementwise(nbytes), hardware).seconds()
    assert 0.5 < 2 * nbytes / hardware.dram_bytes_per_s / seconds < 1.0


@pytest.mark.parametrize("name", GPUS)
def test_an_empty_kernel_takes_its_fixed_time(name):
    hardware = load(name)
    found = gpu_kernel_time(elementwise(0), hardware)
    assert found.fixed_s == pytest.approx(hardware.kernel_fixed_s)
    assert found.seconds() == pytest.approx(hardware.kernel_fixed_s, rel=1e-3)


@given(st.integers(1, 60))
def test_each_start_of_a_counted_kernel_pays_the_fixed_time(count):
    once = gpu_kernel_time(elementwise(4000), A100)
    many = gpu_kernel_time(elementwise(4000, count=count), A100)
    assert many.fixed_s == pytest.approx(count * once.fixed_s)
    assert (many.memory_s, many.compute_s) == (once.memory_s, once.compute_s)


@pytest.mark.parametrize("access", ["strided", "cat", "gather", "reduction", "pooling"])
def test_walking_memory_out_of_order_costs_more(access):
    plain, other = (gpu_kernel_time(elementwise(10**8, access=a), A100) for a in ("elementwise", access))
    assert other.memory_s > plain.memory_s
    assert other.fixed_s == plain.fixed_s


def attention(length, width, batch=64):
    operand = 2 * batch * length * width
    return Kernel(op="aten.scaled_dot_product_attention", algorithm="flash_attention", engine="matrix", dtype="fp16",
                  matrix_flops=4 * batch * length**2 * width, bytes_read=3 * operand, bytes_written=operand,
                  shape=Attention(length, length, width, batch), elements=operand // 2)  # fmt: skip


def test_flash_attention_stays_below_the_peak_and_is_quadratic_in_length():
    peak = A100.peak("matrix", "fp16").flop_per_s
    one, two = (gpu_kernel_time(attention(n, 64), A100) for n in (4096, 8192))
    # Steps quadruple; what a tile costs beside its steps, 4 % of the shorter one, doubles.
    assert 3.9 * one.compute_s < two.compute_s < 4 * one.compute_s
    assert attention(4096, 64).matrix_flops / one.compute_s < peak


def test_flash_attention_pads_its_lengths_and_widths():
    seconds = [gpu_kernel_time(attention(n, 64), A100).compute_s for n in (129, 256, 257)]
    assert seconds[0] == seconds[1] < seconds[2]  # tiles of 128 by 128
    assert gpu_kernel_time(attention(256, 33), A100).compute_s == gpu_kernel_time(attention(256, 64), A100).compute_s


def depthwise(kernel, flops=10**10):
    shape = Convolution(Product(1, 1, 1), depthwise=kernel)
    return Kernel(op="aten.conv2d", algorithm="direct_depthwise", shape=shape, matrix_flops=flops,
                  bytes_read=10**6, bytes_written=10**6, elements=500_000)  # fmt: skip


@pytest.mark.parametrize("variant", sorted(set(Depthwise) - {Depthwise.NHWC_WIDE}))
def test_depthwise_convolutions_reach_a_fraction_of_the_lanes(variant):
    found = gpu_kernel_time(depthwise(variant), A100)
    assert 10**10 / found.compute_s < A100.peak("vector", "fp32").flop_per_s
    assert gpu_kernel_time(depthwise(variant, 2 * 10**10), A100).compute_s == pytest.approx(2 * found.compute_s)


def test_serial_upsampling_takes_its_time_for_each_plane_whatever_the_gpu():
    kernel = elementwise(4000)
    serial = Kernel(op="aten.upsample_bilinear2d", algorithm="resample_serial", shape=Planes(10_000), elements=1000,
                    bytes_read=kernel.bytes_read, bytes_written=kernel.bytes_written)  # fmt: skip
    assert gpu_kernel_time(serial, A100).compute_s == pytest.approx(10_000 * GPU.resample_plane_s)


#: (batch, in, height, width, out, kernel, stride, padding, dilation, groups): cuDNN takes other algorithms for each.
WINDOWS = {
    "winograd": Window(batch=16, in_channels=256, height=14, width=14, out_channels=256, kernel=(3, 3), padding=(1, 1)),
    "implicit_gemm": Window(batch=16, in_channels=64, height=56, width=56, out_channels=128, kernel=(3, 3),
                            stride=(2, 2), padding=(1, 1)),
    "fft": Window(batch=16, in_channels=64, height=56, width=56, out_channels=64, kernel=(11, 11), padding=(5, 5)),
}  # fmt: skip


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
@pytest.mark.parametrize("hw", ["v100-pcie-32gb", "t4"])
def test_a_convolution_takes_what_the_convolution_model_says(hw: str, window: Window) -> None:
    profile = load(hw)
    shape = Convolution(Product(1, 1, 1), window)
    kernel = Kernel(op="aten.conv2d", algorithm="implicit_gemm", shape=shape, bytes_read=1)
    expected = convolution_time(window, machine=GpuMachine.from_profile(profile)).seconds
    assert gpu_kernel_time(kernel, profile).seconds() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["softmax", "layer_norm", "elementwise"])
@pytest.mark.parametrize("length", [512, 8192])
def test_a_row_kernel_takes_what_the_streaming_model_says(kind: str, length: int) -> None:
    profile, elements = load("a100-pcie-40gb"), 4096 * length
    kernel = Kernel(op="aten.any", algorithm=kind, access=kind, elements=elements, shape=Rows(length),
                    bytes_read=4 * elements, bytes_written=4 * elements)  # fmt: skip
    machine = GpuMachine.from_profile(profile)
    expected = streaming_time(
        4 * elements, 4 * elements, elements=elements, machine=machine, kind=kind, row_length=length
    )
    assert gpu_kernel_time(kernel, profile).seconds() == pytest.approx(expected.seconds)


@pytest.mark.parametrize("variant", ["nchw", "nhwc"])
def test_wide_windows_of_average_pooling_take_their_time_by_the_tap(variant: str) -> None:
    small, large = (
        gpu_kernel_time(
            Kernel(
                op="aten.avg_pool2d",
                algorithm="pool",
                access="pooling",
                shape=Pooling(taps, channels_last=variant == "nhwc"),
                bytes_read=4 * 10**8,
                bytes_written=4 * 10**8,
                elements=10**8,
            ),
            A100,
        )
        for taps in (4, 400)
    )
    assert large.compute_s == pytest.approx(100 * small.compute_s)
    assert large.memory_s == small.memory_s


@pytest.mark.parametrize(("stride", "reuse"), [(1, 3.0), (2, 1.5), (3, 1.0), (4, 1.0)])
def test_taps_of_a_filters_row_share_what_the_unit_has_loaded(stride: int, reuse: float) -> None:
    """A 3x3 convolution on tensor cores takes as long as a product whose A is loaded 3 / stride times less often."""
    side = 56 * stride
    window = Window(batch=64, in_channels=64, height=side, width=side, out_channels=64, kernel=(3, 3),
                    stride=(stride, stride), padding=(1, 1))  # fmt: skip
    geometry = (64 * 56 * 56, 64, 64 * 9, 1)
    kernel = Kernel(op="aten.conv2d", algorithm="implicit_gemm", engine="matrix", dtype="fp16",
                    shape=Convolution(Product(*geometry), window), bytes_read=10**6, bytes_written=10**6)  # fmt: skip
    machine = GemmMachine.from_profile(A100)
    expected = gemm_time(*geometry, dtype="fp16", hw=machine, traffic_bytes=2e6, row_reuse=reuse).seconds
    assert gpu_kernel_time(kernel, A100).seconds() == pytest.approx(expected)


def test_a_library_of_convolutions_may_have_kernels_of_its_own() -> None:
    """Slower kernels of products leave convolutions as they are, where their library has others."""
    machine = load("mi100")
    slow = dataclasses.replace(machine.gpu.matrix_products, efficiency=0.4)
    slower = dataclasses.replace(machine, generation=dataclasses.replace(machine.gpu, matrix_products=slow))
    product = Product(m=32 * 28 * 28, n=256, k=256 * 9, item_bytes=2)
    kernel = Kernel(
        op="aten.conv2d", algorithm="implicit_gemm", engine="matrix", dtype="fp16", shape=Convolution(product),
        matrix_flops=2 * product.macs, bytes_read=10**7,
    )  # fmt: skip
    alike = dataclasses.replace(kernel, op="aten.mm", algorithm="gemm", shape=product)

    def seconds(kernel: Kernel, hw: HardwareProfile) -> float:
        return gpu_kernel_time(kernel, hw).compute_s

    assert seconds(kernel, slower) == seconds(kernel, machine)
    assert seconds(alike, slower) > 1.5 * seconds(alike, machine)


def test_a_generation_has_its_own_cycles_of_functions() -> None:
    """What its math library needs stands in for the common figure, for that function alone."""
    machine = load("mi100")
    common = dataclasses.replace(machine, generation=dataclasses.replace(machine.gpu, lane_cycles={}))

    def ratio(op: str) -> float:
        kernel = Kernel(op=op, algorithm="elementwise", elements=10**8, bytes_read=4 * 10**8, bytes_written=4 * 10**8)
        one, other = (gpu_kernel_time(kernel, hw).compute_s for hw in (machine, common))
        return one / other

    assert ratio("aten.pow") == pytest.approx(machine.gpu.lane_cycles["pow"] / STREAMING.lane_cycles["pow"])
    assert ratio("aten.tanh") == 1.0


def test_wider_waves_reduce_a_row_in_fewer_instructions() -> None:
    """Half as many waves reduce a row of layer norm; what each element takes stays."""
    machine = GpuMachine.from_profile(load("mi100"))
    assert machine.warp_size == 64
    narrow = dataclasses.replace(machine, warp_size=32)
    rows, length = 120 * 1000, 16

    def compute_s(gpu: GpuMachine, row_length: int) -> float:
        return streaming_time(
            1.0, 1.0, elements=rows * row_length, machine=gpu, kind="layer_norm", row_length=row_length
        ).compute_s

    row_s = 2 * (compute_s(narrow, length) - compute_s(machine, length))
    assert row_s > 0
    assert compute_s(narrow, 2 * length) - compute_s(machine, 2 * length) == pytest.approx(row_s / 2)
