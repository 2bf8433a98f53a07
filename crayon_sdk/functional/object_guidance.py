"""Losses that compare a saliency map with an object that is known: energy in a box, distance from a mask.

For Bounding Box guidance and GradIA. The map comes from the features that the prediction is made of, so these losses
cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.functional.saliency import resize_maps, target_scores

__all__ = ["attention_target", "bounding_boxes", "energy_outside", "logits_and_signed_cam", "stretched"]


def bounding_boxes(masks: Tensor) -> Tensor:
    """Fill the smallest box around what is marked in every mask.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, H, W) bool; nothing where nothing is marked.

    Example:
        >>> bounding_boxes(torch.tensor([[[1, 0, 0], [0, 0, 1]]]).bool()).int().tolist()
        [[[1, 1, 1], [1, 1, 1]]]
    """
    return _between(masks.any(dim=2))[:, :, None] & _between(masks.any(dim=1))[:, None, :]


def energy_outside(maps: Tensor, boxes: Tensor, *, least: float = 1e-7) -> Tensor:
    """Share of the energy of a map that lies outside the box (Rao et al. 2023).

    ``1 - sum_box A / sum A`` with A the map brought to the size of the picture; ``1 - sum_box A`` where there is less
    than ``least`` energy in all, which asks for some.

    Args:
        maps: (N, h, w), not negative.
        boxes: (N, H, W) bool.
        least: Below it a map is taken for empty.

    Returns:
        (N,) in [0, 1].

    Example:
        >>> maps = torch.tensor([[[3.0, 1.0]], [[0.0, 0.0]]])
        >>> energy_outside(maps, torch.tensor([[[True, False]]]).expand(2, 1, 2)).tolist()
        [0.25, 1.0]
    """
    size = (int(boxes.shape[1]), int(boxes.shape[2]))
    if tuple(maps.shape[1:]) != size:
        maps = F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    inside, total = (maps * boxes).sum(dim=(1, 2)), maps.sum(dim=(1, 2))
    return 1 - inside / torch.where(total < least, 1.0, total)


def logits_and_signed_cam(
    features: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor, *, constant_weights: bool = False
) -> tuple[Tensor, Tensor]:
    """Run the head once and give the logits and the Grad-CAM map before its ReLU.

    ``sum_k w_k A_k`` with ``w_k = mean_ij d s / d A_kij``: what speaks against the target is negative.

    Args:
        features: (N, C, h, w) floating point.
        head: Maps (N, C, h, w) to logits (N, K), sample by sample.
        targets: (N,) int64 in [0, K).
        constant_weights: Take the ``w_k`` for numbers: then a loss of the map teaches the features alone, and not the
            head.

    Returns:
        Logits (N, K), and maps (N, h, w) of any sign, in a graph.

    Example:
        >>> linear = torch.nn.Linear(4, 2)
        >>> features, targets = torch.rand(3, 4, 5, 5), torch.tensor([0, 1, 0])
        >>> _, maps = logits_and_signed_cam(features, lambda each: linear(each.mean((2, 3))), targets)
        >>> torch.allclose(maps, torch.einsum("nk,nkhw->nhw", linear.weight[targets] / 25, features), atol=1e-6)
        True
    """
    with torch.enable_grad():
        if not features.requires_grad:
            features = features.detach().requires_grad_()
        logits = head(features)
        total = target_scores(logits, targets).sum()
        (gradient,) = torch.autograd.grad(total, features, create_graph=not constant_weights, retain_graph=True)
        return logits, torch.einsum("nc,nchw->nhw", gradient.mean(dim=(2, 3)), features)


def stretched(maps: Tensor, eps: float = 1e-8) -> Tensor:
    """Stretch every map over [0, 1]: ``(M - min) / (max - min)``.

    Args:
        maps: (N, h, w).
        eps: Least range; a map of one value becomes zeros.

    Returns:
        (N, h, w).

    Example:
        >>> stretched(torch.tensor([[[-1.0, 3.0]], [[2.0, 2.0]]])).tolist()
        [[[0.0, 1.0]], [[0.0, 0.0]]]
    """
    lowest, highest = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - lowest) / (highest - lowest).clamp_min(eps)


def attention_target(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """What a map ought to look like, from an object mask (Gao et al. 2022).

    The mask is brought to the grid by area, blurred with the weights 1, 2, 1 in both directions (beyond the edge its
    outermost values go on), and divided by its maximum.

    Args:
        masks: (N, H, W), 1 or true on the object.
        size: Grid (h, w) of the map.

    Returns:
        (N, h, w) float32 in [0, 1]; zeros where the mask is empty.

    Example:
        >>> attention_target(torch.tensor([[[1, 1, 0, 0, 0, 0]]]), (1, 3)).tolist()[0][0]
        [1.0, 0.3333333432674408, 0.0]
    """
    small = resize_maps(masks.float(), size)[:, None]
    line = torch.tensor([0.25, 0.5, 0.25], device=small.device)
    blurred = F.conv2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), (line[:, None] * line)[None, None])[:, 0]
    return blurred / blurred.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(blurred.dtype).tiny)


def _between(marked: Tensor) -> Tensor:
    """From the first to the last that is marked, (N, L) bool."""
    after, before = (each.int().cummax(dim=1).values.bool() for each in (marked, marked.flip(1)))
    return after & before.flip(1)
