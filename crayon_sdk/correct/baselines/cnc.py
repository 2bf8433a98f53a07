"""`CorrectAndContrast`: pictures are contrasted by what a first network took them for."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from crayon_sdk._base.settings import OneOrMore, Share
from crayon_sdk.correct.baselines.errors import ErrorSettings, first_predictions
from crayon_sdk.correct.baselines.looking import logits_and_neurons
from crayon_sdk.correct.baselines.published import COMPARED, OWN
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.correct.settings import BatchNorm, Positive, settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.errors import SettingsError, TrainingError
from crayon_sdk.functional.contrast import correct_contrastive_loss
from crayon_sdk.models.split import SplitModel

__all__ = ["CNCSettings", "CorrectAndContrast"]


@settings
class CNCSettings(ErrorSettings):
    """How pictures are contrasted."""

    batch_norm: BatchNorm = "frozen"
    contrast: Share = 0.75
    """Share of the contrast in the loss, the rest is cross entropy; 0 is further training."""
    temperature: Positive = 0.1
    """Of the contrast."""
    partners: OneOrMore = 16
    """Positives, negatives and easy negatives that are drawn in a step for each class of the first network among its
    anchors; fewer where there are not so many."""
    anchors: Share = 1.0
    """Share of the pictures that the first network gets right, of which the batches of an epoch are made."""


_OWN = {**OWN, "optimizer": "sgd", "init": "pretrained"}
_PRESETS = {
    "waterbirds": CNCSettings(**COMPARED["waterbirds"] | {"lr": 1e-5}),
    "biased-celeba": CNCSettings(**COMPARED["biased-celeba"] | {"lr": 1e-5, "weight_decay": 0.1, "epochs": 5}),
    "backgrounds": CNCSettings(**COMPARED["backgrounds"] | {"lr": 1e-5, "weight_decay": 0.1}),
    # The gradients of 32 sets of 17 and of 64 anchors make a step there.
    "waterbirds-own": CNCSettings(
        **_OWN, lr=1e-4, weight_decay=1e-3, epochs=5, batch_size=544, partners=17, temperature=0.1
    ),
    "celeba-own": CNCSettings(
        **_OWN, lr=1e-5, weight_decay=0.1, epochs=15, batch_size=2048, partners=64, temperature=0.05, anchors=0.1
    ),
}


@method
class CorrectAndContrast(Method[CNCSettings], CNCSettings):
    """CnC: train a copy of a model on, contrasting pictures by what a first network took them for.

    Anchors are what the first network gets right. Each is pulled towards pictures of its class that were taken for
    another one, and away from pictures of other classes that were taken for its own; and one of the former likewise.
    The authors cluster features of the first network where it makes too few errors; here its predictions count, as
    their paper describes it. It takes one process.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "cnc"
    title: ClassVar[str] = "Correct-n-Contrast (CnC)"
    paper: ClassVar[str] = "Zhang et al., ICML 2022"
    presets = _PRESETS
    _shown = ("epochs", "lr", "contrast", "temperature")

    @property
    def alone(self) -> str:
        """Why one process is needed."""
        return "anchors are contrasted with pictures of the whole batch, of which each would have a part"

    def resolved(self, settings: CNCSettings) -> CNCSettings:
        """What is contrasted is not only what a batch holds, and would not be augmented."""
        if settings.mirror or settings.crop_area < 1:
            raise SettingsError(
                "expected mirror=0 and crop_area=1 for method 'cnc', which draws partners beside the pictures of a "
                f"batch and shows all as they are, got {settings.mirror} and {settings.crop_area}"
            )
        return super().resolved(settings)

    def prepared(self, fit: Fit, feed: PixelFeed, settings: CNCSettings, file: RunFile | None) -> Objective:
        """The cross entropy and the contrast."""
        more: dict[str, Any] = {"logit_adjustment": settings.logit_adjustment, "autocast": self.autocast}
        if not settings.contrast:
            return Prediction(fit.model, feed.labels, **more)
        predicted = first_predictions(self.model, fit, feed, settings, file, self.autocast)
        made = _Contrasting(fit.model, feed, predicted, settings, **more)
        made.counted = {"errors": int((predicted != feed.labels).sum())}
        return made


class _Contrasting(Prediction):
    """Cross entropy of anchors and partners, and their contrast."""

    def __init__(
        self, model: SplitModel, feed: PixelFeed, predicted: Tensor, settings: CNCSettings, **more: Any
    ) -> None:
        super().__init__(model, feed.labels, **more)
        labels, taken = feed.labels.cpu(), predicted.cpu()
        self.feed, self.settings, self.known = feed, settings, labels
        self.right = (labels == taken).nonzero().flatten()
        self.wanted = max(int(settings.anchors * len(self.right)), 1)
        classes = range(model.num_classes)
        correct = labels == taken
        self.positives = [((labels == each) & (taken != each)).nonzero().flatten() for each in classes]
        self.easy = [((labels == each) & correct).nonzero().flatten() for each in classes]
        self.negatives = []
        for each in classes:
            confused = ((labels != each) & (taken == each)).nonzero().flatten()
            self.negatives.append(confused if len(confused) else (labels != each).nonzero().flatten())
        self.taken = taken
        if not any(len(wrong) and len(right) for wrong, right in zip(self.positives, self.easy, strict=True)):
            raise TrainingError(
                "expected a class of which the first network gets some training pictures right and others wrong, got "
                "none: nothing can be contrasted. Train another first network, with first_epochs"
            )

    def epoch(self, number: int, seed: int, *, count: int) -> Tensor:
        """The anchors."""
        return self.right[super().epoch(number, seed, count=len(self.right))][: self.wanted]

    def drawn(self, rows: Tensor) -> Tensor:
        """Up to so many of some rows."""
        return rows[torch.randperm(len(rows))[: self.settings.partners]]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Both, as means that count as often as there are anchors."""
        anchors = batch.rows.cpu()
        sets = []  # rows of anchors, positives, negatives, easy negatives
        for each in self.known[anchors].unique().tolist():
            own = anchors[self.known[anchors] == each]
            positives, negatives = self.drawn(self.positives[each]), self.drawn(self.negatives[each])
            # Of the class that the first positive was taken for: easy to tell from it, for the first network.
            mistaken = int(self.taken[positives[0]]) if len(positives) else each
            easy = self.drawn(self.easy[mistaken]) if len(positives) else positives
            sets.append((own, positives, negatives, easy))
        rows = torch.cat([part for parts in sets for part in parts])
        images, labels = self.feed.cache.get(rows), self.feed.labels[rows.to(batch.labels.device)]
        logits, neurons = logits_and_neurons(self.model, images, self.autocast)
        entropy = torch.nn.functional.cross_entropy(logits + self.offsets, labels)
        found = iter(neurons.split([len(part) for parts in sets for part in parts]))
        losses = []
        for _ in sets:
            own, positives, negatives, easy = next(found), next(found), next(found), next(found)
            if len(positives):
                tau = self.settings.temperature
                losses.append(correct_contrastive_loss(own, positives, negatives, temperature=tau).mean())
                losses[-1] = losses[-1] + correct_contrastive_loss(positives[:1], own, easy, temperature=tau).mean()
        contrast = torch.stack(losses).mean() if losses else neurons.sum() * 0
        count, share = len(anchors), self.settings.contrast
        loss = count * (share * contrast + (1 - share) * entropy)
        return {"loss": loss, "prediction": count * entropy, "contrast": count * contrast}
