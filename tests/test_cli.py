"""The command line, as one calls it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import crayon_sdk
from crayon_sdk import errors
from crayon_sdk.cli.common import EXIT_CODES, Commands

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
        (["explian"], "did you mean 'explain'?"),
        (["answer", "imprt"], "did you mean 'import'?"),
        (["demo", "--nonsense"], "No such option"),
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
    assert result.returncode == 5
    assert result.stderr.startswith("crayon: ")
    assert "exists already and is not empty" in result.stderr
    assert "--overwrite" in result.stderr
    assert "Traceback" not in result.stderr
    result = crayon("demo", str(tmp_path), "--overwrite")
    assert result.returncode == 5
    assert "not a demo" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_folder_that_cannot_be_made(tmp_path):
    # A file where a folder should be: also root is refused.
    (tmp_path / "file").write_text("")
    result = crayon("demo", str(tmp_path / "file" / "demo"))
    assert result.returncode == 5
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        result = crayon("demo", str(tmp_path / "demo"))
    finally:
        tmp_path.chmod(0o700)
    assert result.returncode == 5
    assert "not writable" in result.stderr


def raising(error: str) -> str:
    """A program that runs a command of ours that fails."""
    return (
        "import crayon_sdk.cli as cli\nfrom crayon_sdk.errors import *\n"
        f"@cli.app.command()\ndef fail():\n    raise {error}\ncli.main()"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("SettingsError", 2),
        ("DataError", 3),
        ("ModelLoadError", 3),
        ("UnsupportedModelError", 3),
        ("AnswerError", 3),
        ("FileFormatError", 3),
        ("MismatchError", 4),
        ("StaleError", 4),
        ("OutputError", 5),
        ("OutputExistsError", 5),
        ("WorkspaceBusyError", 5),
        ("TrainingError", 6),
        ("MissingExtraError", 2),
        ("HubError", 7),
        ("HubAccessError", 7),
        ("HubConflictError", 7),
    ],
)
def test_own_errors_are_a_message_and_a_code(error, code):
    """In this process: as many new ones would take longer than all else here."""

    @click.command("fail")
    def fail() -> None:
        raise getattr(errors, error)("expected less")

    group = Commands("crayon", commands=[fail])
    result = CliRunner().invoke(group, ["fail"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "crayon: expected less\n")
    assert code in EXIT_CODES


def test_every_error_has_its_code():
    """A new error without a line in the table above would be a 3 by chance."""
    kinds = {name for name in errors.__all__ if name not in ("CrayonError", "NonFiniteLossError")}
    tested = {case[0] for case in test_own_errors_are_a_message_and_a_code.pytestmark[0].args[1]}
    assert kinds == tested


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", "stopped; nothing is half-written, run it again to go on"), ("stopped after step 3", "stopped after step 3")],
)
def test_interrupt_is_a_message_and_130(text, shown):
    result = crayon("fail", code=raising(f"KeyboardInterrupt({text!r})"))
    assert (result.returncode, result.stderr) == (130, f"crayon: {shown}\n")


def test_faults_of_ours_keep_their_traceback():
    result = crayon("fail", code=raising("ZeroDivisionError('ours')"))
    assert result.returncode == 1
    assert "ZeroDivisionError: ours" in result.stderr


def test_sigterm_is_a_message_and_143():
    code = "import os, crayon_sdk.cli as cli\n@cli.app.command()\ndef fail():\n    os.kill(os.getpid(), 15)\ncli.main()"
    result = crayon("fail", code=code)
    assert (result.returncode, result.stderr) == (
        143,
        "crayon: stopped; nothing is half-written, run it again to go on\n",
    )


def test_completion(tmp_path):
    for shell in ("bash", "zsh", "fish"):
        result = crayon("completion", shell)
        assert result.returncode == 0
        assert f"_CRAYON_COMPLETE={shell}_source crayon" in result.stdout
    done = subprocess.run(
        [sys.executable, "-m", "crayon_sdk"],
        env={
            **os.environ,
            "_CRAYON_COMPLETE": "bash_complete",
            "COMP_WORDS": "crayon correct --set attention.ep",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout == "plain,attention.epochs=\n"


def test_sigterm_where_ctrl_c_is_ignored():
    """As for what a script starts in the background."""
    code = (
        "import os, signal, time, crayon_sdk.cli as cli\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "@cli.app.command()\ndef fail():\n    os.kill(os.getpid(), 15)\n    time.sleep(60)\ncli.main()"
    )
    assert crayon("fail", code=code).returncode == 143
