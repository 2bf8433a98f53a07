"""Torch data sets: their items as pictures, and what they tell about their samples besides."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from crayon_sdk.data.preprocessing import Preprocessing, binary_mask, eight_bit, to_rgb
from crayon_sdk.data.sources import row_of
from crayon_sdk.errors import DataError

__all__ = ["TorchSource", "advice", "count_of", "guess_class_names", "is_frame", "is_hf", "read_groups", "read_labels"]


@dataclass(frozen=True)
class TorchSource:
    """Pictures that a map-style torch data set makes."""

    dataset: Any
    masks: Sequence[Any] | Callable[[int], Any] | None
    preprocessed: bool

    def size(self, position: int) -> tuple[int, int]:
        """Width and height of a picture."""
        return self.image(position).size

    def image(self, position: int, preprocessing: Preprocessing | None = None) -> Image.Image:
        """Return an item as a picture; a finished model input is turned back into one."""
        item = self._item(position)
        if not self.preprocessed:
            return _to_picture(item)
        values = _to_input(item)
        if preprocessing is not None:
            return _to_picture(preprocessing.denormalize(values))
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:  # unknown mean and std: stretched, to be recognisable at least
            values = (values - low) / (high - low)
        return _to_picture(values)

    def row(self, position: int, preprocessing: Preprocessing | None) -> Tensor:
        """Return an item as it goes into a batch."""
        item = self._item(position)
        return _to_input(item) if self.preprocessed else row_of(_to_picture(item), preprocessing)

    def mask(self, position: int) -> Image.Image | None:
        """Return a mask as a picture."""
        if self.masks is None:
            return None
        mask = self.masks(position) if callable(self.masks) else self.masks[position]
        if mask is None or isinstance(mask, Image.Image):
            return None if mask is None else binary_mask(mask)
        values = torch.as_tensor(mask).detach().cpu().squeeze().numpy()
        if values.ndim != 2:
            raise DataError(f"a mask must be a picture or (H, W) values, got shape {tuple(values.shape)}")
        return binary_mask(Image.fromarray(values.astype(np.float32)))

    def _item(self, position: int) -> Any:
        item = self.dataset[position]
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise DataError(f"items must be (image, label), got {type(item).__name__}")
        return item[0]


def is_frame(value: Any) -> bool:
    """Tell whether a value is a DataFrame of pandas."""
    return hasattr(value, "to_csv") and hasattr(value, "columns")


def is_hf(value: Any) -> bool:
    """Tell whether a value is a data set of the `datasets` library, of which rows are dicts."""
    return hasattr(value, "features") and hasattr(value, "column_names")


def advice(value: Any) -> str:
    """Say how an ImageDataset is made of what was given in its place.

    Example:
        >>> advice("birds/train")
        "write ImageDataset.from_folder('birds/train') for class folders, ImageDataset.from_csv(...) for a table"
    """
    if isinstance(value, (str, os.PathLike)):
        where = os.fspath(value)
        return f"write ImageDataset.from_folder({where!r}) for class folders, ImageDataset.from_csv(...) for a table"
    if isinstance(value, DataLoader):
        return "write ImageDataset.from_torch(loader.dataset), with preprocessed=True where its transform normalises"
    if isinstance(value, Mapping) and value and all(map(is_hf, value.values())):
        return f"choose a split: ImageDataset.from_hf(dataset[{next(iter(value))!r}])"
    if is_hf(value):
        whole = hasattr(value, "__len__")
        return "write ImageDataset.from_hf(dataset)" + (
            "" if whole else "; load it without streaming=True first, or let from_hub(NAME, streaming=True) read it"
        )
    if is_frame(value):
        return "write ImageDataset.from_csv(frame, root=FOLDER)"
    if isinstance(getattr(value, "root", None), (str, os.PathLike)) and hasattr(value, "samples"):
        return (
            f"write ImageDataset.from_folder({os.fspath(value.root)!r}), whose ids are the paths, or "
            "ImageDataset.from_torch(dataset)"
        )
    if isinstance(value, (Image.Image, Tensor, np.ndarray, list, tuple)):
        return "write ImageDataset.from_torch([(image, label), ...]) with the class of every image"
    if type(value).__module__.startswith("crayon_sdk."):
        return "the data set comes first: look at the order of the arguments"
    if isinstance(value, Sized) and hasattr(value, "__getitem__"):
        return "write ImageDataset.from_torch(dataset)"
    return "make one with ImageDataset.from_folder, from_csv, from_shards, from_torch, from_hf or from_hub"


def count_of(dataset: Any) -> int:
    """Return the length of a map-style data set.

    Raises:
        DataError: It is of another kind, or empty.
    """
    if isinstance(dataset, Mapping) or is_hf(dataset) or is_frame(dataset):
        raise DataError(f"expected items (image, label), got {type(dataset).__name__}; {advice(dataset)}")
    if isinstance(dataset, DataLoader):
        raise DataError(
            f"expected a data set with items (image, label), got a {type(dataset).__name__}; {advice(dataset)}"
        )
    fits = isinstance(dataset, Sized) and hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    if not fits:
        raise DataError(
            "the data set must be map-style, with __len__ and __getitem__ giving (image, label); "
            f"got {type(dataset).__name__}. Read a stream into a list of (image, label) first."
        )
    if len(dataset) == 0:
        raise DataError("the data set is empty; expected at least one (image, label)")
    return len(dataset)


def read_labels(dataset: Any, labels: Sequence[int] | Tensor | None) -> tuple[list[int], dict[int, str]]:
    """Take labels from what was passed, from ``targets``, or from the items.

    Returns:
        Class indices, -1 where there is none, and the reasons by position.

    Raises:
        DataError: ``labels`` has another length than the data set.
    """
    count = len(dataset)
    values: Any = labels if labels is not None else _targets(dataset)
    if labels is not None and len(labels) != count:
        raise DataError(f"labels must have one entry per sample: {count} samples, {len(labels)} labels")
    found: list[int] = []
    problems: dict[int, str] = {}
    for position in range(count):
        label = _label(dataset, values, position)
        found.append(-1 if isinstance(label, str) else label)
        if isinstance(label, str):
            problems[position] = label
    return found, problems


def _label(dataset: Any, values: Any, position: int) -> int | str:
    try:
        return _as_label(_item_label(dataset[position]) if values is None else values[position])
    except Exception as error:  # an item runs code of others
        return str(error) or type(error).__name__


def guess_class_names(dataset: Any, labels: Sequence[int]) -> tuple[str, ...]:
    """Return ``classes`` of the data set, or the numbers that occur."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    needed = max(labels, default=0) + 1
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes):
        return tuple(classes)
    return tuple(str(number) for number in range(max(needed, 1)))


def read_groups(
    groups: Sequence[Sequence[object]] | Mapping[str, Sequence[object]] | None, count: int
) -> tuple[tuple[str, ...], list[tuple[str, ...]] | None]:
    """Bring groups to names of attributes and one tuple of values per sample.

    Raises:
        DataError: Not one entry per sample, or tuples of several lengths.
    """
    if groups is None or (isinstance(groups, Mapping) and not groups):
        return (), None
    if isinstance(groups, Mapping):
        names = tuple(str(name) for name in groups)
        for name, values in groups.items():
            if len(values) != count:
                raise DataError(f"group {name!r} must have one value per sample: {count} samples, {len(values)} values")
        return names, [tuple(map(_text, row)) for row in zip(*groups.values(), strict=True)]
    rows = [tuple(map(_text, (row,) if isinstance(row, (str, int)) else row)) for row in groups]
    if len(rows) != count:
        raise DataError(f"groups must have one entry per sample: {count} samples, {len(rows)} entries")
    widths = {len(row) for row in rows}
    if len(widths) != 1 or widths == {0}:
        raise DataError(f"groups must be tuples of one length above 0, got lengths {sorted(widths)}")
    width = widths.pop()
    return ("group",) if width == 1 else tuple(f"group_{number}" for number in range(1, width + 1)), rows


def _text(value: object) -> str:
    return str(value.item() if isinstance(value, Tensor) else value)


def _targets(dataset: Any) -> Any:
    """Return the labels that a data set keeps, when they are surely those of its items."""
    if isinstance(dataset, Subset):
        inner = _targets(dataset.dataset)
        return None if inner is None else [inner[index] for index in dataset.indices]
    targets = getattr(dataset, "targets", None)
    if targets is None or getattr(dataset, "target_transform", None) is not None:
        return None
    return targets if isinstance(targets, (Sequence, Tensor)) and len(targets) == len(dataset) else None


def _item_label(item: Any) -> Any:
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise DataError(f"items must be (image, label), got {type(item).__name__}{_pairs(item)}")
    return item[1]


def _pairs(item: Any) -> str:
    if isinstance(item, Mapping):
        return f" with {', '.join(map(repr, item))}; ImageDataset.from_hf reads data sets of the datasets library"
    return ""


def _as_label(value: Any) -> int:
    try:
        return int(operator.index(value))
    except (TypeError, ValueError) as error:
        raise DataError(f"its label must be a whole number, got {value!r}") from error


def _to_picture(item: Any) -> Image.Image:
    """Accept a PIL image, a (C, H, W) tensor or an (H, W, C) array; 16 bits count to 65535, floats to 1."""
    if isinstance(item, Image.Image):
        return to_rgb(item)
    if isinstance(item, Tensor):
        values = item.detach().cpu()
        if values.dim() == 3:
            values = values.permute(1, 2, 0)
        layout = "(C, H, W)"
    elif isinstance(item, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(item))
        layout = "(H, W, C)"
    else:
        raise DataError(f"an image must be a PIL image, a tensor or an array, got {type(item).__name__}")
    if values.dim() == 2:
        values = values[..., None]
    if values.dim() != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        raise DataError(f"an image must be {layout} with 1, 3 or 4 channels, got shape {tuple(item.shape)}")
    try:
        picture = eight_bit((values.float() if values.is_floating_point() else values).numpy())
    except DataError as error:
        hint = "; pass preprocessed=True when they are normalised already" if values.is_floating_point() else ""
        raise DataError(f"{error}{hint}") from None
    return to_rgb(Image.fromarray(np.ascontiguousarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)))


def _to_input(item: Any) -> Tensor:
    values = torch.as_tensor(item) if isinstance(item, np.ndarray) else item
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.dim() != 3 or values.shape[0] != 3:
        got = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(item).__name__
        raise DataError(f"a preprocessed image must be a float tensor (3, H, W), got {got}")
    if not bool(torch.isfinite(values).all()):
        raise DataError("a preprocessed image must hold finite numbers only")
    return values.detach().cpu().to(torch.float32)
