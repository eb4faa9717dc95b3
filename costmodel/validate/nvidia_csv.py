"""Tables of NVIDIA's example READMEs, tidied: ``model,framework,engine,device,precision,batch,throughput_per_s,...``.

A row's step takes its batch over its throughput; the latencies beside it hold the loader's time now and then. Rows of
PyTorch in its own words (engine ``framework``) are used where timm has the same network: the examples' ResNet-50 v1.5
(stride in the 3x3), ResNeXt-101 and SE-ResNeXt-101 (32x4d), EfficientNet-B0 and B4, at the sizes that their READMEs
name. "Mixed precision" is autocast over fp32 weights. Neither the release of PyTorch nor where the inputs lay is said.
"""

from __future__ import annotations

from collections.abc import Mapping

from costmodel.validate.cells import Flags, RowError, checked_word, number, phase_word, size, text
from costmodel.validate.rows import ModelRow

__all__ = ["nvidia_row"]

#: The file's name of a model -> timm's, and height and width in pixels.
MODELS = {
    "resnet50_v1.5": ("resnet50", 224),
    "resnext101_32x4d": ("resnext101_32x4d", 224),
    "se_resnext101_32x4d": ("seresnext101_32x4d", 224),
    "efficientnet-b0": ("efficientnet_b0", 224),
    "efficientnet-b4": ("efficientnet_b4", 380),
}
#: Models of the examples that no source here builds, and why.
OTHERS = {
    "efficientnet-widese-b0": "squeeze-and-excitation wider than timm's",
    "efficientnet-widese-b4": "squeeze-and-excitation wider than timm's",
    "efficientdet_d0": "a detector that no source here has",
    "ssd300": "a ResNet-50 where torchvision's SSD300 has a VGG-16",
    "maskrcnn": "an implementation with operators of its own",
    "nnunet": "a network that no source here has",
    "bert": "an implementation with fused kernels of its own",
    "bart": "generates text, step after step",
    "transformer_mt": "a batch of tokens, and text that is generated",
}
#: Precision -> dtype, and whether matrix products take TF32.
PRECISIONS = {"fp32": ("fp32", False), "tf32": ("fp32", True), "mixed precision": ("amp_fp16", False)}


def nvidia_row(record: Mapping[str, str], file: str, line: int, flags: Flags) -> ModelRow:
    """One row. Raises RowError for other frameworks and engines, and for models that are not built here."""
    framework, engine, model = (text(record, name) for name in ("framework", "engine", "model"))
    if framework != "PyTorch":
        raise RowError(f"framework={framework}: not PyTorch")
    if engine != "framework":
        raise RowError(f"engine={engine}: not PyTorch's own kernels")
    if model not in MODELS:
        raise RowError(f"{model}: {OTHERS.get(model, 'a model that no source here has')}")
    precision = text(record, "precision").lower()
    if precision not in PRECISIONS:
        raise RowError(f"unknown precision: {precision}")
    name, pixels = MODELS[model]
    dtype, tf32 = PRECISIONS[precision]
    batch, rate = size(record, "batch"), number(record, "throughput_per_s")
    if rate <= 0:
        raise RowError("throughput_per_s is not above 0")
    return ModelRow(
        file=file,
        line=line,
        model=model,
        request=f"timm:{name}",
        device=text(record, "device", flags.device).partition("(")[0],
        dtype=dtype,
        layout=checked_word({}, "layout", flags.layout or "nchw"),
        mode="eager",
        phase=phase_word({}, flags.phase),
        torch=flags.torch,
        batch=batch,
        sizes={"height": pixels, "width": pixels},
        latency_s=batch / rate,
        family="" if "efficientnet" not in name else "efficientnet",
        conditions={**flags.conditions, **({"tf32_matmul": "yes"} if tf32 else {})},
    )
