"""LoadedModel: what every source hands over, and TensorInput, an input whose sizes have names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, librarian
from costmodel.execution import WeightScheme
from costmodel.sources.building import home
from costmodel.symbols import LARGEST_SIZE, checked_size

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["LoadedModel", "TensorInput", "leaves", "map_leaves"]


@dataclass(frozen=True, slots=True)
class TensorInput:
    """A tensor that a model takes: sizes are numbers or the names of symbols.

    ``value`` is what the caller gave for it, where forward passes may decide by it: integers and masks.

    >>> TensorInput("x", ("batch", 3, "height", "width")).shape({"batch": 2, "height": 8, "width": 4})
    (2, 3, 8, 4)
    """

    name: str
    dims: tuple[int | str, ...]
    dtype: str = "float32"
    value: torch.Tensor | None = field(default=None, compare=False, repr=False)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape [elements] where the symbols take the values of ``sizes``.

        Raises InputError for a symbol without a value and for a size below 1.
        """
        return tuple(_positive(d, sizes, self.name) for d in self.dims)

    @property
    def free_dims(self) -> tuple[int | str, ...]:
        """The sizes without the batch: what ``--input-shape`` states."""
        return tuple(d for d in self.dims if d != "batch")


def _positive(dim: int | str, sizes: Mapping[str, int], owner: str) -> int:
    if isinstance(dim, int):
        return dim
    if dim not in sizes:
        raise InputError(librarian(f"input '{owner}' needs a value for '{dim}'", there_is=sorted(sizes)))
    return checked_size(dim, sizes[dim])


def map_leaves(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of ``tree`` (dicts, lists, tuples, named tuples) with every leaf changed.

    >>> map_leaves({"a": [1, (2, 3)]}, lambda leaf: leaf * 10)
    {'a': [10, (20, 30)]}
    """
    if isinstance(tree, dict):
        return {key: map_leaves(value, change) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        kind: Any = type(tree)
        return kind._make(map_leaves(value, change) for value in tree)  # some check their fields when called
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_leaves(value, change) for value in tree)
    return change(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """Every leaf of ``tree``, in order.

    >>> list(leaves(((1, [2]), {"k": 3})))
    [1, 2, 3]
    """
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (list, tuple)):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree


@dataclass(slots=True)
class LoadedModel:
    """A model ready to be traced, and what it takes.

    ``template`` is ``(args, kwargs)``, nested at will, whose leaves are :class:`TensorInput` or plain values.
    ``sizes`` holds the default of every symbol in it. ``notes`` are sentences that a report should show: what was
    assumed, chosen or rebuilt. ``source`` names the library and its version, or the file. ``limits`` holds the largest
    value of a size where the model has one (a table of positions); ``fixed_batch`` is the batch of a saved program
    whose batch is a number; ``built_for_size`` says that its source builds another module for another image size.
    ``assume`` holds the caller's answers to questions about values, by the line that asks, and ``plain`` those that the
    source gives where nobody says otherwise; ``random_weights`` says that
    the module's weights were drawn by its source, not learnt. ``loss`` makes a scalar of what the module returns, where
    it brings one of its own: a training step is made on it. ``weights`` says how they are stored, where that is
    narrower than in the module. ``prepare`` runs on the tracer's copy before a run is
    recorded, and gives the arguments of the run and further inputs with their names: the cache of a prompt. ``hint``
    says what to do where the forward pass fails.
    """

    name: str
    source: str
    module: nn.Module
    template: tuple[tuple[Any, ...], dict[str, Any]]
    sizes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    family: str | None = None
    limits: dict[str, int] = field(default_factory=dict)
    fixed_batch: int | None = None
    built_for_size: bool = False
    assume: dict[str, bool | int | float] = field(default_factory=dict)
    plain: dict[str, bool | int | float] = field(default_factory=dict)
    random_weights: bool = False
    loss: Callable[[Any], Any] | None = None
    weights: WeightScheme | None = None
    prepare: Callable[[Any, dict[str, Any]], tuple[dict[str, Any], list[tuple[str, Any]]]] | None = None
    hint: str = ""

    @property
    def tensor_inputs(self) -> list[TensorInput]:
        """The tensors of the template, in order."""
        return [leaf for leaf in leaves(self.template) if isinstance(leaf, TensorInput)]

    def inputs(self, sizes: Mapping[str, int] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``(args, kwargs)`` with tensors on meta; ``sizes`` override the defaults, and batch is 1 unless said.

        Inside :func:`~costmodel.sources.building.real_weights` they are zeros on the CPU.

        Raises InputError for a size that is not a positive integer, or that no input has.
        """
        import torch

        self.check(sizes or {})
        bound = {"batch": 1, **self.sizes, **(sizes or {})}

        def tensor(leaf: Any) -> Any:
            if not isinstance(leaf, TensorInput):
                return leaf
            shape, dtype = leaf.shape(bound), getattr(torch, leaf.dtype)
            if math.prod(shape) * dtype.itemsize > LARGEST_SIZE:  # torch would raise without naming the input
                raise InputError(f"input '{leaf.name}' of shape {shape} is larger than any memory can be")
            return torch.zeros(shape, dtype=dtype, device=home())

        args, kwargs = map_leaves(self.template, tensor)
        return args, kwargs

    @property
    def symbols(self) -> set[str]:
        """The names of the sizes that may be changed."""
        return {d for tensor in self.tensor_inputs for d in tensor.dims if isinstance(d, str)}

    def check_batch(self, batch: int | None) -> None:
        """Raise InputError where the batch is a number and another one is asked for."""
        own = self.fixed_batch or 1
        if batch in (None, own) or "batch" in self.symbols:
            return
        if self.fixed_batch:
            raise InputError(
                f"{self.source} fixes the batch at {own}, {batch} is asked for\n"
                "  export it with a free one: torch.export.export(model, args, dynamic_shapes=({0: Dim('batch')},)),\n"
                "  with Dim of torch.export and an entry for each input; example inputs of batch 2 or more keep it free"
            )
        inputs = "; ".join(f"{t.name} ({', '.join(map(str, t.dims))})" for t in self.tensor_inputs)
        raise InputError(f"{self.name} has no batch that could be {batch}\n  its inputs are: {inputs or 'none'}")

    def check(self, sizes: Mapping[str, int]) -> None:
        """Raise InputError for a size that no input has; a batch of 1 is every model's."""
        for name, value in sizes.items():
            if name not in self.symbols and (name, value) != ("batch", 1):
                raise InputError(
                    librarian(f"{self.name} has no size '{name}' to change", there_is=sorted(self.symbols) or "none")
                )

    def with_input_shape(self, shape: tuple[int, ...]) -> LoadedModel:
        """The same model with the first tensor input of this shape, the batch left out.

        Raises InputError where the rank, or a size that the model fixes, differs.
        """
        first = self.tensor_inputs[0]
        fits = len(shape) == len(first.free_dims) and all(
            isinstance(want, str) or want == have for want, have in zip(first.free_dims, shape, strict=True)
        )
        if not fits:
            wanted = ",".join(str(d) for d in first.free_dims)
            raise InputError(
                librarian(
                    f"input shape {','.join(map(str, shape))} does not fit {self.name}",
                    do=f"its input '{first.name}' is {wanted}, without the batch (--batch N)",
                )
            )
        named = {d: n for d, n in zip(first.free_dims, shape, strict=True) if isinstance(d, str)}
        changed = replace(self, sizes={**self.sizes, **named})
        first.shape({"batch": 1, **changed.sizes})
        return changed
