"""`compare`: models side by side on the same test pictures, and which differences exceed the noise."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from crayon_sdk._base.files import write_json
from crayon_sdk._base.showing import as_html, as_text, plain
from crayon_sdk._base.text import first_few, one_line
from crayon_sdk.errors import MismatchError, SettingsError
from crayon_sdk.functional import metrics
from crayon_sdk.results.evaluation import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Comparison", "Difference", "compare"]

_NAMES = {"worst_group": "worst group (WGA)", "mean_group": "mean group (MGA)", "accuracy": "all samples"}


@dataclass(frozen=True)
class Difference:
    """How far a model is from the baseline in one number.

    Attributes:
        model: Which model.
        number: "worst_group", "mean_group" or "accuracy".
        value: Model minus baseline, in [-1, 1].
        low: Lower limit of the bootstrap interval.
        high: Upper limit.
    """

    model: str
    number: str
    value: float
    low: float
    high: float

    @property
    def exceeds_noise(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Models side by side on the same test pictures.

    Attributes:
        baseline: The model that the others are compared with.
        evaluations: By name, the baseline among them.
        differences: Of every other model, number by number.
        samples: How many test pictures.
        resamples: How many test sets were drawn.
        confidence: Of the intervals.
        seed: Of the draws.
        clusters: How many clusters of pictures were drawn from; ``None`` when every picture was taken for independent.
    """

    baseline: str
    evaluations: Mapping[str, Evaluation] = field(repr=False)
    differences: tuple[Difference, ...]
    samples: int
    resamples: int
    confidence: float
    seed: int
    clusters: int | None = None

    def __repr__(self) -> str:
        others = [name for name in self.evaluations if name != self.baseline]
        beyond = sum(each.exceeds_noise for each in self.differences)
        return (
            f"Comparison({one_line(', '.join(others), 80)} against {one_line(self.baseline, 40)} on {self.samples:,} "
            f"pictures: {beyond} of {len(self.differences)} differences exceed the noise)"
        )

    def __str__(self) -> str:
        return as_text(self.table())

    def _repr_html_(self) -> str:
        return as_html(self.table())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; predictions of single samples are left out."""
        return {
            "baseline": self.baseline,
            "summaries": {name: found.summary() for name, found in self.evaluations.items()},
            "differences": [asdict(each) | {"exceeds_noise": each.exceeds_noise} for each in self.differences],
            "samples": self.samples,
            "resamples": self.resamples,
            "confidence": self.confidence,
            "seed": self.seed,
            "clusters": self.clusters,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file.

        Raises:
            OutputError: It cannot be written.
        """
        write_json(path, self.to_dict())

    def table(self, title: str = "") -> Table:
        """A rich table for the terminal: accuracies in per cent, differences in points."""
        from rich.table import Table

        table = Table(title=title or f"Accuracy in % on the same {self.samples:,} pictures")
        table.add_column("", no_wrap=True)
        table.add_column("n", justify="right")
        for name in self.evaluations:
            table.add_column(plain(name), justify="right")
        everyone = list(self.evaluations.values())
        for number, group in enumerate(everyone[0].groups):
            accuracies = [each.groups[number].accuracy for each in everyone]
            table.add_row(plain(group.name), f"{group.total:,}", *(f"{100 * value:.1f}" for value in accuracies))
        table.add_section()
        for key, name in _NAMES.items():
            table.add_row(name, "", *(f"{100 * each.summary()[key]:.1f}" for each in everyone))
        table.add_section()
        found = {(each.model, each.number): each for each in self.differences}
        for key, name in _NAMES.items():
            cells = [
                _points(found[model, key]) if (model, key) in found else ("-" if model == self.baseline else "")
                for model in self.evaluations
            ]
            table.add_row(f"\u0394 {name}", "", *cells)
        drawn = "the pictures" if self.clusters is None else f"the {self.clusters:,} clusters of pictures"
        table.caption = (
            f"\u0394: points against {plain(self.baseline)}, with {100 * self.confidence:g} % intervals of "
            f"{self.resamples:,} paired resamples of {drawn}; * exceeds the noise of the test set (that of training is "
            "not in it)"
        )
        return table


def _points(difference: Difference) -> str:
    mark = " *" if difference.exceeds_noise else ""
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]{mark}"


def compare(
    evaluations: Mapping[str, Evaluation],
    *,
    baseline: str | None = None,
    clusters: Mapping[str, Hashable] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare models on the same test pictures by a paired bootstrap.

    Args:
        evaluations: At least two, by name, of the same samples.
        baseline: Which one the others are compared with; default the first.
        clusters: Sample id -> which samples belong together, such as the object that is shown on two backgrounds;
            they are drawn together. ``None`` takes every sample for independent of the others.
        resamples: How many test sets to draw, at least 100.
        confidence: Of the intervals, between 0 and 1.
        seed: Of the draws.

    Returns:
        Accuracies and differences with intervals.

    Raises:
        MismatchError: The evaluations are not of the same samples and groups, or a sample has no cluster.
        SettingsError: A setting is out of range, or there is nothing to compare.

    Example:
        >>> from crayon_sdk.results.evaluation import GroupResult
        >>> ids = [str(number) for number in range(100)]
        >>> same = {"labels": dict.fromkeys(ids, 0), "membership": dict.fromkeys(ids, 0)}
        >>> before = Evaluation((GroupResult("cat", 0, 100),), dict.fromkeys(ids, 1), **same)
        >>> after = Evaluation((GroupResult("cat", 100, 100),), dict.fromkeys(ids, 0), **same)
        >>> compare({"before": before, "after": after}).differences[0].exceeds_noise
        True
    """
    if not isinstance(evaluations, Mapping) or not all(isinstance(each, Evaluation) for each in evaluations.values()):
        raise SettingsError(
            f"expected a dict of evaluations by name, such as {{'before': evaluate(...), 'after': evaluate(...)}}, got "
            f"{one_line(repr(evaluations))}"
        )
    names = list(evaluations)
    if len(names) < 2:
        raise SettingsError(f"expected at least two evaluations to compare, got {len(names)}")
    baseline = names[0] if baseline is None else baseline
    if baseline not in evaluations:
        raise SettingsError(f"expected a baseline of {', '.join(names)}, got {baseline!r}")
    if not 0 < confidence < 1 or resamples < 100:
        raise SettingsError(f"expected confidence in (0, 1) and resamples >= 100, got {confidence} and {resamples}")
    first = evaluations[baseline]
    for name in names:
        _check_same(baseline, first, name, evaluations[name])
    ids = list(first.predictions)
    correct = torch.tensor(
        [[found.predictions[sample] == found.labels[sample] for sample in ids] for found in evaluations.values()]
    )
    groups = torch.tensor([first.membership[sample] for sample in ids])
    together = None if clusters is None else _clusters(clusters, ids)
    drawn = metrics.paired_bootstrap(
        correct, groups, len(first.groups), clusters=together, resamples=resamples, seed=seed
    )
    numbers = _numbers(drawn, torch.bincount(groups, minlength=len(first.groups)))
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    differences = []
    for position, name in enumerate(names):
        for number, values in numbers.items():
            if name == baseline:
                continue
            low, high = (values[:, position] - values[:, names.index(baseline)]).quantile(tails).tolist()
            value = evaluations[name].summary()[number] - first.summary()[number]
            differences.append(Difference(name, number, value, low, high))
    drawn_from = None if together is None else int(together.max()) + 1
    return Comparison(
        baseline, dict(evaluations), tuple(differences), len(ids), resamples, confidence, seed, drawn_from
    )


def _clusters(clusters: Mapping[str, Hashable], ids: Sequence[str]) -> Tensor:
    lacking = [sample for sample in ids if sample not in clusters]
    if lacking:
        raise MismatchError(
            f"clusters= says nothing about {len(lacking)} of {len(ids)} samples: {first_few(lacking)}. Give every "
            "sample that was evaluated a cluster"
        )
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(clusters[sample], len(numbers)) for sample in ids])


def _numbers(drawn: Tensor, sizes: Tensor) -> dict[str, Tensor]:
    """WGA, MGA and accuracy (R, K) of resampled group accuracies (R, K, G)."""
    present = drawn[..., sizes > 0]
    share = sizes[sizes > 0].double() / sizes.sum()
    return {
        "worst_group": present.amin(dim=2),
        "mean_group": present.mean(dim=2),
        "accuracy": (present * share).sum(dim=2),
    }


def _check_same(baseline: str, first: Evaluation, name: str, other: Evaluation) -> None:
    if not other.predictions or set(other.predictions) - set(other.membership) or not other.labels:
        raise MismatchError(
            f"the evaluation {name!r} does not say what each sample is; it was written by an older version: "
            "evaluate again"
        )
    different = sorted(set(first.predictions) ^ set(other.predictions))
    if different:
        raise MismatchError(
            f"{baseline!r} and {name!r} were evaluated on different samples; {len(different)} are in only one of them: "
            f"{first_few(different)}. Evaluate both on the same data"
        )
    if first.membership != other.membership or first.labels != other.labels:
        raise MismatchError(
            f"{baseline!r} and {name!r} were evaluated with different labels or groups; evaluate both on the same data"
        )
