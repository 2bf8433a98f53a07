"""``python -m crayon_sdk`` is the same as ``crayon``."""

from __future__ import annotations

from crayon_sdk.cli import main

if __name__ == "__main__":
    main()
