"""`PruningThenAttention`: cut irrelevant neurons, then guide the maps of what is left (CRAYON-Pruning+Attention)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.guidance import guidance_answers
from crayon_sdk.correct.method import check_needs, made
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.models.split import as_split_model
from crayon_sdk.results.correction import Correction

__all__ = ["PruningThenAttention"]


class PruningThenAttention:
    """`NeuronPruner`, then `AttentionCorrector` on what it gives: two corrections, the first a parent of the second.

    Args:
        model: A `SplitModel`, timm model, or the model of a `Correction`. It is not changed.
        pruning: Settings of `NeuronPruner`.
        attention: Settings of `AttentionCorrector`.
        preset: Published settings of both to start from.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).
        seed: Of everything random.
        checkpoint_dir: Where the states are kept, each in a folder of its own.

    Attributes:
        stages: The two by name, in order.

    Raises:
        SettingsError: A setting is unknown or out of range, of either.
        UnsupportedModelError: The model has no feature map, or no linear classifier.
    """

    method: ClassVar[str] = "both"
    title: ClassVar[str] = "CRAYON-Pruning+Attention"
    paper: ClassVar[str] = "Lee et al., IEEE BigData 2024"
    parts: ClassVar[tuple[str, ...]] = ("pruning", "attention")
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "neuron answers", "maps"})

    def __init__(
        self,
        model: nn.Module,
        *,
        pruning: Mapping[str, Any] | None = None,
        attention: Mapping[str, Any] | None = None,
        preset: str | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
        seed: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model = as_split_model(model)
        where: dict[str, Any] = {"device": device, "precision": precision, "seed": seed, "preset": preset}
        self.stages: dict[str, Any] = {}  # what is wrong with the second is said before the first is done
        for name, values in (("pruning", pruning), ("attention", attention)):
            folder = None if checkpoint_dir is None else Path(checkpoint_dir) / name
            after: dict[str, Any] = {"after_pruning": True} if name == "attention" and preset is not None else {}
            self.stages[name] = made(name, self.model, values, checkpoint_dir=folder, **where, **after)

    def __repr__(self) -> str:
        return f"PruningThenAttention({', '.join(map(repr, self.stages.values()))})"

    @classmethod
    def from_preset(cls, name: str, model: nn.Module, **overrides: Any) -> PruningThenAttention:
        """Take the settings of the published runs, as with ``preset``."""
        return cls(model, preset=name, **overrides)

    def fit(
        self,
        dataset: ImageDataset,
        maps: SaliencyMaps,
        answers: AnnotationSet,
        evaluate_on: ImageDataset | None = None,
        *,
        strict: bool = True,
    ) -> Correction:
        """Prune and guide a copy of the model.

        Args:
            dataset: The training set.
            maps: The maps that were answered.
            answers: Answers about those maps and about this model's neurons.
            evaluate_on: Measured after every epoch; not used for training.
            strict: Refuse answers that do not belong; else drop and count them.

        Returns:
            The second correction; the record of the first is in its ``parents``.

        Raises:
            AnswerError: There are no answers about maps, or none about neurons.
            MismatchError: Answers, maps, model and data set do not belong together, or
                ``checkpoint_dir`` holds another run.
            NonFiniteLossError: The loss became NaN or infinite.
        """
        check_needs(self, as_dataset(dataset), evaluate_on, maps=maps, answers=answers)
        guidance_answers(answers, maps, dataset, num_classes=self.model.num_classes, strict=strict)
        pruned: Correction = self.stages["pruning"].fit(dataset, answers, evaluate_on, strict=strict)
        attention = replace(self.stages["attention"], model=pruned.model)
        guided: Correction = attention.fit(dataset, maps, answers, evaluate_on, strict=strict)
        return guided
