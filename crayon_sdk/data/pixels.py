"""Pixels in batches: streamed from where they lie, or decoded once and kept."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crayon_sdk._base.files import describe_write_failure
from crayon_sdk._base.progress import track
from crayon_sdk.data.kept import PixelFolder, reserve
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, OutputError, SettingsError

__all__ = ["PixelCache", "batches", "sent"]

logger = logging.getLogger(__name__)

Workers = int | Literal["auto"]


class PixelSource(Protocol):
    """What this room needs of a data set."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Sample ids."""

    @property
    def preprocessed(self) -> bool:
        """Whether rows are finished model inputs."""

    @property
    def pixel_folder(self) -> PixelFolder | None:
        """Where decoded pictures are kept from run to run."""

    @property
    def pixel_whole(self) -> PixelSource | None:
        """All pictures that are kept in one file."""

    def pixel_key(self, preprocessing: Preprocessing) -> str:
        """What they are kept under."""

    def index_of(self, sample_id: str) -> int:
        """Position of a sample."""

    def row(self, position: int, preprocessing: Preprocessing | None) -> Tensor:
        """One sample, (3, H, W), uint8, or float32 where preprocessed."""


def batches(
    dataset: PixelSource,
    preprocessing: Preprocessing | None,
    *,
    batch_size: int,
    num_workers: Workers = "auto",
    order: Sequence[int] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Stream a data set; no random number of the caller is used.

    Nothing is kept, unless the data set has a folder for that (`with_cache`): then all of it is decoded first, once.

    Args:
        dataset: An [`ImageDataset`][crayon_sdk.data.dataset.ImageDataset].
        preprocessing: Resizes and crops; not used for preprocessed data.
        batch_size: Samples per batch, at least 1; the last one may be smaller.
        num_workers: Processes that decode; 0 is this one. ``"auto"`` takes 0
            for fewer than 512 samples, on one or two processors, and where
            processes cannot be forked; else up to 8.
        order: Positions to go through; default all, as they stand.

    Returns:
        An iterator over positions, int64 (n,), and images (n, 3, H, W): uint8
        before normalisation, or float32 for preprocessed data.

    Raises:
        SettingsError: A setting is out of its range.
        DataError: While iterating: a sample cannot be read; it is named.

    Example:
        >>> from crayon_sdk.data.dataset import ImageDataset
        >>> dataset = ImageDataset.from_torch([(torch.zeros(3, 9, 9), 0)] * 3)
        >>> [tuple(images.shape) for _, images in batches(dataset, Preprocessing(size=(4, 4)), batch_size=2)]
        [(2, 3, 4, 4), (1, 3, 4, 4)]
    """
    positions = list(range(len(dataset.ids))) if order is None else [int(position) for position in order]
    if not _is_count(batch_size, least=1):
        raise SettingsError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if positions and not 0 <= min(positions) <= max(positions) < len(dataset.ids):
        raise SettingsError(f"order must hold positions from 0 to {len(dataset.ids) - 1}")
    if preprocessing is None and not dataset.preprocessed:
        raise SettingsError("preprocessing is needed to bring pictures to one size, got None")
    workers = _worker_count(num_workers, len(positions))
    place, kept = _kept_with_others(dataset, preprocessing)
    if kept is None:
        place, kept = (
            None,
            _kept(dataset, preprocessing, make=len(positions) >= len(dataset.ids), num_workers=num_workers),
        )
    if kept is not None:
        return (
            (rows, kept[rows if place is None else place[rows]])
            for rows in torch.tensor(positions, dtype=torch.int64).split(batch_size)
        )
    return _decoded(dataset, preprocessing, batch_size, workers, positions)


def _decoded(
    dataset: PixelSource, preprocessing: Preprocessing | None, batch_size: int, workers: int, positions: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(
        _Rows(dataset, preprocessing),
        batch_size=batch_size,
        sampler=list(positions),
        num_workers=workers,
        collate_fn=_stack,
        # Its own generator: by default the loader draws a seed from the caller's.
        generator=torch.Generator().manual_seed(0),
        # Forked workers need neither a pickled data set nor a guarded main script.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    return _checked(loader)


def _kept(
    dataset: PixelSource, preprocessing: Preprocessing | None, *, make: bool, num_workers: Workers
) -> Tensor | None:
    """(N, 3, H, W) uint8 from the file that outlives the run, if the data set has a folder for it."""
    count = len(dataset.ids)
    if dataset.pixel_folder is None or preprocessing is None or dataset.preprocessed or not count:
        return None
    key = dataset.pixel_key(preprocessing)

    def fill(rows: Tensor) -> None:
        workers = _worker_count(num_workers, count)
        with track("decoding", count) as advance:
            for indices, images in _decoded(dataset, preprocessing, 64, workers, range(count)):
                rows[indices] = images
                advance(len(indices))

    return dataset.pixel_folder.rows(key, (count, 3, *preprocessing.size), fill if make else None) if key else None


def _kept_with_others(dataset: PixelSource, preprocessing: Preprocessing | None) -> tuple[Tensor | None, Tensor | None]:
    """Where each sample lies in the file of a data set that this is a part of, and its rows, if there is one."""
    whole = dataset.pixel_whole
    if whole is None or len(whole.ids) <= len(dataset.ids):
        return None, None
    kept = _kept(whole, preprocessing, make=False, num_workers=0)
    return None if kept is None else torch.tensor([whole.index_of(name) for name in dataset.ids]), kept


def _checked(loader: DataLoader[_Row]) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in loader:
        if isinstance(batch, _Failure):
            raise DataError(batch.message)
        yield batch


@dataclass(frozen=True)
class _Failure:
    """An error that travels out of a worker as a value: raised there, its message would be a traceback."""

    message: str


_Row = tuple[int, str, Tensor | _Failure]


class _Rows(Dataset[_Row]):
    def __init__(self, dataset: PixelSource, preprocessing: Preprocessing | None) -> None:
        self.dataset = dataset
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.dataset.ids)

    def __getitem__(self, position: int) -> _Row:
        sample_id = self.dataset.ids[position]
        try:
            return position, sample_id, self.dataset.row(position, self.preprocessing)
        except DataError as error:
            return position, sample_id, _Failure(str(error))


def _stack(rows: list[_Row]) -> tuple[Tensor, Tensor] | _Failure:
    images: list[Tensor] = []
    for _, sample_id, image in rows:
        if isinstance(image, _Failure):
            return image
        if images and image.shape != images[0].shape:
            return _Failure(
                f"all preprocessed samples must have one shape: {sample_id!r} has {tuple(image.shape)}, "
                f"{rows[0][1]!r} has {tuple(images[0].shape)}"
            )
        images.append(image)
    stacked = np.stack([image.numpy() for image in images])  # torch.stack wakes all its threads: slower here
    return torch.tensor([position for position, _, _ in rows], dtype=torch.int64), torch.from_numpy(stacked)


def _worker_count(num_workers: Workers, count: int) -> int:
    if num_workers == "auto":
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return 0 if count < 512 or cpus <= 2 or sys.platform != "linux" else min(8, cpus - 1)
    if not _is_count(num_workers, least=0):
        raise SettingsError(f'num_workers must be "auto" or a whole number of at least 0, got {num_workers!r}')
    return int(num_workers)


def _is_count(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Bring a small tensor to a device without waiting for what the device is still doing.

    Args:
        values: Of any shape and dtype; a copy is sent.
        device: Where it is needed.

    Example:
        >>> sent(torch.tensor([2, 1]), torch.device("cpu")).tolist()
        [2, 1]
    """
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


class PixelCache:
    """Every sample of a data set, decoded and resized once.

    Without augmentation every epoch sees the same pixels. They are kept as
    uint8 and normalised where they are used. A context manager; what it holds
    is freed, and its file deleted, at ``close`` or with the object; the file of a
    data set that keeps its pixels (`with_cache`) stays.

    Args:
        dataset: An [`ImageDataset`][crayon_sdk.data.dataset.ImageDataset].
        preprocessing: Size and normalisation; not used for preprocessed data.
        device: Where batches are wanted.
        max_memory_bytes: Up to this size the pixels lie in the memory of
            ``device`` (of the computer, when the device has too little), above
            it in a memory-mapped temporary file.
        num_workers: As in [`batches`][crayon_sdk.data.pixels.batches].

    Raises:
        DataError: A sample cannot be read.
        OutputError: The temporary file does not fit on the disk.
        SettingsError: A setting is out of its range.

    Example:
        >>> from crayon_sdk.data.dataset import ImageDataset
        >>> dataset = ImageDataset.from_torch([(torch.ones(3, 9, 9), 0)])
        >>> with PixelCache(dataset, Preprocessing(size=(4, 4))) as cache:
        ...     cache.get(torch.tensor([0])).mean().item()
        1.0
    """

    def __init__(
        self,
        dataset: PixelSource,
        preprocessing: Preprocessing | None,
        *,
        device: torch.device | str = torch.device("cpu"),  # noqa: B008 (immutable)
        max_memory_bytes: int = 2 * 1024**3,
        num_workers: Workers = "auto",
    ) -> None:
        if not _is_count(max_memory_bytes, least=0):
            raise SettingsError(f"max_memory_bytes must be a whole number of at least 0, got {max_memory_bytes!r}")
        self.device = torch.device(device)
        self.preprocessing = preprocessing
        self._rows: Tensor | None
        self._finalizer: weakref.finalize[[Path], PixelCache] | None = None
        kept = _kept(dataset, preprocessing, make=True, num_workers=num_workers)
        if kept is not None:
            self._rows = self._near(kept, max_memory_bytes)
            return
        stream = batches(dataset, preprocessing, batch_size=64, num_workers=num_workers)
        shape, dtype = _row_format(dataset, preprocessing)
        self._rows = self._allocate((len(dataset.ids), *shape), dtype, max_memory_bytes)
        try:
            for indices, images in stream:
                if images.shape[1:] != shape:
                    raise DataError(
                        f"all preprocessed samples must have one shape: {dataset.ids[int(indices[0])]!r} has "
                        f"{tuple(images.shape[1:])}, {dataset.ids[0]!r} has {shape}"
                    )
                self._rows[indices.to(self._rows.device)] = images.to(self._rows.device)
        except BaseException:
            self.close()
            raise

    def _near(self, kept: Tensor, limit: int) -> Tensor:
        """Bring pixels to a GPU, if they fit; the computer has them in memory as far as there is room for the file."""
        if self.device.type == "cpu" or kept.numel() > limit:
            return kept
        try:
            return kept.to(self.device)
        except torch.cuda.OutOfMemoryError:
            return kept

    def _allocate(self, shape: tuple[int, ...], dtype: torch.dtype, limit: int) -> Tensor:
        size = dtype.itemsize
        for side in shape:
            size *= side
        if size <= limit:
            try:
                return torch.empty(shape, dtype=dtype, device=self.device)
            except torch.cuda.OutOfMemoryError:
                logger.info("%d bytes of pixels do not fit on %s; they stay in main memory", size, self.device)
                return torch.empty(shape, dtype=dtype)
        path = _temporary_file(size)
        self._finalizer = weakref.finalize(self, _delete, path)
        logger.info("%d bytes of pixels go to a temporary file", size)
        count = size // dtype.itemsize
        return torch.from_file(str(path), shared=True, size=count, dtype=dtype).view(shape)

    def get(self, indices: Tensor) -> Tensor:
        """Return a batch of model inputs.

        Args:
            indices: Positions in the data set, int64 (n,), best on the CPU: those on a GPU are waited for.

        Returns:
            float32 (n, 3, H, W) on ``device``.

        Raises:
            SettingsError: A position that does not exist, or the cache is closed.
        """
        if self._rows is None:
            raise SettingsError("the pixel cache is closed; make a new one")
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise SettingsError(f"indices must lie in 0 to {len(self) - 1}, got {indices.tolist()}")
        rows = sent(self._rows[sent(indices, self._rows.device)], self.device)
        return rows if self.preprocessing is None else self.preprocessing.normalize(rows)

    def close(self) -> None:
        """Free the pixels and delete the temporary file; a second call does nothing."""
        self._rows = None
        if self._finalizer is not None:
            self._finalizer()

    @property
    def on_disk(self) -> bool:
        """Whether the pixels lie in a temporary file."""
        return self._finalizer is not None

    def __len__(self) -> int:
        return 0 if self._rows is None else len(self._rows)

    def __enter__(self) -> PixelCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _row_format(dataset: PixelSource, preprocessing: Preprocessing | None) -> tuple[tuple[int, ...], torch.dtype]:
    if not dataset.preprocessed and preprocessing is not None:
        return (3, *preprocessing.size), torch.uint8
    first = dataset.row(0, preprocessing) if dataset.ids else torch.empty(3, 0, 0)
    return tuple(first.shape), first.dtype


def _temporary_file(size: int) -> Path:
    """Make a file with all its blocks reserved: a disk that fills up under a mapping kills the process."""
    path: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix="crayon-pixels-")
        os.close(handle)
        path = Path(name)
        reserve(path, size)
    except OSError as error:
        if path is not None:
            _delete(path)
        raise OutputError(describe_write_failure(path or Path(tempfile.gettempdir()), error)) from error
    return path


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
