"""`AttentionCorrector`: guide the saliency maps of a model with yes/no answers (CRAYON-Attention)."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct import presets
from crayon_sdk.correct.backgrounds import BackgroundSwap, gives_intermediates
from crayon_sdk.correct.guidance import Guidance, current_targets, guidance_answers, guidance_of
from crayon_sdk.correct.loop import BatchLoss, train
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.run_file import RunFile, check_run_folder
from crayon_sdk.correct.settings import AttentionSettings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.explain.explainer import check_score, check_target
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.functional.losses import guidance_loss, log_prior
from crayon_sdk.functional.saliency import has_evidence, logits_and_grad_cam, normalize_maps
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
    inside the irrelevant ones (Eq. 2). The defaults go beyond the paper in three ways, each
    of which can be switched off: relevant objects are shown on other backgrounds
    (``background_swap``), rare classes are adjusted for (``logit_adjustment``), and the weights
    are averaged over the last steps (``average_decay``). The published settings are in
    [`from_preset`][crayon_sdk.correct.attention.AttentionCorrector.from_preset].

    Three settings come first: ``epochs`` (more while the guidance in ``history`` still falls), ``alpha`` and
    ``beta``, changed together (less where accuracy suffers, more where the maps stay as they were). All by what they
    are about:

    - how much answers count: ``alpha``, ``beta``, ``area_normalized``, ``answer_rule``, ``zero_maps``;
    - which map is guided: ``target``, ``score``;
    - help for rare groups and classes: ``background_swap``, ``logit_adjustment``;
    - training: ``epochs``, ``batch_size``, ``lr``, ``weight_decay``, ``optimizer``, ``momentum``, ``batch_norm``,
      ``average_decay``, ``clip_norm``, ``keep``, and its schedule: ``scheduler``, ``warmup_epochs``, ``step_epochs``,
      ``step_factor``;
    - where it runs: ``device``, ``precision``, ``seed``, ``checkpoint_dir``.

    Raises:
        SettingsError: A setting is out of range.
        UnsupportedModelError: The model has no feature map.
    """

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

    def fit(
        self,
        dataset: ImageDataset,
        maps: SaliencyMaps,
        answers: AnnotationSet,
        evaluate_on: ImageDataset | None = None,
        *,
        strict: bool = True,
    ) -> Correction:
        """Correct a copy of the model.

        Args:
            dataset: The training set; all of it counts in the cross entropy.
            maps: The maps that were answered, of this or of another model.
            answers: Answers about those maps; answers about neurons are not used here.
            evaluate_on: Measured after every epoch; not used for training.
            strict: Refuse answers for unknown samples or other maps; else drop and count them.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            AnswerError: No answer can guide anything.
            MismatchError: Answers, maps and data set do not belong together, or
                ``checkpoint_dir`` holds another run.
            NonFiniteLossError: The loss became NaN or infinite; its ``model`` holds
                the weights from before.
        """
        check_run_folder(self.checkpoint_dir)
        used = guidance_answers(answers, maps, dataset, num_classes=self.model.num_classes, strict=strict)
        score = maps.score if self.settings.score == "maps" else self.settings.score
        settings = replace(self.settings, score=check_score(score, self.model.num_classes))
        if maps.target_rule != str(settings.target):
            _log.warning(
                "the maps show the evidence for the target %s, and training guides that for the target %s; they are "
                "compared all the same. Explain and correct with one target",
                maps.target_rule,
                settings.target,
            )
        fit = Fit(self.model, dataset, evaluate_on, self.device, self.autocast, settings)
        dataset = fit.dataset
        identity = fit.identity("attention", maps=maps.fingerprint, answers=used.fingerprint)
        file = None if self.checkpoint_dir is None else RunFile(self.checkpoint_dir, identity)
        if file is not None:
            file.check()
        rule, zero_maps = settings.answer_rule, settings.zero_maps
        with PixelCache(dataset, fit.model.preprocessing, device=self.device) as cache:
            guidance = guidance_of(
                dataset,
                maps,
                used,
                fit.map_size(cache),
                preprocessing=fit.model.preprocessing,
                rule=rule,
                zero_maps=zero_maps,
            )
            _log.info("guidance: %s", dict(guidance.counts))
            loss = self._loss(fit.model, cache, dataset.labels.to(self.device), guidance.to(self.device), settings)
            with fit.training(frozen_norm=settings.batch_norm == "frozen"):
                history = train(
                    fit.model,
                    loss,
                    len(dataset),
                    settings,
                    file=file,
                    on_epoch=None if evaluate_on is None else fit.measure,
                    broken=lambda: fit.broken(cache.get(torch.arange(min(8, len(dataset))))),
                    keep_best=settings.keep == "best",
                    doing="guiding attention",
                )
        counts = dict(guidance.counts) | {"dropped_answers": used.dropped}
        return fit.finish("attention", history, used, counts, maps=maps.fingerprint)

    def _loss(
        self, model: SplitModel, cache: PixelCache, labels: Tensor, guidance: Guidance, settings: AttentionSettings
    ) -> BatchLoss:
        num_relevant, num_irrelevant = guidance.counts["relevant"], guidance.counts["irrelevant"]
        offsets = settings.logit_adjustment * log_prior(labels, model.num_classes)
        swap = self._swap(model, cache, guidance)

        def loss(batch: Tensor) -> dict[str, Tensor]:
            rows = batch.to(self.device)
            images = cache.get(batch)
            if swap is not None:
                images = swap(images, rows, settings.background_swap or 0.0)
            features = model.features(images, autocast=self.autocast)
            targets = current_targets(settings.target, labels[rows])
            logits, cams = logits_and_grad_cam(features, model.head, targets, score=settings.score, create_graph=True)
            prediction = nn.functional.cross_entropy(logits + offsets, labels[rows], reduction="sum")
            guiding = guidance_loss(
                normalize_maps(cams),
                guidance.reference[rows],
                guidance.relevant[rows],
                guidance.irrelevant[rows],
                alpha=settings.alpha,
                beta=settings.beta,
                num_relevant=num_relevant,
                num_irrelevant=num_irrelevant,
                area_normalized=settings.area_normalized,
            )
            guided = guidance.relevant[rows] | guidance.irrelevant[rows]
            empty = (guided & ~has_evidence(cams.detach())).sum()
            return {"loss": prediction + guiding, "prediction": prediction, "guidance": guiding, "no_evidence": empty}

        return loss

    def _swap(self, model: SplitModel, cache: PixelCache, guidance: Guidance) -> BackgroundSwap | None:
        if not self.settings.background_swap:
            return None
        if guidance.counts["relevant"] < 2:
            _log.warning("backgrounds are not exchanged: that takes at least two relevant pictures")
            return None
        return BackgroundSwap(model, cache, guidance, device=self.device, autocast=self.autocast)
