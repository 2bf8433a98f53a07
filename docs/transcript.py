"""Runs the session that docs/how-to/command-line.md shows, and writes it into the page.

python docs/transcript.py FOLDER    FOLDER is what `crayon demo FOLDER` made

The page keeps everything around the fence between the two markers. Answers are given on the page of
``crayon annotate``, in Chromium without a window. A test runs the same session on smaller pictures and
compares what it says with the page, up to numbers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from crayon_sdk import cli

PAGE = Path(__file__).resolve().parent / "how-to" / "command-line.md"
START, END = "<!-- session -->\n\n```console\n", "```\n\n<!-- end of session -->"
SESSION = (
    "crayon init fish --model demo/original --csv demo/pictures/metadata.csv",
    "cd fish",
    "crayon explain",
    "crayon annotate --votes 2",
    "crayon answer show",
    "crayon suggest --kind image --votes 3 --count 3",
    "crayon correct --method both --set attention.epochs=12 --set attention.lr=2e-3 --set attention.average_decay=0.9",
    "crayon correct --method pruning",
    "crayon evaluate both",
    "crayon evaluate original pruning --quiet",
    "crayon compare original pruning both",
    "crayon save both ../fish-corrected",
    "crayon info",
)

_PROGRESS = re.compile(r"[a-z ]+: [\d,]+ of [\d,]+, about .+ to go")  # what a terminal shows as a bar


def run_session(folder: Path, answer: Callable[[str, Path], None]) -> str:
    """Run the session in a folder that holds ``demo``; commands and what they say, as in a terminal.

    Args:
        folder: Where.
        answer: Answers everything on the page at an address, about the workspace in a folder.
    """
    before, columns = Path.cwd(), os.environ.get("COLUMNS")
    lines: list[str] = []
    os.environ["COLUMNS"] = "110"
    os.chdir(folder)
    try:
        for line in SESSION:
            lines.append(f"$ {line}")
            program, *arguments = line.split()
            if program == "cd":
                os.chdir(arguments[0])
                continue
            if program == "crayon" and arguments[0] == "annotate":
                lines += [*_annotate(arguments, lambda url: answer(url, Path())), ""]
                continue
            result = CliRunner().invoke(cli.app, arguments, prog_name="crayon")
            if result.exit_code:
                raise RuntimeError(f"{line} ended with {result.exit_code}: {result.output}")
            lines += [
                each.rstrip().replace(str(folder.resolve()) + os.sep, "/home/me/")
                for each in result.output.splitlines()
                if not _PROGRESS.fullmatch(each)
            ]
            lines.append("")
    finally:
        os.chdir(before)
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return "\n".join(lines).rstrip() + "\n"


def _annotate(arguments: list[str], answer: Callable[[str], None]) -> list[str]:
    """Start the page, let somebody answer on it, and stop it with Ctrl-C."""
    command = [sys.executable, "-m", "crayon_sdk", *arguments, "--port", "0"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)  # noqa: S603 - our own

        def text() -> str:
            said.seek(0)
            return said.read().decode()

        try:
            while "Ctrl-C stops" not in text():
                if process.poll() is not None:
                    raise RuntimeError(f"crayon annotate ended with {process.returncode}: {text()}")
                time.sleep(0.1)
            answer(re.findall(r"Answer: (\S+)", text())[0])
            process.send_signal(signal.SIGINT)
            if process.wait(120):
                raise RuntimeError(f"crayon annotate ended with {process.returncode}: {text()}")
            return re.sub(r"(127\.0\.0\.1):\d+", r"\1:8730", text()).splitlines()
        finally:
            process.kill()
            process.wait()


def shown() -> str:
    """The session as the page shows it."""
    return PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]


def main() -> None:
    """Run the session on a demo and write it into the page."""
    sys.path.insert(0, str(PAGE.parents[2] / "tests"))
    from helpers_browser import answer_as_the_masks_say

    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(sys.argv[1], Path(place) / "demo")
        session = run_session(Path(place), answer_as_the_masks_say)
    text = PAGE.read_text(encoding="utf-8")
    above, below = text.partition(START)[0], text.partition(END)[2]
    PAGE.write_text(above + START + session + END + below, encoding="utf-8")


if __name__ == "__main__":
    main()
