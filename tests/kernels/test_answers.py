"""Machines that tell a lowering the same share its plan: it must be the plan that each would get by itself."""

from __future__ import annotations

import pytest

import costmodel
from costmodel.engines import engine_of
from costmodel.hardware import load, names
from costmodel.kernels import eager_plan
from costmodel.kernels.answers import answers_of, questioned, shared_plan, would_tell

pytest.importorskip("torch")

CONDITIONS = [
    ("timm:resnet18", {}),
    ("timm:resnet18", {"dtype": "amp_bf16", "layout": "nhwc"}),
    ("timm:resnet18", {"mode": "compile"}),
    ("timm:vit_tiny_patch16_224", {"dtype": "bf16"}),
    ("timm:mobilenetv3_small_050", {"dtype": "amp_fp16", "mode": "compile"}),
    ("timm:resnet18", {"phase": "training"}),
    ("timm:vit_tiny_patch16_224", {"phase": "training", "dtype": "amp_bf16"}),
]


def by_itself(analysis):
    """The plan of an analysis, lowered for its machine alone: on a graph with nothing kept beside it."""
    bound = analysis.bound
    alone = type(bound)(**{**{name: getattr(bound, name) for name in bound.__dataclass_fields__}, "memo": {}})
    return engine_of(analysis.execution.engine).lower(alone, analysis.execution, analysis.hardware)


@pytest.mark.parametrize(("model", "conditions"), CONDITIONS)
def test_a_shared_plan_is_the_one_that_the_machine_would_get_by_itself(model, conditions):
    """One machine of each generation, one after the other; at a batch that was lowered, and at one after others, whose
    kernels are functions of the batch."""
    first = costmodel.analyze(model, hw="a100", batch=2, **conditions)
    machines = list({id(machine.generation): machine for machine in map(load, names())}.values())
    for batch in (3, 5, 6, 24):
        shared = {}
        for machine in machines:
            try:
                now = first.at(hw=machine, batch=batch)
            except costmodel.CostmodelError:
                continue  # a CPU that does not multiply this dtype
            shared[id(now.plan)] = now.plan
            if batch in (3, 24):
                alone = by_itself(now)
                assert now.plan.kernels == alone.kernels, machine.name
                assert now.plan.launches == alone.launches, machine.name
        assert len(shared) < len(machines) / 2


def test_generations_share_what_they_lower_alike_and_nothing_else():
    first = costmodel.analyze("timm:resnet18", hw="a100", batch=2)
    assert first.at(hw="l4").plan is first.plan is first.at(hw="h100").plan  # TF32 in convolutions, fp32 elsewhere
    assert first.at(hw="t4").plan is not first.plan  # no TF32
    assert first.at(hw="mi100").plan is not first.plan
    assert first.at(batch=3).plan is not first.plan
    assert first.at(dtype="amp_fp16").plan is not first.plan


def test_a_plan_hangs_on_what_was_read_and_on_that_alone():
    read = []

    def lower(graph, execution, machine):
        read.append(machine.name)
        return eager_plan(graph, execution, machine)

    now = costmodel.analyze("timm:resnet18", hw="a100", batch=2)
    plans = [shared_plan(now.bound, now.execution, load(hw), lower) for hw in ("a100", "l4", "l4", "a100")]
    assert read == ["a100-sxm-80gb", "l4"]  # whose names are read, so that they share nothing
    assert plans[1] is plans[2] and plans[0] is plans[3]


def test_answers_are_facts_and_of_records_what_is_read():
    told = {}
    machine = questioned(load("a100"), told)
    assert machine.has_tf32 and machine.gpu.convolutions.converts_layout
    assert machine.find_peak("matrix", "fp8") is None and machine.find_peak("matrix", "fp16").accumulate == "fp32"
    assert machine.find_peak("matrix", dtype="fp16", accumulate="fp16") is not None
    assert answers_of(machine) is told
    assert would_tell(load("a30"), told)
    assert not would_tell(load("h100"), told)  # it has fp8
    assert not would_tell(load("mi100"), told)
    assert not would_tell(load("epyc-7763"), told)  # no GPU: nothing to ask
