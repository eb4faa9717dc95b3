"""Records what a module asks of the dispatcher, on the meta device, without computing anything.

The recorder is a ``TorchDispatchMode`` under ``torch.inference_mode``. There, autograd is out of the way and
composite operators reach the mode whole, so that ``linear``, ``conv2d``, ``batch_norm``, ``layer_norm`` or
``scaled_dot_product_attention`` are one node each (:data:`KEPT_WHOLE`), while composites without a meaning of
their own (``reshape``, ``flatten``, ``dropout``, ...) are decomposed into what they really do.
No hook is placed on the user's module. What it asks of the device is answered by :mod:`costmodel.trace.device_kind`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel.execution import NodePhase
from costmodel.formulas import is_free
from costmodel.formulas.movement import CONSTANTS
from costmodel.formulas.views import EMPTY
from costmodel.trace.checks import Checks
from costmodel.trace.device_kind import DeviceKind
from costmodel.trace.guard import Guard
from costmodel.trace.higher_order import run_higher_order
from costmodel.trace.raw import RawNode, RawTensor, RawTrace, TensorIndex, dtype_name, indices_in, tensors_in
from costmodel.trace.schema import Schema, schema_of
from costmodel.trace.special import run_special, special_bytes
from costmodel.trace.subclasses import are_wrappers
from costmodel.trace.substrate import ASKING, Call, MetaSubstrate, NeedsValue, Substrate
from costmodel.trace.watched import WatchedSize, plain

__all__ = ["Recorder", "Where"]

#: Operators that make a tensor out of nothing.
_MAKERS = frozenset((*CONSTANTS, *EMPTY))


class Mark(NamedTuple):
    """How far a recording has come."""

    nodes: int
    tensors: int
    storages: int
    tensor_ids: dict[int, int]
    storage_ids: dict[int, int]
    last_write: dict[int, int]


class Where(NamedTuple):
    """Whose call a node is: path and class of the module, the part of the step, and of a backward node the node of the
    forward pass that it belongs to."""

    module: str
    module_type: str
    phase: NodePhase = NodePhase.FORWARD
    forward: int | None = None


class Recorder(TorchDispatchMode):
    """Collects a :class:`RawTrace` while active. One recorder serves one run."""

    supports_higher_order_operators = True
    doing = "forward pass"

    def __init__(
        self,
        progress: Callable[[int], None] | None = None,
        guard: Guard | None = None,
        substrate: Substrate | None = None,
        device: DeviceKind | None = None,
        checks: Checks | None = None,
    ) -> None:
        super().__init__()
        self.device = device or DeviceKind()
        self.guard = guard
        self.trace = RawTrace()
        self.substrate: Substrate = substrate or MetaSubstrate()
        self.checks = checks or Checks()
        self.modules: list[tuple[str, str]] = [("", "")]
        self._index: dict[int, int] = {}
        self._identity, self._keep = self.substrate.identity, self.substrate.keep
        self._kept: list[Any] = []  # what holds the identities of all tensors so far
        self.watches_holders = isinstance(self.substrate, MetaSubstrate)
        self._times_kept: Counter[int] = Counter()  # id of a result -> how often it is in _kept
        self._watched: list[tuple[int, int]] = []  # (place in _kept, storage) of results that Python may still hold
        self._storages: dict[int, int] = {}
        self._last_write: dict[int, int] = {}
        self._made: dict[int, tuple[Any, Any]] = {}
        self._progress = progress
        self._next_progress = time.monotonic() + 1.0

    # -- tensors -------------------------------------------------------------------------------

    def add(self, tensor: torch.Tensor, role: str, name: str = "", producer: int | None = None) -> int:
        """Register a tensor and return its index."""
        storage = self._storage(tensor, role)
        index = len(self.trace.tensors)
        shape, strides = tuple(tensor.shape), tensor.stride() if tensor.layout is torch.strided else ()
        self.trace.tensors.append(RawTensor(shape, strides, dtype_name(tensor.dtype), storage, producer, role, name))
        self._index[self._identity(tensor)] = index
        self._kept.append(self._keep(tensor))
        if role == "activation":
            self._times_kept[id(tensor)] += 1
            self._watched.append((len(self._kept) - 1, storage))
        return index

    def _storage(self, tensor: torch.Tensor, role: str) -> int:
        if tensor.layout is not torch.strided:
            nbytes, key = special_bytes(tensor), -self._identity(tensor)
        else:
            storage = tensor.untyped_storage()
            nbytes, key = storage.nbytes(), storage._cdata
        if key not in self._storages:
            self._storages[key] = len(self.trace.storages)
            self.trace.storages.append((nbytes, dtype_name(tensor.dtype), role))
        return self._storages[key]

    def lookup(self, tensor: torch.Tensor) -> int:
        """Index of a tensor; one never seen before is a constant that the model brought along."""
        index = self._index.get(self._identity(tensor))
        if index is not None:
            return index
        original = self.substrate.original(tensor)
        if original is None:
            return self.add(tensor, "constant")
        self._kept.append(self._keep(tensor))
        index = self._index[self._identity(tensor)] = self.lookup(original)
        return index

    def alias(self, tensor: torch.Tensor, known: torch.Tensor) -> None:
        """Take ``tensor`` for another name of ``known``."""
        self._kept.append(self._keep(tensor))
        self._index[self._identity(tensor)] = self.lookup(known)

    # -- the mode ------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if types and are_wrappers(types):
            return NotImplemented  # the subclass runs it, as operators on its parts that come by here
        if isinstance(func, HigherOrderOperator):
            return run_higher_order(self, func, args, kwargs)
        schema = schema_of(func)
        if schema.special:
            result = run_special(self, func, schema, args, kwargs)
            if result is not NotImplemented:
                return result
        if schema.decompose:
            # The C++ composite itself: func.decompose would prefer Python decompositions, which differ
            # (its dropout clones in eval mode, the real one returns its input).
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        self._notice_what_was_let_go()
        if self.guard is not None:
            self.guard.before(schema.op, schema.names, args, kwargs, self.modules[-1][0], len(self.trace.nodes))
        try:
            call = self.substrate.run(func, schema, args, kwargs)
        except NeedsValue as error:
            call = self._answered(error, schema, args, kwargs)
        if call.recorded:
            if schema.op == "aten.detach" and self.is_handed_over(call.args[0]):
                self.alias(call.result, call.args[0])
            else:
                self.record(schema, call)
        return call.result

    def _notice_what_was_let_go(self) -> None:
        """Note the results that nobody but the recorder holds any more: a caller's variables keep what its callee has
        long read. Without autograd, which holds tensors unseen, that is when their memory is free."""
        if not self.watches_holders:  # with autograd or in a real run more than Python's references keep results
            return
        kept, own, last = self._kept, self._times_kept, len(self.trace.nodes) - 1
        # The recorder's own references are those of its list, and the argument of getrefcount.
        held = [pair for pair in self._watched if sys.getrefcount(kept[pair[0]]) > own[id(kept[pair[0]])] + 1]
        if len(held) < len(self._watched):
            here = {storage for _, storage in held}
            for storage in {storage for _, storage in self._watched} - here:
                self.trace.let_go[storage] = last
            self._watched = held

    def ends(self) -> None:
        """The forward pass is over: what was held when its last operator began was held to its end."""
        if self.watches_holders:
            last = len(self.trace.nodes) - 1
            self.trace.let_go |= {storage: last for _, storage in self._watched}

    def is_handed_over(self, tensor: torch.Tensor) -> bool:
        """Whether a detach is a factory's own: torch detaches what a factory has made where somebody else, here the
        recorder, holds on to it."""
        last = self.trace.nodes[-1] if self.trace.nodes else None
        return last is not None and last.op in _MAKERS and last.outputs == [TensorIndex(self.lookup(tensor))]

    def _answered(self, error: NeedsValue, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The call with an answer that was given or may be assumed; else the refusal, with whose values it asks for."""
        question = ""
        if schema.op in ASKING:
            asked = self.lookup(args[0])
            behind, module = self._operators_behind(asked), self.modules[-1][0]
            answer, question = self.checks.answer(schema.op, self.trace.tensors[asked].dtype, behind, module)
            if answer is not None:
                return Call(answer, args, kwargs, synchronizes=True)
        raise NeedsValue(f"{error}: {self._whose_values(args, kwargs)}", question) from error

    def _operators_behind(self, index: int, most: int = 8) -> list[str]:
        """The operators that made a tensor, views and copies left out, the latest first."""
        found: list[str] = []
        producer = self.trace.tensors[index].producer
        while producer is not None and len(found) < most:
            node = self.trace.nodes[producer]
            if not is_free(node.op) and node.op not in ("aten._to_copy", "aten.clone"):
                found.append(node.op)
            first = next(indices_in(list(node.arguments.values())), None)
            producer = self.trace.tensors[first.index].producer if first else None
        return found

    def _whose_values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Which inputs, buffers and weights the operands are made of, named in the order in which they were added."""
        found, todo = set[int](), [self.lookup(tensor) for tensor in tensors_in((args, kwargs))]
        seen = set(todo)
        while todo:
            index = todo.pop()
            tensor = self.trace.tensors[index]
            makers = {tensor.producer, self._last_write.get(tensor.storage)} - {None}
            if tensor.producer is None:
                found.add(index)
            arguments = [list(self.trace.nodes[m].arguments.values()) for m in makers if m is not None]
            fresh = {t.index for t in indices_in(arguments)} - seen
            seen |= fresh
            todo += fresh
        sources = [self.trace.tensors[i] for i in sorted(found)]
        inputs = [t.name for t in sources if t.role == "input"]
        if inputs or not sources:
            return f"made of {', '.join(inputs)}" if inputs else "made in the forward pass"
        named = [f"{t.role} {t.name}".strip() for t in sources]
        return f"made of {', '.join(named[:3])}{', ...' * (len(named) > 3)}, whose values are not there (on meta)"

    def record(self, schema: Schema, call: Call) -> None:
        arguments = {name: self._argument(value) for name, value in zip(schema.names, call.args, strict=False)}
        for name, value in call.kwargs.items():
            arguments["input" if name == "self" else name] = self._argument(value)
        number = len(self.trace.nodes)
        after = self._ordering(arguments, number)
        for name in schema.written:
            for index in indices_in(arguments.get(name)):
                self._last_write[self.trace.tensors[index.index].storage] = number
        for name in schema.out:
            arguments.pop(name, None)  # its results, which are told as such
        if schema.in_part:
            arguments["in_place"] = True
        outputs = [TensorIndex(self.add(t, "activation", producer=number)) for t in tensors_in(call.result)]
        module, kind, phase, forward = self.where()
        how = (bool(schema.written), after, call.synchronizes, self.device.autocast, phase, forward)
        self.trace.nodes.append(RawNode(schema.op, module, kind, arguments, outputs, *how))
        if self._progress and time.monotonic() >= self._next_progress:
            self._progress(number + 1)
            self._next_progress = time.monotonic() + 0.2

    # -- what is recorded by others ------------------------------------------------------------

    def note(self, text: str) -> None:
        """A sentence that a report should show, once."""
        if text not in self.trace.notes:
            self.trace.notes.append(text)

    def record_call(self, op: str, arguments: dict[str, Any], results: tuple[torch.Tensor, ...]) -> None:
        """Record a call that is no call of the dispatcher's."""
        number = len(self.trace.nodes)
        taken = {name: self._argument(value) for name, value in arguments.items()}
        outputs = [TensorIndex(self.add(t, "activation", producer=number)) for t in results]
        after = self._ordering(taken, number)
        module, kind, phase, forward = self.where()
        how = (False, after, False, self.device.autocast, phase, forward)
        self.trace.nodes.append(RawNode(op, module, kind, taken, outputs, *how))

    def where(self) -> Where:
        """Whose call is being made, and in which part of the step."""
        return Where(*self.modules[-1])

    def once(self, owner: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` gives at the first call for this ``owner``: the weights of a layer that keeps them packed."""
        key = id(owner)
        if key not in self._made:
            self._made[key] = (owner, make())
            for position, tensor in enumerate(tensors_in(self._made[key][1])):
                path = self.modules[-1][0]
                self.add(tensor, "parameter", f"{path}.{('weight', 'bias')[position]}".lstrip("."))
        return self._made[key][1]

    def mark(self) -> Mark:
        """Where the recording stands, to come back to with :meth:`rollback`."""
        trace, kept = self.trace, (dict(self._index), dict(self._storages), dict(self._last_write))
        return Mark(len(trace.nodes), len(trace.tensors), len(trace.storages), *kept)

    def rollback(self, mark: Mark) -> None:
        """Forget what was recorded since ``mark``."""
        trace = self.trace
        del trace.nodes[mark.nodes :], trace.tensors[mark.tensors :], trace.storages[mark.storages :]
        self._index, self._storages = dict(mark.tensor_ids), dict(mark.storage_ids)
        self._last_write = dict(mark.last_write)
        self._watched = [pair for pair in self._watched if pair[1] < mark.storages]
        trace.let_go = {storage: node for storage, node in trace.let_go.items() if storage < mark.storages}

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """What a tensor holds, or None where that is not known."""
        return self.substrate.value_of(tensor)

    def _ordering(self, arguments: dict[str, Any], number: int) -> tuple[int, ...]:
        """Nodes that wrote in place into a storage that this call reads through another view."""
        before = set()
        for index in indices_in(list(arguments.values())):
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
        if isinstance(value, WatchedSize):
            return plain(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return str(value)
