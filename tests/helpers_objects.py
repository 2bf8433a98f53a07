"""Pictures of an object and a tag beside it, and a small network with a fine map: what the compared methods are tried
on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import ImageAnswer
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.models.split import SplitModel

torch.set_num_threads(1)
SIDE = 32
SMALL = Preprocessing(size=(SIDE, SIDE))


def small_network(num_classes: int = 2, *, seed: int = 0) -> SplitModel:
    """Three convolutions with batch norm, a map of 8 x 8, and a linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 8, 2), (8, 16, 2), (16, 16, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))
        return SplitModel(trunk=nn.Sequential(*layers), head=head, preprocessing=SMALL).eval()


def tagged_pictures(
    count: int = 12,
    *,
    follows: float | None = None,
    contrast: float = 1.0,
    classes: int = 2,
    seed: int = 0,
    unmasked: Collection[int] = (),
    masks: bool = True,
    groups: bool = True,
) -> ImageDataset:
    """Finished inputs (3, 32, 32): the class is in the stripes of a square, and often in the colour of a tag in the
    corner.

    Args:
        count: How many.
        follows: Share of pictures whose tag is of the class; without it tags are balanced.
        contrast: Of the stripes.
        classes: How many.
        seed: Of everything random.
        unmasked: Positions of those without an object mask.
        masks: Whether there are any.
        groups: Whether it is said what tag there is.
    """
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels, tags, objects = [], [], []
    for position in range(count):
        label = position % classes
        tag = position // classes % classes
        if follows is not None:
            other = (label + 1) % classes
            tag = label if float(torch.rand(1, generator=generator)) < follows else other
        top, left = (10 + int(torch.randint(10, (1,), generator=generator)) for _ in range(2))
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inside[top : top + 10, left : left + 10] = True
        stripes = (torch.arange(SIDE) // 2 % 2 * 2.0 - 1).expand(SIDE, SIDE)
        images[position, label // 2, inside] += contrast * (stripes if label % 2 else stripes.T)[inside]
        images[position, 2, :8, :8] += 3.0 * tag / (classes - 1) - 1.5
        labels.append(label)
        tags.append(f"tag {tag}")
        objects.append(None if position in unmasked else inside)
    more: dict[str, Any] = {"masks": objects} if masks else {}
    more |= {"groups": {"tag": tags}} if groups else {}
    return ImageDataset.from_torch(
        list(zip(images, labels, strict=True)),
        class_names=[f"c{number}" for number in range(classes)],
        ids=[f"s{position}" for position in range(count)],
        preprocessed=True,
        preprocessing=SMALL,
        **more,
    )


def said(words: dict[str, str]) -> AnnotationSet:
    """Answers about maps, by one person."""
    return AnnotationSet(ImageAnswer(id=sample, answer=word, annotator="ann") for sample, word in words.items())
