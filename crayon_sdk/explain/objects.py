"""Where the object is in every picture, learned from the answers about some of them; and what the answers are worth."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk._base.progress import track
from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.relevance import Rule
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.data.preprocessing import effective_preprocessing
from crayon_sdk.errors import AnswerError, MismatchError, UnsupportedModelError
from crayon_sdk.explain.maps import SaliencyMaps, as_maps, readable
from crayon_sdk.functional.cells import (
    FINER,
    AnsweredCells,
    answered_cells,
    area_under_curve,
    cells_on_grid,
    fit_logistic,
    out_of_fold,
)
from crayon_sdk.functional.groups import surround_features
from crayon_sdk.models.passes import check_finite, intermediate_features
from crayon_sdk.models.split import SplitModel, as_split_model, borrowed

__all__ = [
    "LEAST",
    "MOST",
    "FoundObjects",
    "ObjectMaps",
    "ObjectProbe",
    "Worth",
    "balanced_draw",
    "cells_of",
    "check_cells",
    "find_objects",
    "found_objects",
    "objects_of",
    "probe_of",
    "trusted",
    "trusted_objects",
]

_log = logging.getLogger(__name__)

_SHARPNESS = 0.5  # power of the odds: a cell half as likely in odds as the best one still is mostly object
MOST = 500
"""Answers, and answered pictures, that are learned from; more say little more, and have to be kept."""
_BATCH = 64
_PRIOR = 10.0  # ridge penalty, times the number of answered pictures: of those tried the best by object masks
LEAST = 3  # clear yes, below which nothing can be learned of what the object looks like
_TESTED = 20  # of each kind; fewer, and typical ones above all, differ too much to be foretold by each other
_TOGETHER = 0.7  # share of pairs told apart, below which answers do not go together
_CHANCE = 0.05


@dataclass(frozen=True)
class Worth:
    """What answers are worth, by a probe that never saw the picture it is tested on.

    Attributes:
        relevant: How many of the answered pictures that were learned from are relevant.
        irrelevant: How many are irrelevant.
        cells: Probability in [0, 1] that a cell of the object gets a higher score than another one.
        verdicts: Probability in [0, 1] that the highlight of a relevant picture gets a higher score than that of an
            irrelevant one; 0.5 is chance, NaN where one of the two kinds is lacking, or is there only once.
        chance: Probability that answers given without looking come out at least as well; NaN likewise.
    """

    relevant: int
    irrelevant: int
    cells: float
    verdicts: float
    chance: float

    @property
    def contradictory(self) -> bool:
        """Whether the answers say of like highlights now yes and now no, as if nobody had looked."""
        enough = min(self.relevant, self.irrelevant) >= _TESTED
        return enough and self.verdicts + 1.645 * _spread(self) < _TOGETHER

    @property
    def carries(self) -> bool:
        """Whether other pictures can be judged by the answers."""
        return self.relevant >= LEAST and not self.contradictory

    @property
    def in_words(self) -> str:
        """One sentence for people."""
        total = self.relevant + self.irrelevant
        if not self.irrelevant or not self.relevant:
            same = "right" if self.relevant else "wrong"
            return f"all {total:,} maps that were answered are {same}: one answer for all would have said as much"
        if self.relevant < LEAST:
            return f"{self.relevant:,} clear yes are too few to learn what the object looks like; it takes {LEAST}"
        foretold = f"{100 * self.verdicts:.0f} % of the pairs of a yes and a no are told apart by what is highlighted"
        if self.contradictory:
            return f"the answers contradict each other: {foretold}, and 50 % is chance"
        if self.chance <= _CHANCE:
            return f"the answers go together: {foretold}"
        return f"{self.relevant:,} yes and {self.irrelevant:,} no do not show yet whether they go together"


@dataclass(frozen=True)
class ObjectMaps:
    """Where the object is in every picture, as answers about some of them say.

    Attributes:
        ids: Sample ids.
        values: (N, H, W) float32 in [0, 1]; the most certain cell of every picture has 1, the others the root of
            their share of its odds.
        worth: What the answers are worth.
    """

    ids: tuple[str, ...]
    values: Tensor
    worth: Worth

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        size = " x ".join(str(side) for side in self.values.shape[1:])
        return f"ObjectMaps({len(self):,} pictures, {size}; {self.worth.in_words})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: It cannot be written.
        """
        facts = list(astuple(self.worth))
        names = torch.tensor(list("\n".join(self.ids).encode()), dtype=torch.uint8)
        write_tensors(path, {"values": self.values, "worth": torch.tensor(facts, dtype=torch.float64), "ids": names})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ObjectMaps:
        """Read what `save` wrote.

        Raises:
            FileFormatError: The file is truncated, or holds something else.
        """
        tensors, _ = read_tensors(path)
        with readable(path):
            relevant, irrelevant, *others = tensors["worth"].tolist()
            ids = tuple(bytes(tensors["ids"].tolist()).decode().split("\n"))
            return cls(ids, tensors["values"], Worth(int(relevant), int(irrelevant), *others))


@dataclass(frozen=True)
class ObjectProbe:
    """Tells object from surround, cell by cell, in pictures that a model looks at.

    Attributes:
        coefficients: (D,) of the log odds; the constant cancels.
        mean: (D,) of the cells that were learned from.
        spread: (D,) likewise.
        map_size: (h, w) of the saliency map; the cells are `FINER` times as fine.
        channels: Of every feature map that the D are of, from early to late.
    """

    coefficients: Tensor
    mean: Tensor
    spread: Tensor
    map_size: tuple[int, int]
    channels: tuple[int, ...]

    def cells(self, model: SplitModel, images: Tensor, autocast: torch.dtype | None = None) -> Tensor:
        """(n, D, H, W) standardised cells of preprocessed pictures."""
        return self.standardised(_cells(model, images, self.map_size, autocast)[0])

    def standardised(self, cells: Tensor) -> Tensor:
        """Cells as the model gives them, on the scale of those that were learned from."""
        return (cells - self.mean[:, None, None]) / self.spread[:, None, None]

    def of(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """(n, H, W) share of object, one in the surest cell of every picture; and (n, D) means of what is around it."""
        odds = torch.einsum("ndhw,d->nhw", cells, self.coefficients)
        # By their odds, not their certainties: of two cells that surely are object one may be much surer.
        shares = (_SHARPNESS * (odds - odds.amax(dim=(1, 2), keepdim=True))).exp()
        return shares, surround_features(cells, shares)

    def of_stage(self, surround: Tensor, stage: int) -> Tensor:
        """The columns of (n, D) means that are of one feature map, by its position from early to late."""
        start = sum(self.channels[:stage])
        return surround[:, start : start + self.channels[stage]]


@dataclass(frozen=True)
class FoundObjects:
    """What `objects_of` gives.

    Attributes:
        values: (N, H, W) float32 in [0, 1], with a maximum of one in every picture.
        surround: (N, D) float32, standardised intermediate features of what is around the object.
        probe: Does the same to other pictures.
        worth: What the answers are worth.
    """

    values: Tensor
    surround: Tensor
    probe: ObjectProbe
    worth: Worth


def _cells(
    model: SplitModel, images: Tensor, map_size: tuple[int, int], autocast: torch.dtype | None
) -> tuple[Tensor, tuple[int, ...]]:
    """Intermediate features on one grid, and how many channels of each."""
    return cells_of(intermediate_features(model, images, map_size, autocast), map_size)


def cells_of(found: list[Tensor], map_size: tuple[int, int]) -> tuple[Tensor, tuple[int, ...]]:
    """Bring intermediate features to one grid, finer than the map, and say how many channels each has."""
    return cells_on_grid(found, (FINER * map_size[0], FINER * map_size[1])), tuple(each.shape[1] for each in found)


def find_objects(
    model: SplitModel,
    dataset: ImageDataset,
    maps: SaliencyMaps,
    answers: AnnotationSet,
    *,
    rule: Rule = "unanimous",
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> ObjectMaps:
    """Find the object in every picture by what people said about the maps of some.

    Logistic regression on the cells of the middle feature maps of the model (those between a fifth of the size of the
    saliency map's cells and that size, without the last one, which knows too much of the rest of the picture): the
    highlight of a relevant map is object, what it leaves out is not, and the highlight of an irrelevant map is not.
    One forward pass over the data, and seconds of fitting. Not part of the paper.

    Args:
        model: The model that was explained.
        dataset: The pictures; those without an answer get a map, too.
        maps: Maps of the answered pictures.
        answers: Answers about them.
        rule: From votes to verdicts about whole maps; mixed ones are left out. Of spots the share of yes counts.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).

    Returns:
        Maps in the order of the data set, and what the answers are worth.

    Raises:
        AnswerError: No map was found relevant, so that nothing is known of the object.
        DataError: What the model makes of some pictures is not finite.
        MismatchError: Answers, maps, data set and model do not belong together.
        UnsupportedModelError: The model does not give its intermediate features.
    """
    split, data = as_split_model(model), as_dataset(dataset)
    where = resolve_device(device, split.device)
    with PixelCache(data, effective_preprocessing(data, split.preprocessing), device=where) as cache:
        made = found_objects(split, data, maps, answers, cache, rule=rule, autocast=resolve_precision(precision, where))
    return ObjectMaps(data.ids, made.values.cpu(), made.worth)


def found_objects(
    model: SplitModel,
    data: ImageDataset,
    maps: SaliencyMaps,
    answers: AnnotationSet,
    cache: PixelCache,
    *,
    rule: Rule = "unanimous",
    autocast: torch.dtype | None = None,
) -> FoundObjects:
    """The same, with what is around the objects, on the device of the pictures.

    Args:
        model: The model that was explained.
        data: The pictures.
        maps: Maps of the answered pictures.
        answers: Answers about them.
        cache: The pictures, preprocessed for the model.
        rule: From votes to verdicts about whole maps.
        autocast: Reduced precision of the trunk.

    Raises:
        AnswerError: No map was found relevant.
        DataError: What the model makes of some pictures is not finite.
        MismatchError: Answers, maps, data set and model do not belong together.
        UnsupportedModelError: The model does not give its intermediate features.
    """
    fitting = as_answers(answers).only("image", "spot").for_ids(data.ids).for_ids(as_maps(maps).ids, where="the maps")
    shown = dict(zip(maps.ids, maps.evidence.tolist(), strict=True))
    whole = {
        sample: float(each == "relevant") for sample, each in fitting.image_relevance(rule).items() if each != "mixed"
    }
    found = [
        (sample, share, about_spot)
        for about_spot, shares in enumerate((whole, fitting.yes_shares("spot")))
        for sample, share in shares.items()
        if share != 0.5 and shown[sample]
    ]
    rows = torch.tensor([data.index_of(sample) for sample, _, _ in found], dtype=torch.int64)
    said, spots = torch.tensor([each[1:] for each in found]).view(-1, 2).unbind(dim=1)
    places = {sample: place for place, sample in enumerate(maps.ids)}
    known = maps.values[[places[sample] for sample, _, _ in found]]
    seen, preprocessing = maps.preprocessing, effective_preprocessing(data, model.preprocessing)
    if seen is not None and not data.preprocessed and not seen.same_geometry(preprocessing):
        raise MismatchError(
            f"the maps were made with {seen}, and this model sees pictures with {preprocessing}, so that a cell of the "
            "one is no cell of the other; give the model that was explained"
        )
    made = objects_of(
        model,
        cache.get,
        data.labels.to(cache.device),
        rows,
        known.to(cache.device),
        said,
        spots=spots.bool(),
        autocast=autocast,
    )
    check_finite(model, made.values, "intermediate features", data.ids)
    return made


def objects_of(
    model: SplitModel,
    pictures: Callable[[Tensor], Tensor],
    labels: Tensor,
    rows: Tensor,
    maps: Tensor,
    shares: Tensor,
    *,
    spots: Tensor | None = None,
    autocast: torch.dtype | None = None,
    seed: int = 0,
) -> FoundObjects:
    """The same from tensors.

    Args:
        model: The model that was explained.
        pictures: Gives preprocessed pictures at (n,) positions, on the device.
        labels: (N,) int64 classes, on the device.
        rows: (A,) int64 positions of the answered pictures; one that was answered both ways is there twice.
        maps: (A, h, w) in [0, 1], their maps, on the device.
        shares: (A,) float32 in [0, 1], but not a half: of people who say that the map is on the object.
        spots: (A,) bool, the answer is about the brightest spot alone; default none.
        autocast: Reduced precision of the trunk.
        seed: Of which are learned from, where many are answered.

    Returns:
        Where the object is in every picture, on the device, what is around it, and what the answers are worth.

    Raises:
        AnswerError: None is relevant.
        DataError: What the model makes of some answered pictures is not finite; of others the values are NaN.
        UnsupportedModelError: The model does not give its intermediate features.
    """
    relevant = shares > 0.5
    if not bool(relevant.any()):
        raise AnswerError(
            f"expected at least one answered map that is right, got {len(relevant)} answers of which none is a clear "
            "yes; without one nothing is known of what the object looks like"
        )
    device = labels.device
    chosen = balanced_draw(relevant, seed)
    rows, maps, shares = rows[chosen], maps[chosen.to(device)], shares[chosen]
    about = None if spots is None else spots[chosen]
    grid = (int(maps.shape[1]), int(maps.shape[2]))
    answered, which = rows.unique(return_inverse=True)
    others = torch.ones(len(labels), dtype=torch.bool)
    others[answered] = False
    unseen = others.nonzero().flatten()
    values = torch.empty(len(labels), FINER * grid[0], FINER * grid[1], device=device)
    with borrowed(model, device), torch.no_grad(), track("finding objects", len(labels)) as advance:
        kept = []
        for part in answered.split(_BATCH):
            found, channels = _cells(model, pictures(part), grid, autocast)
            kept.append(found)
            advance(len(part))
        cells = torch.cat(kept)
        check_cells(model, cells, [f"picture number {row + 1:,}" for row in answered.tolist()])
        probe, worth = probe_of(cells, channels, which, labels[rows.to(device)], maps, shares, spots=about)
        surround = torch.empty(len(labels), cells.shape[1], device=device)
        where = answered.to(device)
        values[where], surround[where] = probe.of(probe.standardised(cells))
        for part in unseen.split(_BATCH) if len(unseen) else ():
            where = part.to(device)
            values[where], surround[where] = probe.of(probe.cells(model, pictures(part), autocast))
            advance(len(part))
    return FoundObjects(values, surround, probe, worth)


def check_cells(model: SplitModel, cells: Tensor, names: Sequence[str]) -> None:
    """See that cells of answered pictures are finite, and can be standardised.

    Raises:
        DataError: They are not for some pictures.
        UnsupportedModelError: They are not for any.
    """
    energy = 4.0 * len(cells) * cells.square().sum(dim=(2, 3))  # standardising adds up no more than that
    check_finite(model, energy, "intermediate features", names)


def probe_of(
    cells: Tensor,
    channels: tuple[int, ...],
    which: Tensor,
    labels: Tensor,
    maps: Tensor,
    shares: Tensor,
    *,
    spots: Tensor | None = None,
) -> tuple[ObjectProbe, Worth]:
    """Learn from cells of answered pictures, and say what the answers are worth.

    Args:
        cells: (P, D, H, W) of each answered picture, as the model gives them.
        channels: Of every feature map that the D are of.
        which: (A,) int64, of which picture each answer is.
        labels: (A,) int64, its class, on the device of the cells.
        maps: (A, h, w) in [0, 1], what was asked about, likewise.
        shares: (A,) float32 in [0, 1], but not a half: of people who say that it is on the object; one or more is
            above a half.
        spots: (A,) bool, the answer is about the brightest spot alone; default none.
    """
    device = cells.device
    mean, spread = cells.mean(dim=(0, 2, 3)), cells.std(dim=(0, 2, 3)) + 1e-6
    known = ((cells - mean[:, None, None]) / spread[:, None, None])[which.to(device)]
    relevant, certainty = (shares > 0.5).to(device), (2 * shares - 1).abs().to(device)
    about = None if spots is None else spots.to(device)
    answered = answered_cells(known, maps, relevant, labels, about, certainty)
    penalty = _PRIOR / len(maps)
    coefficients = fit_logistic(answered.features, answered.is_object, answered.weights, penalty)[:-1]
    worth = _worth(out_of_fold(answered, penalty), answered.is_object, answered, relevant)
    grid = (int(maps.shape[1]), int(maps.shape[2]))
    return ObjectProbe(coefficients, mean, spread, grid, channels), worth


def trusted_objects(
    model: SplitModel,
    pictures: Callable[[Tensor], Tensor],
    labels: Tensor,
    rows: Tensor,
    maps: Tensor,
    shares: Tensor,
    *,
    spots: Tensor,
    autocast: torch.dtype | None = None,
) -> FoundObjects | None:
    """The same for correctors: nothing, and a warning why, where answers say too little to reach what was not answered.

    Args:
        model: As in `objects_of`, and so are the others.
        pictures: Gives preprocessed pictures.
        labels: Of all.
        rows: Of the answered pictures.
        maps: Theirs.
        shares: Of people who say yes.
        spots: Whether the answer is about the brightest spot alone.
        autocast: Reduced precision of the trunk.

    Raises:
        AnswerError: The answers contradict each other.
        DataError: What the model makes of some answered pictures is not finite.
    """
    try:
        found = objects_of(model, pictures, labels, rows, maps, shares, spots=spots, autocast=autocast)
    except UnsupportedModelError as error:
        _log.warning("answers reach nothing else: %s", error)
        return None
    return found if trusted(found.worth) else None


def trusted(worth: Worth) -> bool:
    """Whether answers are carried to what was not answered; says why not.

    Raises:
        AnswerError: They contradict each other.
    """
    if worth.contradictory:
        raise AnswerError(
            f"{worth.in_words}. Whoever answers without looking leaves such answers. Look at some of them again; "
            'or use what was answered and nothing else, as the paper does, with spread="never"'
        )
    if not worth.carries:
        _log.warning("%s; what was answered is used, and nothing else. Answer more to reach the others", worth.in_words)
        return False
    _log.info("%s", worth.in_words)
    return True


def balanced_draw(relevant: Tensor, seed: int) -> Tensor:
    """Draw the answers that are learned from: all, or where there are more than `MOST` as many of both kinds as can be.

    Args:
        relevant: (A,) bool, what each says.
        seed: Of the draw.

    Returns:
        Positions, int64, ascending.

    Example:
        >>> balanced_draw(torch.tensor([True, False]), 0).tolist()
        [0, 1]
    """
    if len(relevant) <= MOST:
        return torch.arange(len(relevant))
    order = torch.randperm(len(relevant), generator=torch.Generator().manual_seed(seed))
    ones, zeros = order[relevant[order]], order[~relevant[order]]
    fewer = min(len(ones), len(zeros), MOST // 2)
    half = (ones[: max(fewer, MOST - len(zeros))], zeros[: max(fewer, MOST - len(ones))])
    return torch.cat(half).sort().values


def _worth(scores: Tensor, is_object: Tensor, cells: AnsweredCells, relevant: Tensor) -> Worth:
    pictures, highlighted = cells.pictures, cells.highlighted
    known = ~scores.isnan()
    count = len(relevant)
    inside = known & highlighted
    total = torch.zeros(count, device=scores.device).index_add(0, pictures[inside], scores[inside])
    many = torch.zeros(count, device=scores.device).index_add(0, pictures[inside], torch.ones_like(scores[inside]))
    judged = many > 0
    verdicts = area_under_curve((total / many)[judged], relevant[judged])
    ones, zeros = int(relevant.sum()), int((~relevant).sum())
    found = Worth(ones, zeros, area_under_curve(scores[known], is_object[known]), verdicts, math.nan)
    if math.isnan(verdicts):
        return found
    chance = 0.5 * math.erfc((verdicts - 0.5) / _spread(found) / math.sqrt(2))
    return Worth(ones, zeros, found.cells, verdicts, chance)


def _spread(worth: Worth) -> float:
    """Standard error of the foretold share where nobody looks (Mann and Whitney)."""
    pairs = worth.relevant * worth.irrelevant
    return math.sqrt((worth.relevant + worth.irrelevant + 1) / (12 * pairs)) if pairs else math.inf
