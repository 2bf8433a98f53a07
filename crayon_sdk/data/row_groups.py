"""Pictures in Parquet files, as the Hub keeps data sets: read a group of rows at a time, where they lie."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crayon_sdk.data.hf_items import recognised, texts_of
from crayon_sdk.data.shards import Shard, ShardSource, labelled, opened
from crayon_sdk.data.sources import Listing
from crayon_sdk.data.tables import Columns
from crayon_sdk.errors import DataError, MissingExtraError, install_extra

__all__ = ["list_row_groups"]


class _Last(threading.local):
    """The file, and the rows of each column, that a thread read last: pictures are mostly asked for in their order."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.file: Any = None
        self.rows: dict[str, tuple[tuple[int, str, str, int], Any]] = {}


_last = _Last()


@dataclass(frozen=True, eq=False)
class _Rows:
    """A column of pictures."""

    column: str
    shards: tuple[Shard, ...]
    shard: NDArray[np.int32]
    group: NDArray[np.int32]
    row: NDArray[np.int32]

    def read(self, position: int) -> bytes | None:
        shard, group = self.shards[int(self.shard[position])], int(self.group[position])
        shard.check()
        key = os.getpid(), shard.place, shard.stamp, group
        if _last.rows.get(self.column, (None,))[0] != key:
            _last.rows.pop(self.column, None)  # before there are others
            _last.rows[self.column] = key, _file(shard).read_row_group(group, columns=[self.column]).column(0)
        value = _last.rows[self.column][1][int(self.row[position])].as_py()
        found = value.get("bytes") if isinstance(value, dict) else value
        if found is not None and not isinstance(found, bytes):
            raise DataError(f"expected the bytes of a picture in {self.column!r}, got {type(found).__name__}")
        if found is None and value is not None:
            raise DataError(f"the shard holds where it lay ({value.get('path')!r}), and not the picture")
        return found

    def places(self, positions: Sequence[int]) -> list[list[int]]:
        rows = list(positions)
        found: list[list[int]] = np.stack([self.group[rows], self.row[rows]], axis=1).tolist()
        return found


def _library() -> tuple[Any, Any]:
    try:
        import datasets
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f"Parquet files need {error.name}: {install_extra('datasets')}") from error
    return datasets, pyarrow.parquet


def _file(shard: Shard) -> Any:
    handle = opened(shard) if shard.is_remote else (os.getpid(), shard.place, shard.stamp)
    if _last.handle != handle:
        _last.file = _library()[1].ParquetFile(handle if shard.is_remote else shard.place)
        _last.handle = handle
    return _last.file


def list_row_groups(
    shards: list[Shard], columns: Columns, class_names: tuple[str, ...] | None
) -> tuple[Listing, ShardSource]:
    """List the rows of Parquet files; all is read but the pictures.

    Raises:
        DataError: A file is broken or has other columns than the first, or a column is missing or cannot be told apart.
        MissingExtraError: The `datasets` library is not installed.
    """
    datasets, _ = _library()
    numbers: list[int] = []
    groups: list[int] = []
    rows: list[int] = []
    ids: list[str] = []
    named, features = columns, {}
    found: dict[str, list[Any]] = {}
    for number, shard in enumerate(shards):
        try:
            file = _file(shard)
            own = datasets.Features.from_arrow_schema(file.schema_arrow)
            if not number:
                features, named = own, recognised(own, columns)
                told = [each for each in (named.label, named.id, *(named.groups or ())) if each]
                found = {name: [] for name in told}
            elif own.keys() != features.keys():
                raise DataError(f"the shard {shard.place!r} has other columns than {shards[0].place!r}")
            table = file.read(columns=list(found))
            for name, values in found.items():
                values += table.column(name).to_pylist()
            counts = [file.metadata.row_group(each).num_rows for each in range(file.num_row_groups)]
        except (OSError, ValueError) as error:  # those of pyarrow are among them
            raise DataError(f"the shard {shard.place!r} cannot be read: {error}. Copy it again") from error
        for group, count in enumerate(counts):
            groups += [group] * count
            rows += range(count)
        numbers += [number] * sum(counts)
        ids += [f"{shard.name}/{row}" for row in range(sum(counts))]
    if not ids:
        raise DataError(f"{len(shards)} shards hold no rows, such as {shards[0].place!r}")
    label = str(named.label)
    problems: dict[int, str] = {}
    if class_names is None and type(features[label]).__name__ == "ClassLabel":
        class_names = tuple(features[label].names)
    labels, names = labelled(found[label], label, class_names, problems)
    listing = Listing(
        ids=ids if named.id is None else [str(value) for value in found[named.id]],
        images=[],
        labels=labels,
        class_names=names,
        group_names=named.groups or (),
        groups=list(zip(*(texts_of(found[name], features[name]) for name in named.groups), strict=True))
        if named.groups
        else None,
        problems=problems,
    )
    place = [np.array(each, dtype=np.int32) for each in (numbers, groups, rows)]
    where = tuple(shards)
    masks = None if named.mask is None else _Rows(named.mask, where, *place)
    return listing, ShardSource(_Rows(str(named.image), where, *place), masks)
