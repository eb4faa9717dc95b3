"""Backward operators of torchvision, where its own library does not load (:mod:`costmodel.sources.torchvision_ops`).

Without them autograd would stop at a region pooling or deformable convolution, with no gradient for what lies before.
Signatures and saved tensors are those of torchvision/csrc/ops/autograd/*.cpp.
"""

from __future__ import annotations

from typing import Any

__all__ = ["BACKWARD_SCHEMAS", "register_gradients"]

_IMAGE = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_POOLED = "float spatial_scale, SymInt pooled_height, SymInt pooled_width"
#: torchvision/csrc/ops/*.cpp, TORCH_LIBRARY_FRAGMENT(torchvision, m); backward operators.
BACKWARD_SCHEMAS = (
    f"_roi_align_backward(Tensor grad, Tensor rois, {_POOLED}, {_IMAGE}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_POOLED}, {_IMAGE}) -> Tensor",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOLED}, int sampling_ratio, {_IMAGE})"
    " -> Tensor",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOLED}, {_IMAGE}) -> Tensor",
    "_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, "
    "SymInt groups, SymInt offset_groups, bool use_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
#: Pools whose second result, where each element came from, the backward operator takes.
_WITH_PLACES = ("roi_pool", "ps_roi_align", "ps_roi_pool")


def register_gradients(library: Any) -> None:
    """Tell autograd the backward operators, whose schemas ``library`` has."""
    import torch

    for name in ("roi_align", *_WITH_PLACES):
        torch.library.register_autograd(
            f"torchvision::{name}", _pool_backward(name), setup_context=_keep_regions, lib=library
        )
    torch.library.register_autograd(
        "torchvision::deform_conv2d", _deform_backward, setup_context=_keep_operands, lib=library
    )


def _keep_regions(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    image, rois, *ctx.how = inputs
    ctx.image = tuple(image.shape)
    ctx.save_for_backward(rois, *(output[1:] if isinstance(output, tuple) else ()))


def _pool_backward(name: str) -> Any:
    def backward(ctx: Any, gradient: Any, *_: Any) -> tuple[Any, ...]:
        import torch

        rois, *places = ctx.saved_tensors
        scale, height, width, *more = ctx.how
        arguments = [gradient, rois, *places, scale, height, width]
        # The sampling ratio stands before the image's sizes in one of them, and after them in the other.
        arguments += [*more, *ctx.image] if name.startswith("ps_") else [*ctx.image, *more]
        result = getattr(torch.ops.torchvision, f"_{name}_backward")(*arguments)
        return (result, None, *(None for _ in ctx.how))

    return backward


def _keep_operands(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.how = inputs[5:]
    ctx.save_for_backward(*inputs[:5])


def _deform_backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
    import torch

    found = torch.ops.torchvision._deform_conv2d_backward(gradient, *ctx.saved_tensors, *ctx.how)
    return (*found, *(None for _ in ctx.how))
