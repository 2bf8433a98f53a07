from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.functional.biased import (
    batch_prior,
    bias_counts,
    generalized_cross_entropy,
    logit_correction,
    mixing_range,
    relative_difficulty,
    same_class_partners,
)


@pytest.fixture
def logits():
    return torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 0])


def test_generalized_cross_entropy_has_q_times_the_gradient_of_the_textbook(logits):
    q, free = 0.7, logits.clone().requires_grad_()
    each = generalized_cross_entropy(free, LABELS, q)
    for row, label in enumerate(LABELS.tolist()):
        p = math.exp(float(logits[row, label])) / sum(math.exp(float(value)) for value in logits[row])
        assert each[row].item() == pytest.approx(-q * p**q * math.log(p), rel=1e-12)
    (ours,) = torch.autograd.grad(each.sum(), free)
    p = free.softmax(dim=1).gather(1, LABELS[:, None])
    (textbook,) = torch.autograd.grad(((1 - p**q) / q).sum(), free)
    torch.testing.assert_close(ours, q * textbook)
    # By finite differences: of 1 - p^q, since the power is a constant in the loss itself.
    for row, column in ((0, 0), (3, 1)):
        near = []
        for step in (1e-5, -1e-5):
            moved = logits.clone()
            moved[row, column] += step
            near.append(float((1 - moved.softmax(dim=1).gather(1, LABELS[:, None]) ** q).sum()))
        assert ours[row, column].item() == pytest.approx((near[0] - near[1]) / 2e-5, rel=1e-6)


def test_a_power_near_zero_is_the_cross_entropy(logits):
    plain = F.cross_entropy(logits, LABELS, reduction="none")
    torch.testing.assert_close(generalized_cross_entropy(logits, LABELS, 1e-9) / 1e-9, plain, rtol=1e-6, atol=0)


def test_difficulty_is_relative_to_the_class():
    biased = torch.tensor([2.0, 1.0, 8.0, 0.0])
    debiased = torch.tensor([1.0, 4.0, 2.0, 0.0])
    labels = torch.tensor([0, 0, 1, 1])
    found = relative_difficulty(biased, debiased, labels, 3)  # the third class has no samples
    # 1 / (1 + 1/4), 1/2 / (1/2 + 1), 1 / (1 + 1), 0 / (0 + 1e-8)
    assert found.tolist() == pytest.approx([0.8, 1 / 3, 0.5, 0.0], rel=1e-6)
    nothing = torch.zeros(4)
    assert relative_difficulty(nothing, nothing, labels, 3).tolist() == [0, 0, 0, 0]  # published: NaN


def test_the_prior_of_a_batch_by_hand(logits):
    pseudo = logits.softmax(dim=1)
    found, bias = batch_prior(pseudo, LABELS), pseudo.argmax(dim=1)
    slow = torch.zeros(3, 3, dtype=torch.float64)
    for y in range(3):
        for a in range(3):
            own = [float(pseudo[i, y]) for i in range(7) if LABELS[i] == y and bias[i] == a]
            slow[y, a] = sum(own) / (len(own) + 1e-4)
    for a in range(3):
        if slow[:, a].sum():
            slow[:, a] /= slow[:, a].sum()
    torch.testing.assert_close(found, slow)
    assert found.isfinite().all()
    # With two classes, and everybody of class 0 under bias 0: class 1 has nothing there.
    certain = batch_prior(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 0]))
    torch.testing.assert_close(certain, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert logit_correction(certain.T[:1]).tolist()[0] == pytest.approx([math.log(1.0001), math.log(1e-4)], rel=1e-3)


def test_a_correction_of_power_zero_is_none():
    prior = torch.rand(4, 3)
    assert logit_correction(prior, 0.0).eq(0).all()
    torch.testing.assert_close(logit_correction(prior, 0.5), (prior.sqrt() + 1e-4).log())


def test_partners_are_of_the_class_and_against_its_bias():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    bias = torch.tensor([0, 1, 2, 1, 1, 0])
    drawn = torch.stack([same_class_partners(labels, bias) for _ in range(60)])
    assert all(torch.equal(labels[row], labels) for row in drawn)
    assert set(drawn[:, :3].flatten().tolist()) == {1, 2}  # those of class 0 that are taken for others
    assert set(drawn[:, 3].tolist()) == {3, 4}  # none goes against the bias: any of the class
    assert set(drawn[:, 5].tolist()) == {5}
    assert same_class_partners(torch.tensor([0]), torch.tensor([0])).tolist() == [0]


def test_mixing_grows_to_its_end():
    assert mixing_range(1.0) == (0.0, 0.5)
    assert mixing_range(7.0) == (0.0, 0.5)
    r = 0.5 * math.exp(-5)
    assert mixing_range(0.0) == pytest.approx((1 - 2 * r, 1 - r))
    assert mixing_range(0.5, 0.0) == (1.0, 1.0)


def test_counts_are_shares_of_samples(logits):
    pseudo = logits.softmax(dim=1)
    found = bias_counts(pseudo, LABELS)
    assert found.sum().item() == pytest.approx(7)
    for y in range(3):
        for a in range(3):
            assert found[y, a].item() == pytest.approx(sum(float(pseudo[i, a]) for i in range(7) if LABELS[i] == y))


def test_a_sure_network_makes_the_rare_impossible_in_the_published_form():
    """One of ten goes against its bias, of which the biased network is sure."""
    pseudo = torch.tensor([[0.999, 0.001]]).repeat(10, 1)
    labels = torch.tensor([0] * 9 + [1])
    published, counted = batch_prior(pseudo, labels)[:, 0], bias_counts(pseudo, labels)[:, 0]
    assert published[1].item() == pytest.approx(0.001, rel=0.01)
    assert (counted / counted.sum())[1].item() == pytest.approx(0.1)
