from __future__ import annotations

import pytest
import torch
from torch import nn

from crayon_sdk.functional.masking import kept_pixels, xgrad_cam
from crayon_sdk.functional.saliency import grad_cam


def head_of(channels=4, classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)).double()


def test_xgrad_cam_equals_the_loops():
    features = torch.randn(3, 4, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    head = nn.Sequential(nn.Softplus(), head_of())  # a gradient that differs from cell to cell
    found = xgrad_cam(features, head)
    for n in range(3):
        free = features[n : n + 1].clone().requires_grad_()
        logits = head(free)
        (gradient,) = torch.autograd.grad(logits[0, logits.argmax()], free)
        free = free.detach()
        for i in range(2):
            for j in range(5):
                value = 0.0
                for k in range(4):
                    weight = float((free[0, k] * gradient[0, k]).sum() / free[0, k].sum())
                    value += weight * float(features[n, k, i, j])
                assert found[n, i, j].item() == pytest.approx(max(value, 0.0), rel=1e-9, abs=1e-12)


def test_for_a_pooled_linear_head_it_is_grad_cam():
    features = torch.rand(3, 4, 5, 5, dtype=torch.float64)
    targets, head = torch.tensor([0, 2, 1]), head_of()
    torch.testing.assert_close(xgrad_cam(features, head, targets), grad_cam(features, head, targets))
    silent = features.clone()
    silent[:, 1] = 0
    assert xgrad_cam(silent, head, targets).isfinite().all()


def test_what_is_hidden_by_hand():
    maps = torch.tensor([[[2.0, 3.0, 4.0, 12.0]]])
    # In [0, 1]: 0, 0.1, 0.2, 1; of the positive ones the mean is 1.3 / 3 and the deviation 0.4028.
    for deviations, hidden in ((0.0, [3]), (1.4, [3]), (1.5, [])):
        kept = kept_pixels(maps, (1, 4), deviations=deviations)
        assert (~kept[0, 0]).nonzero().flatten().tolist() == hidden
    assert kept_pixels(maps, (3, 9)).shape == (1, 3, 9)


def test_maps_that_show_nothing_hide_nothing():
    for maps in (torch.zeros(2, 3, 3), torch.full((2, 3, 3), 4.0)):
        assert kept_pixels(maps, (6, 6), deviations=0.0).all()
