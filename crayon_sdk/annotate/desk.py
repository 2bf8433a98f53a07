"""Who gets what next: until every task has its votes, never twice to one person."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Desk"]


class Desk:
    """Hands tasks out in order, and takes those back that nobody answered. Not for many threads at once.

    Args:
        tasks: Ids, in the order in which they are asked.
        votes: How many people are to answer each, at least 1.
        limit: How many of them are asked, those that somebody has answered already included; ``None`` for all.
        voters: Who answered what already.
        hold: Seconds after which a task that was handed out and not answered is free again.
        clock: Seconds that only grow.

    Example:
        >>> desk = Desk(["a", "b"], votes=1)
        >>> desk.hand_out("ann", 1), desk.hand_out("ben", 5)
        (['a'], ['b'])
        >>> desk.answered("a", "ann")
        >>> desk.left("ann"), desk.done
        (1, 1)
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        votes: int = 1,
        limit: int | None = None,
        voters: Mapping[str, Iterable[str]] | None = None,
        hold: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.votes = votes
        self._hold, self._clock = hold, clock
        self._voters: dict[str, set[str]] = {task: set() for task in tasks}
        self._holders: dict[str, dict[str, float]] = {}
        self._open = dict.fromkeys(tasks)
        self._limit = len(self._voters) if limit is None else min(limit, len(self._voters))
        self._begun = 0  # tasks that somebody has answered
        self._own: Counter[str] = Counter()  # tasks that a person has answered
        self._own_open: Counter[str] = Counter()  # those of them that are open
        for task, people in (voters or {}).items():
            for person in people:
                self.answered(task, person)

    def __contains__(self, task: str) -> bool:
        return task in self._voters

    def __len__(self) -> int:
        """How many are asked."""
        return max(self._limit, self._begun)

    @property
    def done(self) -> int:
        """Tasks that have all their votes."""
        return len(self._voters) - len(self._open)

    def voters(self, task: str) -> frozenset[str]:
        """Who answered a task."""
        return frozenset(self._voters[task])

    def given(self, person: str) -> int:
        """How many tasks a person has answered."""
        return self._own[person]

    def left(self, person: str) -> int:
        """How many open tasks a person has not answered, whoever holds them at the moment."""
        return len(self) - self.done - self._own_open[person]

    def hand_out(self, person: str, count: int, held: Sequence[str] = ()) -> list[str]:
        """Give a person tasks to answer.

        Args:
            person: Who asks.
            count: How many more.
            held: What the person has at hand already: those are held on (again, after a restart), and not
                handed out once more.

        Returns:
            At most ``count`` ids: open, not answered by the person, not held by as many others as are needed.
        """
        until = self._clock() + self._hold
        for task in held:
            if self._is_free(task, person):
                self._holders.setdefault(task, {})[person] = until
        kept = set(held)
        given: list[str] = []
        fresh = self._limit - self._begun - sum(self._is_held(task) for task in list(self._holders))
        for task in self._open:
            if len(given) >= count:
                break
            new = not self._voters[task] and not self._is_held(task)
            if task not in kept and (fresh > 0 or not new) and self._is_free(task, person):
                self._holders.setdefault(task, {})[person] = until
                given.append(task)
                fresh -= new
        return given

    @property
    def holders(self) -> dict[str, dict[str, float]]:
        """Who has which task in hand, and until when, by the clock; may be set to what others know."""
        return {task: dict(self._holders[task]) for task in list(self._holders) if self._holding(task)}

    @holders.setter
    def holders(self, known: Mapping[str, Mapping[str, float]]) -> None:
        own = {task: each for task, each in known.items() if task in self._voters}
        without = {task: {who: until for who, until in each.items() if who not in self._voters[task]}
                   for task, each in own.items()}  # fmt: skip
        self._holders = {task: each for task, each in without.items() if each}

    def reorder(self, tasks: Iterable[str]) -> None:
        """Hand out in another order from now on; what somebody has in hand or has answered stays as it is.

        Args:
            tasks: Ids, the next one first. Open ones that are not named come behind them, as they were. What somebody
                has answered, and lacks votes, comes before all others.
        """
        order = [task for task in dict.fromkeys([*tasks, *self._open]) if task in self._open]
        self._open = dict.fromkeys(sorted(order, key=lambda task: not self._voters[task]))

    def hold(self, task: str, person: str) -> None:
        """Keep a task for a person, such as one whose answer was just taken back."""
        self._holders.setdefault(task, {})[person] = self._clock() + self._hold

    def release(self, task: str, person: str) -> None:
        """Let a task go that a person has in hand."""
        holders = self._holders.get(task)
        if holders is not None:
            holders.pop(person, None)
            if not holders:
                del self._holders[task]

    def answered(self, task: str, person: str) -> None:
        """Count an answer; one that is counted, or about something that is not asked, changes nothing."""
        voters = self._voters.get(task)
        if voters is None or person in voters:
            return
        self.release(task, person)
        self._begun += not voters
        voters.add(person)
        self._own[person] += 1
        if task in self._open:
            self._own_open[person] += 1
            if len(voters) >= self.votes:
                del self._open[task]
                self._own_open.subtract(voters)

    def withdrawn(self, task: str, person: str) -> None:
        """Uncount an answer."""
        voters = self._voters.get(task)
        if voters is None or person not in voters:
            return
        voters.remove(person)
        self._begun -= not voters
        self._own[person] -= 1
        if task in self._open:
            self._own_open[person] -= 1
        elif len(voters) < self.votes:
            self._open[task] = None
            self._own_open.update(voters)

    def _is_free(self, task: str, person: str) -> bool:
        voters = self._voters.get(task)
        if voters is None or person in voters or task not in self._open:
            return False
        return len(voters | self._holding(task) - {person}) < self.votes

    def _is_held(self, task: str) -> bool:
        """Whether a task that nobody has answered is in somebody's hand."""
        return not self._voters[task] and bool(self._holding(task))

    def _holding(self, task: str) -> set[str]:
        """Who has a task in hand, now that the time of some may be over."""
        holders, now = self._holders.get(task, {}), self._clock()
        for other in [other for other, until in holders.items() if until <= now]:
            self.release(task, other)
        return set(holders)
