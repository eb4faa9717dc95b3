"""A model that runs: built with real (random) weights and real inputs, in the conditions of an Execution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from costmodel.engines import engine_of
from costmodel.errors import InputError, ModelError, librarian
from costmodel.execution import Execution, Phase
from costmodel.execution.precision import torch_dtype
from costmodel.measure.latency import check_device
from costmodel.measure.stepping import TrainingStep, draw_low_rank
from costmodel.sources import real_weights, resolve
from costmodel.sources.building import reason
from costmodel.trace.trained import arranged

__all__ = ["OutOfMemory", "Runnable", "prepare"]


class OutOfMemory(InputError):
    """The model does not fit at this batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runnable:
    """A model on its device with its inputs. ``call()`` is one forward pass, or one step of training, in the
    conditions of ``execution``; ``held()`` are the tensors that lie in memory when it begins, and ``said()`` is what
    is known only once it has run."""

    name: str
    device: str
    execution: Execution
    call: Callable[[], object]
    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()
    held: Callable[[], Iterable[torch.Tensor]] = tuple
    said: Callable[[], Iterable[str]] = tuple

    def check(self) -> None:
        """Run once, so that what fails fails here. Raises OutOfMemory, or ModelError where the forward pass fails."""
        engine = engine_of(self.execution.engine)
        compiled = engine.compile_options is not None
        try:
            with out_of_memory(self.name, self.execution.batch), _named_kernels() if compiled else nullcontext():
                self.call()
                if self.device.startswith("cuda"):
                    torch.cuda.synchronize(self.device)
        except OutOfMemory:
            raise
        except Exception as error:
            raise ModelError(
                f"{self.name} fails when it runs {engine.title} on {self.device}: {reason(error)}"
            ) from error


def prepare(
    request: str,
    execution: Execution,
    *,
    device: str = "cpu",
    image_size: int | tuple[int, int] | None = None,
    input_shape: tuple[int, ...] | None = None,
    seq_len: int | None = None,
    seed: int = 0,
) -> Runnable:
    """Build what ``request`` names, ready to run on ``device`` as ``execution`` says; inputs are random by ``seed``.

    Raises what :func:`costmodel.sources.resolve` raises, InputError for a device that is not there, OutOfMemory where
    model or inputs do not fit.
    """
    check_device(device)
    torch.manual_seed(seed)
    trains = execution.phase is Phase.TRAINING
    engine_of(execution.engine).check(execution)
    with out_of_memory(request, execution.batch), torch.no_grad() if trains else torch.inference_mode():
        with real_weights():
            loaded = resolve(request, image_size=image_size, input_shape=input_shape, seq_len=seq_len)
        module, arrangement = loaded.module.eval(), list[str]()
        if trains:
            module, arrangement = arranged(module, execution.trained)
            draw_low_rank(module)
        module = _placed(module, device, execution)
        sizes = {"batch": execution.batch} if "batch" in loaded.symbols else {}
        args, kwargs = pytree.tree_map(
            lambda leaf: _real(leaf, device, execution, _token_limit(module)), loaded.inputs(sizes)
        )
    if trains:
        step = TrainingStep(module, args, kwargs, device, execution, _around(device, execution), loaded.loss)
    return Runnable(
        name=loaded.name,
        device=device,
        execution=execution,
        call=step if trains else _forward(module, args, kwargs, device, execution),
        held=step.held if trains else lambda: _held(module, (args, kwargs)),
        said=(lambda: step.notes) if trains else tuple,
        sizes={name: value for name, value in loaded.sizes.items() if name != "batch"},
        notes=(*loaded.notes, *arrangement),
    )


@contextmanager
def out_of_memory(name: str, batch: int) -> Iterator[None]:
    """Turns torch's two ways of running out of memory into OutOfMemory."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        said = str(error)
        if isinstance(error, RuntimeError) and "out of memory" not in said and "can't allocate memory" not in said:
            raise
        smaller = "a smaller --batch, or --halve-batch to let it be halved until it fits" if batch > 1 else ""
        raise OutOfMemory(librarian(f"{name} does not fit in memory at batch {batch}", do=smaller)) from error


def _placed(module: nn.Module, device: str, execution: Execution) -> nn.Module:
    """The module on its device, in the dtype and memory format of the run."""
    module = module.to(device)
    if any(part.dtype in (torch.float16, torch.bfloat16) for part in module.parameters()) or (
        not execution.precision.is_traced
    ):
        module = module.to(_dtype(execution.precision.weights))
    if execution.layout == "nhwc":
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, torch_dtype(name))
    return found


def _token_limit(module: nn.Module) -> int:
    """Integers below this are valid inputs: rows of the largest table that the model looks up."""
    tables = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    return max(tables, default=2)


def _real(leaf: Any, device: str, execution: Execution, tokens: int) -> Any:
    """A random tensor for an input; anything that is no tensor stays as it is."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.dtype == torch.bool:
        return torch.ones(leaf.shape, dtype=leaf.dtype, device=device)
    if not leaf.dtype.is_floating_point:
        return torch.randint(min(1, tokens - 1), tokens, leaf.shape, dtype=leaf.dtype, device=device)
    stored = leaf.dtype if execution.precision.is_traced else _dtype(execution.precision.activations)
    made = torch.randn(leaf.shape, dtype=stored, device=device)
    is_image = execution.layout == "nhwc" and made.dim() == 4
    return made.to(memory_format=torch.channels_last) if is_image else made


def _forward(module: nn.Module, args: Any, kwargs: Any, device: str, execution: Execution) -> Callable[[], object]:
    """One forward pass: no autograd, the dtype policy of the run, compiled where asked for."""
    options = engine_of(execution.engine).compile_options
    function: Any = module if options is None else torch.compile(module, **options)

    around = _around(device, execution)

    def call() -> object:
        with torch.inference_mode(), around():
            return function(*args, **kwargs)

    return call


def _around(device: str, execution: Execution) -> Callable[[], AbstractContextManager[object]]:
    """What the dtype policy of a run wraps a forward pass in."""

    def contexts() -> AbstractContextManager[object]:
        conditions = ExitStack()
        if execution.precision.autocast:
            kind = device.partition(":")[0]
            conditions.enter_context(torch.autocast(kind, dtype=_dtype(execution.precision.autocast)))
        if execution.precision.products == "tf32":
            conditions.enter_context(_tf32())
        return conditions

    return contexts


def _held(module: nn.Module, inputs: Any) -> Iterator[torch.Tensor]:
    yield from (*module.parameters(), *module.buffers())
    yield from (leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor))


@contextmanager
def _tf32() -> Iterator[None]:
    """TF32 in matrix products and convolutions, as they were afterwards."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    kept = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = True
        yield
    finally:
        for backend, value in zip(backends, kept, strict=True):
            backend.allow_tf32 = value


@contextmanager
def _named_kernels() -> Iterator[None]:
    """Inductor's C++ kernels show in profiles, by name, when they are compiled inside."""
    from torch._inductor import config

    kept = config.cpp.enable_kernel_profile
    config.cpp.enable_kernel_profile = True
    try:
        yield
    finally:
        config.cpp.enable_kernel_profile = kept
