from __future__ import annotations

import pytest
import torch
from helpers_baselines import FAST, equals_further_training, goes_on, mixed_up
from helpers_correction import noise_pictures, split_model
from PIL import Image

from crayon_sdk.correct.baselines import masktune
from crayon_sdk.correct.baselines.masktune import MaskTune
from crayon_sdk.correct.objective import PixelFeed
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.functional.masking import kept_pixels, xgrad_cam


def test_where_nothing_is_hidden_it_is_further_training():
    equals_further_training(MaskTune, deviations=1e6)


def test_pictures_are_black_where_the_given_model_looked():
    """Black as a picture is, before it is normalised; in the geometry that is trained on."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(40, 256, (6, 90, 70, 3), dtype=torch.uint8, generator=generator).numpy()
    items = [(Image.fromarray(picture), number % 2) for number, picture in enumerate(pictures)]
    dataset, model = ImageDataset.from_torch(items, class_names=("a", "b")), split_model()
    corrector = MaskTune(model, deviations=0.5, device="cpu")
    with PixelCache(dataset, model.preprocessing) as cache:
        feed = PixelFeed(cache, dataset.labels)
        objective = corrector.objective(model.copy(), feed, corrector.settings)
        batch = feed.batch(torch.tensor([4, 0, 5]))
        masked, kept = objective.masked(batch)
        features = model.features(batch.images)
        expected = kept_pixels(xgrad_cam(features, model.head), (64, 64), deviations=0.5)
        assert torch.equal(kept, expected)
        assert 0 < (~kept).float().mean() < 0.5
        seen = model.preprocessing.denormalize(masked).permute(0, 2, 3, 1)
        assert seen[~kept].eq(0).all()
        plain = model.preprocessing.denormalize(batch.images).permute(0, 2, 3, 1)
        assert torch.equal(seen[kept], plain[kept])
    assert model.training is False


def test_maps_are_those_of_the_model_that_is_given_wherever_training_starts(monkeypatch):
    used, real = [], masktune.looked_at
    monkeypatch.setattr(masktune, "looked_at", lambda model, *_, **how: used.append(model) or real(model, *_, **how))
    model = split_model()
    found = MaskTune(model, **FAST).fit(noise_pictures(12))
    assert used[0] is model
    assert 0 <= found.history[0]["hidden"] < 0.5
    assert MaskTune(split_model()).epochs == 1


def test_a_run_goes_on_and_classes_may_be_missing(tmp_path, monkeypatch):
    goes_on(MaskTune, mixed_up(), tmp_path, monkeypatch, steps=4, deviations=0.5)
    one = mixed_up().subset(["s0"])  # a batch of one, and a class without samples
    assert MaskTune(split_model(), **{**FAST, "batch_norm": "frozen"}).fit(one).history[0]["loss"] > 0


@pytest.mark.parametrize(
    ("name", "lr", "decay", "batch", "optimizer"),
    [
        ("waterbirds", 1e-4, 1e-4, 128, "adam"),
        ("biased-celeba", 1e-9, 1e-4, 64, "adam"),
        ("backgrounds", 1e-7, 1e-5, 256, "adam"),
        ("waterbirds-own", 1e-4, 1e-4, 128, "sgd"),
        ("celeba-own", 1e-4, 1e-4, 512, "sgd"),
    ],
)
def test_published_settings(name, lr, decay, batch, optimizer):
    found = MaskTune.from_preset(name, split_model()).settings
    assert (found.lr, found.weight_decay, found.batch_size, found.optimizer) == (lr, decay, batch, optimizer)
    assert (found.epochs, found.deviations, found.momentum, found.reduction) == (1, 2.0, 0.9, "mean")
