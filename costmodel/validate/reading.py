"""Measured timings from files: ``.csv`` and ``.csv.gz`` in the formats that DESIGN and others use.

whole models   ``model,device,phase,dtype,layout,mode,torch,batch,image_size,latency_ms``
operators      ``device,op,dtype,input,other,stride,padding,groups,latency_us,algorithm,timing``
attention      ``device,op,dtype,batch,q_len,kv_len,heads,kv_heads,head_dim,...,latency_us``, see
               :mod:`costmodel.validate.attention`
timm           the CSV files of timm's own benchmark script, see :mod:`costmodel.validate.timm_csv`
memory         ``model,device,...,batch,memory_mb,memory_kind``, see :mod:`costmodel.validate.memory`
transformers   NeuSight's end-to-end file, see :mod:`costmodel.validate.neusight_csv`
NVIDIA         tables of NVIDIA's example READMEs, see :mod:`costmodel.validate.nvidia_csv`

A row that cannot be used is an :class:`~costmodel.validate.rows.Unusable` with a reason; none is dropped.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from costmodel.errors import InputError, librarian
from costmodel.validate.attention import attention_row
from costmodel.validate.cells import SAID_FOR_ALL, Flags, RowError
from costmodel.validate.memory import memory_row
from costmodel.validate.model_csv import model_row
from costmodel.validate.neusight_csv import neusight_row
from costmodel.validate.nvidia_csv import nvidia_row
from costmodel.validate.operator_csv import operator_row
from costmodel.validate.rows import Measured, MeasuredRow, Unusable
from costmodel.validate.timm_csv import named_conditions, timm_row

__all__ = ["read_measured"]

Record = Mapping[str, str]
Reader = Callable[[Record, str, int, Flags], MeasuredRow]

#: (columns that tell a format, its reader), the first that fits wins.
_FORMATS: tuple[tuple[frozenset[str], Reader], ...] = (
    (frozenset({"op", "input", "latency_us"}), operator_row),
    (frozenset({"op", "q_len", "kv_len", "latency_us"}), attention_row),
    (frozenset({"model", "seqlen", "e2e_ms"}), neusight_row),
    (frozenset({"model", "infer_samples_per_sec"}), timm_row),
    (frozenset({"model", "infer_step_time"}), timm_row),
    (frozenset({"model", "train_samples_per_sec"}), timm_row),
    (frozenset({"model", "framework", "engine", "throughput_per_s"}), nvidia_row),
    (frozenset({"model", "latency_ms"}), model_row),
    (frozenset({"model", "memory_mb", "memory_kind"}), memory_row),
)


def read_measured(paths: Sequence[str | Path], flags: Flags | None = None, *, device: str = "") -> Measured:
    """The rows of all files. ``flags`` give what a file does not say, and win over a timm file's name; ``device`` is
    that of rows for which neither says one.

    Raises InputError for a file that cannot be read, has none of the formats, or holds no usable row.
    """
    rows: list[MeasuredRow] = []
    unusable: list[Unusable] = []
    for path in map(Path, paths):
        found = _read_file(path, flags or Flags(), Flags(device=device))
        rows += found.rows
        unusable += found.unusable
    return Measured(tuple(rows), tuple(unusable))


def _read_file(path: Path, flags: Flags, otherwise: Flags) -> Measured:
    header, records = _records(path)
    reader = next((reader for columns, reader in _FORMATS if columns <= set(header)), None)
    if reader is None:
        raise InputError(
            librarian(
                f"{path} is no file of measured timings: its columns are {', '.join(header) or 'none'}",
                do="whole models: model,device,phase,dtype,layout,mode,torch,batch,image_size,latency_ms\n"
                "operators: device,op,dtype,input,other,stride,padding,groups,latency_us,algorithm,timing\n"
                "timm's benchmark CSVs are read as they are",
            )
        )
    given = (flags.over(named_conditions(path.name)) if reader is timm_row else flags).over(otherwise)
    rows: list[MeasuredRow] = []
    unusable: list[Unusable] = []
    for line, record in enumerate(records, start=2):
        try:
            rows.append(reader(record, str(path), line, given))
        except RowError as error:
            about = record.get("model") or record.get("op") or ""
            unusable.append(Unusable(file=str(path), line=line, reason=str(error), about=about))
    if not rows:
        raise InputError(_nothing_usable(path, unusable))
    return Measured(tuple(rows), tuple(unusable))


def _nothing_usable(path: Path, unusable: Iterable[Unusable]) -> str:
    reasons = Counter(row.reason for row in unusable)
    if not reasons:
        return f"{path} holds no rows"
    listed = [f"{count} x {reason}" for reason, count in reasons.most_common(10)]
    said = [name for name in SAID_FOR_ALL if f"missing column: {name}" in reasons]
    listed += [f"--{name} WORD says it for all rows" for name in said]
    return librarian(f"no row of {path} can be used", do="\n".join(listed))


def _records(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a CSV file; cells that are missing at a row's end are empty."""
    try:
        open_file = gzip.open if path.suffix == ".gz" else open
        with open_file(path, "rt", newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", restkey="(more)")
            records = [{key: value for key, value in row.items() if key != "(more)"} for row in reader]
            return [name or "" for name in reader.fieldnames or ()], records
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no CSV file: {error}") from error
