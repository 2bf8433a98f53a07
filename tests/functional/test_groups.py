"""Groups without labels, as functions of tensors, against slow versions and numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from crayon_sdk.functional.groups import (
    balanced_weights,
    centred,
    fit_softmax,
    foretold_classes,
    sureness,
    surround_features,
)


def test_surround_is_the_mean_of_what_is_no_object():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(3, 5, 4, 6, generator=random).double()
    objects = torch.rand(3, 4, 6, generator=random).double()
    found = surround_features(features, objects)
    for n in range(3):
        for d in range(5):
            total = weight = 0.0
            for row in range(4):
                for column in range(6):
                    share = 1 - objects[n, row, column].item()
                    total += share * features[n, d, row, column].item()
                    weight += share
            assert found[n, d].item() == pytest.approx(total / weight, rel=1e-9)


def test_surround_where_the_object_fills_the_picture_is_zero():
    assert torch.equal(surround_features(torch.ones(1, 2, 3, 3), torch.ones(1, 3, 3)), torch.zeros(1, 2))


def test_softmax_regression_is_where_its_gradient_is_zero():
    random = torch.Generator().manual_seed(1)
    x, y = torch.randn(60, 4, generator=random).double(), torch.randint(3, (60,), generator=random)
    weights = torch.rand(60, generator=random).double()
    found = fit_softmax(x, y, weights, 0.1, 3)
    chances = (x @ found[:-1] + found[-1]).softmax(dim=1)
    wrong = weights[:, None] / weights.sum() * (chances - torch.nn.functional.one_hot(y, 3))
    assert (x.T @ wrong + 0.1 * found[:-1]).abs().max() < 1e-5
    assert wrong.sum(dim=0).abs().max() < 1e-5


def test_softmax_regression_of_two_classes_tells_what_the_logistic_one_tells():
    from crayon_sdk.functional.cells import fit_logistic

    random = torch.Generator().manual_seed(2)
    x = torch.randn(80, 3, generator=random).double()
    y = (x[:, 0] + 0.5 * torch.randn(80, generator=random) > 0).long()
    two, one = fit_softmax(x, y, torch.ones(80), 0.02, 2), fit_logistic(x, y, torch.ones(80), 0.01)
    # The difference of the two columns carries half of the penalty.
    torch.testing.assert_close(two[:-1, 1] - two[:-1, 0], one[:-1], rtol=1e-3, atol=1e-3)


def test_what_is_foretold_does_not_see_its_own_label():
    random = torch.Generator().manual_seed(3)
    x, y = torch.randn(200, 80, generator=random), torch.randint(2, (200,), generator=random)
    assert (foretold_classes(x, y, 2).argmax(dim=1) == y).float().mean() < 0.65  # noise, of which a fit knows all
    seen = fit_softmax(x, y, torch.ones(200), 0.01, 2)
    assert ((x @ seen[:-1] + seen[-1]).argmax(dim=1) == y).float().mean() > 0.8


def test_rare_classes_weigh_as_much_as_frequent_ones():
    random = torch.Generator().manual_seed(4)
    y = torch.cat([torch.zeros(190), torch.ones(10)]).long()
    x = 1.5 * y[:, None] + torch.randn(200, 1, generator=random)
    told = foretold_classes(x, y, 2).argmax(dim=1)
    assert (told[y == 1] == 1).float().mean() > 0.6  # without weights nearly none


def test_a_class_of_one_sample_is_foretold_by_the_others():
    x, y = torch.arange(6.0)[:, None], torch.tensor([0, 0, 0, 1, 1, 2])
    assert foretold_classes(x, y, 3).isfinite().all()


def test_sureness_by_hand():
    scores = torch.tensor([[4.0, 0, 0], [0, 2.0, 0], [0, 6.0, 1.0], [0, 3.0, 0]])
    # agree: margins 4 and 2 (the lower median is 2); contradict: 5 and 3 (the lower median is 3)
    assert sureness(scores, torch.tensor([0, 1, 0, 2])) == pytest.approx(1.5)
    assert math.isnan(sureness(scores, torch.tensor([0, 1, 1, 1])))
    assert math.isnan(sureness(scores, torch.tensor([1, 0, 2, 0])))


def test_centred_logits_prefer_no_class():
    logits, labels = torch.randn(9, 3, generator=torch.Generator().manual_seed(5)) + 5, torch.tensor([0] * 6 + [2] * 3)
    found = centred(logits, labels)
    means = torch.stack([found[labels == each].mean(dim=0) for each in (0, 2)])
    assert means.mean(dim=0).abs().max() < 1e-5


def test_weights_make_the_unusual_count_as_much_as_the_usual():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 3)
    unusual = torch.zeros(18).bool()
    unusual[[0, 1, 10]] = True
    found = balanced_weights(labels, unusual)
    for each in (0, 1):
        of = labels == each
        assert found[of & unusual].sum().item() == pytest.approx(found[of & ~unusual].sum().item(), rel=1e-5)
        assert found[of].mean().item() == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(found[labels == 2], torch.ones(3))  # nothing unusual there
    assert balanced_weights(torch.zeros(0).long(), torch.zeros(0).bool()).tolist() == []


def test_no_sample_weighs_more_than_the_largest_allowed():
    labels, unusual = torch.zeros(1000).long(), torch.zeros(1000).bool()
    unusual[0] = True
    found = balanced_weights(labels, unusual, largest=10)
    assert found[0].item() == pytest.approx(10 / (10 + 999 * 1000 / 1998) * 1000, rel=1e-4)
    assert found.mean().item() == pytest.approx(1.0, rel=1e-5)


def test_what_is_dealt_together_is_held_out_together():
    random = torch.Generator().manual_seed(6)
    x, y = torch.randn(60, 40, generator=random), torch.randint(2, (60,), generator=random)
    twice, labels = torch.cat([x, x]), torch.cat([y, y])  # every sample is there twice: noise, known by heart
    pairs = torch.arange(60).repeat(2)
    alone = (foretold_classes(twice, labels, 2).argmax(dim=1) == labels).float().mean()
    together = (foretold_classes(twice, labels, 2, together=pairs).argmax(dim=1) == labels).float().mean()
    assert alone > 0.7
    assert together < 0.65
