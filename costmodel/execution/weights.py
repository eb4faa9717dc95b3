"""WeightScheme: how weights lie in memory that are stored narrower than they are multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from costmodel.errors import InputError, librarian
from costmodel.execution.words import chosen

__all__ = ["DENSE", "WEIGHTS", "WeightScheme", "of_configuration"]

#: The word for weights as wide as the activations, whatever a configuration says.
DENSE = "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightScheme:
    """How the weights of linear layers (and of experts) in the blocks of a model are stored.

    ``method``      whose format and kernels: gptq, awq, nf4 and int8 of bitsandbytes (``bnb_4bit``, ``bnb_8bit``),
                    ``fp8`` (a scale for each output channel), ``fp8_block`` (one for each block of a weight),
                    ``mxfp4`` (one for each 32 elements)
    ``bits``        of a weight
    ``group``       elements along k that share a scale; 0: all of them
    ``group_rows``  output channels that share a scale; 0: all of them
    ``scale_bits``  of a scale: 16 where it has the dtype of the activations
    ``zero_bits``   of a zero point, one for each group of an output channel; 0: there are none
    ``index_bytes`` for each input channel, which group it belongs to [B]: GPTQ keeps it whether or not it is used
    ``skipped``     parts of module paths that are left as they are; ``*`` stands for any text
    """

    method: str
    bits: int
    group: int = 0
    group_rows: int = 1
    scale_bits: int = 16
    zero_bits: int = 0
    index_bytes: int = 0
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, word: str) -> WeightScheme | None:
        """What a word stands for: one of :data:`WEIGHTS`; None for weights that are not narrow.

        ``int4`` is the form of GPTQ and AWQ where no file says more: groups of 128, fp16 scales, zero points; ``int8``
        the same with 8 bits; ``fp8`` float8 with a scale for each output channel.
        """
        return _BY_WORD[chosen("format of weights", word, _BY_WORD)]

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> WeightScheme | None:
        """The scheme that :meth:`plain` wrote; None for None."""
        return None if values is None else cls(**{**values, "skipped": tuple(values.get("skipped", ()))})

    def plain(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {**asdict(self), "skipped": list(self.skipped)}

    def __str__(self) -> str:
        return next((word for word, scheme in _BY_WORD.items() if scheme == self), f"{self.method} {self.bits} bit")

    def stored(self, rows: int, columns: int) -> tuple[int, int, int]:
        """B of the weight [rows, columns] (output and input channels) itself, of its scales, and of zero points and
        indices, whole bytes each.

        >>> WeightScheme.of("int4").stored(256, 1024)       # half a byte each; 256 * 8 scales of 2 B; half a byte each
        (131072, 4096, 1024)
        """
        along = -(-columns // self.group) if self.group else 1
        scales = along * (-(-rows // self.group_rows) if self.group_rows else 1)
        zeros = -(-along * rows * self.zero_bits // 8)
        return (
            -(-rows * columns * self.bits // 8),
            -(-scales * self.scale_bits // 8),
            zeros + columns * self.index_bytes,
        )

    def skips(self, module: str) -> bool:
        """Whether the weights of the module at this path are left as they are.

        >>> WeightScheme(method="mxfp4", bits=4, skipped=("layers.*.self_attn",)).skips("layers.7.self_attn.q_proj")
        True
        """
        return any(fnmatchcase(module, f"*{part}*") for part in self.skipped)

    @property
    def narrow_activations(self) -> bool:
        """Whether activations are narrowed too, where the machine multiplies the format."""
        return self.method in ("fp8", "fp8_block", "bnb_8bit")


_INT4 = WeightScheme(method="gptq", bits=4, group=128, zero_bits=4)
_BY_WORD: Mapping[str, WeightScheme | None] = {
    DENSE: None,
    "int8": WeightScheme(method="gptq", bits=8, group=128, zero_bits=8),
    "int4": _INT4,
    "fp8": WeightScheme(method="fp8", bits=8, scale_bits=32),
}
#: The words.
WEIGHTS = tuple(_BY_WORD)

_KNOWN = "gptq, awq, bitsandbytes, fp8 (whole or in blocks), fbgemm_fp8, mxfp4"


def of_configuration(values: Mapping[str, Any]) -> WeightScheme:
    """The scheme of a ``quantization_config`` of transformers. Raises InputError for one that is not known.

    >>> of_configuration({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}).zero_bits
    4
    """
    if not isinstance(values, Mapping):
        raise InputError(f"quantization_config is an object such as {{'quant_method': 'gptq', ...}}, not {values!r}")
    method = str(values.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(values) else ""))
    reader = _READERS.get(method)
    if reader is None:
        raise InputError(
            librarian(
                f"weights quantized by {method or 'an unnamed method'} are not modelled",
                there_is=_KNOWN,
                do="--weights says how they lie in memory: " + ", ".join(WEIGHTS),
            )
        )
    skipped = [values.get(name) or () for name in ("modules_to_not_convert", "llm_int8_skip_modules", "ignored_layers")]
    return replace(reader(values), skipped=tuple(dict.fromkeys(name for names in skipped for name in names)))


def _is_bitsandbytes(values: Mapping[str, Any]) -> bool:
    return bool(values.get("load_in_4bit") or values.get("load_in_8bit"))


def _bits(values: Mapping[str, Any], default: int) -> int:
    bits = values.get("bits", values.get("w_bit", default))
    if bits not in (2, 3, 4, 8):
        raise InputError(f"weights of {bits!r} bits are not modelled\n  there are: 2, 3, 4, 8")
    return int(bits)


def _group(values: Mapping[str, Any]) -> int:
    size = values.get("group_size", values.get("q_group_size", 128))
    return 0 if size in (None, -1, 0) else int(size)


def _gptq(values: Mapping[str, Any]) -> WeightScheme:
    """Zero points are packed beside the weights even where they are all the same (``sym``)."""
    bits = _bits(values, 4)
    return WeightScheme(method="gptq", bits=bits, group=_group(values), zero_bits=bits, index_bytes=4)


def _awq(values: Mapping[str, Any]) -> WeightScheme:
    bits = _bits(values, 4)
    zeros = bits if values.get("zero_point", True) else 0
    return WeightScheme(method="awq", bits=bits, group=_group(values), zero_bits=zeros)


def _bitsandbytes(values: Mapping[str, Any]) -> WeightScheme:
    """NF4 or FP4 with an fp32 scale for 64 elements, itself in 8 bits where it is quantized too; LLM.int8 with an fp32
    scale for each output channel (Dettmers et al. 2022 and 2023, arXiv:2208.07339 and 2305.14314)."""
    if values.get("load_in_4bit"):
        scale_bits = 8 if values.get("bnb_4bit_use_double_quant") else 32
        return WeightScheme(method="bnb_4bit", bits=4, group=64, scale_bits=scale_bits)
    return WeightScheme(method="bnb_8bit", bits=8, scale_bits=32)


def _fp8(values: Mapping[str, Any]) -> WeightScheme:
    block = values.get("weight_block_size")
    if block:
        rows, columns = (int(size) for size in block)
        return WeightScheme(method="fp8_block", bits=8, group=columns, group_rows=rows, scale_bits=32)
    return WeightScheme(method="fp8", bits=8, group_rows=0, scale_bits=32)


_READERS = {
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "fp8": _fp8,
    "fbgemm_fp8": lambda values: WeightScheme(method="fp8", bits=8, scale_bits=32),
    "mxfp4": lambda values: WeightScheme(method="mxfp4", bits=4, group=32, scale_bits=8),
}
