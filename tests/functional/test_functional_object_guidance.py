"""Maps against boxes and masks: plain loops, numbers by hand, finite differences."""

from __future__ import annotations

import pytest
import torch

from crayon_sdk.functional.object_guidance import (
    attention_target,
    bounding_boxes,
    energy_outside,
    logits_and_signed_cam,
    stretched,
)
from crayon_sdk.functional.saliency import grad_cam


def test_boxes_equal_the_loops():
    masks = torch.rand(20, 6, 7, generator=torch.Generator().manual_seed(0)) > 0.9
    masks[0], masks[1] = False, True
    for mask, found in zip(masks, bounding_boxes(masks), strict=True):
        expected = torch.zeros_like(mask)
        rows, columns = mask.nonzero().T
        if len(rows):
            expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert torch.equal(found, expected)


def test_energy_equals_the_loops():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(5, 4, 6, generator=generator, dtype=torch.float64)
    maps[1], maps[2] = 0.0, 1e-9
    boxes = torch.rand(5, 4, 6, generator=generator) > 0.5
    found = energy_outside(maps, boxes)
    for n in range(5):
        cells = [(float(maps[n, y, x]), bool(boxes[n, y, x])) for y in range(4) for x in range(6)]
        inside, total = sum(value for value, is_in in cells if is_in), sum(value for value, _ in cells)
        expected = 1 - inside / total if total >= 1e-7 else 1 - inside
        assert float(found[n]) == pytest.approx(expected, rel=1e-12)
    assert found[1] == 1.0  # nothing anywhere: as bad as all outside, and not NaN


def test_energy_does_not_depend_on_the_scale_of_the_map_and_is_compared_in_the_size_of_the_picture():
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, 0] = 5.0
    box = torch.zeros(1, 8, 8, dtype=torch.bool)
    box[0, :4, :4] = True
    found = energy_outside(maps, box)
    torch.testing.assert_close(energy_outside(1000 * maps, box), found)
    # Between the middles of two cells the map falls in a line: over 8 pixels, weights 1, 1, 7/8, 5/8, 3/8, 1/8, 0, 0.
    along = torch.tensor([1, 1, 7 / 8, 5 / 8, 3 / 8, 1 / 8, 0, 0])
    assert float(found) == pytest.approx(1 - float(along[:4].sum() / along.sum()) ** 2, rel=1e-5)


def test_an_empty_map_is_asked_for_energy_in_the_box():
    maps = torch.full((1, 2, 2), 1e-9, dtype=torch.float64, requires_grad=True)
    box = torch.tensor([[[True, False], [False, False]]])
    energy_outside(maps, box).sum().backward()
    assert maps.grad.tolist() == [[[-1.0, 0.0], [0.0, 0.0]]]
    assert torch.autograd.gradcheck(
        lambda each: energy_outside(each, box), torch.rand(1, 2, 2, dtype=torch.float64).requires_grad_()
    )


@pytest.fixture
def linear():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Linear(4, 3).double()


def test_the_signed_map_is_grad_cam_before_its_relu(linear):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, 2, 5, generator=generator, dtype=torch.float64)
    targets = torch.tensor([2, 0, 1])

    def head(each):
        return linear(each.mean((2, 3)).tanh())

    logits, maps = logits_and_signed_cam(features, head, targets)
    torch.testing.assert_close(logits, head(features))
    torch.testing.assert_close(maps.relu(), grad_cam(features, head, targets))
    assert bool((maps < 0).any())


def test_constant_weights_teach_the_features_alone(linear):
    features = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 1])
    for constant in (False, True):
        linear.zero_grad()
        _, maps = logits_and_signed_cam(
            features, lambda each: linear(each.mean((2, 3))), targets, constant_weights=constant
        )
        (to_features,) = torch.autograd.grad(maps.sum(), features, retain_graph=True)
        torch.testing.assert_close(to_features, (linear.weight[targets] / 9)[:, :, None, None].expand_as(features))
        maps.sum().backward()
        assert (linear.weight.grad is None or not linear.weight.grad.any()) == constant


def test_stretching_by_hand():
    maps = torch.tensor([[[-2.0, 0.0], [2.0, 1.0]], [[3.0, 3.0], [3.0, 3.0]]])
    assert stretched(maps).tolist() == [[[0.0, 0.5], [1.0, 0.75]], [[0.0, 0.0], [0.0, 0.0]]]


def test_the_target_equals_the_loops():
    masks = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0)) > 0.6
    masks[2] = False
    found = attention_target(masks, (4, 3))
    weights = {-1: 0.25, 0: 0.5, 1: 0.25}
    for n in range(3):
        small = [
            [float(masks[n, 2 * y : 2 * y + 2, 4 * x : 4 * x + 4].float().mean()) for x in range(3)] for y in range(4)
        ]
        blurred = [
            [
                sum(
                    weights[dy] * weights[dx] * small[min(max(y + dy, 0), 3)][min(max(x + dx, 0), 2)]
                    for dy in weights
                    for dx in weights
                )
                for x in range(3)
            ]
            for y in range(4)
        ]
        most = max(max(row) for row in blurred) or 1.0
        torch.testing.assert_close(found[n], torch.tensor(blurred) / most, rtol=1e-5, atol=1e-6)
    assert found.shape == (3, 4, 3)
    assert attention_target(masks[:1], (1, 1)).tolist() == [[[1.0]]]
