"""Data sets of the datasets library: rows that are dicts, columns found by their features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, SettingsError

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
COUNT = 6


def make(**columns):
    """Six pictures, each brighter than the one before, in an Image column; classes cat and dog in turn."""
    pictures = [Image.new("RGB", (8, 6), (40 * number,) * 3) for number in range(COUNT)]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    given = {"image": pictures, "label": [number % 2 for number in range(COUNT)]} | columns
    for name, values in columns.items():
        if isinstance(values[0], Image.Image):
            features[name] = datasets.Image()
        elif name not in features:
            features[name] = datasets.Value("string" if isinstance(values[0], str) else "int64")
    return datasets.Dataset.from_dict(given, features=datasets.Features(features))


def test_columns_are_found():
    masks = [Image.new("L", (8, 6), 255)] * COUNT
    place = ["land", "water", "land"] * 2
    dataset = ImageDataset.from_hf(make(place=place, mask=masks, key=[f"k{number}" for number in range(COUNT)]))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 1] * 3
    assert dataset.ids == tuple("012345")
    assert (dataset.group_names, dataset.group_labels[1]) == (("place",), "dog/water")
    assert dataset.has_masks
    assert np.array(dataset.mask("0")).min() == 255
    assert [np.array(dataset.image(name)).max() for name in dataset] == [0, 40, 80, 120, 160, 200]
    assert dataset.row(1, Preprocessing(size=(4, 4))).max() == 40


def test_columns_are_named():
    thumbs = [Image.new("RGB", (2, 2))] * COUNT
    table = make(thumb=thumbs, kind=["bird", "ant"] * 3, place=["a"] * COUNT, key=[f"k{n}" for n in range(COUNT)])
    with pytest.raises(DataError, match=r"columns 'image', 'thumb' could all be meant for image_column=; name it"):
        ImageDataset.from_hf(table)
    dataset = ImageDataset.from_hf(
        table, image_column="image", label_column="kind", id_column="key", group_columns=(), class_names=None
    )
    assert dataset.class_names == ("ant", "bird")
    assert dataset.labels.tolist() == [1, 0] * 3
    assert (dataset.ids[0], dataset.group_names, dataset.has_masks) == ("k0", (), False)


def test_formats_and_transforms_are_not_used():
    table = make().with_format("torch").with_transform(lambda rows: {name: [None] * len(rows[name]) for name in rows})
    assert ImageDataset.from_hf(table).image("1").size == (8, 6)


def test_rows_without_a_label():
    table = make(label=[0, -1, None, 1, 0, 1])
    with pytest.raises(DataError, match="2 of 6 samples cannot be used: '1: its label -1 is not a class"):
        ImageDataset.from_hf(table)
    assert ImageDataset.from_hf(table, on_error="skip").ids == ("0", "3", "4", "5")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image_column": "picture"}, DataError, "no column 'picture'; it has 'image', 'label'"),
        ({"group_columns": "place"}, SettingsError, "must be a list of names, got 'place'"),
    ],
)
def test_bad_columns(arguments, error, message):
    with pytest.raises(error, match=message):
        ImageDataset.from_hf(make(), **arguments)


def test_what_is_no_such_data_set():
    table = make()
    with pytest.raises(DataError, match=r"got DatasetDict; choose a split: ImageDataset.from_hf\(dataset\['train'\]\)"):
        ImageDataset.from_hf(datasets.DatasetDict({"train": table}))
    with pytest.raises(DataError, match=r"got IterableDataset; .* load it without streaming=True first"):
        ImageDataset.from_hf(table.to_iterable_dataset())
    with pytest.raises(DataError, match=r"got list; write ImageDataset.from_torch"):
        ImageDataset.from_hf([(torch.zeros(3, 4, 4), 0)])


def test_from_torch_names_from_hf():
    table = make()
    for given in (table, table.to_iterable_dataset(), datasets.DatasetDict({"train": table})):
        with pytest.raises(DataError, match=r"ImageDataset.from_hf"):
            ImageDataset.from_torch(given)
    with pytest.raises(DataError, match=r"got dict with 'image', 'label'; ImageDataset.from_hf reads"):
        ImageDataset.from_torch([table[0]])
    with pytest.raises(DataError, match=r"got a DataLoader; write ImageDataset.from_torch\(loader.dataset\)"):
        ImageDataset.from_torch(DataLoader([(torch.zeros(3, 4, 4), 0)]))
