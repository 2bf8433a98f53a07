from __future__ import annotations

import dataclasses

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

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.presets import PRUNING
from crayon_sdk.correct.pruning import NeuronPruner, irrelevant_neurons
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import AnswerError, MismatchError, NonFiniteLossError, SettingsError
from crayon_sdk.functional.neurons import prune_neurons
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
        pruner = NeuronPruner(split_model(), epochs=1, batch_size=len(few), logit_adjustment=strength, device="cpu")
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
