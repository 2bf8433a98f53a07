"""Generated tasks: what is in the table is what is in the pictures, and the shortcut goes with the class as said."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from crayon_sdk import ImageDataset
from crayon_sdk.data.generated import TASKS, add_shortcut, generate
from crayon_sdk.errors import DataError, OutputError, OutputExistsError, SettingsError

every_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module", params=TASKS)
def drawn(request, tmp_path_factory):
    """Every task, small, and its rows."""
    table = generate(request.param, tmp_path_factory.mktemp("drawn") / request.param, size=40, scale=0.1)
    return TASKS[request.param], table, rows_of(table)


def rows_of(table):
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_columns_and_counts(drawn):
    task, table, rows = drawn
    assert list(rows[0]) == ["image", "label", *task.shortcuts, "split", "mask"]
    counts = Counter(row["split"] for row in rows)
    for split in ("train", "val", "test"):
        assert counts[split] == max(round(0.1 * getattr(task, split)), 2 * len(task.classes))
    for split in counts:
        labels = Counter(row["label"] for row in rows if row["split"] == split)
        assert set(labels) == set(task.classes)
        assert max(labels.values()) - min(labels.values()) <= 1
    kinds = {*task.classes, "none"} if task.presence < 1 else set(task.classes)
    for shortcut in task.shortcuts:
        assert {row[shortcut] for row in rows} <= kinds
    written = {path.relative_to(table.parent).as_posix() for path in table.parent.rglob("*.png")}
    assert written == {row[column] for row in rows for column in ("image", "mask")}


def test_pictures_and_masks(drawn):
    _, table, rows = drawn
    seen = set()
    for row in rows:
        with Image.open(table.parent / row["image"]) as picture, Image.open(table.parent / row["mask"]) as mask:
            assert (picture.mode, picture.size) == ("RGB", (40, 40))
            assert (mask.mode, mask.size) == ("L", (40, 40))
            seen.add(picture.tobytes())
            inside = np.asarray(mask)
        assert set(np.unique(inside)) == {0, 255}
        assert 0.01 < (inside > 0).mean() < 0.6
    assert len(seen) == len(rows)


def test_val_and_test_are_balanced(drawn):
    """Every kind of a shortcut, none included, is with every class as often as the count lets it be."""
    task, _, rows = drawn
    choices = len(task.classes) + (task.presence < 1)
    for split in ("val", "test"):
        for shortcut in task.shortcuts:
            pairs = Counter((row["label"], row[shortcut]) for row in rows if row["split"] == split)
            if sum(pairs.values()) >= len(task.classes) * choices:
                assert len(pairs) == len(task.classes) * choices
            assert max(pairs.values()) - min(pairs.values()) <= choices ** (len(task.shortcuts) - 1)


@every_task
def test_the_shortcut_goes_with_the_class_as_often_as_said(task, tmp_path):
    """All training pictures, as small as can be; four standard deviations."""
    wanted = TASKS[task]
    rows = [row for row in rows_of(generate(task, tmp_path / task, size=32)) if row["split"] == "train"]
    assert len(rows) == wanted.train
    for shortcut in wanted.shortcuts:
        shares = {
            "with the class": (wanted.presence * wanted.correlation, lambda row, at: row[at] == row["label"]),
            "there": (wanted.presence, lambda row, at: row[at] != "none"),
        }
        for share, holds in shares.values():
            found = sum(holds(row, shortcut) for row in rows) / len(rows)
            assert abs(found - share) <= 4 * (share * (1 - share) / len(rows)) ** 0.5
        assert any(row[shortcut] not in ("none", row["label"]) for row in rows)


@pytest.mark.parametrize("task", ["two", "faces", "ten"])
def test_one_seed_gives_the_same_bytes(task, tmp_path):
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        generate(task, tmp_path / name, size=32, seed=seed, scale=0.01)
    first, second, other = (digests(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert first.keys() == other.keys()
    assert sum(first[name] == other[name] for name in first if name.startswith("images/")) == 0


def test_fewer_pictures_are_the_first_ones(tmp_path):
    few = digests(generate("tag", tmp_path / "few", size=32, scale=0.01).parent)
    more = digests(generate("tag", tmp_path / "more", size=32, scale=0.03).parent)
    assert all(more[name] == digest for name, digest in few.items() if name != "metadata.csv")


def test_the_shortcut_is_what_is_drawn(tmp_path):
    """A patch in a corner: where the table says none, no corner has a plain colour; where it says one, one has."""
    table = generate("patch", tmp_path / "patch", size=64, scale=0.1)
    hues = {}
    for row in rows_of(table):
        with Image.open(table.parent / row["image"]) as picture:
            pixels = np.asarray(picture.convert("HSV")).astype(float)
        corners = [pixels[top, left] for top in (slice(1, 9), slice(55, 63)) for left in (slice(1, 9), slice(55, 63))]
        patch = max(corners, key=lambda corner: np.median(corner[..., 2]) * np.median(corner[..., 1]))
        is_there = np.median(patch[..., 2]) > 200 and np.median(patch[..., 1]) > 150
        assert is_there == (row["patch"] != "none")
        if is_there:
            hues.setdefault(row["patch"], []).append(np.median(patch[..., 0]) / 255)
    assert len(hues) == 2
    # Half of the circle for each of two kinds, of which the middle is drawn.
    star, cross = (np.exp(2j * np.pi * np.array(hues[name])) for name in TASKS["patch"].classes)
    assert (star.real > 0).all()
    assert (cross.real < 0).all()


def test_a_data_set_of_it(tmp_path):
    table = generate("two", tmp_path / "two", size=32, scale=0.02)
    dataset = ImageDataset.from_csv(table, split="test", group_columns=["ground", "tag"])
    assert len(dataset) == 12
    assert set(dataset.class_names) == set(TASKS["two"].classes)
    assert dataset.group_names == ("ground", "tag")
    assert dataset.mask(dataset.ids[0]) is not None


def test_what_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"(?s)'boxes'.*'?box"):
        generate("boxes", tmp_path / "no")
    for wrong in (
        {"size": 31},
        {"scale": 0.0},
        {"scale": -1.0},
        {"seed": -1},
        {"scale": float("nan")},
        {"scale": float("inf")},
    ):
        with pytest.raises(SettingsError, match=r"expected size >= 32, scale > 0 and seed >= 0, got "):
            generate("box", tmp_path / "no", **wrong)
    assert not (tmp_path / "no").exists()
    generate("box", tmp_path / "there", size=32, scale=0.01)
    (tmp_path / "file").touch()
    before = digests(tmp_path)
    for taken in (tmp_path / "there", tmp_path / "file"):
        with pytest.raises(OutputExistsError, match=f"{taken.name}' exists already and is no empty folder"):
            generate("box", taken, size=32, scale=0.01, seed=1)
    with pytest.raises(OutputError):
        generate("box", tmp_path / "file" / "below", size=32, scale=0.01)
    assert digests(tmp_path) == before


def test_a_full_disk_leaves_nothing(full_disk):
    (full_disk / "task").mkdir()
    with pytest.raises(OutputError, match="disk is full"):
        generate("box", full_disk / "task", size=64)
    assert not list((full_disk / "task").iterdir())
    assert [path.name for path in full_disk.iterdir()] == ["task"]


@pytest.fixture(scope="module")
def photographs(drawn_box):
    return {split: ImageDataset.from_csv(drawn_box, split=split, mask_column="mask") for split in ("train", "test")}


@pytest.fixture(scope="module")
def drawn_box(tmp_path_factory):
    return generate("box", tmp_path_factory.mktemp("photographs") / "box", size=48, scale=0.1)


@pytest.mark.parametrize("shortcut", ["box", "tag", "patch"])
def test_a_shortcut_is_drawn_into_pictures_of_others(photographs, tmp_path, shortcut):
    table = add_shortcut(photographs, tmp_path / "new", shortcut=shortcut, size=64, seed=3)
    rows = rows_of(table)
    assert list(rows[0]) == ["image", "label", shortcut, "split", "mask"]
    assert [row["label"] for row in rows] == [
        data.class_names[label] for data in photographs.values() for label in data.labels.tolist()
    ]
    pairs = Counter((row["label"], row[shortcut]) for row in rows if row["split"] == "test")
    assert len(pairs) == 6
    assert max(pairs.values()) - min(pairs.values()) <= 1
    train = [row for row in rows if row["split"] == "train"]
    there = [row for row in train if row[shortcut] != "none"]
    assert 0.5 < len(there) / len(train) < 0.95
    assert sum(row["label"] == row[shortcut] for row in there) / len(there) > 0.9
    plain = add_shortcut(photographs, tmp_path / "plain", shortcut=shortcut, size=64, seed=3, presence=1e-9)
    for row, before in zip(train, rows_of(plain), strict=False):
        one, two, mask, whole = (
            np.asarray(Image.open(folder / name).convert(mode), dtype=int)
            for folder, name, mode in (
                (table.parent, row["image"], "RGB"), (plain.parent, before["image"], "RGB"),
                (table.parent, row["mask"], "L"), (plain.parent, before["mask"], "L"),
            )
        )  # fmt: skip
        hidden = (one != two).any(axis=2)
        assert hidden.any() == (row[shortcut] != "none")
        assert (mask[hidden] > 0).sum() <= 0.2 * hidden.sum()  # edges aside, what is hidden is no object
        assert (mask[~hidden] == whole[~hidden]).all()
    again = add_shortcut(photographs, tmp_path / "again", shortcut=shortcut, size=64, seed=3)
    assert digests(again.parent) == digests(table.parent)


def test_what_cannot_be_drawn_into_is_refused(photographs, tmp_path):
    with pytest.raises(SettingsError, match="hat"):
        add_shortcut(photographs, tmp_path / "new", shortcut="hat")
    for wrong in ({"presence": 0}, {"presence": 1}, {"correlation": 2}, {"size": 8}, {"seed": -1}):
        with pytest.raises(SettingsError, match="expected pictures of the split train"):
            add_shortcut(photographs, tmp_path / "new", **wrong)
    with pytest.raises(SettingsError, match="expected pictures of the split train"):
        add_shortcut({"test": photographs["test"]}, tmp_path / "new")
    bare = ImageDataset.from_torch([(Image.new("RGB", (48, 48)), 0), (Image.new("RGB", (48, 48)), 1)])
    with pytest.raises(DataError, match="expected object masks of the pictures of 'train', got none"):
        add_shortcut({"train": bare}, tmp_path / "new")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    with pytest.raises(OutputExistsError, match="is no empty folder"):
        add_shortcut(photographs, tmp_path / "full")
    assert not (tmp_path / "new").exists()
