"""Reads an ONNX graph as a module of torch operators."""

from __future__ import annotations

from costmodel.onnx_reader.module import OnnxModule
from costmodel.onnx_reader.types import dtype_of

__all__ = ["OnnxModule", "dtype_of"]
