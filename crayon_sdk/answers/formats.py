"""Other people's answer files: those of other tools, and the lists that the authors of the method published.

The published lists are two kinds of JSON file, told apart by what is in them:

- images: a list of "yes", "maybe" and "no", one per training image, in the
  order of the training set. Positions become sample ids through the data set.
- neurons: a list of booleans, one per neuron; true = relevant.

The published words are verdicts on two people's answers, who were not
published. Reading makes the two answers up again such that the rule "unanimous"
gives back the published verdict: "yes" becomes two times yes, "no" two times
no, "maybe" one yes and one no. Which of the two said what is therefore not a
fact, and an agreement computed from such answers says nothing about chance.
A neuron becomes one answer about its patch 0.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from typing import Literal

from crayon_sdk._base.files import StrPath, read_json, read_whole, write_json, write_text
from crayon_sdk._base.text import ANSWER_FORMATS, first_few
from crayon_sdk.answers.annotations import AnnotationSet, as_answers
from crayon_sdk.answers.records import ImageAnswer, NeuronAnswer
from crayon_sdk.answers.relevance import Answer, Rule
from crayon_sdk.answers.tools import read_csv, read_tool_json, write_tool
from crayon_sdk.errors import FileFormatError, MismatchError, SettingsError

__all__ = ["from_published", "read_answers", "to_published", "to_published_neurons", "write_answers"]

_log = logging.getLogger(__name__)
_VOTES: dict[str, tuple[Answer, Answer]] = {"yes": ("yes", "yes"), "maybe": ("yes", "no"), "no": ("no", "no")}
_WORDS = {"relevant": "yes", "mixed": "maybe", "irrelevant": "no"}
_SOURCE = "published file"
_EXPORT_AGAIN = "Export it again from the tool that made it, or correct it by hand."


def from_published(
    published: StrPath | Sequence[str] | Sequence[bool],
    dataset_ids: Sequence[str] | None = None,
    *,
    annotator: str = "published",
) -> AnnotationSet:
    """Read published answers about images or neurons.

    Args:
        published: A JSON file, or the list that is in one.
        dataset_ids: For images: all sample ids of the training set, in its own
            order. Not used for neurons.
        annotator: Name to put into the records; images get two, `<name>-1` and
            `<name>-2`.

    Returns:
        Two answers per image, or one per neuron (patch 0).

    Raises:
        FileFormatError: No such file, or it is not a list of this kind.
        MismatchError: Not as many values as ids, or an id comes twice.

    >>> from_published(["yes", "maybe"], ["a.jpg", "b.jpg"]).image_relevance()
    {'a.jpg': 'relevant', 'b.jpg': 'mixed'}
    >>> from_published([True, False]).neuron_relevance()
    {0: 'relevant', 1: 'irrelevant'}
    """
    values: object = published
    where = "the list"
    if isinstance(published, (str, PathLike)):
        values, where = read_json(published, remedy=_EXPORT_AGAIN), repr(str(published))
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise FileFormatError(f"{where}: expected a JSON list of yes/maybe/no or of booleans, got {_type(values)}")
    if values and isinstance(values[0], bool):
        return _neurons(values, where, annotator)
    if dataset_ids is None:
        raise SettingsError(f"{where} has answers about images; pass the sample ids of the training set in its order")
    return _images(values, list(dataset_ids), where, annotator)


def read_answers(
    path: StrPath, dataset_ids: Sequence[str], *, annotator: str = "published", strict: bool = True
) -> AnnotationSet:
    """Read a file of answers of any kind; which one it is follows from what is in it.

    JSON Lines of ours; a published list; a table in CSV (MTurk's batch results, or any with a column of pictures and
    one of answers); JSON of Label Studio (full export or JSON_MIN) or FiftyOne. Columns that are not ours are kept
    as the ``extra`` of the answers.

    Args:
        path: The file.
        dataset_ids: All sample ids of the training set, in its own order.
        annotator: Who answered, where the file does not say so.
        strict: Refuse the whole file for one bad line; else leave such lines out and count them.

    Raises:
        FileFormatError: No such file, it is of no kind that is known, a line is bad (the message has its number), or
            there is something in it and no answer.
        MismatchError: A list that does not have one value per id.
    """
    found = _read_answers(path, dataset_ids, annotator=annotator, strict=strict)
    if not len(found) and (found.dropped or found.torn_line):
        left_out = f"{found.dropped} broken lines" if found.dropped else "one line that was cut off"
        raise FileFormatError(
            f"{str(path)!r} has no answer in it: expected one JSON record a line, found {left_out} and nothing else"
        )
    return found


def _read_answers(path: StrPath, dataset_ids: Sequence[str], *, annotator: str, strict: bool) -> AnnotationSet:
    try:
        with open(path, "rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise FileFormatError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    name = os.path.basename(path)
    if start.startswith(b"[") or _is_one_object(path, start):
        value = read_json(path, remedy=_EXPORT_AGAIN)
        if isinstance(value, list) and not any(isinstance(each, dict) for each in value):
            return from_published(path, dataset_ids, annotator=annotator)
        return read_tool_json(value, dataset_ids, name=name, annotator=annotator, strict=strict)
    if not start or start.startswith(b"{"):
        return AnnotationSet.load(path, strict=strict)
    try:
        text = read_whole(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{str(path)!r} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    return read_csv(text, dataset_ids, name=name, annotator=annotator, strict=strict)


def _is_one_object(path: StrPath, start: bytes) -> bool:
    """Tell FiftyOne's one object from our one object a line: ours are whole when their line ends."""
    if not start.startswith(b"{"):
        return False
    with open(path, "rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        value = json.loads(first)
    except ValueError:
        # A broken line of ours is for the reader of lines to report, which knows its number.
        return b'"samples"' in read_whole(path) and b'"kind"' not in first
    return "samples" in value


def write_answers(
    answers: AnnotationSet, path: StrPath, kind: str, dataset_ids: Sequence[str] = (), *, num_neurons: int = 0
) -> None:
    """Write answers as a file of another tool, in one piece. `read_answers` reads all of them back.

    Args:
        answers: The answers.
        path: The file; replaced when it exists.
        kind: "jsonl", "csv", "mturk", "label-studio", "fiftyone", "published" (verdicts about images only: answers
            about neurons and spots are left out) or "published-neurons".
        dataset_ids: For "published": all sample ids of the training set, in its order.
        num_neurons: For "published-neurons": of the model.

    Raises:
        SettingsError: An unknown kind.
        MismatchError: For a published list: images or neurons without an answer.
        OutputError: It cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_answers(from_published(["yes"], ["a.jpg"]), f"{folder}/answers.csv", "csv")
    ...     len(read_answers(f"{folder}/answers.csv", ["a.jpg"]))
    2
    """
    if kind not in ANSWER_FORMATS:
        raise SettingsError(f"expected a kind of file from {', '.join(ANSWER_FORMATS)}, got {kind!r}")
    as_answers(answers)
    if kind.startswith("published") and (spots := len(answers.only("spot"))):
        _log.warning(
            "%d answers about spots are left out of %s: the published lists have no place for them", spots, path
        )
    if kind == "jsonl":
        answers.save(path)
    elif kind == "published":
        write_json(path, to_published(answers.only("image"), dataset_ids))
    elif kind == "published-neurons":
        write_json(path, to_published_neurons(answers.only("neuron"), num_neurons))
    else:
        write_text(path, write_tool(answers, kind))


def _neurons(values: Sequence[object], where: str, annotator: str) -> AnnotationSet:
    for position, value in enumerate(values):
        if not isinstance(value, bool):
            raise FileFormatError(f"{where}, position {position}: expected true or false, got {value!r}")
    return AnnotationSet(
        NeuronAnswer(neuron=neuron, patch=0, answer="yes" if value else "no", annotator=annotator, source=_SOURCE)
        for neuron, value in enumerate(values)
    )


def _images(values: Sequence[object], ids: list[str], where: str, annotator: str) -> AnnotationSet:
    for position, value in enumerate(values):
        if not isinstance(value, str) or value not in _VOTES:
            raise FileFormatError(f"{where}, position {position}: expected yes, maybe or no, got {value!r}")
    if len(values) != len(ids):
        raise MismatchError(
            f"{where} has answers for {len(values)} images, the data set has {len(ids)}: they go by position, "
            "so both must be the same training set in the same order"
        )
    _check_unique(ids)
    return AnnotationSet(
        ImageAnswer(id=id_, answer=vote, annotator=f"{annotator}-{person}", source=_SOURCE)
        for id_, value in zip(ids, values, strict=True)
        for person, vote in enumerate(_VOTES[str(value)], start=1)
    )


def to_published(
    answers: AnnotationSet,
    dataset_ids: Sequence[str],
    *,
    rule: Rule = "unanimous",
    missing: Literal["error", "maybe"] = "error",
) -> list[str]:
    """Write answers about images in the published form, to be saved as JSON.

    Args:
        answers: Answers about images; those about neurons and about spots are passed over, for the form has no word
            for what they are about.
        dataset_ids: All sample ids of the training set, in its order.
        rule: How votes become a verdict.
        missing: What an image without answers becomes: "error" refuses,
            "maybe" writes "maybe" (training treats both alike).

    Returns:
        "yes", "maybe" or "no" per id.

    Raises:
        MismatchError: Answers for images that are not in the data set, an id
            that comes twice, or images without an answer.

    >>> to_published(from_published(["no", "maybe"], ["a", "b"]), ["a", "b"])
    ['no', 'maybe']
    """
    _check_missing(missing, "maybe")
    ids = list(dataset_ids)
    _check_unique(ids)
    relevance = answers.only("image").for_ids(ids).image_relevance(rule)
    lacking = [id_ for id_ in ids if id_ not in relevance]
    if lacking and missing == "error":
        raise MismatchError(
            f"{len(lacking)} of {len(ids)} images have no answer: {first_few(lacking)}. The published form has no word "
            'for that (in Python: missing="maybe" writes "maybe")'
        )
    return [_WORDS[relevance.get(id_, "mixed")] for id_ in ids]


def to_published_neurons(
    answers: AnnotationSet,
    num_neurons: int,
    *,
    rule: Rule = "majority",
    missing: Literal["error", "relevant"] = "error",
) -> list[bool]:
    """Write answers about neurons in the published form, to be saved as JSON.

    Args:
        answers: Answers about neurons; those about images and spots are passed over.
        num_neurons: Number of neurons of the model.
        rule: How votes become a verdict.
        missing: What a neuron without answers becomes: "error" refuses,
            "relevant" writes true.

    Returns:
        One boolean per neuron; True = relevant.

    Raises:
        MismatchError: Answers for neurons the model does not have, or neurons
            without an answer.

    >>> to_published_neurons(from_published([True, False]), 2)
    [True, False]
    """
    _check_missing(missing, "relevant")
    relevance = answers.for_neurons(num_neurons).neuron_relevance(rule)
    lacking = [neuron for neuron in range(num_neurons) if neuron not in relevance]
    if lacking and missing == "error":
        raise MismatchError(
            f"{len(lacking)} of {num_neurons} neurons have no answer: {first_few(lacking)}. The published form has "
            'no word for that (in Python: missing="relevant" writes true)'
        )
    return [relevance.get(neuron, "relevant") == "relevant" for neuron in range(num_neurons)]


def _check_missing(missing: str, other: str) -> None:
    if missing not in ("error", other):
        raise SettingsError(f"missing={missing!r} is unknown; expected 'error' or {other!r}")


def _check_unique(ids: list[str]) -> None:
    twice = [id_ for id_, number in Counter(ids).items() if number > 1]
    if twice:
        raise MismatchError(f"sample ids must be unique; {len(twice)} come more than once: {first_few(twice)}")


def _type(value: object) -> str:
    return "an object" if isinstance(value, dict) else type(value).__name__
