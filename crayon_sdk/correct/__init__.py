"""Changing a model: settings, the loop, guidance, other backgrounds, attention, pruning, further training.

Everything here works on a copy of the model. ``methods`` maps names to classes, those of other packages too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crayon_sdk._base.lazy import lazily
from crayon_sdk._base.methods import methods

if TYPE_CHECKING:
    from crayon_sdk.correct.attention import AttentionCorrector
    from crayon_sdk.correct.both import PruningThenAttention
    from crayon_sdk.correct.erm import FurtherTraining
    from crayon_sdk.correct.method import Method
    from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
    from crayon_sdk.correct.pruning import NeuronPruner
    from crayon_sdk.correct.settings import TrainingSettings
    from crayon_sdk.correct.unasked import UnaskedCorrector

__all__ = [
    "AttentionCorrector",
    "Batch",
    "FurtherTraining",
    "Method",
    "NeuronPruner",
    "Objective",
    "PixelFeed",
    "Prediction",
    "PruningThenAttention",
    "TrainingSettings",
    "UnaskedCorrector",
    "methods",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "AttentionCorrector": "attention",
        "Batch": "objective",
        "FurtherTraining": "erm",
        "Method": "method",
        "NeuronPruner": "pruning",
        "Objective": "objective",
        "PixelFeed": "objective",
        "Prediction": "objective",
        "PruningThenAttention": "both",
        "TrainingSettings": "settings",
        "UnaskedCorrector": "unasked",
    },
)
