"""What the package says, in the words of the shell: keywords of Python become options, nothing drives the terminal.

Messages of the package name a setting as Python does: ``strict=False``, ``architecture=``. The shell
says the option that sets it here, or the command that has one. What only Python can do is said in
brackets, ``(in Python: ...)``, and left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

import click

from crayon_sdk._base.methods import SETTINGS, made_of, methods, with_settings
from crayon_sdk._base.text import visible
from crayon_sdk.cli.options import keys

__all__ = ["in_shell", "told"]

# Settings with another name in the shell; a word that sets them, and what they are there.
_OTHERWISE = {
    "strict": "skip_bad",
    "on_error": "skip_bad",
    "group_columns": "group_column",
    "folder": "data",
    "source": "model",
}
_NEGATED = {"strict"}
_QUOTED = r"(?<!\w)(?:'[^'\n]*'|\"[^\"\n]*\")(?!\w)"
_PARTS = re.compile(
    r"(?P<python> \(in Python: (?:[^()]|\([^()]*\))*\))"
    rf"|(?P<left>{_QUOTED}|(?<=\w)\([^()\n]*\))"  # what somebody typed, and arguments in code, are left alone
    rf"|(?<![\w./-])(?P<name>[a-z]\w*)=(?P<value>{_QUOTED}|\{{[^{{}}\n]*\}}|(?:[\w.+-]*\w)?)"
)


def told(message: str, command: click.Context | None = None) -> str:
    """A message as it may be written to a terminal: in the words of the shell, with all escapes visible."""
    return visible(in_shell(message, command or click.get_current_context(silent=True)))


def in_shell(message: str, context: click.Context | None) -> str:
    """Say a message of the package in the words of the command that is running.

    Args:
        message: With keywords of Python, such as ``overwrite=True``.
        context: Of the command; its options are taken first.
    """
    return _PARTS.sub(lambda found: _word(found, context), message)


def _word(found: re.Match[str], context: click.Context | None) -> str:
    if found["python"]:
        return ""
    if found["left"] or context is None:
        return found[0]
    name, value = found["name"], found["value"]
    if name in _NEGATED and value in ("True", "False"):
        value = str(value == "False")
    name = _OTHERWISE.get(name, name)
    return next(_ways(name, value, context), found[0])


def _ways(name: str, value: str, context: click.Context) -> Iterator[str]:
    """Ways to set something: here, in the settings of a corrector, or with another command."""
    here = context.command
    yield from _options(here, name, value)
    method = str(context.params.get("method"))
    used = made_of(method) if here.name == "correct" and method in methods else ()
    yield from _settings((*used, *SETTINGS), name, value, here)
    for path, command in _commands(context.find_root().command):
        for option in _options(command, name, value):
            yield f"crayon {path} {'--again ' if path == 'init' else ''}{option}"
    yield from _settings(with_settings(), name, value, here)  # last: that imports the methods


def _settings(sections: Iterable[str], name: str, value: str, here: click.Command) -> Iterator[str]:
    before = "" if here.name == "correct" else "crayon correct "
    for section in sections:
        if name in keys(section):
            yield f"{before}--set {section}.{name}{'=' + value if value else ''}"


def _options(command: click.Command, name: str, value: str) -> Iterator[str]:
    for each in command.params:
        if each.name == name and isinstance(each, click.Option):
            off = each.is_flag and value == "False" and each.secondary_opts
            flag = max(each.secondary_opts if off else each.opts, key=len)
            typed = shlex.quote(value) if value.startswith("{") else value  # JSON
            yield flag if each.is_flag or not value else f"{flag} {typed}"


def _commands(group: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in getattr(group, "commands", {}).items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command
