"""The streaming top-k against a full sort, and pruning that stays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from crayon_sdk.functional.neurons import (
    bake,
    channel_peaks,
    empty_top_patches,
    neuron_mask,
    prune_neurons,
    top_patches,
)


def activations(samples, neurons, levels):
    """Values on a few levels only, so that many are equal; and a cell for each."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, levels, (samples, neurons), generator=generator) / 4 - 1
    return values, torch.randint(0, 49, (samples, neurons), generator=generator)


def stream(values, cells, k, batch_size):
    state = empty_top_patches(values.shape[1], k)
    for rows in torch.arange(len(values)).split(batch_size):
        state = top_patches(state, values[rows], rows, cells[rows])
    return state


@pytest.mark.parametrize("levels", [3, 10_000])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_streaming_equals_a_full_sort(levels, batch_size):
    values, cells = activations(90, 6, levels)
    state = stream(values, cells, 4, batch_size)
    for neuron in range(6):
        column = values[:, neuron].tolist()
        best = sorted(range(90), key=lambda sample: (-column[sample], sample))[:4]
        assert state.samples[neuron].tolist() == best
        assert state.values[neuron].tolist() == [column[sample] for sample in best]
        assert state.cells[neuron].tolist() == [int(cells[sample, neuron]) for sample in best]


def test_fewer_samples_than_places():
    values, cells = activations(2, 3, 100)
    state = stream(values, cells, 5, 1)
    assert state.samples[:, 2:].eq(-1).all()
    assert state.cells[:, 2:].eq(-1).all()
    assert state.values[:, 2:].isneginf().all()
    assert state.samples[:, :2].sort(dim=1).values.tolist() == [[0, 1]] * 3


def test_the_old_state_is_not_changed():
    values, cells = activations(4, 3, 100)
    state = empty_top_patches(3, 2)
    top_patches(state, values, torch.arange(4), cells)
    assert state.samples.eq(-1).all()


def test_channel_peaks_equal_the_loops():
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(0, 5, (3, 4, 3, 5), generator=generator).float()
    values, cells = channel_peaks(features)
    for n in range(3):
        for k in range(4):
            row = features[n, k].flatten().tolist()
            assert (values[n, k], cells[n, k]) == (max(row), row.index(max(row)))


def test_pruned_columns_stay_cut_while_the_rest_is_trained():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    before = copy.deepcopy(layer)
    keep = torch.tensor([True, False, True, False])
    prune_neurons(layer, keep)
    assert neuron_mask(layer).tolist() == keep.tolist()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.rand(8, 4)).square().sum().backward()
        optimizer.step()
    inputs = torch.rand(5, 4)
    assert torch.equal(layer(inputs), layer(inputs * keep))
    assert layer.weight[:, ~keep].eq(0).all()
    assert not torch.equal(layer.weight[:, keep], before.weight[:, keep])
    logits = layer(inputs)
    bake(layer)
    assert torch.equal(layer(inputs), logits)
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    assert isinstance(layer.weight, nn.Parameter)
    assert not layer._forward_pre_hooks


def test_masks_of_repeated_calls_multiply():
    layer = nn.Linear(3, 2)
    prune_neurons(layer, torch.tensor([True, False, True]))
    prune_neurons(layer, torch.tensor([True, True, False]))
    assert neuron_mask(layer).tolist() == [True, False, False]
    assert layer.weight[:, 1:].eq(0).all()
    assert len(layer._forward_pre_hooks) == 1


def test_pruning_keeps_type_and_frozen_weights():
    layer = nn.Linear(3, 2).double().requires_grad_(False)
    prune_neurons(layer, torch.tensor([1, 0, 1]))  # a mask of numbers is fine
    assert layer.weight.dtype == torch.float64
    bake(layer)
    assert not layer.weight.requires_grad
    bake(layer)  # nothing to do is no error
    assert neuron_mask(layer).all()


def test_nothing_and_everything():
    layer = nn.Linear(3, 2)
    prune_neurons(layer, torch.ones(3, dtype=torch.bool))
    assert neuron_mask(layer).all()
    prune_neurons(layer, torch.zeros(3, dtype=torch.bool))
    assert not neuron_mask(layer).any()
    assert torch.equal(layer(torch.rand(2, 3)), layer.bias.expand(2, 2))


def test_a_mask_of_another_length():
    with pytest.raises(ValueError, match=r"expected a mask of shape \(3,\), got \(4,\)"):
        prune_neurons(nn.Linear(3, 2), torch.ones(4, dtype=torch.bool))
