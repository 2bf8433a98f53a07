"""The demo's network: small, and trained so that it falls for the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from crayon_sdk.cli.demo_pictures import CLASSES
from crayon_sdk.correct import methods
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError
from crayon_sdk.models.load import load_model
from crayon_sdk.models.split import SplitModel

__all__ = ["DemoSettings", "train_original"]

# A ResNet-10 of an eighth of the usual width; stride 16 keeps the maps at 6 x 6.
_ARCHITECTURE = "resnet10t"
_MODEL_ARGS = {"stem_width": 8, "channels": [16, 32, 64, 128], "output_stride": 16}


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """How large the demo is and how it trains; the defaults take a minute or two on two cores.

    Attributes:
        train: Training pictures.
        test: Test pictures, a multiple of 4.
        size: Side of the pictures in pixels, a multiple of 32.
        correlation: Share of the training pictures of a class on its usual background.
        original_accuracy: Training accuracy at which the network that falls for the background is
            done; a little above ``correlation``, which the background alone gives.
        original_epochs: At most so many epochs until then.
        original_lr: Its learning rate.
        original_weight_decay: Its L2 penalty, beside a loss that is the sum over a batch.
        attention_epochs: Of each attention correction.
        attention_lr: Its learning rate.
        alpha: Weight of the relevant term.
        beta: Weight of the irrelevant term.
        pruning_epochs: Of the refit of the last layer.
        pruning_lr: Its learning rate.
        rows: Rows of every contact sheet.

    Raises:
        SettingsError: There are too few pictures, or their size does not fit.
    """

    train: int = 1000
    test: int = 400
    size: int = 96
    correlation: float = 0.98
    original_accuracy: float = 0.987
    original_epochs: int = 30
    original_lr: float = 2e-3
    original_weight_decay: float = 6.4e-3
    attention_epochs: int = 12
    attention_lr: float = 2e-3
    alpha: float = 1e3
    beta: float = 1e3
    pruning_epochs: int = 20
    pruning_lr: float = 1e-2
    rows: int = 8

    def __post_init__(self) -> None:
        if self.train < 40 or self.test < 4 or self.test % 4 or self.size < 64 or self.size % 32:
            raise SettingsError(
                "expected at least 40 training pictures, a multiple of 4 for testing, and a size that is a multiple "
                f"of 32 and at least 64, got {self.train}, {self.test} and {self.size}"
            )


def train_original(
    dataset: ImageDataset, settings: DemoSettings, *, seed: int
) -> tuple[SplitModel, tuple[dict[str, Any], ...]]:
    """Make and train the network that is going to be corrected, as one usually does, until it is good.

    The background alone gives an accuracy of ``settings.correlation``. Stopping a little above it
    leaves a network that has begun to see the animals, and goes by the background all the same.

    Args:
        dataset: The training set.
        settings: How large and how long.
        seed: Of the first weights and of the order of the pictures.

    Returns:
        The network in eval mode, and the history of its training.
    """
    view = Preprocessing(size=(settings.size, settings.size), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        start = load_model(
            _ARCHITECTURE,
            pretrained=False,
            num_classes=len(CLASSES),
            class_names=CLASSES,
            model_args=_MODEL_ARGS,
            preprocessing=view,
        )
    trained = methods["erm"](
        start,
        until_accuracy=settings.original_accuracy,
        epochs=settings.original_epochs,
        lr=settings.original_lr,
        weight_decay=settings.original_weight_decay,
        scheduler="none",
        average_decay=0.0,
        precision="float32",
        seed=seed,
    ).fit(dataset)
    # What follows is the first correction: the network begins here, without a record.
    return load_model(trained.model.model, preprocessing=view, class_names=CLASSES), trained.history
