"""Contact sheets, looked at pixel by pixel."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import MismatchError, OutputError, SettingsError
from crayon_sdk.explain.contact_sheets import (
    Choice,
    before_after_sheet,
    choose_ids,
    maps_sheet,
    objects_sheet,
    overlay,
    patches_sheet,
)
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.objects import ObjectMaps, Worth
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional.neurons import TopPatches
from crayon_sdk.show.sheets import Cell, Line, save_sheet

BLUE = (30, 60, 200)
PREPROCESSING = Preprocessing(size=(64, 64))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return pixels(image.convert("RGB"))


def corner_map(size: int = 4) -> torch.Tensor:
    """All attention on the upper left cell."""
    found = torch.zeros(size, size)
    found[0, 0] = 1
    return found


@pytest.fixture
def dataset() -> ImageDataset:
    """Wide pictures, blue with a green left quarter that the centre crop removes."""
    items = []
    for number in range(6):
        image = Image.new("RGB", (128, 64), BLUE)
        image.paste((0, 200, 0), (0, 0, 32, 64))
        items.append((image, number % 2))
    return ImageDataset.from_torch(
        items,
        class_names=["cat", "dog"],
        ids=[f"picture-{number}" for number in range(6)],
        groups=[("land",), ("land",), ("water",), ("water",), ("water",), ("land",)],
        masks=[np.tile(np.arange(128) < 64, (64, 1))] * 6,
    )


def maps_of(dataset: ImageDataset, values: torch.Tensor, **more: object) -> SaliencyMaps:
    return SaliencyMaps(dataset.ids, values, dataset.labels, preprocessing=PREPROCESSING, **more)


class TestOverlay:
    def test_red_is_where_the_map_is_high(self):
        shown = pixels(overlay(Image.new("RGB", (64, 64), BLUE), corner_map(), style="red"))
        assert shown[2, 2, 0] > 170
        assert shown[2, 2, 2] < 80
        assert tuple(shown[60, 60]) == BLUE

    def test_overlaid_fades_to_paper(self):
        shown = pixels(overlay(Image.new("RGB", (64, 64), BLUE), corner_map(), style="overlaid"))
        assert tuple(shown[2, 2]) == BLUE
        assert tuple(shown[60, 60]) == (244, 244, 244)

    def test_orange_is_on_grey(self):
        shown = pixels(overlay(Image.new("RGB", (64, 64), BLUE), corner_map(), style="orange"))
        assert np.ptp(shown[60, 60]) == 0
        assert shown[2, 2, 0] > shown[2, 2, 1] > shown[2, 2, 2]

    def test_map_is_enlarged_bilinearly(self):
        shown = pixels(overlay(Image.new("RGB", (40, 20), "black"), torch.tensor([[0.0, 1.0]]), style="overlaid"))
        row = shown[10, :, 0]
        assert (np.diff(row) <= 0).all()
        assert len(set(row.tolist())) > 10

    def test_size_and_mode_of_the_picture(self):
        assert overlay(Image.new("L", (30, 50)), torch.ones(3, 5)).size == (30, 50)

    @pytest.mark.parametrize("wrong", [torch.ones(1, 3, 3), torch.full((3, 3), 1.5), torch.full((3, 3), torch.nan)])
    def test_not_a_map(self, wrong):
        with pytest.raises(SettingsError, match=r"expected a map \(h, w\) with values in \[0, 1\]"):
            overlay(Image.new("RGB", (8, 8)), wrong)

    def test_unknown_style(self):
        with pytest.raises(SettingsError, match="expected style to be one of overlaid, red, orange, got 'blue'"):
            overlay(Image.new("RGB", (8, 8)), torch.ones(2, 2), style="blue")


class TestChoice:
    def test_random_follows_the_seed(self, dataset):
        maps = maps_of(dataset, torch.ones(6, 4, 4))
        first, again, other = (choose_ids(maps, maps, count=3, seed=seed) for seed in (0, 0, 1))
        assert first == again
        assert first.ids != other.ids
        assert first.rule == "3 of 6 pictures, drawn at random (seed 0)"

    def test_largest_change_leaves_maps_without_evidence_out(self, dataset):
        before = maps_of(dataset, torch.ones(6, 4, 4))
        values = torch.ones(6, 4, 4)
        for row in range(6):
            values[row, 0, : row % 4] = 0
        evidence = torch.tensor([True, True, True, False, True, True])
        after = maps_of(dataset, values, evidence=evidence)
        choice = choose_ids(before, after, count=2, rule="largest change")
        assert choice.ids == ("picture-2", "picture-1")
        assert "changed most" in choice.rule

    def test_equally_many_of_each_group(self, dataset):
        maps = maps_of(dataset, torch.ones(6, 4, 4))
        groups = dict(zip(dataset.ids, dataset.group_labels, strict=True))
        choice = choose_ids(maps, maps, count=4, groups=groups)
        assert sorted(groups[sample] for sample in choice.ids) == ["cat/land", "cat/water", "dog/land", "dog/water"]
        assert choice.rule.startswith("1 of each group of 6 pictures")

    def test_maps_of_other_samples(self, dataset):
        maps = maps_of(dataset, torch.ones(6, 4, 4))
        with pytest.raises(MismatchError, match="no saliency map for 5 of 6"):
            choose_ids(maps, maps.select(["picture-0"]))

    def test_sample_without_group(self, dataset):
        maps = maps_of(dataset, torch.ones(6, 4, 4))
        with pytest.raises(MismatchError, match="expected a group for every sample, 6 have none"):
            choose_ids(maps, maps, groups={})

    @pytest.mark.parametrize("wrong", [{"count": 0}, {"rule": "the nicest"}])
    def test_wrong_setting(self, dataset, wrong):
        maps = maps_of(dataset, torch.ones(6, 4, 4))
        with pytest.raises(SettingsError, match="expected count >= 1 and rule 'random' or 'largest change'"):
            choose_ids(maps, maps, **wrong)


class TestSheets:
    def test_maps_lie_on_what_the_model_saw(self, dataset, tmp_path):
        maps_sheet(
            dataset, maps_of(dataset, corner_map().repeat(6, 1, 1)), ["picture-0"], tmp_path / "maps.png", cell=64
        )
        sheet = read(tmp_path / "maps.png")
        # The green quarter was cropped away, so the red corner lies on blue.
        assert not ((sheet[..., 1] > 150) & (sheet[..., 0] < 60) & (sheet[..., 2] < 60)).any()
        rows, columns = np.nonzero((sheet == BLUE).all(axis=2))
        original = (rows.min(), columns.min())
        assert (columns[rows == original[0]] >= original[1]).all()
        right = original[1] + 2 * (64 + 16)
        assert sheet[original[0] + 2, right + 2, 0] > 170
        assert tuple(sheet[original[0] + 60, right + 60]) == BLUE

    def test_what_answers_call_the_object_is_beside_the_map(self, dataset, tmp_path):
        maps = maps_of(dataset, corner_map().repeat(6, 1, 1))
        ids = dataset.ids[::-1]  # in another order than the maps
        values = torch.zeros(6, 8, 8)
        values[ids.index("picture-2"), 7, 0] = 1.0
        objects = ObjectMaps(ids, values, Worth(3, 3, 1.0, 1.0, 0.0))
        path = tmp_path / "objects.png"
        objects_sheet(dataset, maps, objects, ["picture-2"], path, cell=96)
        sheet, step = read(path), 96 + 16
        top, left = (values.min() for values in np.nonzero((sheet == BLUE).all(axis=2)))
        assert sheet[top + 2, left + step + 2, 0] > 170
        assert tuple(sheet[top + 2, left + 2 * step + 2]) == BLUE
        assert sheet[top + 93, left + 2 * step + 2, 0] > 170
        few = ObjectMaps(ids[:1], values[:1], objects.worth)
        with pytest.raises(MismatchError, match="expected an object map of every sample, 1 have none, such as 'pic"):
            objects_sheet(dataset, maps, few, ["picture-2"], path)

    def test_before_and_after(self, dataset, tmp_path):
        before, after = corner_map().repeat(6, 1, 1), corner_map().flip(0).repeat(6, 1, 1)
        path = tmp_path / "sheet.png"
        before_after_sheet(
            dataset,
            maps_of(dataset, before),
            maps_of(dataset, after),
            Choice(("picture-1", "picture-4"), "a rule"),
            path,
            predicted_before={"picture-1": 0, "picture-4": 0},
            predicted_after={"picture-1": 1, "picture-4": 1},
            cell=96,
        )
        sheet = read(path)
        top, left = (values.min() for values in np.nonzero((sheet == BLUE).all(axis=2)))
        step = 96 + 16
        assert sheet[top + 2, left + step + 2, 0] > 170
        assert tuple(sheet[top + 2, left + 2 * step + 2]) == BLUE
        assert sheet[top + 93, left + 2 * step + 2, 0] > 170

    def test_verdicts_are_words_not_only_colours(self, dataset):
        from crayon_sdk.explain.contact_sheets import _verdict

        maps = maps_of(dataset, torch.ones(6, 4, 4), evidence=torch.tensor([False] + [True] * 5))
        lines = _verdict(dataset, maps, "picture-0", {"picture-0": 1}, {"picture-0": 0.256})
        assert [line.text for line in lines] == ["dog - wrong", "26 % on the object", "no evidence anywhere"]
        assert _verdict(dataset, maps, "picture-1", {"picture-1": 1}, {})[0].text == "dog - right"

    def test_map_without_evidence_is_not_shown_as_ones(self, dataset, tmp_path):
        maps = maps_of(dataset, torch.ones(6, 4, 4), evidence=torch.zeros(6, dtype=torch.bool))
        maps_sheet(dataset, maps, ["picture-0"], tmp_path / "maps.png", cell=64)
        sheet = read(tmp_path / "maps.png")
        assert not ((sheet[..., 0] > 170) & (sheet[..., 2] < 90) & (sheet[..., 1] < 40)).any()

    def test_patch_is_a_red_rectangle(self, dataset, tmp_path):
        top = TopPatches(torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 3]]), torch.tensor([[0, 15]]))
        patches = NeuronPatches.from_top(top, dataset.ids, (4, 4), preprocessing=PREPROCESSING)
        patches_sheet(dataset, patches, [0], tmp_path / "patches.png", verdicts={0: "irrelevant"}, cell=96)
        sheet = read(tmp_path / "patches.png")
        rows, columns = np.nonzero((sheet == (230, 0, 20)).all(axis=2))
        first, second = columns < 24 + 96, columns >= 24 + 96 + 16
        assert rows[first].max() - rows[first].min() == 23
        assert (columns[first].min(), columns[first].max()) == (24, 47)
        assert (columns[second].min(), columns[second].max()) == (24 + 112 + 72, 24 + 112 + 95)
        assert first.sum() + second.sum() == len(rows)

    def test_long_sheets_stand_in_two_blocks(self, tmp_path):
        cell = Cell(Image.new("RGB", (64, 64), BLUE), [Line("a long caption that does not fit below the picture")])
        for count in (5, 6, 7):
            rows = [[cell]] * count
            save_sheet(tmp_path / f"{count}.png", title="T", notes=["N" * 99], headers=["H"], rows=rows, cell=64)
        five, six, seven = (read(tmp_path / f"{count}.png").shape for count in (5, 6, 7))
        assert five[1] == 64 + 48
        assert six[1] == seven[1] == 2 * 64 + 16 + 32 + 48
        assert five[0] > seven[0] > six[0]

    def test_preprocessing_must_be_known(self, dataset, tmp_path):
        maps = dataclasses.replace(maps_of(dataset, torch.ones(6, 4, 4)), preprocessing=None)
        with pytest.raises(SettingsError, match="not known how the pictures were cropped"):
            maps_sheet(dataset, maps, ["picture-0"], tmp_path / "maps.png")
        maps_sheet(dataset.with_preprocessing(PREPROCESSING), maps, ["picture-0"], tmp_path / "maps.png")

    def test_no_map_for_a_sample(self, dataset, tmp_path):
        maps = maps_of(dataset, torch.ones(6, 4, 4)).select(["picture-0"])
        with pytest.raises(MismatchError, match="no saliency map for 1 of 1"):
            maps_sheet(dataset, maps, ["picture-1"], tmp_path / "maps.png")

    @pytest.mark.parametrize(
        ("ids", "name", "message"),
        [
            ("picture-0", "maps.png", "expected a list of sample ids, got the text 'picture-0'"),
            ([], "maps.png", "expected at least one row"),
            (["picture-0"], "maps.jpg", r"expected a name that ends in \.png"),
        ],
    )
    def test_wrong_arguments(self, dataset, tmp_path, ids, name, message):
        with pytest.raises(SettingsError, match=message):
            maps_sheet(dataset, maps_of(dataset, torch.ones(6, 4, 4)), ids, tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_no_place_to_write(self, dataset, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot write"):
            maps_sheet(dataset, maps_of(dataset, torch.ones(6, 4, 4)), ["picture-0"], tmp_path / "file" / "maps.png")
