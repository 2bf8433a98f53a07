"""The commands that take several processes: the same files as from one, written by one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers_launch import LAUNCH, Group, by_shell
from helpers_workspace import crayon, new_workspace, save_model
from safetensors.torch import load_file

from crayon_sdk import Evaluation, Workspace, load_correction
from crayon_sdk._base.files import read_metadata

CORRECT = ["correct", "--set", "attention.batch_size=4", "--set", "attention.lr=1e-4"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def answered(tmp_path_factory, picture_folder):
    """A workspace with maps and answers."""
    place = tmp_path_factory.mktemp("answered") / "ws"
    new_workspace(place, picture_folder, save_model(tmp_path_factory.mktemp("model") / "m"))
    for line in (["explain", "--sheet", "0", "--batch-size", "6"], ["answer", "simulate"]):
        assert crayon(*line, "-w", place).exit_code == 0
    return place


def same_weights(first, second):
    for name, tensor in load_file(first / "corrections/attention/model.safetensors").items():
        other = load_file(second / "corrections/attention/model.safetensors")[name]
        torch.testing.assert_close(other, tensor, rtol=1e-2, atol=1e-3, msg=lambda text: f"{name}: {text}")  # noqa: B023


def test_explain_correct_and_evaluate_in_two_processes(answered, tmp_path):
    for size in (1, 2):
        place = tmp_path / str(size)
        shutil.copytree(answered, place)
        explain = ["explain", "--again", "--sheet", "2", "--batch-size", "6"]
        lines = [explain, [*CORRECT, "--set", "attention.epochs=1"], ["evaluate"]]
        group = Group(size, by_shell, tmp_path / f"said-{size}", *([*line, "-w", str(place)] for line in lines))
        assert group.join() == [0] * size, [(group.folder / f"{index}.log").read_text() for index in range(size)]
    one, two = tmp_path / "1", tmp_path / "2"
    for name in ("maps.safetensors", "patches.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes() == (answered / name).read_bytes(), name
    same_weights(one, two)
    found = [Evaluation.load(place / "evaluations/test/original.json") for place in (one, two)]
    assert found[0] == found[1]
    names = [sorted(path.relative_to(place).as_posix() for path in place.rglob("*")) for place in (one, two)]
    assert names[0] == names[1]
    assert {each.state for each in Workspace(two).status()} == {"fresh"}
    assert "corrections/attention" in (tmp_path / "said-2/0.log").read_text()
    assert (tmp_path / "said-2/1.log").read_text() == ""  # the main process alone talks


def test_other_commands_say_that_they_take_one_process(answered, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = crayon("compare", "-w", answered)
    assert said.exit_code == 2
    assert "crayon: process 0 of 2: crayon compare works in one process, and 2 were launched" in said.stderr


def children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
def test_a_killed_process_ends_the_launch_and_one_process_goes_on(answered, tmp_path):
    place, said = tmp_path / "ws", tmp_path / "said.txt"
    shutil.copytree(answered, place)
    line = [*CORRECT, "--set", "attention.epochs=60", "-w", str(place)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(said, "w") as file:
        run = subprocess.Popen(
            [*LAUNCH, "-m", "crayon_sdk", *line], env=environment, stdout=file, stderr=file, start_new_session=True
        )
    ranks = []
    try:
        end = time.monotonic() + 120
        while not list(place.glob("runs/**/training.safetensors")):
            assert run.poll() is None, said.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        ranks = children(run.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        assert run.wait(60) != 0
    finally:
        for pid in (run.pid, *ranks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.wait()
    assert "crayon: process 0 of 2: " in said.read_text()
    assert not list(place.glob("corrections/*"))
    state = next(place.glob("runs/**/training.safetensors"))
    done = json.loads(read_metadata(state)["manifest"])["history"]
    assert done
    assert crayon(*line).exit_code == 0
    history = load_correction(place / "corrections/attention").record.history
    assert [entry["seconds"] for entry in history[: len(done)]] == [entry["seconds"] for entry in done]  # it went on
    assert len(history) == 60
