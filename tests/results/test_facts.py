from __future__ import annotations

import math

import pytest
from helpers_correction import image_answers, neuron_answers, split_model

from crayon_sdk._base.text import one_line
from crayon_sdk.answers.annotations import AnnotationSet, ImageAnswer, SpotAnswer
from crayon_sdk.errors import SettingsError
from crayon_sdk.results.evaluation import Evaluation, GroupResult
from crayon_sdk.results.facts import answer_facts, gather_facts, group_rows, summary


def record(method="attention", pruned=()):
    return {"method": method, "pruned_neurons": list(pruned), "original": "o", "history": []}


def evaluation(predictions, *, grouped=True):
    """Four samples in two groups: labels 0, 0, 1, 1."""
    labels = {"s0": 0, "s1": 0, "s2": 1, "s3": 1}
    right = [predictions[f"s{n}"] == labels[f"s{n}"] for n in range(4)]
    groups = (GroupResult("a/x", sum(right[:2]), 2), GroupResult("b/y", sum(right[2:]), 2))
    return Evaluation(groups, predictions, grouped, labels=labels, membership={"s0": 0, "s1": 0, "s2": 1, "s3": 1})


ALL_ZERO = {"s0": 0, "s1": 0, "s2": 0, "s3": 0}
RIGHT = {"s0": 0, "s1": 0, "s2": 1, "s3": 1}


def facts(answers=None, before=None, after=None, records=None, **more):
    model = split_model()
    model.class_names = ("cat", "d\nog")
    return gather_facts(model, records or [record()], answers or AnnotationSet(), before, after, **more)


def test_three_sentences_with_the_numbers():
    answers = image_answers({"s0": "yes", "s1": "no"}).merge(neuron_answers([1, 2]))
    found = facts(
        answers, evaluation(ALL_ZERO), evaluation(RIGHT), [record("pruning"), record(pruned=[1, 2])],
        evaluated_on="test pictures",
    )  # fmt: skip
    done, measured, trust = summary(found)
    assert done == (
        "What this test_resnet (2 classes: cat, d og) looks at was corrected by CRAYON-Pruning, then CRAYON-Attention "
        f"with 10 yes/no answers about 2 pictures and 2 neurons, and 2 of its {found.num_neurons:,} neurons were cut."
    )
    assert measured == (
        "The accuracy of its worst group went from 0.0 % to 100.0 % (now a/x) and the mean over 2 groups from 50.0 % "
        "to 100.0 % on 4 test pictures."
    )
    assert "+100.0 points (95 % interval +100.0 to +100.0, paired bootstrap), exceeds the noise" in trust


def test_each_is_one_sentence():
    for case in (facts(), facts(before=evaluation(ALL_ZERO), after=evaluation(RIGHT)), facts(after=evaluation(RIGHT))):
        for sentence in summary(case):
            assert sentence.endswith(".")
            assert ". " not in sentence


def test_what_is_lacking_is_said():
    done, measured, trust = summary(facts())
    assert done.endswith("with no answers.")
    assert measured == "The corrected model was not evaluated, so nothing is known about its accuracy."
    assert trust.startswith("Without evaluations before and after")
    _, measured, _ = summary(facts(after=evaluation(ALL_ZERO, grouped=False)))
    assert measured == (
        "Its worst class (b/y) is right in 0.0 % and the mean over 2 classes is 50.0 % on 4 pictures; the model before "
        "was not evaluated."
    )


def test_a_fall_and_noise_are_not_hidden():
    worse = facts(before=evaluation(RIGHT), after=evaluation(ALL_ZERO))
    assert "went from 100.0 % to 0.0 %" in summary(worse)[1]
    assert "-100.0 points" in summary(worse)[2]
    same = facts(before=evaluation(RIGHT), after=evaluation(RIGHT))
    assert "does not exceed the noise" in summary(same)[2]


def test_evaluations_of_other_pictures_are_not_compared():
    other = Evaluation((GroupResult("a/x", 1, 2),), {"z": 0}, labels={"z": 0}, membership={"z": 0})
    assert facts(before=other, after=evaluation(RIGHT)).comparison is None


def test_groups_are_put_side_by_side_by_name():
    first = Evaluation((GroupResult("a", 1, 2), GroupResult("gone", 1, 2)))
    second = Evaluation((GroupResult("b", 2, 2), GroupResult("a", 2, 2)))
    rows = group_rows(first, second)
    assert [(row.name, row.before and row.before.correct, row.after and row.after.correct) for row in rows] == [
        ("b", None, 2),
        ("a", 1, 2),
        ("gone", 1, None),
    ]
    assert group_rows(None, None) == ()


def voted(**words):
    return AnnotationSet(
        ImageAnswer(id=str(number), answer=word, annotator=name, simulated=name.startswith("sim"))
        for name, given in words.items()
        for number, word in enumerate(given)
    )


@pytest.mark.parametrize(
    ("answers", "by"),
    [
        (voted(ann=["yes"]), "1 person"),
        (voted(ann=["yes"], ben=["no"]), "2 people"),
        (voted(sim=["yes"]), "1 simulated annotator, no person"),
        (voted(sim1=["yes"], sim2=["no"]), "2 simulated annotators, no person"),
        (voted(sim=["yes"], ann=["no"]), "2 annotators, of whom some are simulated (1 of 2 answers)"),
    ],
)
def test_who_answered(answers, by):
    assert answer_facts(answers)[0].by == by


def test_agreement_is_that_of_the_set():
    answers = voted(ann=["yes", "no", "yes"], ben=["yes", "yes", "yes"])
    (found,) = answer_facts(answers)
    assert found.agreed == "66.7 % on 3 that were answered twice or more, Cohen's kappa 0.00"
    assert answer_facts(voted(ann=["yes"]))[0].agreed == "nothing was answered twice"
    assert answer_facts(AnnotationSet()) == ()


def test_simulated_answers_are_called_so():
    assert "1 simulated yes/no answer about 1 picture" in summary(facts(voted(sim=["yes"])))[0]
    assert "2 partly simulated yes/no answers" in summary(facts(voted(sim=["yes"], ann=["no"])))[0]


def test_a_correction_needs_a_record():
    with pytest.raises(SettingsError, match="at least one correction"):
        gather_facts(split_model(), [], AnnotationSet())


def test_a_group_without_pictures_is_no_worst_group():
    after = Evaluation((GroupResult("empty", 0, 0), GroupResult("a", 1, 2)))
    assert "worst group (a)" in summary(facts(after=after))[1]
    assert not math.isnan(after.worst_group)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\r\nb", "a b"),
        ("\x00\x1b[0m", "[0m"),
        ("a\u2028b\u200b\u202e", "a b"),
        ("  x  ", "x"),
        ("\ud800", ""),
        (5, "5"),
    ],
)
def test_one_line_is_one_line(name, shown):
    assert one_line(name) == shown


def test_long_names_are_cut_in_the_middle():
    text = one_line("a" * 500 + "END")
    assert len(text) == 120
    assert text.endswith("END")


def test_spots_are_counted_as_spots():
    spots = AnnotationSet(SpotAnswer(id=f"s{n}", answer="no", annotator="sim", simulated=True) for n in range(3))
    assert "3 simulated yes/no answers about 3 bright spots." in summary(facts(spots))[0]
    both = image_answers({"s0": "yes"}).merge(spots)
    assert "5 partly simulated yes/no answers about 1 picture and 3 bright spots." in summary(facts(both))[0]
    assert [each.kind for each in answer_facts(both)] == ["image", "spot"]
    assert [each.what for each in answer_facts(both)] == ["1 picture", "3 bright spots"]
    assert answer_facts(spots)[0].by == "1 simulated annotator, no person"
