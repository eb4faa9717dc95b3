"""Rows of operators: ``device,op,dtype,input,other,stride,padding,groups,latency_us,algorithm,timing``."""

from __future__ import annotations

from collections.abc import Mapping

from costmodel.validate.cells import Flags, RowError, checked_word, latency, optional_size, text
from costmodel.validate.operators import is_known
from costmodel.validate.quantized import DTYPES as QUANTIZED
from costmodel.validate.quantized import layer_of
from costmodel.validate.rows import OperatorRow

__all__ = ["operator_row"]

#: Algorithms of cuDNN by their names in measured files. A file that cut a name off at the left is read as the whole.
_ALGORITHMS = ("implicit_gemm", "implicit_precomp_gemm", "gemm", "direct", "fft", "fft_tiling", "winograd",
               "winograd_nonfused")  # fmt: skip
TIMINGS = ("eager_call", "kernel", "graph_replay")


def operator_row(record: Mapping[str, str], file: str, line: int, flags: Flags) -> OperatorRow:
    """One row. Raises RowError when it cannot be used: unknown operator, a shape that is none, NaN, ..."""
    op = text(record, "op")
    if not is_known(op):
        raise RowError(f"unknown operator: {op}")
    timing = text(record, "timing", "kernel")
    if timing not in TIMINGS:
        raise RowError(f"unknown timing: {timing}")
    algorithm, library = _algorithm((record.get("algorithm") or "").strip().lower()), _library(record)
    if (record.get("dtype") or "").strip() in QUANTIZED:
        dtype = text(record, "dtype")
        layer = layer_of(dtype, library)
        algorithm = layer.algorithm
        timing = "eager_call" if layer.is_call else timing
    else:
        dtype = checked_word(record, "dtype", flags.dtype)
    return OperatorRow(
        file=file,
        line=line,
        device=text(record, "device", flags.device),
        op=op,
        dtype=dtype,
        input=_sizes(record, "input", least=1),
        other=_optional_sizes(record, "other", least=1),
        stride=_optional_sizes(record, "stride", least=1),
        padding=_optional_sizes(record, "padding", least=0),
        dilation=_optional_sizes(record, "dilation", least=1),
        groups=optional_size(record, "groups") or 1,
        latency_s=latency(record, "latency_us", 1e-6),
        algorithm=algorithm,
        timing=timing,
        library=library,
    )


def _library(record: Mapping[str, str]) -> str:
    """Framework and kernel, without the numbers of layers: ``trtllm 1.0.0 PLUGIN_V2_SmoothQuantGemm_0``."""
    kernel = (record.get("kernel") or "").strip().rpartition("/")[2]
    return " ".join(part for part in ((record.get("framework") or "").strip(), kernel) if part)


def _algorithm(name: str) -> str:
    """The name, or the only one of cuDNN's that ends so.

    >>> _algorithm("licit_precomp_gemm"), _algorithm("gemm"), _algorithm("miopen_asm")
    ('implicit_precomp_gemm', 'gemm', 'miopen_asm')
    """
    whole = [known for known in _ALGORITHMS if known.endswith(name)]
    return whole[0] if name not in _ALGORITHMS and len(whole) == 1 else name


def _sizes(record: Mapping[str, str], column: str, *, least: int) -> tuple[int, ...]:
    """``38x893x5x5`` -> (38, 893, 5, 5); whole numbers may be written 1.0."""
    try:
        values = [float(part) for part in text(record, column).split("x")]
        sizes = tuple(int(value) for value in values)
    except (ValueError, OverflowError):
        raise RowError(f"no shape: {column}") from None
    if any(size != value or size < least for size, value in zip(sizes, values, strict=True)):
        raise RowError(f"no shape: {column}")
    return sizes


def _optional_sizes(record: Mapping[str, str], column: str, *, least: int) -> tuple[int, ...]:
    return _sizes(record, column, least=least) if (record.get(column) or "").strip() else ()
