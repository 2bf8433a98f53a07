"""Commands about published settings."""

from __future__ import annotations

from dataclasses import asdict

import click

from crayon_sdk.cli.common import Commands, Shell, command

__all__ = ["preset"]


@click.group("preset", cls=Commands)
def preset() -> None:
    """The published settings: which there are, and where each value is from."""


@command("list", example="crayon preset list", workspace="")
def list_presets(shell: Shell) -> None:
    """List the presets of every method: waterbirds as the paper says, waterbirds-release as its code does."""
    from rich.table import Table

    from crayon_sdk.correct.presets import preset_names

    found = preset_names()
    table = Table("method", "presets")
    for method, names in found.items():
        table.add_row(method, ", ".join(names))
    shell.result({"presets": {method: list(names) for method, names in found.items()}}, table)


@command("show", example="crayon preset show waterbirds-release --method both", workspace="")
@click.argument("name")
@click.option("--method", default="attention", show_default=True, help="Whose; see crayon preset list.")
def show(shell: Shell, *, name: str, method: str) -> None:
    """Show all values of a preset, each with where it is from."""
    from rich.table import Table

    from crayon_sdk._base.methods import checked_method
    from crayon_sdk.correct.presets import describe

    found = describe(checked_method(method), name)
    table = Table("setting", "value", "from", title=f"{name}, {method}")
    for each in found:
        table.add_row(f"{each.method}.{each.setting}", str(each.value), each.source)
    shell.result({"preset": name, "method": method, "values": [asdict(each) for each in found]}, table)


preset.add_command(list_presets)
preset.add_command(show)
