"""From answers about maps to what a training set is guided with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crayon_sdk.annotations import AnnotationSet
from crayon_sdk.data import ImageDataset
from crayon_sdk.errors import AnswerError
from crayon_sdk.maps import SaliencyMaps
from crayon_sdk.relevance import Rule

__all__ = [
    "Guidance",
    "balanced_weights",
    "current_targets",
    "guidance_answers",
    "guidance_of",
    "mirror",
    "swap_backgrounds",
]


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


def mirror(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror some of a batch left to right.

    Args:
        images: (N, ..., W), pictures or maps.
        chosen: (N,) bool.

    Example:
        >>> mirror(torch.tensor([[[1, 2]], [[3, 4]]]), torch.tensor([True, False])).tolist()
        [[[2, 1]], [[3, 4]]]
    """
    return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Weights that make every class count the same, with a mean of one over the samples.

    Args:
        labels: (N,) int64 in [0, num_classes).
        num_classes: Number of classes K; a class without samples gets weight 0.

    Returns:
        (K,) float32.

    Example:
        >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2).tolist()
        [0.6666666865348816, 2.0]
    """
    counts = torch.bincount(labels, minlength=num_classes).float()
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp_min(1)), 0.0)


def swap_backgrounds(images: Tensor, reference: Tensor, chosen: Tensor, partners: Tensor) -> Tensor:
    """Keep what lies under a relevant highlight and take the rest from another picture.

    Where the reference map is above half its maximum the picture stays, where it is
    below a quarter the partner shows, between them the two are blended.

    Args:
        images: (N, 3, H, W) floating point.
        reference: (N, h, w) in [0, 1], enlarged bilinearly.
        chosen: (N,) bool, the pictures to change; their highlight should be relevant.
        partners: (N,) int64, which picture of the batch gives the rest.

    Returns:
        (N, 3, H, W).

    Example:
        >>> images = torch.stack([torch.zeros(3, 2, 4), torch.ones(3, 2, 4)])
        >>> reference = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
        >>> swap_backgrounds(images, reference, torch.tensor([True, False]), torch.tensor([1, 0]))[0, 0, 0].tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    cover = nn.functional.interpolate(reference[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)
    keep = ((cover - 0.25) / 0.25).clamp(0, 1)
    return torch.where(chosen[:, None, None, None], torch.lerp(images[partners], images, keep), images)


def other_class(labels: Tensor) -> Tensor:
    """Pick for every sample of a batch one of another class at random; itself when there is none.

    Args:
        labels: (N,) int64.

    Returns:
        (N,) int64 positions in the batch.

    Example:
        >>> other_class(torch.tensor([0, 1, 0]))[[0, 2]].tolist()
        [1, 1]
    """
    scores = torch.rand(len(labels), len(labels)).to(labels.device)
    different = labels[:, None] != labels[None, :]
    own = torch.arange(len(labels), device=labels.device)
    return torch.where(different.any(dim=1), (scores * different).argmax(dim=1), own)
