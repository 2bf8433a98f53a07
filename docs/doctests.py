"""Shows the doctests of docstrings as code.

mkdocstrings knows doctests under the heading "Examples" only; anywhere else Markdown would take `>>>` for quotations.
This extension of Griffe, which reads the docstrings, puts every other doctest into a fence.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


def fence_doctests(text: str) -> str:
    """Put each run of lines that starts with `>>>` and ends before an empty line into a fence."""
    lines: list[str] = []
    indent: str | None = None  # of the doctest we are in
    fenced = False
    for line in text.splitlines():
        prompt = re.match(r"(\s*)>>> ", line)
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if indent is not None and not line.strip():
            lines.append(f"{indent}```")
            indent = None
        elif indent is None and prompt and not fenced:
            indent = prompt[1]
            lines.append(f"{indent}```pycon")
        lines.append(line)
    if indent is not None:
        lines.append(f"{indent}```")
    return "\n".join(lines)


class DoctestFences(griffe.Extension):
    """Applies `fence_doctests` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that was just read."""
        if obj.docstring is not None and not re.search(r"^Examples:", obj.docstring.value, re.M):
            obj.docstring.value = fence_doctests(obj.docstring.value)
