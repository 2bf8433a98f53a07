"""From a coarse map that people found relevant to the object under it, and pictures with other backgrounds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.functional.saliency import resize_maps

__all__ = ["background_tiles", "guided_filter", "refine_maps", "replace_background", "sharpen"]


def refine_maps(
    maps: Tensor,
    features: Sequence[Tensor],
    *,
    size: tuple[int, int],
    steps: int = 5,
    temperature: float = 15.0,
    prior: float = 3.0,
) -> Tensor:
    """Find the object under a relevant map with the help of finer feature maps.

    Two-means clustering of the cells of each picture, with the map as the start and as a
    prior: cells that are more like what the map highlights than like what it leaves out are
    the object. Every feature map counts the same; its channels are standardised over the
    batch and its cells scaled to unit length. Not part of the paper.

    Args:
        maps: (N, h, w) in [0, 1], relevant maps.
        features: At least one (N, C, H, W), finer than the map.
        size: Grid (H, W) of the result; features are resized to it.
        steps: Rounds of clustering, at least 1.
        temperature: How sharply a cell is assigned.
        prior: How much the map itself counts in the assignment.

    Returns:
        (N, H, W) in (0, 1), the share of object in every cell.

    Example:
        An object of six cells, and a map of 2 x 2 that is too coarse for it:

        >>> features = torch.zeros(1, 1, 4, 4)
        >>> features[:, :, 0:3, 0:2] = 1.0
        >>> coarse = torch.tensor([[[1.0, 0.1], [0.4, 0.1]]])
        >>> (refine_maps(coarse, [features], size=(4, 4)) > 0.5).int()[0].tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    """
    start = resize_maps(maps, size).flatten(1)
    cells = torch.cat([_unit_cells(each, size) for each in features], dim=1) / len(features) ** 0.5
    share = start
    for _ in range(steps):
        # Squares: doubtful cells say little about either side.
        inside, outside = share.square(), (1 - share).square()
        towards = _mean_direction(cells, inside) - _mean_direction(cells, outside)
        share = torch.sigmoid(temperature * torch.einsum("ncx,nc->nx", cells, towards) + prior * (start - 0.4))
    return share.view(-1, *size)


def _unit_cells(features: Tensor, size: tuple[int, int]) -> Tensor:
    centred = features - features.mean(dim=(0, 2, 3), keepdim=True)
    spread = centred.square().mean(dim=(0, 2, 3), keepdim=True).sqrt()
    resized = F.interpolate(centred / (spread + 1e-6), size=size, mode="bilinear", align_corners=False)
    return F.normalize(resized.flatten(2), dim=1)


def _mean_direction(cells: Tensor, weights: Tensor) -> Tensor:
    return F.normalize(torch.einsum("ncx,nx->nc", cells, weights), dim=1)


def guided_filter(shares: Tensor, guides: Tensor, *, radius: int = 4, eps: float = 0.02) -> Tensor:
    """Move the edges of shares to the edges of pictures (He et al. 2010).

    Within every window the result is the linear function of the picture's channels that
    comes closest to the shares; windows overlap and are averaged.

    Args:
        shares: (N, H, W) in [0, 1].
        guides: (N, C, H, W), the pictures; standardised here, picture by picture.
        radius: Of the square window, in cells.
        eps: Variance, in units of the picture's own, below which a window counts as flat.

    Returns:
        (N, H, W) in [0, 1].

    Example:
        A blurred edge becomes nearly as sharp as that of the picture:

        >>> guides = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).expand(1, 1, 6, 6)
        >>> shares = torch.tensor([0.0, 0.0, 0.3, 0.7, 1.0, 1.0]).expand(1, 6, 6)
        >>> [round(value, 1) for value in guided_filter(shares, guides, radius=2)[0, 3].tolist()]
        [0.1, 0.1, 0.2, 0.8, 0.9, 0.9]
    """
    channels = guides.shape[1]
    mean, spread = guides.mean(dim=(2, 3), keepdim=True), guides.std(dim=(2, 3), keepdim=True)
    guides = (guides - mean) / (spread + 1e-6)
    of_guides, of_shares = _box(guides, radius), _box(shares[:, None], radius)
    together = _box(guides * shares[:, None], radius) - of_guides * of_shares
    products = (guides[:, :, None] * guides[:, None]).flatten(1, 2)
    spreads = _box(products, radius).unflatten(1, (channels, channels)) - of_guides[:, :, None] * of_guides[:, None]
    damped = spreads.permute(0, 3, 4, 1, 2) + eps * torch.eye(channels, device=guides.device, dtype=guides.dtype)
    slopes = torch.linalg.solve(damped, together.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    offsets = of_shares - (slopes * of_guides).sum(dim=1, keepdim=True)
    found = (_box(slopes, radius) * guides).sum(dim=1) + _box(offsets, radius)[:, 0]
    return found.clamp(0, 1)


def _box(values: Tensor, radius: int) -> Tensor:
    return F.avg_pool2d(values, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def sharpen(shares: Tensor, low: float = 0.3, high: float = 0.7) -> Tensor:
    """Stretch shares so that ``low`` becomes 0 and ``high`` becomes 1.

    Example:
        >>> sharpen(torch.tensor([0.0, 0.5, 1.0]), 0.25, 0.75).tolist()
        [0.0, 0.5, 1.0]
    """
    return ((shares - low) / (high - low)).clamp(0, 1)


def background_tiles(
    images: Tensor, objects: Tensor, grid: tuple[int, int], generator: torch.Generator | None = None
) -> Tensor:
    """Make a background out of the tiles of each picture that hold the least object.

    The picture is cut into ``grid`` tiles; the 40 % with the least object are laid out
    again at random, with repeats.

    Args:
        images: (N, 3, H, W), any dtype.
        objects: (N, h, w) in [0, 1], share of object; any grid.
        grid: Tiles (rows, columns) per picture.
        generator: Where the random layout comes from, on the CPU; default torch's own.

    Returns:
        (N, 3, H, W), same dtype, made of tiles of the same picture.

    Example:
        >>> images = torch.arange(4.0).view(1, 1, 2, 2).expand(1, 3, 2, 2)
        >>> objects = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
        >>> background_tiles(images, objects, (2, 2), torch.Generator().manual_seed(0)).unique().tolist()
        [3.0]
    """
    count, channels, height, width = images.shape
    rows, columns = grid
    tile = (-(-height // rows), -(-width // columns))
    padding = (0, tile[1] * columns - width, 0, tile[0] * rows - height)
    padded = F.pad(images.float(), padding, mode="replicate").to(images.dtype) if any(padding) else images
    tiles = padded.reshape(count, channels, rows, tile[0], columns, tile[1]).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(count, rows * columns, channels, *tile)
    emptiest = resize_maps(objects.float(), grid).flatten(1).argsort(dim=1, stable=True)
    usable = max(1, int(0.4 * rows * columns))
    drawn = torch.randint(usable, (count, rows * columns), generator=generator)
    drawn = drawn.pin_memory().to(images.device, non_blocking=True) if images.is_cuda else drawn.to(images.device)
    chosen = emptiest.gather(1, drawn)
    laid = tiles[torch.arange(count, device=images.device)[:, None], chosen]
    whole = laid.view(count, rows, columns, channels, *tile).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(count, channels, rows * tile[0], columns * tile[1])[:, :, :height, :width]


def replace_background(images: Tensor, objects: Tensor, backgrounds: Tensor) -> Tensor:
    """Lay the objects of pictures on other backgrounds.

    Args:
        images: (N, 3, H, W) floating point.
        objects: (N, h, w) in [0, 1], share of object; brought to the size of the pictures.
        backgrounds: (N, 3, H, W) floating point.

    Returns:
        (N, 3, H, W).

    Example:
        >>> ones, zeros = torch.ones(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
        >>> replace_background(ones, torch.tensor([[[1.0, 0.25]]]), zeros)[0, 0].tolist()
        [[1.0, 0.25]]
    """
    share = resize_maps(objects, (int(images.shape[2]), int(images.shape[3])))[:, None]
    return torch.lerp(backgrounds, images, share)
