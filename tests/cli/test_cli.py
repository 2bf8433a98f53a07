"""The command line, as one calls it: in a process of its own."""

from __future__ import annotations

import ast
import json
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import crayon_sdk
from crayon_sdk import errors
from crayon_sdk.cli import app
from crayon_sdk.cli.common import EXIT_CODES, Commands, command
from crayon_sdk.cli.wording import in_shell

ROOT = Path(__file__).resolve().parents[2]


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
    assert not {"torch", "timm", "numpy", "PIL", "crayon_sdk.cli.demo"} & loaded


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
        ("LostProcessError", 6),
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


ESCAPE = "\x1b[31m\x9b2J\u202ered"
SHOWN = r"\u001b[31m\u009b2J\u202ered"


def test_nothing_from_outside_drives_the_terminal():
    """Messages, usage errors, log lines, tables, JSON and tracebacks."""
    from rich.table import Table

    @command("show", example="")
    @click.argument("how")
    def show(shell, *, how):
        if how == "error":
            raise errors.DataError(f"class {ESCAPE} is bad")
        logging.getLogger("crayon_sdk.x").warning("log %s", ESCAPE)
        shell.say(f"said {ESCAPE}")
        table = Table("a")
        table.add_row(ESCAPE)
        shell.result({ESCAPE: ESCAPE}, table, ESCAPE)

    show.params = [each for each in show.params if each.name != "where"]
    group = Commands("crayon", commands=[show])
    shown = [
        CliRunner().invoke(group, ["show", *line])
        for line in (["error"], ["fine"], ["fine", "--json"], ["fine", f"--{ESCAPE}"], ["fine", ESCAPE])
    ]
    for result in shown:
        assert SHOWN in result.output or repr(ESCAPE)[1:-1] in result.output  # click quotes as Python does
        assert not set(ESCAPE[0] + "\x9b\u202e") & set(result.output)
    assert json.loads(shown[2].stdout) == {ESCAPE: ESCAPE}
    assert shown[1].output.count(SHOWN) == 4


def test_a_fault_that_quotes_escapes():
    result = crayon("fail", code=raising(f"ZeroDivisionError({ESCAPE!r})"))
    assert result.returncode == 1
    assert SHOWN in result.stderr


def test_half_characters_are_written_where_they_cannot_be_encoded():
    code = (
        "import click, crayon_sdk.cli as cli\n@cli.app.command()\ndef fail():\n"
        "    from rich.console import Console\n    Console().print('\\udc80\\u4e2d')\ncli.main()"
    )
    result = crayon("fail", code=code)
    assert (result.returncode, result.stdout.strip()) == (0, "\\udc80\u4e2d")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which signals a process listens to")
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 1.0, 2.0])
def test_ctrl_c_at_any_moment(delay, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "crayon_sdk", "demo", str(tmp_path / "demo")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    status = Path(f"/proc/{process.pid}/status")
    # SIGTERM is caught: the command line listens.
    while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) >> (signal.SIGTERM - 1) & 1:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "crayon: stopped; nothing is half-written, run it again to go on\n")
    assert not (tmp_path / "demo").exists()


def test_ctrl_c_in_an_import_that_swallows_it(tmp_path):
    (tmp_path / "swallows.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    [0] * 10\n"
        "except BaseException:\n    pass\n"
    )
    code = (
        f"import sys, crayon_sdk.cli as cli\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "@cli.app.command()\ndef fail():\n    import swallows\n    print('went on')\ncli.main()"
    )
    result = crayon("fail", code=code)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "crayon: stopped; nothing is half-written, run it again to go on\n"


@pytest.mark.parametrize(
    ("line", "message", "said"),
    [
        ("init", 'pass on_error="skip" to', "pass --skip-bad to"),
        ("init", "pass allow_pickle=True", "pass --allow-pickle"),
        ("explain", "pass allow_pickle=True", "pass crayon init --again --allow-pickle"),
        ("correct", "or strict=False to leave", "or --skip-bad to leave"),
        ("correct", "set background_swap=0", "set --set attention.background_swap=0"),
        (
            "correct",
            'keep="best": evaluate_on= (never)',
            '--set attention.keep="best": --evaluate-on (never)',
        ),
        ("explain", "expected target='label' or 3", "expected --target 'label' or 3"),
        ("init", "its name 'strict=False' and (in Python: a(b=1)) x", "its name 'strict=False' and x"),
        ("init", "a (in Python: f(x, y=1) does).", "a."),
        ("init", "SplitModel(trunk=..., csv=...) /csv=1", "SplitModel(trunk=..., csv=...) /csv=1"),
        ("push", "with create_pr=True", "with --create-pr"),
        ("demo", "with overwrite=True", "with --overwrite"),
    ],
)
def test_keywords_become_options(line, message, said):
    with click.Context(app) as root, click.Context(app.commands[line], parent=root) as context:
        assert in_shell(message, context) == said


def test_settings_are_those_of_the_method_that_runs():
    with click.Context(app) as root, click.Context(app.commands["correct"], parent=root) as context:
        context.params["method"] = "rrr"
        assert in_shell("lower weight=5 or lr=1", context) == "lower --set rrr.weight=5 or --set rrr.lr=1"
        context.params["method"] = "jtt"
        assert in_shell("lower lr=1, first_epochs=1", context) == "lower --set jtt.lr=1, --set jtt.first_epochs=1"


# Names that look like settings in messages, and never reach the shell, with the reason.
ONLY_PYTHON = {
    "fingerprint num_neurons num_patches rule kind maybe_share yes_share min_votes": "chosen from a list by commands",
    "trunk head classifier compile inplace": "for models that are objects, which the shell has none of",
    "dataset original patches train clusters": "of Explainer.suggest, report and compare; the workspace gives them",
    "preprocessed": "for data sets of torch",
    "missing": "of the published form; the value that was passed",
    "intermediates_only output_fmt": "between timm and us",
    "token name": "parts of addresses",
}


def test_every_setting_that_a_message_names_is_an_option():
    """What is raised or logged anywhere in the package names settings that the shell has, too."""
    known = {name for names in ONLY_PYTHON for name in names.split()}
    lost = []
    with click.Context(app) as root, click.Context(app.commands["correct"], parent=root) as context:
        for path in sorted((ROOT / "crayon_sdk").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                logged = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("warning", "error", "warn")
                if not (isinstance(node, ast.Raise) or logged):
                    continue
                for each in ast.walk(node):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        said = in_shell(each.value, context)
                        for name, rest in re.findall(r"(?<![\w./'-])([a-z]\w*)=(?!=)(.?)", said):
                            if name not in known and rest != "." and f"(in Python: {name}" not in each.value:
                                lost.append(f"{path.name}:{each.lineno}: {name}")
    assert lost == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_the_c_library_keeps_memory():
    """In a process of its own, for it stays so: a large block that is freed is the next one."""
    code = "from crayon_sdk.cli.allocator import keep_memory as k\nassert k()\n" + (
        "import ctypes\nc = ctypes.CDLL(None)\nc.malloc.restype = ctypes.c_void_p\n"
        "c.free.argtypes = [ctypes.c_void_p]\n"
        "first = c.malloc(1 << 27)\nc.free(first)\nassert c.malloc(1 << 27) == first\n"
        "assert '[heap]' in next(l for l in open('/proc/self/maps') if int(l.split('-')[0], 16) <= first "
        "< int(l.split('-')[1].split()[0], 16))"
    )
    result = crayon(code=code)
    assert result.returncode == 0, result.stderr


def test_table1_takes_lists_as_they_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    from helpers_correction import plain_correction, split_model

    from crayon_sdk.data.generated import generate

    table = generate("box", tmp_path / "box", size=40, scale=0.02)
    timm_folder = plain_correction(split_model()).save(tmp_path / "model")
    result = crayon(
        *("bench", "table1", "--data", str(table.parent), "--group-column", "box", "--model", str(timm_folder)),
        *("--methods", "original", "erm", "--seeds", "0", "2", "--trials", "1", "--epochs", "1"),
        *("--output", str(tmp_path / "out"), "--json"),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["protocol"]["seeds"] == [0, 2]
    assert [len(line["worst_group"]) for line in found["lines"]] == [1, 2, 1, 2]
    assert found["protocol"]["methods"] == ["original", "erm"]
    assert "crayon bench table1 --data" in (tmp_path / "out" / "table1.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--methods", "jt"), "'jt' is not one of"),
        (("--seeds", "0", "0"), "each once"),
        (("--data", "nowhere"), "does not exist"),
        ((), "is recognised; name it with --group-column"),
    ],
)
def test_table1_says_what_is_wrong_before_the_work(picture_folder, tmp_path, typed, said):
    plain = tmp_path / "metadata.csv"
    text = (picture_folder / "metadata.csv").read_text(encoding="utf-8").replace(",place,", ",tint,")
    rows = [line.replace("images/", f"{picture_folder}/images/", 1) for line in text.splitlines()]
    rows = [line.replace(",masks/", f",{picture_folder}/masks/") for line in rows]
    rows = [line.replace(",train,", ",val,") if "/07.jpg" in line else line for line in rows]
    plain.write_text("\n".join(rows), encoding="utf-8")
    always = ("--data", str(plain), "--model", "test_resnet.r160_in1k", "--output", str(tmp_path / "out"))
    result = CliRunner().invoke(app, ["bench", "table1", *always, *typed])
    assert result.exit_code in (2, 3)
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_tables_with_published_settings(tmp_path):
    """The estimate, the run, and what is refused before it."""
    pytest.importorskip("matplotlib")
    from helpers_correction import plain_correction, split_model

    from crayon_sdk.data.generated import generate

    table = generate("box", tmp_path / "box", size=40, scale=0.02)
    model = plain_correction(split_model()).save(tmp_path / "model")
    common = ("--data", str(table.parent), "--group-column", "box", "--model", str(model), "--seeds", "0")
    common += ("--epochs", "1", "--output", str(tmp_path / "out"), "--device", "cpu")

    def bench(*typed):
        return CliRunner().invoke(app, ["bench", *typed, *common], prog_name="crayon")

    ahead = bench("ablation", "--dry-run")
    assert ahead.exit_code == 0, ahead.output
    assert "4 cells, 0 of them finished" in ahead.stdout
    chosen = bench("table1", "--methods", "original", "erm", "--trials", "1", "--dry-run")
    assert chosen.exit_code == 0, chosen.output
    assert "3 cells, 0 of them finished" in chosen.stdout
    assert not (tmp_path / "out").exists()
    found = bench("table1", "--preset", "waterbirds", "--methods", "original", "attention", "--json")
    assert found.exit_code == 0, found.output
    assert [line["point"]["series"] for line in json.loads(found.stdout)["lines"]] == ["original", "attention"]
    assert (tmp_path / "out" / "index.html").is_file()
    for typed, said in (
        (("table1", "--answers-from", str(tmp_path)), "name them with --preset"),
        (("table1", "--preset", "birds"), "no method has a preset called 'birds'"),
        (("transfer",), "Missing option '--student'"),
        (("answers", "--answers-from", str(tmp_path)), "name it with --data-set"),
        (("ablation", "--data-set", "biased-celeba"), "is not in"),
    ):
        refused = bench(*typed)
        assert refused.exit_code in (2, 3), refused.output
        assert said in refused.stderr


def test_presets_are_shown_with_their_sources():
    listed = json.loads(crayon("preset", "list", "--json").stdout)["presets"]
    assert {"waterbirds", "waterbirds-release"} <= set(listed["both"])
    shown = json.loads(crayon("preset", "show", "waterbirds-release", "--method", "pruning", "--json").stdout)["values"]
    values = {each["setting"]: (each["value"], each["source"]) for each in shown}
    assert values["epochs"] == (5, "the authors' code; paper: 10")
    assert crayon("preset", "show", "waterbird").returncode == 2
