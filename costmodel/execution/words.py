"""How the parts of a run are spelled: a word becomes ours, or an error that says which there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from costmodel.errors import InputError, librarian, near_matches

__all__ = ["chosen", "spellings"]


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
