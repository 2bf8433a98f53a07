"""Weights of groups and samples, and a sparse last layer: by hand, in loops, and against a library."""

from __future__ import annotations

import math

import pytest
import torch

from crayon_sdk.functional.robust import (
    balanced_rows,
    error_weights,
    extremes,
    group_sums,
    new_group_weights,
    sparse_logistic,
)


def test_sums_by_group_equal_the_loops():
    losses = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    groups = torch.arange(20) % 3
    sums, counts = group_sums(losses, groups, 4)
    for group in range(4):
        expected = sum(loss for loss, at in zip(losses.tolist(), groups.tolist(), strict=True) if at == group)
        assert sums[group].item() == pytest.approx(expected)
    assert counts.tolist() == [7, 7, 6, 0]
    assert torch.autograd.gradcheck(lambda each: group_sums(each, groups, 4)[0], losses)


def test_weights_of_groups_equal_the_formula():
    q, losses, step = [0.2, 0.5, 0.3], [1.0, 0.0, 2.5], 0.7
    raised = [weight * math.exp(step * loss) for weight, loss in zip(q, losses, strict=True)]
    expected = [each / sum(raised) for each in raised]
    given = torch.tensor(q).log(), torch.tensor(losses)
    for absent in ("keep", "decay"):
        found = new_group_weights(*given, torch.tensor([True, True, True]), step, absent=absent)
        assert found.exp().tolist() == pytest.approx(expected, rel=1e-5)


def test_an_absent_group_keeps_its_weight_where_the_published_rule_lets_it_decay():
    log_weights, present = torch.full((2,), 0.5).log(), torch.tensor([True, False])
    kept = decayed = log_weights
    for _ in range(100):
        kept = new_group_weights(kept, torch.tensor([1.0, 0.0]), present, 0.1)
        decayed = new_group_weights(decayed, torch.tensor([1.0, 0.0]), present, 0.1, absent="decay")
    assert kept.exp().tolist() == pytest.approx([0.5, 0.5])
    assert decayed[1].exp() < 1e-4
    none = new_group_weights(log_weights, torch.zeros(2), torch.tensor([False, False]), 0.1)
    assert torch.equal(none, log_weights)
    assert new_group_weights(log_weights, torch.tensor([1e6, 0.0]), torch.tensor([True, True]), 1.0).isfinite().all()


def test_balanced_rows():
    groups = torch.tensor([2, 0, 0, 2, 2, 0, 5])
    found = balanced_rows(groups, torch.Generator().manual_seed(3))
    assert sorted(groups[found].tolist()) == [0, 2, 5]
    draws = {tuple(balanced_rows(groups, torch.Generator().manual_seed(seed)).tolist()) for seed in range(20)}
    assert len(draws) > 3


def test_weights_of_errors_equal_the_loops():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 3, generator=generator), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2])
    raw = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        believed = math.exp(row[label]) / sum(math.exp(each) for each in row)
        raw.append(math.exp(-4 * believed) / int((labels == label).sum()))
    found = error_weights(logits, labels, 4.0)
    assert found.tolist() == pytest.approx([each / sum(raw) for each in raw], rel=1e-5)
    even = error_weights(logits, labels, 0.0)
    assert [float(even[labels == label].sum()) for label in range(3)] == pytest.approx([1 / 3] * 3)
    assert error_weights(100 * logits, labels, 1e4).isfinite().all()


def test_extremes_equal_the_loops():
    losses = torch.rand(30, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    rows, groups = extremes(losses, labels, 2)
    for label in range(3):
        ordered = sorted((float(losses[row]), row) for row in range(30) if labels[row] == label)
        for group, expected in ((2 * label, ordered[:2]), (2 * label + 1, ordered[-2:])):
            assert sorted(rows[groups == group].tolist()) == sorted(row for _, row in expected)


def objective(weight, bias, features, labels, strength):
    logits = features.double() @ weight.T + bias
    return float(weight.abs().sum() + strength * torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))


@pytest.fixture
def overlapping():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(80, 6, generator=generator)
    labels = (features[:, 0] + 0.5 * features[:, 1] + torch.randn(80, generator=generator) > 0).long()
    return features, labels


@pytest.mark.parametrize("strength", [0.05, 1.0])
def test_the_sparse_layer_is_the_minimum(overlapping, strength):
    features, labels = overlapping
    weight, bias = sparse_logistic(features, labels, 2, strength)
    logits = features.double() @ weight.T + bias
    slope = strength * (logits.softmax(1) - torch.nn.functional.one_hot(labels, 2)).T @ features.double()
    # The conditions of the minimum: the slope is the sign where there is a weight, and at most one elsewhere.
    used = weight != 0
    torch.testing.assert_close(slope[used], -weight[used].sign(), rtol=0, atol=1e-3)
    assert bool((slope[~used].abs() <= 1 + 1e-3).all())
    best = objective(weight, bias, features, labels, strength)
    for seed in range(5):
        moved = 0.02 * torch.randn(2, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert objective(weight + moved[:, :6], bias + moved[:, 6], features, labels, strength) > best


@pytest.mark.filterwarnings("ignore")  # what the library says of its own arguments changes with its versions
def test_with_two_classes_it_is_the_binary_form(overlapping):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = overlapping
    weight, bias = sparse_logistic(features, labels, 2, 0.3)
    # The library penalises the bias unless its column is very large.
    binary = linear_model.LogisticRegression(
        penalty="l1", solver="liblinear", C=0.3, intercept_scaling=1e4, tol=1e-8, max_iter=10000
    ).fit(features.numpy(), labels.numpy())
    expected = torch.from_numpy(binary.coef_[0])
    torch.testing.assert_close(weight[1] - weight[0], expected, rtol=1e-2, atol=2e-3)
    assert float(bias[1] - bias[0]) == pytest.approx(float(binary.intercept_[0]), abs=1e-2)


def test_more_classes_and_features_that_never_change():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = 0.3 * torch.randn(60, 5, generator=generator)
    features[torch.arange(60), labels] += 2.0
    features[:, 4] = 0.0
    weight, bias = sparse_logistic(features, labels, 3, 1.0)
    assert bool(((features.double() @ weight.T + bias).argmax(dim=1) == labels).all())
    assert not weight[:, 4].any()
