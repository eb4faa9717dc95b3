"""Kernels that transformers takes from other packages (mamba_ssm, causal_conv1d, fla), and what stands in for them.

Where a package is not installed, transformers runs a reference written in PyTorch: the same sums, in many small
operators. That is then what is analyzed, and a report says so. A reference of Mamba's scan is a loop over tokens, which
a prompt before a step of decoding needs to go through for its states alone: their shapes are known after one token.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from inspect import getclosurevars, isfunction
from typing import Any

__all__ = ["one_token_scans", "references", "say_references"]

#: The loop over tokens of Mamba's first version, as transformers' modules call it.
_SCAN = "mamba_selective_scan"


def _modules_of(model: Any) -> list[Any]:
    names = dict.fromkeys(type(part).__module__ for part in model.modules())
    return [sys.modules[name] for name in names if name.startswith("transformers.models.") and name in sys.modules]


def references(model: Any) -> list[str]:
    """A note that names the packages whose kernels a model would use and which are not installed; empty if none."""
    missing: dict[str, list[str]] = {}
    for module in _modules_of(model):
        for value in vars(module).values():
            if isfunction(value) and value.__code__.co_filename.endswith("hub_kernels.py"):
                known = getclosurevars(value).nonlocals
                if known.get("is_new_implementation") is False:
                    missing.setdefault(str(known.get("package")), []).append(str(known.get("func_name")))
    if not missing:
        return []
    named = "; ".join(f"{', '.join(dict.fromkeys(functions))} of {package}" for package, functions in missing.items())
    return [f"analyzed with transformers' own references in PyTorch, slower than the kernels not installed: {named}"]


@lru_cache(maxsize=1)
def say_references() -> None:
    """Keep transformers from logging what :func:`references` says of a model; once per process."""
    logging.getLogger("transformers.integrations.hub_kernels").addFilter(
        lambda record: "is falling back to its reference" not in record.getMessage()
    )


@contextmanager
def one_token_scans(model: Any) -> Iterator[None]:
    """Inside, scans over meta tensors run over one token and put out as many as they were given."""
    kept = [(module, getattr(module, _SCAN)) for module in _modules_of(model) if hasattr(module, _SCAN)]
    for module, scan in kept:
        setattr(module, _SCAN, _over_one_token(scan))
    try:
        yield
    finally:
        for module, scan in kept:
            setattr(module, _SCAN, scan)


def _over_one_token(scan: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(scan)
    def short(hidden_states: Any, dt: Any, A: Any, B: Any, C: Any, *args: Any, z: Any = None, **kwargs: Any) -> Any:
        if not hidden_states.is_meta:
            return scan(hidden_states, dt, A, B, C, *args, z=z, **kwargs)
        first = [each[..., :1] for each in (hidden_states, dt)]
        made = scan(*first, A, B[..., :1], C[..., :1], *args, z=None if z is None else z[..., :1], **kwargs)
        output, *state = made if isinstance(made, tuple) else (made,)
        output = output.new_empty((*output.shape[:-1], hidden_states.shape[-1]))
        return (output, *state) if state else output

    return short
