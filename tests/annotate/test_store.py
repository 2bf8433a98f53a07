"""The store: what was acknowledged is there, once, whatever happens."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import datetime, timezone

import pytest

from crayon_sdk.annotate.store import AnswerStore, Given
from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer
from crayon_sdk.errors import FileFormatError, MismatchError, OutputError, SettingsError

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def click(uid, task="t1", person="ann", answer="yes", records=None):
    made = ImageAnswer(id=task, answer=answer, annotator=person, time=NOW, extra={"uid": uid})
    return Given(uid, task, person, answer, 0.5, "annotate", NOW.isoformat(), records or (made,))


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    """Where answers can lie: a file, or a database that nobody has used."""
    return tmp_path / "annotate.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres")()


@pytest.fixture
def store(address):
    made = AnswerStore(address)
    yield made
    made.close()


of_sqlite = pytest.mark.parametrize("address", ["sqlite"], indirect=True)


def test_what_is_added_is_there_after_opening_again(store, address):
    assert store.add([click("u1"), click("u2", "t2", answer="no")]) == ["u1", "u2"]
    store.close()
    again = AnswerStore(address)
    assert [(row.uid, row.task, row.answer) for row in again.rows()] == [("u1", "t1", "yes"), ("u2", "t2", "no")]
    assert [answer.id for answer in again.answers()] == ["t1", "t2"]
    again.close()


@of_sqlite
def test_full_synchronisation_and_a_write_ahead_log(store):
    assert store.database.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store.database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@of_sqlite
def test_nobody_else_may_read_the_tokens(store, address):
    assert stat.S_IMODE(address.stat().st_mode) == 0o600


def test_sending_again_changes_nothing(store):
    store.add([click("u1")])
    assert store.add([click("u1"), click("u1", answer="no")]) == []
    assert [row.answer for row in store.rows()] == ["yes"]


def test_a_uid_is_of_one_person_and_one_task(store):
    assert store.add([click("u1"), click("u1", "t2"), click("u1", person="ben")]) == ["u1", "u1", "u1"]
    assert [(row.person, row.task) for row in store.rows()] == [("ann", "t1"), ("ann", "t2"), ("ben", "t1")]
    assert store.withdraw("ann", "u1").task == "t2"  # the latest of that number, and nobody else's
    assert [(row.person, row.task) for row in store.rows()] == [("ann", "t1"), ("ben", "t1")]


VERSION_1 = """
CREATE TABLE given (
    number INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE, task TEXT NOT NULL, person TEXT NOT NULL,
    answer TEXT NOT NULL, seconds REAL, source TEXT NOT NULL, time TEXT NOT NULL, records TEXT NOT NULL,
    withdrawn INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX one_each ON given (task, person) WHERE withdrawn = 0;
CREATE INDEX by_person ON given (person, number);
CREATE TABLE tokens (name TEXT PRIMARY KEY, token TEXT NOT NULL);
INSERT INTO tokens VALUES ('owner', 'secret');
PRAGMA user_version = 1;
"""


def test_a_store_of_the_version_before(tmp_path):
    path = tmp_path / "annotate.sqlite"
    old = sqlite3.connect(path)
    old.executescript(VERSION_1)
    given = [("u1", "t1", "ann", 1), ("u2", "t1", "ann", 0), ("u3", "t2", "ben", 0)]
    for uid, task, person, withdrawn in given:
        record = click(uid, task, person).records[0].model_dump_json()
        row = (uid, task, person, "yes", 0.5, "annotate", NOW.isoformat(), record, withdrawn)
        columns = "uid, task, person, answer, seconds, source, time, records, withdrawn"
        old.execute(f"INSERT INTO given ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    old.commit()
    old.close()
    for _ in range(2):  # taken over once, then simply opened
        store = AnswerStore(path)
        assert [(row.uid, row.task, row.person) for row in store.rows()] == [given[1][:3], given[2][:3]]
        assert [answer.id for answer in store.answers(withdrawn=True)] == ["t1"]
        assert (store.token("owner"), store.state()) == ("secret", (3, 1))
        store.close()
    store = AnswerStore(path)
    assert store.add([click("u2", "t1", "ben")]) == ["u2"]  # what version 1 did not keep
    assert store.add([click("u4", "t1", "ann")]) == ["u4"]
    assert [row.uid for row in store.rows()] == ["u3", "u2", "u4"]  # still one answer of each to each
    store.close()


def test_answering_again_takes_the_earlier_answer_back(store):
    store.add([click("u1"), click("u2", person="ben")])
    store.add([click("u3", answer="no")])
    assert [(row.person, row.answer) for row in store.rows()] == [("ben", "yes"), ("ann", "no")]
    assert [answer.answer for answer in store.answers(withdrawn=True)] == ["yes"]
    assert store.count("ann") == 1


def test_undo_takes_the_latest_own_answer_or_the_named_one(store):
    store.add([click("u1"), click("u2", "t2"), click("u3", "t1", "ben")])
    assert store.withdraw("ben", "u1") is None  # not ben's
    assert store.withdraw("ann").task == "t2"
    assert store.withdraw("ann", "u1").task == "t1"
    assert store.withdraw("ann") is None
    assert [row.uid for row in store.rows()] == ["u3"]
    assert store.add([click("u1")]) == []  # arrives once more, late: it stays taken back
    assert store.find("ann", "t1", "u1") == ("yes", False)
    assert store.find("ben", "t1", "u3") == ("yes", True)
    assert store.find("ann", "t1", "u3") is None  # ben's


def test_one_click_may_stand_for_several_records(store):
    both = tuple(NeuronAnswer(neuron=n, patch=0, answer="no", annotator="ann", time=NOW) for n in (3, 7))
    store.add([click("u1", records=both)])
    assert [answer.neuron for answer in store.answers()] == [3, 7]
    assert store.count("ann") == 1


def test_all_of_a_batch_or_nothing(store):
    broken = Given("u2", "t2", "ann", "yes", "not a number", "annotate", None, ())
    with pytest.raises(OutputError, match="cannot be written"):
        store.add([click("u1"), broken])
    assert store.rows() == []


def test_state_changes_with_every_change_only(store):
    seen = [store.state()]
    for change in (
        lambda: store.add([click("u1")]),
        lambda: store.add([click("u2", answer="no")]),
        lambda: store.withdraw("ann"),
    ):
        change()
        assert store.state() not in seen
        seen.append(store.state())
    store.add([click("u1")])
    assert store.withdraw("ann") is None
    assert store.state() == seen[-1]


def test_tokens_are_long_and_stay(store, address):
    first = store.token("owner")
    assert len(first) >= 32
    assert store.token("people") != first
    store.close()
    again = AnswerStore(address)
    assert again.token("owner") == first
    again.close()


def test_many_threads(store):
    def work(person):
        for number in range(25):
            store.add([click(f"{person}-{number}", f"t{number}", person)])

    threads = [threading.Thread(target=work, args=(f"p{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.rows()) == len({row.uid for row in store.rows()}) == 200


def test_files_that_are_something_else(tmp_path):
    text = tmp_path / "text.sqlite"
    text.write_text("no database at all, but long enough to be looked at" * 50)
    before = text.read_bytes()
    with pytest.raises(FileFormatError, match="move it away"):
        AnswerStore(text)
    assert text.read_bytes() == before
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(FileFormatError, match="version 99"):
        AnswerStore(newer)
    with pytest.raises(OutputError, match="cannot be opened"):
        AnswerStore(tmp_path / "nowhere" / "annotate.sqlite")
    with pytest.raises(OutputError, match="cannot be opened"):
        AnswerStore(tmp_path)


WRITER = """
import sys
from datetime import datetime, timezone
from crayon_sdk.annotate.store import AnswerStore, Given
store = AnswerStore(sys.argv[1])
for number in range(100_000):
    store.add([Given(f"uid{number}", f"t{number}", "ann", "yes", None, "annotate", "", ())])
    print(number, flush=True)
"""


def test_killed_in_the_middle(tmp_path):
    path = tmp_path / "annotate.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    for line in writer.stdout:
        if int(line) >= 40:
            break
    writer.kill()
    acknowledged = [int(line), *map(int, writer.stdout.read().split())]
    writer.wait()
    writer.stdout.close()
    store = AnswerStore(path)
    kept = {row.uid for row in store.rows()}
    store.close()
    assert {f"uid{number}" for number in range(acknowledged[-1] + 1)} <= kept


def test_two_stores_on_one_database_see_each_other(postgres):
    address = postgres()
    first, second = AnswerStore(address), AnswerStore(address)
    assert first.shared
    assert first.add([click("u1")]) == ["u1"]
    assert second.add([click("u1"), click("u2", "t2")]) == ["u2"]
    assert second.withdraw("ann").task == "t2"
    assert first.state() == second.state() == (2, 1)
    assert first.counting() == [("t1", "ann")]
    assert first.token("owner") == second.token("owner")
    with first.changing():
        first.hold({}, {"t3": {"ann": 5.0}, "t4": {"ben": 6.0}})
    with second.changing():
        second.hold(second.held(), {"t4": {"ben": 7.0}})
    assert first.held() == {"t4": {"ben": 7.0}}
    first.claim("birds")
    with pytest.raises(MismatchError, match="another model or other pictures"):
        second.claim("faces")
    first.close()
    second.close()


def test_nothing_of_a_change_that_fails_is_kept(store):
    def fail():
        with store.changing():
            store.add([click("u1")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.rows() == []
    assert store.add([click("u1")]) == ["u1"]


def test_addresses_that_cannot_be_used(postgres):
    for address, kind, text in (
        ("mysql://ann:secret@host/x", SettingsError, "expected a path or a URL postgresql://"),
        ("postgresql://ann:secret@127.0.0.1:1/x", OutputError, "cannot be reached"),
        (f"{postgres()}nowhere", OutputError, "cannot be reached"),
    ):
        with pytest.raises(kind, match=text) as caught:
            AnswerStore(address)
        assert "secret" not in str(caught.value)


def test_a_connection_that_was_cut_is_made_again(postgres):
    address = postgres()
    store, other = AnswerStore(address), AnswerStore(address)
    store.add([click("u1")])
    other.database.read("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                        " AND datname = current_database()")  # fmt: skip
    with pytest.raises(OutputError, match="cannot be written"):
        store.add([click("u2", "t2")])
    assert store.add([click("u2", "t2")]) == ["u2"]
    assert len(store.answers()) == 2
    store.close()
    other.close()
