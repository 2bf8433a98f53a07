from __future__ import annotations

import pytest
from helpers_correction import half_and_half, neuron_answers, noise_pictures, random_maps, split_model

from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.both import PruningThenAttention
from crayon_sdk.correct.presets import AFTER_PRUNING, PRUNING
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.errors import AnswerError, SettingsError

FAST = {"epochs": 1, "batch_size": 4}


def test_it_is_one_after_the_other(tmp_path):
    dataset, model = noise_pictures(8), split_model()
    maps, answers = random_maps(dataset), half_and_half(dataset).merge(neuron_answers(range(4), [50]))
    both = PruningThenAttention(model, pruning=FAST, attention=FAST, device="cpu", checkpoint_dir=tmp_path)
    found = both.fit(dataset, maps, answers)
    pruned = NeuronPruner(model, device="cpu", **FAST).fit(dataset, answers)
    guided = AttentionCorrector(pruned.model, device="cpu", **FAST).fit(dataset, maps, answers)
    assert found.record.corrected == guided.record.corrected
    assert [each.method for each in (*found.parents, found.record)] == ["pruning", "attention"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["attention", "pruning"]


def test_presets_are_those_for_both():
    both = PruningThenAttention(split_model(), preset="backgrounds", attention={"lr": 0.5}, device="cpu")
    assert both.stages["pruning"].settings == PRUNING["backgrounds"]
    guided = both.stages["attention"].settings
    assert (guided.lr, guided.alpha) == (0.5, AFTER_PRUNING["backgrounds"].alpha)


def test_what_is_wrong_with_the_second_is_said_before_the_first(monkeypatch):
    monkeypatch.setattr(NeuronPruner, "fit", None)
    dataset, model = noise_pictures(8), split_model()
    with pytest.raises(SettingsError, match="no setting of AttentionCorrector called 'aplha'; did you mean 'alpha'"):
        PruningThenAttention(model, attention={"aplha": 1.0})
    with pytest.raises(AnswerError, match="none is about one"):
        PruningThenAttention(model).fit(dataset, random_maps(dataset), neuron_answers([1]))
