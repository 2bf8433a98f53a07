"""The folder that holds the work: rooms over one ledger. No method of its own: every step calls the layers below.

- [`workspace`][crayon_sdk.workspace.workspace]: `Workspace`, which holds the rooms and passes on what is typed.
- [`steps`][crayon_sdk.workspace.steps]: explain, correct, evaluate, compare.
- [`answering`][crayon_sdk.workspace.answering]: answers in and out, and what to ask next.
- [`shipping`][crayon_sdk.workspace.shipping]: reports, and checkpoints with their cards to a folder or the Hub.
- [`inputs`][crayon_sdk.workspace.inputs]: model and pictures, and whether they are still those of before.
- [`holdings`][crayon_sdk.workspace.holdings]: what was made, and how it stands.
- [`ledger`][crayon_sdk.workspace.ledger]: the lock, hashes, what was made from what; over
  [`manifest`][crayon_sdk.workspace.manifest], which is ``workspace.json``.
- [`names`][crayon_sdk.workspace.names]: of files and corrections.
- [`serving`][crayon_sdk.workspace.serving]: the annotation app over a workspace.

Tested in ``test_workspace.py`` but for `manifest`, `shipping` (files of their own) and `serving`
(``tests/annotate/test_server.py``).
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
