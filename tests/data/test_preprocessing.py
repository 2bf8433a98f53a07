"""The geometry and normalisation of pictures, held against timm's evaluation transform."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from crayon_sdk.data.preprocessing import Preprocessing, binary_mask, effective_preprocessing, to_rgb
from crayon_sdk.errors import DataError, SettingsError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("size", "crop_pct"), [((24, 24), 1.0), ((24, 24), 0.875), ((20, 32), 0.9), ((24, 24), 1.2)])
def test_equals_timm(crop_mode, interpolation, size, crop_pct):
    preprocessing = Preprocessing(
        size=size, mean=MEAN, std=STD, crop_pct=crop_pct, crop_mode=crop_mode, interpolation=interpolation
    )
    transform = create_transform(
        input_size=(3, *size),
        is_training=False,
        mean=MEAN,
        std=STD,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        interpolation=interpolation,
    )
    for width, height in ((61, 40), (33, 70), (17, 17), (24, 24)):
        image = noise(width, height)
        ours = preprocessing.geometry(image)
        assert ours.mode == "RGB"
        assert ours.size == (size[1], size[0])
        assert torch.equal(preprocessing.normalize(pixels(ours)), transform(image))


def test_published_waterbirds_geometry_is_256_then_224():
    preprocessing = Preprocessing(size=(224, 224), crop_pct=224 / 256, interpolation="bilinear")
    resized = noise(300, 280).resize((int(256 * 300 / 280), 256), Image.Resampling.BILINEAR)
    left = round((resized.width - 224) / 2)
    expected = resized.crop((left, 16, left + 224, 240))
    assert np.array_equal(np.array(preprocessing.geometry(noise(300, 280))), np.array(expected))


def test_from_a_timm_model():
    model = timm.create_model("mobilenetv2_035", num_classes=2)
    config = timm.data.resolve_model_data_config(model)
    preprocessing = Preprocessing.from_config(config)
    assert preprocessing.size == (224, 224)
    assert preprocessing.mean == MEAN
    assert preprocessing.crop_pct == 0.875
    assert preprocessing.interpolation == "bicubic"


def test_from_config_fills_with_timm_defaults():
    preprocessing = Preprocessing.from_config({"input_size": [3, 10, 12]})
    assert preprocessing == Preprocessing(size=(10, 12), mean=MEAN, std=STD, crop_pct=0.875)


@pytest.mark.parametrize("shape", [None, (1, 28, 28), (224, 224), 224])
def test_from_config_needs_rgb(shape):
    with pytest.raises(SettingsError, match=r"input_size must be \(3, height, width\)"):
        Preprocessing.from_config({"input_size": shape})


def test_dict_round_trip_through_json():
    preprocessing = Preprocessing(size=(10, 12), mean=MEAN, std=STD, crop_pct=0.9, crop_mode="border")
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize("values", [{}, {"size": [4, 4], "colour": 1}])
def test_from_dict_names_the_keys(values):
    with pytest.raises(SettingsError, match=r"needs 'size' and may have mean, std, crop_pct"):
        Preprocessing.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 224}, "size must be 2 whole numbers, got 224"),
        ({"size": (0, 4)}, "size must be .* from 1"),
        ({"size": (4.5, 4)}, "size must be 2 whole numbers"),
        ({"mean": (0.5, 0.5)}, "mean must be 3 finite numbers"),
        ({"mean": (float("nan"), 0, 0)}, "mean must be 3 finite numbers"),
        ({"std": (0, 1, 1)}, "std must be above 0"),
        ({"crop_pct": 0}, r"crop_pct must lie in \[0.1, 2\]"),
        ({"crop_pct": None}, "crop_pct must be 1 finite number,"),
        ({"crop_mode": "centre"}, "crop_mode must be one of center, squash, border, got 'centre'"),
        ({"interpolation": "random"}, "interpolation must be one of nearest"),
    ],
)
def test_bad_values(change, message):
    with pytest.raises(SettingsError, match=message):
        Preprocessing(**{"size": (4, 4), **change})


def test_default_leaves_values_between_0_and_1():
    images = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    assert torch.equal(Preprocessing(size=(2, 2)).normalize(images), images.float() / 255)


def test_normalize_leaves_its_argument_and_finished_inputs_alone():
    preprocessing = Preprocessing(size=(2, 2), mean=MEAN, std=STD)
    images = torch.full((1, 3, 2, 2), 9, dtype=torch.uint8)
    preprocessing.normalize(images)
    assert bool((images == 9).all())
    finished = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(preprocessing.normalize(finished), finished)


def test_normalize_refuses_other_numbers():
    with pytest.raises(SettingsError, match=r"must be uint8"):
        Preprocessing(size=(2, 2)).normalize(torch.zeros(1, 3, 2, 2, dtype=torch.int64))


def test_denormalize_undoes_normalize():
    preprocessing = Preprocessing(size=(16, 16), mean=MEAN, std=STD)
    images = torch.arange(768).remainder(256).to(torch.uint8).view(1, 3, 16, 16)
    assert torch.equal(preprocessing.denormalize(preprocessing.normalize(images)), images)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_mask_goes_where_its_picture_goes(crop_mode):
    preprocessing = Preprocessing(size=(40, 40), crop_pct=0.8, crop_mode=crop_mode, mean=(0.4, 0.4, 0.4))
    values = np.zeros((80, 120), dtype=np.uint8)
    values[20:60, 50:80] = 255
    mask = preprocessing.geometry_mask(Image.fromarray(values))
    assert mask.mode == "L"
    assert set(np.unique(mask)) == {0, 255}
    picture = np.array(preprocessing.geometry(Image.fromarray(values)))[..., 0] > 127
    assert (picture != (np.array(mask) > 0)).mean() < 0.03  # a row of pixels at its edge


@pytest.mark.parametrize("high", [1, 2, 255])
def test_mask_of_any_brightness(high):
    values = np.zeros((8, 8), dtype=np.uint8)
    values[2:5, 2:5] = high
    mask = Preprocessing(size=(8, 8)).geometry_mask(Image.fromarray(values))
    assert np.array_equal(np.array(mask) == 255, values > 0)


def test_empty_one_bit_and_palette_masks():
    preprocessing = Preprocessing(size=(8, 8))
    assert not np.array(preprocessing.geometry_mask(Image.new("1", (8, 8)))).any()
    bit = Image.new("1", (8, 8))
    bit.putpixel((3, 4), 1)
    for mask in (bit, bit.convert("P"), bit.convert("RGB"), bit.convert("I")):
        assert np.argwhere(np.array(preprocessing.geometry_mask(mask))).tolist() == [[4, 3]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "F", "I;16", "HSV"])
def test_every_mode_becomes_rgb(mode):
    grey = noise(12, 10).convert("L")
    deep = {"F": np.asarray(grey, dtype=np.float32) / 255, "I;16": np.asarray(grey).astype(np.uint16) * 257}
    image = Image.fromarray(deep[mode]) if mode in deep else noise(12, 10).convert("RGB").convert(mode)
    assert image.mode == mode
    result = Preprocessing(size=(10, 10)).geometry(image)
    assert result.mode == "RGB"
    assert result.size == (10, 10)
    assert np.array(result).std() > 20


@pytest.mark.parametrize("brightest", [250, 260, 65535])
def test_white_of_sixteen_bits_does_not_depend_on_the_brightest_value(brightest):
    values = np.linspace(0, brightest, 64).astype(np.uint16).reshape(8, 8)
    assert np.array_equal(np.array(to_rgb(Image.fromarray(values)))[..., 1], np.round(values / 257))


@pytest.mark.parametrize("white", [0.25, 1.0])
def test_white_of_floats_is_one(white):
    values = np.linspace(0, white, 64, dtype=np.float32).reshape(8, 8)
    assert np.array_equal(np.array(to_rgb(Image.fromarray(values)))[..., 1], np.round(values * 255))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.full((4, 4), np.nan, dtype=np.float32), "an image must hold numbers only, got NaN"),
        (np.full((4, 4), np.inf, dtype=np.float32), r"float images must lie in \[0, 1\], got inf to inf"),
        (np.full((4, 4), 255, dtype=np.float32), r"float images must lie in \[0, 1\], got 255 to 255"),
        (np.full((4, 4), -0.5, dtype=np.float32), "got -0.5 to -0.5"),
        (np.full((4, 4), 200, dtype=np.int32), "32-bit or signed integers .* does not say which value is white"),
    ],
)
def test_pictures_without_a_known_range_are_refused(values, problem):
    with pytest.raises(DataError, match=problem):
        to_rgb(Image.fromarray(values))


def test_a_mask_must_hold_numbers():
    with pytest.raises(DataError, match="a mask must hold numbers only, got NaN"):
        binary_mask(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)))


def test_sixteen_bit_grey_is_scaled_not_cut_off():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    result = np.array(Preprocessing(size=(8, 8)).geometry(Image.fromarray(values)))[..., 0]
    assert np.array_equal(result, np.round(values / 257))


def test_data_set_goes_before_the_model():
    class Holder:
        def __init__(self, preprocessing: Preprocessing | None) -> None:
            self.preprocessing = preprocessing

    own, other = Preprocessing(size=(8, 8)), Preprocessing(size=(9, 9))
    assert effective_preprocessing(Holder(own), other) is own
    assert effective_preprocessing(Holder(None), other) is other
