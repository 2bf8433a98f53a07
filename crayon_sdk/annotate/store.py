"""Answers in a database, one row per click: written before it is acknowledged, kept when it is taken back."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crayon_sdk.annotate.database import Database, opened
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import AnyAnswer, parse_record
from crayon_sdk.errors import MismatchError

__all__ = ["AnswerStore", "Given", "Row"]

_COLUMNS = "uid, task, person, answer, seconds, source, time"


@dataclass(frozen=True)
class Row:
    """One click.

    Attributes:
        uid: Chosen by whoever sends it; the same person sending it again about the same task changes nothing.
        task: Id of the task.
        person: Who answered.
        answer: "yes", "no" or "unsure".
        seconds: How long it took; ``None`` when not known.
        source: "annotate", or "grid" for a page of the review grid.
        time: ISO 8601, UTC.
    """

    uid: str
    task: str
    person: str
    answer: str
    seconds: float | None
    source: str
    time: str


@dataclass(frozen=True)
class Given(Row):
    """One click, to be stored.

    Attributes:
        records: The answers it stands for: one, or one per patch.
    """

    records: tuple[AnyAnswer, ...]


class AnswerStore:
    """Answers that a crash or a power cut does not touch.

    When a method returns, what it wrote is on the disk. May be used from many threads; with PostgreSQL also from many
    processes, on many machines.

    Args:
        address: A file, made when it is not there, readable by its owner only; or ``postgresql://USER@HOST/DATABASE``,
            a database of its own on a PostgreSQL server.

    Attributes:
        database: Where they lie.

    Raises:
        FileFormatError: It holds something else, or is of a newer version.
        MissingExtraError: The driver for PostgreSQL is not installed.
        OutputError: It cannot be made, or reached.
        SettingsError: A URL of another kind.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from crayon_sdk.answers.records import ImageAnswer
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = AnswerStore(Path(folder.name) / "annotate.sqlite")
        >>> given = Given("u1", "t1", "ann", "yes", 0.8, "annotate", "", (ImageAnswer(id="1", answer="yes",
        ...     annotator="ann"),))
        >>> store.add([given]), store.add([given]), len(store.answers())
        (['u1'], [], 1)
        >>> store.withdraw("ann").task, len(store.answers()), len(store.answers(withdrawn=True))
        ('t1', 0, 1)
        >>> store.close()
        >>> folder.cleanup()
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.database: Database = opened(address)

    @property
    def shared(self) -> bool:
        """Whether other processes may use it at the same time."""
        return self.database.shared

    def close(self) -> None:
        """Close it; what was acknowledged is in it."""
        self.database.close()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Do all inside the block or nothing, while no other process changes anything.

        Raises:
            OutputError: It cannot be written; nothing was.
        """
        with self.database.changing():
            yield

    def claim(self, owner: str) -> None:
        """See that it is of one workspace, from the first use on.

        Args:
            owner: Says which.

        Raises:
            MismatchError: It is of another one.
        """
        with self.database.changing() as database:
            database.write("INSERT INTO tokens VALUES ('workspace', ?) ON CONFLICT DO NOTHING", (owner,))
            [(known,)] = database.read("SELECT token FROM tokens WHERE name = 'workspace'")
        if known != owner:
            raise MismatchError(
                f"{database.name!r} holds answers about another model or other pictures; make a database for these"
            )

    def add(self, given: Sequence[Given]) -> list[str]:
        """Store clicks, all of them or none; a person's earlier answer to the same task is taken back.

        Returns:
            The ``uid`` of those that are new. What was stored before, of the same person about the same task
            under the same ``uid``, is passed over; see `find`.

        Raises:
            OutputError: They cannot be written; none was.
        """
        new = []
        with self.database.changing() as database:
            for one in given:
                if self.find(one.person, one.task, one.uid) is not None:
                    continue
                database.write(
                    "UPDATE given SET withdrawn = 1 WHERE task = ? AND person = ? AND withdrawn = 0",
                    (one.task, one.person),
                )
                values = (one.uid, one.task, one.person, one.answer, one.seconds, one.source, one.time)
                lines = "\n".join(record.model_dump_json() for record in one.records)
                database.write(
                    f"INSERT INTO given ({_COLUMNS}, records) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - fixed
                    (*values, lines),
                )
                new.append(one.uid)
        return new

    def withdraw(self, person: str, uid: str | None = None) -> Row | None:
        """Take back an answer of a person, the latest or the named one.

        Returns:
            What was taken back; ``None`` when there is nothing to take back.

        Raises:
            OutputError: It cannot be written.
        """
        which, values = "person = ? AND withdrawn = 0", [person]
        if uid is not None:
            which, values = f"{which} AND uid = ?", [person, uid]
        with self.database.changing() as database:
            found = database.read(
                f"SELECT number, {_COLUMNS} FROM given WHERE {which} ORDER BY number DESC LIMIT 1",  # noqa: S608
                values,
            )
            if not found:
                return None
            database.write("UPDATE given SET withdrawn = 1 WHERE number = ?", found[0][:1])
        return Row(*found[0][1:])

    def rows(self) -> list[Row]:
        """Every click that counts, oldest first."""
        query = f"SELECT {_COLUMNS} FROM given WHERE withdrawn = 0 ORDER BY number"  # noqa: S608 - fixed
        return [Row(*row) for row in self.database.read(query)]

    def counting(self, after: int = 0) -> list[tuple[str, str]]:
        """Task and person of the clicks that count, of those with a number above ``after`` (see `state`)."""
        query = "SELECT task, person FROM given WHERE withdrawn = 0 AND number > ? ORDER BY number"
        return [(str(task), str(person)) for task, person in self.database.read(query, (after,))]

    def count(self, person: str) -> int:
        """How many tasks a person has answered."""
        [(found,)] = self.database.read("SELECT COUNT(*) FROM given WHERE person = ? AND withdrawn = 0", (person,))
        return int(found)

    def find(self, person: str, task: str, uid: str) -> tuple[str, bool] | None:
        """What is stored of a click: its answer, and whether it counts (was not taken back); ``None`` for nothing."""
        query = "SELECT answer, withdrawn FROM given WHERE person = ? AND task = ? AND uid = ?"
        found = self.database.read(query, (person, task, uid))
        return (str(found[0][0]), not found[0][1]) if found else None

    def state(self) -> tuple[int, int]:
        """The latest number, and how many were taken back: changes with every answer that comes or goes."""
        query = "SELECT COALESCE(MAX(number), 0), COALESCE(SUM(withdrawn), 0) FROM given"
        [(latest, withdrawn)] = self.database.read(query)
        return int(latest), int(withdrawn)

    def answers(self, *, withdrawn: bool = False) -> AnnotationSet:
        """The answers that count, oldest first; or those that were taken back."""
        query = "SELECT records FROM given WHERE withdrawn = ? ORDER BY number"
        texts = [text for (text,) in self.database.read(query, (int(withdrawn),))]
        return AnnotationSet(parse_record(line.encode()) for text in texts for line in text.split("\n"))

    def token(self, name: str) -> str:
        """The secret of a link by name: made when first asked for, 192 random bits, kept over restarts."""
        with self.database.changing() as database:
            database.write("INSERT INTO tokens VALUES (?, ?) ON CONFLICT DO NOTHING", (name, secrets.token_urlsafe(24)))
            [(found,)] = database.read("SELECT token FROM tokens WHERE name = ?", (name,))
        return str(found)

    def held(self) -> dict[str, dict[str, float]]:
        """Who has which task in hand, in all processes, and until when (seconds since 1970)."""
        found: dict[str, dict[str, float]] = {}
        for task, person, until in self.database.read("SELECT task, person, until FROM held"):
            found.setdefault(task, {})[person] = until
        return found

    def hold(self, before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> None:
        """Write down what changed of `held`, inside of `changing`."""
        old = {(task, person): until for task, each in before.items() for person, until in each.items()}
        new = {(task, person): until for task, each in after.items() for person, until in each.items()}
        for key in old.keys() - new.keys():
            self.database.write("DELETE FROM held WHERE task = ? AND person = ?", key)
        for key in sorted(key for key in new if old.get(key) != new[key]):
            self.database.write(
                "INSERT INTO held VALUES (?, ?, ?) ON CONFLICT (task, person) DO UPDATE SET until = excluded.until",
                (*key, new[key]),
            )
