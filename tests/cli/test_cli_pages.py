"""The pages about the command line say what the command line does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import pytest
from helpers_browser import answer_as_the_masks_say
from helpers_workspace import save_model

from crayon_sdk import cli
from crayon_sdk.cli.common import EXIT_CODES
from crayon_sdk.cli.demo_pictures import write_pictures
from crayon_sdk.cli.options import keys, sections

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import transcript  # noqa: E402 - it lies beside the pages


def skeleton(text: str) -> list[str]:
    """Lines without what differs from machine to machine: numbers, their signs and marks, widths of tables."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "0", text)
    text = re.sub(r"[-+*]?\d[\d,.]*", "0", text)
    text = re.sub(r"[\[\]*+]", "", text)
    text = re.sub(r", 0 (mixed|unanswered|without evidence)", "", text)  # said only where there are any
    return [re.sub(r"[\s─━┃│┏┓┡┩└┘├┤┼╇┬┴┳┻╋╈]+", " ", line).strip() for line in text.splitlines()]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The session of the page on a demo's pictures, fewer and smaller, with a model that has learned nothing.

    Answers are given as people give them: on the page, in a real browser.
    """
    folder = tmp_path_factory.mktemp("session")
    (folder / "demo" / "pictures").mkdir(parents=True)
    write_pictures(folder / "demo" / "pictures", train=40, test=24, size=64, correlation=0.9, seed=0)
    save_model(folder / "demo" / "original")
    return transcript.run_session(folder, answer_as_the_masks_say)


def test_the_session_of_the_page_is_what_happens(session):
    ours, theirs = skeleton(transcript.shown()), skeleton(session)
    # Which pictures are suggested, and whether a map lacks evidence, depends on the model.
    drop = re.compile(r"images/train|maps have no positive evidence|^$| to go$|are too few to learn")

    def steady(lines):
        """Word by word: tables are as wide as their numbers. So small a session has no answers to carry, either."""
        return [each for line in lines if not drop.search(line) for each in line.removesuffix(", 0 carried to").split()]

    assert steady(ours) == steady(theirs)


def test_the_session_shows_every_step(session):
    for step in ("init", "explain", "annotate", "correct --method both", "evaluate", "compare", "save", "info"):
        assert f"$ crayon {step}" in session


def test_exit_codes_of_the_page(session):
    page = transcript.PAGE.read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES.items():
        if code < 128:
            assert f"| {code} | {meaning}" in page
        else:
            assert str(code) in page


def test_settings_of_the_page_are_settings(tmp_path):
    from crayon_sdk.cli.options import read_config

    page = transcript.PAGE.read_text(encoding="utf-8")
    fences = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert fences
    for number, text in enumerate(fences):
        (tmp_path / f"{number}.toml").write_text(text)
        assert read_config(tmp_path / f"{number}.toml")


def test_every_command_of_the_pages_exists():
    names = set(cli.app.commands) | {f"answer {name}" for name in cli.app.commands["answer"].commands}
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"^(?:\$ )?crayon ([a-z].*)$", text, re.M):
            first = " ".join(line.split()[:2]) if line.startswith("answer ") else line.split()[0]
            assert first in names, f"{page.name}: crayon {line}"


def test_every_command_has_an_example():
    for name, command in cli.app.commands.items():
        for each in getattr(command, "commands", {name: command}).values():
            assert "Example: crayon " in (each.epilog or ""), each.name
            assert each.help
            for option in each.params:
                assert isinstance(option, click.Argument) or option.help, (each.name, option.name)


def test_settings_have_descriptions():
    for section in sections():
        assert all(setting.text for setting in keys(section).values())
