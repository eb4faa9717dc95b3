"""The conditions of a measured run, as far as :class:`~costmodel.kernels.Execution` has fields for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.kernels import Execution
from costmodel.validate.rows import MeasuredRow, ModelRow, OperatorRow

__all__ = ["assumed", "check_names", "execution_of"]

#: Columns that are called otherwise in Execution.
_FIELD_OF = {"torch": "torch_version"}

#: What a row's own columns say of it, and no further condition may change.
_OWN = frozenset({"batch", "sizes", "dtype", "layout", "mode", "phase"})


def assumed(row: ModelRow) -> dict[str, Any]:
    """Conditions that a row was measured under unless a column of it, or the user, says otherwise.

    Whoever publishes timings of convolutional networks lets cuDNN choose (``cudnn.benchmark``). timm's own script
    besides keeps timm's normalization layers in the lower precision (``fast_norm``), allows TF32 in matrix products,
    and folds branches that can be
    folded in its files of torch 2.9 and later (RepGhostNet and GhostNetV3 are twice as fast there as in those of 2.4).
    """
    conditions: dict[str, Any] = {"cudnn_benchmark": True}
    if row.request.startswith("timm:"):
        release = [int(part) for part in row.torch.partition("+")[0].split(".")[:2] if part.isdigit()]
        conditions |= {"fast_norm": True, "tf32_matmul": True, "reparameterized": release >= [2, 9]}
    return conditions


def check_names(conditions: Mapping[str, str]) -> None:
    """Raise InputError for a condition that Execution has no field for, or that is a row's own."""
    known = [f.name for f in fields(Execution) if f.name not in _OWN]
    for name in conditions:
        if name not in known:
            raise InputError(
                librarian(f"no condition of a run is called {name!r}", there_is=known, near=near_matches(name, known))
            )


def execution_of(row: MeasuredRow, graph_symbols: Mapping[str, Any]) -> Execution:
    """The Execution that a row was measured under; sizes are those that the graph leaves open.

    Columns that Execution has no field for are ignored. Raises InputError for a value that it does not take.
    """
    if isinstance(row, OperatorRow):
        return Execution(batch=1, dtype=row.dtype)
    known = {f.name: f for f in fields(Execution) if f.name not in _OWN}
    given: dict[str, Any] = {**assumed(row), **({"torch": row.torch} if row.torch else {}), **row.conditions}
    renamed = {_FIELD_OF.get(name, name): value for name, value in given.items()}
    further = {name: _typed(name, value, known[name].default) for name, value in renamed.items() if name in known}
    return Execution(
        batch=row.batch,
        sizes={name: size for name, size in row.sizes.items() if name in graph_symbols},
        dtype=row.dtype,
        layout=row.layout,
        mode=row.mode,
        phase=row.phase,
        **further,
    )


def _typed(name: str, value: Any, default: Any) -> Any:
    """A cell's text as what the field's default is; yes and no as a truth value."""
    if not isinstance(value, str):
        return value
    try:
        if isinstance(default, bool) or (default is None and value.lower() in ("true", "false")):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[value.lower()]
        return type(default)(value) if isinstance(default, (int, float)) else value
    except (KeyError, ValueError):
        raise InputError(f"{name}: {value!r} is no {type(default).__name__}") from None
