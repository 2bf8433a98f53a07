"""The command line, as one calls it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import crayon_sdk
from crayon_sdk.errors import SettingsError

ROOT = Path(__file__).resolve().parents[1]


def crayon(*arguments: str, folder: Path = ROOT, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``python -m crayon_sdk``, or ``code`` in its place, with warnings as errors."""
    what = ["-c", code] if code else ["-m", "crayon_sdk"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-W", "error", *what, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120", "TERM": "dumb"},
    )


def test_help_teaches_with_an_example():
    result = crayon("--help")
    assert result.returncode == 0
    assert "crayon demo" in result.stdout
    assert "Exit codes" in result.stdout


def test_help_of_a_command_names_its_options():
    result = crayon("demo", "--help")
    assert result.returncode == 0
    assert "Example: crayon demo" in result.stdout
    for option in ("folder", "--seed", "--quiet", "--overwrite"):
        assert option in result.stdout


def test_help_is_light():
    code = "import sys, crayon_sdk.cli as cli\ntry:\n    cli.main()\nexcept SystemExit:\n    print(*sys.modules)"
    loaded = set(crayon("demo", "--help", code=code).stdout.split())
    assert "crayon_sdk.cli" in loaded
    assert not {"torch", "timm", "numpy", "PIL", "crayon_sdk.demo"} & loaded


def test_nothing_shows_the_help():
    result = crayon()
    assert "Usage: crayon" in result.stdout + result.stderr


def test_version():
    result = crayon("--version")
    assert result.returncode == 0
    assert result.stdout == f"crayon-sdk {crayon_sdk.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["demo", "--nonsense"], "No such option: --nonsense"),
        (["demo", "--seed", "-1"], "Invalid value for '--seed'"),
    ],
)
def test_wrong_usage_is_2(arguments, message, tmp_path):
    result = crayon(*arguments, folder=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_full_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = crayon("demo", str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith("crayon: ")
    assert "exists already and is not empty" in result.stderr
    assert "--overwrite" in result.stderr
    assert "Traceback" not in result.stderr
    result = crayon("demo", str(tmp_path), "--overwrite")
    assert result.returncode == 2
    assert "not a demo" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_folder_that_cannot_be_made(tmp_path):
    # A file where a folder should be: also root is refused.
    (tmp_path / "file").write_text("")
    result = crayon("demo", str(tmp_path / "file" / "demo"))
    assert result.returncode == 2
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        result = crayon("demo", str(tmp_path / "demo"))
    finally:
        tmp_path.chmod(0o700)
    assert result.returncode == 2
    assert "not writable" in result.stderr


def raising(error: str) -> str:
    """A program that runs a command of ours that fails."""
    return (
        "import crayon_sdk.cli as cli\nfrom crayon_sdk.errors import *\n"
        f"@cli.app.command()\ndef fail():\n    raise {error}\ncli.main()"
    )


def test_own_errors_are_a_message_and_2():
    result = crayon("fail", code=raising(f"{SettingsError.__name__}('expected less')"))
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "crayon: expected less\n")


@pytest.mark.parametrize(("text", "shown"), [("", "stopped"), ("stopped after step 3", "stopped after step 3")])
def test_interrupt_is_a_message_and_130(text, shown):
    result = crayon("fail", code=raising(f"KeyboardInterrupt({text!r})"))
    assert (result.returncode, result.stderr) == (130, f"crayon: {shown}\n")


def test_faults_of_ours_keep_their_traceback():
    result = crayon("fail", code=raising("ZeroDivisionError('ours')"))
    assert result.returncode == 1
    assert "ZeroDivisionError: ours" in result.stderr
