"""How a model lays its features out: channels first, channels last, or a row of tokens."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

__all__ = ["Layout", "from_grid", "grid_of", "layout_of", "to_grid", "tokens_are_in_order"]

Layout = Literal["NCHW", "NHWC", "NLC"]


def layout_of(features: object, size: tuple[int, int]) -> tuple[Layout, tuple[int, int]] | None:
    """Find the grid in features by its shape, which is about that of the pictures.

    Args:
        features: What a trunk gives.
        size: (H, W) of the pictures.

    Returns:
        Layout and (h, w); ``None`` where there is no grid of more than one row and column.

    Example:
        >>> import torch
        >>> layout_of(torch.zeros(1, 7, 7, 768), (224, 224))
        ('NHWC', (7, 7))
        >>> layout_of(torch.zeros(1, 50, 768), (224, 224)) is None
        True
    """
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        return None
    if features.ndim == 3:
        grid = grid_of(int(features.shape[1]), size)
        return None if grid is None else ("NLC", grid)
    _, first, second, third = features.shape
    layout: Layout = "NCHW"
    grid = (second, third)
    if _distortion((first, second), size) < _distortion(grid, size):
        layout, grid = "NHWC", (first, second)
    return (layout, grid) if 1 not in grid and _distortion(grid, size) <= math.log(4) else None


def _distortion(grid: tuple[int, int], size: tuple[int, int]) -> float:
    return abs(math.log((grid[0] / size[0]) / (grid[1] / size[1])))


def grid_of(length: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of ``length`` tokens that cover pictures of ``size`` evenly; ``None`` if none do.

    Example:
        >>> grid_of(98, (224, 448)), grid_of(50, (224, 224))
        ((7, 14), None)
    """
    rows = round(math.sqrt(length * size[0] / size[1]))
    if rows < 2 or length % rows or length // rows < 2:
        return None
    grid = (rows, length // rows)
    return grid if _distortion(grid, size) < math.log(1.2) else None


def to_grid(features: Tensor, layout: Layout, size: tuple[int, int]) -> Tensor:
    """Show features as (N, C, h, w).

    Args:
        features: As the model gives them.
        layout: Theirs.
        size: (H, W) of the pictures.
    """
    if layout == "NCHW":
        return features
    if layout == "NHWC":
        return features.permute(0, 3, 1, 2)
    grid = grid_of(int(features.shape[1]), size)
    if grid is None:
        raise RuntimeError(f"{features.shape[1]} tokens do not cover pictures of {size[0]}x{size[1]} evenly")
    return features.transpose(1, 2).reshape(len(features), -1, *grid)


def from_grid(features: Tensor, layout: Layout) -> Tensor:
    """Give (N, C, h, w) back in the layout of the model."""
    if layout == "NCHW":
        return features
    return features.permute(0, 2, 3, 1) if layout == "NHWC" else features.flatten(2).transpose(1, 2)


def tokens_are_in_order(before: Tensor, after: Tensor, cell: tuple[int, int]) -> bool:
    """Tell whether what changed in a picture changed the features at the same place.

    Args:
        before: (1, C, h, w) of a picture.
        after: (1, C, h, w) of the same picture with another content in one cell.
        cell: (row, column) of that cell.

    Returns:
        False where features more than one cell away changed clearly more than those nearby. (With random
        weights LeViT's attention is even, so all its tokens change alike; that proves nothing.)
    """
    change = (after - before).square().sum(dim=1)[0]
    (row, column), most = cell, float(change.max())
    near = float(change[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].max())
    return near >= 0.9 * most
