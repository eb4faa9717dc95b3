"""Parameters whose gradients are sparse (``nn.Embedding(sparse=True)``): only the rows that were looked up are stepped.

A gradient is the rows of values and, beside it, which rows they are. ``torch.optim.SGD`` adds it to the table
(``add_out_dense_sparse_cuda``, aten/src/ATen/native/sparse/cuda/SparseCUDATensorMath.cu: the values times the rate,
then ``index_add_``); SparseAdam (torch/optim/_functional.py, ``sparse_adam``) sums rows that occur twice, then steps
the moments of those rows. Rows are taken to differ. torch 2.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.errors import InputError
from costmodel.execution import Optimizer
from costmodel.optimizer.parameters import Parameter
from costmodel.optimizer.weave import Ref, Weave
from costmodel.tensor import Role

__all__ = ["ROWS", "check_sparse", "step_rows"]

#: What a parameter with a sparse gradient has besides: the rows that its values are for.
ROWS = "rows"
_LR, _BETA1, _BETA2, _EPS = 1e-3, 0.9, 0.999, 1e-8


def check_sparse(parameters: Sequence[Parameter], optimizer: Optimizer) -> None:
    """Raises InputError where the optimizer has no step for a sparse gradient, or one that grows from step to step."""
    name = next((p.name for p in parameters if ROWS in p.tensors), "")
    plain = optimizer.algorithm == "sgd" and not optimizer.decays and not optimizer.fused
    if not name or plain or optimizer.algorithm in ("none", "sparse_adam"):
        return
    reason = "torch.optim refuses it"
    if optimizer.algorithm in ("momentum", "nesterov") and not optimizer.decays and not optimizer.fused:
        reason = "its momentum is a sparse tensor that holds the rows of all steps so far, and grows"
    raise InputError(
        f"{name} has a sparse gradient, and {optimizer} has no step for it: {reason}\n"
        "  --optimizer sgd adds it to the rows that were looked up; sparse_adam is SparseAdam for such parameters and "
        "Adam for the others\n"
        "  or make the layer with sparse=False"
    )


def step_rows(weave: Weave, parameter: Parameter, optimizer: Optimizer) -> None:
    """The step of one parameter."""
    _Rows(weave, parameter).sparse_adam() if optimizer.algorithm == "sparse_adam" else _Rows(weave, parameter).sgd()


class _Rows:
    """Calls over the rows of one parameter."""

    def __init__(self, weave: Weave, parameter: Parameter) -> None:
        self.weave, self.parameter = weave, parameter
        self.grad, self.rows = parameter.tensors["grad"], parameter.tensors[ROWS]

    def sgd(self) -> None:
        """The values times the rate, added to their rows."""
        scaled = self.make("mul", self.grad, {"other": -_LR}, "scaled")
        self.add_to("param", scaled)

    def sparse_adam(self) -> None:
        """Rows that occur twice are summed; then both moments and the parameter are stepped, row by row."""
        for state in ("exp_avg", "exp_avg_sq"):
            name = f"{self.parameter.name}.{state}"
            self.parameter.tensors[state] = self.weave.like(self.parameter.tensors["param"], Role.STATE, name)
        self.coalesce()
        old = self.look_up("exp_avg")
        change = self.make("sub", self.grad, {"other": Ref(old)}, "exp_avg.change")
        change = self.change("mul", change, {"other": 1 - _BETA1})
        self.add_to("exp_avg", change)
        old_square = self.look_up("exp_avg_sq")
        square = self.make("pow", self.grad, {"exponent": 2}, "exp_avg_sq.change")
        square = self.change("sub", square, {"other": Ref(old_square)})
        square = self.change("mul", square, {"other": 1 - _BETA2})
        self.add_to("exp_avg_sq", square)
        step = self.change("add", change, {"other": Ref(old)})
        root = self.change("add", square, {"other": Ref(old_square)})
        root = self.change("add", self.change("sqrt", root, {}), {"other": _EPS})
        step = self.change("div", step, {"other": Ref(root)})
        self.add_to("param", self.make("mul", step, {"other": -_LR}, "step"))

    # -- calls -----------------------------------------------------------------------------------

    def call(self, op: str, arguments: dict[str, Any], word: str, **places: Sequence[int]) -> list[int]:
        name = f"{self.parameter.name}.{word}"
        return self.weave.call(op, arguments, name=name, module=self.parameter.module, **places)  # type: ignore[arg-type]

    def make(self, op: str, first: int, others: dict[str, Any], word: str) -> int:
        """A new tensor from one as large as the gradient."""
        made = self.weave.like(first, Role.ACTIVATION)
        return self.call(f"aten.{op}", {"input": Ref(first), **others}, word, makes=[made])[0]

    def change(self, op: str, first: int, others: dict[str, Any]) -> int:
        """The same in place."""
        return self.call(f"aten.{op}", {"input": Ref(first), **others}, op, writes=[first])[0]

    def look_up(self, state: str) -> int:
        """Rows of a state (``sparse_mask``)."""
        made = self.weave.like(self.grad, Role.ACTIVATION)
        arguments = {"input": Ref(self.parameter.tensors[state]), "dim": 0, "index": Ref(self.rows)}
        return self.call("aten.index_select", arguments, f"{state}.rows", makes=[made])[0]

    def add_to(self, word: str, values: int) -> None:
        """Values added to the rows of the parameter, or of one of its states."""
        table = self.parameter.tensors[word]
        arguments = {"input": Ref(table), "dim": 0, "index": Ref(self.rows), "source": Ref(values), "in_place": True}
        (self.parameter.tensors[word],) = self.call("aten.index_add", arguments, f"{word}.add", writes=[table])

    def coalesce(self) -> None:
        """Sorted rows, and the sums of the values of each."""
        made = [self.weave.like(self.rows, Role.ACTIVATION), self.weave.like(self.grad, Role.ACTIVATION)]
        arguments = {"indices": Ref(self.rows), "values": Ref(self.grad)}
        self.rows, self.grad = self.call("sparse.coalesce", arguments, "grad.coalesce", makes=made)
