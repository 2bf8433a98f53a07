"""The order of asking, against slow versions and against what is known about farthest-first and k-means."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from crayon_sdk.functional.selection import foretell, k_centre, surprise, typical, would_change


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


def heaps(sizes, spread=0.1, seed=0):
    """Points around corners of a cube that are ten apart, and the heap of each; in a random order."""
    heap_of = torch.tensor([heap for heap, size in enumerate(sizes) for _ in range(size)])
    corners = 10 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    order = torch.randperm(len(heap_of), generator=torch.Generator().manual_seed(seed))
    return (corners[heap_of] + spread * cloud(len(heap_of), seed=seed))[order], heap_of[order].tolist()


@pytest.mark.parametrize("seed", range(4))
def test_of_every_heap_the_point_nearest_to_its_mean(seed):
    points, heap_of = heaps([4, 9, 6, 5], seed=seed)
    chosen, stands = typical(points, 4, seed=seed)
    assert [heap_of[row] for row in chosen.tolist()] == [1, 2, 3, 0]  # the largest first
    for row in chosen.tolist():
        heap = [points[other].tolist() for other in range(len(points)) if heap_of[other] == heap_of[row]]
        mean = [sum(values) / len(heap) for values in zip(*heap, strict=True)]
        assert math.dist(points[row].tolist(), mean) == min(math.dist(point, mean) for point in heap)
    assert all(heap_of[int(chosen[place])] == heap_of[row] for row, place in enumerate(stands.tolist()))


def test_every_point_stands_with_the_nearest_mean():
    """What k-means ends with: no point would rather be in another cluster, and every cluster has its mean."""
    points = cloud(60, 2)
    chosen, stands = typical(points, 5, rounds=1000)
    sizes = [stands.tolist().count(place) for place in range(len(chosen))]
    assert len(chosen) == 5
    assert sizes == sorted(sizes, reverse=True)
    means = [points[stands == place].mean(dim=0).tolist() for place in range(5)]
    for point, place in zip(points.tolist(), stands.tolist(), strict=True):
        assert math.dist(point, means[place]) == min(math.dist(point, mean) for mean in means)
    assert [int(stands[row]) for row in chosen.tolist()] == list(range(5))


def test_no_more_clusters_than_different_points():
    few = torch.tensor([[1.0], [4.0], [9.0]])[torch.arange(90) % 3]  # many: distances are then found by products
    chosen, stands = typical(few, 50)
    assert sorted(few[chosen].flatten().tolist()) == [1.0, 4.0, 9.0]
    assert torch.equal(few[chosen[stands]], few)
    chosen, stands = typical(torch.ones(5, 2), 3)
    assert (len(chosen), stands.tolist()) == (1, [0] * 5)
    assert sorted(typical(cloud(6), 100)[0].tolist()) == list(range(6))


def test_typical_is_the_same_twice_and_leaves_the_random_numbers_alone():
    points, state = cloud(50), torch.get_rng_state()
    first, second = typical(points, 7, seed=3), typical(points, 7, seed=3)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(typical(points, 7, seed=4)[0], first[0])


def test_answers_are_foretold_as_by_slow_gradient_descent():
    """The balanced loss with its penalty, stepped down with plain loops of autograd."""
    points = cloud(12, 2)
    rows, yes = torch.tensor([0, 3, 5, 7, 9]), torch.tensor([True, False, True, True, False])
    weights, constant = torch.zeros(2, dtype=torch.float64, requires_grad=True), torch.zeros(1, requires_grad=True)
    for _ in range(4000):
        loss = 10 / len(rows) / 2 * weights.square().sum()
        for row, said in zip(rows.tolist(), yes.tolist(), strict=True):
            score = points[row] @ weights + constant[0]
            share = 0.5 / (3 if said else 2)
            loss = loss + share * torch.nn.functional.softplus(-score if said else score)
        for each, gradient in zip((weights, constant), torch.autograd.grad(loss, (weights, constant)), strict=True):
            each.data -= 0.1 * gradient
    found = foretell(points, rows, yes)
    torch.testing.assert_close(found, (points @ weights + constant).detach(), rtol=1e-3, atol=1e-3)


def test_answers_of_one_kind_foretell_themselves():
    points = cloud(4)
    assert foretell(points, torch.tensor([1, 2]), torch.tensor([True, True])).tolist() == [math.inf] * 4
    assert foretell(points, torch.tensor([1]), torch.tensor([False])).tolist() == [-math.inf] * 4
    assert foretell(points, torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.bool)).tolist() == [0] * 4


def test_what_the_next_answer_would_change():
    """Three of the four lie where only the next answer says anything about them."""
    points = torch.tensor([[-1.0], [0.9], [1.0], [1.1]])
    assert would_change(points, torch.tensor([0]), torch.tensor([False]), 2) == 0.75
    # Where the answers say enough, one more changes nothing.
    many = torch.cat([torch.linspace(-2, -1, 20), torch.linspace(1, 2, 20)])[:, None]
    known = torch.arange(0, 40, 2)
    assert would_change(many, known, many[known, 0] > 0, 1) == 0
