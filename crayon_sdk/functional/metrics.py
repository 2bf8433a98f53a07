"""How right a classifier is, in which group, and where it looks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "background_gap",
    "energy_inside",
    "group_accuracy",
    "mean_group",
    "paired_bootstrap",
    "sign_test",
    "weighted_mean",
    "wilson_interval",
    "worst_group",
]


def group_accuracy(correct: Tensor, groups: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Accuracy within every group.

    Args:
        correct: (N,) bool.
        groups: (N,) int64 in [0, num_groups).
        num_groups: Number of groups G.

    Returns:
        Accuracy (G,) float64 in [0, 1], NaN for a group without samples; counts (G,) int64.

    Example:
        >>> accuracy, counts = group_accuracy(torch.tensor([True, False, True]), torch.tensor([0, 0, 1]), 2)
        >>> accuracy.tolist(), counts.tolist()
        ([0.5, 1.0], [2, 1])
    """
    counts = torch.bincount(groups, minlength=num_groups)
    right = torch.bincount(groups, weights=correct.double(), minlength=num_groups)
    return right / counts, counts


def worst_group(accuracy: Tensor) -> float:
    """Worst-group accuracy (WGA): the minimum over the groups that have samples.

    Example:
        >>> worst_group(torch.tensor([0.9, 0.2, float("nan")], dtype=torch.float64))
        0.2
    """
    return float(_present(accuracy).min())


def mean_group(accuracy: Tensor) -> float:
    """Mean-group accuracy (MGA): the unweighted mean over the groups that have samples.

    Example:
        >>> mean_group(torch.tensor([0.75, 0.25, float("nan")], dtype=torch.float64))
        0.5
    """
    return float(_present(accuracy).mean())


def weighted_mean(accuracy: Tensor, weights: Tensor) -> float:
    """Mean over groups, weighted (by the groups' sizes in training, as some papers do).

    Args:
        accuracy: (G,) float64; NaN groups are left out.
        weights: (G,) not negative, for instance counts in the training set.

    Returns:
        Mean in [0, 1]; NaN when no group has both samples and weight.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([3, 1]))
        0.75
    """
    present = ~accuracy.isnan()
    weight = weights.double() * present
    return float((accuracy.nan_to_num() * weight).sum() / weight.sum())


def _present(accuracy: Tensor) -> Tensor:
    present = accuracy[~accuracy.isnan()]
    if not len(present):
        raise ValueError("no group has any samples")
    return present


def background_gap(accuracy_mixed_same: float, accuracy_mixed_rand: float) -> float:
    """BG-Gap of the Backgrounds Challenge: accuracy(Mixed-Same) - accuracy(Mixed-Rand).

    Example:
        >>> round(background_gap(0.91, 0.78), 2)
        0.13
    """
    return accuracy_mixed_same - accuracy_mixed_rand


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of a map's energy that lies on the object.

    Args:
        maps: (N, h, w), not negative.
        masks: (N, h, w) in [0, 1], the part of every cell that the object covers.

    Returns:
        (N,) in [0, 1]; NaN for a map of zeros.

    Example:
        >>> energy_inside(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])).item()
        0.75
    """
    return (maps * masks).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))


def wilson_interval(correct: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval of a proportion (95 % unless told otherwise).

    Args:
        correct: Number of successes, 0 <= correct <= total.
        total: Number of trials, positive.
        z: Quantile of the normal distribution.

    Returns:
        Lower and upper limit in [0, 1].

    Example:
        >>> tuple(round(limit, 3) for limit in wilson_interval(8, 10))
        (0.49, 0.943)
    """
    share = correct / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    # The share itself always lies within; without saying so, rounding can put 1.0 above its own upper limit.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def sign_test(lost: int, won: int) -> float:
    """How likely at least so many losses are, where either is as likely (exact McNemar test, one-sided).

    Args:
        lost: Samples that only the first of two models has right.
        won: Samples that only the second has right.

    Returns:
        Probability in (0, 1].

    Example:
        >>> sign_test(5, 0), sign_test(0, 0)
        (0.03125, 1.0)
    """
    total = lost + won
    return math.fsum(math.comb(total, each) / 2**total for each in range(lost, total + 1))


def paired_bootstrap(
    correct: Tensor,
    groups: Tensor,
    num_groups: int,
    *,
    clusters: Tensor | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Tensor:
    """Group accuracies of several models on resampled test sets, the same ones for every model.

    Samples are drawn with replacement within each group, so that groups keep their sizes.
    Differences between models in the same resample tell whether a difference exceeds the
    noise of the test set (not that of training).

    Samples that are not independent, such as one object on two backgrounds, are drawn together: whole clusters
    with replacement among those whose samples lie in the same groups. Where every sample is a cluster of its own,
    that is the same. Groups then keep their sizes as far as clusters are of one size.

    Args:
        correct: (K, N) bool, K models on the same N samples.
        groups: (N,) int64 in [0, num_groups).
        num_groups: Number of groups G.
        clusters: (N,) int64 >= 0, which samples belong together; ``None`` for none.
        resamples: How many test sets R are drawn, at least 1.
        seed: Of the draws.

    Returns:
        (R, K, G) float64 in [0, 1]; NaN for a group without samples.

    Example:
        >>> correct = torch.tensor([[True, True, False, False], [True, True, True, True]])
        >>> found = paired_bootstrap(correct, torch.tensor([0, 0, 1, 1]), 2, resamples=5)
        >>> found.shape, found[:, 1].unique().tolist(), found[0, 0].tolist()
        (torch.Size([5, 2, 2]), [1.0], [1.0, 0.0])
    """
    if clusters is not None:
        return _cluster_bootstrap(correct, groups, num_groups, clusters, resamples, seed)
    generator = torch.Generator().manual_seed(seed)
    found = torch.full((resamples, len(correct), num_groups), torch.nan, dtype=torch.float64)
    for group in range(num_groups):
        own = correct[:, groups == group].double()
        size = own.shape[1]
        if not size:
            continue
        chunk = max(1, 10_000_000 // own.numel())  # 80 MB at a time, however large the test set
        for start in range(0, resamples, chunk):
            drawn = torch.randint(size, (min(chunk, resamples - start), size), generator=generator)
            found[start : start + chunk, :, group] = own[:, drawn].mean(dim=2).T
    return found


def _cluster_bootstrap(
    correct: Tensor, groups: Tensor, num_groups: int, clusters: Tensor, resamples: int, seed: int
) -> Tensor:
    models = len(correct)
    _, cluster = clusters.unique(return_inverse=True)
    number = int(cluster.max()) + 1 if len(cluster) else 0
    cell = cluster * num_groups + groups
    # (C, K + 1, G): what every cluster adds to the right answers of each model, and to the samples, of each group.
    ones = torch.ones(1, len(groups), dtype=torch.float64)
    sums = torch.zeros(models + 1, number * num_groups, dtype=torch.float64)
    sums.index_add_(1, cell, torch.cat([correct.double(), ones]))
    adds = sums.view(models + 1, number, num_groups).transpose(0, 1)
    _, stratum = (adds[:, -1] > 0).unique(dim=0, return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(resamples, (models + 1) * num_groups, dtype=torch.float64)
    for own in (adds[stratum == each].flatten(1) for each in stratum.unique()):
        size = len(own)
        chunk = max(1, 10_000_000 // size)  # 80 MB at a time
        for start in range(0, resamples, chunk):
            drawn = torch.randint(size, (min(chunk, resamples - start), size), generator=generator)
            times = torch.zeros(drawn.shape, dtype=torch.float64).scatter_add_(
                1, drawn, torch.ones(1).double().expand_as(drawn)
            )
            total[start : start + chunk] += times @ own
    total = total.view(resamples, models + 1, num_groups)
    return total[:, :-1] / total[:, -1:]
