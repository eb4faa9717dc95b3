"""The cache of traced graphs: one JSON file a trace, in the user's cache directory.

A key is made of everything that the trace depends on and that can be known without importing torch: the
request, the symbols and sizes asked for, and the versions of costmodel, torch, timm, torchvision and
transformers. An entry also lists the files of the user's own code that were imported to build the model,
with their hashes; it is stale once one of them changes.

Files are written beside their place and renamed, so that a reader never sees half of one; every file
carries the hash of its payload, and one that does not fit is rebuilt, with a :class:`CacheWarning`.
``$COSTMODEL_CACHE_DIR`` moves the directory; ``COSTMODEL_CACHE_DIR=off`` switches the cache off.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from costmodel.errors import CacheWarning
from costmodel.graph import OpGraph
from costmodel.graph_json import from_json, to_json

__all__ = ["CachedTrace", "cache_dir", "imported_files", "key", "read", "write"]

#: Raised whenever traces or the layout of the file change, so that older entries are not read.
FORMAT = 6

#: Names in a key -> the distributions whose versions they stand for.
_VERSIONED = {"costmodel": "torch-costmodel"} | {n: n for n in ("torch", "timm", "torchvision", "transformers")}


@dataclass(frozen=True, slots=True)
class CachedTrace:
    """What a trace leaves behind: the graph, whose it is, and its closed forms as text."""

    name: str
    source: str
    graph: OpGraph
    closed_forms: dict[str, str]


def cache_dir() -> Path | None:
    """Directory of the entries, or None when the cache is off."""
    chosen = os.environ.get("COSTMODEL_CACHE_DIR", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("costmodel", appauthor=False)) / "traces"


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def key(request: str, parts: Mapping[str, Any]) -> str:
    """Name of the entry for ``request`` under ``parts`` (symbols, sizes), and the versions installed.

    >>> key("resnet50", {"symbols": ["batch"]}) == key("resnet50", {"symbols": ["batch"]})
    True
    """
    versions = {name: _version(distribution) for name, distribution in _VERSIONED.items()}
    text = json.dumps([FORMAT, request, parts, versions], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _path(name: str) -> Path | None:
    folder = cache_dir()
    return None if folder is None else folder / f"{name}.json"


def read(name: str) -> CachedTrace | None:
    """The entry, or None when there is none, it is stale, or it is damaged (then with a CacheWarning)."""
    path = _path(name)
    if path is None:
        return None
    try:
        head, _, payload = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    try:
        if hashlib.sha256(payload).hexdigest().encode() != head:
            raise ValueError("its contents do not fit its checksum")
        data = json.loads(payload)
        if any(_digest(Path(file)) != digest for file, digest in data["files"].items()):
            return None
        graph = from_json(data["graph"])
        _ = graph.open_sizes  # compiled now: a file with anything but arithmetic in it is damaged
        return CachedTrace(data["name"], data["source"], graph, data["closed_forms"])
    except (ValueError, SyntaxError, KeyError, TypeError, AttributeError, IndexError) as error:
        warnings.warn(f"the cache entry {path} is damaged ({error}) and is made anew", CacheWarning, stacklevel=2)
        return None


def write(name: str, entry: CachedTrace, files: Mapping[str, str]) -> None:
    """Store an entry; ``files`` are the sources that it depends on, with their hashes. Failing only warns."""
    path = _path(name)
    if path is None:
        return
    payload = json.dumps(
        {
            "name": entry.name,
            "source": entry.source,
            "files": dict(files),
            "closed_forms": entry.closed_forms,
            "graph": to_json(entry.graph),
        },
        separators=(",", ":"),
    ).encode()
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True) if beside.parent.is_dir() else None
        warnings.warn(f"the cache cannot be written: {error}", CacheWarning, stacklevel=2)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def imported_files(*named: str | Path) -> dict[str, str]:
    """Hashes of the user's own source files that are imported now, and of the ``named`` files.

    Files of installed packages and of the standard library are left to their versions.
    """
    installed = tuple({sys.prefix, sys.base_prefix, str(Path(__file__).parent)})
    loaded = {
        file
        for name, module in list(sys.modules.items())
        if name != "__main__" and (file := getattr(module, "__file__", None))
    }
    own = {
        Path(f).resolve()
        for f in loaded
        if f.endswith(".py") and "site-packages" not in f and not f.startswith(installed)
    }
    own |= {Path(f).resolve() for f in named if Path(f).is_file()}
    return {str(f): _digest(f) for f in sorted(own)}
