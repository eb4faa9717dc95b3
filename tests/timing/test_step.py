"""Laws of the time of a step: parts sum, host and device overlap, L2 serves what was just written."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from costmodel.engines import engine_of, lower
from costmodel.execution import Execution
from costmodel.hardware import HardwareProfile, load
from costmodel.host import host_of
from costmodel.sources import from_module
from costmodel.timing import step_interval, step_timeline
from costmodel.timing.constants import CONSTANTS
from costmodel.timing.gpu import gpu_kernel_time
from costmodel.timing.step import Step
from costmodel.trace import trace

GPU = load("rtx3090")


def recorded(module, *inputs):
    return trace(from_module(module.eval(), inputs))


class Small(nn.Module):
    """Convolutions, a norm, attention-like products, pooling: every room of the time model once."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.norm, self.mix = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        x = self.depthwise(self.stem(x)).flatten(2).transpose(1, 2)
        x = self.norm(x)
        return self.mix(x, x, x, need_weights=False)[0].softmax(-1)


@pytest.fixture(scope="module")
def small():
    return recorded(Small(), torch.empty(2, 8, 16, 16))


@pytest.fixture(scope="module")
def chain():
    """Sixty ReLUs, out of place."""
    return recorded(nn.Sequential(*(nn.ReLU() for _ in range(60))), torch.empty(2, 1000))


def issued(plan, graph, hardware, **words):
    return engine_of("eager").issued(plan, graph, Execution.of(**words), host_of("usual", hardware))


def step(record, batch, hardware=GPU, **conditions):
    graph = record.bind({"batch": batch})
    plan = lower(graph, Execution.of(batch=batch, **conditions), hardware)
    return plan, graph, step_timeline(plan, graph, hardware, issued(plan, graph, hardware, **conditions))


def latency(record, batch, hardware=GPU, **conditions):
    return sum(e.latency_s for e in step(record, batch, hardware, **conditions)[2])


def better(hardware: HardwareProfile, bandwidth: float = 1.0, peaks: float = 1.0) -> HardwareProfile:
    """The machine with ``bandwidth`` times the memory rates and ``peaks`` times the peaks, the latter by its clock."""
    memory = tuple(
        dataclasses.replace(
            level, bandwidth_bytes_per_s=level.bandwidth_bytes_per_s and bandwidth * level.bandwidth_bytes_per_s
        )
        for level in hardware.memory
    )
    faster = {
        key: dataclasses.replace(p, flop_per_s=peaks * p.flop_per_s, clock_hz=p.clock_hz and peaks * p.clock_hz)
        for key, p in hardware.peaks.items()
    }
    clocks = {
        "clock_hz": peaks * hardware.clock_hz,
        "matrix_clock_hz": peaks * hardware.matrix_clock_hz,
        "base_clock_hz": hardware.base_clock_hz and peaks * hardware.base_clock_hz,
    }
    return dataclasses.replace(hardware, memory=memory, peaks=faster, name=f"{hardware.name}-better", **clocks)


# -- the two queues --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "amp_fp16"])
@pytest.mark.parametrize("batch", [1, 64])
def test_the_step_ends_when_its_last_kernel_does(small, batch, dtype):
    """Latencies sum to a time no shorter than the device's work and no shorter than the host's issuing."""
    plan, graph, estimates = step(small, batch, dtype=dtype)
    assert len(estimates) == len(plan.launches)
    whole = sum(e.latency_s for e in estimates)
    host = issued(plan, graph, GPU, dtype=dtype)
    device = sum(min(e.latency_s, max(e.compute_s, e.memory_s)) for e in estimates)
    assert whole >= device
    assert whole >= host[-1]
    assert all(e.latency_s > 0 for e in estimates)


def test_many_tiny_kernels_wait_for_the_host(chain):
    plan, graph, estimates = step(chain, 1)
    host = issued(plan, graph, GPU)[-1]
    last = gpu_kernel_time(plan.kernels[plan.launches[-1].kernel], GPU).seconds()
    assert host < sum(e.latency_s for e in estimates) <= host + last
    assert {e.bound for e in estimates} == {"launch"}


def test_long_kernels_hide_the_host(chain):
    plan, graph, estimates = step(chain, 100_000)  # 400 MB a tensor: about 1 ms each
    first = issued(plan, graph, GPU)[0]
    alone = [gpu_kernel_time(plan.kernels[launch.kernel], GPU).seconds() for launch in plan.launches]
    assert sum(e.latency_s for e in estimates) == pytest.approx(first + sum(alone), rel=1e-9)
    assert {e.bound for e in estimates} == {"memory"}


def test_a_host_twice_as_slow_doubles_the_step_that_it_holds_back(chain):
    slow = dataclasses.replace(GPU, measured_slowdown=2 * host_of("usual", GPU).slowdown)
    assert latency(chain, 1, slow) == pytest.approx(2 * latency(chain, 1), rel=0.02)
    assert latency(chain, 100_000, slow) == pytest.approx(latency(chain, 100_000), rel=0.001)


# -- L2 --------------------------------------------------------------------------------------------------------------


def shares(record, batch):
    plan, graph, _ = step(record, batch)
    return Step(plan, graph, GPU, issued(plan, graph, GPU)).memory_shares()


def test_a_tensor_just_written_is_read_from_l2_if_it_fits(chain):
    """The 3090 holds 6 MB: 64 rows of 4 kB fit with what replaces them, ten times the capacity does not."""
    capacity = GPU.memory_level("l2").capacity_bytes
    fitting = shares(chain, int(capacity / 16 / 4000))
    assert fitting[0] == 1.0  # the step's input was written long ago
    assert all(share < 1.0 for share in fitting[1:])
    assert shares(chain, int(10 * capacity / 4000)) == [1.0] * 60


def test_hits_fade_as_tensors_grow(chain):
    second = [shares(chain, batch)[1] for batch in (16, 100, 400, 800, 1600, 3200)]
    assert second == sorted(second)
    assert second[0] < second[-1] == 1.0


# -- monotony and machines -------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["fp32", "fp16", "amp_fp16"]))
def test_a_larger_batch_of_elementwise_work_never_takes_less(chain, first, more, dtype):
    assert latency(chain, 16 * first, dtype=dtype) <= latency(chain, 16 * (first + more), dtype=dtype) * (1 + 1e-12)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "amp_fp16"])
def test_doubling_the_batch_of_a_network_never_takes_less(small, dtype):
    times = [latency(small, 2**i, dtype=dtype) for i in range(12)]
    assert times == sorted(times)


@pytest.mark.parametrize("hardware", ["rtx3090", "a100", "t4", "v100"])
@pytest.mark.parametrize("batch", [1, 32, 1024])
@pytest.mark.parametrize("dtype", ["fp32", "amp_fp16"])
def test_a_better_machine_is_never_slower(small, hardware, batch, dtype):
    here = dataclasses.replace(load(hardware), power_w=None)  # a better machine draws more, and may at that limit
    now = latency(small, batch, here, dtype=dtype)
    for other in (better(here, bandwidth=2), better(here, peaks=2), better(here, 2, 2)):
        assert latency(small, batch, other, dtype=dtype) <= now * (1 + 1e-12)


def test_the_interval_holds_the_prediction(small):
    plan, _, estimates = step(small, 8, dtype="amp_fp16")
    low, high = step_interval(plan, estimates)
    assert 0 < low < sum(e.latency_s for e in estimates) < high


def test_a_cpu_step_sums_too(small):
    cpu = load("xeon-6148")
    plan, _, estimates = step(small, 2, cpu)
    assert len(estimates) == len(plan.launches)
    assert latency(small, 2, cpu) < latency(small, 64, cpu)


def test_a_later_kernel_finds_in_l2_only_what_earlier_ones_of_its_operator_wrote():
    """GroupNorm of 1.3 GB: the moments of a group fit in L2, the input that is read again does not."""
    record = recorded(nn.GroupNorm(4, 64), torch.empty(2, 64, 224, 224))
    plan, graph, _ = step(record, 100)
    shares = Step(plan, graph, GPU, issued(plan, graph, GPU)).memory_shares()
    applied = plan.kernels[plan.launches[-1].kernel]
    written_before = sum(plan.kernels[launch.kernel].bytes_written for launch in plan.launches[:-1])
    assert shares[-1] >= 1 - written_before / applied.bytes


# -- who hits in L2, counted by hand ---------------------------------------------------------------------------------


def shares_by_kernel(module, *inputs, **conditions):
    """(algorithm, share of memory time that DRAM serves) of each launch."""
    plan, _, timeline = step(recorded(module, *inputs), inputs[0].shape[0], **conditions)
    return [(plan.kernels[launch.kernel], slot) for launch, slot in zip(plan.launches, timeline, strict=True)]


GAIN = 1 - 1 / CONSTANTS.caches.speedup  # of what hits


def test_a_cast_reads_what_was_just_written_and_the_product_reads_the_casts():
    """Tanh writes X in fp32 (128 kB); its cast reads X and writes X/2; the weight's cast reads W (64 kB) from DRAM and
    writes W/2; the product reads X/2 and W/2, both just written, and writes Y/2. All fits in the 6 MB of L2."""
    x, w, y = 4 * 64 * 512, 4 * 512 * 32, 4 * 64 * 32
    found = shares_by_kernel(
        nn.Sequential(nn.Tanh(), nn.Linear(512, 32, bias=False)), torch.empty(64, 512), dtype="amp_fp16"
    )
    assert [kernel.algorithm for kernel, _ in found] == ["elementwise", "cast", "cast", "gemm"]
    assert [(kernel.bytes_read, kernel.bytes_written) for kernel, _ in found] == [
        (x, x), (x, x // 2), (w, w // 2), ((x + w) // 2, y // 2),
    ]  # fmt: skip
    assert [slot.memory_share for _, slot in found] == pytest.approx(
        [1.0, 1 - x / (x + x / 2) * GAIN, 1.0, 1 - (x + w) / (x + w + y) * GAIN]
    )


def test_a_weight_that_was_cast_before_is_read_from_its_copy():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(256, 256, bias=False)

        def forward(self, x):
            return self.linear(self.linear(x))

    found = shares_by_kernel(Tied(), torch.empty(64, 256), dtype="amp_fp16")
    assert [kernel.algorithm for kernel, _ in found] == ["cast", "cast", "gemm", "gemm"]
    x, w = 2 * 64 * 256, 2 * 256 * 256
    assert found[-1][1].memory_share == pytest.approx(1 - (x + w) / (x + w + x) * GAIN)


def test_a_convolution_reads_what_the_copies_of_its_operands_wrote_and_no_cast_takes_it():
    """In NCHW: casts of picture and weight, a copy of the picture into NHWC, the convolution, a copy back."""
    found = shares_by_kernel(
        nn.Sequential(nn.Tanh(), nn.Conv2d(64, 64, 3, padding=1, bias=False)), torch.empty(1, 64, 16, 16),
        dtype="amp_fp16",
    )  # fmt: skip
    by_algorithm = {}
    for kernel, slot in found:
        by_algorithm.setdefault(kernel.algorithm, []).append((kernel, slot.memory_share))
    weight = [share for kernel, share in by_algorithm["cast"] if kernel.bytes_read == 4 * 64 * 64 * 9]
    assert weight == [1.0]
    for name in set(by_algorithm) - {"elementwise", "cast"}:
        for kernel, share in by_algorithm[name]:  # everything that it reads was written by the kernels before it
            moved = kernel.bytes_read + kernel.bytes_written
            assert share == pytest.approx(1 - kernel.bytes_read / moved * GAIN), name


def test_an_operand_that_no_copy_took_is_still_found_in_l2():
    """A batched product of a transposed view copies the one operand and reads the other where it was written."""

    class Product(nn.Module):
        def forward(self, x):
            left, right = x.tanh(), x.exp()
            return left.transpose(1, 2)[:, :, ::2] @ right[:, ::2]

    found = shares_by_kernel(Product(), torch.empty(4, 64, 64))
    kernel, slot = found[-1]
    assert kernel.matrix_flops
    assert slot.memory_share == pytest.approx(1 - kernel.bytes_read / (kernel.bytes_read + kernel.bytes_written) * GAIN)


class Reads(nn.Module):
    """Twenty large maps, then a number that the host reads, then twenty small ones."""

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.tensor(2.0))

    def forward(self, x):
        large = x
        for _ in range(20):
            large = large.relu()
        x = x[0, :8] * self.gain.item()
        for _ in range(20):
            x = x.relu()
        return large, x


def test_after_a_synchronization_the_host_starts_again_with_an_empty_queue():
    graph = recorded(Reads(), torch.empty(64, 1 << 20)).bind({"batch": 64})
    plan = lower(graph, Execution(batch=64), GPU)
    planned = issued(plan, graph, GPU)
    waiting = step_timeline(plan, graph, GPU, planned)
    nodes = [dataclasses.replace(node, synchronizes=False) for node in graph.nodes]
    free = step_timeline(plan, dataclasses.replace(graph, nodes=nodes, memo={}), GPU, planned)
    read = next(i for i, launch in enumerate(plan.launches) if graph.nodes[launch.nodes[-1]].synchronizes)
    assert waiting[read].end_s == free[read].end_s
    # Without waiting the host is long through with the small maps; now it issues the first only after the read.
    assert free[read + 1].waited_s == 0
    host_s = planned[-1] - planned[read]
    told = waiting[read].end_s + GPU.overheads.sync_s
    assert waiting[read + 1].start_s == pytest.approx(told + planned[read + 1] - planned[read])
    assert waiting.latency_s - free.latency_s <= GPU.overheads.sync_s + host_s
    assert waiting.latency_s >= waiting[read].end_s + host_s
