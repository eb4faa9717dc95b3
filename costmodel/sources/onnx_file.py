"""Models saved as ONNX: ``model.onnx`` (extra ``torch-costmodel[onnx]``).

Only the graph is read: the shapes of weights, not their values, so that a file's external data need not be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from costmodel.errors import ModelError, UnknownModelError
from costmodel.sources.building import reason
from costmodel.sources.loaded import LoadedModel, TensorInput
from costmodel.sources.registry import Options, source

__all__: list[str] = []

#: What a size that the file leaves open is, where nobody says.
DEFAULTS = {"batch": 1, "height": 224, "width": 224, "seq_len": 128}


@source("onnx", claims=lambda request: request.endswith(".onnx"), builds=False)
def load(request: str, options: Options) -> LoadedModel:
    """The graph of an ONNX file as a module of torch operators; sizes with a name in the file stay open.

    Raises UnknownModelError for a missing file; ModelError for one that is no ONNX, where the reader is not installed,
    and for operators that are not read, all of them by name.
    """
    path = Path(request).expanduser()
    if not path.is_file():
        raise UnknownModelError(f"there is no file {path}")
    model = _read(path)
    from costmodel.onnx_reader import OnnxModule, dtype_of

    module = OnnxModule(model.graph, str(path))
    inputs = list(_inputs(model.graph, dtype_of))
    sizes = {dim: DEFAULTS.get(dim, 1) for tensor in inputs for dim in tensor.dims if isinstance(dim, str)}
    others = [name for name in sizes if name not in DEFAULTS]
    notes = [f"{name} is taken to be 1, as the file leaves it open" for name in others]
    if module.folded:
        notes.append("batch normalization was folded into the weights when the file was written")
    loaded = LoadedModel(path.stem, str(path), module.eval(), ((*inputs,), {}), sizes, notes)
    first = inputs[0].dims[0] if inputs and inputs[0].dims else None
    if isinstance(first, int):
        loaded.fixed_batch = first
        notes.append("saved with a fixed batch; an exporter's dynamic_shapes (dynamic_axes) leaves it open")
    return loaded


def _read(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise ModelError(
            f"reading {path.name} takes the library onnx, which is not installed\n"
            "  it comes with the extra onnx: pip install 'torch-costmodel[onnx]' from the project's folder"
        ) from None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelError(f"{path} is no ONNX model: {reason(error)}") from error
    if not model.graph.node:
        raise ModelError(f"{path} is no ONNX model: it has no nodes")
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
    return model


def _inputs(graph: Any, dtype_of: Any) -> Iterator[TensorInput]:
    """What the graph takes beside its weights, with names for the sizes that it leaves open."""
    weights = {tensor.name for tensor in graph.initializer}
    named: dict[str, str] = {}
    for value in graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        dims = list(kind.shape.dim)
        dtype = dtype_of(kind.elem_type)
        usual = _usual_names(len(dims), dtype.is_floating_point)
        found: list[int | str] = []
        for position, dim in enumerate(dims):
            if dim.HasField("dim_value"):
                found.append(int(dim.dim_value))
                continue
            own = dim.dim_param or f"{value.name}_{position}"
            found.append(named.setdefault(own, usual.get(position, own)))
        yield TensorInput(value.name, tuple(found), str(dtype).removeprefix("torch."))


def _usual_names(rank: int, is_floating: bool) -> dict[int, str]:
    """Names of an input's sizes: images, tokens, and whatever begins with a batch."""
    if rank == 4:
        return {0: "batch", 2: "height", 3: "width"}
    return {0: "batch", 1: "seq_len"} if rank == 2 and not is_floating else {0: "batch"}
