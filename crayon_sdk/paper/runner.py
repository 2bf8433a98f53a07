"""What runs the cells of a table: every cell is a file, so that whoever stops goes on, and several may work at once."""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crayon_sdk import __version__
from crayon_sdk._base.files import locked, read_json, sha256_of, write_json
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
from crayon_sdk.explain.masks import drawn, simulate_answers, simulate_neuron_answers
from crayon_sdk.models.passes import in_classes_of
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import versions
from crayon_sdk.results.evaluation import Evaluation

__all__ = ["Bench", "Cell", "Pictures", "nested", "read_pictures", "scores_of", "target_of"]

_log = logging.getLogger(__name__)
Cell = dict[str, Any]


@dataclass(frozen=True)
class Pictures:
    """The three splits, all with groups.

    Attributes:
        train: With masks where a method or the simulated answers need them.
        validation: By which settings are chosen; none where they are published.
        test: Measured for chosen settings alone.
        mixed_same: Of the Backgrounds Challenge, whose test pictures are Mixed-Rand: what the gap is measured against.
    """

    train: ImageDataset
    validation: ImageDataset | None
    test: ImageDataset
    mixed_same: ImageDataset | None = None

    def known(self) -> dict[str, ImageDataset]:
        """Those that there are, by name."""
        return {name: each for name, each in vars(self).items() if each is not None}


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


class Bench:
    """A model, pictures and a folder of finished cells: what all tables have in common.

    Args:
        model: The model to correct.
        pictures: To train on, to choose by, to measure on.
        output: A folder, in which ``cells`` is.
        device: "auto" or a torch device.
        needing: What needs object masks, by name; refused where there are none.
        answers: What people said about the maps and neurons of the model; else answers are simulated from masks.
        on_cell: Is told what was done.

    Raises:
        DataError: The pictures lack groups, or masks that are needed.
    """

    def __init__(
        self,
        model: SplitModel,
        pictures: Pictures,
        output: Path,
        *,
        device: str | torch.device = "auto",
        needing: Sequence[str] = (),
        answers: AnnotationSet | None = None,
        on_cell: Callable[[str], None] = _log.info,
    ) -> None:
        self.output, self.device, self.given, self.on_cell = output, device, answers, on_cell
        self.model = model.copy().to(memory_format=torch.channels_last)
        brought = {name: in_classes_of(each, model) for name, each in pictures.known().items()}
        self.pictures = replace(pictures, **brought)
        for name, each in self.pictures.known().items():
            if not each.groups and pictures.mixed_same is None:
                raise DataError(
                    f"expected groups of the {name} pictures, got none; make the data set with group_columns="
                )
        if needing and not self.pictures.train.has_masks:
            raise DataError(
                f"expected object masks of the training pictures, which {len(needing)} rows need (such as "
                f"{needing[0]!r}) for themselves or to simulate answers, got none; name their column with "
                "mask_column=, or leave these rows out with methods="
            )
        self.inputs = {
            name: sha256_of(each.fingerprint, each.file_fingerprint, *each.group_labels)
            for name, each in self.pictures.known().items()
        }
        self.machine = machine()
        self.finished: dict[Path, Cell] = {}
        self.cells = output / "cells"

    # What methods are told

    @functools.cache  # noqa: B019 - as long as the table
    def maps(self, score: str, target: Any = "label") -> SaliencyMaps:
        """Of the original model on all training pictures."""
        return Explainer(self.model, score=score, target=target, device=self.device).explain(self.pictures.train)

    @functools.cache  # noqa: B019
    def _about_maps(self, score: str, target: Any) -> AnnotationSet:
        return simulate_answers(self.maps(score, target), self.pictures.train)

    @functools.cache  # noqa: B019
    def _about_neurons(self) -> AnnotationSet:
        patches = Explainer(self.model, device=self.device).explain_neurons(self.pictures.train)
        return simulate_neuron_answers(patches, self.pictures.train)

    def real_answers(self, method: str, score: str, target: Any = "label") -> AnnotationSet:
        """What people said, or would say who see the masks: about what the method needs, all maps or all neurons."""
        needs, found = methods[method].needs, AnnotationSet()
        if self.given is not None:
            return self.given
        if "answers" in needs:
            found = found.merge(self._about_maps(score, target))
        return found.merge(self._about_neurons()) if "neuron answers" in needs else found

    def told(
        self, method: str, kind: str, seed: int, score: str, *, count: int | None = None, target: Any = "label"
    ) -> AnnotationSet:
        """Answers that a method is told: real ones or a control, about all things or about some."""
        real = drawn(self.real_answers(method, score, target), count, seed=seed)
        blind = next((each for each in CONTROLS if each == kind), None)
        return real if blind is None else control(real, blind, seed=seed)

    # Cells

    def path_of(self, name: str, identity: Mapping[str, Any]) -> Path:
        """The file of a cell, by all that it is made from."""
        return self.cells / f"{name}-{sha256_of(json.dumps(identity, sort_keys=True))[:16]}.json"

    def known_at(self, path: Path) -> Cell | None:
        """A cell that is finished."""
        if path not in self.finished and path.is_file():
            self.finished[path] = read_json(path, remedy="Delete it, and run the same again.")
        return self.finished.get(path)

    def cell_at(self, path: Path, doing: str, make: Callable[[], Cell]) -> tuple[Cell | None, bool]:
        """A cell, made unless it is there, and whether it was; nothing where another process makes it now.

        The operating system takes the lock of a process back that dies: whoever comes next makes its cell.
        """
        known = self.known_at(path)
        if known is not None:
            return known, False
        lock = f".{path.stem}"
        self.cells.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.cells, doing=doing, timeout=0, name=lock):
                known = self.known_at(path)
                if known is not None:
                    return known, False
                cell = make()
                write_json(path, cell)
                self.finished[path] = cell
        except WorkspaceBusyError:
            return None, False
        (self.cells / lock).unlink(missing_ok=True)  # whoever takes it now looks for the cell first
        return cell, True

    def identity(self, settings: Mapping[str, Any], seed: int, *splits: str, **more: Any) -> dict[str, Any]:
        """All that a cell is made from."""
        return {
            **more,
            "settings": settings,
            "seed": seed,
            "model": self.model.fingerprint,
            "pictures": {name: each for name, each in self.inputs.items() if name in splits} if splits else self.inputs,
            "crayon-sdk": __version__,
        }

    def corrected(
        self,
        method: str,
        settings: Mapping[str, Any],
        seed: int,
        *,
        told: Callable[[], AnnotationSet],
        score: str,
        held_out: ImageDataset | None = None,
        train: ImageDataset | None = None,
        model: SplitModel | None = None,
    ) -> nn.Module:
        """The model, corrected by a method that is told what it needs."""
        start = self.model if model is None else model
        if not method:
            return start
        pictures, given = self.pictures.train if train is None else train, dict[str, Any]()
        needs = methods[method].needs
        if "holdout" in needs:
            given["evaluate_on"] = held_out
        if "maps" in needs:
            maps = self.maps(score, target_of(settings))
            given["maps"] = maps if train is None else maps.select(train.ids)
        if needs & {"answers", "neuron answers"}:
            answers = told()
            given["answers"] = answers if train is None else answers.for_ids(train.ids, strict=False)
        corrector = made(method, start, nested(settings), device=self.device, seed=seed)
        found: nn.Module = corrector.fit(pictures, **given).model
        return found

    def tried(self, cell: Cell, correct: Callable[[], nn.Module]) -> nn.Module | None:
        """A corrected model; why there is none, and how long it took, are in the cell."""
        model, started = None, time.monotonic()
        try:
            model = correct()
        except (OutputError, MissingExtraError, HubError):
            raise  # says nothing about the method
        except CrayonError as error:
            cell["error"] = f"{type(error).__name__}: {first_line(error)}"
        cell["seconds"] = round(time.monotonic() - started, 1)
        return model

    def made_with(self, identity: Mapping[str, Any]) -> Cell:
        """What a cell says of how it was made."""
        return {"made_from": dict(identity), "machine": self.machine | versions()}


def target_of(settings: Mapping[str, Any]) -> Any:
    """Whose evidence the maps show that settings of a method are for."""
    return settings.get("target", settings.get("attention.target", "label"))


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
