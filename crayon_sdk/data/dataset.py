"""Data sets: string ids, labels, groups and masks; pixels only when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from crayon_sdk.data.classes import ClassMap, checked_class_map
from crayon_sdk.data.hf_items import read_hf
from crayon_sdk.data.pixels import PixelCache, batches
from crayon_sdk.data.preprocessing import Preprocessing, effective_preprocessing
from crayon_sdk.data.samples import Samples, SkippedSample, raise_for
from crayon_sdk.data.sources import FileSource, Listing, Source, TorchSource, list_folder
from crayon_sdk.data.tables import Columns, list_table, say_recognised
from crayon_sdk.data.torch_items import advice, count_of, guess_class_names, is_frame, read_groups, read_labels
from crayon_sdk.errors import DataError, SettingsError, first_few

__all__ = [
    "ImageDataset",
    "PixelCache",
    "Preprocessing",
    "SkippedSample",
    "as_dataset",
    "batches",
    "effective_preprocessing",
]

StrPath = str | os.PathLike[str]


class Frame(Protocol):
    """What is needed of a DataFrame of pandas."""

    columns: Any

    def to_csv(self, *, index: bool) -> str:
        """The rows as text."""


OnError = Literal["raise", "skip"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageDataset(Samples):
    """Labelled pictures, each known by a string id; a view that never changes.

    Made by ``from_folder``, ``from_csv``, ``from_torch`` or ``from_hf``; the attributes and
    the other methods are those of [`Samples`][crayon_sdk.data.samples.Samples].

    Example:
        >>> from PIL import Image
        >>> pictures = [(Image.new("RGB", (8, 8)), 0), (Image.new("RGB", (8, 8)), 1)]
        >>> dataset = ImageDataset.from_torch(pictures, class_names=["cat", "dog"])
        >>> dataset
        ImageDataset(2 images, 2 classes)
        >>> dataset.subset(["1"]).group_labels
        ('dog',)
        >>> list(dataset), "1" in dataset, dataset["1"][1]
        (['0', '1'], True, 1)
    """

    @classmethod
    def from_folder(
        cls,
        root: StrPath,
        *,
        class_names: Sequence[str] | None = None,
        class_map: ClassMap | None = None,
        masks: StrPath | None = None,
        preprocessing: Preprocessing | None = None,
        on_error: OnError = "raise",
        decode: bool = True,
    ) -> ImageDataset:
        """Read ``root/class/**/image``; ids are paths below ``root``, with forward slashes.

        Unless told otherwise, every picture is decoded once, to find broken ones now and
        not in the middle of the work. Hidden files are passed over.

        Args:
            root: The folder above the class folders.
            class_names: Class folders in the order of the labels; default all
                of them, sorted.
            class_map: Where the model calls the classes otherwise: names here to its
                names, or to its class numbers.
            masks: A folder with the same paths below it, any image extension.
            preprocessing: Used in place of the model's own.
            on_error: ``"raise"``, or ``"skip"`` to leave unusable samples out.
            decode: Look into every picture now; false for data that was looked at before.

        Returns:
            The data set, sorted by class folder and path.

        Raises:
            DataError: Unusable samples (the first five named, the rest
                counted), no images, or a class without images.
            SettingsError: ``on_error``, ``class_names`` or ``class_map`` make no sense.
        """
        _check_choice(on_error)
        listing = list_folder(Path(root), _names(class_names), None if masks is None else Path(masks))
        if listing.empty_classes and on_error == "raise":
            raise DataError(
                f"{len(listing.empty_classes)} classes have no images in {str(root)!r}: "
                f"{first_few(listing.empty_classes)}. Remove the folders (in Python: or name the "
                "other classes with class_names=)."
            )
        return cls._from_listing(listing, preprocessing, on_error, decode, class_map)

    @classmethod
    def from_csv(
        cls,
        path: StrPath | Frame,
        *,
        split: str | int | None = None,
        root: StrPath | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
        group_columns: Sequence[str] | None = None,
        split_column: str | None = None,
        mask_column: str | None = None,
        class_names: Sequence[str] | None = None,
        class_map: ClassMap | None = None,
        preprocessing: Preprocessing | None = None,
        on_error: OnError = "raise",
        decode: bool = True,
    ) -> ImageDataset:
        """Read a table with one row an image: a CSV file, or a DataFrame of pandas.

        Waterbirds' ``metadata.csv`` is read as it is.

        Columns that are not named are recognised by usual names (image, path,
        filename; label, class, y; split; group, place; mask). Every picture of
        the split is decoded once, as in ``from_folder``.

        Args:
            path: CSV file in UTF-8 with a line of column names; or a DataFrame, whose index is not read.
            split: ``"train"``, ``"val"`` (or ``"validation"``), ``"test"``, or
                what the table says; 0, 1, 2 are these three. None: all rows.
            root: Folder that image and mask paths start from; default the
                folder of the table, or the current one for a DataFrame.
            image_column: Paths of the images.
            label_column: Class names, or whole numbers from 0.
            id_column: Sample ids; default the image column.
            group_columns: Irrelevant attributes; ``()`` for none.
            split_column: Splits.
            mask_column: Paths of object masks.
            class_names: In the order of the labels; default what the whole
                table has, sorted.
            class_map: Where the model calls the classes otherwise, as in ``from_folder``.
            preprocessing: Used in place of the model's own.
            on_error: ``"raise"``, or ``"skip"`` to leave unusable samples out.
            decode: Look into every picture now; false for data that was looked at before.

        Returns:
            The data set, in the order of the table.

        Raises:
            DataError: The table, its columns, the split or samples are not
                usable; the message lists what there is.
            SettingsError: ``on_error``, ``class_names`` or ``class_map`` make no sense.
        """
        _check_choice(on_error)
        if isinstance(group_columns, str):
            raise SettingsError(
                f"group_columns must be a list of names, got {group_columns!r}; write [{group_columns!r}]"
            )
        table, text = _table(path)
        listing = list_table(
            table,
            columns=Columns(
                image=image_column,
                label=label_column,
                id=id_column,
                groups=None if group_columns is None else tuple(group_columns),
                split=split_column,
                mask=mask_column,
            ),
            split=None if split is None else str(split),
            root=table.parent if root is None else Path(root),
            class_names=_names(class_names),
            text=text,
        )
        if listing.guessed_names and decode:
            say_recognised(table)
        if listing.images and not any(map(os.path.isfile, listing.images)):
            raise DataError(
                f"none of the {len(listing.images)} pictures of {table.name!r} is there, such as "
                f"{str(listing.images[0])!r}; say where their paths start with root=FOLDER"
            )
        return cls._from_listing(listing, preprocessing, on_error, decode, class_map)

    @classmethod
    def from_torch(
        cls,
        dataset: Dataset[Any] | Sequence[tuple[Any, Any]],
        *,
        class_names: Sequence[str] | None = None,
        class_map: ClassMap | None = None,
        ids: Sequence[str] | None = None,
        groups: Sequence[Sequence[object]] | Mapping[str, Sequence[object]] | None = None,
        masks: Sequence[Any] | Callable[[int], Any] | None = None,
        preprocessing: Preprocessing | None = None,
        preprocessed: bool = False,
        labels: Sequence[int] | Tensor | None = None,
        on_error: OnError = "raise",
    ) -> ImageDataset:
        """Wrap a map-style torch data set (or a list) of (image, label).

        Items must be the same each time they are asked for. Images are not
        looked at before they are needed; ``check`` looks at all of them.

        Args:
            dataset: Images are PIL images, tensors (C, H, W) or arrays (H, W, C): uint8, uint16
                (white is 65535), bool, or float in [0, 1].
            class_names: Default ``dataset.classes``, else the numbers.
            class_map: Where the model calls the classes otherwise, as in ``from_folder``.
            ids: One text per sample; default the position as text.
            groups: Attribute values: a tuple per sample, or a column by name.
            masks: A mask per sample (PIL image or (H, W) values), or a function
                from position to mask or None.
            preprocessing: Used in place of the model's own.
            preprocessed: Images are finished float inputs (3, H, W); nothing
                is resized or normalised. Masks have the size of the inputs.
            labels: Class indices; default ``dataset.targets``, else every item
                is made once for its label.
            on_error: ``"raise"``, or ``"skip"`` to leave out what has no label.

        Returns:
            The data set, in the order of the items.

        Raises:
            DataError: Not a map-style data set, or ids, labels, groups or masks
                that do not fit it.
            SettingsError: ``on_error``, ``class_names`` or ``class_map`` make no sense.
        """
        _check_choice(on_error)
        if isinstance(dataset, ImageDataset):
            raise DataError("this is an ImageDataset already; use it as it is, or a part of it: dataset.subset(ids)")
        count = count_of(dataset)
        found, problems = read_labels(dataset, labels)
        names = _names(class_names) or guess_class_names(dataset, found)
        group_names, values = read_groups(groups, count)
        for what, given in (("ids", ids), ("masks", masks)):
            if given is not None and not callable(given) and len(given) != count:
                raise DataError(f"{what} must have one entry per sample: {count} samples, {len(given)} {what}")
        for position, label in enumerate(found):
            if not 0 <= label < len(names):
                problems.setdefault(position, f"its label {label} is not a class (0 to {len(names) - 1})")
        listing = Listing(
            ids=[str(position) for position in range(count)] if ids is None else [str(item) for item in ids],
            images=[],
            labels=found,
            class_names=names,
            group_names=group_names,
            groups=values,
            problems=problems,
        )
        source = TorchSource(dataset, masks, preprocessed)
        return cls._assemble(
            listing,
            source,
            preprocessing,
            on_error,
            has_masks=masks is not None,
            preprocessed=preprocessed,
            class_map=class_map,
        )

    @classmethod
    def from_hf(
        cls,
        dataset: Any,
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
        group_columns: Sequence[str] | None = None,
        mask_column: str | None = None,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        on_error: OnError = "raise",
    ) -> ImageDataset:
        """Wrap a data set of the `datasets` library, whose rows are dicts.

        Columns that are not named are recognised: pictures and classes by their features (``Image``,
        ``ClassLabel``), others by usual names (label, group, place, mask). Pictures are decoded when they are
        needed, as they are stored: a format or transform that was set is not used.

        Args:
            dataset: One split, not a stream.
            image_column: Pictures.
            label_column: Classes: ``ClassLabel``, whole numbers from 0, or names.
            id_column: Sample ids; default the position as text, which is another one after shuffling or filtering.
            group_columns: Irrelevant attributes; ``()`` for none.
            mask_column: Object masks.
            class_names: In the order of the labels; default what the column says.
            preprocessing: Used in place of the model's own.
            on_error: ``"raise"``, or ``"skip"`` to leave out what has no label.

        Returns:
            The data set, in the order of the rows.

        Raises:
            DataError: Not such a data set, or columns that are missing or cannot be told apart.
            SettingsError: ``on_error``, ``group_columns`` or ``class_names`` make no sense.
        """
        _check_choice(on_error)
        found = read_hf(
            dataset,
            image=image_column,
            label=label_column,
            id=id_column,
            groups=group_columns,
            mask=mask_column,
            class_names=_names(class_names),
        )
        return cls.from_torch(
            found.items,
            labels=found.labels,
            class_names=found.class_names,
            ids=found.ids,
            groups=found.groups,
            masks=found.masks,
            preprocessing=preprocessing,
            on_error=on_error,
        )

    @classmethod
    def _from_listing(
        cls,
        listing: Listing,
        preprocessing: Preprocessing | None,
        on_error: OnError,
        decode: bool,
        class_map: ClassMap | None,
    ) -> ImageDataset:
        for position, image in enumerate(listing.images):
            mask = None if listing.masks is None else listing.masks[position]
            if not os.path.isfile(image):
                listing.problems.setdefault(position, "the file is missing")
            elif mask is not None and not os.path.isfile(mask):
                listing.problems.setdefault(position, f"its mask {str(mask)!r} is missing")
        source = FileSource(tuple(listing.images), None if listing.masks is None else tuple(listing.masks))
        dataset = cls._assemble(
            listing, source, preprocessing, on_error, has_masks=listing.masks is not None, class_map=class_map
        )
        if not decode:
            return dataset
        if on_error == "raise":
            dataset.check()
            return dataset
        return replace(dataset.without(dataset.undecodable()), _checked=True)

    @classmethod
    def _assemble(
        cls,
        listing: Listing,
        source: Source,
        preprocessing: Preprocessing | None,
        on_error: OnError,
        *,
        has_masks: bool,
        preprocessed: bool = False,
        class_map: ClassMap | None = None,
    ) -> ImageDataset:
        if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
            raise SettingsError(f"preprocessing must be a Preprocessing, got {type(preprocessing).__name__}")
        seen: set[str] = set()
        for position, sample_id in enumerate(listing.ids):
            if sample_id in seen:
                listing.problems.setdefault(position, "another sample has the same id")
            elif not _is_text(sample_id):
                listing.problems.setdefault(position, "its id has characters that cannot be written as text")
            seen.add(sample_id)
        if on_error == "raise":
            raise_for(listing.ids, listing.problems)
        dataset = cls(
            ids=tuple(listing.ids),
            labels=torch.tensor(listing.labels, dtype=torch.int64),
            class_names=listing.class_names,
            group_names=listing.group_names,
            groups=None if listing.groups is None else tuple(listing.groups),
            skipped=tuple(SkippedSample(name, "a class without images") for name in listing.empty_classes),
            preprocessing=preprocessing,
            has_masks=has_masks,
            preprocessed=preprocessed,
            class_map=checked_class_map(class_map, listing.class_names),
            guessed_names=listing.guessed_names,
            _source=source,
            _positions=tuple(range(len(listing.ids))),
        )
        return dataset.without(listing.problems)


def as_dataset(value: object) -> ImageDataset:
    """Give ``value`` itself when it is an ImageDataset.

    Raises:
        DataError: It is something else; the message says how to make an ImageDataset of it.
    """
    if isinstance(value, ImageDataset):
        return value
    raise DataError(f"expected an ImageDataset, got {type(value).__name__}; {advice(value)}")


def _table(path: StrPath | Frame) -> tuple[Path, str | None]:
    if isinstance(path, (str, os.PathLike)):
        return Path(path), None
    if is_frame(path):
        return Path("data frame"), path.to_csv(index=False)
    raise DataError(f"expected the path of a CSV file or a DataFrame, got {type(path).__name__}; {advice(path)}")


def _check_choice(on_error: str) -> None:
    if on_error not in ("raise", "skip"):
        raise SettingsError(f'on_error must be "raise" or "skip", got {on_error!r}')


def _names(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not names or not all(map(_is_name, names)) or len(set(names)) != len(names):
        raise SettingsError(f"class_names must be a list of different names, got {class_names!r}")
    return names


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_text(sample_id: str) -> bool:
    try:
        sample_id.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return False
    return True
