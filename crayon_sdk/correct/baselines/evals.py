"""`LossBasedSampling`: a new last layer from held-out pictures with the highest and the lowest losses (of EVaLS)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.baselines.dfr import refitted
from crayon_sdk.correct.baselines.held_out import LearnsHeldOut, check_refit, neurons_of_all
from crayon_sdk.correct.method import method
from crayon_sdk.correct.settings import Seed, settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import DataError
from crayon_sdk.functional.robust import extremes
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.results.correction import Correction

__all__ = ["EVaLSSettings", "LossBasedSampling"]


@settings
class EVaLSSettings:
    """Which pictures the last layer is fitted to."""

    share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Of the smallest class: as many pictures with the highest losses, and as many with the lowest, are taken of every
    class."""
    strength: Number | None = None
    """Weight of the cross entropy against the L1 norm of the layer, as for DFR; where it is not said, it is chosen as
    there, with high and low losses of a class in the place of groups."""
    seed: Seed = 0
    """Of the halves by which ``strength`` is chosen."""


@method
class LossBasedSampling(LearnsHeldOut[EVaLSSettings], EVaLSSettings):
    """Loss-based sampling: as DFR, with high and low losses of a class in the place of its groups.

    Of every class of the held-out pictures, as many with the highest losses of the model that is given as with the
    lowest make a balanced set, to which a new last layer is fitted. Neither groups nor masks are known. It is the part
    of EVaLS that learns; the other, choosing settings by inferred environments, is not here. The pictures of
    ``evaluate_on`` are learned from: they measure nothing then, and the result is to be evaluated on others. CRAYON's
    authors do not compare with it, and its code was not looked at: there are no presets.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map, or no biases in its last layer.
    """

    method = "evals"
    title: ClassVar[str] = "Loss-based sampling (of EVaLS)"
    paper: ClassVar[str] = "Ghaznavi et al., arXiv 2024"
    _shown = ("share", "strength")

    def learned(self, fit: Fit, held_out: ImageDataset) -> Correction:
        """Fit the layer to the extremes of every class."""
        check_refit(fit, held_out)
        labels = held_out.labels
        smallest = int(torch.bincount(labels).min())
        count = int(self.settings.share * smallest)
        if not count:
            raise DataError(
                f"expected a picture or more with share={self.settings.share:g} of the smallest class, which has "
                f"{smallest} held-out pictures; give more, or raise share"
            )
        rows = neurons_of_all(fit, held_out)
        with torch.no_grad():
            logits = apply_final_layers(list(fit.model.final_layers), rows).cpu()
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        chosen, groups = extremes(losses, labels, count)
        drawn = [each[chosen.to(each.device)] for each in rows]
        train = neurons_of_all(fit, fit.dataset)
        return refitted(self.method, fit, train, drawn, labels[chosen], groups, repeats=1)
