"""The cell probe: what answers say about cells of feature maps, carried to all cells of all pictures.

A yes says that the highlight lies on the object, a no that it does not. Logistic regression learns from the cells of
answered pictures what an object looks like; with it the object is found in pictures that nobody was asked about, and
where the highlight was elsewhere. Not part of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.functional.saliency import brightest_spot, resize_maps

__all__ = [
    "FINER",
    "AnsweredCells",
    "answered_cells",
    "area_under_curve",
    "cells_on_grid",
    "fit_logistic",
    "out_of_fold",
]

FINER = 2  # the grid of the cells, in cells of the map: where the middle stages of most networks are
_HIGHLIGHT, _LEFT_OUT = 0.5, 0.1  # of the map's maximum: above the one lies the highlight, below the other nothing does


@dataclass(frozen=True)
class AnsweredCells:
    """Cells that answers say something about.

    Attributes:
        features: (n, D) floating point.
        is_object: (n,) bool, what the answer says about the cell.
        weights: (n,) positive; object and other weigh the same in all, and so does every class within them.
        pictures: (n,) int64, which of the answered pictures a cell is of.
        highlighted: (n,) bool, whether it lay in the highlight or spot; the others were left out by a relevant one.
    """

    features: Tensor
    is_object: Tensor
    weights: Tensor
    pictures: Tensor
    highlighted: Tensor


def cells_on_grid(features: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Bring feature maps of several sizes to one grid, and put their channels one after the other.

    Args:
        features: At least one (N, C, h, w).
        size: (H, W) of the grid.

    Returns:
        (N, sum of C, H, W).

    Example:
        >>> cells_on_grid([torch.ones(2, 3, 4, 4), torch.ones(2, 5, 1, 1)], (2, 2)).shape
        torch.Size([2, 8, 2, 2])
    """
    return torch.cat([resize_maps(each.flatten(0, 1), size).view(*each.shape[:2], *size) for each in features], dim=1)


def answered_cells(
    features: Tensor,
    maps: Tensor,
    relevant: Tensor,
    labels: Tensor,
    spots: Tensor | None = None,
    certainty: Tensor | None = None,
) -> AnsweredCells:
    """Pick the cells of answered pictures that the answers are about.

    The highlight of a relevant map (half its maximum and more) is object, and what it leaves out (a tenth and less)
    is not; the highlight of an irrelevant map is not. Where the answer is about the brightest spot alone, that is the
    highlight ([`brightest_spot`][crayon_sdk.functional.saliency.brightest_spot]).

    Args:
        features: (N, D, H, W) floating point.
        maps: (N, h, w) in [0, 1], the answered maps; brought to the grid of the features.
        relevant: (N,) bool: relevant, else irrelevant.
        labels: (N,) int64 classes.
        spots: (N,) bool, the answer is about the brightest spot alone; default none.
        certainty: (N,) in (0, 1], how much an answer counts; default 1, as where all who were asked agree.

    Returns:
        The cells, picture by picture.

    Example:
        >>> maps = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> found = answered_cells(torch.rand(2, 3, 1, 2), maps, torch.tensor([True, False]), torch.zeros(2).long())
        >>> found.is_object.tolist(), found.pictures.tolist()
        ([True, False, False], [0, 0, 1])
    """
    size = (int(features.shape[2]), int(features.shape[3]))
    grid = resize_maps(maps, size).flatten(1)
    grid = grid / grid.amax(dim=1, keepdim=True).clamp(min=1e-12)
    inside = grid >= _HIGHLIGHT
    if spots is not None and bool(spots.any()):
        inside = torch.where(spots[:, None], brightest_spot(maps, size).flatten(1) > 0, inside)
    chosen = inside | ((grid <= _LEFT_OUT) & relevant[:, None])
    pictures, places = chosen.nonzero(as_tuple=True)
    highlighted = inside[pictures, places]
    is_object = highlighted & relevant[pictures]
    counts = torch.zeros(2 * len(maps), dtype=torch.float32, device=maps.device)
    of = 2 * pictures + highlighted
    weights = 1 / counts.index_add(0, of, torch.ones_like(of, dtype=torch.float32))[of]  # a picture counts once
    if certainty is not None:
        weights = weights * certainty[pictures]
    # Every class says as much as the others, of the object and of what is none; and these two of each other.
    kinds = torch.stack([is_object.long(), highlighted.long(), labels[pictures]], dim=1)
    _, kind = kinds.unique(dim=0, return_inverse=True)
    weights = weights / torch.zeros(int(kind.max()) + 1, device=maps.device).index_add(0, kind, weights)[kind]
    total = torch.zeros(2, device=maps.device).index_add(0, is_object.long(), weights)
    weights = weights / total[is_object.long()]
    return AnsweredCells(features.flatten(2)[pictures, :, places], is_object, weights, pictures, highlighted)


def fit_logistic(features: Tensor, targets: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """Fit a weighted logistic regression with a ridge penalty.

    Minimises ``sum w BCE(x b + c, y) / sum w + penalty / 2 |b|^2``.

    Args:
        features: (n, D) floating point, best standardised.
        targets: (n,) bool or in [0, 1].
        weights: (n,) not negative.
        penalty: Of the coefficients, not of the constant.

    Returns:
        (D + 1,) coefficients and, last, the constant.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> bool(fit_logistic(x, torch.tensor([False, True]), torch.ones(2), 0.01)[0] > 2)
        True
    """
    wanted, shares = targets.to(features.dtype), weights.to(features.dtype) / weights.sum()
    with torch.enable_grad():
        found = torch.zeros(features.shape[1] + 1, dtype=features.dtype, device=features.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([found], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            scores = features @ found[:-1] + found[-1]
            each = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
            loss = (shares * each).sum() + 0.5 * penalty * found[:-1].square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return found.detach()


def out_of_fold(cells: AnsweredCells, penalty: float, *, folds: int = 5, seed: int = 0) -> Tensor:
    """Score every cell by a probe that did not see its picture.

    Args:
        cells: Of answered pictures.
        penalty: As in `fit_logistic`.
        folds: How many parts the pictures are dealt into.
        seed: Of the dealing.

    Returns:
        (n,) log odds of being object; NaN where the other folds held only one kind of cells.

    Example:
        >>> x = torch.cat([torch.full((10, 1), -1.0), torch.full((10, 1), 1.0)])
        >>> cells = AnsweredCells(x, x[:, 0] > 0, torch.ones(20), torch.arange(20), torch.ones(20).bool())
        >>> bool(((out_of_fold(cells, 0.01) > 0) == cells.is_object).all())
        True
    """
    pictures = cells.pictures.unique()
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    fold_of = torch.empty(int(pictures.max()) + 1, dtype=torch.int64)
    fold_of[pictures.cpu()[order]] = torch.arange(len(pictures)) % folds
    folds_of = fold_of.to(cells.pictures.device)[cells.pictures]
    scores = torch.full_like(cells.weights, torch.nan)
    for fold in range(min(folds, len(pictures))):
        held = folds_of == fold
        known = cells.is_object[~held]
        if bool(known.any()) and not bool(known.all()):
            found = fit_logistic(cells.features[~held], known, cells.weights[~held], penalty)
            scores[held] = cells.features[held] @ found[:-1] + found[-1]
    return scores


def area_under_curve(scores: Tensor, positive: Tensor) -> float:
    """Probability that a positive one scores higher than another one; ties count half.

    Args:
        scores: (n,) finite.
        positive: (n,) bool.

    Returns:
        In [0, 1]; NaN where one of the two kinds is lacking.

    Example:
        >>> area_under_curve(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([False, True, True]))
        1.0
    """
    ones, others = scores[positive].double(), scores[~positive].double().sort().values
    if not len(ones) or not len(others):
        return float("nan")
    below = torch.searchsorted(others, ones, right=False) + torch.searchsorted(others, ones, right=True)
    return float(below.double().mean() / (2 * len(others)))
