"""The timeline as a Chrome trace: its spans are the prediction, it nests, and readers of PyTorch's traces read it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math

import pytest
import torch
from torch import nn

import costmodel
from costmodel.cli import main
from costmodel.errors import InputError
from costmodel.measure.events import read_trace
from costmodel.measure.imported import import_trace
from costmodel.report import Document, render

RUNS = [
    ("a100", "eager", "fp32"),
    ("a100", "eager", "amp_fp16"),
    ("t4", "compile", "fp32"),
    ("a100", "cudagraph", "fp32"),
    ("mi210", "eager", "fp32"),
    ("i9-10940x", "eager", "fp32"),
    ("i9-10940x", "compile", "fp32"),
]


class Net(nn.Module):
    """Convolutions with branches, a view, an in-place ReLU, a concatenation and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.left, self.right = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)).flatten(1))


@pytest.fixture(scope="module")
def net():
    return costmodel.analyze(Net().eval(), torch.empty(8, 3, 64, 64), hw="a100")


@pytest.fixture(params=RUNS, ids=" ".join)
def analysis(request, net):
    hw, mode, dtype = request.param
    return net.at(hw=hw, mode=mode, dtype=dtype)


def events_of(analysis, *categories: str) -> list[dict]:
    found = json.loads(render(analysis, "perfetto"))["traceEvents"]
    return [event for event in found if event.get("cat") in categories]


def test_spans_add_up_to_the_predicted_latency(analysis):
    latency_us = 1e6 * analysis.latency
    (step,) = events_of(analysis, "user_annotation")[:1]
    assert step["name"] == "ProfilerStep#0" and step["dur"] == pytest.approx(latency_us, rel=1e-3)
    spans = events_of(analysis, "kernel" if analysis.hardware.family.issues_ahead else "cpu_op")
    assert max(span["ts"] + span["dur"] for span in spans) == pytest.approx(latency_us, rel=1e-3)
    waited_us = 1e6 * analysis.timeline.waited_s
    assert sum(span["dur"] for span in spans) + waited_us == pytest.approx(latency_us, rel=1e-3)


def test_spans_of_a_track_nest(analysis):
    tracks: dict[tuple[int, int], list[dict]] = {}
    for event in json.loads(render(analysis, "perfetto"))["traceEvents"]:
        if event["ph"] == "X":
            tracks.setdefault((event["pid"], event["tid"]), []).append(event)
    for spans in tracks.values():
        enclosing: list[float] = []
        for span in spans:  # in the order of the file, which is that of viewers
            start, end = round(1000 * span["ts"]), round(1000 * (span["ts"] + span["dur"]))
            while enclosing and enclosing[-1] <= start and not (enclosing[-1] == start == end):
                enclosing.pop()
            assert not enclosing or end <= enclosing[-1], span
            enclosing.append(end)


def test_every_kernel_has_the_call_that_launched_it_and_an_arrow(analysis):
    kernels = events_of(analysis, "kernel")
    if not analysis.hardware.family.issues_ahead:
        assert not kernels
        return
    calls = {event["args"]["correlation"]: event for event in events_of(analysis, "cuda_runtime")}
    arrows = events_of(analysis, "ac2g")
    assert len(kernels) == len(analysis.plan.launches) and len(arrows) == 2 * len(kernels)
    starts = {event["id"]: event for event in arrows if event["ph"] == "s"}
    ends = {event["id"]: event for event in arrows if event["ph"] == "f"}
    captured = analysis.execution.engine == "cudagraph"
    assert sorted(event["ts"] for event in ends.values()) == sorted(kernel["ts"] for kernel in kernels)
    assert {kernel["args"]["correlation"] for kernel in kernels} <= calls.keys()
    for kernel in kernels if not captured else ():
        number = kernel["args"]["correlation"]
        assert (ends[number]["ts"], ends[number]["tid"]) == (kernel["ts"], kernel["tid"])
        call = calls[number]
        assert call["ts"] <= starts[number]["ts"] <= call["ts"] + call["dur"]
        assert call["ts"] <= kernel["ts"]  # nothing starts before it is launched


def test_kernels_say_what_they_do_and_what_bounds_them(net):
    rows, kernels = net.kernels, events_of(net, "kernel")
    assert sum(kernel["args"]["FLOP"] for kernel in kernels) == net.totals.flops
    assert sum(kernel["args"]["bytes"] for kernel in kernels) == net.totals.traffic_bytes
    assert [kernel["args"]["bound"] for kernel in kernels] == [row.bound for row in rows]
    assert {"module", "tile", "compute_us", "memory_us", "DRAM bytes"} <= kernels[0]["args"].keys()
    operators = [event["name"] for event in events_of(net, "cpu_op")]
    assert operators == ["aten::" + node.op.split(".")[1] + "_" * node.in_place for node in net.bound.nodes]
    modules = {event["name"] for event in events_of(net, "python_function")}
    assert {"nn.Module: stem", "nn.Module: stem.0", "nn.Module: head"} <= modules


@pytest.mark.parametrize("run", [run for run in RUNS if run[1] == "eager"], ids=" ".join)
def test_our_own_reader_of_profiler_traces_finds_every_node(net, run, tmp_path):
    there = net.at(hw=run[0], mode=run[1], dtype=run[2])
    path = tmp_path / "step.json.gz"
    path.write_bytes(gzip.compress(render(there, "perfetto").encode()))
    found = import_trace(path, there.bound, model="net", device=run[0], execution=there.execution)
    assert found.latency_s == pytest.approx(there.latency, rel=1e-3)
    assert found.attributed_share == pytest.approx(1.0) and not found.unattributed
    predicted = dict.fromkeys((node.name for node in there.bound.nodes), 0.0)
    for row in there.kernels:
        predicted[row.name] += 1e6 * row.busy_s
    assert {node.name: node.measured_us for node in found.nodes} == pytest.approx(predicted, abs=0.005)


def test_compiled_steps_are_read_whole_though_a_kernel_serves_several_nodes(net, tmp_path):
    there = net.at(mode="compile")
    path = tmp_path / "step.json"
    path.write_text(render(there, "perfetto"))
    found = import_trace(path, there.bound, model="net", device="a100", execution=there.execution)
    assert found.attributed_us == pytest.approx(1e6 * there.timeline.busy_s, rel=1e-3)


def test_measured_and_predicted_stand_side_by_side(capsys, tmp_path, monkeypatch):
    recorded = tmp_path / "recorded.json"
    there = costmodel.analyze("resnet18", hw="t4")
    recorded.write_text(render(there.at(hw="a100"), "perfetto"))  # as good as any machine's
    out = tmp_path / "both.json"
    asked = ["measure", "resnet18", "--hw", "t4", "--from-trace", str(recorded), "--format", "perfetto", "-o", str(out)]
    assert main(asked) == 0
    trace = json.loads(out.read_text())
    steps = [event for event in trace["traceEvents"] if event["name"] == "ProfilerStep#0"]
    assert {step["ts"] for step in steps} == {0.0} and len({step["pid"] for step in steps}) == 2
    durations = sorted(step["dur"] for step in steps)
    assert durations == pytest.approx(sorted(1e6 * a.latency for a in (there, there.at(hw="a100"))), rel=1e-3)
    kernels = [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]
    assert len({kernel["pid"] for kernel in kernels}) == 2
    assert len({(kernel["pid"], kernel["args"]["correlation"]) for kernel in kernels}) == len(kernels)
    measured = [event for event in kernels if "measured_us of the node" in event["args"]]
    assert {event["pid"] for event in measured} == {0}


def test_several_machines_stand_one_below_the_other_and_documents_have_no_timeline(net):
    text = render([net, net.at(hw="t4")], "perfetto")
    assert {event["pid"] for event in json.loads(text)["traceEvents"] if event.get("cat") == "kernel"} == {0, 1}
    with pytest.raises(InputError, match="timeline"):
        render(Document("a page"), "perfetto")


def test_a_host_that_takes_no_time_leaves_the_device_its_own(net):
    there = net.at(host="instant")
    kernels = events_of(there, "kernel")
    assert kernels[0]["ts"] == 0
    assert math.fsum(kernel["dur"] for kernel in kernels) == pytest.approx(1e6 * there.latency, rel=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("hta") is None, reason="HolisticTraceAnalysis is not installed")
def test_holistic_trace_analysis_breaks_it_down_as_we_do(net, tmp_path, monkeypatch):
    monkeypatch.setenv("HTA_DISABLE_NS_ROUNDING", "1")
    from hta.trace_analysis import TraceAnalysis

    path = tmp_path / "step.json"
    path.write_text(render(net, "perfetto"))
    analyzer = TraceAnalysis(trace_files={0: str(path)}, trace_dir=str(tmp_path))
    _, kernels = analyzer.get_gpu_kernel_breakdown(visualize=False, duration_ratio=1.0, num_kernels=1000)
    assert kernels["sum (us)"].sum() == pytest.approx(1e6 * net.timeline.busy_s, rel=1e-3)
    relu = 1e6 * sum(row.busy_s for row in net.kernels if row.op == "aten.relu")
    assert kernels.set_index("name")["sum (us)"]["elementwise_relu"] == pytest.approx(relu, rel=1e-3)


def test_a_training_step_runs_its_backward_pass_on_a_thread_of_its_own():
    there = costmodel.analyze(Net(), torch.empty(4, 3, 32, 32), hw="a100", phase="training")
    nodes = there.bound.nodes
    backward = [event for event in events_of(there, "cpu_op") if event["args"]["phase"] == "backward"]
    assert len(backward) == sum(node.phase.value == "backward" for node in nodes)
    assert {event["tid"] for event in backward} == {2}
    arrows = [event for event in events_of(there, "fwdbwd") if event["ph"] == "f"]
    assert len(arrows) == sum(node.forward is not None for node in nodes)
    kernels = events_of(there, "kernel")
    assert max(kernel["ts"] + kernel["dur"] for kernel in kernels) == pytest.approx(1e6 * there.latency, rel=1e-3)


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_memory_over_time_peaks_where_the_footprint_does(phase):
    there = costmodel.analyze(Net(), torch.empty(4, 3, 32, 32), hw="a100", phase=phase)
    course = [
        e["args"]["MB"] for e in json.loads(render(there, "perfetto"))["traceEvents"] if e["name"] == "memory allocated"
    ]
    assert len(course) == len(there.plan.launches)
    assert max(course) == pytest.approx(there.memory.allocated_bytes / 1e6, abs=1e-3)


def test_what_is_written_is_a_profile_that_the_reader_takes_for_one_marked_step(net, tmp_path):
    path = tmp_path / "step.json"
    path.write_text(render(net, "perfetto"))
    recording = read_trace(path)
    assert recording.marked and recording.on_device and len(recording.steps) == 1
    assert recording.steps[0].start_us == 0.0
