"""A look at all pictures before any work starts."""

from __future__ import annotations

import json
from pathlib import Path

from crayon_sdk.data import ImageDataset
from crayon_sdk.errors import DataError, first_few
from crayon_sdk.files import sha256_of
from crayon_sdk.inference import check_labels
from crayon_sdk.manifest import DataSource, SplitFacts
from crayon_sdk.models import SplitModel

__all__ = ["facts_of", "look_at_data"]

_SPLITS = ("train", "val", "test")


def look_at_data(data: DataSource, place: Path, model: SplitModel) -> dict[str, SplitFacts]:
    """Decode every picture of every split there is, and check labels and classes.

    Args:
        data: Where the pictures come from.
        place: Folder of the workspace.
        model: What is to classify them.

    Returns:
        What the splits are, by name.

    Raises:
        DataError: Pictures are not usable, a class has too few, or splits have different classes.
        SettingsError: There are more classes than the model has.
    """
    facts: dict[str, SplitFacts] = {}
    names: tuple[str, ...] = ()
    for split in _SPLITS:
        if split != "train" and not data.has_split(place, split):
            named = data.splits.get(split, split)
            if named != split:
                there = ", ".join(map(repr, data.split_names(place))) or "none"
                raise DataError(
                    f"there is no split {named!r} in the data, which was named as the {split} split; there is {there}"
                )
            continue
        found = data.load(place, split, decode=True)
        check_labels(found, model)
        if split == "train":
            names = found.class_names
            _check_classes(found, data.min_images_per_class)
        elif found.class_names != names:
            raise DataError(f"the {split} pictures have the classes {found.class_names}, the train pictures {names}")
        facts[split] = facts_of(found)
    return facts


def facts_of(dataset: ImageDataset) -> SplitFacts:
    """What a workspace remembers of a split, to notice when it changes: ids, labels, groups, sizes of files."""
    return SplitFacts(
        count=len(dataset),
        fingerprint=sha256_of(dataset.fingerprint, json.dumps([dataset.group_names, dataset.group_labels])),
        files=dataset.file_fingerprint,
        skipped={sample.id: sample.reason for sample in dataset.skipped},
    )


def _check_classes(train: ImageDataset, least: int) -> None:
    counts = train.labels.bincount(minlength=train.num_classes).tolist()
    small = [f"{name} ({count})" for name, count in zip(train.class_names, counts, strict=True) if count < least]
    if small:
        raise DataError(
            f"{len(small)} of {train.num_classes} classes have fewer than {least} training pictures: "
            f"{first_few(small)}. Add pictures, leave the classes out, or lower min_images_per_class="
        )
