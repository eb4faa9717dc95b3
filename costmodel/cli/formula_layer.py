"""``costmodel formula conv2d``: a layer in its own symbols, ratios of two, where one crosses a ridge point."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from costmodel.cli import arguments as common
from costmodel.execution.precision import BITS, torch_dtype

if TYPE_CHECKING:
    from costmodel.claims import Design
    from costmodel.costing import GraphCosts
    from costmodel.hardware import HardwareProfile

#: Layers whose multiplications are those of a matrix product.
_PRODUCTS = ("fully_connected", "pooled_head", "squeeze_excitation")

__all__ = ["add", "is_layer", "lines", "node_crossings"]

#: What the command line calls a dtype -> what the tensors of a layer hold, in the order of preference of engines.
_DTYPES = {word: torch_dtype(word) for word in ("fp32", "fp16", "bf16")}


def add(parser: argparse.ArgumentParser) -> None:
    """Options that only layers have."""
    layer = parser.add_argument_group("for a layer such as conv2d (costmodel formula layers lists them)")
    layer.add_argument(
        "--set", dest="sizes", type=sizes, action="append", default=[], metavar="NAME=SIZE,...",
        help="numbers for symbols, as in K=3,C_in=64",
    )  # fmt: skip
    layer.add_argument("--over", metavar="LAYER", help="divide by this layer of the same sizes, simplified")
    layer.add_argument(
        "--hw",
        type=common.words,
        default=(),
        metavar="NAME[,NAME...]",
        help="solve for where it crosses their ridge points; with --by op for every operator's batch",
    )
    layer.add_argument("--solve", metavar="SIZE", help="the size to solve for (default: the batch N)")
    layer.add_argument("--dtype", choices=tuple(_DTYPES), default="fp32", help="of its tensors (default: fp32)")


def sizes(text: str) -> dict[str, int]:
    """``K=3,C_in=64`` -> {"K": 3, "C_in": 64}."""
    found = {}
    for part in common.words(text):
        name, equals, number = part.partition("=")
        if not (name and equals):
            raise argparse.ArgumentTypeError(f"must be sizes such as K=3,C_in=64, not {text!r}")
        found[name] = common.positive(number)
    return found


def is_layer(name: str) -> bool:
    """Whether ``costmodel formula NAME`` means a layer and not a model."""
    from costmodel.claims import LAYERS

    return name in LAYERS or name == "layers"


def lines(arguments: argparse.Namespace, write: Callable[[Any], str]) -> Iterator[str]:
    """The lines to print; ``write`` gives an expression's text in the chosen syntax.

    Raises InputError for an unknown layer, size, quantity or machine.
    """
    from costmodel.claims import LAYERS, entry

    if arguments.model == "layers":
        width = max(map(len, LAYERS))
        yield from (f"{e.name:<{width}}  {e.about}; {', '.join(e.symbols)}" for e in LAYERS.values())
        return
    values = _values(arguments)
    design = _design(arguments.model, values, arguments)
    yield f"# {entry(arguments.model).about}: {_shape(design.input)} -> {_shape(design.output)}"
    if arguments.over:
        yield from _ratios(arguments, design, values, write)
    else:
        from costmodel.claims import QUANTITIES

        for name in arguments.of or QUANTITIES:
            yield f"{name} = {write(design[name])}"
    yield from _crossings(arguments, write)


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Sizes by name: those that were set, and symbols for those that are to stay open."""
    from costmodel.symbols import symbol

    given: dict[str, Any] = {name: symbol(name) for name in arguments.symbols or ()}
    for pairs in arguments.sizes:
        given |= pairs
    return given


def _design(name: str, values: Mapping[str, Any], arguments: argparse.Namespace) -> Design:
    from costmodel.claims import build

    return build(name, values, dtype=_DTYPES[arguments.dtype])


def _shape(spec: Any) -> str:
    return f"[{', '.join(map(str, spec.shape))}]"


def _ratios(
    arguments: argparse.Namespace, design: Design, values: Mapping[str, Any], write: Callable[[Any], str]
) -> Iterator[str]:
    """Every quantity that both have, as a ratio; sizes that the other layer does not have are left out."""
    from costmodel.claims import QUANTITIES, entry, ratio

    known = entry(arguments.over).symbols
    other = _design(arguments.over, {k: v for k, v in values.items() if k in known}, arguments)
    for name in arguments.of or QUANTITIES:
        if arguments.of or (other[name] != 0 and design[name] != 0):
            yield f"{name} / {name}({arguments.over}) = {write(ratio(design, other, name))}"


def _crossings(arguments: argparse.Namespace, write: Callable[[Any], str]) -> Iterator[str]:
    """For each machine, the size at which the layer's intensity reaches its ridge point."""
    from costmodel.claims import ridge_crossing
    from costmodel.errors import InputError
    from costmodel.hardware import load
    from costmodel.symbols import symbol

    name = arguments.solve or "N"
    if arguments.solve and not arguments.hw:
        raise InputError("--solve needs a machine\n  costmodel formula conv2d --hw a100 --solve N")
    for position, machine in enumerate(map(load, arguments.hw)):
        ridge, roof = _ridge(machine, arguments.dtype, convolves=arguments.model not in _PRODUCTS)
        design = _design(arguments.model, {**_values(arguments), name: symbol(name)}, arguments)
        crossing = ridge_crossing(design.cost, name, ridge)
        if position == 0 and crossing.expression is not None:
            yield f"{name} at a ridge point of I FLOP/B = {write(crossing.expression)}"
        reached = f"{name} = {crossing.value:,}" if crossing.value else _unreached(crossing)
        yield f"# {machine.name}, {roof}: {ridge:.1f} FLOP/B: {reached}"


def node_crossings(costs: GraphCosts, arguments: argparse.Namespace) -> Callable[[int], str]:
    """For a call of a graph whose batch alone is open, the batch at which it crosses each machine's ridge point.

    Contractions are taken to run in the dtype asked for, at the peak of :func:`_ridge`.
    """
    from functools import cache

    from costmodel.claims import ridge_crossing
    from costmodel.hardware import load
    from costmodel.symbols import is_symbolic

    machines = [load(name) for name in arguments.hw]

    @cache
    def text(call: int) -> str:
        cost = costs.of_call[call]
        if not machines or cost.macs == 0 or not is_symbolic(cost.flops):
            return ""
        # a trace is in fp32, and a narrower type moves fewer bytes for the same FLOPs
        scale, convolves = BITS[arguments.dtype] / BITS["fp32"], "conv" in costs.graph.calls[call].op
        found = []
        for machine in machines:
            ridge, _ = _ridge(machine, arguments.dtype, convolves=convolves)
            found.append((machine.name, ridge_crossing(cost, "batch", ridge * scale).value))
        said = (f"{name} {f'from batch {batch:,}' if batch else 'at no batch'}" for name, batch in found)
        return f"; compute-bound on {', on '.join(said)}"

    return text


def _unreached(crossing: Any) -> str:
    """Why there is no number: other sizes are open, or the intensity never gets there."""
    if crossing.limit.free_symbols or (crossing.expression is not None and len(crossing.expression.free_symbols) > 1):
        return "other sizes are open (--set gives them)"
    return f"at no {crossing.name}: its intensity stays below {float(crossing.limit):.3g} FLOP/B"


def _ridge(machine: HardwareProfile, dtype: str, *, convolves: bool) -> tuple[float, str]:
    """The ridge point in FLOP/B and the roof's name; by PyTorch's defaults convolutions in fp32 run in TF32 where the
    machine has it, and matrix products do not."""
    wanted = "tf32" if dtype == "fp32" and convolves and machine.has_tf32 else dtype
    engine = "matrix" if machine.find_peak("matrix", wanted) else "vector"
    return machine.ridge_point(engine, wanted), f"{wanted} on {engine} units"
