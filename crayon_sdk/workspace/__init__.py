"""The folder that holds the work: manifest, ledger, inputs, steps, answering, shipping.

No method of its own: every step calls the rooms below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.workspace.manifest import DataSource, ModelSource
    from crayon_sdk.workspace.workspace import ORIGINAL, Workspace

__all__ = ["ORIGINAL", "DataSource", "ModelSource", "Workspace"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "DataSource": "manifest",
        "ModelSource": "manifest",
        "ORIGINAL": "workspace",
        "Workspace": "workspace",
    },
)
