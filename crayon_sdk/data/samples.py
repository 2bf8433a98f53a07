"""A view of samples: ids, labels, groups and masks; pixels only when they are asked for."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crayon_sdk._base.files import sha256_of
from crayon_sdk._base.progress import track
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.data.sources import FileSource, Source, describe
from crayon_sdk.errors import DataError, first_few

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Samples", "SkippedSample", "raise_for"]


@dataclass(frozen=True)
class SkippedSample:
    """A sample that was left out (``on_error="skip"``), and why."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Samples:
    """What [`ImageDataset`][crayon_sdk.data.dataset.ImageDataset] can do once it is made.

    A sample is known by its id, a text, wherever it stands: ``dataset[id]`` is its (picture, label), ``for id in
    dataset`` goes through the ids, ``id in dataset`` asks for one. Positions are refused.

    Attributes:
        ids: One per sample, without repeats.
        labels: int64 (N,), indices into ``class_names``.
        class_names: Names of all classes.
        class_map: What the user says about them: names here to names, or numbers, of a model's classes.
        guessed_names: The names are a guess, made from numbers; a model's own names come before them.
        group_names: Names of the irrelevant attributes, such as ``("place",)``.
        groups: Their values per sample, as text; None without attributes.
        skipped: What was left out when the data set was made.
        preprocessing: Used in place of the model's own when it is not None.
        has_masks: Whether samples come with object masks.
        preprocessed: Whether items are finished model inputs.
    """

    ids: tuple[str, ...]
    labels: Tensor
    class_names: tuple[str, ...]
    group_names: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] | None = None
    skipped: tuple[SkippedSample, ...] = ()
    preprocessing: Preprocessing | None = None
    has_masks: bool = False
    preprocessed: bool = False
    class_map: Mapping[str, str | int] | None = None
    guessed_names: bool = False
    _source: Source
    _positions: tuple[int, ...]
    _checked: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, sample_id: object) -> bool:
        return isinstance(sample_id, str) and sample_id in self._index

    def __getitem__(self, sample_id: str) -> tuple[Image.Image, int]:
        """Return picture and label of the sample with an id.

        Raises:
            DataError: There is no such sample, it cannot be read, or what was given is a position.
        """
        if isinstance(sample_id, slice):
            raise DataError("samples are known by ids: write dataset.subset(dataset.ids[start:stop]) for some of them")
        if isinstance(sample_id, (list, tuple, Tensor, np.ndarray)):
            raise DataError("one sample at a time: write dataset.subset([id, ...]) for some of them")
        if not isinstance(sample_id, str):
            raise DataError(
                f"samples are known by ids, which are texts, got {sample_id!r}; dataset.ids has them in order: "
                f"dataset[dataset.ids[{sample_id!r}]]"
            )
        return self.image(sample_id), int(self.labels[self.index_of(sample_id)])

    def __add__(self, other: object) -> NoReturn:
        raise DataError(
            "data sets are not added: list both in one table for from_csv, or give from_torch a "
            "torch.utils.data.ConcatDataset with ids="
        )

    def __repr__(self) -> str:
        parts = [f"{len(self)} images", f"{self.num_classes} classes"]
        parts += [f"groups by {', '.join(self.group_names)}"] if self.group_names else []
        parts += ["masks"] if self.has_masks else []
        parts += [f"{len(self.skipped)} skipped"] if self.skipped else []
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def group_of(self, index: int) -> str:
        """Return the group of the sample at a position, such as ``"waterbird/land"``."""
        values = () if self.groups is None else self.groups[index]
        return "/".join((self.class_names[int(self.labels[index])], *values))

    @functools.cached_property
    def group_labels(self) -> tuple[str, ...]:
        """Group of every sample: its class name, then its attribute values."""
        return tuple(self.group_of(index) for index in range(len(self)))

    def group_index(self) -> tuple[Tensor, tuple[str, ...]]:
        """Number the groups that occur, by class, then by attribute values.

        Returns:
            int64 (N,), the group of every sample; and the names of the groups.
        """
        values = self.groups or ((),) * len(self)
        keys = list(zip(self.labels.tolist(), values, strict=True))
        numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
        names = tuple("/".join((self.class_names[label], *attributes)) for label, attributes in numbers)
        return torch.tensor([numbers[key] for key in keys], dtype=torch.int64), names

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {sample_id: index for index, sample_id in enumerate(self.ids)}

    def index_of(self, sample_id: str) -> int:
        """Return the position of a sample.

        Raises:
            DataError: There is no sample with this id.
        """
        try:
            return self._index[sample_id]
        except (KeyError, TypeError):
            example = f"; ids look like {self.ids[0]!r}" if self.ids else ""
            raise DataError(f"there is no sample {sample_id!r} among {len(self)}{example}") from None

    def subset(self, ids: Sequence[str]) -> Self:
        """Return a view of some samples, in the order given.

        Raises:
            DataError: An id is unknown, or given twice.
        """
        if isinstance(ids, str):
            raise DataError(f"ids must be a list of ids, got the text {ids!r}; write [{ids!r}]")
        unknown = [sample_id for sample_id in ids if sample_id not in self._index]
        if unknown:
            raise DataError(
                f"{len(unknown)} of {len(ids)} ids are not among the {len(self)} samples: {first_few(unknown)}"
            )
        if len(set(ids)) != len(ids):
            twice = [sample_id for sample_id, count in Counter(ids).items() if count > 1]
            raise DataError(f"ids must not repeat: {first_few(twice)}")
        return self._take([self._index[sample_id] for sample_id in ids])

    def with_preprocessing(self, preprocessing: Preprocessing | None) -> Self:
        """Return the same samples with another preprocessing; None leaves it to the model."""
        return replace(self, preprocessing=preprocessing)

    def with_classes(self, names: Sequence[str], numbers: Mapping[str, int]) -> Self:
        """Return the same samples in the classes of a model.

        Args:
            names: Of the model's classes, in its order.
            numbers: Of every class that has samples here: its number in the model, by its name here.
        """
        if tuple(names) == self.class_names and all(names[number] == name for name, number in numbers.items()):
            return replace(self, class_map=None) if self.class_map else self
        moved = torch.tensor([numbers.get(name, -1) for name in self.class_names], dtype=torch.int64)
        return replace(self, class_names=tuple(names), labels=moved[self.labels], class_map=None, guessed_names=False)

    def without(self, reasons: Mapping[int, str]) -> Self:
        """Leave samples out, by position, and remember why.

        Raises:
            DataError: Nothing would be left.
        """
        if not reasons:
            return self
        skipped = tuple(SkippedSample(self.ids[index], reason) for index, reason in sorted(reasons.items()))
        if len(skipped) == len(self):
            raise DataError(f"none of the {len(self)} samples can be used: {_first_reasons(self.ids, reasons)}")
        kept = self._take([index for index in range(len(self)) if index not in reasons])
        return replace(kept, skipped=self.skipped + skipped)

    def _take(self, indices: Sequence[int]) -> Self:
        return replace(
            self,
            ids=tuple(self.ids[index] for index in indices),
            labels=self.labels[torch.tensor(indices, dtype=torch.int64)],
            groups=None if self.groups is None else tuple(self.groups[index] for index in indices),
            _positions=tuple(self._positions[index] for index in indices),
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, labels and class names (not of pixels)."""
        return sha256_of(json.dumps([self.ids, self.labels.tolist(), self.class_names]))

    @property
    def files(self) -> tuple[Path, ...]:
        """The picture files, in the order of the ids; none where pictures come from elsewhere."""
        images = self._source.images if isinstance(self._source, FileSource) else ()
        return tuple(images[position] for position in self._positions) if images else ()

    @functools.cached_property
    def file_fingerprint(self) -> str:
        """SHA-256 of ids and sizes of the picture files; it changes when pictures are replaced. Empty without files."""
        if not isinstance(self._source, FileSource):
            return ""
        sizes = [os.stat(file).st_size if os.path.isfile(file) else -1 for file in self.files]
        return sha256_of(json.dumps([self.ids, sizes]))

    def image_size(self, sample_id: str) -> tuple[int, int]:
        """Return width and height of a whole picture, upright; of a file, without decoding it.

        Raises:
            DataError: No such sample, or it cannot be read.
        """
        index = self.index_of(sample_id)
        with self._named(index):
            return self._source.size(self._positions[index])

    def image(self, sample_id: str) -> Image.Image:
        """Return a whole picture: RGB, upright, as large as it is.

        A finished model input is turned back into a picture with the mean and
        std of ``preprocessing``; without it, its values are stretched.

        Raises:
            DataError: No such sample, or it cannot be read.
        """
        index = self.index_of(sample_id)
        with self._named(index):
            return self._source.image(self._positions[index], self.preprocessing)

    def row(self, position: int, preprocessing: Preprocessing | None) -> Tensor:
        """Return what goes into a batch for the sample at a position.

        Returns:
            (3, H, W) uint8 after resizing and cropping, or float32 where
            ``preprocessed``.

        Raises:
            DataError: It cannot be read.
        """
        with self._named(position):
            return self._source.row(self._positions[position], preprocessing)

    def mask(self, sample_id: str) -> Image.Image | None:
        """Return the object mask of a sample: mode ``"L"``, 0 or 255; None without one.

        Raises:
            DataError: No such sample, or its mask cannot be read.
        """
        index = self.index_of(sample_id)
        with self._named(index, "its mask cannot be read: "):
            return self._source.mask(self._positions[index])

    def mask_tensor(self, sample_id: str, preprocessing: Preprocessing) -> Tensor:
        """Return the object mask as the model would see it.

        Args:
            sample_id: The sample.
            preprocessing: The one of the picture; preprocessed data must bring
                masks of its size.

        Returns:
            float32 (H, W), 0 or 1.

        Raises:
            DataError: No such sample, no mask, or it does not fit.
        """
        mask = self.mask(sample_id)
        if mask is None:
            raise DataError(f"sample {sample_id!r} has no mask; pass masks when the data set is made")
        if not self.preprocessed:
            mask = preprocessing.geometry_mask(mask)
        elif (mask.height, mask.width) != preprocessing.size:
            raise DataError(
                f"the mask of {sample_id!r} is {mask.height} x {mask.width} pixels; masks of preprocessed images "
                f"must be as large as these, {preprocessing.size[0]} x {preprocessing.size[1]}"
            )
        return torch.from_numpy((np.array(mask) > 0).astype(np.float32))

    def check(self) -> None:
        """Decode every picture and mask once; a second call returns at once.

        Raises:
            DataError: Some cannot be read; the first five are named and the
                rest counted.
        """
        if not self._checked:
            raise_for(self.ids, self.undecodable())
            object.__setattr__(self, "_checked", True)

    def undecodable(self) -> dict[int, str]:
        """Decode every picture and mask; return the reasons, by position, of those that fail."""
        # Pillow decodes outside of the interpreter's lock; code of others may not be ready for threads.
        threads = min(32, 2 * (os.cpu_count() or 1)) if isinstance(self._source, FileSource) else 1
        found: dict[int, str] = {}
        with ThreadPoolExecutor(threads) as pool, track("looking at pictures", len(self)) as advance:
            for index, reason in enumerate(pool.map(self._failure, range(len(self)))):
                advance(1)
                if reason is not None:
                    found[index] = reason
        return found

    def _failure(self, index: int) -> str | None:
        position = self._positions[index]
        try:
            if self.preprocessed:
                _, height, width = self._source.row(position, None).shape
            else:
                width, height = self._source.image(position, None).size
        except Exception as error:  # broken files fail in many ways
            return describe(error)
        try:
            mask = self._source.mask(position)
        except Exception as error:
            return f"its mask cannot be read: {describe(error)}"
        # Masks may be smaller or larger than pictures, but of the same proportions up to a pixel.
        if mask is not None and abs(mask.width * height - mask.height * width) > max(width, height):
            return (
                f"its mask ({mask.width} x {mask.height}) has other proportions than the picture ({width} x {height})"
            )
        return None

    @contextlib.contextmanager
    def _named(self, index: int, what: str = "") -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise DataError(f"sample {self.ids[index]!r} cannot be used: {what}{describe(error)}") from error


def raise_for(ids: Sequence[str], reasons: Mapping[int, str]) -> None:
    """Raise one error for all unusable samples.

    Raises:
        DataError: There are reasons.
    """
    if reasons:
        raise DataError(
            f"{len(reasons)} of {len(ids)} samples cannot be used: {_first_reasons(ids, reasons)}. "
            'Correct them, or pass on_error="skip" to leave them out.'
        )


def _first_reasons(ids: Sequence[str], reasons: Mapping[int, str]) -> str:
    return first_few(f"{ids[index]}: {reason}" for index, reason in sorted(reasons.items()))
