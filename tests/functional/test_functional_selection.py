"""The order of asking, against slow versions and against what is known about farthest-first."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from crayon_sdk.functional.selection import k_centre, surprise


def cloud(count, dimensions=3, seed=0):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_farthest_first(points, centres, count):
    """With lists and math.dist; the first of several that are equally far."""
    taken = [list(centre) for centre in centres.tolist()]
    order, left = [], list(range(len(points)))
    while len(order) < count:
        distances = [min((math.dist(points[row].tolist(), c) for c in taken), default=math.inf) for row in left]
        chosen = left[distances.index(max(distances))]
        order.append(chosen)
        left.remove(chosen)
        taken.append(points[chosen].tolist())
    return order


def radius(points, centres):
    return max(min(math.dist(p, c) for c in centres) for p in points.tolist())


@pytest.mark.parametrize("taken", [0, 1, 4])
@pytest.mark.parametrize("count", [0, 1, 7, 25])
def test_order_equals_a_slow_version(taken, count):
    points, centres = cloud(25), cloud(taken, seed=1)
    assert k_centre(points, centres, count=count).tolist() == slow_farthest_first(points, centres, count)


def test_everything_once_and_going_on_is_the_same():
    points = cloud(40)
    whole = k_centre(points)
    assert sorted(whole.tolist()) == list(range(40))
    for taken in (1, 5, 39):
        rest = torch.tensor([row for row in range(40) if row not in whole[:taken].tolist()])
        onward = rest[k_centre(points[rest], points[whole[:taken]])]
        assert torch.equal(onward, whole[taken:])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_at_most_twice_the_best_radius(seed, count):
    points = cloud(9, 2, seed)
    best = min(radius(points, points[list(chosen)].tolist()) for chosen in itertools.combinations(range(9), count))
    assert radius(points, points[k_centre(points, count=count)].tolist()) <= 2 * best + 1e-12


def test_points_in_one_place_come_last_and_once():
    points = torch.tensor([[1.0], [1.0], [1.0], [4.0]])
    assert k_centre(points).tolist() == [0, 3, 1, 2]
    assert k_centre(points, points[3:]).tolist() == [0, 1, 2, 3]
    assert k_centre(points[:0]).tolist() == []
    assert k_centre(points, count=10).tolist() == [0, 3, 1, 2]


def test_surprise_equals_a_slow_version():
    logits = 3 * cloud(8, 4)
    targets = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    for row, target in enumerate(targets.tolist()):
        shares = [math.exp(value) for value in logits[row].tolist()]
        assert float(surprise(logits, targets)[row]) == pytest.approx(-math.log(shares[target] / sum(shares)))


def test_surprise_of_what_is_certain_is_zero_and_finite_of_what_is_impossible():
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]])
    assert surprise(logits, torch.tensor([0, 1])).tolist() == [0.0, 400.0]
