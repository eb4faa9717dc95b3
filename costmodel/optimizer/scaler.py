"""GradScaler: what ``torch.amp.GradScaler`` adds to a step, torch/amp/grad_scaler.py of torch 2.13.

The loss is multiplied by the scale before backward, and so is the seed of the gradient. ``unscale_`` makes the inverse
in fp64 and looks through all gradients for infinities in one call for each dtype; ``step`` reads on the host whether
there are any, for which it waits for the device; ``update`` adapts the scale. An optimizer that is fused unscales by
itself, is told on the device whether to skip the step, and so spares that wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.execution import NodePhase
from costmodel.optimizer.parameters import Parameter, groups_of
from costmodel.optimizer.weave import Ref, Weave
from costmodel.tensor import Role

__all__ = ["Scaler"]

#: ``GradScaler``'s defaults.
_GROWTH, _BACKOFF, _INTERVAL = 2.0, 0.5, 2000


@dataclass(slots=True)
class Scaler:
    """The scale of the loss, and the count of steps without an infinity, both on the device."""

    weave: Weave
    scale: int
    growth: int
    found_inf: int = -1

    @classmethod
    def of(cls, weave: Weave) -> Scaler:
        """A scaler that has been used before: its tensors are there when the step begins."""
        scale = weave.scalar("float32", Role.STATE, "grad_scaler.scale")
        return cls(weave, scale, weave.scalar("int32", Role.STATE, "grad_scaler.growth_tracker"))

    def scale_loss(self) -> None:
        """``scaler.scale(loss).backward()``: one multiplication ahead of the backward pass and one in it."""
        graph = self.weave.graph
        backward = [i for i, node in enumerate(graph.nodes) if node.phase is NodePhase.BACKWARD]
        if not backward or not graph.nodes[backward[0]].outputs:
            return
        first, (seed, *_) = backward[0], graph.nodes[backward[0]].outputs
        loss = next(iter(graph.nodes[first].inputs), seed)
        for name, tensor, phase, before in (
            ("grad_scaler.loss", loss, NodePhase.FORWARD, first),
            ("grad_scaler.seed", seed, NodePhase.BACKWARD, None),
        ):
            arguments = {"input": Ref(tensor), "other": Ref(self.scale)}
            made = self.weave.like(tensor, Role.ACTIVATION)
            after = None if before else first
            self._call("mul", arguments, made, name=name, phase=phase, before=before, after=after)
            self.weave.redirect(tensor, made)

    def unscale(self, parameters: Sequence[Parameter]) -> None:
        """``scaler.unscale_(optimizer)`` and the read of ``found_inf`` by ``scaler.step``."""
        wide = self._call("_to_copy", {"input": Ref(self.scale), "dtype": "float64"}, self._scalar("float64"))
        inverse = self._call("reciprocal", {"input": Ref(wide)}, self._scalar("float64"))
        inverse = self._call("_to_copy", {"input": Ref(inverse), "dtype": "float32"}, self._scalar())
        found = self._call("full", {"size": [], "fill_value": 0.0}, self._scalar())
        self._look_through(parameters, found, inverse)
        self.weave.call("aten._local_scalar_dense", {"input": Ref(self.found_inf)}, name="grad_scaler.item",
                        synchronizes=True)  # fmt: skip

    def check(self, parameters: Sequence[Parameter]) -> tuple[int, int]:
        """The same for an optimizer that unscales by itself: scale and ``found_inf`` to tell it."""
        inverse = self._call("full", {"size": [], "fill_value": 1.0}, self._scalar())
        found = self._call("full", {"size": [], "fill_value": 0.0}, self._scalar())
        self._look_through(parameters, found, inverse)
        told = self._call("add", {"input": Ref(self.found_inf), "other": 0}, self._scalar())
        scale = self._call("mul", {"input": Ref(self.scale), "other": 1}, self._scalar())
        return scale, told

    def update(self) -> None:
        """``scaler.update()``."""
        numbers = {"scale_growth_factor": _GROWTH, "scale_backoff_factor": _BACKOFF, "growth_interval": _INTERVAL}
        refs = {"input": Ref(self.scale), "growth_tracker": Ref(self.growth), "found_inf": Ref(self.found_inf)}
        written = [self.scale, self.growth]
        self.weave.call("aten._amp_update_scale", {**refs, **numbers}, writes=written, name="grad_scaler.update")

    def _look_through(self, parameters: Sequence[Parameter], found: int, inverse: int) -> None:
        """Both scalars are copied for the device at hand, and one call a dtype goes through the gradients."""
        found = self._call("_to_copy", {"input": Ref(found)}, self._scalar())
        inverse = self._call("_to_copy", {"input": Ref(inverse)}, self._scalar())
        for group in groups_of(self.weave, parameters, "grad"):
            gradients = [p.tensors["grad"] for p in group]
            arguments = {"input": [Ref(t) for t in gradients], "found_inf": Ref(found), "inv_scale": Ref(inverse)}
            *new, found = self.weave.call("aten._amp_foreach_non_finite_check_and_unscale", arguments,
                                          writes=[*gradients, found], name="grad_scaler.unscale")  # fmt: skip
            for parameter, tensor in zip(group, new, strict=True):
                parameter.tensors["grad"] = tensor
        self.found_inf = found

    def _scalar(self, dtype: str = "float32") -> int:
        return self.weave.scalar(dtype, Role.ACTIVATION)

    def _call(self, op: str, arguments: dict[str, Any], made: int, *, name: str = "", **where: Any) -> int:
        name = name or f"grad_scaler.{op.strip('_')}"
        return self.weave.call(f"aten.{op}", arguments, makes=[made], name=name, **where)[0]
