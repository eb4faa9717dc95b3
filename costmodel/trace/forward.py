"""One concrete run of a module under the recorder, on a copy that owns no memory."""

from __future__ import annotations

import copy
import functools
import linecache
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils import _pytree as pytree

from costmodel.errors import CostmodelError, TraceError
from costmodel.trace.checks import Checks
from costmodel.trace.device_kind import DeviceKind
from costmodel.trace.guard import Guard, Stopped
from costmodel.trace.raw import RawTrace, tensors_in
from costmodel.trace.real import RealSubstrate
from costmodel.trace.recorder import Recorder
from costmodel.trace.step import StepRecorder
from costmodel.trace.subclasses import on_meta, parts
from costmodel.trace.substrate import MetaSubstrate, NeedsValue
from costmodel.trace.values import KNOWN_ELEMENTS
from costmodel.trace.watched import Watch

__all__ = ["ForwardError", "forward_on_meta", "meta_copy", "record"]

_PACKAGES = tuple(str(Path(p).parent) for p in (torch.__file__, __file__))


class ForwardError(TraceError):
    """A forward pass failed, or asked for values (``asks``); ``why`` says it in one line, ``until`` is what had run by
    then."""

    def __init__(self, text: str, why: str, asks: bool = False) -> None:
        super().__init__(text)
        self.why, self.asks = why, asks
        self.until: RawTrace | None = None


def meta_copy(module: nn.Module, layout: str = "nchw", *, trains: bool = False) -> nn.Module:
    """A copy of ``module`` in eval mode whose parameters lie on the meta device; ``nhwc``: in channels_last.

    Nothing of the original is touched or copied: its tensors are handed to ``deepcopy`` as already
    copied. Small buffers keep their values, because forward passes may look at them. ``trains``: its parameters take
    gradients where those of the original do.
    Raises TraceError when the module cannot be copied.
    """
    lazy = any(isinstance(p, UninitializedParameter) for p in module.parameters())
    # In inference mode, as everything in the run is, for a model may swap a weight's data for a result of the run;
    # lazy parameters refuse that.
    with torch.inference_mode(not lazy and not trains), torch.no_grad():
        try:
            copied: nn.Module = copy.deepcopy(module, _stand_ins(module)).eval()
            if layout == "nhwc":
                copied = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if trains:
                for mine, own in zip(copied.parameters(), module.parameters(), strict=True):
                    mine.requires_grad_(own.requires_grad)
            return copied
        except Exception as error:
            raise TraceError(
                f"{type(module).__name__} cannot be copied to the meta device: {type(error).__name__}: {error}\n"
                "  give a factory that builds it instead: path/to/file.py:factory"
            ) from error


def _stand_ins(module: nn.Module) -> dict[int, Any]:
    """What stands for the tensors of ``module`` in its copy, by their id, as ``deepcopy`` keeps what it has copied."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        if isinstance(parameter, UninitializedParameter):
            memo[id(parameter)] = UninitializedParameter(  # type: ignore[call-arg]
                requires_grad=False,
                device="meta",
                dtype=parameter.dtype,  # type: ignore[arg-type]
            )
            continue
        memo[id(parameter)] = on_meta(parameter)
    for buffer in module.buffers():
        if isinstance(buffer, UninitializedBuffer):
            memo[id(buffer)] = UninitializedBuffer(device="meta", dtype=buffer.dtype)  # type: ignore[call-arg]
        elif buffer.layout is not torch.strided:
            memo[id(buffer)] = buffer.detach().clone()  # small for its shape, and what it stores decides the work
        elif buffer.device.type != "cpu" or buffer.numel() > KNOWN_ELEMENTS:
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    for part in module.modules():
        # torch.nn.utils.weight_norm and spectral_norm leave a weight computed from parameters, which deepcopy refuses.
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = torch.empty_like(value, device="meta")
    return memo


@contextmanager
def _module_paths(module: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Let the recorder know whose forward is running. ``module`` is the tracer's own copy."""
    wrapped = []
    for path, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            continue
        wrapped.append(child)
        child.forward = _entering(child.forward, (path, _qualified(type(child))), recorder.modules)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for child in wrapped:
            child.__dict__.pop("forward", None)


def _qualified(kind: type) -> str:
    """``timm.layers.norm.LayerNorm``: two classes of one name may run different kernels."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _entering(forward: Callable[..., Any], where: tuple[str, str], stack: list[tuple[str, str]]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def tracked(*args: Any, **kwargs: Any) -> Any:
        stack.append(where)
        try:
            return forward(*args, **kwargs)
        finally:
            stack.pop()

    return tracked


class _Unrecorded(Recorder):
    """Runs a forward pass as the recorder does, and keeps nothing of it."""

    def record(self, *call: Any) -> None:
        pass


def forward_on_meta(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], device: str = "cuda") -> None:
    """Run ``module`` (already on meta) once for what that does to it. Raises TraceError as :func:`record` does."""
    recorder = _Unrecorded(device=DeviceKind(device))
    with torch.no_grad(), recorder.device.answering():  # lazy parameters refuse inference tensors
        _forward(module, args, kwargs, recorder)


def prepared(
    prepare: Callable[[Any, dict[str, Any]], tuple[dict[str, Any], list[tuple[str, torch.Tensor]]]],
    module: nn.Module,
    kwargs: dict[str, Any],
    device: str,
    checks: Checks | None = None,
) -> tuple[dict[str, Any], list[tuple[str, torch.Tensor]]]:
    """What ``prepare`` makes of a run's arguments by running ``module`` (already on meta), unrecorded.

    Raises TraceError as :func:`record` does, and what ``prepare`` raises.
    """
    recorder = _Unrecorded(device=DeviceKind(device), checks=checks)
    recorder.doing = "forward pass over the prompt"
    with torch.inference_mode(), recorder.device.answering():
        try:
            with recorder:
                return prepare(module, kwargs)
        except Exception as error:
            if isinstance(error, CostmodelError) and not isinstance(error, NeedsValue):
                raise
            raise _failure(module, error, recorder.doing) from error


def record(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    names: Sequence[str] = (),
    values: Sequence[torch.Tensor | None] = (),
    progress: Callable[[int], None] | None = None,
    guard: Guard | None = None,
    device: str = "cuda",
    checks: Checks | None = None,
    prime: int | None = None,
    trains: bool = False,
    loss: Callable[[Any], torch.Tensor] | None = None,
    states: Sequence[tuple[str, torch.Tensor]] = (),
    real: RealSubstrate | None = None,
) -> RawTrace:
    """Run ``module`` (already on meta) once and return what it asked for.

    The module sees a device of the kind ``device``. ``names`` name the input tensors in the order of their leaves,
    ``values`` hold what those of the same shape contain. ``prime``: the batch, where it stands for every other.
    ``trains``: the loss, the backward pass and the gradients are recorded too; ``loss``
    makes a scalar of the result, None: see :class:`StepRecorder`. ``states`` are tensors that lie in other arguments
    than tensors, with their names: a cache. With ``real``, module and inputs lie on
    the CPU and are computed there. Raises TraceError, naming the line of the model,
    when its forward fails or depends on values; what ``guard`` raises goes through.
    """
    meta = MetaSubstrate()
    watch = Watch(prime) if prime else None
    kind = DeviceKind(device, watch=watch) if real is None else DeviceKind(device, torch.device("cpu"))
    recorder = (StepRecorder if trains else Recorder)(progress, guard, real or meta, kind, checks)
    if isinstance(recorder, StepRecorder):
        recorder.own_loss = loss
    with torch.inference_mode(not trains), torch.set_grad_enabled(trains):
        kept = {id(state) for _, state in states}  # which have names of their own
        leaves = [leaf for leaf in tensors_in(pytree.tree_leaves((args, kwargs))) if id(leaf) not in kept]
        for position, leaf in enumerate(leaves):
            name = names[position] if position < len(names) else f"input{position}"
            recorder.trace.inputs.append(recorder.add(leaf, "input", name))
            value = values[position] if position < len(values) else None
            if value is not None and value.shape == leaf.shape and leaf.is_meta:
                meta.values.give(leaf, value.clone())
        for name, state in states:
            recorder.trace.inputs.append(recorder.add(state, "input", name))
        if real is None:
            _adopt_buffers(module, meta)
        for name, parameter in module.named_parameters():
            for part, tensor in parts(name, parameter):
                recorder.add(tensor, "parameter", part)
        for name, buffer in module.named_buffers():
            recorder.add(buffer, "buffer", name)
        if real is not None:
            for tensor in (*leaves, *module.parameters(), *module.buffers()):
                real.place(tensor)
        try:
            with _module_paths(module, recorder), _as_on_device(recorder), kind.answering():
                result = _forward(module, args, kwargs, recorder)
        except ForwardError as error:
            error.until = recorder.trace
            raise
        recorder.ends()
        recorder.trace.assumed = recorder.checks.assumed
        recorder.trace.outputs = [recorder.lookup(t) for t in _output_tensors(result)]
    if isinstance(recorder, StepRecorder):
        recorder.finish(module)
    recorder.trace.device = device if kind.asked else ""
    recorder.trace.notes += kind.notes
    recorder.trace.asks_batch = watch is not None and watch.noted
    return recorder.trace


def _as_on_device(recorder: Recorder) -> AbstractContextManager[None]:
    return recorder.as_on_device() if isinstance(recorder, StepRecorder) else nullcontext()


def _adopt_buffers(module: nn.Module, substrate: MetaSubstrate) -> None:
    """Buffers lie on the device: meta tensors in the tracer's copy too, their values beside them."""
    adopted: dict[int, torch.Tensor] = {}
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            continue
        for name, buffer in part._buffers.items():
            if type(buffer) is torch.Tensor and not buffer.is_meta and buffer.layout is torch.strided:
                if id(buffer) not in adopted:
                    adopted[id(buffer)] = substrate.adopt(buffer)
                part._buffers[name] = adopted[id(buffer)]


def _forward(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], recorder: Recorder) -> Any:
    try:
        with recorder:
            result = module(*args, **kwargs)
            return recorder.step(result) if isinstance(recorder, StepRecorder) else result
    except Stopped:
        raise
    except Exception as error:
        raise _failure(module, error, recorder.doing) from error


def _output_tensors(result: Any) -> Iterator[torch.Tensor]:
    """Tensors anywhere in a result, registered containers and plain objects' attributes alike."""
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__"):
            held = [part for value in vars(leaf).values() for part in (value if isinstance(value, list) else [value])]
            held += [part for layer in held if hasattr(layer, "__dict__") for part in vars(layer).values()]
            yield from (v for v in held if isinstance(v, torch.Tensor) and v.numel())


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


#: torch's own words where a tensor without data is asked for its values: ``bool(x)``, ``x.tolist()``, ``x.numpy()``.
_ASKS_FOR_VALUES = ("meta tensor", "data-dependent", "unallocated storage", "meta device type tensor to numpy")


def _failure(module: nn.Module, error: Exception, doing: str) -> ForwardError:
    what = _first_line(error)
    asks = isinstance(error, NeedsValue) or any(words in what.lower() for words in _ASKS_FOR_VALUES)
    return ForwardError(_explain(module, error, doing, asks), what, asks)


def _explain(module: nn.Module, error: Exception, doing: str, asks: bool) -> str:
    where, what = _model_line(error), _first_line(error)
    if asks:
        head = f"{type(module).__name__} decides by the values of a tensor, which a static analysis does not have"
        return "\n".join([head, f"  {where}", f"  {what}", *_ways(error)])
    kind = "" if isinstance(error, CostmodelError) else f"{type(error).__name__}: "
    if "Expected more than 1 value per channel" in what:
        what += "\n  batch normalization in train mode needs several values: give a larger batch (--batch N)"
    lines = [where] if kind or where != _NO_LINE else []  # costmodel's own words need none
    return "\n  ".join([f"the {doing} of {type(module).__name__} failed", *lines, f"{kind}{what}"])


def _ways(error: Exception) -> Iterator[str]:
    """What can be done about a value that nobody knows."""
    yield "  --execute (execute=True) runs it once on this machine's CPU and analyzes the path that it takes"
    question = error.question if isinstance(error, NeedsValue) else ""
    if question:
        yield f"  --assume {question}=true (or false, or a number) says what the answer is"
    yield "  or fix the branch with an argument, or analyze the submodule that does the work"


_NO_LINE = "(no line of the model is involved)"


def _model_line(error: BaseException) -> str:
    """The innermost line that is the model's own, not torch's and not ours."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_PACKAGES) and not f.filename.startswith("<")]
    if not own:
        return _NO_LINE
    frame = own[-1]
    source = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return f"at {_short(frame.filename)}:{frame.lineno}, in {frame.name}: {source}"


def _short(filename: str) -> str:
    parts = Path(filename).parts
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    return filename
