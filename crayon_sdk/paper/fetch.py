"""Bringing a data set of the paper, when somebody asks for it: its files from their mirrors, unpacked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crayon_sdk._base.downloading import Remote, download, unpack
from crayon_sdk._base.files import check_writable
from crayon_sdk.paper.datasets.about import About

__all__ = ["Fetched", "fetch"]


@dataclass(frozen=True)
class Fetched:
    """What was brought.

    Attributes:
        folder: Of the data set; its reader takes it.
        files: Files that were brought and compared.
        unchecked: Those of which no checksum is published: only their size, and that they unpack, was looked at.
        there: What was there before.
    """

    folder: Path
    files: tuple[str, ...]
    unchecked: tuple[str, ...]
    there: tuple[str, ...]


def fetch(
    about: About,
    folder: str | os.PathLike[str],
    *,
    mirror: str = "",
    keep: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Fetched:
    """Download what is missing of a data set, compare it with published checksums, and lay it out for its reader.

    Args:
        about: The data set.
        folder: Where to.
        mirror: An address that is asked first, followed by the name of each file.
        keep: Leave archives beside what was unpacked.
        tell: Is told what is done.

    Returns:
        What was brought.

    Raises:
        DataError: No mirror gave a file; what came of it is kept, and a later call goes on.
        FileFormatError: A file is not what is published, or no whole archive.
        OutputError: It cannot be written, or the disk is too small.
        WorkspaceBusyError: Another process brings it.
    """
    root = Path(folder)
    check_writable(root)
    brought, unchecked, there = [], [], []
    for archive in about.archives:
        target = root / (archive.into or archive.name)
        if target.exists():
            there.append(archive.into or archive.name)
            continue
        tell(f"{archive.name}: " + (f"{archive.size:,} bytes" if archive.size else "its size is not published"))
        urls = (*((f"{mirror.rstrip('/')}/{archive.name}",) if mirror else ()), *archive.urls)
        file = download(Remote(archive.name, urls, archive.checksum, archive.size), root)
        if archive.into:
            unpack(file, target)
            if not keep:
                file.unlink()
        brought.append(archive.name)
        if not archive.checksum:
            unchecked.append(archive.name)
    return Fetched(root, tuple(brought), tuple(unchecked), tuple(there))
