"""`SoftContrastive`: pictures of a class that differ to a biased network are pulled together."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from crayon_sdk._base.settings import Number, OneOrMore, Share
from crayon_sdk.correct.baselines.auxiliary import AuxiliarySettings, biased_neurons
from crayon_sdk.correct.baselines.looking import logits_and_neurons
from crayon_sdk.correct.baselines.published import COMPARED, OWN
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.correct.settings import Positive, settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.functional.contrast import contrast_weights, soft_contrastive_loss
from crayon_sdk.functional.views import random_views
from crayon_sdk.models.bagnet import check_field
from crayon_sdk.models.split import SplitModel

__all__ = ["SoftConSettings", "SoftContrastive"]


@settings
class SoftConSettings(AuxiliarySettings):
    """How pictures are contrasted."""

    prediction: Number = 1.0
    """Weight of the cross entropy."""
    contrast: Number = 1.0
    """Weight of the contrast; 0 is further training."""
    temperature: Positive = 0.07
    """Of the contrast."""
    contrast_batch: OneOrMore = 64
    """Pictures that are contrasted in a step, each in two views."""
    batches: Literal["two", "one"] = "two"
    """"two" draws the pictures that are contrasted apart from those of the cross entropy, as the authors' code does;
    "one" takes the same, as their paper describes it."""
    ratio: Number = 0.0
    """With "two": up to how many times as often the pictures are drawn that are least like their class to the biased
    network; 0 draws all alike."""
    least_area: Positive = 0.2
    """Share of a picture that a view shows at least, up to 1. The authors' views are not stated."""
    flip: Share = 0.5
    """How likely a view is mirrored."""


_PRESETS = {
    "waterbirds": SoftConSettings(
        **COMPARED["waterbirds"] | {"lr": 5e-5, "batch_size": 32}, auxiliary_field=5, temperature=0.1, ratio=50.0
    ),
    "biased-celeba": SoftConSettings(
        **COMPARED["biased-celeba"] | {"lr": 5e-5, "batch_size": 32}, auxiliary_field=5, temperature=0.1, ratio=50.0
    ),
    "backgrounds": SoftConSettings(
        **COMPARED["backgrounds"] | {"lr": 5e-5, "batch_size": 128}, auxiliary_field=5, prediction=1e4
    ),
    "imagenet-own": SoftConSettings(
        **OWN | {"scheduler": "cosine"}, lr=1e-3, batch_size=128, auxiliary_field=5, auxiliary_epochs=120
    ),
}


@method
class SoftContrastive(Method[SoftConSettings], SoftConSettings):
    """SoftCon: train a copy of a model on, pulling pictures of a class together that differ to a biased network.

    The biased network is a BagNet-18, which sees small patches only: it is trained first, and its neurons are computed
    once. It takes one process.

    Raises:
        SettingsError: A setting is unknown or out of range, or the pictures are too small for the biased network.
        UnsupportedModelError: The model has no feature map.
    """

    method = "softcon"
    title: ClassVar[str] = "SoftCon"
    paper: ClassVar[str] = "Hong and Yang, NeurIPS 2021"
    presets = _PRESETS
    _shown = ("epochs", "lr", "temperature", "ratio")

    def resolved(self, settings: SoftConSettings) -> SoftConSettings:
        """The pictures must be large enough for the biased network."""
        if settings.contrast:
            check_field(settings.auxiliary_field, self.model.preprocessing)
        return super().resolved(settings)

    @property
    def alone(self) -> str:
        """Why one process is needed."""
        return "pairs are made within the whole batch, of which each would have a part"

    def prepared(self, fit: Fit, feed: PixelFeed, settings: SoftConSettings, file: RunFile | None) -> Objective:
        """The cross entropy and the contrast."""
        more: dict[str, Any] = {"logit_adjustment": settings.logit_adjustment, "autocast": self.autocast}
        if not settings.contrast:
            return Prediction(fit.model, feed.labels, **more)
        bias, counted = biased_neurons(fit, feed, settings, file, self.autocast)
        made = _Contrasting(fit.model, feed, bias, settings, **more)
        made.counted = counted
        return made


class _Contrasting(Prediction):
    """Cross entropy of a batch, and the contrast of another or of views of the same."""

    def __init__(
        self, model: SplitModel, feed: PixelFeed, bias: Tensor, settings: SoftConSettings, **more: Any
    ) -> None:
        super().__init__(model, feed.labels, **more)
        self.feed, self.bias, self.settings = feed, bias, settings  # no buffers: those are looked through
        self.often: Tensor | None = None
        if settings.ratio and settings.batches == "two":
            generator = torch.Generator().manual_seed(settings.seed)
            self.often = contrast_weights(bias, feed.labels, ratio=settings.ratio, generator=generator).cpu()

    def contrasted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Rows and pictures of the contrast."""
        if self.settings.batches == "one":
            return batch.rows, batch.images
        wanted, total = self.settings.contrast_batch, len(self.feed)
        if self.often is None:
            rows = torch.randperm(total)[:wanted]
        else:
            rows = torch.multinomial(self.often, wanted, replacement=True)
        return rows.to(batch.rows.device), self.feed.cache.get(rows)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Both; the contrast counts as often as there are samples."""
        settings = self.settings
        prediction = self.prediction(self.logits(batch), batch)
        rows, images = self.contrasted(batch)
        rows = rows.repeat(2)
        views = random_views(images.repeat(2, 1, 1, 1), least_area=min(settings.least_area, 1.0), flip=settings.flip)
        _, neurons = logits_and_neurons(self.model, views, self.autocast)
        contrast = len(batch.rows) * soft_contrastive_loss(
            neurons, self.feed.labels[rows], self.bias[rows], rows, temperature=settings.temperature
        )
        loss = settings.prediction * prediction + settings.contrast * contrast
        return {"loss": loss, "prediction": prediction, "contrast": contrast}
