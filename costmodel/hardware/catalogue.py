"""Where hardware files lie, and what they are called.

Files are looked for in the directories of ``$COSTMODEL_HW_PATH`` (separated by ``os.pathsep``), then
among the shipped ones. A user's file wins over a shipped one of the same name; ``describe`` says so.
Any text that ends in ``.toml`` is a path and is read as it stands.

Loading one machine by name parses one file. By alias it parses also the few lines above the first
table of every file, where the aliases stand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from costmodel.errors import ProfileError, UnknownHardwareError, in_columns, librarian, near_matches
from costmodel.hardware.check import problems
from costmodel.hardware.instances import instances
from costmodel.hardware.local import this_machine
from costmodel.hardware.profile import HardwareProfile
from costmodel.hardware.read import parse_toml, read_profile, read_raw
from costmodel.hardware.schema import Problem

__all__ = [
    "SEARCH_PATH_VARIABLE",
    "CatalogueRow",
    "aliases",
    "catalogue",
    "check",
    "directories",
    "find",
    "load",
    "names",
]

SEARCH_PATH_VARIABLE = "COSTMODEL_HW_PATH"


def shipped_directory() -> Path:
    """``costmodel/hw_profiles`` in an installed package, ``hw_profiles`` beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "hw_profiles"
    return installed if installed.is_dir() else package.parent / "hw_profiles"


def directories() -> list[Path]:
    """All directories with hardware files, the user's first."""
    users = [Path(part).expanduser() for part in os.environ.get(SEARCH_PATH_VARIABLE, "").split(os.pathsep) if part]
    for directory in users:
        if not directory.is_dir():
            raise ProfileError(librarian(f"{SEARCH_PATH_VARIABLE} names {directory}, which is no directory"))
    return [*users, shipped_directory()]


def _files() -> dict[str, Path]:
    """Name -> file, the first of a name winning; sorted by name."""
    found: dict[str, Path] = {}
    for directory in directories():
        for path in directory.glob("*.toml"):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def names() -> list[str]:
    """Names of all machines, sorted."""
    return list(_files())


_FIRST_TABLE = re.compile(r"^\[", re.MULTILINE)


def _aliases_in(path: Path) -> tuple[str, ...]:
    """The aliases of a file, from the lines above its first table; a broken file has none here."""
    try:
        return _aliases_as_of(path, path.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=1024)
def _aliases_as_of(path: Path, modified_ns: int) -> tuple[str, ...]:
    try:
        preamble = _FIRST_TABLE.split(path.read_text(encoding="utf-8"), maxsplit=1)[0]
        return tuple(str(alias) for alias in parse_toml(preamble).get("aliases", ()))
    except (OSError, ValueError, TypeError):
        return ()


def aliases() -> dict[str, str]:
    """Alias -> name. An alias that is also some file's name, or an earlier file's alias, means that one."""
    files = _files()
    found: dict[str, str] = {}
    for name in sorted(files, key=lambda n: files[n].parent == shipped_directory()):  # the user's first
        for alias in _aliases_in(files[name]):
            if alias not in files:
                found.setdefault(alias, name)
    return dict(sorted(found.items()))


_VENDOR_WORDS = re.compile(r"\b(nvidia|amd|intel|geforce|tesla|instinct|quadro)\b")


def _fold(text: str) -> str:
    """A name as people and drivers write it, without case, vendor, spaces and what stands in parentheses.

    >>> _fold("NVIDIA GeForce RTX 3090"), _fold("A100-SXM4-80GB(DGX)")
    ('rtx3090', 'a100sxm480gb')
    """
    return re.sub(r"[^a-z0-9]", "", _VENDOR_WORDS.sub(" ", re.sub(r"\(.*?\)", "", text.lower())))


def find(name_or_path: str | Path) -> Path:
    """The file of a machine, by path, name or alias; raises :class:`UnknownHardwareError`.

    Case, spaces and the vendor's name do not matter: ``NVIDIA GeForce RTX 3090`` is found too.
    """
    asked = str(name_or_path)
    if asked.endswith(".toml"):
        path = Path(asked).expanduser()
        if not path.is_file():
            raise UnknownHardwareError(librarian(f"there is no hardware profile {asked!r}", do=_do()))
        return path
    if re.fullmatch(r"[\w.+-]+", asked):
        for directory in directories():
            if (path := directory / f"{asked}.toml").is_file():
                return path
    return _find_by_alias(asked)


def _find_by_alias(asked: str) -> Path:
    files, known = _files(), aliases()
    folded = {_fold(alias): name for alias, name in known.items()} | {_fold(name): name for name in files}
    name = None if re.search(r"[/\\]", asked) else folded.get(_fold(asked))  # a path must end in .toml
    if name is None:
        near = near_matches(asked, [*files, *known], limit=3)
        raise UnknownHardwareError(
            librarian(f"no hardware profile is called {asked!r}", there_is=in_columns(list(files)), near=near, do=_do())
        )
    return files[name]


def _do() -> str:
    return (
        f"A profile is one file: hw_profiles/<name>.toml, one in a directory of ${SEARCH_PATH_VARIABLE}, or any path."
    )


def load(name_or_path: str | Path) -> HardwareProfile:
    """One machine by name, alias or path of a TOML file, by the name of a cloud's instance (one of its cards, as its
    title then says), or ``local``: the GPU of this machine.

    Raises :class:`UnknownHardwareError` if there is none, and :class:`ProfileError` if its file is
    broken or contradicts itself.

    >>> load("a100").name, load("a100").peak("matrix", "bf16").flop_per_s
    ('a100-sxm-80gb', 312000000000000.0)
    """
    asked = str(name_or_path)
    if asked.lower() in ("local", "cpu"):
        asked = this_machine(asked.lower())
    if (instance := instances().get(asked.lower())) is not None:
        return instance.described(load(instance.machine))
    path = _find_again(asked, os.environ.get(SEARCH_PATH_VARIABLE, ""))
    try:
        return _load_as_of(path, path.stat().st_mtime_ns)
    except OSError:
        return read_profile(path)  # says what is wrong with it


@lru_cache(maxsize=256)
def _find_again(asked: str, search_path: str) -> Path:
    """As :func:`find`; a name that was found once is not looked for again while the search path stays the same."""
    return find(asked)


@lru_cache(maxsize=256)
def _load_as_of(path: Path, modified_ns: int) -> HardwareProfile:
    """One reading of a file; changed files are read anew."""
    return read_profile(path)


def check(profile: HardwareProfile | str | Path) -> list[Problem]:
    """Everything wrong with one machine's file, also what keeps it from loading; an empty list is a clean file."""
    path = profile.path if isinstance(profile, HardwareProfile) else find(profile)
    raw = read_raw(path)
    return [*problems(raw), *_name_problems(path, raw.get("name"), raw.get("aliases", ()))]


def _name_problems(path: Path, name: object, own: object) -> Iterator[Problem]:
    """A name that differs from its file's, and aliases that mean another machine too."""
    if name != path.stem:
        yield Problem("warning", "name", f"is {name!r}, but the file is found as {path.stem!r}; make them equal")
    others = {other: file for other, file in _files().items() if other != path.stem}
    taken = {_fold(alias): other for other, file in others.items() for alias in _aliases_in(file)}
    taken |= {_fold(other): other for other in others}
    for alias in own if isinstance(own, list) else ():
        if (other := taken.get(_fold(str(alias)))) is not None:
            yield Problem("warning", "aliases", f"{alias!r} already means {other}; remove it from one of them")


class CatalogueRow(NamedTuple):
    """One machine in a list; rates in FLOP/s and B/s, sizes in bytes, None where it has none."""

    name: str
    aliases: tuple[str, ...]
    fp32: float | None  # vector
    tf32: float | None  # matrix, like the next two, with fp32 accumulate
    fp16: float | None
    bf16: float | None
    dram_bytes_per_s: float
    dram_bytes: float | None
    l2_bytes: float | None  # of the whole device
    path: Path


def catalogue() -> list[CatalogueRow]:
    """Every machine, sorted by name; parses every file."""
    return [_row(read_profile(path)) for path in _files().values()]


def _row(profile: HardwareProfile) -> CatalogueRow:
    def rate(engine: str, dtype: str) -> float | None:
        peak = profile.find_peak(engine, dtype)
        return None if peak is None else peak.flop_per_s

    l2 = profile.find_memory_level("l2")
    per_unit_factor = profile.unit_count if l2 is not None and l2.per_unit else 1
    return CatalogueRow(
        name=profile.path.stem,
        aliases=profile.aliases,
        fp32=rate("vector", "fp32"),
        tf32=rate("matrix", "tf32"),
        fp16=rate("matrix", "fp16"),
        bf16=rate("matrix", "bf16"),
        dram_bytes_per_s=profile.dram_bytes_per_s,
        dram_bytes=profile.dram.capacity_bytes,
        l2_bytes=None if l2 is None or l2.capacity_bytes is None else l2.capacity_bytes * per_unit_factor,
        path=profile.path,
    )
