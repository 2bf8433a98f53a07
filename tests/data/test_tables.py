"""Tables: Waterbirds' own, other people's, and those that cannot be used."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, SettingsError


def picture(path: Path, value: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value, 2 * value, 0)).save(path)
    return path


def table(folder: Path, header: str, *rows: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


@pytest.fixture
def pictures(tmp_path):
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def waterbirds(tmp_path):
    """The columns and habits of the original table: folders per species, y and place as numbers."""
    rows = []
    for number, (y, split, place) in enumerate([(0, 0, 0), (1, 0, 1), (1, 0, 0), (0, 1, 1), (1, 2, 1), (0, 2, 0)]):
        file = f"{number:03d}.Some_bird/Bird_{number}.jpg"
        picture(tmp_path / file)
        rows.append(f"{number + 1},{file},{y},{split},{place},/b/beach/{number}.jpg")
    return table(tmp_path, "img_id,img_filename,y,split,place,place_filename", *rows, name="metadata.csv")


# --- Waterbirds ---


def test_waterbirds(waterbirds):
    dataset = ImageDataset.from_csv(waterbirds, split="train")
    assert dataset.ids == tuple(f"00{number}.Some_bird/Bird_{number}.jpg" for number in range(3))
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.class_names == ("landbird", "waterbird")
    assert dataset.group_names == ("place",)
    assert dataset.groups == (("land",), ("water",), ("land",))
    assert dataset.group_labels == ("landbird/land", "waterbird/water", "waterbird/land")
    assert dataset.group_index()[1] == ("landbird/land", "waterbird/land", "waterbird/water")
    assert not dataset.has_masks
    assert repr(dataset) == "ImageDataset(3 images, 2 classes, groups by place)"


@pytest.mark.parametrize(
    ("split", "count"),
    [
        ("train", 3),
        (0, 3),
        ("0", 3),
        ("val", 1),
        ("validation", 1),
        (1, 1),
        ("test", 2),
        ("Test", 2),
        (2, 2),
        (None, 6),
    ],
)
def test_waterbirds_splits(waterbirds, split, count):
    assert len(ImageDataset.from_csv(waterbirds, split=split)) == count


def test_misspelt_split(waterbirds):
    with pytest.raises(DataError, match=r"has no split 'trian'; its splits are 'test', 'train', 'val'"):
        ImageDataset.from_csv(waterbirds, split="trian")


def test_waterbirds_with_other_columns(waterbirds):
    places = ImageDataset.from_csv(waterbirds, label_column="place", group_columns=["y"], class_names=["forest", "sea"])
    assert places.group_labels[:2] == ("forest/0", "sea/1")
    assert ImageDataset.from_csv(waterbirds, group_columns=[]).groups is None
    assert ImageDataset.from_csv(waterbirds, id_column="img_id").ids[0] == "1"
    named = ImageDataset.from_csv(waterbirds, class_names=["Land", "Water"])
    assert named.group_labels[0] == "Land/land"


def test_waterbirds_with_values_that_are_no_class_or_place(waterbirds):
    text = waterbirds.read_text().replace("_0.jpg,0,0,0", "_0.jpg,3,0,0").replace("_1.jpg,1,0,1", "_1.jpg,1,0,7")
    waterbirds.write_text(text)
    with pytest.raises(
        DataError,
        match=r"2 of 6.*'3' in data row 1 is not a class \(landbird, waterbird\).*its 'place' in data row 2 is '7'",
    ):
        ImageDataset.from_csv(waterbirds)
    assert len(ImageDataset.from_csv(waterbirds, on_error="skip").skipped) == 2


def test_waterbirds_is_said_once_and_only_of_numbers(waterbirds, caplog):
    guessed = ImageDataset.from_csv(waterbirds)
    assert (guessed.guessed_names, guessed.class_names) == (True, ("landbird", "waterbird"))
    ImageDataset.from_csv(waterbirds, split="test")
    assert caplog.text.count("has the columns of Waterbirds") == 1
    assert not ImageDataset.from_csv(waterbirds, class_names=["land", "water"]).guessed_names
    text = waterbirds.read_text()
    for old, new in (("jpg,0,", "jpg,fish,"), ("jpg,1,", "jpg,bird,")):
        text = text.replace(old, new)
    (waterbirds.parent / "own.csv").write_text(text)
    caplog.clear()
    own = ImageDataset.from_csv(waterbirds.parent / "own.csv")
    assert (own.guessed_names, own.class_names, caplog.text) == (False, ("bird", "fish"), "")


def test_real_birds(shared):
    path = shared / "data" / "birds" / "metadata.csv"
    expected = {"train": (1042, 58, 17, 294), "val": (270, 270, 80, 80), "test": (458, 458, 126, 126)}
    names = ("landbird/land", "landbird/water", "waterbird/land", "waterbird/water")
    for split, counts in expected.items():
        dataset = ImageDataset.from_csv(path, split=split)
        assert Counter(dataset.group_labels) == Counter(dict(zip(names, counts, strict=True)))
        assert dataset.group_index()[1] == names
        assert dataset.has_masks
        assert dataset.skipped == ()
    seen = dataset.mask_tensor(dataset.ids[0], Preprocessing(size=(96, 96)))
    assert seen.shape == (96, 96)
    assert 0 < float(seen.mean()) < 1


# --- other tables ---


def test_names_as_labels(pictures):
    path = table(pictures, "Path,Label,partition", "a.png,dog,train", "b.png,cat,train", "c.png,emu,test")
    dataset = ImageDataset.from_csv(path, split="train")
    assert dataset.class_names == ("cat", "dog", "emu")  # of the whole table: splits agree
    assert dataset.labels.tolist() == [1, 0]


def test_numbers_as_labels(pictures):
    path = table(pictures, "image,label", "a.png,2", "b.png,0.0", "c.png,01")
    dataset = ImageDataset.from_csv(path)
    assert (dataset.class_names, dataset.labels.tolist()) == (("0", "1", "2"), [2, 0, 1])
    named = ImageDataset.from_csv(path, class_names=["x", "y", "z", "unused"])
    assert (named.class_names, named.labels.tolist()) == (("x", "y", "z", "unused"), [2, 0, 1])


def test_minus_one_and_one_as_labels(pictures):
    path = table(pictures, "image_id,Smiling", "a.png,-1", "b.png,1")
    columns = {"image_column": "image_id", "label_column": "Smiling"}
    assert ImageDataset.from_csv(path, **columns).labels.tolist() == [0, 1]
    named = ImageDataset.from_csv(path, class_names=["no", "yes"], **columns)
    assert (named.class_names, named.labels.tolist()) == (("no", "yes"), [0, 1])


def test_numbers_with_gaps(pictures):
    path = table(pictures, "image,label", "a.png,1", "b.png,3")
    with pytest.raises(DataError, match=r"the numbers in 'label' \(1, 3\) are not 0 to 1 without gaps; .*class_names="):
        ImageDataset.from_csv(path)
    assert ImageDataset.from_csv(path, class_names=list("wxyz")).labels.tolist() == [1, 3]


def test_labels_that_are_no_class(pictures):
    path = table(pictures, "image,label", "a.png,cat", "b.png,dog", "c.png,", "d.png,1")
    with pytest.raises(
        DataError, match=r"3 of 4.*b.png: its label 'dog' in data row 2 is not a class \(cat, cow\).*c.png.*d.png"
    ):
        ImageDataset.from_csv(path, class_names=["cat", "cow"])


def test_masks_groups_ids_and_root(tmp_path):
    for name in ("img/ä b.png", "img/c.png"):
        picture(tmp_path / "root" / name)
        picture(tmp_path / "root" / name.replace("img", "mask"))
    path = table(
        tmp_path,
        "id;filename;class;light;place;mask_path",
        "x;img/ä b.png;cat;day;sea;mask/ä b.png",
        "y;img/c.png;dog;night;land;mask/c.png",
        encoding="utf-8-sig",
    )
    dataset = ImageDataset.from_csv(path, root=tmp_path / "root", id_column="id", group_columns=["light", "place"])
    assert dataset.ids == ("x", "y")
    assert dataset.group_labels == ("cat/day/sea", "dog/night/land")
    assert np.array(dataset.mask("x")).all()
    absolute = table(tmp_path, "file,y", f"{tmp_path}/root/img/c.png,0", name="absolute.csv")
    assert len(ImageDataset.from_csv(absolute)) == 1


def test_missing_files_and_masks(pictures):
    path = table(
        pictures, "image,label,mask", "a.png,0,b.png", "x.png,0,b.png", "b.png,0,", "c.png,0,y.png", ",0,b.png"
    )
    with pytest.raises(DataError) as caught:
        ImageDataset.from_csv(path)
    message = str(caught.value)
    assert message.startswith("4 of 5 samples cannot be used: 'x.png: the file is missing'")
    assert "b.png: it has no mask: 'mask' is empty" in message
    assert "y.png' is missing" in message
    assert "data row 5: names no image, or has no id" in message
    dataset = ImageDataset.from_csv(path, on_error="skip")
    assert dataset.ids == ("a.png",)
    assert [sample.id for sample in dataset.skipped] == ["x.png", "b.png", "c.png", "data row 5"]


def test_ids_twice(pictures):
    path = table(pictures, "image,label", "a.png,0", "a.png,1", "b.png,1")
    with pytest.raises(DataError, match=r"1 of 3 samples cannot be used: 'a.png: another sample has the same id'"):
        ImageDataset.from_csv(path)
    assert ImageDataset.from_csv(path, on_error="skip").labels.tolist() == [0, 1]


def test_broken_picture(pictures):
    (pictures / "b.png").write_text("no picture")
    path = table(pictures, "image,label,split", "a.png,0,train", "b.png,1,test")
    assert len(ImageDataset.from_csv(path, split="train")) == 1
    with pytest.raises(DataError, match=r"b.png: not an image that can be decoded"):
        ImageDataset.from_csv(path, split="test")


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("a,b,c", {}, "no column is recognised for image_column=; name it. It has 'a', 'b', 'c'"),
        ("image,b,c", {}, "no column is recognised for label_column="),
        ("image,path,label", {}, "columns 'image', 'path' could all be meant for image_column="),
        ("image,label,class", {}, "columns 'label', 'class' could all be meant for label_column="),
        ("image,label,c", {"split": "train"}, "no column is recognised for split_column="),
        ("image,label,c", {"label_column": "x"}, r"has no column 'x' \(label_column\); it has 'image', 'label', 'c'"),
        ("image,label,c", {"group_columns": ["x"]}, r"has no column 'x' \(group_columns\)"),
        ("image,label,label", {}, "more than one column named 'label'"),
    ],
)
def test_columns_that_are_not_clear(pictures, header, options, message):
    with pytest.raises(DataError, match=message):
        ImageDataset.from_csv(table(pictures, header, "a.png,0,0"), **options)


def test_a_named_column_settles_it(pictures):
    path = table(pictures, "image,label,class", "a.png,0,x")
    assert ImageDataset.from_csv(path, label_column="class").class_names == ("x",)


def test_group_columns_as_one_text(pictures):
    with pytest.raises(SettingsError, match=r"must be a list of names, got 'place'; write \['place'\]"):
        ImageDataset.from_csv(table(pictures, "image,label,place", "a.png,0,1"), group_columns="place")


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the table .*No such file"):
        ImageDataset.from_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"cannot read the table"):
        ImageDataset.from_csv(tmp_path)
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"is not a CSV file in UTF-8"):
        ImageDataset.from_csv(tmp_path / "binary.csv")
    with pytest.raises(DataError, match=r"must have a line of column names and at least one row"):
        ImageDataset.from_csv(table(tmp_path, "image,label"))
    with pytest.raises(DataError, match=r"has 2 columns, but data row 2 has 3 cells \(1 such rows\)"):
        ImageDataset.from_csv(table(tmp_path, "image,label", "a.png,0", "a,b.png,0"))


def test_quotes_blank_lines_and_spaces(pictures):
    picture(pictures / "a,b c.png")
    path = table(pictures, "image , label", '"a,b c.png", 1', "", "a.png , 0 ")
    assert ImageDataset.from_csv(path).ids == ("a,b c.png", "a.png")


def test_path_that_no_file_can_have(pictures):
    path = table(pictures, "image,label", "a.png,0", f"{'x' * 5000}.png,0")
    with pytest.raises(DataError, match=r"1 of 2 samples .*the file is missing"):
        ImageDataset.from_csv(path)


def test_nan_is_no_class_no_group_and_no_mask(pictures):
    """What pandas writes for an empty cell is not a third class."""
    path = table(pictures, "image,label,place", "a.png,cat,sea", "b.png,nan,sea", "c.png,dog,NaN", "d.png,dog,sea")
    with pytest.raises(DataError, match=r"'nan' in data row 2 is not .*\(cat, dog\).*'place' in data row 3 is 'NaN'"):
        ImageDataset.from_csv(path)
    kept = ImageDataset.from_csv(path, on_error="skip")
    assert (kept.class_names, len(kept)) == (("cat", "dog"), 2)


def test_a_table_that_never_ends(pictures):
    with pytest.raises(DataError, match="'/dev/zero' is longer than 134 MB"):
        ImageDataset.from_csv("/dev/zero")


def test_no_picture_is_where_the_table_says(picture_folder, tmp_path):
    """Then the folder is wrong, not the pictures."""
    table = tmp_path / "table.csv"
    shutil.copy(picture_folder / "metadata.csv", table)
    with pytest.raises(DataError, match=r"none of the 16 pictures of 'table.csv' is there.*root=FOLDER"):
        ImageDataset.from_csv(table, split="train")
    assert len(ImageDataset.from_csv(table, split="train", root=picture_folder)) == 16
