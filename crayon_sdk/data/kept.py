"""Decoded pictures in files that outlive the run: one file for all rows of a data set in one geometry."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crayon_sdk._base.files import describe_write_failure, replace_file
from crayon_sdk.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PixelFolder", "reserve"]

logger = logging.getLogger(__name__)

_ENDING = ".pixels"


def reserve(path: Path, size: int) -> None:
    """Reserve all blocks of a file: a disk that fills up under a mapping kills the process.

    Args:
        path: It exists.
        size: In bytes.
    """
    with open(path, "r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


@dataclass(frozen=True)
class PixelFolder:
    """A folder of decoded pictures, for several processes at a time.

    A file gets its name when it is whole, so that a process that is killed leaves none behind; who wants the same one
    meanwhile waits for it. What was not used for the longest time is deleted when there is too much.

    Attributes:
        path: The folder.
        most_bytes: How much it may hold.
    """

    path: Path
    most_bytes: int

    def rows(self, key: str, shape: tuple[int, ...], fill: Callable[[Tensor], None] | None) -> Tensor | None:
        """Map the rows of a data set into memory; what is written to them does not reach the file.

        Args:
            key: Of data and geometry, a name for a file.
            shape: Of the rows, which are uint8.
            fill: Decodes all of them; ``None`` makes no file.

        Returns:
            The rows; ``None`` where there are none and none are to be made, or they are more than the folder may hold.

        Raises:
            OutputError: The folder cannot be written, or the disk is full.
        """
        import torch

        size, file = math.prod(shape), self.path / f"{key}{_ENDING}"
        if size > self.most_bytes:
            logger.warning(
                "%d bytes of pixels are not kept in %s, which may hold %d (most_bytes)",
                size,
                self.path,
                self.most_bytes,
            )
            return None
        with self._held(key):
            if not _is_whole(file, size):
                if fill is None:
                    return None
                with replace_file(file) as new:
                    reserve(new, size)
                    fill(torch.from_file(str(new), shared=True, size=size, dtype=torch.uint8).view(shape))
                logger.info("%d bytes of pixels are kept in %s", size, file)
            with contextlib.suppress(OSError):
                os.utime(file)  # by which it is known what was used last
            rows = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).view(shape)
        self._sweep(file)
        return rows

    @contextlib.contextmanager
    def _held(self, key: str, timeout: float = -1) -> Iterator[None]:
        """Nobody else makes, opens or deletes this file meanwhile; the lock ends with the process that holds it."""
        from filelock import FileLock

        lock = FileLock(str(self.path / f"{key}.lock"), thread_local=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(NotImplementedError):  # no locks on this file system: then it may be made twice
                lock.acquire(timeout=timeout)
        except TimeoutError:
            raise
        except OSError as error:
            raise OutputError(describe_write_failure(self.path, error)) from error
        try:
            yield
        finally:
            lock.release()

    def _sweep(self, newest: Path) -> None:
        """Delete files until the others fit; those that a process opens just now stay."""
        found = []
        for file in self.path.glob(f"*{_ENDING}"):
            with contextlib.suppress(OSError):
                found.append((file.stat().st_mtime_ns, file.stat().st_size, file))
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self.most_bytes:
                return
            with contextlib.suppress(OSError, OutputError):
                if file != newest:
                    with self._held(file.stem, timeout=0):
                        file.unlink()
                    total -= size


def _is_whole(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False
