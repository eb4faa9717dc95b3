"""analyze(): the whole trip on one page: a name or a module in, an Analysis out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from costmodel.cache import CachedTrace
from costmodel.engines import engine_of
from costmodel.errors import InputError
from costmodel.executed import ExecutedTraces
from costmodel.execution import Execution, Variant
from costmodel.execution.precision import word_of_dtype
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile, load
from costmodel.host import host_of
from costmodel.presented import Analysis, Comparison
from costmodel.quantization import scheme_of
from costmodel.symbols import checked_size
from costmodel.traced import ModuleTraces, NamedTraces, Progress

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ALL_SYMBOLS", "analyze", "compare", "input_sizes"]

#: Everything that may be left open.
ALL_SYMBOLS = ("batch", "frames", "height", "width", "seq_len", "decoder_seq_len", "context")

#: (batch, sizes, layout, kind of device, in train mode) -> a trace that holds there; batch None is the model's own.
Traces = Callable[[int | None, Mapping[str, int], Variant], CachedTrace]


def analyze(
    model: str | nn.Module,
    inputs: Any = None,
    *,
    hw: str | HardwareProfile,
    batch: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    input_shape: Sequence[int] | None = None,
    seq_len: int | None = None,
    context: int | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    kv_dtype: str | None = None,
    layout: str = "nchw",
    mode: str = "eager",
    host: str = "usual",
    inputs_on: str = "device",
    train_mode: bool = False,
    phase: str = "inference",
    loss: Callable[[Any], Any] | None = None,
    optimizer: str | None = None,
    fused_optimizer: bool = False,
    weight_decay: bool | None = None,
    grad_scaler: bool | None = None,
    checkpoint: str | None = None,
    trainable: str | None = None,
    power_limit: float | str | None = None,
    symbols: Sequence[str] = ("batch",),
    assume: Mapping[str, bool | int | float] | None = None,
    execute: bool = False,
    use_cache: bool | Literal["only"] = True,
    progress: Progress | None = None,
) -> Analysis:
    """Analyze a model on a machine, before anything runs.

    ``model`` is a name (``resnet50``, ``timm:NAME``, ``hf:bert``, ``path/to/file.py:factory``, ``model.pt2``, ...)
    or a module with its ``inputs`` (a tensor, a tuple, a dict of keyword arguments, or (args, kwargs)).
    ``batch`` defaults to that of the given inputs, else 1; sizes default to the model's own, and so does ``dtype``:
    the format that it holds its weights in.
    ``assume`` answers questions about values that nobody knows before a run, by the line that asks:
    ``{"net.py:12": False}``; all answers that were taken are in ``Analysis.assumed``.
    ``execute`` runs one forward pass on this machine's CPU, for models of which values decide how much is computed:
    with the module's own weights (random ones where it has none) and ``inputs``, which a named model takes here too,
    and which may be the path of a file (``.pt`` or a picture); random ones where none are given. All numbers are then
    for these inputs, and nothing is cached.
    ``host`` names the computer that issues the step, or its file (``costmodel hw list``); ``inputs_on="host"`` times
    the copy of the inputs from pageable memory too; ``train_mode`` runs the forward pass of a module in train mode;
    ``phase="training"`` is a step of training: forward pass, loss, backward pass, optimizer. ``loss`` makes the scalar
    of what a module returns; without one a note says what was taken. ``optimizer`` is ``none``, ``sgd``, ``momentum``
    (the default: SGD with momentum), ``nesterov``, ``adam``, ``adamw``, or ``sparse_adam`` (SparseAdam where gradients
    are sparse, Adam elsewhere), as ``torch.optim`` runs it by default, or with ``fused_optimizer`` in one kernel;
    ``weight_decay`` and ``grad_scaler`` (default: where autocast is in fp16) say otherwise than the optimizer's class
    and the dtype do. ``checkpoint="blocks"`` runs the blocks that a model repeats again in the backward pass;
    ``trainable`` is ``all``, ``head`` or ``lora:RANK`` (:class:`~costmodel.execution.Trained`).
    ``phase="prefill"`` and ``phase="decode"`` are the halves of writing text with an ``hf:`` model: a prompt of
    ``seq_len`` tokens, or one step with ``context`` tokens of each sequence in the cache.
    ``weights`` stores those of linear layers in the blocks in ``int8``, ``int4`` (groups of 128, as GPTQ and AWQ do),
    ``fp8``, or as wide as the dtype (``dense``); default: as the model's configuration says.
    ``kv_dtype`` keeps keys and values in that dtype (``fp8``), with ``mode="serving"``.
    ``power_limit`` caps what the board may draw, in W, below its own limit.
    ``symbols`` are the sizes to leave open; a named model's trace is cached (``use_cache="only"``: or refused).
    Raises a :class:`~costmodel.errors.CostmodelError` that says what was asked, what there is and what to do.

    >>> analyze("resnet50", hw="a100").totals.macs                                  # doctest: +SKIP
    4089184256
    """
    hardware = _machine(hw)
    execution = Execution.of(
        batch=1 if batch is None else batch,
        dtype=dtype,
        weights=weights,
        kv_dtype=kv_dtype,
        layout=layout,
        mode=mode,
        host=host,
        inputs=inputs_on,
        train_mode=train_mode,
        phase=phase,
        **_training_words(
            phase,
            optimizer=optimizer,
            fused_optimizer=fused_optimizer or None,
            weight_decay=weight_decay,
            grad_scaler=grad_scaler,
            checkpoint=checkpoint,
            trainable=trainable,
        ),
        power_limit=power_limit,
    )
    hardware.limited(execution.power_limit_w)
    engine_of(mode).check(execution)  # unknown words are told before a long trace
    host_of(host, hardware)
    sizes = input_sizes(image_size, seq_len, batch, input_shape, context)
    if phase == "inference" and loss is not None:
        raise InputError("a loss belongs to training\n  give phase='training' with it")
    how: dict[str, Any] = {"input_shape": input_shape, "assume": assume, "progress": progress}
    if execute:
        traces = _executed(model, inputs, **how)
    elif isinstance(model, str):
        _check_named(inputs, loss)
        traces = NamedTraces(model, symbols, use_cache=use_cache, **how)
    else:
        traces = ModuleTraces(model, inputs, symbols=symbols, loss=loss, **how)
    return _analysis(traces, hardware, execution, batch, sizes, dtype)


def _executed(model: str | nn.Module, inputs: Any, *, assume: Mapping[str, Any] | None, **how: Any) -> Traces:
    """Traces of a run on this machine, which leaves no question open."""
    if assume:
        raise InputError("a run finds its answers itself\n  give either assume or execute, not both")
    return ExecutedTraces(model, inputs, **how)


def _training_words(phase: str, **said: Any) -> dict[str, Any]:
    """What was said of a training step, as words of an execution; InputError where nothing is trained."""
    given = [name for name, value in said.items() if value is not None]
    if given and phase != "training":
        raise InputError(f"{given[0]} belongs to training\n  give phase='training' with it")
    return said


def _check_named(inputs: Any, loss: Any) -> None:
    """Refuse what a named model brings itself."""
    if inputs is not None:
        raise InputError(
            "a named model brings its own inputs\n"
            "  use batch, image_size, input_shape or seq_len; execute=True runs it on inputs of yours"
        )
    if loss is not None:
        raise InputError(
            "a named model is trained on the loss that it brings\n"
            "  give the module itself, or a factory that returns (module, inputs, loss): path/to/file.py:factory"
        )


def _machine(hw: str | Path | HardwareProfile) -> HardwareProfile:
    if isinstance(hw, HardwareProfile):
        return hw
    if not isinstance(hw, (str, Path)):
        raise InputError(
            f"hw names one machine, and is not {hw!r}\n  compare() and Analysis.at(hw=...) answer for several"
        )
    return load(hw)


def compare(
    models: Sequence[str | nn.Module],
    inputs: Any = None,
    *,
    hw: str | HardwareProfile | Sequence[str | HardwareProfile],
    **conditions: Any,
) -> Comparison:
    """Hold several models against the first, on one or several machines, under the conditions of :func:`analyze`.

    Modules all take the same ``inputs``; several of one class are told apart by number: ``Net (1)``, ``Net (2)``.
    Raises InputError for fewer than two models or one model twice, and what :func:`analyze` raises.

    >>> compare(["resnet50", "mobilenet_v2"], hw=["a100", "t4"]).fastest                # doctest: +SKIP
    {'a100-sxm-80gb': 'mobilenet_v2', 't4': 'mobilenet_v2'}
    """
    machines = [hw] if isinstance(hw, (str, HardwareProfile)) else list(hw)
    if not machines:
        raise InputError("no machine is named\n  `costmodel hw list` shows them")
    found = []
    for model in models:
        own = None if isinstance(model, str) and not conditions.get("execute") else inputs
        first = analyze(model, own, hw=machines[0], **conditions)
        found.append([first, *(first.at(hw=machine) for machine in machines[1:])])
    for row, name in zip(found, _told_apart(models, [row[0].name for row in found]), strict=True):
        for analysis in row:
            analysis.name = name
    return Comparison(found)


def _told_apart(models: Sequence[str | nn.Module], names: Sequence[str]) -> list[str]:
    """The models' names; where several share one, the request as it was given, and modules of one class by number.

    >>> _told_apart(["timm:resnet50", "torchvision:resnet50", "vgg16"], ["resnet50", "resnet50", "vgg16"])
    ['timm:resnet50', 'torchvision:resnet50', 'vgg16']
    """
    found: list[str] = []
    for model, name in zip(models, names, strict=True):
        if names.count(name) == 1:
            found.append(name)
        elif isinstance(model, str):
            found.append(model)
        else:
            alike = list(dict.fromkeys(id(other) for other, its in zip(models, names, strict=True) if its == name))
            found.append(f"{name} ({alike.index(id(model)) + 1})")
    return found


def input_sizes(
    image_size: int | tuple[int, int] | None,
    seq_len: int | None,
    batch: int | None = None,
    input_shape: Sequence[int] | None = None,
    context: int | None = None,
) -> dict[str, int]:
    """The sizes asked for, by name, without the batch. Raises InputError for what no tensor can have, together too."""
    sizes = {}
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        sizes = {"height": height, "width": width}
    if seq_len is not None:
        sizes["seq_len"] = seq_len
    if context is not None:
        sizes["context"] = context
    for name, value in {**sizes, **({} if batch is None else {"batch": batch})}.items():
        checked_size(name, value)
    checked_size("batch times input size", (batch or 1) * math.prod(sizes.values()))
    if input_shape and all(isinstance(size, int) and size > 0 for size in input_shape):
        checked_size("batch times input shape", (batch or 1) * math.prod(input_shape))
    return sizes


def _analysis(
    traces: Traces,
    hardware: HardwareProfile,
    execution: Execution,
    batch: int | None,
    sizes: Mapping[str, int],
    dtype: str | None,
) -> Analysis:
    """``batch`` and ``dtype`` None: the model's own."""

    def retrace(batch: int, sizes: Mapping[str, int], variant: Variant) -> tuple[OpGraph, Mapping[str, str] | None]:
        found = traces(batch, sizes, variant)
        return found.graph, found.closed_forms or None

    traced = traces(batch, sizes, Variant.of(execution, hardware.family.torch_device))
    if dtype is None:
        own_word = word_of_dtype(traced.graph.own_dtype)
        if own_word == "fp32" and scheme_of(traced.graph, execution) is not None:
            own_word = "bf16"  # packed weights are multiplied in half precision
        execution = execution.changed(dtype=own_word)
    symbols = traced.graph.symbols
    own = symbols["batch"].default if "batch" in symbols else traced.graph.batch or 1
    return Analysis(
        name=traced.name,
        source=traced.source,
        record=traced.graph,
        hardware=hardware,
        execution=execution.changed(
            batch=own if batch is None else batch, sizes={n: v for n, v in sizes.items() if n in symbols}
        ),
        closed_forms=traced.closed_forms or None,
        asked=sizes,
        retrace=retrace,
    )
