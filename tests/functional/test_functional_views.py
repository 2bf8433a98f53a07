from __future__ import annotations

import torch

from crayon_sdk.functional.views import random_views


def test_views_show_a_part_of_the_picture_and_stay_inside():
    side = 40
    down = torch.linspace(0, 1, side)[:, None].expand(side, side)
    images = torch.stack([down, down.T, torch.ones(side, side)]).expand(200, 3, side, side)
    torch.manual_seed(0)
    views = random_views(images, least_area=0.2, flip=0.5)
    assert views.shape == images.shape
    assert views.min() >= 0
    assert views.max() <= 1
    assert torch.allclose(views[:, 2], torch.ones(()))  # nothing from beyond the edge
    height = views[:, 0, -1, 0] - views[:, 0, 0, 0]
    width = (views[:, 1, 0, -1] - views[:, 1, 0, 0]).abs()
    area, ratio = height * width, width / height
    assert 0.18 < area.min() < 0.3
    assert area.max() > 0.9
    assert 0.7 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.4
    mirrored = (views[:, 1, 0, -1] < views[:, 1, 0, 0]).float().mean()
    assert 0.4 < mirrored < 0.6


def test_random_numbers_decide_and_can_be_repeated():
    images = torch.rand(3, 3, 9, 7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first, other = random_views(images), random_views(images)
        torch.manual_seed(1)
        assert torch.equal(random_views(images), first)
    assert not torch.equal(first, other)
    mirrored = random_views(images, least_area=1.0, flip=1.0)
    torch.testing.assert_close(mirrored, images.flip(3), atol=1e-5, rtol=0)
