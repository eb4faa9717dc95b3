"""Text to a stream or to a file; a file is written whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

from costmodel.errors import OutputError, librarian
from costmodel.report.text import is_unicode, to_ascii

__all__ = ["check_writable", "put", "put_bytes"]


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OutputError when ``path`` cannot be written, to be known before a long analysis and not after."""
    target = _target(path)
    if target.is_dir():
        raise OutputError(librarian(f"cannot write {path}: it is a directory", do="Name a file, as in -o report.md."))
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"cannot write {path}: the file is there and may not be changed")
    folder = target.parent
    if not folder.is_dir():
        what = "is not a directory" if folder.exists() else "does not exist"
        raise OutputError(librarian(f"cannot write {path}: {folder} {what}", do=f"mkdir -p {folder}"))
    if not _is_special(target) and not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: no file may be made in {folder}")


def put(text: str, path: str | os.PathLike[str] | None = None) -> None:
    """Write ``text`` to the file ``path`` in UTF-8, or to standard output where it is None.

    A file appears whole or stays what it was: the text goes to a new file beside it, which then takes
    its place. Pipes and devices are written as they are. Raises OutputError when that fails.
    """
    if path is None:
        _print(text, sys.stdout)
    else:
        put_bytes(text.encode("utf-8", errors="backslashreplace"), path)


def put_bytes(data: bytes, path: str | os.PathLike[str]) -> None:
    """Write ``data`` to the file ``path``, as :func:`put` does. Raises OutputError when that fails."""
    check_writable(path)
    target = _target(path)
    try:
        if _is_special(target):
            target.write_bytes(data)
        else:
            _replace(target, data)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _target(path: str | os.PathLike[str]) -> Path:
    """The file that ``path`` means, links followed, so that a link stays a link."""
    return Path(os.path.realpath(path))


def _is_special(target: Path) -> bool:
    return target.exists() and not target.is_file()


def _replace(target: Path, data: bytes) -> None:
    """Write beside ``target``, then rename: a reader sees the old file or the new one."""
    beside = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(beside, target.stat().st_mode & 0o777)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _print(text: str, stream: TextIO) -> None:
    """Write to a stream, in ASCII where its encoding could not hold the text. Raises OutputError where it fails."""
    try:
        stream.write(text if is_unicode(stream.encoding) or text.isascii() else to_ascii(text))
        stream.flush()
    except BrokenPipeError:  # whoever read it has enough
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left in the buffer is lost too
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error
