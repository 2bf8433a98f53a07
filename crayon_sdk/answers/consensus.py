"""Verdicts over all answers: by a rule for each picture's votes, or by a model of how reliable everybody is.

A rule of votes counts everybody the same. A crowd has good people, hasty ones, and some who say yes to everything.
Two rules find that out from the answers alone, by who agrees with whom, and weigh accordingly
([crowd-kit](https://crowd-kit.readthedocs.io) computes them; `pip install '.[crowd]'` in a clone):

| rule | model of a person |
|---|---|
| `dawid-skene` | two error rates: of yes where no is right, and of no where yes is (Dawid and Skene 1979) |
| `mace` | answers right, or spams from an own habit without looking (Hovy et al. 2013) |

Both give a probability of yes for each picture. It stands in the place of the share of yes: above `yes_share` relevant,
below `maybe_share` irrelevant, else mixed. "unsure" abstains, as under `majority` and `share`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from crayon_sdk.answers.relevance import (
    CROWD_RULES,
    Kind,
    NeuronRelevance,
    Relevance,
    Rule,
    Vote,
    check_kind,
    group_votes,
    neuron_relevance_of,
    relevance_of,
)
from crayon_sdk.errors import MissingExtraError, SettingsError, install_extra

__all__ = ["Consensus", "consensus", "image_verdicts", "neuron_verdicts"]

KeyT = TypeVar("KeyT", bound=Hashable)


class _PictureVote(Vote, Protocol):
    @property
    def id(self) -> str: ...


class _NeuronVote(Vote, Protocol):
    @property
    def neuron(self) -> int: ...
    @property
    def patch(self) -> int: ...


class _Answers(Protocol):
    @property
    def image_answers(self) -> Sequence[_PictureVote]: ...
    @property
    def spot_answers(self) -> Sequence[_PictureVote]: ...
    @property
    def neuron_answers(self) -> Sequence[_NeuronVote]: ...


@dataclass(frozen=True)
class Consensus:
    """What a crowd says together.

    Attributes:
        method: "dawid-skene" or "mace".
        yes: Probability of yes in [0, 1] by sample id, or by (neuron, patch); what nobody decided is left out.
        skill: For everybody who decided: the expected share of right answers among their own, in [0, 1].
    """

    method: str
    yes: Mapping[Any, float]
    skill: Mapping[str, float]


def consensus(answers: _Answers, method: Rule = "dawid-skene", *, kind: Kind = "image") -> Consensus:
    """Estimate together what is right and who is reliable.

    Args:
        answers: An `AnnotationSet`; everybody's latest answer to an item counts.
        method: "dawid-skene" or "mace".
        kind: "image", "spot", or "neuron" for patches.

    Returns:
        Probabilities and skills; both are deterministic.

    Raises:
        MissingExtraError: crowd-kit is not installed.
        SettingsError: An unknown method or kind.
    """
    check_kind(kind)
    pairs: Iterable[tuple[Hashable, Vote]]
    if kind == "neuron":
        pairs = (((answer.neuron, answer.patch), answer) for answer in answers.neuron_answers)
    else:
        about_pictures = answers.image_answers if kind == "image" else answers.spot_answers
        pairs = ((answer.id, answer) for answer in about_pictures)
    return _estimated(group_votes(pairs), method)


def image_verdicts(
    votes: Mapping[KeyT, Sequence[Vote]], rule: Rule, *, yes_share: float = 0.7, maybe_share: float = 0.5
) -> dict[KeyT, Relevance]:
    """Judge every picture by the votes about it, or, by a rule for crowds, about all.

    Args:
        votes: For each picture, its votes, from [`group_votes`][crayon_sdk.answers.relevance.group_votes].
        rule: Any rule.
        yes_share: Relevant above this share, or probability, of yes.
        maybe_share: Irrelevant below this one.

    Raises:
        MissingExtraError: The rule needs crowd-kit, and it is not installed.
    """
    if rule not in CROWD_RULES:
        shares = {"yes_share": yes_share, "maybe_share": maybe_share}
        return {key: relevance_of([vote.answer for vote in own], rule, **shares) for key, own in votes.items()}
    yes = _estimated(votes, rule).yes
    # What nobody decided is neither.
    return {key: _verdict(yes.get(key, maybe_share), yes_share, maybe_share) for key in votes}


def neuron_verdicts(
    votes: Mapping[tuple[int, int], Sequence[Vote]], rule: Rule, *, yes_share: float = 0.7, maybe_share: float = 0.5
) -> dict[int, NeuronRelevance]:
    """Judge every neuron by the votes about its patches.

    By a rule for crowds a patch counts as no when no is more probable than yes, and the majority of its patches decides
    about a neuron; in doubt it stays.

    Args:
        votes: For each (neuron, patch), its votes.
        rule: Any rule.
        yes_share: As in `neuron_relevance_of`.
        maybe_share: For "share": irrelevant below this share of yes.

    Raises:
        MissingExtraError: The rule needs crowd-kit, and it is not installed.
    """
    patches: dict[int, list[list[str]]] = {}
    yes = _estimated(votes, rule).yes if rule in CROWD_RULES else None
    for (neuron, patch), own in votes.items():
        words: list[str] = [vote.answer for vote in own]
        if yes is not None:
            words = ["yes" if yes.get((neuron, patch), 1.0) >= 0.5 else "no"]
        patches.setdefault(neuron, []).append(words)
    by: Rule = rule if yes is None else "majority"
    shares = {"yes_share": yes_share, "maybe_share": maybe_share}
    return {neuron: neuron_relevance_of(words, by, **shares) for neuron, words in patches.items()}


def _verdict(yes: float, yes_share: float, maybe_share: float) -> Relevance:
    return "relevant" if yes > yes_share else "mixed" if yes >= maybe_share else "irrelevant"


def _estimated(votes: Mapping[KeyT, Sequence[Vote]], method: str) -> Consensus:
    if method not in CROWD_RULES:
        raise SettingsError(f"expected method to be one of {', '.join(CROWD_RULES)}, got {method!r}")
    model = _model(method)
    keys = list(votes)
    rows = [
        (vote.annotator, row, vote.answer)
        for row, key in enumerate(keys)
        for vote in votes[key]
        if vote.answer != "unsure"
    ]
    if not rows:
        return Consensus(method, MappingProxyType({}), MappingProxyType({}))
    found = _probabilities(model, rows)
    yes = {row: min(max(share, 0.0), 1.0) for row, share in found.items()}
    right: dict[str, list[float]] = {}
    for annotator, row, answer in rows:
        right.setdefault(annotator, []).append(yes[row] if answer == "yes" else 1 - yes[row])
    skill = {annotator: sum(shares) / len(shares) for annotator, shares in right.items()}
    return Consensus(method, MappingProxyType({keys[row]: yes[row] for row in sorted(yes)}), MappingProxyType(skill))


def _model(method: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries that crowd-kit loads
            from crowdkit.aggregation import MACE, DawidSkene
    except ImportError as error:
        raise MissingExtraError(
            f"the rule {method!r} needs crowd-kit, which cannot be loaded ({error}): "
            f"{install_extra('crowd')}, or take a rule of votes (unanimous, majority, share)"
        ) from error
    makers: dict[str, Callable[[], Any]] = {
        "dawid-skene": lambda: DawidSkene(n_iter=100),
        "mace": lambda: MACE(n_restarts=5, random_state=0),
    }
    return makers[method]()


def _probabilities(model: Any, rows: Sequence[tuple[str, int, str]]) -> dict[int, float]:
    """Probability of yes by row; where everybody says one word, that word is right."""
    words = {answer for _, _, answer in rows}
    if len(words) == 1:
        return dict.fromkeys((row for _, row, _ in rows), float("yes" in words))
    import pandas

    table = pandas.DataFrame(rows, columns=["worker", "task", "label"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # crowd-kit calls pandas in ways that it deprecates
        shares = model.fit_predict_proba(table)["yes"]
    return {int(row): float(share) for row, share in shares.items()}
