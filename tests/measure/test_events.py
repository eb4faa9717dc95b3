"""Reading Chrome traces: trees by time, kernels by correlation, steps by annotation."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from costmodel.errors import InputError
from costmodel.measure.events import Recording, read_trace


def event(cat: str, name: str, ts: float, dur: float, tid: int = 1, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": args}


def op(name: str, ts: float, dur: float, **args: Any) -> dict[str, Any]:
    return event("cpu_op", f"aten::{name}", ts, dur, **args)


def read(folder: Path, *events: dict[str, Any]) -> Recording:
    path = folder / "trace.json"
    path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": list(events)}))
    return read_trace(path)


def test_operators_nest_by_time_and_keep_the_order_in_which_they_ran(tmp_path: Path) -> None:
    recording = read(tmp_path, op("add", 50, 5), op("addmm", 12, 20), op("linear", 10, 30), op("view", 33, 2))
    linear, add = recording.steps[0].events
    assert (linear.name, add.name) == ("aten::linear", "aten::add")
    assert [child.name for child in linear.children] == ["aten::addmm", "aten::view"]
    assert linear.self_us == 30 - 20 - 2


def test_a_child_that_rounding_makes_end_after_its_parent_stays_its_child(tmp_path: Path) -> None:
    recording = read(tmp_path, op("linear", 1e12, 10), op("addmm", 1e12 + 5, 5.001))
    assert len(recording.steps[0].events) == 1


def test_shapes_are_those_of_tensors_and_of_lists_of_tensors(tmp_path: Path) -> None:
    dims = {"Input Dims": [[[1, 3], [1, 4]], [], [2, 2]]}
    recording = read(tmp_path, op("cat", 0, 1, **dims), op("add", 2, 1))
    cat, add = recording.steps[0].events
    assert cat.shapes == ((1, 3), (1, 4), (2, 2)) and add.shapes is None


def test_a_kernel_belongs_to_the_operator_that_made_the_launch(tmp_path: Path) -> None:
    recording = read(
        tmp_path,
        op("linear", 0, 20, **{"External id": 1}),
        op("addmm", 2, 15, **{"External id": 2}),
        event("cuda_runtime", "cudaLaunchKernel", 5, 3, correlation=71),
        event("kernel", "ampere_sgemm_64x64_tn", 100, 40, tid=7, correlation=71),
        event("kernel", "splitKreduce_kernel", 140, 2, tid=7, **{"External id": 2}),  # launched by a library: no call
    )
    (linear,) = recording.steps[0].events
    assert recording.on_device and linear.device_us == 42 and not linear.kernels
    assert [kernel.name for kernel in linear.children[0].kernels] == ["ampere_sgemm_64x64_tn", "splitKreduce_kernel"]


def test_a_kernel_that_no_operator_launched_stands_for_itself(tmp_path: Path) -> None:
    recording = read(tmp_path, op("relu", 0, 5), event("kernel", "triton_poi_fused_add_0", 9, 4, tid=7, correlation=5))
    assert [e.name for e in recording.steps[0].events] == ["aten::relu", "triton_poi_fused_add_0"]
    assert recording.steps[0].events[1].device_us == 4


@pytest.mark.parametrize("mark", ["costmodel::step", "ProfilerStep#3"])
def test_steps_are_what_is_marked_and_what_lies_outside_is_left_out(tmp_path: Path, mark: str) -> None:
    recording = read(
        tmp_path,
        op("randn", 0, 5),
        event("user_annotation", mark, 10, 30),
        op("relu", 12, 5),
        event("user_annotation", mark, 50, 20),
        op("relu", 52, 6),
    )
    assert recording.marked and [step.duration_us for step in recording.steps] == [30, 20]
    assert [[e.duration_us for e in step.events] for step in recording.steps] == [[5], [6]]


def test_only_the_thread_that_ran_the_model_is_read(tmp_path: Path) -> None:
    loader = {**op("stack", 1, 99), "tid": 2}
    recording = read(tmp_path, op("relu", 0, 5), op("relu", 6, 5), loader)
    assert [e.name for e in recording.steps[0].events] == ["aten::relu", "aten::relu"]


def test_a_compressed_trace_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": [op("relu", 0, 5)]}).encode()))
    assert read_trace(path).steps[0].events[0].duration_us == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "no Chrome trace"),
        ('{"a": 1}', "no traceEvents"),
        ('{"traceEvents": []}', "(?s)no operators.*export_chrome_trace"),
        ('{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1}]}', "no operators"),
    ],
)
def test_a_file_that_is_no_such_trace_is_refused_with_what_is_needed(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_trace(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_trace(tmp_path / "none.json")


def test_a_backward_pass_in_a_thread_of_its_own_is_part_of_the_step(tmp_path: Path) -> None:
    """As on a GPU: Python's thread waits in the backward pass; a third thread (a data loader's) is not read."""

    def function(name: str, ts: float, dur: float) -> dict[str, Any]:
        return event("cpu_op", f"autograd::engine::evaluate_function: {name}", ts, dur, tid=2)

    recording = read(
        tmp_path,
        event("user_annotation", "costmodel::step", 0, 100),
        op("addmm", 1, 5),
        op("sum", 10, 2),
        function("SumBackward0", 20, 5),
        event("cpu_op", "aten::expand", 21, 1, tid=2),
        function("AddmmBackward0", 30, 20),
        event("cpu_op", "aten::mm", 31, 4, tid=2),
        event("cpu_op", "aten::mm", 36, 4, tid=2),
        op("add_", 60, 3),
        event("cpu_op", "aten::stack", 2, 1, tid=3),
        event("cuda_runtime", "cudaLaunchKernel", 32, 1, tid=2, correlation=5),
        event("kernel", "sgemm", 70, 9, tid=7, correlation=5),
    )
    (step,) = recording.steps
    names = [inner.name for event in step.events for inner in event.walk() if inner.name.startswith("aten")]
    assert names == ["aten::addmm", "aten::sum", "aten::expand", "aten::mm", "aten::mm", "aten::add_"]
    assert sum(event.device_us for event in step.events) == 9


def test_a_backward_pass_on_the_cpu_does_not_make_a_loaders_thread_the_models(tmp_path: Path) -> None:
    recording = read(
        tmp_path,
        op("addmm", 1, 5),
        op("relu", 7, 1),
        event("cpu_op", "autograd::engine::evaluate_function: AddmmBackward0", 20, 20),
        *[op("mm", 21 + i, 0.5) for i in range(9)],
        event("cpu_op", "aten::stack", 3, 1, tid=3),
    )
    assert recording.steps[0].events[0].name == "aten::addmm"
