"""Answers that reach every picture: what is minimised then, when it is not done, and when it is refused."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from helpers_correction import half_and_half, image_answers, noise_pictures, random_maps, split_model
from torch import nn
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import SpotAnswer
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.backgrounds import BackgroundSwap
from crayon_sdk.correct.guidance import guidance_of
from crayon_sdk.correct.presets import AFTER_PRUNING, ATTENTION
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import AnswerError, MismatchError, SettingsError
from crayon_sdk.explain.objects import find_objects
from crayon_sdk.functional.saliency import normalize_maps, resize_maps
from crayon_sdk.models.split import SplitModel

PLAIN = {
    "epochs": 2,
    "batch_size": 5,
    "lr": 1e-3,
    "scheduler": "none",
    "average_decay": 0.0,
    "logit_adjustment": 0.0,
    "alpha": 10.0,
    "beta": 5.0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def dataset():
    return noise_pictures(12)


@pytest.fixture(scope="module")
def many():
    return noise_pictures(60)


def fit(dataset, answers=None, model=None, **settings):
    corrector = AttentionCorrector(model or split_model(), **PLAIN | settings)
    return corrector.fit(dataset, random_maps(dataset), answers or half_and_half(dataset))


def differing(one, two):
    first, second = one.model.plain_state_dict(), two.model.plain_state_dict()
    return [name for name in first if not torch.equal(first[name], second[name])]


def without_looking(dataset):
    """Yes and no by turns, of both classes, about maps that show nothing in particular."""
    return image_answers({sample: ("yes", "yes", "no", "no")[row % 4] for row, sample in enumerate(dataset.ids)})


def by_looks(dataset):
    """Yes where the picture is bright: what is highlighted tells one from the other."""
    return image_answers({sample: ("no", "yes")[row % 2] for row, sample in enumerate(dataset.ids)})


def test_how_many_pictures_the_answers_reached_is_in_the_record(dataset):
    counts = fit(dataset, epochs=1).record.counts
    assert (counts["relevant"], counts["irrelevant"], counts["mixed"]) == (3, 3, 3)
    assert counts["carried_to"] == 6  # the mixed, and those nobody was asked about
    assert "carried_to" not in fit(dataset, epochs=1, spread="never").record.counts


@pytest.mark.parametrize("area_normalized", [False, True])
def test_loss_of_one_step_guides_every_picture_by_its_object(dataset, area_normalized):
    model, maps = split_model(), random_maps(dataset)
    settings = {"epochs": 1, "batch_size": 12, "background_swap": 0.0, "area_normalized": area_normalized}
    found = fit(dataset, model=model, **settings).history[0]
    whole = find_objects(model, dataset, maps, half_and_half(dataset), device="cpu")
    objects = resize_maps(whole.values, (2, 2))
    objects = objects / objects.amax(dim=(1, 2), keepdim=True)
    module = copy.deepcopy(model).train()
    features = module.features(torch.stack([dataset.row(position, None) for position in range(12)]))
    logits = module.head(features)
    cams = torch.relu(torch.einsum("nk,nkhw->nhw", module.classifier.weight[dataset.labels] / 4, features))
    current = normalize_maps(cams)
    prediction = F.cross_entropy(logits, dataset.labels, reduction="sum").item()
    guidance = 0.0
    for row in range(12):
        region = 1 - objects[row]
        overlap = (current[row] * region).sum().item()
        guidance += 10.0 / 12 * (overlap / region.sum().item() if area_normalized else overlap)
    assert found["prediction"] * 12 == pytest.approx(prediction, rel=1e-5)
    assert found["guidance"] * 12 == pytest.approx(guidance, rel=1e-4)
    assert found["loss"] == pytest.approx(found["prediction"] + found["guidance"], rel=1e-6)


def test_answers_without_looking_are_refused_before_training(many, tmp_path):
    model = split_model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(AnswerError, match=r'contradict each other: .* 50 % is chance.*with spread="never"'):
        fit(many, without_looking(many), model, checkpoint_dir=tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not list(tmp_path.glob("*.safetensors"))
    counts = fit(many, without_looking(many), spread="never", epochs=1).record.counts
    assert (counts["relevant"], counts["irrelevant"]) == (30, 30)
    assert "carried_to" not in counts


def test_answers_of_who_looks_are_taken_and_said_what_they_are_worth(many, caplog):
    with caplog.at_level(logging.INFO, logger="crayon_sdk"):
        counts = fit(many, by_looks(many), epochs=1).record.counts
    assert counts["carried_to"] == 0
    assert "the answers go together: " in caplog.text


def test_a_few_answers_are_never_contradictory(dataset):
    assert fit(dataset, without_looking(dataset), epochs=1).record.counts["carried_to"] == 0


def test_presets_are_as_published():
    for table in (ATTENTION, AFTER_PRUNING):
        assert {settings.spread for settings in table.values()} == {"never"}
        assert {settings.background_swap for settings in table.values()} == {0.0}
    assert AttentionCorrector(split_model()).settings.spread == "auto"
    assert AttentionCorrector.from_preset("waterbirds", split_model()).settings.spread == "never"


def test_without_a_yes_it_is_done_as_published(dataset):
    answers = image_answers(dict.fromkeys(dataset.ids[:6], "no"))
    auto, never = (fit(dataset, answers, spread=spread) for spread in ("auto", "never"))
    assert "carried_to" not in auto.record.counts
    assert not differing(auto, never)


def test_own_modules_are_guided_as_published(dataset):
    def own():
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=32), nn.ReLU())
        return SplitModel(trunk=trunk, head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)))

    auto, never = (fit(dataset, model=own(), spread=spread) for spread in ("auto", "never"))
    assert "carried_to" not in auto.record.counts
    assert not differing(auto, never)


def test_never_is_another_training(dataset):
    assert differing(fit(dataset, background_swap=0.0), fit(dataset, background_swap=0.0, spread="never"))


def test_three_yes_are_enough_to_reach_every_picture(dataset, caplog):
    answers = image_answers({"s0": "yes", "s1": "no", "s2": "yes", "s3": "yes"})
    with caplog.at_level(logging.WARNING, logger="crayon_sdk"):
        one, two = (fit(dataset, answers, background_swap=share, epochs=1) for share in (0.0, 1.0))
    assert "backgrounds" not in caplog.text
    assert one.history[0]["prediction"] != two.history[0]["prediction"]


def test_one_seed_one_result(dataset):
    first, second = fit(dataset, seed=4), fit(dataset, seed=4)
    assert not differing(first, second)
    assert [each["loss"] for each in first.history] == [each["loss"] for each in second.history]


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(dataset, tmp_path, monkeypatch, average_decay):
    undisturbed = fit(dataset, average_decay=average_decay)
    real, steps = torch.optim.Adam.step, []

    def step(self):
        steps.append(len(steps))
        if len(steps) == 4:  # in the second epoch
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(KeyboardInterrupt):
        fit(dataset, average_decay=average_decay, checkpoint_dir=tmp_path)
    with pytest.raises(MismatchError, match="spread"):
        fit(dataset, average_decay=average_decay, checkpoint_dir=tmp_path, spread="never")
    again = fit(dataset, average_decay=average_decay, checkpoint_dir=tmp_path)
    assert len(steps) < 2 * 6  # it did not begin anew
    assert not differing(again, undisturbed)
    assert again.record.counts == undisturbed.record.counts


def test_it_is_a_setting_like_the_others(dataset):
    assert fit(dataset, epochs=1).record.settings["spread"] == "auto"
    assert fit(dataset, epochs=1, spread="never").record.settings["spread"] == "never"
    with pytest.raises(SettingsError, match="expected spread to be one of auto, never, got 'always'"):
        AttentionCorrector(split_model(), spread="always")


def test_where_objects_are_known_every_picture_is_given_another_background(dataset):
    model = split_model()
    guidance = guidance_of(dataset, random_maps(dataset), half_and_half(dataset), (2, 2))
    found = torch.zeros(12, 4, 4)
    found[:, 1:3, 1:3] = 1.0
    cache = PixelCache(dataset, model.preprocessing)
    swap = BackgroundSwap(model, cache, guidance, device=torch.device("cpu"), found=found, labels=dataset.labels)
    batch = torch.arange(12)
    images = cache.get(batch)
    torch.manual_seed(0)
    swapped = swap(images, batch, 1.0)
    assert (swapped != images).flatten(1).any(dim=1).all()
    # What is surely no object is none, whatever it looks like.
    corners = swap.objects.float()[:, :4, :4] / 255
    assert swap.objects.flatten(1).any(dim=1).all()
    assert corners.max() < 0.2


def test_a_model_without_fitting_features_goes_the_published_way(dataset, caplog):
    model = split_model()
    # As of networks that shrink pictures at once: nothing lies between the picture and the map.
    object.__setattr__(model.model, "forward_intermediates", lambda images, **_: [images])
    with caplog.at_level(logging.WARNING, logger="crayon_sdk"):
        found = fit(dataset, model=model, background_swap=0.0)
    assert "answers reach nothing else: features about as fine as the map" in caplog.text
    assert "carried_to" not in found.record.counts
    assert not differing(found, fit(dataset, background_swap=0.0, spread="never"))


def spots(words):
    return AnnotationSet(SpotAnswer(id=sample, answer=word, annotator="ann") for sample, word in words.items())


SPOTS = {"s0": "yes", "s1": "no", "s2": "yes", "s3": "no", "s4": "yes", "s5": "unsure"}


def test_spots_reach_every_picture(dataset):
    """The loss of one step: every picture by the object that the spots teach, and no picture by a whole map."""
    model, maps = split_model(), random_maps(dataset)
    found = fit(dataset, spots(SPOTS), model, epochs=1, batch_size=12, background_swap=0.0)
    assert {name: count for name, count in found.record.counts.items() if count} == {
        "unanswered": 6, "spots_on": 3, "spots_off": 2, "spots_mixed": 1, "carried_to": 7,
    }  # fmt: skip
    objects = resize_maps(find_objects(model, dataset, maps, spots(SPOTS), device="cpu").values, (2, 2))
    objects = objects / objects.amax(dim=(1, 2), keepdim=True)
    module = copy.deepcopy(model).train()
    features = module.features(torch.stack([dataset.row(position, None) for position in range(12)]))
    current = normalize_maps(
        torch.relu(torch.einsum("nk,nkhw->nhw", module.classifier.weight[dataset.labels] / 4, features))
    )
    guidance = sum(
        10.0 / 12 * (current[row] * (1 - objects[row])).sum().item() / (1 - objects[row]).sum().item()
        for row in range(12)
    )
    assert found.history[0]["guidance"] * 12 == pytest.approx(guidance, rel=1e-4)


def test_spots_are_another_thing_than_whole_maps(dataset):
    whole = image_answers({sample: word for sample, word in SPOTS.items() if word != "unsure"})
    assert differing(fit(dataset, spots(SPOTS), background_swap=0.0), fit(dataset, whole, background_swap=0.0))


@pytest.mark.parametrize(
    ("words", "settings"),
    [(SPOTS, {"spread": "never"}), ({"s0": "yes", "s2": "yes"}, {}), ({"s0": "no", "s2": "no", "s3": "no"}, {})],
)
def test_spots_that_can_guide_nothing_are_refused_before_training(dataset, words, settings, tmp_path):
    with pytest.raises(AnswerError, match=r"guide nothing by themselves: that takes spread=\"auto\".*3 spots on"):
        fit(dataset, spots(words), checkpoint_dir=tmp_path, **settings)
    assert not list(tmp_path.glob("*.safetensors"))
