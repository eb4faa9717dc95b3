"""Machines of one ``lowered_as`` share plans: so lowering may ask a machine for nothing that the key does not hold."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import costmodel
from costmodel.hardware import load, names
from costmodel.kernels import eager_plan

pytest.importorskip("torch")

#: What the key stands for: the generation, and for which engines, dtypes and accumulates there is a peak.
ALLOWED = {"generation", "family", "gpu", "cpu", "is_cpu", "is_gpu", "kind", "has_tf32"}


class Blindfolded:
    """A machine that answers what lowering may ask, and fails at everything else."""

    def __init__(self, hardware) -> None:
        self._hardware = hardware

    @property
    def lowered_as(self):
        return id(self)  # no plan of another machine serves

    def find_peak(self, engine, dtype, accumulate=None):
        peak = self._hardware.find_peak(engine, dtype, accumulate)
        return None if peak is None else SimpleNamespace(accumulate=peak.accumulate)

    def __getattr__(self, name):
        if name not in ALLOWED:
            raise AssertionError(f"lowering asks for {name!r}, which is no part of HardwareProfile.lowered_as")
        return getattr(self._hardware, name)


@pytest.mark.parametrize("hw", ["a100", "t4", "gtx1080", "mi100", "rx7900xtx", "epyc-7763", "h100"])
@pytest.mark.parametrize(
    ("model", "conditions"),
    [
        ("timm:resnet18", {}),
        ("timm:resnet18", {"dtype": "amp_bf16", "layout": "nhwc"}),
        ("timm:vit_tiny_patch16_224", {"dtype": "bf16"}),
        ("timm:mobilenetv3_small_050", {"dtype": "amp_bf16"}),
        ("timm:resnet18", {"phase": "training"}),
        ("torchvision:swin_t", {"phase": "training", "dtype": "amp_bf16"}),
    ],
)
def test_lowering_asks_for_nothing_else(model, conditions, hw):
    analysis = costmodel.analyze(model, hw=hw, batch=2, **conditions)
    plan = eager_plan(analysis.bound, analysis.execution, Blindfolded(analysis.hardware))
    assert plan.kernels == analysis.plan.kernels
    assert plan.launches == analysis.plan.launches


def test_machines_of_one_key_share_a_plan_and_others_do_not():
    first = costmodel.analyze("timm:resnet18", hw="a100", batch=2)
    alike = [name for name in names() if load(name).lowered_as == first.hardware.lowered_as]
    assert len(alike) > 1
    assert all(first.at(hw=name).plan is first.plan for name in alike)
    assert first.at(hw="t4").plan is not first.plan
    assert first.at(batch=3).plan is not first.plan
    assert first.at(dtype="amp_fp16").plan is not first.plan
