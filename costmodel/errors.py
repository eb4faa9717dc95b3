"""Errors that read like a good librarian: what was asked, what there is, what to do.

Every error that a user can cause is a :class:`CostmodelError`; the command line prints its text and
exits with status 2, without a traceback. A budget that failed, or ``--strict``, is not an error but
a result (exit status 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "CacheWarning",
    "CostmodelError",
    "FormulaError",
    "InputError",
    "ModelError",
    "OutputError",
    "ProfileError",
    "TraceError",
    "UnknownHardwareError",
    "UnknownModelError",
    "librarian",
    "near_matches",
]


class CostmodelError(Exception):
    """Base of everything that is the request's fault; its text is fit to print as it stands."""


class UnknownModelError(CostmodelError):
    """No source knows a model of this name."""


class ModelError(CostmodelError):
    """The model was found, but could not be built or imported."""


class InputError(CostmodelError):
    """The inputs do not fit: wrong shape, batch 0, an unknown symbol, a bad combination of flags."""


class TraceError(CostmodelError):
    """The model was built, but its forward pass cannot be traced (data-dependent control flow, ...)."""


class UnknownHardwareError(CostmodelError):
    """No hardware profile has this name."""


class ProfileError(CostmodelError):
    """A hardware profile is broken, incomplete or contradicts itself."""


class FormulaError(CostmodelError):
    """A formula is registered twice, or fails on the operator that it was registered for."""


class OutputError(CostmodelError):
    """The requested output cannot be written."""


class CacheWarning(UserWarning):
    """A cache entry could not be read or written; the result is right, only slower."""


def near_matches(name: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """Known names that resemble ``name``, best first.

    >>> near_matches("resnet5O", ["resnet50", "vgg16", "resnet152"], limit=1)
    ['resnet50']
    """
    folded = {candidate.lower(): candidate for candidate in known}
    return [folded[hit] for hit in difflib.get_close_matches(name.lower(), folded, n=limit, cutoff=0.6)]


def librarian(asked: str, *, there_is: Sequence[str] | str = (), near: Sequence[str] = (), do: str = "") -> str:
    """Put an error text together: what was asked, what there is, what to do.

    >>> print(librarian("no hardware profile is called 'a1000'", there_is=["a100", "t4"], near=["a100"],
    ...                 do="A profile is one file: hw_profiles/<name>.toml"))
    no hardware profile is called 'a1000'
      there are: a100, t4
      did you mean a100?
      A profile is one file: hw_profiles/<name>.toml
    """
    lines = [asked]
    if there_is:
        lines.append(f"  there are: {there_is if isinstance(there_is, str) else ', '.join(there_is)}")
    if near:
        lines.append(f"  did you mean {' or '.join(near)}?")
    if do:
        lines += [f"  {line}" for line in do.splitlines()]
    return "\n".join(lines)
