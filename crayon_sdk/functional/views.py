"""Random views of pictures, on the device they are on."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = ["is_still_shown", "random_views", "shown", "view_transforms"]


def random_views(images: Tensor, *, least_area: float = 0.2, flip: float = 0.5) -> Tensor:
    """Crop each picture at random, bring the crop to the size of the picture, and mirror some.

    Args:
        images: (N, 3, H, W) floating point.
        least_area: Share of the picture that a crop has at least, in (0, 1]; its sides are as 3:4 to 4:3.
        flip: How likely a picture is mirrored.

    Returns:
        (N, 3, H, W), from the global random numbers of the CPU.

    Example:
        >>> images = torch.rand(2, 3, 8, 8)
        >>> bool(torch.allclose(random_views(images, least_area=1.0, flip=0.0), images, atol=1e-5))
        True
    """
    views = view_transforms(torch.rand(5, len(images)).T, least_area=least_area, flip=flip)
    return shown(images, views.to(images))


def view_transforms(keys: Tensor, *, least_area: float, flip: float) -> Tensor:
    """Turn random numbers into views of pictures, each a part of one, mirrored or not.

    Args:
        keys: (N, 5) in [0, 1): area, shape, place across and down, and whether it is mirrored.
        least_area: Share of the picture that a part has at least, in (0, 1]; its sides are as 3:4 to 4:3.
        flip: How likely a picture is mirrored.

    Returns:
        (N, 2, 3), as `torch.nn.functional.affine_grid` takes it.

    Example:
        >>> view_transforms(torch.full((1, 5), 0.5), least_area=1.0, flip=1.0).tolist()
        [[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """
    area, ratio, right, down, mirror = keys.unbind(dim=1)
    area = least_area + (1 - least_area) * area
    # A crop of nearly all of a picture has its shape.
    widest = torch.minimum(torch.full((), math.log(4 / 3)), -area.log())
    shape = ((2 * ratio - 1) * widest).exp().sqrt()
    width, height = area.sqrt() * shape, area.sqrt() / shape
    affine = torch.zeros(len(keys), 2, 3)
    affine[:, 0, 0] = width * torch.where(mirror < flip, -1.0, 1.0)
    affine[:, 1, 1] = height
    affine[:, 0, 2], affine[:, 1, 2] = (1 - width) * (2 * right - 1), (1 - height) * (2 * down - 1)
    return affine


def shown(values: Tensor, views: Tensor) -> Tensor:
    """Show what lies over pictures as views show these: pictures, maps and masks alike, each on its own grid.

    Args:
        values: (N, H, W) or (N, C, H, W) floating point.
        views: (N, 2, 3) of `view_transforms`, of the same dtype and device.

    Returns:
        Of the same shape.

    Example:
        >>> mirrored = view_transforms(torch.full((1, 5), 0.5), least_area=1.0, flip=1.0)
        >>> shown(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), mirrored).tolist()
        [[[2.0, 1.0], [4.0, 3.0]]]
    """
    layers = values if values.ndim == 4 else values[:, None]
    grid = F.affine_grid(views, list(layers.shape), align_corners=False)
    found = F.grid_sample(layers, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.view_as(values)


def is_still_shown(before: Tensor, after: Tensor, *, least: float = 0.5) -> Tensor:
    """Tell whether the highlight of a map is in the part that a view shows.

    Args:
        before: (N, h, w), not negative.
        after: The same maps as a view shows them.
        least: Share of the highest value that must be in it.

    Returns:
        (N,) bool.

    Example:
        >>> is_still_shown(torch.tensor([[[0.2, 1.0]]]), torch.tensor([[[0.2, 0.2]]])).tolist()
        [False]
    """
    return after.amax(dim=(1, 2)) >= least * before.amax(dim=(1, 2))
