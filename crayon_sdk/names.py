"""Names that people type, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ANSWER_FORMATS", "TOOL_FORMATS", "unknown_name"]

TOOL_FORMATS = ("csv", "mturk", "label-studio", "fiftyone")
ANSWER_FORMATS = ("jsonl", *TOOL_FORMATS, "published", "published-neurons")
"""Kinds of answer files that can be written; all can be read."""


def unknown_name(name: str, known: Iterable[str], what: str) -> str:
    """Say that a name is unknown, and which one was probably meant.

    Args:
        name: What was written.
        known: What there is.
        what: What kind of thing it should have been.

    Example:
        >>> unknown_name("epcohs", ["epochs", "lr"], "setting")
        "there is no setting called 'epcohs'; did you mean 'epochs'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
    return f"there is no {what} called {name!r}{hint}"
