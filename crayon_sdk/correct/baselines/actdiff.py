"""`ActDiff`: the features of a picture and of one with shuffled surroundings shall be the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.baselines.looking import logits_and_neurons
from crayon_sdk.correct.baselines.penalties import Penalised, PenaltySettings
from crayon_sdk.correct.baselines.published import COMPARED
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed
from crayon_sdk.correct.settings import settings
from crayon_sdk.functional.input_gradients import activation_difference, shuffle_outside
from crayon_sdk.models.split import SplitModel

__all__ = ["ActDiff", "ActDiffSettings"]


@settings
class ActDiffSettings(PenaltySettings):
    """How the distance counts, and how the shuffled pictures go through the network."""

    weight: Number = 0.1
    """Of the distance between the features of a picture and of its shuffled form; 0 is further training."""
    unscaled: bool = False
    """Take any ``weight`` above 0 for 1, as the authors' code does."""
    passes: Literal["apart", "both", "together"] = "apart"
    """How batch statistics see the shuffled pictures: "apart", in a pass of their own that leaves the running
    statistics alone, for these are of real pictures; "both", in a pass before that of the pictures, which moves them
    too, as in the authors' code; "together", all in one batch."""


_PRESETS = {
    "waterbirds": ActDiffSettings(**COMPARED["waterbirds"], lr=5e-5, weight=0.1),
    "biased-celeba": ActDiffSettings(**COMPARED["biased-celeba"], lr=5e-5, weight=1e-5),
    "backgrounds": ActDiffSettings(**COMPARED["backgrounds"], lr=1e-5, weight=1e-2),
}


@method
class ActDiff(Method[ActDiffSettings], ActDiffSettings):
    """ActDiff: train a copy of a model on so that what stands around the object does not change its features.

    To the cross entropy of a picture comes ``weight`` times the distance of its neurons from those of the same picture
    with all pixels outside the object shuffled, anew in every step. A picture without a mask has no penalty. Each step
    runs the trunk twice.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "actdiff"
    title: ClassVar[str] = "ActDiff"
    paper: ClassVar[str] = "Viviano et al., ICLR 2021"
    needs = frozenset({"masks"})
    presets = _PRESETS
    _shown = ("epochs", "lr", "weight")

    def objective(self, model: SplitModel, feed: PixelFeed, settings: ActDiffSettings) -> Objective:
        """The cross entropy and the distance."""
        return _ActivationDifference(model, feed.labels, settings, self.autocast)


class _ActivationDifference(Penalised):
    doing: ClassVar[str] = "shuffling surroundings"

    def penalised(self, batch: Batch) -> tuple[Tensor, Tensor]:
        settings, masks = self.settings, batch.masks
        # The generator of the device is seeded by the loop for every step.
        keys = batch.drawn(lambda count: torch.rand(count, *masks.shape[1:], device=masks.device))
        shuffled = shuffle_outside(batch.images, masks, keys)
        if settings.passes == "together":
            logits, neurons = self._run(torch.cat([batch.images, shuffled]))
            logits, (neurons, others) = logits[: len(masks)], neurons.chunk(2)
        else:
            with _unmoved_statistics(self.model, settings.passes == "apart"):
                _, others = self._run(shuffled)
            logits, neurons = self._run(batch.images)
        # Without a mask nothing was shuffled: what is left is how the passes differ, which nobody means.
        known = ~masks.flatten(1).all(dim=1)
        distances = activation_difference(neurons.float(), others.float()) * known
        return logits, distances / settings.weight if settings.unscaled else distances

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return logits_and_neurons(self.model, images, self.autocast)


@contextlib.contextmanager
def _unmoved_statistics(model: SplitModel, wanted: bool) -> Iterator[None]:
    """Normalise with the statistics of the batch, as in training, and leave the running ones as they are."""
    norms = [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm) and wanted]
    before = [each.momentum for each in norms]
    for each in norms:
        each.momentum = 0.0
    try:
        yield
    finally:
        for each, momentum in zip(norms, before, strict=True):
            each.momentum = momentum
