"""`JustTrainTwice`: errors of a first network count more in a second."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from crayon_sdk._base.settings import Number
from crayon_sdk.correct.baselines.errors import ErrorSettings, first_predictions
from crayon_sdk.correct.baselines.published import COMPARED, OWN
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.correct.settings import settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.errors import SettingsError
from crayon_sdk.models.split import SplitModel

__all__ = ["JTTSettings", "JustTrainTwice"]


@settings
class JTTSettings(ErrorSettings):
    """How much the errors count."""

    upweight: Number = 20.0
    """How often an error comes in an epoch besides the once of every picture, so that it counts 1 + ``upweight`` times;
    a whole number with ``by`` "repeat"."""
    by: Literal["repeat", "weight"] = "repeat"
    """"repeat" shows an error again, as the authors do, which makes an epoch longer; "weight" shows it once, with so
    much weight, and divides by the mean weight of a sample."""


_OWN = {**OWN, "optimizer": "sgd", "lr": 1e-5, "batch_size": 64, "init": "pretrained", "errors": "during"}
_PRESETS = {
    "waterbirds": JTTSettings(**COMPARED["waterbirds"] | {"lr": 5e-5, "epochs": 60}, upweight=100.0),
    "biased-celeba": JTTSettings(
        **COMPARED["biased-celeba"] | {"lr": 1e-5, "epochs": 30, "weight_decay": 0.1}, upweight=20.0
    ),
    "backgrounds": JTTSettings(**COMPARED["backgrounds"] | {"lr": 1e-5, "weight_decay": 0.1}, upweight=5.0),
    # The authors count the epoch of the first stage from 0.
    "waterbirds-own": JTTSettings(**_OWN, epochs=300, weight_decay=1.0, first_epochs=61, upweight=100.0),
    "celeba-own": JTTSettings(**_OWN, epochs=50, weight_decay=0.1, first_epochs=2, upweight=50.0),
}


@method
class JustTrainTwice(Method[JTTSettings], JTTSettings):
    """JtT: train a copy of a model on, with the pictures that a first network gets wrong many times.

    Where a shortcut is easily learned, what goes against it is what a plainly trained network gets wrong. That fails
    where the first network knows its training pictures by heart: without any error there is nothing to repeat, and that
    is an error. ``upweight`` 0 is further training.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "jtt"
    title: ClassVar[str] = "Just Train Twice (JtT)"
    paper: ClassVar[str] = "Liu et al., ICML 2021"
    presets = _PRESETS
    _shown = ("epochs", "lr", "upweight", "first_epochs")

    def resolved(self, settings: JTTSettings) -> JTTSettings:
        """Repeating takes whole numbers."""
        if settings.by == "repeat" and settings.upweight != int(settings.upweight):
            raise SettingsError(
                f"expected a whole number of times to repeat errors, got upweight={settings.upweight!r}; "
                'by="weight" takes others'
            )
        return super().resolved(settings)

    def prepared(self, fit: Fit, feed: PixelFeed, settings: JTTSettings, file: RunFile | None) -> Objective:
        """The cross entropy, and the errors of the first network."""
        more: dict[str, Any] = {"logit_adjustment": settings.logit_adjustment, "autocast": self.autocast}
        if not settings.upweight:
            return Prediction(fit.model, feed.labels, **more)
        predicted = first_predictions(self.model, fit, feed, settings, file, self.autocast)
        kind = _Repeating if settings.by == "repeat" else _Weighting
        made = kind(fit.model, feed.labels, predicted != feed.labels, settings.upweight, **more)
        made.counted = {"errors": int((predicted != feed.labels).sum())}
        return made


class _Repeating(Prediction):
    """Errors come several times."""

    def __init__(self, model: SplitModel, labels: Tensor, wrong: Tensor, upweight: float, **more: Any) -> None:
        super().__init__(model, labels, **more)
        again = wrong.nonzero().flatten().cpu().repeat(int(upweight))
        self.positions = torch.cat([torch.arange(len(labels)), again])

    def epoch(self, number: int, seed: int, *, count: int) -> Tensor:
        """All samples, and the errors again."""
        return self.positions[super().epoch(number, seed, count=len(self.positions))]


class _Weighting(Prediction):
    """Errors count more; the mean weight is one."""

    def __init__(self, model: SplitModel, labels: Tensor, wrong: Tensor, upweight: float, **more: Any) -> None:
        super().__init__(model, labels, **more)
        weights = 1 + upweight * wrong.float()
        self.weights = weights / weights.mean()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted cross entropy."""
        logits = self.logits(batch) + self.offsets
        each = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
        return {"loss": (self.weights[batch.rows] * each).sum()}
