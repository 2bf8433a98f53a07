"""The guidance losses of CRAYON-Attention (Eq. 1-4 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = ["attention_loss", "guidance_loss", "irrelevant_loss", "log_prior", "relevant_loss"]


def relevant_loss(current: Tensor, reference: Tensor, area_normalized: bool = False) -> Tensor:
    """Penalise attention outside a map that people found relevant (Eq. 1).

    ``L_rel = sum_hw M' (1 - M)``, divided by ``sum_hw (1 - M)`` in the area form.

    Args:
        current: M', (N, h, w) in [0, 1], the map of the model in training.
        reference: M, (N, h, w) in [0, 1], the map that was answered.
        area_normalized: Use the area form, which does not depend on the map's resolution.

    Returns:
        (N,) loss per sample, not negative.

    Example:
        >>> relevant_loss(torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[1.0, 0.0]]])).item()
        0.5
    """
    outside = 1 - reference
    return _overlap(current, outside, area_normalized)


def irrelevant_loss(current: Tensor, reference: Tensor, area_normalized: bool = False) -> Tensor:
    """Penalise attention inside a map that people found irrelevant (Eq. 2).

    ``L_irrel = sum_hw M' M``, divided by ``sum_hw M`` in the area form.

    Args:
        current: M', (N, h, w) in [0, 1], the map of the model in training.
        reference: M, (N, h, w) in [0, 1], the map that was answered.
        area_normalized: Use the area form, which does not depend on the map's resolution.

    Returns:
        (N,) loss per sample, not negative.

    Example:
        >>> irrelevant_loss(torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[1.0, 0.0]]])).item()
        1.0
    """
    return _overlap(current, reference, area_normalized)


def _overlap(current: Tensor, region: Tensor, area_normalized: bool) -> Tensor:
    overlap = (current * region).sum(dim=(1, 2))
    if not area_normalized:
        return overlap
    area = region.sum(dim=(1, 2))
    # A region of no area has no overlap either: the loss is 0, not 0/0, and so is its gradient.
    return overlap / torch.where(area > 0, area, 1.0)


def guidance_loss(
    current: Tensor,
    reference: Tensor,
    relevant: Tensor,
    irrelevant: Tensor,
    *,
    alpha: float,
    beta: float,
    num_relevant: int,
    num_irrelevant: int,
    area_normalized: bool = False,
) -> Tensor:
    """Sum the two guidance terms of Eq. 4 over a batch.

    ``alpha / |R| sum_R L_rel + beta / |I| sum_I L_irrel``; samples in neither
    set contribute nothing, whatever their maps hold.

    Args:
        current: M', (N, h, w) in [0, 1].
        reference: M, (N, h, w) in [0, 1].
        relevant: (N,) bool, sample is in R.
        irrelevant: (N,) bool, sample is in I.
        alpha: Weight of the relevant term.
        beta: Weight of the irrelevant term.
        num_relevant: |R| of the whole training set, not of the batch.
        num_irrelevant: |I| of the whole training set, not of the batch.
        area_normalized: Use the area form of both terms.

    Returns:
        Scalar, not negative.

    Example:
        >>> ones, yes, no = torch.ones(1, 2, 2), torch.tensor([True]), torch.tensor([False])
        >>> guidance_loss(ones, ones * 0.5, yes, no, alpha=3.0, beta=1.0, num_relevant=2, num_irrelevant=1).item()
        3.0
    """
    # No sample is picked out by index: that would make a GPU wait for the CPU in every step.
    answered = (relevant | irrelevant)[:, None, None]
    reference = torch.where(answered, reference, 0.5)
    weight_relevant = relevant.to(current.dtype) * (alpha / max(num_relevant, 1))
    weight_irrelevant = irrelevant.to(current.dtype) * (beta / max(num_irrelevant, 1))
    return (
        weight_relevant * relevant_loss(current, reference, area_normalized)
        + weight_irrelevant * irrelevant_loss(current, reference, area_normalized)
    ).sum()


def log_prior(labels: Tensor, num_classes: int) -> Tensor:
    """Give the logarithm of the share of every class.

    Added to the logits inside the cross entropy (and there alone), it makes rare classes win
    by a larger margin, so that the plain logits are fair to all classes: logit adjustment
    (Menon et al. 2021). Not part of the paper.

    Args:
        labels: (N,) int64 in [0, K), of the whole training set.
        num_classes: K.

    Returns:
        (K,) float32; a class without samples counts as if it had one.

    Example:
        >>> log_prior(torch.tensor([0, 0, 0, 1]), 2).exp().tolist()
        [0.75, 0.25]
    """
    counts = torch.bincount(labels, minlength=num_classes).clamp_min(1)
    return (counts / len(labels)).log()


def attention_loss(
    logits: Tensor,
    labels: Tensor,
    current: Tensor,
    reference: Tensor,
    relevant: Tensor,
    irrelevant: Tensor,
    *,
    alpha: float,
    beta: float,
    num_relevant: int,
    num_irrelevant: int,
    area_normalized: bool = False,
) -> Tensor:
    """The loss of CRAYON-Attention over a batch (Eq. 4).

    ``sum_n L_pred,n + alpha / |R| sum_R L_rel,n + beta / |I| sum_I L_irrel,n``
    with ``L_pred`` the cross entropy (Eq. 3), summed and not averaged.

    Args:
        logits: (N, K) floating point.
        labels: (N,) int64 in [0, K).
        current: M', (N, h, w) in [0, 1], made with ``create_graph=True``.
        reference: M, (N, h, w) in [0, 1].
        relevant: (N,) bool, sample is in R.
        irrelevant: (N,) bool, sample is in I.
        alpha: Weight of the relevant term.
        beta: Weight of the irrelevant term.
        num_relevant: |R| of the whole training set, not of the batch.
        num_irrelevant: |I| of the whole training set, not of the batch.
        area_normalized: Use the area form of both terms.

    Returns:
        Scalar.

    Example:
        >>> maps, no = torch.ones(2, 3, 3), torch.tensor([False, False])
        >>> loss = attention_loss(torch.zeros(2, 2), torch.tensor([0, 1]), maps, maps, no, no,
        ...                       alpha=1.0, beta=1.0, num_relevant=0, num_irrelevant=0)
        >>> round(loss.item(), 4)  # 2 ln 2: only the prediction counts
        1.3863
    """
    prediction = F.cross_entropy(logits, labels, reduction="sum")
    return prediction + guidance_loss(
        current,
        reference,
        relevant,
        irrelevant,
        alpha=alpha,
        beta=beta,
        num_relevant=num_relevant,
        num_irrelevant=num_irrelevant,
        area_normalized=area_normalized,
    )
