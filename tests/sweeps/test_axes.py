"""Axes of a sweep as texts: ranges that double, ranges in steps, sizes of images."""

from __future__ import annotations

import pytest

from costmodel.errors import InputError
from costmodel.sweeps.axes import image_sizes, numbers


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("8", (8,)),
        ("1,2,4..256", (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        ("1..256", (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        ("1..100", (1, 2, 4, 8, 16, 32, 64, 100)),
        ("160,192..288", (160, 192, 224, 256, 288)),
        ("1,3..8", (1, 3, 5, 7, 8)),
        ("4,1..4", (4, 1, 2)),  # each once
        ("7..7", (7, )),
        (" 1 , 2 ", (1, 2)),
    ],
)  # fmt: skip
def test_numbers(text, values):
    assert numbers(text) == values


@pytest.mark.parametrize("text", ["", "0", "-1", "a", "1..", "8..4", "1.5", "1,,2", "1,3..99999999"])
def test_no_numbers(text):
    with pytest.raises(InputError, match="batch"):
        numbers(text)


def test_image_sizes():
    assert image_sizes("224x320,160,192..256") == ((224, 320), (160, 160), (192, 192), (224, 224), (256, 256))
    with pytest.raises(InputError):
        image_sizes("224x")
