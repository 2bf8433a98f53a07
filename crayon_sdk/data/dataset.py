"""Data sets: string ids, labels, groups and masks; pixels only when they are asked for, and torch with its tensors."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL import __version__ as PILLOW  # noqa: N812

from crayon_sdk._base.files import check_writable, sha256_of
from crayon_sdk._base.progress import track
from crayon_sdk._base.text import first_few
from crayon_sdk.data.classes import ClassMap, checked_class_map
from crayon_sdk.data.kept import PixelFolder
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.data.shards import ShardSource, list_shards
from crayon_sdk.data.sources import FileSource, Listing, Source, describe, list_folder
from crayon_sdk.data.tables import Columns, list_table, say_recognised
from crayon_sdk.errors import DataError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from crayon_sdk.data.torch_items import TorchSource

__all__ = ["ImageDataset", "SkippedSample", "as_dataset"]


StrPath = str | os.PathLike[str]


class Frame(Protocol):
    """What is needed of a DataFrame of pandas."""

    columns: Any

    def to_csv(self, *, index: bool) -> str:
        """The rows as text."""


OnError = Literal["raise", "skip"]
_PIXELS = 1  # goes up when decoding, resizing or cropping gives other pixels than before


@dataclass(frozen=True)
class SkippedSample:
    """A sample that was left out (``on_error="skip"``), and why."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageDataset:
    """Labelled pictures, each known by a string id; a view that never changes.

    Made by ``from_folder``, ``from_csv``, ``from_shards``, ``from_torch``, ``from_hf`` or ``from_hub``.

    A sample is known by its id, a text, wherever it stands: ``dataset[id]`` is its (picture, label), ``for id in
    dataset`` goes through the ids, ``id in dataset`` asks for one. Positions are refused.

    Attributes:
        ids: One per sample, without repeats.
        class_names: Names of all classes.
        class_map: What the user says about them: names here to names, or numbers, of a model's classes.
        guessed_names: The names are a guess, made from numbers; a model's own names come before them.
        group_names: Names of the irrelevant attributes, such as ``("place",)``.
        groups: Their values per sample, as text; None without attributes.
        skipped: What was left out when the data set was made.
        preprocessing: Used in place of the model's own when it is not None.
        has_masks: Whether samples come with object masks.
        preprocessed: Whether items are finished model inputs.
        pixel_folder: Where decoded pictures are kept from run to run, if anywhere (`with_cache`).
        pixel_whole: All pictures that are kept there in one file; others than these here where this is a part of them.

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

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    group_names: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] | None = None
    skipped: tuple[SkippedSample, ...] = ()
    preprocessing: Preprocessing | None = None
    has_masks: bool = False
    preprocessed: bool = False
    class_map: Mapping[str, str | int] | None = None
    guessed_names: bool = False
    pixel_folder: PixelFolder | None = None
    pixel_whole: ImageDataset | None = None
    _labels: NDArray[np.int64]
    _source: Source
    _positions: tuple[int, ...]
    _checked: bool = False

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
        return cls.from_listing(
            listing, preprocessing=preprocessing, on_error=on_error, decode=decode, class_map=class_map
        )

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
        table, text = _table(path)
        listing = list_table(
            table,
            columns=Columns(
                image=image_column,
                label=label_column,
                id=id_column,
                groups=_group_columns(group_columns),
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
        return cls.from_listing(
            listing, preprocessing=preprocessing, on_error=on_error, decode=decode, class_map=class_map
        )

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
        from crayon_sdk.data.torch_items import TorchSource, count_of, guess_class_names, read_groups, read_labels

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
        return cls._assemble(listing, TorchSource(dataset, masks, preprocessed), preprocessing, on_error, class_map)

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
        from crayon_sdk.data.hf_items import read_hf

        _check_choice(on_error)
        groups = _group_columns(group_columns)
        columns = Columns(image=image_column, label=label_column, id=id_column, groups=groups, mask=mask_column)
        found = read_hf(dataset, columns, _names(class_names))
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
    def from_shards(
        cls,
        shards: StrPath | Sequence[StrPath],
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
        group_columns: Sequence[str] | None = None,
        mask_column: str | None = None,
        class_names: Sequence[str] | None = None,
        class_map: ClassMap | None = None,
        preprocessing: Preprocessing | None = None,
        on_error: OnError = "raise",
        decode: bool = True,
        index_folder: StrPath | None = None,
    ) -> ImageDataset:
        """Read pictures where they lie in large files: tar files as WebDataset writes them, or Parquet files.

        Ids, labels and groups are read at once and kept; pixels are read when they are needed, by id, so that neither
        memory nor a disk must hold them. What lies where in a tar file is found in one pass and kept in a folder; in a
        Parquet file whole groups of rows are read (which takes the extra ``datasets``).

        A sample of a tar file is the files that stand together and have one name up to the first dot: its picture
        (``0001.jpg``), its class (``0001.cls``, or an entry of ``0001.json``), and what else it has. Ids are the name
        of the shard and that of the sample, or the number of the row: "train-000/0001".

        Args:
            shards: A folder with shards below it, one shard, or several; paths, or addresses that fsspec knows
                ("hf://datasets/user/data/train-000.tar").
            image_column: Column, or ending in a tar file, of the picture. Columns that are not named are recognised by
                usual names and features.
            label_column: Column, ending, or entry of the JSON, of the class: a name, or a whole number from 0.
            id_column: Of sample ids.
            group_columns: Of irrelevant attributes; ``()`` for none.
            mask_column: Of the object mask.
            class_names: In the order of the labels; default what the shards have, sorted.
            class_map: Where the model calls the classes otherwise, as in ``from_folder``.
            preprocessing: Used in place of the model's own.
            on_error: ``"raise"``, or ``"skip"`` to leave unusable samples out.
            decode: Look into every picture now; false for data that was looked at before, or is too much for that.
            index_folder: Where it is kept what lies where in tar files; default ``crayon-sdk/shards`` in the cache of
                the user.

        Returns:
            The data set, in the order of the shards.

        Raises:
            DataError: A shard is missing or broken, columns cannot be told apart, or samples have no picture, no label
                or the id of another one.
            MissingExtraError: Parquet files, and the `datasets` library is not installed.
            OutputError: ``index_folder`` cannot be written.
            SettingsError: ``on_error``, ``class_names`` or ``class_map`` make no sense.

        Example:
            >>> import io, tarfile, tempfile
            >>> folder = Path(tempfile.mkdtemp())
            >>> picture = io.BytesIO()
            >>> Image.new("RGB", (8, 8)).save(picture, "png")
            >>> with tarfile.open(folder / "train-000.tar", "w") as shard:
            ...     for name, content in (("1.png", picture.getvalue()), ("1.cls", b"bird")):
            ...         member = tarfile.TarInfo(name)
            ...         member.size = len(content)
            ...         shard.addfile(member, io.BytesIO(content))
            >>> dataset = ImageDataset.from_shards(folder, index_folder=folder / "index")
            >>> dataset.ids, dataset.class_names, dataset["train-000/1"][0].size
            (('train-000/1',), ('bird',), (8, 8))
        """
        _check_choice(on_error)
        columns = Columns(
            image=image_column,
            label=label_column,
            id=id_column,
            groups=_group_columns(group_columns),
            mask=mask_column,
        )
        listing, source = list_shards(shards, columns, _names(class_names), index_folder)
        dataset = cls._assemble(listing, source, preprocessing, on_error, class_map)
        return dataset._looked_at(on_error) if decode else dataset

    @classmethod
    def from_hub(
        cls,
        name: str,
        *,
        split: str,
        revision: str | None = None,
        streaming: bool = False,
        image_column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
        group_columns: Sequence[str] | None = None,
        mask_column: str | None = None,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        on_error: OnError = "raise",
        index_folder: StrPath | None = None,
    ) -> ImageDataset:
        """Read a data set of the Hugging Face Hub through the `datasets` library (extra ``datasets``).

        Args:
            name: Of the data set, "user/data".
            split: As it is called there.
            revision: Branch, tag or commit; default main.
            streaming: Leave the pictures on the Hub, and fetch those that are needed, some at a time (with
                [`with_cache`][crayon_sdk.data.dataset.ImageDataset.with_cache] once): as
                [`from_shards`][crayon_sdk.data.dataset.ImageDataset.from_shards] does, with the same ids. Else all is
                downloaded first, and read as [`from_hf`][crayon_sdk.data.dataset.ImageDataset.from_hf] does.
            image_column: Pictures; columns that are not named are recognised.
            label_column: Classes.
            id_column: Sample ids.
            group_columns: Irrelevant attributes; ``()`` for none.
            mask_column: Object masks.
            class_names: In the order of the labels; default what the column says.
            preprocessing: Used in place of the model's own.
            on_error: ``"raise"``, or ``"skip"`` to leave out what has no label.
            index_folder: With tar files in a stream: where it is kept what lies where in them.

        Returns:
            The data set, in the order of the rows.

        Raises:
            DataError: There is no such split, or its columns are not usable; or a stream of other files than Parquet or
                tar.
            HubError: The data set is not there, may not be read, or the Hub cannot be reached.
            MissingExtraError: The `datasets` library is not installed.
            SettingsError: ``on_error``, ``group_columns`` or ``class_names`` make no sense.
        """
        from crayon_sdk.data.on_hub import downloaded, shards_of

        _check_choice(on_error)
        options: dict[str, Any] = {
            "image_column": image_column,
            "label_column": label_column,
            "id_column": id_column,
            "group_columns": group_columns,
            "mask_column": mask_column,
            "class_names": class_names,
            "preprocessing": preprocessing,
            "on_error": on_error,
        }
        if not streaming:
            return cls.from_hf(downloaded(name, split, revision), **options)
        return cls.from_shards(shards_of(name, split, revision), **options, decode=False, index_folder=index_folder)

    @classmethod
    def from_listing(
        cls,
        listing: Listing,
        *,
        draw_mask: Callable[[int], Image.Image | None] | None = None,
        preprocessing: Preprocessing | None = None,
        on_error: OnError = "raise",
        decode: bool = True,
        class_map: ClassMap | None = None,
    ) -> ImageDataset:
        """Make a data set of files that were listed, as readers of folders, of tables and of published layouts do.

        Args:
            listing: The samples, before they are checked.
            draw_mask: From a position in the listing to its object mask, "L" of 0 and 255, where no file holds it.
            preprocessing: Used in place of the model's own.
            on_error: ``"raise"``, or ``"skip"`` to leave unusable samples out.
            decode: Look into every picture now.
            class_map: Where the model calls the classes otherwise, as in ``from_folder``.

        Raises:
            DataError: Unusable samples (the first five named, the rest counted).
            SettingsError: ``class_map`` makes no sense.
        """
        for position, image in enumerate(listing.images):
            mask = None if listing.masks is None else listing.masks[position]
            if not os.path.isfile(image):
                listing.problems.setdefault(position, "the file is missing")
            elif mask is not None and not os.path.isfile(mask):
                listing.problems.setdefault(position, f"its mask {str(mask)!r} is missing")
        masks = draw_mask if listing.masks is None else tuple(listing.masks)
        source = FileSource(tuple(listing.images), masks)
        dataset = cls._assemble(listing, source, preprocessing, on_error, class_map)
        return dataset._looked_at(on_error) if decode else dataset

    def _looked_at(self, on_error: OnError) -> ImageDataset:
        """The same, or what is left of it, after a look into every picture."""
        if on_error == "raise":
            self.check()
            return self
        return replace(self.without(self.undecodable()), _checked=True)

    @classmethod
    def _assemble(
        cls,
        listing: Listing,
        source: FileSource | ShardSource | TorchSource,
        preprocessing: Preprocessing | None,
        on_error: OnError,
        class_map: ClassMap | None,
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
            _raise_for(listing.ids, listing.problems)
        dataset = cls(
            ids=tuple(listing.ids),
            class_names=listing.class_names,
            group_names=listing.group_names,
            groups=None if listing.groups is None else tuple(listing.groups),
            skipped=tuple(SkippedSample(name, "a class without images") for name in listing.empty_classes),
            preprocessing=preprocessing,
            has_masks=source.masks is not None,
            preprocessed=not isinstance(source, FileSource) and source.preprocessed,
            class_map=checked_class_map(class_map, listing.class_names),
            guessed_names=listing.guessed_names,
            _labels=np.array(listing.labels, dtype=np.int64),
            _source=source,
            _positions=tuple(range(len(listing.ids))),
        )
        return dataset.without(listing.problems)

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
        if not isinstance(sample_id, str):
            if isinstance(sample_id, Sized):
                raise DataError("one sample at a time: write dataset.subset([id, ...]) for some of them")
            raise DataError(
                f"samples are known by ids, which are texts, got {sample_id!r}; dataset.ids has them in order: "
                f"dataset[dataset.ids[{sample_id!r}]]"
            )
        return self.image(sample_id), int(self._labels[self.index_of(sample_id)])

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

    @functools.cached_property
    def labels(self) -> Tensor:
        """int64 (N,), indices into ``class_names``."""
        import torch

        return torch.tensor(self._labels)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def group_of(self, index: int) -> str:
        """Return the group of the sample at a position, such as ``"waterbird/land"``."""
        values = () if self.groups is None else self.groups[index]
        return "/".join((self.class_names[int(self._labels[index])], *values))

    @functools.cached_property
    def group_labels(self) -> tuple[str, ...]:
        """Group of every sample: its class name, then its attribute values."""
        return tuple(self.group_of(index) for index in range(len(self)))

    def group_index(self) -> tuple[Tensor, tuple[str, ...]]:
        """Number the groups that occur, by class, then by attribute values.

        Returns:
            int64 (N,), the group of every sample; and the names of the groups.
        """
        import torch

        values = self.groups or ((),) * len(self)
        keys = list(zip(self._labels.tolist(), values, strict=True))
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

    def subset(self, ids: Sequence[str]) -> ImageDataset:
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

    def with_preprocessing(self, preprocessing: Preprocessing | None) -> ImageDataset:
        """Return the same samples with another preprocessing; None leaves it to the model."""
        return replace(self, preprocessing=preprocessing)

    def with_cache(self, folder: StrPath, *, most_bytes: int = 50 * 1024**3) -> ImageDataset:
        """Return the same samples, whose decoded pictures are kept in a folder from run to run.

        Whoever needs all pictures in some size (explaining, correcting, evaluating) decodes them once, into one file,
        and from then on maps that file into memory; who needs a part of them finds it there. It is another file for
        other pictures, changed ones (by size and time of change), another geometry or another version of Pillow.
        Several processes may use one folder, and may be killed.

        Args:
            folder: It is made when something is put into it; whatever is in it can be deleted at any time.
            most_bytes: How much it may hold: what was not used for the longest time is deleted above that. Pixels that
                are more by themselves are not kept.

        Raises:
            OutputError: The folder cannot be written.
            SettingsError: The pictures are in no files, or ``most_bytes`` is no positive whole number.

        Example:
            >>> import tempfile
            >>> from PIL import Image
            >>> folder = Path(tempfile.mkdtemp())
            >>> (folder / "birds" / "land").mkdir(parents=True)
            >>> Image.new("RGB", (8, 8)).save(folder / "birds" / "land" / "1.png")
            >>> dataset = ImageDataset.from_folder(folder / "birds").with_cache(folder / "pixels")
            >>> dataset.pixel_folder.path.name
            'pixels'
        """
        if not self.files and not isinstance(self._source, ShardSource):
            raise SettingsError(
                "expected a data set of picture files or shards (from_folder, from_csv, from_shards), since files tell "
                "when they changed; got one with its pictures from elsewhere. Leave with_cache out"
            )
        if not isinstance(most_bytes, int) or isinstance(most_bytes, bool) or most_bytes < 1:
            raise SettingsError(f"expected most_bytes to be a positive whole number, got {most_bytes!r}")
        check_writable(folder)
        kept = replace(self, pixel_folder=PixelFolder(Path(folder).absolute(), most_bytes), pixel_whole=None)
        return replace(kept, pixel_whole=kept)

    def pixel_key(self, preprocessing: Preprocessing) -> str:
        """SHA-256 of all that the decoded pixels depend on; it changes when files do. Empty where a file is missing.

        Args:
            preprocessing: Its geometry counts, not its mean and std.
        """
        geometry = {name: value for name, value in preprocessing.to_dict().items() if name not in ("mean", "std")}
        found: list[Any]
        try:
            if isinstance(self._source, ShardSource):
                found = self._source.stamps(self._positions)
            else:
                found = [(str(file.absolute()), *_size_and_time(file)) for file in self.files]
        except OSError:  # reading it says which
            return ""
        return sha256_of(json.dumps([_PIXELS, PILLOW, geometry, found], sort_keys=True))

    def with_classes(self, names: Sequence[str], numbers: Mapping[str, int]) -> ImageDataset:
        """Return the same samples in the classes of a model.

        Args:
            names: Of the model's classes, in its order.
            numbers: Of every class that has samples here: its number in the model, by its name here.
        """
        if tuple(names) == self.class_names and all(names[number] == name for name, number in numbers.items()):
            return replace(self, class_map=None) if self.class_map else self
        moved = np.array([numbers.get(name, -1) for name in self.class_names], dtype=np.int64)
        return replace(self, class_names=tuple(names), _labels=moved[self._labels], class_map=None, guessed_names=False)

    def without(self, reasons: Mapping[int, str]) -> ImageDataset:
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

    def _take(self, indices: Sequence[int]) -> ImageDataset:
        return replace(
            self,
            ids=tuple(self.ids[index] for index in indices),
            groups=None if self.groups is None else tuple(self.groups[index] for index in indices),
            _labels=self._labels[np.array(indices, dtype=np.int64)],
            _positions=tuple(self._positions[index] for index in indices),
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, labels and class names (not of pixels)."""
        return sha256_of(json.dumps([self.ids, self._labels.tolist(), self.class_names]))

    @property
    def files(self) -> tuple[Path, ...]:
        """The picture files, in the order of the ids; none where pictures come from elsewhere."""
        images = self._source.images if isinstance(self._source, FileSource) else ()
        return tuple(images[position] for position in self._positions) if images else ()

    @functools.cached_property
    def file_fingerprint(self) -> str:
        """SHA-256 of ids and sizes of picture files, or places in shards; it changes with them. Empty without."""
        if isinstance(self._source, ShardSource):
            return sha256_of(json.dumps([self.ids, self._source.places(self._positions)]))
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
        return self._seen(sample_id, mask, preprocessing)

    def mask_tensors(self, preprocessing: Preprocessing) -> Tensor:
        """Return the object masks of all samples as the model would see them, for methods that train with them.

        A sample whose object is not known has ones everywhere: one without a mask, or whose mask shows
        nothing in what the model sees of the picture.

        Args:
            preprocessing: As for `mask_tensor`.

        Returns:
            bool (N, H, W).

        Raises:
            DataError: The object is not known of any sample, or a mask cannot be read or does not fit.
        """
        import torch

        found = torch.ones(len(self), *preprocessing.size, dtype=torch.bool)
        known = 0
        for position, sample in enumerate(self.ids):
            mask = self.mask(sample)
            seen = None if mask is None else self._seen(sample, mask, preprocessing).bool()
            if seen is not None and bool(seen.any()):
                found[position], known = seen, known + 1
        if not known:
            raise DataError(f"expected masks that show an object in some of {len(self)} samples, got none that does")
        return found

    def _seen(self, sample_id: str, mask: Image.Image, preprocessing: Preprocessing) -> Tensor:
        import torch

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
            _raise_for(self.ids, self.undecodable())
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


def as_dataset(value: object) -> ImageDataset:
    """Give ``value`` itself when it is an ImageDataset.

    Raises:
        DataError: It is something else; the message says how to make an ImageDataset of it.
    """
    if isinstance(value, ImageDataset):
        return value
    from crayon_sdk.data.torch_items import advice

    raise DataError(f"expected an ImageDataset, got {type(value).__name__}; {advice(value)}")


def _table(path: StrPath | Frame) -> tuple[Path, str | None]:
    if isinstance(path, (str, os.PathLike)):
        return Path(path), None
    from crayon_sdk.data.torch_items import advice, is_frame

    if is_frame(path):
        return Path("data frame"), path.to_csv(index=False)
    raise DataError(f"expected the path of a CSV file or a DataFrame, got {type(path).__name__}; {advice(path)}")


def _check_choice(on_error: str) -> None:
    if on_error not in ("raise", "skip"):
        raise SettingsError(f'on_error must be "raise" or "skip", got {on_error!r}')


def _group_columns(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(names, str):
        raise SettingsError(f"group_columns must be a list of names, got {names!r}; write [{names!r}]")
    return None if names is None else tuple(names)


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


def _raise_for(ids: Sequence[str], reasons: Mapping[int, str]) -> None:
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


def _size_and_time(file: Path) -> tuple[int, int]:
    found = os.stat(file)
    return found.st_size, found.st_mtime_ns
