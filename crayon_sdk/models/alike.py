"""Whether two models, or a model and what it was written as, give the same logits for the same fixed noise."""

from __future__ import annotations

import torch
from torch import Tensor

from crayon_sdk.models.split import SplitModel, borrowed

__all__ = ["logits_of", "noise", "plain_copy", "same_logits"]


def noise(model: SplitModel, count: int = 2, *, seed: int = 0) -> Tensor:
    """Pictures of noise (count, 3, H, W) of the size that a model takes; the same for the same seed, on the CPU."""
    return torch.randn(count, 3, *model.preprocessing.size, generator=torch.Generator().manual_seed(seed))


def plain_copy(model: SplitModel) -> SplitModel:
    """A copy in float32 on the CPU whose trunk is not compiled: a few pictures are not worth a minute of that."""
    copy = model.copy().to("cpu", torch.float32)
    copy.compile_trunk = False
    return copy


def logits_of(model: SplitModel, images: Tensor) -> Tensor:
    """Logits (N, K) in eval mode and without gradients, on the device where the model is."""
    with borrowed(model, model.device), torch.no_grad():
        logits: Tensor = model(images)
    return logits


def same_logits(found: Tensor, wanted: Tensor, *, rtol: float = 1e-4, atol: float = 1e-4) -> bool:
    """Tell whether logits are the same up to rounding, NaN for NaN; those of another shape are not.

    Example:
        >>> same_logits(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.00001]))
        True
        >>> same_logits(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.01]))
        False
    """
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=rtol, atol=atol, equal_nan=True)
