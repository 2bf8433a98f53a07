"""Penalties on gradients at the pixels against plain loops and finite differences; pictures with shuffled
surroundings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crayon_sdk.functional.input_gradients import (
    activation_difference,
    grad_mask_penalty,
    margins,
    right_reasons_penalty,
    shuffle_outside,
)


def network(classes, seed=0):
    """Smooth, so that finite differences hold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 4 * 5, classes)
        return nn.Sequential(*layers).double()


@pytest.fixture(params=[2, 3])
def case(request):
    generator = torch.Generator().manual_seed(request.param)
    images = torch.randn(4, 2, 4, 5, generator=generator, dtype=torch.float64)
    masks = torch.rand(4, 4, 5, generator=generator) > 0.5
    masks[3] = True  # not known where the object is
    return network(request.param), images, masks, torch.tensor([0, 1, 1, request.param - 1])


def slopes(score, images, step=1e-5):
    """Gradient of a number per picture, pixel by pixel."""
    found, images = torch.zeros_like(images), images.detach()
    for place in torch.cartesian_prod(*(torch.arange(side) for side in images.shape)).tolist():
        moved = torch.zeros_like(images)
        moved[tuple(place)] = step
        found[tuple(place)] = (score(images + moved) - score(images - moved))[place[0]].detach() / (2 * step)
    return found


def test_right_reasons_equal_the_loops(case):
    model, images, masks, _ = case
    slope = slopes(lambda pixels: model(pixels).log_softmax(1).sum(1), images)
    expected = []
    for n in range(4):
        total = 0.0
        for c, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
            total += 0.0 if masks[n, y, x] else float(slope[n, c, y, x]) ** 2
        expected.append(total)
    images.requires_grad_()
    found = right_reasons_penalty(model(images), images, masks)
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)
    assert found[3] == 0


def test_of_two_classes_it_is_the_gradient_of_their_difference():
    model, images = network(2), torch.randn(5, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    logits = model(images)
    (slope,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), images, retain_graph=True)
    shares = logits.softmax(1)
    expected = ((shares[:, 1] - shares[:, 0])[:, None, None, None] * slope).square().sum(dim=(1, 2, 3))
    found = right_reasons_penalty(logits, images, torch.zeros(5, 4, 5))
    torch.testing.assert_close(found, expected)


def test_grad_mask_equals_the_loops(case):
    model, images, masks, labels = case
    slope = slopes(lambda pixels: margins(model(pixels), labels), images)
    expected = (slope * ~masks[:, None]).abs().sum(dim=(1, 2, 3))
    images.requires_grad_()
    found = grad_mask_penalty(model(images), images, labels, masks)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-8)
    assert found[3] == 0


def test_of_two_classes_the_label_does_not_matter():
    model, images = network(2), torch.randn(3, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    masks, labels = torch.zeros(3, 4, 5), torch.tensor([0, 1, 0])
    logits = model(images)
    (slope,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).abs().sum(), images, retain_graph=True)
    for given in (labels, 1 - labels):
        found = grad_mask_penalty(logits, images, given, masks)
        torch.testing.assert_close(found, slope.abs().sum(dim=(1, 2, 3)))


@pytest.mark.parametrize("kind", ["right reasons", "grad mask"])
def test_weights_are_trained_through_the_penalty(case, kind):
    model, images, masks, labels = case
    model = model.requires_grad_(False)
    images.requires_grad_()

    def penalty(weight):
        logits = torch.func.functional_call(model, {"0.weight": weight}, images)
        if kind == "right reasons":
            return right_reasons_penalty(logits, images, masks)
        return grad_mask_penalty(logits, images, labels, masks)

    assert torch.autograd.gradcheck(penalty, model[0].weight.detach().clone().requires_grad_())


def test_margins_by_hand():
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [0.0, 0.0, 0.0]])
    assert margins(logits, torch.tensor([1, 0, 2])).tolist() == [2.0, -3.0, 0.0]


def test_shuffling_moves_what_is_outside_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 5, 4, generator=generator)
    masks = torch.rand(6, 5, 4, generator=generator) > 0.4
    masks[4], masks[5] = True, False
    keys = torch.rand(6, 5, 4, generator=generator)
    found = shuffle_outside(images, masks, keys)
    for n in range(6):
        rows, columns = (~masks[n]).nonzero().T
        places = list(zip(rows.tolist(), columns.tolist(), strict=True))
        expected = images[n].clone()
        drawn = sorted(places, key=lambda place: float(keys[n][place]))
        for target, source in zip(places, drawn, strict=True):
            expected[:, target[0], target[1]] = images[n][:, source[0], source[1]]
        assert torch.equal(found[n], expected)
    assert torch.equal(found[4], images[4])
    assert not torch.equal(found[5], images[5])


def test_the_distance_by_hand_and_its_gradient_at_zero():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    others = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    found = activation_difference(features, others)
    torch.testing.assert_close(
        found.detach(), torch.tensor([2**0.5 * 1e-6, 5.0], dtype=torch.float64), rtol=1e-5, atol=0
    )
    found.sum().backward()
    assert others.grad.isfinite().all()
