from __future__ import annotations

import inspect
import math
import re
from dataclasses import FrozenInstanceError, asdict

import pytest

from crayon_sdk._base.settings import settings_in
from crayon_sdk.correct import settings as module
from crayon_sdk.correct.settings import (
    AttentionSettings,
    ERMSettings,
    NetworkSettings,
    PruningSettings,
    TrainingSettings,
)
from crayon_sdk.errors import SettingsError

GOOD = {"epochs": 2, "batch_size": 4, "lr": 0.1}


def test_defaults_train_plainly():
    settings = TrainingSettings(**GOOD)
    assert (settings.scheduler, settings.average_decay, settings.clip_norm, settings.seed) == ("none", 0.0, 0.0, 0)


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        TrainingSettings(**GOOD).lr = 1.0  # type: ignore[misc]


def test_settings_are_plain_values():
    settings = AttentionSettings(**GOOD, alpha=1.0, beta=2.0)
    assert AttentionSettings(**asdict(settings)) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", -1),
        ("epochs", 2.5),
        ("epochs", True),
        ("epochs", "2"),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("lr", -1e-9),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", None),
        ("lr", 1e31),
        ("weight_decay", -1),
        ("momentum", 1.1),
        ("warmup_epochs", -0.5),
        ("step_epochs", 0),
        ("step_epochs", 1.5),
        ("step_factor", 2),
        ("average_decay", 1.0001),
        ("average_decay", math.nan),
        ("clip_norm", -1),
        ("seed", -1),
        ("seed", 0.5),
        ("seed", 2**62),
        ("optimizer", "lion"),
        ("scheduler", "linear"),
    ],
)
def test_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=f"expected {name} .*got {re.escape(repr(value))}"):
        TrainingSettings(**GOOD | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -1),
        ("alpha", math.inf),
        ("beta", math.nan),
        ("zero_maps", "drop"),
        ("batch_norm", "eval"),
        ("answer_rule", "any"),
        ("keep", "first"),
    ],
)
def test_attention_settings_are_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=f"expected {name} "):
        AttentionSettings(**GOOD | {"alpha": 1.0, "beta": 1.0, name: value})


@pytest.mark.parametrize("value", [0, -0.1, 1.01, math.nan, "0.9", True])
def test_accuracy_to_end_at_is_refused_by_name(value):
    with pytest.raises(SettingsError, match="expected until_accuracy to be a number > 0 and <= 1, got"):
        ERMSettings(until_accuracy=value)
    assert (ERMSettings().until_accuracy, ERMSettings(until_accuracy=1).until_accuracy) == (None, 1)


def test_pruning_rule_is_refused_by_name():
    with pytest.raises(
        SettingsError,
        match="expected answer_rule to be one of unanimous, majority, share, dawid-skene, mace, got 'most'",
    ):
        PruningSettings(**GOOD, answer_rule="most")


def test_edges_are_allowed():
    TrainingSettings(epochs=0, batch_size=1, lr=0, momentum=1, average_decay=1, seed=2**32, warmup_epochs=0.25)


@pytest.mark.parametrize("target", ["labels", "", -1, True, 0.5, None])
def test_targets_that_are_none(target):
    """Also in a record: a checkpoint whose settings cannot be is refused."""
    with pytest.raises(SettingsError, match="expected target to be one of label, predicted or a whole number >= 0"):
        AttentionSettings(alpha=1, beta=1, epochs=1, batch_size=1, lr=1, target=target)
    assert AttentionSettings(alpha=1, beta=1, epochs=1, batch_size=1, lr=1, target=1).target == 1


def test_every_setting_is_described_in_one_class():
    kinds = [kind for kind in vars(module).values() if "__pydantic_fields__" in getattr(kind, "__dict__", {})]
    described = [
        name
        for kind in kinds
        for name in inspect.get_annotations(kind)
        if vars(kind)["__pydantic_fields__"][name].description
    ]
    twice = {name for name in described if described.count(name) > 1}
    assert twice == {"answer_rule", "spread"}  # of maps and of neurons: other defaults, other words
    assert {"keep", "batch_norm", "epochs"} < set(described)


def test_a_class_names_a_setting_of_its_base_only_to_change_the_default():
    for kind in (NetworkSettings, ERMSettings, AttentionSettings, PruningSettings):
        above = settings_in(kind.__base__)
        for name in inspect.get_annotations(kind).keys() & above:
            assert settings_in(kind)[name].default != above[name].default, (kind, name)
