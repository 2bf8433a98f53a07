from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from helpers_correction import (
    SMALL,
    half_and_half,
    image_answers,
    neuron_answers,
    noise_pictures,
    random_maps,
    split_model,
)
from torch import nn
from torch.nn import functional as F  # noqa: N812

from crayon_sdk.answers.annotations import AnnotationSet, NeuronAnswer
from crayon_sdk.correct import pruning as pruning_module
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.presets import PRUNING
from crayon_sdk.correct.pruning import NeuronPruner, irrelevant_neurons
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import AnswerError, MismatchError, NonFiniteLossError, SettingsError
from crayon_sdk.explain.objects import objects_of, probe_of
from crayon_sdk.functional.neurons import activity_on, prune_neurons
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import load_correction

CUT = list(range(0, 40, 2))
KEPT = [neuron for neuron in range(96) if neuron not in CUT]


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return noise_pictures(12)


def prune(model, dataset, answers=None, evaluate_on=None, **settings):
    settings = {"epochs": 3, "batch_size": 5, "lr": 0.01, "device": "cpu"} | settings
    return NeuronPruner(model, **settings).fit(dataset, answers or neuron_answers(CUT, [1, 3]), evaluate_on)


def guide(model, dataset, **settings):
    settings = {"epochs": 2, "batch_size": 5, "lr": 1e-3, "alpha": 10.0, "beta": 10.0, "device": "cpu"} | settings
    return AttentionCorrector(model, **settings).fit(dataset, random_maps(dataset), half_and_half(dataset))


def assert_cut(model: SplitModel):
    """The cut columns are zero in every view of the weight, and the others are not."""
    for weight in (model.classifier.weight, model.plain_state_dict()["fc.weight"]):
        assert torch.count_nonzero(weight[:, CUT]) == 0
        assert torch.count_nonzero(weight[:, KEPT]) > 0
    assert torch.equal(model.classifier.weight, model.plain_state_dict()["fc.weight"])
    assert (~model.neuron_mask).nonzero().flatten().tolist() == CUT


class Counting(nn.Module):
    """A trunk that counts the pictures it sees."""

    def __init__(self, split: SplitModel) -> None:
        super().__init__()
        self.inner = split.model
        self.seen: list[int] = []

    def forward(self, images):
        if len(images) > 1:  # the probe of a new SplitModel is one picture
            self.seen.append(len(images))
        return self.inner.forward_features(images)


def test_features_are_computed_once(dataset):
    inner = split_model()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 2))
    trunk = Counting(inner)
    seen = trunk.seen
    trunk.__deepcopy__ = lambda memo: trunk  # the copy counts in the same list
    model = SplitModel(trunk=trunk, head=head, preprocessing=SMALL)
    prune(model, dataset, epochs=7)
    assert sum(seen) == len(dataset)


def test_refit_equals_a_slow_one(dataset):
    model = split_model()
    found = prune(model, dataset, weight_decay=1e-3)
    with torch.no_grad():
        inputs = torch.stack([dataset.row(position, None) for position in range(12)])
        neurons = model.features(inputs).mean(dim=(2, 3))
    neurons[:, CUT] = 0  # cutting a neuron multiplies it by zero
    layer = nn.Linear(96, 2)
    layer.load_state_dict({"weight": model.classifier.weight.detach(), "bias": model.classifier.bias.detach()})
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
    for epoch in range(3):
        for batch in torch.randperm(12, generator=torch.Generator().manual_seed(epoch)).split(4):
            optimizer.zero_grad()
            F.cross_entropy(layer(neurons[batch]), dataset.labels[batch], reduction="sum").backward()
            optimizer.step()
            schedule.step()
    state = found.model.plain_state_dict()
    torch.testing.assert_close(state["fc.weight"][:, KEPT], layer.weight[:, KEPT], rtol=0, atol=1e-6)
    torch.testing.assert_close(state["fc.bias"], layer.bias, rtol=0, atol=1e-6)
    for name, tensor in model.plain_state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(state[name], tensor), name


def test_logit_adjustment_is_used_in_the_refit(dataset):
    few = dataset.subset([name for position, name in enumerate(dataset.ids) if position % 2 == 0 or position == 1])
    losses = {}
    for strength in (0.0, 1.0):
        pruner = NeuronPruner(
            split_model(), epochs=1, batch_size=len(few), logit_adjustment=strength, spread="never", device="cpu"
        )
        losses[strength] = pruner.fit(few, neuron_answers(CUT, KEPT)).history[0]["loss"] * len(few)
    model = split_model()
    prune_neurons(model.classifier, torch.isin(torch.arange(96), torch.tensor(CUT), invert=True))
    with torch.no_grad():
        logits = model(torch.stack([few.row(position, None) for position in range(len(few))]))
    counts = torch.bincount(few.labels)
    for strength, loss in losses.items():
        shifted = logits + strength * (counts / len(few)).log()
        expected = torch.nn.functional.cross_entropy(shifted, few.labels, reduction="sum")
        assert loss == pytest.approx(expected.item(), rel=1e-4)
    assert losses[0.0] != losses[1.0]


def test_cut_neurons_stay_cut_in_every_later_correction(dataset, tmp_path):
    pruned = prune(split_model(), dataset)
    assert_cut(pruned.model)
    guided = guide(pruned.model, dataset)
    assert_cut(guided.model)
    assert not torch.equal(
        guided.model.plain_state_dict()["fc.weight"][:, KEPT], pruned.model.plain_state_dict()["fc.weight"][:, KEPT]
    )
    loaded = load_correction(guided.save(tmp_path / "guided"))
    assert_cut(loaded.model)
    again = guide(loaded.model, dataset, average_decay=0.0, weight_decay=0.1, seed=1)
    assert_cut(again.model)
    assert [parent.method for parent in again.parents] == ["pruning", "attention"]
    assert again.record.pruned_neurons == tuple(CUT)
    with torch.no_grad():
        logits = again.model(torch.rand(2, 3, 64, 64))
    assert bool(logits.isfinite().all())


def test_second_pruning_adds_to_the_first(dataset):
    first = prune(split_model(), dataset)
    second = prune(first.model, dataset, neuron_answers([50, 51], model=first.model.fingerprint))
    assert second.record.pruned_neurons == (*CUT, 50, 51)


def test_pruning_the_rest_of_a_pruned_model_is_refused(dataset):
    first = prune(split_model(), dataset)
    with pytest.raises(AnswerError, match="would cut all 96 neurons"):
        prune(first.model, dataset, neuron_answers(KEPT))


def test_record_counts(dataset):
    found = prune(split_model(), dataset, evaluate_on=noise_pictures(6, seed=2))
    assert found.record.method == "pruning"
    assert found.record.counts == {"pruned": 20, "judged_neurons": 22, "neurons": 96, "dropped_answers": 0}
    assert found.record.pruned_neurons == tuple(CUT)
    assert len(found.history) == 3
    assert found.before is not None
    assert found.after is not None
    assert found.history[-1]["loss"] < found.history[0]["loss"]


@pytest.mark.parametrize("answers", [AnnotationSet(), image_answers({"s0": "yes"})])
def test_no_neuron_answers(dataset, answers):
    with pytest.raises(AnswerError, match=r"expected answers about neurons, got \d answers of which none is about a n"):
        NeuronPruner(split_model(), device="cpu").fit(dataset, answers)


def test_all_neurons_cut(dataset):
    with pytest.raises(AnswerError, match="the answers would cut all 96 neurons; look at them again, or use another"):
        prune(split_model(), dataset, neuron_answers(range(96)))


def test_answers_of_another_model(dataset):
    answers = neuron_answers(CUT, model="e" * 64)
    with pytest.raises(MismatchError, match="60 of 60 answers were made for another model"):
        prune(split_model(), dataset, answers)


def test_neurons_the_model_does_not_have(dataset):
    with pytest.raises(MismatchError, match=r"1 neurons the model does not have \(it has 96, from 0\): 96"):
        prune(split_model(), dataset, neuron_answers([1, 96]))


def test_strict_false_drops_and_counts(dataset):
    answers = neuron_answers([1, 200]).merge(neuron_answers([2], model="e" * 64))
    found = NeuronPruner(split_model(), epochs=1, device="cpu").fit(dataset, answers, strict=False)
    assert found.record.pruned_neurons == (1,)
    assert found.record.counts["dropped_answers"] == 6


def test_strict_false_with_nothing_left(dataset):
    answers = neuron_answers([2], model="e" * 64)
    found = NeuronPruner(split_model(), epochs=1, device="cpu").fit(dataset, answers, strict=False)
    assert (found.record.pruned_neurons, found.record.counts["dropped_answers"]) == ((), 3)


def test_irrelevant_neurons_follow_the_rule():
    model = split_model()
    answers = neuron_answers([3], [4]).merge(AnnotationSet(list(neuron_answers([5], [5]))[:5]))
    used, cut = irrelevant_neurons(model, answers, rule="unanimous")
    assert cut == (3,)
    assert len(used) == len(answers)


@pytest.mark.parametrize("name", ["waterbirds", "biased-celeba", "backgrounds"])
def test_presets_arrive_in_the_pruner(name):
    pruner = NeuronPruner.from_preset(name, split_model(), seed=2)
    assert pruner.settings == dataclasses.replace(PRUNING[name], seed=2)


def test_wrong_settings_are_refused_when_made():
    with pytest.raises(SettingsError, match="expected epochs to be a whole number >= 0, got -1"):
        NeuronPruner(split_model(), epochs=-1)
    with pytest.raises(SettingsError, match="expected a preset of"):
        NeuronPruner.from_preset("cub", split_model())


def variants(kind):
    model = split_model()
    if kind == "half":
        return model.half()
    if kind == "frozen":
        return model.requires_grad_(False)
    if kind == "only the bias learns":
        model.requires_grad_(False).model.fc.bias.requires_grad_(True)
    if kind == "train mode":
        model.train()
    return model.to(memory_format=torch.channels_last) if kind == "channels_last" else model


@pytest.mark.parametrize("kind", ["plain", "half", "frozen", "only the bias learns", "train mode", "channels_last"])
def test_callers_model_is_unchanged(kind, dataset, snapshot):
    model = variants(kind)
    before = snapshot(model)
    found = prune(model, dataset, epochs=1)
    assert snapshot(model) == before
    theirs = dict(model.named_parameters())
    for name, parameter in found.model.named_parameters():
        original = theirs[name.removesuffix("_orig")]
        assert (parameter.dtype, parameter.requires_grad) == (original.dtype, original.requires_grad), name
        assert parameter.stride() == original.stride()
    assert not found.model.training
    assert_cut(found.model)


def test_one_seed_one_result(dataset):
    same = [prune(split_model(), dataset, seed=4).record.corrected for _ in range(2)]
    assert same[0] == same[1]
    assert prune(split_model(), dataset, seed=5).record.corrected != same[0]


def test_a_picture_that_overflows(dataset):
    with pytest.raises(NonFiniteLossError, match=r"stopped at step .*gradient norm = inf.*huge values") as caught:
        prune(split_model(), noise_pictures(12, huge_at=6))
    assert all(bool(tensor.isfinite().all()) for tensor in caught.value.model.plain_state_dict().values())
    assert_cut(caught.value.model)


def about_patches(dataset, neurons, *, says=lambda row, neuron: ("yes", "no")[(row + neuron) % 2]):
    """One answer about the patch of each neuron in each picture."""
    return AnnotationSet(
        NeuronAnswer(neuron=neuron, patch=row, id=sample, answer=says(row, neuron), annotator="p0")
        for row, sample in enumerate(dataset.ids)
        for neuron in neurons
    )


def slowly(model, dataset, answers, share):
    """Neurons with the least activity on the object, cell by cell and neuron by neuron."""
    with torch.no_grad():
        pictures = torch.stack([dataset.row(row, None) for row in range(len(dataset))])
        features = model.features(pictures)
    votes = {}
    for each in answers.neuron_answers:
        row = dataset.index_of(each.id)
        strengths = features[row, each.neuron].flatten().tolist()
        votes.setdefault((row, strengths.index(max(strengths))), []).append(each.answer == "yes")
    rows, maps, shares = [], [], []
    for (row, cell), said in votes.items():
        if 2 * sum(said) != len(said):
            rows.append(row)
            maps.append([float(place == cell) for place in range(features.shape[2] * features.shape[3])])
            shares.append(sum(said) / len(said))
    values = objects_of(
        model, pictures.__getitem__, dataset.labels, torch.tensor(rows),
        torch.tensor(maps).view(-1, *features.shape[2:]), torch.tensor(shares),
        spots=torch.ones(len(rows), dtype=torch.bool),
    ).values  # fmt: skip
    objects = F.adaptive_avg_pool2d(values[:, None], features.shape[2:])[:, 0]
    on_object = []
    for neuron in range(features.shape[1]):
        inside = sum((features[row, neuron].abs() * objects[row]).sum().item() for row in range(len(dataset)))
        on_object.append(inside / max(features[:, neuron].abs().sum().item(), 1e-12))
    there = model.neuron_mask.nonzero().flatten().tolist()
    order = sorted(there, key=lambda neuron: on_object[neuron])
    return tuple(sorted(order[: round(share * len(there))]))


def test_neurons_are_judged_by_their_activity_on_the_object(dataset):
    model = split_model()
    everything = about_patches(dataset, range(20), says=lambda row, neuron: ("no", "yes")[neuron % 5 > 2])
    asked = [each for each in everything.neuron_answers if (each.neuron - each.patch) % 7 == 0]
    answers = AnnotationSet(asked)  # so that few neurons share the patch of a picture
    share = sum(word == "irrelevant" for word in answers.neuron_relevance("majority").values()) / 20
    assert 0 < share < 1
    found = prune(model, dataset, answers, epochs=1)
    assert found.record.pruned_neurons == slowly(model, dataset, answers, share)
    assert found.record.counts["carried_to"] == 76
    assert found.record.counts["pruned"] == round(share * 96)
    # Of a pruned model the same share of what is left.
    again = prune(found.model, dataset, answers, epochs=1)
    left = 96 - found.record.counts["pruned"]
    assert set(again.record.pruned_neurons) >= set(found.record.pruned_neurons)
    assert again.record.counts["pruned"] == round(share * left)


def test_of_many_pictures_some_are_learned_from(dataset, monkeypatch):
    """The patches of so many, drawn by the seed; and all neurons are judged all the same."""
    seen = []

    def watched(cells, *args, **how):
        seen.append(cells)
        return probe_of(cells, *args, **how)

    monkeypatch.setattr(pruning_module, "probe_of", watched)
    answers = about_patches(dataset, range(20), says=lambda row, neuron: ("no", "yes")[neuron % 5 > 2])
    pictures = len({each.id for each in answers.neuron_answers})
    prune(split_model(), dataset, answers, epochs=1)
    monkeypatch.setattr(pruning_module, "MOST", 9)
    found = prune(split_model(), dataset, answers, epochs=1)
    again = prune(split_model(), dataset, answers, epochs=1)
    assert [len(each) for each in seen] == [pictures, 9, 9]
    assert pictures > 9
    assert torch.equal(seen[1], seen[2])
    assert found.record.pruned_neurons == again.record.pruned_neurons
    assert found.record.counts["carried_to"] == 76
    prune(split_model(), dataset, answers, epochs=1, seed=1)
    assert not torch.equal(seen[1], seen[3])


def test_activity_on_objects_by_hand():
    features = torch.tensor([[[[1.0, -2.0]], [[0.5, 0.0]]], [[[3.0, 1.0]], [[0.0, 4.0]]]], dtype=torch.float64)
    objects = torch.tensor([[[1.0, 0.25]], [[0.0, 1.0]]], dtype=torch.float64)
    assert activity_on(features, objects).tolist() == [[1 + 0.5 + 1, 0.5 + 4], [7.0, 4.5]]


@pytest.mark.parametrize(
    ("kind", "why"),
    [("no ids", "no answer says yes or no of a patch"), ("all no", "no patch got a yes"), ("wrapped", "intermediate")],
)
def test_what_was_answered_is_cut_where_nothing_is_known_of_the_object(dataset, caplog, kind, why):
    model = split_model()
    if kind == "wrapped":
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.classifier)
        model = SplitModel(trunk=Counting(model), head=head, preprocessing=SMALL)
    answers = about_patches(dataset, [1, 2, 3], says=lambda row, neuron: ("no", "yes")[neuron == 3])
    if kind == "no ids":
        answers = AnnotationSet(each.model_copy(update={"id": ""}) for each in answers.neuron_answers)
    elif kind == "all no":
        answers = about_patches(dataset, [1, 2], says=lambda row, neuron: "no")
    with caplog.at_level(logging.WARNING, logger="crayon_sdk"):
        found = prune(model, dataset, answers, epochs=1)
    assert found.record.pruned_neurons == (1, 2)
    assert "carried_to" not in found.record.counts
    assert why in caplog.text


def test_answers_about_patches_without_looking_are_refused(tmp_path):
    many = noise_pictures(60)
    answers = about_patches(many, range(8), says=lambda row, neuron: ("yes", "no")[(7 * row + 3 * neuron) % 5 % 2])
    with pytest.raises(AnswerError, match=r'contradict each other.*spread="never"'):
        prune(split_model(), many, answers, checkpoint_dir=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    assert prune(split_model(), many, answers, spread="never", epochs=1).record.counts["judged_neurons"] == 8
