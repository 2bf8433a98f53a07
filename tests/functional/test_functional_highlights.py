"""Objects from coarse maps against a slow version, and pictures on other backgrounds."""

from __future__ import annotations

import math

import pytest
import torch

from crayon_sdk.functional.highlights import background_tiles, guided_filter, refine_maps, replace_background, sharpen
from crayon_sdk.functional.saliency import resize_maps


def scene(count=6, side=12, *, seed=0):
    """Features in which an object differs from its surroundings, and a 3 x 3 map that is roughly right."""
    generator = torch.Generator().manual_seed(seed)
    objects = torch.zeros(count, side, side)
    for number in range(count):
        top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
        objects[number, top : top + 5, left : left + 7] = 1
    one, other = torch.randn(2, count, 16, 1, 1, generator=generator)
    noise = 0.5 * torch.randn(count, 16, side, side, generator=generator)
    features = torch.where(objects[:, None] == 1, one, other) + noise
    maps = torch.nn.functional.adaptive_avg_pool2d(objects, 3)
    return features, maps / maps.amax(dim=(1, 2), keepdim=True), objects


def slow_refine(maps, features, steps, temperature, prior):
    """The same cell by cell for features that lie on the grid already."""
    count, channels, height, width = features.shape
    start = torch.nn.functional.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    result = torch.empty(count, height, width, dtype=features.dtype)
    scaled = torch.empty_like(features)
    for channel in range(channels):
        values = features[:, channel]
        mean = values.sum() / values.numel()
        scaled[:, channel] = (values - mean) / (math.sqrt(((values - mean) ** 2).sum() / values.numel()) + 1e-6)
    for number in range(count):
        cells = [scaled[number, :, i, j] / scaled[number, :, i, j].norm() for i in range(height) for j in range(width)]
        first = start[number].flatten().tolist()
        shares = list(first)
        for _ in range(steps):
            inside = sum(cell * share**2 for cell, share in zip(cells, shares, strict=True))
            outside = sum(cell * (1 - share) ** 2 for cell, share in zip(cells, shares, strict=True))
            towards = inside / inside.norm() - outside / outside.norm()
            shares = [
                1 / (1 + math.exp(-(temperature * float(cell @ towards) + prior * (begin - 0.4))))
                for cell, begin in zip(cells, first, strict=True)
            ]
        result[number] = torch.tensor(shares).view(height, width)
    return result


def test_refining_equals_the_slow_version():
    features, maps, _ = scene()
    features, maps = features.double(), maps.double()
    found = refine_maps(maps, [features], size=(12, 12), steps=3, temperature=7.0, prior=2.0)
    torch.testing.assert_close(found, slow_refine(maps, features, 3, 7.0, 2.0), rtol=0, atol=1e-6, check_dtype=False)


def test_refining_finds_the_object():
    features, maps, objects = scene(20)

    def agreement(shares):
        both = torch.minimum(shares, objects).sum(dim=(1, 2)) / torch.maximum(shares, objects).sum(dim=(1, 2))
        return both.mean()

    coarse = torch.nn.functional.interpolate(maps[:, None], (12, 12), mode="bilinear", align_corners=False)[:, 0]
    found = sharpen(refine_maps(maps, [features], size=(12, 12)))
    assert agreement(found) > 0.9 > 0.65 > agreement(sharpen(coarse))


def test_refining_takes_features_of_several_sizes_and_a_single_flat_picture():
    features, maps, objects = scene()
    both = refine_maps(maps, [features, features[:, :, ::2, ::2]], size=(12, 12))
    assert ((both > 0.5) == objects.bool()).float().mean() > 0.9
    flat = refine_maps(maps[:1], [torch.ones(1, 4, 6, 6)], size=(12, 12))
    assert flat.isfinite().all()  # nothing to go by but the map itself
    assert torch.equal(flat.flatten().argsort(), resize_maps(maps[:1], (12, 12)).flatten().argsort())


def slow_guided_filter(shares, guides, radius, eps):
    """One picture, by a least-squares fit in every window and the mean of all fits that cover a cell."""
    channels, height, width = guides.shape
    scaled = torch.stack([(each - each.mean()) / (each.std() + 1e-6) for each in guides])
    fits = {}
    for i in range(height):
        for j in range(width):
            window = (slice(max(i - radius, 0), i + radius + 1), slice(max(j - radius, 0), j + radius + 1))
            x, y = scaled[:, window[0], window[1]].flatten(1), shares[window].flatten()
            centred = x - x.mean(dim=1, keepdim=True)
            damping = eps * torch.eye(channels, dtype=x.dtype) * x.shape[1]
            slope = torch.linalg.solve(centred @ centred.T + damping, centred @ (y - y.mean()))
            fits[i, j] = (slope, y.mean() - slope @ x.mean(dim=1))
    found = torch.empty(height, width, dtype=shares.dtype)
    for i in range(height):
        for j in range(width):
            near = [fits[a, b] for a, b in fits if abs(a - i) <= radius and abs(b - j) <= radius]
            slope = sum(each[0] for each in near) / len(near)
            found[i, j] = slope @ scaled[:, i, j] + sum(each[1] for each in near) / len(near)
    return found.clamp(0, 1)


def test_guided_filter_equals_the_slow_version():
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(2, 7, 9, generator=generator, dtype=torch.float64)
    guides = torch.rand(2, 3, 7, 9, generator=generator, dtype=torch.float64)
    found = guided_filter(shares, guides, radius=2, eps=0.05)
    for number in range(2):
        torch.testing.assert_close(found[number], slow_guided_filter(shares[number], guides[number], 2, 0.05))


def test_guided_filter_takes_a_flat_picture():
    assert torch.allclose(guided_filter(torch.full((1, 6, 6), 0.4), torch.ones(1, 3, 6, 6)), torch.tensor(0.4))


@pytest.mark.parametrize("side", [(12, 12), (13, 10)])
def test_tiles_come_from_the_emptiest_places(side):
    height, width = side
    rows = torch.arange(height)[:, None].expand(height, width)
    images = torch.stack([rows, rows, rows])[None].float().expand(2, 3, height, width)
    objects = torch.zeros(2, 4, 4)
    objects[0, :2] = 1  # the upper half is the object
    objects[1, 2:] = 1
    found = background_tiles(images, objects, (4, 4), torch.Generator().manual_seed(0))
    assert found.shape == images.shape
    middle = 2 * -(-height // 4)
    assert found[0].min() >= middle
    assert found[1].max() < middle


def tiles_of(image, side=4):
    corners = [(i, j) for i in range(0, image.shape[1], side) for j in range(0, image.shape[2], side)]
    return {image[:, i : i + side, j : j + side].numpy().tobytes() for i, j in corners}


def test_tiles_keep_the_type_and_follow_the_generator():
    images = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    objects = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2))
    first, again, other = (
        background_tiles(images, objects, (5, 5), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Every tile is one of its own picture.
    for number in range(3):
        own, laid = tiles_of(images[number]), tiles_of(first[number])
        assert laid <= own
        assert len(laid) > 1


def test_object_stays_and_background_goes():
    images, backgrounds = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    objects = torch.zeros(2, 8, 8)
    objects[:, 2:5, 3:6] = 1
    found = replace_background(images, objects, backgrounds)
    inside = objects.bool()[:, None].expand_as(images)
    assert torch.equal(found[inside], images[inside])
    assert torch.equal(found[~inside], backgrounds[~inside])
