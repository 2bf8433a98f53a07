"""What SoftCon and FLAC share: a biased network that is trained first, whose neurons are computed once."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from torch import Tensor

from crayon_sdk._base.settings import OneOrMore
from crayon_sdk.correct.baselines.looking import looked_at, neurons_of
from crayon_sdk.correct.objective import PixelFeed, Prediction
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.correct.settings import BaselineSettings, Rate, Scheduler, TrainingSettings, settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.models.bagnet import bagnet18

__all__ = ["AuxiliarySettings", "biased_neurons"]

_log = logging.getLogger(__name__)
# Keeps its weights apart from what else is drawn from the seed.
_OWN_SEED = 7_919


@settings
class AuxiliarySettings(BaselineSettings):
    """How the biased network is trained, a BagNet-18 that sees small patches only."""

    auxiliary_field: Literal[5, 9, 17, 33] = 17
    """Side of the patches that the biased network sees, in pixels; 5 is what the authors' code has."""
    auxiliary_epochs: OneOrMore = 20
    """Epochs for which the biased network is trained first, from random weights."""
    auxiliary_lr: Rate = 1e-3
    """Its peak learning rate, of Adam."""
    auxiliary_scheduler: Scheduler = "cosine"
    """How that rate falls."""
    auxiliary_batch_size: OneOrMore = 128
    """Samples per step of its training."""


def biased_neurons(
    fit: Fit, feed: PixelFeed, settings: Any, file: RunFile | None, autocast: torch.dtype | None
) -> tuple[Tensor, dict[str, int]]:
    """Train the biased network and compute its neurons.

    Args:
        fit: The correction.
        feed: The training set.
        settings: Some `AuxiliarySettings`.
        file: Of the run.
        autocast: Reduced precision of the trunk.

    Returns:
        (N, 512) float32, of every training picture in eval mode, and what the record counts: how many it gets right.
    """
    network = bagnet18(
        fit.model.num_classes,
        fit.model.preprocessing,
        field=settings.auxiliary_field,
        seed=settings.seed + _OWN_SEED,
    ).to(feed.labels.device)
    how = TrainingSettings(
        epochs=settings.auxiliary_epochs,
        batch_size=settings.auxiliary_batch_size,
        lr=settings.auxiliary_lr,
        scheduler=settings.auxiliary_scheduler,
        seed=settings.seed,
    )
    fit.train_first("auxiliary", Prediction(network, feed.labels, autocast=autocast), feed, how, file)
    logits = looked_at(network, feed, network.head, autocast=autocast)
    right = int((logits.argmax(dim=1) == feed.labels).sum())
    _log.info("the biased network gets %d of %d training pictures right", right, len(feed))
    return neurons_of(network, feed, autocast), {"auxiliary_right": right}
