"""`NeuronPruner`: cut irrelevant neurons and refit the last layer (CRAYON-Pruning)."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.relevance import Rule
from crayon_sdk.correct import presets
from crayon_sdk.correct.loop import train
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.run_file import RunFile, check_run_folder
from crayon_sdk.correct.settings import PruningSettings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import AnswerError
from crayon_sdk.functional.losses import log_prior
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.models.passes import stream_features
from crayon_sdk.models.split import SplitModel, borrowed
from crayon_sdk.results.correction import Correction

__all__ = ["NeuronPruner", "irrelevant_neurons"]

_log = logging.getLogger(__name__)


@method
class NeuronPruner(Method[PruningSettings], PruningSettings):
    """CRAYON-Pruning: cut the neurons that people found irrelevant, then refit the last layer.

    The trunk does not change, so its features are computed once and the refit takes
    seconds. Cut neurons stay cut in every later correction of the result.

    Raises:
        SettingsError: A setting is out of range.
        UnsupportedModelError: The model has no linear classifier.
    """

    _shown = ("epochs", "lr", "answer_rule")

    @classmethod
    def from_preset(cls, name: str, model: nn.Module, **overrides: Any) -> NeuronPruner:
        """Take the settings of the published runs.

        Args:
            name: "waterbirds", "biased-celeba" or "backgrounds".
            model: The model to correct.
            overrides: Keywords of the constructor, on top.

        Raises:
            SettingsError: There is no such preset, or no such setting.
        """
        return cls(model, **{**asdict(presets.preset(presets.PRUNING, name)), **overrides})

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
        dataset = fit.dataset
        identity = fit.identity("pruning", answers=used.fingerprint)
        file = None if self.checkpoint_dir is None else RunFile(self.checkpoint_dir, identity)
        if file is not None:
            file.check()
        keep = torch.ones(self.model.num_neurons, dtype=torch.bool)
        keep[list(cut)] = False
        fit.model.prune(keep)
        neurons = self._neurons(fit.model, dataset)
        labels = dataset.labels.to(self.device)
        layers = nn.ModuleList(fit.model.final_layers)
        offsets = self.settings.logit_adjustment * log_prior(labels, fit.model.num_classes)

        def loss(batch: Tensor) -> dict[str, Tensor]:
            rows = batch.to(self.device)
            logits = apply_final_layers(list(layers), [inputs[rows] for inputs in neurons]) + offsets
            return {"loss": nn.functional.cross_entropy(logits, labels[rows], reduction="sum")}

        def broken() -> str:
            finite = apply_final_layers(list(layers), [inputs[:8] for inputs in neurons]).isfinite().all()
            return "" if bool(finite) else "the logits of training pictures are not finite"

        with fit.training():
            history = train(
                layers,
                loss,
                len(dataset),
                self.settings,
                file=file,
                broken=broken,
                doing="refitting the last layer",
            )
        judged = used.counts("neuron")["items"]
        counts = {
            "pruned": len(cut),
            "judged_neurons": judged,
            "neurons": fit.model.num_neurons,
            "dropped_answers": used.dropped,
        }
        return fit.finish("pruning", history, used, counts)

    def _neurons(self, model: SplitModel, dataset: ImageDataset) -> list[Tensor]:
        """What goes into each final layer, (N, num_neurons) float32, for the whole data set, in eval mode."""
        with borrowed(model, self.device), torch.no_grad():
            stream = stream_features(
                model, dataset, device=self.device, autocast=self.autocast, doing="computing features"
            )
            parts = [[inputs.float() for inputs in model.final_inputs(features)] for _, features in stream]
            return [torch.cat(inputs) for inputs in zip(*parts, strict=True)]


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
            f"the answers would cut all {model.num_neurons} neurons; look at them again, or use another answer_rule="
        )
    if not cut:
        _log.warning("no neuron was found irrelevant: nothing is cut, the last layer is refitted all the same")
    return used, cut
