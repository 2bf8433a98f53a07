"""Contact sheets: what a model looks at, as PNG files that need no explanation beside them.

Samples on a sheet are chosen by a rule that is printed on it, never by hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from PIL import Image, ImageDraw

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import MismatchError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.masks import energy_inside
from crayon_sdk.explain.objects import ObjectMaps
from crayon_sdk.explain.patches import NeuronPatches, Patch
from crayon_sdk.show.overlays import TITLES, Style, class_name, overlay
from crayon_sdk.show.overlays import seen as _seen
from crayon_sdk.show.overlays import shown as _shown
from crayon_sdk.show.sheets import BAD, GOOD, INK, Cell, Line, save_sheet, side_by_side

__all__ = [
    "Choice",
    "Style",
    "before_after_sheet",
    "choose_ids",
    "class_name",
    "maps_sheet",
    "objects_sheet",
    "overlay",
    "panel",
    "panels",
    "patch_picture",
    "patches_sheet",
]

ChoiceRule = Literal["random", "largest change"]


@dataclass(frozen=True)
class Choice:
    """Samples for a sheet, and the rule that chose them, in words."""

    ids: tuple[str, ...]
    rule: str


def choose_ids(
    before: SaliencyMaps,
    after: SaliencyMaps,
    *,
    count: int = 8,
    rule: ChoiceRule = "random",
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Choice:
    """Choose the samples of a sheet by a rule.

    Args:
        before: Maps before the correction.
        after: Maps after it, of the same samples.
        count: How many, at least 1.
        rule: "random", or "largest change": mean absolute difference of the two maps, where
            both have evidence.
        groups: Group by sample id; as many are taken from each group as there is room for.
        seed: Of "random".

    Returns:
        Ids in the order in which they were chosen, group by group, and the rule in words.

    Raises:
        MismatchError: The maps are of different samples.
        SettingsError: A setting is out of range.
    """
    if count < 1 or rule not in get_args(ChoiceRule):
        raise SettingsError(f"expected count >= 1 and rule 'random' or 'largest change', got {count} and {rule!r}")
    after = after.select(before.ids)
    if rule == "random":
        order = torch.randperm(len(before), generator=torch.Generator().manual_seed(seed)).tolist()
        words = f"drawn at random (seed {seed})"
    else:
        change = (before.values - after.resize(*before.size).values).abs().mean(dim=(1, 2))
        both = before.evidence & after.evidence
        order = [row for row in change.argsort(descending=True, stable=True).tolist() if both[row]]
        words = "whose map changed most (mean absolute difference)"
    ranked = [before.ids[row] for row in order]
    if groups is None:
        return Choice(tuple(ranked[:count]), f"{min(count, len(ranked))} of {len(before)} pictures, {words}")
    missing = [sample for sample in ranked if sample not in groups]
    if missing:
        raise MismatchError(f"expected a group for every sample, {len(missing)} have none, such as {missing[0]!r}")
    names = sorted({groups[sample] for sample in ranked})
    each = max(count // max(len(names), 1), 1)
    chosen = [sample for name in names for sample in [s for s in ranked if groups[s] == name][:each]]
    return Choice(tuple(chosen), f"{each} of each group of {len(before)} pictures, {words}")


def maps_sheet(
    dataset: ImageDataset,
    maps: SaliencyMaps,
    ids: Choice | Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "What the model looks at",
    cell: int = 192,
) -> None:
    """Draw the three panels that people answer about: Original, Highlight Overlaid, Highlight in Red.

    Args:
        dataset: Has the pictures.
        maps: Their maps.
        ids: Which samples, in this order.
        path: The PNG file to write.
        title: First line of the sheet.
        cell: Longer side of a picture on the sheet, in pixels.

    Raises:
        MismatchError: There is no map for a sample.
        OutputError: The file cannot be written.
        SettingsError: It is not known how the pictures were cropped.
    """
    choice = _choice(ids)
    rows = []
    for sample in choice.ids:
        target = int(maps.select([sample]).targets[0])
        about = Line(f"evidence for {class_name(dataset, target, maps)}")
        shown = [_shown(dataset, maps, sample, cell, style) for style in ("overlaid", "red")]
        original = Cell(_seen(dataset, maps.preprocessing, sample, cell), _about(dataset, sample))
        rows.append([original, *(Cell(image, [about, *_no_evidence(maps, sample)]) for image in shown)])
    save_sheet(path, title=title, notes=[f"Samples: {choice.rule}."], headers=_panel_titles(), rows=rows, cell=cell)


def objects_sheet(
    dataset: ImageDataset,
    maps: SaliencyMaps,
    objects: ObjectMaps,
    ids: Choice | Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "What your answers call the object",
    notes: Sequence[str] = (),
    cell: int = 192,
) -> None:
    """Draw pictures with what the model looks at, and with what the answers call the object.

    Whoever looks at it sees at once whether yes and no were exchanged, which the answers themselves do not show: they
    go together as well one way as the other.

    Args:
        dataset: Has the pictures.
        maps: Their maps.
        objects: From `find_objects`.
        ids: Which samples, in this order; a `Choice` prints its rule.
        path: The PNG file to write.
        title: First line of the sheet.
        notes: Further lines below the title.
        cell: Longer side of a picture on the sheet, in pixels.

    Raises:
        MismatchError: There is no map for a sample.
        OutputError: The file cannot be written.
        SettingsError: It is not known how the pictures were cropped.
    """
    choice = _choice(ids)
    known = maps.select(choice.ids)
    places = {sample: place for place, sample in enumerate(objects.ids)}
    missing = [sample for sample in choice.ids if sample not in places]
    if missing:
        raise MismatchError(f"expected an object map of every sample, {len(missing)} have none, such as {missing[0]!r}")
    values = objects.values[[places[sample] for sample in choice.ids]]
    called = replace(known, values=values, evidence=torch.ones(len(known), dtype=torch.bool))
    rows = [
        [
            Cell(_seen(dataset, maps.preprocessing, sample, cell), _about(dataset, sample)),
            Cell(_shown(dataset, known, sample, cell, "red"), _no_evidence(known, sample)),
            Cell(_shown(dataset, called, sample, cell, "red"), []),
        ]
        for sample in choice.ids
    ]
    words = [f"Samples: {choice.rule}.", *notes]
    headers = ["Original", "What the model looks at", "Object, by the answers"]
    save_sheet(path, title=title, notes=words, headers=headers, rows=rows, cell=cell)


def before_after_sheet(
    dataset: ImageDataset,
    before: SaliencyMaps,
    after: SaliencyMaps,
    ids: Choice | Sequence[str],
    path: str | os.PathLike[str],
    *,
    style: Style = "red",
    predicted_before: Mapping[str, int] | None = None,
    predicted_after: Mapping[str, int] | None = None,
    title: str = "What the model looks at, before and after the correction",
    notes: Sequence[str] = (),
    cell: int = 192,
) -> None:
    """Draw pictures with their maps before and after a correction.

    Args:
        dataset: Has the pictures, and perhaps object masks.
        before: Maps before the correction.
        after: Maps after it.
        ids: Which samples, in this order; a `Choice` prints its rule.
        path: The PNG file to write.
        style: How maps lie over the pictures.
        predicted_before: Predicted class index by sample id, as in `Evaluation.predictions`.
        predicted_after: The same after the correction.
        title: First line of the sheet.
        notes: Further lines below the title.
        cell: Longer side of a picture on the sheet, in pixels.

    Raises:
        MismatchError: There is no map for a sample.
        OutputError: The file cannot be written.
        SettingsError: It is not known how the pictures were cropped.
    """
    choice = _choice(ids)
    columns = []
    for maps, predictions in ((before, predicted_before), (after, predicted_after)):
        chosen = maps.select(choice.ids)
        energy = energy_inside(chosen, dataset) if dataset.has_masks else {}
        columns.append(
            [
                Cell(_shown(dataset, maps, sample, cell, style), _verdict(dataset, chosen, sample, predictions, energy))
                for sample in choice.ids
            ]
        )
    originals = [
        Cell(_seen(dataset, before.preprocessing, sample, cell), _about(dataset, sample)) for sample in choice.ids
    ]
    words = [f"Samples: {choice.rule}.", *notes]
    headers = ["Original", f"Before: {TITLES[style]}", f"After: {TITLES[style]}"]
    rows = [list(row) for row in zip(originals, *columns, strict=True)]
    save_sheet(path, title=title, notes=words, headers=headers, rows=rows, cell=cell)


def patches_sheet(
    dataset: ImageDataset,
    patches: NeuronPatches,
    neurons: Sequence[int],
    path: str | os.PathLike[str],
    *,
    verdicts: Mapping[int, str] | None = None,
    title: str = "What excites the neurons most",
    notes: Sequence[str] = (),
    cell: int = 160,
) -> None:
    """Draw the strongest patches of neurons as red rectangles on their pictures, one row a neuron.

    Args:
        dataset: Has the pictures.
        patches: From `Explainer.explain_neurons`.
        neurons: Which neurons, in this order.
        path: The PNG file to write.
        verdicts: Relevance by neuron, as `AnnotationSet.neuron_relevance` gives it.
        title: First line of the sheet.
        notes: Further lines below the title.
        cell: Longer side of a picture on the sheet, in pixels.

    Raises:
        OutputError: The file cannot be written.
        SettingsError: There is no such neuron, or it is not known how the pictures were cropped.
    """
    rows = []
    for neuron in neurons:
        verdict = (verdicts or {}).get(neuron)
        word = [] if verdict is None else [Line(verdict, GOOD if verdict == "relevant" else BAD)]
        rows.append(
            [
                Cell(
                    _framed(_seen(dataset, patches.preprocessing, patch.id, cell), patch),
                    [Line(f"neuron {neuron}" if rank == 0 else patch.id), *(word if rank == 0 else [])],
                )
                for rank, patch in enumerate(patches.of(neuron))
            ]
        )
    width = max((len(row) for row in rows), default=1)
    ranks = ["Strongest", "Second", "Third"]
    headers = [ranks[rank] if rank < len(ranks) else f"No. {rank + 1}" for rank in range(width)]
    save_sheet(path, title=title, notes=list(notes), headers=headers, rows=rows, cell=cell)


def panels(
    dataset: ImageDataset, maps: SaliencyMaps, sample: str, *, cell: int = 320, shows: str = "Highlight"
) -> Image.Image:
    """Draw the three panels of one picture side by side: Original, Highlight Overlaid, Highlight in Red.

    Args:
        dataset: Has the picture.
        maps: Has its map.
        sample: Its id.
        cell: Longer side of each panel in pixels, at least 48.
        shows: What is marked, for the titles, where it is not the whole highlight.

    Raises:
        MismatchError: There is no map for it.
        SettingsError: It is not known how the pictures were cropped, or ``cell`` is too small.
    """
    styles: tuple[Style | None, ...] = (None, "overlaid", "red")
    shown = [panel(dataset, maps, sample, style, cell=cell) for style in styles]
    titles = [title.replace("Highlight", shows) for title in _panel_titles()]
    return side_by_side([Cell(image, [Line(title)]) for image, title in zip(shown, titles, strict=True)], cell)


def panel(
    dataset: ImageDataset, maps: SaliencyMaps, sample: str, style: Style | None, *, cell: int = 480
) -> Image.Image:
    """Draw one picture, its longer side ``cell`` pixels, with its map in a style; ``None`` is the picture alone."""
    if style is None:
        return _seen(dataset, maps.preprocessing, sample, cell)
    return _shown(dataset, maps, sample, cell, style)


def patch_picture(dataset: ImageDataset, patches: NeuronPatches, patch: Patch, *, cell: int = 480) -> Image.Image:
    """Draw a patch as a red rectangle on its picture.

    Args:
        dataset: Has the picture.
        patches: Where the patch is from; they know how pictures were cropped.
        patch: One of `NeuronPatches.of`.
        cell: Longer side in pixels.
    """
    return _framed(_seen(dataset, patches.preprocessing, patch.id, cell), patch)


def _choice(ids: Choice | Sequence[str]) -> Choice:
    if isinstance(ids, str):
        raise SettingsError(f"expected a list of sample ids, got the text {ids!r}; write [{ids!r}]")
    return ids if isinstance(ids, Choice) else Choice(tuple(ids), "picked by whoever made this sheet")


def _panel_titles() -> list[str]:
    return ["Original", TITLES["overlaid"], TITLES["red"]]


def _framed(image: Image.Image, patch: Patch) -> Image.Image:
    left, top, right, bottom = patch.box
    width, height = image.size
    box = (left * width, top * height, right * width - 1, bottom * height - 1)
    draw = ImageDraw.Draw(image)
    # A white line around the red one keeps it visible on red pictures.
    draw.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), outline="white", width=2)
    draw.rectangle(box, outline=(230, 0, 20), width=3)
    return image


def _about(dataset: ImageDataset, sample: str) -> list[Line]:
    return [Line(sample), Line(dataset.group_of(dataset.index_of(sample)))]


def _no_evidence(maps: SaliencyMaps, sample: str) -> list[Line]:
    return [] if bool(maps.select([sample]).evidence[0]) else [Line("no evidence anywhere", BAD)]


def _verdict(
    dataset: ImageDataset,
    maps: SaliencyMaps,
    sample: str,
    predictions: Mapping[str, int] | None,
    energy: Mapping[str, float],
) -> list[Line]:
    lines = []
    if predictions is not None and sample in predictions:
        # The map knows its label in the model's classes, the data set in its own.
        label = maps.select([sample]).targets[0] if maps.target_rule == "label" else None
        right = predictions[sample] == int(dataset.labels[dataset.index_of(sample)] if label is None else label)
        word = "right" if right else "wrong"
        lines.append(Line(f"{class_name(dataset, predictions[sample], maps)} - {word}", GOOD if right else BAD))
    if sample in energy:
        lines.append(Line(f"{100 * energy[sample]:.0f} % on the object", INK))
    return lines + _no_evidence(maps, sample)
