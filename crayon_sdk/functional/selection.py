"""Which pictures to ask about first: those that cover the others, typical ones, or those that surprise the model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.functional.cells import fit_logistic

__all__ = ["foretell", "k_centre", "surprise", "typical", "would_change"]

_PENALTY = 10.0  # of the coefficients, times one over the number of answers, as of the cell probe


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


def typical(points: Tensor, count: int, *, seed: int = 0, rounds: int = 30) -> tuple[Tensor, Tensor]:
    """Find clusters of points and the most typical point of each, those of the largest clusters first.

    k-means from k-means++ (Arthur and Vassilvitskii 2007); of every cluster the point nearest to its mean.

    Args:
        points: (N, D) floating point.
        count: How many clusters at most; fewer where there are fewer different points.
        seed: Of where it starts.
        rounds: Of k-means at most.

    Returns:
        (k,) int64 positions of the typical points, and (N,) int64, which of them stands for each point.

    Example:
        >>> points = torch.tensor([[0.0], [9.0], [0.1], [9.2], [0.2]])
        >>> chosen, stands = typical(points, 2)
        >>> chosen.tolist(), stands.tolist()
        ([2, 1], [0, 1, 0, 1, 0])
    """
    generator = torch.Generator().manual_seed(seed)
    data = points.double().cpu()
    starts = [int(torch.randint(len(data), (1,), generator=generator))]
    far = _squared_distances(data, data[starts[0]])
    while len(starts) < count and bool(far.any()):
        starts.append(int(torch.multinomial(far, 1, generator=generator)))
        far = torch.minimum(far, _squared_distances(data, data[starts[-1]]))
    centres = data[starts]
    nearest = torch.cdist(data, centres).argmin(dim=1)
    for _ in range(rounds):
        sums = torch.zeros_like(centres).index_add(0, nearest, data)
        sizes = torch.bincount(nearest, minlength=len(centres))
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
        before, nearest = nearest, torch.cdist(data, centres).argmin(dim=1)
        if torch.equal(before, nearest):
            break
    sizes = torch.bincount(nearest, minlength=len(centres))
    order = [cluster for cluster in sizes.argsort(descending=True, stable=True).tolist() if sizes[cluster]]
    distances = torch.cdist(data, centres)
    chosen = [int(torch.where(nearest == each, distances[:, each], torch.inf).argmin()) for each in order]
    place = torch.zeros(len(centres), dtype=torch.int64)
    place[torch.tensor(order)] = torch.arange(len(order))
    return torch.tensor(chosen), place[nearest]


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


def foretell(points: Tensor, rows: Tensor, yes: Tensor) -> Tensor:
    """Foretell the answers about all points from those about some, by logistic regression.

    Yes and no weigh the same in all, as in the cell probe. Not part of the paper.

    Args:
        points: (N, D) floating point, standardised.
        rows: (A,) int64 positions of those that were answered.
        yes: (A,) bool.

    Returns:
        (N,) log odds of a yes; infinite, of one sign, where all answers are the same, and zeros without any.

    Example:
        >>> points = torch.tensor([[-1.0], [-0.9], [0.1], [1.0]])
        >>> (foretell(points, torch.tensor([0, 3]), torch.tensor([False, True])) > 0).tolist()
        [False, False, True, True]
    """
    if not len(rows):
        return points.new_zeros(len(points))
    if bool(yes.all()) or not bool(yes.any()):
        return points.new_full((len(points),), torch.inf if bool(yes.all()) else -torch.inf)
    counts = torch.where(yes, yes.sum(), (~yes).sum()).to(points.dtype)
    probe = fit_logistic(points[rows], yes, 1 / counts, _PENALTY / len(rows))
    return points @ probe[:-1] + probe[-1]


def would_change(points: Tensor, rows: Tensor, yes: Tensor, asked: int) -> float:
    """How much the next answer would change: the share of points foretold otherwise after a yes than after a no.

    Args:
        points: (N, D) floating point, standardised.
        rows: (A,) int64 positions of those that were answered.
        yes: (A,) bool.
        asked: Position of the one that would be answered next.

    Returns:
        In [0, 1].

    Example:
        >>> points = torch.tensor([[-1.0], [-0.9], [0.1], [1.0]])
        >>> would_change(points, torch.tensor([0]), torch.tensor([False]), 3)
        0.5
    """
    more = torch.cat([rows, rows.new_tensor([asked])])
    said = [foretell(points, more, torch.cat([yes, yes.new_tensor([each])])) > 0 for each in (True, False)]
    return float((said[0] != said[1]).float().mean())
