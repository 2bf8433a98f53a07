"""How far weights have moved."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["change_norms", "relative_change", "relative_of"]


def change_norms(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """Norm of a difference, norm of what was there, and the largest difference of one entry.

    Args:
        before: Of any shape and dtype.
        after: Of the same shape.

    Returns:
        ||after - before||, ||before|| (without what is not finite) and max |after - before|; computed in
        float64. Entries that are equal, infinite or not, or NaN in both, differ by 0.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> change_norms(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]))
        (1.0, 5.0, 1.0)
    """
    if before.shape != after.shape:
        raise ValueError(f"expected tensors of one shape, got {tuple(before.shape)} and {tuple(after.shape)}")
    first, second = (each.detach().cpu().to(torch.float64).flatten() for each in (before, after))
    same = (first == second) | (first.isnan() & second.isnan())
    gaps = (second - first).masked_fill(same, 0.0)  # infinity less infinity would be NaN
    size = torch.linalg.vector_norm(first.nan_to_num(posinf=0.0, neginf=0.0))
    return float(torch.linalg.vector_norm(gaps)), float(size), float(gaps.abs().max()) if len(gaps) else 0.0


def relative_change(before: Tensor, after: Tensor) -> float:
    """Norm of the difference, relative to what was there: ||after - before|| / ||before||.

    Args:
        before: Of any shape and dtype.
        after: Of the same shape.

    Returns:
        0 where nothing changed, infinity where all was zero before, NaN where an entry became
        NaN or ceased to be.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> relative_change(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]))
        0.2
    """
    return relative_of(*change_norms(before, after)[:2])


def relative_of(moved: float, size: float) -> float:
    """Divide the norm of a difference by the norm of what was there; 0 / 0 is 0, and x / 0 infinity.

    Example:
        >>> relative_of(1.0, 5.0), relative_of(1.0, 0.0), relative_of(0.0, 0.0)
        (0.2, inf, 0.0)
    """
    if moved == 0:
        return 0.0
    return moved / size if size else (math.nan if math.isnan(moved) else math.inf)
