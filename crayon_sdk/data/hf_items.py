"""Data sets of the `datasets` library: columns by name, pictures one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crayon_sdk.data.tables import GROUP, IMAGE, LABEL, MASK, Columns
from crayon_sdk.data.torch_items import advice, is_hf
from crayon_sdk.errors import DataError

__all__ = ["HfColumns", "read_hf", "recognised", "texts_of"]


@dataclass(frozen=True, kw_only=True)
class HfColumns:
    """What the columns of a data set say, as `ImageDataset.from_torch` takes it."""

    items: Sequence[tuple[Any, Any]]
    labels: list[int]
    class_names: tuple[str, ...] | None
    ids: list[str] | None
    groups: dict[str, list[str]] | None
    masks: Sequence[Any] | None


@dataclass(frozen=True)
class _Column(Sequence[Any]):
    """One column, decoded row by row; with a label beside it where (image, label) is expected."""

    dataset: Any
    name: str
    labels: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: Any) -> Any:
        value = self.dataset[position][self.name]
        return value if self.labels is None else (value, self.labels[position])


def read_hf(dataset: Any, columns: Columns, class_names: tuple[str, ...] | None) -> HfColumns:
    """Find the columns of a data set and read all but the pictures.

    Raises:
        DataError: It is no such data set, or a column is missing or cannot be told apart from others.
    """
    if not is_hf(dataset) or not hasattr(dataset, "select_columns") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"expected a data set of the datasets library, with rows in memory or on the disk, got "
            f"{type(dataset).__name__}; {advice(dataset)}"
        )
    plain = dataset.with_format(None)  # a transform for training has no place in what people are asked about
    features: Mapping[str, Any] = plain.features
    named = recognised(features, columns)
    image, label, mask, groups = named.image, str(named.label), named.mask, named.groups or ()

    def values(name: str) -> Any:
        return plain.select_columns([name])[name]

    labels, names = _labels(values(label), features[label], class_names)
    return HfColumns(
        items=_Column(plain.select_columns([image]), str(image), labels),
        labels=labels,
        class_names=names,
        ids=None if columns.id is None else [str(value) for value in values(columns.id)],
        groups={name: texts_of(values(name), features[name]) for name in groups} or None,
        masks=None if mask is None else _Column(plain.select_columns([mask]), mask),
    )


def recognised(features: Mapping[str, Any], columns: Columns) -> Columns:
    """Find the columns that are not named, by their features and by usual names.

    Args:
        features: What the columns hold, by name.
        columns: Those that are named.

    Raises:
        DataError: A column is missing or cannot be told apart from others.
    """
    named = (columns.image, columns.label, columns.id, columns.mask, *(columns.groups or ()))
    given = {name for name in named if name is not None}
    unknown = sorted(name for name in given if name not in features)
    if unknown:
        raise DataError(f"the data set has no column {unknown[0]!r}; it has {_list(features)}")
    free = [name for name in features if name not in given]
    pictures = [name for name in free if type(features[name]).__name__ == "Image"]
    masks = [name for name in pictures if name.lower() in MASK]
    mask = columns.mask or _one(masks, "mask_column", features, needed=False)
    image = columns.image or _one(
        [name for name in pictures if name != mask] or [name for name in free if name.lower() in IMAGE],
        "image_column",
        features,
    )
    label = columns.label or _one(
        [name for name in free if name.lower() in LABEL]
        or [name for name in free if type(features[name]).__name__ == "ClassLabel"],
        "label_column",
        features,
    )
    groups = columns.groups
    if groups is None:
        group = _one([name for name in free if name.lower() in GROUP], "group_columns", features, needed=False)
        groups = () if group is None else (group,)
    return Columns(image=image, label=label, id=columns.id, groups=groups, mask=mask)


def _one(hits: Sequence[str], keyword: str, features: Iterable[str], *, needed: bool = True) -> Any:
    if len(hits) == 1 or not (hits or needed):
        return hits[0] if hits else None
    what = f"columns {_list(hits)} could all be meant" if hits else "no column is recognised"
    raise DataError(f"{what} for {keyword}=; name it. The data set has {_list(features)}")


def _labels(
    values: Iterable[Any], feature: Any, class_names: tuple[str, ...] | None
) -> tuple[list[int], tuple[str, ...] | None]:
    found = list(values)
    if class_names is None and type(feature).__name__ == "ClassLabel":
        class_names = tuple(feature.names)
    texts = [value for value in found if isinstance(value, str)]
    if texts and class_names is None:
        class_names = tuple(sorted(set(texts)))
    index = {name: position for position, name in enumerate(class_names or ())}
    return [
        -1 if value is None else index.get(value, -1) if isinstance(value, str) else value for value in found
    ], class_names


def texts_of(values: Iterable[Any], feature: Any) -> list[str]:
    """Values of a column as text, classes by their names."""
    names = feature.names if type(feature).__name__ == "ClassLabel" else None
    return [str(value if names is None or value is None else names[value]) for value in values]


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
