"""Files that hold weights, or programs that cannot be read: a clear word on what to give instead."""

from __future__ import annotations

import zipfile
from pathlib import Path

from costmodel.errors import ModelError, UnknownModelError
from costmodel.sources.loaded import LoadedModel
from costmodel.sources.registry import Options, source

__all__: list[str] = []

#: What a file with that ending usually is.
_KINDS = {
    ".pt": "weights (a state dict) or a pickled module",
    ".pth": "weights (a state dict) or a pickled module",
    ".ckpt": "a checkpoint: weights and the state of training",
    ".bin": "weights",
    ".safetensors": "weights",
    ".gguf": "quantized weights",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".pb": "a TensorFlow graph",
    ".tflite": "a TensorFlow Lite model",
    ".engine": "a TensorRT engine, made for one machine",
    ".mlmodel": "a Core ML model",
}


@source("weights", claims=lambda request: Path(request).suffix.lower() in _KINDS, builds=False)
def load(request: str, options: Options) -> LoadedModel:
    """Raises ModelError with what the file is and what can be analyzed; UnknownModelError where there is none."""
    path = Path(request).expanduser()
    if not path.is_file():
        raise UnknownModelError(f"there is no file {path}")
    kind = "a TorchScript program" if _is_torchscript(path) else _KINDS[path.suffix.lower()]
    raise ModelError(
        f"{path.name} holds {kind}, from which no model can be traced\n"
        "  give what builds the model: path/to/file.py:factory, or the module itself to costmodel.analyze()\n"
        "  or save it as a program: torch.export.save(torch.export.export(model, inputs), 'model.pt2'), or as ONNX"
    )


def _is_torchscript(path: Path) -> bool:
    """Whether ``torch.jit.save`` wrote it: its archive holds code beside the tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
