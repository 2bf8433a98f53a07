"""Classes of settings: what they refuse, in which words, and what they say of themselves."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from crayon_sdk._base.settings import CONFIG, Count, Share, refusal, settings, settings_in
from crayon_sdk.errors import SettingsError


@settings
class Walk:
    """How one walks."""

    steps: Count
    """How many
    steps."""
    pace: Annotated[float, Field(gt=0, lt=10)] = 1.5
    """How fast."""
    way: Literal["there", "back"] = "there"
    """Which way."""
    dog: bool = False
    """Whether a dog comes along."""
    rest: Share | None = None
    """How much of it is rest."""
    name: str = ""
    """What it is called."""


@settings
class Run(Walk):
    """How one runs: faster."""

    pace: Annotated[float, Field(gt=0, lt=10)] = 5.0


def test_what_a_class_says_of_its_settings():
    assert list(settings_in(Run)) == ["steps", "pace", "way", "dog", "rest", "name"]
    assert {name: each.sentence for name, each in settings_in(Run).items()} == {
        "steps": "How many steps. A whole number >= 0.",
        "pace": "How fast. A number > 0 and < 10. Default 5.0.",
        "way": "Which way. One of there, back. Default 'there'.",
        "dog": "Whether a dog comes along. Default False.",
        "rest": "How much of it is rest. A number from 0 to 1.",
        "name": "What it is called. Default ''.",
    }
    assert settings_in(Walk)["pace"].default == 1.5
    assert settings_in(Walk)["steps"].default is dataclasses.MISSING


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": -1}, "expected steps to be a whole number >= 0, got -1"),
        ({"steps": True}, "expected steps to be a whole number >= 0, got True"),
        ({"steps": 1.0}, "expected steps to be a whole number >= 0, got 1.0"),
        ({}, "expected steps to be a whole number >= 0, got nothing"),
        ({"steps": 1, "pace": 10}, "expected pace to be a number > 0 and < 10, got 10"),
        ({"steps": 1, "pace": math.nan}, "expected pace to be a number > 0 and < 10, got nan"),
        ({"steps": 1, "pace": "2"}, "expected pace to be a number > 0 and < 10, got '2'"),
        ({"steps": 1, "way": "up"}, "expected way to be one of there, back, got 'up'"),
        ({"steps": 1, "dog": 1}, "expected dog to be true or false, got 1"),
        ({"steps": 1, "rest": 1.5}, "expected rest to be a number from 0 to 1, got 1.5"),
        ({"steps": 1, "name": None}, "expected name to be text, got None"),
        ({"steps": 1, "pase": 2.0}, "there is no setting of Run called 'pase'; did you mean 'pace'?"),
    ],
)
def test_what_is_wrong_is_said_in_our_words(values, message):
    with pytest.raises(SettingsError) as caught:
        Run(**values)
    assert str(caught.value) == message


@with_config(CONFIG)
class Luggage(TypedDict, total=False):
    """What several walks take along."""

    bags: int | None
    """How many
    bags."""
    heavy: bool
    """Whether they are heavy."""


def test_keywords_that_several_functions_share():
    found = settings_in(Luggage)
    assert {name: (each.default, each.allowed, each.text) for name, each in found.items()} == {
        "bags": (None, "a whole number", "How many bags."),
        "heavy": (False, "true or false", "Whether they are heavy."),
    }
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Luggage).validate_python({"heavy": 1})
    assert refusal(caught.value, Luggage) == "expected heavy to be true or false, got 1"
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Luggage).validate_python({"bgas": 1})
    assert refusal(caught.value, Luggage) == "there is no setting of Luggage called 'bgas'; did you mean 'bags'?"


def test_a_message_stays_short():
    with pytest.raises(SettingsError) as caught:
        Run(steps="x" * 10**6)
    assert len(str(caught.value)) < 400


def test_a_setting_is_named_as_it_was_typed():
    with pytest.raises(SettingsError) as caught:
        Walk(steps=1, pace=0.0)
    assert isinstance(caught.value.__cause__, ValidationError)
    told = refusal(caught.value.__cause__, Walk, "--{}".format)
    assert told == "expected --pace to be a number > 0 and < 10, got 0.0"


def test_settings_are_frozen_and_checked_again_when_replaced():
    run = Run(steps=3, rest=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.steps = 4  # type: ignore[misc]
    assert dataclasses.replace(run, steps=4) == Run(steps=4, rest=0.5)
    assert Run(**dataclasses.asdict(run)) == run
    with pytest.raises(SettingsError, match="expected steps"):
        dataclasses.replace(run, steps=-4)
    with pytest.raises(TypeError):
        Run(3)  # type: ignore[misc]


def test_a_number_may_be_given_whole():
    assert isinstance(Walk(steps=1, pace=2).pace, float)
