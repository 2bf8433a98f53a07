"""Answers as columns: read, written, judged and merged as one record after the other would be, in little memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crayon_sdk._base.files import sha256_of
from crayon_sdk.answers import table as answer_table
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer, parse_record
from crayon_sdk.answers.relevance import agreement_of, group_votes, neuron_relevance_of, relevance_of
from crayon_sdk.errors import AnswerError, FileFormatError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["a.jpg", '"', "\\", 'x","answer":"no', '"time":null,"seconds":null', '"id":""', "\u2028", "é"]
)
SOME = TEXTS.filter(bool)
MOMENTS = st.datetimes(timezones=st.just(timezone.utc)) | st.just(datetime(2026, 1, 1, tzinfo=timezone.utc))
SHARED = {
    "answer": st.sampled_from(["yes", "no", "unsure"]),
    "annotator": SOME,
    "question": TEXTS,
    "model": TEXTS,
    "time": st.none() | MOMENTS,
    "seconds": st.none() | st.floats(0, allow_nan=False, allow_infinity=False) | st.just(-0.0),
    "simulated": st.booleans(),
    "source": TEXTS,
    "target": st.none() | st.integers(0, 2**70),
    "extra": st.dictionaries(TEXTS, TEXTS, max_size=2),
}
RECORDS = (
    st.builds(ImageAnswer, id=SOME, **SHARED)
    | st.builds(NeuronAnswer, id=TEXTS, neuron=st.integers(0, 9), patch=st.integers(0, 3), **SHARED)
    | st.builds(SpotAnswer, id=SOME, **SHARED)
)


@settings(max_examples=100, deadline=None)
@given(records=st.lists(RECORDS, max_size=6))
def test_records_and_lines_come_out_as_they_went_in(tmp_path_factory, records):
    answers = AnnotationSet(records)
    assert list(answers) == records
    assert [hash(one) for one in answers] == [hash(one) for one in records]
    lines = [one.model_dump_json() for one in records]
    assert [one.model_dump_json() for one in answers] == lines
    path = tmp_path_factory.mktemp("table") / "a.jsonl"
    answers.save(path)
    assert path.read_bytes() == "".join(f"{line}\n" for line in lines).encode()
    again = AnnotationSet.load(path)
    assert again == answers
    assert list(again) == records
    assert answers.fingerprint == again.fingerprint == sha256_of(*sorted(lines))
    last_first = list(dict.fromkeys(reversed(records)))
    assert list(answers.merge(again)) == last_first[::-1]


MOMENT_TEXTS = [
    "2026-01-31T12:00:00Z",
    "2026-01-31T12:00:00.5+02:00",
    "2026-01-31",
    "2026-13-31T12:00:00Z",
    "2026-01-31T12:00:00",
    "17e8",
    "0001-01-01T00:00:00+05:00",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "2026-01-31T24:00:00Z",
    "2026-01-31T12:00:60Z",
    "1900-02-29T00:00:00Z",
]
# Values that are right, nearly right and wrong, for every field.
ODD = {
    "kind": ["image", "neuron", "spot", "images", 1],
    "id": ["a.jpg", "", "a\\b", "\t", 3, None],
    "answer": ["yes", "Yes", True],
    "annotator": ["ann", "", None],
    "question": ["", "On it?", None],
    "model": ["", "ab"],
    "time": [None, *MOMENT_TEXTS],
    "seconds": [None, 1, 1.5, -0.0, -1.0, "3", True, 1e300, 0.1234567890123456789],
    "simulated": [False, True, 0, "true"],
    "source": ["", "grid"],
    "extra": [{}, {"b": "1", "a": "2"}, {"a": 1}, [["a", "b"]], None, {"time": "x"}],
    "target": [None, 0, -1, 1.0, True, 2**64],
    "neuron": [0, -1, None],
    "patch": [0, "1"],
    "nonsense": [1],
}


def test_lines_are_read_as_the_records_read_them():
    dice, taken = random.Random(0), Counter()
    order = list(ODD)
    for _ in range(3000):
        plain = {
            name: values[0] for name, values in ODD.items() if name not in ("neuron", "patch", "nonsense", "extra")
        }
        if dice.random() < 0.3:
            plain |= {"kind": "neuron", "neuron": 3, "patch": 1}
        plain |= {name: dice.choice(ODD[name]) for name in dice.sample(order, dice.choice([0, 1, 1, 2]))}
        for name in dice.sample(list(plain), dice.choice([0, 0, 1])):
            del plain[name]
        names = sorted(plain, key=order.index) if dice.random() < 0.7 else dice.sample(list(plain), len(plain))
        text = json.dumps({name: plain[name] for name in names}, separators=dice.choice([(",", ":"), (", ", ": ")]))
        known = AnnotationSet([ImageAnswer(id="k", answer="no", annotator="k")])
        line = text.encode()
        try:
            wanted = parse_record(line)
        except AnswerError as error:
            wanted, problem = None, f"line 2: {error}"
        ours = ImageAnswer(id="a", answer="yes", annotator="ann").model_dump_json().encode()
        total, broken, first = known._table.read([(1, ours), (2, line)])
        assert (total, broken) == (2, wanted is None)
        assert first == (problem if wanted is None else "")
        assert list(known)[2:] == ([] if wanted is None else [wanted]), text
        taken[wanted is None] += 1
    assert min(taken.values()) > 300


@pytest.mark.parametrize(
    "seconds", [b"-1.0", b"01.5", b"1.", b".5", b"NaN", b"+1.0", b"1_0.0", b'"1.0"', b"1e400", b"nul", b""]
)
def test_a_number_that_is_no_json_is_not_taken_for_one(seconds):
    good = ImageAnswer(id="a", answer="yes", annotator="ann", seconds=1.5).model_dump_json().encode()
    answers = AnnotationSet()
    assert answers._table.read([(1, good), (2, good.replace(b"1.5", seconds))])[:2] == (2, 1)


@pytest.mark.parametrize("id_", [b'a"', b"a\\", b"a\n", b"\xff", b'a","id":"', b""])
def test_an_id_that_is_no_json_is_not_taken_for_one(id_):
    good = ImageAnswer(id="abc", answer="yes", annotator="ann").model_dump_json().encode()
    answers = AnnotationSet()
    assert answers._table.read([(1, good), (2, good.replace(b"abc", id_))])[:2] == (2, 1)


def test_verdicts_are_those_of_one_item_after_the_other():
    dice, start = random.Random(1), datetime(2026, 1, 1, tzinfo=timezone.utc)
    for _ in range(150):
        few = dice.choice([2, 3, 5])
        answers = AnnotationSet()
        for _ in range(dice.randrange(30)):
            when = dice.choice([None, start + timedelta(minutes=dice.randrange(3))]) if dice.random() < 0.5 else start
            about = {
                "answer": dice.choice(["yes", "no", "unsure"]),
                "annotator": f"p{dice.randrange(few)}",
                "time": when,
            }
            if dice.random() < 0.6:
                record = dice.choice([ImageAnswer, SpotAnswer])
                answers.add(record(id=f"{dice.randrange(5)}", **about))
            else:
                answers.add(NeuronAnswer(neuron=dice.randrange(3), patch=dice.randrange(2), **about))
        for latest_only in (True, False):
            images = group_votes(((one.id, one) for one in answers.image_answers), latest_only=latest_only)
            spots = group_votes(((one.id, one) for one in answers.spot_answers), latest_only=latest_only)
            units = group_votes((((a.neuron, a.patch), a) for a in answers.neuron_answers), latest_only=latest_only)
            for rule in ("unanimous", "majority", "share"):
                wanted = {id_: relevance_of([vote.answer for vote in own], rule) for id_, own in images.items()}
                assert list(answers.image_relevance(rule, latest_only=latest_only).items()) == list(wanted.items())
                wanted = {id_: relevance_of([vote.answer for vote in own], rule) for id_, own in spots.items()}
                assert list(answers.spot_relevance(rule, latest_only=latest_only).items()) == list(wanted.items())
                patches: dict[int, list[list[str]]] = {}
                for (neuron, _), own in units.items():
                    patches.setdefault(neuron, []).append([vote.answer for vote in own])
                wanted = {neuron: neuron_relevance_of(words, rule) for neuron, words in patches.items()}
                assert list(answers.neuron_relevance(rule, latest_only=latest_only).items()) == list(wanted.items())
        for kind, votes in (
            ("image", group_votes((a.id, a) for a in answers.image_answers)),
            ("neuron", group_votes(((a.neuron, a.patch), a) for a in answers.neuron_answers)),
            ("spot", group_votes((a.id, a) for a in answers.spot_answers)),
        ):
            wanted = agreement_of(({vote.annotator: vote.answer for vote in own} for own in votes.values()), kind=kind)
            assert answers.agreement(kind) == wanted
            assert answers.voters(kind) == {key: {vote.annotator for vote in own} for key, own in votes.items()}


def test_a_record_made_around_its_checks_is_refused():
    class Mine(ImageAnswer):
        pass

    answers = AnnotationSet()
    for wrong in (
        ImageAnswer.model_construct(id="a", answer="yes", annotator="x", time="yesterday"),
        ImageAnswer.model_construct(id="a", answer="yes", annotator=[]),
        ImageAnswer.model_construct(id="a"),
        Mine(id="a", answer="yes", annotator="x"),
    ):
        with pytest.raises(AnswerError, match=r"expected a record made by ImageAnswer\(...\)"):
            answers.add(wrong)
    assert len(answers) == 0


def many(count, people=20):
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    words = ("yes", "no", "yes", "unsure")
    for number in range(count):
        yield ImageAnswer(
            id=f"pictures/{number // people:06}.jpg",
            answer=words[number % 7 % 4],
            annotator=f"person {number % people}",
            question="Is the highlight mainly on the bird?",
            model="ab" * 32,
            time=start + timedelta(milliseconds=1700 * number),
            seconds=number % 50 / 10,
            target=number // people % 2,
        )


def test_memory_and_passes_stay_low(tmp_path, monkeypatch):
    """A million answers fit because each takes some 30 bytes, is read once, and makes no record unless asked for."""
    path, count = tmp_path / "a.jsonl", 20_000
    AnnotationSet(many(count)).save(path)
    size = path.stat().st_size
    reads, made = Counter(), Counter()
    monkeypatch.setattr(
        answer_table, "_read_line", lambda line, read=answer_table._read_line: (reads.update(n=1), read(line))[1]
    )
    monkeypatch.setattr(
        answer_table.AnswerTable,
        "_record",
        lambda self, about, _make=answer_table.AnswerTable._record, **rest: (
            made.update(n=1),
            _make(self, about, **rest),
        )[1],
    )
    AnnotationSet.load(path)  # what is made once only, such as imports
    reads.clear(), made.clear()
    tracemalloc.start()
    answers = AnnotationSet.load(path)
    held, peak = tracemalloc.get_traced_memory()
    assert len(answers) == count
    assert held < 60 * count  # as records they took 1,700
    assert peak < size  # the file is never whole in memory
    tracemalloc.reset_peak()
    answers.image_relevance()
    answers.agreement()
    answers.counts()
    assert len(answers.merge(AnnotationSet.load(path))) == count
    answers.save(tmp_path / "b.jsonl")
    assert answers.fingerprint == AnnotationSet.load(tmp_path / "b.jsonl").fingerprint
    assert tracemalloc.get_traced_memory()[1] - held < 400 * count
    tracemalloc.stop()
    shapes = 3 * 20 * 2  # answers, people, classes
    assert reads["n"] <= 3 * shapes  # only the first line of each shape is taken apart as JSON
    assert made["n"] <= 10 * shapes


def test_the_line_of_the_first_broken_answer_is_told_in_a_long_file(tmp_path):
    path = tmp_path / "a.jsonl"
    AnnotationSet(many(20_000)).save(path)
    lines = path.read_bytes().split(b"\n")
    lines[17_000] = lines[17_000].replace(b'"unsure"', b'"yes"').replace(b'"no"', b'"yes"').replace(b'"yes"', b'"ja"')
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(FileFormatError, match=r"line 17001: field 'answer' is 'ja'.* 1 of 20000 lines are broken"):
        AnnotationSet.load(path)
    assert len(AnnotationSet.load(path, strict=False)) == 19_999


def test_files_of_spots_are_read_by_shape_and_line_by_line_alike(tmp_path):
    """In the order of their text a picture comes before a neuron and a spot last, whatever is put in first."""
    records = [
        SpotAnswer(id="b", answer="yes", annotator="ann", time=datetime(2026, 1, 1, tzinfo=timezone.utc)),
        NeuronAnswer(id="", neuron=1, patch=0, answer="no", annotator="ann"),
        ImageAnswer(id="b", answer="no", annotator="ann"),
        SpotAnswer(id="a", answer="unsure", annotator="ann", seconds=1.0),
    ] * 300
    lines = [one.model_dump_json() for one in records]
    (tmp_path / "a.jsonl").write_text("".join(f"{line}\n" for line in lines))
    ours = AnnotationSet.load(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(json.loads(line)) + "\n" for line in lines))
    assert ours == AnnotationSet.load(tmp_path / "b.jsonl") == AnnotationSet(records)
    assert list(ours._table.sorted_lines()) == sorted(lines)
    assert ours.fingerprint == sha256_of(*sorted(lines))
    # An empty id is one of a neuron only.
    (tmp_path / "c.jsonl").write_text(lines[0].replace('"b"', '""') + "\n")
    with pytest.raises(FileFormatError, match="field 'id' is ''"):
        AnnotationSet.load(tmp_path / "c.jsonl")
