"""All commands as one click application."""

from __future__ import annotations

import click

from crayon_sdk import __version__
from crayon_sdk.cli import answers, bench, hub, paper, preset, steps, tools
from crayon_sdk.cli.common import EXIT_CODES, Commands

__all__ = ["app"]

_EPILOG = """\b
Exit codes:
""" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())


@click.group(
    "crayon",
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "--version", message="crayon-sdk %(version)s")
def app() -> None:
    """Correct what an image classifier looks at, with simple yes/no answers.

    Start with the demo; it makes its own pictures and needs no network:

    \b
        crayon demo

    On pictures of your own, all work lies in one folder, the workspace:

    \b
        crayon init birds --model hf-hub:me/birds-resnet50 --data birds-pictures
        cd birds
        crayon explain
        crayon annotate
        crayon correct --method both
        crayon evaluate
        crayon compare original both
        crayon save both ../birds-corrected
        crayon push both me/birds-corrected

    A step that was stopped goes on where it was when it is run again.
    """  # noqa: D301 - click reads the backspace


_SHIPPING = (*hub.COMMANDS, bench.bench, paper.paper, preset.preset, *tools.COMMANDS)
for command in (*steps.COMMANDS[:2], answers.annotate, answers.answer, *steps.COMMANDS[2:], *_SHIPPING):
    app.add_command(command)
