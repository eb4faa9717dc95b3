"""The conditions of a measured run, as far as :class:`~costmodel.execution.Execution` has fields for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.execution import Execution, Phase, Software
from costmodel.execution.optimizer import Optimizer
from costmodel.execution.trained import Trained
from costmodel.execution.words import truth
from costmodel.validate.quantized import DTYPES as QUANTIZED
from costmodel.validate.rows import MeasuredRow, ModelRow, OperatorRow

__all__ = ["assumed", "check_names", "execution_of", "is_in_train_mode", "unsaid"]

#: Columns that tell a row of timm's benchmark script in another format; the reader of its own files says "script".
_OF_TIMMS_SCRIPT = {"gmacs", "mactivations"}
#: The release that stands for all of PyTorch 1: the oldest with autocast.
OLDEST_TORCH = "1.6"
#: Conditions of a run beside its software's that a row may state: where its inputs lay, the mode of the module, and the
#: optimizer of a training step.
_OF_THE_RUN = ("inputs", "train_mode", *Optimizer.names(), *Trained.names())


def assumed(row: ModelRow) -> dict[str, Any]:
    """Conditions that a row was measured under unless a column of it, or the user, says otherwise.

    A row of timm's own script is known by what it prints beside the time (:data:`_OF_TIMMS_SCRIPT`). That script keeps
    timm's normalization layers in the lower precision (``fast_norm``) since August 2022, which is after its files of
    torch 1.12; it allows TF32 in matrix products, and folds branches that can be folded in its files of torch 2.9 and
    later (RepGhostNet and GhostNetV3 are twice as fast there as in those of 2.4). It trains with
    ``create_optimizer_v2(opt="sgd")``, which is SGD with Nesterov's momentum and no decay of weights, and without a
    scaler of the loss.
    """
    conditions: dict[str, Any] = {}
    if row.request.startswith("timm:") and _is_of_timms_script(row):
        release = [int(part) for part in row.torch.partition("+")[0].split(".")[:2] if part.isdigit()]
        conditions |= {"fast_norm": not release or release >= [1, 13], "tf32_matmul": True}
        conditions["reparameterized"] = release >= [2, 9]
        if row.phase == Phase.TRAINING.value:
            conditions |= {"optimizer": "nesterov", "grad_scaler": False, "reparameterized": False}
    if _allows_tf32(row.torch):
        conditions["tf32_matmul"] = True
    return conditions


def _allows_tf32(torch: str) -> bool:
    """Whether a release multiplies fp32 matrices in TF32 by default: PyTorch's own from 1.7 to 1.11, and the builds of
    NVIDIA's containers, which carry a commit of a version to come (``1.13.0a0+d0d6b1f``) and set
    ``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE``, from 1.7 on.

    >>> [_allows_tf32(torch) for torch in ("1.6", "1.7.0a0+7036e91", "1.12", "1.13.0a0+d0d6b1f", "2.4.0", "")]
    [False, True, False, True, False, False]
    """
    release = tuple(int(part) for part in torch.split(".")[:2] if part.isdigit())
    return (1, 7) <= release < (1, 12) or (release >= (1, 7) and "a0" in torch)


def _is_of_timms_script(row: ModelRow) -> bool:
    return row.conditions.get("script") == "timm" or bool(_OF_TIMMS_SCRIPT & set(row.conditions))


def check_names(conditions: Mapping[str, str]) -> None:
    """Raise InputError for a condition that is none of these; all others are columns of a row."""
    known = (*_OF_THE_RUN, *Software.names())
    for name in conditions:
        if name not in known:
            raise InputError(
                librarian(f"no condition of a run is called {name!r}", there_is=known, near=near_matches(name, known))
            )


def execution_of(row: MeasuredRow, graph_symbols: Mapping[str, Any]) -> Execution:
    """The Execution that a row was measured under; sizes are those that the graph leaves open.

    Columns that say nothing of the software are ignored. Raises InputError for a value that it does not take.
    """
    if isinstance(row, OperatorRow):
        # A quantized layer's own activations and results are bf16; what it multiplies, its plan says.
        return Execution.of(dtype="bf16" if row.dtype in QUANTIZED else row.dtype)
    said = {**assumed(row), **({"torch": row.torch} if row.torch else {}), **row.conditions}
    return Execution.of(
        batch=row.batch,
        sizes={name: size for name, size in row.sizes.items() if name in graph_symbols},
        dtype=row.dtype,
        layout=row.layout,
        mode=row.mode,
        phase=row.phase,
        **{name: said[name] for name in _OF_THE_RUN if name in said},
        **Software.parsed(said),
    )


def is_in_train_mode(row: ModelRow) -> bool:
    """Whether the forward pass was that of a module in train mode."""
    return truth(row.conditions.get("train_mode", False))


def unsaid(row: ModelRow) -> dict[str, Any]:
    """Conditions that slow a step down and may have held, since nobody says otherwise: an older PyTorch, inputs that
    the step copies from the host. An interval of a row that leaves them open has to hold both cases.

    Scripts that are known (timm's, NeuSight's) time inputs on the device.
    """
    conditions: dict[str, Any] = {}
    if not row.torch:
        conditions["torch"] = OLDEST_TORCH
    on_device = row.times_device_inputs or _is_of_timms_script(row)
    if "inputs" not in row.conditions and not on_device:
        conditions["inputs"] = "host"
    return conditions
