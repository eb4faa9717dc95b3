"""Records what a module asks of the dispatcher, on the meta device, without computing anything.

The recorder is a ``TorchDispatchMode`` under ``torch.inference_mode``. There, autograd is out of the way and
composite operators reach the mode whole, so that ``linear``, ``conv2d``, ``batch_norm``, ``layer_norm`` or
``scaled_dot_product_attention`` are one node each (:data:`KEPT_WHOLE`), while composites without a meaning of
their own (``reshape``, ``flatten``, ``dropout``, ...) are decomposed into what they really do.
Nothing is patched and no hook is placed on the user's module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel.errors import TraceError
from costmodel.trace.guard import Guard

__all__ = ["KEPT_WHOLE", "RawNode", "RawTensor", "RawTrace", "Recorder", "TensorIndex"]

#: Composite operators recorded as one node: the level at which people think, autocast decides and formulas exist.
KEPT_WHOLE = frozenset(
    """linear bilinear matmul einsum conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    scaled_dot_product_attention batch_norm layer_norm group_norm instance_norm rms_norm lstm gru rnn_tanh rnn_relu
    softmax log_softmax max_pool1d max_pool2d max_pool3d avg_pool1d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d one_hot""".split()
)

#: Operators whose result depends on values: a static trace cannot follow what the model does with them.
DATA_DEPENDENT = frozenset(
    "_local_scalar_dense nonzero masked_select unique_dim unique_consecutive _unique2 nonzero_static equal".split()
)

#: Tensors computed on the CPU (position grids, masks) stay real up to this many elements: a model may look at them.
REAL_CPU_ELEMENTS = 1 << 16

_DTYPE_NAMES: dict[torch.dtype, str] = {}


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``float32``."""
    return _DTYPE_NAMES.get(dtype) or _DTYPE_NAMES.setdefault(dtype, str(dtype).removeprefix("torch."))


@dataclass(slots=True)
class TensorIndex:
    """Stands for a tensor among recorded arguments: an index into ``RawTrace.tensors``."""

    index: int


@dataclass(slots=True)
class RawTensor:
    """A tensor as seen: concrete sizes, the storage that it lies in, who made it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    storage: int
    producer: int | None
    role: str
    name: str


@dataclass(slots=True)
class RawNode:
    """An operator call as seen."""

    op: str
    module: str
    module_type: str
    arguments: dict[str, Any]
    outputs: list[TensorIndex]
    in_place: bool
    after: tuple[int, ...]


@dataclass(slots=True)
class RawTrace:
    """One concrete run: operators in program order."""

    nodes: list[RawNode] = field(default_factory=list)
    tensors: list[RawTensor] = field(default_factory=list)
    storages: list[tuple[int, str, str]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Schema:
    """What the recorder needs of an overload, looked up once."""

    op: str
    names: tuple[str, ...]
    written: tuple[str, ...]
    decompose: bool
    factory: bool
    data_dependent: bool


_SCHEMAS: dict[Any, _Schema] = {}


def _schema(overload: Any) -> _Schema:
    known = _SCHEMAS.get(overload)
    if known is not None:
        return known
    schema = overload._schema
    namespace, _, packet = schema.name.partition("::")
    names = tuple("input" if a.name == "self" else a.name for a in schema.arguments)
    written = tuple(n for n, a in zip(names, schema.arguments, strict=True) if a.alias_info and a.alias_info.is_write)
    plain = packet[:-1] if written and packet.endswith("_") and not packet.endswith("__") else packet
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(overload.name(), "CompositeImplicitAutograd")
    return _SCHEMAS.setdefault(
        overload,
        _Schema(
            op=f"{namespace}.{plain}",
            names=names,
            written=written,
            decompose=composite and packet not in KEPT_WHOLE,
            factory=any(a.name == "device" for a in schema.arguments)
            and not any(_is_tensor_type(a) for a in schema.arguments),
            data_dependent=packet in DATA_DEPENDENT,
        ),
    )


def _is_tensor_type(argument: Any) -> bool:
    return "Tensor" in str(argument.type)


class Recorder(TorchDispatchMode):
    """Collects a :class:`RawTrace` while active. One recorder serves one run."""

    def __init__(self, progress: Callable[[int], None] | None = None, guard: Guard | None = None) -> None:
        super().__init__()
        self._guard = guard
        self.trace = RawTrace()
        self.modules: list[tuple[str, str]] = [("", "")]
        self._index: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []
        self._storages: dict[int, int] = {}
        self._last_write: dict[int, int] = {}
        self._on_meta: dict[int, torch.Tensor] = {}
        self._progress = progress
        self._next_progress = time.monotonic() + 1.0

    # -- tensors -------------------------------------------------------------------------------

    def add(self, tensor: torch.Tensor, role: str, name: str = "", producer: int | None = None) -> int:
        """Register a tensor and return its index. Keeps it alive, so that its identity stays its own."""
        key = id(tensor)
        storage = self._storage(tensor, role)
        index = len(self.trace.tensors)
        shape, strides = tuple(tensor.shape), tensor.stride() if tensor.layout is torch.strided else ()
        self.trace.tensors.append(RawTensor(shape, strides, dtype_name(tensor.dtype), storage, producer, role, name))
        self._index[key] = index
        self._alive.append(tensor)
        return index

    def _storage(self, tensor: torch.Tensor, role: str) -> int:
        if tensor.layout is not torch.strided:
            nbytes, key = tensor.numel() * tensor.element_size(), -id(tensor)
        else:
            storage = tensor.untyped_storage()
            nbytes, key = storage.nbytes(), storage._cdata
        if key not in self._storages:
            self._storages[key] = len(self.trace.storages)
            self.trace.storages.append((nbytes, dtype_name(tensor.dtype), role))
        return self._storages[key]

    def lookup(self, tensor: torch.Tensor) -> int:
        """Index of a tensor; one never seen before is a constant that the model brought along."""
        index = self._index.get(id(tensor))
        return self.add(tensor, "constant") if index is None else index

    # -- the mode ------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = _schema(func)
        if schema.decompose:
            # The C++ composite itself: func.decompose would prefer Python decompositions, which differ
            # (its dropout clones in eval mode, the real one returns its input).
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        if schema.factory:
            kwargs = self._factory_on_meta(func, args, kwargs)
        args, kwargs = self._same_device(args, kwargs)
        if schema.data_dependent and any(t.device.type == "meta" for t in _tensors((args, kwargs))):
            raise TraceError(f"the result of {schema.op} depends on the values of a tensor")
        if self._guard is not None:
            self._guard.before(schema.op, schema.names, args, kwargs, self.modules[-1][0], len(self.trace.nodes))
        result = _run(func, schema, args, kwargs)
        self._record(schema, args, kwargs, result)
        return result

    def _factory_on_meta(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Tensors made inside forward without a device would be real; large ones go to meta."""
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "meta":
            return kwargs
        on_meta = {**kwargs, "device": torch.device("meta")}
        try:
            return kwargs if func(*args, **on_meta).numel() <= REAL_CPU_ELEMENTS else on_meta
        except (RuntimeError, NotImplementedError, TypeError):
            return kwargs

    def _same_device(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Real CPU tensors that meet meta tensors, or a whole batch, go to meta too, keeping who made them."""
        tensors = list(_tensors((args, kwargs)))
        devices = {t.device.type for t in tensors}
        if devices == {"meta"} or not devices or (len(devices) == 1 and not _is_vast((args, kwargs))):
            return args, kwargs
        return _replace(args, self._to_meta), _replace(kwargs, self._to_meta)

    def _to_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "meta":
            return tensor
        known = self._on_meta.get(id(tensor))
        if known is None:
            index = self.lookup(tensor)
            known = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            self._on_meta[id(tensor)] = known
            self._index[id(known)] = index
            self._alive.append(known)
        return known

    def _record(self, schema: _Schema, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        arguments = {name: self._argument(value) for name, value in zip(schema.names, args, strict=False)}
        for name, value in kwargs.items():
            arguments["input" if name == "self" else name] = self._argument(value)
        number = len(self.trace.nodes)
        after = self._ordering(arguments, number)
        for name in schema.written:
            for index in _indices(arguments.get(name)):
                self._last_write[self.trace.tensors[index.index].storage] = number
        outputs = [TensorIndex(self._output(t, number)) for t in _tensors(result)]
        module, kind = self.modules[-1]
        self.trace.nodes.append(RawNode(schema.op, module, kind, arguments, outputs, bool(schema.written), after))
        if self._progress and time.monotonic() >= self._next_progress:
            self._progress(number + 1)
            self._next_progress = time.monotonic() + 0.2

    def _output(self, tensor: torch.Tensor, number: int) -> int:
        role = "activation" if tensor.device.type == "meta" else "constant"
        return self.add(tensor, role, producer=number)

    def _ordering(self, arguments: dict[str, Any], number: int) -> tuple[int, ...]:
        """Nodes that wrote in place into a storage that this call reads through another view."""
        before = set()
        for index in _indices(list(arguments.values())):
            tensor = self.trace.tensors[index.index]
            writer = self._last_write.get(tensor.storage)
            if (
                writer is not None
                and writer != tensor.producer
                and (tensor.producer is None or writer > tensor.producer)
            ):
                before.add(writer)
        return tuple(sorted(before - {number}))

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return TensorIndex(self.lookup(value))
        if isinstance(value, (list, tuple)):
            return [self._argument(v) for v in value]
        if isinstance(value, torch.dtype):
            return dtype_name(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return str(value)


def _run(func: Any, schema: _Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if schema.op == "aten.scaled_dot_product_attention":
        return _attention_output(func, args, kwargs)
    if schema.op in ("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu") and schema.names[1] == "hx":
        return _recurrent_output(schema.op, args)
    result = func(*args, **kwargs)
    return _convolution_output(result, args[0], args[1]) if schema.op.startswith("aten.conv") else result


def _recurrent_output(op: str, args: tuple[Any, ...]) -> Any:
    """Results of a recurrent layer without walking through time: (sequence, h_n[, c_n])."""
    image, states = args[0], args[1] if op == "aten.lstm" else (args[1],)
    bidirectional = args[7]
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return (image.new_empty(*image.shape[:-1], width), *(torch.empty_like(state) for state in states))


def _convolution_output(result: Any, image: torch.Tensor, weight: torch.Tensor) -> Any:
    """The memory format that real convolutions return: channels_last as soon as input or weight is.

    A meta kernel knows no device and always returns row-major tensors (torch/_meta_registrations.py).
    """
    if not isinstance(result, torch.Tensor) or result.dim() != 4:
        return result
    if torch.channels_last not in (suggest_memory_format(image), suggest_memory_format(weight)):
        return result
    return torch.empty_like(result, memory_format=torch.channels_last)


def _attention_output(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Shape and strides that the fused attention kernels return: (B, H, L, E) over (B, L, H, E) storage.

    The math fallback, which meta would take, returns another layout, and the reshape that follows would
    be recorded as a copy that no fused kernel needs.
    """
    query, value = args[0], args[2]
    if query.dim() != 4 or query.device.type != "meta":
        return func(*args, **kwargs)
    batch, heads, length, _ = query.shape
    return query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)


def _is_vast(value: Any) -> bool:
    """Whether a size among arguments is that of a large batch."""
    if isinstance(value, int):
        return value > REAL_CPU_ELEMENTS
    if isinstance(value, (list, tuple)):
        return any(map(_is_vast, value))
    return isinstance(value, dict) and any(map(_is_vast, value.values()))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _replace(value: Any, convert: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return convert(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_replace(v, convert) for v in value)
    if isinstance(value, dict):
        return {k: _replace(v, convert) for k, v in value.items()}
    return value


def _indices(value: Any) -> Iterator[TensorIndex]:
    if isinstance(value, TensorIndex):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _indices(item)
