"""Methods of correction by name; looked up here by rooms that do not import them."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from crayon_sdk._base.text import unknown_name
from crayon_sdk.errors import SettingsError

__all__ = ["SETTINGS", "settings_of"]

SETTINGS = {
    "attention": "crayon_sdk.correct.settings:AttentionSettings",
    "pruning": "crayon_sdk.correct.settings:PruningSettings",
}
"""Name of a method -> the class of its settings."""


def settings_of(method: str) -> Any:
    """The class of a method's settings.

    Raises:
        SettingsError: There is no such method.

    Example:
        >>> settings_of("pruning").__name__
        'PruningSettings'
    """
    if method not in SETTINGS:
        raise SettingsError(unknown_name(str(method), SETTINGS, "method"))
    return resolve_name(SETTINGS[method])
