"""What LfF and LC share: a second network beside the one that is corrected, trained to be biased."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.objective import Prediction
from crayon_sdk.correct.settings import BaselineSettings, Decay, settings
from crayon_sdk.correct.work import into_training
from crayon_sdk.models.split import SplitModel

__all__ = ["Power", "SecondSettings", "WithSecond"]

Power = Annotated[float, Field(gt=0, le=1)]


@settings
class SecondSettings(BaselineSettings):
    """How the second network is trained."""

    q: Power = 0.7
    """Of the generalised cross entropy of the second network: the larger, the more it learns what is easy."""
    second_lr_factor: Number = 1.0
    """Learning rate of the second network, in units of that of the first."""
    second_weight_decay: Decay | None = None
    """Decay of the second network; where it is not said, that of the first."""


class WithSecond(Prediction):
    """A network and a second one that starts as its copy.

    Args:
        model: Is corrected.
        labels: (N,) of the whole training set.
        settings: Of both.
        autocast: Reduced precision of the trunks.
    """

    def __init__(
        self, model: SplitModel, labels: Tensor, settings: Any, *, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__(model, labels, logit_adjustment=settings.logit_adjustment, autocast=autocast)
        self.settings = settings
        self.second = into_training(model.copy(), frozen_norm=settings.batch_norm == "frozen")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The two networks."""
        decay = self.settings.second_weight_decay
        second = {"params": list(self.second.parameters()), "lr_factor": self.settings.second_lr_factor}
        return [
            {"params": [weight for weight in self.model.parameters() if weight.requires_grad]},
            second if decay is None else {**second, "weight_decay": decay},
        ]

    def second_logits(self, images: Tensor) -> Tensor:
        """(n, K) float32 of the second network."""
        return self.second.head(self.second.features(images, autocast=self.autocast))
