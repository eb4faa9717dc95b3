"""Views: other shapes, orders and parts of the same memory, and what becomes of the axes that positions run along."""

from __future__ import annotations

from dataclasses import replace

from costmodel.receptive_field.field import Field
from costmodel.receptive_field.state import Site, State, mapped, reshaped
from costmodel.receptive_field.step import Step, rule

__all__: list[str] = []


@rule("view", "_unsafe_view", "reshape", "flatten", "unflatten")
def reshape(step: Step) -> State:
    spec, state = step.main
    return reshaped(state, [int(n) for n in spec.shape], [int(n) for n in step.out.shape])


@rule("permute")
def permutation(step: Step) -> State:
    rank = len(step.out.shape)
    order = [int(d) % rank for d in step.arguments["dims"]]
    return mapped(step.main[1], order.index)


@rule("transpose", "swapaxes")
def transposition(step: Step) -> State:
    a, b = step.axis("dim0"), step.axis("dim1")
    return mapped(step.main[1], lambda axis: {a: b, b: a}.get(axis, axis))


@rule("t")
def matrix_transposition(step: Step) -> State:
    return mapped(step.main[1], lambda axis: 1 - axis)


@rule("unsqueeze")
def unsqueeze(step: Step) -> State:
    axis = int(step.arguments["dim"]) % len(step.out.shape)
    return mapped(step.main[1], lambda a: a + (a >= axis))


@rule("squeeze")
def squeeze(step: Step) -> State:
    spec, state = step.main
    return reshaped(state, [int(n) for n in spec.shape], [int(n) for n in step.out.shape])


@rule("select", "unbind")
def selection(step: Step) -> State:
    """One of the positions of an axis: what it sees is what each of them saw."""
    axis = step.axis()
    return mapped(step.main[1], lambda a: None if a == axis else a - (a > axis))


@rule("split", "split_with_sizes", "chunk", "narrow", "expand", "expand_as", "unsafe_split", "unsafe_chunk")
def part(step: Step) -> State:
    spec, state = step.main
    return mapped(state, lambda a: a + len(step.out.shape) - len(spec.shape))


@rule("slice")
def slice_(step: Step) -> State:
    """Every ``step``-th position from ``start`` on."""
    axis, (spec, state) = step.axis(), step.main
    first, every = step.arguments.get("start") or 0, int(step.arguments.get("step") or 1)
    first = int(first) + (int(spec.shape[axis]) if int(first) < 0 else 0)

    def cut(site: Site) -> Site:
        if site.axis != axis:
            return site
        field = site.field
        return replace(site, field=Field(field.size, field.jump * every, field.start + first * field.jump))

    return tuple(map(cut, state))
