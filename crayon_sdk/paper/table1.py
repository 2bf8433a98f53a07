"""Table I of the paper, run on pictures and a model of one's own: every cell is a file, so that it goes on."""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from crayon_sdk import __version__
from crayon_sdk._base.files import check_writable, locked, read_json, sha256_of, write_json
from crayon_sdk._base.methods import methods
from crayon_sdk._base.process import machine
from crayon_sdk._base.text import first_line
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.controls import control
from crayon_sdk.answers.relevance import CONTROLS
from crayon_sdk.correct.method import made
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import CrayonError, DataError, HubError, MissingExtraError, OutputError, WorkspaceBusyError
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.masks import simulate_answers, simulate_neuron_answers
from crayon_sdk.models.passes import in_classes_of
from crayon_sdk.models.split import SplitModel, as_split_model
from crayon_sdk.paper.outcome import Line, Outcome
from crayon_sdk.paper.protocol import ROWS, Column, Protocol, Row, best, trials_of, with_epochs
from crayon_sdk.results.correction import versions
from crayon_sdk.results.evaluation import Evaluation, evaluate, per_cent
from crayon_sdk.show.style import needs_matplotlib

__all__ = ["Pictures", "halves_of", "nested", "read_pictures", "run_table", "scores_of"]

_log = logging.getLogger(__name__)
_PAUSE = 2.0  # seconds, until another process may be done with a cell
Cell = dict[str, Any]
Role = Literal["trial", "chosen"]


@dataclass(frozen=True)
class Pictures:
    """The three splits, all with groups.

    Attributes:
        train: With masks where a method or the simulated answers need them.
        validation: By which settings are chosen.
        test: Measured for chosen settings alone.
    """

    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset


def read_pictures(
    data: str | os.PathLike[str], *, group_columns: Sequence[str] | None = None, mask_column: str | None = None
) -> Pictures:
    """Read the three splits of a table.

    Args:
        data: A CSV file, or a folder with a ``metadata.csv``; its splits are train, val and test.
        group_columns: Irrelevant attributes; where they are not named they are recognised.
        mask_column: Paths of the object masks; where it is not named it is recognised.

    Raises:
        DataError: There is no such table, it has no such splits, or no column of groups.
    """
    table = Path(data) / "metadata.csv" if Path(data).is_dir() else Path(data)
    splits = [
        ImageDataset.from_csv(table, split=split, group_columns=group_columns, mask_column=mask_column)
        for split in ("train", "val", "test")
    ]
    if not splits[0].groups:
        raise DataError(
            f"expected {str(table)!r} to have a column of groups, by which the worst group is known, and none is "
            "recognised; name it with group_columns="
        )
    return Pictures(*splits)


def run_table(
    protocol: Protocol,
    model: nn.Module,
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    command: str = "",
    on_cell: Callable[[str], None] = _log.info,
) -> Outcome:
    """Run what is missing of the table, and write it.

    Settings of every method are chosen on the validation split with the first seed, and then run with all seeds. A
    finished run is a file in ``output``: whoever stops goes on with the same call, and several processes may work in
    one folder. The table is written after every row.

    Args:
        protocol: What is run.
        model: The model to correct.
        pictures: To train on, to choose by, to measure on.
        output: A folder; there ``table1.csv``, ``table1.md``, ``table1.png``, and ``cells``.
        device: "auto" or a torch device.
        command: What was typed, for the table.
        on_cell: Is told what was done.

    Returns:
        The table. A method that failed has a line that says why.

    Raises:
        DataError: The pictures lack groups, or masks that a method or the simulated answers need.
        MissingExtraError: matplotlib is not installed.
        OutputError: Nothing can be written there.
        SettingsError: It is not clear which class of the model a class of the data is.
    """
    needs_matplotlib()
    check_writable(output)
    table = _Table(protocol, as_split_model(model), pictures, Path(output), device, command, on_cell)
    left = list(protocol.rows)
    while left:
        waiting = [row for row in left if not table.finish(row)]
        if len(waiting) == len(left):
            time.sleep(_PAUSE)
        left = waiting
    return table.write()


class _Table:
    """What is made of the protocol, in one folder."""

    def __init__(
        self,
        protocol: Protocol,
        model: SplitModel,
        pictures: Pictures,
        output: Path,
        device: str | torch.device,
        command: str,
        on_cell: Callable[[str], None],
    ) -> None:
        self.protocol, self.output, self.device, self.command, self.on_cell = protocol, output, device, command, on_cell
        self.model = model.copy().to(memory_format=torch.channels_last)
        self.pictures = Pictures(*(in_classes_of(each, model) for each in vars(pictures).values()))
        for name, each in vars(self.pictures).items():
            if not each.groups:
                raise DataError(
                    f"expected groups of the {name} pictures, got none; make the data set with group_columns="
                )
        self._check_masks()
        self.inputs = {
            name: sha256_of(each.fingerprint, each.file_fingerprint, *each.group_labels)
            for name, each in vars(self.pictures).items()
        }
        self.machine = machine()
        self.finished: dict[Path, Cell] = {}
        self.cells = output / "cells"
        self.cells.mkdir(parents=True, exist_ok=True)

    def _check_masks(self) -> None:
        rows = self.protocol.rows
        needing = [row.name for row in rows if row.answers or (row.method and "masks" in methods[row.method].needs)]
        if needing and not self.pictures.train.has_masks:
            raise DataError(
                f"expected object masks of the training pictures, which {len(needing)} rows need (such as "
                f"{needing[0]!r}) for themselves or to simulate answers, got none; name their column with "
                "mask_column=, or leave these rows out with methods="
            )

    # What methods are told

    @functools.cache  # noqa: B019 - as long as the table
    def maps(self, score: str) -> SaliencyMaps:
        return Explainer(self.model, score=score, device=self.device).explain(self.pictures.train)

    @functools.cache  # noqa: B019
    def real_answers(self, score: str) -> AnnotationSet:
        """What people would say who see the masks: about all maps, and about all neurons."""
        patches = Explainer(self.model, device=self.device).explain_neurons(self.pictures.train)
        train = self.pictures.train
        return simulate_answers(self.maps(score), train).merge(simulate_neuron_answers(patches, train))

    def answers(self, row: Row, seed: int) -> AnnotationSet:
        real = self.real_answers(row.score)
        kind = next((each for each in CONTROLS if each == row.answers), None)
        return real if kind is None else control(real, kind, seed=seed)

    # Cells

    def finish(self, row: Row) -> bool:
        """Make all cells of a row that are not there; false where another process makes some of them."""
        parent, before = ROWS[row.like] if row.like else row, len(self.finished)
        found, kept = [], {}  # the models of the best trials, so that they are not trained twice
        for settings in self._trials(parent):
            cell, trained = self._cell(parent, settings, self.protocol.seeds[0], "trial")
            found.append(cell)
            if trained is not None and row is parent and not self._learns_held_out(row):
                kept[_name_of(settings)] = trained
                chosen = [best(list(filter(None, found)), column) for column in self.protocol.chosen_by]
                winners = {_name_of(each["settings"]) for each in chosen if each}
                kept = {name: each for name, each in kept.items() if name in winners}
        done = all(found)
        if done:
            for settings, seed in self._chosen_runs(row, list(filter(None, found))):
                ready = kept.get(_name_of(settings)) if seed == self.protocol.seeds[0] else None
                cell, _ = self._cell(row, settings, seed, "chosen", ready)
                done = done and cell is not None
        if done and len(self.finished) > before:
            self.write()
        return done

    def _trials(self, row: Row) -> list[dict[str, Any]]:
        if not row.searched:
            return []
        return [with_epochs(row, tried, self.protocol.epochs) for tried in trials_of(row, self.protocol.trials)]

    def _chosen_runs(self, row: Row, trials: Sequence[Cell]) -> list[tuple[dict[str, Any], int]]:
        """Settings and seeds that are measured on the test split."""
        if not row.method:
            return [({}, self.protocol.seeds[0])]
        chosen = [self._chosen(row, trials, column) for column in self.protocol.chosen_by]
        different = {_name_of(each): each for each in chosen if each is not None}
        return [(each, seed) for each in different.values() for seed in self.protocol.seeds]

    def _chosen(self, row: Row, trials: Sequence[Cell], column: Column) -> dict[str, Any] | None:
        """The settings of a row; none where all trials failed."""
        if not row.method:
            return {}
        cell = best(trials, column)
        return None if cell is None else dict(cell["settings"])

    def _identity(self, row: Row, settings: Mapping[str, Any], seed: int, role: Role) -> dict[str, Any]:
        return {
            "method": row.method,
            "settings": settings,
            "answers": row.answers,
            "maps": row.score,
            "seed": seed,
            "role": role,
            "model": self.model.fingerprint,
            "pictures": self.inputs if role == "chosen" else {n: self.inputs[n] for n in ("train", "validation")},
            "crayon-sdk": __version__,
        }

    def _path(self, row: Row, settings: Mapping[str, Any], seed: int, role: Role) -> Path:
        made_from = json.dumps(self._identity(row, settings, seed, role), sort_keys=True)
        return self.cells / f"{row.name}-seed{seed}-{role}-{sha256_of(made_from)[:16]}.json"

    def known(self, row: Row, settings: Mapping[str, Any], seed: int, role: Role) -> Cell | None:
        """A cell that is finished."""
        path = self._path(row, settings, seed, role)
        if path not in self.finished and path.is_file():
            self.finished[path] = read_json(path, remedy="Delete it, and run the same again.")
        return self.finished.get(path)

    def _cell(
        self, row: Row, settings: Mapping[str, Any], seed: int, role: Role, ready: nn.Module | None = None
    ) -> tuple[Cell | None, nn.Module | None]:
        """A cell, made unless it is there, and the model if it was; nothing where another process makes it."""
        known = self.known(row, settings, seed, role)
        if known is not None:
            return known, None
        path = self._path(row, settings, seed, role)
        lock = f".{path.stem}"
        try:
            with locked(self.cells, doing=f"bench table1: {row.name}", timeout=0, name=lock):
                known = self.known(row, settings, seed, role)
                if known is not None:
                    return known, None
                cell, model = self._made(row, settings, seed, role, ready)
                write_json(path, cell)
                self.finished[path] = cell
        except WorkspaceBusyError:
            return None, None
        (self.cells / lock).unlink(missing_ok=True)  # whoever takes it now looks for the cell first
        measured = cell.get("test" if role == "chosen" else "validation", {})
        said = cell["error"] or f"worst group {per_cent(measured['worst_group'])}"
        self.on_cell(f"{row.name}, seed {seed}, {role}: {said} ({cell['seconds']:.0f} s)")
        return cell, model

    def _made(
        self, row: Row, settings: Mapping[str, Any], seed: int, role: Role, ready: nn.Module | None
    ) -> tuple[Cell, nn.Module | None]:
        held_out, measured = self.pictures.validation, self.pictures.test
        if role == "trial":
            measured = self.pictures.validation
            if self._learns_held_out(row):  # it must not be chosen by what it learned from
                held_out, measured = halves_of(measured, grouped="holdout groups" in methods[row.method].needs)
        cell: Cell = {"row": row.name, "settings": settings, "seed": seed, "role": role, "error": ""}
        model, started = ready, time.monotonic()
        try:
            model = model or self._corrected(row, settings, seed, held_out)
        except (OutputError, MissingExtraError, HubError):
            raise  # says nothing about the method
        except CrayonError as error:
            cell["error"] = f"{type(error).__name__}: {first_line(error)}"
        cell["seconds"] = round(time.monotonic() - started, 1)
        if model is not None:
            found = evaluate(model, measured, train=self.pictures.train, device=self.device)
            cell["test" if role == "chosen" else "validation"] = scores_of(found)
        cell |= {"made_from": self._identity(row, settings, seed, role), "machine": self.machine | versions()}
        return cell, model

    def _corrected(self, row: Row, settings: Mapping[str, Any], seed: int, held_out: ImageDataset) -> nn.Module:
        if not row.method:
            return self.model
        needs, told = methods[row.method].needs, dict[str, Any]()
        if "holdout" in needs:
            told["evaluate_on"] = held_out
        if "maps" in needs:
            told["maps"] = self.maps(row.score)
        if needs & {"answers", "neuron answers"}:
            told["answers"] = self.answers(row, seed)
        corrector = made(row.method, self.model, nested(settings), device=self.device, seed=seed)
        corrected: nn.Module = corrector.fit(self.pictures.train, **told).model
        return corrected

    @staticmethod
    def _learns_held_out(row: Row) -> bool:
        return bool(row.method) and "holdout" in methods[row.method].needs

    # The table

    def write(self) -> Outcome:
        """Write the table as it is now."""
        lines = [self._line(row, column) for column in self.protocol.chosen_by for row in self.protocol.rows]
        made = Outcome(
            lines=tuple(line for line in lines if line is not None),
            protocol=self.protocol,
            pictures={name: len(each) for name, each in vars(self.pictures).items()},
            smallest_test_group=min(Counter(self.pictures.test.group_labels).values()),
            seconds=sum(cell["seconds"] for cell in self.finished.values()),
            machine=self.machine | versions(),
            command=self.command,
        )
        made.save(self.output)
        return made

    def _line(self, row: Row, column: Column) -> Line | None:
        """A line of the table; none where something of it is not run yet."""
        parent, seeds = ROWS[row.like] if row.like else row, self.protocol.seeds
        trials = [self.known(parent, settings, seeds[0], "trial") for settings in self._trials(parent)]
        tried = list(filter(None, trials))
        if len(tried) < len(trials):
            return None
        settings, own = self._chosen(row, tried, column), [] if row.like else tried
        runs: list[Cell | None] = []
        if settings is not None:
            seeds = seeds if row.method else seeds[:1]
            runs = [self.known(row, settings, seed, "chosen") for seed in seeds]
        ran = list(filter(None, runs))
        if len(ran) < len(runs):
            return None
        chosen = best(tried, column)
        errors = [cell["error"] for cell in (ran or tried) if cell["error"]]
        return Line(
            row=row.name,
            chosen_by=column,
            settings=settings,
            validation=chosen["validation"][f"worst_{column}"] if chosen else None,
            worst_group=tuple(None if cell["error"] else cell["test"]["worst_group"] for cell in ran),
            mean_group=tuple(None if cell["error"] else cell["test"]["mean_group"] for cell in ran),
            trials=len(own),
            failed_trials=sum(bool(cell["error"]) for cell in own),
            epochs=max([value for name, value in (settings or {}).items() if name.endswith("epochs")], default=None),
            seconds=sum(cell["seconds"] for cell in (*own, *ran)),
            problem=errors[0] if errors else "",
        )


def _name_of(settings: Mapping[str, Any]) -> str:
    """Settings as text, the same for the same."""
    return json.dumps(settings, sort_keys=True)


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``PART.SETTING`` as a method takes it that is made of others."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        part, dot, setting = name.partition(".")
        if dot:
            found.setdefault(part, {})[setting] = value
        else:
            found[name] = value
    return found


def halves_of(dataset: ImageDataset, *, grouped: bool) -> tuple[ImageDataset, ImageDataset]:
    """Held-out pictures to learn from, and others to choose by: of each class, or group, one half.

    Args:
        dataset: With groups.
        grouped: Take halves of groups; else of classes, for methods that do not know groups.
    """
    of_each = dataset.group_labels if grouped else [str(label) for label in dataset.labels.tolist()]
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    parts: tuple[list[str], list[str]] = ([], [])
    seen: dict[str, int] = {}
    for position in order:
        count = seen[of_each[position]] = seen.get(of_each[position], 0) + 1
        parts[count % 2].append(dataset.ids[position])
    return dataset.subset(parts[1]), dataset.subset(parts[0])


def scores_of(found: Evaluation) -> dict[str, Any]:
    """The numbers that settings are chosen by, and that the table shows, in [0, 1].

    Args:
        found: Measured in groups.
    """
    counts: dict[int, list[int]] = {}
    for sample, label in found.labels.items():
        count = counts.setdefault(label, [0, 0])
        count[0] += found.predictions[sample] == label
        count[1] += 1
    classes = [right / total for right, total in counts.values()]
    return {
        "worst_group": found.worst_group,
        "mean_group": found.mean_group,
        "worst_class": min(classes),
        "mean_class": sum(classes) / len(classes),
        "groups": {group.name: [group.correct, group.total] for group in found.groups},
    }
