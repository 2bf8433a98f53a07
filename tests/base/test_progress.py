"""A bar on a terminal, silence everywhere else."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from crayon_sdk._base import progress
from crayon_sdk._base.progress import hidden, track

ROOT = Path(__file__).resolve().parents[2]
COUNT = """
from crayon_sdk._base.progress import track
with track("counting sheep", 3) as advance:
    for _ in range(3):
        advance(1)
"""


def test_silent_where_nobody_watches(capfd):
    with track("counting", 3) as advance:
        advance(2)
        advance(1)
    assert capfd.readouterr() == ("", "")


def run_in_terminal(**environment):
    """Run with a real terminal as stderr; what arrives there."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", COUNT],
        stderr=theirs,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment},
    )
    out, _ = done.communicate(timeout=60)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert (done.returncode, out) == (0, b"")
    return seen.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix terminal")
def test_a_bar_on_a_terminal():
    seen = run_in_terminal(RANK="0", WORLD_SIZE="2")
    assert "counting sheep" in seen
    assert "3/3" in seen


@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix terminal")
def test_only_the_first_process_shows_it():
    assert run_in_terminal(RANK="1", WORLD_SIZE="2") == ""


class Cell(io.StringIO):
    """What stands in for stderr in a notebook, by the module of its class."""

    __module__ = "ipykernel.iostream"


def test_a_bar_in_a_notebook(monkeypatch):
    cell = Cell()
    monkeypatch.setattr(sys, "stderr", cell)
    with track("counting sheep", 3) as advance:
        for _ in range(3):
            advance(1)
    assert "counting sheep" in cell.getvalue()
    assert "/3" in cell.getvalue()
    with hidden(), track("counting cows", 3) as advance:
        advance(1)
    assert "cows" not in cell.getvalue()


def test_an_error_goes_through():
    with pytest.raises(ZeroDivisionError), track("counting", 3):
        _ = 1 / 0


def test_lines_now_and_then_where_the_shell_wants_them(monkeypatch):
    said = []
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    with progress.lines(said.append), track("counting", 4) as advance:
        for _ in range(4):
            advance(1)
    assert [line.split(", about")[0] for line in said] == [f"counting: {done} of 4" for done in (1, 2, 3)]
    assert said[0].endswith(" to go")
    with track("counting", 4) as advance:
        advance(1)
    assert len(said) == 3
    with progress.lines(said.append), progress.hidden(), track("counting", 4) as advance:
        advance(1)
    assert len(said) == 3


def test_no_line_before_its_time():
    said = []
    with progress.lines(said.append), track("counting", 4) as advance:
        advance(1)
    assert said == []
