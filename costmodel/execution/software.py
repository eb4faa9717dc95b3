"""Software: the releases and switches under which a run is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from costmodel.errors import InputError
from costmodel.execution.words import truth

__all__ = ["Software"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What runs the model, as far as it changes kernels. Frozen: part of the key of whatever is kept by it.

    ``torch``            the release, such as ``2.4.0``; "" where it is not known, which counts as the latest
    ``tf32_matmul``      ``torch.backends.cuda.matmul.allow_tf32`` is on
    ``fast_norm``        timm's own normalization layers stay in the lower precision under autocast
    ``reparameterized``  branches that a model can fold (RepVGG, MobileOne, ...) are folded
    """

    torch: str = ""
    tf32_matmul: bool = False
    fast_norm: bool = False
    reparameterized: bool = False

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What may be said of it, by name."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def parsed(cls, texts: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of ``texts`` that software has fields for, their text as values; yes and no as truth values.

        Raises InputError for a text that is none.

        >>> Software.parsed({"fast_norm": "no", "torch": "2.4.0", "colour": "blue"})
        {'torch': '2.4.0', 'fast_norm': False}
        """
        known = {field.name: field.default for field in fields(cls)}
        return {name: _value(name, texts[name], default) for name, default in known.items() if name in texts}

    def at_least_torch(self, *release: int) -> bool:
        """Whether the run is by this release of torch or a later one.

        >>> Software(torch="2.4.1").at_least_torch(2, 5), Software().at_least_torch(2, 5)
        (False, True)
        """
        if not self.torch:
            return True
        parts = self.torch.partition("+")[0].split(".")
        return tuple(int(p) for p in parts[: len(release)] if p.isdigit()) >= release


def _value(name: str, text: Any, default: Any) -> Any:
    if not isinstance(default, bool) or not isinstance(text, str):
        return text
    try:
        return truth(text)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
