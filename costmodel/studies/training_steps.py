"""The steps that the report on training is made of: five networks, and what is asked of each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from costmodel.analysis import Analysis
from costmodel.rows import Row
from costmodel.studies.bench import Bench

__all__ = ["DTYPE", "MACHINES", "NETWORKS", "Net", "parts", "ratios", "trained"]


class Net(NamedTuple):
    """A network as it is trained here; a sample is a picture or a sequence of ``seq_len`` tokens."""

    request: str
    batch: int
    layout: str
    optimizer: str
    seq_len: int | None = None


NETWORKS: Mapping[str, Net] = {
    "ResNet-50": Net("timm:resnet50", 128, "nhwc", "momentum"),
    "MobileNet V2": Net("timm:mobilenetv2_100", 128, "nhwc", "momentum"),
    "ConvNeXt-T": Net("timm:convnext_tiny", 64, "nhwc", "adamw"),
    "ViT-B/16": Net("timm:vit_base_patch16_224", 64, "nchw", "adamw"),
    "BERT-base": Net("hf:bert", 32, "nchw", "adamw", 384),
}
MACHINES = {"A100": "a100", "RTX 3090": "rtx3090"}
DTYPE = "amp_fp16"


def trained(bench: Bench, name: str, machine: str = "a100", **changes: Any) -> Analysis:
    net = NETWORKS[name]
    conditions: dict[str, Any] = {
        "hw": machine, "batch": net.batch, "dtype": DTYPE, "layout": net.layout, "seq_len": net.seq_len,
        "optimizer": net.optimizer,
    }  # fmt: skip
    return bench.analysis(net.request, phase="training", **{**conditions, **changes})


def parts(analysis: Analysis) -> dict[str, Row]:
    return {row.name: row for row in analysis.rows("phase")}


def ratios(analysis: Analysis) -> tuple[float, float]:
    """(FLOPs, seconds) of the backward pass over those of the forward pass."""
    rows = parts(analysis)
    ahead, behind = rows["forward"], rows["backward"]
    return behind.flops / ahead.flops, behind.latency_s / ahead.latency_s
