"""Element types of ONNX."""

from __future__ import annotations

import numpy
import torch

from costmodel.errors import ModelError

__all__ = ["HOST_ELEMENTS", "dtype_of"]

#: Integers up to this many elements are shapes, axes and indices, which the host reads; longer ones lie on the device.
HOST_ELEMENTS = 64


def dtype_of(code: int) -> torch.dtype:
    """The torch dtype of an ONNX element type. Raises ModelError for one that torch has not."""
    import onnx

    name = numpy.dtype(onnx.helper.tensor_dtype_to_np_dtype(code)).name if code else "float32"
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"a tensor of the file is of type {name}, which torch has not")
    return found
