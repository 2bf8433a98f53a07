"""Which class of the data is which class of a model."""

from __future__ import annotations

import pytest

from crayon_sdk.data.classes import checked_class_map, match_classes
from crayon_sdk.errors import SettingsError


def match(data, model, count=None, **options):
    return match_classes(data, model, count or len(model), needed=options.pop("needed", data), **options)


@pytest.mark.parametrize(
    ("data", "model", "numbers"),
    [
        (["bird", "fish"], ["bird", "fish"], [0, 1]),
        (["bird", "fish"], ["fish", "bird"], [1, 0]),
        (["Land_bird", "water bird"], ["Water Bird", "land-bird"], [1, 0]),
        (["bird", "fish"], ["cat", "fish", "bird"], [2, 1]),
        (["0", "1"], ["fish", "bird"], [0, 1]),
        (["-1", "1"], ["fish", "bird"], [0, 1]),
        (["Cat", "cat"], ["cat", "Cat"], [1, 0]),
    ],
)
def test_by_name(data, model, numbers):
    assert match(data, model) == (tuple(model), dict(zip(data, numbers, strict=True)))


@pytest.mark.parametrize("model", [(), ("0", "1"), ("-1", "1")])
def test_a_model_without_names_takes_those_of_the_data(model):
    assert match(["bird", "fish"], model, 2) == (("bird", "fish"), {"bird": 0, "fish": 1})


def test_a_guess_gives_way():
    guessed = ["landbird", "waterbird"]
    assert match(guessed, ["fish", "bird"], guessed=True)[1] == {"landbird": 0, "waterbird": 1}
    assert match(guessed, ["waterbird", "landbird"], guessed=True)[1] == {"landbird": 1, "waterbird": 0}
    with pytest.raises(SettingsError):
        match(guessed, ["fish", "bird"])


@pytest.mark.parametrize(
    ("data", "model", "count", "options"),
    [
        (["bird", "fish"], ["cat", "dog"], 2, {}),
        (["bird", "fish"], ["bird", "dog"], 2, {}),
        (["bird", "fish"], [], 1000, {}),
        (["0", "1"], [], 1000, {}),
        (["0", "1"], ["a", "b", "c"], 3, {}),
        (["bird", "fish"], [], 2, {"class_map": {"bird": 0}}),
        (["Cat", "cat"], ["cat", "dog"], 2, {}),
        (["bird", "fish"], ["fish", "dog"], 2, {"class_map": {"bird": "fish"}}),
        (["crane", "fish"], ["crane", "crane", "fish"], 3, {}),
    ],
)
def test_refused_with_both_lists(data, model, count, options):
    told = f"the data has {len(data)} .*{data[0]}.*, the model .*{model[0] if model else 'without names'}"
    with pytest.raises(SettingsError, match=rf"{told}.*class_map=\{{"):
        match(data, model, count, **options)


def test_what_the_user_says():
    said = {"bird": "fish", "fish": 0}
    assert match(["bird", "fish"], ["bird", "fish"], class_map=said)[1] == {"bird": 1, "fish": 0}
    assert match(["a", "fish"], ["fish", "dog"], class_map={"a": "dog"})[1] == {"a": 1, "fish": 0}
    assert match(["sparrow", "finch"], ["bird", "dog"], class_map={"sparrow": "bird", "finch": "bird"})[1] == {
        "sparrow": 0,
        "finch": 0,
    }
    assert match(["cat", "dog"], [], 4, class_map={"cat": 3, "dog": "1"})[0] == ("0", "dog", "2", "cat")


@pytest.mark.parametrize("given", ["bear", 2, -1])
def test_what_the_model_does_not_have(given):
    with pytest.raises(SettingsError, match="which the model does not have; its classes are 'fish', 'dog', with the"):
        match(["cat", "dog"], ["fish", "dog"], class_map={"cat": given})


def test_only_classes_with_samples_count():
    assert match(["cat", "dog", "cow"], ["dog", "cat"], needed=["cat"])[1]["cat"] == 1
    with pytest.raises(SettingsError, match="'cow' cannot be found"):
        match(["cat", "dog", "cow"], ["dog", "cat"], needed=["cow"])


@pytest.mark.parametrize("given", ["cat", {"cat": 1.5}, {"cat": True}, {"cow": "dog"}])
def test_no_class_map(given):
    with pytest.raises(SettingsError, match="class_map"):
        checked_class_map(given, ["cat", "dog"])
