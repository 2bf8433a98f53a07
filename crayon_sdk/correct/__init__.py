"""Changing a model: settings, the loop, guidance, other backgrounds, attention, pruning.

Everything here works on a copy of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily

if TYPE_CHECKING:
    from crayon_sdk.correct.attention import AttentionCorrector
    from crayon_sdk.correct.pruning import NeuronPruner

__all__ = ["AttentionCorrector", "NeuronPruner"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "AttentionCorrector": "attention",
        "NeuronPruner": "pruning",
    },
)
