"""`FLAC`: pairs that a biased network finds unlike within a class, or alike across classes, are pulled right."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.baselines.auxiliary import AuxiliarySettings, biased_neurons
from crayon_sdk.correct.baselines.looking import logits_and_neurons
from crayon_sdk.correct.baselines.published import COMPARED, OWN
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.correct.settings import settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.functional.contrast import flac_loss
from crayon_sdk.models.bagnet import check_field
from crayon_sdk.models.split import SplitModel

__all__ = ["FLAC", "FLACSettings"]


@settings
class FLACSettings(AuxiliarySettings):
    """How much the pairs count."""

    prediction: Number = 1.0
    """Weight of the cross entropy."""
    alpha: Number = 1000.0
    """Weight of the pairs; 0 is further training."""


_OWN = {**OWN, "lr": 1e-3, "batch_size": 128, "scheduler": "step", "auxiliary_field": 5}
_PRESETS = {
    "waterbirds": FLACSettings(**COMPARED["waterbirds"] | {"lr": 5e-5, "epochs": 20}, auxiliary_field=5),
    "biased-celeba": FLACSettings(**COMPARED["biased-celeba"] | {"lr": 5e-5, "epochs": 5}, auxiliary_field=5),
    "backgrounds": FLACSettings(
        **COMPARED["backgrounds"] | {"lr": 5e-6, "weight_decay": 0.1, "batch_size": 128, "epochs": 5},
        auxiliary_field=5,
        alpha=100.0,
    ),
    # The rate falls after a third and after two thirds, of whole epochs.
    "celeba-own": FLACSettings(**_OWN, epochs=10, step_epochs=4, prediction=0.01, alpha=3e4),
    "imagenet-own": FLACSettings(**_OWN, epochs=250, step_epochs=84, alpha=1000.0),
}


@method
class FLAC(Method[FLACSettings], FLACSettings):
    """FLAC: train a copy of a model on, with the likeness of pictures pulled away from that of a biased network.

    The biased network is a BagNet-18, which sees small patches only: it is trained first, and its neurons are computed
    once. The authors train theirs on labels of the bias where they have some, which are not needed here. Which pairs
    count depends on the batch; it takes one process.

    Raises:
        SettingsError: A setting is unknown or out of range, or the pictures are too small for the biased network.
        UnsupportedModelError: The model has no feature map.
    """

    method = "flac"
    title: ClassVar[str] = "FLAC"
    paper: ClassVar[str] = "Sarridis et al., IEEE TPAMI 2025"
    presets = _PRESETS
    _shown = ("epochs", "lr", "alpha")

    def resolved(self, settings: FLACSettings) -> FLACSettings:
        """The pictures must be large enough for the biased network."""
        if settings.alpha:
            check_field(settings.auxiliary_field, self.model.preprocessing)
        return super().resolved(settings)

    @property
    def alone(self) -> str:
        """Why one process is needed."""
        return "pairs are made within the whole batch, of which each would have a part"

    def prepared(self, fit: Fit, feed: PixelFeed, settings: FLACSettings, file: RunFile | None) -> Objective:
        """The cross entropy and the pairs."""
        more: dict[str, Any] = {"logit_adjustment": settings.logit_adjustment, "autocast": self.autocast}
        if not settings.alpha:
            return Prediction(fit.model, feed.labels, **more)
        bias, counted = biased_neurons(fit, feed, settings, file, self.autocast)
        made = _Pairs(fit.model, feed.labels, bias, settings, **more)
        made.counted = counted
        return made


class _Pairs(Prediction):
    """Cross entropy, and the likeness of pairs."""

    def __init__(self, model: SplitModel, labels: Tensor, bias: Tensor, settings: FLACSettings, **more: Any) -> None:
        super().__init__(model, labels, **more)
        self.bias, self.settings = bias, settings  # no buffer: those are looked through

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Both; the pairs count as often as there are samples."""
        logits, neurons = logits_and_neurons(self.model, batch.images, self.autocast)
        prediction = self.prediction(logits, batch)
        pairs = len(batch.rows) * flac_loss(neurons, batch.labels, self.bias[batch.rows])
        loss = self.settings.prediction * prediction + self.settings.alpha * pairs
        return {"loss": loss, "prediction": prediction, "pairs": pairs}
