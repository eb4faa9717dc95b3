"""The kind of device that a model sees while it is traced: the one that it is analyzed for, not ``meta``.

Code asks for it (``x.device.type``, ``x.is_cuda``, ``torch.cuda.is_available()``), moves tensors to it (``.cuda()``,
``.to("cuda")``), makes tensors on it, and switches autocast on or off for it. :class:`DeviceKind` answers as a machine
of that kind would, keeps everything on meta, and remembers whether it was asked: only then does a trace depend on it.

It is a ``TorchFunctionMode``, so the answers hold for the thread that traces. What is no operator of torch
(``torch.cuda.is_available``, ``torch.compile``, autocast's entering) is replaced while any thread traces, by functions
that answer every other thread as before.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from costmodel.devices import GpuGeneration, generation
from costmodel.trace.cells import CELLS
from costmodel.trace.raw import tensors_in
from costmodel.trace.replaced import Replaced
from costmodel.trace.watched import Watch

__all__ = ["KINDS", "DeviceKind"]

#: Words that torch has for kinds of devices: AMD's GPUs answer to ``cuda`` as well.
KINDS = ("cuda", "cpu")

#: The generation that a model is told it runs on, where it asks: a trace serves every GPU.
ASSUMED_GENERATION = "ampere"

_META = torch.device("meta")
_CURRENT: ContextVar[DeviceKind | None] = ContextVar("the kind of device that this thread traces for", default=None)


class DeviceKind(TorchFunctionMode):
    """While active, meta tensors say that they lie on a device of kind ``name``, and tensors asked for there are meta.

    ``asked``: whether the model looked at the kind, or said one. ``notes``: what it did that such a device would not.
    As it is told of every question for a shape, it hands out the sizes of a ``watch`` too.
    """

    def __init__(self, name: str = "cuda", lies_on: torch.device = _META, watch: Watch | None = None) -> None:
        """``lies_on``: where that device's tensors lie in the trace; on the CPU of an executed one they say so.
        ``watch``: of a run at a large prime batch."""
        super().__init__()
        self.name, self.lies_on, self.watch = name, lies_on, watch
        self.device = torch.device(name, 0) if name == "cuda" else torch.device(name)
        self.asked = False
        self.notes: list[str] = []
        self._regions: list[tuple[str, str]] = []

    @contextmanager
    def answering(self) -> Iterator[DeviceKind]:
        """The mode, and the answers of what is no operator, for the while."""
        token = _CURRENT.set(self)
        _REPLACED.install()
        try:
            with self, _without_compilation():
                yield self
        finally:
            _REPLACED.remove()
            _CURRENT.reset(token)

    @property
    def autocast(self) -> str:
        """What the model's own autocast regions say here: "" outside of any, "off", or the lower dtype's name."""
        for kind, state in reversed(self._regions):
            if kind == self.name:
                return state
        return ""

    def enter(self, kind: str, enabled: bool, dtype: torch.dtype) -> None:
        """The model enters an autocast region for devices of ``kind``."""
        self._regions.append((kind, str(dtype).removeprefix("torch.") if enabled else "off"))

    def leave(self) -> None:
        """It leaves the innermost one."""
        self._regions.pop()

    def home(self, device: Any) -> Any:
        """Where a tensor that the model asks for on ``device`` lies in the trace."""
        if device is None:
            return None
        asked = torch.device(device)
        if asked.type == "meta" or asked.type not in KINDS:
            return asked
        self.asked = True
        if asked.type == "cuda" and self.name != "cuda":
            note = "the model asks for a CUDA device by name, which fails on this machine: analyzed as if it did not"
            if note not in self.notes:
                self.notes.append(note)
        return self.lies_on if asked.type in (self.name, "cuda") else asked

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = _ANSWERS.get(func)
        if answer is not None:
            return answer(self, func, args, kwargs or {})
        if kwargs is None:
            return func(*args)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self.home(kwargs["device"])}
        return func(*args, **kwargs)


# -- operators that ask for the device, or name one ---------------------------------------------

_Answer = Callable[[DeviceKind, Any, tuple[Any, ...], dict[str, Any]], Any]


def _device(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    real = func(*args)
    if real.type != "meta" and not _is_block_mask_check():
        return real
    kind.asked = True
    return kind.device


def _is_block_mask_check() -> bool:
    """Whether FlexAttention compares devices: a block mask made beforehand lies on this machine's CPU."""
    return sys._getframe(3).f_globals.get("__name__") == "torch.nn.attention.flex_attention"


def _is_kind(name: str) -> _Answer:
    def answer(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not args[0].is_meta:
            return func(*args)
        kind.asked = True
        return kind.name == name

    return answer


def _index(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not args[0].is_meta:
        return func(*args)
    kind.asked = True
    return 0 if kind.name == "cuda" else -1


def _to(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``tensor.to(device, ...)``, ``to(dtype)``, ``to(other)``: the device may stand anywhere but first."""
    moved = [kind.home(a) if isinstance(a, (str, torch.device)) or type(a) is int else a for a in args[1:]]
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": kind.home(kwargs["device"])}
    return func(args[0], *moved, **kwargs)


def _cuda(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].to(kind.home("cuda"))


def _cpu(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    kind.asked = True
    return args[0].to(kind.home("cpu")) if kind.name == "cpu" else func(*args, **kwargs)


def _from_data(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``torch.tensor(data, device=...)`` and its kin: made in the host's memory, then copied, as torch does.

    Made on meta at once, a tensor would lose the data that it is made of.
    """
    device = kind.home(kwargs.get("device"))
    if func is _TENSOR.new_tensor:
        like, *args_of_data = args
        device, kwargs = device or like.device, {"dtype": like.dtype, **kwargs}
        args, func = tuple(args_of_data), torch.tensor
    data = args[0] if args else kwargs.get("data")
    if device is None or device.type != "meta" or any(True for _ in tensors_in(data)):
        return func(*args, **{**kwargs, "device": device})
    return func(*args, **{**kwargs, "device": torch.device("cpu")}).to(device)


def _is_left_aligned(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What nn.TransformerEncoder asks before it leaves padding out: it is counted, as if the mask forbade it."""
    if not any(t.is_meta for t in args if isinstance(t, torch.Tensor)):
        return func(*args, **kwargs)
    note = (
        "nn.TransformerEncoder is given a padding mask: padded positions are counted; where padding stands at the end "
        "of every row, eval mode leaves it out on the device (nested tensors)"
    )
    if note not in kind.notes:
        kind.notes.append(note)
    return False


_TENSOR: Any = torch.Tensor


def _shape(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = func(*args, **kwargs)
    if kind.watch is None:
        return found
    return kind.watch.shape(found) if isinstance(found, torch.Size) else kind.watch.size(found)


def _length(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = func(*args, **kwargs)
    if kind.watch is not None and found >= kind.watch.least:
        kind.watch.noted = True  # len() gives an ordinary number
    return found


def _cell(on_cuda: Callable[..., Any]) -> _Answer:
    def answer(kind: DeviceKind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not args or not args[0].is_meta:
            return func(*args, **kwargs)
        kind.asked = True
        return (on_cuda if kind.name == "cuda" else func)(*args, **kwargs)

    return answer


_ANSWERS: dict[Any, _Answer] = {
    **{func: _cell(on_cuda) for func, on_cuda in CELLS.items()},
    _TENSOR.shape.__get__: _shape,
    _TENSOR.size: _shape,
    _TENSOR.numel: _shape,
    _TENSOR.nelement: _shape,
    _TENSOR.__len__: _length,
    _TENSOR.device.__get__: _device,
    _TENSOR.is_cuda.__get__: _is_kind("cuda"),
    _TENSOR.is_cpu.__get__: _is_kind("cpu"),
    _TENSOR.get_device: _index,
    torch.get_device: _index,
    _TENSOR.to: _to,
    _TENSOR.cuda: _cuda,
    _TENSOR.cpu: _cpu,
    _TENSOR.new_tensor: _from_data,
    torch.tensor: _from_data,
    torch.as_tensor: _from_data,
    torch._nested_tensor_from_mask_left_aligned: _is_left_aligned,
}


# -- what is no operator ------------------------------------------------------------------------


def _answered(value: Callable[[DeviceKind], Any]) -> Callable[[Any], Any]:
    """A function of torch.cuda that the model, not torch itself, is told ``value`` by."""

    def make(original: Any) -> Any:
        def answer(*args: Any, **kwargs: Any) -> Any:
            kind = _CURRENT.get()
            if kind is None or _asks_for_itself(sys._getframe(1).f_globals.get("__name__", "")):
                return original(*args, **kwargs)
            kind.asked = True
            return value(kind)

        return answer

    return make


def _asks_for_itself(module: str) -> bool:
    """Whether code of ``module`` is torch's own bookkeeping; autocast asks on behalf of the model."""
    return module.startswith("torch.") and not module.startswith(("torch.amp.", "torch.cuda.amp."))


def _entering(original: Any) -> Any:
    def enter(self: Any) -> Any:
        result = original(self)
        if (kind := _CURRENT.get()) is not None:
            kind.asked = True
            kind.enter(self.device, self._enabled, self.fast_dtype)
        return result

    return enter


def _leaving(original: Any) -> Any:
    def leave(self: Any, *error: Any) -> Any:
        if (kind := _CURRENT.get()) is not None:
            kind.leave()
        return original(self, *error)

    return leave


def _uncompiled(original: Any) -> Any:
    """``torch.compile`` called by the forward pass: the function as it is. Its operators are what is traced."""

    def compile(model: Any = None, **options: Any) -> Any:
        if _CURRENT.get() is None:
            return original(model, **options)
        return model if model is not None else lambda function: function

    return compile


def _capability(original: Any) -> Any:
    """Code that chooses kernels by what a GPU can do gets those of one generation, and a note says which."""

    def answer(*args: Any, **kwargs: Any) -> Any:
        kind = _CURRENT.get()
        if kind is None or kind.name != "cuda":
            return original(*args, **kwargs)
        kind.asked = True
        told = generation(ASSUMED_GENERATION)
        answered = told.torch_capability if isinstance(told, GpuGeneration) else ()
        what = ".".join(map(str, answered))
        note = f"the model asks what its GPU can do: that of {told.title} ({what}) is answered, whichever is analyzed"
        if note not in kind.notes:
            kind.notes.append(note)
        return answered

    return answer


_AUTOCAST: Any = torch.amp.autocast_mode.autocast
_REPLACED = Replaced(
    [
        (torch.cuda, "is_available", _answered(lambda kind: kind.name == "cuda")),
        (torch.cuda, "device_count", _answered(lambda kind: int(kind.name == "cuda"))),
        (torch.cuda, "current_device", _answered(lambda kind: 0)),
        (torch.cuda, "is_bf16_supported", _answered(lambda kind: kind.name == "cuda")),
        (torch.cuda, "get_device_capability", _capability),
        (torch.cuda, "synchronize", _answered(lambda kind: None)),
        (torch.cuda, "empty_cache", _answered(lambda kind: None)),
        (_AUTOCAST, "__enter__", _entering),
        (_AUTOCAST, "__exit__", _leaving),
        (torch, "compile", _uncompiled),
    ]
)


@contextmanager
def _without_compilation() -> Iterator[None]:
    """Functions that were compiled before run as they were written: a compiler would look at meta tensors' values.

    Only a process that has imported the compiler can have compiled anything.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stance = torch.compiler.set_stance("force_eager")
    with stance:
        yield
