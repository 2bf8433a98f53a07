from __future__ import annotations

import pytest

from crayon_sdk._base.methods import made_of, settings_of
from crayon_sdk._base.settings import settings_in
from crayon_sdk.correct.loop import learning_rate
from crayon_sdk.correct.presets import (
    _STATED,
    AFTER_PRUNING,
    ATTENTION,
    PRUNING,
    describe,
    preset,
    preset_names,
)
from crayon_sdk.errors import SettingsError

# The table of published settings, as the authors' code has them: one row a line, typed in again.
ATTENTION_TABLE = """
waterbirds             10 128 adam 5e-5 1e-4 1e7 2e5 sum  none
biased-celeba          10  64 adam 1e-5 1e-4 5e7 1e6 sum  none
backgrounds            10 256 sgd  5e-6 1e-1 5e3 5e2 sum  none
waterbirds-release     10 128 adam 5e-5 1e-4 1e7 2e5 area none
biased-celeba-release  10  64 adam 1e-5 1e-4 5e7 1e6 sum  step-once
backgrounds-release    10 256 sgd  5e-6 1e-1 5e3 5e2 sum  none
"""
AFTER_PRUNING_TABLE = """
waterbirds             10 128 adam 5e-5 1e-4 1e7 2e5 sum  none
biased-celeba          10  64 adam 1e-5 1e-4 5e7 1e6 sum  none
backgrounds            10 256 sgd  5e-5 1e-1 1e3 5e1 sum  none
waterbirds-release     10 128 adam 5e-5 1e-4 1e7 2e5 area none
biased-celeba-release  10  64 adam 1e-5 1e-4 5e7 1e6 sum  step-once
backgrounds-release    10 256 sgd  5e-5 1e-1 1e3 5e1 sum  none
"""
PRUNING_TABLE = """
waterbirds             10 adam 5e-5 none
biased-celeba          50 adam 5e-6 none
backgrounds            10 adam 1e-6 none
waterbirds-release     5  sgd  5e-5 step-once
biased-celeba-release  50 adam 5e-6 none
backgrounds-release    10 adam 5e-6 none
"""


def rows(table):
    return [line.split() for line in table.strip().splitlines()]


@pytest.mark.parametrize(
    ("presets", "row"),
    [(ATTENTION, row) for row in rows(ATTENTION_TABLE)] + [(AFTER_PRUNING, row) for row in rows(AFTER_PRUNING_TABLE)],
)
def test_attention_presets_are_the_published_ones(presets, row):
    name, epochs, batch_size, optimizer, lr, weight_decay, alpha, beta, form, scheduler = row
    found = preset(presets, name)
    assert (found.epochs, found.batch_size, found.optimizer) == (int(epochs), int(batch_size), optimizer)
    assert (found.lr, found.weight_decay) == (float(lr), float(weight_decay))
    assert (found.alpha, found.beta) == (float(alpha), float(beta))
    assert found.area_normalized == (form == "area")
    assert found.scheduler == scheduler
    assert found.target == ("predicted" if name.startswith("backgrounds") else "label")
    assert found.zero_maps == ("keep" if name.endswith("-release") else "skip")
    assert (found.average_decay, found.warmup_epochs, found.clip_norm, found.keep) == (0, 0, 0, "last")
    assert (found.batch_norm, found.answer_rule) == ("train", "unanimous")


def test_steps_of_the_schedules():
    celeba, waterbirds = preset(ATTENTION, "biased-celeba-release"), preset(PRUNING, "waterbirds-release")
    # torch's MultiStepLR with one milestone: once, and never again.
    assert [learning_rate(celeba, epoch, 1) / celeba.lr for epoch in range(10)] == [1.0] * 3 + [0.5] * 7
    assert [learning_rate(waterbirds, epoch, 1) / waterbirds.lr for epoch in range(5)] == [1.0] * 4 + [0.2]
    assert (preset(ATTENTION, "backgrounds").momentum, preset(ATTENTION, "backgrounds-release").momentum) == (0, 0.9)
    assert waterbirds.momentum == 0  # torch's default, which the authors' code has for the last layer


@pytest.mark.parametrize("row", rows(PRUNING_TABLE))
def test_pruning_presets_are_the_published_ones(row):
    name, epochs, optimizer, lr, scheduler = row
    found = preset(PRUNING, name)
    assert (found.epochs, found.optimizer, found.lr, found.scheduler) == (int(epochs), optimizer, float(lr), scheduler)
    assert found.answer_rule == "majority"


@pytest.mark.parametrize("presets", [ATTENTION, AFTER_PRUNING, PRUNING])
def test_unknown_preset_lists_the_known_ones(presets):
    with pytest.raises(SettingsError, match=r"expected a preset of waterbirds, biased-celeba, .*, got 'birds'"):
        preset(presets, "birds")


@pytest.mark.parametrize(("method", "name"), [(each, name) for each, names in preset_names().items() for name in names])
def test_every_value_of_every_preset_has_a_source(method, name):
    found = describe(method, name)
    of_parts = [setting for part in made_of(method) for setting in settings_in(settings_of(part)) if setting != "seed"]
    assert [each.setting for each in found] == of_parts
    assert all(each.source for each in found)
    if name in ("waterbirds", "biased-celeba", "backgrounds"):
        assert all(each.source.startswith(("paper", "training")) for each in found if each.setting in ("lr", "epochs"))


def test_what_is_stated_is_a_setting():
    for method, names in _STATED.items():
        assert names <= settings_in(settings_of(method)).keys(), method


def test_the_methods_of_the_paper_have_both_forms():
    names = [f"{name}{form}" for form in ("", "-release") for name in ("waterbirds", "biased-celeba", "backgrounds")]
    for method in ("attention", "pruning", "both"):
        assert sorted(preset_names()[method]) == sorted(names)
    values = {(each.method, each.setting): each for each in describe("both", "backgrounds-release")}
    assert values["pruning", "lr"].source == "the authors' code; paper: 1e-06"
    assert values["attention", "alpha"].value == 1e3  # after pruning
    assert values["attention", "spread"].source == "what this package adds, switched off"
    with pytest.raises(SettingsError, match="did you mean 'waterbirds'"):
        describe("attention", "waterbird")
    with pytest.raises(SettingsError, match="no presets"):
        describe("erm", "waterbirds")
