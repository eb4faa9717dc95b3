"""Precision: in which number formats a run stores and multiplies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from costmodel.errors import InputError, librarian
from costmodel.execution.words import chosen, spellings

__all__ = ["BITS", "CACHES", "DTYPES", "SPELLINGS", "Precision", "dtype_word", "torch_dtype", "word_of_dtype"]

#: Bits of one element in memory, by format. TF32 is fp32 in memory; only the multiplier sees 19 bits of it.
BITS: Mapping[str, int] = MappingProxyType(
    {"fp64": 64, "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "int4": 4}
)
_TORCH = {"fp64": "float64", "fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
#: The names that torch has for them.
_OF_TORCH = {"float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
#: Formats that keys and values may be kept in, beside that of the activations.
CACHES = {"fp16": "float16", "bf16": "bfloat16", "fp8": "float8_e4m3fn"}


def torch_dtype(name: str) -> str:
    """torch's name of the dtype that stores a format. Raises InputError for a format that is not lowered yet.

    >>> torch_dtype("tf32"), torch_dtype("bf16")
    ('float32', 'bfloat16')
    """
    if name not in _TORCH:
        raise InputError(librarian(f"a run in {name} is not modelled yet", there_is=tuple(_TORCH)))
    return _TORCH[name]


def word_of_dtype(dtype: str) -> str:
    """The format that torch's dtype of a model's weights stands for.

    >>> word_of_dtype("bfloat16"), word_of_dtype("float32")
    ('bf16', 'fp32')
    """
    return next(word for word, name in _TORCH.items() if name == dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Formats of a run, each a key of :data:`BITS`. Frozen: the key of whatever is kept by it.

    ``weights``, ``activations``  as they lie in memory where nothing casts: ``model.to(dtype)``
    ``cache``                     keys and values kept between the steps of a decoder
    ``autocast``                  the lower format of ``torch.autocast`` around the model, None without it
    ``products``                  what fp32 matrix products are rounded to: "tf32" where
                                  ``torch.set_float32_matmul_precision("high")`` allows it, else "fp32". Convolutions
                                  take TF32 by PyTorch's default, whatever this says.

    The words of the command line, of CSV columns and of JSON stand for such combinations:

    >>> Precision.of("amp_fp16").autocast, str(Precision.of("bf16")), Precision.of("fp16").bits
    ('fp16', 'bf16', 16)
    """

    weights: str = "fp32"
    activations: str = "fp32"
    cache: str = "fp32"
    autocast: str | None = None
    products: str = "fp32"

    def __post_init__(self) -> None:
        formats = (self.weights, self.activations, self.cache, self.products, self.autocast or self.activations)
        for name in formats:
            chosen("number format", name, BITS)

    @classmethod
    def of(cls, word: str) -> Precision:
        """What a word stands for, one of :data:`DTYPES` or torch's own name. Raises InputError for another."""
        return _BY_WORD[chosen("dtype", dtype_word(word), _BY_WORD)]

    def __str__(self) -> str:
        """The word, or the formats where none stands for them."""
        return _WORD_OF.get(self) or f"{self.weights} weights, {self.operands} activations, {self.cache} cache"

    @property
    def is_traced(self) -> bool:
        """Whether every tensor has the dtype of the trace, which is made in fp32."""
        return self.autocast is None and BITS[self.weights] == BITS[self.activations] == BITS["fp32"]

    def keeps(self, own: str) -> bool:
        """Whether every tensor of a model whose weights are of torch's dtype ``own`` has the dtype of its trace.

        >>> Precision.of("bf16").keeps("bfloat16"), Precision.of("fp32").keeps("bfloat16")
        (True, False)
        """
        held = {torch_dtype(self.weights), torch_dtype(self.activations)}
        return self.autocast is None and held == {own} and not self.narrow_cache

    @property
    def narrow_cache(self) -> bool:
        """Whether keys and values are kept in fewer bits than activations have."""
        return BITS[self.cache] < self.bits

    @property
    def cache_dtype(self) -> str:
        """torch's name of the dtype that keys and values are kept in."""
        return CACHES[self.cache] if self.narrow_cache else torch_dtype(self.activations)

    @property
    def operands(self) -> str:
        """The format in which most contractions take their operands."""
        if self.autocast is not None:
            return self.autocast
        return self.products if self.activations == "fp32" else self.activations

    @property
    def bits(self) -> int:
        """Bits of an element of what contractions read [1]."""
        return BITS[self.operands]

    @property
    def weight_bits(self) -> int:
        """Bits of an element of the weights, as they lie in memory [1]."""
        return BITS[self.weights]


_BY_WORD: Mapping[str, Precision] = MappingProxyType(
    {
        "fp32": Precision(),
        "tf32": Precision(products="tf32"),
        "fp16": Precision(weights="fp16", activations="fp16", cache="fp16"),
        "bf16": Precision(weights="bf16", activations="bf16", cache="bf16"),
        "amp_fp16": Precision(autocast="fp16", cache="fp16"),
        "amp_bf16": Precision(autocast="bf16", cache="bf16"),
    }
)
_WORD_OF = {precision: word for word, precision in _BY_WORD.items()}

#: The words: ``fp32`` is PyTorch's default (convolutions in TF32 where the machine has it, matrix products in FP32),
#: ``tf32`` allows both, ``fp16``/``bf16`` mean ``model.to(dtype)``, ``amp_*`` ``torch.autocast`` around fp32 weights.
DTYPES = tuple(_BY_WORD)


def dtype_word(word: Any) -> Any:
    """Our word for one of torch's dtypes or for its name; anything else as it is.

    >>> dtype_word("torch.float16"), dtype_word("bfloat16"), dtype_word("amp_bf16"), dtype_word("fp17")
    ('fp16', 'bf16', 'amp_bf16', 'fp17')
    """
    return _OF_TORCH.get(str(word).removeprefix("torch."), word)


#: Spellings in measured files -> ours.
SPELLINGS = spellings(
    DTYPES,
    {
        "float32": "fp32",
        "float16": "fp16",
        "half": "fp16",
        "bfloat16": "bf16",
        "amp": "amp_fp16",
        "amp_float16": "amp_fp16",
        "amp_bfloat16": "amp_bf16",
        "apex_o2_fp16": "fp16",  # the model in half precision; fp32 copies of its weights are the optimizer's
    },
)
