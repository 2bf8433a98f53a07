"""A whole run from the shell that is killed, stopped and started again: it ends with the same weights."""

from __future__ import annotations

import random
import signal
import time

import pytest
from helpers_correction import _processes, _start_server
from helpers_workspace import WholeRun, new_workspace, save_model, weights

from crayon_sdk import Evaluation, Workspace


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, picture_folder):
    return picture_folder, save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, inputs):
    """The folder of a run that nothing disturbed, and how many seconds it took."""
    place = tmp_path_factory.mktemp("undisturbed") / "ws"
    new_workspace(place, *inputs)
    _start_server()
    first = _processes.Process(target=int)  # what all are forked from is loaded now, and not in the time of the run
    first.start()
    first.join()
    started = time.monotonic()
    assert WholeRun(place).join() == 0
    return place, time.monotonic() - started


def same_end(place, undisturbed):
    assert weights(place / "corrections/both") == weights(undisturbed / "corrections/both")
    for name in ("maps.safetensors", "patches.safetensors", "answers.jsonl"):
        assert (place / name).read_bytes() == (undisturbed / name).read_bytes(), name
    ours, theirs = (Evaluation.load(each / "evaluations/test/both.json") for each in (place, undisturbed))
    assert ours == theirs
    assert {each.state for each in Workspace(place).status()} == {"fresh"}
    assert not [path for path in place.rglob(".*") if path.name not in (".lock", ".lock-owner.json")]
    assert not list((place / "runs").glob("*"))


@pytest.mark.parametrize("kills", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(kills, inputs, undisturbed, tmp_path):
    place = tmp_path / "ws"
    new_workspace(place, *inputs)
    folder, seconds = undisturbed
    moments = random.Random(0)
    done = killed = 0
    while killed < kills:
        run = WholeRun(place)
        run.process.join(moments.uniform(0.05, 0.5) * seconds)
        if run.process.is_alive():
            run.kill()
            run.join()
            killed += 1
            continue
        assert run.join() == 0, run.said()  # it came to the end between two kills: start another one
        same_end(place, folder)
        done += 1
        place = tmp_path / f"ws-{done}"
        new_workspace(place, *inputs)
    run = WholeRun(place)
    assert run.join() == 0, run.said()
    same_end(place, folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_of_an_epoch(number, code, inputs, undisturbed, tmp_path):
    place = tmp_path / "ws"
    new_workspace(place, *inputs)
    run = WholeRun(place)
    end = time.monotonic() + 120
    # The state of the first epoch is there: the second one is under way.
    while not list(place.glob("runs/corrections-*/attention/training.safetensors")) and time.monotonic() < end:
        time.sleep(0.002)
    run.kill(number)
    assert run.join() == code, run.said()
    assert "crayon: stopped" in run.said()
    assert "Traceback" not in run.said()
    again = WholeRun(place)
    assert again.join() == 0, again.said()
    same_end(place, undisturbed[0])
