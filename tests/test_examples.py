"""The example scripts run as they stand, on small data."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crayon_sdk.errors import OutputExistsError

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Pictures, a model and answers, as the demo leaves them."""
    from crayon_sdk import Explainer, ImageDataset, load_model, simulate_answers
    from crayon_sdk._base.files import write_json, write_tensors
    from crayon_sdk.cli.demo_pictures import write_pictures
    from crayon_sdk.models.rebuild import timm_config

    folder = tmp_path_factory.mktemp("examples")
    (folder / "pictures").mkdir()
    table = write_pictures(folder / "pictures", train=24, test=8, size=64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = load_model("test_resnet.r160_in1k", pretrained=False, num_classes=2, model_args={"output_stride": 16})
    with torch.no_grad():
        model.classifier.weight.abs_()  # so that every map of this untrained network has evidence
    (folder / "original").mkdir()
    write_tensors(folder / "original" / "model.safetensors", model.plain_state_dict(), {"format": "pt"})
    write_json(folder / "original" / "config.json", timm_config(model))
    train = ImageDataset.from_csv(table, split="train")
    simulate_answers(Explainer(model).explain(train), train, strictness=(0.1, 0.2)).save(folder / "answers.jsonl")
    return folder


@pytest.fixture
def run(work, monkeypatch, capsys):
    """Run a script as a program in the folder of `work`, in this process; what it printed."""

    def call(script: str, *arguments: str) -> str:
        monkeypatch.chdir(work)
        monkeypatch.setattr(sys, "argv", [script, *arguments, "--epochs", "1"])
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
        return capsys.readouterr().out

    return call


def test_there_are_examples():
    names = ["correct.py", "many_processes.py", "own_module.py", "prune_then_guide.py", "publish.py", "transfer.py"]
    assert [path.name for path in EXAMPLES] == names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


def test_correct(work, run):
    import timm

    model, table, answers = "local-dir:original", "pictures/metadata.csv", "answers.jsonl"
    shown = run("correct.py", "--model", model, "--table", table, "--answers", answers)
    assert shown.count("worst group (WGA)") == 2
    assert timm.create_model(f"local-dir:{work / 'corrected'}", pretrained=True).num_classes == 2


@pytest.mark.parametrize("script", ["correct.py", "own_module.py", "prune_then_guide.py", "transfer.py"])
def test_the_output_is_checked_before_the_work(script, work, run):
    (work / "there").mkdir(exist_ok=True)
    with pytest.raises(OutputExistsError, match="'there' exists already"):
        run(script, "--output", "there", "--table", "missing.csv")


def test_prune_then_guide(work, run):
    from crayon_sdk import load_correction

    shown = run("prune_then_guide.py", "--model", "local-dir:original", "--table", "pictures/metadata.csv")
    assert "neurons" in shown
    correction = load_correction(work / "pruned-and-guided")
    assert [record.method for record in (*correction.parents, correction.record)] == ["pruning", "attention"]
    assert correction.record.simulated


def test_own_module(work, run):
    shown = run("own_module.py", "--table", "pictures/metadata.csv")
    assert "own-corrected" in shown
    assert (work / "own-corrected" / "model.safetensors").is_file()


def test_transfer(work, run):
    import timm

    shown = run(
        "transfer.py",
        "--teacher",
        "local-dir:original",
        "--table",
        "pictures/metadata.csv",
        "--answers",
        "answers.jsonl",
    )
    assert "maps of (10, 10), the student's are (5, 5)" in shown
    model = timm.create_model(f"local-dir:{work / 'student-corrected'}", pretrained=True)
    assert type(model).__name__ == "ConvNeXt"


MANY = ("many_processes.py", "--folder", ".")


def test_many_processes_in_one(work, run):
    assert run(*MANY).count("worst group (WGA)") == 1


@pytest.mark.slow
def test_many_processes(work, run):
    from helpers_launch import LAUNCH

    from crayon_sdk import load_correction

    run(*MANY, "--output", "by-one", "--state", "by-one.state")
    command = [*LAUNCH, str(ROOT / "examples" / MANY[0]), *MANY[1:], "--epochs", "1"]
    done = subprocess.run(
        [*command, "--output", "by-two", "--state", "two.state"], cwd=work, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("worst group (WGA)") == 1  # the main process alone talks
    # Of Adam in float32 the weights whose gradient is noise differ; that they are equal is tested in test_launch.
    losses = [load_correction(work / name).record.history[0]["loss"] for name in ("by-one", "by-two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_publish(tmp_path):
    from helpers_correction import plain_correction, split_model
    from helpers_hub import serving
    from helpers_hub_client import environment_for

    correction = plain_correction(split_model(1))
    correction.save(tmp_path / "correction")
    command = [sys.executable, str(ROOT / "examples" / "publish.py"), "birds", "--private"]  # the client itself warns
    with serving() as hub:
        environment = environment_for(hub.endpoint, tmp_path / "home", token="hf_mine")
        done = subprocess.run(
            [*command, "--correction", "correction"], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert f"{hub.endpoint}/ann/birds" in done.stdout
    assert f"{hub.endpoint}/datasets/ann/birds-answers" in done.stdout
    assert f"{len(correction.answers)} answers, model {correction.model.fingerprint[:12]}" in done.stdout
    assert hub.repositories["ann/birds"].private
    assert hub.repositories["datasets/ann/birds-answers"].private
