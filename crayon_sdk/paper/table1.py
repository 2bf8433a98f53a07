"""Table I of the paper, run on pictures and a model of one's own: every cell is a file, so that it goes on."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from crayon_sdk._base.files import check_writable
from crayon_sdk._base.methods import methods
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import DataError
from crayon_sdk.models.split import SplitModel, as_split_model
from crayon_sdk.paper.ahead import Estimate, estimated, seconds_of_step, work_of
from crayon_sdk.paper.outcome import Line, Outcome
from crayon_sdk.paper.protocol import ROWS, Column, Protocol, Row, best, trials_of, with_epochs
from crayon_sdk.paper.runner import Bench, Cell, Pictures, nested, read_pictures, scores_of
from crayon_sdk.results.correction import versions
from crayon_sdk.results.evaluation import evaluate, per_cent
from crayon_sdk.show.style import needs_matplotlib

__all__ = ["Pictures", "estimate_table", "halves_of", "nested", "read_pictures", "run_table", "scores_of"]

_log = logging.getLogger(__name__)
_PAUSE = 2.0  # seconds, until another process may be done with a cell
Role = Literal["trial", "chosen"]


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


def estimate_table(
    protocol: Protocol,
    model: nn.Module,
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
) -> Estimate:
    """Say how long a table takes: from its finished cells, else from one step of training; nothing is trained.

    How many settings will be chosen is not known before they are tried: as many are counted as there can be.

    Args:
        protocol: What would be run.
        model: As for `run_table`.
        pictures: As for `run_table`.
        output: As for `run_table`.
        device: As for `run_table`.

    Raises:
        DataError: The pictures lack groups, or masks that a method or the simulated answers need.
    """
    table = _Table(protocol, as_split_model(model), pictures, Path(output), device, "", _log.info)
    return table.estimate(lambda: seconds_of_step(table.model, device))


class _Table(Bench):
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
        rows = protocol.rows
        needing = [row.name for row in rows if row.answers or (row.method and "masks" in methods[row.method].needs)]
        super().__init__(model, pictures, output, device=device, needing=needing, on_cell=on_cell)
        if self.pictures.validation is None:
            raise DataError("expected validation pictures, by which settings are chosen, got none")
        self.protocol, self.command, self.validation = protocol, command, self.pictures.validation

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
        splits = () if role == "chosen" else ("train", "validation")
        about = {"method": row.method, "answers": row.answers, "maps": row.score, "role": role}
        return self.identity(settings, seed, *splits, **about)

    def _path(self, row: Row, settings: Mapping[str, Any], seed: int, role: Role) -> Path:
        return self.path_of(f"{row.name}-seed{seed}-{role}", self._identity(row, settings, seed, role))

    def known(self, row: Row, settings: Mapping[str, Any], seed: int, role: Role) -> Cell | None:
        """A cell that is finished."""
        return self.known_at(self._path(row, settings, seed, role))

    def _cell(
        self, row: Row, settings: Mapping[str, Any], seed: int, role: Role, ready: nn.Module | None = None
    ) -> tuple[Cell | None, nn.Module | None]:
        """A cell, made unless it is there, and the model if it was; nothing where another process makes it."""
        trained: list[nn.Module | None] = []

        def make() -> Cell:
            cell, model = self._made(row, settings, seed, role, ready)
            trained.append(model)
            return cell

        path = self._path(row, settings, seed, role)
        cell, fresh = self.cell_at(path, f"bench table1: {row.name}", make)
        if cell is not None and fresh:
            measured = cell.get("test" if role == "chosen" else "validation", {})
            said = cell["error"] or f"worst group {per_cent(measured['worst_group'])}"
            ahead = self.estimate().so_far
            self.on_cell(f"{row.name}, seed {seed}, {role}: {said} ({cell['seconds']:.0f} s); {ahead}")
        return cell, trained[0] if trained else None

    def estimate(self, step: Callable[[], float] | None = None) -> Estimate:
        """How long the rest takes."""
        cells: list[tuple[str, float, Cell | None]] = []
        first = self.protocol.seeds[0]
        for row in self.protocol.rows:
            parent, alone = ROWS[row.like] if row.like else row, not row.like and not self._learns_held_out(row)
            trials = [(tried, self.known(parent, tried, first, "trial")) for tried in self._trials(parent)]
            if not row.like:
                cells += [(row.method, self._work(row, tried), cell) for tried, cell in trials]
            ran = [cell for _, cell in trials if cell is not None]
            likely = self._chosen_runs(row, ran)
            if len(ran) < len(trials):
                likely = [
                    (tried, seed) for tried, _ in trials[: len(self.protocol.chosen_by)] for seed in self.protocol.seeds
                ]
            for settings, seed in likely:
                work = 0.0 if alone and seed == first else self._work(row, settings)  # trained as a trial
                cells.append((row.method, work, self.known(row, settings, seed, "chosen")))
        return estimated(cells, step)

    def _work(self, row: Row, settings: Mapping[str, Any]) -> float:
        return work_of(row.method, settings, len(self.pictures.train))

    def _made(
        self, row: Row, settings: Mapping[str, Any], seed: int, role: Role, ready: nn.Module | None
    ) -> tuple[Cell, nn.Module | None]:
        held_out, measured = self.validation, self.pictures.test
        if role == "trial":
            measured = self.validation
            if self._learns_held_out(row):  # it must not be chosen by what it learned from
                held_out, measured = halves_of(measured, grouped="holdout groups" in methods[row.method].needs)
        cell: Cell = {"row": row.name, "settings": settings, "seed": seed, "role": role, "error": ""}

        def correct() -> nn.Module:
            def told() -> AnnotationSet:
                return self.told(row.method, row.answers, seed, row.score)

            return ready or self.corrected(row.method, settings, seed, told=told, score=row.score, held_out=held_out)

        model = self.tried(cell, correct)
        if model is not None:
            found = evaluate(model, measured, train=self.pictures.train, device=self.device)
            cell["test" if role == "chosen" else "validation"] = scores_of(found)
        return cell | self.made_with(self._identity(row, settings, seed, role)), model

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
            pictures={name: len(each) for name, each in self.pictures.known().items()},
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
