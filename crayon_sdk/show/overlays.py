"""Maps over pictures: what a model looks at, as it is shown to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError
from crayon_sdk.functional.saliency import resize_maps

__all__ = ["TITLES", "Maps", "Style", "bare", "class_name", "overlay", "seen", "shown"]

Style = Literal["overlaid", "red", "orange"]
"""How a map lies over its picture; "orange" on grey is told apart by colour-blind people too."""

TITLES: dict[Style, str] = {
    "overlaid": "Highlight Overlaid",
    "red": "Highlight in Red",
    "orange": "Highlight in Orange",
}
_PAPER = np.array([244.0, 244.0, 244.0])  # what the picture fades to where nobody looks
_INKS: dict[Style, tuple[float, float, float]] = {"red": (230.0, 0.0, 20.0), "orange": (240.0, 140.0, 0.0)}
_STRENGTH = 0.75  # of the ink where the map is one


class Maps(Protocol):
    """What a `SaliencyMaps` has, for rooms below it."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Sample ids."""

    @property
    def values(self) -> Tensor:
        """(N, h, w) in [0, 1]."""

    @property
    def targets(self) -> Tensor:
        """(N,) classes."""

    @property
    def evidence(self) -> Tensor:
        """(N,) bool."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How pictures were cropped."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, may be empty."""

    def select(self, ids: Sequence[str]) -> Maps:
        """The maps of these samples, in this order."""


def overlay(image: Image.Image, saliency: Tensor, *, style: Style = "overlaid") -> Image.Image:
    """Lay a map over the picture that the model saw.

    Args:
        image: The picture after resizing and cropping, any mode.
        saliency: (h, w) in [0, 1]; enlarged bilinearly to the picture.
        style: "overlaid" shows the picture through the map (the more attention, the more
            opaque); "red" paints attention red; "orange" does so on a grey picture.

    Returns:
        An RGB picture of the same size.

    Raises:
        SettingsError: An unknown style, or a map that is not (h, w) in [0, 1].

    Example:
        >>> shown = overlay(Image.new("RGB", (20, 10), "blue"), torch.tensor([[1.0, 0.0]]), style="red")
        >>> shown.size, shown.getpixel((0, 5)), shown.getpixel((19, 5))
        ((20, 10), (172, 0, 79), (0, 0, 255))
    """
    if style not in get_args(Style):
        raise SettingsError(f"expected style to be one of {', '.join(get_args(Style))}, got {style!r}")
    fits = saliency.ndim == 2 and bool(((saliency >= 0) & (saliency <= 1)).all())
    if not fits:
        raise SettingsError(
            f"expected a map (h, w) with values in [0, 1], got {tuple(saliency.shape)} "
            f"from {float(saliency.min()):g} to {float(saliency.max()):g}; normalise it (normalize_maps)"
        )
    size = (image.height, image.width)
    strength = resize_maps(saliency[None].detach().float().cpu(), size)[0].numpy()[..., None].astype(np.float64)
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    if style == "overlaid":
        mixed = pixels * strength + _PAPER * (1 - strength)
    else:
        ground = pixels if style == "red" else pixels.mean(axis=2, keepdims=True)
        mixed = ground + (np.array(_INKS[style]) - ground) * (strength * _STRENGTH)
    return Image.fromarray(mixed.round().astype(np.uint8))


def bare(saliency: Tensor, cell: int, *, sharp: bool = False) -> Image.Image:
    """A map without its picture, orange on paper.

    Args:
        saliency: (h, w), at least one value; what is outside [0, 1] is cut, for this is only a glance.
        cell: Longer side in pixels.
        sharp: Show the cells of the map as they are, in place of a smooth enlargement.

    Returns:
        An RGB picture of the proportions of the map.

    Example:
        >>> glance = bare(torch.tensor([[1.0, 0.0]]), 20, sharp=True)
        >>> glance.size, glance.getpixel((5, 5)), glance.getpixel((15, 5))
        ((20, 10), (241, 166, 61), (244, 244, 244))
    """
    height, width = saliency.shape
    scale = cell / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    paper = Image.new("RGB", (width, height) if sharp else size, tuple(int(value) for value in _PAPER))
    values = saliency.detach().float().nan_to_num(0.0).clamp(0, 1)
    return overlay(paper, values, style="orange").resize(size, Image.Resampling.NEAREST)


def seen(dataset: ImageDataset, known: Preprocessing | None, sample: str, cell: int) -> Image.Image:
    """The picture as the model saw it, enlarged or shrunk to a cell."""
    image = dataset.image(sample)
    geometry = known or dataset.preprocessing
    if not dataset.preprocessed:
        if geometry is None:
            raise SettingsError(
                "it is not known how the pictures were cropped, so maps cannot be laid over them; give the data set "
                "the preprocessing: dataset.with_preprocessing(model.preprocessing)"
            )
        image = geometry.geometry(image)
    scale = cell / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def shown(dataset: ImageDataset, maps: Maps, sample: str, cell: int, style: Style) -> Image.Image:
    """The picture as the model saw it, under its map."""
    chosen = maps.select([sample])
    # A map without evidence is all ones: shown as such it would claim the opposite of what it means.
    values = chosen.values[0] if bool(chosen.evidence[0]) else torch.zeros_like(chosen.values[0])
    return overlay(seen(dataset, maps.preprocessing, sample, cell), values, style=style)


def class_name(dataset: ImageDataset, label: int, maps: Maps | None = None) -> str:
    """Name a class, as its map does where there is one; by its number where nobody has a name for it."""
    names = (maps.class_names if maps is not None else ()) or dataset.class_names
    return names[label] if label < len(names) else f"class {label}"
