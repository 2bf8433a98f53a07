"""Commands about the paper's own data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from crayon_sdk.cli.common import Commands, Shell, command

__all__ = ["paper"]

_NAMES = ("waterbirds", "biased-celeba", "backgrounds")


@click.group("paper", cls=Commands)
def paper() -> None:
    """The data sets of the paper: get them, look at them, measure on them."""


@command("fetch", example="crayon paper fetch waterbirds --to data/waterbirds", workspace="")
@click.argument("name", type=click.Choice(_NAMES), metavar="NAME")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where to.")
@click.option("--mirror", default="", help="An address that is asked first; the name of each file is added to it.")
@click.option("--keep", is_flag=True, help="Leave the archives beside what is unpacked.")
def fetch(shell: Shell, *, name: str, to: Path, mirror: str, keep: bool) -> None:
    """Download a data set of the paper from its official places: waterbirds, biased-celeba or backgrounds.

    What was cut off goes on where it was when it is run again. Files are compared with published checksums, where
    there are some. Look at the terms of the data first: they allow research, and little else.
    """
    from crayon_sdk.paper.datasets.about import ABOUT
    from crayon_sdk.paper.fetch import fetch as bring

    about = ABOUT[name]
    shell.say(f"{about.title}: {about.licence}. {about.size[:1].upper()}{about.size[1:]}.")
    found = bring(about, to, mirror=mirror, keep=keep, tell=shell.say)
    lines = [
        *(
            f"{each}: brought" + (", no checksum is published" if each in found.unchecked else "")
            for each in found.files
        ),
        *(f"{each}: there already" for each in found.there),
        f"{about.title} is in {to}",
    ]
    shell.result(asdict(found), *lines)


paper.add_command(fetch)
