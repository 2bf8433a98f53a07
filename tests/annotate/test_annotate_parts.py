"""Tasks and their records, what the owner sees, and who may do what."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from conftest import make_pictures
from PIL import Image

from crayon_sdk.annotate.access import MAX_BODY, Access, Role, is_loopback, problem_with
from crayon_sdk.annotate.drawing import Drawing
from crayon_sdk.annotate.monitoring import disagreements, people
from crayon_sdk.annotate.store import Row
from crayon_sdk.annotate.tasks import make_tasks, records_of
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import SpotAnswer
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError
from crayon_sdk.explain.asking import Question, open_questions
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional.neurons import TopPatches
from crayon_sdk.workspace.serving import _voters

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return ImageDataset.from_csv(picture_folder / "metadata.csv", split="train")


@pytest.fixture(scope="module")
def maps(dataset):
    count = len(dataset)
    return SaliencyMaps(dataset.ids, torch.ones(count, 2, 2), torch.as_tensor(dataset.labels), model="f" * 64)


@pytest.fixture(scope="module")
def patches(dataset):
    """Three neurons with two patches each; the strongest of 0 and the second of 2 are the same."""
    top = TopPatches(
        torch.tensor([[3.0, 2.0], [3.0, 2.0], [3.0, 2.0]]),
        torch.tensor([[0, 1], [2, 15], [3, 0]]),
        torch.tensor([[3, 0], [1, 1], [2, 3]]),
    )
    return NeuronPatches.from_top(top, dataset.ids, (2, 2), model="f" * 64)


def given(task, answer="yes"):
    about = {"person": "ann", "model": "f" * 64, "time": NOW, "seconds": 0.5, "source": "annotate"}
    return records_of(task, answer=answer, **about)


def test_one_task_per_question_in_the_same_order(dataset, maps):
    asked = open_questions(maps, AnnotationSet(), count=99)
    tasks = make_tasks(dataset, maps, asked)
    assert [task.sample for task in tasks] == [question.id for question in asked]
    assert {task.question for task in tasks} == {f"Is the highlight mainly on the {name}?" for name in ("cat", "dog")}
    assert len({task.id for task in tasks}) == len(tasks)
    assert make_tasks(dataset, maps, asked) == tasks


def test_ids_say_nothing_and_belong_to_the_model(dataset, maps):
    asked = [Question("image", dataset.ids[0], 0)]
    (task,) = make_tasks(dataset, maps, asked)
    assert dataset.ids[0] not in task.id
    other = SaliencyMaps(maps.ids, maps.values, maps.targets, model="e" * 64)
    assert make_tasks(dataset, other, asked)[0].id != task.id


def test_a_picture_becomes_one_record(dataset, maps):
    (task,) = make_tasks(dataset, maps, [Question("image", dataset.ids[0], 0)], question="Is it on the {label}?")
    (record,) = given(task, "no")
    assert (record.id, record.answer, record.annotator, record.target) == (dataset.ids[0], "no", "ann", 0)
    assert (record.question, record.model, record.seconds) == ("Is it on the cat?", "f" * 64, 0.5)


def test_a_spot_becomes_a_record_of_its_own(dataset, maps):
    spot, image = (Question(kind, dataset.ids[0], 0) for kind in ("spot", "image"))
    one, other = make_tasks(dataset, maps, [spot, image])
    assert one.id != other.id
    assert (one.kind, one.question, one.pictures) == ("spot", "Is the bright spot on the cat?", 1)
    assert other.question == "Is the highlight mainly on the cat?"
    (record,) = given(one, "no")
    assert type(record) is SpotAnswer
    assert (record.id, record.answer, record.target, record.question) == (dataset.ids[0], "no", 0, one.question)
    # Who answered about the picture has not answered about its spot.
    assert _voters([one, other], AnnotationSet(given(one))) == {one.id: {"ann"}, other.id: set()}
    assert _voters([one, other], AnnotationSet(given(other))) == {one.id: set(), other.id: {"ann"}}


def test_the_picture_of_a_spot_shows_the_spot_only(dataset):
    values = torch.full((len(dataset), 4, 4), 0.7)
    values[:, 0, 0] = 1.0
    maps = SaliencyMaps(
        dataset.ids, values, torch.as_tensor(dataset.labels), preprocessing=Preprocessing(size=(96, 96))
    )
    asked = [Question(kind, dataset.ids[0], 0) for kind in ("spot", "image")]
    spot, image = make_tasks(dataset, maps, asked)
    drawing = Drawing(dataset, [maps])

    def orange(task):
        picture = Image.open(io.BytesIO(drawing.jpeg(task, 0, "orange", "large"))).convert("RGB")
        pixels = torch.from_numpy(np.array(picture, dtype=np.int64))
        return pixels[..., 0] - pixels[..., 2] > 40

    shown, whole = orange(spot), orange(image)
    assert shown[:60, :60].all()
    assert not shown[240:].any()
    assert not shown[:, 240:].any()
    assert whole.float().mean() > 0.9
    assert drawing.jpeg(spot, 0, "original", "large") == drawing.jpeg(image, 0, "original", "large")


def test_a_shared_patch_is_answered_for_every_neuron_that_has_it(dataset, patches):
    (task,) = make_tasks(dataset, patches, [Question("neuron", dataset.ids[0], 0, 0, 0)])
    assert [(record.neuron, record.patch) for record in given(task)] == [(0, 0), (2, 1)]
    assert task.pictures == 1
    assert task.question == "Is the red rectangle mainly on the cat?"


def test_all_patches_of_a_neuron_together(dataset, patches):
    asked = open_questions(patches, AnnotationSet(), count=99)
    tasks = make_tasks(dataset, patches, asked, group_patches=True)
    assert sorted(task.about[0][0] for task in tasks) == [0, 1, 2]
    mixed = next(task for task in tasks if task.about[0][0] == 1)  # a cat's picture and a dog's
    assert (mixed.pictures, mixed.target) == (2, None)
    assert mixed.question == "Are the red rectangles mainly on the cat or dog?"
    records = given(mixed, "no")
    assert [(record.neuron, record.patch, record.answer) for record in records] == [(1, 0, "no"), (1, 1, "no")]
    assert all(dict(record.extra) == {"shown together": "2"} for record in records)


def test_simulated_answers_are_nobodys(dataset, maps, patches):
    """People are asked all the same about what a program answered in their place."""
    (task,) = make_tasks(dataset, maps, [Question("image", dataset.ids[0], 0)])
    (shared,) = make_tasks(dataset, patches, [Question("neuron", dataset.ids[0], 0, 0, 0)])
    answers = [
        record.model_copy(update={"annotator": name, "simulated": name == "program"})
        for name in ("program", "ann")
        for record in (*given(task), *given(shared))
    ]
    assert _voters([task, shared], AnnotationSet(answers)) == {task.id: {"ann"}, shared.id: {"ann"}}
    assert _voters([shared], AnnotationSet([*answers[:3], answers[-1]])) == {shared.id: set()}  # ann: one of two


@pytest.mark.parametrize(
    "words",
    [
        "Is it on the {class_name}?",
        "{label.__class__.__mro__}",
        "{label[0]}",
        "{label!r}",
        "{label:>9999999999}",
        "{label:{label}}",
        "{}",
        "{0}",
        "{label",
        "label}",
        "a\ud800b",
    ],
)
def test_words_with_another_placeholder(dataset, maps, words):
    with pytest.raises(SettingsError, match=r"expected a question with \{label\} at most"):
        make_tasks(dataset, maps, [], question=words)


def test_words_with_braces_and_without_a_label(dataset, maps):
    (task,) = make_tasks(dataset, maps, [Question("image", dataset.ids[0], 0)], question="{{Is}} it the {label}?")
    assert task.question == "{Is} it the cat?"
    (task,) = make_tasks(dataset, maps, [Question("image", dataset.ids[0], 0)], question="Is it?")
    assert task.question == "Is it?"


def test_class_names_are_text(tmp_path):
    root = make_pictures(tmp_path)
    table = (root / "metadata.csv").read_text().replace(",cat,", ",<script>alert(1)</script>,")
    (root / "metadata.csv").write_text(table)
    dataset = ImageDataset.from_csv(root / "metadata.csv", split="train")
    maps = SaliencyMaps(dataset.ids, torch.ones(len(dataset), 2, 2), torch.as_tensor(dataset.labels))
    questions = {task.question for task in make_tasks(dataset, maps, open_questions(maps, AnnotationSet()))}
    assert "Is the highlight mainly on the <script>alert(1)</script>?" in questions


# --- what the owner sees --------------------------------------------------------------------


def row(number, answer="yes", *, person="ann", seconds=1.0, source="annotate", after=0.0, task=None):
    time = (NOW + timedelta(seconds=after)).isoformat()
    return Row(f"u{person}{number}", task or f"t{number}", person, answer, seconds, source, time)


def test_facts_about_people():
    answers = ["yes", "no", "no", "unsure", "no"]
    rows = [row(n, word, seconds=n + 1.0, after=30.0 * n) for n, word in enumerate(answers)]
    found = people([*rows, row(0, person="ben", seconds=None)])
    ann, ben = found
    assert (ann.person, ann.answers, ann.yes, ann.unsure) == ("ann", 5, 0.25, 0.2)
    assert (ann.median_seconds, ann.per_minute, ann.longest_run, ann.flags) == (3.0, 2.0, 2, ())
    assert (ben.answers, ben.median_seconds, ben.per_minute) == (1, None, None)


def test_haste_and_long_runs_are_flagged_but_not_in_the_grid():
    quick = [row(n, "yes" if n % 2 else "no", seconds=0.15) for n in range(3)]
    assert people(quick)[0].flags == ("3 answers under 0.2 s",)
    run = [row(n, "no", after=n) for n in range(25)]
    assert people(run)[0].flags == ("25 times no in a row",)
    assert people(run[:24])[0].flags == ()
    assert people([row(n, seconds=0.01, source="grid") for n in range(50)])[0].flags == ()


def test_the_pace_is_of_the_last_ten_minutes():
    early = [row(n, after=n) for n in range(100)]
    late = [row(200 + n, after=3600 + 60 * n) for n in range(4)]
    assert people([*early, *late])[0].per_minute == pytest.approx(1.0)


def test_disagreements_the_latest_first():
    rows = [row(1, task="a"), row(2, task="b"), row(3, "no", person="ben", task="b"), row(4, "no", person="cec")]
    rows += [row(5, "no", person="ben", task="a"), row(6, "unsure", person="cec", task="b")]
    assert disagreements(rows) == {
        "b": {"ann": "yes", "ben": "no", "cec": "unsure"},
        "a": {"ann": "yes", "ben": "no"},
    }
    assert list(disagreements(rows)) == ["b", "a"]


# --- who may do what ------------------------------------------------------------------------


def test_tokens():
    access = Access(True, {"s3cret": Role(owner=True), "ännchen": Role(person="ann")})
    assert access.role("s3cret").owner
    assert access.role("ännchen").person == "ann"
    for wrong in (None, "", "s3cre", "s3crets", "S3CRET", "é"):
        assert access.role(wrong) is None
    assert "s3cret" not in repr(access)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.7", False),
        ("localhost.evil.org", False),
        ("", False),
    ],
)
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


HERE = {"host": "127.0.0.1:8730"}


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, None),
        ("GET", {"host": "localhost"}, None),
        ("GET", {"host": "[::1]:99"}, None),
        ("GET", {"host": "evil.org"}, 400),
        ("GET", {"host": "evil.org:8730"}, 400),
        ("GET", {"host": "[::1"}, 400),
        ("GET", {"host": ""}, 400),
        ("GET", {"host": "evil.org@127.0.0.1"}, 400),
        ("GET", {"host": "evil.org:x@127.0.0.1:8730"}, 400),
        ("GET", {"host": "127.0.0.1/evil.org"}, 400),
        ("GET", {"host": "127.0.0.1#evil.org"}, 400),
        ("GET", {"host": "127.0.0.1\t"}, 400),
        ("GET", {"host": "LOCALHOST:1"}, None),
        ("GET", {"transfer-encoding": "chunked"}, 411),
        ("POST", {"content-length": "10", "transfer-encoding": "chunked"}, 411),
        ("POST", {"content-length": "٣"}, 411),
        ("POST", {"content-length": "9" * 5000}, 411),
        ("POST", {"content-length": "5"}, None),
        ("POST", {"content-length": "5", "origin": "http://127.0.0.1:8730"}, None),
        ("POST", {"content-length": "5", "origin": "http://127.0.0.1:99"}, 403),
        ("POST", {"content-length": "5", "origin": "null"}, 403),
        ("POST", {"content-length": "5", "origin": "http://["}, 403),
        ("POST", {"content-length": "5", "sec-fetch-site": "cross-site"}, 403),
        ("POST", {}, 411),
        ("POST", {"content-length": "-1"}, 411),
        ("POST", {"content-length": str(MAX_BODY + 1)}, 413),
        ("DELETE", {"origin": "http://evil.org", "content-length": "0"}, 403),
    ],
)
def test_requests_that_are_not_read(method, headers, status):
    found = problem_with(method, {**HERE, **headers}, known_hosts_only=True)
    assert (found and found[0]) == status


def test_with_tokens_any_name_will_do():
    assert problem_with("GET", {"host": "birds.example.org"}, known_hosts_only=False) is None
