"""The first stage of JtT and CnC: which training pictures a plainly trained network gets wrong."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from crayon_sdk._base.process import Processes
from crayon_sdk._base.settings import Count
from crayon_sdk.correct.baselines.looking import gathered, predictions_of
from crayon_sdk.correct.objective import Batch, PixelFeed, Prediction
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.correct.settings import BaselineSettings, settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.errors import TrainingError
from crayon_sdk.models.split import SplitModel

__all__ = ["ErrorSettings", "first_predictions"]

_log = logging.getLogger(__name__)
_FEW = 0.005


@settings
class ErrorSettings(BaselineSettings):
    """Whose errors count."""

    first_epochs: Count = 0
    """Epochs for which a network is first trained plainly, from the weights of ``init``, to see what it gets wrong; 0
    takes what the model that is given gets wrong."""
    errors: Literal["after", "during"] = "after"
    """With ``first_epochs``: when the errors are counted, "after" them, in a pass of their own in eval mode, or
    "during" the last of them, with weights that move, as in the authors' code of JtT."""


def first_predictions(
    model: SplitModel, fit: Fit, feed: PixelFeed, settings: Any, file: RunFile | None, autocast: torch.dtype | None
) -> Tensor:
    """(N,) int64: which class a plainly trained network gives every training picture.

    Args:
        model: The model that is given.
        fit: The correction; its model has the weights that training starts from.
        feed: The training set.
        settings: Some `ErrorSettings`.
        file: Of the run.
        autocast: Reduced precision of the trunk.

    Raises:
        TrainingError: It makes no error.
    """
    if settings.first_epochs:
        network = fit.model.copy()
        watching = _Watching(network, feed.labels, logit_adjustment=settings.logit_adjustment, autocast=autocast)
        fit.train_first("first", watching, feed, replace(settings, epochs=settings.first_epochs), file)
        found = watching.predicted if settings.errors == "during" else predictions_of(network, feed, autocast)
    else:
        found = predictions_of(model, feed, autocast)
    wrong = int((found != feed.labels).sum())
    whose = f"the network after {settings.first_epochs} epochs" if settings.first_epochs else "the model that is given"
    if not wrong:
        raise TrainingError(
            f"expected errors on the training pictures, got none of {len(feed)} by {whose}: there is nothing to learn "
            "from. Train a first network that does not learn them by heart: first_epochs=1 or so, with a larger "
            "weight_decay"
        )
    if wrong < _FEW * len(feed):
        _log.warning(
            "%s gets only %d of %d training pictures wrong: these few decide; see first_epochs and weight_decay",
            whose,
            wrong,
            len(feed),
        )
    return found


class _Watching(Prediction):
    """Cross entropy, and the prediction of every picture when it was last trained on."""

    predicted: Tensor

    def __init__(self, model: SplitModel, labels: Tensor, **more: Any) -> None:
        super().__init__(model, labels, **more)
        self.processes = Processes.found()
        self.register_buffer("predicted", labels.clone())

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The cross entropy."""
        logits = self.logits(batch)
        rows, classes = gathered(batch.rows, logits.detach().argmax(dim=1), len(self.predicted), self.processes)
        self.predicted[rows] = classes
        return {"loss": self.prediction(logits, batch)}
