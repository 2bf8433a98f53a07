"""Batches and the cache of decoded pictures: same values on every way, and nothing of the caller's touched."""

from __future__ import annotations

import gc
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache, batches
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, OutputError, SettingsError

NORMAL = Preprocessing(size=(8, 9), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), crop_pct=0.8)


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def dataset(tmp_path) -> ImageDataset:
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(7):
        values = random.integers(0, 256, (10 + number, 14, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "pictures" / "a" / f"{number}.png")
    return ImageDataset.from_folder(tmp_path / "pictures")


def direct(dataset: ImageDataset) -> torch.Tensor:
    pictures = [np.array(NORMAL.geometry(dataset.image(name))) for name in dataset.ids]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("num_workers", ["auto", 0, 2])
def test_stream_equals_direct(dataset, num_workers):
    found = list(batches(dataset, NORMAL, batch_size=3, num_workers=num_workers))
    assert [indices.tolist() for indices, _ in found] == [[0, 1, 2], [3, 4, 5], [6]]
    assert found[0][0].dtype == torch.int64
    images = torch.cat([images for _, images in found])
    assert images.dtype == torch.uint8
    assert torch.equal(images, direct(dataset))


def test_order(dataset):
    [(indices, images)] = batches(dataset, NORMAL, batch_size=8, order=[4, 0, 4])
    assert indices.tolist() == [4, 0, 4]
    assert torch.equal(images, direct(dataset)[[4, 0, 4]])
    assert list(batches(dataset, NORMAL, batch_size=8, order=[])) == []
    assert list(batches(dataset.subset([]), NORMAL, batch_size=8)) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_random_numbers_of_the_caller_are_left_alone(dataset, num_workers):
    torch.manual_seed(5)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(batches(dataset, NORMAL, batch_size=2, num_workers=num_workers))
    PixelCache(dataset, NORMAL, num_workers=num_workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_picture_that_went_away(dataset, tmp_path, num_workers):
    (tmp_path / "pictures" / "a" / "4.png").unlink()
    with pytest.raises(DataError, match=r"^sample 'a/4.png' cannot be used: the file is missing$"):
        list(batches(dataset, NORMAL, batch_size=2, num_workers=num_workers))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size must be a whole number"),
        ({"batch_size": 2, "num_workers": -1}, 'num_workers must be "auto" or a whole number of at least 0, got -1'),
        ({"batch_size": 2, "num_workers": "many"}, "num_workers must be"),
        ({"batch_size": 2, "order": [0, 7]}, "order must hold positions from 0 to 6"),
    ],
)
def test_bad_settings_are_told_at_once(dataset, options, message):
    with pytest.raises(SettingsError, match=message):
        batches(dataset, NORMAL, **options)


def test_pictures_need_a_preprocessing(dataset):
    with pytest.raises(SettingsError, match=r"preprocessing is needed"):
        batches(dataset, None, batch_size=2)


def test_cache_equals_direct(dataset):
    expected = NORMAL.normalize(direct(dataset))
    with PixelCache(dataset, NORMAL) as cache:
        assert len(cache) == 7
        assert not cache.on_disk
        assert torch.equal(cache.get(torch.arange(7)), expected)
        assert torch.equal(cache.get(torch.tensor([6, 0, 6])), expected[[6, 0, 6]])
        assert cache.get(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 8, 9)


def test_cache_on_disk_equals_cache_in_memory(dataset, temporary):
    memory = PixelCache(dataset, NORMAL)
    assert list(temporary.iterdir()) == []
    with PixelCache(dataset, NORMAL, max_memory_bytes=0) as disk:
        assert disk.on_disk
        [file] = temporary.iterdir()
        assert file.stat().st_size == 7 * 3 * 8 * 9
        for indices in (torch.arange(7), torch.tensor([5, 1])):
            assert torch.equal(disk.get(indices), memory.get(indices))
    assert list(temporary.iterdir()) == []
    disk.close()
    with pytest.raises(SettingsError, match=r"the pixel cache is closed"):
        disk.get(torch.arange(2))


def test_file_of_a_forgotten_cache_is_deleted(dataset, temporary):
    cache = PixelCache(dataset, NORMAL, max_memory_bytes=0)
    assert len(list(temporary.iterdir())) == 1
    del cache
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_file_of_a_cache_that_failed_is_deleted(dataset, temporary, tmp_path):
    (tmp_path / "pictures" / "a" / "4.png").unlink()
    with pytest.raises(DataError, match=r"sample 'a/4.png'"):
        PixelCache(dataset, NORMAL, max_memory_bytes=0)
    assert list(temporary.iterdir()) == []


def test_cache_without_a_place_for_its_file(dataset, temporary):
    temporary.rmdir()
    with pytest.raises(OutputError, match=r"cannot write"):
        PixelCache(dataset, NORMAL, max_memory_bytes=0)


@pytest.mark.parametrize("indices", [[7], [-1]])
def test_positions_outside_of_the_cache(dataset, indices):
    with pytest.raises(SettingsError, match=r"indices must lie in 0 to 6"):
        PixelCache(dataset, NORMAL).get(torch.tensor(indices))
    with pytest.raises(SettingsError, match=r"max_memory_bytes must be"):
        PixelCache(dataset, NORMAL, max_memory_bytes=-1)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_preprocessed_rows(limit, temporary):
    ready = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    dataset = ImageDataset.from_torch([(image, 0) for image in ready], preprocessed=True)
    streamed = torch.cat([images for _, images in batches(dataset, None, batch_size=2)])
    assert torch.equal(streamed, ready)
    with PixelCache(dataset, NORMAL, max_memory_bytes=limit) as cache:
        assert cache.on_disk == (limit == 0)
        assert torch.equal(cache.get(torch.arange(5)), ready)
    with PixelCache(dataset.subset([]), NORMAL) as cache:
        assert len(cache) == 0


@pytest.mark.parametrize("count", [2, 65])
def test_preprocessed_rows_of_several_shapes(count):
    items = [(torch.zeros(3, 4, 4), 0)] * (count - 1) + [(torch.zeros(3, 5, 4), 0)]
    dataset = ImageDataset.from_torch(items, preprocessed=True)
    with pytest.raises(DataError, match=rf"must have one shape: '{count - 1}' has \(3, 5, 4\), '0' has \(3, 4, 4\)"):
        PixelCache(dataset, None)


def test_stream_keeps_nothing():
    class Made:
        def __len__(self):
            return 400

        def __getitem__(self, index):
            return torch.full((3, 64, 64), index % 256, dtype=torch.uint8), 0

    dataset = ImageDataset.from_torch(Made(), labels=[0] * 400)
    seen: list[weakref.ref[torch.Tensor]] = []
    for number, (_, images) in enumerate(batches(dataset, Preprocessing(size=(64, 64)), batch_size=4)):
        assert int(images[0, 0, 0, 0]) == (4 * number) % 256
        seen.append(weakref.ref(images))
        assert sum(batch() is not None for batch in seen) <= 2
    assert len(seen) == 100
