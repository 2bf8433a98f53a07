"""`AttentionCorrector`: guide the saliency maps of a model with yes/no answers (CRAYON-Attention)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.relevance import Rule
from crayon_sdk.correct import presets
from crayon_sdk.correct.backgrounds import BackgroundSwap, gives_intermediates
from crayon_sdk.correct.guidance import current_targets
from crayon_sdk.correct.method import Method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.settings import AttentionSettings
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import SettingsError
from crayon_sdk.explain.explainer import check_score, check_target
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.functional.losses import guidance_loss
from crayon_sdk.functional.saliency import has_evidence, logits_and_grad_cam, normalize_maps
from crayon_sdk.models.split import SplitModel, as_split_model
from crayon_sdk.results.correction import Correction

__all__ = ["AttentionCorrector"]

_log = logging.getLogger(__name__)
_BACKGROUND_SWAP = 0.7  # chosen on the validation split of the birds


class AttentionCorrector(Method):
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

    Args:
        model: A `SplitModel`, timm model, or the model of a `Correction`. It is not changed.
        alpha: Weight of the relevant term, not negative.
        beta: Weight of the irrelevant term, not negative.
        area_normalized: Divide each term by its area, so that alpha and beta do not
            depend on the resolution of the map.
        epochs: Passes over the data set.
        batch_size: Pictures per step.
        lr: Peak learning rate.
        weight_decay: L2 penalty.
        optimizer: "adam", "adamw" or "sgd".
        momentum: Of "sgd".
        scheduler: "none", "cosine" or "step".
        warmup_epochs: Epochs of rising learning rate at the start.
        step_epochs: With "step": epochs between two falls.
        step_factor: With "step": factor of each fall.
        average_decay: Decay of the moving average of the weights; 0 keeps the last ones.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        target: Whose evidence the map in training shows; the same as in the explainer.
        score: Whose gradient the map in training is: "maps" for the same as in the maps that
            were answered; or "logit", or "margin"
            (see [`target_scores`][crayon_sdk.functional.saliency.target_scores]).
        zero_maps: "skip" or "keep" samples whose reference map has no evidence.
        background_swap: Probability that a relevant picture is shown on a background made of
            tiles of another one; ``None`` takes 0.7 for models that give intermediate features
            (timm's do), else 0.
        logit_adjustment: How much of the log share of each class is added to the logits inside
            the cross entropy: 0 is the plain one, 1 is fair to rare classes.
        batch_norm: "train" or "frozen" batch statistics.
        answer_rule: From votes to relevance: "unanimous", "majority", "share", or, weighing people by how
            reliable they seem, "dawid-skene" or "mace" (extra ``crowd``).
        keep: "last", or "best": the epoch with the best ``evaluate_on`` (worst group
            with group columns, else worst class).
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).
        seed: Of everything random.
        checkpoint_dir: Where the state is kept; a run that was stopped continues there.

    Raises:
        SettingsError: A setting is out of range.
        UnsupportedModelError: The model has no feature map.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        alpha: float = 1e3,
        beta: float = 1e3,
        area_normalized: bool = True,
        epochs: int = 6,
        batch_size: int = 64,
        lr: float = 1e-4,
        weight_decay: float = 1e-4,
        optimizer: str = "adam",
        momentum: float = 0.9,
        scheduler: str = "cosine",
        warmup_epochs: float = 0.0,
        step_epochs: int = 1,
        step_factor: float = 0.1,
        average_decay: float = 0.98,
        clip_norm: float = 0.0,
        target: str | int = "label",
        score: str = "maps",
        zero_maps: str = "skip",
        background_swap: float | None = None,
        logit_adjustment: float = 1.0,
        batch_norm: str = "train",
        answer_rule: Rule = "unanimous",
        keep: str = "last",
        device: str | torch.device = "auto",
        precision: str = "auto",
        seed: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model = as_split_model(model)
        if background_swap is None:
            background_swap = _BACKGROUND_SWAP if gives_intermediates(self.model) else 0.0
        self.settings = AttentionSettings(
            alpha=alpha,
            beta=beta,
            area_normalized=area_normalized,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            optimizer=optimizer,
            momentum=momentum,
            scheduler=scheduler,
            warmup_epochs=warmup_epochs,
            step_epochs=step_epochs,
            step_factor=step_factor,
            average_decay=average_decay,
            clip_norm=clip_norm,
            target=check_target(target, self.model.num_classes),
            score=score if score == "maps" else check_score(score, self.model.num_classes),
            zero_maps=zero_maps,
            background_swap=background_swap,
            logit_adjustment=logit_adjustment,
            batch_norm=batch_norm,
            answer_rule=answer_rule,
            keep=keep,
            seed=seed,
        )
        self.device = resolve_device(device, self.model.device)
        self.autocast = resolve_precision(precision, self.device)
        self.checkpoint_dir = checkpoint_dir

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self.settings, name)!r}" for name in ("alpha", "beta", "epochs", "lr"))
        return f"AttentionCorrector({self.model.architecture}, {shown}, on {self.device})"

    @classmethod
    def from_preset(
        cls,
        name: str,
        model: nn.Module,
        *,
        after_pruning: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        seed: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> AttentionCorrector:
        """Take the settings of the published runs.

        Args:
            name: "waterbirds", "biased-celeba" or "backgrounds".
            model: The model to correct.
            after_pruning: The settings for a model that was pruned before.
            device: "auto" or a torch device.
            precision: "auto", "float32" or "bfloat16" (of the trunk).
            seed: Of everything random.
            checkpoint_dir: Where the state is kept.

        Raises:
            SettingsError: There is no such preset.
        """
        table = presets.AFTER_PRUNING if after_pruning else presets.ATTENTION
        corrector = cls(model, device=device, precision=precision, checkpoint_dir=checkpoint_dir)
        corrector.settings = replace(presets.preset(table, name), seed=seed)
        return corrector

    method: ClassVar[str] = "attention"
    settings_kind: ClassVar[type[AttentionSettings]] = AttentionSettings
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "maps"})
    presets: ClassVar[Mapping[str, AttentionSettings]] = presets.ATTENTION
    settings: AttentionSettings

    def fit(  # type: ignore[override]  # maps and answers, which it always needs, come first
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
        return self._fit(dataset, evaluate_on, maps, answers, strict=strict)

    def resolved(self, maps: SaliencyMaps | None) -> AttentionSettings:
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
        swap, guidance = None, feed.guidance
        if guidance is None:
            raise SettingsError("guiding attention needs a feed with guidance, got one without")
        _log.info("guidance: %s", dict(guidance.counts))
        if settings.background_swap and guidance.counts["relevant"] < 2:
            _log.warning("backgrounds are not exchanged: that takes at least two relevant pictures")
        elif settings.background_swap:
            swap = BackgroundSwap(model, feed.cache, guidance, device=self.device, autocast=self.autocast)
        return GuidedAttention(model, feed.labels, settings, guidance.counts, swap=swap, autocast=self.autocast)


class GuidedAttention(Prediction):
    """The loss of CRAYON-Attention (Eq. 4), on pictures whose backgrounds may be exchanged.

    Args:
        model: Is trained.
        labels: (N,) of the whole training set.
        settings: Weights, target and score.
        counts: How many samples of the training set are "relevant" and "irrelevant".
        swap: Exchanges backgrounds.
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
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, labels, logit_adjustment=settings.logit_adjustment, autocast=autocast)
        self.settings, self.counts, self.swap = settings, counts, swap

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy, guidance, and how many guided samples have a map without evidence."""
        settings, images = self.settings, batch.images
        if self.swap is not None:
            images = self.swap(images, batch.rows, settings.background_swap)
        features = self.model.features(images, autocast=self.autocast)
        targets = current_targets(settings.target, batch.labels)
        logits, cams = logits_and_grad_cam(features, self.model.head, targets, score=settings.score, create_graph=True)
        prediction = self.prediction(logits, batch)
        guiding = guidance_loss(
            normalize_maps(cams),
            batch.reference,
            batch.relevant,
            batch.irrelevant,
            alpha=settings.alpha,
            beta=settings.beta,
            num_relevant=self.counts["relevant"],
            num_irrelevant=self.counts["irrelevant"],
            area_normalized=settings.area_normalized,
        )
        guided = batch.relevant | batch.irrelevant
        empty = (guided & ~has_evidence(cams.detach())).sum()
        return {"loss": prediction + guiding, "prediction": prediction, "guidance": guiding, "no_evidence": empty}
