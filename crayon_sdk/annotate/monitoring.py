"""What the owner of a round of answering looks at: who is how far, how far people agree, what looks careless."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from crayon_sdk.annotate.store import Row

__all__ = ["HASTY_SECONDS", "LONG_RUN", "PersonFacts", "disagreements", "people"]

HASTY_SECONDS = 0.2
"""Below it nobody has looked."""

LONG_RUN = 25
"""Answers of one kind in a row that are worth a look."""

_RECENT = timedelta(minutes=10)


@dataclass(frozen=True)
class PersonFacts:
    """One person's answers.

    Attributes:
        person: Name.
        answers: How many count.
        yes: Share of yes among yes and no, in [0, 1]; ``None`` without either.
        unsure: Share of unsure, in [0, 1].
        median_seconds: Median time of an answer; ``None`` when none is known. A page of the grid counts as
            its time over its pictures.
        per_minute: Answers per minute, over the last ten minutes with answers of this person.
        hasty: Answers given one by one in less than `HASTY_SECONDS`.
        longest_run: Most answers of one kind in a row, given one by one.
        flags: What is worth a look, in words.
    """

    person: str
    answers: int
    yes: float | None
    unsure: float
    median_seconds: float | None
    per_minute: float | None
    hasty: int
    longest_run: int
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self) | {"flags": list(self.flags)}


def people(rows: Iterable[Row]) -> list[PersonFacts]:
    """Facts about everybody who answered, most answers first.

    Args:
        rows: The answers that count, oldest first.

    Example:
        >>> rows = [Row(str(n), str(n), "ann", "yes", 0.1, "annotate", "2026-01-01T12:00:00+00:00") for n in range(30)]
        >>> people(rows)[0].flags
        ('30 answers under 0.2 s', '30 times yes in a row')
    """
    own: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        own[row.person].append(row)
    return sorted((_facts(name, given) for name, given in own.items()), key=lambda each: (-each.answers, each.person))


def _facts(name: str, given: Sequence[Row]) -> PersonFacts:
    words = Counter(row.answer for row in given)
    decided = words["yes"] + words["no"]
    times = [row.seconds for row in given if row.seconds is not None]
    # On a page of the grid everything is yes until it is clicked: neither haste nor a run.
    singly = [row for row in given if row.source != "grid"]
    hasty = sum(row.seconds is not None and row.seconds < HASTY_SECONDS for row in singly)
    runs = [(word, len(list(run))) for word, run in groupby(row.answer for row in singly)]
    kind, longest = max(runs, key=lambda run: run[1], default=("", 0))
    flags = [f"{hasty} answer{'s' * (hasty > 1)} under {HASTY_SECONDS:g} s"] if hasty else []
    flags += [f"{longest} times {kind} in a row"] if longest >= LONG_RUN else []
    return PersonFacts(
        person=name,
        answers=len(given),
        yes=words["yes"] / decided if decided else None,
        unsure=words["unsure"] / len(given),
        median_seconds=statistics.median(times) if times else None,
        per_minute=_pace(given),
        hasty=hasty,
        longest_run=longest,
        flags=tuple(flags),
    )


def _pace(given: Sequence[Row]) -> float | None:
    moments = sorted(datetime.fromisoformat(row.time) for row in given)
    recent = [moment for moment in moments if moment >= moments[-1] - _RECENT]
    passed = (recent[-1] - recent[0]).total_seconds() / 60
    return (len(recent) - 1) / passed if passed > 0 else None


def disagreements(rows: Iterable[Row]) -> dict[str, dict[str, str]]:
    """Tasks that one person answered with yes and another with no, the latest first: task -> person -> answer.

    Example:
        >>> given = [("1", "t", "ann", "yes"), ("2", "t", "ben", "no"), ("3", "s", "ann", "no")]
        >>> disagreements(Row(*row, None, "annotate", "") for row in given)
        {'t': {'ann': 'yes', 'ben': 'no'}}
    """
    said: dict[str, dict[str, str]] = {}
    for row in rows:
        said[row.task] = {**said.pop(row.task, {}), row.person: row.answer}
    split = {task: own for task, own in said.items() if {"yes", "no"} <= set(own.values())}
    return dict(reversed(split.items()))
