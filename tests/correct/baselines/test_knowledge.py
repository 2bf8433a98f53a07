"""A task with a known shortcut: whoever is told where the object is, or which group is which, beats further
training."""

from __future__ import annotations

import pytest
from helpers_objects import said, small_network, tagged_pictures

from crayon_sdk.correct import methods
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.results.evaluation import evaluate

ORIGINAL = {"epochs": 6, "batch_size": 24, "lr": 5e-3, "average_decay": 0.0, "device": "cpu"}


def worst(model, dataset):
    return evaluate(model, dataset).summary()["worst_group"]


@pytest.fixture(scope="module")
def hidden():
    """The tag always says the class: only masks tell that it is not the object."""
    train, test = tagged_pictures(240, follows=1.0), tagged_pictures(160, seed=2)
    model = methods["erm"](small_network(), **ORIGINAL).fit(train).model
    further = methods["erm"](model, **ORIGINAL | {"epochs": 8}).fit(train).model
    return model, train, test, worst(further, test)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rrr", {"weight": 10.0}),
        ("gradmask", {"weight": 0.05}),
        ("actdiff", {"weight": 2.0}),
        ("boundingbox", {"weight": 10.0}),
        ("gradia", {"attention_weight": 20.0}),
    ],
)
def test_masks_beat_further_training(hidden, name, settings):
    model, train, test, further = hidden
    assert further < 0.3
    given = {}
    if name == "gradia":
        given = {"maps": Explainer(model, device="cpu").explain(train), "answers": said(dict.fromkeys(train.ids, "no"))}
    found = methods[name](model, **ORIGINAL | {"epochs": 8} | settings).fit(train, **given)
    assert found.record.counts["masks"] == 240
    assert worst(found.model, test) > further + 0.4


@pytest.fixture(scope="module")
def rare():
    """A few pictures have a tag of the other class."""
    train, test = tagged_pictures(240, follows=0.98, contrast=0.5), tagged_pictures(160, contrast=0.5, seed=2)
    held_out = tagged_pictures(120, contrast=0.5, seed=1)
    model = methods["erm"](small_network(), **ORIGINAL).fit(train).model
    further = methods["erm"](model, **ORIGINAL | {"epochs": 3, "lr": 1e-3}).fit(train).model
    return model, train, held_out, test, worst(further, test)


@pytest.mark.parametrize(
    ("name", "settings", "gain"),
    [
        ("groupdro", {"epochs": 3, "lr": 1e-3, "batch_size": 24, "average_decay": 0.0}, 0.4),
        ("dfr", {}, 0.4),
        ("dfr-tr", {}, 0.3),
        ("evals", {}, 0.4),
        ("afr", {"gamma": 2.0}, 0.4),
    ],
)
def test_groups_and_held_out_pictures_beat_further_training(rare, name, settings, gain):
    model, train, held_out, test, further = rare
    kind = methods[name]
    given = {"evaluate_on": held_out} if "holdout" in kind.needs else {}
    if "groups" not in kind.needs:  # it does not look at them
        train = tagged_pictures(240, follows=0.98, contrast=0.5, groups=False)
    if "holdout groups" not in kind.needs and given:
        given = {"evaluate_on": tagged_pictures(120, contrast=0.5, seed=1, groups=False)}
    found = kind(model, device="cpu", **settings).fit(train, **given)
    assert worst(found.model, test) > further + gain
