"""Pictures in shards, here and on the Hub: the same as in files, known by id, read where they lie."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_hub import Repository, serving
from helpers_hub_client import environment_for, run
from PIL import Image

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, MissingExtraError, OutputError, SettingsError

VIEW = Preprocessing(size=(8, 8))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(number: int, size=(12, 10)) -> bytes:
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    found = io.BytesIO()
    Image.fromarray(values).save(found, "png")
    return found.getvalue()


def write_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def sample(number: int, **more: bytes) -> list[tuple[str, bytes]]:
    parts = {"png": png(number), "cls": str(number % 2).encode()} | more
    return [
        (f"{number:04}.{ending.replace('_', '.')}", content) for ending, content in parts.items() if content != b"-"
    ]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two shards of three samples, classes 0 and 1 in turn."""
    for shard in range(2):
        members = [each for number in range(3 * shard, 3 * shard + 3) for each in sample(number)]
        write_tar(tmp_path / "shards" / f"train-{shard:03}.tar", *members)
    return tmp_path / "shards"


def pixels(dataset: ImageDataset) -> torch.Tensor:
    with PixelCache(dataset, VIEW) as cache:
        return cache.get(torch.arange(len(dataset)))


def test_tar_files_are_read_where_they_lie(folder, tmp_path):
    dataset = ImageDataset.from_shards(folder)
    assert dataset.ids == tuple(f"train-00{number // 3}/{number:04}" for number in range(6))
    assert (dataset.labels.tolist(), dataset.class_names) == ([0, 1] * 3, ("0", "1"))
    for number, name in enumerate(dataset.ids):
        assert np.array_equal(np.array(dataset.image(name)), np.array(Image.open(io.BytesIO(png(number)))))
        assert dataset.image_size(name) == (12, 10)
    some = dataset.subset(["train-001/0004", "train-000/0001"])
    assert np.array_equal(np.array(some["train-000/0001"][0]), np.array(dataset["train-000/0001"][0]))
    for number in range(6):
        place = tmp_path / "files" / str(number % 2) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(number))
    files = ImageDataset.from_folder(tmp_path / "files")
    ordered = files.subset([f"{number % 2}/{number}.png" for number in range(6)])
    assert torch.equal(pixels(dataset), pixels(ordered))
    one = ImageDataset.from_shards([folder / "train-001.tar"])
    assert one.ids == dataset.ids[3:]
    assert torch.equal(pixels(one), pixels(dataset)[3:])


def test_parts_are_found_by_usual_names(tmp_path):
    mask = io.BytesIO()
    Image.new("L", (12, 10), 255).save(mask, "png")
    facts = {"class": "bird", "place": "sea", "note": "é"}
    members = sample(1, cls=b"-", json=json.dumps(facts).encode(), mask_png=mask.getvalue())
    members += sample(2, cls=b"-", json=json.dumps(facts | {"class": "ant", "place": "land"}).encode())
    dataset = ImageDataset.from_shards(write_tar(tmp_path / "a.tar", *members))
    assert (dataset.class_names, dataset.labels.tolist()) == (("ant", "bird"), [1, 0])
    assert (dataset.group_names, dataset.group_labels) == (("place",), ("bird/sea", "ant/land"))
    assert dataset.has_masks
    assert np.array(dataset.mask("a/0001")).min() == 255
    assert dataset.mask("a/0002") is None
    named = ImageDataset.from_shards(tmp_path / "a.tar", label_column="place", id_column="class", group_columns=())
    assert (named.ids, named.class_names) == (("bird", "ant"), ("land", "sea"))
    with pytest.raises(DataError, match=r"no sample has 'kind'; they have 'png', 'json', 'mask.png', 'class', 'place'"):
        ImageDataset.from_shards(tmp_path / "a.tar", label_column="kind")


def test_what_lies_where_is_kept(folder, tmp_path):
    first = ImageDataset.from_shards(folder, index_folder=tmp_path / "index")
    kept = sorted((tmp_path / "index").glob("*.json"))
    assert len(kept) == 2
    assert not (tmp_path / "cache").exists()
    spoilt = folder / "train-000.tar"
    about, content = spoilt.stat(), bytearray(spoilt.read_bytes())
    content[0:512] = b"x" * 512  # the header of its first file: nobody looks there again
    spoilt.write_bytes(content)
    os.utime(spoilt, ns=(about.st_atime_ns, about.st_mtime_ns))
    again = ImageDataset.from_shards(folder, index_folder=tmp_path / "index")
    assert torch.equal(pixels(again), pixels(first))
    kept[0].write_text("{")
    kept[1].write_text("{")
    with pytest.raises(DataError, match="is broken"):
        ImageDataset.from_shards(folder, index_folder=tmp_path / "index")
    ImageDataset.from_shards(folder / "train-001.tar")
    assert len(list((tmp_path / "cache" / "crayon-sdk" / "shards").glob("*.json"))) == 1
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        ImageDataset.from_shards(folder, index_folder=tmp_path / "file")


def test_a_shard_that_changes_is_another_data_set(folder, tmp_path):
    before = ImageDataset.from_shards(folder)
    cached = before.with_cache(tmp_path / "pixels")
    expected = pixels(cached)
    assert torch.equal(pixels(cached), expected)
    assert len(list((tmp_path / "pixels").glob("*.pixels"))) == 1
    key = before.pixel_key(VIEW)
    assert key == ImageDataset.from_shards(folder).pixel_key(VIEW)
    write_tar(folder / "train-001.tar", *(each for number in (3, 4, 5) for each in sample(number, png=png(9 + number))))
    after = ImageDataset.from_shards(folder)
    assert after.fingerprint == before.fingerprint
    assert after.pixel_key(VIEW) != key
    assert not torch.equal(pixels(after.with_cache(tmp_path / "pixels")), expected)
    (folder / "train-001.tar").unlink()
    assert after.pixel_key(VIEW) == ""
    longer = [each for number in (3, 4, 5) for each in sample(number, png=png(number, (20, 20)))]
    write_tar(folder / "train-001.tar", *longer)
    assert ImageDataset.from_shards(folder).file_fingerprint != before.file_fingerprint


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (sample(1) + sample(2, cls=b"-"), r"1 of 2 samples.*a/0002: has no label \('cls'\)"),
        (sample(1) + sample(2, png=b"-"), r"a/0002: has no picture; it has 'cls'"),
        (sample(1, jpg=png(3)), r"has several pictures \(png, jpg\); name one with image_column="),
        (sample(1) + sample(2) + sample(1), r"1 of 3 samples.*a/0001: another sample has the same id"),
        (sample(1) + sample(2, png=b"no picture"), r"a/0002: not an image that can be decoded"),
        (sample(1, cls=b"-"), r"nothing is recognised for label_column=; name it. Samples have 'png'"),
        (sample(1, label=b"2"), r"'cls', 'label' could all be meant for label_column=; name it"),
        ([], "hold no files"),
    ],
)
def test_samples_that_cannot_be_used_are_named(members, message, tmp_path):
    with pytest.raises(DataError, match=message):
        ImageDataset.from_shards(write_tar(tmp_path / "a.tar", *members))


def test_classes_are_names_or_numbers(tmp_path):
    def read(*labels: bytes, **options):
        members = [each for number, label in enumerate(labels) for each in sample(number, cls=label)]
        found = ImageDataset.from_shards(write_tar(tmp_path / "a.tar", *members), **options)
        return found.class_names, found.labels.tolist()

    assert read(b"2", b" 0\n") == (("0", "1", "2"), [2, 0])
    assert read(b"b", b"a") == (("a", "b"), [1, 0])
    assert read(b"02", b"01", class_names=["01", "02"]) == (("01", "02"), [1, 0])
    assert read(b"1", b"0", class_names=["cat", "dog"]) == (("cat", "dog"), [1, 0])
    assert read(b"a", b"1", class_names=["1", "a"]) == (("1", "a"), [1, 0])
    for labels in ((b"-1", b"0"), (b"2", b"cat")):
        with pytest.raises(DataError, match=f"its label '{labels[0].decode()}' is not a class"):
            read(*labels, class_names=["cat", "dog"])


def test_bad_samples_are_left_out_where_that_is_wanted(tmp_path):
    members = sample(1) + sample(2, cls=b"-") + sample(3, png=b"no picture") + sample(4)
    dataset = ImageDataset.from_shards(write_tar(tmp_path / "a.tar", *members), on_error="skip")
    assert dataset.ids == ("a/0001", "a/0004")
    assert [each.id for each in dataset.skipped] == ["a/0002", "a/0003"]
    names = ImageDataset.from_shards(tmp_path / "a.tar", class_names=["cat"], on_error="skip", decode=False)
    assert names.ids == ("a/0004",)
    assert names.skipped[0].reason == "its label '1' is not a class ('cat')"


@pytest.mark.parametrize("cut", [100, 700, 1536, 2600, -1024])
def test_a_shard_that_was_cut_off_is_refused(cut, tmp_path):
    path = write_tar(tmp_path / "a.tar", *sample(1), *sample(2))
    size = sum(512 + -(-len(content) // 512) * 512 for _, content in sample(1) + sample(2))
    whole = path.read_bytes()[: size + 1024]
    path.write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"the shard '.*a.tar' is broken: .*Copy it again"):
        ImageDataset.from_shards(path)


def test_other_files_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match=r"1 of 2 shards are missing: .*none.tar"):
        ImageDataset.from_shards([folder / "train-000.tar", folder / "none.tar"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no shards; expected .tar or .parquet files"):
        ImageDataset.from_shards(tmp_path / "empty")
    with pytest.raises(DataError, match="at least one shard, got none"):
        ImageDataset.from_shards([])
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"expected shards of one kind.*a.tar.gz'; a packed tar cannot be read"):
        ImageDataset.from_shards(tmp_path / "a.tar.gz")
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + b"x" * 2000)
    with pytest.raises(DataError, match="is broken"):
        ImageDataset.from_shards(tmp_path / "a.tar")


def test_a_shard_that_changes_meanwhile_is_said(folder):
    dataset = ImageDataset.from_shards(folder)
    write_tar(folder / "train-000.tar", *sample(8), *sample(9))
    with pytest.raises(DataError, match=r"'train-000/0002' cannot be used: the shard .*train-000.tar' changed since"):
        dataset["train-000/0002"]
    assert dataset["train-001/0003"][0].size == (12, 10)


# Parquet


def table(count=7, **more):
    datasets = pytest.importorskip("datasets")
    pictures = [{"bytes": png(number), "path": f"{number}.png"} for number in range(count)]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    given = {"image": pictures, "label": [number % 2 for number in range(count)]} | more
    features |= {name: datasets.Value("string") for name in more if name not in features}
    return datasets.Dataset.from_dict(given, features=datasets.Features(features))


def parquet(path: Path, rows: int = 3, **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table(**more).to_parquet(path, batch_size=rows)
    return path


def test_parquet_files_are_read_a_group_of_rows_at_a_time(tmp_path):
    place = ["land", "sea"] * 4
    parquet(tmp_path / "data" / "train-0.parquet", place=place[:7])
    parquet(tmp_path / "data" / "train-1.parquet", count=2, place=place[:2])
    dataset = ImageDataset.from_shards(tmp_path / "data")
    assert dataset.ids == (*(f"train-0/{row}" for row in range(7)), "train-1/0", "train-1/1")
    assert (dataset.class_names, dataset.labels.tolist()) == (("cat", "dog"), [0, 1, 0, 1, 0, 1, 0, 0, 1])
    assert (dataset.group_names, dataset.group_labels[1]) == (("place",), "dog/sea")
    for number in (6, 0, 3, 3, 5):
        found = np.array(dataset.image(f"train-0/{number}"))
        assert np.array_equal(found, np.array(Image.open(io.BytesIO(png(number)))))
    whole = ImageDataset.from_hf(table(place=place[:7]))
    assert torch.equal(pixels(dataset)[:7], pixels(whole))
    assert torch.equal(pixels(dataset.with_cache(tmp_path / "pixels")), pixels(dataset))
    named = ImageDataset.from_shards(tmp_path / "data" / "train-1.parquet", id_column="place", group_columns=())
    assert named.ids == ("land", "sea")


def test_numbers_of_classes_are_no_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["1", "2", "0"])})
    pictures = [{"bytes": png(number), "path": None} for number in range(3)]
    datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 2]}, features=features).to_parquet(
        tmp_path / "a.parquet"
    )
    dataset = ImageDataset.from_shards(tmp_path / "a.parquet")
    assert (dataset.class_names, dataset.labels.tolist()) == (("1", "2", "0"), [0, 1, 2])


def test_parquet_files_that_cannot_be_used(tmp_path, monkeypatch):
    path = parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"b.parquet' cannot be read: .*Copy it again"):
        ImageDataset.from_shards(tmp_path / "b.parquet")
    parquet(tmp_path / "c.parquet", note=["x"] * 7)
    with pytest.raises(DataError, match=r"c.parquet' has other columns than '.*a.parquet'"):
        ImageDataset.from_shards([path, tmp_path / "c.parquet"])
    with pytest.raises(DataError, match=r"no column 'kind'; it has 'image', 'label'"):
        ImageDataset.from_shards(path, label_column="kind")
    with pytest.raises(DataError, match=r"expected shards of one kind, .tar or .parquet, got"):
        ImageDataset.from_shards([path, write_tar(tmp_path / "a.tar", *sample(1))])
    parquet(tmp_path / "d.parquet", label=[None, 0, 1, 0, 1, 0, 1])
    with pytest.raises(DataError, match=r"1 of 7 samples.*d/0: has no label \('label'\)"):
        ImageDataset.from_shards(tmp_path / "d.parquet")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"Parquet files need datasets: pip install .*\[datasets\]"):
        ImageDataset.from_shards(path)


# On the Hub

LOOK = """
import hashlib, json, sys
import torch
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import CrayonError
for name, options in json.loads(sys.argv[1]):
    try:
        found = ImageDataset.from_hub(name, **options)
        with PixelCache(found, Preprocessing(size=(8, 8))) as cache:
            values = cache.get(torch.arange(len(found)))
        told = [list(found.ids), found.labels.tolist(), list(found.class_names), values.double().sum().item()]
        told.append(found.image(found.ids[1]).size)
        print(json.dumps(told))
    except CrayonError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def test_data_sets_of_the_hub(tmp_path):
    parquet(tmp_path / "pets" / "data" / "train-00000-of-00001.parquet")
    tar = write_tar(tmp_path / "web" / "train-000.tar", *sample(1), *sample(2))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.csv").write_text("image,label\n1.png,a\n")
    repositories = {
        f"datasets/ann/{name}": Repository({"main": tmp_path / name}, private=name == "web")
        for name in ("pets", "web", "text")
    }
    streamed = {"split": "train", "streaming": True}
    asked = [
        ["ann/pets", streamed],
        ["ann/pets", {"split": "train"}],
        ["ann/web", streamed],
        ["ann/pets", streamed | {"split": "test"}],
        ["ann/text", streamed],
        ["ann/none", streamed],
        ["/etc", streamed],
    ]
    with serving(repositories) as hub:
        environment = environment_for(hub.endpoint, tmp_path / "home", token="hf_mine")
        out, _ = run(LOOK, [json.dumps(asked)], environment)
    stream, whole, web, *errors = map(json.loads, out.splitlines())
    local = pixels(ImageDataset.from_shards(tmp_path / "pets"))
    assert stream[0] == [f"train-00000-of-00001/{row}" for row in range(7)]
    assert stream[1:] == [[0, 1, 0, 1, 0, 1, 0], ["cat", "dog"], local.double().sum().item(), [12, 10]]
    assert whole[1:] == stream[1:]
    assert whole[0] == list("0123456")
    assert web == [
        ["train-000/0001", "train-000/0002"],
        [1, 0],
        ["0", "1"],
        pixels(ImageDataset.from_shards(tar)).double().sum().item(),
        [12, 10],
    ]
    expected = [
        "DataError: ann/pets has no split 'test'; its splits are 'train'",
        "DataError: expected Parquet or tar files in ann/text, which can be read where they lie, got 'train.csv'; ",
        "HubError: looking at ann/none: ",
        "SettingsError: expected a repository such as ",
    ]
    for text, start in zip(errors, expected, strict=True):
        assert text.startswith(start), text


def test_the_library_is_asked_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"data sets of the Hub need datasets: pip install .*\[datasets\]"):
        ImageDataset.from_hub("ann/pets", split="train")
    with pytest.raises(SettingsError, match="on_error"):
        ImageDataset.from_hub("ann/pets", split="train", on_error="drop")
