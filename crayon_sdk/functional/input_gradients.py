"""Losses that go through the picture: gradients at its pixels, and pictures whose surroundings are shuffled.

For the methods that are told where the object is (RRR, GradMask, ActDiff). A penalty is a sum over pixels and channels,
so that its weight belongs to a size of picture.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = ["activation_difference", "grad_mask_penalty", "margins", "right_reasons_penalty", "shuffle_outside"]


def right_reasons_penalty(logits: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """Square of what moves the log probabilities outside the object (Ross, Hughes and Doshi-Velez 2017).

    ``sum_pixels ((1 - S) d/dx sum_k log p_k)^2``. For two classes that is the gradient of ``z_0 - z_1`` times ``p_1 -
    p_0``: nothing where the model is unsure.

    Args:
        logits: (N, K) floating point, made of ``images``.
        images: (N, C, H, W) that require a gradient.
        masks: (N, H, W), S: 1 or true on the object.

    Returns:
        (N,) penalties, not negative, through which weights can be trained.

    Example:
        >>> images = torch.tensor([[[[0.5, 2.0]]]], requires_grad=True)
        >>> logits = torch.stack([3 * images[:, 0, 0, 1], 0 * images[:, 0, 0, 0]], dim=1)  # class 0 by the right pixel
        >>> right_reasons_penalty(logits, images, torch.tensor([[[1, 0]]])).item() > 1
        True
        >>> right_reasons_penalty(logits, images, torch.tensor([[[0, 1]]])).item()
        0.0
    """
    gradient = _input_gradient(logits.log_softmax(dim=1).sum(), images)
    return _outside(gradient, masks).square().sum(dim=(1, 2, 3))


def grad_mask_penalty(logits: Tensor, images: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
    """Size of what moves the margin of the label outside the object (Simpson et al. 2019).

    ``sum_pixels |(1 - S) d/dx (z_y - max_{k != y} z_k)|``. For two classes that is ``|d |z_0 - z_1| / dx|``, as it is
    published; for more it is an extension.

    Args:
        logits: (N, K) floating point, made of ``images``; K >= 2.
        images: (N, C, H, W) that require a gradient.
        labels: (N,) int64 in [0, K).
        masks: (N, H, W), S: 1 or true on the object.

    Returns:
        (N,) penalties, not negative, through which weights can be trained.

    Example:
        >>> images = torch.tensor([[[[0.5, 2.0]]]], requires_grad=True)
        >>> logits = torch.stack([3 * images[:, 0, 0, 1], 2 * images[:, 0, 0, 0]], dim=1)
        >>> grad_mask_penalty(logits, images, torch.tensor([0]), torch.tensor([[[1, 0]]])).item()
        3.0
    """
    gradient = _input_gradient(margins(logits, labels).sum(), images)
    return _outside(gradient, masks).abs().sum(dim=(1, 2, 3))


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the label leads: ``z_y - max_{k != y} z_k``.

    Args:
        logits: (N, K), K >= 2.
        labels: (N,) int64 in [0, K).

    Returns:
        (N,), negative where another class leads.

    Example:
        >>> margins(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([1])).item()
        -2.0
    """
    is_other = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels[:, None], False)
    others = logits[is_other].view(len(logits), -1)
    return logits.gather(1, labels[:, None])[:, 0] - others.amax(dim=1)


def shuffle_outside(images: Tensor, masks: Tensor, keys: Tensor) -> Tensor:
    """Shuffle the pixels of every picture that are not on the object among themselves, all channels together.

    Args:
        images: (N, C, H, W).
        masks: (N, H, W) bool, true on the object.
        keys: (N, H, W) random numbers below infinity, by whose order the pixels are laid out anew.

    Returns:
        (N, C, H, W); what is on the object stays.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> keys = torch.tensor([[[0.9, 0.1, 0.5, 0.2]]])  # the last one is first, then the third, then the first
        >>> shuffle_outside(images, torch.tensor([[[False, True, False, False]]]), keys).tolist()
        [[[[4.0, 2.0, 3.0, 1.0]]]]
    """
    count, channels = images.shape[:2]
    inside = masks.flatten(1)
    # Both lists hold the pixels outside first, these in random and those in ascending order, then the others alike.
    source = keys.flatten(1).masked_fill(inside, torch.inf).argsort(dim=1, stable=True)
    target = inside.to(torch.uint8).argsort(dim=1, stable=True)
    order = torch.empty_like(source).scatter(1, target, source)
    return images.flatten(2).gather(2, order[:, None].expand(count, channels, -1)).view_as(images)


def activation_difference(features: Tensor, others: Tensor) -> Tensor:
    """Distance of the features of a picture from those of another form of it (Viviano et al. 2021).

    ``|f(x) - f(x')|_2``, not squared; 1e-6 is added to every difference, so that it has a gradient at zero.

    Args:
        features: (N, D) floating point.
        others: (N, D).

    Returns:
        (N,) distances.

    Example:
        >>> round(activation_difference(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item(), 4)
        5.0
    """
    return F.pairwise_distance(features, others, eps=1e-6)


def _input_gradient(total: Tensor, images: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    return gradient


def _outside(gradient: Tensor, masks: Tensor) -> Tensor:
    return gradient * (1 - masks.to(gradient.dtype))[:, None]
