"""Penultimate neurons: their strongest patches, and cutting them.

A neuron is an input of the final linear classifier.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

__all__ = [
    "TopPatches",
    "activity_on",
    "bake",
    "best_of",
    "channel_peaks",
    "empty_top_patches",
    "neuron_mask",
    "prune_neurons",
    "top_patches",
]


class TopPatches(NamedTuple):
    """The strongest cells seen so far, per neuron, strongest first.

    Attributes:
        values: (K, k) floating point activation; -inf where fewer than k were seen.
        samples: (K, k) int64 index of the sample; -1 where empty.
        cells: (K, k) int64 row-major index into the (h, w) map; -1 where empty.
    """

    values: Tensor
    samples: Tensor
    cells: Tensor


def empty_top_patches(num_neurons: int, patches_per_neuron: int, device: torch.device | str = "cpu") -> TopPatches:
    """Start a streaming top-k over ``num_neurons`` neurons.

    Example:
        >>> empty_top_patches(2, 1).samples.tolist()
        [[-1], [-1]]
    """
    shape = (num_neurons, patches_per_neuron)
    nothing = torch.full(shape, -1, dtype=torch.int64, device=device)
    return TopPatches(torch.full(shape, -torch.inf, device=device), nothing, nothing.clone())


def channel_peaks(features: Tensor) -> tuple[Tensor, Tensor]:
    """Find the maximal cell of every channel.

    Args:
        features: (N, C, h, w).

    Returns:
        Values (N, C) and row-major cells (N, C) int64; the first of equal cells wins.

    Example:
        >>> values, cells = channel_peaks(torch.tensor([[[[0.0, 3.0], [1.0, 3.0]]]]))
        >>> values.item(), cells.item()
        (3.0, 1)
    """
    return features.flatten(2).max(dim=2)


def activity_on(features: Tensor, objects: Tensor) -> Tensor:
    """Sum the activity of every channel where the object is, and everywhere.

    Args:
        features: (N, C, h, w) floating point.
        objects: (N, h, w) in [0, 1], how much of each cell is object.

    Returns:
        (2, C): sum of ``|features| * objects``, and sum of ``|features|``, over pictures and cells.

    Example:
        >>> activity_on(torch.tensor([[[[1.0, -3.0]]]]), torch.tensor([[[1.0, 0.5]]])).tolist()
        [[2.5], [4.0]]
    """
    activity = features.abs()
    return torch.stack([torch.einsum("nchw,nhw->c", activity, objects.to(activity.dtype)), activity.sum(dim=(0, 2, 3))])


def top_patches(state: TopPatches, values: Tensor, samples: Tensor, cells: Tensor) -> TopPatches:
    """Take a batch into a streaming top-k; memory stays O(neurons x k).

    Equal activations keep the sample that came first, so the result does not
    depend on the batch size.

    Args:
        state: What was seen before.
        values: (N, K) activation of every neuron on every sample.
        samples: (N,) int64 index of the samples.
        cells: (N, K) int64 cell of the maximal activation.

    Returns:
        The new state; ``state`` itself is not changed.

    Example:
        >>> state = empty_top_patches(1, 2)
        >>> for index, value in enumerate([0.2, 0.9, 0.5]):
        ...     state = top_patches(state, torch.tensor([[value]]), torch.tensor([index]), torch.tensor([[7]]))
        >>> state.samples.tolist()
        [[1, 2]]
    """
    k = state.values.shape[1]
    all_values = torch.cat([state.values, values.T.to(state.values.dtype)], dim=1)
    expanded = samples[None, :].expand(values.shape[1], -1)
    all_samples = torch.cat([state.samples, expanded], dim=1)
    all_cells = torch.cat([state.cells, cells.T], dim=1)
    order = all_values.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return TopPatches(all_values.gather(1, order), all_samples.gather(1, order), all_cells.gather(1, order))


def best_of(values: Tensor, samples: Tensor, cells: Tensor, *, count: int) -> TopPatches:
    """Bring together what was found in parts of the samples, each with its own `top_patches`.

    Args:
        values: (P, K, k) of P parts.
        samples: (P, K, k).
        cells: (P, K, k).
        count: How many to keep of each neuron.

    Returns:
        What one pass over all samples in ascending order would have found.

    Example:
        >>> parts = torch.tensor([[[0.5]], [[0.5]]]), torch.tensor([[[8]], [[3]]]), torch.tensor([[[0]], [[1]]])
        >>> best_of(*parts, count=1).samples.tolist()
        [[3]]
    """
    found = [each.movedim(0, 1).flatten(1) for each in (values, samples, cells)]
    first = found[1].sort(dim=1, stable=True).indices  # equal activations keep the sample that came first
    found = [each.gather(1, first) for each in found]
    order = found[0].sort(dim=1, descending=True, stable=True).indices[:, :count]
    return TopPatches(*(each.gather(1, order) for each in found))


def neuron_mask(classifier: nn.Linear | nn.Conv2d) -> Tensor:
    """Tell which neurons a classifier still uses.

    Args:
        classifier: The final linear layer or 1 x 1 convolution, pruned or not.

    Returns:
        (num_neurons,) bool; false where
        [`prune_neurons`][crayon_sdk.functional.neurons.prune_neurons] cut it.

    Example:
        >>> neuron_mask(nn.Linear(3, 2)).tolist()
        [True, True, True]
    """
    mask = getattr(classifier, "weight_mask", None)
    if mask is None:
        return torch.ones(classifier.weight.shape[1], dtype=torch.bool, device=classifier.weight.device)
    kept: Tensor = mask.bool().flatten(2 if mask.ndim > 2 else 1).any(dim=0).flatten()
    return kept


def prune_neurons(classifier: nn.Linear | nn.Conv2d, keep: Tensor) -> None:
    """Cut neurons from the final layer, in place, so that they stay cut in training.

    The columns of the weight are masked with `torch.nn.utils.prune`; masks of
    repeated calls multiply.

    Args:
        classifier: The final linear layer or 1 x 1 convolution.
        keep: (num_neurons,) bool; false cuts the neuron.

    Raises:
        ValueError: ``keep`` has another length.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> prune_neurons(layer, torch.tensor([True, False, True]))
        >>> (layer.weight[:, 1] == 0).tolist()
        [True, True]
    """
    width = classifier.weight.shape[1]
    if keep.shape != (width,):
        raise ValueError(f"expected a mask of shape ({width},), got {tuple(keep.shape)}")
    keep = keep.to(device=classifier.weight.device, dtype=torch.bool) & neuron_mask(classifier)
    bake(classifier)
    mask = keep.view(1, -1, *[1] * (classifier.weight.ndim - 2)).expand_as(classifier.weight)
    prune.custom_from_mask(classifier, "weight", mask.to(classifier.weight.dtype))


def bake(classifier: nn.Linear | nn.Conv2d) -> None:
    """Turn a masked weight into a plain one, in place; cut columns become zeros.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> prune_neurons(layer, torch.tensor([True, False, True]))
        >>> bake(layer)
        >>> sorted(layer.state_dict())
        ['bias', 'weight']
    """
    if prune.is_pruned(classifier):
        trainable = classifier.get_parameter("weight_orig").requires_grad
        prune.remove(classifier, "weight")
        classifier.weight.requires_grad_(trainable)
