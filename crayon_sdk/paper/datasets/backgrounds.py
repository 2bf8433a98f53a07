"""The Backgrounds Challenge (Xiao et al., ICLR 2021): ImageNet-9 and its variants with other backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from crayon_sdk._base.files import StrPath
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.data.sources import list_folder
from crayon_sdk.errors import DataError
from crayon_sdk.paper.datasets.about import ABOUT, PaperData, absent, check_counts

__all__ = ["FOLDERS", "IMAGENET_TO_NINE", "NINE", "PREPROCESSING", "VARIANTS", "read_backgrounds", "read_variants"]

_ABOUT = ABOUT["backgrounds"]
NINE = tuple(_ABOUT.groups["test"])
"""The classes, in the order of their folders."""

FOLDERS = tuple(f"{number:02}_{name}" for number, name in enumerate(NINE))
"""Their folders, as published."""

VARIANTS = (
    "original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t"
)  # fmt: skip
"""Folders of the challenge; each has ``val``."""

PREPROCESSING = Preprocessing(
    size=(224, 224),
    mean=(0.4717, 0.4499, 0.3837),
    std=(0.2600, 0.2516, 0.2575),
    crop_pct=224 / 256,
    interpolation="bilinear",
)
"""Of the published runs: the shorter side to 256, the centre of 224, with mean and std of ImageNet-9."""

_CLASSES = {  # ImageNet's numbers of each, as the challenge's in_to_in9.json has them
    "dog": "151-170 173-268",
    "bird": "7-24 87-100 127-146",
    "wheeled vehicle": "407-408 428 436 444 468 511 547 555 561 565 569 573 586 603 609 612 627 656 661 665 670-671 "
    "675 690 705 717 734 751 757 791 802-803 817 820 829 847 864 866-867 870 880",
    "reptile": "33-68",
    "carnivore": "269-280 286-299 356-362 387-388",
    "insect": "300-326",
    "musical instrument": "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 "
    "875 881 889",
    "primate": "365-384",
    "fish": "0-6 389-397",
}


def _numbers(ranges: str) -> list[int]:
    """Numbers of ranges in words, such as "3-5 8"."""
    pairs = [each.partition("-") for each in ranges.split()]
    return [number for first, _, last in pairs for number in range(int(first), int(last or first) + 1)]


IMAGENET_TO_NINE = {number: NINE.index(name) for name, ranges in _CLASSES.items() for number in _numbers(ranges)}
"""ImageNet's class to one of the nine; a class that is not in it is none of them, and wrong for every picture."""


def read_backgrounds(
    root: StrPath,
    *,
    preprocessing: Preprocessing | None = None,
    masks: bool = False,
    strict: bool = True,
    decode: bool = True,
) -> PaperData:
    """Read the training pictures of ImageNet-9 (Original) and all variants of the test pictures that there are.

    Args:
        root: The folder above ``bg_challenge`` and ``training``, or one in which the variants lie themselves, each with
            ``val``, and ``original`` with ``train``, too.
        preprocessing: Used in place of the model's own; `PREPROCESSING` is that of the published runs.
        masks: Take the objects of the training pictures from ``only_fg/train``: all pixels that are not black.
        strict: Refuse counts that are not the paper's: 45,405 for training, 4,050 of each variant.
        decode: Look into every picture now.

    Returns:
        Training pictures in the order of the published answers, Mixed-Rand for testing, and all variants.

    Raises:
        DataError: Something is not there (the message says where to get it), or counts are not the paper's.

    Example:
        >>> FOLDERS[2], len(IMAGENET_TO_NINE)
        ('02_wheeled vehicle', 370)
    """
    folder = Path(root)
    variants = read_variants(root, preprocessing=preprocessing, strict=strict, decode=decode)
    if "mixed_rand" not in variants:
        raise absent(_ABOUT, folder, "no mixed_rand/val in it")
    places = [base / "original" / "train" for base in (folder / "training", folder)]
    place = next((each for each in places if each.is_dir()), None)
    if place is None:
        raise absent(_ABOUT, folder, "no original/train in it, nor in training")
    objects = place.parents[1] / "only_fg" / "train" if masks else None
    if objects is not None and not objects.is_dir():
        raise absent(_ABOUT, folder, f"no only_fg/train beside {str(place)!r}, from which the objects are known")
    train = _read(place, "train", preprocessing, strict=strict, decode=decode, objects=objects)
    return PaperData(_ABOUT, train, variants["mixed_rand"], variants=variants)


def read_variants(
    root: StrPath, *, preprocessing: Preprocessing | None = None, strict: bool = True, decode: bool = True
) -> dict[str, ImageDataset]:
    """Read the variants of the test pictures that there are, which is all that `background_gap` needs.

    Args:
        root: As for `read_backgrounds`.
        preprocessing: Used in place of the model's own.
        strict: Refuse counts that are not 4,050 of each.
        decode: Look into every picture now.

    Raises:
        DataError: There are none, or counts are not the paper's.

    Example:
        >>> VARIANTS[:3]
        ('original', 'mixed_same', 'mixed_rand')
    """
    folder = Path(root)
    for base in (folder / "bg_challenge", folder):
        there = [name for name in VARIANTS if (base / name / "val").is_dir()]
        if there:
            return {
                name: _read(base / name / "val", "test", preprocessing, strict=strict, decode=decode) for name in there
            }
    raise absent(_ABOUT, folder, "no mixed_same/val and mixed_rand/val in it, nor in bg_challenge")


def _read(
    place: Path,
    split: str,
    preprocessing: Preprocessing | None,
    *,
    strict: bool,
    decode: bool,
    objects: Path | None = None,
) -> ImageDataset:
    listing = list_folder(place, FOLDERS, None)
    if listing.empty_classes:
        raise DataError(f"{str(place)!r} has no pictures of {', '.join(listing.empty_classes)}")
    listing.class_names = NINE
    shown = None
    if objects is not None:
        files = [objects / each for each in listing.ids]
        for position, file in enumerate(files):
            if not file.is_file():
                listing.problems.setdefault(position, f"its object {str(file)!r} is missing")
        shown = _Objects(files)
    dataset = ImageDataset.from_listing(listing, draw_mask=shown, preprocessing=preprocessing, decode=False)
    if strict:
        check_counts(_ABOUT, split, dataset)
    if decode:
        dataset.check()
    return dataset


class _Objects:
    """From a position to the pixels of an object on black."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __call__(self, position: int) -> Image.Image:
        with Image.open(self.files[position]) as file:
            values = np.array(file.convert("RGB"))
        return Image.fromarray((values.any(axis=2) * 255).astype(np.uint8))
