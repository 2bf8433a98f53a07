"""Commands that publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from crayon_sdk._base.publishing import HubOptions
from crayon_sdk._base.settings import settings_in
from crayon_sdk.cli.common import Shell, command

if TYPE_CHECKING:
    from crayon_sdk._base.publishing import Published

__all__ = ["COMMANDS", "hub_options", "publish_quietly", "show_published"]

_FLAGS = {"private": ("--private/--public",), "commit_message": ("-m", "--message")}


def hub_options(function: Any) -> Any:
    """Options of everything that is published."""
    for name, setting in reversed(settings_in(HubOptions).items()):
        if name != "token":  # none stands in the history of a shell
            flags = _FLAGS.get(name, (f"--{name.replace('_', '-')}",))
            words = {"is_flag": setting.hint is bool or None, "default": setting.default, "help": setting.text}
            function = click.option(*flags, name, **words)(function)
    return function


def publish_quietly(shell: Shell, publish: Callable[[], Published]) -> Published:
    """Publish, with the client's progress bars unless only results were asked for."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if not shell.quiet or are_progress_bars_disabled():
        return publish()
    disable_progress_bars()
    try:
        return publish()
    finally:
        enable_progress_bars()


def show_published(shell: Shell, found: Published) -> None:
    """Show files and sizes of a dry run, else where it is."""
    facts = asdict(found) | {"size": found.size}
    if found.dry_run:
        from rich.table import Table

        table = Table("file", "bytes", title=f"Would be published on {found.url}")
        for path, size in (*found.files, ("in all", found.size)):
            table.add_row(path, f"{size:,}")
        shell.result(facts, table)
        return
    shell.result(facts, found.url)
    shell.say(
        f"commit {found.commit}: {len(found.files)} files, {found.size:,} bytes, hashes compared"
        if found.changed
        else f"it is there already (commit {found.commit}); nothing was sent"
    )
    if found.removed:
        shell.say(f"removed there, as of an earlier model: {', '.join(found.removed)}")


@command("push", example="crayon push both me/birds-resnet50 --private", workspace="first")
@click.argument("name")
@click.argument("repo_id")
@hub_options
@click.option(
    "--card-images",
    multiple=True,
    metavar="PATTERN",
    help="Test pictures that the card may show, by id or pattern such as 'images/*'; default none.",
)
def push(shell: Shell, *, name: str, repo_id: str, **given: Any) -> None:
    """Publish the correction NAME as REPO_ID on the Hugging Face Hub, in one commit.

    It is loaded back in a fresh process with plain timm first, and its logits are compared. The same
    command again sends only what is not there yet, and nothing when all of it is. The
    token is the one of "hf auth login", or HF_TOKEN.
    """
    found = publish_quietly(shell, lambda: shell.workspace().push(name, repo_id, **given))
    show_published(shell, found)
    if not found.dry_run:
        shell.say(f'Load it with plain timm: timm.create_model("hf-hub:{found.repo_id}", pretrained=True)')


COMMANDS = (push,)
