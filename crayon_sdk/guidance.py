"""From answers about maps to what a training set is guided with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from crayon_sdk.annotations import AnnotationSet
from crayon_sdk.data import ImageDataset
from crayon_sdk.errors import AnswerError
from crayon_sdk.maps import SaliencyMaps
from crayon_sdk.relevance import Rule

__all__ = ["Guidance", "current_targets", "guidance_answers", "guidance_of"]


@dataclass(frozen=True)
class Guidance:
    """What a training set is guided with, in the order of its samples.

    Attributes:
        reference: (N, h, w) float32 reference maps; ones where a sample is not guided.
        relevant: (N,) bool, sample is in R.
        irrelevant: (N,) bool, sample is in I.
        counts: How many samples are relevant, irrelevant, mixed, unanswered, or
            were answered but have a map without evidence.
    """

    reference: Tensor
    relevant: Tensor
    irrelevant: Tensor
    counts: Mapping[str, int]

    def to(self, device: torch.device) -> Guidance:
        """The same on another device."""
        return Guidance(
            self.reference.to(device), self.relevant.to(device), self.irrelevant.to(device), counts=self.counts
        )


def guidance_answers(
    answers: AnnotationSet, maps: SaliencyMaps, dataset: ImageDataset, *, strict: bool = True
) -> AnnotationSet:
    """Pick the answers about maps, and check that they are about these maps and samples.

    Args:
        answers: All answers.
        maps: The maps that were answered.
        dataset: The training set.
        strict: Refuse answers that do not belong; else drop and count them.

    Raises:
        AnswerError: There are no answers about images.
        MismatchError: Answers for another model, or for samples that are lacking.
    """
    images = AnnotationSet(answers.image_answers)
    if not len(images):
        raise AnswerError(
            f"expected answers about images, got {len(answers)} answers of which none is about an image; "
            "answer some of the maps first"
        )
    if maps.model:
        images = images.for_model(maps.model, strict=strict)
    return images.for_ids(dataset.ids, strict=strict).for_ids(maps.ids, strict=strict, where="the maps")


def guidance_of(
    dataset: ImageDataset,
    maps: SaliencyMaps,
    answers: AnnotationSet,
    size: tuple[int, int],
    *,
    rule: Rule = "unanimous",
    zero_maps: str = "skip",
) -> Guidance:
    """Turn answers into the sets R and I and their reference maps.

    Args:
        dataset: The training set.
        maps: The maps that were answered.
        answers: Checked answers about them.
        size: (h, w) of the map of the model in training; other maps are resized.
        rule: From votes to relevance.
        zero_maps: "skip" leaves maps without evidence out, "keep" takes them as ones.

    Raises:
        AnswerError: Neither R nor I has a sample.
    """
    verdicts = answers.image_relevance(rule)
    decided = [sample for sample, verdict in verdicts.items() if verdict != "mixed"]
    chosen = maps.select(decided)
    usable = chosen.evidence if zero_maps == "skip" else torch.ones(len(decided), dtype=torch.bool)
    resized = chosen if chosen.size == tuple(size) else chosen.resize(*size)
    reference = torch.ones(len(dataset), *size)
    relevant = torch.zeros(len(dataset), dtype=torch.bool)
    irrelevant = relevant.clone()
    for row in usable.nonzero().flatten().tolist():
        position = dataset.index_of(decided[row])
        reference[position] = resized.values[row]
        (relevant if verdicts[decided[row]] == "relevant" else irrelevant)[position] = True
    counts = {
        "relevant": int(relevant.sum()),
        "irrelevant": int(irrelevant.sum()),
        "mixed": len(verdicts) - len(decided),
        "unanswered": len(dataset) - len(verdicts),
        "without_evidence": int((~usable).sum()),
    }
    if not counts["relevant"] and not counts["irrelevant"]:
        raise AnswerError(
            f"no answer can guide anything: of {len(verdicts)} answered samples {counts['mixed']} are mixed and "
            f"{counts['without_evidence']} have a map without evidence; give more answers, or another answer_rule"
        )
    return Guidance(reference, relevant, irrelevant, counts)


def current_targets(target: str | int, labels: Tensor) -> Tensor | None:
    """Target classes of a batch by rule; ``None`` stands for the predicted class.

    Example:
        >>> current_targets(1, torch.tensor([0, 0])).tolist()
        [1, 1]
    """
    if target == "label":
        return labels
    return None if target == "predicted" else torch.full_like(labels, int(target))
