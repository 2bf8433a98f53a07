"""Answers in SQLite, one row per click: written before it is acknowledged, kept when it is taken back."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crayon_sdk._base.text import first_line
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import AnyAnswer, parse_record
from crayon_sdk.errors import FileFormatError, OutputError

__all__ = ["AnswerStore", "Given", "Row"]

_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS given (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    task TEXT NOT NULL,
    person TEXT NOT NULL,
    answer TEXT NOT NULL,
    seconds REAL,
    source TEXT NOT NULL,
    time TEXT NOT NULL,
    records TEXT NOT NULL,
    withdrawn INTEGER NOT NULL DEFAULT 0,
    UNIQUE (person, task, uid)
);
CREATE UNIQUE INDEX IF NOT EXISTS one_each ON given (task, person) WHERE withdrawn = 0;
CREATE INDEX IF NOT EXISTS by_person ON given (person, number);
CREATE TABLE IF NOT EXISTS tokens (name TEXT PRIMARY KEY, token TEXT NOT NULL);
"""
# In version 1 a uid was unique by itself, so that another person's answer under the same one was lost.
_FROM_1 = f"""
DROP INDEX IF EXISTS one_each;
DROP INDEX IF EXISTS by_person;
ALTER TABLE given RENAME TO given_1;
{_SCHEMA}
INSERT INTO given (number, uid, task, person, answer, seconds, source, time, records, withdrawn)
    SELECT number, uid, task, person, answer, seconds, source, time, records, withdrawn FROM given_1;
DROP TABLE given_1;
"""  # noqa: S608 - fixed
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
    """A file of answers that a crash or a power cut does not touch.

    Write-ahead log with ``synchronous=FULL``: when a method returns, what it wrote is on the disk. May be
    used from many threads.

    Args:
        path: The file; made when it is not there, readable by its owner only.

    Raises:
        FileFormatError: It is not such a file, or of a newer version.
        OutputError: It cannot be made.

    Example:
        >>> import tempfile
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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        try:
            # Tokens lie in it: nobody else may read it, from its first byte on.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._database = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{os.fspath(path)!r} cannot be opened: {first_line(error)}") from error
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            self.close()
            raise OutputError(f"{os.fspath(path)!r} cannot be written: {first_line(error)}") from error
        except sqlite3.DatabaseError as error:
            self.close()
            raise FileFormatError(
                f"{os.fspath(path)!r} is not a file of answers of the annotation app ({first_line(error)}); "
                "move it away, and start again: answers.jsonl keeps what was exported"
            ) from error

    def _prepare(self) -> None:
        self._database.execute("PRAGMA busy_timeout = 10000")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            self.close()
            raise FileFormatError(
                f"{str(self.path)!r} has version {version}, this package knows {_VERSION}; use a newer crayon-sdk"
            )
        change = _FROM_1 if version == 1 else _SCHEMA
        # All of it or nothing, whenever the power goes: an unfinished transaction is rolled back.
        self._database.executescript(f"BEGIN IMMEDIATE; {change} PRAGMA user_version = {_VERSION}; COMMIT;")

    def close(self) -> None:
        """Close the file; what was acknowledged is in it."""
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise OutputError(f"{str(self.path)!r} cannot be written: {first_line(error)}") from error

    def add(self, given: Sequence[Given]) -> list[str]:
        """Store clicks, all of them or none; a person's earlier answer to the same task is taken back.

        Returns:
            The ``uid`` of those that are new. What was stored before, of the same person about the same task
            under the same ``uid``, is passed over; see `find`.

        Raises:
            OutputError: They cannot be written; none was.
        """
        new = []
        with self._transaction() as database:
            for one in given:
                if self.find(one.person, one.task, one.uid) is not None:
                    continue
                database.execute(
                    "UPDATE given SET withdrawn = 1 WHERE task = ? AND person = ? AND withdrawn = 0",
                    (one.task, one.person),
                )
                values = (one.uid, one.task, one.person, one.answer, one.seconds, one.source, one.time)
                lines = "\n".join(record.model_dump_json() for record in one.records)
                database.execute(
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
        which = "person = :person AND withdrawn = 0 AND (:uid IS NULL OR uid = :uid) ORDER BY number DESC LIMIT 1"
        with self._transaction() as database:
            found = database.execute(
                f"SELECT number, {_COLUMNS} FROM given WHERE {which}",  # noqa: S608 - fixed
                {"person": person, "uid": uid},
            ).fetchone()
            if found is None:
                return None
            database.execute("UPDATE given SET withdrawn = 1 WHERE number = ?", found[:1])
        return Row(*found[1:])

    def rows(self) -> list[Row]:
        """Every click that counts, oldest first."""
        with self._lock:
            found = self._database.execute(f"SELECT {_COLUMNS} FROM given WHERE withdrawn = 0 ORDER BY number")  # noqa: S608
            return [Row(*row) for row in found]

    def count(self, person: str) -> int:
        """How many tasks a person has answered."""
        with self._lock:
            query = "SELECT COUNT(*) FROM given WHERE person = ? AND withdrawn = 0"
            return int(self._database.execute(query, (person,)).fetchone()[0])

    def find(self, person: str, task: str, uid: str) -> tuple[str, bool] | None:
        """What is stored of a click: its answer, and whether it counts (was not taken back); ``None`` for nothing."""
        with self._lock:
            query = "SELECT answer, withdrawn FROM given WHERE person = ? AND task = ? AND uid = ?"
            found = self._database.execute(query, (person, task, uid)).fetchone()
            return None if found is None else (str(found[0]), not found[1])

    def state(self) -> tuple[int, int]:
        """Changes when an answer is added or taken back, and not otherwise."""
        with self._lock:
            query = "SELECT COALESCE(MAX(number), 0), COALESCE(SUM(withdrawn), 0) FROM given"
            latest, withdrawn = self._database.execute(query).fetchone()
            return int(latest), int(withdrawn)

    def answers(self, *, withdrawn: bool = False) -> AnnotationSet:
        """The answers that count, oldest first; or those that were taken back."""
        with self._lock:
            query = "SELECT records FROM given WHERE withdrawn = ? ORDER BY number"
            texts = [text for (text,) in self._database.execute(query, (int(withdrawn),))]
        return AnnotationSet(parse_record(line.encode()) for text in texts for line in text.split("\n"))

    def token(self, name: str) -> str:
        """The secret of a link by name: made when first asked for, 192 random bits, kept over restarts."""
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO tokens VALUES (?, ?)", (name, secrets.token_urlsafe(24)))
            return str(database.execute("SELECT token FROM tokens WHERE name = ?", (name,)).fetchone()[0])
