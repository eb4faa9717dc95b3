"""Traces of one real forward pass: which module runs, with which weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from costmodel.cache import CachedTrace
from costmodel.errors import InputError
from costmodel.execution import Phase, Variant

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ExecutedTraces"]


class ExecutedTraces:
    """The executed trace of a named model or a user's module, made once: another machine or dtype runs nothing.

    ``inputs`` as :func:`~costmodel.sources.own_module.from_module` takes them, or a file's path; None: drawn.
    ``input_shape`` is that of the first input, without its batch. What was run is kept here alone, never in the cache
    of traces.
    """

    def __init__(
        self,
        model: str | nn.Module,
        inputs: Any = None,
        *,
        input_shape: Sequence[int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.model, self.inputs, self.progress = model, inputs, progress
        self.input_shape = tuple(input_shape) if input_shape else None
        self._made: CachedTrace | None = None
        self._at: tuple[int, dict[str, int], Variant | None] = (1, {}, None)

    def __call__(self, batch: int | None, sizes: Mapping[str, int], variant: Variant) -> CachedTrace:
        """The trace at ``batch`` (None: the inputs') and ``sizes``. The first call runs the model, for ``device``.

        Raises InputError where another call asks for other inputs than those that were run.
        """
        if self._made is None:
            self._made = self._run(batch, sizes, variant)
            self._at = (batch or self._made.graph.batch or 1, dict(sizes), variant.anywhere)
        elif (batch or self._at[0], dict(sizes), variant.anywhere) != self._at:
            raise InputError(
                f"{self._made.name} was run once, at batch {self._at[0]}: its numbers are for those inputs\n"
                "  analyze it with execute=True (--execute) at what you ask for"
            )
        return self._made

    def _run(self, batch: int | None, sizes: Mapping[str, int], variant: Variant) -> CachedTrace:
        if variant.phase is Phase.TRAINING:
            raise InputError("a training step is traced on the meta device alone\n  leave out execute=True (--execute)")
        from costmodel.sources.runnable import runnable
        from costmodel.trace import execute

        loaded = runnable(self.model, self.inputs, sizes, self.input_shape)
        loaded.check(sizes)
        loaded.check_batch(batch)
        at = {**loaded.sizes, **sizes, **({} if batch is None else {"batch": batch})}
        graph = execute(loaded, sizes=at, variant=variant, progress=self.progress)
        return CachedTrace(loaded.name, loaded.source, graph, {})
