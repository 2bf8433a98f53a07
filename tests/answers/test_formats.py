"""The authors' published lists: read, counted and written back."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.formats import from_published, to_published, to_published_neurons, write_answers
from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.errors import AnswerError, FileFormatError, MismatchError, SettingsError


@pytest.mark.parametrize(
    ("name", "yes", "maybe", "no"),
    [
        ("waterbirds", 3414, 1229, 152),
        ("biased_celeba", 5207, 4779, 10214),
        ("background", 2417, 42799, 189),
    ],
)
def test_published_images(shared, name, yes, maybe, no):
    path = shared / "reference" / "annotations" / f"{name}_gradcam.json"
    published = json.loads(path.read_text())
    ids = [f"{position:05}.jpg" for position in range(len(published))]
    answers = from_published(path, ids)
    assert len(answers) == 2 * len(ids)
    relevance = answers.image_relevance()
    assert list(relevance) == ids
    assert Counter(relevance.values()) == {"relevant": yes, "mixed": maybe, "irrelevant": no}
    assert to_published(answers, ids) == published
    assert to_published(answers, ids[::-1]) == published[::-1]
    assert answers.annotators == ("published-1", "published-2")
    assert not answers.is_simulated


@pytest.mark.parametrize(("name", "irrelevant"), [("waterbirds", 1034), ("biased_celeba", 1925), ("background", 407)])
def test_published_neurons(shared, name, irrelevant):
    path = shared / "reference" / "annotations" / f"{name}_neuron.json"
    answers = from_published(str(path))
    relevance = answers.neuron_relevance()
    assert len(answers) == len(relevance) == 2048
    assert Counter(relevance.values())["irrelevant"] == irrelevant
    assert to_published_neurons(answers, 2048) == json.loads(path.read_text())


def test_each_word_by_every_rule():
    answers = from_published(["yes", "maybe", "no"], ["a", "b", "c"], annotator="we")
    for rule in ("unanimous", "majority", "share"):
        assert to_published(answers, ["a", "b", "c"], rule=rule) == ["yes", "maybe", "no"]
    assert [(one.id, one.annotator, one.answer) for one in answers.image_answers][2:4] == [
        ("b", "we-1", "yes"),
        ("b", "we-2", "no"),
    ]


def test_wrong_length_and_ids_are_a_mismatch():
    with pytest.raises(MismatchError, match=r"answers for 2 images, the data set has 3.*same order"):
        from_published(["yes", "no"], ["a", "b", "c"])
    with pytest.raises(MismatchError, match="must be unique; 1 come more than once: 'a'"):
        from_published(["yes", "no"], ["a", "a"])
    with pytest.raises(SettingsError, match="pass the sample ids"):
        from_published(["yes", "no"])
    with pytest.raises(AnswerError, match="'id'"):
        from_published(["yes"], [""])


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="no file at"):
        from_published(tmp_path / "none.json", [])
    path = tmp_path / "one.json"
    path.write_text('{"a": "yes"}')
    with pytest.raises(FileFormatError, match=r"one\.json'.*expected a JSON list.*got an object"):
        from_published(path, ["a"])
    path.write_text('["yes", "perhaps"]')
    with pytest.raises(FileFormatError, match="position 1: expected yes, maybe or no, got 'perhaps'"):
        from_published(path, ["a", "b"])
    with pytest.raises(FileFormatError, match="position 1: expected true or false, got 1"):
        from_published([True, 1])
    with pytest.raises(FileFormatError, match=r"position 1: expected yes, maybe or no, got \['no'\]"):
        from_published(["yes", ["no"]], ["a", "b"])
    path.write_text('["yes", ')
    with pytest.raises(FileFormatError, match="not a readable JSON file"):
        from_published(path, ["a"])


def test_writing_refuses_what_has_no_word():
    answers = AnnotationSet([ImageAnswer(id="a", answer="yes", annotator="ann")])
    with pytest.raises(MismatchError, match="1 of 2 images have no answer: 'b'"):
        to_published(answers, ["a", "b"])
    assert to_published(answers, ["a", "b"], missing="maybe") == ["yes", "maybe"]
    with pytest.raises(MismatchError, match="1 images that are not in the data set"):
        to_published(answers, ["b"])
    with pytest.raises(MismatchError, match="must be unique"):
        to_published(answers, ["a", "a"])
    with pytest.raises(SettingsError, match="missing='no' is unknown; expected 'error' or 'maybe'"):
        to_published(answers, ["a"], missing="no")
    neurons = AnnotationSet([NeuronAnswer(neuron=1, patch=0, answer="no", annotator="ann")])
    with pytest.raises(MismatchError, match="2 of 3 neurons have no answer: 0, 2"):
        to_published_neurons(neurons, 3)
    assert to_published_neurons(neurons, 3, missing="relevant") == [True, False, True]
    with pytest.raises(MismatchError, match="neurons the model does not have"):
        to_published_neurons(neurons, 1)


def test_empty_lists_are_empty_sets():
    assert len(from_published([], [])) == 0
    assert to_published(AnnotationSet(), []) == []


def test_spots_have_no_place_in_the_published_lists(tmp_path, caplog):
    answers = AnnotationSet(
        [
            ImageAnswer(id="a", answer="yes", annotator="ann"),
            SpotAnswer(id="a", answer="no", annotator="ann"),
            SpotAnswer(id="elsewhere", answer="no", annotator="ann"),
            NeuronAnswer(neuron=0, patch=0, answer="no", annotator="ann"),
        ]
    )
    assert to_published(answers, ["a"]) == ["yes"]
    assert to_published_neurons(answers, 1) == [False]
    write_answers(answers, tmp_path / "p.json", "published", ["a"])
    assert json.loads((tmp_path / "p.json").read_text()) == ["yes"]
    assert "2 answers about spots are left out" in caplog.text
    caplog.clear()
    write_answers(answers.only("image"), tmp_path / "p.json", "published", ["a"])
    assert caplog.text == ""
    with pytest.raises(MismatchError, match="1 of 1 images have no answer"):
        to_published(answers.only("spot"), ["a"])
