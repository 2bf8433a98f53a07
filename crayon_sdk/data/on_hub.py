"""Data sets of the Hugging Face Hub, through the `datasets` library: what is downloaded, and where shards lie."""

from __future__ import annotations

from typing import Any

from crayon_sdk._base.hub import checked_repo_id, retried
from crayon_sdk.errors import DataError, MissingExtraError, install_extra

__all__ = ["downloaded", "shards_of"]


def downloaded(name: str, split: str, revision: str | None) -> Any:
    """Download a split of a data set, or take it from the library's cache.

    Raises:
        DataError: There is no such split.
        HubError: It cannot be had.
        MissingExtraError: The `datasets` library is not installed.
    """
    library = _library()
    _files(name, split, revision)
    return retried(lambda: library.load_dataset(name, split=split, revision=revision), f"reading {name}")


def shards_of(name: str, split: str, revision: str | None) -> list[str]:
    """Addresses of the shards of a split, at one commit.

    Raises:
        DataError: There is no such split, or it has other files.
        HubError: The data set cannot be had.
        MissingExtraError: The `datasets` library is not installed.
    """
    files = _files(name, split, revision)
    other = [file for file in files if not file.endswith((".parquet", ".tar"))]
    if other or not files:
        raise DataError(
            f"expected Parquet or tar files in {name}, which can be read where they lie, got "
            f"{other[0].rpartition('/')[2] if other else 'none'!r}; leave streaming out, and all is downloaded"
        )
    return files


def _files(name: str, split: str, revision: str | None) -> list[str]:
    library = _library()
    checked_repo_id(name)  # nothing of this machine is read by that name, and no script of others is run
    builder = retried(lambda: library.load_dataset_builder(name, revision=revision), f"looking at {name}")
    there = dict(builder.config.data_files or {})
    if split not in there:
        raise DataError(f"{name} has no split {split!r}; its splits are {', '.join(map(repr, there)) or 'none'}")
    return [str(file) for file in there[split]]


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(f"data sets of the Hub need {error.name}: {install_extra('datasets')}") from error
    return datasets
