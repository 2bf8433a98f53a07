"""`NeuronTune`: neurons that are stronger in errors are cut, without a question asked."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from crayon_sdk._base.settings import Count, OneOrMore
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.baselines.held_out import begun, neurons_of_all
from crayon_sdk.correct.method import Method, check_needs, method
from crayon_sdk.correct.objective import FeatureFeed
from crayon_sdk.correct.pruning import LastLayer
from crayon_sdk.correct.run_file import check_run_folder
from crayon_sdk.correct.settings import Decay, Prior, Rate, Scheduler, TrainingSettings, settings
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.errors import SettingsError, TrainingError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.functional.robust import shifts_of_errors
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.results.correction import Correction

__all__ = ["NeuronTune", "NeuronTuneSettings"]

_log = logging.getLogger(__name__)


@settings
class NeuronTuneSettings(TrainingSettings):
    """Which neurons are cut, and how the last layer is trained after that, as `NeuronPruner` trains it."""

    epochs: Count = 10
    batch_size: OneOrMore = 64
    lr: Rate = 1e-2
    weight_decay: Decay = 1e-4
    scheduler: Scheduler = "cosine"
    logit_adjustment: Prior = 1.0
    threshold: Annotated[float, Field(ge=-1e30, le=1e30)] = 0.0
    """By how much the median of a neuron may be higher in the errors on a class than in its right answers; above it,
    for any class, the neuron is cut."""
    refit_on: Literal["training", "holdout"] = "training"
    """Pictures that the last layer is trained on after that."""


@method
class NeuronTune(Method[NeuronTuneSettings], NeuronTuneSettings):
    """NeuronTune: cut the neurons of a copy of a model that are stronger where it errs, then train its last layer.

    What `NeuronPruner` does by answers of people, this does by errors: a neuron that is higher in the errors on a class
    than in the right answers, in held-out pictures, is taken for one that sees a shortcut. The pictures of
    ``evaluate_on`` are learned from: they measure nothing then, and the result is to be evaluated on others. CRAYON's
    authors do not compare with it, and its code was not looked at: there are no presets.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no linear classifier.
    """

    method = "neurontune"
    title: ClassVar[str] = "NeuronTune"
    paper: ClassVar[str] = "Zheng et al., ICML 2025"
    needs = frozenset({"holdout"})
    _shown = ("epochs", "lr", "threshold")

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
            dataset: The training set.
            evaluate_on: Held-out pictures, by whose errors neurons are chosen; never the test set.
            maps: Have no effect.
            answers: Have no effect.
            strict: Has no effect.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            MismatchError: ``checkpoint_dir`` holds another run.
            NonFiniteLossError: The loss became NaN or infinite.
            SettingsError: There are no held-out pictures, or every neuron would be cut.
            TrainingError: The model makes no error to learn from.
        """
        check_run_folder(self.checkpoint_dir)
        check_needs(self, as_dataset(dataset), evaluate_on)
        fit, held_out = begun(self, dataset, as_dataset(evaluate_on))
        file = fit.run_file(self.checkpoint_dir, self.method, held_out=held_out.fingerprint)
        neurons, labels = neurons_of_all(fit, held_out), held_out.labels.to(self.device)
        with torch.no_grad():
            right = apply_final_layers(list(fit.model.final_layers), neurons).argmax(dim=1) == labels
        shifts = torch.stack([shifts_of_errors(each, labels, right, fit.model.num_classes) for each in neurons])
        if not bool(shifts.any()):
            raise TrainingError(
                f"expected errors and right answers on the same class in the {len(held_out)} held-out pictures, got "
                f"{int((~right).sum())} errors that tell nothing: there is nothing to choose neurons by"
            )
        cut = (shifts > self.settings.threshold).any(dim=0).any(dim=0) & fit.model.neuron_mask.to(self.device)
        keep = fit.model.neuron_mask.to(self.device) & ~cut
        if not bool(keep.any()):
            raise SettingsError(
                f"expected some neurons to stay, and threshold={self.settings.threshold:g} cuts all; raise it"
            )
        if not bool(cut.any()):
            _log.warning("no neuron is stronger in errors: nothing is cut, the last layer is trained all the same")
        fit.model.prune(keep)
        if self.settings.refit_on == "training":
            neurons, labels = neurons_of_all(fit, fit.dataset), fit.dataset.labels.to(self.device)
        feed = FeatureFeed(neurons, labels)
        objective = LastLayer(fit.model, labels, logit_adjustment=self.settings.logit_adjustment)
        history = fit.train(objective, feed, file, measured=False)
        counts = {
            "pruned": int(cut.sum()),
            "neurons": fit.model.num_neurons,
            "held_out": len(held_out),
            "errors": int((~right).sum()),
        }
        return fit.finish(self.method, history, AnnotationSet(), counts)
