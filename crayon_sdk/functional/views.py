"""Random views of pictures, on the device they are on."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = ["random_views"]


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
    count = len(images)
    area, ratio, right, down, mirror = torch.rand(5, count).unbind()
    area = least_area + (1 - least_area) * area
    # A crop of nearly all of a picture has its shape.
    widest = torch.minimum(torch.full((), math.log(4 / 3)), -area.log())
    shape = ((2 * ratio - 1) * widest).exp().sqrt()
    width, height = area.sqrt() * shape, area.sqrt() / shape
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = width * torch.where(mirror < flip, -1.0, 1.0)
    affine[:, 1, 1] = height
    affine[:, 0, 2], affine[:, 1, 2] = (1 - width) * (2 * right - 1), (1 - height) * (2 * down - 1)
    grid = F.affine_grid(affine.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
