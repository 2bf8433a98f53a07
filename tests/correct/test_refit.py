"""A new last layer from fresh pictures: what is fitted, when it is kept, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from helpers_correction import half_and_half, noise_pictures, random_maps, split_model

from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.refit import LastLayerRefit
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.functional.groups import fit_softmax
from crayon_sdk.functional.metrics import sign_test
from crayon_sdk.models.split import SplitModel

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


@pytest.fixture(scope="module")
def train():
    return noise_pictures(12)


@pytest.fixture(scope="module")
def fresh():
    return noise_pictures(60, seed=3)


@pytest.fixture(scope="module")
def found(train, fresh):
    return LastLayerRefit(split_model(), device="cpu").fit(train, fresh)


def logits_of(model: SplitModel, dataset):
    with torch.no_grad():
        return model(torch.stack([dataset.row(position, None) for position in range(len(dataset))]))


def test_only_the_last_layer_changes(train, found):
    model = split_model()
    changed = {name for name, value in model.plain_state_dict().items()
               if not torch.equal(value, found.model.plain_state_dict()[name])}  # fmt: skip
    assert changed == {"fc.weight", "fc.bias"}
    assert found.record.method == "refit"
    assert found.record.counts == {"pictures": 60, "kept": 1}
    assert found.record.settings["penalty"] in PENALTIES


def test_the_layer_is_the_regression_on_standardised_neurons(train, fresh, found):
    model, labels = split_model(), fresh.labels
    pictures = torch.stack([fresh.row(position, None) for position in range(len(fresh))])
    with torch.no_grad():
        neurons = model.eval().features(pictures).mean(dim=(2, 3)).double()
    mean, deviation = neurons.mean(dim=0), neurons.std(dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    weights = 1 / torch.bincount(labels)[labels]
    layer = fit_softmax((neurons - mean) / deviation, labels, weights, found.record.settings["penalty"], 2)
    wanted = (neurons - mean) / deviation @ layer[:-1] + layer[-1]
    torch.testing.assert_close(logits_of(found.model, fresh), wanted.float(), rtol=1e-3, atol=1e-3)


def test_a_penalty_of_ones_own_is_taken(train, fresh):
    made = LastLayerRefit(split_model(), penalty=0.5, device="cpu").fit(train, fresh)
    assert made.record.settings["penalty"] == 0.5


def test_a_layer_that_is_no_better_is_not_put_in(train, fresh, found, caplog):
    again = LastLayerRefit(found.model, device="cpu").fit(train, fresh)  # which knows these pictures by heart
    assert again.record.counts["kept"] == 0
    assert "the last layer stays as it was: " in caplog.text
    assert again.record.corrected == found.record.corrected
    assert [each.method for each in again.parents] == ["refit"]


def test_guard_goes_by_groups_where_it_is_asked(train, fresh):
    from crayon_sdk.correct.refit import _harm

    labels = torch.zeros(80).long()
    labels[40:] = 1
    parts = 2 * labels  # of the first class a large group and a small one
    parts[30:40] = 1
    old, new = torch.zeros(80).bool(), torch.ones(80).bool()
    old[30:40], new[30:40] = True, False  # the small one is lost, all others are won
    assert _harm(old, new, labels, labels) == ""
    assert _harm(old, new, parts, labels) == "of one kind of pictures a new one loses 10 and wins 0"
    new[30:37] = True  # three lost: that is chance
    assert _harm(old, new, parts, labels) == ""
    assert _harm(old, old, parts, labels).startswith("on pictures that it did not see a new one has 12.5 %")
    assert LastLayerRefit(split_model(), guard="groups", device="cpu").fit(train, fresh).record.counts["pictures"] == 60


def test_sign_test_by_hand():
    assert sign_test(3, 1) == pytest.approx((4 + 1) / 16)
    assert sign_test(0, 9) == 1.0
    assert sign_test(10, 0) == pytest.approx(2**-10)


def test_after_attention_in_one_call(train, fresh):
    how = {"epochs": 1, "batch_size": 6, "device": "cpu"}
    maps, answers = random_maps(train), half_and_half(train)
    corrector = AttentionCorrector(split_model(), **how)
    both = corrector.fit(train, maps, answers, refit_on=fresh)
    alone = corrector.fit(train, maps, answers)
    assert both.record.method == "refit"
    assert [each.method for each in both.parents] == ["attention"]
    assert both.parents[0].corrected == alone.record.corrected
    assert both.answers.fingerprint == alone.answers.fingerprint


def test_what_is_lacking_is_said_before_any_work(train, fresh):
    with pytest.raises(SettingsError, match="method 'refit' needs pictures to evaluate on"):
        LastLayerRefit(split_model()).fit(train)
    one = fresh.subset([name for name, label in zip(fresh.ids, fresh.labels.tolist(), strict=True) if label == 0])
    with pytest.raises(DataError, match="expected pictures of all 2 classes"):
        LastLayerRefit(split_model()).fit(train, one)
