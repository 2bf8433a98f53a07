from __future__ import annotations

import pytest
import torch
from helpers_correction import SMALL, noise_pictures, split_model

from crayon_sdk.data import ImageDataset, PixelCache
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.inference import check_finite, check_labels, predict, stream_features

CPU = torch.device("cpu")


@pytest.fixture
def pictures(picture_folder) -> ImageDataset:
    return ImageDataset.from_csv(picture_folder / "metadata.csv", split="test")


def slow_features(model, dataset, position):
    images = SMALL.normalize(dataset.row(position, SMALL))[None]
    with torch.no_grad():
        return model.features(images)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("order", [None, [5, 0, 3]])
def test_features_equal_one_by_one(pictures, cached, order):
    model = split_model()
    cache = PixelCache(pictures, SMALL) if cached else None
    stream = stream_features(model, pictures, device=CPU, batch_size=3, order=order, cache=cache)
    rows, seen = [], []
    for indices, features in stream:
        assert len(indices) == len(features) <= 3
        assert not features.requires_grad
        rows += indices.tolist()
        seen.append(features)
    assert rows == (list(range(len(pictures))) if order is None else order)
    for position, features in zip(rows, torch.cat(seen), strict=True):
        torch.testing.assert_close(features, slow_features(model, pictures, position)[0], rtol=1e-4, atol=1e-5)


def test_data_set_may_bring_its_own_preprocessing(pictures):
    from dataclasses import replace

    model = split_model()
    other = replace(SMALL, size=(96, 128))
    ((_, features),) = stream_features(model, pictures.with_preprocessing(other), device=CPU)
    assert tuple(features.shape[2:]) == (3, 4)


def test_logits_come_in_the_order_of_the_data_set(pictures):
    model = split_model()
    logits = predict(model, pictures, device=CPU, batch_size=3)
    with torch.no_grad():
        slow = torch.cat([model.head(slow_features(model, pictures, p)) for p in range(len(pictures))])
    torch.testing.assert_close(logits, slow, rtol=1e-4, atol=1e-5)
    assert (logits.dtype, logits.requires_grad) == (torch.float32, False)


def test_bfloat16_trunk_gives_float32_logits(pictures):
    model = split_model()
    reduced = predict(model, pictures, device=CPU, autocast=torch.bfloat16)
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, predict(model, pictures, device=CPU), rtol=0.1, atol=0.05)


def test_labels_are_checked(pictures):
    check_labels(pictures, split_model())
    with pytest.raises(DataError, match="expected a data set with at least one sample, got an empty one"):
        check_labels(pictures.subset([]), split_model())
    three = ImageDataset.from_torch([(torch.zeros(3, 8, 8), 2)], class_names=["a", "b", "c"])
    with pytest.raises(SettingsError, match="load a model with at least 3 classes, or leave these samples out"):
        check_labels(three, split_model())


def test_finished_inputs_go_in_as_they_are():
    dataset, model = noise_pictures(4), split_model()
    with torch.no_grad():
        expected = model(torch.stack([dataset.row(position, None) for position in range(4)]))
    torch.testing.assert_close(predict(model, dataset, device=CPU), expected, rtol=1e-4, atol=1e-5)


def test_a_sample_that_overflows_is_named():
    model, values = split_model(), torch.zeros(3, 2)
    check_finite(model, values, "logits", ("a", "b", "c"))
    values[1, 0] = torch.inf
    with pytest.raises(
        DataError, match=r"not finite \(NaN or infinity\) for 'b', and are for 2 others; its weights are"
    ):
        check_finite(model, values, "logits", ("a", "b", "c"))
