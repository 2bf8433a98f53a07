"""Beside the steps: info, methods, doctor, demo, completion."""

from __future__ import annotations

import functools
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crayon_sdk._base.costs import cost_of, measured_with
from crayon_sdk._base.methods import NEEDS, made_of, methods, paper_of, title_of
from crayon_sdk._base.progress import hidden, lines
from crayon_sdk._base.text import KINDS_OF_TASKS, first_line
from crayon_sdk.cli.allocator import keep_memory
from crayon_sdk.cli.common import Command, Shell, begun, command, foresight_facts, foresights, how_far, only_from
from crayon_sdk.errors import CrayonError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crayon_sdk.answers.annotations import AnnotationSet
    from crayon_sdk.answers.relevance import Kind
    from crayon_sdk.explain.asking import Asked, Foresight
    from crayon_sdk.results.weight_changes import WeightChanges
    from crayon_sdk.workspace.workspace import Workspace

__all__ = ["COMMANDS"]


@command("info", example="crayon info birds --tensors")
@click.option("--tensors", is_flag=True, help="List every tensor that a correction changed, and by how much.")
@click.option("--verify", is_flag=True, help="Read every file whole and compare its hash, however large it is.")
def info(shell: Shell, *, tensors: bool, verify: bool) -> None:
    """Show what the workspace holds, what is stale, and what to run.

    Of each correction it says how many tensors of the model are other than before, and how
    far all weights moved together: the norm of the difference over the norm before.

    Files that were deleted or altered are found by hash when they are small, and by size and
    header above 8 MB; --verify hashes all of them, as every step does with what it uses.
    """
    from rich import box
    from rich.table import Table

    workspace = shell.workspace()
    manifest, found, answers = workspace.manifest, workspace.status(verify=verify), _answers(workspace)
    inputs = Table("", "", box=None, show_header=False, pad_edge=False)
    inputs.add_row("workspace", str(workspace.folder))
    inputs.add_row("model", f"{manifest.model.source} ({manifest.model_fingerprint[:12]})")
    inputs.add_row("pictures", str(manifest.data.csv or manifest.data.folder))
    for name, facts in manifest.splits.items():
        left_out = f", {len(facts.skipped):,} left out" if facts.skipped else ""
        inputs.add_row(name, f"{facts.count:,}{left_out}")
    simulated = " (some are simulated)" if answers.is_simulated else ""
    inputs.add_row("answers", f"{len(answers):,}{simulated}")
    asked = _asked(workspace)
    if asked:
        inputs.add_row("answered", how_far(workspace))
        if any(each.answered < each.total for each in begun(asked).values()):
            inputs.add_row("to be asked", f"{_to_be_asked(asked)}: {workspace.command('annotate')}")
    ahead = _foresights(workspace)
    for kind, seen in ahead.items():
        inputs.add_row(f"about {KINDS_OF_TASKS[kind]}", seen.in_words)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("file", "state", "made (UTC)", "seconds"):
        table.add_column(name, no_wrap=True)
    if any(each.state != "fresh" for each in found):
        table.add_column("why; what to run", min_width=28)  # a sentence in less is a tower of words
    for each in found:
        entry = manifest.files.get(each.path)
        made = (entry.started[5:16].replace("T", " "), f"{entry.seconds:.1f}") if entry else ("", "")
        why = () if each.state == "fresh" else (f"{each.reason}; {each.run}",)
        table.add_row(each.path, each.state, *made, *why)
    changes = _changes(workspace)
    for name, change in changes.items():
        inputs.add_row(name, change if isinstance(change, str) else change.sentence())
    listed = {name: change for name, change in changes.items() if not isinstance(change, str)}
    shell.result(
        {
            "manifest": manifest.model_dump(mode="json"),
            "answers": len(answers),
            "asked": {kind: asdict(each) for kind, each in asked.items()},
            "foresight": {kind: foresight_facts(each) for kind, each in ahead.items()},
            "status": [asdict(one) for one in found],
            "changes": {name: {"error": c} if isinstance(c, str) else c.to_dict() for name, c in changes.items()},
        },
        inputs,
        table,
        *((change.table(title=f"corrections/{name}") for name, change in listed.items()) if tensors else ()),
    )


def _asked(workspace: Workspace) -> Mapping[Kind, Asked]:
    """How far people are; nothing where there is nothing that can be asked about."""
    try:
        return workspace.asked()
    except CrayonError:  # the table says what is stale or broken
        return {}


def _foresights(workspace: Workspace) -> Mapping[Kind, Foresight]:
    """What can be foretold, where somebody has looked at the pictures already."""
    try:
        return foresights(workspace)
    except CrayonError:  # the table says what is stale or broken
        return {}


def _to_be_asked(asked: Mapping[Kind, Asked]) -> str:
    left = {kind: each.total - each.answered for kind, each in begun(asked).items()}
    return " and ".join(f"{count:,} {KINDS_OF_TASKS[kind]}" for kind, count in left.items() if count)


def _answers(workspace: Workspace) -> AnnotationSet:
    """What can be read of the answers; that they are missing or broken is in the table, and no reason to show none."""
    from crayon_sdk.answers.annotations import AnnotationSet

    try:
        return workspace.answers()
    except CrayonError:
        return AnnotationSet()


def _changes(workspace: Workspace) -> dict[str, WeightChanges | str]:
    """What each correction changed; where that cannot be said now, why."""
    found: dict[str, WeightChanges | str] = {}
    for name in workspace.corrections:
        try:
            found[name] = workspace.changes(name)
        except CrayonError as error:  # noqa: PERF203 - the rest is worth seeing all the same
            found[name] = f"its weights cannot be compared: {first_line(error)}"
    return found


@command("doctor", example="crayon doctor --json", workspace="")
def doctor(shell: Shell) -> None:
    """Show versions, devices, precision, caches and the Hub login: what a report of a fault needs.

    A token of the Hub is never shown, only whether there is one. Nothing is sent anywhere.
    """
    from rich.table import Table

    from crayon_sdk.cli.doctor import diagnose

    found = diagnose()
    table = Table("", "", show_header=False)
    for section, facts in found.items():
        for name, value in facts.items():
            table.add_row(section, name, str(value))
        table.add_section()
    shell.result(found, table)


@command("methods", example="crayon methods --json", workspace="")
def list_methods(shell: Shell) -> None:
    """List the methods of correction: name, paper, what each needs besides labels, what it costs, and its presets.

    The cost is the time of a step in units of a step of further training (erm), or for methods that train no network
    that of the whole in epochs of it; it was measured, and how is said below.
    A name is what --method takes; a preset is what --preset takes. Settings are listed by
    "crayon correct --list-settings".
    """
    from rich.table import Column, Table

    found = {name: _about_method(name) for name in methods}
    table = Table(Column("name", no_wrap=True), "method", "needs besides labels", "cost", "presets")
    for name, facts in found.items():
        needed, cost = ", ".join(NEEDS[need] for need in facts.get("needs", ())), cost_of(name)
        table.add_row(
            name,
            "\n".join(filter(None, (facts["title"], facts.get("paper", "")))),
            facts.get("problem", needed),
            "" if cost is None else cost.in_words,
            ", ".join(facts["presets"]),
        )
    shell.result({"methods": found, "measured": measured_with()}, table, measured_with())


def _about_method(name: str) -> dict[str, Any]:
    """What there is to say about a method; of one that cannot be used, why."""
    try:
        kind = methods[name]
    except SettingsError as error:
        return {"title": name, "presets": [], "problem": str(error)}
    presets = getattr(kind, "presets", None)
    if presets is None:  # it is made of others: what all of them have
        each = [methods[part].presets for part in made_of(name)]
        presets = [preset for preset in each[0] if all(preset in table for table in each)]
    cost = cost_of(name)
    return {
        "title": title_of(name),
        "paper": paper_of(name),
        "needs": sorted(kind.needs),
        "cost": None if cost is None else asdict(cost),
        "presets": list(presets),
    }


@click.command("demo", cls=Command, epilog="\b\nExample: crayon demo my-demo --seed 1")
@click.argument("folder", type=click.Path(path_type=Path), default="crayon-demo")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the pictures and of all training.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing.")
@click.option("--overwrite", is_flag=True, help="Replace the folder when it is not empty.")
def demo(folder: Path, seed: int, quiet: bool, overwrite: bool) -> None:
    """Run the whole method on pictures that it draws itself; takes a minute or two.

    A small network learns to tell birds from fish by the background, because nearly
    all birds stand in a forest and nearly all fish in water. Its attention is then
    corrected in three ways with simulated yes/no answers, and the accuracies before
    and after are compared.
    """
    from crayon_sdk.cli.demo import run_demo

    keep_memory()
    # What the explainer warns about, maps without evidence, is a column of the demo's table.
    with only_from(logging.ERROR), lines(functools.partial(click.echo, err=True)), hidden(quiet):
        run_demo(folder, seed=seed, quiet=quiet, overwrite=overwrite)


@click.command("completion", epilog="\b\nExample: crayon completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands and options with the Tab key."""
    lines = {
        "bash": 'eval "$(_CRAYON_COMPLETE=bash_source crayon)"',
        "zsh": 'eval "$(_CRAYON_COMPLETE=zsh_source crayon)"',
        "fish": "_CRAYON_COMPLETE=fish_source crayon | source",
    }
    click.echo(lines[shell])


COMMANDS = (info, list_methods, doctor, demo, completion)
