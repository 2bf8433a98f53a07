from __future__ import annotations

import json
import math

import pytest
import torch
from helpers_correction import SMALL, noise_pictures, random_maps, split_model
from PIL import Image

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import DataError, FileFormatError, OutputError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.masks import energy_inside
from crayon_sdk.results.evaluation import Evaluation, GroupResult, background_gap, evaluate, evaluation_of

#            label, place,   predicted
HAND_MADE = [
    (0, "land", 0), (0, "land", 0), (0, "land", 1), (0, "land", 0),
    (0, "sea", 0), (0, "sea", 1),
    (1, "land", 0), (1, "land", 0), (1, "land", 1),
    (1, "sea", 1),
]  # fmt: skip
TRAIN = {("cat", "land"): 5, ("cat", "sea"): 1, ("dog", "sea"): 2}


def dataset_of(rows):
    return ImageDataset.from_torch(
        [(torch.zeros(3, 4, 4), label) for label, _ in rows],
        class_names=["cat", "dog"],
        groups={"place": [place for _, place in rows]},
    )


@pytest.fixture
def hand_made() -> Evaluation:
    dataset = dataset_of([row[:2] for row in HAND_MADE])
    train = dataset_of([(["cat", "dog"].index(label), place) for (label, place), n in TRAIN.items() for _ in range(n)])
    return evaluation_of(torch.tensor([row[2] for row in HAND_MADE]), dataset, train)


def test_groups_equal_a_slow_count(hand_made):
    found = {group.name: (group.correct, group.total, group.weight) for group in hand_made.groups}
    assert found == {
        "cat/land": (3, 4, 5),
        "cat/sea": (1, 2, 1),
        "dog/land": (1, 3, 0),
        "dog/sea": (1, 1, 2),
    }
    assert hand_made.predictions == {str(position): row[2] for position, row in enumerate(HAND_MADE)}


def test_numbers_that_papers_compare(hand_made):
    accuracies = [3 / 4, 1 / 2, 1 / 3, 1]
    assert hand_made.worst_group == pytest.approx(1 / 3)
    assert hand_made.mean_group == pytest.approx(sum(accuracies) / 4)
    assert hand_made.accuracy == pytest.approx(6 / 10)
    assert hand_made.weighted_mean == pytest.approx((5 * 3 / 4 + 1 / 2 + 2 * 1) / 8)
    assert list(hand_made.summary()) == ["worst_group", "mean_group", "weighted_mean", "accuracy"]


def test_wilson_interval_solves_its_equation(hand_made):
    z = 1.959963984540054
    for group in hand_made.groups:
        p = group.accuracy
        for bound in group.interval:
            assert abs(bound - p) == pytest.approx(z * math.sqrt(bound * (1 - bound) / group.total), abs=1e-6)
    assert GroupResult("empty", 0, 0).interval == (0.0, 1.0)
    assert math.isnan(GroupResult("empty", 0, 0).accuracy)


def test_without_training_set_there_is_no_weighted_mean():
    dataset = dataset_of([row[:2] for row in HAND_MADE])
    found = evaluation_of(dataset.labels, dataset)
    assert math.isnan(found.weighted_mean)
    assert "weighted_mean" not in found.summary()
    assert "training-weighted" not in str(found)
    assert found.worst_group == found.accuracy == 1.0


def test_without_group_columns_classes_are_the_groups():
    dataset = ImageDataset.from_torch([(torch.zeros(3, 4, 4), label) for label in (0, 1, 1)], class_names=["a", "b"])
    found = evaluation_of(torch.tensor([0, 0, 1]), dataset)
    assert [(group.name, group.accuracy) for group in found.groups] == [("a", 1.0), ("b", 0.5)]
    assert not found.grouped


def test_training_set_with_other_columns_is_refused():
    dataset = dataset_of([(0, "land")])
    other = ImageDataset.from_torch([(torch.zeros(3, 4, 4), 0)], class_names=["cat", "dog"])
    with pytest.raises(SettingsError, match=r"a training set with the group columns \('place',\), got \(\)"):
        evaluation_of(dataset.labels, dataset, other)


def test_evaluate_equals_a_slow_loop(snapshot):
    model, dataset = split_model(), noise_pictures(9)
    model.train()
    before = snapshot(model)
    found = evaluate(model, dataset, batch_size=4, device="cpu", train=dataset)
    assert snapshot(model) == before
    model.eval()
    for position, name in enumerate(dataset.ids):
        with torch.no_grad():
            logits = model(dataset.row(position, None)[None])
        assert found.predictions[name] == int(logits.argmax())
    assert found.accuracy == sum(found.predictions[n] == dataset.labels[i] for i, n in enumerate(dataset.ids)) / 9
    assert found.grouped


def test_skipped_samples_are_told(picture_folder, tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.jpg").write_bytes((picture_folder / "images" / label / "00.jpg").read_bytes())
    (tmp_path / "cat" / "broken.jpg").write_bytes(b"no picture")
    found = evaluate(split_model(), ImageDataset.from_folder(tmp_path, on_error="skip"), device="cpu")
    assert found.skipped == ("cat/broken.jpg",)


def test_labels_beyond_the_model():
    dataset = ImageDataset.from_torch([(torch.zeros(3, 64, 64), 4)], class_names=list("abcde"))
    with pytest.raises(
        SettingsError, match=r"labels of the model's 2 classes, got label 4 \('e'\); load a model with at"
    ):
        evaluate(split_model(), dataset, device="cpu")


def test_empty_data_set():
    dataset = ImageDataset.from_torch([(torch.zeros(3, 64, 64), 0)]).subset([])
    with pytest.raises(DataError, match="at least one sample, got an empty one"):
        evaluate(split_model(), dataset, device="cpu")


def test_background_gap_is_the_difference_of_two_accuracies():
    model = split_model()
    same, rand = noise_pictures(9), noise_pictures(7, seed=3)
    gap = background_gap(model, same, rand, device="cpu")
    assert gap == pytest.approx(evaluate(model, same).accuracy - evaluate(model, rand).accuracy)
    assert background_gap(model, same, same, device="cpu") == 0


def test_table_has_every_group_and_number(hand_made):
    text = str(hand_made)
    for word in ("cat/land", "cat/sea", "dog/land", "dog/sea", "75.0", "33.3", "worst group (WGA)", "mean group (MGA)"):
        assert word in text
    assert "training-weighted mean" in text
    assert "all samples" in text
    assert hand_made.table().row_count == 8


def test_json_round_trip(hand_made, tmp_path):
    hand_made.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == hand_made
    assert json.loads((tmp_path / "evaluation.json").read_text())["summary"]["accuracy"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: [],
        lambda value: {},
        lambda value: value | {"groups": []},
        lambda value: value | {"groups": [[1, 2]]},
        lambda value: value | {"groups": [{"name": "a", "correct": "x", "total": 1}]},
        lambda value: value | {"groups": [{"name": "a", "correct": 2, "total": 1}]},
        lambda value: value | {"groups": [{"name": "a", "right": 2, "total": 1}]},
        lambda value: value | {"predictions": "abc"},
        lambda value: value | {"predictions": [1]},
        lambda value: value | {"skipped": None},
    ],
)
def test_altered_json_is_refused(change, hand_made, tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(change(hand_made.to_dict())))
    with pytest.raises(FileFormatError, match=r"evaluation\.json' is not an evaluation"):
        Evaluation.load(path)


@pytest.mark.parametrize("text", ["", "{", "no json"])
def test_broken_json_is_refused(text, tmp_path):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(FileFormatError, match="not a readable JSON file"):
        Evaluation.load(tmp_path / "evaluation.json")
    with pytest.raises(FileFormatError, match="no file at"):
        Evaluation.load(tmp_path / "nothing.json")


def test_save_into_a_file_is_an_output_error(hand_made, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        hand_made.save(tmp_path / "file" / "evaluation.json")


def test_energy_inside_equals_a_slow_share():
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    pictures = ImageDataset.from_torch(
        [(Image.new("RGB", (64, 64)), 0)] * 3, ids=["a", "b", "c"], masks=[mask, None, mask], preprocessing=SMALL
    )
    values = torch.tensor([[[1.0, 0.5], [0.5, 0.25]]]).repeat(3, 1, 1)
    maps = SaliencyMaps(("a", "b", "c"), values, torch.zeros(3, dtype=torch.int64))
    maps.evidence[2] = False
    assert energy_inside(maps, pictures) == {"a": pytest.approx(1.5 / 2.25)}


def test_energy_inside_needs_masks_and_geometry():
    dataset = noise_pictures(2)
    with pytest.raises(DataError, match="object masks are needed; the data set has none"):
        energy_inside(random_maps(dataset), dataset)
    mask = Image.new("L", (64, 64), 255)
    pictures = ImageDataset.from_torch([(Image.new("RGB", (64, 64)), 0)], masks=[mask])
    with pytest.raises(SettingsError, match="not known how the pictures were cropped"):
        energy_inside(random_maps(pictures), pictures)


def test_training_pictures_among_those_that_are_measured_on(picture_folder, tiny_model, caplog):
    data = {split: ImageDataset.from_csv(picture_folder / "metadata.csv", split=split) for split in ("train", "test")}
    evaluate(tiny_model(), data["test"], train=data["train"])
    assert "training pictures" not in caplog.text
    evaluate(tiny_model(), data["train"], train=data["train"])
    assert "16 of the 16 pictures that are measured on are training pictures (the same files)" in caplog.text
