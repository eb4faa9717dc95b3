"""A measurement beside a prediction: the parts still add up, and a file of another model is refused."""

from __future__ import annotations

import json

import pytest

from costmodel.errors import InputError
from costmodel.explain import MeasuredSplit, read_measured_run, split
from tests.explain.networks import analysis


def recorded(now, *, scale=1.0, gap_s=0.0, **changes):
    """What a run would have written in which every node takes ``scale`` times its prediction."""
    found = split(now)
    seconds: dict[int, float] = {}
    for position, launch in enumerate(now.plan.launches):
        seconds[launch.nodes[0]] = seconds.get(launch.nodes[0], 0.0) + found.device_s(position)
    nodes = [
        {"name": node.name, "op": node.op, "module": node.module, "measured_us": 1e6 * scale * seconds.get(i, 0.0)}
        for i, node in enumerate(now.bound.nodes)
    ]
    whole = scale * sum(seconds.values()) + gap_s
    conditions = {
        "model": "by hand",
        "device": "a bench",
        "batch": 32,
        "dtype": "fp32",
        "layout": "nchw",
        "mode": "eager",
    }
    value = {"schema_version": 1, **conditions, "latency_ms": 1e3 * whole, "nodes": nodes, "unattributed": []}
    return {**value, **changes}


@pytest.fixture
def write(tmp_path):
    def to_file(value):
        path = tmp_path / "measured.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    return to_file


def beside(now, path):
    return MeasuredSplit(split(now), read_measured_run(path))


@pytest.mark.parametrize("hw", ["a100", "epyc-milan-2c"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_predicted_and_unexplained_are_the_measured_whole(write, hw, scale):
    now = analysis("normed", hw=hw)
    extra = [{"name": "aten::item", "us": 7.0}, {"name": "Memset", "us": 2.0}]
    value = recorded(now, scale=scale, gap_s=9e-6 + 40e-6, unattributed=extra)
    found = beside(now, write(value))
    assert found.split.latency_s + found.unexplained_s == pytest.approx(found.run.latency_s, rel=1e-9)
    assert found.unattributed_s == pytest.approx(9e-6)
    assert found.idle_s == pytest.approx(40e-6 - found.split.seconds("host"))
    busy = found.split.busy_s
    assert found.slower_s + found.faster_s == pytest.approx((scale - 1) * busy, rel=1e-9, abs=1e-15)
    assert sum(gap.predicted_s for gap in found.nodes) == pytest.approx(busy)


def test_the_node_that_is_furthest_off_comes_first(write):
    now = analysis("normed")
    value = recorded(now)
    value["nodes"][3]["measured_us"] += 100.0
    value["nodes"][1]["measured_us"] = 0.0
    found = beside(now, write(value))
    names = [node.name for node in now.bound.nodes]
    assert {found.nodes[0].name, found.nodes[1].name} == {names[3], names[1]}
    gap = next(gap for gap in found.nodes if gap.name == names[3])
    assert gap.unexplained_s == pytest.approx(100e-6)
    assert found.slower_s == pytest.approx(100e-6)
    assert found.faster_s < 0


def test_work_done_in_another_nodes_kernel_is_held_against_that_kernel(write):
    now = analysis("normed", mode="compile")
    fused = next(launch for launch in now.plan.launches if len(launch.nodes) > 1)
    first, last = (now.bound.nodes[fused.nodes[i]].name for i in (0, -1))
    value = recorded(now, mode="compile")
    by_name = {node["name"]: node for node in value["nodes"]}
    by_name[last]["measured_us"], by_name[first]["measured_us"] = by_name[first]["measured_us"], 0.0
    assert abs(beside(now, write(value)).slower_s) > 0
    by_name[first]["runs_in"] = last
    found = beside(now, write(value))
    assert max(abs(gap.unexplained_s) for gap in found.nodes) < 1e-12


def test_a_file_of_another_model_names_the_nodes_that_do_not_match(write):
    path = write(recorded(analysis("grouped")))
    with pytest.raises(InputError) as error:
        beside(analysis("excited"), path)
    assert "measures nodes that" in str(error.value)
    assert analysis("grouped").bound.nodes[0].name in str(error.value)
    assert "0 of 2 nodes match" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,latency_ms\nresnet50,3\n", "it is no JSON"),
        ("{}", "it has no 'nodes'"),
        ('{"nodes": [], "latency_ms": 0}', "the latency is 0"),
        ('{"nodes": [{"name": "conv1", "measured_us": -1}], "latency_ms": 1}', "conv1 takes -1 us"),
        ('{"nodes": [{"name": "conv1", "measured_us": NaN}], "latency_ms": 1}', "conv1 takes nan us"),
        ("[1, 2]", "no measurement by node"),
    ],
)
def test_what_is_no_measurement_is_refused(write, text, said):
    with pytest.raises(InputError) as error:
        read_measured_run(write(text))
    assert said in str(error.value)
    assert "costmodel measure" in str(error.value)


def test_a_file_that_is_not_there_is_said_to_be(tmp_path):
    with pytest.raises(InputError, match="cannot read the measurement"):
        read_measured_run(str(tmp_path / "none.json"))
