"""A small task that can be guessed by a colour, and a model that guesses: what needs labels alone may help."""

from __future__ import annotations

import pytest
import torch
from helpers_correction import SIDE, SMALL, split_model

from crayon_sdk.correct import methods
from crayon_sdk.correct.erm import FurtherTraining
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.results.evaluation import evaluate

PLAIN = {"device": "cpu", "batch_size": 16, "lr": 1e-3, "average_decay": 0.9}


def bars(count, agree, seed):
    """Bars that lie or stand, in pictures of a red or green tint, which mostly says which."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, SIDE, SIDE, generator=generator) * 0.5
    labels = torch.arange(count) % 2
    tint = torch.where(torch.rand(count, generator=generator) < agree, labels, 1 - labels)
    for image, label, channel in zip(images, labels.tolist(), tint.tolist(), strict=True):
        image[channel] += 0.35
        top, left = torch.randint(8, 30, (2,), generator=generator).tolist()
        if label:
            image[:, top : top + 26, left + 10 : left + 16] += 0.6
        else:
            image[:, top + 10 : top + 16, left : left + 26] += 0.6
    return ImageDataset.from_torch(
        list(zip(images, labels.tolist(), strict=True)),
        class_names=("lying", "standing"),
        ids=[f"s{number}" for number in range(count)],
        groups={"tint": [("red", "green")[channel] for channel in tint.tolist()]},
        preprocessed=True,
        preprocessing=SMALL,
    )


def test_they_beat_further_training_where_the_shortcut_fails():
    train, test = bars(120, 0.94, 0), bars(120, 0.5, 1)
    model = FurtherTraining(split_model(), epochs=7, **PLAIN).fit(train).model
    assert evaluate(model, test).worst_group < 0.2
    found = {}
    for name, settings in (
        ("erm", {}),
        ("jtt", {"upweight": 10.0}),
        ("lc", {}),
        ("cnc", {"batch_norm": "train"}),
    ):
        corrected = methods[name](model, epochs=3, **PLAIN, **settings).fit(train)
        found[name] = evaluate(corrected.model, test).accuracy
    assert found.pop("erm") < 0.65
    assert min(found.values()) > 0.75, found


@pytest.mark.parametrize("name", ["cnc", "flac", "jtt", "lc", "lff", "masktune", "softcon"])
def test_they_say_what_they_are(name):
    kind = methods[name]
    assert (kind.method, kind.needs) == (name, frozenset())
    assert kind.title
    assert kind.paper
    assert set(kind.presets) >= {"waterbirds", "biased-celeba", "backgrounds"}
    made = kind(split_model(), device="cpu")
    assert repr(made).startswith(f"{kind.__name__}(test_resnet, epochs=")
    assert len(repr(made)) < 120
