"""`FurtherTraining`: train a model on as it is usually trained (empirical risk minimisation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.settings import ERMSettings
from crayon_sdk.models.split import SplitModel

__all__ = ["ERMSettings", "FurtherTraining"]


@method
class FurtherTraining(Method[ERMSettings], ERMSettings):
    """ERM: train a copy of a model further by its cross entropy, told nothing.

    What the other methods are measured against: as many steps of the same kind, without answers. With
    ``logit_adjustment`` 1 rare classes count as in `AttentionCorrector`. With ``until_accuracy`` every epoch of the
    history says its "training_accuracy", and the history is shorter than ``epochs`` where that was reached.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "erm"
    title = "Further training (ERM)"
    paper = "Vapnik, NeurIPS 1991"

    def objective(self, model: SplitModel, feed: PixelFeed, settings: ERMSettings) -> Objective:
        """The cross entropy."""
        more: dict[str, Any] = {"logit_adjustment": settings.logit_adjustment, "autocast": self.autocast}
        if settings.until_accuracy is None:
            return Prediction(model, feed.labels, **more)
        return _UntilAccurate(model, feed.labels, settings.until_accuracy, **more)


class _UntilAccurate(Prediction):
    """Has enough when so large a share of the samples was right in the steps of an epoch."""

    def __init__(self, model: SplitModel, labels: Tensor, accuracy: float, **more: Any) -> None:
        super().__init__(model, labels, **more)
        self.accuracy = accuracy

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The cross entropy, and how many are right. Not "accuracy", which is measured on held-out pictures."""
        logits = self.logits(batch)
        right: Tensor = (logits.detach().argmax(dim=1) == batch.labels).sum()
        return {"loss": self.prediction(logits, batch), "training_accuracy": right}

    def enough(self, record: Mapping[str, Any]) -> bool:
        """Whether the last epoch was so accurate."""
        return bool(record["training_accuracy"] >= self.accuracy)
