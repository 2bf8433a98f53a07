"""`FurtherTraining`: train a model on as it is usually trained (empirical risk minimisation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from crayon_sdk.correct.method import Method
from crayon_sdk.correct.objective import Objective, PixelFeed, Prediction
from crayon_sdk.correct.settings import TrainingSettings, check_choice
from crayon_sdk.models.split import SplitModel

__all__ = ["ERMSettings", "FurtherTraining"]


@dataclass(frozen=True, kw_only=True)
class ERMSettings(TrainingSettings):
    """How further training is done: as `AttentionCorrector` trains, without what it adds to the cross entropy.

    Attributes:
        batch_norm: "train" updates batch statistics; "frozen" keeps those of the original model.
        keep: "last", or "best" on the data that is evaluated on.

    Raises:
        SettingsError: A value is out of its range.
    """

    epochs: int = 6
    batch_size: int = 64
    lr: float = 1e-4
    weight_decay: float = 1e-4
    scheduler: str = "cosine"
    average_decay: float = 0.98
    batch_norm: str = "train"
    keep: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("batch_norm", self.batch_norm, ("train", "frozen"))
        check_choice("keep", self.keep, ("last", "best"))


class FurtherTraining(Method):
    """ERM: train a copy of a model further by its cross entropy, told nothing.

    What the other methods are measured against: as many steps of the same kind, without answers. With
    ``logit_adjustment`` 1 rare classes count as in `AttentionCorrector`.

    Args:
        model: A `SplitModel`, timm model, or the model of a `Correction`. It is not changed.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).
        seed: Of everything random.
        checkpoint_dir: Where the state is kept; a run that was stopped continues there.
        **settings: Those of [`ERMSettings`][crayon_sdk.correct.erm.ERMSettings].

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method: ClassVar[str] = "erm"
    settings_kind: ClassVar[type[ERMSettings]] = ERMSettings

    def objective(self, model: SplitModel, feed: PixelFeed, settings: Any) -> Objective:
        """The cross entropy."""
        adjustment = settings.logit_adjustment
        return Prediction(model, feed.labels, logit_adjustment=adjustment, autocast=self.autocast)
