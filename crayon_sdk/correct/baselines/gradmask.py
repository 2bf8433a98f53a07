"""`GradMask`: what is not the object must not move the margin of the label."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.baselines.penalties import Penalised, SummedPenaltySettings, check_differentiable
from crayon_sdk.correct.baselines.published import COMPARED
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed
from crayon_sdk.correct.settings import settings
from crayon_sdk.explain.explainer import check_score
from crayon_sdk.functional.input_gradients import grad_mask_penalty
from crayon_sdk.models.split import SplitModel

__all__ = ["GradMask", "GradMaskSettings"]


@settings
class GradMaskSettings(SummedPenaltySettings):
    """How input gradients are penalised."""

    weight: Number = 0.2
    """Of the penalty of a picture against its cross entropy; 0 is further training. The penalty is a sum over pixels:
    the right weight belongs to a size of picture."""


# What CRAYON's authors weighed the penalty with is not stated: the smallest of the authors' own weights.
_PRESETS = {
    "waterbirds": GradMaskSettings(**COMPARED["waterbirds"], lr=5e-5),
    "biased-celeba": GradMaskSettings(**COMPARED["biased-celeba"], lr=5e-6),
    "backgrounds": GradMaskSettings(**COMPARED["backgrounds"], lr=1e-5),
}


@method
class GradMask(Method[GradMaskSettings], GradMaskSettings):
    """GradMask: train a copy of a model on so that pixels outside the object do not move the margin of the label.

    To the cross entropy of a picture comes ``weight`` times the absolute gradient of the margin, its logit minus the
    highest of the others, at all pixels that are not on the object. It is published for two classes; the margin is its
    extension to more. A picture without a mask has no penalty. The weight of the presets is not stated by those who
    compared with this method. The trunk is differentiated twice, in float32 whatever ``precision`` says.

    Raises:
        SettingsError: A setting is unknown or out of range, the model has one class, or is compiled.
        UnsupportedModelError: The model has no feature map.
    """

    method = "gradmask"
    title: ClassVar[str] = "GradMask"
    paper: ClassVar[str] = "Simpson et al., MIDL 2019"
    needs = frozenset({"masks"})
    presets = _PRESETS
    _shown = ("epochs", "lr", "weight")

    def resolved(self, settings: GradMaskSettings) -> GradMaskSettings:
        """The trunk must not be compiled, and a margin takes two classes."""
        check_score("margin", self.model.num_classes)
        check_differentiable(self.model)
        return super().resolved(settings)

    def objective(self, model: SplitModel, feed: PixelFeed, settings: GradMaskSettings) -> Objective:
        """The cross entropy and the penalty."""
        return _MaskedGradients(model, feed.labels, settings, self.autocast)


class _MaskedGradients(Penalised):
    doing: ClassVar[str] = "masking gradients"

    def penalised(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images = batch.images.detach().requires_grad_()
        logits = self.model.head(self.model.features(images))
        return logits, grad_mask_penalty(logits, images, batch.labels, batch.masks)
