"""`NeuronPruner`: cut irrelevant neurons and refit the last layer (CRAYON-Pruning)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.relevance import Rule
from crayon_sdk.correct import presets
from crayon_sdk.correct.objective import Batch, FeatureFeed, Feed, Objective
from crayon_sdk.correct.run_file import check_run_folder
from crayon_sdk.correct.settings import PruningSettings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import AnswerError
from crayon_sdk.functional.losses import log_prior
from crayon_sdk.models.final_layers import apply_final_layers
from crayon_sdk.models.passes import stream_features
from crayon_sdk.models.split import SplitModel, as_split_model, borrowed
from crayon_sdk.results.correction import Correction

__all__ = ["NeuronPruner", "irrelevant_neurons"]

_log = logging.getLogger(__name__)


class NeuronPruner:
    """CRAYON-Pruning: cut the neurons that people found irrelevant, then refit the last layer.

    The trunk does not change, so its features are computed once and the refit takes
    seconds. Cut neurons stay cut in every later correction of the result.

    Args:
        model: A `SplitModel`, timm model, or the model of a `Correction`. It is not changed.
        epochs: Passes over the features.
        batch_size: Samples per step.
        lr: Peak learning rate.
        weight_decay: L2 penalty.
        optimizer: "adam", "adamw" or "sgd".
        momentum: Of "sgd".
        scheduler: "none", "cosine" or "step".
        step_epochs: With "step": epochs between two falls.
        step_factor: With "step": factor of each fall.
        answer_rule: From votes to relevance: "majority" (of the patches, ties stay),
            "unanimous" (cut only if every answer is no), "share", or, weighing people by how reliable they
            seem, "dawid-skene" or "mace" (extra ``crowd``).
        least_share: With "share": a neuron stays when at least this share of its patches
            got a yes. With many patches per neuron a high share cuts more, and better.
        logit_adjustment: How much of the log share of each class is added to the logits inside
            the cross entropy: 0 is the plain one, 1 is fair to rare classes.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).
        seed: Of everything random.
        checkpoint_dir: Where the state is kept; a run that was stopped continues there.

    Raises:
        SettingsError: A setting is out of range.
        UnsupportedModelError: The model has no linear classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        epochs: int = 10,
        batch_size: int = 64,
        lr: float = 1e-2,
        weight_decay: float = 1e-4,
        optimizer: str = "adam",
        momentum: float = 0.9,
        scheduler: str = "cosine",
        step_epochs: int = 1,
        step_factor: float = 0.1,
        answer_rule: Rule = "majority",
        least_share: float = 0.5,
        logit_adjustment: float = 1.0,
        device: str | torch.device = "auto",
        precision: str = "auto",
        seed: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model = as_split_model(model)
        self.settings = PruningSettings(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            optimizer=optimizer,
            momentum=momentum,
            scheduler=scheduler,
            step_epochs=step_epochs,
            step_factor=step_factor,
            answer_rule=answer_rule,
            least_share=least_share,
            logit_adjustment=logit_adjustment,
            seed=seed,
        )
        self.device = resolve_device(device, self.model.device)
        self.autocast = resolve_precision(precision, self.device)
        self.checkpoint_dir = checkpoint_dir

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self.settings, name)!r}" for name in ("epochs", "lr", "answer_rule"))
        return f"NeuronPruner({self.model.architecture}, {shown}, on {self.device})"

    @classmethod
    def from_preset(
        cls,
        name: str,
        model: nn.Module,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        seed: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> NeuronPruner:
        """Take the settings of the published runs.

        Args:
            name: "waterbirds", "biased-celeba" or "backgrounds".
            model: The model to correct.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
            seed: Of everything random.
            checkpoint_dir: Where the state is kept.

        Raises:
            SettingsError: There is no such preset.
        """
        pruner = cls(model, device=device, precision=precision, checkpoint_dir=checkpoint_dir)
        pruner.settings = replace(presets.preset(presets.PRUNING, name), seed=seed)
        return pruner

    method: ClassVar[str] = "pruning"
    settings_kind: ClassVar[type[PruningSettings]] = PruningSettings
    needs: ClassVar[frozenset[str]] = frozenset({"neuron answers"})
    presets: ClassVar[Mapping[str, PruningSettings]] = presets.PRUNING

    def fit(
        self,
        dataset: ImageDataset,
        answers: AnnotationSet,
        evaluate_on: ImageDataset | None = None,
        *,
        strict: bool = True,
    ) -> Correction:
        """Prune and refit a copy of the model.

        Args:
            dataset: The training set.
            answers: Answers about this model's neurons; answers about images are not used here.
            evaluate_on: Measured before and after; not used for training.
            strict: Refuse answers for another model or unknown neurons; else drop and count them.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            AnswerError: There are no answers about neurons, or they would cut all.
            MismatchError: The answers are about another model.
            NonFiniteLossError: The loss became NaN or infinite.
        """
        check_run_folder(self.checkpoint_dir)
        rule, least_share = self.settings.answer_rule, self.settings.least_share
        used, cut = irrelevant_neurons(self.model, answers, rule=rule, least_share=least_share, strict=strict)
        fit = Fit(self.model, dataset, evaluate_on, self.device, self.autocast, self.settings)
        file = fit.run_file(self.checkpoint_dir, self.method, answers=used.fingerprint)
        keep = torch.ones(self.model.num_neurons, dtype=torch.bool)
        keep[list(cut)] = False
        fit.model.prune(keep)
        feed = FeatureFeed(self._neurons(fit.model, fit.dataset), fit.dataset.labels.to(self.device))
        objective = LastLayer(fit.model, feed.labels, logit_adjustment=self.settings.logit_adjustment)
        history = fit.train(objective, feed, file, measured=False)
        judged = used.counts("neuron")["items"]
        counts = {
            "pruned": len(cut),
            "judged_neurons": judged,
            "neurons": fit.model.num_neurons,
            "dropped_answers": used.dropped,
        }
        return fit.finish(self.method, history, used, counts)

    def _neurons(self, model: SplitModel, dataset: ImageDataset) -> list[Tensor]:
        """What goes into each final layer, (N, num_neurons) float32, for the whole data set, in eval mode."""
        with borrowed(model, self.device), torch.no_grad():
            stream = stream_features(
                model, dataset, device=self.device, autocast=self.autocast, doing="computing features"
            )
            parts = [[inputs.float() for inputs in model.final_inputs(features)] for _, features in stream]
            return [torch.cat(inputs) for inputs in zip(*parts, strict=True)]


class LastLayer(Objective):
    """Cross entropy of the final layers on features that do not change.

    Args:
        model: Its final layers are trained.
        labels: (N,) of the whole training set, for the share of each class.
        logit_adjustment: How much of the log share of each class is added to the logits.
    """

    doing: ClassVar[str] = "refitting the last layer"
    offsets: Tensor
    model: nn.ModuleList

    def __init__(self, model: SplitModel, labels: Tensor, *, logit_adjustment: float = 0.0) -> None:
        super().__init__(nn.ModuleList(model.final_layers))
        self.register_buffer("offsets", logit_adjustment * log_prior(labels, model.num_classes), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The cross entropy."""
        logits = apply_final_layers(list(self.model), batch.features) + self.offsets
        return {"loss": nn.functional.cross_entropy(logits, batch.labels, reduction="sum")}

    @torch.no_grad()
    def broken(self, feed: Feed) -> str:
        """Look at the logits of training pictures."""
        features = feed.batch(torch.arange(min(8, len(feed)))).features
        finite = apply_final_layers(list(self.model), features).isfinite().all()
        return "" if bool(finite) else "the logits of training pictures are not finite"


def irrelevant_neurons(
    model: SplitModel,
    answers: AnnotationSet,
    *,
    rule: Rule = "majority",
    least_share: float = 0.5,
    strict: bool = True,
) -> tuple[AnnotationSet, tuple[int, ...]]:
    """Pick the answers about a model's neurons and the neurons they cut.

    Args:
        model: The model that was answered about.
        answers: All answers.
        rule: From votes to relevance.
        least_share: Of yes, for the rule "share".
        strict: Refuse answers that do not belong; else drop and count them.

    Returns:
        The answers that count, and the irrelevant neurons in ascending order.

    Raises:
        AnswerError: There are no answers about neurons, or they would cut all.
        MismatchError: The answers are about another model or unknown neurons.
    """
    used = as_answers(answers).only("neuron")
    if not len(used):
        raise AnswerError(
            f"expected answers about neurons, got {len(answers)} answers of which none is about a neuron; "
            "answer some patches first (Explainer.explain_neurons)"
        )
    used = used.for_model(model.fingerprint, strict=strict).for_neurons(model.num_neurons, strict=strict)
    used = used.for_classes(model.num_classes, strict=strict)
    verdicts = used.neuron_relevance(rule, yes_share=1.0, maybe_share=least_share)
    cut = tuple(sorted(neuron for neuron, verdict in verdicts.items() if verdict == "irrelevant"))
    remaining = int(model.neuron_mask.sum()) - len(cut)
    if remaining <= 0:
        raise AnswerError(
            f"the answers would cut all {model.num_neurons} neurons; look at them again, or use another answer_rule"
        )
    if not cut:
        _log.warning("no neuron was found irrelevant: nothing is cut, the last layer is refitted all the same")
    return used, cut
