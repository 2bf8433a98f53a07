"""BagNet-18: a network that sees small patches only, so that it can learn textures and colours but no objects."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError
from crayon_sdk.models.split import SplitModel

__all__ = ["FIELDS", "BagNet18", "bagnet18", "check_field"]

FIELDS = (5, 9, 17, 33)
"""Receptive fields in pixels: with a 3 x 3 convolution in the first one, two, three or four stages."""
_STRIDES = (2, 2, 2, 1)


class _Block(nn.Module):
    """Two convolutions and a way around them; of the first, what would need pixels beyond the edge is left out."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.edge = kernel // 2
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride=stride, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        changed = stride != 1 or inputs != outputs
        self.around = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
            if changed
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = x[:, :, self.edge : x.shape[2] - self.edge, self.edge : x.shape[3] - self.edge]
        return torch.relu(self.body(x) + self.around(inner))


class BagNet18(nn.Module):
    """ResNet-18 whose convolutions are 1 x 1 nearly everywhere (Brendel and Bethge 2019).

    Of eight blocks only the first of each of the first stages has a 3 x 3 convolution, nothing is padded, and the mean
    over the picture is classified: no feature depends on more than ``field`` x ``field`` pixels. The BagNet-18 of the
    published code of FLAC and SoftCon has one such block: 5 x 5 pixels.

    Args:
        num_classes: Number of classes.
        field: Receptive field in pixels, of `FIELDS`.

    Raises:
        SettingsError: There is no such field.
    """

    def __init__(self, num_classes: int, field: int = 17) -> None:
        super().__init__()
        if field not in FIELDS:
            raise SettingsError(f"expected a field of {', '.join(map(str, FIELDS))} pixels, got {field!r}")
        spatial = FIELDS.index(field) + 1
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 1, bias=False), nn.Conv2d(64, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        )
        blocks, inputs = [], 64
        for stage, stride in enumerate(_STRIDES):
            outputs = 64 * 2**stage
            blocks += [_Block(inputs, outputs, stride, 3 if stage < spatial else 1), _Block(outputs, outputs, 1, 1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 512, h, w)."""
        found: Tensor = self.blocks(self.stem(images))
        return found

    def forward_head(self, features: Tensor) -> Tensor:
        """The classes of the mean."""
        found: Tensor = self.fc(features.mean(dim=(2, 3)))
        return found

    def get_classifier(self) -> nn.Linear:
        """The last layer."""
        return self.fc

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, K)."""
        return self.forward_head(self.forward_features(images))


def check_field(field: int, preprocessing: Preprocessing) -> None:
    """See that pictures are large enough for a grid of two by two features.

    Raises:
        SettingsError: They are not.
    """
    smallest, needed = min(preprocessing.size), field + math.prod(_STRIDES)
    if smallest < needed:
        raise SettingsError(
            f"expected pictures of at least {needed} pixels a side for a BagNet-18 that sees {field}, got "
            f"{smallest}; take a smaller field"
        )


def bagnet18(num_classes: int, preprocessing: Preprocessing, *, field: int = 17, seed: int = 0) -> SplitModel:
    """Make a BagNet-18 with random weights.

    Args:
        num_classes: Number of classes.
        preprocessing: How its pictures are prepared.
        field: Receptive field in pixels, of `FIELDS`.
        seed: Of the weights; the caller's random numbers stay as they are.

    Raises:
        SettingsError: There is no such field, or the pictures are too small for it.

    Example:
        >>> bagnet18(2, Preprocessing(size=(64, 64)), field=9).num_neurons
        512
    """
    check_field(field, preprocessing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BagNet18(num_classes, field)
    return SplitModel(network.eval(), preprocessing=preprocessing)
