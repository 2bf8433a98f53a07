from __future__ import annotations

import torch

from crayon_sdk.functional.views import is_still_shown, random_views, shown, view_transforms


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


def test_what_lies_over_a_picture_moves_with_it_on_any_grid():
    side = 32
    across = ((torch.arange(side) + 0.5) / side).expand(side, side)
    pattern = torch.stack([across, across.T]).double()
    coarse = torch.nn.functional.avg_pool2d(pattern, 4)
    keys = torch.rand(50, 5, generator=torch.Generator().manual_seed(0))
    views = view_transforms(keys, least_area=0.3, flip=0.5).double()
    fine = shown(pattern.expand(50, 2, side, side), views)
    maps = [shown(layer.expand(50, 8, 8), views) for layer in coarse]
    # Inside of the outermost cells, whose middle may lie beyond the edge of a coarse grid.
    pooled = torch.nn.functional.avg_pool2d(fine, 4)
    for layer, found in enumerate(maps):
        expected = pooled[:, layer]
        inside = (expected > 1 / 16) & (expected < 15 / 16)
        assert inside.float().mean() > 0.8
        torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-9)
    assert (fine[:, 0, 0, 0] > fine[:, 0, 0, -1]).sum() == (keys[:, 4] < 0.5).sum()
    assert is_still_shown(coarse[:1], 0.6 * coarse[:1]).tolist() == [True]
    assert is_still_shown(coarse[:1], 0.4 * coarse[:1]).tolist() == [False]
