"""How the parts of a run are spelled: a word becomes ours, or an error that says which there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from costmodel.errors import InputError, librarian, near_matches

__all__ = ["chosen", "spellings", "truth"]

_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def spellings(words: Iterable[str], others: Mapping[str, str]) -> dict[str, str]:
    """Every spelling -> our word: the words themselves, and those that others write for them.

    >>> spellings(("nchw", "nhwc"), {"channels_last": "nhwc"})["channels_last"]
    'nhwc'
    """
    return {**{word: word for word in words}, **others}


def chosen(kind: str, word: str, words: Iterable[str]) -> str:
    """``word``, which is one of ``words``; raises InputError with what there is otherwise.

    >>> chosen("layout", "nchw", ("nchw", "nhwc"))
    'nchw'
    """
    known = tuple(words)
    if word not in known:
        raise InputError(librarian(f"there is no {kind} {word!r}", there_is=known, near=near_matches(str(word), known)))
    return word


def truth(text: str | bool) -> bool:
    """``yes`` and ``no`` as a truth value; raises InputError for a text that is neither.

    >>> truth("yes"), truth("0"), truth(True)
    (True, False, True)
    """
    if isinstance(text, bool):
        return text
    if text.lower() not in _TRUTH:
        raise InputError(f"{text!r} is no bool")
    return _TRUTH[text.lower()]
