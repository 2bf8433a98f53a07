"""The commands on small pictures: what they say, what they write, and what they do with bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from helpers_workspace import FAST, crayon, new_workspace, save_model, weights
from PIL import Image

from crayon_sdk import AnnotationSet, ImageAnswer, ImageDataset, Workspace
from crayon_sdk._base.files import locked

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def corrected(tmp_path_factory, picture_folder, model_folder):
    """A workspace that the shell took as far as one correction; nobody may change it."""
    place = tmp_path_factory.mktemp("shell") / "ws"
    for line in (
        ["init", place, "--model", model_folder, "--csv", picture_folder / "metadata.csv"],
        ["explain", place, "--sheet", 0],
        ["answer", "simulate", place],
        ["correct", place, "--method", "both", *FAST],
    ):
        result = crayon(*line)
        assert result.exit_code == 0, result.output
    return place


@pytest.fixture
def ws(corrected, tmp_path):
    shutil.copytree(corrected, tmp_path / "ws")
    return tmp_path / "ws"


def failed(result, code, *texts):
    """It ended with this code and a message without a traceback; stdout is empty."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for text in texts:
        assert text in result.stderr
    return True


def test_the_shell_and_python_give_the_same_files(corrected, picture_folder, model_folder, tmp_path):
    from helpers_workspace import FAST_ATTENTION, new_workspace

    workspace = new_workspace(tmp_path / "ws", picture_folder, model_folder)
    workspace.explain(sheet=0)
    workspace.simulate_answers()
    workspace.correct("both", attention=FAST_ATTENTION, pruning={"epochs": 2})
    for name in ("maps.safetensors", "patches.safetensors", "answers.jsonl"):
        assert Workspace(corrected).ledger.digest(name) == workspace.ledger.digest(name), name
    assert weights(corrected / "corrections/both") == weights(tmp_path / "ws/corrections/both")
    ours, theirs = (Workspace(each).manifest for each in (corrected, tmp_path / "ws"))
    assert ours.model_dump(exclude={"files", "created", "answers"}) == theirs.model_dump(
        exclude={"files", "created", "answers"}
    )
    assert {name: entry.settings for name, entry in ours.files.items()} == {
        name: entry.settings for name, entry in theirs.files.items()
    }


def test_json_is_alone_on_stdout(ws):
    for line in (
        ["explain", ws],
        ["answer", "show", ws],
        ["answer", "simulate", ws],
        ["suggest", ws, "--votes", 3],
        ["correct", ws, "--method", "both", *FAST],
        ["evaluate", "-w", ws],
        ["compare", "-w", ws, "original", "both", "--resamples", 200],
        ["info", ws],
        ["save", "-w", ws, "both", ws / "out"],
        ["doctor"],
    ):
        result = crayon(*line, "--json")
        assert result.exit_code == 0, result.output
        assert isinstance(json.loads(result.stdout), dict), line


def test_evaluate_shows_groups_with_intervals(ws):
    result = crayon("evaluate", "-w", ws, "both")
    for text in (
        "cat/land",
        "dog/water",
        "95 % interval",
        "worst group (WGA)",
        "mean group (MGA)",
        "training-weighted",
    ):
        assert text in result.stdout
    values = json.loads(crayon("evaluate", "-w", ws, "both", "--json").stdout)["both"]
    group = values["groups"][0]
    assert group["interval"][0] <= group["correct"] / group["total"] <= group["interval"][1]
    assert {"worst_group", "mean_group", "weighted_mean", "accuracy"} == set(values["summary"])


def test_quiet_and_verbose(ws):
    quiet = crayon("explain", ws, "-q")
    assert quiet.stderr == ""
    loud = crayon("correct", ws, "--name", "again", "--method", "attention", *FAST[:4], "-v")
    assert "crayon: guidance: {" in loud.stderr


def test_settings_from_a_file_and_the_command_line_wins(ws):
    (ws / "crayon.toml").write_text("[correct]\nmethod = 'pruning'\n[pruning]\nepochs = 2\nlr = 1e-3\n")
    assert crayon("correct", ws, "--set", "pruning.lr=5e-3", "--name", "mixed").exit_code == 0
    settings = json.loads((ws / "corrections/mixed/crayon.json").read_text())["record"]["settings"]
    assert (settings["epochs"], settings["lr"]) == (2, 5e-3)
    (ws / "crayon.toml").write_text("[pruning]\nepcohs = 2\n")
    failed(crayon("correct", ws), 2, "crayon.toml", "'epcohs'; did you mean 'epochs'?")
    other = ws.parent / "other.toml"
    other.write_text("[explain]\nscore = 'logit'\n")
    assert crayon("explain", ws, "--config", other, "--sheet", 0).exit_code == 0
    assert Workspace(ws).maps().score == "logit"


def test_environment_names_the_workspace(ws, monkeypatch):
    monkeypatch.setenv("CRAYON_WORKSPACE", str(ws))

    def said(*arguments):
        """On one line, however the table was broken."""
        return "".join(crayon("info", *arguments).stdout.split())

    assert str(ws) in said()
    failed(crayon("info", ws, "-w", ws), 2, "name the workspace once")
    monkeypatch.setenv("CRAYON_WORKSPACE", "elsewhere")
    assert str(ws) in said(ws)


def test_import(ws):
    ids = Workspace(ws).dataset().ids
    (ws / "list.json").write_text(json.dumps(["yes"] * len(ids)))
    assert crayon("answer", "import", "-w", ws, ws / "list.json").exit_code == 0
    AnnotationSet([ImageAnswer(id="nobody.jpg", answer="yes", annotator="ann")]).save(ws / "other.jsonl")
    before = (ws / "answers.jsonl").read_bytes()
    failed(crayon("answer", "import", "-w", ws, ws / "other.jsonl"), 4, "not in the training pictures", "nobody.jpg")
    assert (ws / "answers.jsonl").read_bytes() == before
    result = crayon("answer", "import", "-w", ws, ws / "other.jsonl", "--skip-bad", "--json")
    assert json.loads(result.stdout)["new"] == 0
    (ws / "broken.jsonl").write_text('{"kind": "image"\n{}\n')
    failed(crayon("answer", "import", "-w", ws, ws / "broken.jsonl"), 3, "line 1")
    failed(crayon("answer", "import", "-w", ws, ws / "missing.jsonl"), 3, "cannot read")


def test_list_of_settings(ws):
    result = crayon("correct", ws, "--list-settings")
    assert "attention.background_swap" in result.stdout
    assert "pruning.least_share" in result.stdout


def test_doctor_tells_no_token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    result = crayon("doctor", "--json")
    values = json.loads(result.stdout)
    assert "secret" not in result.output
    assert values["hub"]["login"] == "a token is stored"
    assert values["versions"]["crayon-sdk"]
    assert values["precision"]["cpu bfloat16"] in ("works", "gives wrong results") or "fails" in values["precision"]


# --- bad input -------------------------------------------------------------------------------


def init(tmp_path, model, *data):
    result = crayon("init", tmp_path / "new", "--model", model, *data)
    assert not (tmp_path / "new").exists()
    return result


def test_folder_without_pictures(tmp_path, model_folder):
    (tmp_path / "empty").mkdir()
    failed(init(tmp_path, model_folder, "--data", tmp_path / "empty"), 3, "empty")


def test_class_with_one_picture(tmp_path, model_folder, picture_folder):
    shutil.copytree(picture_folder / "images", tmp_path / "p")
    for path in sorted((tmp_path / "p/cat").iterdir())[1:]:
        path.unlink()
    failed(init(tmp_path, model_folder, "--data", tmp_path / "p"), 3, "'cat (1)'", "--min-images-per-class")


def test_table_without_the_column(tmp_path, model_folder, picture_folder):
    table = picture_folder / "metadata.csv"
    failed(init(tmp_path, model_folder, "--csv", table, "--label-column", "kind"), 3, "has no column 'kind'", "'label'")
    failed(init(tmp_path, model_folder, "--csv", table, "--split-column", "part"), 3, "has no column 'part'")
    failed(init(tmp_path, model_folder, "--csv", tmp_path / "no.csv"), 3, "no.csv', which --csv names")


def test_model_that_is_not_there(tmp_path, picture_folder):
    table = picture_folder / "metadata.csv"
    failed(init(tmp_path, tmp_path / "nowhere", "--csv", table), 3, "nowhere")
    failed(init(tmp_path, "resnet5O", "--csv", table), 3, "resnet5O", "resnet50")
    failed(crayon("init", tmp_path / "new", "--csv", table), 2, "name the model: --model")
    failed(init(tmp_path, tmp_path / "m.safetensors", "--csv", table), 2, "architecture")


def test_several_group_columns(tmp_path, model_folder, picture_folder):
    table = picture_folder / "metadata.csv"
    line = ["--csv", table, "--label-column", "label", "--group-column", "place", "--group-column", "label"]
    assert crayon("init", tmp_path / "ws", "--model", model_folder, *line).exit_code == 0
    assert Workspace(tmp_path / "ws").dataset().group_names == ("place", "label")


def test_preprocessing_of_ones_own(tmp_path, model_folder, picture_folder):
    line = ["--model", model_folder, "--csv", picture_folder / "metadata.csv", "--preprocessing"]
    assert crayon("init", tmp_path / "ws", *line, '{"size": [96, 96]}').exit_code == 0
    assert Workspace(tmp_path / "ws").model.map_size == (3, 3)
    failed(crayon("init", tmp_path / "x", *line, "size=96"), 2, "not JSON")
    failed(crayon("init", tmp_path / "x", *line, '{"sizes": [96, 96]}'), 2, "preprocessing needs 'size'")


def test_neither_folder_nor_table(tmp_path, model_folder):
    failed(init(tmp_path, model_folder), 2, "either --data, a folder with a folder per class, or --csv")


def test_workspace_of_another_model(ws, tmp_path):
    shutil.copytree(save_model(tmp_path / "other", seed=1), tmp_path / "m")
    manifest = json.loads((ws / "workspace.json").read_text())
    manifest["model"]["source"] = str(tmp_path / "m")
    (ws / "workspace.json").write_text(json.dumps(manifest))
    before = weights(ws / "corrections/both")
    failed(crayon("correct", ws, "--method", "pruning"), 4, "is not the model this workspace was made for", "--again")
    assert weights(ws / "corrections/both") == before


def test_other_inputs_are_taken_in(ws, tmp_path, picture_folder):
    shutil.copytree(picture_folder, tmp_path / "p")
    manifest = json.loads((ws / "workspace.json").read_text())
    failed(crayon("init", ws, "--model", "resnet50", "--csv", "x.csv"), 5, "is a workspace already", "--again")
    assert json.loads((ws / "workspace.json").read_text()) == manifest
    # Nothing named: the same places, as they are now.
    assert crayon("init", ws, "--again").exit_code == 0
    assert "stale" not in crayon("info", ws).stdout
    result = crayon("init", ws, "--again", "--csv", tmp_path / "p/metadata.csv", "--group-column", "place")
    assert result.exit_code == 0, result.output
    data = json.loads((ws / "workspace.json").read_text())["data"]
    assert (data["csv"], data["group_columns"]) == (str(tmp_path / "p/metadata.csv"), ["place"])
    (tmp_path / "p/images/cat/00.jpg").write_bytes((tmp_path / "p/images/cat/01.jpg").read_bytes())
    failed(crayon("explain", ws, "--again"), 4, "the train pictures changed", f"crayon init -w {ws} --again")
    assert crayon("init", "-w", ws, "--again", "--test-split", "test").exit_code == 0
    assert "stale" in crayon("info", ws).stdout


def test_spaces_in_the_name_of_the_workspace(ws):
    moved = ws.rename(ws.parent / "my birds")
    (moved / "maps.safetensors").unlink()
    failed(crayon("answer", "simulate", moved), 4, f"Run: crayon explain -w '{moved}'")


def test_steps_out_of_order(tmp_path, model_folder, picture_folder):
    place = tmp_path / "ws"
    crayon("init", place, "--model", model_folder, "--csv", picture_folder / "metadata.csv")
    failed(crayon("correct", place), 4, "maps.safetensors", "Run: crayon explain")
    failed(crayon("correct", place, "--method", "pruning"), 4, "patches.safetensors", "Run: crayon explain")
    failed(crayon("answer", "simulate", place), 4, "maps.safetensors", "Run: crayon explain")
    failed(crayon("compare", "-w", place, "original", "none"), 4, "Run: crayon evaluate")
    failed(crayon("save", "-w", place, "none", tmp_path / "out"), 4, "corrections/none is missing")
    failed(crayon("info", tmp_path), 3, "is not a workspace", "name it with -w", "crayon init")
    failed(crayon("evaluate", place, "-w", place), 2, "name the workspace once")
    failed(crayon("init", place, "--again", "--preprocessing", "x"), 2, """such as '{"size": [224, 224]}'""")
    failed(crayon("evaluate", "-w", place, "--split", "val"), 3, "has no val pictures")


def test_wrong_settings_of_a_corrector(ws):
    failed(crayon("correct", ws, "--set", "attention.lr=-1"), 2, "expected attention.lr to be")
    failed(crayon("correct", ws, "--set", "attention.optimizer=rmsprop"), 2, "optimizer")
    failed(crayon("correct", ws, "--set", "attention.epochs"), 2, "SECTION.KEY=VALUE")


def test_the_test_pictures_choose_no_epoch(ws):
    line = ["--set", "attention.keep=best", "--evaluate-on", "test"]
    failed(crayon("correct", ws, "--name", "x", *line), 2, "the test pictures may not")


def test_settings_of_the_other_method(ws):
    failed(crayon("correct", ws, "--method", "pruning", "--set", "attention.epochs=3"), 2, "has no effect")


def test_numbers_out_of_range(ws):
    failed(crayon("suggest", ws, "--seed", 10**20), 2, "expected --seed to be", "got 1000000")
    failed(crayon("explain", ws, "--sheet", -1), 2, "expected --sheet to be a whole number >= 0, got -1")


def test_a_split_that_was_named_and_is_not_there(tmp_path, model_folder, picture_folder):
    line = ["--csv", picture_folder / "metadata.csv", "--val-split", "holdout"]
    failed(init(tmp_path, model_folder, *line), 3, "there is no split 'holdout'")


def test_doctor_does_not_need_the_settings(tmp_path):
    (tmp_path / "crayon.toml").write_text("nonsense = [")
    assert crayon("doctor", "-w", tmp_path, "--json").exit_code == 0


def test_loss_that_is_not_finite(ws):
    before = sorted(path.name for path in (ws / "corrections").iterdir())
    line = ["--name", "wild", *FAST[:4], "--set", "attention.lr=1e30", "--set", "attention.optimizer=sgd"]
    failed(crayon("correct", ws, *line), 6, "training stopped at step", "Lower lr")
    assert sorted(path.name for path in (ws / "corrections").iterdir()) == before


def test_workspace_in_use(ws, monkeypatch):
    monkeypatch.setattr("crayon_sdk.workspace.ledger.LOCK_TIMEOUT", 0.1)
    with locked(ws, doing="a test"):
        failed(crayon("explain", ws), 5, "is in use by process", "Nothing was changed")
        assert crayon("info", ws).exit_code == 0  # looking is always allowed


def test_disk_that_is_full(full_disk, model_folder, picture_folder):
    place = full_disk / "ws"
    assert crayon("init", place, "--model", model_folder, "--csv", picture_folder / "metadata.csv").exit_code == 0
    assert crayon("explain", place, "--sheet", 0).exit_code == 0
    assert crayon("answer", "simulate", place).exit_code == 0
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and path.name[0] != "."}
    failed(crayon("correct", place, "--method", "both", *FAST), 5, "the disk is full; free some space and run it again")
    # What the next run goes on from is new; all that was there is as it was.
    assert {path: path.read_bytes() for path in before} == before
    assert not list(place.glob("corrections/*"))
    assert crayon("info", place).exit_code == 0


@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("unshare"), reason="mounts of Linux")
def test_workspace_that_is_read_only(ws):
    """Mounted read-only: that stops root too."""
    script = (
        "import subprocess, sys\n"
        f"mounts = [['mount', '--bind', {str(ws)!r}, {str(ws)!r}], ['mount', '-o', 'remount,ro,bind', {str(ws)!r}]]\n"
        "for mount in mounts:\n"
        "    if subprocess.run(mount, capture_output=True).returncode: sys.exit(77)\n"
        "for line in (['explain', '--again'], ['correct', '--name', 'x'], ['info'], ['evaluate']):\n"
        "    done = subprocess.run([sys.executable, '-m', 'crayon_sdk', *line, '-w', "
        f"{str(ws)!r}], capture_output=True, text=True)\n"
        "    print(done.returncode, done.stderr.splitlines()[-1:])\n"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    lines = done.stdout.splitlines()
    assert [line[0] for line in lines] == ["5", "5", "0", "5"], done.stdout
    assert all("the folder is not writable" in line for line in lines if line[0] == "5")


def test_the_workspace_as_an_argument_of_every_command(ws, tmp_path, monkeypatch):
    assert crayon("evaluate", ws, "original").exit_code == 0
    assert crayon("compare", ws, "original", "original", "--resamples", 200).exit_code in (0, 2)
    assert crayon("answer", "export", ws, tmp_path / "a.jsonl").exit_code == 0
    assert (tmp_path / "a.jsonl").is_file()
    assert crayon("answer", "import", ws, tmp_path / "a.jsonl").exit_code == 0
    assert crayon("save", ws, "both", tmp_path / "out").exit_code == 0
    failed(crayon("save", ws, "both", tmp_path / "more", "-w", ws), 2, "name the workspace once")
    failed(crayon("save", ws, ws, "both", tmp_path / "more"), 2, "name the workspace once")
    # Where a correction of that name is meant, it is meant.
    monkeypatch.chdir(ws)
    shutil.copytree(ws / "corrections/both", ws / "corrections/inner")
    (ws / "inner").mkdir()
    (ws / "inner/workspace.json").write_text("{}")
    assert "inner" in crayon("evaluate", "inner").output


def test_a_setting_that_is_no_option_is_hinted_at(ws):
    hint = "it is set with --set attention.background_swap=VALUE"
    failed(crayon("correct", ws, "--background-swap", "0"), 2, "No such option", hint)
    failed(crayon("correct", ws, "--lr", "0"), 2, "--set attention.lr=VALUE or --set pruning.lr=VALUE")


def test_few_simulated_answers(ws):
    ids = Workspace(ws).dataset().ids[:2]
    assert crayon("answer", "simulate", ws, "--count", 3, "--neuron-count", 2).exit_code == 0
    few = Workspace(ws).answers()
    assert (len({each.id for each in few.image_answers}), len({each.neuron for each in few.neuron_answers})) == (3, 2)
    assert few.is_simulated
    assert crayon("answer", "simulate", ws, "--ids", ids[0], "--ids", ids[1]).exit_code == 0
    assert {each.id for each in Workspace(ws).answers().image_answers} <= set(ids)
    failed(crayon("answer", "simulate", ws, "--ids", "nobody"), 3, "there is no sample 'nobody'")


def test_spots_from_the_shell(ws, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert not any(" spots" in crayon(*line, ws).stdout for line in (["info"], ["answer", "show"]))
    assert json.loads(crayon("info", ws, "--json").stdout)["asked"]["spot"]["answered"] == 0
    chosen = json.loads(crayon("suggest", ws, "--kind", "spot", "--count", 2, "--json").stdout)["questions"]
    assert {each["kind"] for each in chosen} == {"spot"}
    ids = [argument for each in chosen for argument in ("--ids", each["id"])]
    assert crayon("answer", "simulate", ws, "--kind", "spot", *ids, "--annotators", 1).exit_code == 0
    assert {each.id for each in Workspace(ws).answers().spot_answers} == {each["id"] for each in chosen}
    shown = crayon("info", ws).stdout
    assert re.search(r"answered +8 of 8 pictures and (\d+) of \1 patches and 2 of 8 spots *\n", shown)
    assert re.search(rf"to be asked +6 spots: crayon annotate -w {ws} *\n", shown)
    facts = json.loads(crayon("answer", "show", ws, "--json").stdout)
    assert (facts["spot"]["answers"], facts["spot"]["simulated"]) == (2, 2)
    assert facts["spot"]["relevant"] + facts["spot"]["irrelevant"] == 2
    assert " spots" in crayon("answer", "show", ws).stdout
    nothing = crayon("suggest", ws, "--kind", "spot", "--votes", 1, "--count", 9)
    assert len(json.loads(crayon("suggest", ws, "--kind", "spot", "--json").stdout)["questions"]) == 6
    assert nothing.exit_code == 0
    assert crayon("answer", "simulate", ws, "--kind", "spot").exit_code == 0
    assert "every spot with something to see" in crayon("suggest", ws, "--kind", "spot").stderr


def test_answers_of_people_who_do_not_look(ws, tmp_path):
    file = tmp_path / "no.jsonl"
    result = crayon("answer", "control", ws, "no", file)
    assert result.exit_code == 0
    assert "correct" in result.stderr
    assert "--control no" in result.stderr
    assert {each.answer for each in AnnotationSet.load(file)} == {"no"}
    failed(crayon("answer", "control", ws, "no", file), 5, "exists", "--overwrite")
    failed(crayon("answer", "control", ws, "maybe", file), 2, "'maybe' is not one of")
    nothing = crayon("correct", "-w", ws, "--method", "pruning", "--control", "no", "--set", "pruning.epochs=1")
    failed(nothing, 3, "the answers would cut all 96 neurons")
    made = crayon("correct", "-w", ws, "--method", "pruning", "--control", "yes", "--set", "pruning.epochs=1")
    assert made.exit_code == 0
    assert "corrections/pruning-yes: pruning from simulated answers" in made.stdout


def test_what_answers_are_worth(ws, tmp_path):
    found = crayon("answer", "worth", ws, "--json")
    facts = json.loads(found.stdout)
    assert found.exit_code == 0
    assert (facts["relevant"], facts["irrelevant"]) == (2, 2)  # the others are mixed, or have maps without evidence
    assert facts["contradictory"] is False
    assert "verdicts" in facts
    assert "pictures/objects.png. If it is not, yes and no were exchanged" in found.stderr
    sheet = ws / "pictures/objects.png"
    with Image.open(sheet) as image:
        assert image.width > 3 * 192
    sheet.unlink()
    assert crayon("answer", "worth", ws, "--sheet", 0).exit_code == 0
    assert not sheet.exists()
    empty = tmp_path / "empty"
    shutil.copytree(ws, empty)
    (empty / "answers.jsonl").unlink()
    failed(crayon("answer", "worth", empty), 4, "is missing", "put a copy of it back")


def test_how_far_one_sees(ws, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert "about spots" not in crayon("info", ws).stdout  # nobody has looked at the pictures, and info does not
    assert json.loads(crayon("info", ws, "--json").stdout)["foresight"] == {}
    assert "About" not in crayon("suggest", ws, "--kind", "spot").stderr
    start = "nothing is answered yet; 20 typical ones are a good start"
    for method in ("typical", "active"):
        chosen = crayon("suggest", ws, "--kind", "spot", "--method", method, "--count", 3, "--json")
        assert chosen.stderr.endswith(f"About spots: {start}\n")
        facts = json.loads(chosen.stdout)
        assert (len(facts["questions"]), facts["foresight"]["words"]) == (3, start)
    # By now somebody has looked, and info says it of what was answered.
    about_pictures = json.loads(crayon("info", ws, "--json").stdout)["foresight"]
    assert set(about_pictures) == {"image"}
    assert crayon("answer", "simulate", ws, "--kind", "spot", "--annotators", 1, "--count", 5).exit_code == 0
    words = "5 of 20 typical ones are answered"
    assert re.search(rf"about spots +{words} *\n", crayon("info", ws).stdout)
    facts = json.loads(crayon("info", ws, "--json").stdout)["foresight"]["spot"]
    assert (facts["yes"] + facts["no"], facts["enough"], facts["words"]) == (5, False, words)
    # Where the maps are gone, the table says so, and nothing is foretold.
    (ws / "maps.safetensors").unlink()
    gone = crayon("info", ws)
    assert (gone.exit_code, "about spots" in gone.stdout) == (0, False)


def test_worth_looks_at_the_pictures_and_says_how_far_one_sees(ws):
    assert json.loads(crayon("info", ws, "--json").stdout)["foresight"] == {}
    found = crayon("answer", "worth", ws)
    assert found.exit_code == 0
    assert re.search(r"\nAbout pictures: \d+ of 20 typical ones are answered\n", found.stdout)
    facts = json.loads(crayon("answer", "worth", ws, "--json").stdout)["foresight"]
    assert facts == json.loads(crayon("info", ws, "--json").stdout)["foresight"]
    assert set(facts) == {"image"}


def test_suggest_says_that_nothing_is_left(ws):
    result = crayon("suggest", ws)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing is left to ask" in result.stderr
    assert json.loads(crayon("suggest", ws, "--json").stdout) == {"questions": []}


def test_messages_speak_of_options(tmp_path, model_folder, picture_folder, ws):
    (tmp_path / "p").mkdir()
    for name in "ab":
        (tmp_path / "p" / name).mkdir()
        (tmp_path / "p" / name / "x.png").write_bytes(b"no picture")
    failed(init(tmp_path, model_folder, "--data", tmp_path / "p"), 3, "or pass --skip-bad to leave them out")
    failed(crayon("explain", ws, "--again", "--device", "meta"), 2, "expected --device 'auto'", "got 'meta'")
    failed(crayon("init", ws, "--model", "x", "--data", tmp_path), 5, "take other inputs into it with --again")
    line = ["--csv", picture_folder / "metadata.csv", "--val-split", "holdout"]
    failed(init(tmp_path, model_folder, *line), 3, "there is 'test', 'train'")


def test_a_long_name_makes_no_long_message(ws):
    result = crayon("evaluate", "-w", ws, "x" * 10**6)
    assert result.exit_code != 0
    assert len(result.stderr) < 6000


def test_classes_are_told_and_taken_as_the_user_says(tmp_path, picture_folder, model_folder):
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"label_names": ["fish", "bird"]}))
    init = ["init", tmp_path / "ws", "--model", model, "--csv", picture_folder / "metadata.csv"]
    failed(
        crayon(*init),
        2,
        "the data has 2 ('cat', 'dog'), the model 2 ('fish', 'bird')",
        """for instance --class-map '{"cat": "fish", "dog": "bird"}'; or""",
    )
    failed(crayon(*init, "--class-map", "cat=bird"), 2, "not JSON", """such as '{"bird": "waterbird"}'""")
    failed(crayon(*init, "--class-map", '{"cat": [1]}'), 2, "expected --class-map to be a table, got [1] at 'cat'")
    failed(crayon(*init, "--class-map", '{"cow": "bird"}'), 2, "class_map names 'cow'")
    failed(crayon(*init, "--num-classes", 5), 2, "expected weights for 5 classes", "Leave --num-classes out")
    told = crayon(*init, "--class-map", '{"cat": "bird", "dog": 0}')
    assert "classes of the model: 0 fish (in the data: dog), 1 bird (in the data: cat)" in told.stdout
    assert crayon("explain", tmp_path / "ws", "--sheet", 2).exit_code == 0
    plain = crayon("init", tmp_path / "w2", "--model", model_folder, "--csv", picture_folder / "metadata.csv", "--json")
    assert json.loads(plain.stdout)["classes"]["dog"] == {"number": 1, "name": "dog"}


def test_a_table_that_looks_like_waterbirds(tmp_path, picture_folder, model_folder):
    rows = (picture_folder / "metadata.csv").read_text().splitlines()[1:]
    table = ["img_id,img_filename,y,split,place"]
    for number, (image, label, split, place, _) in enumerate(row.split(",") for row in rows):
        values = (number, image, int(label == "dog"), 0 if split == "train" else 2, int(place == "water"))
        table.append(",".join(map(str, values)))
    (tmp_path / "table.csv").write_text("\n".join(table))
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"label_names": ["fish", "bird"]}))
    init = ["init", tmp_path / "ws", "--model", model, "--csv", tmp_path / "table.csv", "--root", picture_folder]
    told = crayon(*init)
    assert told.exit_code == 0, told.output
    assert told.stderr.count("has the columns of Waterbirds, so 0 and 1 in 'y' are read as landbird and waterbird") == 1
    assert "classes of the model: 0 fish (in the data: landbird), 1 bird" in told.stdout
    assert crayon("explain", tmp_path / "ws", "--sheet", 0).exit_code == 0
    shown = crayon("evaluate", "-w", tmp_path / "ws")
    assert "fish/land" in shown.stdout
    assert "landbird" not in shown.stdout


def only_answers(folder, **keep):
    """Leave the first so many answers about each kind: ``image=7, neuron=0``."""
    answers = Workspace(folder).answers()
    left = (*answers.image_answers[: keep["image"]], *answers.neuron_answers[: keep["neuron"]])
    AnnotationSet(left).save(folder / "answers.jsonl")


def test_correct_names_the_command_that_asks_for_what_is_lacking(ws):
    shutil.rmtree(ws / "corrections")
    ask = f"Ask for them: crayon annotate -w {ws} --kind"
    for image, neuron, method, kind, other in (
        (5, 0, "both", "neuron", "attention"),
        (5, 0, "pruning", "neuron", "attention"),
        (0, 5, "both", "image", "pruning"),
        (0, 5, "attention", "image", "pruning"),
        (0, 0, "both", "both", None),
    ):
        crayon("answer", "simulate", ws)
        only_answers(ws, image=image, neuron=neuron)
        result = crayon("correct", ws, "--method", method)
        failed(result, 3, f"{ask} {kind}", f"there are {image} about pictures and {neuron} about neurons")
        assert ("or correct with those there are" in result.stderr) == (other is not None)
        assert other is None or f"crayon correct -w {ws} --method {other}" in result.stderr
        assert "Explainer" not in result.stderr
    assert not (ws / "corrections").exists()
    assert not (ws / "runs").exists() or not list((ws / "runs").iterdir())


def test_few_answers_are_said_before_the_training(ws):
    only_answers(ws, image=16, neuron=1)
    result = crayon("correct", ws, "--method", "both", "--name", "few", *FAST)
    assert result.exit_code == 0, result.output
    assert re.search(r"only 1 of \d+ patches of neurons are answered \(\d %\)", result.stderr)
    assert f"To answer more first: crayon annotate -w {ws} --kind neuron" in result.stderr
    assert "pictures are answered" not in result.stderr
    assert "only" not in crayon("correct", ws, "--method", "attention", "--name", "enough", *FAST[:4]).stderr


@pytest.mark.parametrize("columns", [120, 80, 60])
def test_names_and_files_are_whole_on_a_narrow_terminal(ws, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    methods = json.loads(crayon("methods", "--json").stdout)["methods"]
    shown = crayon("methods").stdout
    names = {name for name, facts in methods.items() for name in (name, *facts["presets"])}
    assert len(names) > 20
    assert names <= {word.strip(",") for word in shown.split()}
    only_answers(ws, image=1, neuron=0)
    found = json.loads(crayon("info", ws, "--json").stdout)
    shown = crayon("info", ws).stdout
    assert {each["path"] for each in found["status"]} | {"fresh", "stale"} <= set(shown.split())
    made = {entry["started"][5:16].replace("T", " ") for entry in found["manifest"]["files"].values()}
    assert all(time in shown for time in made)
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines()) <= columns


def test_info_says_what_is_still_to_be_asked(ws, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert "to be asked" not in crayon("info", ws).stdout
    only_answers(ws, image=1, neuron=0)
    shown = crayon("info", ws).stdout
    assert re.search(r"answered +1 of 8 pictures and 0 of \d+ patches *\n", shown)
    assert re.search(rf"to be asked +7 pictures and \d+ patches: crayon annotate -w {ws} *\n", shown)
    found = json.loads(crayon("info", ws, "--json").stdout)["asked"]
    assert found["image"] == {"answered": 1, "total": 8}
    (ws / "patches.safetensors").unlink()
    assert json.loads(crayon("info", ws, "--json").stdout)["asked"] == {}


def test_import_again_says_that_all_is_known(ws, tmp_path):
    """A file without new answers is fine; one without answers is not."""
    path = tmp_path / "answers.jsonl"
    path.write_bytes((ws / "answers.jsonl").read_bytes())
    number = len(path.read_bytes().splitlines())
    result = crayon("answer", "import", "-w", ws, path)
    assert result.exit_code == 0, result.output
    assert f"0 new answers (all {number:,} known already), {number:,} in all" in result.stdout
    facts = json.loads(crayon("answer", "import", "-w", ws, path, "--json").stdout)
    assert facts == {"new": 0, "known": number, "answers": number}
    path = tmp_path / "batch.csv"
    path.write_text("WorkerId,Input.image,Answer.answer,WorkerId\nann,a.jpg,Yes,ben\n")
    result = crayon("answer", "import", "-w", ws, path)
    assert result.exit_code != 0
    assert "'batch.csv' has 2 columns named 'WorkerId', 'WorkerId'" in " ".join(result.stderr.split())


def test_compare_by_a_column_of_the_table(ws):
    assert crayon("evaluate", "-w", ws).exit_code == 0
    result = crayon("compare", "-w", ws, "original", "both", "--cluster-column", "place", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["clusters"] == 2  # land and water
    result = crayon("compare", "-w", ws, "original", "both", "--cluster-column", "pair")
    assert result.exit_code != 0
    assert "--cluster-column 'pair':" in " ".join(result.stderr.split())
    assert "has no column 'pair'" in " ".join(result.stderr.split())


def test_channels_last_from_the_shell(tmp_path, picture_folder, model_folder):
    place = new_workspace(tmp_path / "ws", picture_folder, model_folder).folder
    for line in (["explain"], ["answer", "simulate"], ["correct", *FAST[:4]], ["evaluate"]):
        more = [] if line[0] == "answer" else ["--channels-last"]
        result = crayon(*line, place, *more)
        assert result.exit_code == 0, result.output


def test_compiling_from_the_shell(tmp_path, picture_folder, model_folder, monkeypatch):
    compiled, real = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda trunk: compiled.append(1) or real(trunk, backend="eager"))
    place = new_workspace(tmp_path / "ws", picture_folder, model_folder).folder
    for line in (["explain"], ["answer", "simulate"], ["correct", *FAST[:4]], ["evaluate"]):
        before, more = len(compiled), [] if line[0] == "answer" else ["--compile"]
        result = crayon(*line, place, *more)
        assert result.exit_code == 0, result.output
        assert (len(compiled) > before) == bool(more)


def test_pictures_in_shards(corrected, picture_folder, model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shards = tmp_path / "shards"
    shards.mkdir()
    table = ImageDataset.from_csv(picture_folder / "metadata.csv")
    split_of = {
        row["image"]: row["split"] for row in csv.DictReader((picture_folder / "metadata.csv").read_text().splitlines())
    }
    for split in ("train", "test"):
        with tarfile.open(shards / f"{split}-000.tar", "w") as tar:
            for name in sorted((name for name in table if split_of[name] == split), key=lambda name: name[::-1]):
                key = name.removesuffix(".jpg").replace("/", "_")
                group = table.groups[table.index_of(name)][0]
                facts = json.dumps({"class": table.class_names[table[name][1]], "place": group}).encode()
                mask = (picture_folder / name.replace("images", "masks").replace("jpg", "png")).read_bytes()
                parts = {"jpg": (picture_folder / name).read_bytes(), "json": facts, "mask.png": mask}
                for ending, content in parts.items():
                    about = tarfile.TarInfo(f"{key}.{ending}")
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))
    place = tmp_path / "ws"
    with_masks = crayon("init", place, "--model", model_folder, "--data", shards, "--masks", picture_folder / "masks")
    failed(with_masks, 2, "expected masks of shards in them (--mask-column), got a folder of masks")
    for line in (
        ["init", place, "--model", model_folder, "--data", shards, "--val", shards / "test-000.tar"],
        ["explain", place, "--cache", "pixels", "--batch-size", 8],
        ["answer", "simulate", place],
        ["correct", place, "--cache", "pixels", *FAST[:4]],
        ["evaluate", place, "--cache", "pixels", "--cache-gb", "0.001"],
    ):
        result = crayon(*line)
        assert result.exit_code == 0, result.output
    maps, others = Workspace(place).maps(), Workspace(corrected).maps()
    assert sorted(maps.ids)[0] == "train-000/images_cat_00"
    for name in maps:
        other = name.removeprefix("train-000/").replace("_", "/") + ".jpg"
        torch.testing.assert_close(maps[name], others[other], rtol=0, atol=1e-5)
    kept = list((place / "pixels").glob("*.pixels"))
    assert len(kept) == 1  # those of training went when there was no room for those of the test
    counted = json.loads((place / "evaluations" / "test" / "original.json").read_text())
    assert "cat/land" in json.dumps(counted)
    tar = shards / "train-000.tar"
    shutil.copy(shards / "test-000.tar", tar)
    failed(crayon("explain", place), 4, "the train pictures changed since the workspace was made")
    tar.write_bytes(tar.read_bytes()[:5000])
    failed(crayon("explain", place), 3, "train-000.tar' is broken")


def test_a_cache_that_cannot_be(ws):
    failed(
        crayon("explain", ws, "--cache", "pixels", "--cache-gb", 0), 2, "expected --cache-gb to be a number > 0, got 0"
    )
    (ws / "file").write_text("x")
    failed(crayon("explain", ws, "--cache", "file/pixels"), 5, "cannot write")
    (ws / "crayon.toml").write_text('[explain]\ncache = "pixels"\n[evaluate]\ncache_gb = 1\n')
    assert crayon("explain", ws, "--again", "--sheet", 0).exit_code == 0
    assert len(list((ws / "pixels").glob("*.pixels"))) == 1
