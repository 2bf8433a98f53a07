"""Answer files of other tools: read, written, read again; bad rows, foreign columns, names of pictures."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crayon_sdk._base.text import ANSWER_FORMATS as KINDS
from crayon_sdk._base.text import TOOL_FORMATS as FORMATS
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.formats import read_answers, write_answers
from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.answers.tools import write_tool
from crayon_sdk.errors import FileFormatError, MismatchError, SettingsError

IDS = ["birds/1.jpg", "birds/2.jpg", "sea/1.jpg", "plain"]

MTURK = """\
"HITId","HITTypeId","AssignmentId","WorkerId","AssignmentStatus","SubmitTime","WorkTimeInSeconds",\
"Input.image_url","Input.label","Answer.category.label","Approve","Reject"
"3ABC","3T","3A1","A1XYZ","Submitted","Tue Nov 24 12:30:00 PST 2026","7","https://x.org/set/birds/1.jpg","gull","Yes","",""
"3ABC","3T","3A2","A2XYZ","Approved","Wed Jul 01 08:00:05 PDT 2026","12","https://x.org/set/birds/1.jpg","gull","No","x",""
"3ABD","3T","3A3","A1XYZ","Rejected","Tue Nov 24 12:31:00 PST 2026","1","https://x.org/set/birds/2.jpg","gull","No","","x"
"3ABD","3T","3A4","A3XYZ","Submitted","Tue Nov 24 12:31:00 PST 2026","9","https://x.org/set/birds/2.jpg","gull","Maybe","",""
"""

LABEL_STUDIO = [
    {
        "id": 11,
        "data": {"image": "/data/upload/1/birds/1.jpg", "label": "gull", "sample_id": "birds/1.jpg"},
        "annotations": [
            {
                "id": 5,
                "completed_by": {"id": 1, "email": "ann@x.org"},
                "result": [{"from_name": "a", "to_name": "b", "type": "choices", "value": {"choices": ["Yes"]}}],
                "lead_time": 2.5,
                "created_at": "2026-11-24T10:00:00.125000Z",
                "was_cancelled": False,
            },
            {"id": 6, "completed_by": 2, "result": [], "was_cancelled": True},
        ],
    },
    {
        "id": 12,
        "data": {"image": "http://x.org/2.jpg?token=1"},
        "annotations": [{"id": 7, "completed_by": 2, "result": [{"value": {"choices": ["No"]}}]}],
    },
]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_mturk_batch_results(tmp_path):
    """Rejected work is passed over; addresses become ids; everything else that MTurk says is kept."""
    found = read_answers(write(tmp_path / "batch.csv", MTURK), IDS)
    assert [(answer.id, answer.answer, answer.annotator, answer.seconds) for answer in found] == [
        ("birds/1.jpg", "yes", "A1XYZ", 7),
        ("birds/1.jpg", "no", "A2XYZ", 12),
        ("birds/2.jpg", "unsure", "A3XYZ", 9),
    ]
    first, second, _ = found
    assert first.time == datetime(2026, 11, 24, 20, 30, tzinfo=timezone.utc)
    assert second.time == datetime(2026, 7, 1, 15, 0, 5, tzinfo=timezone.utc)
    extra = dict(first.extra)
    assert extra["Input.image_url"] == "https://x.org/set/birds/1.jpg"
    assert extra["Input.label"] == "gull"
    assert extra["AssignmentId"] == "3A1"
    assert not first.simulated


def test_label_studio(tmp_path):
    found = read_answers(write(tmp_path / "project.json", LABEL_STUDIO), IDS)
    assert [(answer.id, answer.answer, answer.annotator) for answer in found] == [
        ("birds/1.jpg", "yes", "ann@x.org"),
        ("birds/2.jpg", "no", "2"),
    ]
    first = found.image_answers[0]
    assert first.seconds == 2.5
    assert first.time == datetime(2026, 11, 24, 10, 0, 0, 125000, tzinfo=timezone.utc)
    extra = dict(first.extra)
    assert (extra["task_id"], extra["annotation_id"], extra["label"]) == ("11", "5", "gull")


def test_label_studio_min(tmp_path):
    flat = [
        {"id": 3, "image": "s3://bucket/sea/1.jpg", "choice": "no", "annotator": 4, "annotation_id": 9, "lead_time": 1}
    ]
    (found,) = read_answers(write(tmp_path / "min.json", flat), IDS)
    assert (found.id, found.answer, found.annotator, found.seconds) == ("sea/1.jpg", "no", "4", 1)
    assert dict(found.extra)["task_id"] == "3"


def test_fiftyone(tmp_path):
    """Only labels that are answers count; others are about something else."""
    samples = {
        "samples": [
            {
                "_id": {"$oid": "6"},
                "filepath": "/home/me/birds/1.jpg",
                "ground_truth": {"_cls": "Classification", "label": "gull"},
                "relevant": {"_cls": "Classification", "label": "yes", "confidence": None, "annotator": "ann"},
            },
            {
                "filepath": "plain",
                "answer": {
                    "_cls": "Classifications",
                    "classifications": [{"label": "no"}, {"label": "no", "annotator": "b"}],
                },
            },
            {"filepath": "sea/1.jpg"},
        ]
    }
    found = read_answers(write(tmp_path / "samples.json", samples), IDS, annotator="me")
    assert [(answer.id, answer.answer, answer.annotator) for answer in found] == [
        ("birds/1.jpg", "yes", "ann"),
        ("plain", "no", "me"),
        ("plain", "no", "b"),
    ]
    assert dict(found.image_answers[0].extra)["fiftyone_field"] == "relevant"


@pytest.mark.parametrize("indent", [None, 1], ids=["one line", "many lines"])
def test_fiftyone_behind_a_long_header(tmp_path, indent):
    label = {"_cls": "Classification", "label": "yes", "annotator": "ann"}
    samples = {"info": {"notes": "x" * 10_000}, "samples": [{"filepath": "plain", "answer": label}]}
    path = tmp_path / "samples.json"
    path.write_text(json.dumps(samples, indent=indent), encoding="utf-8-sig")
    assert [answer.id for answer in read_answers(path, IDS)] == ["plain"]


def test_a_file_of_ours_that_speaks_of_samples(tmp_path):
    ours = AnnotationSet([ImageAnswer(id="plain", answer="no", annotator='"samples"', question='"samples"')])
    ours.save(tmp_path / "answers.jsonl")
    assert read_answers(tmp_path / "answers.jsonl", IDS) == ours


def test_plain_tables(tmp_path):
    text = "\ufeffimage,answer,neuron,patch,rater,note\nplain,Y,,,ann,\nbirds/2.jpg,0,7,1,bob,blurred\n,no,8,,bob,\n"
    one, two, three = read_answers(write(tmp_path / "t.csv", text), IDS)
    assert one == ImageAnswer(id="plain", answer="yes", annotator="ann")
    extra = {"note": "blurred"}
    assert two == NeuronAnswer(neuron=7, patch=1, id="birds/2.jpg", answer="no", annotator="bob", extra=extra)
    assert three == NeuronAnswer(neuron=8, patch=0, answer="no", annotator="bob")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "image,answer\nplain,yes\nplain,often\n",
            r"'t\.csv', line 3: the answer is 'often'; expected yes, no or unsure",
        ),
        ("image,answer\n1.jpg,yes\n", r"line 2: '1\.jpg' is not in the data set \(2 pictures of that name\)"),
        (
            "image,answer\nx.jpg,yes\nplain,no\ny.jpg,no\n",
            r"line 2: 'x\.jpg' is not .*\(2 of 3 rows are bad\)\. Nothing",
        ),
        ("image,answer,neuron\nplain,yes,many\n", r"line 2: neuron is 'many'; expected a whole number"),
        ("image,answer,patch\nplain,yes,1\n", r"line 2: the row names a patch and no neuron"),
        ("image,answer,seconds\nplain,yes,long\n", r"line 2: seconds is 'long'; expected a number"),
        ("image,answer,seconds\nplain,yes,-3\n", r"line 2: field 'seconds' is -3.0"),
        ("image,answer,time\nplain,yes,noon\n", r"line 2: time is 'noon'; expected such as 2026-01-31T12:00:00Z"),
        ("image,answer\n,yes\n", r"line 2: the row names no picture"),
        ("image,color\nplain,red\n", r"has no column answer .*; there are image, color"),
        ("answer,color\nyes,red\n", r"has no column id \(or id, image_id, image\)"),
        ('image,answer\nplain,"yes\n', r"is not a table of comma-separated values"),
    ],
)
def test_bad_tables(tmp_path, text, match):
    """All or nothing, with the line of the first bad row; or all that are good."""
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(FileFormatError, match=match):
        read_answers(path, IDS)
    if "column" not in match and "table" not in match:
        columns = text.split("\n")[0].count(",") - 1
        write(path, f"{text}plain,no{',' * columns}\n")  # of a file without a good row nothing can be taken
        rows = text.strip().count("\n") + 1
        good = read_answers(path, IDS, strict=False)
        assert good.dropped == rows - len(good) > 0


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([{"data": {"image": "plain"}, "annotations": [{"result": []}]}], r"'t\.json', task 0: the answer is ''"),
        ({"samples": [3]}, r"sample 0: 't.json' has no column"),
        ({"samples": {}}, "is JSON of no kind that is known"),
        ([{"a": 1}, 2], "is JSON of no kind that is known"),
        ([], None),
    ],
)
def test_bad_json(tmp_path, content, match):
    path = write(tmp_path / "t.json", content)
    if match is None:
        with pytest.raises(MismatchError, match="has answers for 0 images, the data set has 4"):
            read_answers(path, IDS)
        return
    with pytest.raises(FileFormatError, match=match):
        read_answers(path, IDS)


CSV = "WorkerId,Input.image,Answer.answer"
TASK = {"id": 1, "data": {"image": "plain"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{CSV},WorkerId\nann,plain,Yes,ben\n", "has 2 columns named 'WorkerId', 'WorkerId'; expected each name once"),
        (f"{CSV},workerid\nann,plain,Yes,ben\n", "has 2 columns named 'WorkerId', 'workerid'"),
        (f"{CSV},AssignmentStatus,AssignmentStatus\nann,plain,Yes,Approved,Rejected\n", "'AssignmentStatus'"),
        (f"{CSV}\nann,plain,Yes,more,cells\n", "line 2: it has 5 cells, the header 3"),
        (f"{CSV}\n", "no answer in it: expected one answer a row.* found 0 rows"),
        (f"{CSV},AssignmentStatus\nann,plain,Yes,Rejected\n", "found 1 rows, of which 1 were rejected"),
        ([TASK], 'task 0: expected "annotations", a list of objects, .*; it has id, data'),
        ([TASK | {"completions": [{"result": []}]}], "task 0: expected .*; it has id, data, completions"),
        ([TASK | {"annotations": {"a": 1}}], 'task 0: expected "annotations", a list'),
        ([TASK | {"annotations": ["yes"]}], 'task 0: expected "annotations", a list'),
        ([TASK | {"annotations": []}], "no answer in it: expected tasks of Label Studio .* not 1 tasks nobody"),
        ({"samples": []}, "no answer in it: expected samples of FiftyOne .*, not 0 samples with the fields none"),
        ({"samples": [{"filepath": "plain", "answer": "yes"}]}, "not 1 samples with the fields filepath, answer"),
        ({"samples": [{"filepath": "plain", "x": {"_cls": "Classification", "label": "cat"}}]}, "fields filepath, x"),
    ],
)
def test_a_file_with_something_in_it_and_no_answer(tmp_path, content, message):
    path = write(tmp_path / "t", content)
    for strict in (True, False):
        with pytest.raises(FileFormatError, match=message if strict else "'t'"):
            read_answers(path, IDS, strict=strict)


def test_lines_of_which_none_is_an_answer(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"kind":"image","id":"plain","ans')
    with pytest.raises(FileFormatError, match=r"no answer in it: .* found one line that was cut off"):
        read_answers(path, IDS)
    path.write_text('{"kind":"image"}\n{"kind":"neuron"}\n')
    with pytest.raises(FileFormatError, match=r"no answer in it: .* found 2 broken lines"):
        read_answers(path, IDS, strict=False)
    path.write_text("\n \n")
    assert len(read_answers(path, IDS)) == 0


def test_columns_that_differ_in_case_only_are_fine_when_they_are_foreign(tmp_path):
    (found,) = read_answers(write(tmp_path / "t.csv", "image,answer,note,Note\nplain,yes,a,b\n"), IDS)
    assert dict(found.extra) == {"note": "a", "Note": "b"}


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"image,answer\n\xff\xfe,yes\n")
    with pytest.raises(FileFormatError, match="is not UTF-8 text"):
        read_answers(tmp_path / "t.csv", IDS)


WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8
)
SHARED = {
    "answer": st.sampled_from(["yes", "no", "unsure"]),
    "annotator": WORDS.filter(str.strip),
    "question": WORDS | st.just(""),
    "model": st.sampled_from(["", "ab12"]),
    "time": st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc)),
    "seconds": st.none() | st.floats(0, 1e6),
    "simulated": st.booleans(),
    "source": WORDS | st.just(""),
    "target": st.none() | st.integers(0, 9),
    "extra": st.dictionaries(
        WORDS
        | st.sampled_from(["id", "image_url", "Input.image_url", "label", "lead_time", "note", "extra.id"])
        | st.sampled_from(["kind", "Kind", "Input.kind", "extra.kind", "fiftyone_field"]),
        WORDS | st.sampled_from(["spot", " Spot", "image", "kind"]),
        max_size=3,
    ),
}
RECORDS = st.lists(
    st.builds(ImageAnswer, id=st.sampled_from(IDS), **SHARED)
    | st.builds(SpotAnswer, id=st.sampled_from(IDS), **SHARED)
    | st.builds(
        NeuronAnswer, id=st.sampled_from(["", *IDS]), neuron=st.integers(0, 99), patch=st.integers(0, 2), **SHARED
    ),
    max_size=4,
)


@pytest.mark.parametrize("kind", list(FORMATS))
@settings(max_examples=40, deadline=None)
@given(records=RECORDS)
def test_round_trips_lose_nothing(kind, tmp_path_factory, records):
    answers = AnnotationSet(records)
    path = tmp_path_factory.mktemp("round") / "answers"
    write_answers(answers, path, kind)
    if not records and kind != "jsonl":  # a file with something in it and no answer is refused
        with pytest.raises((FileFormatError, MismatchError)):
            read_answers(path, IDS)
        return
    assert read_answers(path, IDS) == answers


@pytest.mark.parametrize("kind", FORMATS)
def test_other_tools_files_survive(kind, tmp_path):
    """What MTurk and Label Studio said goes through every format and comes out the same."""
    answers = read_answers(write(tmp_path / "batch.csv", MTURK), IDS).merge(
        read_answers(write(tmp_path / "project.json", LABEL_STUDIO), IDS)
    )
    write_answers(answers, tmp_path / "out", kind)
    again = read_answers(tmp_path / "out", IDS)
    assert again == answers
    assert again.fingerprint == answers.fingerprint


def test_kinds(tmp_path):
    one = AnnotationSet([ImageAnswer(id="plain", answer="no", annotator="ann")])
    with pytest.raises(SettingsError, match=r"expected a kind of file from jsonl, csv, mturk, .*, got 'xml'"):
        write_answers(one, tmp_path / "x", "xml")
    assert set(FORMATS) < set(KINDS)
    write_answers(one, tmp_path / "p.json", "published", ["plain"])
    assert json.loads((tmp_path / "p.json").read_text()) == ["no"]
    write_answers(one, tmp_path / "a.jsonl", "jsonl")
    assert read_answers(tmp_path / "a.jsonl", IDS) == one
    cut = AnnotationSet(
        [NeuronAnswer(neuron=n, patch=0, answer=word, annotator="a") for n, word in enumerate(["yes", "no"])]
    )
    write_answers(cut, tmp_path / "n.json", "published-neurons", num_neurons=2)
    assert json.loads((tmp_path / "n.json").read_text()) == [True, False]
    assert write_tool(one, "csv") == "id,answer,annotator\r\nplain,no,ann\r\n"


def test_a_column_says_what_is_about_a_spot(tmp_path):
    text = "image,answer,kind,rater\nplain,Y,spot,ann\nplain,N, Spot ,bob\nplain,N,image,ann\nplain,N,,bob\n"
    found = list(read_answers(write(tmp_path / "t.csv", text), IDS))
    assert found == [
        SpotAnswer(id="plain", answer="yes", annotator="ann"),
        SpotAnswer(id="plain", answer="no", annotator="bob"),
        ImageAnswer(id="plain", answer="no", annotator="ann", extra=(("kind", "image"),)),
        ImageAnswer(id="plain", answer="no", annotator="bob"),
    ]
    both = write(tmp_path / "both.csv", "image,answer,kind,neuron,rater\nplain,Y,spot,3,ann\n")
    with pytest.raises(FileFormatError, match="line 2: the row is about a spot and names a neuron"):
        read_answers(both, IDS)
    no_id = write(tmp_path / "none.csv", "image,answer,kind\n,Y,spot\n")
    with pytest.raises(FileFormatError, match="line 2: the row names no picture"):
        read_answers(no_id, IDS)


def test_what_is_written_without_spots_has_no_column_for_them():
    one = AnnotationSet([ImageAnswer(id="plain", answer="no", annotator="ann", extra=(("kind", "bird"),))])
    assert write_tool(one, "csv") == "id,answer,annotator,kind\r\nplain,no,ann,bird\r\n"
    assert write_tool(one, "mturk").splitlines()[0] == "Input.sample_id,Answer.category.label,WorkerId,kind"
    spot = AnnotationSet([SpotAnswer(id="plain", answer="no", annotator="ann")])
    assert write_tool(spot, "csv") == "id,answer,annotator,kind\r\nplain,no,ann,spot\r\n"
    assert write_tool(spot, "mturk").splitlines()[0] == "Input.sample_id,Answer.category.label,WorkerId,Input.kind"
