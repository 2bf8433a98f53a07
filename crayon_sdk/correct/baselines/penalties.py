"""What the methods share that add a penalty per picture to the cross entropy."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.objective import Batch, Prediction
from crayon_sdk.correct.settings import BaselineSettings, settings
from crayon_sdk.errors import SettingsError
from crayon_sdk.models.split import SplitModel

__all__ = ["Penalised", "PenaltySettings", "SummedPenaltySettings", "check_differentiable"]


@settings
class PenaltySettings(BaselineSettings):
    """How much the penalty counts."""

    weight: Number = 1.0
    """Of the penalty of a picture against its cross entropy; 0 is further training."""


@settings
class SummedPenaltySettings(PenaltySettings):
    """How much the penalty counts, and against what."""

    per_batch: bool = False
    """Weigh the sum of the penalties of a batch against the mean of its cross entropies, as the authors' code does:
    then ``weight`` means more in a larger batch. Else both are summed, and it means the same in all."""


class Penalised(Prediction):
    """Cross entropy, and a penalty for every picture.

    Args:
        model: Is trained.
        labels: (N,) of the whole training set.
        settings: Of a method; with a ``weight``.
        autocast: Reduced precision of the trunk.
    """

    def __init__(self, model: SplitModel, labels: Tensor, settings: Any, autocast: Any = None) -> None:
        super().__init__(model, labels, logit_adjustment=settings.logit_adjustment, autocast=autocast)
        self.settings = settings

    def penalised(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (n, K), and penalties (n,) in a graph."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy and penalty; nothing but the cross entropy where the penalty has no weight."""
        if not self.settings.weight:
            return super().forward(batch)
        logits, penalties = self.penalised(batch)
        prediction, penalty = self.prediction(logits, batch), penalties.sum()
        times = batch.size if getattr(self.settings, "per_batch", False) else 1
        loss = prediction + self.settings.weight * times * penalty
        return {"loss": loss, "prediction": prediction, "penalty": penalty}


def check_differentiable(model: SplitModel) -> None:
    """See that gradients at the pixels can be trained.

    Raises:
        SettingsError: The trunk is compiled.
    """
    if model.compile_trunk:
        raise SettingsError(
            "expected a trunk that can be differentiated twice, got a compiled one; load the model with compile=False"
        )
