"""What is still to be asked: pictures and patches without enough answers."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

import torch

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.errors import SettingsError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.patches import NeuronPatches

__all__ = ["Asked", "Question", "checked_words", "how_far", "open_questions", "question_words"]

_IMAGE_QUESTION = "Is the highlight mainly on the {label}?"
_NEURON_QUESTION = "Is the red rectangle mainly on the {label}?"
_NEURONS_QUESTION = "Are the red rectangles mainly on the {label}?"


@dataclass(frozen=True)
class Question:
    """One thing to ask a person.

    Attributes:
        kind: "image" or "neuron".
        id: Sample id of the picture.
        votes: How many people have answered it.
        neuron: With "neuron": which one; of neurons that share a patch, the first.
        patch: With "neuron": which of its patches, 0 is the strongest.
    """

    kind: str
    id: str
    votes: int
    neuron: int | None = None
    patch: int | None = None


@dataclass(frozen=True)
class Asked:
    """How far people are with the questions there are.

    Attributes:
        answered: How many have an answer.
        total: How many there are.
    """

    answered: int
    total: int


def how_far(source: SaliencyMaps | NeuronPatches, answers: AnnotationSet) -> Asked:
    """Count what is answered of what there is to ask: pictures with evidence, or different patches.

    Example:
        >>> maps = SaliencyMaps(("a", "b"), torch.ones(2, 1, 1), torch.tensor([0, 0]))
        >>> how_far(maps, AnnotationSet())
        Asked(answered=0, total=2)
    """
    asked = _image_questions(source, answers) if isinstance(source, SaliencyMaps) else _patches(source, answers)
    return Asked(sum(question.votes > 0 for question in asked), len(asked))


def open_questions(
    source: SaliencyMaps | NeuronPatches,
    answers: AnnotationSet,
    *,
    count: int = 20,
    votes: int = 1,
    seed: int = 0,
) -> tuple[Question, ...]:
    """Draw pictures or patches that have fewer answers than wanted, in random order.

    Args:
        source: Maps or patches to ask about; maps without evidence are left out.
        answers: What was answered.
        count: How many questions at most, at least 1.
        votes: How many people are to answer each, at least 1.
        seed: Of the order.

    Returns:
        Questions in the order to ask them; fewer than ``count`` when fewer are open.

    Raises:
        SettingsError: ``count``, ``votes`` or ``seed`` is out of range.

    Example:
        >>> maps = SaliencyMaps(("a", "b"), torch.ones(2, 1, 1), torch.tensor([0, 0]))
        >>> sorted(question.id for question in open_questions(maps, AnnotationSet()))
        ['a', 'b']
    """
    if count < 1 or votes < 1 or not 0 <= seed < 2**63:
        raise SettingsError(f"expected count >= 1, votes >= 1 and seed >= 0, got {count}, {votes} and {seed}")
    asked = _image_questions(source, answers) if isinstance(source, SaliencyMaps) else _patches(source, answers)
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [asked[position] for position in order if asked[position].votes < votes]
    return tuple(chosen[:count])


def _image_questions(maps: SaliencyMaps, answers: AnnotationSet) -> list[Question]:
    people = answers.voters("image")
    shown = zip(maps.ids, maps.evidence.tolist(), strict=True)
    return [Question("image", sample, len(people.get(sample, ()))) for sample, evidence in shown if evidence]


def _patches(patches: NeuronPatches, answers: AnnotationSet) -> list[Question]:
    people = answers.voters("neuron")
    questions: dict[int, Question] = {}
    for neuron, row in enumerate(patches.neurons.tolist()):
        for rank, index in enumerate(row):
            # A shared patch is asked about once.
            if index >= 0 and index not in questions:
                sample = patches.ids[int(patches.samples[index])]
                questions[index] = Question("neuron", sample, len(people.get((neuron, rank), ())), neuron, rank)
    return list(questions.values())


def question_words(source: SaliencyMaps | NeuronPatches, question: str | None = None, *, several: bool = False) -> str:
    """The words to ask in, with ``{label}`` for the class; those of the paper when none are given.

    Args:
        source: What is asked about.
        question: Other words.
        several: Whether several patches are shown together.

    Raises:
        SettingsError: They have another placeholder than ``{label}``.

    Example:
        >>> maps = SaliencyMaps(("a",), torch.ones(1, 1, 1), torch.tensor([0]))
        >>> question_words(maps).format(label="bird")
        'Is the highlight mainly on the bird?'
    """
    default = _NEURONS_QUESTION if several else _NEURON_QUESTION
    words = question or (_IMAGE_QUESTION if isinstance(source, SaliencyMaps) else default)
    return checked_words(words)


def checked_words(words: str) -> str:
    """The words of a question, if nothing but ``{label}`` is to be put into them.

    Raises:
        SettingsError: They have another placeholder, or one that would run code (``{label.__class__}``).

    Example:
        >>> checked_words("Is it on the {label}?")
        'Is it on the {label}?'
    """
    try:
        words.encode()
        fields = [part[1:] for part in Formatter().parse(words) if part[1] is not None]
    except ValueError as error:  # braces that do not match; UnicodeError is one, too
        raise SettingsError(f"expected a question with {{label}} at most, got {words!r}: {error}") from error
    other = next((field for field in fields if field != ("label", "", None)), None)
    if other is not None:
        raise SettingsError(
            f"expected a question with {{label}} at most, got {words!r}; {{label}} stands for the name of the class, "
            "and a brace that is meant as one is written twice"
        )
    return words
