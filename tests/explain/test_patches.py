"""Patches of neurons: merged where they coincide, on disk and back."""

from __future__ import annotations

import pytest
import torch

from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import FileFormatError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches, Patch
from crayon_sdk.functional.neurons import TopPatches

IDS = ("a", "b", "c", "d")
# Three neurons, two patches each on maps of 2 x 3; (sample, cell), -1 where there is none.
SAMPLES = [[3, 1], [3, 3], [1, -1]]
CELLS = [[4, 0], [4, 5], [0, -1]]
VALUES = [[9.0, 2.0], [8.0, 7.0], [1.0, -torch.inf]]


@pytest.fixture
def patches():
    top = TopPatches(torch.tensor(VALUES), torch.tensor(SAMPLES), torch.tensor(CELLS))
    return NeuronPatches.from_top(top, IDS, (2, 3), model="f", preprocessing=Preprocessing(size=(96, 64)))


def test_every_patch_is_found_again(patches):
    for neuron, (samples, cells, values) in enumerate(zip(SAMPLES, CELLS, VALUES, strict=True)):
        expected = []
        for sample, cell, value in zip(samples, cells, values, strict=True):
            if sample < 0:
                continue
            row, column = cell // 3, cell % 3
            box = (column / 3, row / 2, (column + 1) / 3, (row + 1) / 2)
            expected.append(Patch(IDS[sample], row, column, box, value))
        assert patches.of(neuron) == tuple(expected)


def test_equal_patches_are_held_once(patches):
    assert (patches.num_neurons, patches.num_distinct) == (3, 3)
    assert patches.ids == ("b", "d")  # only pictures with patches
    shared = {(patches.ids[patches.samples[i]], int(patches.cells[i])): set(patches.sharing(i)) for i in range(3)}
    assert shared == {("d", 4): {(0, 0), (1, 0)}, ("b", 0): {(0, 1), (2, 0)}, ("d", 5): {(1, 1)}}
    assert patches.neurons[2, 1] == -1
    assert repr(patches) == "NeuronPatches(3 neurons, 3 distinct patches)"


@pytest.mark.parametrize("neuron", [-1, 3])
def test_no_such_neuron(patches, neuron):
    with pytest.raises(SettingsError, match=rf"expected a neuron from 0 to 2, got {neuron}"):
        patches.of(neuron)


def test_save_and_load(patches, tmp_path):
    path = tmp_path / "patches.safetensors"
    patches.save(path)
    loaded = NeuronPatches.load(path)
    for name in ("samples", "cells", "neurons", "activations"):
        assert torch.equal(getattr(loaded, name), getattr(patches, name))
    for name in ("ids", "map_size", "model", "preprocessing"):
        assert getattr(loaded, name) == getattr(patches, name)
    assert [loaded.of(neuron) for neuron in range(3)] == [patches.of(neuron) for neuron in range(3)]


def test_files_that_are_none(patches, tmp_path):
    path = tmp_path / "patches.safetensors"
    patches.save(path)
    with pytest.raises(FileFormatError, match=r"is not a crayon-saliency-maps file"):
        SaliencyMaps.load(path)
    whole = path.read_bytes()
    for length in (0, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"not a whole safetensors file"):
            NeuronPatches.load(path)
    path.write_bytes(whole.replace(b"map_size", b"map_siza"))
    with pytest.raises(FileFormatError, match=r"damaged \(KeyError: 'map_size'\)"):
        NeuronPatches.load(path)


def test_neurons_in_order(patches):
    assert len(patches) == 3
    assert list(patches) == [patches.of(0), patches.of(1), patches.of(2)]
    assert patches[torch.tensor(1)] == patches.of(1)
    with pytest.raises(SettingsError, match="expected a neuron from 0 to 2, got 'b'"):
        patches["b"]
