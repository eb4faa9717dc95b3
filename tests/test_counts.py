"""Exactness on a sample of architectures of many families: MACs and parameters as torch counts them, nothing uncosted.

``benchmarks/counts.py`` does the same for every architecture of timm and torchvision; its code is what runs here.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SURVEY = Path(__file__).parents[1] / "benchmarks" / "counts.py"

TIMM = """coat_lite_tiny coatnet_pico_rw_224 convnext_atto
deit_tiny_patch16_224 dla34 edgenext_xx_small efficientformer_l1 efficientnet_b0
efficientvit_b0 fastvit_t8 ghostnet_100 hardcorenas_a lcnet_050 levit_128s mixer_s32_224
mobilenetv3_small_050 mobilevit_xxs nfnet_l0 pit_ti_224 poolformer_s12 pvt_v2_b0 regnety_002
repvgg_a0 resmlp_12_224 resnet18 resnetv2_50 selecsls42 swin_tiny_patch4_window7_224
tinynet_e vit_tiny_patch16_224 volo_d1_224 xcit_nano_12_p16_224""".split()
TORCHVISION = """alexnet squeezenet1_1 googlenet mnasnet0_5 shufflenet_v2_x0_5 vit_b_32 swin_t
lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large r3d_18 fasterrcnn_resnet50_fpn.backbone""".split()
ZOO = "nin shufflenet_v1".split()


@pytest.fixture(scope="module")
def count():
    """count(request) of the survey."""
    spec = importlib.util.spec_from_file_location("counts_survey", SURVEY)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module.count
    del sys.modules[spec.name]


@pytest.mark.parametrize(
    "request_",
    [f"timm:{n}" for n in TIMM] + [f"torchvision:{n}" for n in TORCHVISION] + [f"zoo:{n}" for n in ZOO],
)
def test_macs_and_parameters_are_torchs_own(count, request_):
    result = count(request_)
    assert not result.failure
    assert result.macs == result.macs_torch > 0
    assert result.params == result.params_torch > 0
    assert not result.uncosted
