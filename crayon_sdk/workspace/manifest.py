"""``workspace.json``: what lies in a workspace, what it was made from, and how."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from crayon_sdk._base.files import read_json, write_json
from crayon_sdk._base.text import given_only
from crayon_sdk.errors import DataError, FileFormatError, SettingsError

if TYPE_CHECKING:
    from crayon_sdk.data.dataset import ImageDataset
    from crayon_sdk.models.split import SplitModel

__all__ = [
    "MANIFEST",
    "Behaviour",
    "ClassFacts",
    "DataSource",
    "FileRecord",
    "Manifest",
    "ModelSource",
    "SplitFacts",
    "migrated",
    "portable",
]

MANIFEST = "workspace.json"
_FORMAT = "crayon-workspace"
SCHEMA = 2

Migration = Callable[[dict[str, Any]], dict[str, Any]]
_MIGRATIONS: dict[int, Migration] = {1: dict}
"""From the schema that is the key to the one after it. Schema 1 is the first that was ever released; what schema 2
knows besides (classes, class map, behaviour) is empty in a workspace from before, which means: nobody wrote it down."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return given_only(type(self).model_fields, super().__repr_args__())


class ModelSource(_Plain):
    """Where the model of a workspace comes from; the arguments of `load_model`.

    Attributes:
        source: Timm name, "hf-hub:...", "local-dir:...", folder or safetensors file.
        architecture: Timm name, for a safetensors file.
        num_classes: How many classes the weights must have; ``None`` takes what they have.
        model_args: Further arguments of ``timm.create_model``.
        preprocessing: What differs from the model's own, by name.
        allow_pickle: Read weights that exist only as a pickle.
    """

    source: str
    architecture: str | None = None
    num_classes: int | None = None
    model_args: dict[str, Any] = {}
    preprocessing: dict[str, Any] | None = None
    allow_pickle: bool = False

    def load(self, folder: Path) -> SplitModel:
        """Load it; relative paths start at the workspace.

        Raises:
            ModelLoadError: There is no such model.
            SettingsError: Its weights have another number of classes than ``num_classes``.
        """
        from crayon_sdk.data.preprocessing import Preprocessing
        from crayon_sdk.models.load import load_model

        prefix, path = _split_prefix(self.source)
        args = dict(self.model_args)
        wanted = args.pop("num_classes", None) if self.num_classes is None else self.num_classes
        model = load_model(
            f"{prefix}{folder / path}" if path.startswith("./") else self.source,
            architecture=self.architecture,
            model_args=args,
            allow_pickle=self.allow_pickle,
        )
        if wanted not in (None, model.num_classes):
            raise SettingsError(
                f"expected weights for {wanted} classes (num_classes), and those of {self.source!r} have "
                f"{model.num_classes}: the last layer would be new and random, another one in every process. Leave "
                f"--num-classes out, or train a model of {wanted} classes first and name its checkpoint"
            )
        if self.preprocessing is None:
            return model
        return load_model(
            model, preprocessing=Preprocessing.from_dict(model.preprocessing.to_dict() | self.preprocessing)
        )


class DataSource(_Plain):
    """Where the pictures of a workspace come from; the arguments of `ImageDataset`'s constructors.

    Attributes:
        folder: A folder per class, or folders of that kind named like the splits; or shards
            (``ImageDataset.from_shards``) in it, named like the splits or in folders that are.
        csv: In its place, a table.
        val: Another folder, shard or table for the val split.
        test: Another folder, shard or table for the test split.
        root: Where the paths of the table start; default its folder.
        image_column: Column of paths; the others likewise.
        label_column: Class names or numbers.
        id_column: Sample ids.
        group_columns: Irrelevant attributes.
        split_column: Splits.
        mask_column: Paths of object masks.
        masks: With ``folder``: a folder of masks with the same paths below it.
        splits: Name of the train, val and test split in the data.
        skip_bad: Leave unusable pictures out and remember them.
        min_images_per_class: Least number of training pictures of every class.
        class_map: Where the model calls classes otherwise: names in the data to its names or numbers.
    """

    folder: str | None = None
    csv: str | None = None
    val: str | None = None
    test: str | None = None
    root: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    group_columns: tuple[str, ...] | None = None
    split_column: str | None = None
    mask_column: str | None = None
    masks: str | None = None
    splits: dict[str, str] = {"train": "train", "val": "val", "test": "test"}
    skip_bad: bool = False
    min_images_per_class: int = 2
    class_map: dict[str, str | int] | None = None

    def load(self, workspace: Path, split: str, *, decode: bool = False) -> ImageDataset:
        """Read one split; relative paths start at the workspace.

        Args:
            workspace: Folder of the workspace.
            split: "train", "val" or "test".
            decode: Look into every picture.

        Raises:
            DataError: The data is not usable, or has no such split.
            SettingsError: Neither a folder nor a table was named, or both.
        """
        from crayon_sdk.data.dataset import ImageDataset
        from crayon_sdk.data.tables import split_name, splits_of_table

        if not self.has_split(workspace, split):
            there = ", ".join(each for each in ("train", "val", "test") if self.has_split(workspace, each)) or "none"
            raise DataError(f"{self.folder or self.csv!r} has no {split} pictures; its splits are {there}")
        on_error: Any = "skip" if self.skip_bad else "raise"
        other = self._other(split)
        name = self.splits.get(split, split)
        if self.csv is not None:
            table = workspace / (other or self.csv)
            names = splits_of_table(table, self.split_column)
            if names and split_name(name) not in names:
                raise DataError(f"{str(table)!r} has no split {name!r}; its splits are {', '.join(names)}")
            return ImageDataset.from_csv(
                table,
                split=name if names else None,
                root=None if self.root is None else workspace / self.root,
                image_column=self.image_column,
                label_column=self.label_column,
                id_column=self.id_column,
                group_columns=self.group_columns,
                split_column=self.split_column,
                mask_column=self.mask_column,
                class_map=self.class_map,
                on_error=on_error,
                decode=decode,
            )
        if shards := self._shards(workspace, split):
            return self._of_shards(workspace, split, shards, on_error=on_error, decode=decode)
        root = workspace / (other or str(self.folder))
        masks = None if self.masks is None else workspace / self.masks
        if not other and self._has_split_folders(workspace):
            root, masks = root / name, masks and (masks / name if (masks / name).is_dir() else masks)
        return ImageDataset.from_folder(root, masks=masks, class_map=self.class_map, on_error=on_error, decode=decode)

    def _of_shards(
        self, workspace: Path, split: str, shards: list[Path], *, on_error: Any, decode: bool
    ) -> ImageDataset:
        from crayon_sdk.data.dataset import ImageDataset

        if self.masks is not None:
            raise SettingsError(
                f"expected masks of shards in them (mask_column=), got a folder of masks, {self.masks!r}; leave it out"
            )
        names = None  # of those of training, so that all splits agree
        if split != "train":
            names = self.load(workspace, "train").class_names
        return ImageDataset.from_shards(
            shards,
            image_column=self.image_column,
            label_column=self.label_column,
            id_column=self.id_column,
            group_columns=self.group_columns,
            mask_column=self.mask_column,
            class_names=names,
            class_map=self.class_map,
            on_error=on_error,
            decode=decode,
        )

    def _shards(self, workspace: Path, split: str) -> list[Path]:
        """The shards of a split; none where the pictures are not in shards."""
        from crayon_sdk.data.shards import shards_in

        name, other = self.splits.get(split, split), self._other(split)
        if self.csv is not None:
            return []
        root = workspace / (other or str(self.folder))
        if other:
            return shards_in(root)
        if (root / name).is_dir():
            return shards_in(root / name)
        found = shards_in(root)
        by_split = {each: _named_like(found, self.splits.get(each, each)) for each in ("train", "val", "test")}
        return by_split[split] if any(by_split.values()) else found if split == "train" else []

    def has_split(self, workspace: Path, split: str) -> bool:
        """Tell whether there is such a split; without any splits all pictures are "train".

        Raises:
            DataError: The table cannot be read.
            SettingsError: Neither a folder nor a table was named, or both.
        """
        from crayon_sdk.data.tables import split_name, splits_of_table

        if (self.folder is None) == (self.csv is None):
            raise SettingsError(
                "name the pictures: either folder=, a folder with a folder per class, or csv=, a table; not both"
            )
        if self._other(split):
            return True
        name = self.splits.get(split, split)
        if self.csv is not None:
            names = splits_of_table(workspace / self.csv, self.split_column)
            return split_name(name) in names if names else split == "train"
        if self._has_split_folders(workspace):
            return (workspace / str(self.folder) / name).is_dir()
        return split == "train" or bool(self._shards(workspace, split))

    def split_names(self, workspace: Path) -> tuple[str, ...]:
        """What the splits are called in the data; none when it has no splits.

        Raises:
            DataError: The table cannot be read.
        """
        from crayon_sdk.data.tables import splits_of_table

        if self.csv is not None:
            return splits_of_table(workspace / self.csv, self.split_column)
        if not self._has_split_folders(workspace):
            return ()
        return tuple(sorted(each.name for each in (workspace / str(self.folder)).iterdir() if each.is_dir()))

    def _other(self, split: str) -> str | None:
        return {"val": self.val, "test": self.test}.get(split)

    def _has_split_folders(self, workspace: Path) -> bool:
        return (workspace / str(self.folder) / self.splits.get("train", "train")).is_dir()


def _named_like(shards: list[Path], split: str) -> list[Path]:
    """Those whose names begin with that of a split, such as "train-00000-of-00002.parquet"."""
    return [each for each in shards if re.match(rf"{re.escape(split)}(?![a-z0-9])", each.name, re.I)]


class SplitFacts(_Plain):
    """One split as it was when the workspace was made.

    Attributes:
        count: Number of pictures.
        fingerprint: Of ids, labels, class names and groups.
        files: Of ids and file sizes.
        skipped: Left out, with the reason.
    """

    count: int
    fingerprint: str
    files: str = ""
    skipped: dict[str, str] = {}


class ClassFacts(_Plain):
    """Which class of the data is which class of the model.

    Attributes:
        names: Of the model's classes, in its order; the data's where the model has none.
        numbers: Number in the model of every class of the data, by its name there.
        moved: Whether labels or names are other than in the data.
    """

    names: tuple[str, ...]
    numbers: dict[str, int]
    moved: bool


class Behaviour(_Plain):
    """What decides besides the weights what a model gives.

    Attributes:
        logits: The first of them for one picture of noise.
        arguments: What it was built with.
    """

    logits: tuple[float, ...]
    arguments: dict[str, Any]


class PartRecord(_Plain):
    """One file as it was when it was made.

    Attributes:
        size: In bytes.
        sha256: Of its contents.
    """

    size: int
    sha256: str


class FileRecord(_Plain):
    """How one file or folder came to be.

    Attributes:
        made_by: The public call.
        inputs: Fingerprints of what it was made from, by name.
        settings: What was set.
        output: Fingerprint of what was made.
        parts: The file, or those of the folder that are read again, by name; empty in workspaces of before.
        started: When (ISO 8601, UTC).
        seconds: How long it took.
        versions: Of the software.
    """

    made_by: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    output: str
    parts: dict[str, PartRecord] = {}
    started: str
    seconds: float
    versions: dict[str, str]


class Manifest(_Plain):
    """All of ``workspace.json``.

    Attributes:
        format: Always "crayon-workspace".
        schema_version: Of this file.
        written_by: Version of crayon-sdk.
        created: When the workspace was made (ISO 8601, UTC).
        model: Where the model comes from.
        model_fingerprint: Of its weights.
        preprocessing: What it sees of the pictures.
        behaviour: What else decides about its numbers; ``None`` in a workspace from before this was noted.
        classes: Which class of the data is which of its own; likewise.
        data: Where the pictures come from.
        splits: What they were, by split.
        files: How each file came to be, by its path in the workspace.
        answers: Every time answers were added: when, from where, how many.
    """

    format: str = _FORMAT
    schema_version: int = SCHEMA
    written_by: str
    created: str
    model: ModelSource
    model_fingerprint: str
    preprocessing: dict[str, Any] = {}
    behaviour: Behaviour | None = None
    classes: ClassFacts | None = None
    data: DataSource
    splits: dict[str, SplitFacts]
    files: dict[str, FileRecord] = {}
    answers: tuple[dict[str, Any], ...] = ()

    def save(self, folder: Path) -> None:
        """Write it in one piece."""
        write_json(folder / MANIFEST, self.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read it; an older schema is brought up to date in memory.

        Raises:
            FileFormatError: There is none, it is damaged, or another version is needed.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise FileFormatError(
                f"{str(folder)!r} is not a workspace: it has no {MANIFEST}. Go to the folder of one, or name it with "
                f"-w; or make one with: crayon init {folder} --model ... --data ..."
            )
        remedy = f"Put a copy of it back, or make the workspace anew: crayon init {folder} --model ... --data ..."
        values = read_json(path, remedy=remedy)
        if not isinstance(values, dict) or values.get("format") != _FORMAT:
            raise FileFormatError(f"{str(path)!r} is not the {MANIFEST} of a workspace")
        try:
            return cls.model_validate(migrated(values))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise FileFormatError(f"{str(path)!r} is damaged or was altered: {where}: {problem['msg']}") from error


def migrated(
    values: Mapping[str, Any], migrations: Mapping[int, Migration] | None = None, schema: int = SCHEMA
) -> dict[str, Any]:
    """Bring a manifest to a schema, one version after the other.

    Args:
        values: What the file holds.
        migrations: From each version to the next; default those of this package.
        schema: The version that is wanted.

    Raises:
        FileFormatError: It is newer, or too old; the message names the version that can read it.

    Example:
        >>> migrated({"schema_version": 1, "old": 3}, {1: lambda values: {"new": values["old"]}}, schema=2)
        {'new': 3, 'schema_version': 2}
    """
    migrations = _MIGRATIONS if migrations is None else migrations
    found, writer = values.get("schema_version"), values.get("written_by", "an unknown version")
    if not isinstance(found, int) or isinstance(found, bool):
        raise FileFormatError(f"the workspace says schema_version {found!r}; expected a whole number")
    if found > schema:
        raise FileFormatError(
            f"the workspace was written by crayon-sdk {writer} in schema {found}, and this version reads up to "
            f"{schema}; upgrade crayon-sdk to {writer} or newer"
        )
    current = dict(values)
    for version in range(found, schema):
        if version not in migrations:
            raise FileFormatError(
                f"the workspace was written by crayon-sdk {writer} in schema {found}, which this version cannot bring "
                f"up to date; use crayon-sdk {writer}"
            )
        current = migrations[version](current) | {"schema_version": version + 1}
    return current


def portable(path: str, folder: Path) -> str:
    """Write a path that exists as "./..." where it lies inside the workspace, and absolute elsewhere; names stay."""
    prefix, bare = _split_prefix(path)
    if not bare or not os.path.exists(bare):
        return path
    whole, inside = Path(bare).resolve(), folder.resolve()
    return prefix + (f"./{whole.relative_to(inside).as_posix()}" if whole.is_relative_to(inside) else str(whole))


def _split_prefix(path: str) -> tuple[str, str]:
    prefix = "local-dir:"
    return (prefix, path.removeprefix(prefix)) if path.startswith(prefix) else ("", path)
