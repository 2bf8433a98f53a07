"""Where training starts, and whether sums or means are minimised: what the compared methods have besides."""

from __future__ import annotations

import shutil

import pytest
import torch
from helpers_baselines import FAST
from helpers_correction import neuron_answers, noise_pictures, split_model

import crayon_sdk as crayon
from crayon_sdk.correct import methods, start
from crayon_sdk.correct.erm import FurtherTraining
from crayon_sdk.correct.start import published_weights, start_of
from crayon_sdk.errors import MismatchError, ModelLoadError, SettingsError

JTT = methods["jtt"]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same architecture with other weights, saved."""
    found = FurtherTraining(split_model(seed=5), epochs=0, device="cpu").fit(noise_pictures(4))
    return str(found.save(tmp_path_factory.mktemp("start") / "other"))


def test_it_starts_from_the_weights_that_are_named(other, tmp_path):
    dataset, model = noise_pictures(12), split_model()
    before = model.fingerprint
    found = JTT(model, upweight=0.0, init=f"local-dir:{other}", **FAST).fit(dataset)
    assert found.record.corrected == FurtherTraining(split_model(seed=5), **FAST).fit(dataset).record.corrected
    assert (found.record.original, model.fingerprint) == (before, before)
    assert found.record.settings["init"] == f"local-dir:{other}"
    kept = JTT(model, upweight=0.0, init="original", **FAST).fit(dataset)
    assert kept.record.corrected == FurtherTraining(split_model(), **FAST).fit(dataset).record.corrected


def test_a_run_belongs_to_the_weights_that_it_started_from(other, tmp_path):
    """The same reference, with other weights behind it."""
    place = tmp_path / "weights"
    more = {"init": f"local-dir:{place}", "checkpoint_dir": tmp_path / "run"}
    shutil.copytree(other, place)
    JTT(split_model(), upweight=0.0, **more, **FAST).fit(noise_pictures(12))
    shutil.rmtree(place)
    FurtherTraining(split_model(seed=6), epochs=0, device="cpu").fit(noise_pictures(4)).save(place)
    with pytest.raises(MismatchError, match="different: start"):
        JTT(split_model(), upweight=0.0, **more, **FAST).fit(noise_pictures(12))


def test_pretrained_are_the_published_weights_of_the_architecture(monkeypatch):
    model = split_model()
    assert published_weights(model) == "test_resnet.r160_in1k"
    made = JTT(model, init="pretrained", device="cpu")
    assert (made.settings.init, made.init) == ("test_resnet.r160_in1k",) * 2
    asked = []

    def load(name, *, num_classes):
        asked.append((name, num_classes))
        return split_model(seed=9)

    monkeypatch.setattr(start, "load_model", load)  # there may be no network here
    found = start_of(model, made.settings.init)
    assert asked == [("test_resnet.r160_in1k", 2)]
    assert found.fingerprint == split_model(seed=9).fingerprint


def test_weights_that_cannot_be_had_are_an_error_before_any_work(other, monkeypatch, tmp_path):
    monkeypatch.setattr("crayon_sdk.correct.method.Fit", None)
    dataset = noise_pictures(8)
    with pytest.raises(ModelLoadError, match="no folder at"):
        JTT(split_model(), init="local-dir:nowhere", **FAST).fit(dataset)
    with pytest.raises(
        MismatchError, match=r"expected weights of test_resnet at init='local-dir.*got test_vit|tensors"
    ):
        JTT(split_model(name="test_efficientnet.r160_in1k"), init=f"local-dir:{other}", **FAST).fit(dataset)
    home_made = crayon.SplitModel(
        trunk=torch.nn.Conv2d(3, 4, 8, stride=8),
        head=torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2)),
        preprocessing=split_model().preprocessing,
    )
    with pytest.raises(SettingsError, match=r"expected a model with published weights with init='pretrained'"):
        JTT(home_made, init="pretrained")


def test_a_pruned_model_keeps_its_own_weights(other):
    pruned = crayon.NeuronPruner(split_model(), epochs=0, device="cpu").fit(noise_pictures(8), neuron_answers([1]))
    with pytest.raises(SettingsError, match="expected init='original' for a model with pruned neurons"):
        JTT(pruned.model, init=f"local-dir:{other}", **FAST).fit(noise_pictures(8))


def test_means_are_sums_divided_by_the_batch():
    dataset = noise_pictures(12)
    more = {"epochs": 2, "batch_size": 4, "device": "cpu", "optimizer": "sgd", "momentum": 0.0, "scheduler": "none"}
    summed = FurtherTraining(split_model(), lr=1e-3, weight_decay=4e-2, **more).fit(dataset)
    # A mean over four is a fourth of the sum: a rate four times as high, a decay a fourth.
    mean = JTT(split_model(), upweight=0.0, reduction="mean", lr=4e-3, weight_decay=1e-2, **more).fit(dataset)
    for name, tensor in summed.model.plain_state_dict().items():
        torch.testing.assert_close(mean.model.plain_state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    assert [each["loss"] for each in mean.history] == pytest.approx([each["loss"] for each in summed.history])
