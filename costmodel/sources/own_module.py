"""A module that exists already, and example inputs: sizes that look like a batch, an image or a sequence get names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, ModelError, librarian
from costmodel.sources.building import home
from costmodel.sources.loaded import LoadedModel, TensorInput
from costmodel.sources.wrappers import unwrapped

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["as_call", "from_module", "template_of"]

#: Inputs up to this many elements keep their values.
VALUE_ELEMENTS = 1 << 16


def from_module(
    module: nn.Module,
    inputs: Any = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    name: str | None = None,
    name_sizes: bool = True,
) -> LoadedModel:
    """The caller's own module, untouched, with named inputs.

    ``inputs`` is a tensor, a tuple of positional arguments, a dict of keyword arguments, or a pair ``(tuple, dict)``
    of both; values may be nested containers, and need not be tensors. A list is one argument. ``input_shape`` is the
    shape of a sole float32 input without its batch. Size 0 of every tensor is named ``batch`` where all agree; the
    last two of a 4-d float tensor ``height`` and ``width``; the second of a 2-d integer tensor ``seq_len``.
    ``name_sizes=False`` names the batch only.

    Raises ModelError where ``module`` is no ``nn.Module``; InputError without inputs, or with both kinds.
    """
    from torch import nn

    if not isinstance(module, nn.Module):
        raise ModelError(f"a model is a torch.nn.Module, not {_described(module)}")
    title = name or type(module).__name__
    if inputs is None and input_shape is None:
        raise InputError(
            librarian(f"{title} came without inputs", do="Give example inputs, or an input shape such as 3,224,224.")
        )
    if inputs is not None and input_shape is not None:
        raise InputError(f"{title}: give either example inputs or an input shape, not both")
    module, around = unwrapped(module)
    args, kwargs = as_call(inputs) if input_shape is None else (_image_call(module, input_shape), {})
    template, sizes, notes = template_of(module, args, kwargs, name_sizes=name_sizes)
    source = f"{type(module).__module__}.{type(module).__qualname__}"
    return LoadedModel(title, source, module, template, sizes, around + notes)


def with_inputs(loaded: LoadedModel, inputs: Any) -> LoadedModel:
    """``loaded`` on inputs of the caller's, as :func:`from_module` takes them, instead of its own."""
    args, kwargs = as_call(inputs)
    template, sizes, notes = template_of(loaded.module, args, kwargs)
    return replace(loaded, template=template, sizes=sizes, notes=[*loaded.notes, *notes])


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}: call it to make one"
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _image_call(module: nn.Module, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """One argument of batch 1; integers where the module's first layer looks tokens up."""
    import torch
    from torch import nn

    first = next((m for m in module.modules() if not list(m.children())), None)
    tokens = isinstance(first, (nn.Embedding, nn.EmbeddingBag))
    return (torch.empty((1, *shape), dtype=torch.int64 if tokens else torch.float32, device="meta"),)


def as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``inputs`` as ``(args, kwargs)``."""
    if isinstance(inputs, dict):
        return (), dict(inputs)
    if not isinstance(inputs, tuple) or hasattr(inputs, "_fields"):
        return (inputs,), {}
    if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
        return inputs[0], dict(inputs[1])
    return inputs, {}


def template_of(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, name_sizes: bool = True
) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], dict[str, int], list[str]]:
    """(template, sizes, notes) of a call: tensors become TensorInputs with named sizes."""
    naming = _Naming(_tensors((args, kwargs)), name_sizes)
    names = _parameter_names(module, len(args))
    new_args = tuple(naming.walk(names[i], value) for i, value in enumerate(args))
    new_kwargs = {key: naming.walk(key, value) for key, value in kwargs.items()}
    return (new_args, new_kwargs), naming.sizes, naming.notes


def _parameter_names(module: nn.Module, count: int) -> list[str]:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return names + [f"input{i}" for i in range(len(names), count)]


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, torch.nn.utils.rnn.PackedSequence):
        yield tree.data
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _tensors(value)


def _kept_value(tensor: torch.Tensor) -> torch.Tensor | None:
    """The values of integers and masks, by which forward passes decide: lengths, indices, padding. All values where the
    module is to run (:func:`~costmodel.sources.building.real_weights`)."""
    if tensor.is_meta:
        return None
    numbers = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    small = tensor.device.type == "cpu" and tensor.numel() <= VALUE_ELEMENTS
    return tensor.detach().clone() if home() == "cpu" or (small and not numbers) else None


def _packed(name: str, sequence: Any) -> Any:
    """A packed sequence, all sizes numbers; the samples of each step are counted in the host's memory."""
    data = sequence.data
    leaf = TensorInput(f"{name}.data", tuple(data.shape), str(data.dtype).removeprefix("torch."), _kept_value(data))
    return type(sequence)._make((leaf, *sequence[1:]))


class _Naming:
    """Gives sizes their names while it walks a call; the first tensor of a kind decides what a name's value is."""

    def __init__(self, tensors: Iterator[torch.Tensor], name_sizes: bool) -> None:
        self.name_sizes = name_sizes
        self.sizes: dict[str, int] = {}
        self.notes: list[str] = []
        leading = {int(t.shape[0]) for t in tensors if t.dim() > 0}
        self.batch = leading.pop() if len(leading) == 1 else None
        if self.batch is not None:
            self.sizes["batch"] = self.batch
        elif leading:
            self.notes.append(
                f"the inputs disagree on size 0 ({', '.join(map(str, sorted(leading)))}): "
                "the batch is left a number and cannot be changed"
            )

    def walk(self, name: str, value: Any) -> Any:
        import torch

        if isinstance(value, torch.Tensor):
            return TensorInput(name, self._dims(value), str(value.dtype).removeprefix("torch."), _kept_value(value))
        if isinstance(value, dict):
            return {key: self.walk(f"{name}.{key}", item) for key, item in value.items()}
        if isinstance(value, torch.nn.utils.rnn.PackedSequence):
            return _packed(name, value)
        if isinstance(value, (list, tuple)):
            items = [self.walk(f"{name}.{i}", item) for i, item in enumerate(value)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value

    def _dims(self, tensor: torch.Tensor) -> tuple[int | str, ...]:
        dims: list[int | str] = [int(n) for n in tensor.shape]
        if tensor.dim() > 0 and self.batch is not None:
            dims[0] = "batch"
        if not self.name_sizes:
            return tuple(dims)
        if tensor.dim() == 4 and tensor.dtype.is_floating_point:
            self._name_last(dims, "height", "width")
        elif tensor.dim() == 2 and not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
            self._name_last(dims, "seq_len")
        return tuple(dims)

    def _name_last(self, dims: list[int | str], *names: str) -> None:
        """Name the last sizes, unless an earlier tensor gave the names to other values."""
        values = [int(n) for n in dims[-len(names) :]]
        if all(self.sizes.get(name, value) == value for name, value in zip(names, values, strict=True)):
            self.sizes.update(zip(names, values, strict=True))
            dims[-len(names) :] = names
