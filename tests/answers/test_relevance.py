"""Rules and agreement, against hand examples, textbook values and slow independent formulas."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from crayon_sdk.answers.relevance import (
    agreement_of,
    cohens_kappa,
    fleiss_kappa,
    group_votes,
    neuron_relevance_of,
    relevance_of,
)
from crayon_sdk.errors import AnswerError, SettingsError

Y, N, U = "yes", "no", "unsure"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("votes", "unanimous", "majority", "share"),
    [
        ([Y], "relevant", "relevant", "relevant"),
        ([N], "irrelevant", "irrelevant", "irrelevant"),
        ([U], "mixed", "mixed", "mixed"),
        ([Y, Y], "relevant", "relevant", "relevant"),
        ([N, N], "irrelevant", "irrelevant", "irrelevant"),
        ([Y, N], "mixed", "mixed", "mixed"),
        ([Y, U], "mixed", "relevant", "relevant"),
        ([N, U], "mixed", "irrelevant", "irrelevant"),
        ([Y, Y, N], "mixed", "relevant", "mixed"),
        ([Y, N, N], "mixed", "irrelevant", "irrelevant"),
        ([Y] * 7 + [N] * 3, "mixed", "relevant", "mixed"),  # exactly 0.7 is not above 0.7
        ([Y] * 8 + [N] * 3, "mixed", "relevant", "relevant"),
        ([Y] * 5 + [N] * 5, "mixed", "mixed", "mixed"),  # exactly 0.5 is not below 0.5
        ([Y] * 5 + [N] * 6, "mixed", "irrelevant", "irrelevant"),
    ],
)
def test_rules_by_hand(votes, unanimous, majority, share):
    assert relevance_of(votes) == unanimous
    assert relevance_of(votes, "majority") == majority
    assert relevance_of(votes, "share") == share
    assert relevance_of(votes[::-1], "share") == share


def test_share_bounds_can_be_moved():
    assert relevance_of([Y, Y, N], "share", yes_share=0.6, maybe_share=0.6) == "relevant"
    assert relevance_of([Y, N], "share", yes_share=0.6, maybe_share=0.6) == "irrelevant"


def test_share_is_exact_for_every_ratio():
    for total in range(1, 60):
        for yes in range(total + 1):
            # 10 * yes > 7 * total in whole numbers
            expected = "relevant" if 10 * yes > 7 * total else "mixed" if 2 * yes >= total else "irrelevant"
            assert relevance_of([Y] * yes + [N] * (total - yes), "share") == expected


@pytest.mark.parametrize(
    ("patches", "unanimous", "majority", "share"),
    [
        ([[Y], [Y], [N]], "relevant", "relevant", "relevant"),
        ([[Y], [N], [N]], "relevant", "irrelevant", "irrelevant"),
        ([[N], [N], [N]], "irrelevant", "irrelevant", "irrelevant"),
        ([[Y], [N]], "relevant", "relevant", "relevant"),
        ([[U], [N]], "relevant", "relevant", "irrelevant"),
        ([[U], [U], [U]], "relevant", "relevant", "relevant"),
        ([[U], [N], [N]], "relevant", "irrelevant", "irrelevant"),
        # the patches decide, not the number of people who saw one of them
        ([[N, N, N, N, N], [Y], [Y]], "relevant", "relevant", "irrelevant"),
        # a tie about a patch counts for the patch
        ([[Y, N], [N, N], [Y, Y]], "relevant", "relevant", "relevant"),
        ([[Y, N], [N, N]], "relevant", "relevant", "irrelevant"),
    ],
)
def test_neuron_rules_by_hand(patches, unanimous, majority, share):
    assert neuron_relevance_of(patches) == majority
    assert neuron_relevance_of(patches, "unanimous") == unanimous
    assert neuron_relevance_of(patches, "share") == share


def test_neuron_majority_against_all_small_cases():
    for count in (1, 2, 3, 4):
        for votes in itertools.product([Y, N], repeat=count):
            expected = "irrelevant" if votes.count(N) > votes.count(Y) else "relevant"
            assert neuron_relevance_of([[vote] for vote in votes]) == expected


def test_bad_votes_and_settings_are_refused():
    with pytest.raises(AnswerError, match="unknown vote 'maybe'; expected one of yes, no, unsure"):
        relevance_of(["yes", "maybe"])
    with pytest.raises(AnswerError, match="no votes"):
        relevance_of([])
    with pytest.raises(AnswerError, match="no votes"):
        neuron_relevance_of([])
    with pytest.raises(SettingsError, match="rule='all' is unknown; expected one of unanimous, majority, share"):
        relevance_of([Y], "all")
    for bad in ({"yes_share": 1.1}, {"maybe_share": -0.1}, {"yes_share": 0.4}, {"yes_share": float("nan")}):
        with pytest.raises(SettingsError, match="0 <= maybe_share <= yes_share <= 1"):
            relevance_of([Y], "share", **bad)
    with pytest.raises(SettingsError, match=r"got maybe_share=0\.5, yes_share='0.7'"):
        relevance_of([Y], "share", yes_share="0.7")


def vote(answer, annotator, minutes=None):
    time = None if minutes is None else START + timedelta(minutes=minutes)
    return SimpleNamespace(answer=answer, annotator=annotator, time=time)


def test_latest_vote_goes_by_time_where_all_have_one():
    votes = [("a", vote(Y, "ann", 5)), ("a", vote(N, "ann", 3)), ("a", vote(U, "ben", 1))]
    grouped = group_votes(votes)
    assert [one.answer for one in grouped["a"]] == [Y, U]
    assert [one.answer for one in group_votes(votes, latest_only=False)["a"]] == [Y, N, U]


def test_latest_vote_goes_by_order_otherwise():
    assert group_votes([("a", vote(Y, "ann", 5)), ("a", vote(N, "ann"))])["a"][0].answer == N
    assert group_votes([("a", vote(Y, "ann")), ("a", vote(N, "ann"))])["a"][0].answer == N
    assert group_votes([("a", vote(Y, "ann", 5)), ("a", vote(N, "ann", 5))])["a"][0].answer == N


def test_cohens_kappa_by_hand():
    # 20 both yes, 5 yes/no, 10 no/yes, 15 both no: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    first = [Y] * 25 + [N] * 25
    second = [Y] * 20 + [N] * 5 + [Y] * 10 + [N] * 15
    assert cohens_kappa(first, second) == pytest.approx(0.4, abs=1e-15)
    assert cohens_kappa([Y, N], [N, Y]) == -1.0
    assert cohens_kappa([Y, Y], [Y, Y]) is None
    assert cohens_kappa([], []) is None
    assert cohens_kappa([Y, Y], [N, N]) == 0.0
    with pytest.raises(AnswerError, match="got 1 and 2 answers"):
        cohens_kappa([Y], [Y, N])


def test_fleiss_kappa_of_the_textbook():
    # Fleiss (1971)-style table: 10 items, 14 raters, 5 categories; kappa = 0.210
    table = [
        (0, 0, 0, 0, 14),
        (0, 2, 6, 4, 2),
        (0, 0, 3, 5, 6),
        (0, 3, 9, 2, 0),
        (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0),
        (3, 2, 6, 3, 0),
        (2, 5, 3, 2, 2),
        (6, 5, 2, 1, 0),
        (0, 2, 2, 3, 7),
    ]
    votes = [[str(word) for word, number in enumerate(row) for _ in range(number)] for row in table]
    assert fleiss_kappa(votes) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa([[Y, Y], [Y, Y]]) is None
    assert fleiss_kappa([]) is None
    with pytest.raises(AnswerError, match="between 2 and 3"):
        fleiss_kappa([[Y, Y], [Y, Y, N]])
    with pytest.raises(AnswerError, match="at least 2"):
        fleiss_kappa([[Y], [N]])


def slow_cohen(first, second):
    total = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / total
    chance = sum(a == b for a in first for b in second) / total**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def slow_fleiss(votes):
    """Straight from the definition: agreement of pairs within items against pairs drawn from all votes."""
    within = [
        sum(a == b for a, b in itertools.permutations(own, 2)) / len(list(itertools.permutations(own, 2)))
        for own in votes
    ]
    everything = list(itertools.chain.from_iterable(votes))
    chance = sum((number / len(everything)) ** 2 for number in Counter(everything).values())
    return None if len(set(everything)) == 1 else (sum(within) / len(within) - chance) / (1 - chance)


def test_kappas_against_slow_formulas():
    dice = random.Random(7)
    for _ in range(200):
        items, people = dice.randint(1, 12), dice.randint(2, 5)
        votes = [dice.choices([Y, N, U], weights=[5, 3, 1], k=people) for _ in range(items)]
        assert fleiss_kappa(votes) == pytest.approx(slow_fleiss(votes), abs=1e-12)
        first, second = [own[0] for own in votes], [own[1] for own in votes]
        assert cohens_kappa(first, second) == pytest.approx(slow_cohen(first, second), abs=1e-12)


def test_agreement_chooses_the_kappa_that_fits():
    two = [{"ann": Y, "ben": Y}, {"ann": N, "ben": Y}, {"ben": N, "ann": N}, {"ann": U}]
    result = agreement_of(two)
    assert (result.kappa_kind, result.items, result.annotators, result.kind) == ("cohen", 3, 2, "image")
    assert result.percent == pytest.approx(200 / 3)
    # p_o = 2/3, ann: 1 yes 2 no, ben: 2 yes 1 no -> p_e = 4/9 -> kappa = (6/9 - 4/9) / (5/9)
    assert result.kappa == pytest.approx(0.4)

    crowd = [{"a": Y, "b": Y}, {"b": N, "c": N}, {"a": Y, "c": N}, {"a": N, "b": N}]
    result = agreement_of(crowd, kind="neuron")
    assert (result.kappa_kind, result.items, result.annotators, result.kind) == ("fleiss", 4, 3, "neuron")
    assert result.kappa == pytest.approx(slow_fleiss([list(item.values()) for item in crowd]))

    uneven = [{"a": Y, "b": Y, "c": N}, {"a": Y, "b": Y}]
    result = agreement_of(uneven)
    assert (result.kappa_kind, result.kappa, result.items) == (None, None, 2)
    assert result.percent == pytest.approx(100 * (1 / 3 + 1) / 2)

    alike = agreement_of([{"a": Y, "b": Y}, {"a": Y, "b": Y}])
    assert (alike.percent, alike.kappa, alike.kappa_kind) == (100.0, None, "cohen")
    nothing = agreement_of([{"a": Y}])
    assert (nothing.percent, nothing.kappa, nothing.items, nothing.annotators) == (None, None, 0, 0)
