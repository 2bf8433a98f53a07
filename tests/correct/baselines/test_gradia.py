"""GradIA: the published weights, its loss in plain loops, and its traps."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers_objects import said, small_network, tagged_pictures

from crayon_sdk.correct.baselines.gradia import GradIA, sample_weights
from crayon_sdk.correct.erm import FurtherTraining
from crayon_sdk.correct.guidance import guidance_of
from crayon_sdk.correct.objective import PixelFeed
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import AnswerError, DataError, SettingsError
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.functional.object_guidance import attention_target

FAST = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "device": "cpu"}


@pytest.fixture(scope="module")
def case():
    dataset, model = tagged_pictures(10, unmasked=(5,)), small_network()
    maps = Explainer(model, device="cpu").explain(dataset)
    answers = said({f"s{n}": "no" if n % 2 else "yes" for n in range(8)})
    return dataset, model, maps, answers


def objective_of(case, model=None, **settings):
    dataset, given, maps, answers = case
    method = GradIA(given, device="cpu", zero_maps="keep", **settings)
    cache = PixelCache(dataset, dataset.preprocessing)
    guidance = guidance_of(dataset, maps, answers, (8, 8), preprocessing=dataset.preprocessing, zero_maps="keep")
    masks = dataset.mask_tensors(dataset.preprocessing)
    feed = PixelFeed(cache, dataset.labels, guidance=guidance, masks=masks)
    model = (model or copy.deepcopy(given)).train()
    return method.objective(model, feed, method.settings), feed.batch(torch.arange(len(dataset)))


def test_the_published_weights_by_hand():
    reasonable = torch.tensor([0, 0, 1, 1, 0, 0]).bool()
    unreasonable = torch.tensor([1, 1, 0, 0, 0, 0]).bool()
    right = torch.tensor([0, 1, 0, 1, 0, 1]).bool()
    found = sample_weights(reasonable, unreasonable, right)
    expected = [[1.0, 1.0], [0.4, 1.6], [0.8, 0.2], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("per_batch", [False, True])
def test_the_loss_equals_the_loops(case, per_batch):
    given = case[1]
    objective, batch = objective_of(case, per_batch=per_batch, attention_weight=3.0)
    objective.eval()
    found = objective(batch)
    right = given(batch.images).argmax(dim=1) == batch.labels
    features = given.features(batch.images)
    logits = given.head(features)
    prediction = attention = 0.0
    attended = 0
    for n in range(10):
        key = ("yes" if n % 2 == 0 else "no") if n < 8 and n != 5 else "none"
        table = {"no": ((1.0, 1.0), (0.4, 1.6)), "yes": ((0.8, 0.2), (1.0, 0.0)), "none": ((1.0, 0.0), (1.0, 0.0))}
        w_prediction, w_attention = table[key][int(right[n])]
        label = int(batch.labels[n])
        prediction -= w_prediction * logits[n].log_softmax(0)[label].item()
        if w_attention:
            attended += 1
            alone = features[n : n + 1].detach().requires_grad_()
            (slope,) = torch.autograd.grad(given.head(alone)[0, label], alone)
            cam = sum(slope[0, k].mean() * alone[0, k] for k in range(16)).detach()
            cam = (cam - cam.min()) / (cam.max() - cam.min())
            target = attention_target(batch.masks[n : n + 1], (8, 8))[0]
            attention += w_attention * (cam - target).abs().mean().item()
    assert found["prediction"].item() == pytest.approx(prediction, rel=1e-4)
    assert found["attention"].item() == pytest.approx(10 / attended * attention, rel=1e-4)
    assert found["loss"].item() == pytest.approx(prediction + 3 * 10 / attended * attention, rel=1e-4)
    assert objective.counted == {"attended": attended}


def test_an_attended_picture_counts_the_same_in_all_batches_unless_it_is_published_otherwise(case):
    for per_batch in (False, True):
        objective, batch = objective_of(case, per_batch=per_batch)
        objective.eval()
        parts = [
            {name: getattr(batch, name)[rows] for name in ("rows", "labels", "images", "masks")}
            for rows in ([0, 1, 2], [3, 4, 5, 6, 7, 8, 9])
        ]
        found = sum(objective(type(batch)(**part)).get("attention", torch.tensor(0.0)) for part in parts)
        assert torch.allclose(found, objective(batch)["attention"], rtol=1e-4) is (not per_batch)


def test_it_is_further_training_without_its_weights_byte_for_byte(case):
    dataset, model, maps, answers = case
    plain = FurtherTraining(model, **FAST).fit(dataset)
    how = {"attention_weight": 0.0, "prediction_weights": False, "zero_maps": "keep"}
    found = GradIA(model, **FAST, **how).fit(dataset, maps=maps, answers=answers)
    assert found.record.corrected == plain.record.corrected
    weighed = GradIA(model, **FAST, **how | {"attention_weight": 1.0}).fit(dataset, maps=maps, answers=answers)
    assert weighed.record.corrected != plain.record.corrected
    assert weighed.record.counts["relevant"] == 4
    assert weighed.record.counts["masks"] == 9


def test_constant_weights_leave_the_head_without_attention(case):
    for constant in (False, True):
        objective, batch = objective_of(case, constant_weights=constant)
        layer = objective.model.classifier
        found = objective(batch)["attention"]
        (slope,) = torch.autograd.grad(found, layer.weight, allow_unused=True)
        assert (slope is None or not slope.any()) is constant


def test_maps_of_single_pictures_move_the_running_statistics_away_from_those_of_batches(case):
    """Which is why they are not the default."""
    given = case[1]
    variances = {}
    for alone in (False, True):
        objective, batch = objective_of(case, one_by_one=alone)
        for _ in range(30):
            found = objective(batch)
        norm = next(each for each in objective.model.modules() if isinstance(each, torch.nn.BatchNorm2d))
        variances[alone] = norm.running_var.clone()
        assert found["loss"].isfinite()
        found["loss"].backward()
    plain = copy.deepcopy(given).train()
    for _ in range(30):
        plain(batch.images)
    expected = next(each for each in plain.modules() if isinstance(each, torch.nn.BatchNorm2d)).running_var
    torch.testing.assert_close(variances[False], expected)
    assert not torch.allclose(variances[True], expected, rtol=0.01)


def test_what_it_needs():
    dataset, model = tagged_pictures(6), small_network()
    maps = Explainer(model, device="cpu").explain(dataset)
    with pytest.raises(AnswerError, match="method 'gradia' needs answers about pictures"):
        GradIA(model, **FAST).fit(dataset, maps=maps)
    with pytest.raises(SettingsError, match="method 'gradia' needs the maps that were answered"):
        GradIA(model, **FAST).fit(dataset, answers=said({"s0": "no"}))
    with pytest.raises(DataError, match="method 'gradia' needs object masks"):
        GradIA(model, **FAST).fit(tagged_pictures(6, masks=False), maps=maps, answers=said({"s0": "no"}))


def test_more_classes_and_presets():
    dataset, model = tagged_pictures(9, classes=3, unmasked=(2,)), small_network(3)
    maps = Explainer(model, device="cpu").explain(dataset)
    answers = said(dict.fromkeys(dataset.ids, "no"))
    found = GradIA(model, **FAST | {"batch_size": 1}).fit(dataset, maps=maps, answers=answers)
    assert found.history[-1]["loss"] > 0
    settings = GradIA.from_preset("biased-celeba", model).settings
    assert (settings.lr, settings.constant_weights, settings.per_batch, settings.one_by_one) == (
        1e-3,
        True,
        True,
        False,
    )
    assert GradIA.from_preset("own", model).settings.one_by_one
    assert GradIA.from_preset("backgrounds", model).settings.epochs == 5
