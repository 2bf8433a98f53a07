"""Names that people type: what was probably meant, and how they are shown."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

__all__ = ["ANSWER_FORMATS", "KINDS_OF_TASKS", "TOOL_FORMATS", "one_line", "unknown_name"]

TOOL_FORMATS = ("csv", "mturk", "label-studio", "fiftyone")
ANSWER_FORMATS = ("jsonl", *TOOL_FORMATS, "published", "published-neurons")
"""Kinds of answer files that can be written; all can be read."""

KINDS_OF_TASKS = {"image": "pictures", "neuron": "patches"}
"""What people are asked about, in the word that is shown."""


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


def one_line(text: object, limit: int = 120) -> str:
    r"""A name as one line of visible text, whatever it was.

    Args:
        text: Of any length, with any characters.
        limit: Longer ones are cut in the middle.

    Example:
        >>> one_line("wood\n\x1b[31m duck"), one_line("\u202eabc"), one_line("abcdefghij", limit=7)
        ('wood [31m duck', 'abc', 'abc...j')
    """
    # Control and format characters (line ends, escapes, turned writing) are what a name has no use for.
    shown = "".join(" " if unicodedata.category(each)[0] in "CZ" and each != " " else each for each in str(text))
    line = " ".join(shown.split())
    if len(line) <= limit:
        return line
    head = (limit - 3) * 3 // 4
    return f"{line[:head]}...{line[len(line) - (limit - 3 - head) :]}"
