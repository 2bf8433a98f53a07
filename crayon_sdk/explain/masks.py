"""Maps and patches against object masks: shares on the object, and answers in place of people, marked as simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter

import torch
from torch import Tensor

from crayon_sdk._base.text import first_few
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.answers.relevance import KINDS, Answer
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps, as_maps
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional import metrics
from crayon_sdk.functional.saliency import resize_maps

__all__ = ["drawn", "highlight_share", "simulate_answers", "simulate_neuron_answers", "simulate_spot_answers"]


def simulate_answers(
    maps: SaliencyMaps,
    masks: ImageDataset,
    *,
    annotators: int = 2,
    noise: float = 0.0,
    strictness: tuple[float, float] = (0.4, 0.6),
    seed: int = 0,
) -> AnnotationSet:
    """Answer "is the strong highlight mainly on the object?" from object masks.

    A simulated annotator says yes when the share of the strong highlight (the map
    above half its maximum) that lies on the object exceeds a threshold. The
    annotators' thresholds are spread evenly over ``strictness``, so that two of them
    disagree about doubtful maps. Maps without evidence, and samples without a mask,
    get no answer.

    Args:
        maps: The maps to answer about.
        masks: The data set with object masks.
        annotators: How many, at least 1.
        noise: Probability in [0, 1] that one answer is turned round.
        strictness: Thresholds of the most lenient and the strictest annotator, in [0, 1].
        seed: Of the noise.

    Returns:
        Answers, each marked as simulated.

    Raises:
        DataError: The data set has no masks, or lacks samples of the maps.
        SettingsError: A setting is out of range.
    """
    _check(annotators, noise, strictness)
    shares = highlight_share(as_maps(maps), masks)
    return _judged(ImageAnswer, maps, shares, annotators=annotators, noise=noise, strictness=strictness, seed=seed)


def simulate_spot_answers(
    maps: SaliencyMaps,
    masks: ImageDataset,
    *,
    annotators: int = 2,
    noise: float = 0.0,
    strictness: tuple[float, float] = (0.4, 0.6),
    seed: int = 0,
) -> AnnotationSet:
    """Answer "is the bright spot on the object?" from object masks.

    As [`simulate_answers`][crayon_sdk.explain.masks.simulate_answers], by the share of the spot
    ([`SaliencyMaps.spots`][crayon_sdk.explain.maps.SaliencyMaps.spots]) that lies on the object, weighted by the spot.

    Args:
        maps: The maps to answer about, whole; their spots are taken here.
        masks: The data set with object masks.
        annotators: How many, at least 1.
        noise: Probability in [0, 1] that one answer is turned round.
        strictness: Thresholds of the most lenient and the strictest annotator, in [0, 1].
        seed: Of the noise.

    Returns:
        Answers, each marked as simulated.

    Raises:
        DataError: The data set has no masks, or lacks samples of the maps.
        SettingsError: A setting is out of range.
    """
    _check(annotators, noise, strictness)
    spots = as_maps(maps).spots()
    shares = {
        sample: float((spots.values[row] * cover[0]).sum() / spots.values[row].sum())
        for row, sample, cover in _covers(spots, masks)
    }
    return _judged(SpotAnswer, maps, shares, annotators=annotators, noise=noise, strictness=strictness, seed=seed)


def _judged(
    record: type[ImageAnswer | SpotAnswer],
    maps: SaliencyMaps,
    shares: Mapping[str, float],
    *,
    annotators: int,
    noise: float,
    strictness: tuple[float, float],
    seed: int,
) -> AnnotationSet:
    """Answers of annotators of every strictness to the share of every sample that lies on the object."""
    low, high = strictness
    thresholds = [(low + high) / 2] if annotators == 1 else torch.linspace(low, high, annotators).tolist()
    flip = _flips(noise, seed)
    targets = dict(zip(maps.ids, maps.targets.tolist(), strict=True))
    return AnnotationSet(
        record(
            id=sample,
            answer=_word((share > threshold) != flip()),
            annotator=f"simulated-{number}",
            target=targets[sample],
            model=maps.model,
            simulated=True,
        )
        for sample, share in shares.items()
        for number, threshold in enumerate(thresholds, start=1)
    )


def highlight_share(maps: SaliencyMaps, masks: ImageDataset) -> dict[str, float]:
    """Share of every map's strong highlight that lies on the object.

    The strong highlight are the cells above half the map's maximum, weighted by the map.

    Returns:
        Share in [0, 1] by sample id; without samples that lack a mask or evidence.

    Raises:
        DataError: The data set has no masks, or lacks samples of the maps.
    """
    shares = {}
    for row, sample, cover in _covers(maps, masks):
        strong = maps.values[row] * (maps.values[row] > 0.5)
        shares[sample] = float((strong * cover[0]).sum() / strong.sum())
    return shares


def simulate_neuron_answers(
    patches: NeuronPatches,
    masks: ImageDataset,
    *,
    annotators: int = 1,
    noise: float = 0.0,
    coverage: float = 0.5,
    seed: int = 0,
) -> AnnotationSet:
    """Answer "is the red patch on the object?" from object masks.

    Yes when the object covers more than ``coverage`` of the patch.

    Args:
        patches: The patches to answer about.
        masks: The data set with object masks.
        annotators: How many, at least 1.
        noise: Probability in [0, 1] that one answer is turned round.
        coverage: Least covered share of the patch for a yes, in [0, 1].
        seed: Of the noise.

    Returns:
        Answers, each marked as simulated; every neuron of a shared patch gets its answer.

    Raises:
        DataError: The data set has no masks, or lacks samples of the patches.
        SettingsError: A setting is out of range.
    """
    _check(annotators, noise)
    if not 0 <= coverage <= 1:
        raise SettingsError(f"expected coverage from 0 to 1, got {coverage}")
    geometry = _geometry(patches.preprocessing, masks, patches.ids)
    flip = _flips(noise, seed)
    answers = AnnotationSet()
    for position, sample in enumerate(patches.ids):
        if masks.mask(sample) is None:
            continue
        cover = resize_maps(masks.mask_tensor(sample, geometry)[None], patches.map_size)[0].flatten()
        for index in (patches.samples == position).nonzero().flatten().tolist():
            on_object = float(cover[int(patches.cells[index])]) > coverage
            for number in range(1, annotators + 1):
                answer = _word(on_object != flip())
                for neuron, rank in patches.sharing(index):
                    answers.add(
                        NeuronAnswer(
                            neuron=neuron,
                            patch=rank,
                            id=sample,
                            answer=answer,
                            annotator=f"simulated-{number}",
                            model=patches.model,
                            simulated=True,
                        )
                    )
    return answers


def drawn(answers: AnnotationSet, count: int | None, *, seed: int = 0) -> AnnotationSet:
    """Keep the answers about some pictures, spots and neurons only, as if people had seen no more.

    Args:
        answers: In any number.
        count: How many pictures, how many spots, and how many neurons; ``None`` keeps all. Those of a smaller count are
            among those of a larger one.
        seed: Of the draw.

    Raises:
        SettingsError: ``count`` is negative.
    """
    if count is None:
        return answers
    if count < 0:
        raise SettingsError(f"expected count >= 0, got {count}")
    things = [(answer.kind, answer.neuron if isinstance(answer, NeuronAnswer) else answer.id) for answer in answers]
    kept: set[tuple[str, str | int]] = set()
    for kind in KINDS:
        known = sorted({thing for thing in things if thing[0] == kind}, key=itemgetter(1))
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
        kept |= {known[position] for position in order[:count].tolist()}
    return AnnotationSet(answer for answer, thing in zip(answers, things, strict=True) if thing in kept)


def _word(yes: bool) -> Answer:
    return "yes" if yes else "no"


def _flips(noise: float, seed: int) -> Callable[[], bool]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: bool(noise) and float(torch.rand((), generator=generator)) < noise


def _check(annotators: int, noise: float, strictness: tuple[float, float] = (0.0, 1.0)) -> None:
    if annotators < 1 or not 0 <= noise <= 1:
        raise SettingsError(f"expected annotators >= 1 and noise from 0 to 1, got {annotators} and {noise}")
    low, high = strictness
    if not 0 <= low <= high <= 1:
        raise SettingsError(f"expected strictness (low, high) with 0 <= low <= high <= 1, got {strictness}")


def _covers(maps: SaliencyMaps, masks: ImageDataset) -> Iterator[tuple[int, str, Tensor]]:
    """Row, sample id and covered share (1, h, w) of the cells of every map with evidence whose sample has a mask."""
    geometry = _geometry(maps.preprocessing, masks, maps.ids)
    for row, sample in enumerate(maps.ids):
        if maps.evidence[row] and masks.mask(sample) is not None:
            yield row, sample, resize_maps(masks.mask_tensor(sample, geometry)[None], maps.size)


def _geometry(known: Preprocessing | None, masks: ImageDataset, ids: tuple[str, ...]) -> Preprocessing:
    """How masks are resized and cropped; checks on the way that there are masks for all ids."""
    if not as_dataset(masks).has_masks:
        raise DataError("object masks are needed; the data set has none (masks= or mask_column=)")
    present = set(masks.ids)
    lacking = [sample for sample in ids if sample not in present]
    if lacking:
        raise DataError(
            f"the data set with the masks lacks {len(lacking)} of {len(ids)} samples: {first_few(lacking)}; "
            "use the data set that was explained"
        )
    geometry = known or masks.preprocessing
    if geometry is None:
        raise SettingsError(
            "it is not known how the pictures were cropped; give the data set the preprocessing: "
            "dataset.with_preprocessing(model.preprocessing)"
        )
    return geometry


def energy_inside(maps: SaliencyMaps, dataset: ImageDataset) -> dict[str, float]:
    """Share of every map's energy that lies on the object.

    Args:
        maps: Maps of samples of the data set.
        dataset: Has object masks.

    Returns:
        Share in [0, 1] by sample id; samples without mask or evidence are left out.

    Raises:
        DataError: The data set has no masks, or lacks samples of the maps.
        SettingsError: It is not known how the pictures were cropped.
    """
    covers = _covers(maps, dataset)
    return {sample: float(metrics.energy_inside(maps.values[row][None], cover)) for row, sample, cover in covers}
