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
    "in_columns",
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
    """Known names that begin as ``name`` does, the shortest first, then those that resemble it, best first.

    >>> near_matches("resnet5O", ["resnet50", "vgg16", "resnet152"], limit=1)
    ['resnet50']
    >>> near_matches("vit_small", ["davit_small", "vit_small_patch32_224", "vit_small_plus"], limit=3)
    ['vit_small_plus', 'vit_small_patch32_224', 'davit_small']
    """
    folded = {candidate.lower(): candidate for candidate in known}
    asked = name.lower()
    longer = sorted((n for n in folded if len(asked) > 2 and n.startswith(asked)), key=lambda n: (len(n), n))
    alike = difflib.get_close_matches(asked, folded, n=limit, cutoff=0.6)
    return [folded[hit] for hit in dict.fromkeys([*longer[:limit], *alike])][:limit]


def in_columns(names: Sequence[str], width: int = 96, indent: str = "    ") -> str:
    """Names in columns from top to bottom, as ``ls`` puts them, on lines of their own.

    >>> print(in_columns(["a10", "a100", "h100", "t4", "v100"], width=17))
    <BLANKLINE>
        a10   t4
        a100  v100
        h100
    """
    each = max(map(len, names), default=0) + 2
    columns = max(1, (width - len(indent) + 2) // each)
    rows = -(-len(names) // columns)
    lines = ("".join(f"{name:<{each}}" for name in names[row::rows]).rstrip() for row in range(rows))
    return "".join(f"\n{indent}{line}" for line in lines)


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
        lines.append(
            f"  there are: {there_is if isinstance(there_is, str) else ', '.join(there_is)}".replace(": \n", ":\n")
        )
    if near:
        lines.append(f"  did you mean {' or '.join(near)}?")
    if do:
        lines += [f"  {line}" for line in do.splitlines()]
    return "\n".join(lines)
