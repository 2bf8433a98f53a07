"""`AttentionCorrector`: guide the saliency maps of a model with yes/no answers (CRAYON-Attention)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crayon_sdk._base.methods import methods
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct import presets
from crayon_sdk.correct.backgrounds import BackgroundSwap
from crayon_sdk.correct.guidance import Guidance, current_targets
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.settings import AttentionSettings
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import AnswerError, DataError, SettingsError, UnsupportedModelError
from crayon_sdk.explain.explainer import check_score, check_target
from crayon_sdk.explain.groups import surrounds_of
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.objects import LEAST, FoundObjects, trusted_objects
from crayon_sdk.functional.groups import balanced_weights
from crayon_sdk.functional.losses import guidance_loss
from crayon_sdk.functional.saliency import has_evidence, logits_and_grad_cam, normalize_maps, resize_maps
from crayon_sdk.functional.views import is_still_shown
from crayon_sdk.models.passes import gives_intermediates
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import Correction

__all__ = ["AttentionCorrector"]

_log = logging.getLogger(__name__)
_BACKGROUND_SWAP = 0.7  # chosen on the validation split of the birds


@method
class AttentionCorrector(Method[AttentionSettings], AttentionSettings):
    """CRAYON-Attention: train a copy of a model so that it looks where people said yes.

    The loss is Eq. 4 of the paper: cross entropy, plus ``alpha`` times the mean
    attention outside the relevant maps (Eq. 1), plus ``beta`` times the mean attention
    inside the irrelevant ones (Eq. 2). The defaults go beyond the paper in five ways, each
    of which can be switched off: answers are carried to the pictures that nobody was asked about
    (``spread``), objects are shown on other backgrounds (``background_swap``), rare classes are
    adjusted for (``logit_adjustment``), pictures in an unusual surround count more where such are
    found (``balance``), and the weights are averaged over the last steps (``average_decay``). The
    published settings are in
    [`from_preset`][crayon_sdk.correct.attention.AttentionCorrector.from_preset].

    Three settings come first: ``epochs`` (more while the guidance in ``history`` still falls), ``alpha`` and
    ``beta``, changed together (less where accuracy suffers, more where the maps stay as they were). All by what they
    are about:

    - how answers count: ``alpha``, ``beta``, ``area_normalized``, ``spread``, ``answer_rule``, ``zero_maps``;
    - which map is guided: ``target``, ``score``;
    - help for rare groups and classes: ``background_swap``, ``balance``, ``logit_adjustment``;
    - training: ``epochs``, ``batch_size``, ``lr``, ``weight_decay``, ``optimizer``, ``momentum``, ``batch_norm``,
      ``mirror``, ``crop_area``, ``average_decay``, ``clip_norm``, ``keep``, and its schedule: ``scheduler``,
      ``warmup_epochs``, ``step_epochs``, ``step_factor``;
    - where it runs: ``device``, ``precision``, ``accumulate``, ``auto_batch_size``, ``seed``, ``checkpoint_dir``.

    Raises:
        SettingsError: A setting is out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "attention"
    title: ClassVar[str] = "CRAYON-Attention"
    paper: ClassVar[str] = "Lee et al., IEEE BigData 2024"
    needs = frozenset({"answers", "maps"})
    presets = presets.ATTENTION
    _shown = ("alpha", "beta", "epochs", "lr")

    def resolved(self, settings: AttentionSettings) -> AttentionSettings:
        """Settings with what depends on the model checked and filled in.

        Raises:
            SettingsError: The model has no such class, or only one.
        """
        check_target(settings.target, self.model.num_classes)
        if settings.score != "maps":
            check_score(settings.score, self.model.num_classes)
        if settings.background_swap is not None:
            return settings
        return replace(settings, background_swap=_BACKGROUND_SWAP if gives_intermediates(self.model) else 0.0)

    @classmethod
    def from_preset(
        cls, name: str, model: nn.Module, *, after_pruning: bool = False, **overrides: Any
    ) -> AttentionCorrector:
        """Take the settings of the published runs.

        Args:
            name: "waterbirds", "biased-celeba" or "backgrounds".
            model: The model to correct.
            after_pruning: The settings for a model that was pruned before.
            overrides: Keywords of the constructor, on top.

        Raises:
            SettingsError: There is no such preset, or no such setting.
        """
        table = presets.AFTER_PRUNING if after_pruning else presets.ATTENTION
        return cls(model, **{**asdict(presets.preset(table, name)), **overrides})

    def fit(  # type: ignore[override]  # maps and answers, which it always needs, come first
        self,
        dataset: ImageDataset,
        maps: SaliencyMaps,
        answers: AnnotationSet,
        evaluate_on: ImageDataset | None = None,
        *,
        refit_on: ImageDataset | None = None,
        strict: bool = True,
    ) -> Correction:
        """Correct a copy of the model.

        Args:
            dataset: The training set; all of it counts in the cross entropy.
            maps: The maps that were answered, of this or of another model.
            answers: Answers about those maps; answers about neurons are not used here.
            evaluate_on: Measured after every epoch; not used for training.
            refit_on: Fresh labelled pictures, never the test set, to which the last layer is fitted in the end, if that
                does no harm (`LastLayerRefit`); the record of what was done before is in ``parents`` then.
            strict: Refuse answers for unknown samples or other maps; else drop and count them.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            AnswerError: No answer can guide anything, or the answers contradict each other.
            MismatchError: Answers, maps and data set do not belong together, or
                ``checkpoint_dir`` holds another run.
            NonFiniteLossError: The loss became NaN or infinite; its ``model`` holds
                the weights from before.
        """
        found = super().fit(dataset, evaluate_on, maps=maps, answers=answers, strict=strict)
        if refit_on is None:
            return found
        refitted: Correction = methods["refit"](
            found.model, device=self.device, precision=self.precision, seed=self.settings.seed
        ).fit(dataset, refit_on)
        return refitted

    def settings_for(self, maps: SaliencyMaps | None) -> AttentionSettings:
        """The settings of a run: what is differentiated is known with the maps."""
        settings = self.settings
        if maps is None:
            return settings
        score = maps.score if settings.score == "maps" else settings.score
        if maps.target_rule != str(settings.target):
            _log.warning(
                "the maps show the evidence for the target %s, and training guides that for the target %s; they are "
                "compared all the same. Explain and correct with one target",
                maps.target_rule,
                settings.target,
            )
        return replace(settings, score=check_score(score, self.model.num_classes))

    def objective(self, model: SplitModel, feed: PixelFeed, settings: AttentionSettings) -> Objective:
        """Eq. 4."""
        swap, found, guidance = None, None, feed.guidance
        if guidance is None:
            raise SettingsError("guiding attention needs a feed with guidance, got one without")
        _log.info("guidance: %s", dict(guidance.counts))
        if (
            settings.spread == "auto"
            and bool((guidance.relevant | (guidance.spots > 0.5)).any())
            and gives_intermediates(model)
        ):
            found = self._objects(model, feed, guidance)
        if found is None and not guidance.counts["relevant"] and not guidance.counts["irrelevant"]:
            raise AnswerError(
                "answers about spots teach what the object looks like, and guide nothing by themselves: that takes "
                f'spread="auto" (now {settings.spread!r}), a model with intermediate features, and {LEAST} spots on '
                f"the object (now {guidance.counts['spots_on']}). Give more answers, or answer whole maps"
            )
        surround = self._surrounds(model, feed, found) if found is not None and settings.balance == "auto" else None
        if settings.background_swap and found is None and guidance.counts["relevant"] < 2:
            _log.warning("backgrounds are not exchanged: that takes at least two relevant pictures")
        elif settings.background_swap:
            swap = BackgroundSwap(
                model,
                feed.cache,
                guidance,
                device=self.device,
                autocast=self.autocast,
                found=None if found is None else found.values,
                labels=feed.labels,
            )
        made = GuidedAttention(
            model,
            feed.labels,
            settings,
            guidance.counts,
            swap=swap,
            objects=None if found is None else found.values,
            weights=None if surround is None else balanced_weights(feed.labels, surround != feed.labels),
            autocast=self.autocast,
        )
        if found is not None:
            answered = guidance.relevant | guidance.irrelevant | ~guidance.spots.isnan()
            made.counted = {"carried_to": len(feed) - int(answered.sum())}
        if surround is not None:
            made.counted["unusual_surround"] = int((surround != feed.labels).sum())
        return made

    def _surrounds(self, model: SplitModel, feed: PixelFeed, found: FoundObjects) -> Tensor | None:
        """Which class the surround of every picture looks like, where that can be trusted."""
        try:
            surround, grounds, _ = surrounds_of(model, feed.cache.get, feed.labels, found, seed=self.settings.seed)
        except (DataError, UnsupportedModelError) as error:
            _log.warning("no groups are looked for: %s", error)
            return None
        _log.info("%s", grounds.in_words)
        if grounds.reliable:
            return surround
        if not found.worth.irrelevant:
            _log.warning(
                "nothing was found to correct: all %d answers are yes, and %s",
                found.worth.relevant,
                grounds.in_words,
            )
        return None

    def _objects(self, model: SplitModel, feed: PixelFeed, guidance: Guidance) -> FoundObjects | None:
        """Where the object is in every picture, by the answers, if these can be trusted with it."""
        whole = (guidance.relevant | guidance.irrelevant).nonzero().flatten()
        spots = (~guidance.spots.isnan()).nonzero().flatten()
        rows = torch.cat([whole, spots])
        shares = torch.cat([guidance.relevant[whole].float(), guidance.spots[spots]])
        return trusted_objects(
            model,
            feed.cache.get,
            feed.labels,
            rows.cpu(),
            guidance.reference[rows],
            shares.cpu(),
            spots=torch.arange(len(rows)) >= len(whole),
            autocast=self.autocast,
        )


class GuidedAttention(Prediction):
    """The loss of CRAYON-Attention (Eq. 4), on pictures whose backgrounds may be exchanged.

    Args:
        model: Is trained.
        labels: (N,) of the whole training set.
        settings: Weights, target and score.
        counts: How many samples of the training set are "relevant" and "irrelevant".
        swap: Exchanges backgrounds.
        objects: (N, h, w) in [0, 1], where the object is in every picture, when it is known: then every map is guided
            by that.
        weights: (N,) of every sample in the cross entropy; default 1.
        autocast: Reduced precision of the trunk.
    """

    doing: ClassVar[str] = "guiding attention"

    def __init__(
        self,
        model: SplitModel,
        labels: Tensor,
        settings: AttentionSettings,
        counts: Mapping[str, int],
        *,
        swap: BackgroundSwap | None = None,
        objects: Tensor | None = None,
        weights: Tensor | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, labels, logit_adjustment=settings.logit_adjustment, autocast=autocast)
        self.settings, self.counts, self.swap = settings, counts, swap
        self.objects, self.weights = objects, weights  # no buffers: those are kept and looked through in every step
        self.total = len(labels)

    def prediction(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy of the batch, weighted and summed."""
        if self.weights is None:
            return super().prediction(logits, batch)
        each = nn.functional.cross_entropy(logits + self.offsets, batch.labels, reduction="none")
        return (self.weights[batch.rows] * each).sum()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy, guidance, and how many guided samples have a map without evidence."""
        settings, images = self.settings, batch.images
        if self.swap is not None:
            share = settings.background_swap or 0.0
            images = self.swap(images, batch.positions, share, drawn_for=batch.drawn, view=batch.view)
        features = self.model.features(images, autocast=self.autocast)
        targets = current_targets(settings.target, batch.labels)
        logits, cams = logits_and_grad_cam(features, self.model.head, targets, score=settings.score, create_graph=True)
        prediction = self.prediction(logits, batch)
        current, relevant, irrelevant = normalize_maps(cams), batch.relevant, batch.irrelevant
        reference, num_relevant = batch.reference, self.counts["relevant"]
        if self.objects is not None:
            # A no has taught what is no object, so the term of its own would count it again, and a few of them a lot.
            whole = self.objects[batch.rows]
            objects = batch.seen(whole)
            found = resize_maps(objects, (int(cams.shape[1]), int(cams.shape[2])))
            reference, num_relevant = normalize_maps(found), self.total
            relevant, irrelevant = torch.ones_like(relevant), torch.zeros_like(irrelevant)
            if batch.view is not None:
                relevant = is_still_shown(whole, objects)
        guiding = guidance_loss(
            current,
            reference,
            relevant,
            irrelevant,
            alpha=settings.alpha,
            beta=settings.beta,
            num_relevant=num_relevant,
            num_irrelevant=self.counts["irrelevant"],
            area_normalized=settings.area_normalized,
        )
        empty = ((relevant | irrelevant) & ~has_evidence(cams.detach())).sum()
        return {"loss": prediction + guiding, "prediction": prediction, "guidance": guiding, "no_evidence": empty}
