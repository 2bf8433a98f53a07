"""`RightForRightReasons`: what is not the object must not move the prediction (RRR)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.baselines.penalties import Penalised, SummedPenaltySettings, check_differentiable
from crayon_sdk.correct.baselines.published import COMPARED
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed
from crayon_sdk.correct.settings import settings
from crayon_sdk.functional.input_gradients import right_reasons_penalty
from crayon_sdk.models.split import SplitModel

__all__ = ["RRRSettings", "RightForRightReasons"]


@settings
class RRRSettings(SummedPenaltySettings):
    """How input gradients are penalised."""

    weight: Number = 200.0
    """Of the penalty of a picture against its cross entropy; 0 is further training. At the start both ought to be of
    one
    size: see "prediction" and "penalty" in the history."""


_PRESETS = {
    "waterbirds": RRRSettings(**COMPARED["waterbirds"], lr=5e-5, weight=200.0),
    "biased-celeba": RRRSettings(**COMPARED["biased-celeba"] | {"epochs": 5}, lr=5e-6, weight=25000.0),
    "backgrounds": RRRSettings(**COMPARED["backgrounds"], lr=1e-5, weight=0.1),
}


@method
class RightForRightReasons(Method[RRRSettings], RRRSettings):
    """RRR: train a copy of a model on so that pixels outside the object do not move its log probabilities.

    To the cross entropy of a picture comes ``weight`` times the squared gradient of the sum of its log probabilities at
    all pixels that are not on the object, with respect to the normalised picture. A picture without a mask has no
    penalty. The trunk is differentiated twice, in float32 whatever ``precision`` says.

    Raises:
        SettingsError: A setting is unknown or out of range, or the model is compiled.
        UnsupportedModelError: The model has no feature map.
    """

    method = "rrr"
    title: ClassVar[str] = "Right for the Right Reasons (RRR)"
    paper: ClassVar[str] = "Ross et al., IJCAI 2017"
    needs = frozenset({"masks"})
    presets = _PRESETS
    _shown = ("epochs", "lr", "weight")

    def resolved(self, settings: RRRSettings) -> RRRSettings:
        """The trunk must not be compiled."""
        check_differentiable(self.model)
        return super().resolved(settings)

    def objective(self, model: SplitModel, feed: PixelFeed, settings: RRRSettings) -> Objective:
        """The cross entropy and the penalty."""
        return _RightReasons(model, feed.labels, settings, self.autocast)


class _RightReasons(Penalised):
    doing: ClassVar[str] = "training for the right reasons"

    def penalised(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images = batch.images.detach().requires_grad_()
        logits = self.model.head(self.model.features(images))
        return logits, right_reasons_penalty(logits, images, batch.masks)
