"""Answers: asked for, imported, exported, simulated, shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crayon_sdk._base.fetching import is_on_hub
from crayon_sdk._base.text import ANSWER_FORMATS, KINDS_OF_TASKS
from crayon_sdk.answers.relevance import ANSWERS, CONTROLS, CROWD_RULES, KINDS, RULES, Control, Rule
from crayon_sdk.cli.common import (
    Commands,
    Shell,
    command,
    foresight_facts,
    foresight_line,
    foresights,
    how_far,
    next_step,
)
from crayon_sdk.cli.hub import hub_options, publish_quietly, show_published

if TYPE_CHECKING:
    from crayon_sdk.answers.annotations import AnnotationSet

__all__ = ["annotate", "answer"]


@command("annotate", section="annotate", example="crayon annotate birds --votes 2 --people ann --people ben")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option("--export-only", is_flag=True, help="Take in what an earlier run was told, and stop.")
def annotate(shell: Shell, *, open_page: bool, export_only: bool, **given: Any) -> None:
    """Ask people: a page with a picture, a question, and the keys Y and N.

    Asks about the maps of all pictures, then about the patches of neurons. Those are for
    "correct --method both" or pruning; --kind image leaves them out. --kind spot asks about the
    brightest spot of every map instead.

    Runs until Ctrl-C. Every answer is on the disk before the page goes on, and in answers.jsonl
    at the end at the latest. Only this machine can reach the page unless --host says otherwise;
    then the links hold a secret without which nobody gets in.
    """
    from crayon_sdk.workspace import serving

    workspace = shell.workspace()
    options = shell.options("annotate", given)
    if export_only:
        taken = serving.export(workspace, store=options["store"])
        shell.result({"new": taken}, f"{taken:,} new answers taken in")
        return

    def ready(links: serving.Links) -> None:
        shown = [f"Answer{f' as {name}' if name else ''}: {link}" for name, link in links.answer.items()]
        counts = (f"{links.open[kind]:,} of {total:,} {KINDS_OF_TASKS[kind]}" for kind, total in links.tasks.items())
        asked = f"{' and '.join(counts)} to be answered; Ctrl-C stops"
        shell.result(asdict(links), *shown, f"Watch: {links.owner}", asked)
        if open_page:
            click.launch(next(iter(links.answer.values())))

    new = serving.annotate(workspace, ready=ready, **options)
    shell.say(f"{new:,} new answers in {workspace.folder / 'answers.jsonl'}")
    shell.say(f"Answered so far: {how_far(workspace)}")
    for kind, each in foresights(workspace).items():
        shell.say(foresight_line(kind, each))
    shell.say(f"Next: {next_step(workspace)}")


@click.group("answer", cls=Commands)
def answer() -> None:
    """Take answers in, hand questions and answers out, make simulated ones, or look at what there is."""


@command("import", example="crayon answer import answers.jsonl", workspace="first")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--annotator", default="published", show_default=True, help="Who answered, where the file says nothing.")
@click.option("--skip-bad", is_flag=True, help="Leave out broken lines and answers that do not fit.")
def import_(shell: Shell, *, file: Path, annotator: str, skip_bad: bool) -> None:
    """Take answers from FILE: JSON Lines, or a list as the authors of the method published them.

    "hf-hub:me/birds-answers" takes those that were published on the Hugging Face Hub. All of
    them or none; what is there already is passed over.
    """
    answering = shell.answering()
    if is_on_hub(str(file)):
        from crayon_sdk.answers.annotations import AnnotationSet

        found = AnnotationSet.from_hub(str(file), strict=not skip_bad)
        taken = answering.take_in(found, source=str(file), strict=not skip_bad)
    else:
        taken = answering.import_file(file, annotator=annotator, strict=not skip_bad)
    known = f" (all {taken.known:,} known already)" if taken.known and not taken.new else ""
    facts = {"new": taken.new, "known": taken.known, "answers": taken.total}
    shell.result(facts, f"{taken.new:,} new answers{known}, {taken.total:,} in all")
    shell.say(f"Next: {answering.ledger.command('answer show')}")


@command("export", example="crayon answer export answers.csv --format csv", workspace="first")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format", "kind", type=click.Choice(ANSWER_FORMATS), default="jsonl", show_default=True, help="Kind of file."
)
@click.option("--overwrite", is_flag=True, help="Replace the file when it exists.")
def export(shell: Shell, *, file: Path, kind: str, overwrite: bool) -> None:
    """Write all answers to FILE; "crayon answer import" reads every kind of it back."""
    written = shell.answering().export_answers(file, kind, overwrite=overwrite)
    shell.result({"answers": written, "file": str(file), "format": kind}, f"{written:,} answers in {file}")


@command("control", example="crayon answer control shuffled shuffled.jsonl", workspace="first")
@click.argument("kind", type=click.Choice(CONTROLS))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the shuffling.")
@click.option("--overwrite", is_flag=True, help="Replace the file when it exists.")
def control(shell: Shell, *, kind: Control, file: Path, seed: int, overwrite: bool) -> None:
    """Write to FILE what people would have said who do not look: the questions that were asked, answered blindly.

    KIND is "yes" or "no" to everything, "shuffled" (the real answers, dealt out to other pictures) or "inverted".
    "crayon correct --control KIND" corrects with the same answers: what does as well with them as with the real ones
    owes nothing to these.
    """
    answering = shell.answering()
    written = answering.export_answers(file, control=kind, seed=seed, overwrite=overwrite)
    shell.result({"answers": written, "file": str(file), "control": kind}, f"{written:,} answers in {file}")
    shell.say(f"Next: {answering.ledger.command(f'correct --control {kind}')}")


@command(
    "export-crowd", example="crayon answer export-crowd tasks --base-url https://example.org/birds", workspace="first"
)
@click.argument("folder_out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(KINDS), default="image", show_default=True, help="What to ask.")
@click.option("--count", type=int, default=None, help="How many questions at most; default all that are open.")
@click.option("--votes", type=int, default=1, show_default=True, help="Ask what fewer people have answered.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order.")
@click.option(
    "--method",
    type=click.Choice(["random", "coverage", "uncertain", "typical", "active"]),
    default="random",
    show_default=True,
    help='In which order; see "crayon suggest".',
)
@click.option("--question", default=None, help='Other words, such as "Is it on the {label}?".')
@click.option("--base-url", default="", help="Where the pictures will be served; MTurk needs one.")
@click.option("--overwrite", is_flag=True, help="Replace OUT when it exists.")
def export_crowd(shell: Shell, *, folder_out: Path, **given: Any) -> None:
    """Write what a crowd needs to OUT: a picture per question, tasks.csv for MTurk, tasks.json for Label Studio.

    The results of both come back with "crayon answer import".
    """
    workspace = shell.workspace()
    written = workspace.export_crowd(folder_out, **given)
    shell.result({"questions": written, "folder": str(folder_out)}, f"{written:,} questions in {folder_out}")
    shell.say(f"Next: {workspace.command('answer import RESULTS')}")


@command("push", example="crayon answer push me/birds-answers --private", workspace="first")
@click.argument("repo_id")
@hub_options
def push(shell: Shell, *, repo_id: str, **given: Any) -> None:
    """Publish all answers as the data set REPO_ID on the Hugging Face Hub, with the names of who answered.

    "datasets.load_dataset" reads them, and "crayon answer import hf-hub:REPO_ID".
    """
    found = publish_quietly(shell, lambda: shell.answering().holdings.answers().push_to_hub(repo_id, **given))
    show_published(shell, found)


@command("simulate", section="simulate", example="crayon answer simulate --annotators 2 --noise 0.05")
def simulate(shell: Shell, **given: Any) -> None:
    """Let the object masks answer in the place of people; for experiments.

    Every such answer is marked as simulated. Earlier simulated answers of the same kind are
    replaced, those of people stay.
    """
    workspace = shell.workspace()
    made = workspace.simulate_answers(**shell.options("simulate", given))
    shell.result(_facts(made), f"{len(made):,} simulated answers")
    shell.say(f"Next: {next_step(workspace)}")


@command("show", example="crayon answer show birds --rule dawid-skene")
@click.option("--rule", type=click.Choice(RULES), default=None, help="From votes to verdicts; default the correctors'.")
def show(shell: Shell, *, rule: Rule | None) -> None:
    """Count the answers, the verdicts they lead to, and how far people agree.

    With "--rule dawid-skene" or "mace" also how reliable everybody seems, by who agrees with whom.
    """
    from rich.table import Table

    found = shell.answering().holdings.answers()
    facts: dict[str, Any] = _facts(found, rule)
    people = _people(found, rule) if rule in CROWD_RULES else None
    kinds = {"image": "pictures", "neuron": "neurons"} | ({"spot": "spots"} if facts["spot"]["answers"] else {})
    table = Table("", *kinds.values(), title=f"{len(found):,} answers")
    for row in ("answers", "simulated", "annotators", "relevant", "irrelevant", "mixed", "agreement %", "kappa"):
        table.add_row(row, *(_cell(facts[kind][row]) for kind in kinds))
    if people is None:
        shell.result(facts, table)
        return
    each = Table("person", "answers about pictures", "yes %", "right % (estimated)", title=f"by {rule}")
    for name, about in people.items():
        each.add_row(name, *(_cell(value) for value in about.values()))
    shell.result(facts | {"people": people}, table, each)


@command("worth", example="crayon answer worth birds")
@click.option(
    "--rule", type=click.Choice(RULES), default="unanimous", show_default=True, help="From votes to verdicts."
)
@click.option("--device", default="auto", show_default=True, help='"auto" (a GPU when there is one) or a torch device.')
@click.option(
    "--sheet",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Pictures to draw with what the answers call the object; 0 draws none.",
)
def worth(shell: Shell, *, rule: Rule, device: str, sheet: int) -> None:
    """Say whether the answers about pictures go together, or look as if nobody had looked.

    A probe learns from the answers what an object looks like, and foretells those it did not see; 50 % is chance.
    Says also what the next answer would change, and whether there are enough. What the answers call the object is drawn
    into pictures/objects.png: look whether it is, for with yes and no exchanged the answers go together just as well.
    """
    workspace = shell.workspace()
    found, ahead = workspace.worth(rule=rule, device=device, sheet=sheet), foresights(workspace, look=True)
    facts: dict[str, Any] = asdict(found) | {"contradictory": found.contradictory}
    facts = {name: None if value != value else value for name, value in facts.items()}
    facts["foresight"] = {kind: foresight_facts(each) for kind, each in ahead.items()}
    shell.result(facts, found.in_words, *(foresight_line(kind, each) for kind, each in ahead.items()))
    if sheet:
        shell.say("What the answers call the object: pictures/objects.png. If it is not, yes and no were exchanged")


def _people(answers: AnnotationSet, rule: Rule | None) -> dict[str, dict[str, Any]]:
    """Everybody who answered about pictures, the least reliable first."""
    from crayon_sdk.answers.consensus import consensus

    skill = consensus(answers, rule or "dawid-skene").skill
    said: Counter[tuple[str, str]] = Counter((answer.annotator, answer.answer) for answer in answers.only("image"))
    found = {}
    for name in sorted(skill, key=lambda name: skill[name]):
        own = {word: said[name, word] for word in ANSWERS}
        found[name] = {
            "answers": sum(own.values()),
            "yes %": 100 * own["yes"] / sum(own.values()),
            "right % (estimated)": 100 * skill[name],
        }
    return found


def _facts(answers: AnnotationSet, rule: Rule | None = None) -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        counts = answers.counts(kind)
        agreement = answers.agreement(kind) if counts["answers"] else None
        verdicts: Counter[str] = Counter()
        if counts["answers"] and kind == "neuron":
            verdicts.update(answers.neuron_relevance(rule or "majority").values())
        elif counts["answers"]:
            judged = answers.image_relevance if kind == "image" else answers.spot_relevance
            verdicts.update(judged(rule or "unanimous").values())
        facts[kind] = {
            **{name: counts[name] for name in ("answers", "simulated", "annotators")},
            **{word: verdicts[word] for word in ("relevant", "irrelevant", "mixed")},
            "agreement %": None if agreement is None else agreement.percent,
            "kappa": None if agreement is None else agreement.kappa,
        }
    return facts


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


for each in (import_, export, control, export_crowd, push, simulate, show, worth):
    answer.add_command(each)
