"""The collection: files, filters, verdicts, agreement and identity."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from crayon_sdk._base.showing import as_text
from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.errors import AnswerError, FileFormatError, MismatchError, OutputError, SettingsError

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
A, B = "aa" * 32, "bb" * 32


def image(id_="1.jpg", answer="yes", annotator="ann", minutes=None, **more):
    when = None if minutes is None else START + timedelta(minutes=minutes)
    return ImageAnswer(id=id_, answer=answer, annotator=annotator, time=when, **more)


def neuron(number=0, patch=0, answer="yes", annotator="ann", **more):
    return NeuronAnswer(neuron=number, patch=patch, answer=answer, annotator=annotator, **more)


def spot(id_="1.jpg", answer="yes", annotator="ann", **more):
    return SpotAnswer(id=id_, answer=answer, annotator=annotator, **more)


@pytest.fixture
def answers():
    return AnnotationSet(
        [
            image("ä 1.jpg", "yes", minutes=0, model=A, seconds=1.5),
            image("2.jpg", "unsure", "ben", simulated=True, target=4),
            neuron(7, 1, "no", id="2.jpg", question="On the bird?", source="grid"),
        ]
    )


# --- the collection ---------------------------------------------------------------------------------------------------


def test_collection(answers):
    assert len(answers) == 3
    assert [type(one) for one in answers] == [ImageAnswer, ImageAnswer, NeuronAnswer]
    assert len(answers.image_answers) == 2
    assert len(answers.neuron_answers) == 1
    assert repr(answers) == "AnnotationSet(2 image answers, 1 neuron answers, 2 annotators)"
    assert answers == AnnotationSet(list(answers))
    assert answers != AnnotationSet(reversed(list(answers)))
    assert answers != list(answers)
    assert answers.annotators == ("ann", "ben")
    with pytest.raises(TypeError, match="unhashable"):
        hash(answers)
    assert (answers.torn_line, answers.dropped) == (None, 0)


def test_counts_and_simulated(answers):
    assert answers.counts() == {
        "answers": 3,
        "items": 3,
        "yes": 1,
        "no": 1,
        "unsure": 1,
        "annotators": 2,
        "simulated": 1,
    }
    assert answers.counts("neuron")["no"] == answers.counts("neuron")["answers"] == 1
    assert answers.is_simulated
    assert not answers.all_simulated
    only = AnnotationSet([image(simulated=True)])
    assert only.is_simulated
    assert only.all_simulated
    assert not AnnotationSet().is_simulated
    assert not AnnotationSet().all_simulated
    with pytest.raises(SettingsError, match="kind='images' is unknown"):
        answers.counts("images")


def test_only_records_come_in():
    with pytest.raises(AnswerError, match=r"got dict; use AnnotationSet.from_records"):
        AnnotationSet([{"kind": "image"}])
    with pytest.raises(AnswerError, match="got NoneType"):
        AnnotationSet().add(None)
    for wrong in ("answers.jsonl", image(), 3, {"a": "yes"}):
        with pytest.raises(AnswerError, match="expected a list of answers"):
            AnnotationSet(wrong)


def test_from_records(answers):
    records = [json.loads(one.model_dump_json()) for one in answers]
    assert AnnotationSet.from_records(records) == answers
    assert AnnotationSet.from_records(one.model_dump() for one in answers) == answers
    for bad, message in [
        (
            {"kind": "image", "id": "a", "answer": "ja", "annotator": "x"},
            "record 3: .*'ja'; expected one of yes, no, un",
        ),
        ({"kind": "image", "id": "a", "anser": "yes"}, "record 3: .*unknown field 'anser'.*mean 'answer'"),
        ({"id": object()}, "record 3: "),
        ({"kind": "image", "id": "\ud800"}, "record 3: "),
        ("yes", "record 3: expected one record"),
        (["yes"], "record 3: expected one record"),
    ]:
        with pytest.raises(AnswerError, match=message):
            AnnotationSet.from_records([*records, bad])


# --- merging and identity ---------------------------------------------------------------------------------------------


def test_merge_keeps_everything_once(answers):
    other = AnnotationSet([image("3.jpg"), answers.image_answers[0], image("3.jpg", annotator="ben")])
    merged = answers.merge(other, answers)
    assert list(merged) == [*answers, image("3.jpg"), image("3.jpg", annotator="ben")]
    assert answers.merge(answers) == answers.merge() == answers
    assert len(answers) == 3
    assert answers.merge(other).fingerprint == other.merge(answers).fingerprint
    assert len(AnnotationSet([image(), image()]).merge()) == 1
    with pytest.raises(AnswerError, match="expected an AnnotationSet to merge with, got list"):
        answers.merge([image()])


def test_merge_keeps_a_mind_that_changed_back():
    back = AnnotationSet([image(answer="yes"), image(answer="no"), image(answer="yes")])
    assert back.merge().image_relevance() == back.image_relevance() == {"1.jpg": "relevant"}
    changed = AnnotationSet([image(answer="yes"), image(answer="no")])
    assert changed.merge(AnnotationSet([image(answer="yes")])).image_relevance() == {"1.jpg": "irrelevant"}


def test_merge_loses_nothing_in_random_sets():
    dice = random.Random(3)
    pool = [image(f"{n}.jpg", word, who) for n in range(3) for word in ("yes", "no") for who in ("ann", "ben")]
    for _ in range(100):
        sets = [AnnotationSet(dice.choices(pool, k=dice.randint(0, 8))) for _ in range(3)]
        merged = sets[0].merge(*sets[1:])
        assert set(merged) == {one for own in sets for one in own}
        assert len(merged) == len(set(merged))


def test_fingerprint_is_about_content(answers, tmp_path):
    assert len(answers.fingerprint) == 64
    assert AnnotationSet(reversed(list(answers))).fingerprint == answers.fingerprint
    assert AnnotationSet(list(answers)[:2]).fingerprint != answers.fingerprint
    assert AnnotationSet([*answers, image()]).fingerprint != answers.fingerprint
    answers.save(tmp_path / "a.jsonl")
    assert AnnotationSet.load(tmp_path / "a.jsonl").fingerprint == answers.fingerprint


# --- files ------------------------------------------------------------------------------------------------------------


def test_save_load_append(answers, tmp_path):
    path = tmp_path / "new" / "answers.jsonl"
    answers.save(path)
    assert AnnotationSet.load(path) == answers
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert "ä 1.jpg" in lines[0]
    assert json.loads(lines[0])["time"] == "2026-01-01T00:00:00Z"
    more = AnnotationSet([image("4.jpg"), neuron(9)])
    more.append_to(path)
    assert list(AnnotationSet.load(path)) == [*answers, *more]
    AnnotationSet().append_to(path)
    assert len(AnnotationSet.load(str(path))) == 5
    AnnotationSet().save(path)
    assert AnnotationSet.load(path) == AnnotationSet()


def test_every_truncation_loads_and_can_be_appended_to(tmp_path, caplog):
    path = tmp_path / "answers.jsonl"
    full = AnnotationSet([image("ä.jpg", question="“?”", minutes=1), neuron(3, answer="no", seconds=0.5)])
    full.save(path)
    data = path.read_bytes()
    ends = [position for position, byte in enumerate(data) if byte == ord("}")]
    assert len(ends) == 2
    extra = AnnotationSet([image("new.jpg")])
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        caplog.clear()
        loaded = AnnotationSet.load(path)
        whole = sum(cut > end for end in ends)
        assert list(loaded) == list(full)[:whole]
        torn = data[:cut].rpartition(b"\n")[2] if cut <= ends[-1] and cut != ends[0] + 1 else b""
        assert loaded.torn_line == (torn.decode(errors="replace") or None)
        assert loaded.dropped == 0
        assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == bool(torn)
        assert AnnotationSet.load(path, strict=False) == loaded

        aside = Path(f"{path}.torn")
        extra.append_to(path)
        assert (aside.read_bytes() if aside.exists() else b"") == (torn + b"\n" if torn else b"")
        aside.unlink(missing_ok=True)
        again = AnnotationSet.load(path)
        assert list(again) == [*list(full)[:whole], *extra]
        assert again.torn_line is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"kind":"image","id":"a","answer":"yes","ann', "not valid JSON"),
        (b'{"kind":"image","id":"a","answer":"maybe","annotator":"x"}', "is 'maybe'; expected one of yes, no, unsure"),
        (b'{"kind":"image","id":"a","answer":"yes","anotator":"x"}', r"unknown field 'anotator' \(did you mean 'annot"),
        (b'{"kind":"image","id":"a","answer":"yes","annotator":"x","seconds":"3"}', "field 'seconds' is '3'"),
        (b'{"kind":"image","id":"\xff","answer":"yes","annotator":"x"}', "not UTF-8"),
        (b'{"kind":"neuron","neuron":-1,"patch":0,"answer":"yes","annotator":"x"}', "field 'neuron' is -1"),
        (b'{"id":"a","answer":"yes","annotator":"x"}', "field 'kind' is missing"),
        (b"id,answer", "not valid JSON"),
        (bytes(20), "not valid JSON"),
    ],
)
def test_broken_line_in_the_middle(tmp_path, caplog, line, message):
    path = tmp_path / "answers.jsonl"
    first, last = (one.model_dump_json().encode() for one in (image("1"), image("2")))
    path.write_bytes(b"\n".join([first, b"", line, last, b""]))
    with pytest.raises(
        FileFormatError, match=rf"answers\.jsonl', line 3: .*{message}.*1 of 3 lines are broken.*strict=Fal"
    ):
        AnnotationSet.load(path)
    loaded = AnnotationSet.load(path, strict=False)
    assert [one.id for one in loaded] == ["1", "2"]
    assert loaded.dropped == 1
    assert "1 of 3 lines are broken and were left out" in caplog.text


def test_whole_but_wrong_last_line_is_no_torn_line(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(image().model_dump_json() + '\n{"kind":"image","id":"a","answer":"maybe","annotator":"x"}')
    with pytest.raises(FileFormatError, match=r"line 2: .*expected one of yes, no, unsure"):
        AnnotationSet.load(path)
    loaded = AnnotationSet.load(path, strict=False)
    assert (len(loaded), loaded.dropped, loaded.torn_line) == (1, 1, None)


def test_byte_order_mark_and_windows_line_ends(tmp_path, answers):
    path = tmp_path / "answers.jsonl"
    answers.save(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert AnnotationSet.load(path) == answers
    answers.append_to(path)
    assert list(AnnotationSet.load(path)) == [*answers, *answers]


def test_other_files_and_places(tmp_path, answers):
    with pytest.raises(FileFormatError, match="no file at"):
        AnnotationSet.load(tmp_path / "none.jsonl")
    with pytest.raises(FileFormatError, match="cannot be read"):
        AnnotationSet.load(tmp_path)
    (tmp_path / "published.json").write_text('["yes", "no"]')
    with pytest.raises(FileFormatError, match=r"published format, see formats.from_published"):
        AnnotationSet.load(tmp_path / "published.json")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert len(AnnotationSet.load(tmp_path / "empty.jsonl")) == 0
    for write in (answers.save, answers.append_to):
        with pytest.raises(OutputError, match="cannot write"):
            write(tmp_path)
        with pytest.raises(OutputError, match="cannot write"):
            write(tmp_path / "empty.jsonl" / "answers.jsonl")
    assert (tmp_path / "empty.jsonl").read_bytes() == b""
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty.jsonl", "published.json"]


def test_folder_without_permission(tmp_path, answers):
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("permissions do not bind this user")
    tmp_path.chmod(0o500)
    try:
        for write in (answers.save, answers.append_to):
            with pytest.raises(OutputError, match="not writable"):
                write(tmp_path / "answers.jsonl")
    finally:
        tmp_path.chmod(0o700)


def test_hundred_thousand_records_in_seconds(tmp_path):
    path = tmp_path / "answers.jsonl"
    big = AnnotationSet(image(f"{number}.jpg", minutes=number, seconds=1.0) for number in range(100_000))
    big.save(path)
    start = time.perf_counter()
    loaded = AnnotationSet.load(path)
    assert time.perf_counter() - start < 15  # about 1.2 s where nothing else runs
    assert loaded == big


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_image_relevance_by_hand():
    answers = AnnotationSet(
        [
            image("both", "yes", "ann"),
            image("both", "yes", "ben"),
            image("none", "no", "ann"),
            image("none", "no", "ben"),
            image("split", "yes", "ann"),
            image("split", "no", "ben"),
            image("doubt", "yes", "ann"),
            image("doubt", "unsure", "ben"),
            image("single", "no", "ann"),
            neuron(0, answer="no"),
        ]
    )
    assert answers.image_relevance() == {
        "both": "relevant",
        "none": "irrelevant",
        "split": "mixed",
        "doubt": "mixed",
        "single": "irrelevant",
    }
    assert answers.image_relevance("majority")["doubt"] == "relevant"
    assert "single" not in answers.image_relevance(min_votes=2)
    assert answers.image_relevance("share", yes_share=1.0, maybe_share=1.0)["both"] == "mixed"


def test_changed_minds():
    answers = AnnotationSet([image("1", "no", minutes=9), image("1", "yes", minutes=2), image("1", "no", "ben")])
    assert answers.image_relevance() == {"1": "irrelevant"}
    assert answers.image_relevance(latest_only=False) == {"1": "mixed"}
    assert answers.image_relevance(min_votes=3) == {}
    patches = AnnotationSet([neuron(1, 0, "yes"), neuron(1, 1, "no"), neuron(1, 0, "no")])
    assert patches.neuron_relevance() == {1: "irrelevant"}


def test_neuron_relevance_by_hand():
    words = {0: "yyn", 1: "ynn", 2: "nnn", 3: "yn", 4: "n"}
    answers = AnnotationSet(
        neuron(number, patch, {"y": "yes", "n": "no"}[word])
        for number, row in words.items()
        for patch, word in enumerate(row)
    )
    answers.add(image())
    assert [n for n, verdict in answers.neuron_relevance().items() if verdict == "irrelevant"] == [1, 2, 4]
    assert [n for n, verdict in answers.neuron_relevance("unanimous").items() if verdict == "irrelevant"] == [2, 4]
    assert [n for n, verdict in answers.neuron_relevance("share").items() if verdict == "irrelevant"] == [1, 2, 4]
    assert list(answers.neuron_relevance(min_votes=2)) == [0, 1, 2, 3]


def test_relevance_against_brute_force():
    dice = random.Random(11)
    for _ in range(60):
        ids, people = "abc"[: dice.randint(1, 3)], "xyz"[: dice.randint(1, 3)]
        records = [
            image(dice.choice(ids), dice.choice(["yes", "no", "unsure"]), dice.choice(people), minutes=number)
            for number in range(dice.randint(1, 12))
        ]
        dice.shuffle(records)
        last = defaultdict(dict)
        for one in sorted(records, key=lambda one: one.time):
            last[one.id][one.annotator] = one.answer
        found = AnnotationSet(records).image_relevance("majority", min_votes=2)
        expected = {}
        for id_, votes in last.items():
            count = Counter(votes.values())
            if len(votes) >= 2:
                more = count["yes"] - count["no"]
                expected[id_] = "relevant" if more > 0 else "irrelevant" if more < 0 else "mixed"
        assert found == expected


def test_wrong_rules_are_refused_even_without_answers():
    for judge in (AnnotationSet().image_relevance, AnnotationSet().neuron_relevance):
        with pytest.raises(SettingsError, match="rule='most' is unknown; expected one of unanimous, majority, share"):
            judge("most")
        with pytest.raises(SettingsError, match=r"min_votes >= 1.*got .*min_votes=0"):
            judge(min_votes=0)
        with pytest.raises(SettingsError, match=r"yes_share=0\.2"):
            judge(yes_share=0.2)


def test_agreement_of_images_and_neurons():
    answers = AnnotationSet(
        [image(str(n), word, "ann") for n, word in enumerate(["yes"] * 25 + ["no"] * 25)]
        + [image(str(n), word, "ben") for n, word in enumerate(["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15)]
        + [neuron(0, patch, "yes", who) for patch in (0, 1) for who in ("ann", "ben", "eve")]
    )
    result = answers.agreement()
    assert (result.kind, result.items, result.annotators, result.kappa_kind) == ("image", 50, 2, "cohen")
    assert result.percent == pytest.approx(70.0)
    assert result.kappa == pytest.approx(0.4)
    result = answers.agreement(kind="neuron")
    assert (result.kind, result.items, result.annotators, result.kappa_kind) == ("neuron", 2, 3, "fleiss")
    assert (result.percent, result.kappa) == (100.0, None)
    answers.add(image("0", "no", "ann"))  # ann changed her mind; still one answer of hers to that image
    assert answers.agreement().percent == pytest.approx(68.0)
    with pytest.raises(SettingsError, match="kind='patch' is unknown"):
        answers.agreement("patch")
    assert AnnotationSet().agreement().kappa is None


# --- filters ----------------------------------------------------------------------------------------------------------


def test_for_model():
    answers = AnnotationSet([image("1", model=A), image("2", model=B), image("3"), neuron(0, model=B)])
    with pytest.raises(MismatchError, match=rf"2 of 4 answers .* another model than {A[:12]}: '{B[:12]} \(2\)'"):
        answers.for_model(A)
    with pytest.raises(MismatchError, match=r"or strict=False to leave those answers out and keep the 2 that fit"):
        answers.for_model(A)
    kept = answers.for_model(A, strict=False)
    assert [one.id for one in kept] == ["1", "3"]
    assert kept.dropped == 2
    assert kept.for_model(A) == kept
    assert kept.for_model(A).dropped == 2
    for wrong in ("", None):
        with pytest.raises(SettingsError, match="expected the fingerprint of a model"):
            answers.for_model(wrong)


def test_for_ids():
    answers = AnnotationSet([image(f"{n}.jpg") for n in range(8)] + [neuron(0, id="other.jpg")])
    with pytest.raises(
        MismatchError, match=r"7 images that are not in train\.csv \(1 images\): '1\.jpg', .*and 2 more"
    ):
        answers.for_ids({"0.jpg"}, where="train.csv")
    kept = answers.for_ids(["0.jpg", "1.jpg"], strict=False)
    assert [one.id for one in kept] == ["0.jpg", "1.jpg", "other.jpg"]
    assert kept.dropped == 6
    assert kept.for_ids(["1.jpg"], strict=False).dropped == 7
    assert answers.for_ids([f"{n}.jpg" for n in range(9)]) == answers
    with pytest.raises(MismatchError, match=r"Ids there look like '0\.jpg': .* strict=False .* keep the 1 that fit"):
        answers.for_ids({"0.jpg"})
    for wrong in ("0.jpg", None):
        with pytest.raises(SettingsError, match="expected a collection of sample ids"):
            answers.for_ids(wrong)


def test_for_neurons():
    answers = AnnotationSet([neuron(n) for n in (0, 7, 8, 9)] + [image()])
    with pytest.raises(MismatchError, match=r"2 neurons the model does not have \(it has 8, from 0\): 8, 9"):
        answers.for_neurons(8)
    with pytest.raises(MismatchError, match=r"strict=False to leave those answers out and keep the 2 that fit"):
        answers.for_neurons(8)
    kept = answers.for_neurons(8, strict=False)
    assert [one.neuron for one in kept.neuron_answers] == [0, 7]
    assert (len(kept), kept.dropped) == (3, 2)
    with pytest.raises(SettingsError, match="num_neurons=0"):
        answers.for_neurons(0)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: AnnotationSet([image(model=B), neuron(0, model=B)]).for_model(A),
        lambda: AnnotationSet([image("train/cat/0.jpg"), neuron(0)]).for_ids(["cat/0.jpg"]),
        lambda: AnnotationSet([image(), neuron(9)]).for_neurons(8),
    ],
)
def test_leaving_out_is_not_offered_where_nothing_would_be_left(refused):
    with pytest.raises(MismatchError, match=r"none of these answers fits") as caught:
        refused()
    assert "strict=False" not in str(caught.value)


def test_where_no_image_fits_an_id_of_each_side_is_shown():
    with pytest.raises(MismatchError, match=r"'train/cat/0\.jpg'\. Ids there look like 'cat/0\.jpg': the path below"):
        AnnotationSet([image("train/cat/0.jpg")]).for_ids(["cat/0.jpg"])


def test_dropped_adds_up_when_merging():
    one = AnnotationSet([image(model=A)]).for_model(B, strict=False)
    two = AnnotationSet([neuron(5)]).for_neurons(5, strict=False)
    assert one.merge(two).dropped == 2


def test_import_loads_no_torch():
    code = "import sys, crayon_sdk.answers.formats; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_dict_of_answers():
    answers = AnnotationSet.from_dict({"a": "yes", "b": False, "c": "unsure"}, annotator="ann", model="m")
    assert [(each.id, each.answer, each.annotator, each.model) for each in answers.image_answers] == [
        ("a", "yes", "ann", "m"),
        ("b", "no", "ann", "m"),
        ("c", "unsure", "ann", "m"),
    ]
    for given, message in [
        ({"a": "maybe"}, "the answer to 'a': field 'answer' is 'maybe'; expected one of yes, no, unsure"),
        ({3: "yes"}, "the answer to 3: field 'id' is 3"),
        ([("a", "yes")], "expected a dict of sample ids and answers, got list"),
    ]:
        with pytest.raises(AnswerError, match=message):
            AnnotationSet.from_dict(given, annotator="ann")


def test_answers_are_looked_up_by_picture():
    one, two = (AnnotationSet.from_dict({"a": "yes", "b": "no"}, annotator=name) for name in ("ann", "ben"))
    both = one + two
    assert both == one.merge(two)
    assert [each.annotator for each in both["a"]] == ["ann", "ben"]
    assert ("a" in both, "z" in both, one.image_answers[0] in both) == (True, False, True)
    with pytest.raises(AnswerError, match="answers are looked up by the id of a picture, which is a text, got 0"):
        both[0]
    with pytest.raises(AnswerError, match="nobody answered about 'z'"):
        both["z"]
    with pytest.raises(TypeError):
        both + 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"got dict; write AnnotationSet.from_dict\({'1.jpg': 'yes', ...}, annotator='ann'\)"),
        ([], r"got list; write AnnotationSet\(answers\), or AnnotationSet.from_records"),
        ("answers.jsonl", r"got str; use load\(\) for a file"),
        (None, "got NoneType; use load"),
    ],
)
def test_what_is_no_set_of_answers(given, message):
    with pytest.raises(AnswerError, match=f"expected an AnnotationSet, {message}"):
        as_answers(given)


# --- spots ------------------------------------------------------------------------------------------------------------


def test_spots_beside_images():
    """The same pictures, and answers of their own."""
    spots = {"1.jpg": "irrelevant", "2.jpg": "mixed"}
    both = AnnotationSet([image("1.jpg"), spot("1.jpg", "no"), neuron(2), spot("2.jpg", "unsure", "ben")])
    assert [type(one) for one in both] == [ImageAnswer, SpotAnswer, NeuronAnswer, SpotAnswer]
    assert both.spot_answers == tuple(both.only("spot")) == (both["1.jpg"][1], *both["2.jpg"])
    assert (both.image_relevance(), both.spot_relevance()) == ({"1.jpg": "relevant"}, spots)
    assert both.spot_relevance("majority", min_votes=2) == {}
    assert (both.counts()["items"], both.counts("spot")["items"], both.counts("image")["items"]) == (4, 2, 1)
    assert both.voters("spot") == {"1.jpg": frozenset({"ann"}), "2.jpg": frozenset({"ben"})}
    assert repr(both) == "AnnotationSet(1 image answers, 1 neuron answers, 2 spot answers, 2 annotators)"
    cells = next(row.replace("│", " ").split() for row in as_text(both.table()).splitlines() if "spots" in row)
    assert cells == ["spots", "2", "2", "0", "1", "1", "2", "0", "-", "-"]
    assert "spots" not in as_text(both.only("image").table())
    assert "2.jpg" in both
    assert len(both.merge(AnnotationSet([spot("1.jpg", "no")]))) == 4
    assert both.only("image").fingerprint == AnnotationSet([image("1.jpg")]).fingerprint
    with pytest.raises(SettingsError, match="kind='spots' is unknown; expected 'image', 'neuron' or 'spot'"):
        both.only("spots")
    with pytest.raises(SettingsError, match="rule='most' is unknown"):
        both.spot_relevance("most")


def test_agreement_about_spots_is_of_spots():
    both = AnnotationSet(
        [image("1", "yes", who) for who in ("ann", "ben")]
        + [spot(str(n), word, who) for n in range(4) for who, word in (("ann", "yes"), ("ben", "no" if n else "yes"))]
    )
    assert both.agreement().percent == 100
    found = both.agreement("spot")
    assert (found.kind, found.percent, found.items, found.kappa_kind) == ("spot", 25.0, 4, "cohen")


def test_filters_treat_spots_like_images():
    both = AnnotationSet([spot("1", model=A, target=1), spot("2", model=B, target=7), neuron(0, model=A)])
    assert [each.id for each in both.for_model(A, strict=False)] == ["1", ""]
    assert [each.id for each in both.for_ids(["2"], strict=False)] == ["2", ""]
    with pytest.raises(MismatchError, match=r"1 images that are not in the data set.* keep the 1 that fit"):
        both.for_ids(["2"])
    assert [each.id for each in both.for_classes(5, strict=False)] == ["1", ""]
    with pytest.raises(MismatchError, match="target 7 of '2' by ann"):
        both.for_classes(5)
    assert len(both.for_neurons(1)) == 3


def test_spots_from_a_dictionary(tmp_path):
    made = AnnotationSet.from_dict({"1.jpg": True, "2.jpg": "no"}, annotator="ann", kind="spot")
    assert list(made) == [spot("1.jpg"), spot("2.jpg", "no")]
    made.save(tmp_path / "a.jsonl")
    assert AnnotationSet.load(tmp_path / "a.jsonl") == made
    assert AnnotationSet.from_records(each.model_dump() for each in made) == made
    for wrong in ("neuron", "spots"):
        with pytest.raises(SettingsError, match=f"expected kind 'image' or 'spot', got '{wrong}'"):
            AnnotationSet.from_dict({"1.jpg": True}, annotator="ann", kind=wrong)
    with pytest.raises(AnswerError, match="expected a list of answers, got SpotAnswer; write AnnotationSet"):
        AnnotationSet(spot())
