"""Metrics against plain loops and independent formulas."""

from __future__ import annotations

import math

import pytest
import torch

from crayon_sdk.functional.metrics import (
    background_gap,
    energy_inside,
    group_accuracy,
    mean_group,
    weighted_mean,
    wilson_interval,
    worst_group,
)


@pytest.fixture
def results():
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(50, generator=generator) < 0.7
    groups = torch.randint(0, 4, (50,), generator=generator)
    groups[groups == 2] = 0  # a group without samples
    return correct, groups


def test_group_accuracy_equals_the_loops(results):
    correct, groups = results
    accuracy, counts = group_accuracy(correct, groups, 5)
    for group in range(5):
        own = [bool(c) for c, g in zip(correct, groups, strict=True) if g == group]
        assert counts[group] == len(own)
        if own:
            assert accuracy[group].item() == sum(own) / len(own)
        else:
            assert math.isnan(accuracy[group])
    assert (counts[2], counts[4]) == (0, 0)
    assert (accuracy.dtype, counts.dtype) == (torch.float64, torch.int64)


def test_worst_mean_and_weighted(results):
    accuracy, counts = group_accuracy(*results, 5)
    present = [value for value in accuracy.tolist() if not math.isnan(value)]
    assert worst_group(accuracy) == min(present)
    assert mean_group(accuracy) == pytest.approx(sum(present) / 3)
    # weighted by the counts it is the plain accuracy again
    assert weighted_mean(accuracy, counts) == pytest.approx(results[0].double().mean().item())
    weights = torch.tensor([1, 2, 100, 3, 100])  # what the empty groups weigh does not matter
    rows = [(a, w) for a, w in zip(accuracy.tolist(), [1, 2, 100, 3, 100], strict=True) if not math.isnan(a)]
    assert weighted_mean(accuracy, weights) == pytest.approx(sum(a * w for a, w in rows) / 6)
    assert math.isnan(weighted_mean(accuracy, torch.zeros(5)))


@pytest.mark.parametrize("function", [worst_group, mean_group])
def test_no_group_has_samples(function):
    with pytest.raises(ValueError, match="no group has any samples"):
        function(torch.full((3,), math.nan, dtype=torch.float64))


def test_background_gap():
    assert background_gap(0.9126, 0.7827) == pytest.approx(0.1299)


def test_energy_inside_equals_the_loops():
    generator = torch.Generator().manual_seed(0)
    maps, masks = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    maps[1] = 0
    ours = energy_inside(maps, masks)
    assert math.isnan(ours[1])
    for n in (0, 2):
        cells = list(zip(maps[n].flatten().tolist(), masks[n].flatten().tolist(), strict=True))
        assert ours[n].item() == pytest.approx(sum(m * k for m, k in cells) / sum(m for m, _ in cells))


def bisect(function, low, high):
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return low


@pytest.mark.parametrize("z", [1.0, 1.959963984540054, 2.5758])
@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 1), (0, 1), (8, 10), (17, 23), (5794, 5794)])
def test_wilson_interval_inverts_the_score_test(correct, total, z):
    """Its limits are the p for which |correct/total - p| = z sqrt(p (1 - p) / total)."""
    share = correct / total

    def excess(p):
        return abs(share - p) - z * math.sqrt(p * (1 - p) / total)

    lower, upper = wilson_interval(correct, total, z)
    expected_lower = 0.0 if correct == 0 else bisect(excess, 0.0, share)
    expected_upper = 1.0 if correct == total else bisect(lambda p: -excess(p), share, 1.0)
    assert lower == pytest.approx(expected_lower, abs=1e-9)
    assert upper == pytest.approx(expected_upper, abs=1e-9)
    assert 0 <= lower <= share <= upper <= 1
