"""Models of light public libraries, counted as torch counts them: a sample of what benchmarks/libraries.py does.

A library that is not installed is skipped by name.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

#: Library as pip calls it -> (module that says whether it is there, models).
SAMPLE = {
    "vit-pytorch": ("vit_pytorch", "vit.ViT simple_vit_with_fft.SimpleViT cct.CCT max_vit.MaxViT na_vit.NaViT"),
    "x-transformers": ("x_transformers", "decoder rotary alibi grouped_queries encoder_decoder"),
    "segmentation-models-pytorch": ("segmentation_models_pytorch", "Unet FPN DeepLabV3Plus Segformer"),
    "torchdiffeq": ("torchdiffeq", "euler rk4 dopri5"),
    "torchvision": ("torchvision", "ssdlite320_mobilenet_v3_large"),
    "transformers": ("transformers", "mamba longformer mixtral speech_wav2vec2 series_patchtst"),
    "torch.distributions": ("torch", "categorical tanh_normal"),
    "packed": ("torch", "LSTM GRU"),
}


@pytest.fixture(scope="module")
def libraries():
    """The benchmark as a module; its catalogue lies beside it."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("libraries_survey", BENCHMARKS / "libraries.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    sys.path[:] = before


@pytest.mark.parametrize(
    ("library", "name"), [(library, name) for library, (_, names) in SAMPLE.items() for name in names.split()]
)
def test_macs_are_those_of_torchs_counter(libraries, library: str, name: str) -> None:
    if importlib.util.find_spec(SAMPLE[library][0]) is None:
        pytest.skip(f"{library} is not installed")
    result = libraries.examine(f"{library}:{name}")
    assert (result.verdict, result.detail) == ("exact", "")
    assert result.macs == result.counter_macs + result.by_hand_macs > 0


def test_what_the_counter_takes_for_nothing_is_counted_from_shapes(libraries) -> None:
    import torch
    from torch import nn

    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix, self.vector = nn.Parameter(torch.zeros(5, 7)), nn.Parameter(torch.zeros(7))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.matrix * torch.mv(self.matrix, self.vector).sum() + torch.dot(self.vector, self.vector)

    counted, by_hand, names = libraries.torch_macs(Products(), torch.zeros(3, 5), on_meta=True)
    assert (counted, by_hand, sorted(names.split())) == (3 * 5 * 7, 5 * 7 + 7, ["aten.dot", "aten.mv"])
