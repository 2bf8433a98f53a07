"""What goes out of a workspace: reports and cards, from Python and from the shell."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from helpers_report import Page
from helpers_workspace import FAST, FAST_ATTENTION, crayon, new_workspace, save_model

from crayon_sdk import Card, load_correction, load_model
from crayon_sdk._base.files import read_tensors
from crayon_sdk.errors import DataError, OutputError, OutputExistsError, SettingsError, StaleError
from crayon_sdk.workspace.answering import Answering
from crayon_sdk.workspace.holdings import Holdings
from crayon_sdk.workspace.shipping import typed_commands
from crayon_sdk.workspace.workspace import Workspace

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, picture_folder):
    """A workspace with two corrections and their evaluations; nobody may change it."""
    place = tmp_path_factory.mktemp("finished")
    workspace = new_workspace(place / "ws", picture_folder, save_model(place / "m"))
    workspace.explain(sheet=0)
    workspace.simulate_answers(annotators=3, noise=0.1, seed=3)
    workspace.correct("both", attention=FAST_ATTENTION, pruning={"epochs": 2})
    workspace.correct("pruning", pruning={"epochs": 2})
    workspace.evaluate()
    return workspace


@pytest.fixture
def ws(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "ws")
    return Workspace(tmp_path / "ws", lock_timeout=0.2)


def page_of(path):
    return Page(Path(path).read_text(encoding="utf-8"))


def head_of(folder):
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def test_the_shell_reports_on_every_correction(ws):
    result = crayon("report", ws.folder, "--json", "--pictures", 2)
    assert result.exit_code == 0, result.output
    pages = json.loads(result.stdout)["reports"]
    assert list(pages) == ["both", "pruning"]
    for name, path in pages.items():
        page = page_of(path)
        assert Path(path) == ws.folder / "reports" / f"{name}.html"
        assert "All answers are simulated" in page.text
        evaluations = [json.loads((ws.folder / f"evaluations/test/{n}.json").read_text()) for n in ("original", name)]
        ends = [f"{100 * each['summary']['worst_group']:.1f}" for each in evaluations]
        assert [row[1:3] for row in page.rows if row[0] == "worst"] == [ends]
        assert "on 8 test pictures" in page.text
    states = {each.path: each.state for each in Workspace(ws.folder).status()}
    assert states["reports/both.html"] == states["reports/pruning.html"] == "fresh"


def test_a_report_is_stale_when_its_correction_was_made_again(ws):
    ws.report("pruning", pictures=1)
    ws.correct("pruning", pruning={"epochs": 3}, overwrite=True)
    status = next(each for each in Workspace(ws.folder).status() if each.path == "reports/pruning.html")
    assert status.state == "stale"
    assert status.run.endswith("--name pruning")
    assert crayon(*status.run.split()[1:], "--pictures", 1).exit_code == 0
    assert {each.state for each in Workspace(ws.folder).status() if each.path == status.path} == {"fresh"}


def test_a_page_of_ones_own_is_not_replaced_unasked(ws, tmp_path):
    place = tmp_path / "mine.html"
    assert crayon("report", ws.folder, "--name", "both", "--output", place, "--pictures", 1).exit_code == 0
    assert crayon("report", ws.folder, "--name", "both", "--output", place).exit_code == 5
    assert not (ws.folder / "reports").exists()
    two = crayon("report", ws.folder, "--output", tmp_path / "x.html")
    assert two.exit_code == 2
    assert "--output goes with one correction" in two.stderr


def test_reports_that_cannot_be(ws, tmp_path):
    missing = crayon("report", ws.folder, "--name", "bothh")
    assert missing.exit_code == 4
    assert "there are: both, pruning" in missing.stderr
    with pytest.raises(DataError, match="no val pictures"):
        ws.report("both", split="val")
    with pytest.raises(SettingsError):
        ws.report("../x")
    assert not (ws.folder / "reports").exists()


def test_without_corrections_it_says_what_to_run(picture_folder, tmp_path):
    workspace = new_workspace(tmp_path / "ws", picture_folder, save_model(tmp_path / "m"))
    result = crayon("report", workspace.folder)
    assert result.exit_code == 2
    assert "crayon correct" in result.stderr


def test_without_test_pictures_there_is_a_report_all_the_same(picture_folder, tmp_path):
    table = (picture_folder / "metadata.csv").read_text(encoding="utf-8").replace(",test,", ",other,")
    (tmp_path / "metadata.csv").write_text(table, encoding="utf-8")
    lines = (
        ["init", tmp_path / "ws", "--model", save_model(tmp_path / "m"), "--csv", tmp_path / "metadata.csv"],
        ["explain", tmp_path / "ws", "--sheet", 0],
        ["answer", "simulate", tmp_path / "ws"],
        ["correct", tmp_path / "ws", *FAST[:4]],
        ["report", tmp_path / "ws"],
        ["save", "-w", tmp_path / "ws", "attention", tmp_path / "out"],
    )
    for line in (lines[0] + ["--root", picture_folder], *lines[1:]):
        result = crayon(*line)
        assert result.exit_code == 0, result.output
    page = page_of(tmp_path / "ws" / "reports" / "attention.html")
    assert "There is no evaluation" in page.text
    assert "There are no maps" in page.text
    assert "model-index" not in head_of(tmp_path / "out")


def test_the_commands_in_the_report_make_the_same_correction(ws, picture_folder, tmp_path, monkeypatch):
    commands = typed_commands(ws.manifest, ws.command, "both")
    assert [each.split()[1] for each in commands] == ["init", "explain", "answer", "correct", "evaluate"]
    monkeypatch.chdir(tmp_path)
    for line in commands:
        typed = [part.replace(str(ws.folder), str(tmp_path / "again")) for part in shlex.split(line)[1:]]
        result = crayon(*typed)
        assert result.exit_code == 0, result.output
    ours, theirs = (load_correction(place / "corrections/both").record for place in (ws.folder, tmp_path / "again"))
    assert ours.corrected == theirs.corrected
    assert ours.settings == theirs.settings
    assert page_of(ws.report("both", pictures=1)).text.count(commands[0]) == 1


def test_a_saved_correction_has_a_card_with_its_evaluations(ws, tmp_path):
    saved = ws.save("both", tmp_path / "out")
    head = head_of(saved)
    summary = json.loads((ws.folder / "evaluations/test/both.json").read_text())["summary"]
    found = {each["name"]: each["value"] for each in head["model-index"][0]["results"][0]["metrics"]}
    assert found["Worst-group accuracy"] == pytest.approx(summary["worst_group"], abs=1e-6)
    assert "base_model" not in head  # it came from a folder
    assert "simulated-answers" in head["tags"]
    assert not list(saved.glob("*.png"))
    assert load_model(f"local-dir:{saved}").fingerprint == load_correction(saved).model.fingerprint


def test_what_was_measured_on_other_pictures_is_never_called_test_pictures(picture_folder, tmp_path):
    table = (picture_folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    rows = [row.replace(",test,", ",val,") if number % 2 else row for number, row in enumerate(table)]
    (tmp_path / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    workspace = new_workspace(tmp_path / "ws", tmp_path, save_model(tmp_path / "m"), root=str(picture_folder))
    workspace.explain(sheet=0)
    workspace.simulate_answers()
    workspace.correct("pruning", pruning={"epochs": 1}, evaluate_on="val")
    for folder, name in (("val", "val pictures"), ("test", "test pictures")):
        head = head_of(workspace.save("pruning", tmp_path / folder))
        assert head["model-index"][0]["results"][0]["dataset"]["name"] == name
        workspace.evaluate(["pruning"])  # the original is not: nothing of the val pictures may stand in for it
    text = (tmp_path / "test" / "README.md").read_text(encoding="utf-8")
    assert "the model before was not evaluated" in text


def test_pictures_only_of_those_that_are_allowed(ws, tmp_path, monkeypatch):
    from crayon_sdk.workspace import shipping

    shown = []
    real = shipping.card_sheet
    monkeypatch.setattr(shipping, "card_sheet", lambda *args, **how: shown.append(args[2].ids) or real(*args, **how))
    ids = ws.dataset("test").ids
    result = crayon(
        "save", "-w", ws.folder, "both", tmp_path / "out", "--card-images", ids[1], "--card-images", "images/dog/*"
    )
    assert result.exit_code == 0, result.output
    assert shown == [tuple(i for i in ids if i == ids[1] or i.startswith("images/dog/"))]
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["picture-1.png"]
    assert "](picture-1.png)" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_pattern_that_allows_nothing_is_a_mistake(ws, tmp_path):
    train = ws.dataset().ids[0]
    for pattern in ("no/such/*", train):
        result = crayon("save", "-w", ws.folder, "both", tmp_path / "out", "--card-images", pattern)
        assert result.exit_code == 2
        assert f"no test picture is called {pattern!r}" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "expected"),
    [("hf-hub:me/birds@v1", "me/birds"), ("local-dir:x", ""), ("./x", ""), ("torchvision:resnet18", "")],
)
def test_the_base_model_is_named_where_it_has_a_name(ws, source, expected):
    model = ws.manifest.model.model_copy(update={"source": source})
    ws.ledger.manifest = ws.manifest.model_copy(update={"model": model})
    assert ws.inputs.base_model == expected


def test_a_card_of_ones_own(ws, tmp_path):
    saved = ws.save("both", tmp_path / "out", card=Card(base_model="me/birds", license="mit", title="Birds"))
    head = head_of(saved)
    assert (head["base_model"], head["license"]) == ("me/birds", "mit")
    assert "# Birds\n" in (saved / "README.md").read_text(encoding="utf-8")


def test_changes_are_those_of_the_files(ws):
    found = ws.changes("pruning")
    before, after = ws.model.plain_state_dict(), read_tensors(ws.folder / "corrections/pruning/model.safetensors")[0]
    weight = next(each for each in found.tensors if each.name == "fc.weight")
    expected = (after["fc.weight"] - before["fc.weight"]).norm() / before["fc.weight"].norm()
    assert weight.relative == pytest.approx(float(expected), rel=1e-5)
    assert {each.name for each in found.changed} == {"fc.weight", "fc.bias"}
    with pytest.raises(StaleError, match="missing"):
        ws.changes("nothing")


def test_info_says_what_changed(ws):
    text = crayon("info", ws.folder).stdout
    assert re.search(r"pruning +2 of \d+ tensors changed, together by [\d.]+ % of their", text)
    values = json.loads(crayon("info", ws.folder, "--json").stdout)
    rows = {row["name"]: row for row in values["changes"]["pruning"]["tensors"]}
    assert rows["fc.weight"]["state"] == "changed"
    assert "fc.weight" not in text
    listed = crayon("info", ws.folder, "--tensors").stdout
    assert "corrections/pruning" in listed
    assert "fc.weight" in listed


def test_info_without_the_model_says_so_and_the_rest(finished, tmp_path, picture_folder):
    save_model(tmp_path / "m")
    workspace = new_workspace(tmp_path / "ws", picture_folder, tmp_path / "m")
    workspace.explain(sheet=0)
    workspace.simulate_answers()
    workspace.correct("pruning", pruning={"epochs": 1})
    shutil.rmtree(tmp_path / "m")
    result = crayon("info", workspace.folder)
    assert result.exit_code == 0, result.output
    assert "its weights cannot be compared: no folder at" in " ".join(result.stdout.split())
    assert "maps.safetensors" in result.stdout


def test_export_from_the_shell(ws, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result = crayon("export-onnx", "-w", ws.folder, "both", tmp_path / "m.onnx", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["bytes"] == (tmp_path / "m.onnx").stat().st_size
    again = crayon("export-onnx", "-w", ws.folder, "both", tmp_path / "m.onnx")
    assert again.exit_code == 5
    assert "--overwrite" in again.stderr


def test_a_folder_of_something_else_is_not_replaced(ws, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="something else"):
        ws.save("both", tmp_path / "out", overwrite=True)


def test_every_target_is_checked_before_any_work(ws, tmp_path, monkeypatch):
    """A correction is not even loaded when its page, folder, file or repository cannot be made."""

    def work(*_arguments, **_keywords):
        raise AssertionError("work was begun")

    for room, name in ((Holdings, "correction"), (Holdings, "maps"), (Answering, "suggest")):
        monkeypatch.setattr(room, name, work)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model.safetensors").touch()
    (tmp_path / "there.html").touch()
    for step in (
        lambda: ws.save("both", tmp_path / "there"),
        lambda: ws.report("both", tmp_path / "there.html"),
        lambda: ws.export_crowd(tmp_path / "there", method="coverage"),
    ):
        with pytest.raises(OutputExistsError, match="exists already"):
            step()
    for step in (
        lambda: ws.save("both", tmp_path / "there.html" / "out"),
        lambda: ws.report("both", tmp_path / "there.html" / "out.html"),
        lambda: ws.export_crowd(tmp_path / "there.html" / "out"),
    ):
        with pytest.raises(OutputError, match="is a file"):
            step()
    with pytest.raises(SettingsError, match="name"):
        ws.push("both", "no/such/name", card_images=["*"], dry_run=True)
    (tmp_path / "there.onnx").touch()
    result = crayon("export-onnx", "-w", ws.folder, "both", tmp_path / "there.onnx")
    assert (result.exit_code, "exists already" in result.stderr) == (5, True)
