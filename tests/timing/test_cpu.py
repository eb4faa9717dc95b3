"""Laws of the time of kernels on a CPU: they hold for every machine and need no measurement."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.engines import engine_of
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile, load, names
from costmodel.host import host_of
from costmodel.kernels.plan import Kernel, KernelPlan, Launch
from costmodel.kernels.shapes import Loop, Product
from costmodel.nodes import OpNode
from costmodel.timing.cpu import (
    CpuMachine,
    cpu_kernel_time,
    cpu_machine,
    cpu_step_times,
    cpu_timeline,
)
from costmodel.timing.cpu_clock import at_package_clock, held_clock
from costmodel.timing.cpu_constants import CPU
from costmodel.timing.timeline import KernelSeconds

CPUS = sorted(name for name in names() if load(name).is_cpu)
I9 = load("i9-10940x")
ALGORITHMS = ("implicit_gemm", "direct_depthwise", "gemm", "reorder_weights", "reorder_activations", "fused_loop",
              "fused_pool", "flash_attention", "elementwise", "normalization", "pool", "batched_gemm",
              "copy_weights")  # fmt: skip
CONTRACTIONS = ("implicit_gemm", "direct_depthwise", "gemm", "batched_gemm", "flash_attention")

sizes = st.integers(0, 10**9)


def kernel(algorithm: str, flops: int = 0, nbytes: int = 0) -> Kernel:
    """A kernel of this algorithm with this work; 64 x 64 x 64 where a shape is asked for."""
    shape = Loop(lane_cycles=flops) if algorithm in ("fused_loop", "fused_pool") else Product(64, 64, 64)
    base = Kernel(op="aten.other", algorithm=algorithm, bytes_read=nbytes, shape=shape, elements=nbytes // 4)
    return dataclasses.replace(base, **{"matrix_flops" if algorithm in CONTRACTIONS else "vector_flops": flops})


def seconds(k: Kernel, hardware: HardwareProfile = I9) -> float:
    return cpu_kernel_time(k, hardware).seconds()


def with_more_cores(hardware: HardwareProfile, times: int) -> HardwareProfile:
    """The same design with more cores and so a higher peak; the memory stays."""
    peaks = {key: dataclasses.replace(p, flop_per_s=times * p.flop_per_s) for key, p in hardware.peaks.items()}
    name = f"{hardware.name} x{times}"
    return dataclasses.replace(hardware, name=name, unit_count=times * hardware.unit_count, peaks=peaks)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(flops=sizes, nbytes=sizes, more=sizes)
def test_more_work_never_takes_less_time(algorithm: str, flops: int, nbytes: int, more: int) -> None:
    base = seconds(kernel(algorithm, flops, nbytes))
    assert seconds(kernel(algorithm, flops + more, nbytes)) >= base
    assert seconds(kernel(algorithm, flops, nbytes + more)) >= base * (1 - 1e-12)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(flops=sizes, nbytes=sizes)
def test_more_cores_are_never_slower(algorithm: str, flops: int, nbytes: int) -> None:
    k = kernel(algorithm, flops, nbytes)
    assert seconds(k, with_more_cores(I9, 2)) <= seconds(k) * (1 + 1e-12)


@pytest.mark.parametrize("name", CPUS)
@given(flops=st.integers(1, 10**12))
def test_no_contraction_beats_the_peak(name: str, flops: int) -> None:
    hardware = load(name)
    for algorithm in CONTRACTIONS:
        assert seconds(kernel(algorithm, flops), hardware) > flops / hardware.peak("vector", "fp32").flop_per_s


@pytest.mark.parametrize("name", CPUS)
def test_weights_of_a_matrix_vector_product_are_read_at_the_speed_of_memory(name: str) -> None:
    """A row times a 25 088 x 4096 matrix: 411 MB of weights leave arithmetic (0.2 GFLOP) nothing to say."""
    hardware = load(name)
    n, k = 4096, 25088
    product = Kernel(
        op="aten.linear",
        algorithm="gemm",
        shape=Product(1, n, k),
        matrix_flops=2 * n * k,
        bytes_read=4 * (n * k + k + n),
    )
    part = cpu_kernel_time(product, hardware)
    pins = 4 * n * k / hardware.dram_bytes_per_s
    assert part.memory_s > pins
    assert part.memory_s > 0.95 * part.seconds()
    assert part.memory_s < 2 * pins / hardware.achievable_dram_fraction


def test_twice_the_weights_take_a_linear_layer_twice_as_long_at_batch_1() -> None:
    def product(n: int) -> Kernel:
        return Kernel(op="aten.linear", algorithm="gemm", shape=Product(1, n, 4096), bytes_read=4 * n * 4096)

    small, large = (cpu_kernel_time(product(n), I9).memory_s for n in (4096, 8192))
    assert large == pytest.approx(2 * small)


def test_weights_that_stay_in_the_caches_load_faster() -> None:
    weights = kernel("reorder_weights", 0, 10**6)
    cold, warm = (cpu_kernel_time(weights, I9, weights_missing=share).seconds() for share in (1.0, 0.0))
    assert warm == pytest.approx(cold / CPU.cache_speedup)


def test_a_reorder_lies_inside_the_call_that_asked_for_it() -> None:
    inner = dataclasses.replace(kernel("reorder_activations", 0, 10**6), inside=True)
    assert cpu_kernel_time(inner, I9).fixed_s == 0


def test_results_beyond_the_mmap_threshold_are_faulted_in_page_by_page() -> None:
    """32 MiB come from memory that the allocator keeps; one byte more, and 8192 pages fault, 14 cores sharing them."""
    kept, fresh = (
        dataclasses.replace(kernel("elementwise"), bytes_written=2**25 + more, elements=0) for more in (0, 1)
    )
    added = seconds(fresh) - seconds(kept)
    assert added == pytest.approx(8192 * CPU.page_fault_s / 14, rel=1e-3)


def test_the_machine_counts_private_and_shared_caches() -> None:
    """i9-10940X: 14 cores of 1 MiB, and 19.25 MiB for all."""
    machine = CpuMachine.from_profile(I9)
    assert machine.cache_bytes == (14 + 19.25) * 2**20
    assert machine.last_level_bytes == 19.25 * 2**20
    assert machine.vector_flop_per_s == 2957e9  # 14 cores x 3.3 GHz x 64 FLOP, rounded


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_larger_working_sets_miss_no_less(first: float, second: float) -> None:
    machine = cpu_machine(I9)
    small, large = sorted((first, second))
    assert 0 <= machine.missing(small) <= machine.missing(large) <= 1


def graph_of(nodes: int, parameter_bytes: int) -> OpGraph:
    made = [OpNode(str(i), "aten.relu", "", "", 0, (), ()) for i in range(nodes)]
    return OpGraph({}, [], [], [], [], made, [], [], parameter_bytes_of={"float32": parameter_bytes})


def plan_of(k: Kernel, times: int) -> KernelPlan:
    return KernelPlan((k,), tuple(Launch(0, (i,)) for i in range(times)))


def test_a_small_step_runs_warm() -> None:
    """Ten operators that touch next to nothing keep the hot share of their fixed time; a gigabyte makes them cold."""
    small, large = kernel("elementwise", 0, 4), kernel("elementwise", 0, 10**8)
    cold = cpu_kernel_time(small, I9).fixed_s
    few, many = (cpu_step_times(plan_of(k, 10), graph_of(10, 0), I9)[0].fixed_s for k in (small, large))
    assert few == pytest.approx(CPU.hot_share * cold, rel=1e-3)
    assert many == cold


def test_a_compiled_step_pays_for_its_guards_once() -> None:
    plan, graph = plan_of(dataclasses.replace(kernel("fused_loop", 0, 4), caller="loop"), 3), graph_of(3, 0)
    host = host_of("usual", I9)
    times = cpu_step_times(plan, graph, I9, engine_of("compile").issued(plan, graph, Execution(), host))
    assert times[0].fixed_s - times[1].fixed_s == pytest.approx(host.guards_s) != 0
    assert times[1] == times[2]


def test_a_launch_waits_until_it_is_issued() -> None:
    plan, graph = plan_of(kernel("elementwise", 0, 4), 3), graph_of(3, 0)
    alone = cpu_step_times(plan, graph, I9)
    late = [0.0, 5.0, 5.5]
    times = cpu_step_times(plan, graph, I9, late)
    assert times[0] == alone[0]
    assert sum(t.seconds() for t in times) == pytest.approx(5.5 + alone[2].seconds())


def test_estimates_add_up_and_name_their_bound() -> None:
    plan = KernelPlan(
        (kernel("gemm", 10**10), kernel("elementwise", 0, 10**9), kernel("elementwise")),
        tuple(Launch(i, (i,)) for i in range(3)),
    )
    graph = graph_of(3, 0)
    found = cpu_timeline(plan, graph, I9)
    assert [e.bound for e in found] == ["compute", "memory", "launch"]
    assert sum(e.latency_s for e in found) == pytest.approx(sum(t.seconds() for t in cpu_step_times(plan, graph, I9)))


@given(m=st.integers(5, 2048), n=st.integers(1, 2048), k=st.integers(1, 4096))
def test_half_the_width_takes_half_the_traffic_of_a_product(m: int, n: int, k: int) -> None:
    """Lanes that multiply in fp32 read weights and activations of half precision as they lie."""

    def memory_s(width: int) -> float:
        read, written = width * (m * k + k * n), width * m * n
        return cpu_kernel_time(
            Kernel(op="aten.linear", algorithm="gemm", shape=Product(m, n, k, item_bytes=width), bytes_read=read,
                   bytes_written=written, matrix_flops=2 * m * n * k), BIG_CACHE).memory_s  # fmt: skip

    assert memory_s(4) == pytest.approx(2 * memory_s(2))


#: Caches that hold everything.
BIG_CACHE = dataclasses.replace(
    I9, name="i9 with a large cache",
    memory=tuple(dataclasses.replace(x, capacity_bytes=1e12) if x.name == "l3" else x for x in I9.memory),
)  # fmt: skip


def test_a_laptop_runs_light_steps_above_its_base_clock_and_dense_ones_below() -> None:
    """Power that the package may draw is one number: what multiplies less leaves room for a higher clock."""
    laptop = load("i7-12700h")
    held = dataclasses.replace(laptop, board="")  # at its base clocks
    assert laptop.clock_follows_power
    assert not held.clock_follows_power
    dense, light = kernel("gemm", 10**11), kernel("fused_loop", 10**9)

    def clock(*kernels: Kernel) -> float:
        plan = KernelPlan(kernels=kernels, launches=tuple(Launch(i, (i,)) for i in range(len(kernels))))
        graph = graph_of(len(kernels), 0)
        slow, fast = (sum(part.compute_s for part in cpu_step_times(plan, graph, hw)) for hw in (held, laptop))
        return slow / fast

    assert clock(dense) < 1 < clock(light)
    assert clock(dense) < clock(dense, light) < clock(light)
    assert clock(light) < laptop.clock_hz / laptop.base_clock_hz  # never above one core's turbo


def test_a_package_draws_the_same_at_every_use_of_its_pipes() -> None:
    """Power at the clock that is held: (1 + b use) clock^3 is that of the complex load at the base clock."""
    b, load_share = CPU.multiply_add_power, CPU.complex_load
    for use in (0.0, 0.1, 0.45, 1.0):
        assert (1 + b * use) * held_clock(use, CPU) ** 3 == pytest.approx(1 + b * load_share)


@pytest.mark.parametrize("name", CPUS)
def test_machines_that_are_not_held_to_their_power_keep_their_clock(name: str) -> None:
    hw = load(name)
    if hw.clock_follows_power:
        assert hw.power_w is not None
        return
    part = [KernelSeconds(1.0, 0.5, 0.1)]
    assert at_package_clock(part, plan_of(kernel("gemm", 10**9), 1), hw, CPU) is part
