"""Text from outside in messages and on screens: names that people type, errors of libraries, long lists."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from crayon_sdk.errors import shortened

__all__ = [
    "ANSWER_FORMATS",
    "KINDS_OF_TASKS",
    "TOOL_FORMATS",
    "first_few",
    "first_line",
    "given_only",
    "one_line",
    "unknown_name",
    "visible",
]

TOOL_FORMATS = ("csv", "mturk", "label-studio", "fiftyone")
ANSWER_FORMATS = ("jsonl", *TOOL_FORMATS, "published", "published-neurons")
"""Kinds of answer files that can be written; all can be read."""

KINDS_OF_TASKS = {"image": "pictures", "neuron": "patches", "spot": "spots"}
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
    names, shown = sorted(known), shortened(name, 120)
    near = difflib.get_close_matches(shown, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
    return f"there is no {what} called {shown!r}{hint}"


def first_line(error: BaseException) -> str:
    r"""Say an error of another library in one line; its class where it says nothing.

    >>> first_line(ValueError("no such file\nat line 3")), first_line(KeyError())
    ('no such file', 'KeyError')
    >>> first_line(ValueError("bad:\n a\n b"))  # what it is about comes below
    'bad: a; b'
    """
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].endswith(":"):
        return f"{lines[0]} {'; '.join(shortened(line, 300) for line in lines[1:6])}"
    return lines[0]


def first_few(items: Iterable[object], limit: int = 5) -> str:
    """List the first ``limit`` items and count the rest.

    >>> first_few(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    shown = list(items)
    text = ", ".join(shortened(repr(item), 200) for item in shown[:limit])
    rest = len(shown) - limit
    return f"{text} and {rest} more" if rest > 0 else text


def visible(text: str) -> str:
    r"""Escape what a terminal obeys instead of showing it, as JSON does; line ends and tabs stay.

    Control characters, turned writing and halves of characters; the two joiners, which some scripts need, stay.

    >>> print(visible("wood\x1b[31m \u202educk"))
    wood\u001b[31m \u202educk
    """
    if text.isprintable():
        return text
    return "".join(_escaped(each) if _is_hidden(each) else each for each in text)


def _is_hidden(character: str) -> bool:
    if character in "\n\t\u200c\u200d":
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def given_only(fields: Mapping[str, Any], shown: Iterable[tuple[str | None, Any]]) -> list[tuple[str | None, Any]]:
    """What the repr of a pydantic model shows: the fields that are not at their defaults, in few words.

    Args:
        fields: The model's ``model_fields``.
        shown: What pydantic would show.
    """
    kept = [(name, value) for name, value in shown if value != getattr(fields.get(name or ""), "default", None)]
    return [(name, _AsIs(one_line(repr(value), limit=50))) for name, value in kept]


class _AsIs(str):
    """Text whose repr is itself."""

    __repr__ = str.__str__


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
    return shortened(" ".join(shown.split()), limit)
