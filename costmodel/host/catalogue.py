"""Where hosts come from: TOML files beside the machines', and the hosts that a machine is met with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from costmodel.errors import InputError, ProfileError, librarian, near_matches
from costmodel.execution.execution import USUAL_HOST
from costmodel.hardware import HardwareProfile
from costmodel.hardware.catalogue import SEARCH_PATH_VARIABLE, directories
from costmodel.hardware.read import read_raw
from costmodel.host.profile import INSTANT, ITSELF, HostProfile
from costmodel.units import parse_quantity

__all__ = ["HostSpan", "host_facts", "host_file", "host_names", "host_of", "hosts", "read_host", "span_of"]

#: Half the width of an interval that holds 90 % of a normal distribution, in standard deviations.
SIGMAS = 1.645
#: One standard deviation of the rate at which hosts of a kind copy pageable memory, over it [1]: four servers of
#: torchvision's classifiers at batch 12 reach 1.5, 2.8, 3.5 and 4 GB/s (``benchmarks/fit_hosts.py``).
COPY_SPREAD = 0.4
#: Folder of the hosts' files within a folder of profiles.
FOLDER = "hosts"
_KEYS = {"name", "title", "cpu", "slowdown", "spread", "pageable_copy", "source", "notes", "aliases"}
#: Hosts of a machine whose profile names none: the usual one, and the fastest and slowest that one meets.
_ANYWHERE = ("server-2021", ("desktop-2023", "cloud-xeon"))


@dataclass(frozen=True, slots=True)
class HostSpan:
    """The hosts that a step is judged by: the one assumed, and the quickest and slowest that are as likely."""

    assumed: HostProfile
    quickest: HostProfile
    slowest: HostProfile

    @property
    def is_named(self) -> bool:
        """Whether one host was asked for, so that the others play no part."""
        return self.quickest is self.assumed is self.slowest

    @property
    def bounds(self) -> tuple[HostProfile, HostProfile]:
        """The quickest and the slowest that hold nine of ten hosts: each a :data:`SIGMAS` of its spread further out."""
        low, high = self.quickest, self.slowest
        rates = [host.copy_bytes_per_s for host in (low, self.assumed, high)]
        copies = 1 + SIGMAS * (high.spread if self.is_named else COPY_SPREAD)
        quick, slow = (1 + SIGMAS * host.spread for host in (low, high))
        return (
            replace(low, slowdown=low.slowdown / quick, pageable_copy_bytes_per_s=max(rates) * copies),
            replace(high, slowdown=high.slowdown * slow, pageable_copy_bytes_per_s=min(rates) / copies),
        )


def read_host(path: Path) -> HostProfile:
    """One host's file. Raises ProfileError that says what is wrong with it."""
    raw = read_raw(path)
    wrong = [f"{key}: no such key" for key in raw if not key.endswith("_source") and key not in _KEYS]
    wrong += [f"{key}: is missing" for key in ("name", "title", "slowdown", "source") if key not in raw]
    for key in ("slowdown", "spread"):
        value = raw.get(key, 1.0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 100:
            wrong.append(f"{key}: must be a number between 0 and 100, it is {value!r}")
    if wrong:
        known = f"keys are {', '.join(sorted(_KEYS))}, and KEY_source"
        raise ProfileError(librarian(f"the host profile {path} cannot be used", do="\n".join([*wrong, known])))
    return _host(raw)


def _host(raw: Mapping[str, Any]) -> HostProfile:
    copy = raw.get("pageable_copy")
    return HostProfile(
        name=raw["name"],
        title=raw["title"],
        cpu=raw.get("cpu", ""),
        slowdown=float(raw["slowdown"]),
        spread=float(raw.get("spread", 0.15)),
        pageable_copy_bytes_per_s=None if copy is None else parse_quantity(copy, "B/s"),
        source=raw["source"],
        notes=tuple(raw.get("notes", ())),
    )


def _files() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for directory in directories():
        for path in sorted((directory / FOLDER).glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def hosts() -> list[HostProfile]:
    """Every host that has a file, sorted by name."""
    return [_read_as_of(path, path.stat().st_mtime_ns) for _, path in sorted(_files().items())]


def host_names() -> tuple[str, ...]:
    """What ``host=`` and ``--host`` take besides a path: the machine's usual one, one without time, and every file."""
    return (USUAL_HOST, INSTANT.name, *sorted(_files()))


def host_file(name: str) -> Path | None:
    """The file of a host, by its name or its path; None for what is no host: a machine, or nothing at all."""
    if not name.endswith(".toml"):
        return _files().get(name)
    path = Path(name).expanduser()
    try:
        raw = read_raw(path)
    except (ProfileError, OSError):
        return None
    return path if "slowdown" in raw or path.parent.name == FOLDER else None


def host_facts(path: Path) -> list[tuple[str, str, str]]:
    """(figure, value, source) of a host's file, as it writes them."""
    raw, host = read_raw(path), read_host(path)
    figures = ("cpu", "slowdown", "spread", "pageable_copy")
    sources = {key: raw.get(f"{key}_source", host.source if key in figures else "") for key in raw}
    shown = [(key, str(raw[key]), sources[key]) for key in ("name", "title", *figures) if key in raw]
    return [*shown, ("file", str(path), ""), *((f"note {i}", note, "") for i, note in enumerate(host.notes, start=1))]


@lru_cache(maxsize=64)
def _read_as_of(path: Path, modified_ns: int) -> HostProfile:
    return read_host(path)


@lru_cache(maxsize=64)
def _find_again(name: str, search_path: str) -> Path | None:
    """The file of a host, looked for once while the search path stays the same."""
    return _files().get(name)


def _named(name: str) -> HostProfile:
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise InputError(librarian(f"there is no host profile {name!r}", there_is=host_names()))
        return read_host(path)
    found = _find_again(name, os.environ.get(SEARCH_PATH_VARIABLE, ""))
    if found is None or not found.is_file():
        _find_again.cache_clear()  # it may be there by the next time
        near = near_matches(str(name), host_names())
        raise InputError(librarian(f"there is no host {name!r}", there_is=host_names(), near=near))
    return _read_as_of(found, found.stat().st_mtime_ns)


def host_of(name: str, hardware: HardwareProfile) -> HostProfile:
    """The host of this name, or of this file, beside a machine. Raises InputError for an unknown one.

    >>> from costmodel.hardware import load
    >>> host_of("usual", load("a100")).name, host_of("instant", load("a100")).slowdown
    ('epyc-7742', 0.0)
    """
    return span_of(name, hardware).assumed


def span_of(name: str, hardware: HardwareProfile) -> HostSpan:
    """The host of this name, with those that it may be instead where it is the machine's usual one."""
    if name == INSTANT.name:
        return HostSpan(INSTANT, INSTANT, INSTANT)
    if not hardware.family.issues_ahead:
        if name != USUAL_HOST:
            _named(name)  # an unknown word is an error here too
        return HostSpan(ITSELF, ITSELF, ITSELF)
    if name != USUAL_HOST:
        one = _named(name)
        return HostSpan(one, one, one)
    if hardware.measured_slowdown is not None:
        own = HostProfile(name="measured", title=f"the host of {hardware.name}", slowdown=hardware.measured_slowdown,
                          spread=0.05, source="measured by costmodel calibrate")  # fmt: skip
        return HostSpan(own, own, own)
    usual, met_with = (hardware.usual_host, hardware.met_with) if hardware.usual_host else _ANYWHERE
    by_speed = sorted(map(_named, {usual, *met_with}), key=lambda host: host.slowdown)
    return HostSpan(_named(usual), by_speed[0], by_speed[-1])
