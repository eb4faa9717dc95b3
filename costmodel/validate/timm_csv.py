"""timm's own benchmark files, as published in its ``results/`` folder and written by its ``benchmark.py``.

Columns ``infer_step_time`` (ms), ``infer_samples_per_sec``, ``infer_batch_size``, ``infer_img_size`` (and the same
with ``train_``). Device, dtype, layout, mode and torch's version stand in the file's name:
``benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from costmodel.engines import engine_spellings
from costmodel.execution.precision import SPELLINGS as DTYPES
from costmodel.validate.cells import Flags, RowError, checked_word, latency, number, phase_word, size, text
from costmodel.validate.model_csv import image_sizes, request_of
from costmodel.validate.published import stated
from costmodel.validate.rows import ModelRow

__all__ = ["named_conditions", "timm_row"]

_NOT_A_DEVICE = re.compile(r"pt\d+|cu\d+|rocm\d+|cpu|benchmark|results|infer|train")
#: Words for engines in the names of files -> ours.
ENGINES = engine_spellings()


def named_conditions(name: str) -> Flags:
    """What the name of a file says; nothing where it is not named as timm's are.

    >>> named_conditions("benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv")
    Flags(device='rtx3090', dtype='amp_fp16', layout='nhwc', mode='eager', phase='inference', torch='2.4.0',
          conditions={})
    >>> named_conditions("benchmark-infer-fp32-nchw-pt221-cpu-i9_10940x-dynamo.csv").mode
    'compile'
    """
    words = re.sub(r"\.csv(\.gz)?$", "", name).lower().split("-")
    if words[0] != "benchmark":
        return Flags()
    dtype = next((DTYPES[word] for word in words if word in DTYPES), "")
    layout = next((word for word in words if word in ("nchw", "nhwc")), "")
    rest = [w for w in words if w not in DTYPES and w not in ENGINES and w != layout and not _NOT_A_DEVICE.fullmatch(w)]
    version = next((word for word in words if re.fullmatch(r"pt\d+", word)), "")
    return Flags(
        device="-".join(rest),
        dtype=dtype,
        layout=layout,
        mode=next((ENGINES[word] for word in words if word in ENGINES), "eager"),
        phase="train" if "train" in words else "inference",
        torch=_version(version.removeprefix("pt")),
    )


def _version(digits: str) -> str:
    """
    >>> _version("240"), _version("2100"), _version("112"), _version("1121")
    ('2.4.0', '2.10.0', '1.12', '1.12.1')
    """
    if digits.startswith("1"):
        return ".".join(filter(None, ("1", digits[1:3], digits[3:])))
    return ".".join((digits[:1], digits[1:-1], digits[-1:])) if len(digits) > 2 else digits


def timm_row(record: Mapping[str, str], file: str, line: int, flags: Flags) -> ModelRow:
    """One row of a benchmark file. The latency is the step time, else batch over samples a second.

    Raises RowError when the row cannot be used.
    """
    is_training = "infer_samples_per_sec" not in record and "infer_step_time" not in record
    kind = "train" if is_training else "infer"
    model = text(record, "model")
    batch = size(record, f"{kind}_batch_size")
    return ModelRow(
        times_device_inputs=True,
        phase=phase_word({}, "train" if is_training else flags.phase),
        file=file,
        line=line,
        model=model,
        request=request_of(model),
        device=_said("device", flags.device),
        dtype=checked_word({}, "dtype", _said("dtype", flags.dtype)),
        layout=checked_word({}, "layout", _said("layout", flags.layout)),
        mode=checked_word({}, "mode", flags.mode or "eager"),
        torch=flags.torch,
        batch=batch,
        sizes=image_sizes(record, f"{kind}_img_size"),
        latency_s=_step_time(record, kind, batch),
        conditions={"script": "timm", **flags.conditions},
        params=stated(record, "param_count", 1e6),
        macs=stated(record, "infer_gmacs", 1e9),
    )


def _step_time(record: Mapping[str, str], kind: str, batch: int) -> float:
    if record.get(f"{kind}_step_time"):
        return latency(record, f"{kind}_step_time", 1e-3)
    rate = number(record, f"{kind}_samples_per_sec")
    if rate <= 0:
        raise RowError(f"{kind}_samples_per_sec is not above 0")
    return batch / rate


def _said(what: str, value: str) -> str:
    if not value:
        raise RowError(f"the file's name does not say the {what}; give it as --{what}")
    return value
