"""`FurtherTraining`: train a model on as it is usually trained (empirical risk minimisation)."""

from __future__ import annotations

from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Objective, PixelFeed, Prediction
from crayon_sdk.correct.settings import ERMSettings
from crayon_sdk.models.split import SplitModel

__all__ = ["ERMSettings", "FurtherTraining"]


@method
class FurtherTraining(Method[ERMSettings], ERMSettings):
    """ERM: train a copy of a model further by its cross entropy, told nothing.

    What the other methods are measured against: as many steps of the same kind, without answers. With
    ``logit_adjustment`` 1 rare classes count as in `AttentionCorrector`.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "erm"

    def objective(self, model: SplitModel, feed: PixelFeed, settings: ERMSettings) -> Objective:
        """The cross entropy."""
        adjustment = settings.logit_adjustment
        return Prediction(model, feed.labels, logit_adjustment=adjustment, autocast=self.autocast)
