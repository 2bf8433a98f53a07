"""Tables of samples: one row an image, with its label, split, groups and mask."""

from __future__ import annotations

import csv
import functools
import io
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crayon_sdk._base.files import read_whole
from crayon_sdk.data.sources import Listing
from crayon_sdk.errors import DataError, FileFormatError

_log = logging.getLogger(__name__)
__all__ = ["Columns", "list_table", "say_recognised", "split_name", "splits_of_table"]

WATERBIRDS = frozenset(("img_id", "img_filename", "y", "split", "place"))
WATERBIRDS_CLASSES = ("landbird", "waterbird")
WATERBIRDS_PLACES = {"0": "land", "1": "water"}

# What people call these columns, in lower case.
IMAGE = frozenset(
    ("image", "path", "file", "filename", "filepath", "img", "file_name", "file_path", "image_path", "image_file")
) | {"image_filename", "image_name", "img_path", "img_file", "img_filename", "img_name"}
LABEL = frozenset(("label", "class", "y", "target", "class_name", "label_name", "category"))
GROUP = frozenset(("group", "place", "background", "attribute", "environment", "domain"))
SPLIT = frozenset(("split", "partition"))
MASK = frozenset(("mask", "mask_path", "mask_file", "mask_filename", "mask_name"))
NOTHING = frozenset(("", "nan", "<na>"))
"""What tables hold where there is nothing, in lower case: pandas turns an empty cell into NaN, and NaN into text."""
SPLIT_NUMBERS = {"0": "train", "1": "val", "2": "test"}
SPLIT_ALIASES = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns; None is to be recognised."""

    image: str | None = None
    label: str | None = None
    id: str | None = None
    groups: tuple[str, ...] | None = None
    split: str | None = None
    mask: str | None = None


def list_table(
    path: Path,
    *,
    columns: Columns,
    split: str | None,
    root: Path,
    class_names: tuple[str, ...] | None,
    text: str | None = None,
) -> Listing:
    """List the samples of a CSV file, or of a text in its place; ``path`` is then the name of it in messages.

    Raises:
        DataError: The file cannot be read, columns are missing or cannot be
            told apart, or there is no such split.
    """
    header, rows = _read(path, text)
    waterbirds = set(header) >= WATERBIRDS
    named = _recognise(path, header, columns, need_split=split is not None)
    label = named.label or ""
    # Only numbers are given names: who writes names means them.
    numbered = all(whole_number(row[label]) is not None for row in rows if row[label].lower() not in NOTHING)
    guessed = waterbirds and label == "y" and class_names is None and numbered
    if guessed:
        class_names = WATERBIRDS_CLASSES
    names, labels = _labels(path, label, [row[label] for row in rows], class_names)
    keep = _of_split(path, named.split, rows, split)
    listing = Listing(ids=[], images=[], labels=[], class_names=names, group_names=named.groups or ())
    listing.guessed_names = guessed
    listing.groups = [] if named.groups else None
    listing.masks = [] if named.mask else None
    for number in keep:
        row = rows[number]
        places = WATERBIRDS_PLACES if waterbirds else {}
        _add(listing, row, named, root, labels[number], places=places, number=number + 1)
        if not listing.ids[-1]:
            listing.ids[-1] = f"data row {number + 1}"
            listing.problems[len(listing.ids) - 1] = "names no image, or has no id"
    return listing


@functools.lru_cache(maxsize=1024)
def say_recognised(path: Path) -> None:
    """Tell, once for every table, that it was taken for one of Waterbirds."""
    classes, places = " and ".join(WATERBIRDS_CLASSES), " and ".join(WATERBIRDS_PLACES.values())
    _log.warning(
        "%r has the columns of Waterbirds, so 0 and 1 in 'y' are read as %s, unless the model names its classes "
        "otherwise, and 0 and 1 in 'place' as %s. If it is another data set, rename its columns, or give the model "
        "label_names (in Python: or name the classes with class_names=)",
        str(path),
        classes,
        places,
    )


def splits_of_table(path: Path, column: str | None = None) -> tuple[str, ...]:
    """Names of the splits in a CSV file, sorted; none when it has no column of splits.

    Args:
        path: The file.
        column: The column; default one of a usual name.

    Raises:
        DataError: The file cannot be read, has no such column, or several that could be meant.
    """
    header, rows = _read(path)
    usual = [name for name in header if name.lower() in SPLIT]
    if column is None and len(usual) > 1:
        raise DataError(f"{str(path)!r}: columns {_list(usual)} could all be meant for split_column=; name it")
    if column is None and not usual:
        return ()
    if column is not None and column not in header:
        raise DataError(f"{str(path)!r} has no column {column!r} (split_column); it has {_list(header)}")
    cells = [row[column or usual[0]] for row in rows]
    numbered = {whole_number(cell) for cell in cells} <= SPLIT_NUMBERS.keys()
    return tuple(sorted({_split_name(cell, numbered=numbered) for cell in cells}))


def _add(
    listing: Listing,
    row: dict[str, str],
    named: Columns,
    root: Path,
    label: int,
    *,
    places: dict[str, str],
    number: int,
) -> None:
    position = len(listing.ids)
    file = row[named.image or ""]
    listing.ids.append(row[named.id] if named.id and file else file)
    listing.images.append(root / file)
    listing.labels.append(label)
    if label < 0:
        listing.problems[position] = (
            f"its label {row[named.label or '']!r} in data row {number} is not a class "
            f"({', '.join(listing.class_names[:10])})"
        )
    if listing.groups is not None:
        values = []
        for name in listing.group_names:
            value = row[name]
            if name == "place" and places:
                whole = whole_number(value)
                value = value if whole is None else places.get(whole, "")
            if value.lower() in NOTHING:
                listing.problems.setdefault(
                    position, f"its {name!r} in data row {number} is {row[name]!r}, which is not a group"
                )
            values.append(value)
        listing.groups.append(tuple(values))
    if listing.masks is not None:
        cell = row[named.mask or ""]
        empty = cell.lower() in NOTHING
        listing.masks.append(None if empty else root / cell)
        if empty:
            listing.problems.setdefault(position, f"it has no mask: {named.mask!r} is empty")


def _read(path: Path, text: str | None = None) -> tuple[list[str], list[dict[str, str]]]:
    try:
        content = read_whole(path).decode("utf-8-sig") if text is None else text
        delimiter = max(",;\t", key=content.partition("\n")[0].count) if text is None else ","
        reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
        lines = [[cell.strip() for cell in line] for line in reader]
    except FileFormatError as error:  # longer than any table
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"cannot read the table {str(path)!r}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{str(path)!r} is not a CSV file in UTF-8: {error}") from error
    lines = [line for line in lines if any(line)]
    if len(lines) < 2:
        raise DataError(f"{str(path)!r} must have a line of column names and at least one row below it")
    header, body = lines[0], lines[1:]
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if twice:
        raise DataError(f"{str(path)!r} has more than one column named {', '.join(map(repr, twice))}; rename one")
    uneven = [number for number, line in enumerate(body, start=1) if len(line) != len(header)]
    if uneven:
        raise DataError(
            f"{str(path)!r} has {len(header)} columns, but data row {uneven[0]} has {len(body[uneven[0] - 1])} cells "
            f"({len(uneven)} such rows); put names with {delimiter!r} in them in double quotes"
        )
    return header, [dict(zip(header, line, strict=True)) for line in body]


def _recognise(path: Path, header: Sequence[str], columns: Columns, *, need_split: bool) -> Columns:
    """Fill in the columns that were not named; those that were named are out of the question."""
    given = (columns.image, columns.label, columns.id, columns.split, columns.mask, *(columns.groups or ()))
    free = [name for name in header if name not in given]

    def find(wanted: str | None, usual: frozenset[str], keyword: str, required: bool) -> str | None:
        if wanted is not None:
            if wanted not in header:
                raise DataError(f"{str(path)!r} has no column {wanted!r} ({keyword}); it has {_list(header)}")
            return wanted
        hits = [name for name in free if name.lower() in usual]
        if len(hits) == 1 or not (hits or required):
            return hits[0] if hits else None
        what = f"columns {_list(hits)} could all be meant" if hits else "no column is recognised"
        raise DataError(f"{str(path)!r}: {what} for {keyword}=; name it. It has {_list(header)}")

    image = find(columns.image, IMAGE, "image_column", True)
    label = find(columns.label, LABEL, "label_column", True)
    groups = columns.groups
    if groups is None:
        group = find(None, GROUP, "group_columns", False)
        groups = () if group is None else (group,)
    for name in groups:
        find(name, GROUP, "group_columns", True)
    return Columns(
        image=image,
        label=label,
        id=find(columns.id, frozenset(), "id_column", False),
        groups=groups,
        split=find(columns.split, SPLIT, "split_column", True) if need_split or columns.split else None,
        mask=find(columns.mask, MASK, "mask_column", False),
    )


def _labels(
    path: Path, column: str, cells: list[str], class_names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], list[int]]:
    """Turn cells into class indices, -1 where they are no class.

    Classes come from the whole table, so that all its splits agree.
    """
    whole = [whole_number(cell) for cell in cells]
    distinct = {number for number in whole if number is not None}
    texts = {cell for cell, number in zip(cells, whole, strict=True) if number is None and cell.lower() not in NOTHING}
    signs = distinct == {"-1", "1"}  # how CelebA writes no and yes
    if class_names is None:
        if texts or not distinct:
            class_names = tuple(sorted(cell for cell in set(cells) if cell.lower() not in NOTHING))
        elif signs:
            class_names = ("-1", "1")
        elif distinct == {str(number) for number in range(len(distinct))}:
            class_names = tuple(str(number) for number in range(len(distinct)))
        else:
            shown = ", ".join(sorted(distinct, key=int)[:10])
            raise DataError(
                f"{str(path)!r}: the numbers in {column!r} ({shown}) are not 0 to {len(distinct) - 1} without gaps; "
                "use names as labels (in Python: or class_names=, one name for each number from 0)"
            )
    index = {name: position for position, name in enumerate(class_names)}
    by_number = {str(position): position for position in range(len(class_names))}
    if signs and len(class_names) == 2:
        by_number = {"-1": 0, "1": 1}
    numbered = index.keys().isdisjoint(texts)  # next to names, a number is a mistake
    labels = [
        index.get(cell, index.get(number or "", by_number.get(number or "", -1) if numbered else -1))
        for cell, number in zip(cells, whole, strict=True)
    ]
    return class_names, labels


def _of_split(path: Path, column: str | None, rows: list[dict[str, str]], split: str | None) -> list[int]:
    if split is None or column is None:
        return list(range(len(rows)))
    cells = [row[column] for row in rows]
    numbered = {whole_number(cell) for cell in cells} <= SPLIT_NUMBERS.keys()
    names = [_split_name(cell, numbered=numbered) for cell in cells]
    wanted = _split_name(split, numbered=numbered)
    keep = [position for position, name in enumerate(names) if name == wanted]
    if not keep:
        raise DataError(f"{str(path)!r} has no split {split!r}; its splits are {_list(sorted(set(names)))}")
    return keep


def split_name(name: str) -> str:
    """The usual spelling of a split: train, val, test, or what it is called in lower case.

    >>> [split_name(name) for name in ("Validation", "2", "Held-Out")]
    ['val', 'test', 'held-out']
    """
    return _split_name(name, numbered=name.isdecimal())


def _split_name(cell: str, *, numbered: bool) -> str:
    lower = cell.lower()
    if numbered:
        lower = SPLIT_NUMBERS.get(whole_number(lower) or "", lower)
    return SPLIT_ALIASES.get(lower, lower)


def whole_number(cell: str) -> str | None:
    """Return a whole number without its spelling ("01", "1.0"), None for anything else."""
    return str(int(float(cell))) if re.fullmatch(r"[+-]?\d{1,9}(\.0*)?", cell) else None


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
