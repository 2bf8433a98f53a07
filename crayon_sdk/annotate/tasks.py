"""What is asked, in the words that are shown, and the records that an answer becomes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crayon_sdk._base.files import sha256_of
from crayon_sdk._base.text import one_line
from crayon_sdk.answers.records import AnyAnswer, ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.answers.relevance import Kind
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.explain.asking import Question, question_words
from crayon_sdk.explain.contact_sheets import class_name
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches, Patch

__all__ = ["Task", "make_tasks", "records_of"]


@dataclass(frozen=True)
class Task:
    """One thing to answer with one key.

    Attributes:
        id: 20 hex digits, the same in every run about the same model; says nothing about the picture.
        kind: "image", "neuron" or "spot".
        question: The words.
        sample: Id of the picture; of the first where there are several.
        target: Class that is asked about; ``None`` when the patches are of several classes.
        patches: With "neuron": what to show, one or (all of a neuron together) several.
        about: With "neuron": the (neuron, patch, sample id) that the answer is about.
    """

    id: str
    kind: Kind
    question: str
    sample: str
    target: int | None
    patches: tuple[Patch, ...] = ()
    about: tuple[tuple[int, int, str], ...] = ()

    @property
    def pictures(self) -> int:
        """How many pictures it shows."""
        return max(len(self.patches), 1)


def make_tasks(
    dataset: ImageDataset,
    source: SaliencyMaps | NeuronPatches,
    questions: Sequence[Question],
    *,
    question: str | None = None,
    group_patches: bool = False,
) -> list[Task]:
    """Turn questions into tasks, in the same order.

    Args:
        dataset: Has the class names.
        source: Maps, for questions about pictures and spots; patches, for those about neurons. An answer to a patch
            that several neurons share is one about each of them.
        questions: From `open_questions`.
        question: The words, with ``{label}`` for the class; default those of the paper.
        group_patches: One task per neuron with all its patches, in place of one per patch.

    Raises:
        SettingsError: The words have another placeholder than ``{label}``.
    """
    words = question_words(source, question, several=group_patches)
    if isinstance(source, SaliencyMaps):
        targets = dict(zip(source.ids, source.targets.tolist(), strict=True))
        return [_picture_task(dataset, source, question, each, targets[each.id]) for each in questions]
    neurons = [int(each.neuron or 0) for each in questions]
    if group_patches:
        return [_group_task(dataset, source, words, neuron) for neuron in dict.fromkeys(neurons)]
    ranks = [int(each.patch or 0) for each in questions]
    return [_patch_task(dataset, source, words, *place) for place in zip(neurons, ranks, strict=True)]


def _task_id(*what: object) -> str:
    return sha256_of(json.dumps(what))[:20]


def _label(dataset: ImageDataset, target: int, maps: SaliencyMaps | None = None) -> str:
    """A class by name; in characters that can be sent and shown, whatever a folder is called."""
    return one_line(class_name(dataset, target, maps))


def _picture_task(
    dataset: ImageDataset, maps: SaliencyMaps, question: str | None, about: Question, target: int
) -> Task:
    words = question_words(maps, question, kind=about.kind).format(label=_label(dataset, target, maps))
    return Task(_task_id(about.kind, maps.model, about.id, target), about.kind, words, about.id, target)


def _patch_task(dataset: ImageDataset, source: NeuronPatches, words: str, neuron: int, rank: int) -> Task:
    patch = source.of(neuron)[rank]
    target = int(dataset.labels[dataset.index_of(patch.id)])
    index = int(source.neurons[neuron, rank])
    return Task(
        _task_id("patch", source.model, neuron, rank, patch.id, patch.row, patch.column),
        "neuron",
        words.format(label=_label(dataset, target)),
        patch.id,
        target,
        (patch,),
        tuple((other, place, patch.id) for other, place in source.sharing(index)),
    )


def _group_task(dataset: ImageDataset, source: NeuronPatches, words: str, neuron: int) -> Task:
    patches = source.of(neuron)
    classes = list(dict.fromkeys(int(dataset.labels[dataset.index_of(patch.id)]) for patch in patches))
    label = " or ".join(_label(dataset, each) for each in classes)
    return Task(
        _task_id("neuron", source.model, neuron, [(patch.id, patch.row, patch.column) for patch in patches]),
        "neuron",
        words.format(label=label),
        patches[0].id,
        classes[0] if len(classes) == 1 else None,
        patches,
        tuple((neuron, rank, patch.id) for rank, patch in enumerate(patches)),
    )


def records_of(
    task: Task, *, answer: str, person: str, model: str, time: datetime, seconds: float | None, source: str
) -> tuple[AnyAnswer, ...]:
    """The answers that one click stands for.

    Raises:
        AnswerError: A value is out of range.
    """
    shared: dict[str, Any] = {"answer": answer, "annotator": person, "question": task.question, "model": model}
    shared |= {"time": time, "seconds": seconds, "source": source}
    if task.kind != "neuron":
        record = ImageAnswer if task.kind == "image" else SpotAnswer
        return (record(id=task.sample, target=task.target, **shared),)
    together = (("shown together", str(len(task.patches))),) if len(task.patches) > 1 else ()
    return tuple(
        NeuronAnswer(neuron=neuron, patch=rank, id=sample, target=task.target, extra=together, **shared)
        for neuron, rank, sample in task.about
    )
