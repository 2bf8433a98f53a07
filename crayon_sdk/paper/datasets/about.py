"""What is known of each data set: where it is published, under what terms, how its files lie, and its counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crayon_sdk.errors import DataError

if TYPE_CHECKING:
    from crayon_sdk.data.dataset import ImageDataset

__all__ = ["ABOUT", "About", "Archive", "PaperData", "absent", "check_counts", "found_file"]


@dataclass(frozen=True)
class Archive:
    """A file of a data set as it is handed out.

    Attributes:
        name: Of the file.
        urls: Where it is, best first.
        into: The folder that it is unpacked to, below that of the data set; "" for a file that stays as it is.
        checksum: "md5:..." or "sha256:..." as published; "" where none is.
        size: In bytes, where it is published.
    """

    name: str
    urls: tuple[str, ...]
    into: str = ""
    checksum: str = ""
    size: int | None = None


@dataclass(frozen=True)
class About:
    """A data set of the paper.

    Attributes:
        name: As it is typed.
        title: As the paper calls it.
        places: Official places to get it, each with what is there.
        licence: On what terms.
        size: Roughly, on disk.
        layout: How its files must lie, line by line.
        groups: Pictures of each group of each split, as in the paper.
        archives: What `crayon paper fetch` brings.

    Example:
        >>> ABOUT["waterbirds"].count("train"), ABOUT["biased-celeba"].count("test")
        (4795, 8000)
    """

    name: str
    title: str
    places: tuple[str, ...]
    licence: str
    size: str
    layout: str
    groups: Mapping[str, Mapping[str, int]]
    archives: tuple[Archive, ...] = ()

    def count(self, split: str) -> int:
        """Pictures of a split, as in the paper."""
        return sum(self.groups[split].values())


@dataclass(frozen=True)
class PaperData:
    """A data set of the paper, read.

    Attributes:
        about: What is known of it.
        train: Training pictures, in the order of the published answers, with groups where there are some.
        test: What the paper's numbers are measured on.
        validation: Held-out pictures; none where the paper has none.
        variants: Of the Backgrounds Challenge: every variant of the test pictures by name.
        drawn: The training pictures are a draw, not those that the paper's answers are about.
    """

    about: About
    train: ImageDataset
    test: ImageDataset
    validation: ImageDataset | None = None
    variants: Mapping[str, ImageDataset] = field(default_factory=dict)
    drawn: bool = False


def absent(about: About, root: Path, lacking: str) -> DataError:
    """The error for a data set that is not there, or not whole: where it is, on what terms, and how it must lie.

    Args:
        about: The data set.
        root: Where it was looked for.
        lacking: What was not found, such as "no metadata.csv".
    """
    places = "\n".join(f"  {place}" for place in about.places)
    layout = "\n".join(f"  {line}" for line in about.layout.splitlines())
    return DataError(
        f"{about.title} is not in {str(root)!r}: {lacking}. Get it from its official places:\n{places}\n"
        f"Terms: {about.licence}. Size: {about.size}. Expected layout:\n{layout}\n"
        f"`crayon paper fetch {about.name} --to DIR` downloads it and lays it out"
    )


def found_file(about: About, root: Path, name: str, below: tuple[str, ...]) -> Path:
    """Find a file or folder of a data set in the first of the places where it may lie.

    Args:
        about: The data set.
        root: Its folder.
        name: Of the file.
        below: Folders below the root, "" for itself.

    Raises:
        DataError: It is in none of them.
    """
    for folder in below:
        path = root / folder / name
        if path.exists():
            return path
    raise absent(about, root, f"no {name} in it" + "".join(f", nor in {folder}" for folder in below if folder))


def check_counts(about: About, split: str, dataset: ImageDataset) -> None:
    """Compare the groups of a split with the paper's.

    Args:
        about: The data set.
        split: "train", "validation" or "test".
        dataset: What was read.

    Raises:
        DataError: A group has more or fewer pictures; all of them are named.
    """
    expected, found = about.groups[split], Counter(dataset.group_labels)
    wrong = [
        f"{name}: {found.get(name, 0):,} instead of {expected.get(name, 0):,}"
        for name in sorted({*expected, *found})
        if found.get(name, 0) != expected.get(name, 0)
    ]
    if wrong:
        raise DataError(
            f"expected the {about.count(split):,} {split} pictures of {about.title} as in the paper, got "
            f"{len(dataset):,} ({'; '.join(wrong)}). Something is missing, or it is another version: get it again, or "
            "take what there is with strict=False"
        )


_CALTECH = "https://data.caltech.edu/records/w9d68-gec53"
_DRO = "waterbird_complete95_forest2water2"
_CELEBA = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
_RELEASE = "https://raw.githubusercontent.com/poloclub/crayon/579dd28ce22fb0015fa78fcfcce58fbbaed12ccd"
_IN9 = "https://github.com/MadryLab/backgrounds_challenge"
_BIRDS = ("landbird/land", "landbird/water", "waterbird/land", "waterbird/water")
_FACES = ("not smiling/black", "not smiling/blond", "smiling/black", "smiling/blond")
_NINE = ("dog", "bird", "wheeled vehicle", "reptile", "carnivore", "insect", "musical instrument", "primate", "fish")

_LISTED = (
    About(
        name="waterbirds",
        title="Waterbirds",
        places=(
            f"https://nlp.stanford.edu/data/dro/{_DRO}.tar.gz (pictures and metadata.csv)",
            f"https://downloads.cs.stanford.edu/nlp/data/dro/{_DRO}.tar.gz (the same)",
            f"{_CALTECH} (segmentations.tgz: object masks of CUB-200-2011, which methods with masks need)",
        ),
        licence="birds of CUB-200-2011 on backgrounds of Places: non-commercial research and education only",
        size="1.2 GB, and 40 MB of masks",
        layout=(
            f"{_DRO}/metadata.csv\n"
            f"{_DRO}/001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg, 200 such folders\n"
            "segmentations/001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.png, as many"
        ),
        groups={
            "train": dict(zip(_BIRDS, (3498, 184, 56, 1057), strict=True)),
            "validation": dict(zip(_BIRDS, (467, 466, 133, 133), strict=True)),
            "test": dict(zip(_BIRDS, (2255, 2255, 642, 642), strict=True)),
        },
        archives=(
            Archive(
                f"{_DRO}.tar.gz",
                (
                    f"https://nlp.stanford.edu/data/dro/{_DRO}.tar.gz",
                    f"https://downloads.cs.stanford.edu/nlp/data/dro/{_DRO}.tar.gz",
                ),
                into=_DRO,
            ),
            Archive(
                "segmentations.tgz",
                (
                    f"{_CALTECH}/files/segmentations.tgz?download=1",
                    "https://data.caltech.edu/api/records/w9d68-gec53/files/segmentations.tgz/content",
                ),
                into="segmentations",
                checksum="sha256:dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
                size=39_272_883,
            ),
        ),
    ),
    About(
        name="biased-celeba",
        title="Biased CelebA",
        places=(
            f"{_CELEBA} (the project, which leads to Google Drive and Baidu Drive)",
            "https://drive.google.com/drive/folders/0B7EVK8r0v71pWEZsZE9oNnFzTm8 (Img, Anno and Eval)",
            "https://github.com/poloclub/crayon (folder data: the paper's lists of training and test pictures)",
        ),
        licence="non-commercial research only, see the project's agreement; faces are personal data",
        size="1.4 GB of aligned pictures, and 40 MB of lists",
        layout=(
            "img_align_celeba/000001.jpg, 202,599 such files\n"
            "list_attr_celeba.txt\n"
            "list_eval_partition.txt\n"
            "list_landmarks_align_celeba.txt (for the maps of eyes and mouth)\n"
            "biased_celeba_black_hair_1_100_train.csv, biased_celeba_black_hair_test.csv (for the published answers)"
        ),
        groups={
            "train": dict(zip(_FACES, (100, 10_000, 10_000, 100), strict=True)),
            "test": dict.fromkeys(_FACES, 2_000),
        },
        archives=(
            Archive(
                "img_align_celeba.zip",
                (
                    f"{_DRIVE}0B7EVK8r0v71pZjFTYXZWM3FlRnM",
                    "https://s3-us-west-1.amazonaws.com/udacity-dlnfd/datasets/celeba.zip",
                ),
                into="img_align_celeba",
                checksum="md5:00d2c5bc6d35e252742224ab0c1e8fcb",
            ),
            Archive(
                "list_attr_celeba.txt",
                (f"{_DRIVE}0B7EVK8r0v71pblRyaVFSWGxPY0U",),
                checksum="md5:75e246fa4810816ffd6ee81facbd244c",
            ),
            Archive(
                "list_eval_partition.txt",
                (f"{_DRIVE}0B7EVK8r0v71pY0NSMzRuSXJEVkk",),
                checksum="md5:d32c9cbf5e040fd4025c592c306e6668",
            ),
            Archive(
                "list_landmarks_align_celeba.txt",
                (f"{_DRIVE}0B7EVK8r0v71pd0FJY3Blby1HUTQ",),
                checksum="md5:cc24ecafdb5b50baae59b03474781f8c",
            ),
            *(
                Archive(name, (f"{_RELEASE}/data/{name}",))
                for name in ("biased_celeba_black_hair_1_100_train.csv", "biased_celeba_black_hair_test.csv")
            ),
        ),
    ),
    About(
        name="backgrounds",
        title="Backgrounds Challenge",
        places=(
            f"{_IN9}/releases (backgrounds_challenge_data.tar.gz: all variants of the test pictures)",
            f"{_IN9}#training-data (Original and Only-FG, on Dropbox: training pictures and their objects)",
        ),
        licence="pictures of ImageNet: non-commercial research and education only",
        size="several GB; the downloads say how many",
        layout=(
            "bg_challenge/original/val/00_dog/*.JPEG, and so for mixed_same, mixed_rand, only_fg ..., 9 classes each\n"
            "training/original/train/00_dog/*.JPEG, 9 classes\n"
            "training/only_fg/train/00_dog/*.JPEG (the objects alone, for methods with masks)"
        ),
        groups={"train": dict.fromkeys(_NINE, 5_045), "test": dict.fromkeys(_NINE, 450)},
        archives=(
            Archive(
                "backgrounds_challenge_data.tar.gz",
                (f"{_IN9}/releases/download/data/backgrounds_challenge_data.tar.gz",),
                into="bg_challenge",
            ),
            Archive(
                "original.tar.gz",
                ("https://www.dropbox.com/s/0vv2qsc4ywb4z5v/original.tar.gz?dl=1",),
                into="training/original",
            ),
            Archive(
                "only_fg.tar.gz",
                ("https://www.dropbox.com/s/alrf3jo8yyxzyrn/only_fg.tar.gz?dl=1",),
                into="training/only_fg",
            ),
        ),
    ),
)
ABOUT: Mapping[str, About] = {about.name: about for about in _LISTED}
"""The three by name."""
