"""One record: what it takes, what it refuses and in which words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer, parse_record
from crayon_sdk.errors import AnswerError

FULL = {
    "id": "birds/ä 1.jpg",
    "answer": "unsure",
    "annotator": "ann\nlee",
    "question": "Is the strong highlight mainly on the bird?",
    "target": 3,
    "model": "ab" * 32,
    "time": datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=timezone.utc),
    "seconds": 1.25,
    "simulated": True,
    "source": "grid",
}


def test_round_trip_keeps_every_field():
    for record in (ImageAnswer(**FULL), NeuronAnswer(neuron=5, patch=2, **FULL)):
        line = record.model_dump_json()
        assert "\n" not in line
        assert parse_record(line.encode()) == record
        assert type(parse_record(line.encode())) is type(record)


def test_records_are_frozen_and_hashable():
    record = ImageAnswer(id="a", answer="yes", annotator="ann")
    with pytest.raises(ValueError, match="frozen"):
        record.answer = "no"
    assert len({record, ImageAnswer(id="a", answer="yes", annotator="ann")}) == 1


def test_one_moment_has_one_spelling():
    cest = timezone(timedelta(hours=2))
    times = [datetime(2026, 7, 1, 14, tzinfo=cest), "2026-07-01T12:00:00Z", "2026-07-01 14:00:00.000+02:00"]
    records = {ImageAnswer(id="a", answer="yes", annotator="ann", time=time) for time in times}
    assert len({record.model_dump_json() for record in records}) == len(records) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "maybe"}, "field 'answer' is 'maybe'; expected one of yes, no, unsure"),
        ({"answer": True}, "expected one of yes, no, unsure"),
        ({"anotator": "ann"}, r"unknown field 'anotator' \(did you mean 'annotator'\?\)"),
        ({"zzz": 1}, "unknown field 'zzz'; known: kind, id, answer"),
        ({"id": ""}, "field 'id' is ''"),
        ({"id": 3}, "field 'id' is 3"),
        ({"annotator": ""}, "field 'annotator' is ''"),
        ({"seconds": "3"}, "field 'seconds' is '3'"),
        ({"seconds": -0.1}, "field 'seconds' is -0.1.*greater than or equal to 0"),
        ({"seconds": float("nan")}, "field 'seconds' is nan.*finite"),
        ({"seconds": float("inf")}, "field 'seconds' is inf.*finite"),
        ({"target": 1.0}, "field 'target' is 1.0"),
        ({"target": -1}, "field 'target' is -1"),
        ({"target": True}, "field 'target' is True"),
        ({"simulated": "no"}, "field 'simulated' is 'no'"),
        ({"simulated": 1}, "field 'simulated' is 1"),
        ({"time": datetime(2026, 1, 1)}, "field 'time' .*timezone"),
        ({"time": "2026-01-01T00:00:00"}, "field 'time' .*timezone"),
        ({"time": "yesterday"}, "field 'time' is 'yesterday': expected ISO 8601"),
        ({"time": "1767225600"}, "field 'time' is '1767225600': expected ISO 8601"),
        ({"time": 1767225600}, "field 'time' is 1767225600"),
        ({"time": "2026-13-01T00:00:00Z"}, "expected ISO 8601"),
        ({"time": "0001-01-01T00:00:00+10:00"}, "outside the years"),
        ({"question": "x" * 200, "source": 5}, "field 'source' is 5"),
        ({"model": None}, "field 'model' is None"),
        ({"id": "\ud800"}, "field 'id'"),
        ({"kind": "neuron"}, "field 'kind' is 'neuron'"),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(AnswerError, match=message):
        ImageAnswer(**(FULL | change))


def test_missing_fields_and_bad_neurons_are_named():
    with pytest.raises(AnswerError, match="field 'id' is missing; field 'answer' is missing; field 'annotator' is"):
        ImageAnswer()
    with pytest.raises(AnswerError, match=r"field 'neuron' is -1.*; field 'patch' is '0'"):
        NeuronAnswer(neuron=-1, patch="0", answer="yes", annotator="ann")
    with pytest.raises(AnswerError, match="'neuron'; known"):
        ImageAnswer(id="a", answer="yes", annotator="ann", neuron=3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"kind": "image", "id": ', "not valid JSON"),
        (b'{"id": "a"}', "field 'kind' is missing; expected 'image', 'neuron' or 'spot'"),
        (b'{"kind": "imagge"}', "field 'kind' is 'imagge'; expected 'image', 'neuron' or 'spot'"),
        (b'["yes", "no"]', "published format"),
        (b"3", "expected one record"),
        (b"null", "expected one record"),
        (b'{"kind": "image", "id": "\xe9"}', "not UTF-8"),
        (b'{"kind": "image", "id": "a", "answer": "yes", "annotator": "x", "seconds": "3"}', "field 'seconds' is '3'"),
        (b'{"kind": "image", "id": "a", "answer": "yes", "annotator": "x", "seconds": NaN}', "finite"),
        (b'{"kind": "image", "id": "a", "answer": "yes", "annotator": "x", "time": 5}', "field 'time' is 5"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"kind": "image", "target": ' + b"9" * 10_000 + b"}", "."),
    ],
)
def test_wrong_lines_are_answer_errors(line, message):
    with pytest.raises(AnswerError, match=message) as caught:
        parse_record(line)
    assert len(str(caught.value)) < 500


def test_a_spot_has_the_fields_of_an_image():
    assert list(SpotAnswer.model_fields) == list(ImageAnswer.model_fields)
    spot = SpotAnswer(id="a.jpg", answer="no", annotator="ann", target=3)
    image = ImageAnswer(id="a.jpg", answer="no", annotator="ann", target=3)
    assert spot != image
    line = spot.model_dump_json()
    assert line == image.model_dump_json().replace('"kind":"image"', '"kind":"spot"')
    assert parse_record(line.encode()) == spot
    for wrong, message in (({"id": ""}, "field 'id' is ''"), ({"neuron": 1}, "unknown field 'neuron'")):
        with pytest.raises(AnswerError, match=message):
            SpotAnswer(**{"id": "a", "answer": "yes", "annotator": "x", **wrong})
