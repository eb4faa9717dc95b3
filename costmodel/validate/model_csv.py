"""Rows of whole models: ``model,device,phase,dtype,layout,mode,torch,batch,image_size,latency_ms``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from costmodel.validate.cells import Flags, checked_word, latency, optional_size, phase_word, size, text
from costmodel.validate.published import stated
from costmodel.validate.rows import ModelRow

__all__ = ["image_sizes", "model_row", "request_of"]


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
    model = text(record, "model")
    return ModelRow(
        file=file,
        line=line,
        model=model,
        request=request_of(_beside(model, file)),
        phase=phase_word(record, flags.phase),
        device=text(record, "device", flags.device),
        dtype=checked_word(record, "dtype", flags.dtype),
        layout=checked_word(record, "layout", flags.layout or "nchw"),
        mode=checked_word(record, "mode", flags.mode or "eager"),
        torch=record.get("torch") or flags.torch,
        batch=size(record, "batch"),
        sizes=sizes,
        latency_s=latency(record, "latency_ms", 1e-3),
        family=record.get("family") or "",
        params=stated(record, "params_m", 1e6),
        macs=stated(record, "gmacs", 1e9),
        conditions={**flags.conditions, **{key: value for key, value in record.items() if value}},
    )
