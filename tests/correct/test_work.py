from __future__ import annotations

import pytest
import torch
from helpers_correction import image_answers, noise_pictures, split_model

from crayon_sdk.correct.settings import AttentionSettings, TrainingSettings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import NonFiniteLossError, SettingsError
from crayon_sdk.models.split import SplitModel

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(epochs=1, batch_size=4, lr=0.1)


def make(model=None, dataset=None, evaluate_on=None, settings=SETTINGS):
    return Fit(model or split_model(), dataset or noise_pictures(6), evaluate_on, CPU, None, settings)


def test_identity_names_what_makes_a_run():
    dataset, held_out = noise_pictures(6), noise_pictures(4, seed=1)
    identity = make(dataset=dataset, evaluate_on=held_out).identity("attention", maps="m")
    assert identity["settings"]["lr"] == 0.1
    assert (identity["method"], identity["maps"]) == ("attention", "m")
    assert identity["model"] == split_model().fingerprint
    assert (identity["dataset"], identity["evaluate_on"]) == (dataset.fingerprint, held_out.fingerprint)
    assert identity["preprocessing"]["size"] == [64, 64]


def test_map_size_is_that_of_the_pictures():
    fit = make()
    with PixelCache(fit.dataset, fit.model.preprocessing) as cache:
        assert fit.map_size(cache) == (2, 2)


def test_frozen_norm_stays_in_eval_mode():
    fit = make()
    with fit.training(frozen_norm=True):
        assert fit.model.training
        assert not fit.model.model.bn1.training
        assert fit.model.model.layer1.training
    with fit.training():
        assert fit.model.model.bn1.training
        assert all(parameter.requires_grad for parameter in fit.model.parameters())


def test_error_carries_the_model_out():
    fit = make(model=split_model().requires_grad_(False))
    with pytest.raises(NonFiniteLossError) as caught, fit.training():
        raise NonFiniteLossError("stopped", step=1, epoch=0)
    assert caught.value.model is fit.model
    assert not fit.model.training
    assert not any(parameter.requires_grad for parameter in fit.model.parameters())


def test_class_names_of_the_data_travel():
    assert make().model.class_names == ("a", "b")
    one = ImageDataset.from_torch([(torch.zeros(3, 64, 64), 0)], class_names=["only"])
    with pytest.raises(SettingsError, match=r"the data has 1 \('only'\), the model 2 without names"):
        make(dataset=one)


def test_names_of_the_model_come_first():
    model = SplitModel(split_model().model, preprocessing=split_model().preprocessing, class_names=["b", "a"])
    data, held_out = noise_pictures(6), noise_pictures(4, seed=1)
    fit = make(model=model, dataset=data, evaluate_on=held_out)
    assert fit.model.class_names == fit.dataset.class_names == fit.evaluate_on.class_names == ("b", "a")
    assert fit.dataset.labels.tolist() == [1, 0] * 3
    assert fit.dataset.group_labels == data.group_labels
    other = make(model=SplitModel(model.model, preprocessing=model.preprocessing), dataset=data)
    assert fit.identity("attention") != other.identity("attention")


def test_measure_gives_the_score():
    fit = make(evaluate_on=noise_pictures(8, seed=1))
    found = fit.measure()
    assert found["score"] == found["worst_group"]
    assert "weighted_mean" in found
    assert make().measure() == {}


def test_labels_of_the_evaluation_set_are_checked():
    three = ImageDataset.from_torch([(torch.zeros(3, 64, 64), 2)], class_names=["a", "b", "c"])
    with pytest.raises(SettingsError, match="model's 2 classes, got label 2"):
        make(evaluate_on=three)


def test_best_needs_an_evaluation_set():
    settings = AttentionSettings(epochs=1, batch_size=1, lr=0.1, alpha=1.0, beta=1.0, keep="best")
    with pytest.raises(SettingsError, match="pass evaluate_on="):
        make(settings=settings)


def test_finish_writes_the_record():
    fit = make(evaluate_on=noise_pictures(4, seed=1))
    found = fit.finish("attention", [{"epoch": 1}], image_answers({"s0": "yes"}), {"relevant": 1}, maps="m")
    assert (found.record.history, found.record.counts) == (({"epoch": 1},), {"relevant": 1})
    assert found.record.original == found.record.corrected  # nothing was trained
    assert found.before == found.after
    assert found.record.created.endswith("+00:00")
    assert found.record.versions["torch"]
