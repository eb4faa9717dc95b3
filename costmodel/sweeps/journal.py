"""What an interrupted sweep leaves beside its output file, so that the same command goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from costmodel.errors import OutputError

__all__ = ["Journal", "journal_path"]


def journal_path(output: str | os.PathLike[str]) -> Path:
    """``sweep.csv.partial`` beside ``sweep.csv``."""
    path = Path(output)
    return path.with_name(f"{path.name}.partial")


class Journal:
    """Finished rows, a line of JSON each, behind a line that says of which sweep.

    ``done`` are the rows of an earlier run of the same sweep, by number; a file of another sweep, or of other versions
    of costmodel, its libraries or its hardware files, is begun anew. A line that was cut off, or holds no row, is left
    out. Raises OutputError where the file cannot be written.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.done: dict[int, dict[str, Any]] = self._read()
        self._file: TextIO | None = None
        self._count = 0

    def _read(self) -> dict[int, dict[str, Any]]:
        try:
            head, *lines = self.path.read_text(encoding="utf-8").splitlines()
            if json.loads(head) != {"sweep": self.fingerprint}:
                return {}
        except (OSError, ValueError):
            return {}
        found = {}
        for line in lines:
            try:
                number, row = json.loads(line)
            except (ValueError, TypeError):
                continue
            if type(number) is int and isinstance(row, dict):
                found[number] = row
        return found

    def __enter__(self) -> Journal:
        try:
            self._file = open(self.path, "w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._line({"sweep": self.fingerprint})
        for number, row in self.done.items():
            self.add(number, row)
        return self

    def _line(self, value: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(value, separators=(",", ":")) + "\n")
            self._file.flush()

    def __len__(self) -> int:
        return self._count

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """Keep a finished row."""
        self._line([number, dict(row)])
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if not self._count:
            self.remove()

    def remove(self) -> None:
        """Nothing is left to go on with."""
        self.path.unlink(missing_ok=True)
