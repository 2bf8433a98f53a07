"""`BoundingBox`: the energy of the saliency map shall lie in a box around the object."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.baselines.penalties import Penalised, SummedPenaltySettings
from crayon_sdk.correct.baselines.published import COMPARED
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed
from crayon_sdk.correct.settings import settings
from crayon_sdk.functional.object_guidance import bounding_boxes, energy_outside
from crayon_sdk.functional.saliency import logits_and_grad_cam
from crayon_sdk.models.split import SplitModel

__all__ = ["BoundingBox", "BoundingBoxSettings"]


@settings
class BoundingBoxSettings(SummedPenaltySettings):
    """How energy outside the box counts."""

    weight: Number = 1.0
    """Of the share of the energy that lies outside the box against the cross entropy; 0 is further training."""


# Neither the form of the loss nor its weight is stated by CRAYON's authors: the form that its own authors recommend,
# with their weight, of a sum against a mean.
_FORM = {"weight": 1e-3, "per_batch": True}
_PRESETS = {
    "waterbirds": BoundingBoxSettings(**COMPARED["waterbirds"] | _FORM, lr=5e-5),
    "biased-celeba": BoundingBoxSettings(**COMPARED["biased-celeba"] | _FORM, lr=5e-6),
    "backgrounds": BoundingBoxSettings(**COMPARED["backgrounds"] | _FORM, lr=1e-5),
}


@method
class BoundingBox(Method[BoundingBoxSettings], BoundingBoxSettings):
    """Bounding Box guidance: train a copy of a model on so that its maps have their energy in a box around the object.

    To the cross entropy of a picture comes ``weight`` times the share of the energy of its Grad-CAM map, for its label,
    that lies outside the smallest box around its mask. A picture without a mask has no penalty. The map is made of the
    features that the prediction is made of, so a step costs hardly more than one of further training. The weight of the
    presets is not stated by those who compared with this method; it is that of the authors' code.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "boundingbox"
    title: ClassVar[str] = "Bounding Box guidance"
    paper: ClassVar[str] = "Rao et al., ICCV 2023"
    needs = frozenset({"masks"})
    presets = _PRESETS
    _shown = ("epochs", "lr", "weight")

    def objective(self, model: SplitModel, feed: PixelFeed, settings: BoundingBoxSettings) -> Objective:
        """The cross entropy and the energy outside."""
        return _EnergyInside(model, feed.labels, settings, self.autocast)


class _EnergyInside(Penalised):
    doing: ClassVar[str] = "guiding energy into boxes"

    def penalised(self, batch: Batch) -> tuple[Tensor, Tensor]:
        features = self.model.features(batch.images, autocast=self.autocast)
        logits, maps = logits_and_grad_cam(features, self.model.head, batch.labels, create_graph=True)
        known = ~batch.masks.flatten(1).all(dim=1)
        return logits, energy_outside(maps, bounding_boxes(batch.masks)) * known
