"""An ONNX graph as a torch module that runs its nodes one by one.

Values are of two kinds, as in a runtime: tensors on the device (torch), and what the host computes beside them
(numpy): shapes, axes, scalars. Sizes stay the objects that the tensor's shape gave, so that a size can be followed
through the arithmetic that exporters write out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import nn

from costmodel.errors import ModelError
from costmodel.onnx_reader import movement as _registers_operators  # noqa: F401
from costmodel.onnx_reader.host import HOST
from costmodel.onnx_reader.operators import OPERATORS
from costmodel.onnx_reader.types import HOST_ELEMENTS, dtype_of

__all__ = ["OnnxModule"]

_DOMAINS = ("", "ai.onnx")


def _run(operator: Any, *operands: Any, **attributes: Any) -> Any:
    return operator(*operands, **attributes)


class Scope(nn.Module):
    """A part of the model by its name in the file: its nodes are run in its name, and its weights lie in it."""

    def forward(self, operator: Any, *operands: Any, **attributes: Any) -> Any:
        """Run one node."""
        return _run(operator, *operands, **attributes)


class OnnxModule(nn.Module):
    """Runs the nodes of an ONNX graph on torch tensors, in the file's order.

    ``folded``: whether batch normalizations seem to be folded into convolutions.
    Raises ModelError where nodes are not read, naming each operator and how often it occurs.
    """

    def __init__(self, graph: Any, name: str) -> None:
        super().__init__()
        self._outputs = [value.name for value in graph.output]
        self._check(graph, name)
        self._constants: dict[str, numpy.ndarray[Any, Any]] = {}
        self._weights: dict[str, tuple[str, str]] = {}
        statistics = {n for node in graph.node if node.op_type == "BatchNormalization" for n in node.input[3:5]}
        for tensor in graph.initializer:
            self._keep(tensor, tensor.name, is_statistic=tensor.name in statistics)
        self._inputs = [v.name for v in graph.input if v.name not in self._constants and v.name not in self._weights]
        self._nodes = [self._node(node) for node in graph.node]
        self._let_go = self._read_last()
        kinds = {node.op_type for node in graph.node}
        self.folded = "Conv" in kinds and any(n.startswith("onnx::Conv") for n in self._weights)

    def _check(self, graph: Any, name: str) -> None:
        unread = Counter(
            node.op_type if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"
            for node in graph.node
            if node.domain not in _DOMAINS or node.op_type not in (*OPERATORS, *HOST, "Constant")
        )
        if unread:
            said = ", ".join(f"{op} ({count})" for op, count in sorted(unread.items()))
            raise ModelError(
                f"{name} has operators that are not read: {said}\n"
                "  give the model that it was exported from, as a module or path/to/file.py:factory"
            )

    # -- weights and constants -----------------------------------------------------------------

    def _keep(self, tensor: Any, name: str, *, is_statistic: bool = False) -> None:
        """An initializer or a constant: a weight on the device, or a small value of the host's."""
        import onnx

        dtype, elements = dtype_of(tensor.data_type), int(numpy.prod(tensor.dims, dtype=numpy.int64))
        is_stored = tensor.data_location != onnx.TensorProto.EXTERNAL
        if is_stored and (not tensor.dims or (not dtype.is_floating_point and elements <= HOST_ELEMENTS)):
            self._constants[name] = onnx.numpy_helper.to_array(tensor)
            return
        made = torch.empty(tuple(tensor.dims), dtype=dtype, device="meta")
        *path, leaf = [re.sub(r"\W", "_", part) or "_" for part in name.lstrip("/").split(".")]
        scope, where = self._scope(".".join(path))
        leaf = leaf if leaf not in scope._parameters and leaf not in scope._buffers else f"{leaf}_{len(self._weights)}"
        if dtype.is_floating_point and not is_statistic:
            scope.register_parameter(leaf, nn.Parameter(made))
        else:
            scope.register_buffer(leaf, made)
        self._weights[name] = (where, leaf)

    def _part(self, path: str) -> Any:
        """What runs a node in the name of the part of that path."""
        return self.get_submodule(path) if path else _run

    def _scope(self, path: str) -> tuple[nn.Module, str]:
        """The part of that path, made where it is new, and its full name."""
        scope: nn.Module = self
        for part in path.split(".") if path else ():
            if part not in scope._modules:
                scope.add_module(part, Scope())
            scope = scope.get_submodule(part)
        return scope, path

    # -- nodes ---------------------------------------------------------------------------------

    def _node(self, node: Any) -> tuple[str, str, list[str], list[str], dict[str, Any]]:
        """(operator, the part that it belongs to, inputs, outputs, attributes)."""
        import onnx

        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            self._constant(node.output[0], attributes)
        for key, value in attributes.items():
            attributes[key] = value.decode() if isinstance(value, bytes) else value
        _, where = self._scope(_path(node))
        return node.op_type, where, list(node.input), list(node.output), attributes

    def _read_last(self) -> list[list[str]]:
        """For each node the values that nothing reads after it: a runtime frees them there."""
        kept, found = {"", *self._outputs, *self._inputs, *self._constants, *self._weights}, []
        for _, _, given, put_out, _ in reversed(self._nodes):
            last = [name for name in dict.fromkeys((*given, *put_out)) if name not in kept]
            kept.update(last)
            found.append(last)
        return found[::-1]

    def _constant(self, name: str, attributes: Mapping[str, Any]) -> None:
        (value,) = attributes.values()
        if hasattr(value, "data_type"):
            self._keep(value, name)
        else:
            self._constants[name] = numpy.asarray(value)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the graph puts out, in its order: one tensor, or a tuple."""
        values: dict[str, Any] = {"": None, **self._constants, **dict(zip(self._inputs, inputs, strict=True))}
        parts = {where: self.get_submodule(where) for where, _ in self._weights.values()}
        values |= {name: getattr(parts[where], leaf) for name, (where, leaf) in self._weights.items()}
        for (kind, where, given, put_out, attributes), let_go in zip(self._nodes, self._let_go, strict=True):
            if kind == "Constant":
                continue
            operands = [values[name] for name in given]
            run = self._reader(kind, operands)
            result = self._part(where)(run, *operands, outputs=len(put_out), **attributes)
            results = result if isinstance(result, tuple) else (result,)
            values.update(zip(put_out, results, strict=False))
            del operands, result, results
            for name in let_go:
                values.pop(name, None)
        found = tuple(values[name] for name in self._outputs)
        return found[0] if len(found) == 1 else found

    def _reader(self, kind: str, operands: list[Any]) -> Any:
        """The host's way where all operands are the host's, or the result is one whatever they are."""
        on_host = all(not isinstance(operand, torch.Tensor) for operand in operands)
        if kind in HOST and (on_host or kind not in OPERATORS):
            return HOST[kind]
        return OPERATORS[kind]


def _path(node: Any) -> str:
    """The module that a node comes from, as exporters write it: scopes in its metadata, or in its name.

    ``/layer1/layer1.0/conv1/Conv`` is a node of ``layer1.0.conv1``.
    """
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = re.findall(r"'([^']*)'", entry.value)
            return scopes[-2] if len(scopes) > 1 else ""
    path: list[str] = []
    for part in node.name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(re.sub(r"[^\w.]", "_", part))
    return ".".join(path)
