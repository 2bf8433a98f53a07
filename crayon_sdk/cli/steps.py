"""The steps of a correction: init, explain, suggest, correct, evaluate, compare, report, save, export-onnx."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from crayon_sdk._base.methods import made_of, with_settings
from crayon_sdk.cli.common import Assignment, MethodsCommand, Shell, command, foresight_facts, foresight_line
from crayon_sdk.cli.options import keys, parse_assignments
from crayon_sdk.errors import DataError, SettingsError

__all__ = ["COMMANDS"]


@command(
    "init", section="init", example="crayon init birds --model resnet50 --csv birds/metadata.csv --group-column place"
)
@click.option("--again", is_flag=True, help="Take other inputs into a workspace that exists.")
def init(shell: Shell, *, again: bool, **given: Any) -> None:
    """Make a workspace: look at the model and at every picture.

    Nothing is copied: the workspace remembers where model and pictures are, and notices
    when they change.

    Pictures come as a folder per class (--data), with folders train, val and test above
    them or with --val and --test naming others; or as a table (--csv), of which usual
    columns are recognised. Waterbirds' metadata.csv is read as it is.
    """
    from crayon_sdk.workspace.manifest import MANIFEST, DataSource, Manifest, ModelSource
    from crayon_sdk.workspace.workspace import Workspace

    known = Manifest.load(shell.folder) if again and (shell.folder / MANIFEST).exists() else None
    values = shell.section("init", given)
    if not values.get("model") and known is None:
        raise SettingsError("name the model: --model resnet50, --model hf-hub:me/birds or --model FOLDER")
    values |= {
        key: _typed_path(shell.folder, key, given[key], check=again or not (shell.folder / MANIFEST).exists())
        for key in ("data", "csv", "val", "test", "root", "masks")
        if given.get(key)
    }
    renamed = {"model": "source", "data": "folder", "group_column": "group_columns"}
    values = {renamed.get(key, key): value for key, value in values.items()}
    about = [
        {key: value for key, value in values.items() if key in kind.model_fields} for kind in (ModelSource, DataSource)
    ]
    splits = {key.removesuffix("_split"): value for key, value in values.items() if key.endswith("_split")}
    model, data = (known.model, known.data) if known else (ModelSource(source=""), DataSource())
    if values.keys() & {"folder", "csv"}:
        data = DataSource()  # other pictures: nothing of the old ones holds
    workspace = Workspace.create(
        shell.folder,
        (ModelSource(source="") if "source" in values else model).model_copy(update=about[0]),
        data.model_copy(update=about[1] | {"splits": data.splits | splits}),
        again=again,
    )
    manifest = workspace.manifest
    counts = {name: facts.count for name, facts in manifest.splits.items()}
    skipped = {name: facts.skipped for name, facts in manifest.splits.items() if facts.skipped}
    classes = manifest.classes
    names, numbers = ((), {}) if classes is None else (classes.names, classes.numbers)
    shell.result(
        {
            "workspace": str(workspace.folder),
            "model": manifest.model_fingerprint,
            "classes": {name: {"number": number, "name": names[number]} for name, number in numbers.items()},
            "pictures": counts,
            "skipped": skipped,
        },
        f"{workspace.folder}: {', '.join(f'{count:,} {name}' for name, count in counts.items())} pictures"
        + "".join(f"; left out of {name}: {len(found)}" for name, found in skipped.items()),
        _classes(names, numbers),
    )
    shell.say(f"Next: {workspace.command('explain')}")


def _typed_path(workspace: Path, key: str, typed: str, *, check: bool) -> str:
    """A path that was typed, as it counts from anywhere; in the workspace too, for it may have been made there."""
    if os.path.exists(typed):
        return os.path.abspath(typed)
    if os.path.exists(workspace / typed) or not check:
        return typed
    raise DataError(f"there is no {typed!r}, which --{key} names")


def _classes(names: Sequence[str], numbers: Mapping[str, int]) -> str:
    """Which class of the data is taken for which of the model's."""
    told = [
        f"{number} {names[number]}" + (f" (in the data: {name})" if name != names[number] else "")
        for name, number in sorted(numbers.items(), key=lambda each: each[1])
    ]
    more = f", and {len(told) - 10} more" if len(told) > 10 else ""
    return f"classes of the model: {', '.join(told[:10])}{more}"


@command("explain", section="explain", example="crayon explain birds")
@click.option("--again", is_flag=True, help="Make them again also when they are up to date.")
def explain(shell: Shell, *, again: bool, **given: Any) -> None:
    """Make a map for every training picture and the strongest patches of every neuron.

    These are what people answer about. Sheets of both are drawn into pictures/.
    """
    workspace = shell.workspace()
    maps, patches = workspace.explain(**shell.options("explain", given), again=again)
    facts = {
        "maps": len(maps),
        "map_size": list(maps.size),
        "maps_without_evidence": maps.num_empty,
        "neurons": patches.num_neurons,
        "distinct_patches": patches.num_distinct,
    }
    shell.result(
        facts,
        f"{len(maps):,} maps of {maps.size[0]} x {maps.size[1]} cells, {maps.num_empty:,} of them without evidence; "
        f"{patches.num_distinct:,} patches of {patches.num_neurons:,} neurons",
    )
    shell.say(f"Next: {workspace.command('annotate')} (or crayon answer import FILE, crayon answer simulate)")


@command("suggest", section="suggest", example="crayon suggest --kind image --count 10")
def suggest(shell: Shell, **given: Any) -> None:
    """Say which pictures or patches to ask about next, and in which order."""
    from rich.table import Table

    options = shell.options("suggest", given)
    workspace = shell.workspace()
    found = workspace.suggest(**options)
    seen = workspace.foresight(options["kind"]) if options["method"] != "random" and found else None
    table = Table("picture", "neuron", "patch", "answers so far")
    for each in found:
        table.add_row(
            each.id, *("" if value is None else str(value) for value in (each.neuron, each.patch)), str(each.votes)
        )
    if found or shell.as_json:
        ahead = {} if seen is None else {"foresight": foresight_facts(seen)}
        shell.result({"questions": [asdict(each) for each in found]} | ahead, table)
    if seen is not None:
        shell.say(foresight_line(options["kind"], seen))
    if not found:
        what = {"image": "picture", "neuron": "neuron", "spot": "spot"}[options["kind"]]
        people = options["votes"]
        shell.say(
            f"nothing is left to ask: every {what} with something to see has {people} answer{'s' * (people > 1)} or "
            f"more; --votes {people + 1} asks once more"
        )


@command("groups", section="groups", example="crayon groups birds")
@click.option("--again", is_flag=True, help="Find them again also when they are up to date.")
def groups(shell: Shell, *, again: bool, **given: Any) -> None:
    """Find groups without group labels: by class, and by what the surround of the object looks like.

    The answers tell where the object is; a sheet of every group is drawn into pictures/. Look at them: the groups are
    a hypothesis. Where it is not reliable the reason is said, and nothing uses it. Else evaluate, compare and correct
    take --groups discovered.
    """
    from rich.table import Table

    workspace = shell.workspace()
    found = workspace.find_groups(**shell.options("groups", given), again=again)
    table = Table("discovered group", "training pictures")
    for name, count in found.counts.items():
        table.add_row(name, f"{count:,}")
    facts = {"reliable": found.reliable, "why": found.grounds.in_words, "grounds": asdict(found.grounds)}
    shell.result(facts | {"groups": found.counts}, table, found.grounds.in_words)
    if found.reliable:
        shell.say(
            f"Next: {workspace.command('evaluate')} --groups discovered (pictures of each: pictures/groups-1.png)"
        )


@command(
    "correct",
    section="correct",
    kind=MethodsCommand,
    example="crayon correct --method both --set attention.epochs=10 --set pruning.lr=1e-3",
)
@click.option("--name", help="What the correction is called; default the method, the preset and the control.")
@click.option(
    "-s",
    "--set",
    "assignments",
    type=Assignment(),
    multiple=True,
    help="A setting of a corrector; several times for several.",
)
@click.option("--list-settings", is_flag=True, help="Show what can be set, and stop.")
@click.option("--overwrite", is_flag=True, help="Replace a correction that was made with other settings.")
@click.option("--skip-bad", is_flag=True, help="Leave out answers that do not fit, and count them.")
def correct(
    shell: Shell,
    *,
    name: str | None,
    assignments: tuple[str, ...],
    list_settings: bool,
    overwrite: bool,
    skip_bad: bool,
    **given: Any,
) -> None:
    """Correct the model with the answers: guide its maps, cut its neurons, both, or by another method.

    When it is stopped, the same command goes on in the middle of the epoch. The result is
    a timm checkpoint in corrections/NAME.
    """
    if list_settings:
        _list_settings(shell)
        return
    assigned: dict[str, dict[str, Any]] = parse_assignments(assignments)
    from crayon_sdk.workspace.names import default_name

    chosen = shell.options("correct", given)
    method, preset = chosen.pop("method"), chosen["preset"]
    used = made_of(method)
    for unused in assigned.keys() - set(used):
        other = "both" if {method, unused} == {"attention", "pruning"} else unused
        raise SettingsError(
            f"--set {unused}.... has no effect on --method {method}; leave it out, or take --method {other}"
        )
    settings: dict[str, Any] = {
        each if each in ("attention", "pruning") else "settings": shell.section(each, assigned.get(each, {}))
        for each in used
    }
    workspace = shell.workspace()
    made = workspace.correct(method, name=name, **settings, overwrite=overwrite, strict=not skip_bad, **chosen)
    record, name = made.record, name or default_name(method, preset, chosen["control"])
    what = ", then ".join(each.method for each in (*made.parents, record))
    answers = " from simulated answers" if record.simulated else ""
    facts = {"correction": name, "record": record.model_dump(mode="json"), "parents": len(made.parents)}
    shell.result(facts, f"corrections/{name}: {what}{answers}: {_counts(dict(record.counts))}")
    shell.say(f"Next: {workspace.command('evaluate')}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)


def _list_settings(shell: Shell) -> None:
    from rich.table import Table

    table = Table("setting", "what it is", title="For --set, and for crayon.toml")
    found = {name: {key: each.sentence for key, each in keys(name).items()} for name in with_settings()}
    for section, described in found.items():
        for key, text in described.items():
            table.add_row(f"{section}.{key}", text)
        table.add_section()
    shell.result(found, table)


@command("evaluate", section="evaluate", example="crayon evaluate original both --split test", workspace="names")
@click.argument("names", nargs=-1)
@click.option("--again", is_flag=True, help="Measure also what is up to date.")
def evaluate(shell: Shell, *, names: tuple[str, ...], again: bool, **given: Any) -> None:
    """Measure the model before ("original") and its corrections; NAMES are all when none is given.

    Shows every group with its 95 % Wilson interval, the worst group, the mean over
    groups, and the mean weighted by the training set.
    """
    workspace = shell.workspace()
    found = workspace.evaluate(names, **shell.options("evaluate", given), again=again)
    shell.result(
        {
            name: {
                "summary": each.summary(),
                "groups": [asdict(group) | {"interval": group.interval} for group in each.groups],
            }
            for name, each in found.items()
        },
        *(each.table(title=name) for name, each in found.items()),
    )
    by = "" if given.get("groups") in (None, "own") else f" --groups {given['groups']}"
    shell.say(f"Next: {workspace.command('compare')}{by}")


@command("compare", section="compare", example="crayon compare original attention both", workspace="names")
@click.argument("names", nargs=-1)
def compare(shell: Shell, *, names: tuple[str, ...], **given: Any) -> None:
    """Put evaluated models side by side, and say which differences exceed the noise.

    The first of NAMES is what the others are compared with, by a paired bootstrap on the
    same test pictures.
    """
    found = shell.workspace().compare(names, **shell.options("compare", given))
    shell.result(found.to_dict(), found.table())


@command("report", section="report", example="crayon report birds --name both")
@click.option("--name", "names", multiple=True, help="Of a correction; several times for several; default all.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Another place for the page of one correction; ends in .html."
)
@click.option("--overwrite", is_flag=True, help="Replace the page at --output.")
def report(shell: Shell, *, names: tuple[str, ...], output: Path | None, overwrite: bool, **given: Any) -> None:
    """Write all about a correction on one HTML page: reports/NAME.html, with its pictures beside it.

    Accuracies with intervals, maps before and after, neurons that were cut, answers,
    training, settings, versions and commands. It needs no network and no script. It shows
    test pictures: think of that before you send it on.
    """
    workspace = shell.workspace()
    chosen = names or workspace.corrections
    if not chosen:
        raise SettingsError(f"there is no correction to report on. Run: {workspace.command('correct')}")
    if output is not None and len(chosen) != 1:
        raise SettingsError(f"--output goes with one correction, and there are {', '.join(chosen)}; choose with --name")
    options = shell.options("report", given)
    pages = {name: str(workspace.report(name, output, overwrite=overwrite, **options)) for name in chosen}
    shell.result({"reports": pages}, *pages.values())


@command("export-onnx", example="crayon export-onnx both ../birds.onnx", workspace="first")
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def export_onnx(shell: Shell, *, name: str, target: Path, overwrite: bool) -> None:
    """Write the correction NAME as one ONNX file TARGET, for any number of pictures at a time.

    It is run by onnxruntime and its logits are compared before the file takes its name.
    Preprocessing and class names lie in its metadata.
    """
    from crayon_sdk._base.files import free_path

    free_path(target, ".onnx", overwrite=overwrite)  # before a model is loaded
    found = shell.workspace().correction(name)
    written = found.export_onnx(target, overwrite=overwrite)
    size = written.stat().st_size
    shell.result({"file": str(written), "bytes": size}, f"{written}: {size / 1e6:.1f} MB")


@command("save", example="crayon save both ../birds-corrected", workspace="first")
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the folder.")
@click.option(
    "--card-images",
    multiple=True,
    metavar="PATTERN",
    help="Test pictures that the card may show, by id or pattern such as 'images/*'; default none.",
)
def save(shell: Shell, *, name: str, target: Path, overwrite: bool, card_images: tuple[str, ...]) -> None:
    """Write the correction NAME as a checkpoint to the folder TARGET; plain timm loads it.

    It is loaded back and its logits are compared before the folder takes its name. README.md
    in it is the model card; pictures are in it only where --card-images allows them.
    """
    saved = shell.workspace().save(name, target, overwrite=overwrite, card_images=card_images)
    load = f'timm.create_model("local-dir:{saved}", pretrained=True)'
    shell.result({"folder": str(saved), "load": load}, f"{saved}")
    shell.say(f"Load it with plain timm: {load}")


COMMANDS = (init, explain, suggest, groups, correct, evaluate, compare, report, save, export_onnx)
