"""Everybody at once, a server that is killed, and requests that nobody should send."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.client import HTTPException
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra annotate")

from helpers_browser import apps
from helpers_workspace import new_workspace, save_model

from crayon_sdk.annotate.store import AnswerStore

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "annotate.py"


def loaded(*options):
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--json", *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_no_answer_is_lost_or_doubled_when_the_server_is_killed():
    found = loaded("--clients", "5", "--answers", "200", "--kills", "1")
    assert (found["not_acknowledged"], found["lost"], found["doubled"]) == (0, 0, 0)
    assert found["retries"] > 0  # it was killed while they were at it


@pytest.mark.slow
def test_twenty_people_five_thousand_answers_three_kills():
    found = loaded("--pictures")
    assert (found["clients"], found["answers"], found["kills"]) == (20, 5000, 3)
    assert (found["not_acknowledged"], found["lost"], found["doubled"]) == (0, 0, 0)


@pytest.mark.slow
def test_two_apps_on_one_database_lose_nothing_and_ask_nothing_twice(postgres, picture_folder, tmp_path):
    """Six people on two apps, of which one is killed and started again; every patch and picture is asked about once."""
    workspace = new_workspace(tmp_path / "ws", picture_folder, save_model(tmp_path / "m"))
    workspace.explain(sheet=0)
    store, handed, told, lock = ("--store", postgres()), [], [], threading.Lock()
    with apps() as start:
        two = [start(workspace.folder, *store, "--port", free_port(), log=tmp_path / f"{name}.log") for name in "ab"]
        total = sum(two[0].links["tasks"].values())

        def person(number):
            name, queue, turn = f"p{number}", [], number
            while True:
                turn += 1
                app = two[turn % 2]  # no matter which
                if not queue:
                    found = patiently(app, "/api/tasks", {"person": name, "count": 3, "held": []})["tasks"]
                    queue = [each["id"] for each in found]
                    with lock:
                        handed.extend((name, each) for each in queue)
                    if not queue:
                        return
                click = {"uid": f"{name}-{len(told):08}-{turn}", "task": queue[0], "answer": "yes", "seconds": 1.0}
                patiently(app, "/api/answers", {"person": name, "answers": [click]})
                with lock:
                    told.append((name, queue.pop(0)))

        people = [threading.Thread(target=person, args=(number,)) for number in range(6)]
        for each in people:
            each.start()
        while len(told) < total / 3:
            time.sleep(0.01)
        two[1].stop(signal.SIGKILL)
        two[1].start()
        for each in people:
            each.join(120)
        assert sorted(each.stop() for each in two) == [0, 0]
    assert len(told) == len({task for _, task in told}) == total
    owners = {task: {who for who, each in handed if each == task} for _, task in handed}
    assert all(len(each) == 1 for each in owners.values())
    kept = AnswerStore(store[1])
    assert Counter((row.person, row.task) for row in kept.rows()) == Counter(told)
    assert Counter(workspace.answers()) == Counter(kept.answers())
    kept.close()


def patiently(app, path, body):
    """Ask until there is an answer, as the page does."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, HTTPException):
            code, found = app.call(path, body)
            if code == 200:
                return found
        time.sleep(0.05)
    raise AssertionError(f"no answer from {path}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def app(picture_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    workspace = new_workspace(root / "ws", picture_folder, save_model(root / "m"))
    workspace.explain(sheet=0)
    with apps() as start:
        yield start(root / "ws", "--votes", 50)


def fuzz(app, tmp_path, examples):
    """Let schemathesis make requests up from the app's own description; what it found wrong."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or shutil.which("schemathesis")
    if program is None:
        pytest.skip("no schemathesis here; it comes with the extra dev")
    checks = "not_a_server_error,response_schema_conformance,content_type_conformance"
    done = subprocess.run(
        [program, "run", f"{app.url}openapi.json", "--checks", checks, "--max-examples", str(examples), "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=1500,
    )
    return done.returncode, done.stdout[-4000:] + done.stderr[-2000:]


def test_made_up_requests(app, tmp_path):
    code, said = fuzz(app, tmp_path, 15)
    assert code == 0, said
    assert app.process.poll() is None
    assert app.call("/api/session")[0] == 200


@pytest.mark.slow
def test_many_made_up_requests(app, tmp_path):
    code, said = fuzz(app, tmp_path, 500)
    assert code == 0, said
