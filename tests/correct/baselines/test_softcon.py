from __future__ import annotations

import pytest
import torch
from helpers_baselines import FAST, equals_further_training, goes_on, mixed_up, three_classes
from helpers_correction import noise_pictures, split_model

from crayon_sdk.correct.baselines import auxiliary
from crayon_sdk.correct.baselines.looking import neurons_of
from crayon_sdk.correct.baselines.softcon import SoftConSettings, SoftContrastive, _Contrasting
from crayon_sdk.correct.objective import PixelFeed
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError
from crayon_sdk.functional.contrast import soft_contrastive_loss
from crayon_sdk.functional.views import random_views

SMALL = {"auxiliary_epochs": 1, "auxiliary_field": 5, "contrast_batch": 4}


def test_without_contrast_it_is_further_training(monkeypatch):
    monkeypatch.setattr(auxiliary, "bagnet18", None)  # and nothing else is trained
    equals_further_training(SoftContrastive, contrast=0.0)


@pytest.fixture
def feed():
    dataset = mixed_up()
    with PixelCache(dataset, dataset.preprocessing) as cache:
        yield PixelFeed(cache, dataset.labels)


@pytest.mark.parametrize("batches", ["one", "two"])
def test_the_loss_is_that_of_a_batch_and_of_views(feed, batches):
    model, bias = split_model(), torch.rand(12, 6)
    settings = SoftConSettings(batches=batches, contrast_batch=4, prediction=3.0, contrast=0.5, temperature=0.2)
    objective = _Contrasting(model, feed, bias, settings)
    batch = feed.batch(torch.tensor([5, 0, 3]))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        found = objective(batch)
        torch.manual_seed(4)
        rows = torch.randperm(12)[:4] if batches == "two" else batch.rows
        images = torch.cat([feed.cache.get(rows)] * 2)
        views = random_views(images, least_area=0.2, flip=0.5)
        twice = torch.cat([rows, rows])
        neurons = model.penultimate(model.features(views))
        expected = 3 * soft_contrastive_loss(neurons, feed.labels[twice], bias[twice], twice, temperature=0.2)
        entropy = torch.nn.functional.cross_entropy(model(batch.images), batch.labels, reduction="sum")
    assert found["prediction"].item() == pytest.approx(entropy.item(), rel=1e-5)
    assert found["contrast"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx(3 * entropy.item() + 0.5 * expected.item(), rel=1e-5)


def test_pictures_unlike_their_class_are_drawn_more_often(feed):
    bias = torch.ones(12, 2) + 0.1 * torch.rand(12, 2, generator=torch.Generator().manual_seed(0))
    bias[0] = torch.tensor([1.0, -1.0])
    batch = feed.batch(torch.arange(3))
    share = {}
    for ratio in (0.0, 1e6):
        objective = _Contrasting(split_model(), feed, bias, SoftConSettings(ratio=ratio, contrast_batch=6))
        drawn = torch.cat([objective.contrasted(batch)[0] for _ in range(100)])
        share[ratio] = float((drawn == 0).float().mean())
    assert share[0.0] == pytest.approx(1 / 12, abs=0.03)  # all alike, without replacement
    assert share[1e6] > 0.3


def test_the_biased_network_is_trained_once_and_a_run_goes_on(tmp_path, monkeypatch):
    # One step in the first stage, and two in an epoch: the fifth is in the second epoch.
    found = goes_on(SoftContrastive, mixed_up(6, wrong=(1,)), tmp_path, monkeypatch, steps=5, **SMALL, ratio=10.0)
    assert (tmp_path / "auxiliary" / "training.safetensors").is_file()
    assert 0 < found.record.counts["auxiliary_right"] <= 6
    assert {"prediction", "contrast"} < found.history[0].keys()
    made = []
    real = neurons_of
    monkeypatch.setattr(auxiliary, "neurons_of", lambda *given: made.append(1) or real(*given))
    SoftContrastive(split_model(), **FAST, **SMALL).fit(noise_pictures(6))
    assert made == [1]


def test_a_batch_of_one_and_three_classes():
    dataset = mixed_up(5, classes=3)
    for batches in ("one", "two"):
        more = {**SMALL, "epochs": 1, "batch_size": 1, "batch_norm": "frozen", "batches": batches, "contrast_batch": 1}
        assert SoftContrastive(three_classes(), device="cpu", **more).fit(dataset).history[0]["contrast"] == 0.0


def test_settings():
    with pytest.raises(SettingsError, match="expected auxiliary_field to be one of 5, 9, 17, 33, got 43"):
        SoftContrastive(split_model(), auxiliary_field=43)
    tiny = split_model()
    tiny.preprocessing = Preprocessing(size=(40, 40))
    with pytest.raises(SettingsError, match=r"at least 41 pixels a side for a BagNet-18 that sees 33, got 40"):
        SoftContrastive(tiny, auxiliary_field=33)
    for name, expected in (
        ("waterbirds", (5e-5, 10, 32, 0.1, 1.0, 50.0)),
        ("biased-celeba", (5e-5, 10, 32, 0.1, 1.0, 50.0)),
        ("backgrounds", (5e-5, 10, 128, 0.07, 1e4, 0.0)),
    ):
        found = SoftContrastive.from_preset(name, split_model()).settings
        shown = (found.lr, found.epochs, found.batch_size, found.temperature, found.prediction, found.ratio)
        assert shown == expected
        assert (found.auxiliary_epochs, found.auxiliary_lr, found.auxiliary_field) == (20, 1e-3, 5)
    own = SoftContrastive.from_preset("imagenet-own", split_model()).settings
    assert (own.lr, own.weight_decay, own.scheduler, own.auxiliary_epochs) == (1e-3, 1e-4, "cosine", 120)
    assert (own.batch_size, own.contrast_batch, own.temperature, own.prediction) == (128, 64, 0.07, 1.0)
