"""What the methods share that learn a last layer from pictures that the network has not seen."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.method import Method, check_needs
from crayon_sdk.correct.pruning import neurons_in
from crayon_sdk.correct.run_file import check_run_folder
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.errors import DataError, UnsupportedModelError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.models.passes import in_classes_of
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import Correction
from crayon_sdk.results.evaluation import warn_of_training_pictures

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["LearnsHeldOut", "check_refit", "neurons_of_all", "put_last_layer", "scale"]

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


class LearnsHeldOut(Method[SettingsT]):
    """A method that learns from held-out pictures, which then measure nothing."""

    needs = frozenset({"holdout"})

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
            dataset: The training set, which the network has learned.
            evaluate_on: Held-out pictures with labels, and groups if the method needs them, from which the last layer
                is learned; never the test set.
            maps: Have no effect.
            answers: Have no effect.
            strict: Has no effect.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            DataError: The held-out pictures are too few, lack a class, or lack groups that are needed.
            MismatchError: ``checkpoint_dir`` holds another run.
            NonFiniteLossError: The loss became NaN or infinite.
            SettingsError: There are no held-out pictures.
            UnsupportedModelError: The last layer has no biases, and the method needs some.
        """
        check_run_folder(self.checkpoint_dir)
        check_needs(self, as_dataset(dataset), evaluate_on)
        held_out = in_classes_of(as_dataset(evaluate_on), self.model)
        warn_of_training_pictures(held_out, dataset)
        fit = Fit(self.model, dataset, None, self.device, self.autocast, self.settings)
        return self.learned(fit, held_out)

    @abstractmethod
    def learned(self, fit: Fit, held_out: ImageDataset) -> Correction:
        """Learn.

        Args:
            fit: The correction.
            held_out: In the classes of the model.
        """


def neurons_of_all(fit: Fit, dataset: ImageDataset) -> list[Tensor]:
    """What goes into each final layer, (N, num_neurons) float32; zeros for neurons that were cut before."""
    found = neurons_in(fit.model, dataset, device=fit.device, autocast=fit.autocast)
    return [each * fit.model.neuron_mask.to(each) for each in found]


@torch.no_grad()
def put_last_layer(model: SplitModel, weight: Tensor, bias: Tensor) -> None:
    """Put a linear layer into a model, in place.

    Args:
        model: Its last layers; two of which the mean is taken share the inputs.
        weight: (K, all inputs) of all final layers side by side.
        bias: (K,).

    Raises:
        UnsupportedModelError: The last layer has no biases.
    """
    layers = model.final_layers
    for layer, part in zip(layers, weight.chunk(len(layers), dim=1), strict=True):
        if layer.bias is None:
            raise UnsupportedModelError(f"expected a last layer with biases, {model.architecture} has one without")
        held: Any = getattr(layer, "weight_orig", layer.weight)  # of a pruned layer
        held.copy_((len(layers) * part).to(held).view_as(held))
        layer.bias.copy_(bias.to(held))


def check_refit(fit: Fit, pictures: ImageDataset) -> None:
    """What can be known before the neurons are computed."""
    if any(layer.bias is None for layer in fit.model.final_layers):
        raise UnsupportedModelError(f"expected a last layer with biases, {fit.model.architecture} has one without")
    lacking = sorted(set(range(fit.model.num_classes)) - set(pictures.labels.tolist()))
    if lacking:
        names = pictures.class_names
        name = repr(names[lacking[0]]) if lacking[0] < len(names) else str(lacking[0])
        raise DataError(
            f"expected pictures of all {fit.model.num_classes} classes for a new last layer, got none of "
            f"{len(lacking)} (the first is {name}); give some of these, or load a model with fewer classes"
        )


def scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every neuron; 1 for one that never changes."""
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    return mean, torch.where(deviation > 0, deviation, 1.0)
