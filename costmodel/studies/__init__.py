"""Studies: the reports that show what the analyzer finds in published networks and claims, every number computed.

``costmodel report all`` writes them. A study is one function under ``@study("name")`` in a module of this room; it
takes a :class:`~costmodel.studies.bench.Bench`, which analyzes, and gives its pages and figures.
"""

from __future__ import annotations

from costmodel.studies.bench import Bench
from costmodel.studies.registry import Report, names
from costmodel.studies.writing import files_of, write_reports

__all__ = ["Bench", "Report", "files_of", "names", "write_reports"]
