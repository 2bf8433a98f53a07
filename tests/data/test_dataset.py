"""Data sets from folders, tables and torch data sets: what they hold and how bad ones are told."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from crayon_sdk.data.dataset import ImageDataset, SkippedSample, as_dataset
from crayon_sdk.data.preprocessing import Preprocessing, to_rgb
from crayon_sdk.errors import DataError, SettingsError

SMALL = Preprocessing(size=(8, 8))


def picture(path: Path, value: int = 100, size: tuple[int, int] = (12, 10), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3).astype("u1"))
    Image.blend(image, Image.new("RGB", size, (value,) * 3), 0.5).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/2.png", "cat/1.jpg", "cat/deep/er/3.png", "dog/1.png"):
        picture(tmp_path / "pets" / name)
    return tmp_path / "pets"


# --- folders ---


def test_folder(folder):
    dataset = ImageDataset.from_folder(folder)
    assert dataset.ids == ("cat/1.jpg", "cat/2.png", "cat/deep/er/3.png", "dog/1.png")
    assert dataset.labels.tolist() == [0, 0, 0, 1]
    assert dataset.labels.dtype == torch.int64
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset), dataset.num_classes, dataset.groups, dataset.has_masks) == (4, 2, None, False)
    assert dataset.group_labels == ("cat", "cat", "cat", "dog")
    assert repr(dataset) == "ImageDataset(4 images, 2 classes)"
    assert dataset.image("dog/1.png").size == (12, 10)
    assert dataset.mask("dog/1.png") is None


def test_folder_with_class_order(folder):
    dataset = ImageDataset.from_folder(folder, class_names=["dog", "cat"])
    assert dataset.class_names == ("dog", "cat")
    assert dict(zip(dataset.ids, dataset.labels.tolist(), strict=True))["dog/1.png"] == 0


def test_folder_with_a_folder_that_is_no_class(folder):
    with pytest.raises(DataError, match=r"1 of 4 samples.*dog/1.png: its folder 'dog' is not one of the classes"):
        ImageDataset.from_folder(folder, class_names=["cat"])
    dataset = ImageDataset.from_folder(folder, class_names=["cat"], on_error="skip")
    assert len(dataset) == 3
    assert dataset.skipped[0].id == "dog/1.png"


def test_folder_with_unicode_and_spaces(tmp_path):
    picture(tmp_path / "größe 大 👩‍🔬" / "ein Bild · 写真.png")
    dataset = ImageDataset.from_folder(tmp_path)
    assert dataset.ids == ("größe 大 👩‍🔬/ein Bild · 写真.png",)
    assert dataset.image(dataset.ids[0]).size == (12, 10)
    assert len(dataset.fingerprint) == 64


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps bytes that are no text in file names")
def test_file_name_that_is_no_text(tmp_path):
    picture(tmp_path / "a" / "1.png")
    os.rename(tmp_path / "a" / "1.png", os.fsencode(tmp_path / "a") + b"/\xff.png")
    with pytest.raises(DataError, match=r"characters that cannot be written as text"):
        ImageDataset.from_folder(tmp_path)


def test_hidden_files_are_passed_over(folder, caplog):
    for name in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "dog/._1.png", "dog/desktop.ini", ".git/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / "__MACOSX").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(ImageDataset.from_folder(folder)) == 4
    assert not caplog.records


def test_other_files_are_left_out_and_told(folder, caplog):
    (folder / "cat" / "notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert len(ImageDataset.from_folder(folder)) == 4
    assert "1 files" in caplog.text
    assert "cat/notes.txt" in caplog.text


def test_links(folder, tmp_path):
    os.symlink(folder / "cat", tmp_path / "pets" / "lion")
    os.symlink(folder / "dog" / "1.png", folder / "dog" / "2.png")
    os.symlink(folder / "cat", folder / "cat" / "deep" / "circle")
    dataset = ImageDataset.from_folder(folder)
    assert [name for name in dataset.ids if name.startswith("dog")] == ["dog/1.png", "dog/2.png"]
    assert sum(name.startswith("lion/") for name in dataset.ids) == 3
    os.symlink(folder / "nowhere.png", folder / "dog" / "3.png")
    with pytest.raises(DataError, match=r"1 of 9 samples.*dog/3.png: the file is missing"):
        ImageDataset.from_folder(folder)


def test_folder_masks(folder, tmp_path):
    for name in ("cat/1.png", "cat/2.bmp", "cat/deep/er/3.png", "dog/1.png"):
        path = tmp_path / "masks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.zeros((10, 12), dtype=np.uint8)
        values[:, 6:] = 255
        Image.fromarray(values).save(path)
    dataset = ImageDataset.from_folder(folder, masks=tmp_path / "masks")
    assert dataset.has_masks
    assert repr(dataset) == "ImageDataset(4 images, 2 classes, masks)"
    mask = dataset.mask("cat/1.jpg")
    assert (mask.mode, mask.size, set(np.unique(mask))) == ("L", (12, 10), {0, 255})
    seen = dataset.mask_tensor("cat/1.jpg", Preprocessing(size=(10, 12)))
    assert (seen.shape, seen.dtype) == ((10, 12), torch.float32)
    assert torch.equal(seen, torch.from_numpy(np.array(mask) / 255).float())
    (tmp_path / "masks" / "cat" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 samples.*cat/1.jpg: no mask cat/1\.\* in"):
        ImageDataset.from_folder(folder, masks=tmp_path / "masks")
    skipped = ImageDataset.from_folder(folder, masks=tmp_path / "masks", on_error="skip")
    assert [sample.id for sample in skipped.skipped] == ["cat/1.jpg"]


def test_mask_folder_inside_the_root_is_no_class(folder):
    for name in ("cat/1", "cat/2", "cat/deep/er/3", "dog/1"):
        picture(folder / "masks" / f"{name}.png")
    assert ImageDataset.from_folder(folder, masks=folder / "masks").class_names == ("cat", "dog")
    picture(folder / "masks" / "dog" / "1.jpg")
    with pytest.raises(DataError, match=r"2 masks for it: '1.jpg', '1.png'"):
        ImageDataset.from_folder(folder, masks=folder / "masks")


def test_masks_that_do_not_fit(folder, tmp_path):
    for name in ("cat/1", "cat/2", "cat/deep/er/3"):
        picture(tmp_path / "masks" / f"{name}.png", size=(24, 20))
    picture(tmp_path / "masks" / "dog" / "1.png", size=(10, 12))
    with pytest.raises(DataError, match=r"1 of 4.*dog/1.png: its mask \(10 x 12\) has other proportions"):
        ImageDataset.from_folder(folder, masks=tmp_path / "masks")
    (tmp_path / "masks" / "dog" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"dog/1.png: its mask cannot be read: not an image"):
        ImageDataset.from_folder(folder, masks=tmp_path / "masks")


def test_no_folder_no_classes_no_images(tmp_path):
    with pytest.raises(DataError, match=r"cannot list the folder"):
        ImageDataset.from_folder(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"has no class folders; expected"):
        ImageDataset.from_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"has class folders \('cat'\) but no images"):
        ImageDataset.from_folder(tmp_path)
    picture(tmp_path / "file.png")
    with pytest.raises(DataError, match=r"cannot list the folder"):
        ImageDataset.from_folder(tmp_path / "file.png")


def test_class_without_images(folder):
    (folder / "emu").mkdir()
    with pytest.raises(DataError, match=r"1 classes have no images.*'emu'.*class_names="):
        ImageDataset.from_folder(folder)
    dataset = ImageDataset.from_folder(folder, on_error="skip")
    assert dataset.class_names == ("cat", "dog", "emu")
    assert dataset.skipped == (SkippedSample("emu", "a class without images"),)
    with pytest.raises(DataError, match=r"'fox'"):
        ImageDataset.from_folder(folder, class_names=["cat", "dog", "emu", "fox"])


def break_files(folder: Path) -> list[str]:
    """Seven files that are no whole pictures, in the ways that occur."""
    whole = (folder / "cat" / "1.jpg").read_bytes()
    png = bytearray((folder / "cat" / "2.png").read_bytes())
    png[60:80] = bytes(20)
    for name, content in {
        "a.jpg": whole[: len(whole) // 2],
        "b.jpg": b"",
        "c.jpg": b"<html>404</html>",
        "d.png": bytes(png),
        "e.png": bytes(png[:45]),
        "f.gif": b"GIF89a",
        "g.tif": b"II*\0\xff\xff\xff\xff",
    }.items():
        (folder / "dog" / name).write_bytes(content)
    return [f"dog/{name}" for name in ("a.jpg", "b.jpg", "c.jpg", "d.png", "e.png", "f.gif", "g.tif")]


def test_broken_pictures_are_one_error(folder):
    break_files(folder)
    with pytest.raises(DataError, match=r"^7 of 11 samples cannot be used: ") as caught:
        ImageDataset.from_folder(folder)
    message = str(caught.value)
    assert "dog/a.jpg: " in message
    assert "dog/c.jpg: not an image that can be decoded" in message
    assert "dog/f.gif" not in message
    assert message.endswith("""and 2 more. Correct them, or pass on_error="skip" to leave them out.""")


def test_broken_pictures_are_skipped(folder):
    broken = break_files(folder)
    dataset = ImageDataset.from_folder(folder, on_error="skip")
    assert [sample.id for sample in dataset.skipped] == broken
    assert all(sample.reason for sample in dataset.skipped)
    assert dataset.ids == ("cat/1.jpg", "cat/2.png", "cat/deep/er/3.png", "dog/1.png")
    assert dataset.labels.tolist() == [0, 0, 0, 1]
    assert repr(dataset) == "ImageDataset(4 images, 2 classes, 7 skipped)"
    assert dataset.image("dog/1.png").size == (12, 10)


def test_nothing_left(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 1 samples can be used: 'cat/1.png: not an image"):
        ImageDataset.from_folder(tmp_path, on_error="skip")


def test_checked_once(folder):
    dataset = ImageDataset.from_folder(folder)
    (folder / "dog" / "1.png").unlink()
    dataset.check()
    dataset.subset(["dog/1.png"]).check()
    with pytest.raises(DataError, match=r"sample 'dog/1.png' cannot be used: the file is missing"):
        dataset.image("dog/1.png")


@pytest.mark.parametrize("options", [{"on_error": "ignore"}, {"class_names": "cat"}, {"class_names": ["a", "a"]}])
def test_bad_settings(folder, options):
    with pytest.raises(SettingsError, match=r"on_error must be|class_names must be a list of different names"):
        ImageDataset.from_folder(folder, **options)
    with pytest.raises(SettingsError, match=r"preprocessing must be a Preprocessing, got int"):
        ImageDataset.from_folder(folder, preprocessing=224)


# --- pictures of every kind ---


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("1", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("RGBA", "png"), ("RGBA", "webp"),
     ("CMYK", "jpg"), ("CMYK", "tif"), ("I;16", "png")],
)  # fmt: skip
@pytest.mark.parametrize("transparency", [False, True])
def test_modes(tmp_path, mode, suffix, transparency):
    values = np.repeat(np.linspace(0, 255, 16, dtype=np.uint8)[None], 10, axis=0)
    grey = Image.fromarray(values)
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else grey.convert("RGB").convert(mode)
    options = {"transparency": bytes(range(200))} if transparency and (mode, suffix) == ("P", "png") else {}
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / f"1.{suffix}", **options)
    shown = ImageDataset.from_folder(tmp_path).image(f"a/1.{suffix}")
    assert shown.mode == "RGB"
    assert shown.size == (16, 10)
    if mode != "1":
        assert np.abs(np.array(shown)[..., 1].astype(int) - values).max() < (26 if mode == "P" else 12)


@pytest.mark.parametrize(
    ("name", "brightest", "white"),
    [("1.png", 250, 65535), ("1.png", 260, 65535), ("1.tif", 260, 65535), ("1.pgm", 260, 65535)],
)
def test_white_of_sixteen_bits_is_that_of_the_file(tmp_path, name, brightest, white):
    values = np.linspace(0, brightest, 160).astype(np.uint16).reshape(10, 16)
    (tmp_path / "a").mkdir()
    if name.endswith(".pgm"):  # old releases of Pillow read it, but do not write it
        (tmp_path / "a" / name).write_bytes(b"P5 16 10 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / "a" / name)
    shown = np.array(ImageDataset.from_folder(tmp_path).image(f"a/{name}"))
    assert np.array_equal(shown[..., 1], np.round(values * (255 / white)))


def test_floating_point_files(tmp_path):
    values = np.linspace(0, 1, 160, dtype=np.float32).reshape(10, 16)
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(values).save(tmp_path / "a" / "1.tif", exif=exif)
    shown = np.array(ImageDataset.from_folder(tmp_path).image("a/1.tif"))
    assert np.array_equal(shown[..., 1], np.round(values * 255)[::-1, ::-1])
    values[3, 4] = np.nan
    Image.fromarray(values).save(tmp_path / "a" / "2.tif")
    Image.fromarray(np.full((10, 16), 9, dtype=np.int32)).save(tmp_path / "a" / "3.tif")
    with pytest.raises(DataError, match=r"a/2.tif: an image must hold numbers only, got NaN.*a/3.tif: .* 32-bit"):
        ImageDataset.from_folder(tmp_path)


@pytest.mark.parametrize(("tags", "turn"), [({258: (12,)}, False), ({262: 0}, True)])
def test_tiff_says_what_is_white(tags, turn):
    """12 bits in 16, and white at zero: Pillow leaves both to the reader."""
    values = np.linspace(0, 4095 if 258 in tags else 65535, 64).astype(np.uint16).reshape(8, 8)
    image = Image.fromarray(values)
    image.tag_v2 = tags
    shown = np.array(to_rgb(image))[..., 1]
    expected = np.round(values * (255 / values.max()))
    assert np.abs(shown - (255 - expected if turn else expected)).max() == 0


@pytest.mark.parametrize("rotation", [1, 6])
def test_rotated_by_the_camera_in_sixteen_bits(tmp_path, rotation):
    values = np.linspace(0, 65535, 160).astype(np.uint16).reshape(10, 16)
    exif = Image.Exif()
    exif[0x0112] = rotation
    (tmp_path / "a").mkdir()
    Image.fromarray(values).save(tmp_path / "a" / "1.png", exif=exif)
    shown = np.array(ImageDataset.from_folder(tmp_path).image("a/1.png"))[..., 1]
    upright = np.round(values / 257)
    assert np.array_equal(shown, np.rot90(upright, -1) if rotation == 6 else upright)


def test_rotated_by_the_camera(tmp_path):
    values = np.zeros((10, 16, 3), dtype=np.uint8)
    values[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown a quarter turn clockwise
    (tmp_path / "a").mkdir()
    Image.fromarray(values).save(tmp_path / "a" / "1.png", exif=exif)
    shown = ImageDataset.from_folder(tmp_path).image("a/1.png")
    assert shown.size == (10, 16)
    assert np.array_equal(np.array(shown), np.rot90(values, -1))


# --- any data set ---


def test_lookup_and_subset(folder):
    dataset = ImageDataset.from_folder(folder)
    assert dataset.index_of("dog/1.png") == 3
    part = dataset.subset(["dog/1.png", "cat/2.png"])
    assert part.ids == ("dog/1.png", "cat/2.png")
    assert part.labels.tolist() == [1, 0]
    assert type(part) is ImageDataset
    assert np.array_equal(part.image("cat/2.png"), dataset.image("cat/2.png"))
    assert len(dataset.subset([])) == 0
    with pytest.raises(DataError, match=r"there is no sample 'emu' among 4; ids look like 'cat/1.jpg'"):
        dataset.index_of("emu")
    with pytest.raises(DataError, match=r"6 of 7 ids are not among the 4 samples: '0', '1', '2', '3', '4' and 1 more"):
        dataset.subset([*"012345", "dog/1.png"])
    with pytest.raises(DataError, match=r"must not repeat: 'cat/2.png'"):
        dataset.subset(["cat/2.png", "cat/2.png"])
    with pytest.raises(DataError, match=r"must be a list of ids"):
        dataset.subset("cat/2.png")


def test_fingerprint_is_of_ids_labels_and_classes(folder):
    dataset = ImageDataset.from_folder(folder)
    assert dataset.fingerprint == ImageDataset.from_folder(folder).fingerprint
    assert dataset.fingerprint == dataset.with_preprocessing(SMALL).fingerprint
    assert dataset.fingerprint != dataset.subset(dataset.ids[::-1]).fingerprint
    assert dataset.fingerprint != ImageDataset.from_folder(folder, class_names=["dog", "cat"]).fingerprint


def test_a_view_does_not_change(folder):
    dataset = ImageDataset.from_folder(folder)
    with pytest.raises(AttributeError):
        dataset.ids = ()
    other = dataset.with_preprocessing(SMALL)
    assert dataset.preprocessing is None
    assert other.preprocessing == SMALL
    assert other.with_preprocessing(None).preprocessing is None


def test_survives_being_sent_to_another_process(folder):
    dataset = ImageDataset.from_folder(folder)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.ids == dataset.ids
    assert again.image("dog/1.png").size == (12, 10)


# --- torch data sets ---


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("kind", "white"),
    [("uint8", 255), ("uint16", 65535), ("bool", 1), ("float16", 1), ("float32", 1), ("float64", 1)],
)
def test_white_of_arrays_is_that_of_their_type(kind, white, channels):
    values = (np.arange(6 * 7 * channels).reshape(6, 7, channels) % 2 * white).astype(kind)
    tensor = torch.from_numpy(values).permute(2, 0, 1)
    dataset = ImageDataset.from_torch(
        [(values, 0), (tensor, 0), ((values * 0.5).astype(kind) if white > 1 else values, 0)]
    )
    bright = np.broadcast_to(values > 0, (6, 7, channels))[..., :3] * np.array([255], dtype=np.uint8)
    for sample in ("0", "1"):
        assert np.array_equal(np.array(dataset.image(sample)), np.broadcast_to(bright, (6, 7, 3)))
    assert np.array(dataset.image("2")).max() == (127 if white > 1 else 255)


class Items(Dataset):
    def __init__(self, images, labels, **attributes):
        self.images, self.labels, self.asked = images, labels, 0
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.asked += 1
        if isinstance(self.images[index], Exception):
            raise self.images[index]
        return self.images[index], self.labels[index]


VALUES = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
CHW = torch.from_numpy(VALUES).permute(2, 0, 1)


@pytest.mark.parametrize(
    "item",
    [Image.fromarray(VALUES), CHW, CHW / 255, (CHW / 255).double(), VALUES, VALUES.astype(np.float32) / 255],
    ids=["pil", "uint8", "float", "double", "array", "float array"],
)
def test_torch_items(item):
    dataset = ImageDataset.from_torch(Items([item], [0]))
    assert np.array_equal(dataset.image("0"), VALUES)
    assert torch.equal(dataset.row(0, Preprocessing(size=(6, 7))), CHW)


@pytest.mark.parametrize("item", [CHW[0], CHW[:1], VALUES[..., 0], VALUES[..., :1], VALUES[..., 0] / 255])
def test_grey_torch_items(item):
    shown = np.array(ImageDataset.from_torch([(item, 0)]).image("0"))
    assert np.array_equal(shown, np.repeat(VALUES[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (CHW.float(), "float images must lie in .*preprocessed=True"),
        (torch.full((3, 4, 4), float("nan")), "must hold numbers only, got NaN"),
        (CHW.long(), r"must be uint8, uint16, bool, or float in \[0, 1\], got int64"),
        (torch.zeros(6, 7, 3, dtype=torch.uint8)[:, :6], r"must be \(C, H, W\) with 1, 3 or 4 channels, got shape"),
        (CHW.numpy().copy()[:, :, :6], r"must be \(H, W, C\) with 1, 3 or 4 channels"),
        ("picture.png", "must be a PIL image, a tensor or an array, got str"),
        (OSError("disk gone"), "disk gone"),
    ],
)
def test_bad_torch_items(item, message):
    dataset = ImageDataset.from_torch(Items([item], [0]), labels=[0], ids=["my picture"])
    for use in (lambda: dataset.image("my picture"), lambda: dataset.row(0, SMALL)):
        with pytest.raises(DataError, match=f"sample 'my picture' cannot be used: .*{message}"):
            use()
    with pytest.raises(DataError, match=f"1 of 1 samples cannot be used: .*{message}"):
        dataset.check()


def test_labels_come_without_images_where_they_can():
    items = Items([CHW] * 3, [0, 1, 1], targets=[0, 1, 1], classes=["no", "yes"])
    dataset = ImageDataset.from_torch(items)
    assert (dataset.labels.tolist(), dataset.class_names, items.asked) == ([0, 1, 1], ("no", "yes"), 0)
    part = ImageDataset.from_torch(Subset(items, [2, 0]))
    assert (part.labels.tolist(), part.class_names, items.asked) == ([1, 0], ("no", "yes"), 0)
    ImageDataset.from_torch(items, labels=torch.tensor([1, 1, 0]))
    assert items.asked == 0
    items.target_transform = lambda label: 1 - label
    ImageDataset.from_torch(items)
    assert items.asked == 3


def test_labels_from_items():
    tensors = TensorDataset(torch.zeros(3, 3, 4, 4), torch.tensor([2, 0, 1]))
    dataset = ImageDataset.from_torch(tensors)
    assert dataset.labels.tolist() == [2, 0, 1]
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.ids == ("0", "1", "2")


def test_labels_that_are_not_classes():
    items = [(CHW, label) for label in (0, 5, -1, 0.5, "x")]
    with pytest.raises(DataError, match=r"4 of 5 samples.*'1: its label 5 is not a class \(0 to 1\)'.*whole number"):
        ImageDataset.from_torch(items, class_names=["a", "b"])
    dataset = ImageDataset.from_torch(items, class_names=["a", "b"], on_error="skip")
    assert (dataset.ids, len(dataset.skipped)) == (("0",), 4)


def test_torch_item_that_fails_while_labels_are_read():
    with pytest.raises(DataError, match=r"1 of 2 samples cannot be used: '1: broken'"):
        ImageDataset.from_torch(Items([CHW, ValueError("broken")], [0, 0]))


class Stream(IterableDataset):
    def __iter__(self):
        yield CHW, 0


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (Stream(), {}, "must be map-style.*got Stream"),
        ([], {}, "the data set is empty"),
        ([CHW], {}, r"items must be \(image, label\), got Tensor"),
        ([(CHW, 0)] * 2, {"labels": [0]}, "labels must have one entry per sample: 2 samples, 1 labels"),
        ([(CHW, 0)] * 2, {"ids": ["a"]}, "ids must have one entry per sample: 2 samples, 1 ids"),
        ([(CHW, 0)] * 2, {"ids": ["a", "a"]}, "a: another sample has the same id"),
        ([(CHW, 0)] * 2, {"masks": [None]}, "masks must have one entry"),
        ([(CHW, 0)] * 2, {"groups": [("a",)]}, "groups must have one entry per sample"),
        ([(CHW, 0)] * 2, {"groups": [("a",), ("a", "b")]}, "tuples of one length"),
        ([(CHW, 0)] * 2, {"groups": {"place": ["sea"]}}, "group 'place' must have one value per sample"),
    ],
)
def test_torch_data_that_does_not_fit(dataset, options, message):
    with pytest.raises(DataError, match=message):
        ImageDataset.from_torch(dataset, **options)


def test_groups():
    items = [(CHW, label) for label in (1, 0, 1, 0)]
    dataset = ImageDataset.from_torch(items, class_names=["z", "a"], groups=[("s",), ("t",), ("s",), ("s",)])
    assert dataset.group_names == ("group",)
    assert dataset.group_labels == ("a/s", "z/t", "a/s", "z/s")
    assert dataset.group_of(1) == "z/t"
    index, names = dataset.group_index()
    assert (index.tolist(), index.dtype, names) == ([2, 1, 2, 0], torch.int64, ("z/s", "z/t", "a/s"))
    two = ImageDataset.from_torch(items, groups={"place": ["sea"] * 4, "light": torch.tensor([0, 1, 0, 1])})
    assert two.group_names == ("place", "light")
    assert two.groups[1] == ("sea", "1")
    assert two.subset(["3", "0"]).groups == (("sea", "1"), ("sea", "0"))
    assert repr(two) == "ImageDataset(4 images, 2 classes, groups by place, light)"
    plain = ImageDataset.from_torch(items, groups=["s", "t", "s", "t"])
    assert plain.groups[1] == ("t",)
    assert ImageDataset.from_torch(items).group_index()[1] == ("0", "1")


def test_all_masks_at_once():
    """For methods that train with them: what is not known of a picture is the object everywhere."""
    on, off = torch.zeros(6, 7), torch.zeros(6, 7)
    on[2:4, 3:] = 0.4  # grey: more than half of the brightest
    dataset = ImageDataset.from_torch([(CHW, 0)] * 3, masks=[on, None, off])
    found = dataset.mask_tensors(Preprocessing(size=(6, 7)))
    assert (found.dtype, tuple(found.shape)) == (torch.bool, (3, 6, 7))
    assert torch.equal(found[0], on > 0)
    assert found[1].all()
    assert found[2].all()
    with pytest.raises(DataError, match="expected masks that show an object in some of 2 samples, got none that does"):
        dataset.subset(["1", "2"]).mask_tensors(Preprocessing(size=(6, 7)))


def test_torch_masks():
    on = torch.zeros(6, 7)
    on[2:4, 1:5] = 1
    kinds = [on, on.bool(), (on * 255).to(torch.uint8)[None], on.numpy(), Image.fromarray(on.bool().numpy()), None]
    dataset = ImageDataset.from_torch([(CHW, 0)] * 6, masks=kinds)
    for sample in dataset.ids[:5]:
        assert torch.equal(dataset.mask_tensor(sample, Preprocessing(size=(6, 7))), on)
    assert dataset.mask("5") is None
    with pytest.raises(DataError, match=r"sample '5' has no mask"):
        dataset.mask_tensor("5", SMALL)
    called = ImageDataset.from_torch([(CHW, 0)] * 6, masks=lambda index: kinds[index]).subset(["4", "5"])
    assert torch.equal(called.mask_tensor("4", Preprocessing(size=(6, 7))), on)
    assert called.mask("5") is None
    bad = ImageDataset.from_torch([(CHW, 0)], masks=[torch.zeros(2, 6, 7)])
    with pytest.raises(DataError, match=r"sample '0' cannot be used: its mask cannot be read: .*\(2, 6, 7\)"):
        bad.mask("0")


def test_preprocessed_items():
    normal = Preprocessing(size=(6, 7), mean=(0.5,) * 3, std=(0.25,) * 3)
    ready = normal.normalize(CHW)
    dataset = ImageDataset.from_torch([(ready, 0)], preprocessed=True, masks=[np.eye(6, 7)])
    assert torch.equal(dataset.row(0, SMALL), ready)
    assert np.array_equal(dataset.with_preprocessing(normal).image("0"), VALUES)
    stretched = np.array(dataset.image("0")).astype(float)
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert torch.equal(dataset.mask_tensor("0", normal), torch.eye(6, 7))
    with pytest.raises(
        DataError, match=r"is 6 x 7 pixels; masks of preprocessed images must be as large as these, 8 x"
    ):
        dataset.mask_tensor("0", SMALL)
    dataset.check()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (CHW, r"must be a float tensor \(3, H, W\), got torch.uint8"),
        (torch.zeros(1, 4, 4), r"got torch.float32 \(1, 4, 4\)"),
        (torch.full((3, 4, 4), float("inf")), "finite numbers only"),
        (Image.new("RGB", (4, 4)), "got Image"),
    ],
)
def test_bad_preprocessed_items(item, message):
    dataset = ImageDataset.from_torch([(item, 0)], preprocessed=True)
    with pytest.raises(DataError, match=f"sample '0' cannot be used: .*{message}"):
        dataset.row(0, None)


# --- what Python users try ---


def test_a_data_frame_is_a_table(folder):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"image": ["cat/1.jpg", "dog/1.png"], "label": ["cat", "dog"], "split": ["train", "test"], "place": [0.0, 1.0]}
    )
    dataset = ImageDataset.from_csv(frame, root=folder)
    assert (dataset.ids, dataset.class_names) == (("cat/1.jpg", "dog/1.png"), ("cat", "dog"))
    assert ImageDataset.from_csv(frame, root=folder, split="test").ids == ("dog/1.png",)
    with pytest.raises(DataError, match="'data frame' has no column 'kind'"):
        ImageDataset.from_csv(frame, root=folder, label_column="kind")
    with pytest.raises(DataError, match="expected the path of a CSV file or a DataFrame, got list; write"):
        ImageDataset.from_csv([1, 2])
    with pytest.raises(DataError, match=r"got DataFrame; write ImageDataset.from_csv\(frame, root=FOLDER\)"):
        ImageDataset.from_torch(frame)


def test_a_sample_is_known_by_its_id(folder):
    dataset = ImageDataset.from_folder(folder)
    assert list(dataset) == list(dataset.ids)
    assert "dog/1.png" in dataset
    assert "emu" not in dataset
    assert 0 not in dataset
    shown, label = dataset["dog/1.png"]
    assert (np.array_equal(shown, dataset.image("dog/1.png")), label) == (True, 1)
    for key, message in [
        (0, r"samples are known by ids, which are texts, got 0; .*dataset\[dataset.ids\[0\]\]"),
        (slice(0, 2), r"write dataset.subset\(dataset.ids\[start:stop\]\)"),
        (["dog/1.png"], r"write dataset.subset\(\[id, ...\]\)"),
        ("emu", "there is no sample 'emu' among 4"),
    ]:
        with pytest.raises(DataError, match=message):
            dataset[key]
    with pytest.raises(DataError, match=r"data sets are not added: .*ConcatDataset"):
        dataset + dataset
    with pytest.raises(DataError, match="an ImageDataset already"):
        ImageDataset.from_torch(dataset)


class Photos:
    """What torchvision's ImageFolder has."""

    root, samples = "birds", []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("birds/train", r"got str; write ImageDataset.from_folder\('birds/train'\)"),
        (Path("birds"), r"write ImageDataset.from_folder\('birds'\)"),
        (DataLoader([(CHW, 0)]), r"got DataLoader; write ImageDataset.from_torch\(loader.dataset\)"),
        (Photos(), r"got Photos; write ImageDataset.from_folder\('birds'\), whose ids are the paths, or .*from_torch"),
        (Image.new("RGB", (4, 4)), r"got Image; write ImageDataset.from_torch\(\[\(image, label\), ...\]\)"),
        (CHW, "got Tensor; write ImageDataset.from_torch"),
        ([CHW, CHW], "got list; write ImageDataset.from_torch"),
        (Items([CHW], [0]), r"got Items; write ImageDataset.from_torch\(dataset\)"),
        (None, r"got NoneType; make one with .*from_folder, from_csv, from_shards, from_torch, from_hf or from_hub"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_data_set_is_told_how_to_become_one(given, message):
    with pytest.raises(DataError, match=f"expected an ImageDataset, {message if 'got' in message else '.*' + message}"):
        as_dataset(given)
