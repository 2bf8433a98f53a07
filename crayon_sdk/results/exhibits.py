"""The pictures of a report, as PNG: maps before and after, and neurons that were cut with their patches.

What is shown is chosen by rules that are printed on each sheet, never by hand.
"""

from __future__ import annotations

import base64
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from crayon_sdk._base.text import one_line
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import SettingsError
from crayon_sdk.explain.contact_sheets import Choice, before_after_sheet, choose_ids, patches_sheet
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.masks import energy_inside
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.evaluation import Evaluation
from crayon_sdk.results.facts import Facts

__all__ = ["Exhibit", "MapPair", "card_sheet", "map_pair", "map_sentences", "map_sheets", "neuron_sheet"]

CELL = 208


@dataclass(frozen=True)
class Exhibit:
    """A picture of a report.

    Attributes:
        name: Of its file, without ending.
        png: The file's bytes.
        title: Above it.
        caption: Below it.
        alt: For those who do not see it.
    """

    name: str
    png: bytes = field(repr=False)
    title: str = ""
    caption: str = ""
    alt: str = ""

    @property
    def base64(self) -> str:
        """The bytes as text, for a page that holds its pictures itself."""
        return base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """In pixels of a page; plots are drawn finer than that."""
        return self._size()[0]

    @property
    def height(self) -> int:
        """In pixels of a page."""
        return self._size()[1]

    def _size(self) -> tuple[int, int]:
        with Image.open(io.BytesIO(self.png)) as image:
            # matplotlib says how many pixels make an inch; pages have 96 of them.
            scale = 96 / float(image.info.get("dpi", (96, 96))[0])
            return round(image.width * scale), round(image.height * scale)


@dataclass(frozen=True)
class MapPair:
    """Maps of the same pictures before and after.

    Attributes:
        before: Of the original model.
        after: Of the corrected one.
        candidates: Ids of the pictures that "random" and "largest change" choose from.
        wrong: Ids of pictures that are still classified wrongly, drawn at random.
        num_wrong: How many there are in all.
        total: How many pictures the data set has.
        seed: Of the draws.
    """

    before: SaliencyMaps
    after: SaliencyMaps
    candidates: tuple[str, ...]
    wrong: tuple[str, ...]
    num_wrong: int
    total: int
    seed: int

    @property
    def pool(self) -> str:
        """What was chosen from, in words."""
        if len(self.candidates) == self.total:
            return f"all {self.total:,} pictures"
        return f"{len(self.candidates):,} of {self.total:,} pictures, drawn at random (seed {self.seed})"


def map_pair(
    original: SplitModel,
    corrected: SplitModel,
    dataset: ImageDataset,
    after: Evaluation,
    *,
    settings: Mapping[str, Any],
    count: int,
    candidates: int,
    seed: int,
) -> MapPair:
    """Explain both models on the pictures that can be shown.

    Args:
        original: Before the correction.
        corrected: After it.
        dataset: Where the pictures are from.
        after: The corrected model on the data set: which pictures are still wrong.
        settings: Of the `Explainer`.
        count: How many wrong pictures to draw.
        candidates: How many pictures the other rules may choose from.
        seed: Of the draws.
    """
    if count < 1 or candidates < count:
        raise SettingsError(f"expected 1 <= pictures <= candidates, got {count} and {candidates}")
    chosen = dataset.ids if len(dataset) <= candidates else _drawn(dataset.ids, candidates, seed)
    wrong = [sample for sample in dataset.ids if after.predictions[sample] != after.labels[sample]]
    shown = _drawn(wrong, count, seed)
    needed = set(chosen) | set(shown)
    subset = dataset.subset([sample for sample in dataset.ids if sample in needed])
    before_maps, after_maps = _explained((original, corrected), subset, settings)
    return MapPair(before_maps, after_maps, tuple(chosen), tuple(shown), len(wrong), len(dataset), seed)


def _explained(
    models: tuple[SplitModel, SplitModel], dataset: ImageDataset, settings: Mapping[str, Any]
) -> tuple[SaliencyMaps, SaliencyMaps]:
    """Explain without the advice to those who correct: that empty maps guide nothing is nothing to a reader."""
    log = logging.getLogger("crayon_sdk.explain.explainer")
    log.addFilter(_not_a_warning)
    try:
        before, after = (Explainer(model, **settings).explain(dataset) for model in models)
    finally:
        log.removeFilter(_not_a_warning)
    return before, after


def _not_a_warning(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING


def _drawn(ids: Sequence[str], count: int, seed: int) -> list[str]:
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    return [ids[position] for position in sorted(order)]


def map_sheets(
    pair: MapPair, dataset: ImageDataset, before: Evaluation, after: Evaluation, *, count: int
) -> tuple[list[Exhibit], list[str]]:
    """Draw a sheet for each rule: largest change, random, still wrong.

    Returns:
        The sheets, and what is to be said about what is lacking.
    """
    groups = dict(zip(dataset.ids, dataset.group_labels, strict=True))
    spread = groups if len(set(groups.values())) <= count else None
    first, second = (maps.select(pair.candidates) for maps in (pair.before, pair.after))
    choices = [
        ("largest-change", "Largest change", choose_ids(first, second, count=count, rule="largest change")),
        ("random", "Random", choose_ids(first, second, count=count, groups=spread, seed=pair.seed)),
    ]
    lacking = []
    if pair.wrong:
        rule = f"{len(pair.wrong)} of {pair.num_wrong:,} pictures that are still classified wrongly, drawn at random"
        choices.append(("still-wrong", "Still wrong", Choice(pair.wrong, f"{rule} (seed {pair.seed})")))
    else:
        lacking.append("Still wrong: none; every picture is classified rightly now.")
    found = []
    for name, title, choice in choices:
        if not choice.ids:
            lacking.append(f"{title}: no picture has a map with evidence both before and after.")
            continue
        words = f"Pictures: {choice.rule}."
        heading = f"Before and after the correction: {title.lower()}"
        png = _sheet(dataset, (pair.before, pair.after), choice, (before, after), heading)
        alt = f"{title}: picture, map before and map after the correction of {len(choice.ids)} pictures: " + ", ".join(
            _told(sample, before, after) for sample in choice.ids
        )
        found.append(Exhibit(f"maps-{name}", png, title, words, alt))
    return found, lacking


def _told(sample: str, before: Evaluation, after: Evaluation) -> str:
    right = ["right" if each.predictions[sample] == each.labels[sample] else "wrong" for each in (before, after)]
    return f"{one_line(sample)} ({right[0]} before, {right[1]} after)"


def _sheet(
    dataset: ImageDataset,
    maps: tuple[SaliencyMaps, SaliencyMaps],
    choice: Choice,
    evaluations: tuple[Evaluation | None, Evaluation | None],
    title: str,
) -> bytes:
    predictions = [None if each is None else each.predictions for each in evaluations]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "sheet.png"
        before_after_sheet(
            dataset,
            *maps,
            choice,
            path,
            style="orange",
            predicted_before=predictions[0],
            predicted_after=predictions[1],
            title=title,
            cell=CELL,
        )
        return path.read_bytes()


def card_sheet(
    original: SplitModel,
    corrected: SplitModel,
    dataset: ImageDataset,
    *,
    settings: Mapping[str, Any],
    before: Evaluation | None = None,
    after: Evaluation | None = None,
    count: int = 4,
    seed: int = 0,
) -> bytes:
    """Draw a sheet for the card: pictures that may be shown, drawn at random, as PNG.

    Args:
        original: Before the correction.
        corrected: After it.
        dataset: Nothing but pictures that may be shown.
        settings: Of the `Explainer`.
        before: For the verdicts below the pictures.
        after: For the verdicts below the pictures.
        count: How many, at least 1; as many of each group as there is room for.
        seed: Of the draw.
    """
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    labels = dataset.group_labels
    groups = sorted(set(labels))
    if len(groups) > count:
        rows = order[:count]
    else:
        rows = [row for group in groups for row in [r for r in order if labels[r] == group][: count // len(groups)]]
    chosen = [dataset.ids[row] for row in rows]
    subset = dataset.subset(chosen)
    maps = _explained((original, corrected), subset, settings)
    words = f"{len(chosen)} of the {len(dataset):,} pictures that may be shown, drawn at random (seed {seed})"
    return _sheet(dataset, maps, Choice(tuple(chosen), words), (before, after), "Before and after the correction")


def map_sentences(pair: MapPair, dataset: ImageDataset) -> str:
    """How many maps are empty, and, with masks, how much of the others lies on the object."""
    both = [maps.select(pair.candidates) for maps in (pair.before, pair.after)]
    empty = f"Without positive evidence are {both[0].num_empty:,} of the maps before and {both[1].num_empty:,} after."
    shares = [list(energy_inside(maps, dataset).values()) for maps in both] if dataset.has_masks else []
    if not shares or not all(shares):
        return empty
    means = [100 * sum(each) / len(each) for each in shares]
    return (
        f"{empty} Of the others, {means[0]:.1f} % of the energy lay on the object before, and {means[1]:.1f} % after."
    )


def neuron_sheet(facts: Facts, patches: NeuronPatches, train: ImageDataset, *, count: int, seed: int) -> Exhibit:
    """Draw neurons that were cut, drawn at random, with the patches that excite them most.

    Args:
        facts: Which neurons were cut.
        patches: Of the original model.
        train: The pictures that the patches lie in.
        count: How many neurons.
        seed: Of the draw.
    """
    order = torch.randperm(len(facts.pruned), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    chosen = sorted(facts.pruned[position] for position in order)
    rule = f"{len(chosen)} of {len(facts.pruned):,} neurons that were cut, drawn at random (seed {seed})"
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "sheet.png"
        patches_sheet(
            train,
            patches,
            chosen,
            path,
            title="Neurons that were cut, and what excites them most",
            notes=[f"Neurons: {rule}."],
            cell=CELL - 24,
        )
        alt = f"The strongest patches of the neurons {', '.join(map(str, chosen))}, framed in their pictures"
        return Exhibit("neurons", path.read_bytes(), caption=f"Neurons: {rule}; the frames are the patches.", alt=alt)
