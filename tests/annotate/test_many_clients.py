"""Everybody at once, a server that is killed, and requests that nobody should send."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra annotate")

from helpers_browser import apps
from helpers_workspace import new_workspace, save_model

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
