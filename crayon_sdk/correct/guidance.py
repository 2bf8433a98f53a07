"""From answers about maps to what a training set is guided with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.records import ImageAnswer
from crayon_sdk.answers.relevance import Rule
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import AnswerError, MismatchError
from crayon_sdk.explain.maps import SaliencyMaps, as_maps
from crayon_sdk.functional.saliency import normalize_maps, resample_maps

__all__ = ["Guidance", "current_targets", "guidance_answers", "guidance_of", "taken_for_right"]

_Box = tuple[float, float, float, float]
_LEAST_VIEW = 0.5  # less of the picture, and the answer was about something else


@dataclass(frozen=True)
class Guidance:
    """What a training set is guided with, in the order of its samples.

    Attributes:
        reference: (N, h, w) float32 maps that were answered; ones where nothing was.
        relevant: (N,) bool, sample is in R.
        irrelevant: (N,) bool, sample is in I.
        spots: (N,) float32, share of people who say that the brightest spot of the map is on the object; NaN where
            nobody said anything clear.
        counts: How many samples are relevant, irrelevant, mixed, unanswered, or
            were answered but have a map without evidence; and, where there are answers about spots, how many spots are
            on the object, off it, or mixed.
    """

    reference: Tensor
    relevant: Tensor
    irrelevant: Tensor
    spots: Tensor
    counts: Mapping[str, int]

    def to(self, device: torch.device) -> Guidance:
        """The same on another device."""
        moved: dict[str, Any] = {name: each.to(device) for name, each in vars(self).items() if isinstance(each, Tensor)}
        return replace(self, **moved)


def guidance_answers(
    answers: AnnotationSet,
    maps: SaliencyMaps,
    dataset: ImageDataset,
    *,
    num_classes: int | None = None,
    strict: bool = True,
) -> AnnotationSet:
    """Pick the answers about maps and their spots, and check that they are about these maps and samples.

    Args:
        answers: All answers.
        maps: The maps that were answered.
        dataset: The training set.
        num_classes: Of the model, when it is known.
        strict: Refuse answers that do not belong; else drop and count them.

    Raises:
        AnswerError: There are no answers about images or spots, none is left, or they are no AnnotationSet.
        DataError: The data set is no ImageDataset.
        MismatchError: Answers for another model, for samples that are lacking, or about classes it does not have.
    """
    as_dataset(dataset)
    as_maps(maps)
    images = as_answers(answers).only("image", "spot")
    if not len(images):
        raise AnswerError(
            f"expected answers about images or spots, got {len(answers)} answers of which none is about one; "
            "answer some of the maps first"
        )
    if maps.model:
        images = images.for_model(maps.model, strict=strict)
    if num_classes is not None:
        images = images.for_classes(num_classes, strict=strict)
    fitting = images.for_ids(dataset.ids, strict=strict).for_ids(maps.ids, strict=strict, where="the maps")
    if not len(fitting):
        raise AnswerError(
            f"none of {fitting.dropped} answers is left: all are about another model, or about images that are not in "
            "the data set and the maps; strict=True says which"
        )
    return fitting


def taken_for_right(maps: SaliencyMaps, dataset: ImageDataset) -> AnnotationSet:
    """Say yes to every map of the data set that shows something, where nobody is asked.

    Raises:
        AnswerError: There is no such map.
    """
    known = set(as_dataset(dataset).ids)
    found = AnnotationSet(
        ImageAnswer(id=sample, answer="yes", annotator="nobody", target=target, simulated=True)
        for sample, target, shown in zip(as_maps(maps).ids, maps.targets.tolist(), maps.evidence.tolist(), strict=True)
        if shown and sample in known
    )
    if not len(found):
        raise AnswerError(f"expected maps of the pictures in the data set, with evidence; none of {len(maps)} is one")
    return found


def guidance_of(
    dataset: ImageDataset,
    maps: SaliencyMaps,
    answers: AnnotationSet,
    size: tuple[int, int],
    *,
    preprocessing: Preprocessing | None = None,
    rule: Rule = "unanimous",
    zero_maps: str = "skip",
) -> Guidance:
    """Turn answers into the sets R and I and their reference maps.

    Args:
        dataset: The training set.
        maps: The maps that were answered.
        answers: Checked answers about them.
        size: (h, w) of the map of the model in training; other maps are resized.
        preprocessing: What that model sees of a picture; ``None`` for the same as in the maps. Maps
            of another view are resampled, picture by picture.
        rule: From votes to relevance of whole maps; about spots the share of yes counts.
        zero_maps: "skip" leaves maps without evidence out, "keep" takes them as ones.

    Raises:
        AnswerError: Neither R nor I has a sample, and no spot is judged.
        MismatchError: The maps show less than half of what the model in training sees.
    """
    verdicts, of_spots = answers.image_relevance(rule), answers.yes_shares("spot")
    clear = [sample for sample, verdict in verdicts.items() if verdict != "mixed"]
    clear_spots = [sample for sample, share in of_spots.items() if share != 0.5]
    asked = verdicts.keys() | of_spots.keys()
    chosen = maps.select(list(dict.fromkeys([*clear, *clear_spots])))
    usable = chosen.evidence if zero_maps == "skip" else torch.ones(len(chosen), dtype=torch.bool)
    resized = _in_view(dataset, chosen, size, preprocessing)
    reference = torch.ones(len(dataset), *size)
    relevant = torch.zeros(len(dataset), dtype=torch.bool)
    irrelevant, spots = relevant.clone(), torch.full((len(dataset),), torch.nan)
    for row in usable.nonzero().flatten().tolist():
        sample = chosen.ids[row]
        position = dataset.index_of(sample)
        reference[position] = resized.values[row]
        relevant[position] = verdicts.get(sample) == "relevant"
        irrelevant[position] = verdicts.get(sample) == "irrelevant"
        share = of_spots.get(sample, 0.5)
        spots[position] = torch.nan if share == 0.5 else share
    counts = {
        "relevant": int(relevant.sum()),
        "irrelevant": int(irrelevant.sum()),
        "mixed": len(verdicts) - len(clear),
        "unanswered": len(dataset) - len(asked),
        "without_evidence": int((~usable).sum()),
    }
    if of_spots:
        counts |= {"spots_on": int((spots > 0.5).sum()), "spots_off": int((spots < 0.5).sum())}
        counts["spots_mixed"] = len(of_spots) - len(clear_spots)
    if not bool((relevant | irrelevant | ~spots.isnan()).any()):
        raise AnswerError(
            f"no answer can guide anything: of {len(asked)} answered samples {len(asked) - len(chosen)} are mixed and "
            f"{counts['without_evidence']} have a map without evidence; give more answers, or another answer_rule="
        )
    return Guidance(reference, relevant, irrelevant, spots, counts)


def _in_view(
    dataset: ImageDataset, maps: SaliencyMaps, size: tuple[int, int], preprocessing: Preprocessing | None
) -> SaliencyMaps:
    """The maps as the model in training would see them."""
    known = maps.preprocessing
    unknown = known is None or preprocessing is None or dataset.preprocessed
    if unknown or known.same_geometry(preprocessing):  # type: ignore[union-attr, arg-type]
        return maps if maps.size == tuple(size) else maps.resize(*size)
    boxes = []
    for sample in maps.ids:
        width, height = dataset.image_size(sample)
        box, covered = _box_within(known.view(width, height), preprocessing.view(width, height))  # type: ignore[union-attr]
        if covered < _LEAST_VIEW:
            raise MismatchError(
                f"the maps show only {100 * covered:.0f} % of what the model in training sees of {sample!r}: they were "
                f"made with {known}, it takes {preprocessing}. Explain with a model that sees more of the picture, or "
                "give both one preprocessing= (crop_mode, crop_pct)"
            )
        boxes.append(box)
    values = normalize_maps(resample_maps(maps.values, torch.tensor(boxes), size))
    return replace(maps, values=values, preprocessing=preprocessing)


def _box_within(source: _Box, target: _Box) -> tuple[_Box, float]:
    """A view in the coordinates of another one, and how much of it the other one shows of the picture's own part."""
    width, height = source[2] - source[0], source[3] - source[1]
    left, right = ((target[side] - source[0]) / width for side in (0, 2))
    top, bottom = ((target[side] - source[1]) / height for side in (1, 3))
    shown = [max(source[0], target[0], 0), max(source[1], target[1], 0), min(source[2], target[2], 1)]
    shown.append(min(source[3], target[3], 1))
    own = [max(target[0], 0), max(target[1], 0), min(target[2], 1), min(target[3], 1)]
    area = max(shown[2] - shown[0], 0) * max(shown[3] - shown[1], 0)
    return (left, top, right, bottom), area / ((own[2] - own[0]) * (own[3] - own[1]))


def current_targets(target: str | int, labels: Tensor) -> Tensor | None:
    """Target classes of a batch by rule; ``None`` stands for the predicted class.

    Example:
        >>> current_targets(1, torch.tensor([0, 0])).tolist()
        [1, 1]
    """
    if target == "label":
        return labels
    return None if target == "predicted" else torch.full_like(labels, int(target))
