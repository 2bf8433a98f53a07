"""The demo's network: small, and trained so that it falls for the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from crayon_sdk._base.process import resolve_device
from crayon_sdk._base.progress import track
from crayon_sdk.cli.demo_pictures import CLASSES
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
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
    dataset: ImageDataset,
    settings: DemoSettings,
    *,
    seed: int,
    measured: Callable[[float], None] = lambda seconds: None,
) -> tuple[SplitModel, int, float]:
    """Make and train the network that is going to be corrected.

    Args:
        dataset: The training set.
        settings: How large and how long.
        seed: Of the first weights and of the order of the pictures.
        measured: Told how many seconds an epoch takes, as soon as one was made.

    Returns:
        The network in eval mode, the number of epochs that it took, and its accuracy in the last of them.
    """
    side = settings.size
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = load_model(
            _ARCHITECTURE,
            pretrained=False,
            num_classes=len(CLASSES),
            class_names=CLASSES,
            model_args=_MODEL_ARGS,
            preprocessing=Preprocessing(size=(side, side), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        )
    return model, *_train(model, dataset, settings, seed, measured)


def _train(
    model: SplitModel, dataset: ImageDataset, wanted: DemoSettings, seed: int, measured: Callable[[float], None]
) -> tuple[int, float]:
    """Train as one usually does, until the training accuracy is good.

    The background alone gives an accuracy of ``wanted.correlation``. Stopping a little above it
    leaves a network that has begun to see the animals, and goes by the background all the same.
    """
    device = resolve_device("auto", model.device)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=wanted.original_lr, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    epoch, accuracy = 0, 0.0
    with (
        PixelCache(dataset, model.preprocessing, device=device) as cache,
        track("training", wanted.original_epochs) as advance,
    ):
        while epoch < wanted.original_epochs and accuracy < wanted.original_accuracy:
            right, started = 0, time.monotonic()
            for batch in torch.randperm(len(dataset), generator=generator).split(64):
                labels = dataset.labels[batch].to(device)
                logits = model(cache.get(batch))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(logits, labels).backward()
                optimizer.step()
                right += int((logits.argmax(dim=1) == labels).sum())
            epoch, accuracy = epoch + 1, right / len(dataset)
            advance(1)
            if epoch == min(2, wanted.original_epochs):  # the first one also fills the cache
                measured(time.monotonic() - started)
    model.to("cpu").eval()
    for parameter in model.parameters():
        parameter.grad = None
    return epoch, accuracy
