"""Answers of people who do not look: what every result about answers has to be held against."""

from __future__ import annotations

import random

from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.records import AnyAnswer, NeuronAnswer
from crayon_sdk.answers.relevance import CONTROLS, KINDS, Control
from crayon_sdk.errors import AnswerError, SettingsError

__all__ = ["control"]

_TURNED = {"yes": "no", "no": "yes", "unsure": "unsure"}


def control(answers: AnnotationSet, kind: Control, *, seed: int = 0) -> AnnotationSet:
    """What people would have said who answer the same questions without looking.

    A correction that is as good with these as with the real answers owes nothing to them.

    Args:
        answers: The real answers; they say who was asked about what, and how often.
        kind: "yes" or "no" to everything; "shuffled": all that was said about one picture is dealt out to another
            one, so that as many pictures are relevant, irrelevant and mixed as before (and likewise for the patches
            of neurons, and for spots); or "inverted": yes where no was said.
        seed: Of the shuffling.

    Returns:
        As many answers by as many people about the same things, each marked as simulated, with the source
        "control:KIND".

    Raises:
        AnswerError: There are no answers.
        SettingsError: There is no such control.

    >>> from crayon_sdk.answers.records import ImageAnswer
    >>> answers = AnnotationSet([ImageAnswer(id="1.jpg", answer="yes", annotator="ann")])
    >>> [each.answer for each in control(answers, "inverted")]
    ['no']
    """
    if kind not in CONTROLS:
        raise SettingsError(f"expected a control, one of {', '.join(CONTROLS)}, got {kind!r}")
    if not len(as_answers(answers)):
        raise AnswerError("expected the real answers, from which a control takes its questions, got none")
    if kind == "shuffled":
        return AnnotationSet().merge(*(AnnotationSet(_shuffled(answers.only(kind), seed)) for kind in KINDS))
    return AnnotationSet(
        _marked(each, kind, answer=_TURNED[each.answer] if kind == "inverted" else kind) for each in answers
    )


def _shuffled(answers: AnnotationSet, seed: int) -> list[AnyAnswer]:
    """Deal out what was said about one thing to another; people and their votes stay together."""
    said: dict[object, list[AnyAnswer]] = {}
    for each in answers:
        said.setdefault(_thing(each), []).append(each)
    things = list(said)
    dealt = things.copy()
    random.Random(seed).shuffle(dealt)  # noqa: S311 - an experiment, not a secret
    found = []
    for thing, other in zip(things, dealt, strict=True):
        first = said[thing][0]
        about = {"id": first.id, "target": first.target, "question": first.question}
        if isinstance(first, NeuronAnswer):
            about |= {"neuron": first.neuron, "patch": first.patch}
        found += [_marked(each, "shuffled", **about) for each in said[other]]
    return found


def _thing(answer: AnyAnswer) -> object:
    return (answer.neuron, answer.patch) if isinstance(answer, NeuronAnswer) else answer.id


def _marked(said: AnyAnswer, kind: Control, **changed: object) -> AnyAnswer:
    return said.model_copy(update={"simulated": True, "source": f"control:{kind}", **changed})
