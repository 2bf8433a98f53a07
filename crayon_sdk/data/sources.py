"""Where pictures come from: image files, or the items of a torch data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from crayon_sdk._base.text import first_few
from crayon_sdk.data.preprocessing import Preprocessing, binary_mask, eight_bit, to_rgb
from crayon_sdk.errors import DataError

__all__ = ["FileSource", "Listing", "Source", "TorchSource", "describe", "list_folder"]

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
    """Pictures and masks in files."""

    images: tuple[Path, ...]
    masks: tuple[Path | None, ...] | None

    def size(self, position: int) -> tuple[int, int]:
        """Width and height of a picture, upright, from its header."""
        with Image.open(self.images[position]) as file:
            width, height = file.size
            turned = file.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height)

    def image(self, position: int, preprocessing: Preprocessing | None = None) -> Image.Image:
        """Decode a picture, upright."""
        with Image.open(self.images[position]) as file:
            file.load()
            rgb = to_rgb(file)  # before it is turned: a turned copy does not know its file's bit depth
            if _ORIENTATION in (exif := file.getexif()):
                rgb.getexif()[_ORIENTATION] = exif[_ORIENTATION]
            return ImageOps.exif_transpose(rgb)

    def row(self, position: int, preprocessing: Preprocessing | None) -> Tensor:
        """Decode, resize and crop a picture."""
        return _pixels(self.image(position), preprocessing)

    def mask(self, position: int) -> Image.Image | None:
        """Decode a mask, upright."""
        path = None if self.masks is None else self.masks[position]
        if path is None:
            return None
        with Image.open(path) as file:
            file.load()
            return binary_mask(ImageOps.exif_transpose(file))


@dataclass(frozen=True)
class TorchSource:
    """Pictures that a map-style torch data set makes."""

    dataset: Any
    masks: Sequence[Any] | Callable[[int], Any] | None
    preprocessed: bool

    def size(self, position: int) -> tuple[int, int]:
        """Width and height of a picture."""
        return self.image(position).size

    def image(self, position: int, preprocessing: Preprocessing | None = None) -> Image.Image:
        """Return an item as a picture; a finished model input is turned back into one."""
        item = self._item(position)
        if not self.preprocessed:
            return _to_picture(item)
        values = _to_input(item)
        if preprocessing is not None:
            return _to_picture(preprocessing.denormalize(values))
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:  # unknown mean and std: stretched, to be recognisable at least
            values = (values - low) / (high - low)
        return _to_picture(values)

    def row(self, position: int, preprocessing: Preprocessing | None) -> Tensor:
        """Return an item as it goes into a batch."""
        item = self._item(position)
        return _to_input(item) if self.preprocessed else _pixels(_to_picture(item), preprocessing)

    def mask(self, position: int) -> Image.Image | None:
        """Return a mask as a picture."""
        if self.masks is None:
            return None
        mask = self.masks(position) if callable(self.masks) else self.masks[position]
        if mask is None or isinstance(mask, Image.Image):
            return None if mask is None else binary_mask(mask)
        values = torch.as_tensor(mask).detach().cpu().squeeze().numpy()
        if values.ndim != 2:
            raise DataError(f"a mask must be a picture or (H, W) values, got shape {tuple(values.shape)}")
        return binary_mask(Image.fromarray(values.astype(np.float32)))

    def _item(self, position: int) -> Any:
        item = self.dataset[position]
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise DataError(f"items must be (image, label), got {type(item).__name__}")
        return item[0]


def describe(error: Exception) -> str:
    """Say in words why a picture could not be read."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be decoded"
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    return str(error) or type(error).__name__


def _pixels(image: Image.Image, preprocessing: Preprocessing | None) -> Tensor:
    if preprocessing is not None:
        image = preprocessing.geometry(image)
    # numpy transposes in this thread; torch would wake all of its own for one small picture, which
    # takes many times as long where processors are shared.
    return torch.from_numpy(np.array(image, dtype=np.uint8).transpose(2, 0, 1).copy())


def _to_picture(item: Any) -> Image.Image:
    """Accept a PIL image, a (C, H, W) tensor or an (H, W, C) array; 16 bits count to 65535, floats to 1."""
    if isinstance(item, Image.Image):
        return to_rgb(item)
    if isinstance(item, Tensor):
        values = item.detach().cpu()
        if values.dim() == 3:
            values = values.permute(1, 2, 0)
        layout = "(C, H, W)"
    elif isinstance(item, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(item))
        layout = "(H, W, C)"
    else:
        raise DataError(f"an image must be a PIL image, a tensor or an array, got {type(item).__name__}")
    if values.dim() == 2:
        values = values[..., None]
    if values.dim() != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        raise DataError(f"an image must be {layout} with 1, 3 or 4 channels, got shape {tuple(item.shape)}")
    try:
        picture = eight_bit((values.float() if values.is_floating_point() else values).numpy())
    except DataError as error:
        hint = "; pass preprocessed=True when they are normalised already" if values.is_floating_point() else ""
        raise DataError(f"{error}{hint}") from None
    return to_rgb(Image.fromarray(np.ascontiguousarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)))


def _to_input(item: Any) -> Tensor:
    values = torch.as_tensor(item) if isinstance(item, np.ndarray) else item
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.dim() != 3 or values.shape[0] != 3:
        got = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(item).__name__
        raise DataError(f"a preprocessed image must be a float tensor (3, H, W), got {got}")
    if not bool(torch.isfinite(values).all()):
        raise DataError("a preprocessed image must hold finite numbers only")
    return values.detach().cpu().to(torch.float32)


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
