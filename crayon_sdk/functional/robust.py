"""Weights for groups and samples, and a sparse last layer: for GroupDRO, DFR, AFR and loss-based sampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = [
    "balanced_rows",
    "error_weights",
    "extremes",
    "group_sums",
    "new_group_weights",
    "sparse_logistic",
]


def group_sums(losses: Tensor, groups: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Add losses up by group.

    Args:
        losses: (N,) floating point.
        groups: (N,) int64 in [0, G).
        num_groups: G.

    Returns:
        Sums (G,) and counts (G,), of the type of the losses.

    Example:
        >>> group_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3)
        (tensor([1., 0., 6.]), tensor([1., 0., 2.]))
    """
    member = F.one_hot(groups, num_groups).to(losses.dtype)
    return losses @ member, member.sum(dim=0)


def new_group_weights(
    log_weights: Tensor, means: Tensor, present: Tensor, step: float, *, absent: str = "keep"
) -> Tensor:
    """Raise the weights of the groups with high losses (Sagawa et al. 2020).

    ``q_g <- q_g exp(step l_g)``, divided by their sum. A group without a sample in the batch has no loss: with
    ``absent`` "keep" its weight stays what it is, and the others share the rest; with "decay", as published, its loss
    is taken for zero, so that it falls.

    Args:
        log_weights: (G,) logarithms of the q.
        means: (G,) mean losses; of groups that are not present, what is added to a loss of zero.
        present: (G,) bool, which groups the batch has.
        step: Eta.
        absent: "keep" or "decay".

    Returns:
        (G,) new logarithms, of weights that sum to one.

    Example:
        >>> uniform = torch.full((3,), 1 / 3).log()
        >>> losses, present = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([True, True, False])
        >>> [round(q, 3) for q in new_group_weights(uniform, losses, present, 1.0).exp().tolist()]
        [0.587, 0.079, 0.333]
        >>> [round(q, 3) for q in new_group_weights(uniform, losses, present, 1.0, absent="decay").exp().tolist()]
        [0.787, 0.107, 0.107]
    """
    raised = log_weights + step * means
    if absent == "decay":
        return raised - raised.logsumexp(dim=0)
    least = torch.finfo(raised.dtype).min
    share, held = (torch.where(present, each, least).logsumexp(dim=0) for each in (log_weights, raised))
    return torch.where(present, raised - held + share, log_weights)


def balanced_rows(groups: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many samples of every group as the smallest has.

    Args:
        groups: (N,) int64, on the CPU.
        generator: Draws them.

    Returns:
        Positions, int64, group by group.

    Example:
        >>> groups = torch.tensor([0, 0, 0, 1])
        >>> groups[balanced_rows(groups, torch.Generator().manual_seed(0))].tolist()
        [0, 1]
    """
    members = [(groups == group).nonzero().flatten() for group in groups.unique().tolist()]
    least = min(map(len, members))
    return torch.cat([each[torch.randperm(len(each), generator=generator)[:least]] for each in members])


def sparse_logistic(
    features: Tensor, labels: Tensor, num_classes: int, strength: float, *, steps: int = 2000, tolerance: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Logistic regression with an L1 penalty: ``min |W|_1 + C sum_n CE_n``; the biases are not penalised.

    By accelerated proximal gradients (FISTA, started again where it overshoots). With two classes the difference of
    both rows of W is the one row of the binary form with the same C.

    Args:
        features: (N, D) floating point, standardised.
        labels: (N,) int64 in [0, K).
        num_classes: K.
        strength: C; the smaller, the more of W is zero.
        steps: At most so many.
        tolerance: Ends when no weight moves further in a step, relative to the largest.

    Returns:
        W (K, D) and b (K,), float64 on the CPU.

    Example:
        >>> features, labels = torch.tensor([[1.0, 0.1], [-1.0, 0.1]]), torch.tensor([0, 1])
        >>> weight, bias = sparse_logistic(features, labels, 2, 10.0)
        >>> (features.double() @ weight.T + bias).argmax(dim=1).tolist(), bool((weight[:, 1] == 0).all())
        ([0, 1], True)
    """
    rows = F.pad(features.detach().cpu().double(), (0, 1), value=1.0)
    wanted = F.one_hot(labels.cpu(), num_classes).double()
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    # The Hessian of the cross entropy of a row x is at most x x' / 2.
    pace = 1 / (strength * 0.5 * torch.linalg.eigvalsh(gram)[-1].clamp_min(torch.finfo(rows.dtype).tiny))
    shrink = torch.full((rows.shape[1],), float(pace), dtype=rows.dtype)
    shrink[-1] = 0.0
    found = ahead = torch.zeros(num_classes, rows.shape[1], dtype=rows.dtype)
    inertia = 1.0
    for _ in range(steps):
        slope = strength * ((rows @ ahead.T).softmax(dim=1) - wanted).T @ rows
        moved = ahead - pace * slope
        new = moved.sign() * (moved.abs() - shrink).clamp_min(0)
        if bool(((ahead - new) * (new - found)).sum() > 0):
            inertia = 1.0
        following = (1 + (1 + 4 * inertia**2) ** 0.5) / 2
        ahead = new + (inertia - 1) / following * (new - found)
        change, found, inertia = float((new - found).abs().max()), new, following
        if change <= tolerance * max(float(found.abs().max()), 1e-12):
            break
    return found[:, :-1], found[:, -1]


def error_weights(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Weigh samples by how little a model believed in their label (Qiu et al. 2023).

    ``exp(-gamma p_y)``, divided by how many samples of that class there are, and then by the sum of all.

    Args:
        logits: (N, K) of the model.
        labels: (N,) int64 in [0, K).
        gamma: 0 gives every class the same weight, spread evenly.

    Returns:
        (N,) weights that sum to one.

    Example:
        >>> error_weights(torch.zeros(3, 2), torch.tensor([0, 0, 1]), 4.0).tolist()
        [0.25, 0.25, 0.5]
    """
    believed = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
    # The largest first: whatever gamma is, some weight stays above zero.
    weights = (-gamma * (believed - believed.min())).exp() / torch.bincount(labels)[labels]
    return weights / weights.sum()


def extremes(losses: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pick of every class the samples with the highest and those with the lowest loss (Ghaznavi et al. 2024).

    Where a shortcut goes with a class, the first are mostly those without it and the others those with it.

    Args:
        losses: (N,) of a model.
        labels: (N,) int64 in [0, K).
        count: How many of each; no class has less than twice as many.

    Returns:
        Positions, int64; and of each the number of its group: twice the class, and one more for a high loss.

    Example:
        >>> rows, groups = extremes(torch.tensor([0.1, 3.0, 0.5, 1.0]), torch.tensor([0, 0, 0, 0]), 1)
        >>> rows.tolist(), groups.tolist()
        ([0, 1], [0, 1])
    """
    found = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        order = members[losses[members].argsort(stable=True)]
        found += [(order[:count], 2 * label), (order[len(order) - count :], 2 * label + 1)]
    groups = torch.cat([torch.full_like(rows, number) for rows, number in found])
    return torch.cat([rows for rows, _ in found]), groups
