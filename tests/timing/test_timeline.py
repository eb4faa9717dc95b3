"""The timeline of a step, counted by hand: two queues on a GPU, one on a CPU."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.graph import OpGraph
from costmodel.hardware import load
from costmodel.kernels import Kernel, KernelPlan, Launch
from costmodel.timing import KernelSeconds, Timeline, step_timeline
from costmodel.timing.gpu import gpu_kernel_time
from costmodel.timing.step import Step

GPU = load("rtx3090")
MIB = 2**20


def plan_of(*sizes):
    """Element-wise kernels of so many bytes, that share no tensor."""
    kernels = tuple(Kernel("aten.relu", "elementwise", bytes_read=n, bytes_written=n, elements=n // 4) for n in sizes)
    return KernelPlan(kernels, tuple(Launch(i, (i,)) for i in range(len(kernels))))


def run(plan, issued):
    return Step(plan, empty_graph(len(plan.launches)), GPU, issued).timeline()


def empty_graph(nodes):
    from costmodel.nodes import OpNode

    made = [OpNode(f"relu{i}", "aten.relu", "", "", 0, (), ()) for i in range(nodes)]
    return OpGraph({}, [], [], [], [], made, [], [])


def test_a_kernel_starts_when_it_is_issued_and_the_one_before_has_ended():
    plan = plan_of(64 * MIB, 64 * MIB, 64 * MIB)
    work = gpu_kernel_time(plan.kernels[0], GPU).seconds()
    first, second, third = run(plan, [1e-6, 2e-6, 1.0])
    assert (first.start_s, first.waited_s) == (1e-6, 1e-6)
    assert second.start_s == first.end_s == pytest.approx(1e-6 + work)
    assert second.waited_s == 0.0
    assert third.start_s == 1.0
    assert third.waited_s == pytest.approx(1.0 - (1e-6 + 2 * work))
    assert third.end_s == pytest.approx(1.0 + work)


def test_parts_and_shares_are_those_of_the_kernel():
    plan = plan_of(64 * MIB)
    (slot,) = run(plan, [3e-6])
    assert slot.parts == gpu_kernel_time(plan.kernels[0], GPU)
    assert slot.memory_share == 1.0
    assert slot.busy_s == slot.parts.seconds()
    assert slot.launch_s == pytest.approx(3e-6 + slot.parts.fixed_s)
    assert slot.bound == "memory"


@given(st.lists(st.tuples(st.integers(1, 10**8), st.floats(0, 1e-3)), min_size=1, max_size=12))
def test_latencies_add_up_to_the_end_of_the_last_launch(launches):
    issued = sorted(when for _, when in launches)
    timeline = run(plan_of(*(size for size, _ in launches)), issued)
    assert timeline.latency_s == pytest.approx(timeline[-1].end_s, rel=1e-9)
    assert timeline.busy_s + timeline.waited_s == pytest.approx(timeline.latency_s, rel=1e-9)
    for before, after in pairwise(timeline):
        assert after.start_s >= max(before.end_s, after.issued_s)


def test_what_issues_its_own_work_never_waits():
    timeline = Timeline.in_sequence([KernelSeconds(1.0, 2.0, 0.5, 1.0), KernelSeconds(1.0, 2.0, 0.5)], [0.2, 0.2])
    assert [(s.issued_s, s.start_s, s.end_s) for s in timeline] == [(0.0, 0.0, 3.5), (3.5, 3.5, 6.0)]
    assert timeline.waited_s == 0.0
    assert timeline[0].spread_s == pytest.approx(0.2 * 3.5)


def test_a_cpu_and_a_machine_without_a_model_give_one_too():
    plan = plan_of(MIB, MIB)
    timeline = step_timeline(plan, empty_graph(2), load("xeon-6148"), [0.0, 0.0])
    assert [slot.start_s for slot in timeline][1] == timeline[0].end_s
    assert timeline.latency_s == pytest.approx(timeline[-1].end_s)
