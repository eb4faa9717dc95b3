"""Rows of whole models: ``model,device,phase,dtype,layout,mode,torch,batch,image_size,latency_ms``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from costmodel.validate.cells import Flags, checked_word, latency, optional_size, phase_word, size, text
from costmodel.validate.published import stated
from costmodel.validate.rows import ModelRow

__all__ = ["image_sizes", "model_row", "request_of"]

#: timm's name of a network -> the configuration of transformers' own, beside this file: the same sizes and parameters,
#: more operators (queries, keys and values apart, attention written out as it was before 2024).
_OF_TRANSFORMERS = {
    "vit_base_patch16_224": "vit_base",
    "beit_base_patch16_224": "beit_base",
    "convnext_large": "convnext_large",
    "resnet50": "resnet50",
}
#: A network that a file is not sure of -> timm's of the same layers: NVIDIA's SE-ResNeXt-101.
_SAME_NETWORK = {"timm:legacy_seresnext101_32x4d?": "timm:seresnext101_32x4d"}
#: A model of transformers with the head that a benchmark trains -> the configuration, of the same folder.
_WITH_HEADS = {
    "hf:bert-base-uncased(qa)": "bert_base_qa",
    "hf:bert-large-uncased(qa)": "bert_large_qa",
}
_CONFIGURATIONS = Path(__file__).parent / "transformers"


def request_of(model: str) -> str:
    """What to ask a source for: a bare name is timm's.

    >>> request_of("resnet50"), request_of("hf:bert")
    ('timm:resnet50', 'hf:bert')
    """
    return model if ":" in model or model.endswith((".py", ".pt2")) else f"timm:{model}"


def image_sizes(record: Mapping[str, str], column: str = "image_size") -> dict[str, int]:
    """Height and width of a square image, or none where the row does not say."""
    image = optional_size(record, column)
    return {} if image is None else {"height": image, "width": image}


def _beside(model: str, file: str) -> str:
    """A model of a Python file that lies beside the measurements, by its whole path.

    >>> _beside("timm:resnet50", "timings.csv")
    'timm:resnet50'
    """
    path, colon, name = model.rpartition(":")
    beside = Path(file).parent / path
    return f"{beside}{colon}{name}" if path.endswith(".py") and beside.is_file() else model


def _as_noted(request: str, mode: str, note: str) -> tuple[str, str]:
    """The request and the mode of a row whose note says more of them than their columns: ``HF`` begins the note of a
    model of transformers, and ``reduce-overhead`` stands in that of its compiled and captured runs.

    >>> _as_noted("timm:resnet50", "cudagraph", "HF ResNet-50; reduce-overhead run")[0].rpartition("/")[2]
    'resnet50.json'
    >>> _as_noted("timm:resnet50", "cudagraph", "second run")
    ('timm:resnet50', 'cudagraph')
    """
    own = _OF_TRANSFORMERS.get(request.removeprefix("timm:"))
    request = _SAME_NETWORK.get(request, request)
    if request in _WITH_HEADS:
        request = f"hf:{_CONFIGURATIONS / _WITH_HEADS[request]}.json"
    if own is not None and note.startswith("HF "):
        request = f"hf:{_CONFIGURATIONS / own}.json"
    return request, "reduce-overhead" if mode == "cudagraph" and "reduce-overhead" in note else mode


def _script(record: Mapping[str, str]) -> dict[str, str]:
    """timm's script is known by columns that it alone has, filled in or not (it counts no MACs of training)."""
    return {"script": "timm"} if {"gmacs", "mactivations"} <= record.keys() else {}


def _trained(record: Mapping[str, str]) -> dict[str, str]:
    """The optimizer of scripts that are known.

    NVIDIA's fine-tuning of BERT takes a fused Adam in half precision; in fp32 the ``BertAdam`` of its time, which goes
    from parameter to parameter and lets weights decay. The benchmark of torchvision's classifiers that keeps quantiles
    of its steps ends a step with the gradients.
    """
    if record.get("model") in _WITH_HEADS:
        in_half = "fp16" in record.get("dtype", "")
        return {"optimizer": "adam", "fused_optimizer": "yes"} if in_half else {"optimizer": "adamw"}
    return {"optimizer": "none"} if {"p10_ms", "p90_ms", "steps"} <= record.keys() else {}


def model_row(record: Mapping[str, str], file: str, line: int, flags: Flags) -> ModelRow:
    """One row; optional columns beside the format's own: ``height``, ``width``, ``seq_len``, ``family``,
    ``params_m`` and ``gmacs`` (1e6 parameters and 1e9 MACs of one image: the network's), and any condition of a run by
    the name of its field in :class:`~costmodel.execution.Execution`.

    Raises RowError when the row cannot be used.
    """
    sizes = image_sizes(record)
    for name in ("height", "width", "seq_len"):
        if (value := optional_size(record, name)) is not None:
            sizes[name] = value
    model, note = text(record, "model"), record.get("note") or ""
    mode = checked_word(record, "mode", flags.mode or "eager")
    request, mode = _as_noted(request_of(_beside(model, file)), mode, note)
    return ModelRow(
        file=file,
        line=line,
        model=model,
        request=request,
        phase=phase_word(record, flags.phase),
        device=text(record, "device", flags.device),
        dtype=checked_word(record, "dtype", flags.dtype),
        layout=checked_word(record, "layout", flags.layout or "nchw"),
        mode=mode,
        torch=record.get("torch") or flags.torch,
        batch=size(record, "batch"),
        sizes=sizes,
        latency_s=latency(record, "latency_ms", 1e-3),
        family=record.get("family") or "",
        params=stated(record, "params_m", 1e6),
        macs=stated(record, "gmacs", 1e9),
        conditions={
            **_script(record),
            **_trained(record),
            **flags.conditions,
            **{key: value for key, value in record.items() if value},
        },
    )
