"""Eager steps on a calibrated CPU: times added up by hand, and what each part follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costmodel.engines import lower
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile, load
from costmodel.hardware.calibration import Calibration, KernelTime
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Pooling, Product
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.tensor import Role, TensorSpec, f32
from costmodel.timing import step_timeline
from costmodel.timing.cpu_calibrated import find_kind, heap_growth, kind_of, work_of

MIB = 2**20
KINDS = {
    "relu": KernelTime(hot_s=2e-6, cold_s=10e-6, elements=(0, 1000), time_s=(0.0, 1e-6)),
    "relu_in_place": KernelTime(hot_s=1e-6, cold_s=5e-6, elements=(0, 1000), time_s=(0.0, 0.5e-6)),
    "view": KernelTime(hot_s=1e-6, cold_s=3e-6),
    "conv_kxk": KernelTime(hot_s=20e-6, cold_s=100e-6, flop_per_s=100e9),
    "conv_kxk_channels_last": KernelTime(hot_s=20e-6, cold_s=80e-6, flop_per_s=90e9, activation_bytes_per_s=10e9),
    "reorder_activations": KernelTime(activation_bytes_per_s=20e9),
    "reorder_weights": KernelTime(weight_bytes_per_s=10e9),
}
COLD = Calibration(kernels=KINDS, operator_bytes=(1.0,), cold_share=(1.0,), page_fault_s=2e-6, threads=2)


def machine(calibration: Calibration | None = COLD) -> HardwareProfile:
    return replace(load("epyc-milan-2c"), calibration=calibration)


def chain(*steps: tuple[str, TensorSpec, dict[str, Any], bool]) -> OpGraph:
    """A graph in which each step (operator, result, further arguments, in place) reads the result of the one before."""
    first = steps[0][1]
    graph = OpGraph({}, [first], [], [Storage(first.nbytes, "float32", Role.INPUT)], [Tensor(0, 0)], [], [0], [])
    for op, out, more, in_place in steps:
        spec = len(graph.specs)
        graph.specs.append(out)
        arguments: list[tuple[str, Any]] = [("input", SpecRef(graph.tensors[-1].spec))]
        for name, value in more.items():
            if isinstance(value, TensorSpec):
                graph.specs.append(value)
                value = SpecRef(len(graph.specs) - 1)
            arguments.append((name, value))
        graph.calls.append(Call(op, tuple(arguments), (SpecRef(spec),)))
        storage = graph.tensors[-1].storage if in_place else len(graph.storages)
        if not in_place:
            graph.storages.append(Storage(out.nbytes, "float32", Role.ACTIVATION))
        index, read = len(graph.nodes), len(graph.tensors) - 1
        graph.tensors.append(Tensor(spec, storage, producer=index))
        name = f"node{index}"
        graph.nodes.append(OpNode(name, op, "", "", len(graph.calls) - 1, (read,), (read + 1,), in_place))
    graph.outputs.append(len(graph.tensors) - 1)
    return graph


def times(graph: OpGraph, calibration: Calibration | None = COLD) -> list[float]:
    """Microseconds of each launch."""
    hardware = machine(calibration)
    plan = lower(graph, Execution(), hardware)
    issued = [0.0] * len(plan.launches)
    return [slot.latency_s * 1e6 for slot in step_timeline(plan, graph, hardware, issued)]


def relu(*shape: int, in_place: bool = False) -> tuple[str, TensorSpec, dict[str, Any], bool]:
    return "aten.relu", f32(*shape), {}, in_place


def test_an_operator_takes_its_fixed_time_and_what_its_elements_take() -> None:
    assert times(chain(relu(10, 100))) == pytest.approx([10 + 1])
    assert times(chain(relu(20, 100))) == pytest.approx([10 + 2])


def test_in_place_is_a_kind_of_its_own() -> None:
    assert times(chain(relu(10, 100), relu(10, 100, in_place=True))) == pytest.approx([10 + 1, 5 + 0.5])


def test_an_eager_convolution_adds_reorders_weights_and_arithmetic() -> None:
    """8 -> 16 channels, 3x3, 6x6 pixels: bytes and FLOP by hand."""
    weight = f32(16, 8, 3, 3)
    conv = ("aten.conv2d", f32(1, 16, 6, 6), {"weight": weight, "padding": (1, 1)}, False)
    graph = chain(relu(1, 8, 6, 6), conv)
    reorder_in = 2 * 4 * 8 * 36 / 20e9 * 1e6
    reorder_weights = 2 * 4 * 16 * 8 * 9 / 10e9 * 1e6
    product = 100 + 2 * 16 * 36 * 8 * 9 / 100e9 * 1e6
    reorder_out = 2 * 4 * 16 * 36 / 20e9 * 1e6
    assert times(graph)[1:] == pytest.approx([reorder_in, reorder_weights, product, reorder_out])


def test_the_fewer_bytes_operators_move_the_warmer_they_are() -> None:
    """8 kB an operator lie half-way, in the logarithm, between 1.6 kB and 40 kB: 10 - 0.25 * 8 µs."""
    curve = replace(COLD, operator_bytes=(1600.0, 40_000.0), cold_share=(0.5, 1.0))
    assert times(chain(relu(10, 100)), curve) == pytest.approx([2 + 0.75 * 8 + 1])


def test_views_fall_on_the_launch_behind_them() -> None:
    view = ("aten.view", f32(1000), {"size": (1000,)}, False)
    assert times(chain(relu(10, 100), view, view, relu(1000))) == pytest.approx([11, 11 + 2 * 3])
    assert times(chain(relu(10, 100), view)) == pytest.approx([11 + 3])


def test_a_result_above_the_mmap_threshold_is_faulted_in() -> None:
    """40 MiB are 10,240 pages of 2 µs; 30 MiB come from the heap."""
    small, large = times(chain(relu(30, MIB // 4)))[0], times(chain(relu(40, MIB // 4)))[0]
    assert small == pytest.approx(10 + 30 * MIB / 4 / 1000)
    assert large == pytest.approx(10 + 40 * MIB / 4 / 1000 + 10240 * 2)


def test_a_heap_that_outgrows_the_trim_threshold_is_faulted_in_anew() -> None:
    """Two blocks of 30 MiB alive at a time stay in the heap; three of 31 MiB are handed back and faulted in again.

    The input of a chain is not counted, so that two results are alive at a time, or all where all are put out.
    """
    graph = chain(relu(30, MIB // 4), relu(30, MIB // 4), relu(30, MIB // 4))
    plan = lower(graph, Execution(), machine())
    assert heap_growth(plan, graph) == [30 * MIB, 30 * MIB, 0]
    assert times(graph) == pytest.approx([10 + 30 * MIB / 4 / 1000] * 3)
    larger = chain(*[relu(31, MIB // 4)] * 3)
    joined = OpGraph(
        **{
            **{name: getattr(larger, name) for name in OpGraph.__dataclass_fields__},
            "outputs": [1, 2, 3],
        }
    )  # every result is kept: 93 MiB
    faults = 31 * MIB / 4096 * 2
    assert times(joined) == pytest.approx([10 + 31 * MIB / 4 / 1000 + faults] * 3)


def test_half_precision_halves_what_the_heap_holds() -> None:
    """Three results of 31 MiB in fp32, all kept, outgrow the heap; in bf16 they are 46.5 MiB, which it keeps."""
    larger = chain(*[relu(31, MIB // 4)] * 3)
    graph = OpGraph(**{n: getattr(larger, n) for n in OpGraph.__dataclass_fields__} | {"outputs": [1, 2, 3]})
    plan = lower(graph, Execution.of(dtype="bf16"), machine())
    assert heap_growth(plan, graph) == [31 * MIB / 2] * 3


def test_without_a_calibration_the_datasheet_model_stays() -> None:
    graph = chain(relu(10, 100))
    assert times(graph, None) != pytest.approx(times(graph))


@pytest.mark.parametrize(
    ("kernel", "in_place", "kind"),
    [
        (Kernel("aten.sub", "elementwise"), False, "add"),  # another name for the same work
        (Kernel("aten.relu", "elementwise", access="broadcast_rows"), False, "relu"),
        (Kernel("aten.hardtanh", "elementwise"), True, "hardtanh"),  # measured out of place alone
        (Kernel("mylib.unknown", "unknown"), False, "add"),
    ],
)
def test_what_was_not_measured_takes_the_figures_of_a_relative(kernel: Kernel, in_place: bool, kind: str) -> None:
    known = Calibration(kernels=dict.fromkeys(("add", "relu", "hardtanh"), KernelTime()))
    assert find_kind(kernel, known, in_place=in_place) == kind


def test_a_calibration_without_any_relative_is_an_error() -> None:
    with pytest.raises(KeyError, match="relu"):
        find_kind(Kernel("aten.relu", "elementwise"), Calibration(kernels={}))


def test_few_rows_only_read_weights() -> None:
    one = Kernel(
        "aten.linear", "gemm", matrix_flops=2 * 10 * 20, shape=Product(1, 20, 10), bytes_read=840, bytes_written=80
    )
    many = replace(one, shape=Product(5, 20, 10), matrix_flops=5 * 2 * 10 * 20)
    assert kind_of(one) == "linear_few_rows" and kind_of(many) == "linear"
    assert work_of(one).weight_bytes == 4 * 20 * 10 and work_of(one).flops == 0
    assert work_of(many).flops == 5 * 2 * 10 * 20


def test_pooling_walks_its_windows_and_a_reduction_its_input() -> None:
    assert work_of(Kernel("aten.max_pool2d", "pool", elements=10, shape=Pooling(9))).elements == 90
    assert work_of(Kernel("aten.mean", "reduction", elements=10, bytes_read=4000)).elements == 1000
