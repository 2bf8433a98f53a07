"""`MaskTune`: one more epoch on pictures without what the model looked at."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from crayon_sdk._base.settings import Count, Number
from crayon_sdk.correct.baselines.looking import looked_at
from crayon_sdk.correct.baselines.published import COMPARED, OWN
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.settings import BaselineSettings, settings
from crayon_sdk.functional.masking import kept_pixels, xgrad_cam
from crayon_sdk.models.split import SplitModel

__all__ = ["MaskTune", "MaskTuneSettings"]


@settings
class MaskTuneSettings(BaselineSettings):
    """What is hidden."""

    epochs: Count = 1
    deviations: Number = 2.0
    """How bright a pixel of the map must be to be hidden: so many standard deviations above the mean of the positive
    ones."""


_OWN = {**OWN, "optimizer": "sgd", "lr": 1e-4, "weight_decay": 1e-4, "epochs": 1}
_PRESETS = {
    "waterbirds": MaskTuneSettings(**COMPARED["waterbirds"] | {"lr": 1e-4, "epochs": 1}),
    "biased-celeba": MaskTuneSettings(**COMPARED["biased-celeba"] | {"lr": 1e-9, "epochs": 1}),
    "backgrounds": MaskTuneSettings(**COMPARED["backgrounds"] | {"lr": 1e-7, "epochs": 1, "weight_decay": 1e-5}),
    "waterbirds-own": MaskTuneSettings(**_OWN, batch_size=128),
    "celeba-own": MaskTuneSettings(**_OWN, batch_size=512),
}


@method
class MaskTune(Method[MaskTuneSettings], MaskTuneSettings):
    """MaskTune: train a copy of a model on, on pictures in which what it looked at most is black.

    The maps are XGrad-CAM for the class that the model predicts, made once, of the model that is given. Where the
    object was looked at, that is what is hidden. The authors go on with the optimizer of the training before, whose
    state a model does not bring. ``deviations`` so large that nothing is hidden is further training.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "masktune"
    title: ClassVar[str] = "MaskTune"
    paper: ClassVar[str] = "Asgari Taghanaki et al., NeurIPS 2022"
    presets = _PRESETS
    _shown = ("epochs", "lr", "deviations")

    def objective(self, model: SplitModel, feed: PixelFeed, settings: MaskTuneSettings) -> Objective:
        """The cross entropy of the masked pictures."""
        given = self.model  # also where training starts from others: it is its looking that is hidden
        maps = looked_at(
            given,
            feed,
            lambda features: xgrad_cam(features, given.head),
            autocast=self.autocast,
            doing="looking where it looks",
        )
        black = model.preprocessing.normalize(torch.zeros(3, 1, 1, dtype=torch.uint8, device=self.device))
        more: dict[str, Any] = {"logit_adjustment": settings.logit_adjustment, "autocast": self.autocast}
        return _Masked(model, feed.labels, maps, black, settings.deviations, **more)


class _Masked(Prediction):
    """Cross entropy of masked pictures alone, and the share of pixels that is hidden."""

    def __init__(
        self, model: SplitModel, labels: Tensor, maps: Tensor, black: Tensor, deviations: float, **more: Any
    ) -> None:
        super().__init__(model, labels, **more)
        self.maps, self.black, self.deviations = maps, black, deviations  # no buffers: those are looked through

    def masked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The pictures, and where they are kept."""
        size = (int(batch.images.shape[2]), int(batch.images.shape[3]))
        kept = kept_pixels(self.maps[batch.rows], size, deviations=self.deviations)
        if batch.view is not None:
            kept = batch.seen(kept.float()) > 0.5
        return torch.where(kept[:, None], batch.images, self.black), kept

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The cross entropy."""
        images, kept = self.masked(batch)
        logits = self.model.head(self.model.features(images, autocast=self.autocast))
        return {"loss": self.prediction(logits, batch), "hidden": (~kept).float().mean(dim=(1, 2)).sum()}
