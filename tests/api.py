"""What others may rely on, a line each: public names, their arguments and defaults, commands and their options.

python tests/api.py --write     writes tests/api.txt anew, as the release checklist says (docs/release.md)

`tests/api.txt` is what the last release had. `tests/test_release.py` compares, and wants the changelog to name what
differs. Types are left out: they are written differently from one Python to the next, and mypy watches them.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = ROOT / "tests" / "api.txt"


def public() -> list[str]:
    """The lines, sorted."""
    pages = (path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    modules = {name for page in pages for name in re.findall(r"^::: (crayon_sdk[\w.]*)$", page, re.M)}
    lines = {line for name in modules for line in _of_module(name)}
    lines |= {f"crayon_sdk.{name}" for name in importlib.import_module("crayon_sdk").__all__}
    return sorted(lines | set(_commands(importlib.import_module("crayon_sdk.cli").app, "crayon")))


def different(before: list[str], after: list[str]) -> set[str]:
    """Names of what was added, removed or changed: the last part of each, or the whole command."""
    lines = set(before) ^ set(after)
    return {line if line.startswith("crayon ") else re.split(r"[(=]", line)[0].rpartition(".")[2] for line in lines}


def _of_module(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for public_name in getattr(module, "__all__", ()):
        thing = getattr(module, public_name)
        path = f"{name}.{public_name}"
        yield path + (_arguments(thing) if callable(thing) else "")
        if inspect.isclass(thing):
            if issubclass(thing, enum.Enum):
                yield from (f"{path}.{member.name}" for member in thing)
            for member, value in vars(thing).items():
                if not member.startswith("_") and not isinstance(value, enum.Enum):
                    function = getattr(value, "__func__", value)
                    yield f"{path}.{member}" + (_arguments(function) if inspect.isfunction(function) else "")


def _arguments(thing: object) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    empty = inspect.Parameter.empty
    parameters = [
        each.replace(annotation=empty, default=each.default if each.default is empty else _Shown(each.default))
        for each in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


class _Shown:
    """A default as it is written; what has an address is called by its type."""

    def __init__(self, value: object) -> None:
        self.text = type(value).__name__ if " at 0x" in repr(value) else repr(value)

    def __repr__(self) -> str:
        return self.text


def _commands(command: click.Command, path: str) -> Iterator[str]:
    yield path
    for parameter in command.params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            yield f"{path} {option}"
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{path} {name}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        SNAPSHOT.write_text("\n".join(public()) + "\n", encoding="utf-8")
    else:
        print("\n".join(public()))
