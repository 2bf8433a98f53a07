"""`LogitCorrection`: logits corrected by what a biased network says about the classes under each bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from crayon_sdk._base.process import Processes
from crayon_sdk._base.settings import Number, OneOrMore, Share
from crayon_sdk.correct.baselines.published import COMPARED, OWN
from crayon_sdk.correct.baselines.second import Power, SecondSettings, WithSecond
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed
from crayon_sdk.correct.settings import Decay, Positive, settings
from crayon_sdk.functional.biased import (
    batch_prior,
    bias_counts,
    generalized_cross_entropy,
    logit_correction,
    mixing_range,
    same_class_partners,
)
from crayon_sdk.models.split import SplitModel

__all__ = ["LCSettings", "LogitCorrection"]


@settings
class LCSettings(SecondSettings):
    """How logits are corrected and pictures are mixed."""

    q: Power = 0.8
    second_lr_factor: Number = 0.1
    second_weight_decay: Decay | None = 0.0
    second_weight: Number = 2.0
    """Weight of the loss of the second network."""
    eta: Number = 1.0
    """Power of the correction; 0 corrects nothing."""
    temperature: Positive = 0.1
    """Of the probabilities of the second network, for the correction."""
    prior: Literal["running", "batch"] = "running"
    """How likely each class is under a bias: "running" counts samples, forgets the older ones, and adds one of each
    kind; "batch" is the published code, which takes what is rare, or not in the batch, for next to impossible, so that
    in short training the opposite of the shortcut is learned."""
    memory: Share = 0.9
    """With "running": how much of the counts stays from step to step."""
    mixing: Share = 0.5
    """At the end a picture is mixed with up to so much of another of its class that goes against its bias; 0 mixes
    nothing."""
    mixing_epochs: OneOrMore | None = None
    """Epochs until then; where it is not said, those of the run."""


_PAPER: dict[str, Any] = {"mixing_epochs": 50, "prior": "batch"}
_PRESETS = {
    "waterbirds": LCSettings(**COMPARED["waterbirds"] | _PAPER | {"lr": 5e-3, "weight_decay": 1e-3, "epochs": 50}),
    "biased-celeba": LCSettings(
        **COMPARED["biased-celeba"] | _PAPER | {"lr": 1e-3, "weight_decay": 1e-3, "epochs": 50}
    ),
    "backgrounds": LCSettings(**COMPARED["backgrounds"] | _PAPER | {"lr": 1e-4, "weight_decay": 0.1}),
    "waterbirds-own": LCSettings(
        **OWN | _PAPER | {"scheduler": "step"},
        optimizer="sgd",
        momentum=0.0,
        lr=1e-3,
        weight_decay=1e-4,
        batch_size=32,
        epochs=300,
        step_epochs=50,
        init="pretrained",
    ),
}


@method
class LogitCorrection(Method[LCSettings], LCSettings):
    """LC: train a copy of a model beside a second one that learns what is easy, with logits corrected by the second.

    The class that the second network gives a picture is its bias; how likely each class is under that bias is added to
    the logits in training, as logarithm. The first network sees pictures that are mixed with others
    of their class that go against its bias. ``eta`` 0 and ``mixing`` 0 are further training.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "lc"
    title: ClassVar[str] = "Logit Correction (LC)"
    paper: ClassVar[str] = "Liu et al., ICLR 2023"
    presets = _PRESETS
    _shown = ("epochs", "lr", "q", "eta")

    @property
    def alone(self) -> str:
        """Why one process is needed."""
        return "pictures are mixed with others of the whole batch, of which each would have a part"

    def objective(self, model: SplitModel, feed: PixelFeed, settings: LCSettings) -> Objective:
        """Both losses."""
        return _Corrected(model, feed.labels, settings, autocast=self.autocast)


class _Corrected(WithSecond):
    """Corrected cross entropy of the first network on mixed pictures, generalised of the second."""

    counts: Tensor

    def __init__(self, model: SplitModel, labels: Tensor, settings: LCSettings, **more: Any) -> None:
        super().__init__(model, labels, settings, **more)
        self.register_buffer("counts", torch.zeros(model.num_classes, model.num_classes, device=labels.device))

    def epoch(self, number: int, seed: int, *, count: int) -> Tensor:
        """All samples; the epoch says how much is mixed."""
        self._number = number
        return super().epoch(number, seed, count=count)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Both losses."""
        settings, labels, images = self.settings, batch.labels, batch.images
        second = self.second_logits(images)
        pseudo = (second.detach() / settings.temperature).softmax(dim=1)
        biased = generalized_cross_entropy(second, labels, settings.q).sum()
        bias = pseudo.argmax(dim=1)
        prior = self._prior(pseudo, labels).T[bias]
        if settings.mixing:
            progress = self._number / (settings.mixing_epochs or settings.epochs)
            least, most = mixing_range(progress, settings.mixing)
            share = least + (most - least) * torch.rand(()).item()
            partners = same_class_partners(labels, bias)
            images = share * images + (1 - share) * images[partners]
            prior = share * prior + (1 - share) * prior[partners]
        logits = self.model.head(self.model.features(images, autocast=self.autocast))
        prediction = self.prediction(logits + logit_correction(prior, settings.eta), batch)
        loss = prediction + settings.second_weight * biased
        return {"loss": loss, "prediction": prediction, "biased": biased}

    def _prior(self, pseudo: Tensor, labels: Tensor) -> Tensor:
        """(K, K), how likely each class is under each bias."""
        self._news = bias_counts(pseudo, labels)
        if self.settings.prior == "batch":
            return batch_prior(pseudo, labels)
        counts: Tensor = self.settings.memory * self.counts + self._news + 1
        return counts / counts.sum(dim=0)

    def after_step(self, found: Mapping[str, Tensor], processes: Processes) -> None:
        """Count on."""
        self.counts.mul_(self.settings.memory).add_(processes.sum(self._news))
