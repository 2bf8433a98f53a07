from __future__ import annotations

import pytest
import torch
from helpers_baselines import FAST, equals_further_training, goes_on, learned, mixed_up, three_classes
from helpers_correction import noise_pictures, split_model
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.correct.baselines.cnc import CNCSettings, CorrectAndContrast, _Contrasting
from crayon_sdk.correct.objective import PixelFeed
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import TrainingError
from crayon_sdk.functional.contrast import correct_contrastive_loss

#                     0  1  2  3  4  5  6  7  8  9 10 11
LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
TAKEN = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0])


@pytest.fixture
def feed():
    dataset = noise_pictures(12)
    with PixelCache(dataset, dataset.preprocessing) as cache:
        yield PixelFeed(cache, LABELS)


def test_without_contrast_it_is_further_training():
    equals_further_training(CorrectAndContrast, contrast=0.0)


def test_anchors_are_what_the_first_network_gets_right(feed):
    for share, count in ((1.0, 9), (0.34, 3)):
        objective = _Contrasting(split_model(), feed, TAKEN, CNCSettings(anchors=share))
        orders = [objective.epoch(number, 0, count=12) for number in range(3)]
        assert {len(order) for order in orders} == {count}
        assert set(torch.cat(orders).tolist()) <= {0, 1, 2, 3, 6, 7, 8, 9, 10}
    assert [each.tolist() for each in objective.positives] == [[4, 5], [11]]
    assert [each.tolist() for each in objective.negatives] == [[11], [4, 5]]
    assert [each.tolist() for each in objective.easy] == [[0, 1, 2, 3], [6, 7, 8, 9, 10]]


def test_the_loss_by_hand(feed):
    model, settings = split_model(), CNCSettings(partners=20, contrast=0.6, temperature=0.3)
    objective = _Contrasting(model, feed, TAKEN, settings)
    torch.manual_seed(3)
    with torch.no_grad():
        found = objective(feed.batch(torch.tensor([2, 7, 0, 8, 10])))
        torch.manual_seed(3)
        u = model.penultimate(model.features(feed.cache.get(torch.arange(12))))
        logits = model(feed.cache.get(torch.arange(12)))
        total, everybody = 0.0, []
        for own, positives, negatives, easy in (
            ([2, 0], [4, 5], [11], [6, 7, 8, 9, 10]),
            ([7, 8, 10], [11], [4, 5], [0, 1, 2, 3]),
        ):
            order = torch.randperm(len(positives))
            first = positives[int(order[0])]
            torch.randperm(len(negatives)), torch.randperm(len(easy))
            there = correct_contrastive_loss(u[own], u[positives], u[negatives], temperature=0.3).mean()
            back = correct_contrastive_loss(u[[first]], u[own], u[easy], temperature=0.3).mean()
            total += float(there + back) / 2  # of two classes of anchors
            everybody += own + positives + negatives + easy
        entropy = float(F.cross_entropy(logits[everybody], LABELS[everybody]))
    assert found["contrast"].item() == pytest.approx(5 * total, rel=1e-4)
    assert found["prediction"].item() == pytest.approx(5 * entropy, rel=1e-4)
    assert found["loss"].item() == pytest.approx(5 * (0.6 * total + 0.4 * entropy), rel=1e-4)


def test_partners_are_drawn_up_to_a_number(feed):
    objective = _Contrasting(split_model(), feed, TAKEN, CNCSettings(partners=3))
    drawn = [objective.drawn(objective.easy[1]) for _ in range(40)]
    assert {len(each) for each in drawn} == {3}
    assert set(torch.cat(drawn).tolist()) == {6, 7, 8, 9, 10}
    assert objective.drawn(objective.positives[1]).tolist() == [11]


def test_a_class_that_nobody_is_taken_for_has_all_others_as_negatives(feed):
    taken = torch.where(LABELS == 1, 1, TAKEN)  # class 1 is right throughout, and nobody is taken for 0 wrongly
    objective = _Contrasting(split_model(), feed, taken, CNCSettings())
    assert objective.negatives[0].tolist() == [6, 7, 8, 9, 10, 11]
    found = objective(feed.batch(torch.tensor([7, 8])))  # a class without positives: only cross entropy
    assert found["contrast"].item() == 0.0
    found["loss"].backward()


def test_where_nothing_can_be_contrasted_it_stops(feed):
    with pytest.raises(TrainingError, match="right and others wrong, got none"):
        _Contrasting(split_model(), feed, torch.ones(12).long(), CNCSettings())
    dataset = noise_pictures(12)
    with pytest.raises(TrainingError, match="got none of 12 by the model that is given"):
        CorrectAndContrast(learned(dataset), **FAST).fit(dataset)


def test_a_run_goes_on(tmp_path, monkeypatch):
    model = learned(noise_pictures(12))
    found = goes_on(CorrectAndContrast, mixed_up(), tmp_path, monkeypatch, steps=3, model=model)
    assert found.record.counts == {"errors": 3}
    assert {"prediction", "contrast"} < found.history[0].keys()
    assert CNCSettings().batch_norm == "frozen"


def test_three_classes_and_a_batch_of_one():
    found = CorrectAndContrast(three_classes(), epochs=1, first_epochs=6, batch_size=1, lr=3e-3, batch_norm="train")
    assert found.fit(mixed_up(18, classes=3)).history[0]["loss"] > 0


def test_published_settings():
    for name, expected in (
        ("waterbirds", (1e-5, 1e-4, 10, 128)),
        ("biased-celeba", (1e-5, 0.1, 5, 64)),
        ("backgrounds", (1e-5, 0.1, 10, 256)),
        ("waterbirds-own", (1e-4, 1e-3, 5, 544)),
        ("celeba-own", (1e-5, 0.1, 15, 2048)),
    ):
        found = CorrectAndContrast.from_preset(name, split_model()).settings
        assert (found.lr, found.weight_decay, found.epochs, found.batch_size) == expected
        assert (found.contrast, found.batch_norm) == (0.75, "frozen")
    assert (found.temperature, found.partners, found.anchors, found.optimizer) == (0.05, 64, 0.1, "sgd")
