"""Tables of the paper as commands."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from crayon_sdk._base.progress import duration
from crayon_sdk.cli.allocator import keep_memory
from crayon_sdk.cli.common import Command, Commands, Shell, command
from crayon_sdk.paper.protocol import ROWS, Protocol

__all__ = ["bench"]


class _Lists(Command):
    """Takes ``--seeds 0 1 2`` for ``--seeds 0 --seeds 1 --seeds 2``; it has no arguments of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        several = {flag for each in self.params if getattr(each, "multiple", False) for flag in each.opts}
        found: list[str] = []
        flag = ""
        for word in args:
            if word.startswith("-"):
                flag = word if word in several else ""
                found.append(word)
            else:
                found += [flag, word] if flag and found[-1] != flag else [word]
        return super().parse_args(ctx, found)


@click.group("bench", cls=Commands)
def bench() -> None:
    """Make a table of the paper, on pictures and a model of your own."""


@command(
    "table1",
    example="crayon bench table1 --data birds --model birds-resnet50 --methods erm jtt attention --seeds 0 1 2",
    workspace="",
    kind=_Lists,
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="A table with splits train, val and test, or a folder with a metadata.csv.",
)
@click.option("--model", required=True, help="The model to correct: a folder, a name, hf-hub:..., or a file.")
@click.option("--group-column", multiple=True, help="A column of groups; default one of a usual name.")
@click.option("--mask-column", help="Paths of object masks; default a column of a usual name.")
@click.option(
    "--methods",
    type=click.Choice(list(ROWS)),
    metavar="ROW...",
    multiple=True,
    default=Protocol().methods,
    help=f"Rows of the table; default all: {', '.join(ROWS)}.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=0),
    metavar="SEED...",
    multiple=True,
    default=Protocol().seeds,
    show_default=True,
    help="Of the runs with chosen settings; settings are chosen with the first.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=Protocol().trials,
    show_default=True,
    help="Settings that are tried for each row.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=0),
    default=Protocol().epochs,
    show_default=True,
    help="For which every method trains that trains a network.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default="table1",
    show_default=True,
    help="Folder of the table, and of finished runs, with which a later call goes on.",
)
@click.option("--device", default="auto", show_default=True, help="auto, or a device of torch.")
def table1(
    shell: Shell,
    *,
    data: Path,
    model: str,
    group_column: tuple[str, ...],
    mask_column: str | None,
    output: Path,
    device: str,
    **given: Any,
) -> None:
    """Compare all methods of the paper's Table I, and whom CRAYON beats here.

    Settings of every method are chosen on the validation split, once by the worst class and once by the worst group,
    with as many trials for each; then it is run with all seeds and measured on the test split. Answers are simulated
    from object masks, and blind ones (yes to all, shuffled) are run besides.

    Every finished run is a file in the output folder: the same command goes on after a stop, and may run several times
    at once. A method that fails has a line that says why.
    """
    from crayon_sdk.models.load import load_model
    from crayon_sdk.paper.table1 import read_pictures, run_table

    protocol = Protocol(**given)
    keep_memory()
    pictures = read_pictures(data, group_columns=group_column or None, mask_column=mask_column)
    typed = shlex.join(["crayon", *sys.argv[1:]])
    found = run_table(protocol, load_model(model), pictures, output, device=device, command=typed, on_cell=shell.say)
    shell.result(
        found.to_dict(),
        *(found.table(column) for column in protocol.chosen_by),
        *(claim.in_words for claim in found.claims()),
        found.verdict,
        f"{duration(found.seconds)} of work: {output / 'table1.md'}, table1.csv, table1.png",
    )


bench.add_command(table1)
