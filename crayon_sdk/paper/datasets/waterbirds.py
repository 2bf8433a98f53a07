"""Waterbirds (Sagawa et al., ICLR 2020): ``metadata.csv`` as published, object masks of CUB-200-2011."""

from __future__ import annotations

from pathlib import Path

from crayon_sdk._base.files import StrPath
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.data.tables import WATERBIRDS_CLASSES, Columns, list_table
from crayon_sdk.paper.datasets.about import ABOUT, PaperData, absent, check_counts, found_file

__all__ = ["PREPROCESSING", "read_waterbirds"]

_ABOUT = ABOUT["waterbirds"]
_FOLDER = "waterbird_complete95_forest2water2"

PREPROCESSING = Preprocessing(size=(224, 224), crop_pct=224 / 256, crop_mode="squash", interpolation="bilinear")
"""Of the published runs: both sides to 256, the centre of 224, values in [0, 1] without mean and std."""


def read_waterbirds(
    root: StrPath,
    *,
    masks: StrPath | None = None,
    preprocessing: Preprocessing | None = None,
    strict: bool = True,
    decode: bool = True,
) -> PaperData:
    """Read Waterbirds; the groups are bird and place, such as "waterbird/land".

    Args:
        root: The unpacked folder, or the one above it.
        masks: CUB's folder ``segmentations``; where it is not named it is looked for in ``root`` and beside the
            pictures, and if it is not there the data sets have no masks.
        preprocessing: Used in place of the model's own; `PREPROCESSING` is that of the published runs.
        strict: Refuse counts that are not the paper's: 4,795, 1,199 and 5,794 pictures, with those of every group.
        decode: Look into every picture now.

    Returns:
        Training pictures in the order of ``metadata.csv``, in which they are answered; validation and test pictures.

    Raises:
        DataError: It is not there (the message says where to get it), a picture or a mask is missing or broken, or
            counts are not the paper's.

    Example:
        >>> PREPROCESSING.size, PREPROCESSING.mean
        ((224, 224), (0.0, 0.0, 0.0))
    """
    folder = Path(root)
    table = found_file(_ABOUT, folder, "metadata.csv", ("", _FOLDER))
    base = table.parent
    pictures = base / "images" if (base / "images").is_dir() else base  # the authors of the method lay it out so
    beside = next((each for each in (base / "segmentations", folder / "segmentations") if each.is_dir()), None)
    objects = beside if masks is None else Path(masks)
    if objects is not None and not objects.is_dir():
        raise absent(_ABOUT, objects, "there is no such folder of masks")
    found = {}
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        listing = list_table(
            table,
            columns=Columns(groups=("place",)),
            split=split,
            root=pictures,
            class_names=WATERBIRDS_CLASSES,
        )
        if objects is not None:
            listing.masks = [(objects / each).with_suffix(".png") for each in listing.ids]
        dataset = ImageDataset.from_listing(listing, preprocessing=preprocessing, decode=False)
        if strict:
            check_counts(_ABOUT, name, dataset)
        if decode:
            dataset.check()
        found[name] = dataset
    return PaperData(_ABOUT, found["train"], found["test"], found["validation"])
