"""Measured time on nodes: recorded traces of small networks, and a GPU's in the real format with chosen numbers.

What is expected is read off the raw trace by a few lines of its own, or was put into it.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from costmodel.errors import InputError
from costmodel.graph import OpGraph
from costmodel.measure.attribution import Attribution, attribute
from costmodel.measure.events import read_trace

torch = pytest.importorskip("torch")

from costmodel.sources import from_module  # noqa: E402
from costmodel.trace import trace  # noqa: E402
from tests.measure.networks import DATA, network  # noqa: E402


def graph_of(name: str, batch: int | None = None) -> OpGraph:
    module, x = network(name)
    return trace(from_module(module, x)).bind({"batch": batch or x.shape[0]})


def raw_events(path: Path) -> list[dict[str, Any]]:
    return json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def top_level(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Operators that lie in no other operator, by comparing each with all."""
    operators = [e for e in events if e["cat"] == "cpu_op" and e["name"].startswith("aten::")]
    return [
        e
        for e in operators
        if not any(o is not e and o["ts"] <= e["ts"] and e["ts"] + e["dur"] <= o["ts"] + o["dur"] for o in operators)
    ]


def steps_of(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    marks = [e for e in events if e["name"] == "costmodel::step"]
    return [[e for e in events if m["ts"] <= e["ts"] < m["ts"] + m["dur"]] for m in marks]


def placed(name: str, mode: str = "eager", **options: Any) -> tuple[OpGraph, Attribution]:
    graph = graph_of(name)
    return graph, attribute(read_trace(DATA / f"{name}_{mode}.json.gz"), graph, **options)


def time_of(graph: OpGraph, found: Attribution, name: str) -> Any:
    return next(time for node, time in zip(graph.nodes, found.nodes, strict=True) if node.name == name)


# --- eager mode ----------------------------------------------------------------------------------------------------


def test_every_operator_of_a_convolutional_network_lands_on_its_node() -> None:
    graph, found = placed("residual", strict=True)
    middle = {}
    for step in steps_of(raw_events(DATA / "residual_eager.json.gz")):
        for position, e in enumerate(e for e in top_level(step) if e["name"] != "aten::dropout"):
            middle.setdefault(position, []).append((e["dur"], e["name"]))
    expected = [sorted(times)[1] for _, times in sorted(middle.items())]  # of three steps
    assert [time.us for time in found.nodes] == pytest.approx([us for us, _ in expected])
    names = [name.removeprefix("aten::") for _, name in expected]
    assert names == "conv2d batch_norm relu_ max_pool2d conv2d batch_norm add_ relu_ flatten linear".split()
    assert [node.module for node in graph.nodes][:3] == ["conv1", "bn1", "relu"]


def test_what_has_no_node_is_said_by_name() -> None:
    _, found = placed("residual")
    assert [name for name, _ in found.unattributed] == ["aten::dropout"]  # in eval mode it does nothing
    assert found.share > 0.95


def test_kernels_of_a_node_add_up_to_it() -> None:
    graph, found = placed("residual")
    for time in found.nodes:
        assert sum(us for _, us in time.kernels) == pytest.approx(time.us)
    assert "aten::mkldnn_convolution" in dict(time_of(graph, found, "conv1").kernels)


def test_copies_that_views_become_are_found_inside_the_composites_that_made_them() -> None:
    graph, found = placed("windows", strict=True)
    idle = [node.name for node, time in zip(graph.nodes, found.nodes, strict=True) if not time.kernels]
    assert not idle and found.share > 0.99
    clone = next(t for n, t in zip(graph.nodes, found.nodes, strict=True) if n.op == "aten.clone")
    assert {"aten::reshape", "aten::copy_"} <= set(dict(clone.kernels))


def test_the_sum_over_nodes_and_the_rest_is_the_time_of_all_operators() -> None:
    for name in ("residual", "windows", "attention"):
        recording = read_trace(DATA / f"{name}_eager.json.gz")
        one = type(recording)(recording.steps[:1], recording.on_device, recording.marked)
        found = attribute(one, graph_of(name))
        step = steps_of(raw_events(DATA / f"{name}_eager.json.gz"))[0]
        whole = sum(e["dur"] for e in top_level(step))
        assert found.attributed_us + sum(us for _, us in found.unattributed) == pytest.approx(whole)


def test_a_fast_path_lands_on_the_nodes_whose_work_it_does() -> None:
    """nn.MultiheadAttention on real tensors is aten::_native_multi_head_attention, which the graph does not have."""
    graph, found = placed("attention", strict=True)
    assert found.share > 0.95
    working = {n.name for n, t in zip(graph.nodes, found.nodes, strict=True) if t.us}
    assert {"norm", "attention.linear", "attention.scaled_dot_product_attention", "mlp.0", "mlp.1", "mlp.2"} <= working
    attention = time_of(graph, found, "attention.scaled_dot_product_attention")
    assert {"aten::bmm", "aten::_softmax"} & set(dict(attention.kernels))


def test_a_recording_without_marks_is_taken_apart_where_it_repeats_itself(tmp_path: Path) -> None:
    events = [e for step in steps_of(raw_events(DATA / "residual_eager.json.gz")) for e in step]
    path = tmp_path / "unmarked.json"
    path.write_text(json.dumps({"traceEvents": [e for e in events if e["cat"] == "cpu_op"]}))
    found = attribute(read_trace(path), graph_of("residual"), strict=True)
    _, marked = placed("residual")
    assert found.steps == 3
    assert [time.us for time in found.nodes] == [time.us for time in marked.nodes]


def test_operators_without_shapes_are_placed_by_their_order(tmp_path: Path) -> None:
    events = raw_events(DATA / "windows_eager.json.gz")
    path = tmp_path / "bare.json"
    path.write_text(json.dumps({"traceEvents": [{**e, "args": {}} for e in events]}))
    _, with_shapes = placed("windows")
    found = attribute(read_trace(path), graph_of("windows"), strict=True)
    assert [time.us for time in found.nodes] == [time.us for time in with_shapes.nodes]


# --- compiled ------------------------------------------------------------------------------------------------------


def test_a_fused_kernel_is_booked_on_the_first_of_its_nodes_and_the_others_say_so() -> None:
    graph, found = placed("residual", "compile")
    times = dict(zip([n.name for n in graph.nodes], found.nodes, strict=True))
    index = {n.name: i for i, n in enumerate(graph.nodes)}
    (kernel,) = times["bn1"].kernels
    assert kernel[0].startswith("graph_0_cpp_fused__native_batch_norm_legit_no_training")
    assert "max_pool2d" in kernel[0]
    pool = next(name for name in times if "max_pool2d" in name)
    relu = next(name for name in times if name.startswith("relu"))
    assert times[pool].runs_in == index["bn1"] == times[relu].runs_in
    assert times[pool].us == 0 and found.share == 1


def test_a_kernel_that_lays_out_a_convolutions_operands_is_one_of_several_of_its_node() -> None:
    graph, found = placed("residual", "compile")
    names = [name for name, _ in time_of(graph, found, "conv1").kernels]
    assert "graph_0_cpp_fused_convolution_0" in names and "aten::mkldnn_convolution" in names


# --- a GPU ---------------------------------------------------------------------------------------------------------


class GpuTrace:
    """Writes the trace of a GPU run in torch.profiler's format: operator, cudaLaunchKernel inside it, kernel later."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.now, self.device_now, self.correlation = 0.0, 1000.0, 0

    def op(self, name: str, dims: list[Any], *kernels: tuple[str, float], inner: str = "") -> GpuTrace:
        """One operator that launches these kernels, from an inner operator where one is named."""
        length = 10.0 + 6.0 * len(kernels)
        self._add("cpu_op", f"aten::{name}", self.now, length, {"Input Dims": dims})
        if inner:
            self._add("cpu_op", f"aten::{inner}", self.now + 1, length - 2, {"Input Dims": dims})
        for position, (kernel, us) in enumerate(kernels):
            self.correlation += 1
            link = {"correlation": self.correlation}
            self._add("cuda_runtime", "cudaLaunchKernel", self.now + 2 + 6 * position, 4, link)
            self._add("kernel", kernel, self.device_now, us, link, tid=7)
            self.device_now += us
        self.now += length + 5
        return self

    def _add(self, cat: str, name: str, ts: float, dur: float, args: dict[str, Any], tid: int = 1) -> None:
        self.events.append(
            {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": args}
        )

    def write(self, folder: Path) -> Path:
        path = folder / "gpu.json"
        path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": self.events}))
        return path


def residual_on_gpu() -> GpuTrace:
    """The Residual network at batch 2: a layout conversion before the second convolution, a split product."""
    big, small = [2, 8, 8, 8], [2, 8, 4, 4]
    norm = [[8]] * 4
    return (
        GpuTrace()
        .op("conv2d", [[2, 3, 16, 16], [8, 3, 3, 3]], ("implicit_convolve_sgemm", 30), inner="cudnn_convolution")
        .op("batch_norm", [big, *norm], ("bn_fw_inf_CUDNN_kernel_NCHW", 5), inner="cudnn_batch_norm")
        .op("relu_", [big], ("vectorized_elementwise_kernel<clamp_min>", 3), inner="clamp_min_")
        .op("max_pool2d", [big, []], ("max_pool_forward_nchw", 4), inner="max_pool2d_with_indices")
        .op("conv2d", [small, [8, 8, 3, 3]], ("nchwToNhwcKernel", 2), ("sm80_xmma_fprop_implicit_gemm", 20))
        .op("batch_norm", [small, *norm], ("bn_fw_inf_CUDNN_kernel_NCHW", 5), inner="cudnn_batch_norm")
        .op("add_", [small, small, []], ("vectorized_elementwise_kernel<add>", 3))
        .op("relu_", [small], ("vectorized_elementwise_kernel<clamp_min>", 3), inner="clamp_min_")
        .op("flatten", [small, [], []], inner="view")
        .op("linear", [[2, 128], [10, 128], [10]], ("ampere_sgemm", 7), ("splitKreduce", 1), inner="addmm")
    )


def test_kernels_of_a_gpu_land_on_the_nodes_that_launched_them(tmp_path: Path) -> None:
    graph = graph_of("residual")
    found = attribute(read_trace(residual_on_gpu().write(tmp_path)), graph, strict=True)
    assert [time.us for time in found.nodes] == [30, 5, 3, 4, 22, 5, 3, 3, 0, 8]
    assert time_of(graph, found, "conv2").kernels == [("nchwToNhwcKernel", 2), ("sm80_xmma_fprop_implicit_gemm", 20)]
    assert found.nodes[0].host_us == 16 and found.unattributed == ()


def test_a_copy_to_the_gpu_belongs_to_no_node(tmp_path: Path) -> None:
    recorded = residual_on_gpu().op("copy_", [[2, 3, 16, 16], [2, 3, 16, 16], []], ("Memcpy HtoD", 11))
    found = attribute(read_trace(recorded.write(tmp_path)), graph_of("residual"))
    assert found.unattributed == (("aten::copy_", 11),)


def test_generated_kernels_of_a_gpu_go_to_the_nodes_that_their_names_mention(tmp_path: Path) -> None:
    small = [2, 8, 4, 4]
    recorded = GpuTrace().op("convolution", [[2, 3, 16, 16], [8, 3, 3, 3]], ("implicit_convolve_sgemm", 30))
    recorded._add("kernel", "triton_poi_fused__native_batch_norm_legit_no_training_relu_0", 20, 6, {}, tid=7)
    recorded._add("kernel", "triton_poi_fused_max_pool2d_with_indices_1", 30, 4, {}, tid=7)
    recorded.now = 40
    recorded.op("convolution", [small, [8, 8, 3, 3]], ("sm80_xmma_fprop_implicit_gemm", 20))
    recorded._add("kernel", "triton_poi_fused__native_batch_norm_legit_no_training_add_relu_2", 60, 9, {}, tid=7)
    recorded.now = 70
    recorded.op("addmm", [[10], [2, 128], [128, 10]], ("ampere_sgemm", 7))
    graph = graph_of("residual")
    found = attribute(read_trace(recorded.write(tmp_path)), graph)
    assert [time.us for time in found.nodes] == [30, 6, 0, 4, 20, 9, 0, 0, 0, 7]
    assert [time.runs_in for time in found.nodes] == [None, None, 1, None, None, None, 5, 5, None, None]


# --- traces of something else --------------------------------------------------------------------------------------


def test_a_trace_of_another_model_is_refused_with_what_does_not_match() -> None:
    with pytest.raises(InputError, match=r"(?s)another model.*not in the trace: conv1 \(conv2d.*not in the model: "):
        attribute(read_trace(DATA / "windows_eager.json.gz"), graph_of("residual"), strict=True)


def test_a_trace_at_another_batch_is_refused_and_the_batch_is_named() -> None:
    with pytest.raises(InputError, match=r"(?s)5x3x16x16.*2x3x16x16.*--batch"):
        attribute(read_trace(DATA / "residual_eager.json.gz"), graph_of("residual", batch=5), strict=True)


def test_a_trace_of_training_is_refused(tmp_path: Path) -> None:
    recorded = residual_on_gpu()
    recorded._add("cpu_op", "autograd::engine::evaluate_function: AddmmBackward0", recorded.now, 10, {})
    with pytest.raises(InputError, match="backward pass"):
        attribute(read_trace(recorded.write(tmp_path)), graph_of("residual"))


# --- live, against the modules' own marks --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "windows"])
def test_a_live_run_agrees_with_marks_around_every_module(name: str, tmp_path: Path) -> None:
    """Each module's forward is marked by record_function; the operators inside must be on nodes of that module."""
    from costmodel.measure.profiling import record_steps

    module, x = network(name)
    for path, child in module.named_children():
        child.forward = _marked(child.forward, f"module:{path}")
    keep = tmp_path / "trace.json"
    with torch.inference_mode():
        recording = record_steps(lambda: module(x), steps=1, keep=keep)
    graph = graph_of(name)
    found = attribute(recording, graph)
    events = steps_of(json.loads(keep.read_text())["traceEvents"])[0]
    for path, _ in module.named_children():
        marks = [e for e in events if e.get("name") == f"module:{path}"]
        operators = [
            e
            for e in top_level([e for e in events if e.get("cat") == "cpu_op"])
            if any(m["ts"] <= e["ts"] < m["ts"] + m["dur"] for m in marks) and e["name"] != "aten::dropout"
        ]
        on_nodes = sum(t.us for n, t in zip(graph.nodes, found.nodes, strict=True) if n.module == path)
        assert on_nodes == pytest.approx(sum(e["dur"] for e in operators)), path


def _marked(forward: Any, name: str) -> Any:
    def marked(*args: Any) -> Any:
        with torch.profiler.record_function(name):
            return forward(*args)

    return marked
