"""``crayon demo``: the whole method on data that it draws itself, in one folder.

A network learns birds and fish from a training set in which nearly all birds stand in
a forest and nearly all fish in water. It falls for the background; simulated answers
to its maps and patches, taken from the object masks, then correct it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from crayon_sdk._base.files import new_folder, write_json, write_tensors
from crayon_sdk._base.progress import duration
from crayon_sdk._base.text import visible
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.cli.demo_model import DemoSettings, train_original
from crayon_sdk.cli.demo_pictures import write_pictures
from crayon_sdk.correct import methods
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import OutputExistsError
from crayon_sdk.explain.contact_sheets import before_after_sheet, choose_ids, maps_sheet, patches_sheet
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.masks import energy_inside, simulate_answers, simulate_neuron_answers
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.rebuild import timm_config
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.card import Card
from crayon_sdk.results.correction import Correction, versions
from crayon_sdk.results.evaluation import Evaluation, evaluate

__all__ = ["DemoSettings", "run_demo"]

CONTROL = "More training"
_MARK = "demo.json"  # tells a demo's folder from any other


@dataclass(frozen=True)
class _Outcome:
    """A model in the comparison, measured on the test set."""

    name: str
    evaluation: Evaluation
    maps: SaliencyMaps
    energy: float


def run_demo(
    folder: str | os.PathLike[str] = "crayon-demo",
    *,
    seed: int = 0,
    quiet: bool = False,
    overwrite: bool = False,
    settings: DemoSettings | None = None,
) -> Path:
    """Run the demo.

    Args:
        folder: Where everything goes; it appears when all is done.
        seed: Of the pictures and of all training.
        quiet: Print nothing.
        overwrite: Replace the folder of an earlier demo; any other folder stays.
        settings: Sizes and training.

    Returns:
        The folder.

    Raises:
        OutputExistsError: The folder is not empty, and ``overwrite`` is false or it is no demo's.
        OutputError: It cannot be written.
    """
    target = Path(folder)
    _check_folder(target, overwrite)
    console = Console(quiet=quiet, highlight=False)
    demo = _Demo(console, seed, settings or DemoSettings())
    # Checked above: what is replaced is empty, or a demo's.
    new_folder(target, demo.fill, overwrite=target.exists())
    _say_what_to_look_at(console, target)
    return target


def _check_folder(target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise OutputExistsError(
            f"{str(target)!r} exists already and is not empty; name another folder, "
            "or replace an earlier demo with overwrite=True"
        )
    if not (target / _MARK).is_file():
        raise OutputExistsError(
            f"{str(target)!r} holds something that is not a demo (there is no {_MARK}), so it is left alone; "
            "name another folder"
        )


class _Demo:
    """One run: each step writes into the folder what the next one needs."""

    def __init__(self, console: Console, seed: int, settings: DemoSettings) -> None:
        self.console = console
        self.seed = seed
        self.settings = settings

    def fill(self, folder: Path) -> None:
        """Do everything."""
        started = time.monotonic()
        train_set, test_set = self._pictures(folder)
        original = self._original(folder, train_set)
        maps, patches, answers = self._answers(folder, original, train_set)
        corrections = self._corrections(original, train_set, maps, answers)
        outcomes = self._compare(folder, original, corrections, train_set, test_set)
        self._sheets(folder, train_set, test_set, maps, patches, answers, outcomes)
        seconds = round(time.monotonic() - started, 1)
        summary = {
            outcome.name: outcome.evaluation.summary() | {"energy_on_object": outcome.energy} for outcome in outcomes
        }
        about = {"format": "crayon-demo", "version": 1, "simulated_answers": True, "seed": self.seed}
        about |= {"settings": asdict(self.settings), "seconds": seconds, "versions": versions(), "summary": summary}
        write_json(folder / _MARK, about)
        self.console.print(f"Done in {seconds:.0f} seconds.")

    def _say(self, text: str) -> None:
        self.console.print(f"[bold]>[/bold] {text}")

    def _pictures(self, folder: Path) -> tuple[ImageDataset, ImageDataset]:
        wanted = self.settings
        self._say(f"Drawing {wanted.train} training and {wanted.test} test pictures of birds and fish")
        (folder / "pictures").mkdir()
        table = write_pictures(
            folder / "pictures",
            train=wanted.train,
            test=wanted.test,
            size=wanted.size,
            correlation=wanted.correlation,
            seed=self.seed,
        )
        return ImageDataset.from_csv(table, split="train"), ImageDataset.from_csv(table, split="test")

    def _original(self, folder: Path, dataset: ImageDataset) -> SplitModel:
        self._say(f"Training a small network; {100 * self.settings.correlation:.0f} % of the backgrounds give it away")
        model, history = train_original(dataset, self.settings, seed=self.seed)
        last = history[-1]
        right = 100 * last["training_accuracy"]
        self._say(f"Stopped after epoch {last['epoch']}, with {right:.1f} % of the training pictures right")
        # Three corrections of as long steps follow; all else takes about as long as a dozen epochs.
        left = last["seconds"] * (3 * self.settings.attention_epochs + 12)
        self._say(f"About {duration(left)} to go on this machine")
        (folder / "original").mkdir()
        write_tensors(folder / "original" / "model.safetensors", model.plain_state_dict(), {"format": "pt"})
        write_json(folder / "original" / "config.json", timm_config(model))
        return model

    def _answers(
        self, folder: Path, model: SplitModel, dataset: ImageDataset
    ) -> tuple[SaliencyMaps, NeuronPatches, AnnotationSet]:
        self._say("Explaining every training picture and every neuron")
        explainer = Explainer(model)
        maps = explainer.explain(dataset)
        patches = explainer.explain_neurons(dataset)
        maps.save(folder / "maps.safetensors")
        patches.save(folder / "patches.safetensors")
        answers = simulate_answers(maps, dataset, annotators=2, seed=self.seed)
        answers = answers.merge(simulate_neuron_answers(patches, dataset, annotators=2, seed=self.seed))
        answers.save(folder / "answers.jsonl")
        for verdicts, what in ((answers.image_relevance(), "maps"), (answers.neuron_relevance(), "neurons")):
            counts = [list(verdicts.values()).count(word) for word in ("relevant", "irrelevant", "mixed")]
            shown = f"{counts[0]} relevant, {counts[1]} irrelevant" + (f", {counts[2]} mixed" if counts[2] else "")
            self._say(f"Two simulated annotators answered about {len(verdicts)} {what}: {shown}")
        return maps, patches, answers

    def _corrections(
        self, original: SplitModel, dataset: ImageDataset, maps: SaliencyMaps, answers: AnnotationSet
    ) -> dict[str, Correction]:
        # The control: what as much training does without any guidance.
        self._say("Training the original for as long again without answers, to compare")
        control = methods["erm"](original, logit_adjustment=1.0, **self._training()).fit(dataset)
        self._say("Correcting: Attention")
        attention = self._guide(original).fit(dataset, maps, answers)
        self._say("Correcting: Pruning")
        pruner = methods["pruning"](
            original, epochs=self.settings.pruning_epochs, lr=self.settings.pruning_lr, seed=self.seed
        )
        pruning = pruner.fit(dataset, answers)
        self._say("Correcting: Pruning, then Attention")
        both = self._guide(pruning.model).fit(dataset, maps, answers)
        return {CONTROL: control, "Attention": attention, "Pruning": pruning, "Pruning+Attention": both}

    def _training(self) -> dict[str, Any]:
        """How the control and the guided corrections are trained alike."""
        return {
            "epochs": self.settings.attention_epochs,
            "lr": self.settings.attention_lr,
            "scheduler": "none",  # a few epochs, and a network that has most to learn
            "average_decay": 0.9,  # a run of this length would hardly leave its start with more
            "seed": self.seed,
        }

    def _guide(self, model: SplitModel) -> AttentionCorrector:
        wanted = self.settings
        guide: AttentionCorrector = methods["attention"](
            model, alpha=wanted.alpha, beta=wanted.beta, **self._training()
        )
        return guide

    def _compare(
        self,
        folder: Path,
        original: SplitModel,
        corrections: Mapping[str, Correction],
        train_set: ImageDataset,
        test_set: ImageDataset,
    ) -> list[_Outcome]:
        self._say("Measuring all four models on the test pictures")
        before = _measure("Original", original, train_set, test_set)
        outcomes = [before]
        before.evaluation.save(folder / "evaluations" / "original.json")
        for name, correction in corrections.items():
            found = _measure(name, correction.model, train_set, test_set)
            outcomes.append(found)
            file = name.lower().replace("+", "-").replace(" ", "-")
            found.evaluation.save(folder / "evaluations" / f"{file}.json")
            if name != CONTROL:
                made = replace(correction, before=before.evaluation, after=found.evaluation)
                self._save(made, folder / file, before, found, test_set)
        self.console.print(_table(outcomes, len(test_set)))
        self.console.print(
            "The answers are simulated: the object masks answered in the place of people.\n"
            "Numbers with answers of people will differ. Groups are class/background; WGA\n"
            "and MGA are worst- and mean-group accuracy, object energy the share of the\n"
            "maps that lies on the object, empty maps those without positive evidence.\n"
            f"{CONTROL}: like Attention, but without guidance and with the pictures as they\n"
            "are: nobody's answers count."
        )
        return outcomes

    def _save(
        self, correction: Correction, folder: Path, before: _Outcome, after: _Outcome, test_set: ImageDataset
    ) -> None:
        """Write a checkpoint whose card has pictures: they are drawn, so everybody may see them."""
        groups = dict(zip(test_set.ids, test_set.group_labels, strict=True))
        with tempfile.TemporaryDirectory() as place:
            sheet = Path(place) / "before-after.png"
            before_after_sheet(
                test_set,
                before.maps,
                after.maps,
                choose_ids(before.maps, after.maps, count=4, groups=groups, seed=self.seed),
                sheet,
                style="orange",
                predicted_before=before.evaluation.predictions,
                predicted_after=after.evaluation.predictions,
                notes=[f"Test pictures that the demo drew; maps for the true class. Correction: {after.name}."],
            )
            # The network began with random weights: it has no base model, and no licence but ours.
            card = Card(license="apache-2.0", evaluated_on="test pictures that the demo drew", images=(sheet,))
            correction.save(folder, card=card)

    def _sheets(
        self,
        folder: Path,
        train_set: ImageDataset,
        test_set: ImageDataset,
        maps: SaliencyMaps,
        patches: NeuronPatches,
        answers: AnnotationSet,
        outcomes: list[_Outcome],
    ) -> None:
        rows, seed = self.settings.rows, self.seed
        before = outcomes[0]
        after = next(outcome for outcome in outcomes if outcome.name == "Attention")
        groups = dict(zip(test_set.ids, test_set.group_labels, strict=True))
        before_after_sheet(
            test_set,
            before.maps,
            after.maps,
            choose_ids(before.maps, after.maps, count=rows, groups=groups, seed=seed),
            folder / "before-after.png",
            predicted_before=before.evaluation.predictions,
            predicted_after=after.evaluation.predictions,
            notes=["Test pictures; maps for the true class. Correction: Attention, from simulated answers."],
        )
        groups = dict(zip(train_set.ids, train_set.group_labels, strict=True))
        maps_sheet(
            train_set,
            maps,
            choose_ids(maps, maps, count=rows, groups=groups, seed=seed),
            folder / "maps.png",
            title='What people are asked: "Is the strong highlight mainly on the animal?"',
        )
        order = torch.randperm(patches.num_neurons, generator=torch.Generator().manual_seed(seed)).tolist()
        patches_sheet(
            train_set,
            patches,
            sorted(order[:rows]),
            folder / "patches.png",
            verdicts=answers.neuron_relevance(),
            notes=[f"{rows} of {patches.num_neurons} neurons, drawn at random (seed {seed}); simulated answers."],
        )


def _measure(name: str, model: SplitModel, train_set: ImageDataset, test_set: ImageDataset) -> _Outcome:
    maps = Explainer(model).explain(test_set)
    shares = energy_inside(maps, test_set).values()
    energy = sum(shares) / max(len(shares), 1)
    return _Outcome(name, evaluate(model, test_set, train=train_set), maps, energy)


def _table(outcomes: list[_Outcome], count: int) -> Table:
    title = f"Accuracy in % on {count} test pictures, corrected with simulated answers"
    # A row per number and a column per method: so it fits into 80 columns.
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("", no_wrap=True)
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right", no_wrap=True)
    for number, group in enumerate(outcomes[0].evaluation.groups):
        table.add_row(group.name, *(_per_cent(each.evaluation.groups[number].accuracy) for each in outcomes))
    table.add_section()
    table.add_row("WGA", *(_per_cent(each.evaluation.worst_group) for each in outcomes))
    table.add_row("MGA", *(_per_cent(each.evaluation.mean_group) for each in outcomes))
    table.add_section()
    table.add_row("object energy", *(_per_cent(each.energy) for each in outcomes))
    table.add_row("empty maps", *(str(each.maps.num_empty) for each in outcomes))
    return table


def _per_cent(share: float) -> str:
    return f"{100 * share:.1f}"


def _say_what_to_look_at(console: Console, folder: Path) -> None:
    # Its name was typed, and may hold anything.
    folder = Path(visible(str(folder)))
    best = folder / "attention"
    console.print(
        f"""
Look at
  {folder / "before-after.png"}  what the model looked at, before and after
  {folder / "maps.png"}          what people are asked about pictures
  {folder / "patches.png"}       what people are asked about neurons

The corrected model needs nothing of this package; this is plain timm:

  import timm
  model = timm.create_model("local-dir:{best}", pretrained=True).eval()

With crayon-sdk, go on from here:

  import crayon_sdk as crayon

  test = crayon.ImageDataset.from_csv("{folder / "pictures" / "metadata.csv"}", split="test")
  correction = crayon.load_correction("{best}")
  print(correction.record.method, correction.record.counts)
  print(crayon.evaluate(correction.model, test))
""",
        markup=False,
        soft_wrap=True,
    )
