"""Runs the tables whose settings are known from the start, cell by cell, and says before how long that takes."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from crayon_sdk._base.files import check_writable
from crayon_sdk._base.methods import methods
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.errors import SettingsError
from crayon_sdk.models.passes import in_classes_of
from crayon_sdk.models.split import SplitModel, as_split_model
from crayon_sdk.paper.ahead import Estimate, estimated, seconds_of_step, work_of
from crayon_sdk.paper.findings import Findings, Line
from crayon_sdk.paper.runner import Bench, Cell, Pictures, scores_of, target_of
from crayon_sdk.paper.tables import Plan, Point, points_of
from crayon_sdk.results.correction import versions
from crayon_sdk.results.evaluation import evaluate, per_cent
from crayon_sdk.show.style import needs_matplotlib

__all__ = ["estimate", "run_plan"]

_log = logging.getLogger(__name__)
_PAUSE = 2.0  # seconds, until another process may be done with a cell


def run_plan(
    plan: Plan,
    model: nn.Module,
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    student: nn.Module | None = None,
    answers: AnnotationSet | None = None,
    data_set: str = "",
    device: str | torch.device = "auto",
    command: str = "",
    on_cell: Callable[[str], None] = _log.info,
) -> Findings:
    """Run what is missing of a table, and write it.

    A finished cell is a file in ``output``: whoever stops goes on with the same call, and several processes may work in
    one folder; of a process that died the cell is made by whoever comes next. Runtimes mean something only where one
    process works.

    Args:
        plan: What is run.
        model: The model to correct; with "transfer" the one whose maps are answered.
        pictures: To train on and to measure on.
        output: A folder; there ``NAME.csv``, ``NAME.md``, ``NAME.png``, and ``cells``.
        student: With "transfer": the model to correct.
        answers: What people said about maps and neurons of the model; else answers are simulated from masks.
        data_set: Of the paper, whose numbers are put beside; "" for others.
        device: "auto" or a torch device.
        command: What was typed.
        on_cell: Is told what was done, and how long the rest takes.

    Returns:
        The table.

    Raises:
        DataError: The pictures lack groups or masks.
        MissingExtraError: matplotlib is not installed.
        OutputError: Nothing can be written there.
        SettingsError: The plan does not fit, or there is no student.
    """
    needs_matplotlib()
    check_writable(output)
    points = points_of(plan)
    runs = _Runs(plan, points, as_split_model(model), pictures, Path(output), student, answers, device, on_cell)
    left = [(point, seed) for point in points for seed in runs.seeds_of(point)]
    while left:
        waiting = [each for each in left if not runs.finish(*each)]
        if len(waiting) == len(left):
            time.sleep(_PAUSE)
        left = waiting
    return runs.findings(data_set, command)


def estimate(
    plan: Plan,
    model: nn.Module,
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    student: nn.Module | None = None,
    answers: AnnotationSet | None = None,
    device: str | torch.device = "auto",
) -> Estimate:
    """Say how long a table takes: from its finished cells, else from one step of training; nothing is trained.

    Args:
        plan: What would be run.
        model: As for `run_plan`.
        pictures: As for `run_plan`.
        output: As for `run_plan`.
        student: As for `run_plan`.
        answers: As for `run_plan`.
        device: As for `run_plan`.

    Raises:
        DataError: The pictures lack groups or masks.
        SettingsError: The plan does not fit, or there is no student.
    """
    points = points_of(plan)
    runs = _Runs(plan, points, as_split_model(model), pictures, Path(output), student, answers, device, _log.info)
    return runs.estimate()


class _Runs(Bench):
    """The cells of a plan."""

    def __init__(
        self,
        plan: Plan,
        points: tuple[Point, ...],
        model: SplitModel,
        pictures: Pictures,
        output: Path,
        student: nn.Module | None,
        answers: AnnotationSet | None,
        device: str | torch.device,
        on_cell: Callable[[str], None],
    ) -> None:
        if any(point.student for point in points) and student is None:
            raise SettingsError("expected the other model, which is guided by the maps of this one; pass student=")
        asked = [point.name for point in points if point.answers and answers is None]
        masked = [point.name for point in points if point.method and "masks" in _needs(point.method)]
        super().__init__(
            model, pictures, output, device=device, needing=[*masked, *asked], answers=answers, on_cell=on_cell
        )
        self.plan, self.points = plan, points
        self.student = None if student is None else as_split_model(student)
        if self.student is not None:
            in_classes_of(self.pictures.train, self.student)

    def seeds_of(self, point: Point) -> tuple[int, ...]:
        """The seeds of a point; what is not trained has one."""
        return self.plan.seeds if point.method else self.plan.seeds[:1]

    def path(self, point: Point, seed: int) -> Path:
        """The file of a cell."""
        return self.path_of(f"{self.plan.table}-{point.name}-seed{seed}"[:120], self._identity(point, seed))

    def _identity(self, point: Point, seed: int) -> dict[str, object]:
        about: dict[str, object] = {
            "method": point.method,
            "answers": point.answers,
            "given": "" if self.given is None or not point.answers else self.given.fingerprint,
            "count": point.count,
            "share": point.share,
            "role": "timed" if self.plan.table == "runtime" else "measured",
            "student": self.student.fingerprint if point.student and self.student is not None else "",
        }
        return self.identity(point.settings or {}, seed, **about)

    def finish(self, point: Point, seed: int) -> bool:
        """Make a cell that is not there; false where another process makes it."""
        cell, fresh = self.cell_at(
            self.path(point, seed), f"bench {self.plan.table}: {point.name}", lambda: self._made(point, seed)
        )
        if cell is not None and fresh:
            measured = cell.get("test", {}).get(self.measures[0])
            said = cell["error"] or (f"{per_cent(measured)} %" if measured is not None else "done")
            ahead = self.estimate(probe=False).so_far
            self.on_cell(f"{point.name}, seed {seed}: {said} ({cell['seconds']:.0f} s); {ahead}")
        return cell is not None

    @property
    def measures(self) -> tuple[str, str]:
        """What is read of a cell."""
        return ("worst_group", "mean_group") if self.pictures.mixed_same is None else ("accuracy", "background_gap")

    def _made(self, point: Point, seed: int) -> Cell:
        cell: Cell = {"point": point.name, "settings": point.settings or {}, "seed": seed, "error": ""}
        model = self.student if point.student else self.model
        train, target = self.pictures.train, target_of(point.settings or {})
        if point.share < 1:
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
            train = train.subset([train.ids[at] for at in sorted(order[: max(1, round(point.share * len(train)))])])
        if point.method and "maps" in _needs(point.method):
            self.maps("logit", target)  # not a part of the correction whose time is taken
        if point.answers:
            self.real_answers(point.method, "logit", target)

        def told() -> AnnotationSet:
            return self.told(point.method, point.answers, seed, "logit", count=point.count, target=target)

        corrected = self.tried(
            cell,
            lambda: self.corrected(
                point.method,
                point.settings or {},
                seed,
                told=told,
                score="logit",
                held_out=self.pictures.validation,
                train=None if point.share == 1 else train,
                model=model,
            ),
        )
        cell["pictures"] = len(train)
        if corrected is not None and self.plan.table != "runtime":
            found = evaluate(corrected, self.pictures.test, device=self.device)
            cell["test"] = scores_of(found) | {"accuracy": found.accuracy}
            if self.pictures.mixed_same is not None:
                same = evaluate(corrected, self.pictures.mixed_same, device=self.device).accuracy
                cell["test"]["background_gap"] = same - found.accuracy
        return cell | self.made_with(self._identity(point, seed))

    def _cells(self) -> Iterable[tuple[Point, Cell | None]]:
        for point in self.points:
            for seed in self.seeds_of(point):
                yield point, self.known_at(self.path(point, seed))

    def estimate(self, *, probe: bool = True) -> Estimate:
        """How long the rest takes."""
        cells = [
            (point.method, work_of(point.method, point.settings or {}, len(self.pictures.train) * point.share), cell)
            for point, cell in self._cells()
        ]
        return estimated(cells, (lambda: seconds_of_step(self.model, self.device)) if probe else None)

    def findings(self, data_set: str, command: str) -> Findings:
        """Write the table as it is now."""
        lines, seconds = [], 0.0
        for point in self.points:
            cells = [self.known_at(self.path(point, seed)) for seed in self.seeds_of(point)]
            ran = [cell for cell in cells if cell is not None]
            seconds += sum(cell["seconds"] for cell in ran)
            errors = [cell["error"] for cell in ran if cell["error"]]
            first, second = (tuple(cell.get("test", {}).get(measure) for cell in ran) for measure in self.measures)
            lines.append(
                Line(
                    point=point,
                    first=first,
                    second=second,
                    seconds=tuple(None if cell["error"] else cell["seconds"] for cell in ran),
                    pictures=ran[0]["pictures"],
                    problem=errors[0] if errors else "",
                )
            )
        made = Findings(
            plan=self.plan,
            lines=tuple(lines),
            measures=("WGA", "MGA") if self.pictures.mixed_same is None else ("MR", "BG-Gap"),
            data_set=data_set,
            pictures={name: len(each) for name, each in self.pictures.known().items()},
            smallest_test_group=min(Counter(self.pictures.test.group_labels).values()),
            simulated=self.given is None or self.given.is_simulated,
            seconds=seconds,
            machine=self.machine | versions(),
            command=command,
        )
        made.save(self.output)
        return made


def _needs(method: str) -> frozenset[str]:
    found: frozenset[str] = methods[method].needs
    return found
