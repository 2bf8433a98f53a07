"""`NeuronPruner`: cut irrelevant neurons and refit the last layer (CRAYON-Pruning)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
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
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.data.preprocessing import effective_preprocessing
from crayon_sdk.errors import AnswerError
from crayon_sdk.explain.objects import MOST, ObjectProbe, balanced_draw, cells_of, check_cells, probe_of, trusted
from crayon_sdk.functional.losses import log_prior
from crayon_sdk.functional.neurons import activity_on, channel_peaks
from crayon_sdk.functional.saliency import resize_maps
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.models.passes import gives_intermediates, stream_both, stream_features
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
    _shown = ("epochs", "lr", "spread", "answer_rule")

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
        judged, counted = used.counts("neuron")["items"], {}
        spread = self.settings.spread == "auto" and judged
        found = self._by_activity(fit, used, len(cut) / judged) if spread else None
        if found is None:
            neurons = neurons_in(fit.model, fit.dataset, device=self.device, autocast=self.autocast)
        else:
            neurons, cut = found
            counted = {"carried_to": self.model.num_neurons - judged}
        keep = torch.ones(self.model.num_neurons, dtype=torch.bool)
        keep[list(cut)] = False
        fit.model.prune(keep)
        feed = FeatureFeed(neurons, fit.dataset.labels.to(self.device))
        objective = LastLayer(fit.model, feed.labels, logit_adjustment=self.settings.logit_adjustment)
        history = fit.train(objective, feed, file, measured=False)
        counts = {
            "pruned": len(cut),
            "judged_neurons": judged,
            "neurons": fit.model.num_neurons,
            "dropped_answers": used.dropped,
        }
        return fit.finish(self.method, history, used, counts | counted)

    def _by_activity(
        self, fit: Fit, answers: AnnotationSet, share: float
    ) -> tuple[list[Tensor], tuple[int, ...]] | None:
        """Neurons of all pictures, and which to cut: those whose activity is least on the object that answers show.

        Nothing, and a warning why, where that is not known.
        """
        model, data = fit.model, fit.dataset
        known, said = set(data.ids), dict[tuple[str, int], list[bool]]()
        for each in answers.neuron_answers:
            if each.id in known and each.answer != "unsure":
                said.setdefault((each.id, each.neuron), []).append(each.answer == "yes")
        why = ""
        if not said:
            why = "no answer says yes or no of a patch in these pictures"
        elif model.mixes_channels():
            why = f"several channels of {model.architecture} feed a neuron"
        elif not gives_intermediates(model):
            why = f"{model.architecture} does not give intermediate features as timm models do"
        if why:
            _log.warning("neurons are cut by what was answered about each, and nothing else: %s", why)
            return None
        with PixelCache(data, effective_preprocessing(data, model.preprocessing), device=self.device) as cache:
            probe = _probe(model, data, cache, said, self.autocast, self.settings.seed)
            if probe is None:
                return None
            activity = torch.zeros(2, model.num_neurons, device=self.device)
            with borrowed(model, self.device), torch.no_grad():
                neurons = _inputs(model, _noting(model, data, cache, probe, activity, self.autocast))
        on_object = activity[0] / activity[1].clamp(min=1e-12)
        there = model.neuron_mask.nonzero().flatten().to(on_object.device)
        least = on_object[there].sort(stable=True).indices[: min(round(share * len(there)), len(there) - 1)]
        return neurons, tuple(sorted(there[least].tolist()))


def _noting(
    model: SplitModel,
    data: ImageDataset,
    cache: PixelCache,
    probe: ObjectProbe,
    activity: Tensor,
    autocast: torch.dtype | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features of all pictures; how active each neuron is on the object, and in all, is added to (2, K) on the way."""
    stream = stream_both(
        model, data, device=cache.device, autocast=autocast, cache=cache, doing="computing features and objects"
    )
    for rows, features, middle in stream:
        objects, _ = probe.of(probe.standardised(cells_of(middle, probe.map_size)[0]))
        activity.add_(activity_on(features, resize_maps(objects, (features.shape[2], features.shape[3]))))
        yield rows, features


def _probe(
    model: SplitModel,
    data: ImageDataset,
    cache: PixelCache,
    said: Mapping[tuple[str, int], list[bool]],
    autocast: torch.dtype | None,
    seed: int,
) -> ObjectProbe | None:
    """What tells object from surround, by the answers about patches; nothing, and a warning, where they say too little.

    Patches are found again in the features of their pictures: of `MOST` of these, drawn by the seed, where there are
    more. One that is the strongest of several neurons is there once, with the answers of all.
    """
    asked: dict[str, list[int]] = {}
    for sample, neuron in said:
        asked.setdefault(sample, []).append(neuron)
    order = torch.tensor(sorted(data.index_of(sample) for sample in asked))
    if len(order) > MOST:
        order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))[:MOST]].sort().values
    votes: dict[tuple[int, int], list[bool]] = {}
    kept: list[Tensor] = []
    channels, size = tuple[int, ...](), (0, 0)
    with borrowed(model, cache.device), torch.no_grad():
        stream = stream_both(
            model,
            data,
            device=cache.device,
            autocast=autocast,
            order=order.tolist(),
            cache=cache,
            doing="finding patches",
        )
        for _, features, middle in stream:
            size = (int(features.shape[2]), int(features.shape[3]))
            found, channels = cells_of(middle, size)
            start = sum(len(each) for each in kept)
            kept.append(found)
            for place, cells in enumerate(channel_peaks(features)[1].tolist(), start):
                sample = data.ids[int(order[place])]
                for neuron in asked[sample]:
                    votes.setdefault((place, cells[neuron]), []).extend(said[sample, neuron])
    shares = {patch: sum(each) / len(each) for patch, each in votes.items()}
    clear = [patch for patch, share in shares.items() if share != 0.5]
    if not any(shares[patch] > 0.5 for patch in clear):
        _log.warning("no patch got a yes: neurons are cut by what was answered about each, and nothing else")
        return None
    clear = [clear[place] for place in balanced_draw(torch.tensor([shares[patch] > 0.5 for patch in clear]), seed)]
    which, cells = torch.tensor(clear, dtype=torch.int64).view(-1, 2).unbind(dim=1)
    maps = torch.zeros(len(clear), size[0] * size[1], device=cache.device)
    maps[torch.arange(len(clear)), cells] = 1.0
    seen = torch.cat(kept)
    check_cells(model, seen, [data.ids[row] for row in order.tolist()])
    probe, worth = probe_of(
        seen,
        channels,
        which,
        data.labels[order[which]].to(cache.device),
        maps.view(-1, *size),
        torch.tensor([shares[patch] for patch in clear]),
        spots=torch.ones(len(clear), dtype=torch.bool),
    )
    return probe if trusted(worth) else None


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
    model: SplitModel,
    dataset: ImageDataset,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
) -> list[Tensor]:
    """What goes into each final layer, (N, num_neurons) float32, for a whole data set, in eval mode.

    Args:
        model: Its trunk.
        dataset: The pictures.
        device: Where to work.
        autocast: Reduced precision of the trunk.
    """
    with borrowed(model, device), torch.no_grad():
        return _inputs(
            model, stream_features(model, dataset, device=device, autocast=autocast, doing="computing features")
        )


def _inputs(model: SplitModel, stream: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
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
