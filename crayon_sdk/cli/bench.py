"""Tables of the paper as commands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crayon_sdk._base.progress import duration
from crayon_sdk.cli.allocator import keep_memory
from crayon_sdk.cli.common import Command, Commands, Shell, command
from crayon_sdk.paper.protocol import ROWS, Protocol
from crayon_sdk.paper.tables import CRAYON, Plan, TableName

if TYPE_CHECKING:
    from crayon_sdk.answers.annotations import AnnotationSet
    from crayon_sdk.paper.runner import Pictures

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
    """Make a table or a figure of the paper, on its data or on your own.

    Every finished run is a file in the output folder: the same command goes on after a stop, and may run several times
    at once. All tables of a folder are on its index.html.
    """


_FOLDER = click.Path(path_type=Path, exists=True)
_SEEDS = click.option(
    "--seeds",
    type=click.IntRange(min=0),
    metavar="SEED...",
    multiple=True,
    default=Protocol().seeds,
    show_default=True,
    help="Of the runs; settings are chosen with the first, where they are chosen.",
)


def _given(output: str) -> Callable[[Any], Any]:
    """Options of all tables: data, model, and where the table goes."""

    def decorate(function: Any) -> Any:
        for option in reversed(
            (
                click.option("--data", type=_FOLDER, required=True, help="A table with splits, or a folder."),
                click.option(
                    "--data-set",
                    type=click.Choice(["waterbirds", "biased-celeba", "backgrounds"]),
                    help="--data is the folder of this data set of the paper, as crayon paper fetch lays it out.",
                ),
                click.option("--partial", is_flag=True, help="Take what there is of it, in any number."),
                click.option(
                    "--model", required=True, help="The model to correct: a folder, a name, hf-hub:..., or a file."
                ),
                click.option("--group-column", multiple=True, help="A column of groups; default one of a usual name."),
                click.option("--mask-column", help="Paths of object masks; default a column of a usual name."),
                click.option(
                    "--output",
                    type=click.Path(path_type=Path, file_okay=False),
                    default=output,
                    show_default=True,
                    help="Folder of the table, and of finished runs, with which a later call goes on.",
                ),
                click.option("--device", default="auto", show_default=True, help="auto, or a device of torch."),
            )
        ):
            function = option(function)
        return function

    return decorate


def _planned(function: Any) -> Any:
    """Options of the tables whose settings are known from the start."""
    for option in reversed(
        (
            click.option("--preset", help="Published settings, see crayon preset list; default losses as published."),
            click.option("--epochs", type=click.IntRange(min=1), help="In the place of the preset's, or of 6."),
            click.option("--answers-from", type=_FOLDER, help="Folder of published answers; default simulated ones."),
            click.option("--dry-run", is_flag=True, help="Say how long it takes, and do nothing."),
        )
    ):
        function = option(function)
    return function


def _pictures(
    data: Path, data_set: str | None, partial: bool, group_column: tuple[str, ...], mask_column: str | None
) -> tuple[Pictures, Any]:
    """The pictures, and the data set of the paper that they are, if they are one."""
    from crayon_sdk.paper.runner import Pictures, read_pictures

    if data_set is None:
        return read_pictures(data, group_columns=group_column or None, mask_column=mask_column), None
    from crayon_sdk.paper.datasets import read_backgrounds, read_biased_celeba, read_waterbirds

    strict = not partial
    if data_set == "waterbirds":
        found = read_waterbirds(data, strict=strict)
    elif data_set == "biased-celeba":
        marks = any((data / each / "list_landmarks_align_celeba.txt").is_file() for each in ("", "celeba", "Anno"))
        found = read_biased_celeba(data, masks=marks, strict=strict)
    else:
        objects = any((data / each).is_dir() for each in ("training/only_fg/train", "only_fg/train"))
        found = read_backgrounds(data, masks=objects, strict=strict)
    return Pictures(found.train, found.validation, found.test, found.variants.get("mixed_same")), found


def _run(
    shell: Shell,
    plan: Plan,
    *,
    data: Path,
    data_set: str | None,
    partial: bool,
    group_column: tuple[str, ...],
    mask_column: str | None,
    model: str,
    output: Path,
    device: str,
    answers_from: Path | None,
    dry_run: bool,
    student: str | None = None,
) -> None:
    """Run a plan, or say how long it takes."""
    from crayon_sdk.errors import SettingsError
    from crayon_sdk.models.load import load_model
    from crayon_sdk.paper.measured import estimate, run_plan
    from crayon_sdk.paper.tables import points_of

    points_of(plan)  # what is wrong with it is said before the pictures are looked at
    if answers_from is not None and data_set is None:
        raise SettingsError("the published answers are about a data set of the paper; name it with --data-set")
    keep_memory()
    pictures, read = _pictures(data, data_set, partial, group_column, mask_column)
    answers: AnnotationSet | None = None
    if answers_from is not None:
        from crayon_sdk.paper.datasets import published_answers

        answers = published_answers(read, answers_from)
    network, other = load_model(model), None if student is None else load_model(student)
    if dry_run:
        ahead = estimate(plan, network, pictures, output, student=other, answers=answers, device=device)
        shell.result(asdict(ahead), ahead.in_words)
        return
    typed = shlex.join(["crayon", *sys.argv[1:]])
    found = run_plan(
        plan,
        network,
        pictures,
        output,
        student=other,
        answers=answers,
        data_set=data_set or "",
        device=device,
        command=typed,
        on_cell=shell.say,
    )
    files = f"{output / found.name}.md, .csv, .png; all tables of the folder: {output / 'index.html'}"
    shell.result(found.to_dict(), found.table(), *found.about(), files)


@command(
    "table1",
    example="crayon bench table1 --data birds --model birds-resnet50 --methods erm jtt attention --seeds 0 1 2",
    workspace="",
    kind=_Lists,
)
@_given("table1")
@click.option(
    "--methods",
    type=click.Choice(list(ROWS)),
    metavar="ROW...",
    multiple=True,
    default=Protocol().methods,
    help=f"Rows of the table; default all: {', '.join(ROWS)}.",
)
@_SEEDS
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=Protocol().trials,
    show_default=True,
    help="Settings that are tried for each row.",
)
@_planned
def table1(
    shell: Shell,
    *,
    methods: tuple[str, ...],
    seeds: tuple[int, ...],
    trials: int,
    preset: str | None,
    epochs: int | None,
    dry_run: bool,
    answers_from: Path | None,
    **given: Any,
) -> None:
    """Compare all methods of the paper's Table I, and whom CRAYON beats here.

    Settings of every method are chosen on the validation split, once by the worst class and once by the worst group,
    with as many trials for each; then it is run with all seeds and measured on the test split. Answers are simulated
    from object masks, and blind ones (yes to all, shuffled) are run besides. A method that fails has a line that says
    why.

    With --preset nothing is chosen: every method that has the preset runs with it, as the paper did, and with
    --data-set the paper's numbers stand beside.
    """
    from crayon_sdk.errors import SettingsError
    from crayon_sdk.models.load import load_model
    from crayon_sdk.paper.table1 import estimate_table, run_table

    if preset is not None:
        chosen = () if methods == Protocol().methods else methods
        plan = Plan(table="published", methods=chosen, seeds=seeds, preset=preset, epochs=epochs)
        _run(shell, plan, dry_run=dry_run, answers_from=answers_from, **given)
        return
    if answers_from is not None:
        raise SettingsError("--answers-from is for published settings here; name them with --preset")
    more: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    protocol = Protocol(methods=methods, seeds=seeds, trials=trials, **more)
    keep_memory()
    output, device = given["output"], given["device"]
    named = ("data", "data_set", "partial", "group_column", "mask_column")
    pictures, _ = _pictures(*(given[name] for name in named))
    typed = shlex.join(["crayon", *sys.argv[1:]])
    network = load_model(given["model"])
    if dry_run:
        ahead = estimate_table(protocol, network, pictures, output, device=device)
        shell.result(asdict(ahead), ahead.in_words)
        return
    found = run_table(protocol, network, pictures, output, device=device, command=typed, on_cell=shell.say)
    shell.result(
        found.to_dict(),
        *(found.table(column) for column in protocol.chosen_by),
        *(claim.in_words for claim in found.claims()),
        found.verdict,
        f"{duration(found.seconds)} of work: {output / 'table1.md'}, table1.csv, table1.png",
    )


def _numbers(flag: str, kind: Any, text: str, default: tuple[Any, ...] = ()) -> Callable[[Any], Any]:
    return click.option(flag, type=kind, metavar="NUMBER...", multiple=True, default=default, help=text)


_MORE: dict[TableName, tuple[Callable[[Any], Any], ...]] = {
    "ablation": (),
    "answers": (
        _numbers(
            "--counts",
            click.IntRange(min=1),
            "Pictures, or neurons, that are answered about.",
            Plan(table="answers").counts,
        ),
        click.option(
            "--controls",
            type=click.Choice(["yes", "no", "shuffled", "inverted"]),
            metavar="CONTROL...",
            multiple=True,
            default=Plan(table="answers").controls,
            show_default=True,
            help="Blind answers that are run besides.",
        ),
    ),
    "sensitivity": (
        _numbers("--alphas", click.FloatRange(min=0), "Weights of the relevant term."),
        _numbers("--betas", click.FloatRange(min=0), "Weights of the irrelevant term."),
    ),
    "transfer": (click.option("--student", required=True, help="The model that is guided by the maps of --model."),),
    "runtime": (
        _numbers("--shares", click.FloatRange(min=0, max=1), "Of the training pictures.", Plan(table="runtime").shares),
    ),
}
_SAID: dict[TableName, str] = {
    "ablation": "Leave out one term of CRAYON-Attention, or the other, as in Table II.",
    "answers": "Vary the number of answers, with blind ones beside them, as in figure 4.",
    "sensitivity": "Vary alpha and beta, as in figure 5.",
    "transfer": "Guide one model by the maps of another, as in Table III.",
    "runtime": "Take the time of corrections by the number of training pictures, with a straight line through it.",
}


def _made(name: TableName) -> click.Command:
    """The command of a table."""

    def run(shell: Shell, **given: Any) -> None:
        of_plan = {key: given.pop(key) for key in list(given) if key in Plan.__dataclass_fields__}
        _run(shell, Plan(table=name, **of_plan), **given)

    run.__doc__ = f"""{_SAID[name]}

    Settings are those of --preset, or the published losses with weights that fit small data sets. Answers are simulated
    from object masks, or with --answers-from those that the authors published.
    """
    several = click.option(
        "--methods", type=click.Choice(CRAYON), metavar="METHOD...", multiple=True, help="Default those of the paper."
    )
    for option in reversed((_given("bench"), several, _SEEDS, _planned, *_MORE[name])):
        run = option(run)
    student = " --student my-convnext" if name == "transfer" else ""
    example = f"crayon bench {name} --data birds --model birds-resnet50{student} --seeds 0 1 2"
    made: click.Command = command(name, example=example, workspace="", kind=_Lists)(run)
    return made


bench.add_command(table1)
for each in _MORE:
    bench.add_command(_made(each))
