"""The published settings, by data set; what produced the published numbers.

Where the paper and the authors' code differ, these are the code's values.
"""

from __future__ import annotations

from typing import TypeVar

from crayon_sdk.correct.settings import AttentionSettings, PruningSettings, TrainingSettings
from crayon_sdk.errors import SettingsError

SettingsT = TypeVar("SettingsT", bound=TrainingSettings)

__all__ = ["AFTER_PRUNING", "ATTENTION", "PRUNING", "preset"]

ATTENTION: dict[str, AttentionSettings] = {
    "waterbirds": AttentionSettings(
        epochs=10, batch_size=128, lr=5e-5, weight_decay=1e-4, alpha=1e7, beta=2e5, area_normalized=True
    ),
    "biased-celeba": AttentionSettings(
        epochs=10,
        batch_size=64,
        lr=1e-5,
        weight_decay=1e-4,
        scheduler="step",
        step_epochs=3,
        step_factor=0.5,
        alpha=5e7,
        beta=1e6,
        area_normalized=False,
    ),
    "backgrounds": AttentionSettings(
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
    "backgrounds": AttentionSettings(
        epochs=10,
        batch_size=256,
        optimizer="sgd",
        lr=5e-5,
        momentum=0.9,
        weight_decay=1e-1,
        alpha=1e3,
        beta=5e1,
        area_normalized=False,
        target="predicted",
    )
}
"""CRAYON-Attention on a pruned model (CRAYON-Pruning+Attention)."""

PRUNING: dict[str, PruningSettings] = {
    "waterbirds": PruningSettings(
        epochs=5,
        batch_size=128,
        optimizer="sgd",
        lr=5e-5,
        weight_decay=1e-4,
        scheduler="step",
        step_epochs=4,
        step_factor=0.2,
    ),
    "biased-celeba": PruningSettings(epochs=50, batch_size=64, lr=5e-6, weight_decay=1e-4),
    "backgrounds": PruningSettings(epochs=10, batch_size=256, lr=5e-6, weight_decay=1e-1),
}
"""CRAYON-Pruning."""


def preset(table: dict[str, SettingsT], name: str) -> SettingsT:
    """Look a preset up.

    Args:
        table: `ATTENTION`, `AFTER_PRUNING` or `PRUNING`.
        name: "waterbirds", "biased-celeba" or "backgrounds".

    Raises:
        SettingsError: There is no preset of that name.

    Example:
        >>> preset(ATTENTION, "waterbirds").alpha
        10000000.0
    """
    if name not in table:
        raise SettingsError(f"expected a preset of {', '.join(table)}, got {name!r}")
    return table[name]
