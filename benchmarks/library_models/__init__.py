"""Models of public libraries, built from their configurations with random weights: nothing is ever downloaded.

One module a field; :func:`catalogue` gathers them. A factory imports its library itself, so that the list is there
without any of them.
"""

from __future__ import annotations

from library_models.registry import Expected, LibraryModel, catalogue

__all__ = ["Expected", "LibraryModel", "catalogue"]
