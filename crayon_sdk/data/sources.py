"""Where pictures come from: what a source is, and image files as one; the other is in `torch_items`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from crayon_sdk._base.text import first_few
from crayon_sdk.data.preprocessing import Preprocessing, binary_mask, to_rgb
from crayon_sdk.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "EXTENSIONS",
    "FileSource",
    "Listing",
    "Source",
    "decoded",
    "decoded_mask",
    "describe",
    "list_folder",
    "row_of",
    "upright_size",
]

logger = logging.getLogger(__name__)

EXTENSIONS = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".dib",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".jp2",
        ".avif",
    )
)
# Left by file managers; not worth a word.
LITTER = frozenset(("thumbs.db", "desktop.ini", "__macosx"))


_ORIENTATION = 0x0112  # EXIF: 5 to 8 stand on their side


@dataclass(kw_only=True)
class Listing:
    """The samples that a folder or a table names, before they are checked."""

    ids: list[str]
    images: list[Path]
    labels: list[int]
    class_names: tuple[str, ...]
    group_names: tuple[str, ...] = ()
    groups: list[tuple[str, ...]] | None = None
    masks: list[Path | None] | None = None
    problems: dict[int, str] = field(default_factory=dict)
    empty_classes: tuple[str, ...] = ()
    guessed_names: bool = False


@runtime_checkable
class Source(Protocol):
    """Pictures by position."""

    def size(self, position: int) -> tuple[int, int]:
        """Width and height of a picture, upright."""

    def image(self, position: int, preprocessing: Preprocessing | None) -> Image.Image:
        """RGB picture; ``preprocessing`` says how finished model inputs were made."""

    def row(self, position: int, preprocessing: Preprocessing | None) -> Tensor:
        """What goes into a batch: (3, H, W) uint8, or float32 for finished model inputs."""

    def mask(self, position: int) -> Image.Image | None:
        """Binary mask."""


@dataclass(frozen=True)
class FileSource:
    """Pictures in files, and masks in files or drawn by a function from their positions."""

    images: tuple[Path, ...]
    masks: tuple[Path | None, ...] | Callable[[int], Image.Image | None] | None

    def size(self, position: int) -> tuple[int, int]:
        """Width and height of a picture, upright, from its header."""
        return upright_size(self.images[position])

    def image(self, position: int, preprocessing: Preprocessing | None = None) -> Image.Image:
        """Decode a picture, upright."""
        return decoded(self.images[position])

    def row(self, position: int, preprocessing: Preprocessing | None) -> Tensor:
        """Decode, resize and crop a picture."""
        return row_of(self.image(position), preprocessing)

    def mask(self, position: int) -> Image.Image | None:
        """Decode a mask, upright, or draw it."""
        if callable(self.masks):
            return self.masks(position)
        path = None if self.masks is None else self.masks[position]
        return None if path is None else decoded_mask(path)


def upright_size(file: Path | BinaryIO) -> tuple[int, int]:
    """Width and height of a picture, upright, from its header."""
    with Image.open(file) as picture:
        width, height = picture.size
        turned = picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def decoded(file: Path | BinaryIO) -> Image.Image:
    """A picture, RGB and upright."""
    with Image.open(file) as picture:
        picture.load()
        rgb = to_rgb(picture)  # before it is turned: a turned copy does not know its file's bit depth
        if _ORIENTATION in (exif := picture.getexif()):
            rgb.getexif()[_ORIENTATION] = exif[_ORIENTATION]
        return ImageOps.exif_transpose(rgb)


def decoded_mask(file: Path | BinaryIO) -> Image.Image:
    """A mask, binary and upright."""
    with Image.open(file) as picture:
        picture.load()
        return binary_mask(ImageOps.exif_transpose(picture))


def describe(error: Exception) -> str:
    """Say in words why a picture could not be read."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be decoded"
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    return str(error) or type(error).__name__


def row_of(image: Image.Image, preprocessing: Preprocessing | None) -> Tensor:
    """Resize, crop and lay out a picture as (3, H, W) uint8."""
    import torch

    if preprocessing is not None:
        image = preprocessing.geometry(image)
    # numpy transposes in this thread; torch would wake all of its own for one small picture, which
    # takes many times as long where processors are shared.
    return torch.from_numpy(np.array(image, dtype=np.uint8).transpose(2, 0, 1).copy())


def list_folder(root: Path, class_names: tuple[str, ...] | None, masks: Path | None) -> Listing:
    """List ``root/class/**/image``.

    Raises:
        DataError: No such folder, no class folders, or no images.
    """
    folders = {entry.name: entry for entry in _entries(root) if entry.is_dir() and not _same(entry, masks)}
    found = tuple(sorted(folders))
    if not found:
        raise DataError(f"{str(root)!r} has no class folders; expected {root.name}/CLASS/IMAGE")
    names = class_names or found
    listing = Listing(ids=[], images=[], labels=[], class_names=names)
    other: list[str] = []
    empty: list[str] = [name for name in names if name not in folders]
    for name in sorted(set(found) | set(names)):
        before = len(listing.ids)
        for path in sorted(_walk(folders[name])) if name in folders else ():
            if path.suffix.lower() not in EXTENSIONS:
                other.append(path.relative_to(root).as_posix())
                continue
            if name not in names:
                listing.problems[len(listing.ids)] = f"its folder {name!r} is not one of the classes"
            listing.ids.append(path.relative_to(root).as_posix())
            listing.images.append(path)
            listing.labels.append(names.index(name) if name in names else -1)
        if name in folders and name in names and len(listing.ids) == before:
            empty.append(name)
    if other:
        logger.warning("%d files in %r are not images and are left out: %s", len(other), str(root), first_few(other))
    if not listing.ids:
        raise DataError(f"{str(root)!r} has class folders ({first_few(found)}) but no images in them")
    listing.empty_classes = tuple(sorted(empty))
    if masks is not None:
        _find_masks(listing, masks)
    return listing


def _find_masks(listing: Listing, folder: Path) -> None:
    by_stem: dict[str, list[Path]] = {}
    _entries(folder)
    for path in sorted(_walk(folder)):
        if path.suffix.lower() in EXTENSIONS:
            by_stem.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    listing.masks = []
    for position, sample_id in enumerate(listing.ids):
        stem = Path(sample_id).with_suffix("").as_posix()
        hits = by_stem.get(stem, [])
        listing.masks.append(hits[0] if hits else None)
        if len(hits) > 1:
            listing.problems[position] = f"{len(hits)} masks for it: {first_few(path.name for path in hits)}"
        elif not hits:
            listing.problems.setdefault(position, f"no mask {stem}.* in {str(folder)!r}")


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not _is_litter(path.name)]
    except OSError as error:
        raise DataError(f"cannot list the folder {str(folder)!r}: {error.strerror or error}") from error


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files below a folder; links are followed, but not in circles."""

    def fail(error: OSError) -> None:
        raise DataError(f"cannot list the folder {str(error.filename)!r}: {error.strerror or error}") from error

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_litter(name))
        yield from (Path(place, name) for name in files if not _is_litter(name))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _same(folder: Path, other: Path | None) -> bool:
    return other is not None and other.is_dir() and folder.samefile(other)
