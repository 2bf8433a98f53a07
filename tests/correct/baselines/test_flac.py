from __future__ import annotations

import pytest
import torch
from helpers_baselines import equals_further_training, goes_on, mixed_up, three_classes
from helpers_correction import split_model

from crayon_sdk.correct.baselines import auxiliary
from crayon_sdk.correct.baselines.auxiliary import biased_neurons
from crayon_sdk.correct.baselines.flac import FLAC, FLACSettings, _Pairs
from crayon_sdk.correct.objective import Batch, PixelFeed
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.functional.contrast import flac_loss
from crayon_sdk.models.bagnet import bagnet18

SMALL = {"auxiliary_epochs": 1, "auxiliary_field": 5}


def test_without_pairs_it_is_further_training(monkeypatch):
    monkeypatch.setattr(auxiliary, "bagnet18", None)  # and nothing else is trained
    equals_further_training(FLAC, alpha=0.0)


def test_the_loss_is_cross_entropy_and_pairs():
    dataset, model, bias = mixed_up(6), split_model(), torch.rand(6, 5)
    images = torch.stack([dataset.row(position, None) for position in range(6)])
    rows = torch.tensor([4, 0, 3, 2])
    objective = _Pairs(model, dataset.labels, bias, FLACSettings(prediction=0.5, alpha=20.0))
    with torch.no_grad():
        found = objective(Batch(rows=rows, labels=dataset.labels[rows], images=images[rows]))
        features = model.features(images[rows])
        pairs = 4 * flac_loss(model.penultimate(features), dataset.labels[rows], bias[rows])
        entropy = torch.nn.functional.cross_entropy(model.head(features), dataset.labels[rows], reduction="sum")
    assert pairs > 0
    assert found["pairs"].item() == pytest.approx(pairs.item(), rel=1e-4)
    assert found["loss"].item() == pytest.approx(0.5 * entropy.item() + 20 * pairs.item(), rel=1e-5)


def test_features_of_the_biased_network_are_those_of_its_eval_mode(monkeypatch):
    dataset, model = mixed_up(), split_model()
    fit = Fit(model, dataset, None, torch.device("cpu"), None, FLACSettings())
    with PixelCache(dataset, dataset.preprocessing) as cache:
        feed = PixelFeed(cache, dataset.labels)
        settings = FLACSettings(auxiliary_epochs=3, auxiliary_field=9)
        made = []
        monkeypatch.setattr(auxiliary, "bagnet18", lambda *_, **how: made.append(bagnet18(*_, **how)) or made[0])
        neurons, counted = biased_neurons(fit, feed, settings, None, None)
        network = made[0].eval()
        with torch.no_grad():
            features = network.features(cache.get(torch.arange(12)))
            torch.testing.assert_close(neurons, features.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
            right = int((network.head(features).argmax(dim=1) == dataset.labels).sum())
    assert counted == {"auxiliary_right": right}
    untrained = bagnet18(2, model.preprocessing, field=9, seed=auxiliary._OWN_SEED)
    assert network.fingerprint != untrained.fingerprint


def test_a_run_goes_on_in_the_first_stage(tmp_path, monkeypatch):
    more = {**SMALL, "auxiliary_epochs": 2}
    found = goes_on(FLAC, mixed_up(6, wrong=(1,)), tmp_path, monkeypatch, steps=2, **more)
    assert {"prediction", "pairs"} < found.history[0].keys()
    assert found.record.settings["auxiliary_epochs"] == 2


def test_a_batch_of_one_and_three_classes():
    more = {**SMALL, "epochs": 1, "batch_size": 1, "batch_norm": "frozen", "device": "cpu"}
    assert FLAC(three_classes(), **more).fit(mixed_up(5, classes=3)).history[0]["pairs"] == 0.0


def test_published_settings():
    for name, expected in (
        ("waterbirds", (1.0, 1000.0, 5e-5, 20, 1e-4, 128)),
        ("biased-celeba", (1.0, 1000.0, 5e-5, 5, 1e-4, 64)),
        ("backgrounds", (1.0, 100.0, 5e-6, 5, 0.1, 128)),
        ("celeba-own", (0.01, 3e4, 1e-3, 10, 1e-4, 128)),
        ("imagenet-own", (1.0, 1000.0, 1e-3, 250, 1e-4, 128)),
    ):
        found = FLAC.from_preset(name, split_model()).settings
        shown = (found.prediction, found.alpha, found.lr, found.epochs, found.weight_decay, found.batch_size)
        assert shown == expected
        assert (found.auxiliary_epochs, found.auxiliary_lr, found.auxiliary_field) == (20, 1e-3, 5)
        assert found.scheduler == ("step" if "own" in name else "none")
