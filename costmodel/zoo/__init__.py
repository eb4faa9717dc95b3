"""The zoo: textbook networks that neither timm nor torchvision ships, each a short plain PyTorch module.

``entries()`` lists them. One class or function under ``@model(...)`` in a module of this package adds one.
"""

from __future__ import annotations

from costmodel.zoo.registry import Entry, entries, model

__all__ = ["Entry", "entries", "model"]
