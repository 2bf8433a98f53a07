"""One answer, one record: frozen, checked field by field, the same in memory and as a line of JSON.

A record says who answered what about which picture, for which model and
question, when, and how long it took. Whatever is wrong with one arrives as an
[`AnswerError`][crayon_sdk.errors.AnswerError] that names the field.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import ErrorDetails

from crayon_sdk._base.text import given_only
from crayon_sdk.answers.relevance import Answer
from crayon_sdk.errors import AnswerError

__all__ = ["AnyAnswer", "ImageAnswer", "NeuronAnswer", "SpotAnswer", "pairs_of", "parse_record"]

_MOMENT: TypeAdapter[datetime] = TypeAdapter(datetime)


def _read_time(value: object) -> object:
    """Accept ISO 8601 text, but not the numbers that pydantic would take for seconds since 1970."""
    if not isinstance(value, str):
        return value
    try:
        if re.match(r"\d{4}-\d\d-\d\d[T ]", value):
            return _MOMENT.validate_python(value)
    except ValidationError:
        pass
    raise ValueError("expected ISO 8601 with a time zone, such as 2026-01-31T12:00:00Z")


def _to_utc(time: datetime) -> datetime:
    """One moment, one spelling: equal records have equal lines and equal fingerprints."""
    try:
        return time.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


def pairs_of(value: object) -> object:
    """Take an object of texts; kept as sorted pairs, so that records can be compared and counted."""
    if isinstance(value, dict):
        value = tuple(sorted(value.items(), key=str))
    if isinstance(value, list | tuple):
        return tuple(tuple(pair) if isinstance(pair, list) else pair for pair in value)
    return value


NonEmpty = Annotated[str, Field(min_length=1)]
UtcTime = Annotated[AwareDatetime, BeforeValidator(_read_time), AfterValidator(_to_utc)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Index = Annotated[int, Field(ge=0)]
Extra = Annotated[tuple[tuple[str, str], ...], BeforeValidator(pairs_of), PlainSerializer(dict)]


class _Record(BaseModel, frozen=True, strict=True, extra="forbid"):
    kind: str
    id: str = ""
    answer: Answer
    annotator: NonEmpty
    question: str = ""
    model: str = ""
    time: UtcTime | None = None
    seconds: Seconds | None = None
    simulated: bool = False
    source: str = ""
    extra: Extra = ()

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return given_only(type(self).model_fields, super().__repr_args__())

    @model_serializer(mode="wrap")
    def _without_empty_extra(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Lines, and with them fingerprints, of answers without any are as they were before there were any.
        found: dict[str, Any] = handler(self)
        if not self.extra:
            found.pop("extra", None)
        return found

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_words(cls, data: Any, handler: ModelWrapValidatorHandler[_Record]) -> _Record:
        try:
            return handler(data)
        except ValidationError as error:
            raise AnswerError(_describe(error, list(cls.model_fields))) from error


class ImageAnswer(_Record, frozen=True):
    """One person's answer about the highlight on one picture.

    Attributes:
        kind: Always "image".
        id: Sample id of the picture, not empty.
        answer: "yes" (the highlight lies on what matters), "no" or "unsure".
        annotator: Who answered, not empty.
        question: The text that was asked.
        target: Class index the saliency map was made for, if known.
        model: Fingerprint of the model the map was made from; "" = unknown.
        time: When, with a time zone (kept in UTC).
        seconds: How long it took, at least 0.
        simulated: Whether a program answered in a person's place.
        source: Where the answer came from, such as "grid".
        extra: What else the file of another tool said, as (name, text); written as a JSON object.

    Raises:
        AnswerError: A field is missing, unknown, of the wrong type or out of range.

    >>> ImageAnswer(id="birds/1.jpg", answer="yes", annotator="ann").kind
    'image'
    """

    kind: Literal["image"] = "image"
    id: NonEmpty
    target: Index | None = None


class NeuronAnswer(_Record, frozen=True):
    """One person's answer about one patch of one neuron.

    Attributes:
        kind: Always "neuron".
        neuron: Which input of the final classifier, from 0.
        patch: Which of the neuron's patches; 0 is the one that activates it most.
        id: Sample id of the picture the patch lies in; "" = unknown.
        answer: "yes" (the patch shows what matters), "no" or "unsure".
        annotator: Who answered, not empty.
        question: The text that was asked.
        target: Class index that was asked about, if any.
        model: Fingerprint of the model the neuron belongs to; "" = unknown.
        time: When, with a time zone (kept in UTC).
        seconds: How long it took, at least 0.
        simulated: Whether a program answered in a person's place.
        source: Where the answer came from, such as "grid".
        extra: What else the file of another tool said, as (name, text); written as a JSON object.

    Raises:
        AnswerError: A field is missing, unknown, of the wrong type or out of range.

    >>> NeuronAnswer(neuron=7, patch=0, answer="no", annotator="ann").neuron
    7
    """

    kind: Literal["neuron"] = "neuron"
    neuron: Index
    patch: Index
    target: Index | None = None


class SpotAnswer(_Record, frozen=True):
    """One person's answer about the brightest spot of the highlight on one picture.

    Attributes:
        kind: Always "spot".
        id: Sample id of the picture, not empty.
        answer: "yes" (the spot lies on what matters), "no" or "unsure".
        annotator: Who answered, not empty.
        question: The text that was asked.
        target: Class index the saliency map was made for, if known.
        model: Fingerprint of the model the map was made from; "" = unknown.
        time: When, with a time zone (kept in UTC).
        seconds: How long it took, at least 0.
        simulated: Whether a program answered in a person's place.
        source: Where the answer came from, such as "grid".
        extra: What else the file of another tool said, as (name, text); written as a JSON object.

    Raises:
        AnswerError: A field is missing, unknown, of the wrong type or out of range.

    >>> SpotAnswer(id="birds/1.jpg", answer="yes", annotator="ann").kind
    'spot'
    """

    kind: Literal["spot"] = "spot"
    id: NonEmpty
    target: Index | None = None


AnyAnswer: TypeAlias = ImageAnswer | NeuronAnswer | SpotAnswer
_ADAPTER: TypeAdapter[AnyAnswer] = TypeAdapter(Annotated[AnyAnswer, Field(discriminator="kind")])


def _describe(error: ValidationError, fields: Collection[str] = ()) -> str:
    return "; ".join(_describe_one(problem, fields) for problem in error.errors(include_url=False))


def _describe_one(problem: ErrorDetails, fields: Collection[str]) -> str:
    name = str(problem["loc"][-1]) if problem["loc"] else ""
    got = repr(problem["input"])
    got = got if len(got) <= 60 else f"{got[:57]}..."
    kind = problem["type"]
    if kind == "json_invalid":
        return f"not valid JSON ({problem['ctx']['error']})"
    if kind == "union_tag_not_found":
        return "field 'kind' is missing; expected 'image', 'neuron' or 'spot'"
    if kind == "union_tag_invalid":
        return f"field 'kind' is {problem['ctx']['tag']!r}; expected 'image', 'neuron' or 'spot'"
    if kind == "missing":
        return f"field {name!r} is missing"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, fields, n=1)
        return f"unknown field {name!r}" + (
            f" (did you mean {near[0]!r}?)" if near else f"; known: {', '.join(fields)}"
        )
    if name == "answer":
        return f"field 'answer' is {got}; expected one of yes, no, unsure"
    if not name:
        return f"expected one record with named fields, got {got}"
    return f"field {name!r} is {got}: {problem['msg'].removeprefix('Value error, ')}"


def parse_record(line: bytes) -> AnyAnswer:
    """Read one record; every way in which it can be wrong is an AnswerError."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        try:
            line.decode()
        except UnicodeDecodeError as cause:
            raise AnswerError(f"not UTF-8 text ({cause.reason}); save the file as UTF-8") from cause
        hint = (
            "; this looks like the authors' published format, see formats.from_published"
            if line.startswith(b"[")
            else ""
        )
        raise AnswerError(_describe(error) + hint) from error
