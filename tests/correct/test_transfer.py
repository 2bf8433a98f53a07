"""Maps and answers of one model guide another: other architecture, map, input size and crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_tiny_model
from PIL import Image

from crayon_sdk import AttentionCorrector, Explainer, ImageDataset, SplitModel, simulate_answers
from crayon_sdk.correct.guidance import guidance_of
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import MismatchError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.functional.saliency import resample_maps, resize_maps

SEEN = [
    Preprocessing(size=(96, 96), crop_pct=0.875),
    Preprocessing(size=(64, 64), crop_pct=1.0),
    Preprocessing(size=(64, 96), crop_pct=0.9),
    Preprocessing(size=(80, 80), crop_pct=0.9, crop_mode="squash"),
    Preprocessing(size=(80, 80), crop_pct=1.0, crop_mode="border"),
]
SIZES = [(200, 120), (120, 200), (150, 150)]


def ramps(width: int, height: int) -> Image.Image:
    """A picture whose red is the place along, and whose green is the place down, from 10 to 250."""
    along = np.broadcast_to(np.linspace(10, 250, width), (height, width))
    down = np.broadcast_to(np.linspace(10, 250, height)[:, None], (height, width))
    return Image.fromarray(np.stack([along, down, 0 * along + 128], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preprocessing", SEEN)
def test_view_is_what_the_transform_shows(preprocessing, size):
    shown = np.asarray(preprocessing.geometry(ramps(*size)), dtype=float)
    left, top, right, bottom = preprocessing.view(*size)
    inside = (shown[..., 2] > 100) & (shown[..., 0] > 8)  # not padding
    for channel, low, high in ((0, left, right), (1, top, bottom)):
        places = (shown[..., channel] - 10) / 240
        cells = shown.shape[1 if channel == 0 else 0]
        expected = low + (high - low) * (np.arange(cells) + 0.5) / cells
        expected = np.broadcast_to(expected if channel == 0 else expected[:, None], shown.shape[:2])
        kept = inside & (expected > 0.05) & (expected < 0.95)
        assert kept.mean() > 0.4
        assert np.abs(places - expected)[kept].max() < 0.02


def test_same_geometry():
    one = Preprocessing(size=(224, 224), crop_pct=0.875)
    assert one.same_geometry(Preprocessing(size=(160, 160), crop_pct=0.875, mean=(0.5, 0.5, 0.5)))
    for other in SEEN[1:]:
        assert not one.same_geometry(other)


def test_resampling_the_whole_is_resizing():
    maps = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(3, 4)
    assert (resample_maps(maps, whole, (7, 7)) - maps).abs().mean() < 0.12  # samples lie between the cells too
    assert (resample_maps(maps, whole, (21, 21)) - resize_maps(maps, (21, 21))).abs().mean() < 0.02


def test_resampling_equals_a_slow_version():
    """Every cell by itself: the mean of what the picture shows there, in a map that is large and smooth."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 4, 4, generator=generator)
    maps = resize_maps(coarse, (64, 64))
    box = (0.2, 0.1, 0.7, 0.9)
    found = resample_maps(maps, torch.tensor([box]), (5, 6))[0]
    for row in range(5):
        for column in range(6):
            x0, x1 = (64 * (box[0] + (box[2] - box[0]) * (column + step) / 6) for step in (0, 1))
            y0, y1 = (64 * (box[1] + (box[3] - box[1]) * (row + step) / 5) for step in (0, 1))
            own = maps[0, round(y0) : round(y1), round(x0) : round(x1)].mean()
            assert found[row, column].item() == pytest.approx(own.item(), abs=0.04)


def test_beyond_the_map_its_edge_goes_on():
    maps = torch.tensor([[[0.0, 1.0]]])
    found = resample_maps(maps, torch.tensor([[-1.0, 0.0, 2.0, 1.0]]), (1, 3))[0, 0]
    assert found[0] < 0.01
    assert found[2] > 0.99


def dataset_of(sizes):
    pictures = [(ramps(*size), index % 2) for index, size in enumerate(sizes)]
    return ImageDataset.from_torch(pictures, class_names=["a", "b"])


def guidance(source, target, size=(200, 100)):
    """The reference map of one picture whose map shows its left part, seen through another crop."""
    from crayon_sdk import AnnotationSet, ImageAnswer

    dataset = dataset_of([size])
    values = torch.zeros(1, 8, 8)
    values[:, :, :2] = 1
    maps = SaliencyMaps(dataset.ids, values, torch.tensor([0]), preprocessing=source)
    answers = AnnotationSet([ImageAnswer(id="0", answer="yes", annotator="a")])
    return guidance_of(dataset, maps, answers, (8, 8), preprocessing=target).reference[0]


def test_a_map_is_seen_through_the_other_crop():
    squashed = Preprocessing(size=(96, 96), crop_mode="squash")
    centre = Preprocessing(size=(64, 64))
    # Squashed, the map's left quarter is the picture's left quarter; the centre crop of 200 x 100 begins there.
    seen = guidance(squashed, centre)
    assert seen[:, 1:].max() < 0.2 * seen[:, 0].min() or seen[:, 2:].max() < 0.05
    # A map of the centre lies in the middle of the whole picture, which is only half shown: refused.
    with pytest.raises(MismatchError, match=r"show only 41 % of what .* sees of '0'") as caught:
        guidance(Preprocessing(size=(64, 64), crop_pct=0.9), squashed)
    assert "crop_mode" in str(caught.value)
    wider = guidance(Preprocessing(size=(64, 64), crop_pct=0.9), Preprocessing(size=(64, 64)))
    assert wider[:, 0].min() > 0.9
    assert wider[:, 4:].max() < 0.1


def test_same_view_in_another_size_is_only_resized():
    found = guidance(Preprocessing(size=(224, 224), crop_pct=0.9), Preprocessing(size=(96, 96), crop_pct=0.9))
    assert torch.equal(found[0], torch.tensor([1.0] * 2 + [0.0] * 6)) or found[:, :2].min() > 0.99


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_answers_about_a_resnet_guide_a_convnext(picture_folder, crop_mode):
    train = ImageDataset.from_csv(picture_folder / "metadata.csv", split="train")
    teacher = SplitModel(make_tiny_model())
    explainer = Explainer(teacher, score="margin")
    maps = explainer.explain(train)
    answers = simulate_answers(maps, train)
    student = SplitModel(
        make_tiny_model("test_convnext.r160_in1k"),
        preprocessing=Preprocessing(size=(128, 128), crop_pct=0.95, crop_mode=crop_mode),
    )
    assert student.map_size != maps.size
    found = AttentionCorrector(student, epochs=2, batch_size=8, lr=1e-3).fit(train, maps, answers)
    assert found.record.counts["relevant"] + found.record.counts["irrelevant"] > 0
    assert found.record.maps == maps.fingerprint
    assert found.history[-1]["guidance"] < found.history[0]["guidance"]
    assert found.model.architecture == "test_convnext"


def test_size_of_a_picture_on_its_side(tmp_path):
    picture = Image.new("RGB", (30, 20))
    exif = picture.getexif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    picture.save(tmp_path / "a" / "0.jpg", exif=exif)
    picture.save(tmp_path / "a" / "1.jpg")
    dataset = ImageDataset.from_folder(tmp_path)
    assert dataset.image_size("a/0.jpg") == dataset.image("a/0.jpg").size == (20, 30)
    assert dataset.image_size("a/1.jpg") == (30, 20)
