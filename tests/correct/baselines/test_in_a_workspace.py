"""The compared methods by name: in a workspace, from the shell, in the card and the report."""

from __future__ import annotations

import json

import pytest
from helpers_workspace import crayon, new_workspace, save_model

from crayon_sdk.results.correction import load_correction
from crayon_sdk.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, picture_folder):
    place = tmp_path_factory.mktemp("baselines")
    return new_workspace(place / "w", picture_folder, save_model(place / "m"), group_columns=("place",))


def test_the_shell_and_python_do_the_same_with_one_word_changed(workspace):
    place = workspace.ledger.folder
    sets = ["--set", "jtt.epochs=1", "--set", "jtt.batch_size=8", "--set", "jtt.upweight=2"]
    result = crayon("correct", place, "--method", "jtt", *sets, "--evaluate-on", "test", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)["record"]
    assert (record["method"], record["settings"]["upweight"], record["settings"]["init"]) == ("jtt", 2.0, "original")
    given = {"epochs": 1, "batch_size": 8, "upweight": 2.0}
    assert Workspace(place).correct("jtt", settings=given, evaluate_on="test").record.created == record["created"]
    found = load_correction(place / "corrections" / "jtt")
    card = (place / "corrections" / "jtt" / "README.md").read_text(encoding="utf-8")
    page = found.report(place.parent / "report.html").read_text(encoding="utf-8")
    for text in (card, page):
        assert "Just Train Twice (JtT)" in text
        assert "Liu et al., ICML 2021" in text
    assert "upweight" in page


def test_a_preset_of_its_own_and_one_that_there_is_not(workspace):
    quick = {"epochs": 1, "batch_size": 8}
    found = workspace.correct("masktune", preset="celeba-own", settings=quick)
    assert (found.record.settings["optimizer"], found.record.settings["reduction"]) == ("sgd", "mean")
    assert (workspace.ledger.folder / "corrections" / "masktune-celeba-own").is_dir()
    result = crayon("correct", workspace.ledger.folder, "--method", "masktune", "--preset", "celeba")
    assert result.exit_code == 2
    assert "expected a preset of waterbirds, biased-celeba, backgrounds, waterbirds-own, celeba-own, got 'celeba'" in (
        " ".join(result.stderr.split())
    )


def test_settings_of_all_are_listed_and_checked(workspace):
    listed = json.loads(crayon("correct", workspace.ledger.folder, "--list-settings", "--json").stdout)
    assert {"cnc", "flac", "jtt", "lc", "lff", "masktune", "softcon"} <= set(listed)
    assert {"init", "reduction", "q", "eta", "prior"} <= set(listed["lc"])
    assert "seed" not in listed["lc"]
    result = crayon("correct", workspace.ledger.folder, "--method", "flac", "--set", "flac.alfa=3")
    assert "did you mean 'alpha'" in " ".join(result.stderr.split())
    result = crayon("correct", workspace.ledger.folder, "--method", "lff", "--set", "lff.init=local-dir:nowhere")
    assert result.exit_code != 0
    assert "no folder at" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
