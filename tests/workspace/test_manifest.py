"""workspace.json: versions, damage, and where model and pictures are."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from helpers_workspace import new_workspace, save_model

from crayon_sdk.errors import DataError, FileFormatError, SettingsError
from crayon_sdk.workspace.manifest import MANIFEST, DataSource, Manifest, ModelSource, migrated, portable


@pytest.fixture(scope="module")
def made(tmp_path_factory, picture_folder):
    place = tmp_path_factory.mktemp("manifest")
    return new_workspace(place / "ws", picture_folder, save_model(place / "model"))


def altered(made, tmp_path, change):
    values = json.loads((made.folder / MANIFEST).read_text())
    change(values)
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    return tmp_path


def test_it_comes_back_as_it_was(made, tmp_path):
    made.manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == made.manifest
    assert made.manifest.splits["train"].count == 16
    assert made.manifest.splits["test"].count == 8
    assert set(made.manifest.splits) == {"train", "test"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema_version=99, written_by="7.1"), r"upgrade crayon-sdk to 7\.1 or newer"),
        (
            lambda v: v.update(schema_version=0, written_by="0.0.1"),
            r"cannot bring up to date; use crayon-sdk 0\.0\.1",
        ),
        (lambda v: v.update(schema_version="one"), "expected a whole number"),
        (lambda v: v.update(format="other"), "is not the workspace.json of a workspace"),
        (lambda v: v.pop("splits"), "damaged or was altered: splits: Field required"),
        (lambda v: v.update(extra=1), "damaged or was altered: extra"),
    ],
)
def test_other_versions_and_damage(made, tmp_path, change, message):
    with pytest.raises(FileFormatError, match=message):
        Manifest.load(altered(made, tmp_path, change))


def test_not_a_workspace(tmp_path):
    with pytest.raises(
        FileFormatError, match=r"is not a workspace: it has no workspace.json. Go to .* make one with: crayon init"
    ):
        Manifest.load(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(FileFormatError, match="not a readable JSON file"):
        Manifest.load(tmp_path)


def test_migrations_run_one_after_the_other():
    steps = {1: lambda values: {**values, "path": [1]}, 2: lambda values: {**values, "path": [*values["path"], 2]}}
    assert migrated({"schema_version": 1}, steps, schema=3) == {"schema_version": 3, "path": [1, 2]}
    assert migrated({"schema_version": 3, "x": 0}, steps, schema=3) == {"schema_version": 3, "x": 0}


def test_paths_inside_travel_with_the_workspace(tmp_path, picture_folder):
    inside = tmp_path / "ws"
    save_model(inside / "model")
    shutil.copytree(picture_folder, inside / "pictures")
    workspace = new_workspace(inside, inside / "pictures", inside / "model")
    assert workspace.manifest.model.source == "./model"
    assert workspace.manifest.data.csv == "./pictures/metadata.csv"
    inside.rename(tmp_path / "moved")
    moved = type(workspace)(tmp_path / "moved")
    assert moved.model.num_classes == 2
    assert len(moved.dataset()) == 16


def test_names_stay_names(tmp_path):
    assert portable("resnet50", tmp_path) == "resnet50"
    assert portable("hf-hub:me/name", tmp_path) == "hf-hub:me/name"
    (tmp_path / "m").mkdir()
    assert portable(f"local-dir:{tmp_path / 'm'}", tmp_path) == "local-dir:./m"
    assert portable(str(tmp_path / "m"), tmp_path / "other") == str((tmp_path / "m").resolve())


def test_local_dir_inside_loads(tmp_path):
    save_model(tmp_path / "model")
    assert ModelSource(source="local-dir:./model").load(tmp_path).num_classes == 2


def test_layouts_of_folders(tmp_path, picture_folder):
    classes = DataSource(folder=str(picture_folder / "images"), masks=str(picture_folder / "masks"))
    assert len(classes.load(tmp_path, "train")) == 24
    assert not classes.has_split(tmp_path, "test")
    with pytest.raises(DataError, match="has no test pictures"):
        classes.load(tmp_path, "test")
    for split in ("train", "test"):
        shutil.copytree(picture_folder / "images", tmp_path / "all" / split)
        shutil.copytree(picture_folder / "masks", tmp_path / "masks" / split)
    splits = DataSource(folder="./all", masks="./masks")
    assert splits.has_split(tmp_path, "test")
    assert splits.load(tmp_path, "test").mask("cat/00.jpg") is not None
    assert not splits.has_split(tmp_path, "val")
    others = DataSource(folder=str(picture_folder / "images"), test="./all/test")
    assert len(others.load(tmp_path, "test")) == 24
    named = DataSource(folder="./all", splits={"train": "test", "val": "val", "test": "train"})
    assert named.has_split(tmp_path, "train")


def test_layouts_of_tables(tmp_path, picture_folder):
    with open(picture_folder / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "test"):
        with open(tmp_path / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["picture", "kind", "where"])
            writer.writerows([row["image"], row["label"], row["place"]] for row in rows if row["split"] == split)
    source = DataSource(
        csv="./train.csv",
        test="./test.csv",
        root=str(picture_folder),
        image_column="picture",
        label_column="kind",
        group_columns=("where",),
    )
    assert len(source.load(tmp_path, "train")) == 16
    assert source.load(tmp_path, "test").group_names == ("where",)
    assert not source.has_split(tmp_path, "val")


def test_neither_or_both():
    for source in (DataSource(), DataSource(folder="a", csv="b")):
        with pytest.raises(SettingsError, match="either folder=, a folder with a folder per class, or csv="):
            source.has_split(None, "train")


def test_splits_by_any_spelling_and_none_by_guess(tmp_path, picture_folder):
    text = (picture_folder / "metadata.csv").read_text()
    (tmp_path / "t.csv").write_text(text.replace(",test,", ",Validation,"))
    source = DataSource(csv="./t.csv", root=str(picture_folder), splits={"train": "Train", "val": "Validation"})
    assert len(source.load(tmp_path, "val")) == 8
    assert len(source.load(tmp_path, "train")) == 16
    assert not source.has_split(tmp_path, "test")
    twice = "\n".join(f"{line},{'partition' if not number else 'x'}" for number, line in enumerate(text.splitlines()))
    (tmp_path / "two.csv").write_text(twice)
    with pytest.raises(DataError, match=r"'split', 'partition' could all be meant for split_column"):
        DataSource(csv="./two.csv").has_split(tmp_path, "train")
    other = DataSource(csv="./t.csv", test="./t.csv", root=str(picture_folder))
    with pytest.raises(DataError, match=r"has no split 'test'; its splits are train, val"):
        other.load(tmp_path, "test")
