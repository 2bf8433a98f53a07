"""The lock of a workspace: one process at a time, and gone with its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crayon_sdk._base.locking import locked
from crayon_sdk.errors import OutputError, WorkspaceBusyError

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from crayon_sdk._base.locking import locked
with locked(Path(sys.argv[1]), doing="holding"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_second_process_is_told_who_has_it(holder, tmp_path):
    with (
        pytest.raises(WorkspaceBusyError, match=rf"in use by process {holder.pid} \(holding, since 20"),
        locked(tmp_path, doing="waiting", timeout=0.1),
    ):
        pass


def test_lock_survives_nothing_of_kill_9(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path, doing="next", timeout=5):
        assert json.loads((tmp_path / ".lock-owner.json").read_text())["doing"] == "next"
    assert not (tmp_path / ".lock-owner.json").exists()


def test_waits_for_the_end_of_the_other(holder, tmp_path):
    started = time.monotonic()
    holder.terminate()
    with locked(tmp_path, doing="next", timeout=60):
        assert time.monotonic() - started < 60


def test_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path, doing="failing"):
        raise ZeroDivisionError
    with locked(tmp_path, doing="next", timeout=0.1):
        pass


def test_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), locked(tmp_path / "file" / "ws", doing="anything"):
        pass


def test_busy_without_a_name_when_the_note_is_damaged(holder, tmp_path):
    (tmp_path / ".lock-owner.json").write_text("{")
    with pytest.raises(WorkspaceBusyError, match="is in use; wait"), locked(tmp_path, doing="x", timeout=0.1):
        pass
