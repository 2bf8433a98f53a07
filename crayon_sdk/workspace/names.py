"""What things in a workspace are called, and how their settings are written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from crayon_sdk.errors import SettingsError

__all__ = [
    "ANSWERS",
    "DISCOVERED",
    "GROUPS",
    "MAPS",
    "OBJECTS",
    "ORIGINAL",
    "PATCHES",
    "RUNS",
    "as_options",
    "checked_name",
    "default_name",
    "different",
    "evaluations",
    "plain",
]

MAPS, PATCHES, ANSWERS, RUNS = "maps.safetensors", "patches.safetensors", "answers.jsonl", "runs"
GROUPS, OBJECTS = "groups.safetensors", "pictures/objects.png"
DISCOVERED = "discovered"
"""By groups that were found, and not labelled."""
ORIGINAL = "original"
"""The model before any correction."""


def checked_name(name: str) -> str:
    """Give a name back that can be a folder.

    Raises:
        SettingsError: It cannot, or it is the name of the model before.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name in (ORIGINAL, "comparison"):
        raise SettingsError(
            f"expected a name of letters, digits, '.', '_' and '-' other than {ORIGINAL!r} and 'comparison', "
            f"got {name!r}"
        )
    return name


def evaluations(split: str, groups: str = "own") -> str:
    """The folder of the evaluations of a split by the groups of the data, or by discovered ones.

    Example:
        >>> evaluations("test"), evaluations("test", "discovered")
        ('evaluations/test', 'evaluations/test-discovered')
    """
    return f"evaluations/{split}" + ("" if groups == "own" else f"-{groups}")


def split_and_groups(path: str) -> tuple[str, str]:
    """What the evaluations at a path are of.

    Example:
        >>> split_and_groups("evaluations/test-discovered/both.json"), split_and_groups("evaluations/val/both.json")
        (('test', 'discovered'), ('val', 'own'))
    """
    split, _, groups = path.split("/")[1].partition("-")
    return split, groups or "own"


def by_groups(groups: str) -> str:
    """The option that says by which groups, with a space before it; "" for the groups of the data.

    Example:
        >>> by_groups("own"), by_groups("discovered")
        ('', ' --groups discovered')
    """
    return "" if groups == "own" else f" --groups {groups}"


def as_options(settings: Mapping[str, Any]) -> str:
    """The settings of a correction as one types them."""
    parts = [f"--method {settings['method']}"]
    parts += [
        f"--{name.replace('_', '-')} {settings[name]}"
        for name in ("preset", "evaluate_on", "groups", "refit_on", "seed", "precision")
        if settings.get(name) not in (None, 0, "auto", "own")
    ]
    for key, section in (("attention", "attention"), ("pruning", "pruning"), ("settings", settings["method"])):
        for name, value in settings.get(key, {}).items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            parts.append(f"--set {section}.{name}={text}")
    return "".join(f" {part}" for part in parts)


def default_name(method: str, preset: str | None, control: str | None = None) -> str:
    """What a correction is called when nobody says it."""
    return "-".join(filter(None, [method, preset, control]))


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back, so that they can be compared with what was read."""
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def different(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say in which settings two runs differ."""
    names = [name for name in wanted if there.get(name) != wanted[name]]
    listed = ", ".join(f"{name} {there.get(name)!r} there, {wanted[name]!r} now" for name in names[:5])
    return listed + (f" and {len(names) - 5} more" if len(names) > 5 else "")
