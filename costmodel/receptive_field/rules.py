"""How each kind of operator changes what its results see. An operator without a rule is not followed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from costmodel.formulas import lookup
from costmodel.receptive_field import shapes  # noqa: F401 - importing the sheet registers its rules
from costmodel.receptive_field.state import NotFollowed, Site, State, joined, mapped
from costmodel.receptive_field.step import RULES, Step, rule
from costmodel.tensor import TensorSpec

__all__ = ["follow"]


def follow(step: Step) -> State:
    """The state of a result; raises NotFollowed where the operator has no rule."""
    found = RULES.get(step.op)
    if found is not None:
        return _counted(found(step), step.out)
    formula = lookup(step.op)
    if formula is not None and formula.__module__.endswith(".pointwise"):
        return _counted(pointwise(step), step.out)
    raise NotFollowed(step.op)


def _counted(state: State, out: TensorSpec) -> State:
    """The sites with as many positions as the result has along their axis; flattened ones keep their own."""
    alone = [sum(other.axis == site.axis for other in state) == 1 for site in state]
    return tuple(
        replace(site, count=1) if site.axis is None
        else replace(site, count=int(out.shape[site.axis])) if single else site
        for site, single in zip(state, alone, strict=True)
    )  # fmt: skip


# -- element by element ------------------------------------------------------------------------


@rule("batch_norm", "dropout", "alpha_dropout", "feature_dropout", "clone", "contiguous", "alias", "detach", "_to_copy",
      "to", "copy", "lift_fresh", "where", "masked_fill")  # fmt: skip
def pointwise(step: Step) -> State:
    """Positions keep to themselves; operands are joined."""
    seeing = [(spec, state) for spec, state in step.operands if state is not None]
    return joined([state for _, state in seeing], len(step.out.shape), [len(spec.shape) for spec, _ in seeing])


@rule("cat", "concat", "stack")
def concatenation(step: Step) -> State:
    """Channels of several branches: the smallest window that holds all of theirs."""
    if step.op == "aten.stack":
        axis = int(step.arguments.get("dim", 0)) % len(step.out.shape)
        return mapped(pointwise(replace(step, out=step.main[0])), lambda a: a + (a >= axis))
    along, axis = [], step.axis()
    for spec, state in step.operands:
        if state is not None:  # positions put side by side (a class token) count as those of the first
            along.append((spec, tuple(replace(s, count=_of(step, i).count) if s.axis == axis else s
                                      for i, s in enumerate(state))))  # fmt: skip
    return joined([state for _, state in along], len(step.out.shape), [len(spec.shape) for spec, _ in along])


def _of(step: Step, index: int) -> Site:
    return step.main[1][index]


@rule("embedding")
def embedding(step: Step) -> State:
    """Every position becomes a vector: an axis more, at the end."""
    return step.main[1]


# -- windows -----------------------------------------------------------------------------------


def windowed(step: Step, rank: int, change: Callable[[Site, int], Site]) -> State:
    """``change(site, i)`` for the site on the i-th of the last ``rank`` axes; channels are seen whole."""
    spec, state = step.main
    first = len(spec.shape) - rank
    result = []
    for site in state:
        if site.axis is None or site.axis < first - 1:
            result.append(site)
        elif site.axis == first - 1:
            result.append(replace(site.whole(), axis=None))
        elif sum(other.axis == site.axis for other in state) > 1:
            raise NotFollowed("a window slides over flattened rows and columns")
        else:
            result.append(change(site, site.axis - first))
    return tuple(result)


def _padding(step: Step, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Padding before the first element; ``same`` puts the larger half behind."""
    said = step.arguments.get("padding", 0)
    if said == "same":
        return [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    return [0] * len(kernel) if said == "valid" else step.per_axis("padding", len(kernel), 0)


@rule("conv1d", "conv2d", "conv3d")
def convolution(step: Step) -> State:
    kernel = step.arguments["weight"].shape[2:]
    rank = len(kernel)
    stride, dilation = step.per_axis("stride", rank, 1), step.per_axis("dilation", rank, 1)
    padding = _padding(step, kernel, dilation)

    def change(site: Site, i: int) -> Site:
        field = site.field.through(kernel[i], stride=stride[i], dilation=dilation[i], padding=padding[i])
        return replace(site, field=field)

    return windowed(step, rank, change)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(step: Step) -> State:
    """An output meets every s-th tap: at most ceil(span / s) inputs, s outputs to the jump."""
    kernel = step.arguments["weight"].shape[2:]
    rank = len(kernel)
    stride, dilation = step.per_axis("stride", rank, 1), step.per_axis("dilation", rank, 1)

    def change(site: Site, i: int) -> Site:
        span = dilation[i] * (kernel[i] - 1) + 1
        field = site.field.over(-(-span // stride[i]))
        return replace(site, field=replace(field, jump=Fraction(field.jump) / stride[i]))

    return windowed(step, rank, change)


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices",
      "max_pool3d_with_indices", "max_pool1d_with_indices")  # fmt: skip
def pooling(step: Step) -> State:
    rank = int(step.op.partition("_pool")[2][0])
    kernel = step.per_axis("kernel_size", rank, 1)
    stride = step.per_axis("stride", rank, None)
    dilation, padding = step.per_axis("dilation", rank, 1), step.per_axis("padding", rank, 0)

    def change(site: Site, i: int) -> Site:
        step_of = kernel[i] if stride[i] is None else stride[i]
        field = site.field.through(kernel[i], stride=step_of, dilation=dilation[i], padding=padding[i])
        return replace(site, field=field)

    return _channels_apart(step, rank, change)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
      "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")  # fmt: skip
def adaptive_pooling(step: Step) -> State:
    """Window i runs from floor(i*n/m) to ceil((i+1)*n/m): the widest of them counts."""
    rank = int(step.op.partition("_pool")[2][0])

    def change(site: Site, i: int) -> Site:
        n, m = site.count, int(step.out.shape[len(step.out.shape) - rank + i])
        widest = max(-(-(j + 1) * n // m) - j * n // m for j in range(m))
        jump = site.field.jump * Fraction(n, m)
        return replace(site, field=replace(site.field.over(widest), jump=_plain(jump)))

    return _channels_apart(step, rank, change)


def _channels_apart(step: Step, rank: int, change: Callable[[Site, int], Site]) -> State:
    """As :func:`windowed`, for operators that leave channels apart."""
    spec, state = step.main
    first = len(spec.shape) - rank
    if any(s.axis is not None and s.axis >= first and sum(o.axis == s.axis for o in state) > 1 for s in state):
        raise NotFollowed("a window slides over flattened rows and columns")
    return tuple(s if s.axis is None or s.axis < first else change(s, s.axis - first) for s in state)


def _plain(number: Any) -> Any:
    """A whole fraction as an int."""
    return int(number) if isinstance(number, Fraction) and number.denominator == 1 else number


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_linear1d",
      "upsample_trilinear3d", "upsample_bicubic2d")  # fmt: skip
def resampling(step: Step) -> State:
    """Taps an axis: 1 for the nearest neighbour, 2 for (bi, tri)linear, 4 for bicubic; finer steps."""
    taps = 1 if "nearest" in step.op else 4 if "cubic" in step.op else 2
    rank = int(step.op[-2])

    def change(site: Site, i: int) -> Site:
        scale = Fraction(site.count, int(step.out.shape[len(step.out.shape) - rank + i]))
        return replace(site, field=replace(site.field.over(taps), jump=_plain(site.field.jump * scale)))

    return _channels_apart(step, rank, change)


@rule("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "reflection_pad1d", "replication_pad1d")
def padding_alone(step: Step) -> State:
    """``pad`` holds pairs (before, after), the last axis first."""
    spec, state = step.main
    said = step.arguments.get("pad", step.arguments.get("padding", ()))
    before = {len(spec.shape) - 1 - i: said[2 * i] for i in range(len(said) // 2)}

    def moved(site: Site) -> Site:
        shift = before.get(site.axis, 0) if site.axis is not None else 0
        return replace(site, field=replace(site.field, start=site.field.start - shift * site.field.jump))

    return tuple(map(moved, state))


# -- whole axes --------------------------------------------------------------------------------


def contracted(state: State, axes: Sequence[int]) -> State:
    """Sites on ``axes`` seen whole."""
    return tuple(s.whole() if s.axis in axes else s for s in state)


@rule("linear", "addmm", "mm")
def matrix_product(step: Step) -> State:
    """The last axis is summed over."""
    spec, state = step.main
    return tuple(replace(s.whole(), axis=None) if s.axis == len(spec.shape) - 1 else s for s in state)


@rule("matmul", "bmm")
def batched_product(step: Step) -> State:
    """a[*, m, k] @ b[*, k, n]: k is summed over, m comes from the first and n from the second."""
    rank, states = len(step.out.shape), []
    for position, (spec, state) in enumerate(step.operands[:2]):
        if state is not None:
            summed = len(spec.shape) - (1 if position == 0 else 2)
            states.append((spec, tuple(replace(s.whole(), axis=None) if s.axis == summed else s for s in state)))
    if len(states) == 1:
        return mapped(states[0][1], lambda a: a + rank - len(states[0][0].shape))
    return _either(states, rank)


def _either(states: Sequence[tuple[TensorSpec, State]], rank: int) -> State:
    """Positions of whichever operand still has them. Where both have, as queries and keys do, one of the first's
    positions meets all of the second's."""
    aligned = [mapped(state, partial(operator.add, rank - len(spec.shape))) for spec, state in states]
    result = []
    for a, b in zip(*aligned, strict=True):
        if a.axis is not None and b.axis is not None and a.axis != b.axis:
            a, b = a.whole(), replace(b.whole(), axis=None)
        first, second = (a, b) if a.axis is not None else (b, a)
        result.append(replace(first, field=replace(first.field, size=max(first.field.size, second.field.size))))
    return tuple(result)


@rule("scaled_dot_product_attention")
def attention(step: Step) -> State:
    """Every query sees all keys and values, which lie along the axis before the last."""
    states = [(spec, state) for spec, state in step.operands[:3] if state is not None]
    tokens = [contracted(state, [len(spec.shape) - 2]) for spec, state in states]
    query = tokens[0]
    sizes = [max(state[i].field.size for state in tokens) for i in range(len(query))]
    return tuple(replace(s, field=replace(s.field, size=size)) for s, size in zip(query, sizes, strict=True))


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum")
def along_one_axis(step: Step) -> State:
    return contracted(step.main[1], [step.axis(default=-1)])


@rule("layer_norm", "rms_norm")
def normalization_of_last_axes(step: Step) -> State:
    spec, state = step.main
    normalized = len(step.arguments.get("normalized_shape", (0,)))
    return contracted(state, range(len(spec.shape) - normalized, len(spec.shape)))


@rule("group_norm", "instance_norm", "native_group_norm")
def normalization_of_maps(step: Step) -> State:
    """The statistics are those of the whole map."""
    return tuple(site.whole() for site in step.main[1])


@rule("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm")
def reduction(step: Step) -> State:
    spec, state = step.main
    rank, said = len(spec.shape), step.arguments.get("dim")
    axes = list(range(rank)) if said in (None, [], ()) else said if isinstance(said, (list, tuple)) else [said]
    gone = sorted(int(a) % rank for a in axes)
    kept = bool(step.arguments.get("keepdim", False))
    seen = tuple(replace(s.whole(), axis=s.axis if kept else None) if s.axis in gone else s for s in state)
    return seen if kept else mapped(seen, lambda a: a - sum(g < a for g in gone))


# -- channels to positions and back -------------------------------------------------------------


@rule("pixel_shuffle")
def pixel_shuffle(step: Step) -> State:
    """Channels become positions: steps r times finer."""
    r = int(step.arguments["upscale_factor"])
    return tuple(replace(s, field=replace(s.field, jump=_plain(Fraction(s.field.jump) / r))) for s in step.main[1])


@rule("pixel_unshuffle")
def pixel_unshuffle(step: Step) -> State:
    """Positions become channels: r neighbours seen at once, steps r times coarser."""
    r = int(step.arguments["downscale_factor"])
    return tuple(replace(s, field=replace(s.field.over(r), jump=s.field.jump * r)) for s in step.main[1])
