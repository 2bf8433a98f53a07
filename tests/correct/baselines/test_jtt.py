from __future__ import annotations

import logging

import pytest
import torch
from helpers_baselines import FAST, equals_further_training, goes_on, learned, mixed_up
from helpers_correction import noise_pictures, split_model

from crayon_sdk.correct.baselines.jtt import JustTrainTwice, _Repeating, _Weighting
from crayon_sdk.correct.objective import Batch
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import SettingsError, TrainingError


def errors_of(model, dataset):
    images = torch.stack([dataset.row(position, None) for position in range(len(dataset))])
    with torch.no_grad():
        return model(images).argmax(dim=1) != dataset.labels


def test_without_more_weight_it_is_further_training():
    equals_further_training(JustTrainTwice, upweight=0.0)


def test_errors_of_the_model_that_is_given_come_again():
    dataset, model = mixed_up(), learned(noise_pictures(12))
    wrong = errors_of(model, dataset)
    assert 0 < wrong.sum() < 6
    found = JustTrainTwice(model, upweight=3.0, **FAST).fit(dataset)
    assert found.record.counts == {"errors": int(wrong.sum())}
    objective = _Repeating(split_model(), dataset.labels, wrong, 3.0)
    order = objective.epoch(1, 4, count=12)
    assert sorted(order.tolist()) == sorted([*range(12), *wrong.nonzero().flatten().tolist() * 3])
    assert torch.equal(order, objective.epoch(1, 4, count=12))


def test_repeating_and_weighting_have_the_same_mean():
    """``sum w CE / sum w`` over everything is the mean over the longer list."""
    dataset = mixed_up()
    wrong, model = errors_of(split_model(), dataset), split_model()
    images = torch.stack([dataset.row(position, None) for position in range(12)])

    def batch(rows):
        return Batch(rows=rows, labels=dataset.labels[rows], images=images[rows])

    repeated, weighted = (kind(model, dataset.labels, wrong, 4.0) for kind in (_Repeating, _Weighting))
    order = repeated.epoch(0, 0, count=12)
    with torch.no_grad():
        longer = repeated(batch(order))["loss"] / len(order)
        once = weighted(batch(torch.arange(12)))["loss"] / 12
    assert weighted.weights.mean().item() == pytest.approx(1.0)
    assert once.item() == pytest.approx(longer.item(), rel=1e-5)


def test_without_errors_it_stops_and_with_few_it_warns(caplog):
    dataset = noise_pictures(12)
    model = learned(dataset)
    assert not errors_of(model, dataset).any()
    with pytest.raises(TrainingError, match=r"got none of 12 by the model that is given: .*first_epochs=1"):
        JustTrainTwice(model, **FAST).fit(dataset)
    many = noise_pictures(250)
    labels = [int(label) for label in many.labels]
    labels[3] = 1 - labels[3]
    one = ImageDataset.from_torch(
        [(many.row(position, None), label) for position, label in enumerate(labels)],
        class_names=("a", "b"),
        preprocessed=True,
        preprocessing=many.preprocessing,
    )
    assert errors_of(model, one).sum() == 1
    with caplog.at_level(logging.WARNING, "crayon_sdk"):
        JustTrainTwice(model, **{**FAST, "epochs": 0}).fit(one)
    assert "only 1 of 250 training pictures wrong" in caplog.text


@pytest.mark.parametrize(("errors", "steps"), [("during", 5), ("after", 11)])
def test_a_first_stage_and_a_run_that_goes_on_in_either(errors, steps, tmp_path, monkeypatch):
    # Three steps in an epoch: the fifth is in the first stage, the eleventh in the second.
    more = {"first_epochs": 2, "errors": errors, "upweight": 2.0}
    found = goes_on(JustTrainTwice, mixed_up(), tmp_path, monkeypatch, steps=steps, **more)
    assert (tmp_path / "first" / "training.safetensors").is_file()
    assert found.record.counts["errors"] > 0


def test_predictions_of_the_epoch_are_those_of_its_steps():
    """The published way counts other errors than a pass afterwards does."""
    dataset = mixed_up()
    counts = {
        errors: JustTrainTwice(
            split_model(), first_epochs=3, errors=errors, epochs=0, batch_size=3, lr=2e-3, device="cpu"
        )
        .fit(dataset)
        .record.counts["errors"]
        for errors in ("after", "during")
    }
    assert counts["after"] != counts["during"]


def test_settings():
    with pytest.raises(SettingsError, match=r"expected a whole number of times .* upweight=2.5; by=.weight"):
        JustTrainTwice(split_model(), upweight=2.5)
    assert JustTrainTwice(split_model(), upweight=2.5, by="weight").upweight == 2.5
    for name, expected in (
        ("waterbirds", (100, 5e-5, 1e-4, 60, 128, 0)),
        ("biased-celeba", (20, 1e-5, 0.1, 30, 64, 0)),
        ("backgrounds", (5, 1e-5, 0.1, 10, 256, 0)),
        ("waterbirds-own", (100, 1e-5, 1.0, 300, 64, 61)),
        ("celeba-own", (50, 1e-5, 0.1, 50, 64, 2)),
    ):
        found = JustTrainTwice.from_preset(name, split_model()).settings
        shown = (found.upweight, found.lr, found.weight_decay, found.epochs, found.batch_size, found.first_epochs)
        assert shown == expected
        assert (found.scheduler, found.average_decay, found.reduction) == ("none", 0.0, "mean")
        own = name.endswith("own")
        assert (found.optimizer, found.init) == (("sgd", "test_resnet.r160_in1k") if own else ("adam", "original"))
