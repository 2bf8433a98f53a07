"""`evaluate`: group accuracies, and the two numbers that papers compare."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crayon_sdk._base.files import read_json, write_json
from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk._base.showing import as_html, as_text, plain
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import FileFormatError, SettingsError
from crayon_sdk.functional import metrics
from crayon_sdk.models.passes import in_classes_of, predict
from crayon_sdk.models.split import as_split_model, borrowed

if TYPE_CHECKING:
    from rich.table import Table

_log = logging.getLogger(__name__)
__all__ = ["Evaluation", "GroupResult", "background_gap", "evaluate", "evaluation_of", "per_cent"]


@dataclass(frozen=True)
class GroupResult:
    """One group of an evaluation.

    Attributes:
        name: Class and attribute values, such as "waterbird/land".
        correct: Samples that were classified rightly.
        total: Samples in the group.
        weight: Samples of the group in the training set; ``None`` when none was given.
    """

    name: str
    correct: int
    total: int
    weight: int | None = None

    @property
    def accuracy(self) -> float:
        """Share that was right, in [0, 1]; NaN without samples."""
        return self.correct / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy, for independent samples; (0, 1) without samples.

        Where samples go together, such as one object on two backgrounds, use `compare(clusters=)` for differences.
        """
        return metrics.wilson_interval(self.correct, self.total) if self.total else (0.0, 1.0)


@dataclass(frozen=True)
class Evaluation:
    """How a model does on a data set.

    Without group columns the groups are the classes.

    Attributes:
        groups: Per group, in a stable order.
        predictions: Predicted class index by sample id.
        grouped: Whether the data set had group columns.
        skipped: Ids of samples that the data set left out.
        labels: True class index by sample id.
        membership: Index into ``groups`` by sample id.

    Example:
        >>> groups = (GroupResult("cat", 9, 10, 90), GroupResult("dog", 1, 10, 10))
        >>> result = Evaluation(groups)
        >>> result.worst_group, result.mean_group, round(result.weighted_mean, 2)
        (0.1, 0.5, 0.82)
    """

    groups: tuple[GroupResult, ...]
    predictions: Mapping[str, int] = field(default_factory=dict, repr=False)
    grouped: bool = True
    skipped: tuple[str, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict, repr=False)
    membership: Mapping[str, int] = field(default_factory=dict, repr=False)

    def _accuracies(self) -> Tensor:
        return torch.tensor([group.accuracy for group in self.groups], dtype=torch.float64)

    @property
    def accuracy(self) -> float:
        """Share of all samples that was right."""
        return sum(group.correct for group in self.groups) / sum(group.total for group in self.groups)

    @property
    def worst_group(self) -> float:
        """Worst-group accuracy (WGA), in [0, 1]."""
        return metrics.worst_group(self._accuracies())

    @property
    def mean_group(self) -> float:
        """Mean-group accuracy (MGA): unweighted, in [0, 1]."""
        return metrics.mean_group(self._accuracies())

    @property
    def weighted_mean(self) -> float:
        """Mean over groups weighted by their sizes in training; NaN when no training set was given."""
        if any(group.weight is None for group in self.groups):
            return math.nan
        weights = torch.tensor([group.weight or 0 for group in self.groups])
        return metrics.weighted_mean(self._accuracies(), weights)

    def summary(self) -> dict[str, float]:
        """The numbers that one compares, by name; what is not known is left out."""
        numbers = {
            "worst_group": self.worst_group,
            "mean_group": self.mean_group,
            "weighted_mean": self.weighted_mean,
            "accuracy": self.accuracy,
        }
        return {name: value for name, value in numbers.items() if not math.isnan(value)}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with everything in it."""
        return {
            "summary": self.summary(),
            "grouped": self.grouped,
            "groups": [asdict(group) for group in self.groups],
            "skipped": list(self.skipped),
            "predictions": dict(self.predictions),
            "labels": dict(self.labels),
            "membership": dict(self.membership),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file.

        Raises:
            OutputError: It cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read what [`save`][crayon_sdk.results.evaluation.Evaluation.save] wrote.

        Raises:
            FileFormatError: It is not such a file.
        """
        try:
            return cls.from_dict(read_json(path, remedy="Evaluate again, or copy it again."))
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{os.fspath(path)!r} is not an evaluation: {error!r} is missing or wrong") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Make it again from what [`to_dict`][crayon_sdk.results.evaluation.Evaluation.to_dict] gave.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of the wrong type.
            ValueError: There are no groups, or counts that cannot be.
        """
        groups = tuple(GroupResult(**group) for group in values["groups"])
        if not isinstance(values["skipped"], list | tuple):
            raise TypeError("expected a list of skipped samples")
        if not groups or not all(0 <= group.correct <= group.total for group in groups):
            raise ValueError("expected groups with 0 <= correct <= total")
        # Labels and membership are younger than the format; without them only `compare` is missing.
        of_samples = {name: dict(values.get(name, {})) for name in ("labels", "membership")}
        found = cls(
            groups,
            predictions=dict(values["predictions"]),
            grouped=values["grouped"],
            skipped=tuple(values["skipped"]),
            **of_samples,
        )
        found._check(values.get("summary"))
        return found

    def _check(self, summary: Mapping[str, float] | None) -> None:
        """See that the numbers are those of the predictions."""
        whole = [*self.predictions.values(), *self.labels.values(), *self.membership.values()]
        whole += [number for group in self.groups for number in (group.correct, group.total, group.weight or 0)]
        texts = [*self.predictions, *self.skipped, *(group.name for group in self.groups)]
        if not all(type(number) is int and number >= 0 for number in whole) or type(self.grouped) is not bool:
            raise TypeError("expected counts and classes as whole numbers from 0")
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("expected names of groups and samples as text")
        if self.labels or self.membership:
            if not self.predictions.keys() == self.labels.keys() == self.membership.keys():
                raise ValueError("expected a prediction, a label and a group for every sample")
            counted = [[0, 0] for _ in self.groups]
            for sample, group in self.membership.items():
                if group >= len(counted):
                    raise ValueError(f"there is no group {group}")
                counted[group][0] += self.predictions[sample] == self.labels[sample]
                counted[group][1] += 1
            if counted != [[group.correct, group.total] for group in self.groups]:
                raise ValueError("the counts of the groups are not those of the predictions")
        own = self.summary()
        if summary is not None and (
            own.keys() != summary.keys() or not all(math.isclose(own[key], summary[key], abs_tol=1e-9) for key in own)
        ):
            raise ValueError("the summary is not that of the groups")

    def table(self, title: str = "Accuracy by group") -> Table:
        """A rich table for the terminal."""
        from rich.table import Table

        table = Table(title=title)
        table.add_column("group")
        for name in ("n", "accuracy %", "95 % interval"):
            table.add_column(name, justify="right")
        for group in self.groups:
            low, high = group.interval
            table.add_row(
                plain(group.name), str(group.total), per_cent(group.accuracy), f"{100 * low:.1f} - {100 * high:.1f}"
            )
        table.add_section()
        names = ("worst group (WGA)", "mean group (MGA)", "training-weighted mean", "all samples")
        values = (self.worst_group, self.mean_group, self.weighted_mean, self.accuracy)
        for name, value in zip(names, values, strict=True):
            if not math.isnan(value):
                table.add_row(name, "", per_cent(value), "")
        return table

    def __repr__(self) -> str:
        samples = sum(group.total for group in self.groups)
        numbers = ", ".join(f"{name} {per_cent(value)} %" for name, value in self.summary().items()) if samples else ""
        return f"Evaluation({samples:,} samples in {len(self.groups):,} groups{numbers and ': '}{numbers})"

    def __str__(self) -> str:
        return as_text(self.table())

    def _repr_html_(self) -> str:
        return as_html(self.table())


def per_cent(value: float | None) -> str:
    """A share in per cent, with one digit; "-" where nothing was measured.

    Example:
        >>> per_cent(0.9127), per_cent(math.nan), per_cent(None)
        ('91.3', '-', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def evaluate(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    train: ImageDataset | None = None,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Evaluation:
    """Measure a model in every group of a data set.

    Args:
        model: A `SplitModel` or timm model; it comes back as it was.
        dataset: What to measure on.
        train: The training set, whose group sizes weigh the weighted mean.
        batch_size: Pictures at a time.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).

    Returns:
        Accuracies, predictions, and what was skipped.

    Raises:
        DataError: A picture cannot be read, or there are none.
        SettingsError: It is not clear which class of the model a class of the data is (``class_map``).

    Example:
        >>> from crayon_sdk import load_model
        >>> pictures = [(torch.rand(3, 160, 160), index % 2) for index in range(4)]
        >>> model = load_model("test_resnet.r160_in1k", pretrained=False, num_classes=2)
        >>> evaluate(model, ImageDataset.from_torch(pictures)).groups[0].total
        2
    """
    split = as_split_model(model)
    dataset = in_classes_of(dataset, split)
    if train is not None:
        train = in_classes_of(train, split)
        warn_of_training_pictures(dataset, train)
    place = resolve_device(device, split.device)
    autocast = resolve_precision(precision, place)
    with borrowed(split, place):
        logits = predict(split, dataset, device=place, autocast=autocast, batch_size=batch_size)
    return evaluation_of(logits.argmax(dim=1), dataset, train)


def warn_of_training_pictures(dataset: ImageDataset, train: ImageDataset) -> None:
    """Say how many of the files that are measured on are training pictures; of other sources nothing is known."""
    shared = len(set(dataset.files) & set(train.files))
    if shared:
        _log.warning(
            "%d of the %d pictures that are measured on are training pictures (the same files): what comes out says "
            "nothing about others",
            shared,
            len(dataset),
        )


def evaluation_of(predicted: Tensor, dataset: ImageDataset, train: ImageDataset | None = None) -> Evaluation:
    """Turn predicted classes (N,) into an evaluation."""
    groups, names = dataset.group_index()
    correct = torch.bincount(groups, weights=(predicted == dataset.labels).double(), minlength=len(names)).long()
    totals = torch.bincount(groups, minlength=len(names))
    weights: list[int | None] = [None] * len(names)
    if train is not None:
        if train.group_names != dataset.group_names:
            raise SettingsError(
                f"expected a training set with the group columns {dataset.group_names}, got {train.group_names}"
            )
        labels = train.group_labels
        weights = [labels.count(name) for name in names]
    rows = zip(names, correct.tolist(), totals.tolist(), weights, strict=True)
    return Evaluation(
        groups=tuple(GroupResult(*row) for row in rows),
        predictions=dict(zip(dataset.ids, predicted.tolist(), strict=True)),
        labels=dict(zip(dataset.ids, dataset.labels.tolist(), strict=True)),
        membership=dict(zip(dataset.ids, groups.tolist(), strict=True)),
        grouped=bool(dataset.group_names),
        skipped=tuple(sample.id for sample in dataset.skipped),
    )


def background_gap(
    model: nn.Module,
    mixed_same: ImageDataset,
    mixed_rand: ImageDataset,
    *,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> float:
    """BG-Gap of the Backgrounds Challenge, from its two data sets.

    Args:
        model: The model to measure.
        mixed_same: Objects on backgrounds of their own class.
        mixed_rand: The same objects on backgrounds of random classes.
        batch_size: Pictures at a time.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).

    Returns:
        accuracy(Mixed-Same) - accuracy(Mixed-Rand), in [-1, 1].
    """
    settings = {"batch_size": batch_size, "device": device, "precision": precision}
    same, rand = (evaluate(model, data, **settings).accuracy for data in (mixed_same, mixed_rand))  # type: ignore[arg-type]
    return metrics.background_gap(same, rand)
