"""``python -m costmodel`` and the ``costmodel`` command."""

from __future__ import annotations

import sys

from costmodel.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
