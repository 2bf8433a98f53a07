"""What a network makes of all training pictures, and what several processes know of them together."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from crayon_sdk._base.process import Processes
from crayon_sdk._base.progress import track
from crayon_sdk.correct.objective import PixelFeed
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.models.split import SplitModel, borrowed

__all__ = ["gathered", "logits_and_neurons", "looked_at", "neurons_of", "predictions_of"]


def logits_and_neurons(model: SplitModel, images: Tensor, autocast: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Logits (n, K) and neurons (n, num_neurons) of pictures, in one pass and with its graph."""
    inputs = model.final_inputs(model.features(images, autocast=autocast))
    return apply_final_layers(list(model.final_layers), inputs), inputs[0]


def looked_at(
    model: SplitModel,
    feed: PixelFeed,
    found: Callable[[Tensor], Tensor],
    *,
    autocast: torch.dtype | None = None,
    doing: str = "looking",
    batch_size: int = 64,
) -> Tensor:
    """Go through all training pictures in eval mode.

    Args:
        model: The network; its modes and its device are given back.
        feed: The training set.
        found: From features (n, C, h, w) to what is kept of them, (n, ...).
        autocast: Reduced precision of the trunk.
        doing: What the progress bar says.
        batch_size: Pictures at a time.

    Returns:
        (N, ...) on the device of the feed.
    """
    parts = []
    with borrowed(model, feed.labels.device), torch.no_grad(), track(doing, len(feed)) as advance:
        for rows in torch.arange(len(feed)).split(batch_size):
            parts.append(found(model.features(feed.cache.get(rows), autocast=autocast)))
            advance(len(rows))
    return torch.cat(parts)


def predictions_of(model: SplitModel, feed: PixelFeed, autocast: torch.dtype | None = None) -> Tensor:
    """(N,) int64, the class that a network gives every training picture."""
    return looked_at(model, feed, lambda features: model.head(features).argmax(dim=1), autocast=autocast)


def neurons_of(model: SplitModel, feed: PixelFeed, autocast: torch.dtype | None = None) -> Tensor:
    """(N, num_neurons) float32 of every training picture."""
    return looked_at(model, feed, lambda features: model.penultimate(features).float(), autocast=autocast)


def gathered(rows: Tensor, values: Tensor, count: int, processes: Processes) -> tuple[Tensor, Tensor]:
    """What all processes found in a step, each about its own samples.

    Args:
        rows: (n,) int64 in [0, count).
        values: (n, ...).
        count: How many samples there are.
        processes: Who found something.

    Returns:
        The rows and values of all.
    """
    if processes.size == 1:
        return rows, values
    width = math.prod(values.shape[1:])
    known = torch.zeros(count, 1 + width, dtype=torch.float64, device=values.device)
    known[rows] = torch.cat([known.new_ones(len(rows), 1), values.reshape(len(rows), width).to(known)], dim=1)
    known = processes.sum(known)
    everyone = known[:, 0].nonzero().flatten()
    means = known[everyone, 1:] / known[everyone, :1]  # a sample that came twice
    return everyone, means.to(values.dtype).reshape(-1, *values.shape[1:])
