"""Decoded pictures that outlive the run: the right ones, whoever is killed, and no more than may be there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_correction import split_model
from PIL import Image

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache, batches
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, OutputError, SettingsError
from crayon_sdk.explain.explainer import Explainer

VIEW = Preprocessing(size=(8, 9), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), crop_pct=0.8)
ROW = 3 * 8 * 9


@pytest.fixture
def plain(tmp_path) -> ImageDataset:
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(7):
        values = random.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "pictures" / "a" / f"{number}.png")
    return ImageDataset.from_folder(tmp_path / "pictures")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "pixels"


def pixels(dataset: ImageDataset, view: Preprocessing = VIEW) -> torch.Tensor:
    return torch.cat([images for _, images in batches(dataset, view, batch_size=3)])


def spoil(file: Path) -> None:
    """Other content of the same size and time: who decodes it fails."""
    found = file.stat()
    file.write_bytes(b"x" * found.st_size)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pixels"))


def test_pictures_are_decoded_once_for_all_runs(plain, folder):
    expected, dataset = pixels(plain), plain.with_cache(folder)
    assert torch.equal(pixels(dataset), expected)
    assert [file.stat().st_size for file in files(folder)] == [7 * ROW]
    for file in plain.files:
        spoil(file)
    with pytest.raises(DataError):
        pixels(plain)
    again = plain.with_cache(folder)
    assert torch.equal(pixels(again), expected)
    order = torch.tensor([5, 0, 5])
    with PixelCache(again, VIEW) as cache:
        assert torch.equal(cache.get(order), VIEW.normalize(expected[order]))
        assert not cache.on_disk  # not in a file that goes with the cache
    [(rows, images)] = batches(again, VIEW, batch_size=8, order=[4, 0, 4])
    assert rows.tolist() == [4, 0, 4]
    assert torch.equal(images, expected[rows])


def test_what_is_written_to_the_rows_does_not_reach_the_file(plain, folder):
    dataset = plain.with_cache(folder)
    expected = pixels(plain)
    for _, images in batches(dataset, VIEW, batch_size=7):
        images.zero_()
    with PixelCache(dataset, VIEW) as cache:
        cache._rows.zero_()
    assert torch.equal(pixels(dataset), expected)


def test_mean_and_std_share_a_file_and_whatever_changes_pixels_does_not(plain, folder):
    dataset = plain.with_cache(folder)
    pixels(dataset)
    pixels(dataset, Preprocessing(size=(8, 9), crop_pct=0.8))
    assert len(files(folder)) == 1
    pixels(dataset, Preprocessing(size=(8, 9), crop_pct=1.0))
    pixels(dataset.subset(dataset.ids[:3]))  # of which it is a part
    assert len(files(folder)) == 2
    pixels(plain.subset(plain.ids[:3]).with_cache(folder))
    assert len(files(folder)) == 3
    changed = plain.files[2]
    Image.new("RGB", (12, 14), "red").save(changed)
    assert torch.equal(pixels(dataset), pixels(plain))
    assert len(files(folder)) == 4
    os.utime(changed, (1, 1))  # perhaps the same picture, perhaps not
    pixels(dataset)
    assert len(files(folder)) == 5


def test_labels_and_classes_do_not_matter(plain, folder):
    dataset = plain.with_cache(folder)
    pixels(dataset)
    pixels(dataset.with_classes(("b", "a"), {"a": 1}))
    assert len(files(folder)) == 1


def test_a_part_is_not_decoded_as_a_whole(plain, folder):
    dataset = plain.with_cache(folder)
    spoil(plain.files[6])
    [(_, images)] = batches(dataset, VIEW, batch_size=8, order=[1, 2])
    assert len(images) == 2
    assert not files(folder)


def test_a_broken_picture_is_named_and_leaves_no_file(plain, folder):
    spoil(plain.files[3])
    with pytest.raises(DataError, match=r"3\.png"):
        pixels(plain.with_cache(folder))
    plain.files[3].unlink()
    with pytest.raises(DataError, match=r"3\.png.*missing"):
        pixels(plain.with_cache(folder))
    assert not files(folder)


def test_a_file_of_another_length_is_made_again(plain, folder):
    dataset, expected = plain.with_cache(folder), pixels(plain)
    pixels(dataset)
    [file] = files(folder)
    os.truncate(file, 100)
    assert torch.equal(pixels(dataset), expected)


def test_what_was_not_used_for_the_longest_time_goes(plain, folder):
    dataset = plain.with_cache(folder, most_bytes=16 * ROW)
    views = [Preprocessing(size=(8, 9), crop_pct=share) for share in (0.5, 0.6, 0.7)]
    made = []
    for number, view in enumerate([views[0], views[1], views[0]]):
        pixels(dataset, view)
        made += [file for file in files(folder) if file not in made]
        for file in made:  # clocks of file systems are coarse
            if file.stat().st_mtime > 1000:
                os.utime(file, (number + 1, number + 1))
    pixels(dataset, views[2])
    assert made[0].exists()
    assert not made[1].exists()
    assert len(files(folder)) == 2


def test_what_is_too_large_is_decoded_every_time(plain, folder, caplog):
    dataset = plain.with_cache(folder, most_bytes=7 * ROW - 1)
    assert torch.equal(pixels(dataset), pixels(plain))
    assert "not kept" in caplog.text
    assert not files(folder)


def test_bad_folders_and_data(plain, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        plain.with_cache(tmp_path / "file" / "pixels")
    with pytest.raises(SettingsError, match="expected most_bytes to be a positive whole number, got 0"):
        plain.with_cache(tmp_path / "pixels", most_bytes=0)
    with pytest.raises(SettingsError, match="expected a data set of picture files"):
        ImageDataset.from_torch([(torch.zeros(3, 9, 9), 0)]).with_cache(tmp_path / "pixels")


BUILD = """
import sys, time
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.data.preprocessing import Preprocessing
import crayon_sdk.data.sources as sources
real = sources.FileSource.row
def slow(self, position, preprocessing):
    print("decoded", flush=True)
    time.sleep(float(sys.argv[3]))
    return real(self, position, preprocessing)
sources.FileSource.row = slow
view = Preprocessing(size=(8, 9), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), crop_pct=0.8)
PixelCache(ImageDataset.from_folder(sys.argv[1], decode=False).with_cache(sys.argv[2]), view)
"""


def building(plain, folder, seconds):
    command = [sys.executable, "-c", BUILD, plain.files[0].parents[1], folder, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_builder_that_is_killed_leaves_nothing_and_others_wait_for_one_that_lives(plain, folder):
    killed = building(plain, folder, 60)
    assert killed.stdout.readline() == "decoded\n"
    killed.kill()
    killed.communicate()
    assert not files(folder)
    first, second = building(plain, folder, 0.2), building(plain, folder, 0.2)
    counts = [each.communicate(timeout=120)[0].count("decoded") for each in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted(counts) == [0, 7]
    for file in plain.files:
        spoil(file)
    started = time.monotonic()
    assert len(pixels(plain.with_cache(folder))) == 7
    assert time.monotonic() - started < 60
    assert not [path for path in folder.iterdir() if path.is_dir()]  # what the killed one had begun


def test_explaining_makes_the_file_and_a_part_finds_its_rows_there(plain, folder):
    model = split_model()
    model.preprocessing = replace(VIEW, size=(64, 64))
    plain = replace(plain, class_map={"a": 0})
    dataset = plain.with_cache(folder)
    expected = Explainer(model, device="cpu", batch_size=3).explain(plain)
    assert torch.equal(Explainer(model, device="cpu", batch_size=3).explain(dataset).values, expected.values)
    assert [file.stat().st_size for file in files(folder)] == [7 * 3 * 64 * 64]
    part = dataset.subset([dataset.ids[row] for row in (5, 0, 3)])
    for file in plain.files:
        spoil(file)
    assert torch.equal(Explainer(model, device="cpu").explain(part).values, expected.select(part.ids).values)
    assert len(files(folder)) == 1
    with pytest.raises(DataError):
        Explainer(model, device="cpu").explain(plain)
