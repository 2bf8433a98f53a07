"""`NeuronPatches`: what excites every penultimate neuron most, in one file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError
from crayon_sdk.explain.maps import read_manifest, readable, write_manifest
from crayon_sdk.functional.neurons import TopPatches
from crayon_sdk.show.gallery import strips
from crayon_sdk.show.overlays import bare

__all__ = ["NeuronPatches", "Patch"]

_FORMAT = "crayon-neuron-patches"
_TENSORS = ("samples", "cells", "neurons", "activations")
_GLANCE = 6  # neurons that a notebook shows, and patches of each


@dataclass(frozen=True)
class Patch:
    """One cell of one picture.

    Attributes:
        id: Sample id of the picture.
        row: Row of the cell in the feature map.
        column: Column of the cell.
        box: (left, top, right, bottom) as fractions of the preprocessed picture.
        activation: The neuron's activation on that picture.
    """

    id: str
    row: int
    column: int
    box: tuple[float, float, float, float]
    activation: float


@dataclass(frozen=True)
class NeuronPatches:
    """The strongest patches of every neuron; a patch that several neurons share is held once.

    A neuron is known by its number: ``patches[neuron]`` is `of`, ``len(patches)`` the number of neurons, and
    iterating goes through the neurons.

    Attributes:
        ids: Ids of the samples in which patches lie.
        samples: (P,) int64, position in ``ids`` of each distinct patch.
        cells: (P,) int64, row-major cell of each distinct patch.
        neurons: (K, k) int64, distinct patches of each neuron, strongest first; -1 where there are fewer.
        activations: (K, k) float32, -inf where there are fewer.
        map_size: (h, w) of the feature map.
        model: Fingerprint of the model that was explained.
        preprocessing: How pictures were resized and cropped before; ``None`` when not known.

    Example:
        >>> from crayon_sdk.functional.neurons import TopPatches
        >>> top = TopPatches(torch.tensor([[2.0], [1.0]]), torch.tensor([[1], [1]]), torch.tensor([[3], [3]]))
        >>> patches = NeuronPatches.from_top(top, ["a", "b"], (2, 2))
        >>> patches.of(0)[0].box, patches.num_distinct
        ((0.5, 0.5, 1.0, 1.0), 1)
    """

    ids: tuple[str, ...]
    samples: Tensor
    cells: Tensor
    neurons: Tensor
    activations: Tensor
    map_size: tuple[int, int]
    model: str = ""
    preprocessing: Preprocessing | None = None

    def __len__(self) -> int:
        return self.num_neurons

    def __iter__(self) -> Iterator[tuple[Patch, ...]]:
        return (self.of(neuron) for neuron in range(self.num_neurons))

    def __getitem__(self, neuron: int) -> tuple[Patch, ...]:
        return self.of(neuron)

    def __repr__(self) -> str:
        return f"NeuronPatches({self.num_neurons} neurons, {self.num_distinct} distinct patches)"

    def _repr_html_(self) -> str:
        """The most active neurons, and where in which pictures they are; the pictures themselves are not here."""
        strongest = self.activations[:, 0] if self.activations.numel() else self.activations.flatten()
        order = [row for row in strongest.argsort(descending=True, stable=True).tolist() if self.neurons[row, 0] >= 0]
        rows = []
        for neuron in order[:_GLANCE]:
            found = self.of(neuron)[:_GLANCE]
            name = f"neuron {neuron}, activation up to {found[0].activation:.3g}"
            rows.append((name, [(self._said(patch), self._place(patch)) for patch in found]))
        note = (
            f"The {len(rows)} most active neurons, up to {_GLANCE} patches of each: where in its picture a patch lies. "
            "explain.contact_sheets.patches_sheet draws them on the pictures."
        )
        return strips(repr(self), rows, note)

    def _said(self, patch: Patch) -> str:
        return f"row {patch.row + 1}, column {patch.column + 1} of {patch.id}"

    def _place(self, patch: Patch) -> Image.Image:
        place = torch.zeros(self.map_size)
        place[patch.row, patch.column] = 1.0
        return bare(place, 80, sharp=True)

    @property
    def num_neurons(self) -> int:
        """Number of neurons K."""
        return int(self.neurons.shape[0])

    @property
    def num_distinct(self) -> int:
        """Number of distinct patches P: what a person has to look at."""
        return len(self.samples)

    @classmethod
    def from_top(
        cls,
        top: TopPatches,
        ids: Sequence[str],
        map_size: tuple[int, int],
        *,
        model: str = "",
        preprocessing: Preprocessing | None = None,
    ) -> NeuronPatches:
        """Take the result of a streaming top-k, merging patches that coincide.

        Args:
            top: From [`top_patches`][crayon_sdk.functional.neurons.top_patches].
            ids: The sample ids that its positions point into.
            map_size: (h, w) that its cells point into.
            model: Fingerprint of the model.
            preprocessing: How pictures were resized and cropped.
        """
        filled = top.samples >= 0
        keys = top.samples * (map_size[0] * map_size[1]) + top.cells
        distinct, where = torch.unique(keys[filled], return_inverse=True)
        neurons = torch.full_like(top.samples, -1)
        neurons[filled] = where
        used, samples = torch.unique(distinct // (map_size[0] * map_size[1]), return_inverse=True)
        return cls(
            ids=tuple(ids[position] for position in used.tolist()),
            samples=samples.cpu(),
            cells=(distinct % (map_size[0] * map_size[1])).cpu(),
            neurons=neurons.cpu(),
            activations=top.values.float().cpu(),
            map_size=map_size,
            model=model,
            preprocessing=preprocessing,
        )

    def of(self, neuron: int) -> tuple[Patch, ...]:
        """The patches of one neuron, strongest first.

        Raises:
            SettingsError: There is no such neuron.
        """
        if not hasattr(neuron, "__index__") or not 0 <= neuron < self.num_neurons:
            raise SettingsError(f"expected a neuron from 0 to {self.num_neurons - 1}, got {neuron!r}")
        row = zip(self.neurons[neuron].tolist(), self.activations[neuron].tolist(), strict=True)
        return tuple(self._patch(index, activation) for index, activation in row if index >= 0)

    def sharing(self, index: int) -> tuple[tuple[int, int], ...]:
        """The (neuron, rank) pairs that share the distinct patch ``index``."""
        return tuple((int(neuron), int(rank)) for neuron, rank in (self.neurons == index).nonzero().tolist())

    def _patch(self, index: int, activation: float) -> Patch:
        height, width = self.map_size
        row, column = divmod(int(self.cells[index]), width)
        box = (column / width, row / height, (column + 1) / width, (row + 1) / height)
        return Patch(self.ids[int(self.samples[index])], row, column, box, activation)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: It cannot be written.
        """
        manifest = {
            "ids": list(self.ids),
            "map_size": list(self.map_size),
            "model": self.model,
            "preprocessing": self.preprocessing and self.preprocessing.to_dict(),
        }
        write_manifest(path, _FORMAT, {name: getattr(self, name) for name in _TENSORS}, manifest)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NeuronPatches:
        """Read what [`save`][crayon_sdk.explain.patches.NeuronPatches.save] wrote.

        Raises:
            FileFormatError: The file is truncated, or holds something else.
        """
        tensors, manifest = read_manifest(path, _FORMAT, _TENSORS)
        with readable(path):
            height, width = manifest["map_size"]
            return cls(
                ids=tuple(manifest["ids"]),
                samples=tensors["samples"],
                cells=tensors["cells"],
                neurons=tensors["neurons"],
                activations=tensors["activations"],
                map_size=(height, width),
                model=manifest["model"],
                preprocessing=manifest["preprocessing"] and Preprocessing.from_dict(manifest["preprocessing"]),
            )
