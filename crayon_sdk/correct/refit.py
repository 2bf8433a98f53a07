"""`LastLayerRefit`: a new last layer from some fresh labelled pictures, kept only where it does no harm."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crayon_sdk._base.progress import track
from crayon_sdk._base.settings import Number
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.baselines.held_out import LearnsHeldOut, check_refit, neurons_of_all, put_last_layer, scale
from crayon_sdk.correct.method import method
from crayon_sdk.correct.settings import Seed, settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.functional.groups import fit_softmax, foretold_classes
from crayon_sdk.functional.metrics import sign_test
from crayon_sdk.functional.selection import typical
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.results.correction import Correction

__all__ = ["LastLayerRefit", "RefitSettings"]

_log = logging.getLogger(__name__)
_PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_CHANCE = 0.05
_FOLDS, _ALIKE = 5, 10


@settings
class RefitSettings:
    """How the last layer is fitted."""

    penalty: Number | None = None
    """Ridge penalty of the standardised layer; where it is not said, that of 10, 3, 1, ... 0.001 with the best mean
    class accuracy in five folds, in which pictures that are alike are held out together."""
    guard: Literal["classes", "groups"] = "classes"
    """What must not get worse for the new layer to be kept: the accuracy of any class, or of any group of the pictures
    (columns of theirs, or discovered groups)."""
    seed: Seed = 0
    """Of the folds."""


@method
class LastLayerRefit(LearnsHeldOut[RefitSettings], RefitSettings):
    """Give a copy of a model a new last layer, fitted to fresh labelled pictures in which all classes count the same.

    A last stage, after a correction: its features become good long before its last layer does. Ridge-regularised
    softmax regression on the standardised neurons, folded back so that the result is a plain checkpoint. Out of five
    folds it is held against the layer that was there; where any class (or group, by ``guard``) loses more pictures than
    chance would explain, or the mean does not rise, the old one stays and the record says so. Not part of the paper.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map, or no biases in its last layer.
    """

    method = "refit"
    title: ClassVar[str] = "Last layer, refitted on fresh pictures"
    _shown = ("penalty", "guard")

    def learned(self, fit: Fit, held_out: ImageDataset) -> Correction:
        """Fit the layer, and keep it where it does no harm; else ``counts["kept"]`` is 0."""
        check_refit(fit, held_out)
        rows, labels, many = neurons_of_all(fit, held_out), held_out.labels, fit.model.num_classes
        with torch.no_grad():
            old = apply_final_layers(fit.model.final_layers, rows).argmax(dim=1).cpu()
        features = torch.cat(rows, dim=1).cpu().double()
        penalty, new = self._chosen(features, labels, many)
        fit.settings = replace(self.settings, penalty=penalty)  # what counts is what is written down
        parts = held_out.group_index()[0] if self.settings.guard == "groups" else labels
        why = _harm(old == labels, new == labels, parts, labels)
        if why:
            _log.warning("the last layer stays as it was: %s", why)
        else:
            mean, deviation = scale(features)
            weights = 1 / torch.bincount(labels, minlength=many).clamp_min(1)[labels]
            found = fit_softmax((features - mean) / deviation, labels, weights, penalty, many)
            folded = (found[:-1] / deviation[:, None]).T
            put_last_layer(fit.model, folded, found[-1] - folded @ mean)
        counts = {"pictures": len(held_out), "kept": int(not why)}
        return fit.finish(self.method, [], AnnotationSet(), counts)

    def _chosen(self, features: Tensor, labels: Tensor, many: int) -> tuple[float, Tensor]:
        """The penalty, and what a layer fitted with it makes of pictures that it did not see."""
        penalties = _PENALTIES if self.settings.penalty is None else (self.settings.penalty,)
        best, chosen, told, together = -1.0, penalties[0], labels, _alike(features, labels)
        with track("fitting last layers", len(penalties)) as advance:
            for penalty in penalties:  # from the strongest on, so that it wins where they are equal
                found = foretold_classes(
                    features, labels, many, penalty=penalty, folds=_FOLDS, seed=self.settings.seed, together=together
                ).argmax(dim=1)
                accuracy = _mean_over(found == labels, labels)
                if accuracy > best:
                    best, chosen, told = accuracy, penalty, found
                advance(1)
        return chosen, told


def _alike(features: Tensor, labels: Tensor) -> Tensor:
    """Clusters of pictures of one class that are alike, about ten in each.

    They are held out together: a layer that knows one picture of a thing by heart would else be praised for the next.
    """
    mean, deviation = scale(features)
    directions = torch.nn.functional.normalize((features - mean) / deviation, dim=1)
    found = torch.empty_like(labels)
    start = 0
    for each in labels.unique().tolist():
        rows = (labels == each).nonzero().flatten()
        _, stands = typical(directions[rows], max(len(rows) // _ALIKE, _FOLDS))
        found[rows] = start + stands
        start += len(rows)
    return found


def _mean_over(right: Tensor, parts: Tensor) -> float:
    return float(torch.stack([right[parts == each].double().mean() for each in parts.unique()]).mean())


def _harm(old: Tensor, new: Tensor, parts: Tensor, labels: Tensor) -> str:
    """Why a new layer is not to be kept, by which pictures both have right; "" where it is."""
    before, after = _mean_over(old, labels), _mean_over(new, labels)
    if after <= before:
        return (
            f"on pictures that it did not see a new one has {100 * after:.1f} %, and the old one {100 * before:.1f} %"
        )
    for each in parts.unique().tolist():
        of = parts == each
        lost, won = int((old & ~new)[of].sum()), int((~old & new)[of].sum())
        if lost > won and sign_test(lost, won) < _CHANCE:
            return f"of one kind of pictures a new one loses {lost} and wins {won}"
    return ""
