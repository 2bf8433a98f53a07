"""Pictures in shards: tar files as WebDataset writes them, and Parquet files, read where they lie.

A tar file is gone through once; what is kept is where in it each file lies, so that every picture is found by its id.
Parquet files are in `row_groups`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tarfile
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crayon_sdk._base.files import StrPath, check_writable, read_json, sha256_of, write_text
from crayon_sdk._base.progress import track
from crayon_sdk._base.text import first_few
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.data.sources import EXTENSIONS, Listing, decoded, decoded_mask, row_of, upright_size
from crayon_sdk.data.tables import GROUP, LABEL, MASK, Columns, whole_number
from crayon_sdk.errors import CrayonError, DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Reader", "Shard", "ShardSource", "labelled", "list_shards", "opened", "shards_in", "stamp_of"]

_log = logging.getLogger(__name__)

ENDINGS = (".tar", ".parquet")
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LABELS = LABEL | {"cls"}  # as WebDataset calls it
_LONGEST = 65_536  # bytes of a text that is kept in the index
_BLOCK = 512  # of a tar file
_FORMAT = "crayon-shard-index"
_NOWHERE = (0, -1)  # place and size of a part that there is not


@dataclass(frozen=True)
class Shard:
    """One file of many pictures.

    Attributes:
        place: Its path, or its address ("hf://...").
        name: What it is called in ids.
        stamp: What it was when it was listed (`stamp_of`).
    """

    place: str
    name: str
    stamp: str

    @property
    def is_remote(self) -> bool:
        """Whether it is no file of this machine."""
        return _is_remote(self.place)

    def check(self) -> None:
        """See that it is what it was.

        Raises:
            DataError: It is not, so that other things lie where pictures were.
            OSError: It is not there any more.
        """
        if not self.is_remote and stamp_of(self.place) != self.stamp:  # an address names the commit
            raise DataError(f"the shard {self.place!r} changed since it was listed; make the data set again")


def stamp_of(place: str) -> str:
    """What changes when a shard does.

    Raises:
        OSError: It is not there.
    """
    if not _is_remote(place):
        found = os.stat(place)
        return f"{found.st_size}-{found.st_mtime_ns}"
    system, path = _remote(place)
    about = system.info(path)
    return f"{about['size']}-{about.get('blob_id') or system.ukey(path)}"


def _is_remote(place: str) -> bool:
    return "://" in place


class Reader(Protocol):
    """Bytes of one file for every sample, by position."""

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All files."""

    @property
    def shard(self) -> NDArray[np.int32]:
        """(N,) the number of its file for every sample."""

    def read(self, position: int) -> bytes | None:
        """All bytes; ``None`` where there is none."""

    def places(self, positions: Sequence[int]) -> list[list[int]]:
        """Where each lies in its shard, and its size where that is known."""


@dataclass(frozen=True, eq=False)
class ShardSource:
    """Pictures in shards, and masks beside them."""

    pictures: Reader
    masks: Reader | None = None
    preprocessed: ClassVar[bool] = False

    def size(self, position: int) -> tuple[int, int]:
        """Width and height of a picture, upright, from its header."""
        return upright_size(self._picture(position))

    def image(self, position: int, preprocessing: Preprocessing | None = None) -> Image.Image:
        """Decode a picture, upright."""
        return decoded(self._picture(position))

    def row(self, position: int, preprocessing: Preprocessing | None) -> Tensor:
        """Decode, resize and crop a picture."""
        return row_of(self.image(position), preprocessing)

    def mask(self, position: int) -> Image.Image | None:
        """Decode a mask."""
        found = None if self.masks is None else self.masks.read(position)
        return None if found is None else decoded_mask(io.BytesIO(found))

    def stamps(self, positions: Sequence[int]) -> list[Any]:
        """What changes when one of these pictures does.

        Raises:
            OSError: A shard is not there any more.
        """
        used = sorted(set(self.pictures.shard[list(positions)].tolist()))
        places = [self.pictures.shards[number].place for number in used]
        return [
            [(number, place, stamp_of(place)) for number, place in zip(used, places, strict=True)],
            self.places(positions),
        ]

    def places(self, positions: Sequence[int]) -> list[Any]:
        """Where these pictures lie."""
        numbers = self.pictures.shard[list(positions)].tolist()
        return [list(each) for each in zip(numbers, *zip(*self.pictures.places(positions), strict=True), strict=True)]

    def _picture(self, position: int) -> io.BytesIO:
        found = self.pictures.read(position)
        if found is None:
            raise DataError("its shard has no bytes for it")
        return io.BytesIO(found)


@dataclass(frozen=True, eq=False)
class _Parts:
    """Parts of tar files; a part of size -1 is none."""

    shards: tuple[Shard, ...]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]

    def read(self, position: int) -> bytes | None:
        length = int(self.length[position])
        if length < 0:
            return None
        shard = self.shards[int(self.shard[position])]
        with contextlib.nullcontext(opened(shard)) if shard.is_remote else open(shard.place, "rb") as file:
            shard.check()
            file.seek(int(self.offset[position]))
            found: bytes = file.read(length)
        return found

    def places(self, positions: Sequence[int]) -> list[list[int]]:
        rows = list(positions)
        found: list[list[int]] = np.stack([self.offset[rows], self.length[rows]], axis=1).tolist()
        return found


class _Last(threading.local):
    """The remote file that a thread opened last: pictures are mostly asked for in their order."""

    key: tuple[int, str] = (0, "")  # a forked process opens its own
    file: Any = None


_last = _Last()


def opened(shard: Shard) -> Any:
    """A remote shard, open for reading; it is open until this thread reads from another one.

    Raises:
        OSError: It cannot be read.
    """
    key = os.getpid(), shard.place
    if _last.key != key or _last.file.closed:
        if _last.file is not None and _last.key[0] == key[0]:
            _last.file.close()
        _last.file, _last.key = None, (0, "")
        _last.file = _open(shard.place)
        _last.key = key
    return _last.file


def _open(place: str) -> Any:
    if not _is_remote(place):
        return open(place, "rb")
    system, path = _remote(place)
    return system.open(path, "rb")


def _remote(place: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # comes with torch and huggingface_hub

    found: tuple[Any, str] = url_to_fs(place)
    return found


def shards_in(folder: Path) -> list[Path]:
    """The shards that lie in a folder itself, by name; or the one that is named in its place."""
    if folder.is_file():
        return [folder] if folder.name.endswith(ENDINGS) else []
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(ENDINGS) and path.name[0] != ".")
    except OSError:
        return []


def list_shards(
    shards: StrPath | Sequence[StrPath],
    columns: Columns,
    class_names: tuple[str, ...] | None,
    index_folder: StrPath | None,
) -> tuple[Listing, ShardSource]:
    """List the samples of shards.

    Args:
        shards: A folder with shards, one of them, or several; addresses such as "hf://..." are no folders.
        columns: Which parts of a sample are what.
        class_names: In the order of the labels.
        index_folder: Where it is kept what lies where in a tar file; default a folder of the user's.

    Raises:
        DataError: A shard is missing or broken, or it is not clear what of a sample is what.
        OutputError: ``index_folder`` cannot be written.
    """
    found = _named(shards)
    if index_folder is not None:
        check_writable(index_folder)
    kinds = {next((end for end in ENDINGS if each.place.endswith(end)), "") for each in found}
    if len(kinds) != 1 or not kinds & set(ENDINGS):
        odd = next(each.place for each in found if not each.place.endswith(ENDINGS) or len(kinds) > 1)
        packed = "; a packed tar cannot be read at random places: unpack it" if odd.endswith(_PACKED) else ""
        raise DataError(f"expected shards of one kind, .tar or .parquet, got {odd!r}{packed}")
    if kinds == {".parquet"}:
        from crayon_sdk.data.row_groups import list_row_groups

        return list_row_groups(found, columns, class_names)
    return _list_tars(found, columns, class_names, None if index_folder is None else Path(index_folder))


def _named(shards: StrPath | Sequence[StrPath]) -> list[Shard]:
    if isinstance(shards, (str, os.PathLike)):
        folder = Path(shards)
        if folder.is_dir():
            paths = sorted(path for path in folder.rglob("*") if path.name.endswith(ENDINGS) and path.name[0] != ".")
            if not paths:
                raise DataError(f"{str(folder)!r} has no shards; expected .tar or .parquet files")
            return [_shard(str(path), path.relative_to(folder).as_posix()) for path in paths]
        shards = [shards]
    places = [os.fspath(each) for each in shards]
    if not places:
        raise DataError("expected at least one shard, got none")
    missing = [place for place in places if not _is_remote(place) and not os.path.isfile(place)]
    if missing:
        raise DataError(f"{len(missing)} of {len(places)} shards are missing: {first_few(missing)}")
    return [_shard(place, place.rpartition("/")[2]) for place in places]


def _shard(place: str, name: str) -> Shard:
    try:
        return Shard(place, name.removesuffix(".tar").removesuffix(".parquet"), stamp_of(place))
    except OSError as error:
        raise DataError(f"the shard {place!r} cannot be read: {error.strerror or error}") from error


@dataclass
class _Sample:
    """One sample of a tar file: its parts by what they are called behind the first dot."""

    key: str
    parts: dict[str, list[int]]
    texts: dict[str, str]

    def value(self, field: str) -> Any:
        """Text of a part, or what its JSON says."""
        if field in self.texts:
            return self.texts[field].strip()
        return self.facts().get(field)

    def facts(self) -> dict[str, Any]:
        """What its JSON says."""
        try:
            found = json.loads(self.texts.get("json", "{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _list_tars(
    shards: list[Shard], columns: Columns, class_names: tuple[str, ...] | None, folder: Path | None
) -> tuple[Listing, ShardSource]:
    parts: dict[str, None] = {}  # as a set in order
    facts: dict[str, None] = {}
    with track("looking through shards", len(shards)) as advance:
        for shard in shards:
            for sample in _indexed(shard, folder):
                parts |= dict.fromkeys(sample.parts)
                facts |= dict.fromkeys(sample.facts())
            advance(1)
    if not parts:
        raise DataError(f"{len(shards)} shards hold no files, such as {shards[0].place!r}")
    columns = _recognised([*parts, *(name for name in facts if name not in parts)], columns)
    label, groups, problems = str(columns.label), columns.groups or (), dict[int, str]()
    ids: list[str] = []
    values: list[Any] = []
    attributes: list[tuple[str, ...]] = []
    where, pictures, masks = array("i"), array("q"), array("q")
    for number, shard in enumerate(shards):
        for sample in _indexed(shard, folder):  # once more, so that nothing else of a sample is kept
            found = [columns.image] if columns.image else [each for each in sample.parts if f".{each}" in EXTENSIONS]
            if len(found) > 1:
                problems[len(ids)] = f"has several pictures ({', '.join(map(str, found))}); name one with image_column="
            elif not found or found[0] not in sample.parts:
                problems[len(ids)] = f"has no picture; it has {_list(sample.parts)}"
            ids.append(str(sample.value(columns.id)) if columns.id else f"{shard.name}/{sample.key}")
            values.append(sample.value(label))
            attributes.append(tuple(str(sample.value(name)) for name in groups))
            where.append(number)
            pictures.extend(sample.parts.get(str(found[0]) if found else "", _NOWHERE))
            masks.extend(sample.parts.get(str(columns.mask), _NOWHERE))
    labels, names = labelled(values, label, class_names, problems)
    listing = Listing(
        ids=ids,
        images=[],
        labels=labels,
        class_names=names,
        group_names=groups,
        groups=attributes if groups else None,
        problems=problems,
    )
    made = [_parts(shards, where, each) for each in (pictures, masks)]
    return listing, ShardSource(made[0], made[1] if columns.mask else None)


def _parts(shards: list[Shard], where: array[int], found: array[int]) -> _Parts:
    offset, length = np.array(found, dtype=np.int64).reshape(-1, 2).T.copy()
    return _Parts(tuple(shards), np.array(where, dtype=np.int32), offset, length)


def labelled(
    values: Sequence[Any], column: str, class_names: tuple[str, ...] | None, problems: dict[int, str]
) -> tuple[list[int], tuple[str, ...]]:
    """Turn what shards say into class indices, -1 where it is no class, and note why.

    Args:
        values: Numbers of classes, or text: names, or else numbers; ``None`` or ``""`` where there is none.
        column: What is said of it.
        class_names: In the order of the labels.
        problems: By position; it is added to.
    """
    cells = ["" if value is None else str(value) for value in values]
    numbers = {cell: None if (whole := whole_number(cell)) is None else int(whole) for cell in set(cells)}
    named = any(cell and number is None for cell, number in numbers.items())  # next to names, a number is none
    if class_names is None:
        most = max((number for number in numbers.values() if number is not None), default=0)
        class_names = tuple(sorted(filter(None, numbers)) if named else map(str, range(max(most, 0) + 1)))
    index = {name: position for position, name in enumerate(class_names)}
    labels = []
    for position, cell in enumerate(cells):
        number = numbers[cell]
        by_number = -1 if named or number is None or number >= len(class_names) else number
        label = by_number if isinstance(values[position], int) else index.get(cell, by_number)
        labels.append(max(label, -1))
        if not cell:
            problems.setdefault(position, f"has no label ({column!r})")
        elif label < 0:
            problems.setdefault(position, f"its label {cell!r} is not a class ({first_few(class_names)})")
    return labels, class_names


def _recognised(known: list[str], columns: Columns) -> Columns:
    """Find by usual names what is not named."""
    named = [columns.image, columns.label, columns.id, columns.mask, *(columns.groups or ())]
    unknown = [name for name in named if name is not None and name not in known]
    if unknown:
        raise DataError(f"no sample has {unknown[0]!r}; they have {_list(known)}")

    def one(usual: frozenset[str] | set[str], keyword: str, *, needed: bool) -> str | None:
        hits = [name for name in known if name not in named and name.split(".")[0].lower() in usual]
        if len(hits) > 1:
            raise DataError(f"{_list(hits)} could all be meant for {keyword}=; name it")
        if needed and not hits:
            raise DataError(f"nothing is recognised for {keyword}=; name it. Samples have {_list(known)}")
        return hits[0] if hits else None

    group = one(GROUP, "group_columns", needed=False) if columns.groups is None else None
    return Columns(
        image=columns.image,
        label=columns.label or one(_LABELS, "label_column", needed=True),
        id=columns.id,
        groups=((group,) if group else ()) if columns.groups is None else columns.groups,
        mask=columns.mask or one(MASK, "mask_column", needed=False),
    )


def _indexed(shard: Shard, folder: Path | None) -> list[_Sample]:
    """The samples of a tar file, from the index if there is one."""
    place = shard.place if shard.is_remote else os.path.abspath(shard.place)
    file = (folder or _own_folder()) / f"{sha256_of(place, shard.stamp)[:32]}.json"
    with contextlib.suppress(CrayonError, KeyError, TypeError, ValueError):
        found = read_json(file)
        if found["format"] == _FORMAT and found["version"] == 1:
            return [_Sample(*each) for each in found["samples"]]
    samples = list(_walked(shard))
    kept = [[each.key, each.parts, each.texts] for each in samples]
    try:
        write_text(file, json.dumps({"format": _FORMAT, "version": 1, "shard": place, "samples": kept}))
    except CrayonError as error:
        if folder is not None:
            raise
        _log.info("what lies where in %s is not kept: %s", shard.place, error)  # nobody asked for it
    return samples


def _own_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crayon-sdk" / "shards"


def _walked(shard: Shard) -> Iterator[_Sample]:
    """Go through a tar file; files of one sample stand together, as in every WebDataset."""
    sample: _Sample | None = None
    with contextlib.closing(_open(shard.place)) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                    folder, _, name = member.name.removeprefix("./").rpartition("/")
                    base, _, ending = name.partition(".")
                    if not member.isfile() or not base:  # hidden ones too
                        continue
                    key = f"{folder}/{base}" if folder else base
                    if sample is None or sample.key != key or ending.lower() in sample.parts:
                        if sample is not None:
                            yield sample
                        sample = _Sample(key, {}, {})
                    ending = ending.lower()
                    sample.parts[ending] = [member.offset_data, member.size]
                    if f".{ending}" not in EXTENSIONS and member.size <= _LONGEST:
                        file.seek(member.offset_data)
                        with contextlib.suppress(UnicodeDecodeError):
                            sample.texts[ending] = file.read(member.size).decode()
                end = tar.offset
            file.seek(end)
            mark = file.read(_BLOCK)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"the shard {shard.place!r} is broken: {error}. Copy it again") from error
        if len(mark) < _BLOCK or any(mark):
            raise DataError(
                f"the shard {shard.place!r} is broken: expected its next file, or its end, at byte {end}, got neither. "
                "Copy it again"
            )
    if sample is not None:
        yield sample


def _list(names: Iterable[str] | Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
