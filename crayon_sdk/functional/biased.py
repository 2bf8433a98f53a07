"""What a second network, trained to be biased, says about each sample: LfF and LC."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = [
    "batch_prior",
    "bias_counts",
    "generalized_cross_entropy",
    "logit_correction",
    "mixing_range",
    "relative_difficulty",
    "same_class_partners",
]


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float = 0.7) -> Tensor:
    """Cross entropy in which samples count by how likely their class is already, so that the easy ones are learned.

    ``q p_y^q CE`` with ``p_y^q`` as a constant: its gradient is that of ``1 - p_y^q``, which is ``q`` times that of the
    generalised cross entropy ``(1 - p_y^q) / q`` (Zhang and Sabuncu 2018), in the form of Nam et al. 2020.

    Args:
        logits: (N, K) floating point.
        labels: (N,) int64 in [0, K).
        q: In (0, 1]; the larger, the more the easy ones count.

    Returns:
        (N,) loss per sample.

    Example:
        >>> sure, unsure = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> round(generalized_cross_entropy(unsure, torch.tensor([0]), q=1.0).item(), 4)  # 0.5 ln 2
        0.3466
    """
    loss = F.cross_entropy(logits, labels, reduction="none")
    return q * (-q * loss.detach()).exp() * loss


def relative_difficulty(biased: Tensor, debiased: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """How hard a sample is for the biased network, of what it is for both (Nam et al. 2020).

    ``W_n = e_b,n / (e_b,n + e_d,n + 1e-8)``, with each ``e`` divided by its maximum over the samples of the class.

    Args:
        biased: (N,) smoothed losses of the biased network, not negative; 0 for samples that were not seen yet.
        debiased: (N,) those of the other.
        labels: (N,) int64 in [0, K).
        num_classes: K.

    Returns:
        (N,) in [0, 1): near one where only the bias speaks against the class.

    Example:
        >>> relative_difficulty(torch.tensor([4.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([0, 0]), 1).tolist()
        [0.5, 0.20000000298023224]
    """
    shares = []
    for loss in (biased, debiased):
        most = loss.new_zeros(num_classes).scatter_reduce(0, labels, loss, "amax")
        shares.append(loss / most[labels].clamp_min(torch.finfo(loss.dtype).tiny))
    return shares[0] / (shares[0] + shares[1] + 1e-8)


def bias_counts(pseudo: Tensor, labels: Tensor) -> Tensor:
    """How many samples of each class there are under each bias, in shares of samples.

    Args:
        pseudo: (N, K) probabilities of the biased network: how much each class is the bias of a sample.
        labels: (N,) int64 in [0, K).

    Returns:
        (K, K), classes by biases, of sum N.

    Example:
        >>> bias_counts(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 0])).tolist()
        [[1.5, 0.5], [0.0, 0.0]]
    """
    size = pseudo.shape[1]
    return pseudo.new_zeros(size, size).index_add(0, labels, pseudo)


def batch_prior(pseudo: Tensor, labels: Tensor) -> Tensor:
    """How likely each class is under each bias, as a batch alone shows it: the published code of Liu et al. 2023.

    Not shares of samples, as `bias_counts` has them: a class that is rare under a bias is made out to be rarer still by
    a biased network that is sure of itself, and one that does not occur in the batch to be impossible.

    With ``a_i`` the bias of sample i, the class that the biased network gives it: ``P[y, a]`` is the mean of
    ``pseudo_i[y]`` over the samples of class y and bias a, divided by the sum of its column.

    Args:
        pseudo: (N, K) probabilities of the biased network.
        labels: (N,) int64 in [0, K).

    Returns:
        (K, K), classes by biases; a column without samples is zero.

    Example:
        >>> pseudo = torch.tensor([[0.75, 0.25], [0.75, 0.25]])
        >>> [round(share, 4) for share in batch_prior(pseudo, torch.tensor([0, 1]))[:, 0].tolist()]
        [0.75, 0.25]
    """
    size = pseudo.shape[1]
    cells = labels * size + pseudo.argmax(dim=1)
    own = pseudo.gather(1, labels[:, None])[:, 0]
    sums = own.new_zeros(size * size).index_add(0, cells, own)
    counts = own.new_zeros(size * size).index_add(0, cells, torch.ones_like(own))
    means = (sums / (counts + 1e-4)).view(size, size)
    return means / means.sum(dim=0).clamp_min(torch.finfo(own.dtype).tiny)


def logit_correction(prior: Tensor, eta: float = 1.0) -> Tensor:
    """What is added to the logits in training: ``log(prior^eta + 1e-4)`` (Liu et al. 2023).

    Args:
        prior: (N, K), of each sample's bias how likely each class is.
        eta: How much of it; 0 adds nothing.

    Example:
        >>> logit_correction(torch.tensor([[1.0, 0.0]]), 0.0).tolist()
        [[0.0, 0.0]]
    """
    # Not log(1 + 1e-4), which changes no prediction but the last bit.
    return torch.zeros_like(prior) if eta == 0 else (prior**eta + 1e-4).log()


def same_class_partners(labels: Tensor, bias: Tensor) -> Tensor:
    """Draw for each sample of a batch one of its class that goes against its bias (Liu et al. 2023).

    Args:
        labels: (N,) int64.
        bias: (N,) int64, the class that the biased network gives; against its bias is who is of another class.

    Returns:
        (N,) int64 positions, from the global random numbers; any of the class where none goes against its bias, which
        may be the sample itself.

    Example:
        >>> same_class_partners(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])).tolist()
        [1, 1, 2]
    """
    same = labels[:, None] == labels[None]
    against = same & (bias != labels)[None]
    allowed = torch.where(against.any(dim=1, keepdim=True), against, same)
    return (torch.rand(same.shape, device=same.device) + allowed).argmax(dim=1)


def mixing_range(progress: float, most: float = 0.5) -> tuple[float, float]:
    """Between which shares a picture is mixed with its partner: ``[1 - 2r, 1 - r]`` (Liu et al. 2023).

    ``r = most exp(-5 (1 - progress)^2)``: hardly at first, then more and more.

    Args:
        progress: In [0, 1].
        most: r at the end.

    Example:
        >>> mixing_range(1.0)
        (0.0, 0.5)
    """
    r = most * math.exp(-5 * (1 - min(progress, 1.0)) ** 2)
    return 1 - 2 * r, 1 - r
