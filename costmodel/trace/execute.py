"""One forward pass on this machine's CPU under the recorder: for models of which values decide how much is computed.

What comes out is a graph as from a static trace, in the same dialect (:mod:`costmodel.trace.schema`): attention,
convolutions and recurrent layers whole, whatever the CPU makes of them, and fused paths that only a CPU or a frozen
module takes switched off. Its sizes are closed and its counts hold for these inputs and weights alone.

The caller's module is not touched: a copy runs. Weights that lie on meta are initialised, by the modules' own
``reset_parameters`` where they have one; inputs that were not given are drawn. Both are drawn from a fixed seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from costmodel.errors import TraceError
from costmodel.execution import Variant
from costmodel.graph import OpGraph
from costmodel.sources.loaded import TensorInput, map_leaves
from costmodel.sources.runnable import SEED
from costmodel.trace.forward import ForwardError, meta_copy, record
from costmodel.trace.free_memory import free_memory_bytes
from costmodel.trace.guard import Guard
from costmodel.trace.raw import RawTrace, indices_in
from costmodel.trace.real import RESERVE_BYTES, RealSubstrate
from costmodel.trace.tracer import Tracer, channels_last
from costmodel.units import format_bytes

if TYPE_CHECKING:
    from costmodel.sources.loaded import LoadedModel

__all__ = ["execute", "random_input", "runnable_copy"]


def execute(
    loaded: LoadedModel,
    *,
    sizes: Mapping[str, int] | None = None,
    variant: Variant | None = None,
    progress: Callable[[int], None] | None = None,
) -> OpGraph:
    """Run ``loaded`` once on this machine's CPU and return its graph, all sizes numbers.

    ``sizes`` as in :func:`costmodel.trace.trace`; inputs whose values were given at these sizes are taken, others are
    drawn. Raises TraceError when the forward pass fails or memory does not suffice, InputError when the sizes do not
    fit.
    """
    return _Executed(loaded, dict(sizes or {}), variant or Variant(), progress).trace((), checked=False)


class _Executed(Tracer):
    """A tracer whose only run is a real one."""

    def _run(self, sizes: Mapping[str, int], guard: Guard | None = None) -> RawTrace:
        self._check_memory()
        with _as_on_a_device(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            module, drawn = runnable_copy(self.loaded.module)
            module.train(self.variant.train_mode)
            args, kwargs, given = self._inputs()
            if self.variant.layout == "nhwc":
                module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                args, kwargs = channels_last((args, kwargs))
            run = record(
                module,
                args,
                kwargs,
                names=self.names,
                progress=self.progress,
                device=self.variant.device,
                real=RealSubstrate(),
            )
        drawn = drawn or self.loaded.random_weights
        self.executed = f"{_whose('weights', drawn)} and {_whose('inputs', not given)}"
        self.notes.append(f"executed once on this machine's CPU with {self.executed}: all numbers are for these inputs")
        return run

    def _inputs(self) -> tuple[Any, Any, bool]:
        """(args, kwargs, whether all were given)."""
        missing = []

        def tensor(leaf: Any) -> Any:
            if not isinstance(leaf, TensorInput):
                return copy.deepcopy(leaf)
            shape = leaf.shape(self.sizes)
            if leaf.value is not None and tuple(leaf.value.shape) == shape:
                return leaf.value.detach().cpu().clone()
            missing.append(leaf)
            return random_input(leaf, shape, self.loaded.module)

        args, kwargs = map_leaves(self.loaded.template, tensor)
        return args, kwargs, not missing

    def _check_memory(self) -> None:
        """Refuse what this machine cannot hold: weights twice, and the most alive at once as far as meta can follow."""
        free = free_memory_bytes()
        if free is None:
            return
        module = self.loaded.module
        weights = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
        needed = weights + self._estimated_activations()
        if needed + RESERVE_BYTES > free:
            raise TraceError(
                f"running {self.loaded.name} takes at least {format_bytes(needed)} "
                f"(weights {format_bytes(weights)}), {format_bytes(free)} of this machine's memory are free\n"
                "  take a smaller batch or smaller inputs, or a machine with more memory"
            )

    def _estimated_activations(self) -> int:
        """The most that lies in memory at once, in B, until the model asks for a value."""
        module = meta_copy(self.loaded.module)
        args, kwargs = self.loaded.inputs(self._named({}))
        try:
            return _most_alive(record(module, args, kwargs, names=self.names, device=self.variant.device))
        except ForwardError as error:
            return _most_alive(error.until) if error.until is not None else 0


def _whose(what: str, drawn: bool) -> str:
    return f"random {what} (seed {SEED})" if drawn else f"the given {what}"


def _most_alive(run: RawTrace) -> int:
    """The most bytes of activations alive at once, each from the node that makes it to the last that reads it."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, node in enumerate(run.nodes):
        for index in (*indices_in(list(node.arguments.values())), *node.outputs):
            storage = run.tensors[index.index].storage
            if run.storages[storage][2] == "activation":
                first.setdefault(storage, number)
                last[storage] = number
    change = [0] * (len(run.nodes) + 1)
    for storage, number in first.items():
        change[number] += run.storages[storage][0]
        change[last[storage] + 1] -= run.storages[storage][0]
    most = alive = 0
    for step in change:
        alive += step
        most = max(most, alive)
    return most


@contextmanager
def _as_on_a_device() -> Iterator[None]:
    """Paths that modules take on some devices only are off: nn.MultiheadAttention's single fused operator."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


# -- weights and inputs -------------------------------------------------------------------------


def runnable_copy(module: nn.Module) -> tuple[nn.Module, bool]:
    """A copy of ``module`` in eval mode with all its tensors on the CPU, and whether weights had to be drawn."""
    memo: dict[int, Any] = {}
    on_meta = [t for t in (*module.parameters(), *module.buffers()) if t.is_meta]
    for tensor in on_meta:
        fresh = torch.zeros(tensor.shape, dtype=tensor.dtype)
        memo[id(tensor)] = nn.Parameter(fresh, requires_grad=False) if isinstance(tensor, nn.Parameter) else fresh
    for part in module.modules():
        for value in vars(part).values():  # a weight computed from parameters, which deepcopy refuses
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        with torch.no_grad():
            copied = copy.deepcopy(module, memo).eval().cpu()
            if on_meta:
                _initialise(copied, {id(memo[id(tensor)]) for tensor in on_meta})
    except Exception as error:
        raise TraceError(
            f"{type(module).__name__} cannot be copied to run it: {type(error).__name__}: {error}\n"
            "  give a factory that builds it instead: path/to/file.py:factory"
        ) from error
    return copied, bool(on_meta)


def _initialise(module: nn.Module, fresh: set[int]) -> None:
    """Draw the ``fresh`` tensors: as their module does it, else so that layers keep the size of what they take."""
    for part in module.modules():
        own = {**part._parameters, **part._buffers}
        drawn = {name: tensor for name, tensor in own.items() if tensor is not None and id(tensor) in fresh}
        for name, tensor in drawn.items():
            _draw(name, tensor)
        reset: Any = getattr(part, "reset_parameters", None)
        if drawn and callable(reset):
            reset()


def _draw(name: str, tensor: torch.Tensor) -> None:
    if not tensor.is_floating_point():
        return
    if tensor.dim() >= 2:
        tensor.normal_(0.0, 1 / math.sqrt(max(tensor[0].numel(), 1)))
    elif name.endswith(("weight", "scale", "gamma", "var")):
        tensor.fill_(1.0)


def random_input(leaf: TensorInput, shape: tuple[int, ...], module: nn.Module) -> torch.Tensor:
    """A tensor such as models take: pixels between 0 and 1, tokens of the vocabulary, masks that hide nothing."""
    dtype: torch.dtype = getattr(torch, leaf.dtype)
    if dtype == torch.bool:
        return torch.zeros(shape, dtype=dtype)
    if dtype.is_complex:
        return torch.randn(shape, dtype=dtype)
    if dtype.is_floating_point:
        pixels = len(shape) >= 4
        return (torch.rand(shape) if pixels else torch.randn(shape)).to(dtype)
    if "mask" in leaf.name:
        return torch.ones(shape, dtype=dtype)
    vocabularies = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    return torch.randint(0, max(vocabularies[0] if vocabularies else 2, 1), shape).to(dtype)
