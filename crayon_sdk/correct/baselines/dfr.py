"""`DeepFeatureReweighting`: a new last layer from pictures with as many of every group (DFR)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from crayon_sdk._base.progress import track
from crayon_sdk._base.settings import Number, OneOrMore
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.baselines.held_out import LearnsHeldOut, check_refit, neurons_of_all, put_last_layer, scale
from crayon_sdk.correct.method import Method, check_needs, method
from crayon_sdk.correct.settings import Seed, settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.errors import DataError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.functional.robust import balanced_rows, sparse_logistic
from crayon_sdk.results.correction import Correction

__all__ = ["DFRSettings", "DeepFeatureReweighting", "DeepFeatureReweightingOnTraining", "refitted"]

# The grid of the authors' code.
_STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)


@settings
class DFRSettings:
    """How the last layer is fitted."""

    strength: Number | None = None
    """Weight of the cross entropy against the L1 norm of the layer (C of the logistic regression); where it is not
    said, that of 1, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01 with the best worst group on one half after fitting on the
    other."""
    repeats: OneOrMore = 20
    """How many layers are fitted, each on another draw with as many pictures of every group; their mean is the
    result."""
    seed: Seed = 0
    """Of the halves and the draws."""


@settings
class _TrainingDFRSettings(DFRSettings):
    """How the last layer is fitted to training pictures."""

    repeats: OneOrMore = 10


def refitted(
    method: str,
    fit: Fit,
    train: list[Tensor],
    rows: list[Tensor],
    labels: Tensor,
    groups: Tensor,
    *,
    repeats: int,
) -> Correction:
    """Fit a last layer with as many pictures of every group, put it into the copy, and write it down.

    Args:
        method: Its name.
        fit: The correction, whose settings say ``strength`` and ``seed``.
        train: Neurons of the training pictures, from which means and deviations are.
        rows: Neurons of the pictures that are learned from.
        labels: Their classes.
        groups: (N,) int64, what is to be balanced.
        repeats: How many draws.
    """
    settings, model = fit.settings, fit.model
    features, many = torch.cat(rows, dim=1).cpu().double(), model.num_classes
    generator = torch.Generator().manual_seed(settings.seed)
    if settings.strength is None:
        strength = _chosen(features, labels, groups, num_classes=many, generator=generator)
        fit.settings = settings = replace(settings, strength=strength)  # what counts is what is written down
    mean, deviation = scale(torch.cat(train, dim=1).cpu().double())
    found = []
    for drawn in _draws(groups, generator, repeats):
        scaled = (features[drawn] - mean) / deviation
        found.append(sparse_logistic(scaled, labels[drawn], many, settings.strength))
    weight, bias = (torch.stack(each).mean(dim=0) for each in zip(*found, strict=True))
    folded = weight / deviation
    put_last_layer(model, folded, bias - folded @ mean)
    counts = {
        "pictures": len(labels),
        "groups": len(groups.unique()),
        "of_each_group": len(balanced_rows(groups, generator)) // len(groups.unique()),
        "used_neurons": int((folded != 0).any(dim=0).sum()),
    }
    return fit.finish(method, [], AnnotationSet(), counts)


@method
class DeepFeatureReweighting(LearnsHeldOut[DFRSettings], DFRSettings):
    """DFR-Val: give a copy of a model a new last layer, fitted to held-out pictures with as many of every group.

    What the network sees does not change, only what it makes of it. It knows the groups of the pictures of
    ``evaluate_on``, and learns from these: they measure nothing then, and the result is to be evaluated on others. The
    layer is a logistic regression with an L1 penalty on standardised neurons, the mean of several draws, folded back so
    that the result is a plain checkpoint. It is fitted within seconds once the neurons are computed; a run that was
    stopped starts anew.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map, or no biases in its last layer.
    """

    method = "dfr"
    title: ClassVar[str] = "Deep Feature Reweighting, held out (DFR-Val)"
    paper: ClassVar[str] = "Kirichenko et al., ICLR 2023"
    needs = frozenset({"holdout", "holdout groups"})
    _shown = ("strength", "repeats")

    def learned(self, fit: Fit, held_out: ImageDataset) -> Correction:
        """Fit the layer to as many pictures of every group."""
        check_refit(fit, held_out)
        train, rows = neurons_of_all(fit, fit.dataset), neurons_of_all(fit, held_out)
        groups = held_out.group_index()[0]
        return refitted(self.method, fit, train, rows, held_out.labels, groups, repeats=self.settings.repeats)


@method
class DeepFeatureReweightingOnTraining(Method[_TrainingDFRSettings], _TrainingDFRSettings):
    """DFR-Tr: as DFR-Val, but with the training pictures, of which the groups must be known.

    It needs no other pictures. The network knows these, so that their errors say less; the strength is chosen on halves
    of them too.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map, or no biases in its last layer.
    """

    method = "dfr-tr"
    title: ClassVar[str] = "Deep Feature Reweighting, training set (DFR-Tr)"
    paper: ClassVar[str] = "Kirichenko et al., ICLR 2023"
    needs = frozenset({"groups"})
    _shown = ("strength", "repeats")

    def fit(
        self,
        dataset: ImageDataset,
        evaluate_on: ImageDataset | None = None,
        *,
        maps: SaliencyMaps | None = None,
        answers: AnnotationSet | None = None,
        strict: bool = True,
    ) -> Correction:
        """Correct a copy of the model.

        Args:
            dataset: The training set, with groups.
            evaluate_on: Measured before and after; not used for training.
            maps: Have no effect.
            answers: Have no effect.
            strict: Has no effect.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            DataError: The training set has no groups, or no pictures of a class.
        """
        check_needs(self, as_dataset(dataset), evaluate_on)
        fit = Fit(self.model, dataset, evaluate_on, self.device, self.autocast, self.settings)
        check_refit(fit, fit.dataset)
        rows = neurons_of_all(fit, fit.dataset)
        groups = fit.dataset.group_index()[0]
        return refitted(self.method, fit, rows, rows, fit.dataset.labels, groups, repeats=self.settings.repeats)


def _draws(groups: Tensor, generator: torch.Generator, count: int) -> Iterator[Tensor]:
    """Balanced draws, with a progress bar."""
    with track("fitting last layers", count) as advance:
        for _ in range(count):
            yield balanced_rows(groups, generator)
            advance(1)


def _chosen(features: Tensor, labels: Tensor, groups: Tensor, *, num_classes: int, generator: torch.Generator) -> float:
    """The strength with the best worst group on one half after fitting on the other; of equals, the best mean."""
    parts = []
    for group in groups.unique().tolist():  # of every group one half: by chance alone a small one might miss
        members = (groups == group).nonzero().flatten()
        parts.append(members[torch.randperm(len(members), generator=generator)].tensor_split(2))
    fitted, scored = (torch.cat(each) for each in zip(*parts, strict=True))
    if not len(scored):
        raise DataError("expected two pictures or more of some group to choose strength by, got one of each; say one")
    drawn = fitted[balanced_rows(groups[fitted], generator)]
    mean, deviation = scale(features[drawn])
    sizes = torch.bincount(groups[scored])
    best, chosen = (-1.0, -1.0), _STRENGTHS[0]
    for strength in reversed(_STRENGTHS):
        weight, bias = sparse_logistic((features[drawn] - mean) / deviation, labels[drawn], num_classes, strength)
        predicted = ((features[scored] - mean) / deviation @ weight.T + bias).argmax(dim=1)
        right = torch.bincount(groups[scored], weights=(predicted == labels[scored]).double(), minlength=len(sizes))
        accuracies = (right / sizes)[sizes > 0]
        found = float(accuracies.min()), float(accuracies.mean())
        if found > best:
            best, chosen = found, strength
    return chosen
