"""Losses that compare pairs of pictures: SoftCon, FLAC and CnC. They need float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = ["contrast_weights", "correct_contrastive_loss", "flac_loss", "soft_contrastive_loss"]


def soft_contrastive_loss(
    features: Tensor, labels: Tensor, bias: Tensor, rows: Tensor, *, temperature: float = 0.07
) -> Tensor:
    """Pull pictures of a class together, the more the less alike they are to a biased network (Hong and Yang 2021).

    ``m_ij = [y_i = y_j] (1 - cos(b_i, b_j))`` and ``log P_ij = u_i u_j / tau - log sum_{k != i} exp(u_i u_k / tau)``;
    the loss of i is the mean of ``-log P_ij`` weighted by ``m_ij``, and 0 where no ``m_ij`` is positive.

    Args:
        features: u, (N, d) floating point; scaled to length one here.
        labels: (N,) int64.
        bias: b, (N, e), features of the biased network; likewise.
        rows: (N,) int64, which picture each one is a view of. Views of one picture do not pull each other, which
            rounding of the cosine would decide otherwise.
        temperature: tau.

    Returns:
        Scalar, the mean over N.

    Example:
        Only the first two have the class in common:

        >>> u, b = torch.eye(3), torch.eye(3)
        >>> loss = soft_contrastive_loss(u, torch.tensor([0, 0, 1]), b, torch.arange(3), temperature=1.0)
        >>> round(loss.item(), 4)  # 2/3 ln 2
        0.4621
    """
    u, b = F.normalize(features, dim=1), F.normalize(bias, dim=1)
    itself = torch.eye(len(u), dtype=torch.bool, device=u.device)
    weights = (1 - b @ b.T).clamp_min(0) * (labels[:, None] == labels) * (rows[:, None] != rows)
    scores = u @ u.T / temperature
    log_shares = scores - scores.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    total = weights.sum(dim=1)
    each = -(weights * log_shares).sum(dim=1) / torch.where(total > 0, total, 1)
    # A batch of one has no pairs, and the logarithm of an empty sum is no number.
    return each.mean() if len(u) > 1 else (features * 0).sum()


def contrast_weights(
    bias: Tensor, labels: Tensor, *, ratio: float, most: int = 1024, generator: torch.Generator | None = None
) -> Tensor:
    """How often each picture is drawn for the contrast: the more, the less it is like its class (Hong and Yang 2021).

    ``s_n`` is the sum of ``1 - cos(b_n, b_m)`` over some random m of the class, not more than ``ratio`` times the
    smallest.

    Args:
        bias: b, (N, e), features of the biased network.
        labels: (N,) int64.
        ratio: Between the largest and the smallest.
        most: How many m; all of a class that has no more.
        generator: Draws them, on the CPU.

    Returns:
        (N,) not negative, as if each class had as many m; all ones where a picture is like all others.

    Example:
        >>> bias = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> contrast_weights(bias, torch.zeros(3, dtype=torch.int64), ratio=10.0).argmax().item()
        2
    """
    b = F.normalize(bias, dim=1)
    sums = b.new_zeros(len(b))
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten()
        drawn = own[torch.randperm(len(own), generator=generator)[:most].to(own.device)]
        sums[own] = (1 - b[own] @ b[drawn].mean(dim=0)).clamp_min(0)
    least = sums.min()
    return torch.ones_like(sums) if not least > 1e-6 else sums.clamp_max(ratio * least)


def flac_loss(features: Tensor, labels: Tensor, bias: Tensor) -> Tensor:
    """Make pairs alike that differ to a biased network, and the other way round (Sarridis et al. 2025).

    ``s_ij = 1 / (1 + d_ij^0.5)`` from the distances of b, ``t_ij`` from those of u. The pairs P are those of one class
    that b finds unlike, and those of two classes that it finds alike: s below, above the middle between its extremes in
    the batch. With ``a_ij = (1 - s_ij) / sum_P_i (1 - s)`` and ``c_ij = t_ij / sum_P_i t`` the loss is the mean over P
    of ``(a - c)(log a - log c)``; only c has a gradient.

    Args:
        features: u, (N, d) float32; scaled to length one here.
        labels: (N,) int64.
        bias: b, (N, e), features of the biased network; likewise.

    Returns:
        Scalar, not negative; 0 where there are no such pairs.

    Example:
        >>> u = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> flac_loss(u, torch.tensor([0, 1]), u).item()  # of two classes, and unlike: no pair
        0.0
    """
    theirs = _similarity(F.normalize(bias, dim=1)).detach()
    ours = _similarity(F.normalize(features, dim=1))
    middle = (theirs.max() + theirs.min()) / 2
    same = labels[:, None] == labels
    pairs = torch.where(same, theirs < middle, theirs > middle)
    zero = torch.zeros_like(ours)
    wanted, found = torch.where(pairs, 1 - theirs, zero), torch.where(pairs, ours, zero)
    wanted = wanted / (wanted.sum(dim=1, keepdim=True) + 1e-7)
    found = found / (found.sum(dim=1, keepdim=True) + 1e-7)
    # Elsewhere both are 1, so that neither the logarithm nor its gradient is infinite.
    log_ratio = torch.where(pairs, wanted, 1).log() - torch.where(pairs, found, 1).log()
    return ((wanted - found) * log_ratio).sum() / pairs.sum().clamp_min(1)


def _similarity(units: Tensor) -> Tensor:
    squares = units.square().sum(dim=1)
    squared = (squares[:, None] + squares - 2 * units @ units.T).clamp_min(0) + 1e-6
    return 1 / (1 + squared**0.25)


def correct_contrastive_loss(
    anchors: Tensor, positives: Tensor, negatives: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """Pull anchors towards pictures of their class that were taken for another, away from those taken for theirs.

    ``L(x; P, N) = -mean_{p in P} [x p / tau - log(sum_{n in N} exp(x n / tau) + sum_{p in P} exp(x p / tau))]`` with
    all vectors of length one (Zhang et al. 2022).

    Args:
        anchors: x, (A, d) floating point.
        positives: P, (P, d), P >= 1.
        negatives: N, (M, d); none is allowed.
        temperature: tau.

    Returns:
        (A,) loss per anchor.

    Example:
        >>> x = torch.tensor([[1.0, 0.0]])
        >>> round(correct_contrastive_loss(x, x, x, temperature=1.0).item(), 4)  # ln 2
        0.6931
    """
    x, p, n = (F.normalize(each, dim=1) for each in (anchors, positives, negatives))
    to_positives = x @ p.T / temperature
    everything = torch.cat([x @ n.T / temperature, to_positives], dim=1)
    return everything.logsumexp(dim=1) - to_positives.mean(dim=1)
