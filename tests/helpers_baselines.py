"""What the tests of the compared methods share: at its neutral setting one is ERM, and one that is stopped goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import make_tiny_model
from helpers_correction import SMALL, noise_pictures, split_model

from crayon_sdk.correct.erm import FurtherTraining
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import Correction

FAST: dict[str, Any] = {"epochs": 2, "batch_size": 5, "device": "cpu", "lr": 1e-3}


def mixed_up(count: int = 12, *, wrong: tuple[int, ...] = (1, 2, 7), classes: int = 2) -> ImageDataset:
    """Noise that is brighter in the second class, and brightest in the third; some samples have another label."""
    plain = noise_pictures(count)
    images = [plain.row(position, None) + 0.3 * (position % classes) for position in range(count)]
    labels = [(position + (position in wrong)) % classes for position in range(count)]
    return ImageDataset.from_torch(
        [(image, label) for image, label in zip(images, labels, strict=True)],
        class_names=("a", "b", "c")[:classes],
        ids=plain.ids,
        preprocessed=True,
        preprocessing=plain.preprocessing,
    )


def three_classes() -> SplitModel:
    """A model of three classes."""
    return SplitModel(make_tiny_model(num_classes=3), preprocessing=SMALL)


def learned(dataset: ImageDataset, seed: int = 0) -> Any:
    """A model that knows its training pictures."""
    more: dict[str, Any] = {"epochs": 10, "batch_size": 4, "device": "cpu", "lr": 3e-3, "average_decay": 0.0}
    return FurtherTraining(split_model(seed), **more).fit(dataset).model


def equals_further_training(kind: Any, **neutral: Any) -> None:
    """At its neutral setting a method gives the same bytes as ERM."""
    dataset, more = noise_pictures(12), {**FAST, "weight_decay": 1e-2, "clip_norm": 5.0}
    expected = FurtherTraining(split_model(), **more).fit(dataset)
    for choice in ({}, {"batch_norm": "frozen"}):
        plain = expected if not choice else FurtherTraining(split_model(), **more, **choice).fit(dataset)
        found = kind(split_model(), **{"batch_norm": "train"} | more | choice | neutral).fit(dataset)
        assert found.record.corrected == plain.record.corrected, choice


def goes_on(
    kind: Any, dataset: ImageDataset, folder: Any, monkeypatch: pytest.MonkeyPatch, *, steps: int, **settings: Any
) -> Correction:
    """Whether a run that dies before its last step ends as one that does not; gives what it ends as."""
    model = settings.pop("model", None) or split_model()

    def fit(**more: Any) -> Correction:
        found: Correction = kind(model, **{**FAST, **settings, **more}).fit(dataset)
        return found

    whole = fit()
    assert fit().record.corrected == whole.record.corrected  # one seed, one result
    assert fit(seed=1).record.corrected != whole.record.corrected
    real, done = torch.optim.Adam.step, []

    def step(self: Any, *arguments: Any) -> Any:
        done.append(1)
        if len(done) == steps:
            raise ZeroDivisionError
        return real(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(ZeroDivisionError):
        fit(checkpoint_dir=folder)
    fit_again = fit(checkpoint_dir=folder)
    monkeypatch.setattr(torch.optim.Adam, "step", real)
    assert fit_again.record.corrected == whole.record.corrected
    assert [each["loss"] for each in fit_again.history] == [each["loss"] for each in whole.history]
    return whole
