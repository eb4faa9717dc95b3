"""Results that are known without asking a meta kernel are those that it gives."""

from __future__ import annotations

import pytest
import torch

from costmodel.trace import stand_ins
from costmodel.trace.schema import schema_of

aten = torch.ops.aten


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def norm(channels: int, training: bool = False) -> tuple[object, ...]:
    return (*(meta(channels) for _ in range(4)), training, 0.1, 1e-5, False)


CALLS = [
    (aten.linear.default, (meta(2, 3, 8), meta(5, 8), meta(5))),
    (aten.linear.default, (meta(8), meta(5, 8))),
    (aten.linear.default, (meta(2, 3, 4, 8), meta(5, 8))),
    (aten.linear.default, (meta(3, 2, 8).transpose(0, 1), meta(5, 8), meta(5))),
    (aten.batch_norm.default, (meta(2, 6, 4, 4), *norm(6))),
    (aten.batch_norm.default, (meta(2, 6), *norm(6))),
    (aten.batch_norm.default, (meta(2, 6, 4, 4).to(memory_format=torch.channels_last), *norm(6))),
    (aten.layer_norm.default, (meta(2, 3, 8), [8], meta(8), meta(8))),
    (aten.layer_norm.default, (meta(2, 3, 8), [3, 8])),
    (aten.layer_norm.default, (meta(2, 8, 3).transpose(1, 2), [8])),
    (aten.gelu.default, (meta(2, 3),)),
    (aten.gelu.default, (meta(3, 2).t(),)),
]


@pytest.mark.parametrize(("func", "args"), CALLS, ids=lambda v: str(v)[:24] if callable(v) else "")
def test_a_known_result_is_what_the_meta_kernel_gives(func, args):
    with torch.inference_mode():
        ours, theirs = stand_ins.run_on_meta(func, schema_of(func), args, {}), func(*args)
    assert (ours.shape, ours.dtype, ours.stride()) == (theirs.shape, theirs.dtype, theirs.stride())


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.linear.default, (meta(2, 7), meta(5, 8))),
        (aten.batch_norm.default, (meta(2, 5, 4, 4), *norm(6))),
        (aten.layer_norm.default, (meta(2, 3, 8), [7])),
    ],
    ids=lambda v: str(v)[:24] if callable(v) else "",
)
def test_operands_that_do_not_fit_are_refused_as_torch_refuses_them(func, args):
    with torch.inference_mode(), pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever torch raises
        func(*args)
    with torch.inference_mode(), pytest.raises(type(theirs.value)) as ours:
        stand_ins.run_on_meta(func, schema_of(func), args, {})
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    ("first", "second", "groups"), [((8, 16), (3, 16, 24), 3), ((8, 16), (16, 24), 3), ((3, 8, 16), (16, 24), 3)]
)
def test_a_grouped_product_has_the_shape_that_torch_gives_in_bfloat16(first, second, groups):
    offs = torch.empty(groups, dtype=torch.int32, device="meta")
    lower = [torch.empty(shape, dtype=torch.bfloat16, device="meta") for shape in (first, second)]
    lower[1] = lower[1].transpose(-1, -2).contiguous().transpose(-1, -2)  # column-major, as its kernel wants
    func = aten._grouped_mm.default
    with torch.inference_mode():
        theirs = func(*lower, offs)
        ours = stand_ins.run_on_meta(func, schema_of(func), (*(t.float() for t in lower), offs), {})
    assert (ours.shape, ours.dtype) == (theirs.shape, torch.float32)
