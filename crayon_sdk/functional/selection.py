"""Which pictures to ask about first: the ones that cover the others, and the ones that surprise the model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = ["k_centre", "surprise"]


def k_centre(points: Tensor, centres: Tensor | None = None, *, count: int | None = None) -> Tensor:
    """Put points in an order in which every next one is the farthest from all before (Gonzalez 1985).

    ``next = argmax_n min_c |x_n - x_c|`` over the centres and what was taken before. The first
    k of the order cover all points with at most twice the radius of the best possible k.
    Going on from what was taken gives the same order as one long call.

    Args:
        points: (N, D) floating point.
        centres: (M, D), what counts as taken already; without any, the first point is the first of the order.
        count: How many to order, from 0 to N; default all.

    Returns:
        (count,) int64 positions, different ones; of points equally far away the first.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [9.0], [5.0]])
        >>> k_centre(points).tolist(), k_centre(points, torch.tensor([[10.0]]), count=2).tolist()
        ([0, 2, 3, 1], [0, 3])
    """
    wanted = len(points) if count is None else min(count, len(points))
    nearest = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)
    for centre in points.new_empty(0, points.shape[1]) if centres is None else centres:
        nearest = torch.minimum(nearest, _squared_distances(points, centre))
    order = torch.empty(wanted, dtype=torch.int64, device=points.device)
    for position in range(wanted):
        chosen = nearest.argmax()
        order[position] = chosen
        nearest = torch.minimum(nearest, _squared_distances(points, points[chosen]))
        nearest[chosen] = -1  # for good: others that lie in the same place have 0, and come last
    return order


def _squared_distances(points: Tensor, centre: Tensor) -> Tensor:
    return (points - centre).square().sum(dim=1)


def surprise(logits: Tensor, targets: Tensor) -> Tensor:
    """How little a model expects the class whose evidence a map shows: ``-log p(target)``.

    For the label that is the loss: high where the label is against what the model learned, which
    is where the members of a minority are. For the predicted class it is the least confidence.

    Args:
        logits: (N, K) floating point.
        targets: (N,) int64 in [0, K).

    Returns:
        (N,), not negative.

    Example:
        >>> found = surprise(torch.tensor([[0.0, 0.0], [5.0, 0.0]]), torch.tensor([0, 0]))
        >>> [round(value, 2) for value in found.tolist()]
        [0.69, 0.01]
    """
    return F.cross_entropy(logits, targets, reduction="none")
