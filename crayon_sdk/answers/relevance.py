"""From votes to verdicts, and how far the voters agree: pure functions, no files, no state.

An answer is a fact; whether an image, a spot or a neuron counts as relevant is a
verdict over all answers about it, by a named rule:

| rule | relevant | irrelevant | mixed |
|---|---|---|---|
| `unanimous` | every vote is yes | every vote is no | anything else, one "unsure" included |
| `majority` | more yes than no | more no than yes | as many |
| `share` | share of yes > 0.7 | share of yes < 0.5 | between, bounds included |

Under `majority` and `share` "unsure" abstains: it is neither yes nor no. When
nobody decided, the verdict is mixed. A neuron is never mixed: what would be,
is relevant, so that doubt never removes a neuron.

Two more rules, `dawid-skene` and `mace`, judge all votes together and weigh people
by how reliable they seem: [`crayon_sdk.answers.consensus`][crayon_sdk.answers.consensus].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Literal, Protocol, TypeVar, get_args

from crayon_sdk.errors import AnswerError, SettingsError

__all__ = [
    "CONTROLS",
    "CROWD_RULES",
    "KINDS",
    "RULES",
    "Agreement",
    "Control",
    "agreement_of",
    "check_kind",
    "check_rule",
    "cohens_kappa",
    "fleiss_kappa",
    "group_votes",
    "neuron_relevance_of",
    "relevance_of",
    "verdict_of",
]

Answer = Literal["yes", "no", "unsure"]
Kind = Literal["image", "neuron", "spot"]
"""What answers are about: highlights of pictures, patches of neurons, or the brightest spots of highlights."""
Rule = Literal["unanimous", "majority", "share", "dawid-skene", "mace"]
Relevance = Literal["relevant", "irrelevant", "mixed"]
NeuronRelevance = Literal["relevant", "irrelevant"]
Control = Literal["yes", "no", "shuffled", "inverted"]
"""What people say who do not look; see [`control`][crayon_sdk.answers.controls.control]."""

ANSWERS = ("yes", "no", "unsure")
CONTROLS: tuple[Control, ...] = get_args(Control)
KINDS: tuple[Kind, ...] = get_args(Kind)
CROWD_RULES = ("dawid-skene", "mace")
RULES = ("unanimous", "majority", "share", *CROWD_RULES)


class Vote(Protocol):
    """What an answer must have to be counted."""

    @property
    def answer(self) -> Answer:
        """What was answered."""

    @property
    def annotator(self) -> str:
        """Who answered."""

    @property
    def time(self) -> datetime | None:
        """When, if it is known."""


KeyT = TypeVar("KeyT", bound=Hashable)
VoteT = TypeVar("VoteT", bound=Vote)


def relevance_of(
    votes: Sequence[str], rule: Rule = "unanimous", *, yes_share: float = 0.7, maybe_share: float = 0.5
) -> Relevance:
    """Judge one image by the votes about it.

    Args:
        votes: At least one of "yes", "no", "unsure".
        rule: "unanimous", "majority" or "share"; see the table above.
        yes_share: For "share": relevant above this share of yes, in [0, 1].
        maybe_share: For "share": irrelevant below this share, in [0, yes_share].

    Returns:
        "relevant", "irrelevant" or "mixed".

    Raises:
        SettingsError: An unknown rule, or a share out of its range.
        AnswerError: No votes, or a vote that is none of the three words.

    >>> relevance_of(["yes", "yes"]), relevance_of(["yes", "no"])
    ('relevant', 'mixed')
    >>> relevance_of(["yes", "yes", "no"], "share")
    'mixed'
    """
    check_rule(rule, yes_share=yes_share, maybe_share=maybe_share)
    if rule in CROWD_RULES:
        raise SettingsError(f"rule={rule!r} judges all pictures together: use AnnotationSet.image_relevance")
    return verdict_of(*_count(votes), rule, yes_share=yes_share, maybe_share=maybe_share)


def verdict_of(
    yes: int, no: int, unsure: int, rule: Rule, *, yes_share: float = 0.7, maybe_share: float = 0.5
) -> Relevance:
    """Judge one image by how many votes of each kind there are; rule and shares are checked, there is a vote.

    >>> verdict_of(2, 1, 0, "majority")
    'relevant'
    """
    if rule == "unanimous":
        if unsure or (yes and no):
            return "mixed"
        return "relevant" if yes else "irrelevant"
    if yes + no == 0:
        return "mixed"
    if rule == "majority":
        return "mixed" if yes == no else "relevant" if yes > no else "irrelevant"
    share = yes / (yes + no)
    return "relevant" if share > yes_share else "mixed" if share >= maybe_share else "irrelevant"


def neuron_relevance_of(
    patch_votes: Sequence[Sequence[str]],
    rule: Rule = "majority",
    *,
    yes_share: float = 0.7,
    maybe_share: float = 0.5,
) -> NeuronRelevance:
    """Judge one neuron by the votes about its patches.

    With "majority" each patch is judged first and the neuron by the majority of
    its patches; a tie is relevant at both steps. "unanimous" (irrelevant only
    if every single vote is no) and "share" count all votes together.

    Args:
        patch_votes: For each patch, its votes: "yes", "no" or "unsure".
        rule: "majority", "unanimous" or "share".
        yes_share: As in [`relevance_of`][crayon_sdk.answers.relevance.relevance_of].
        maybe_share: For "share": irrelevant below this share of yes.

    Returns:
        "relevant" or "irrelevant".

    Raises:
        SettingsError: An unknown rule, or a share out of its range.
        AnswerError: No votes, or a vote that is none of the three words.

    >>> neuron_relevance_of([["no"], ["no"], ["yes"]]), neuron_relevance_of([["no"], ["yes"]])
    ('irrelevant', 'relevant')
    """
    if rule == "majority":
        verdicts = [relevance_of(votes, "majority") for votes in patch_votes]
        together = ["no" if verdict == "irrelevant" else "yes" for verdict in verdicts]
    else:
        together = [vote for votes in patch_votes for vote in votes]
    verdict = relevance_of(together, rule, yes_share=yes_share, maybe_share=maybe_share)
    return "irrelevant" if verdict == "irrelevant" else "relevant"


def check_rule(rule: str, *, yes_share: float = 0.7, maybe_share: float = 0.5, min_votes: int = 1) -> None:
    """Refuse a rule that does not exist, or settings out of their range.

    Raises:
        SettingsError: It says which, and what is allowed.
    """
    if rule not in RULES:
        raise SettingsError(f"rule={rule!r} is unknown; expected one of {', '.join(RULES)}")
    try:
        shares_fit, enough = 0 <= maybe_share <= yes_share <= 1, min_votes >= 1
    except TypeError:
        shares_fit = enough = False
    if not (shares_fit and enough):
        raise SettingsError(
            "expected numbers with 0 <= maybe_share <= yes_share <= 1 and min_votes >= 1, "
            f"got maybe_share={maybe_share!r}, yes_share={yes_share!r}, min_votes={min_votes!r}"
        )


def check_kind(kind: str) -> None:
    """Refuse a kind of answer that does not exist.

    Raises:
        SettingsError: It is none of "image", "neuron" and "spot".
    """
    if kind not in KINDS:
        raise SettingsError(f"kind={kind!r} is unknown; expected 'image', 'neuron' or 'spot'")


def _count(votes: Sequence[str]) -> tuple[int, int, int]:
    counts = Counter(votes)
    unknown = sorted(repr(vote) for vote in counts if vote not in ANSWERS)
    if unknown:
        raise AnswerError(f"unknown vote {unknown[0]}; expected one of {', '.join(ANSWERS)}")
    if not counts:
        raise AnswerError("no votes to judge by; leave what nobody answered out")
    return counts["yes"], counts["no"], counts["unsure"]


def group_votes(votes: Iterable[tuple[KeyT, VoteT]], *, latest_only: bool = True) -> dict[KeyT, list[VoteT]]:
    """Collect the votes about each item, in order.

    Args:
        votes: Pairs of an item and a vote about it.
        latest_only: Count one vote per annotator and item. The later one is the
            one with the later `time` where all of them have one, else the one
            that comes later in order.

    Returns:
        Item -> votes, items in the order in which they first appear.
    """
    by_voter: dict[KeyT, dict[str, list[VoteT]]] = {}
    together: dict[KeyT, list[VoteT]] = {}
    for key, vote in votes:
        together.setdefault(key, []).append(vote)
        by_voter.setdefault(key, {}).setdefault(vote.annotator, []).append(vote)
    if not latest_only:
        return together
    return {key: [_latest(own) for own in voters.values()] for key, voters in by_voter.items()}


def _latest(votes: list[VoteT]) -> VoteT:
    chosen, latest = votes[0], votes[0].time
    for vote in votes[1:]:
        if vote.time is None or latest is None:
            return votes[-1]
        if vote.time >= latest:
            chosen, latest = vote, vote.time
    return chosen


@dataclass(frozen=True)
class Agreement:
    """How far annotators agree, over the items that at least two of them answered.

    Attributes:
        kind: "image", "spot" or "neuron" (there an item is one patch of one neuron).
        percent: Agreeing pairs of answers per item in per cent, averaged over
            the items, in [0, 100]; None without any item.
        kappa: Agreement beyond chance, at most 1. None where it is undefined:
            no item, everybody always gave the same answer, or more than two
            annotators with unequal numbers of answers per item.
        kappa_kind: "cohen" (exactly two annotators) or "fleiss" (more, with
            the same number of answers for each item); None if neither applies.
        items: Number of items that were compared.
        annotators: Number of annotators who answered one of them.
    """

    kind: Kind
    percent: float | None
    kappa: float | None
    kappa_kind: Literal["cohen", "fleiss"] | None
    items: int
    annotators: int


def agreement_of(items: Iterable[Mapping[str, str]], *, kind: Kind = "image") -> Agreement:
    """Measure agreement; "unsure" is an answer of its own here.

    Args:
        items: For each item, annotator -> answer. Items with fewer than two
            answers say nothing about agreement and are passed over.
        kind: Written into the result.

    Returns:
        Per cent agreement, and Cohen's or Fleiss' kappa.

    >>> agreement_of([{"ann": "yes", "ben": "yes"}, {"ann": "no", "ben": "yes"}]).percent
    50.0
    """
    # Few items are unlike all others: what is alike is counted, and worked out once.
    names: set[str] = set()
    profiles: Counter[tuple[str, ...]] = Counter()
    of_two: Counter[tuple[tuple[str, str], ...]] = Counter()
    for item in items:
        if len(item) >= 2:
            names.update(item)
            profiles[tuple(sorted(item.values()))] += 1
            if len(names) == 2:
                of_two[tuple(sorted(item.items()))] += 1
    total = profiles.total()
    if not total:
        return Agreement(kind=kind, percent=None, kappa=None, kappa_kind=None, items=0, annotators=0)
    percent = 100 * _mean_agreement(profiles)
    kappa: float | None = None
    kappa_kind: Literal["cohen", "fleiss"] | None = None
    if len(names) == 2:
        kappa_kind = "cohen"
        kappa = _cohen(Counter({(first[1], second[1]): number for (first, second), number in of_two.items()}))
    elif len({len(own) for own in profiles}) == 1:
        kappa_kind = "fleiss"
        kappa = _fleiss(profiles)
    return Agreement(
        kind=kind,
        percent=float(percent),
        kappa=kappa,
        kappa_kind=kappa_kind,
        items=total,
        annotators=len(names),
    )


def _mean_agreement(profiles: Counter[tuple[str, ...]]) -> Fraction:
    return sum((number * _agreeing_pairs(own) for own, number in profiles.items()), Fraction(0)) / profiles.total()


def _agreeing_pairs(votes: Sequence[str]) -> Fraction:
    """Share of the pairs of votes that agree."""
    same = sum(number * (number - 1) for number in Counter(votes).values())
    return Fraction(same, len(votes) * (len(votes) - 1))


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Compute Cohen's kappa of two annotators: (p_o - p_e) / (1 - p_e).

    Args:
        first: Answers of one annotator, any categories.
        second: Answers of the other to the same items, in the same order.

    Returns:
        At most 1; None without items or where p_e is 1 (both always gave the same one answer).

    Raises:
        AnswerError: The two have different lengths.

    >>> cohens_kappa(["yes", "no", "no"], ["yes", "no", "no"])
    1.0
    """
    if len(first) != len(second):
        raise AnswerError(f"expected answers to the same items, got {len(first)} and {len(second)} answers")
    return _cohen(Counter(zip(first, second, strict=True)))


def _cohen(answers: Counter[tuple[str, str]]) -> float | None:
    # In whole numbers, so that "undefined" is a fact and not a matter of rounding.
    agreeing = sum(number for (one, other), number in answers.items() if one == other)
    ones: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for (one, other), number in answers.items():
        ones[one] += number
        others[other] += number
    by_chance = sum(number * others[name] for name, number in ones.items())
    total = answers.total()
    if total * total == by_chance:
        return None
    return float(Fraction(total * agreeing - by_chance, total * total - by_chance))


def fleiss_kappa(votes: Sequence[Sequence[str]]) -> float | None:
    """Compute Fleiss' kappa: (mean P_i - P_e) / (1 - P_e).

    Args:
        votes: For each item its answers, any categories; the same number (at
            least two) for each item, not necessarily from the same people.

    Returns:
        At most 1; None without items or where P_e is 1 (only one answer was ever given).

    Raises:
        AnswerError: The numbers of answers differ, or are below two.

    >>> fleiss_kappa([["yes", "yes", "yes"], ["no", "no", "no"]])
    1.0
    """
    sizes = {len(own) for own in votes}
    if not sizes:
        return None
    if len(sizes) > 1 or min(sizes) < 2:
        raise AnswerError(
            "Fleiss' kappa needs the same number of answers, at least 2, for each item; "
            f"got between {min(sizes)} and {max(sizes)}"
        )
    return _fleiss(Counter(tuple(sorted(own)) for own in votes))


def _fleiss(profiles: Counter[tuple[str, ...]]) -> float | None:
    totals: Counter[str] = Counter()
    for own, number in profiles.items():
        for vote, times in Counter(own).items():
            totals[vote] += times * number
    by_chance = Fraction(sum(number**2 for number in totals.values()), totals.total() ** 2)
    if by_chance == 1:
        return None
    return float((_mean_agreement(profiles) - by_chance) / (1 - by_chance))
