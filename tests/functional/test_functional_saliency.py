"""Maps against slow versions in plain loops, and the whole loss against finite differences."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from crayon_sdk.functional.losses import attention_loss
from crayon_sdk.functional.saliency import (
    brightest_spot,
    grad_cam,
    has_evidence,
    logits_and_grad_cam,
    normalize_maps,
    resize_maps,
    target_scores,
    weighted_activation,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def rand(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def pooled_linear(generator, channels, classes):
    linear = nn.Linear(channels, classes).double()
    with torch.no_grad():
        linear.weight.copy_(rand(generator, classes, channels))
        linear.bias.copy_(rand(generator, classes))
    return linear, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


def slow_cam(features, gradient):
    """ReLU(sum_k w_k A_k), w_k the mean of the gradient: one number at a time."""
    samples, channels, height, width = features.shape
    maps = torch.zeros(samples, height, width, dtype=features.dtype)
    for n in range(samples):
        for i in range(height):
            for j in range(width):
                total = 0.0
                for k in range(channels):
                    weight = sum(float(value) for value in gradient[n, k].flatten()) / (height * width)
                    total += weight * float(features[n, k, i, j])
                maps[n, i, j] = max(total, 0.0)
    return maps


def slow_area(maps, size):
    """Mean over the cells floor(i h / H) .. ceil((i + 1) h / H)."""
    samples, height, width = maps.shape
    out = torch.zeros(samples, *size, dtype=maps.dtype)
    for i in range(size[0]):
        rows = range(i * height // size[0], -(-(i + 1) * height // size[0]))
        for j in range(size[1]):
            columns = range(j * width // size[1], -(-(j + 1) * width // size[1]))
            for n in range(samples):
                cells = [float(maps[n, row, column]) for row in rows for column in columns]
                out[n, i, j] = sum(cells) / len(cells)
    return out


def slow_bilinear(maps, size):
    """Straight lines between cell centres, flat beyond the outermost."""
    samples, height, width = maps.shape
    out = torch.zeros(samples, *size, dtype=maps.dtype)

    def place(index, old, new):
        at = min(max((index + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        low = int(at)
        return low, min(low + 1, old - 1), at - low

    for n in range(samples):
        for i in range(size[0]):
            top, bottom, down = place(i, height, size[0])
            for j in range(size[1]):
                left, right, along = place(j, width, size[1])
                upper = (1 - along) * float(maps[n, top, left]) + along * float(maps[n, top, right])
                lower = (1 - along) * float(maps[n, bottom, left]) + along * float(maps[n, bottom, right])
                out[n, i, j] = (1 - down) * upper + down * lower
    return out


# --- the map ---


def test_weighted_activation_equals_the_loops(generator):
    features, gradient = rand(generator, 3, 4, 2, 5), rand(generator, 3, 4, 2, 5)
    torch.testing.assert_close(weighted_activation(features, gradient), slow_cam(features, gradient))


@pytest.mark.parametrize("create_graph", [False, True])
def test_grad_cam_of_a_pooled_linear_head_has_its_closed_form(generator, create_graph):
    linear, head = pooled_linear(generator, 6, 3)
    features, targets = rand(generator, 4, 6, 3, 2), torch.tensor([0, 2, 1, 2])
    gradient = (linear.weight[targets].detach() / 6)[:, :, None, None].expand(-1, -1, 3, 2)
    maps = grad_cam(features, head, targets, create_graph)
    assert maps.requires_grad == create_graph
    torch.testing.assert_close(maps.detach(), slow_cam(features, gradient))


def test_grad_cam_of_a_curved_head_equals_finite_differences(generator):
    linear, _ = pooled_linear(generator, 3, 2)
    features, targets = rand(generator, 2, 3, 2, 2), torch.tensor([1, 0])

    def head(given):
        return linear(torch.tanh(given).pow(2).sum(dim=(2, 3)))

    gradient = torch.zeros_like(features)
    for place in range(features.numel()):
        step = torch.zeros(features.numel(), dtype=torch.float64)
        step[place] = 1e-6
        step = step.view_as(features)
        with torch.no_grad():
            slope = (head(features + step) - head(features - step)) / 2e-6
        sample = place // features[0].numel()
        gradient.view(-1)[place] = slope[sample, targets[sample]]
    torch.testing.assert_close(grad_cam(features, head, targets), slow_cam(features, gradient), rtol=1e-7, atol=1e-8)


def test_no_targets_means_the_predicted_class(generator):
    _, head = pooled_linear(generator, 6, 3)
    features = rand(generator, 5, 6, 2, 2)
    logits, maps = logits_and_grad_cam(features, head)
    assert torch.equal(logits, head(features))
    assert torch.equal(maps, grad_cam(features, head, logits.argmax(dim=1)))


def test_samples_do_not_mix_and_inputs_stay_as_they_are(generator):
    _, head = pooled_linear(generator, 6, 3)
    features, targets = rand(generator, 4, 6, 3, 3), torch.tensor([0, 1, 2, 0])
    before = features.clone()
    with torch.no_grad():  # it must work inside, and leave the mode alone
        together = grad_cam(features, head, targets)
        assert not torch.is_grad_enabled()
    apart = [grad_cam(features[n : n + 1], head, targets[n : n + 1]) for n in range(4)]
    torch.testing.assert_close(together, torch.cat(apart))
    assert torch.equal(features, before)
    assert not features.requires_grad
    assert all(parameter.grad is None for parameter in head.parameters())


# --- evidence and normalising ---


def test_has_evidence():
    maps = torch.tensor([[[0.0, 0.0]], [[0.0, 1e-30]], [[2.0, 3.0]]])
    assert has_evidence(maps).tolist() == [False, True, True]


def test_normalize_equals_the_loops(generator):
    maps = rand(generator, 5, 3, 4).relu()
    maps[2] = 0
    expected = torch.zeros_like(maps)
    for n in range(5):
        highest = max(float(value) + 1e-10 for value in maps[n].flatten())
        for i in range(3):
            for j in range(4):
                expected[n, i, j] = (float(maps[n, i, j]) + 1e-10) / highest
    torch.testing.assert_close(normalize_maps(maps), expected, rtol=1e-14, atol=0)
    assert normalize_maps(maps)[2].eq(1).all()  # no evidence looks like everything
    assert normalize_maps(maps).amax(dim=(1, 2)).eq(1).all()
    assert normalize_maps(maps).min() > 0


# --- resizing ---


@pytest.mark.parametrize(
    ("old", "new", "slow"),
    [
        ((7, 7), (3, 5), slow_area),
        ((6, 4), (2, 2), slow_area),
        ((7, 8), (7, 3), slow_area),
        ((3, 4), (7, 9), slow_bilinear),
        ((5, 5), (10, 5), slow_bilinear),
        ((1, 1), (3, 2), slow_bilinear),
    ],
)
def test_resize_equals_the_loops(generator, old, new, slow):
    maps = rand(generator, 2, *old)
    torch.testing.assert_close(resize_maps(maps, new), slow(maps, new))


def test_each_axis_is_resized_on_its_own(generator):
    maps = rand(generator, 2, 8, 3)
    expected = slow_bilinear(slow_area(maps, (5, 3)), (5, 7))
    torch.testing.assert_close(resize_maps(maps, (5, 7)), expected)
    maps = maps.transpose(1, 2)
    torch.testing.assert_close(resize_maps(maps, (7, 5)), expected.transpose(1, 2))


def test_the_same_size_gives_a_copy(generator):
    maps = rand(generator, 2, 3, 3)
    same = resize_maps(maps, (3, 3))
    assert torch.equal(same, maps)
    same.zero_()
    assert maps.abs().sum() > 0


# --- the whole attention loss against finite differences ---


def convnext_head(generator, channels, classes):
    """The head of a real ConvNeXt: pooling, LayerNorm, flatten, linear."""
    model = timm.create_model(
        "convnext_atto", pretrained=False, num_classes=classes, depths=(1, 1, 1, 1), dims=(4, 4, 4, channels)
    ).double()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.copy_(rand(generator, *parameter.shape))
    assert any(isinstance(module, nn.LayerNorm) for module in model.head.modules())
    return model.head.eval()


def simple_head(generator, channels, classes):
    return pooled_linear(generator, channels, classes)[1]


@pytest.mark.parametrize("area", [False, True])
@pytest.mark.parametrize("make", [simple_head, convnext_head])
def test_gradcheck_of_the_attention_loss(generator, make, area):
    channels, classes = 5, 3
    module = make(generator, channels, classes)
    names = [name for name, _ in module.named_parameters()]
    features = rand(generator, 4, channels, 2, 3).requires_grad_()
    parameters = [parameter.detach().clone().requires_grad_() for parameter in module.parameters()]
    labels = torch.tensor([0, 2, 1, 1])
    reference = torch.rand(4, 2, 3, generator=generator, dtype=torch.float64)
    relevant, irrelevant = torch.tensor([True, False, False, True]), torch.tensor([False, True, False, False])

    def loss(given, *weights):
        def head(inner):
            return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (inner,))

        logits, maps = logits_and_grad_cam(given, head, labels, create_graph=True)
        return attention_loss(
            logits,
            labels,
            normalize_maps(maps),
            reference,
            relevant,
            irrelevant,
            alpha=3.0,
            beta=2.0,
            num_relevant=5,
            num_irrelevant=2,
            area_normalized=area,
        )

    assert has_evidence(grad_cam(features, module, labels)).any()
    assert torch.autograd.gradcheck(loss, (features, *parameters), eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("score", ["logit", "margin"])
def test_scores_have_first_and_second_derivatives(classes, score):
    """The second one is what training goes down: it was NaN for more than two classes."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, classes, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.arange(4) % classes
    assert torch.autograd.gradcheck(lambda values: target_scores(values, targets, score), logits)
    assert torch.autograd.gradgradcheck(lambda values: target_scores(values, targets, score), logits)


def test_margin_equals_the_log_odds_of_many_classes():
    logits = torch.randn(6, 4, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 3, 0, 1])
    odds = logits.softmax(dim=1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(target_scores(logits, targets, "margin"), (odds / (1 - odds)).log())


def slow_spot(saliency, size):
    """One number at a time, from the map on its new grid."""
    grid = resize_maps(saliency[None], size)[0]
    top = max(grid.flatten().tolist())
    places = [(row, column) for row in range(size[0]) for column in range(size[1])]
    first = next(place for place in places if float(grid[place]) == top)
    found = torch.zeros(size, dtype=grid.dtype)
    for row, column in places:
        near = abs(row - first[0]) <= 1 and abs(column - first[1]) <= 1
        share = float(grid[row, column]) / top
        found[row, column] = share if near and share >= 0.5 else 0.0
    return found


@pytest.mark.parametrize("shape", [(5, 7), (4, 4), (1, 1), (14, 3)])
@pytest.mark.parametrize("size", [(10, 14), (8, 8), (3, 20)])
def test_the_brightest_spot_equals_a_slow_version(generator, shape, size):
    maps = rand(generator, 6, *shape).abs() / 4
    maps[0] = 1.0  # of equal cells the first
    maps[1, -1, -1] = 1.0  # at the edge
    found = brightest_spot(maps, size)
    assert torch.equal(found, torch.stack([slow_spot(each, size) for each in maps]))
    assert found.amax(dim=(1, 2)).tolist() == [1.0] * 6
    assert int((found > 0).sum(dim=(1, 2)).max()) <= 9
    # Neither its neighbours in the batch nor its height change a spot, and it keeps the place on its own grid.
    assert torch.equal(brightest_spot(maps[2:3] / 8, size), found[2:3])
    assert torch.equal(brightest_spot(found, size), found)


def test_a_map_of_zeros_has_no_spot():
    assert brightest_spot(torch.zeros(2, 3, 3), (6, 6)).tolist() == torch.zeros(2, 6, 6).tolist()
    assert brightest_spot(torch.zeros(0, 3, 3), (6, 6)).shape == (0, 6, 6)
