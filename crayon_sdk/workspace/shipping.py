"""What goes out of a workspace: reports, and checkpoints with their cards, to a folder or the Hub."""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import Unpack  # in typing from Python 3.11 on

from crayon_sdk._base.files import free_folder, free_path, read_tensors
from crayon_sdk._base.publishing import HubOptions, Published, find_target, takes_hub_options
from crayon_sdk._base.text import first_few
from crayon_sdk.errors import OutputExistsError, SettingsError, StaleError
from crayon_sdk.results.card import Card
from crayon_sdk.results.correction import Correction
from crayon_sdk.results.evaluation import Evaluation
from crayon_sdk.results.exhibits import card_sheet
from crayon_sdk.results.report import explaining
from crayon_sdk.results.weight_changes import WeightChanges, weight_changes
from crayon_sdk.workspace.holdings import Holdings
from crayon_sdk.workspace.inputs import Inputs
from crayon_sdk.workspace.ledger import Ledger
from crayon_sdk.workspace.manifest import Manifest
from crayon_sdk.workspace.names import (
    DISCOVERED,
    GROUPS,
    MAPS,
    ORIGINAL,
    PATCHES,
    as_options,
    by_groups,
    checked_name,
    evaluations,
    split_and_groups,
)

__all__ = ["Shipping", "typed_commands"]


@dataclass(frozen=True, eq=False)
class Shipping:
    """Tells others what was done, and gives them what came of it.

    Attributes:
        ledger: What was made from what.
        inputs: Model and pictures.
        holdings: The corrections.
    """

    ledger: Ledger
    inputs: Inputs
    holdings: Holdings

    def report(
        self,
        name: str,
        path: str | os.PathLike[str] | None = None,
        *,
        split: str | None = None,
        pictures: int = 4,
        candidates: int = 1000,
        seed: int = 0,
        device: str = "auto",
        overwrite: bool = False,
    ) -> Path:
        """Write one HTML page about a correction, and its pictures beside it.

        Args:
            name: Of the correction.
            path: Ends in ".html"; default ``reports/NAME.html``, which is made again each time.
            split: Whose pictures to measure on and to show; default "test", or "val" where there is none.
            pictures: How many to show for each rule.
            candidates: How many pictures the rules choose from; of more, so many are drawn at random.
            seed: Of everything that is drawn at random.
            device: "auto" or a torch device.
            overwrite: Replace a page at ``path``.

        Returns:
            The page.

        Raises:
            DataError: There is no such split.
            MissingExtraError: matplotlib is not installed.
            OutputExistsError: The page exists.
            SettingsError: A setting is out of range.
            StaleError: There is no such correction.
        """
        own = f"reports/{checked_name(name)}.html"
        if path is not None:
            free_path(path, ".html", overwrite=overwrite)
        with self.ledger.working(f"report {name}"):
            started = time.time()
            found = self.holdings.correction(name)
            split = split or next((each for each in ("test", "val") if each in self.ledger.manifest.splits), None)
            fresh = self.ledger.status(PATCHES, self.ledger.base(), "").state == "fresh"
            found, measured_on = self._with_evaluations(found, name, split)
            page = found.report(
                self.ledger.folder / own if path is None else path,
                dataset=None if split is None else self.inputs.dataset(split),
                original=self.inputs.model,
                train=self.inputs.dataset() if found.record.pruned_neurons and fresh else None,
                patches=self.holdings.patches() if found.record.pruned_neurons and fresh else None,
                evaluated_on=measured_on if split is None else f"{split} pictures",
                commands=[
                    *typed_commands(self.ledger.manifest, self.ledger.command, name),
                    f"{self.ledger.command('report')} --name {name}",
                ],
                pictures=pictures,
                candidates=candidates,
                seed=seed,
                device=device,
                title=f"{name}: {found.model.architecture}, corrected",
                discovered=self._measured(name, split, DISCOVERED),
                overwrite=overwrite or path is None,
            )
            if path is None:
                inputs = {f"corrections/{name}": self.ledger.digest(f"corrections/{name}")}
                settings = {"split": split, "pictures": pictures, "candidates": candidates, "seed": seed}
                self.ledger.record(own, made_by="Workspace.report", inputs=inputs, settings=settings, started=started)
        return page

    def save(
        self,
        name: str,
        folder: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        card_images: Sequence[str] = (),
        card: Card | None = None,
    ) -> Path:
        """Write a correction as a timm checkpoint outside, with its evaluations on the test pictures and its card.

        Args:
            name: Of the correction.
            folder: Where; it must not exist.
            overwrite: Replace it when it does and is a checkpoint.
            card_images: Sample ids of test pictures that everybody may see, or patterns of them such as
                "images/test/*"; the card shows four of them, drawn at random, with their maps before
                and after. None unless named.
            card: What else the card says; default what the workspace knows.

        Raises:
            SettingsError: No test picture is called so.
            StaleError: There is no such correction.
            OutputExistsError: The folder exists.
        """
        target, ours = Path(folder).resolve(), self.ledger.folder.resolve()
        other = target.is_dir() and any(target.iterdir()) and not (target / "model.safetensors").is_file()
        if other or ours.is_relative_to(target) or target.is_relative_to(ours / "corrections"):
            raise OutputExistsError(
                f"{str(folder)!r} holds something else than a checkpoint, or belongs to the workspace"
            )
        free_folder(folder, overwrite=overwrite)
        with self._going_out(name, card_images, card) as (found, about):
            return found.save(folder, overwrite=overwrite, card=about)

    @takes_hub_options
    def push(
        self,
        name: str,
        repo_id: str,
        *,
        card_images: Sequence[str] = (),
        card: Card | None = None,
        **hub: Unpack[HubOptions],
    ) -> Published:
        """Publish a correction on the Hugging Face Hub, with its evaluations on the test pictures.

        Args:
            name: Of the correction.
            repo_id: "me/birds-resnet50".
            card_images: Test pictures that the card may show, as for
                [`save`][crayon_sdk.workspace.workspace.Workspace.save].
            card: What else the card says; default what the workspace knows.
            **hub: As in [`HubOptions`][crayon_sdk._base.publishing.HubOptions].

        Raises:
            StaleError: There is no such correction.
            HubError: As [`Correction.push_to_hub`][crayon_sdk.results.correction.Correction.push_to_hub].
        """
        if card_images:  # drawing them is work that a wrong name should not cost
            find_target(repo_id, **hub)
        with self._going_out(name, card_images, card) as (found, about):
            return found.push_to_hub(repo_id, card=about, **hub)

    def changes(self, name: str) -> WeightChanges:
        """Which weights of a correction are other than the original's, and by how much.

        Args:
            name: Of the correction.

        Raises:
            StaleError: There is no such correction, or it is of another model.
        """
        path = f"corrections/{checked_name(name)}"
        entry = self.ledger.manifest.files.get(path)
        if entry is None or entry.inputs["model"] != self.ledger.manifest.model_fingerprint:
            raise StaleError(f"{path} is missing, or was made from another model")
        tensors, _ = read_tensors(self.ledger.folder / path / "model.safetensors")
        return weight_changes(self.inputs.model.plain_state_dict(), tensors)

    @contextmanager
    def _going_out(self, name: str, card_images: Sequence[str], card: Card | None) -> Iterator[tuple[Correction, Card]]:
        """A correction with what is known of it, and its card, whose pictures are there while the block lasts."""
        found, measured_on = self._with_evaluations(self.holdings.correction(name), name, "test")
        about = card or Card(
            base_model=self.inputs.base_model,
            evaluated_on=measured_on,
            discovered=self._measured(name, "test", DISCOVERED),
        )
        if not card_images:
            yield found, about
            return
        with tempfile.TemporaryDirectory() as place:
            sheet = Path(place) / "before-after.png"
            sheet.write_bytes(self._card_sheet(found, card_images))
            yield found, replace(about, images=(*about.images, sheet))

    def _with_evaluations(self, found: Correction, name: str, split: str | None) -> tuple[Correction, str]:
        """A correction with what is known of it and of the original on a split, and on what that was, in words.

        Where nothing is known there, what was measured while it was corrected stays; the two are never mixed.
        """
        before, after = self._measured(name, split)
        if before or after:
            return replace(found, before=before, after=after), f"{split} pictures"
        measured = self.ledger.manifest.files[f"corrections/{name}"].settings.get("evaluate_on")
        return found, f"{measured} pictures" if measured else ""

    def _measured(
        self, name: str, split: str | None, groups: str = "own"
    ) -> tuple[Evaluation | None, Evaluation | None]:
        """What is known, and up to date, of the original and of a correction on a split."""
        known: list[Evaluation | None] = []
        for model in (ORIGINAL, name):
            path = "" if split is None else f"{evaluations(split, groups)}/{model}.json"
            there = path in self.ledger.manifest.files and split in self.ledger.manifest.splits
            inputs = self.holdings.evaluation_inputs(model, str(split), groups) if there else {}
            fresh = there and self.ledger.status(path, inputs, "").state == "fresh"
            known.append(Evaluation.load(self.ledger.folder / path) if fresh else None)
        return known[0], known[1]

    def _card_sheet(self, found: Correction, patterns: Sequence[str]) -> bytes:
        test = self.inputs.dataset("test")
        allowed: set[str] = set()
        for pattern in patterns:
            # An id may hold brackets, which mean something else in a pattern.
            called = [pattern] if pattern in test.ids else [i for i in test.ids if fnmatch.fnmatchcase(i, pattern)]
            allowed |= set(called)
            if not called:
                raise SettingsError(
                    f"no test picture is called {pattern!r}; their ids are {first_few(test.ids, 3)}, and patterns such "
                    "as 'images/*' name several"
                )
        return card_sheet(
            self.inputs.model,
            found.model,
            test.subset([sample for sample in test.ids if sample in allowed]),
            settings=explaining(found.facts()),
            before=found.before,
            after=found.after,
        )


def typed_commands(manifest: Manifest, command: Callable[[str], str], name: str) -> list[str]:
    """The commands that lead to a correction, from what the workspace remembers.

    Args:
        manifest: Of the workspace.
        command: From the name of a step to its beginning, as `Ledger.command`.
        name: Of the correction.
    """
    model, data = manifest.model, manifest.data
    values: dict[str, Any] = {"model": model.source, "data": data.folder, "group_column": data.group_columns}
    values |= model.model_dump(exclude={"source", "model_args"}, exclude_defaults=True)
    values |= data.model_dump(exclude={"folder", "splits", "group_columns"}, exclude_defaults=True)
    values |= {f"{split}_split": called for split, called in data.splits.items() if called != split}
    found = [command("init") + _options(values)]
    maps, patches = manifest.files.get(MAPS), manifest.files.get(PATCHES)
    if maps is not None:
        kept = {name: maps.settings.get(name) for name in ("target", "score")}
        kept |= {"patches_per_neuron": patches.settings.get("patches_per_neuron")} if patches is not None else {}
        found.append(command("explain") + _options(kept))
    for entry in manifest.answers:
        if entry.get("source") == "simulated":
            kept = {key: entry.get(key) for key in ("annotators", "neuron_annotators", "noise", "coverage", "seed")}
            found.append(command("answer simulate") + _options(kept))
        else:
            found.append(f"{command('answer import')} {shlex.quote(str(entry.get('source', '')))}")
    measured = [path for path in manifest.files if path.startswith("evaluations/") and path.endswith(f"/{name}.json")]
    made, groups = manifest.files.get(f"corrections/{name}"), manifest.files.get(GROUPS)
    told = made is not None and made.settings.get("groups") == DISCOVERED
    if groups is not None and (told or any(split_and_groups(path)[1] == DISCOVERED for path in measured)):
        found.append(command("groups") + _options({"seed": groups.settings.get("seed") or None}))
    if made is not None:
        found.append(f"{command('correct')} --name {name}{as_options(made.settings)}")
    for path in measured:
        split, by = split_and_groups(path)
        found.append(f"{command('evaluate')} --split {split}{by_groups(by)} {name}")
    return found


def _options(values: dict[str, Any]) -> str:
    parts: list[str] = []
    for key, value in values.items():
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            parts.append(flag)
        elif isinstance(value, dict):
            parts += [flag, json.dumps(value)]
        elif isinstance(value, (tuple, list)):
            parts += [part for each in value for part in (flag, str(each))]
        elif value not in (None, False, ""):
            parts += [flag, str(value)]
    return "".join(f" {shlex.quote(part)}" for part in parts)
