from __future__ import annotations

import math

import pytest
import torch

from crayon_sdk.functional.weights import change_norms, relative_change, relative_of


def slow(before, after):
    """The definition, entry by entry, in whole Python numbers."""
    pairs = list(zip(before.flatten().tolist(), after.flatten().tolist(), strict=True))
    moved = math.sqrt(sum((b - a) ** 2 for a, b in pairs))
    return moved, math.sqrt(sum(a * a for a, _ in pairs)), max(abs(b - a) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_norms_are_those_of_the_definition(dtype):
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randint(-9, 9, (3, 4, 5), generator=generator).to(dtype) for _ in range(2))
    assert change_norms(before, after) == pytest.approx(slow(before, after), rel=1e-12)
    moved, size, _ = slow(before, after)
    assert relative_change(before, after) == pytest.approx(moved / size, rel=1e-12)


def test_small_changes_of_large_weights_are_seen():
    before = torch.full((1000,), 1e4, dtype=torch.float64)
    after = before.clone()
    after[0] += 1e-6
    assert relative_change(before, after) == pytest.approx(1e-6 / math.sqrt(1000 * 1e8), rel=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_the_same_is_no_change_even_when_it_is_not_finite(value):
    tensor = torch.tensor([1.0, value])
    assert relative_change(tensor, tensor.clone()) == 0
    assert change_norms(tensor, torch.tensor([2.0, value]))[0] == 1


def test_edges():
    zero, one = torch.zeros(2), torch.ones(2)
    assert relative_change(zero, zero) == 0
    assert relative_change(zero, one) == math.inf
    assert relative_change(one, torch.tensor([1.0, math.nan])) != relative_change(one, one)
    assert math.isnan(relative_change(one, torch.tensor([1.0, math.nan])))
    assert math.isnan(relative_of(math.nan, 0.0))
    assert relative_change(torch.zeros(0), torch.zeros(0)) == 0
    assert relative_change(torch.tensor(2.0), torch.tensor(1.0)) == 0.5
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(1,\)"):
        relative_change(one, torch.ones(1))
