"""README's two snippets and those of the first page tell one story: the same pictures, ids, answers and model."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import timm
from helpers_workspace import crayon, new_workspace, save_model, weights

from crayon_sdk import AnnotationSet, DataSource, ImageDataset, ModelSource, Workspace

ROOT = Path(__file__).resolve().parents[1]


def snippets(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)


def shell_lines() -> list[list[str]]:
    """The commands of README's session, each in words; several on a line are several."""
    (session,) = (text for text in snippets("README.md", "bash") if "crayon init" in text)
    commands = [line.partition("#")[0].strip() for line in session.splitlines()]
    return [shlex.split(part) for line in commands for part in line.split("&&")]


@pytest.fixture(scope="module")
def place(tmp_path_factory, picture_folder):
    """What README starts from; and its shell session, in which masks answer in the place of people."""
    place = tmp_path_factory.mktemp("first")
    shutil.copytree(picture_folder, place / "birds")
    save_model(place / "birds-resnet50")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in shell_lines():
            if words[0] == "cd":
                patch.chdir(words[1])
            elif words == ["crayon", "annotate"]:
                assert crayon("answer", "simulate").exit_code == 0
            elif words[1] != "push":
                result = crayon(*words[1:])
                assert result.exit_code == 0, (words, result.output)
    return place


def test_the_session_of_the_readme_has_every_step(place):
    assert [words[1] for words in shell_lines()] == [
        "init", "work", "explain", "annotate", "correct", "evaluate", "compare", "save", "push",
    ]  # fmt: skip
    assert timm.create_model(f"local-dir:{place / 'birds-corrected'}", pretrained=True).num_classes == 2


def test_the_snippet_of_the_readme_gives_what_the_session_gives(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (code,) = snippets("README.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    assert "worst group" in capsys.readouterr().out
    assert names["answers"] == AnnotationSet.load(place / "work" / "answers.jsonl")
    assert names["train"].ids == names["maps"].ids == Workspace(place / "work").dataset().ids
    assert weights(place / "birds-resnet50-corrected") == weights(place / "birds-corrected")


def test_the_snippet_of_the_first_page_runs(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    first, second = (code for code in snippets("docs/index.md", "python"))
    shutil.rmtree("birds-resnet50-corrected", ignore_errors=True)
    exec(first, {})
    assert "worst group" in capsys.readouterr().out
    shutil.move("work", "shell")  # the second makes one of its own, and then asks people
    exec(second.replace("annotate(workspace)", ""), {})
    assert Workspace("work").maps().ids == Workspace("shell").maps().ids


@pytest.mark.parametrize("named", ["birds", "birds/train"])
def test_a_folder_of_classes_gives_the_shell_the_ids_of_from_folder(tmp_path, picture_folder, named):
    for number, path in enumerate(sorted((picture_folder / "images").glob("*/*.jpg"))):
        target = tmp_path / "birds" / ("test" if number % 3 == 2 else "train") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    model = save_model(tmp_path / "model")
    data = DataSource(folder=str(tmp_path / named))
    workspace = Workspace.create(tmp_path / "work", ModelSource(source=str(model)), data)
    ids = ImageDataset.from_folder(tmp_path / "birds" / "train").ids
    assert workspace.dataset().ids == ids
    assert ids[0] == "cat/00.jpg"


def test_a_table_gives_the_shell_the_ids_of_from_csv(tmp_path, picture_folder):
    workspace = new_workspace(tmp_path / "work", picture_folder, save_model(tmp_path / "model"))
    assert workspace.dataset().ids == ImageDataset.from_csv(picture_folder / "metadata.csv", split="train").ids
