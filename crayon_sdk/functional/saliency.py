"""Grad-CAM on a split model, and what is done with its maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = [
    "brightest_spot",
    "grad_cam",
    "has_evidence",
    "logits_and_grad_cam",
    "normalize_maps",
    "resample_maps",
    "resize_maps",
    "target_scores",
    "weighted_activation",
]


def weighted_activation(features: Tensor, gradient: Tensor) -> Tensor:
    """Sum feature channels by their mean gradient and keep the positive part.

    ``ReLU(sum_k w_k A_k)`` with ``w_k`` the mean of the gradient over the map.

    Args:
        features: (N, C, h, w) floating point.
        gradient: (N, C, h, w), gradient of a scalar per sample in ``features``.

    Returns:
        (N, h, w), not negative, not normalised.

    Example:
        >>> features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
        >>> weighted_activation(features, torch.ones_like(features)).tolist()
        [[[4.0, 2.0]]]
    """
    weights = gradient.mean(dim=(2, 3))
    return torch.relu(torch.einsum("nc,nchw->nhw", weights, features))


def target_scores(logits: Tensor, targets: Tensor, score: str = "logit") -> Tensor:
    """The number per sample whose evidence a map shows.

    ``"logit"`` is ``s_y``, as in the paper. ``"margin"`` is ``s_y - log sum_{c != y} exp s_c``,
    the log odds of the target: what speaks *against* the other classes is evidence too,
    and adding a constant to all logits, which changes no prediction, changes no map.

    Args:
        logits: (N, K) floating point; K >= 2 for the margin.
        targets: (N,) int64 in [0, K).
        score: "logit" or "margin".

    Returns:
        (N,).

    Example:
        >>> target_scores(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), "margin").item()
        2.0
    """
    chosen = logits.gather(1, targets[:, None])
    if score == "logit":
        return chosen[:, 0]
    # Left out, not set to -inf: that is 0 in the sum and in its gradient, but NaN in the second derivative. By numbers,
    # not by a mask: how many there are in a mask a GPU is asked and waited for.
    numbers = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, numbers + (numbers >= targets[:, None]))
    return chosen[:, 0] - others.logsumexp(dim=1)


def logits_and_grad_cam(
    features: Tensor,
    head: Callable[[Tensor], Tensor],
    targets: Tensor | None = None,
    *,
    score: str = "logit",
    create_graph: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run the head once and give both the logits and the Grad-CAM map of each sample.

    ``w_k = mean_ij d s / d A_kij`` and ``map = ReLU(sum_k w_k A_k)`` for the
    target logit ``s`` (Selvaraju et al. 2017). Only the head is differentiated,
    so a training step needs one forward pass of the trunk for prediction and map.

    Args:
        features: (N, C, h, w) floating point; need not require a gradient.
        head: Maps (N, C, h, w) to logits (N, K), sample by sample.
        targets: (N,) int64 in [0, K); ``None`` takes the predicted class.
        score: What is differentiated, "logit" or "margin"; see
            [`target_scores`][crayon_sdk.functional.saliency.target_scores].
        create_graph: Keep the graph, so that the map can stand in a loss.

    Returns:
        Logits (N, K), and maps (N, h, w) that are not negative and not normalised.
        With ``create_graph=False`` the maps are detached; the logits are only
        connected to ``features`` when a graph is kept or they came with one.

    Example:
        >>> head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> logits, maps = logits_and_grad_cam(torch.rand(3, 4, 5, 5), head, torch.tensor([0, 1, 0]))
        >>> tuple(logits.shape), tuple(maps.shape)
        ((3, 2), (3, 5, 5))
    """
    with torch.enable_grad():
        if not features.requires_grad:
            features = features.detach().requires_grad_()
        logits = head(features)
        chosen = logits.argmax(dim=1) if targets is None else targets
        # Samples do not mix in the head, so the gradient of the sum holds each sample's own.
        total = target_scores(logits, chosen, score).sum()
        (gradient,) = torch.autograd.grad(total, features, create_graph=create_graph, retain_graph=True)
        maps = weighted_activation(features, gradient)
    return (logits, maps) if create_graph else (logits, maps.detach())


def grad_cam(
    features: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor | None = None, create_graph: bool = False
) -> Tensor:
    """Grad-CAM maps of a head; see [`logits_and_grad_cam`][crayon_sdk.functional.saliency.logits_and_grad_cam].

    Args:
        features: (N, C, h, w) floating point.
        head: Maps (N, C, h, w) to logits (N, K), sample by sample.
        targets: (N,) int64 in [0, K); ``None`` takes the predicted class.
        create_graph: Keep the graph, so that the map can stand in a loss.

    Returns:
        (N, h, w), not negative, not normalised.

    Example:
        For mean pooling and one linear layer the weights are ``W_yk / (h w)``:

        >>> linear = torch.nn.Linear(4, 2)
        >>> features, targets = torch.rand(3, 4, 5, 5), torch.tensor([0, 1, 0])
        >>> maps = grad_cam(features, lambda f: linear(f.mean((2, 3))), targets)
        >>> closed = torch.relu(torch.einsum("nk,nkhw->nhw", linear.weight[targets] / 25, features))
        >>> torch.allclose(maps, closed)
        True
    """
    return logits_and_grad_cam(features, head, targets, create_graph=create_graph)[1]


def has_evidence(maps: Tensor) -> Tensor:
    """Tell which maps have positive evidence anywhere.

    Args:
        maps: (N, h, w), not normalised.

    Returns:
        (N,) bool. A map without evidence normalises to all ones ("everything is
        highlighted"), which is why it must be found before normalising.

    Example:
        >>> has_evidence(torch.tensor([[[0.0, 0.0]], [[0.0, 0.3]]])).tolist()
        [False, True]
    """
    return maps.amax(dim=(1, 2)) > 0


def normalize_maps(maps: Tensor, eps: float = 1e-10) -> Tensor:
    """Scale every map to a maximum of one: ``(map + eps) / max(map + eps)``.

    Args:
        maps: (N, h, w), not negative.
        eps: Keeps a map of zeros from dividing by zero; it becomes all ones.

    Returns:
        (N, h, w) in (0, 1].

    Example:
        >>> normalize_maps(torch.tensor([[[1.0, 4.0]], [[0.0, 0.0]]])).tolist()
        [[[0.25, 1.0]], [[1.0, 1.0]]]
    """
    shifted = maps + eps
    return shifted / shifted.amax(dim=(1, 2), keepdim=True)


def resample_maps(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Show maps in another view of their pictures.

    Every cell of the result is the mean of 8 x 8 bilinear samples; beyond the edge of the
    map its outermost values go on. The result is not normalised again.

    Args:
        maps: (N, h, w) floating point.
        boxes: (N, 4): left, top, right, bottom of the new view, as shares of the map's sides.
        size: Grid (H, W) of the result.

    Returns:
        (N, H, W).

    Example:
        The right half:

        >>> maps = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        >>> resample_maps(maps, torch.tensor([[0.5, 0.0, 1.0, 1.0]]), (1, 1)).item() > 0.9
        True
    """
    fine = 8
    height, width = size
    down = (torch.arange(height * fine, dtype=maps.dtype, device=maps.device) + 0.5) / (height * fine)
    along = (torch.arange(width * fine, dtype=maps.dtype, device=maps.device) + 0.5) / (width * fine)
    left, top, right, bottom = boxes.to(maps)[:, :, None].unbind(1)
    x = left + (right - left) * along
    y = top + (bottom - top) * down
    where = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3) * 2 - 1
    samples = F.grid_sample(maps[:, None], where, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(samples, fine)[:, 0]


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring maps to another grid: area averaging when shrinking, bilinear when growing.

    Each axis is treated on its own, so a grid that grows in one direction and
    shrinks in the other is handled. The result is not normalised again.

    Args:
        maps: (N, h, w) floating point.
        size: New (h, w), both positive.

    Returns:
        (N, *size).

    Example:
        >>> resize_maps(torch.tensor([[[0.0, 1.0, 1.0, 1.0]]]), (1, 2)).tolist()
        [[[0.5, 1.0]]]
    """
    height, width = maps.shape[1:]
    maps = _resize(maps, (size[0], width))
    maps = _resize(maps, (size[0], size[1]))
    return maps if (height, width) != tuple(size) else maps.clone()


def brightest_spot(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Keep of every map its brightest cell, and what is bright around it.

    The map is brought to the grid and divided by its maximum; what stays are the values of at least 0.5 among the
    3 x 3 cells around its first maximum.

    Args:
        maps: (N, h, w) floating point in [0, 1].
        size: Grid (H, W) of the result, usually twice that of the maps: between cells of equal height the brightest
            place lies elsewhere than in one of them.

    Returns:
        (N, H, W) in [0, 1], with a maximum of one and zero elsewhere; all zeros for a map of zeros.

    Example:
        >>> brightest_spot(torch.tensor([[[0.5, 0.3, 0.1, 0.5], [0.0, 0.0, 0.0, 0.0]]]), (2, 4)).tolist()[0][0]
        [1.0, 0.6000000238418579, 0.0, 0.0]
    """
    maps = resize_maps(maps, size)
    maps = maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    peak = maps.flatten(1).argmax(dim=1)
    down, along = (torch.arange(side, device=maps.device) for side in maps.shape[1:])
    in_rows = (down - (peak // maps.shape[2])[:, None]).abs() <= 1
    in_columns = (along - (peak % maps.shape[2])[:, None]).abs() <= 1
    near = in_rows[:, :, None] & in_columns[:, None, :]
    return maps * (near & (maps >= 0.5))


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[1:]) == size:
        return maps
    if size[0] < maps.shape[1] or size[1] < maps.shape[2]:
        return F.interpolate(maps[:, None], size=size, mode="area")[:, 0]
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
