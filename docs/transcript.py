"""Runs the session that docs/how-to/command-line.md shows, and writes it into the page.

python docs/transcript.py FOLDER    FOLDER is what `crayon demo FOLDER` made

The page keeps everything around the fence between the two markers. A test runs the same
session on smaller pictures and compares what it says with the page, up to numbers.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from click.testing import CliRunner

from crayon_sdk import cli

PAGE = Path(__file__).resolve().parent / "how-to" / "command-line.md"
START, END = "<!-- session -->\n\n```console\n", "```\n\n<!-- end of session -->"
SESSION = (
    "crayon init fish --model demo/original --csv demo/pictures/metadata.csv",
    "cd fish",
    "crayon explain",
    "crayon answer simulate",
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


def run_session(folder: Path) -> str:
    """Run the session in a folder that holds ``demo``; commands and what they say, as in a terminal."""
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
            result = CliRunner().invoke(cli.app, arguments, prog_name="crayon")
            if result.exit_code:
                raise RuntimeError(f"{line} ended with {result.exit_code}: {result.output}")
            lines += [
                each.rstrip().replace(str(folder.resolve()) + os.sep, "/home/me/")
                for each in result.output.splitlines()
            ]
            lines.append("")
    finally:
        os.chdir(before)
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return "\n".join(lines).rstrip() + "\n"


def shown() -> str:
    """The session as the page shows it."""
    return PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]


def main() -> None:
    """Run the session on a demo and write it into the page."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(sys.argv[1], Path(place) / "demo")
        session = run_session(Path(place))
    text = PAGE.read_text(encoding="utf-8")
    above, below = text.partition(START)[0], text.partition(END)[2]
    PAGE.write_text(above + START + session + END + below, encoding="utf-8")


if __name__ == "__main__":
    main()
