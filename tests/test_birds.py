"""Real pictures and real weights, where they are."""

from __future__ import annotations

import math

import pytest
import torch

import crayon_sdk as crayon
from crayon_sdk.correct.backgrounds import BackgroundSwap
from crayon_sdk.correct.guidance import guidance_of
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.explain.masks import energy_inside, simulate_answers
from crayon_sdk.functional.highlights import sharpen
from crayon_sdk.functional.saliency import resize_maps

# From the card of the weights: landbird/forest, landbird/sea, waterbird/forest, waterbird/sea.
TEST = (100.0, 65.5, 23.0, 95.2)


@pytest.fixture(scope="module")
def model(shared):
    return crayon.load_model(shared / "data" / "weights" / "birds_original")


def birds(shared, split, per_group=None) -> ImageDataset:
    """Pictures of a split; with ``per_group`` only so many of every group, spread over the table."""
    import csv

    table = shared / "data" / "birds" / "metadata.csv"
    if per_group is None:
        return ImageDataset.from_csv(table, split=split)
    number = {"train": "0", "validation": "1", "test": "2"}[split]
    with open(table, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == number]
    chosen = []
    for group in sorted({(row["y"], row["place"]) for row in rows}):
        own = [row for row in rows if (row["y"], row["place"]) == group]
        chosen += own[:: max(len(own) // per_group, 1)][:per_group]
    folder = table.parent
    from PIL import Image

    def load(name):
        with Image.open(folder / name) as picture:
            return picture.copy()

    return ImageDataset.from_torch(
        [(load(row["img_filename"]), int(row["y"])) for row in chosen],
        ids=[row["img_filename"] for row in chosen],
        class_names=["landbird", "waterbird"],
        groups={"place": [row["place"] for row in chosen]},
        masks=[load(row["mask_filename"]) for row in chosen],
    )


@pytest.mark.slow
def test_published_accuracies_of_the_test_split(shared, model):
    found = crayon.evaluate(model, birds(shared, "test"), train=birds(shared, "train"))
    assert [100 * group.accuracy for group in found.groups] == pytest.approx(TEST, abs=0.5)
    assert 100 * found.worst_group == pytest.approx(23.0, abs=0.5)
    assert 100 * found.mean_group == pytest.approx(70.9, abs=0.5)


def test_accuracies_on_a_part_of_the_test_split(shared, model):
    found = crayon.evaluate(model, birds(shared, "test", per_group=40), device="cpu")
    for group, published in zip(found.groups, TEST, strict=True):
        low, high = group.interval
        assert 100 * low - 0.5 <= published <= 100 * high + 0.5, group
    assert found.worst_group < 0.5 < found.mean_group


def test_correct_a_part_of_the_pictures(shared, model, tmp_path):
    train, held_out = birds(shared, "train", per_group=8), birds(shared, "validation", per_group=5)
    maps = crayon.Explainer(model, device="cpu").explain(train)
    answers = simulate_answers(maps, train)
    assert len(answers) == 2 * (len(train) - maps.num_empty)
    shares = energy_inside(maps, train)
    assert all(0 <= share <= 1 for share in shares.values())

    corrector = crayon.AttentionCorrector(model, epochs=2, batch_size=10, lr=1e-4, device="cpu")
    found = corrector.fit(train, maps, answers, evaluate_on=held_out)
    assert len(found.history) == 2
    assert all(0 < entry["guidance"] < math.inf for entry in found.history)
    assert found.record.corrected != found.record.original
    assert found.before is not None
    assert [group.name for group in found.after.groups] == [
        "landbird/0", "landbird/1", "waterbird/0", "waterbird/1"
    ]  # fmt: skip

    loaded = crayon.load_correction(found.save(tmp_path / "corrected"))
    assert loaded.model.class_names == ("landbird", "waterbird")
    assert crayon.evaluate(loaded.model, held_out, device="cpu").predictions == found.after.predictions


def test_objects_under_relevant_maps_agree_with_the_masks(shared, model):
    train = birds(shared, "train", per_group=16)
    maps = crayon.Explainer(model).explain(train)
    guidance = guidance_of(train, maps, simulate_answers(maps, train), maps.size)
    with PixelCache(train, model.preprocessing) as cache:
        swap = BackgroundSwap(model, cache, guidance, device=torch.device("cpu"), labels=train.labels)
    rows = guidance.relevant.nonzero().flatten()
    masks = torch.stack([train.mask_tensor(train.ids[row], model.preprocessing).float() for row in rows.tolist()])

    def agreement(shares):
        large = resize_maps(shares, tuple(masks.shape[1:]))
        return float((torch.minimum(large, masks).sum((1, 2)) / torch.maximum(large, masks).sum((1, 2))).mean())

    assert len(rows) > 20
    assert agreement(swap.objects[rows] / 255) > 0.65 > 0.5 > agreement(sharpen(guidance.reference[rows]))
