"""`NeuronPruner`: cut irrelevant neurons and refit the last layer (CRAYON-Pruning)."""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
from torch import Tensor, nn

from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.relevance import Rule
from crayon_sdk.correct import presets
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, FeatureFeed, Feed, Objective
from crayon_sdk.correct.run_file import check_run_folder
from crayon_sdk.correct.settings import PruningSettings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import AnswerError
from crayon_sdk.functional.losses import log_prior
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.models.passes import stream_features
from crayon_sdk.models.split import SplitModel, borrowed
from crayon_sdk.results.correction import Correction

__all__ = ["LastLayer", "NeuronPruner", "irrelevant_neurons", "neurons_in"]

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

    method = "pruning"
    title = "CRAYON-Pruning"
    paper = "Lee et al., IEEE BigData 2024"
    needs = frozenset({"neuron answers"})
    presets = presets.PRUNING
    _shown = ("epochs", "lr", "answer_rule")

    def fit(  # type: ignore[override]  # answers, which it always needs, come first
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
        neurons = neurons_in(fit.model, fit.dataset, device=self.device, autocast=self.autocast)
        feed = FeatureFeed(neurons, fit.dataset.labels.to(self.device))
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


def neurons_in(
    model: SplitModel, dataset: ImageDataset, *, device: torch.device, autocast: torch.dtype | None = None
) -> list[Tensor]:
    """What goes into each final layer, (N, num_neurons) float32, for a whole data set, in eval mode.

    Args:
        model: Its trunk.
        dataset: The pictures.
        device: Where to work.
        autocast: Reduced precision of the trunk.
    """
    with borrowed(model, device), torch.no_grad():
        stream = stream_features(model, dataset, device=device, autocast=autocast, doing="computing features")
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
