"""Hiding what a model looks at: MaskTune."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from crayon_sdk.functional.saliency import resize_maps

__all__ = ["kept_pixels", "xgrad_cam"]


def xgrad_cam(features: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor | None = None) -> Tensor:
    """XGrad-CAM maps of a head (Fu et al. 2020).

    ``ReLU(sum_k w_k A_k)`` with ``w_k = sum_ij A_kij g_kij / sum_ij A_kij`` and g the gradient of the target's logit.
    For a ReLU network that pools and ends in one linear layer it is Grad-CAM, but for a factor.

    Args:
        features: A, (N, C, h, w) floating point.
        head: Maps (N, C, h, w) to logits (N, K), sample by sample.
        targets: (N,) int64 in [0, K); ``None`` takes the predicted class.

    Returns:
        (N, h, w), not negative, not normalised.

    Example:
        >>> head = lambda features: features.mean((2, 3))
        >>> xgrad_cam(torch.tensor([[[[0.0, 2.0]]]]), head).tolist()
        [[[0.0, 1.0]]]
    """
    with torch.enable_grad():
        features = features.detach().requires_grad_()
        logits = head(features)
        chosen = logits.argmax(dim=1) if targets is None else targets
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), features)
    features = features.detach()
    total = features.sum(dim=(2, 3))
    # A channel that is silent has no weight; one whose values cancel out has no share that means anything.
    safe = total.abs() > 1e-7
    weights = torch.where(safe, (features * gradient).sum(dim=(2, 3)) / torch.where(safe, total, 1), 0)
    return torch.relu(torch.einsum("nc,nchw->nhw", weights, features))


def kept_pixels(maps: Tensor, size: tuple[int, int], *, deviations: float = 2.0) -> Tensor:
    """Which pixels stay when the brightest ones of a map are hidden (Asgari Taghanaki et al. 2022).

    The map is brought to [0, 1] and to the size of the picture; hidden is what lies above the mean of its positive
    values by so many of their standard deviations.

    Args:
        maps: (N, h, w), not negative.
        size: (H, W) of the pictures.
        deviations: How bright a pixel must be to be hidden.

    Returns:
        (N, H, W) bool, false where hidden; a map without positive values hides nothing.

    Example:
        >>> kept_pixels(torch.tensor([[[0.0, 0.2, 0.2, 0.9]]]), (1, 4), deviations=0.0).tolist()
        [[[True, True, True, False]]]
    """
    least, most = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = most - least
    fine = resize_maps(torch.where(span > 0, (maps - least) / torch.where(span > 0, span, 1), 0), size)
    positive = fine > 0
    count = positive.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    mean = fine.sum(dim=(1, 2), keepdim=True) / count
    variance = (torch.where(positive, fine - mean, 0) ** 2).sum(dim=(1, 2), keepdim=True) / count
    return fine <= mean + deviations * variance.sqrt()
