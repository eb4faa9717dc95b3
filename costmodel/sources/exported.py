"""Programs saved by ``torch.export.save``: ``model.pt2``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from costmodel.errors import ModelError, UnknownModelError
from costmodel.sources.building import building, home, quiet, reason
from costmodel.sources.loaded import LoadedModel, TensorInput, map_leaves
from costmodel.sources.own_module import template_of
from costmodel.sources.registry import Options, source

__all__: list[str] = []


@source("pt2", claims=lambda request: request.endswith(".pt2"), builds=False)
def load(request: str, options: Options) -> LoadedModel:
    """A saved ExportedProgram, where sources build; sizes that it was exported with as numbers stay fixed.

    Raises UnknownModelError for a missing file, ModelError for one that torch.export cannot read.
    """
    path = Path(request).expanduser()
    if not path.is_file():
        raise UnknownModelError(f"there is no file {path}")
    program = _program(path)
    args, kwargs = program.example_inputs or ((), {})
    module = program.module()
    template, sizes, notes = _template(program, module, args, kwargs)
    loaded = LoadedModel(path.stem, str(path), module, template, sizes, notes, family=None)
    loaded.fixed_batch = _fixed_batch(loaded)
    return loaded


def _fixed_batch(loaded: LoadedModel) -> int | None:
    """The leading size that all inputs have as a number: what the program was exported with."""
    leading = {tensor.dims[0] for tensor in loaded.tensor_inputs if tensor.dims}
    only = leading.pop() if len(leading) == 1 else None
    return only if isinstance(only, int) else None


def _program(path: Path) -> Any:
    import torch
    from torch.export.passes import move_to_device_pass

    try:
        with building(device=None), quiet("torch.export"):
            return move_to_device_pass(torch.export.load(str(path)), home())
    except Exception as error:
        raise ModelError(f"{path} is no program that torch.export.save wrote: {reason(error)}") from error


def _template(program: Any, module: Any, args: Any, kwargs: Any) -> Any:
    """(template, sizes, notes) of the call, with names only for the sizes that may change."""
    template, values, notes = template_of(module, tuple(args), dict(kwargs))
    shapes = iter(_shapes(program))
    sizes: dict[str, int] = {}

    def dynamic_only(leaf: Any) -> Any:
        shape = next(shapes)
        if not isinstance(leaf, TensorInput):
            return leaf
        dims: list[int | str] = []
        for dim, traced in zip(leaf.dims, shape, strict=True):
            number = values[dim] if isinstance(dim, str) else dim
            dims.append(number if isinstance(traced, int) else dim if isinstance(dim, str) else str(traced))
            if isinstance(dims[-1], str):
                sizes[dims[-1]] = number
        return replace(leaf, dims=tuple(dims))

    template = map_leaves(template, dynamic_only)
    if "batch" not in sizes:
        notes.append("exported with a fixed batch; torch.export's dynamic_shapes would leave it free")
    return template, sizes, notes


def _shapes(program: Any) -> Iterator[tuple[Any, ...]]:
    """The traced shape of each user input, in order; a size that may change is a SymInt."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for name in program.graph_signature.user_inputs:
        node = placeholders.get(name)  # None for a plain number
        yield tuple(getattr(node.meta.get("val"), "shape", ())) if node is not None else ()
