"""Answers of people who do not look."""

from __future__ import annotations

from collections import Counter

import pytest

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.controls import control
from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.answers.relevance import CONTROLS
from crayon_sdk.errors import AnswerError, SettingsError


@pytest.fixture
def answers():
    """Two people about forty pictures, one about their spots, and one about six neurons with two patches each."""
    said = AnnotationSet()
    for number in range(40):
        words = ("yes", "yes") if number % 5 else ("no", "yes") if number % 10 else ("no", "no")
        for who, word in zip(("ann", "ben"), words, strict=True):
            said.add(ImageAnswer(id=f"{number}.jpg", answer=word, annotator=who, target=number % 2, model="m"))
        word = "yes" if number % 3 else "no"
        said.add(SpotAnswer(id=f"{number}.jpg", answer=word, annotator="ann", target=number % 2, question="On it?"))
    for neuron in range(6):
        for patch in range(2):
            word = "unsure" if neuron == 0 else "no" if neuron < 3 else "yes"
            said.add(NeuronAnswer(neuron=neuron, patch=patch, id=f"{neuron}.jpg", answer=word, annotator="ann"))
    return said


@pytest.mark.parametrize("kind", CONTROLS)
def test_the_same_questions_are_answered_by_the_same_people(answers, kind):
    made = control(answers, kind)
    for about in (
        lambda each: (each.kind, each.id),
        lambda each: (each.kind, getattr(each, "neuron", None), getattr(each, "patch", None)),
        lambda each: (each.kind, each.annotator),
    ):
        assert Counter(map(about, made)) == Counter(map(about, answers))
    targets = {each.id: each.target for each in answers.image_answers}
    assert all(each.target == targets[each.id] for each in (*made.image_answers, *made.spot_answers))
    assert {each.question for each in made.spot_answers} == {"On it?"}
    assert made.all_simulated
    assert {each.source for each in made} == {f"control:{kind}"}


def test_to_everything(answers):
    assert {each.answer for each in control(answers, "yes")} == {"yes"}
    assert {each.answer for each in control(answers, "no")} == {"no"}


def test_inverted_twice_is_what_it_was(answers):
    once = control(answers, "inverted")
    words = [each.answer for each in answers]
    assert [each.answer for each in control(once, "inverted")] == words
    turned = {"yes": "no", "no": "yes", "unsure": "unsure"}
    assert [each.answer for each in once] == [turned[word] for word in words]


def test_shuffled_keeps_the_verdicts_and_moves_them(answers):
    made = control(answers, "shuffled", seed=3)
    verdicts, moved = answers.image_relevance(), made.image_relevance()
    assert Counter(verdicts.values()) == Counter(moved.values())
    assert verdicts != moved
    spots, other = answers.spot_relevance(), made.spot_relevance()
    assert Counter(spots.values()) == Counter(other.values())
    assert spots != other
    assert Counter(answers.neuron_relevance().values()).total() == len(made.neuron_relevance())
    assert control(answers, "shuffled", seed=3) == made != control(answers, "shuffled", seed=4)


def test_refusals(answers):
    with pytest.raises(SettingsError, match=r"one of yes, no, shuffled, inverted, got 'maybe'"):
        control(answers, "maybe")
    with pytest.raises(AnswerError, match="got none"):
        control(AnnotationSet(), "yes")
