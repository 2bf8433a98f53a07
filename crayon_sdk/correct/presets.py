"""The published settings, by data set; what produced the published numbers.

Where the paper and the authors' code differ, these are the code's values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from crayon_sdk.correct.settings import AttentionSettings, PruningSettings, TrainingSettings
from crayon_sdk.errors import SettingsError

SettingsT = TypeVar("SettingsT", bound=TrainingSettings)

__all__ = ["AFTER_PRUNING", "ATTENTION", "PRUNING", "preset"]

# The published runs had none of what this package adds.
_PUBLISHED: dict[str, Any] = {
    "scheduler": "none",
    "average_decay": 0.0,
    "logit_adjustment": 0.0,
    "spread": "never",
}
_GUIDED: dict[str, Any] = {
    **_PUBLISHED,
    "score": "logit",
    "balance": "never",
    "background_swap": 0.0,
}

ATTENTION: dict[str, AttentionSettings] = {
    "waterbirds": AttentionSettings(
        **_GUIDED, epochs=10, batch_size=128, lr=5e-5, weight_decay=1e-4, alpha=1e7, beta=2e5, area_normalized=True
    ),
    "biased-celeba": AttentionSettings(
        **_GUIDED | {"scheduler": "step"},
        epochs=10,
        batch_size=64,
        lr=1e-5,
        weight_decay=1e-4,
        step_epochs=3,
        step_factor=0.5,
        alpha=5e7,
        beta=1e6,
        area_normalized=False,
    ),
    "backgrounds": AttentionSettings(
        **_GUIDED,
        epochs=10,
        batch_size=256,
        optimizer="sgd",
        lr=5e-6,
        momentum=0.9,
        weight_decay=1e-1,
        alpha=5e3,
        beta=5e2,
        area_normalized=False,
        target="predicted",
    ),
}
"""CRAYON-Attention."""

AFTER_PRUNING: dict[str, AttentionSettings] = ATTENTION | {
    "backgrounds": replace(ATTENTION["backgrounds"], lr=5e-5, alpha=1e3, beta=5e1)
}
"""CRAYON-Attention on a pruned model (CRAYON-Pruning+Attention)."""

PRUNING: dict[str, PruningSettings] = {
    "waterbirds": PruningSettings(
        **_PUBLISHED | {"scheduler": "step"},
        epochs=5,
        batch_size=128,
        optimizer="sgd",
        lr=5e-5,
        weight_decay=1e-4,
        step_epochs=4,
        step_factor=0.2,
    ),
    "biased-celeba": PruningSettings(**_PUBLISHED, epochs=50, batch_size=64, lr=5e-6, weight_decay=1e-4),
    "backgrounds": PruningSettings(**_PUBLISHED, epochs=10, batch_size=256, lr=5e-6, weight_decay=1e-1),
}
"""CRAYON-Pruning."""


def preset(table: dict[str, SettingsT], name: str) -> SettingsT:
    """Look a preset up.

    Args:
        table: `ATTENTION`, `AFTER_PRUNING`, `PRUNING`, or that of another method.
        name: "waterbirds", "biased-celeba", "backgrounds", or what the table has besides.

    Raises:
        SettingsError: There is no preset of that name.

    Example:
        >>> preset(ATTENTION, "waterbirds").alpha
        10000000.0
    """
    if name not in table:
        raise SettingsError(f"expected a preset of {', '.join(table)}, got {name!r}")
    return table[name]
