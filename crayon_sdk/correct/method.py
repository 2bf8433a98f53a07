"""`Method`: what every way of correcting a model shares that trains all of it on pictures."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar

import torch
from torch import nn

from crayon_sdk._base.methods import NEEDS, methods
from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk._base.text import unknown_name
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.guidance import guidance_answers, guidance_of
from crayon_sdk.correct.objective import Objective, PixelFeed
from crayon_sdk.correct.presets import preset as preset_of
from crayon_sdk.correct.run_file import check_run_folder
from crayon_sdk.correct.settings import TrainingSettings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import AnswerError, CrayonError, DataError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.models.split import SplitModel, as_split_model
from crayon_sdk.results.correction import Correction

__all__ = ["Method", "check_needs", "made"]

_WHERE = ("model", "device", "precision", "seed", "checkpoint_dir")  # keywords that are no settings of a method


class Method:
    """A way of correcting a model: an objective plus its settings.

    A method of yours names itself, says what it needs, and gives its objective; ``fit`` makes a copy of the model,
    trains it, goes on with a run that was stopped, and writes the record.

    Args:
        model: A `SplitModel`, timm model, or the model of a `Correction`. It is not changed.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).
        seed: Of everything random.
        checkpoint_dir: Where the state is kept; a run that was stopped continues there.
        **settings: Those of ``settings_kind``.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method: ClassVar[str]
    """What it is called, in the registry and in records."""
    settings_kind: ClassVar[Any]
    """Class of its settings, a `TrainingSettings` with a default for everything."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Of "answers", "neuron answers", "maps", "groups", "masks", "holdout"; batches hold what they are about."""

    presets: ClassVar[Mapping[str, Any]] = {}
    """Published settings by name."""

    settings: TrainingSettings

    def __init__(
        self,
        model: nn.Module,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        seed: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        self.model = as_split_model(model)
        _check_names(type(self), settings)
        self.settings = self.settings_kind(seed=seed, **settings)
        self.device = resolve_device(device, self.model.device)
        self.autocast = resolve_precision(precision, self.device)
        self.checkpoint_dir = checkpoint_dir

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self.settings, name)!r}" for name in ("epochs", "lr"))
        return f"{type(self).__name__}({self.model.architecture}, {shown}, on {self.device})"

    def objective(self, model: SplitModel, feed: PixelFeed, settings: Any) -> Objective:
        """What is minimised; overridden by every method.

        Args:
            model: The copy that is corrected, on the device.
            feed: The training set.
            settings: Of this run.
        """
        raise NotImplementedError

    def resolved(self, maps: SaliencyMaps | None) -> TrainingSettings:
        """The settings of a run; overridden where they depend on the maps."""
        return self.settings

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
            evaluate_on: Measured after every epoch; not used for training.
            maps: The maps that were answered, for a method that needs them.
            answers: Answers about them, for a method that needs them.
            strict: Refuse answers for unknown samples or other maps; else drop and count them.

        Returns:
            The corrected model and the record of what was done.

        Raises:
            AnswerError: No answer can guide anything, or there are none and the method needs some.
            DataError: The method needs groups or masks, and the data set has none.
            MismatchError: Answers, maps and data set do not belong together, or
                ``checkpoint_dir`` holds another run.
            NonFiniteLossError: The loss became NaN or infinite; its ``model`` holds
                the weights from before.
        """
        return self._fit(dataset, evaluate_on, maps, answers, strict=strict)

    def _fit(
        self,
        dataset: ImageDataset,
        evaluate_on: ImageDataset | None,
        maps: SaliencyMaps | None,
        answers: AnnotationSet | None,
        *,
        strict: bool,
    ) -> Correction:
        check_run_folder(self.checkpoint_dir)
        check_needs(self, as_dataset(dataset), evaluate_on, maps=maps, answers=answers)
        used, inputs = AnnotationSet(), {}
        if maps is not None and answers is not None and {"maps", "answers"} <= self.needs:
            used = guidance_answers(answers, maps, dataset, num_classes=self.model.num_classes, strict=strict)
            inputs = {"maps": maps.fingerprint, "answers": used.fingerprint}
        settings = self.resolved(maps)
        fit = Fit(self.model, dataset, evaluate_on, self.device, self.autocast, settings)
        dataset = fit.dataset
        file = fit.run_file(self.checkpoint_dir, self.method, **inputs)
        preprocessing = fit.model.preprocessing
        groups = dataset.group_index()[0] if "groups" in self.needs else None
        with PixelCache(dataset, preprocessing, device=self.device) as cache:
            guidance = masks = None
            if maps is not None and inputs:
                rule = getattr(settings, "answer_rule", "unanimous")
                zero_maps = getattr(settings, "zero_maps", "skip")
                guidance = guidance_of(
                    dataset,
                    maps,
                    used,
                    fit.map_size(cache),
                    preprocessing=preprocessing,
                    rule=rule,
                    zero_maps=zero_maps,
                )
            if "masks" in self.needs:
                masks = torch.stack([dataset.mask_tensor(sample, preprocessing).bool() for sample in dataset.ids])
            feed = PixelFeed(cache, dataset.labels, guidance=guidance, groups=groups, masks=masks)
            history = fit.train(self.objective(fit.model, feed, settings), feed, file, measured=True)
        counts = {} if guidance is None else dict(guidance.counts) | {"dropped_answers": used.dropped}
        return fit.finish(self.method, history, used, counts, maps=inputs.get("maps", ""))


def check_needs(
    method: Any,
    dataset: ImageDataset,
    evaluate_on: ImageDataset | None,
    *,
    maps: SaliencyMaps | None = None,
    answers: AnnotationSet | None = None,
) -> None:
    """See that a method gets what it needs, before any work.

    Args:
        method: One, or its class.
        dataset: The training set.
        evaluate_on: The pictures to evaluate on.
        maps: The maps that were answered.
        answers: All answers.

    Raises:
        AnswerError: It needs answers.
        DataError: It needs groups or masks of the training set.
        SettingsError: It needs maps, or pictures to evaluate on.
    """
    lacking: dict[str, tuple[bool, type[CrayonError], str]] = {
        "answers": (answers is None, AnswerError, "pass answers="),
        "neuron answers": (answers is None, AnswerError, "pass answers="),
        "maps": (maps is None, SettingsError, "pass maps= (Explainer.explain makes them)"),
        "groups": (
            not dataset.groups,
            DataError,
            "make the data set with groups (group_columns= of from_csv, groups= of from_torch)",
        ),
        "masks": (
            not dataset.has_masks,
            DataError,
            "make the data set with masks (masks= of from_folder and from_torch, mask_column= of from_csv)",
        ),
        "holdout": (evaluate_on is None, SettingsError, "pass evaluate_on= (never the test set)"),
    }
    for need in sorted(method.needs):
        missing, kind, remedy = lacking[need]
        if missing:
            raise kind(f"method {method.method!r} needs {NEEDS[need]}, and got none; {remedy}")


def made(
    method: str,
    model: nn.Module,
    values: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    presets: Mapping[str, Any] | None = None,
    **where: Any,
) -> Any:
    """Make a method by name, from settings by name.

    Args:
        method: One of ``crayon_sdk.correct.methods``.
        model: The model to correct.
        values: Its settings; what is not named is the preset's, or its default.
        preset: Published settings to start from.
        presets: Where they are looked up; default the method's own.
        **where: Seed, device, precision and checkpoint_dir.

    Raises:
        SettingsError: A name or a value is wrong, or there is no such method or preset.
    """
    kind, given = methods[method], dict(values or {})
    _check_names(kind, given)
    if "preset" in inspect.signature(kind).parameters:  # it knows what to make of it
        return kind(model, **given, **where, preset=preset)
    if preset is None:
        return kind(model, **given, **where)
    table = presets or getattr(kind, "presets", {})
    if not table:
        raise SettingsError(f"method {method!r} has no presets, got preset {preset!r}; leave it out")
    known = _names(kind)
    start = {name: value for name, value in asdict(preset_of(dict(table), preset)).items() if name in known}
    return kind(model, **{**start, **given}, **where)


def _names(kind: Any) -> list[str]:
    """Names of the settings that a class takes as keywords."""
    parameters = inspect.signature(kind).parameters.values()
    named = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(named) < len(parameters):
        named += [field.name for field in fields(kind.settings_kind)]
    return [name for name in named if name not in _WHERE and name != "preset"]


def _check_names(kind: Any, values: Mapping[str, Any]) -> None:
    known = _names(kind)
    for name in values:
        if name not in known:
            raise SettingsError(unknown_name(name, known, f"setting of {kind.__name__}"))
