"""Commands about the paper's own data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from crayon_sdk.cli.allocator import keep_memory
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


@command("background-gap", example="crayon paper background-gap resnet50.a1_in1k --data in9", workspace="")
@click.argument("model")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), required=True, help="The folder of the challenge."
)
@click.option("--own-crop", is_flag=True, help="Resize and crop as the model does, not as the challenge.")
@click.option("--partial", is_flag=True, help="Take what there is, though counts are not the challenge's.")
@click.option("--device", default="auto", show_default=True, help="auto, or a device of torch.")
def background_gap(shell: Shell, *, model: str, data: Path, own_crop: bool, partial: bool, device: str) -> None:
    """Measure a model on the Backgrounds Challenge: every variant, and the gap of Mixed-Same and Mixed-Rand.

    The model has nine classes, or ImageNet's 1,000, which are mapped to nine as the challenge does.
    """
    from crayon_sdk.models.load import load_model
    from crayon_sdk.paper.challenge import run_challenge

    keep_memory()
    found = run_challenge(load_model(model), data, own_crop=own_crop, strict=not partial, device=device)
    shell.result(found.to_dict(), found.table())


paper.add_command(fetch)
paper.add_command(background_gap)
