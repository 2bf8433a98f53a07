"""Biased CelebA: smiling or not, where nearly all who smile have black hair and nearly all others blond."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from crayon_sdk._base.files import StrPath
from crayon_sdk._base.text import first_few
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.data.sources import Listing
from crayon_sdk.errors import DataError
from crayon_sdk.paper.datasets.about import ABOUT, PaperData, check_counts, found_file

__all__ = ["LISTS", "PREPROCESSING", "read_biased_celeba"]

_ABOUT = ABOUT["biased-celeba"]
_PLACES = ("", "celeba", "Anno", "Eval", "Img")  # as torchvision, the authors and the project lay it out
_SIZE = (178, 218)  # of all aligned pictures
_SPLITS = {"train": ("0",), "test": ("1", "2")}  # too few blond people who do not smile are in the test partition alone

LISTS = {"train": "biased_celeba_black_hair_1_100_train.csv", "test": "biased_celeba_black_hair_test.csv"}
"""Names of the lists that the authors of the method published."""

PREPROCESSING = Preprocessing(size=(274, 224), interpolation="bilinear")
"""Of the published runs: the shorter side to 224, values in [0, 1] without mean and std."""


def read_biased_celeba(
    root: StrPath,
    *,
    train_list: StrPath | None = None,
    test_list: StrPath | None = None,
    seed: int | None = None,
    masks: bool = False,
    preprocessing: Preprocessing | None = None,
    strict: bool = True,
    decode: bool = True,
) -> PaperData:
    """Read CelebA, and take the pictures of the biased training set and of the balanced test set.

    Training: 10,000 people with black hair who smile, 10,000 with blond hair who do not, 100 each of the other two
    groups. Testing: 2,000 of each group. Whoever has both or none of the two is left out. Which pictures these are
    is said by lists, or by a draw.

    Args:
        root: The folder with ``img_align_celeba`` and the lists of CelebA.
        train_list: File names of the training pictures, one at the start of each line; default the published list if it
            is in ``root``. Published answers go by its order.
        test_list: Likewise for testing.
        seed: Draw instead: training pictures from the training partition, test pictures from the other two. The
            pictures are then not the paper's, and published answers do not fit.
        masks: Make maps of eyes and mouth of the aligned faces, from the published landmarks: an ellipse around each
            eye, and one around the mouth. The paper does not state their extent.
        preprocessing: Used in place of the model's own; `PREPROCESSING` is that of the published runs.
        strict: Refuse counts that are not the paper's.
        decode: Look into every picture now.

    Returns:
        Training and test pictures, with groups by hair, such as "smiling/blond".

    Raises:
        DataError: Something is not there (the message says where to get it), a list names pictures of no group, or
            counts are not the paper's.

    Example:
        >>> PREPROCESSING.size
        (274, 224)
    """
    folder = Path(root)
    pictures = found_file(_ABOUT, folder, "img_align_celeba", _PLACES)
    groups = _groups(found_file(_ABOUT, folder, "list_attr_celeba.txt", _PLACES))
    lists = {"train": train_list, "test": test_list}
    names = {
        split: _drawn(folder, split, groups, seed, strict)
        if seed is not None
        else _listed(found_file(_ABOUT, folder, LISTS[split], _PLACES) if given is None else Path(given), groups)
        for split, given in lists.items()
    }
    landmarks = _landmarks(found_file(_ABOUT, folder, "list_landmarks_align_celeba.txt", _PLACES)) if masks else None
    made = {}
    for split, chosen in names.items():
        listing = Listing(
            ids=list(chosen),
            images=[pictures / name for name in chosen],
            labels=[int(groups[name][0] == "smiling") for name in chosen],
            class_names=("not smiling", "smiling"),
            group_names=("hair",),
            groups=[(groups[name][1],) for name in chosen],
        )
        draw = None
        if landmarks is not None:
            lacking = [name for name in chosen if name not in landmarks]
            if lacking:
                raise DataError(f"list_landmarks_align_celeba.txt lacks {len(lacking)} pictures: {first_few(lacking)}")
            draw = _Faces([landmarks[name] for name in chosen])
        dataset = ImageDataset.from_listing(listing, draw_mask=draw, preprocessing=preprocessing, decode=False)
        if strict:
            check_counts(_ABOUT, split, dataset)
        if decode:
            dataset.check()
        made[split] = dataset
    return PaperData(_ABOUT, made["train"], made["test"], drawn=seed is not None)


def _rows(path: Path) -> list[list[str]]:
    """Cells between spaces; the first line, a number of lines, is left out."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error
    rows = [line for line in lines if line]
    return rows[1:] if rows and len(rows[0]) == 1 and rows[0][0].isdecimal() else rows


def _groups(path: Path) -> dict[str, tuple[str, str]]:
    """Class and hair of everybody who has one of both hairs."""
    header, *rows = _rows(path) or [[]]
    wanted = ("Black_Hair", "Blond_Hair", "Smiling")
    lacking = [name for name in wanted if name not in header]
    if lacking:
        raise DataError(
            f"expected {str(path)!r} to have {', '.join(wanted)} among its columns, it lacks {first_few(lacking)}"
        )
    ahead = 1 - (header[0].lower() in ("filename", "image_id"))  # names of files have no heading as published
    black, blond, smiling = (header.index(name) + ahead for name in wanted)
    found = {}
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header) + ahead:
            raise DataError(f"{str(path)!r}, picture {number}: expected {len(header) + ahead} cells, got {len(row)}")
        if (row[black] == "1") != (row[blond] == "1"):
            found[row[0]] = (
                "smiling" if row[smiling] == "1" else "not smiling",
                "black" if row[black] == "1" else "blond",
            )
    return found


def _listed(path: Path, groups: Mapping[str, tuple[str, str]]) -> list[str]:
    """The names of a list, in its order."""
    names = [row[0].split(",")[0] for row in _rows(path)]
    names = names[1:] if names and names[0].lower() in ("filename", "image_id") else names
    unknown = [name for name in names if name not in groups]
    if unknown or not names:
        raise DataError(
            f"expected {str(path)!r} to list pictures of people with black or blond hair, by the names of "
            f"list_attr_celeba.txt, got {f'{len(unknown)} others: {first_few(unknown)}' if names else 'nothing'}"
        )
    return names


def _drawn(folder: Path, split: str, groups: Mapping[str, tuple[str, str]], seed: int, strict: bool) -> list[str]:
    """As many of each group as the paper has, in the order of CelebA."""
    path = found_file(_ABOUT, folder, "list_eval_partition.txt", _PLACES)
    inside = {row[0] for row in _rows(path) if row[-1] in _SPLITS[split]}
    draw, chosen = random.Random(seed), set[str]()  # noqa: S311 - a choice of pictures, not a secret
    for name, count in _ABOUT.groups[split].items():
        known = sorted(file for file, group in groups.items() if "/".join(group) == name and file in inside)
        if len(known) < count and strict:
            raise DataError(
                f"expected {count:,} {split} pictures of {name!r} to draw, {str(folder)!r} lists {len(known):,}; the "
                "lists of CelebA are not whole, or take what there is with strict=False"
            )
        chosen.update(draw.sample(known, min(count, len(known))))
    return [name for name in groups if name in chosen]


def _landmarks(path: Path) -> dict[str, tuple[float, ...]]:
    """Left eye, right eye, nose, left and right corner of the mouth, each as x and y in the aligned picture."""
    _, *rows = _rows(path) or [[]]
    try:
        found = {row[0]: tuple(map(float, row[1:])) for row in rows}
    except ValueError as error:
        raise DataError(f"{str(path)!r} holds something that is not a number: {error}") from error
    if not found or any(len(points) != 10 for points in found.values()):
        raise DataError(f"expected {str(path)!r} to have five points of every face, x and y")
    return found


class _Faces:
    """From a position to the map of eyes and mouth."""

    def __init__(self, landmarks: Sequence[tuple[float, ...]]) -> None:
        self.landmarks = landmarks

    def __call__(self, position: int) -> Image.Image:
        points = np.array(self.landmarks[position]).reshape(5, 2)
        (left, right), (first, second) = points[:2], points[3:]
        eyes = float(np.linalg.norm(right - left))
        mouth, wide = (first + second) / 2, max(float(np.linalg.norm(second - first)) / 2, 1.0)
        picture = Image.new("L", _SIZE)
        pen = ImageDraw.Draw(picture)
        for (x, y), across, down in (
            (left, 0.3 * eyes, 0.2 * eyes),
            (right, 0.3 * eyes, 0.2 * eyes),
            (mouth, 1.3 * wide, max(0.8 * wide, 0.3 * eyes)),
        ):
            pen.ellipse((x - across, y - down, x + across, y + down), fill=255)
        return picture
