from __future__ import annotations

import math

import pytest
import torch

from crayon_sdk.functional.contrast import (
    contrast_weights,
    correct_contrastive_loss,
    flac_loss,
    soft_contrastive_loss,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


LABELS = torch.tensor([0, 1, 0, 0, 1, 2, 0, 1])
ROWS = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])  # the last two are other views of the first two


def slow_soft(u, labels, b, rows, tau):
    total = 0.0
    for i in range(len(u)):
        below = sum(math.exp(cosine(u[i], u[k]) / tau) for k in range(len(u)) if k != i)
        above, weight = 0.0, 0.0
        for j in range(len(u)):
            if labels[i] == labels[j] and rows[i] != rows[j]:
                m = 1 - cosine(b[i], b[j])
                above -= m * math.log(math.exp(cosine(u[i], u[j]) / tau) / below)
                weight += m
        total += above / weight if weight else 0.0
    return total / len(u)


def test_soft_contrast_equals_the_loops():
    u, b = drawn(8, 5), drawn(8, 4, seed=1)
    b[6:] = b[:2]
    found = soft_contrastive_loss(u, LABELS, b, ROWS, temperature=0.3)
    assert found.item() == pytest.approx(slow_soft(u, LABELS, b, ROWS, 0.3), rel=1e-10)
    free = u.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_contrastive_loss(x, LABELS, b, ROWS, temperature=0.3), free)


def test_views_of_one_picture_do_not_pull_each_other_for_rounding():
    """Where nothing else is of the class, rounding of 1 - cos alone would make the other view the only positive."""
    u, b = drawn(4, 3).float(), drawn(2, 300, seed=2).float().repeat(2, 1)
    labels, rows = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 0, 1])
    assert soft_contrastive_loss(u, labels, b, rows).item() == 0.0
    assert soft_contrastive_loss(u[:1].requires_grad_(), labels[:1], b[:1], rows[:1]).item() == 0.0


def test_how_often_pictures_are_drawn_by_hand():
    b = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    # Means of 1 - cos in the class: 1/3, 1/3, 2/3 and 0, 0; the least is 0, and nothing can be so many times that.
    assert contrast_weights(b, labels, ratio=10.0).tolist() == [1.0] * 5
    found = contrast_weights(b[:3], labels[:3], ratio=10.0)
    assert found.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert contrast_weights(b[:3], labels[:3], ratio=1.5).tolist() == pytest.approx([1 / 3, 1 / 3, 0.5])
    # Of a class with more pictures than are looked at.
    many = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    one = [
        contrast_weights(many, torch.zeros(50).long(), ratio=9.0, most=7, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert torch.equal(*one)
    assert (one[0] > 0).all()


def slow_flac(u, labels, b):
    def likeness(v):
        unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in v.tolist()]
        distance = lambda p, q: math.sqrt(sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) + 1e-6)  # noqa: E731
        return [[1 / (1 + math.sqrt(distance(p, q))) for q in unit] for p in unit]

    s, t, count = likeness(b), likeness(u), len(labels)
    flat = [value for row in s for value in row]
    middle = (max(flat) + min(flat)) / 2
    pairs = [
        (i, j)
        for i in range(count)
        for j in range(count)
        if (labels[i] == labels[j] and s[i][j] < middle) or (labels[i] != labels[j] and s[i][j] > middle)
    ]
    total = 0.0
    for i, j in pairs:
        a = (1 - s[i][j]) / (sum(1 - s[i][k] for h, k in pairs if h == i) + 1e-7)
        c = t[i][j] / (sum(t[i][k] for h, k in pairs if h == i) + 1e-7)
        total += (a - c) * (math.log(a) - math.log(c))
    return total / max(len(pairs), 1), len(pairs)


def test_flac_equals_the_loops():
    u, b = drawn(8, 5), drawn(8, 4, seed=1)
    b[1] = b[0] + 0.01  # alike across classes
    expected, pairs = slow_flac(u, LABELS, b)
    assert pairs > 5
    assert flac_loss(u, LABELS, b).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: flac_loss(x, LABELS, b), u.clone().requires_grad_())


def test_likeness_of_a_picture_with_itself_sets_the_middle():
    b = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    # s_ii = 1 / (1 + 1e-3^0.5) = 0.969; between the two 1 / (1 + 2^0.5) = 0.414: unlike, and a pair where one class.
    u = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert flac_loss(u, torch.tensor([0, 0]), b).item() == pytest.approx(0.0, abs=1e-12)  # the only pair: a = c = 1
    assert slow_flac(u, torch.tensor([0, 0]), b)[1] == 2


@pytest.mark.parametrize("count", [1, 2])
def test_flac_without_pairs_is_zero_and_so_is_its_gradient(count):
    u = drawn(count, 3).requires_grad_()
    loss = flac_loss(u, torch.arange(count), torch.eye(3, dtype=torch.float64)[:count])
    loss.backward()
    assert loss.item() == 0.0
    assert u.grad.eq(0).all()


def slow_correct(x, positives, negatives, tau):
    below = sum(math.exp(cosine(x, each) / tau) for each in [*negatives, *positives])
    return -sum(math.log(math.exp(cosine(x, p) / tau) / below) for p in positives) / len(positives)


def test_correct_contrast_equals_the_loops():
    x, p, n = drawn(3, 4), drawn(2, 4, seed=1), drawn(5, 4, seed=2)
    found = correct_contrastive_loss(x, p, n, temperature=0.2)
    assert found.tolist() == pytest.approx([slow_correct(each, p, n, 0.2) for each in x], rel=1e-10)
    inputs = tuple(each.clone().requires_grad_() for each in (x, p, n))
    assert torch.autograd.gradcheck(lambda *each: correct_contrastive_loss(*each, temperature=0.2), inputs)
    alone = correct_contrastive_loss(x, p[:1], n[:0], temperature=0.2)
    assert alone.tolist() == pytest.approx([0, 0, 0], abs=1e-12)  # one positive, and nothing to tell it from
