"""Laws of convolution times: counted work, tiles and eligibility; no measured and no model-made expectation."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.kernels.shapes import Window
from costmodel.timing.convolution import ALGORITHMS, CONVOLUTION, Engine, convolution_time, eligible
from costmodel.timing.machine import GpuMachine

GPU = GpuMachine(
    unit_count=80,
    clock_hz=1.4e9,
    sustained_clock_hz=1.4e9,
    vector_flop_per_clock=128,
    dram_bytes_per_s=900e9,
    l2_bytes=6 * 2**20,
    dram_fraction=0.9,
)
BASE = Window(batch=32, in_channels=256, height=28, width=28, out_channels=256, kernel=(3, 3), padding=(1, 1))
shapes = st.builds(
    Window,
    batch=st.integers(1, 64),
    in_channels=st.integers(1, 512),
    height=st.integers(7, 64),
    width=st.integers(7, 64),
    out_channels=st.integers(1, 512),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (1, 7)]),
    stride=st.sampled_from([(1, 1), (2, 2)]),
    padding=st.sampled_from([(0, 0), (1, 1), (3, 3)]),
)


def seconds(shape: Window, algorithm: str, machine: GpuMachine = GPU) -> float:
    return convolution_time(shape, machine=machine, algorithms=(algorithm,)).seconds


def multiplications(shape: Window, algorithm: str) -> float:
    """Real multiplications that the algorithm cannot avoid, without transforms."""
    height, width = shape.out_size
    channels = shape.batch * shape.in_channels * shape.out_channels
    direct = channels * height * width * shape.kernel[0] * shape.kernel[1]
    if algorithm == "winograd":  # 16 products for 2x2 outputs of 9 taps
        return direct * 16 / 36
    if algorithm == "winograd_nonfused":  # (r + 3)^2 products for 4x4 outputs
        return channels * height * width * (shape.kernel[0] + 3) ** 2 / 16
    return direct if algorithm == "implicit_gemm" else 0.0


@given(shape=shapes)
def test_the_fastest_candidate_wins(shape: Window) -> None:
    time = convolution_time(shape, machine=GPU)
    assert set(time.candidates) == set(eligible(shape))
    assert time.seconds == min(time.candidates.values()) == time.candidates[time.algorithm]


@given(shape=shapes)
def test_no_algorithm_beats_its_own_multiplications_at_peak(shape: Window) -> None:
    """The peak is FLOP/s at the efficiency that the fit found (above 1 where a board exceeds its mean clock)."""
    fastest = max(CONVOLUTION.gemm_efficiency, CONVOLUTION.fused_efficiency, CONVOLUTION.batched_efficiency)
    for algorithm in eligible(shape):
        least = 2 * multiplications(shape, algorithm) / (fastest * GPU.vector_flop_per_s)
        assert seconds(shape, algorithm) > least


@given(shape=shapes)
def test_no_algorithm_beats_one_pass_through_memory(shape: Window) -> None:
    height, width = shape.out_size
    inputs = shape.batch * shape.in_channels * shape.height * shape.width
    filters = shape.out_channels * shape.in_channels * shape.kernel[0] * shape.kernel[1]
    elements = inputs + filters + shape.batch * shape.out_channels * height * width
    least = 4 * elements / GPU.dram_bytes_per_s
    for algorithm in eligible(shape):
        assert seconds(shape, algorithm) > least


@settings(max_examples=50)
@given(shape=shapes, name=st.sampled_from(["batch", "in_channels", "out_channels"]), factor=st.integers(2, 4))
def test_more_work_never_takes_less(shape: Window, name: str, factor: int) -> None:
    larger = dataclasses.replace(shape, **{name: factor * getattr(shape, name)})
    for algorithm in eligible(shape):
        assert seconds(larger, algorithm) >= seconds(shape, algorithm) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups", "expected"),
    [
        ((3, 3), (1, 1), (1, 1), 1, set(ALGORITHMS)),
        ((5, 5), (1, 1), (1, 1), 1, {"implicit_gemm", "winograd_nonfused", "fft"}),
        ((7, 7), (1, 1), (1, 1), 1, {"implicit_gemm", "fft"}),
        ((1, 1), (1, 1), (1, 1), 1, {"implicit_gemm"}),
        ((3, 3), (2, 2), (1, 1), 1, {"implicit_gemm"}),
        ((3, 3), (1, 1), (2, 2), 1, {"implicit_gemm"}),
        ((3, 3), (1, 1), (1, 1), 4, {"implicit_gemm"}),
    ],
)
def test_eligible(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], groups: int, expected: set[str]
) -> None:
    shape = dataclasses.replace(BASE, kernel=kernel, stride=stride, dilation=dilation, groups=groups)
    assert set(eligible(shape)) == expected


@given(shape=shapes)
def test_out_size_by_counting_filter_positions(shape: Window) -> None:
    height, width = shape.out_size
    for size, out, axis in ((shape.height, height, 0), (shape.width, width, 1)):
        last = size + 2 * shape.padding[axis] - shape.dilation[axis] * (shape.kernel[axis] - 1)
        assert out == len(range(0, last, shape.stride[axis]))


def test_a_map_smaller_than_a_winograd_block_costs_a_whole_block() -> None:
    """A fused block covers 8 x 16 outputs of one image: 5 x 5 and 8 x 16 maps take the same blocks."""
    small, full = (dataclasses.replace(BASE, height=h, width=w) for h, w in ((5, 5), (8, 16)))
    one, other = (convolution_time(s, machine=GPU, algorithms=("winograd",)) for s in (small, full))
    assert one.compute_s == pytest.approx(other.compute_s)


def test_nonfused_winograd_pads_the_batch_to_sixteen_images() -> None:
    times = [
        convolution_time(dataclasses.replace(BASE, batch=n), machine=GPU, algorithms=("winograd_nonfused",)).compute_s
        for n in (17, 32, 33)
    ]
    assert times[0] == times[1] < times[2]


def test_output_channels_fill_tiles() -> None:
    """33 output channels need as many tiles of 32 as 64 do."""
    times = [
        convolution_time(dataclasses.replace(BASE, out_channels=k), machine=GPU, algorithms=("winograd",)).compute_s
        for k in (33, 64, 65)
    ]
    assert times[0] == times[1] < times[2]


def test_padding_counts_as_work_of_implicit_gemm() -> None:
    """The same outputs cost the same arithmetic, whether their taps fall on padding or not."""
    padded = convolution_time(BASE, machine=GPU, algorithms=("implicit_gemm",))
    valid = dataclasses.replace(BASE, height=30, width=30, padding=(0, 0))
    assert convolution_time(valid, machine=GPU, algorithms=("implicit_gemm",)).compute_s == padded.compute_s


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_machine_twice_as_fast_in_everything_takes_half(algorithm: str) -> None:
    double = dataclasses.replace(
        GPU,
        clock_hz=2 * GPU.clock_hz,
        sustained_clock_hz=2 * GPU.sustained_clock_hz,
        dram_bytes_per_s=2 * GPU.dram_bytes_per_s,
    )
    assert seconds(BASE, algorithm, double) == pytest.approx(seconds(BASE, algorithm) / 2)


def test_a_faster_engine_shortens_arithmetic_alone() -> None:
    simt = convolution_time(BASE, machine=GPU, algorithms=("implicit_gemm",))
    engine = Engine(flop_per_clock=8 * 128, clock_hz=1.4e9, element_bytes=2)
    tensor_core = convolution_time(BASE, machine=GPU, engine=engine)
    assert tensor_core.algorithm == "implicit_gemm"
    assert tensor_core.compute_s == pytest.approx(simt.compute_s / 8)
    assert tensor_core.memory_s == pytest.approx(simt.memory_s / 2)


def test_grouped_convolution_does_the_work_of_its_groups() -> None:
    """Two groups are two convolutions of half the channels: no faster than one such, no slower than both in turn."""
    half = dataclasses.replace(BASE, in_channels=128, out_channels=128)
    both = convolution_time(dataclasses.replace(BASE, groups=2), machine=GPU, algorithms=("implicit_gemm",)).compute_s
    one = convolution_time(half, machine=GPU, algorithms=("implicit_gemm",)).compute_s
    assert one < both <= 2 * one


@pytest.mark.parametrize("algorithms", [(), ("direct",), ("winograd",)])
def test_what_is_not_eligible_is_refused(algorithms: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="implicit_gemm"):
        convolution_time(dataclasses.replace(BASE, stride=(2, 2)), machine=GPU, algorithms=algorithms)


def test_large_filters_favour_fft_and_thin_inputs_do_not_favour_winograd() -> None:
    """FFT's work does not grow with the filter; Winograd's transforms need channels to pay off."""
    growth = {}
    for name, taps in itertools.product(("fft", "implicit_gemm"), (3, 15)):
        shape = dataclasses.replace(BASE, height=16, width=16, kernel=(taps, taps), padding=(taps // 2, taps // 2))
        growth[name, taps] = convolution_time(shape, machine=GPU, algorithms=(name,)).compute_s
    assert growth["fft", 15] == pytest.approx(growth["fft", 3])
    assert growth["implicit_gemm", 15] > 20 * growth["implicit_gemm", 3]
    thin = dataclasses.replace(BASE, in_channels=1, height=64, width=64)
    candidates = convolution_time(thin, machine=GPU).candidates
    assert candidates["implicit_gemm"] < candidates["winograd_nonfused"]
