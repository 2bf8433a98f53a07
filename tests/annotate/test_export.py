"""Tasks for a crowd: what is written, how it looks, and that the results come back."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ET

import pytest
from helpers_workspace import crayon, new_workspace, save_model
from PIL import Image

from crayon_sdk.annotate.export import export_crowd
from crayon_sdk.errors import AnswerError, MismatchError, OutputExistsError, SettingsError
from crayon_sdk.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def place(tmp_path_factory, picture_folder):
    """A workspace with maps and patches and no answers; nobody may change it."""
    root = tmp_path_factory.mktemp("crowd")
    workspace = new_workspace(root / "ws", picture_folder, save_model(root / "m"))
    workspace.explain(sheet=0)
    return root


@pytest.fixture
def workspace(place, tmp_path):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "ws")


def tasks(folder):
    with (folder / "tasks.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mturk_results(rows, path):
    """What MTurk gives back: every column of the task with "Input." before it, and the worker's answer."""
    with path.open("w", encoding="utf-8", newline="") as file:
        names = [f"Input.{name}" for name in rows[0]]
        writer = csv.DictWriter(file, ["HITId", "WorkerId", "AssignmentStatus", *names, "Answer.category.label"])
        writer.writeheader()
        for number, row in enumerate(rows):
            about = {f"Input.{name}": value for name, value in row.items()} | {"HITId": f"H{number}"}
            for worker, answer in (("A1", "yes"), ("A2", "no" if number % 2 else "yes")):
                given = {"WorkerId": worker, "AssignmentStatus": "Approved", "Answer.category.label": answer}
                writer.writerow(about | given)
    return path


def test_pictures_to_answer(workspace, tmp_path):
    out = tmp_path / "tasks"
    count = workspace.export_crowd(out, base_url="https://x.org/set/")
    rows = tasks(out)
    maps = workspace.maps()
    assert count == len(rows) == int(maps.evidence.sum())
    assert sorted(path.name for path in out.iterdir()) == ["images", "label-studio.xml", "tasks.csv", "tasks.json"]
    for row in rows:
        assert row["image_url"].startswith("https://x.org/set/images/")
        assert row["question"] == f"Is the highlight mainly on the {row['label']}?"
        assert row["model"] == maps.model
        with Image.open(out / row["image_url"].removeprefix("https://x.org/set/")) as image:
            assert image.format == "JPEG"
            assert image.width > 2.5 * image.height
    given = [task["data"] for task in json.loads((out / "tasks.json").read_text())]
    assert [{name: str(value) for name, value in data.items()} for data in given] == rows
    configuration = ET.parse(out / "label-studio.xml").getroot()
    assert {each.get("value") for each in configuration.iter("Choice")} == {"yes", "no", "unsure"}
    assert configuration.find("Image").get("value") == "$image_url"


def test_results_come_back(workspace, tmp_path):
    """From MTurk; then nothing is left to ask of one person, and everything of three."""
    out = tmp_path / "tasks"
    workspace.export_crowd(out)
    rows = tasks(out)
    assert workspace.import_answers(mturk_results(rows, tmp_path / "batch.csv")) == 2 * len(rows)
    answers = workspace.answers()
    assert answers.annotators == ("A1", "A2")
    assert {answer.model for answer in answers} == {workspace.maps().model}
    assert {answer.question for answer in answers} == {row["question"] for row in rows}
    with pytest.raises(SettingsError, match="everything was answered often enough"):
        workspace.export_crowd(tmp_path / "more")
    assert workspace.export_crowd(tmp_path / "third", votes=3, count=5) == 5


def test_patches_to_answer(workspace, tmp_path):
    out = tmp_path / "tasks"
    count = workspace.export_crowd(out, kind="neuron", question="On the {label}?", count=12)
    rows = tasks(out)
    assert count == len(rows) == 12
    assert rows[0]["question"] == f"On the {rows[0]['label']}?"
    data = json.loads((out / "tasks.json").read_text())[3]["data"]
    annotation = {"completed_by": 7, "result": [{"value": {"choices": ["no"]}}]}
    (tmp_path / "done.json").write_text(json.dumps([{"id": 3, "data": data, "annotations": [annotation]}]))
    assert workspace.import_answers(tmp_path / "done.json") == 1
    (answer,) = workspace.answers().neuron_answers
    assert [str(answer.neuron), str(answer.patch), answer.id] == [
        rows[3][name] for name in ("neuron", "patch", "sample_id")
    ]
    assert (answer.answer, answer.annotator) == ("no", "7")


def test_what_cannot_be_written(workspace, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError):
        workspace.export_crowd(tmp_path / "there", count=1)
    assert (tmp_path / "there" / "mine.txt").read_text() == "x"
    with pytest.raises(SettingsError, match=r"expected a question with \{label\} at most"):
        workspace.export_crowd(tmp_path / "new", question="Is it {name}?")
    asked = workspace.suggest(count=1)
    other = workspace.maps().select([each for each in workspace.maps().ids if each != asked[0].id])
    with pytest.raises(MismatchError):
        export_crowd(tmp_path / "new", workspace.dataset(), other, asked)
    assert not (tmp_path / "new").exists()
    with pytest.raises(AnswerError, match="there are no answers yet"):
        workspace.export_answers(tmp_path / "a.csv", "csv")


def test_same_seed_same_order(workspace, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        workspace.export_crowd(tmp_path / name, count=6, seed=seed)
    orders = [[row["sample_id"] for row in tasks(tmp_path / name)] for name in "abc"]
    assert orders[0] == orders[1] != orders[2]


def test_from_the_shell(workspace, tmp_path):
    """Hand out, take in, hand on to another tool and take that in again: the same answers."""
    where = ["-w", workspace.folder]
    done = crayon("answer", "export-crowd", tmp_path / "tasks", "--count", 4, *where)
    assert (done.exit_code, done.stdout) == (0, f"4 questions in {tmp_path / 'tasks'}\n")
    batch = mturk_results(tasks(tmp_path / "tasks"), tmp_path / "batch.csv")
    done = crayon("answer", "import", batch, "--json", *where)
    assert json.loads(done.stdout) == {"new": 8, "known": 0, "answers": 8}
    answers = workspace.answers()
    for kind, name in (("csv", "a.csv"), ("mturk", "b.csv"), ("label-studio", "c.json"), ("fiftyone", "d.json")):
        done = crayon("answer", "export", tmp_path / name, "--format", kind, *where)
        assert (done.exit_code, done.stdout) == (0, f"8 answers in {tmp_path / name}\n")
        # Known already: every one of them came back as it was.
        assert json.loads(crayon("answer", "import", tmp_path / name, "--json", *where).stdout)["new"] == 0
    assert workspace.answers() == answers
    refused = crayon("answer", "export", tmp_path / "a.csv", *where)
    assert refused.exit_code != 0
    assert "exists; choose another name, or replace it with --overwrite" in refused.stderr
    assert crayon("answer", "export", tmp_path / "a.csv", "--overwrite", *where).exit_code == 0


def test_bad_rows_from_the_shell(workspace, tmp_path):
    """All or nothing, unless bad rows may be skipped."""
    ids = workspace.dataset().ids
    rows = "".join(f"{sample},{word}\n" for sample, word in zip(ids, ["yes", "no", "perhaps"], strict=False))
    (tmp_path / "t.csv").write_text("image,answer\n" + rows)
    refused = crayon("answer", "import", tmp_path / "t.csv", "-w", workspace.folder)
    assert refused.exit_code != 0
    assert "'t.csv', line 4: the answer is 'perhaps'" in refused.stderr
    assert not len(workspace.answers())
    taken = crayon("answer", "import", tmp_path / "t.csv", "--skip-bad", "--annotator", "ann", "-w", workspace.folder)
    assert taken.exit_code == 0, taken.stderr
    assert "1 lines of" in taken.stderr
    assert [answer.annotator for answer in workspace.answers()] == ["ann", "ann"]


def test_spots_to_answer(workspace, tmp_path):
    """Titles say what is marked; the kind goes to the crowd and comes back."""
    pictures, out = tmp_path / "pictures", tmp_path / "spots"
    count = workspace.export_crowd(out, kind="spot", method="typical")
    assert workspace.export_crowd(pictures, method="typical") == count
    rows = tasks(out)
    assert {row["kind"] for row in rows} == {"spot"}
    assert all(row["question"] == f"Is the bright spot on the {row['label']}?" for row in rows)
    assert [row["sample_id"] for row in rows] == [row["sample_id"] for row in tasks(pictures)]
    assert "kind" not in tasks(pictures)[0]
    one = [(folder / tasks(folder)[0]["image_url"]).read_bytes() for folder in (out, pictures)]
    assert one[0] != one[1]
    assert workspace.import_answers(mturk_results(rows, tmp_path / "batch.csv")) == 2 * len(rows)
    answers = workspace.answers()
    assert len(answers.spot_answers) == len(answers) == 2 * len(rows)
    assert {answer.model for answer in answers} == {workspace.maps().model}
    assert workspace.export_crowd(tmp_path / "again") == count  # nobody was asked about the highlights
    with pytest.raises(SettingsError, match="everything was answered often enough"):
        workspace.export_crowd(tmp_path / "more", kind="spot")
    exported = json.loads((out / "tasks.json").read_text())
    done = [
        each | {"annotations": [{"result": [{"value": {"choices": ["no"]}}], "completed_by": 7}]} for each in exported
    ]
    (tmp_path / "project.json").write_text(json.dumps(done))
    assert workspace.import_answers(tmp_path / "project.json") == count
    assert workspace.answers().counts("spot")["no"] > count


def test_spots_from_the_shell(workspace, tmp_path):
    out = tmp_path / "tasks"
    assert crayon("answer", "export-crowd", "-w", workspace.folder, out, "--kind", "spot", "--count", 3).exit_code == 0
    assert [row["kind"] for row in tasks(out)] == ["spot"] * 3
    refused = crayon("answer", "export-crowd", "-w", workspace.folder, out, "--kind", "spots")
    assert "'spots' is not one of 'image', 'neuron', 'spot'" in refused.output
