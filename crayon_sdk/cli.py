"""The command ``crayon``.

Exit codes: 0 done; 2 it could not be done, the reason is on stderr (a wrong option, a
[`CrayonError`][crayon_sdk.errors.CrayonError]); 130 stopped with Ctrl-C. Heavy packages
are imported inside the commands, so that ``crayon --help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from crayon_sdk import __version__
from crayon_sdk.errors import CrayonError

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Turns what a command raises into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CrayonError as error:
            _fail(str(error), 2)
        except KeyboardInterrupt as error:
            _fail(str(error) or "stopped", 130)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"crayon: {message}", err=True)
    sys.exit(code)


app = typer.Typer(
    name="crayon",
    cls=_Commands,
    help="Correct what an image classifier looks at, with simple yes/no answers.\n\n"
    "Start with the demo; it makes its own pictures and needs no network:\n\n"
    "    crayon demo",
    epilog="Exit codes: 0 done, 2 could not be done (the reason is on stderr), 130 stopped with Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    # Ours says what to do; a traceback of Typer's would hide it.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"crayon-sdk {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


@app.command(epilog="Example: crayon demo my-demo --seed 1")
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make; everything goes there.")] = Path("crayon-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the pictures and of all training.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder when it is not empty.")] = False,
) -> None:
    """Run the whole method on pictures that it draws itself; takes a minute or two.

    A small network learns to tell birds from fish by the background, because nearly
    all birds stand in a forest and nearly all fish in water. Its attention is then
    corrected in three ways with simulated yes/no answers, and the accuracies before
    and after are compared.
    """
    import logging

    from crayon_sdk.demo import run_demo

    # What the explainer warns about, maps without evidence, is a column of the demo's table.
    logging.getLogger("crayon_sdk").setLevel(logging.ERROR)
    run_demo(folder, seed=seed, quiet=quiet, overwrite=overwrite)


def main() -> None:
    """Run the command line; the entry point of ``crayon``."""
    app(prog_name="crayon")
