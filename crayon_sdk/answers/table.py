"""Answers as columns: a few numbers a row and every text once, so that a million answers fit into a small machine.

What [`records`][crayon_sdk.answers.records] says one answer is, this module reads, keeps and writes many of: the
same fields, checks and lines, in a fraction of the time and the memory. Records are made when somebody asks for them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import SchemaValidator, core_schema, to_json

from crayon_sdk.answers.records import AnyAnswer, ImageAnswer, NeuronAnswer, SpotAnswer, pairs_of, parse_record
from crayon_sdk.answers.relevance import ANSWERS, KINDS, Kind
from crayon_sdk.errors import AnswerError

__all__ = ["About", "AnswerTable", "Mask", "Rows", "Votes", "distinct"]

Rows = NDArray[Any]
_Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# The line is where the answer was read, 0 = nowhere; it is no part of what was answered.
_ROW = np.dtype([("about", "<u4"), ("id", "<u4"), ("time", "<i8"), ("seconds", "<f8"), ("line", "<u4")])
_NEVER = np.iinfo(np.int64).min  # numpy's own number for "no time"
_NO_SECONDS = -1.0
_START, _TICK = datetime(1970, 1, 1, tzinfo=timezone.utc), timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=timezone.utc) - _START) // _TICK
_LAST = (datetime.max.replace(tzinfo=timezone.utc) - _START) // _TICK
_BATCH = 2048
_MOST_NEW_SHAPES = _BATCH // 8  # of a batch; with more of them it is faster to read every line as JSON
_CLASSES: dict[str, type[AnyAnswer]] = {"image": ImageAnswer, "neuron": NeuronAnswer, "spot": SpotAnswer}
_STARTS = {kind: f'{{"kind":"{kind}","id":"'.encode() for kind in KINDS}
_TIMES = re.compile(rb'(?:"(?!0000)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z")*')
_NUMBERS = re.compile(rb"(?:(?:null|(?:0|[1-9]\d{0,14})\.\d{1,17}),)*")
_lock = threading.Lock()


class About(NamedTuple):
    """What was said, by whom, in which words: a record without its id, its time and its seconds."""

    kind: Kind
    answer: str
    annotator: str
    question: str
    model: str
    simulated: bool
    source: str
    extra: tuple[tuple[str, str], ...]
    target: int | None
    neuron: int | None = None
    patch: int | None = None


@dataclass(frozen=True)
class Votes:
    """The votes that count, those about one item side by side; items and voters in the order of their first vote.

    Attributes:
        items: Sample ids, or (neuron, patch).
        item: (V,) position in ``items`` of each vote, ascending.
        person: (V,) position in ``people``.
        answer: (V,) position in ``ANSWERS``.
        people: Everybody who answered anything in the table.
    """

    items: Sequence[Any]
    item: _Ints
    person: _Ints
    answer: _Ints
    people: Sequence[str]

    def counts(self) -> list[tuple[int, int, int]]:
        """How many said yes, no and unsure, for each item."""
        width = len(ANSWERS)
        flat = np.bincount(self.item * width + self.answer, minlength=len(self.items) * width)
        return [(yes, no, unsure) for yes, no, unsure in flat.reshape(-1, width).tolist()]

    def voters(self) -> dict[Any, frozenset[str]]:
        """Who voted on each item."""
        people = [self.people[person] for person in self.person.tolist()]
        ends = np.bincount(self.item, minlength=len(self.items)).cumsum().tolist()
        return {
            item: frozenset(people[start:end]) for item, start, end in zip(self.items, [0, *ends], ends, strict=False)
        }

    def by_person(self) -> Iterator[dict[str, str]]:
        """Who said what about each item that at least two people voted on."""
        sizes = np.bincount(self.item, minlength=len(self.items))
        several = sizes[self.item] > 1
        people = [self.people[person] for person in self.person[several].tolist()]
        answers = [ANSWERS[answer] for answer in self.answer[several].tolist()]
        start = 0
        for size in sizes[sizes > 1].tolist():
            yield dict(zip(people[start : start + size], answers[start : start + size], strict=True))
            start += size


class _Codes(dict[Any, int]):
    """Values and their numbers in the order in which they came. It only ever grows, so that tables can share one."""

    def __init__(self) -> None:
        super().__init__()
        self.in_order: list[Any] = []

    def __missing__(self, value: Any) -> int:
        with _lock:
            if value not in self:
                self.in_order.append(value)
                self[value] = len(self.in_order) - 1
        return self[value]


class _Shapes(dict[tuple[bytes, bytes], tuple[int, bytes]]):
    """What lines of ours have between time and id and after the seconds -> what they say, and how they begin."""

    def __init__(self, table: AnswerTable) -> None:
        super().__init__()
        self.table, self.left = table, 0

    def learn(self, line: bytes, middle: bytes, end: bytes) -> tuple[int, bytes]:
        """Read one line as JSON, and remember its shape if it is one that we write."""
        self.left -= 1
        about = self.table._code(_read_line(line))
        _, ours, rest = (piece.encode() for piece in self.table._pieces(about))
        if self.left < 0 or (ours, rest) != (b',"answer":' + middle + b'"time":', b',"simulated":' + end):
            raise ValueError
        self[middle, end] = found = (about, _STARTS[self.table._abouts.in_order[about][0]])
        return found


class AnswerTable:
    """Rows of answers, in order. Tables made from one another share their texts.

    Args:
        like: A table to share the texts of.
        rows: Rows of it to start with.
    """

    def __init__(self, like: AnswerTable | None = None, rows: Rows | None = None) -> None:
        self._abouts: _Codes = _Codes() if like is None else like._abouts
        self._ids: _Codes = _Codes() if like is None else like._ids
        # One container, so that a row is there as a whole or not at all.
        self._data = bytearray() if rows is None else bytearray(rows.tobytes())

    def __len__(self) -> int:
        return len(self._data) // _ROW.itemsize

    def rows(self) -> Rows:
        """A copy of the rows."""
        return np.frombuffer(bytearray(self._data), _ROW)

    def keys(self) -> Iterator[tuple[object, ...]]:
        """What makes each answer equal to another one."""
        for batch in _batches(self.rows()):
            columns = (batch["about"].tolist(), batch["id"].tolist(), batch["time"].tolist(), batch["seconds"].tolist())
            for about, id_, time, seconds in zip(*columns, strict=True):
                yield self._abouts.in_order[about], self._ids.in_order[id_], time, seconds

    # --- in ---------------------------------------------------------------------------------------------------------

    def add(self, answer: AnyAnswer, line: int = 0) -> None:
        """Add one record.

        Raises:
            AnswerError: It was made around the checks of its class.
        """
        try:
            if type(answer) is not _CLASSES[answer.kind]:
                raise TypeError(f"it is a {type(answer).__name__}")
            time = _NEVER if answer.time is None else (answer.time - _START) // _TICK
            seconds = _NO_SECONDS if answer.seconds is None else answer.seconds
            row = (self._code(vars(answer)), self._ids[answer.id], time, seconds, line)
            self._data += np.array(row, _ROW).tobytes()
        except (TypeError, ValueError, OverflowError, KeyError, AttributeError) as error:
            raise AnswerError(
                f"expected a record made by ImageAnswer(...), NeuronAnswer(...) or SpotAnswer(...), got one that was "
                f"changed or made in another way ({error})"
            ) from error

    def read(self, numbered: Iterable[tuple[int, bytes]]) -> tuple[int, int, str]:
        """Add lines of JSON, in batches; broken ones are left out.

        Args:
            numbered: Lines and their numbers.

        Returns:
            How many lines there were, how many are broken, and what is wrong with the first of those.
        """
        lines, shapes = iter(numbered), _Shapes(self)
        total, broken, first = 0, 0, ""
        while batch := list(islice(lines, _BATCH)):
            total += len(batch)
            try:
                self._data += self._rows_of_ours(batch, shapes).tobytes()
                continue
            except ValueError:  # lines that others wrote, or with much that is said only once
                pass
            try:
                self._data += self._rows_of_any(batch).tobytes()
            except (ValueError, OverflowError):
                for number, line in batch:
                    try:
                        self.add(parse_record(line), number)
                    except AnswerError as error:  # noqa: PERF203 - each line fails on its own
                        broken += 1
                        first = first or f"line {number}: {error}"
        return total, broken, first

    def _rows_of_any(self, batch: Sequence[tuple[int, bytes]]) -> Rows:
        found = [_read_line(line) for _, line in batch]
        times = [_NEVER if each["time"] is None else (each["time"] - _START) // _TICK for each in found]
        if not all(_FIRST <= time <= _LAST or time == _NEVER for time in times):
            raise OverflowError
        rows = np.empty(len(batch), _ROW)
        rows["about"] = [self._code(each) for each in found]
        rows["id"] = [self._ids[each["id"]] for each in found]
        rows["time"] = times
        rows["seconds"] = [_NO_SECONDS if each["seconds"] is None else each["seconds"] for each in found]
        rows["line"] = [number for number, _ in batch]
        return rows

    def _code(self, fields: dict[str, Any]) -> int:
        return self._abouts[(_about_neuron if fields["kind"] == "neuron" else _about_picture)(fields)]

    def _rows_of_ours(self, batch: Sequence[tuple[int, bytes]], shapes: _Shapes) -> Rows:
        """Rows of lines that are just as `lines` writes them, which need not be taken apart as JSON.

        Raises:
            ValueError: One is not.
        """
        shapes.left = _MOST_NEW_SHAPES
        abouts, ids, times, seconds = [], [], [], []
        for _, line in batch:
            head, _, rest = line.partition(b',"answer":')
            middle, _, rest = rest.partition(b'"time":')
            time, _, rest = rest.partition(b',"seconds":')
            spent, _, end = rest.partition(b',"simulated":')
            about, start = shapes.get((middle, end)) or shapes.learn(line, middle, end)
            name = head[len(start) : -1].decode()
            plain = '"' not in name and "\\" not in name and name.isprintable()
            if not (plain and head.startswith(start) and head.endswith(b'"')) or (
                not name and start is not _STARTS["neuron"]
            ):
                raise ValueError
            abouts.append(about)
            ids.append(self._ids[name])
            times.append(b"" if time == b"null" else time)
            seconds.append(spent)
        if not (_TIMES.fullmatch(b"".join(times)) and _NUMBERS.fullmatch(b",".join([*seconds, b""]))):
            raise ValueError
        rows = np.empty(len(batch), _ROW)
        rows["about"], rows["id"] = abouts, ids
        times_there = np.array([time[1:-2] or b"NaT" for time in times]).astype(str)  # numpy 1.26 crashes at bad bytes
        rows["time"] = times_there.astype("datetime64[us]").astype("<i8")
        rows["seconds"] = [_NO_SECONDS if each == b"null" else float(each) for each in seconds]
        rows["line"] = [number for number, _ in batch]
        return rows

    # --- out --------------------------------------------------------------------------------------------------------

    def records(self, rows: Rows | None = None) -> Iterator[AnyAnswer]:
        """Records of the rows, made one by one."""
        for batch in _batches(self.rows() if rows is None else rows):
            columns = (batch["about"].tolist(), batch["id"].tolist(), _moments(batch), _seconds(batch))
            for about, id_, time, seconds in zip(*columns, strict=True):
                moment = None if time is None else time.replace(tzinfo=timezone.utc)
                yield self._record(about, id=self._ids.in_order[id_], time=moment, seconds=seconds)

    def _record(self, about: int, **fields: Any) -> AnyAnswer:
        """A record around the checks: what is in the table has passed them on its way in."""
        found = self._abouts.in_order[about]
        return _CLASSES[found[0]].model_construct(**dict(zip(About._fields, found, strict=False)), **fields)

    def lines(self, rows: Rows | None = None) -> Iterator[str]:
        """The lines of the rows, byte for byte as the records write them."""
        pieces: dict[int, tuple[str, str, str]] = {}
        for batch in _batches(self.rows() if rows is None else rows):
            # Numbers and times have no comma in them, and one call writes all of them.
            times, seconds = (to_json(each).decode()[1:-1].split(",") for each in (_moments(batch), _seconds(batch)))
            for about, code, time, spent in zip(
                batch["about"].tolist(), batch["id"].tolist(), times, seconds, strict=True
            ):
                if about not in pieces:
                    pieces[about] = self._pieces(about)
                start, middle, end = pieces[about]
                id_, moment = to_json(self._ids.in_order[code]).decode(), time if time == "null" else f'{time[:-1]}Z"'
                yield f'{start}{id_}{middle}{moment},"seconds":{spent}{end}'

    def _pieces(self, about: int) -> tuple[str, str, str]:
        """What stands before the id, between it and the time, and after the seconds in the lines about one thing."""
        # Inside of a text every quotation mark has a backslash before it, so that the first place is the right one.
        start, _, rest = self._record(about, id="", time=None, seconds=None).model_dump_json().partition('"id":""')
        middle, _, end = rest.partition('"time":null,"seconds":null')
        return f'{start}"id":', f'{middle}"time":', end

    def sorted_lines(self) -> Iterator[str]:
        """The lines in the order of their text, without all of them at once."""
        rows = self.rows()
        kinds: _Ints = np.zeros(len(rows), np.int64)  # as text: "image", "neuron", "spot"
        for number, kind in enumerate(sorted(KINDS)):
            kinds[self.of_kind(rows, kind)] = number
        texts = [to_json(id_).decode() for id_ in self._ids.in_order]
        place = np.empty(len(texts), np.int64)
        place[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
        # Lines begin with kind and id, and no JSON text is the beginning of another one.
        order = np.lexsort((place[rows["id"]], kinds))
        ordered = rows[order]
        keys = zip(kinds[order].tolist(), ordered["id"].tolist(), strict=True)
        for _, same in groupby(zip(keys, self.lines(ordered), strict=True), key=itemgetter(0)):
            yield from sorted(line for _, line in same)

    # --- questions about rows ---------------------------------------------------------------------------------------

    def of_abouts(self, rows: Rows, fits: Callable[[About], bool]) -> Mask:
        """Which rows say something that fits."""
        used = np.unique(rows["about"])
        found: Mask = np.zeros(len(self._abouts.in_order), np.bool_)
        found[used] = [fits(About(*self._abouts.in_order[about])) for about in used.tolist()]
        fitting: Mask = found[rows["about"]]
        return fitting

    def of_kind(self, rows: Rows, *kinds: Kind) -> Mask:
        """Which rows are about things of these kinds."""
        return self.of_abouts(rows, lambda about: about.kind in kinds)

    def of_ids(self, rows: Rows, fits: Callable[[str], bool]) -> Mask:
        """Which rows are about an id that fits."""
        used = np.unique(rows["id"])
        found: Mask = np.zeros(len(self._ids.in_order), np.bool_)
        found[used] = [fits(self._ids.in_order[id_]) for id_ in used.tolist()]
        fitting: Mask = found[rows["id"]]
        return fitting

    def abouts(self, rows: Rows) -> list[tuple[About, int]]:
        """What is said in the rows and how often, in the order in which it comes first."""
        used, first, number = np.unique(rows["about"], return_index=True, return_counts=True)
        order = first.argsort()
        found = zip(used[order].tolist(), number[order].tolist(), strict=True)
        return [(About(*self._abouts.in_order[about]), count) for about, count in found]

    def ids(self, rows: Rows) -> list[str]:
        """The different ids of the rows, in the order in which they come first."""
        used, first = np.unique(rows["id"], return_index=True)
        return [self._ids.in_order[id_] for id_ in used[first.argsort()].tolist()]

    def votes(self, kind: Kind, *, latest_only: bool = True) -> Votes:
        """The votes of one kind, as [`group_votes`][crayon_sdk.answers.relevance.group_votes] would collect them."""
        rows = self.rows()
        rows = rows[self.of_kind(rows, kind)]
        people, patches = _Codes(), _Codes()
        said = np.zeros((len(self._abouts.in_order), 3), np.int64)
        for code in np.unique(rows["about"]).tolist():
            about = About(*self._abouts.in_order[code])
            said[code] = (
                people[about.annotator],
                ANSWERS.index(about.answer),
                patches[about.neuron, about.patch] if kind == "neuron" else 0,
            )
        person, answer, patch = said[rows["about"]].T
        item, chosen = _in_order_of_appearance(patch if kind == "neuron" else rows["id"])
        items = patches.in_order if kind == "neuron" else self._ids.in_order
        source = patch if kind == "neuron" else rows["id"]
        names = [items[code] for code in source[chosen].tolist()]
        if latest_only and len(rows):
            kept = _latest(item * len(people) + person, rows["time"])
            item, person, answer = item[kept], person[kept], answer[kept]
        order = item.argsort(kind="stable")
        return Votes(names, item[order], person[order], answer[order], people.in_order)

    def adopt(self, other: AnswerTable) -> Rows:
        """The rows of another table in the numbers of this one."""
        rows = other.rows()
        if other._abouts is not self._abouts:
            for name, ours, theirs in (("about", self._abouts, other._abouts), ("id", self._ids, other._ids)):
                used, code = np.unique(rows[name], return_inverse=True)
                rows[name] = np.array([ours[theirs.in_order[each]] for each in used.tolist()], np.uint32)[code]
        return rows


def distinct(parts: Sequence[Rows]) -> Rows:
    """The rows of several parts one after another, each answer once.

    Of equal answers those of the first part that has any count, and of these the last.
    """
    rows = np.concatenate(parts)
    part = np.repeat(np.arange(len(parts), dtype=np.uint32), [len(each) for each in parts])
    # Adding zero makes one number of the two zeros.
    order = np.lexsort((rows["seconds"] + 0.0, rows["time"], rows["id"], rows["about"]))
    new = np.ones(len(rows), np.bool_)
    new[1:] = np.any([_changes(rows[name][order]) for name in ("about", "id", "time", "seconds")], axis=0)
    start = new.copy()
    start[1:] |= _changes(part[order])
    ends = np.ones(len(rows), np.bool_)
    ends[:-1] = start[1:]
    began = np.maximum.accumulate(np.where(start, np.arange(len(rows)), 0)) if len(rows) else np.zeros(0, np.int64)
    kept: Rows = rows[np.sort(order[ends & new[began]])]
    return kept


def _changes(values: Rows) -> Mask:
    found: Mask = values[1:] != values[:-1]
    return found


def _in_order_of_appearance(codes: Rows) -> tuple[_Ints, _Ints]:
    """Codes renumbered by when they come first, and where that is."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = first.argsort()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place[inverse], first[order]


def _latest(pair: _Ints, time: _Ints) -> _Ints:
    """Positions of the vote that counts of each person about each item, in the order of the first such vote."""
    pair, _ = _in_order_of_appearance(pair)
    untimed = np.bincount(pair, weights=time == _NEVER) > 0
    order = np.lexsort((np.where(untimed[pair], 0, time), pair))  # equal times stay in their order
    last = np.ones(len(order), np.bool_)
    last[:-1] = _changes(pair[order])
    return order[last]


def _batches(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def _moments(rows: Rows) -> list[datetime | None]:
    """UTC without saying so."""
    found: list[datetime | None] = rows["time"].astype("datetime64[us]").tolist()
    return found


def _seconds(rows: Rows) -> list[float | None]:
    return [None if each == _NO_SECONDS else each for each in rows["seconds"].tolist()]


def _reader() -> Callable[[bytes], dict[str, Any]]:
    """A reader of lines without a step in Python; what it refuses is looked at again by the records.

    What it takes the records take alike (a test holds that), which is why it names their fields again.
    """
    cs = core_schema
    text, some_text = cs.str_schema(strict=True), cs.str_schema(strict=True, min_length=1)
    index = cs.int_schema(strict=True, ge=0)
    iso = cs.str_schema(strict=True, pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]")
    moment = cs.chain_schema([iso, cs.datetime_schema(tz_constraint="aware")])
    seconds = cs.float_schema(strict=True, ge=0, allow_inf_nan=False)
    extra = cs.no_info_after_validator_function(pairs_of, cs.dict_schema(text, text, strict=True))
    shared: dict[str, Any] = {
        "id": cs.with_default_schema(text, default=""),
        "answer": cs.literal_schema(list(ANSWERS)),
        "annotator": some_text,
        "simulated": cs.with_default_schema(cs.bool_schema(strict=True), default=False),
        "extra": cs.with_default_schema(extra, default=()),
    }
    for name in ("question", "model", "source"):
        shared[name] = cs.with_default_schema(text, default="")
    for name, schema in (("time", moment), ("seconds", seconds), ("target", index)):
        shared[name] = cs.with_default_schema(cs.nullable_schema(schema), default=None)
    about_picture: dict[str, Any] = {"id": some_text}
    own: dict[Any, dict[str, Any]] = {
        "image": about_picture,
        "neuron": {"neuron": index, "patch": index},
        "spot": about_picture,
    }
    choices: dict[Any, Any] = {}
    for kind, fields in own.items():
        named = shared | fields | {"kind": cs.literal_schema([kind])}
        choices[kind] = cs.typed_dict_schema(
            {name: cs.typed_dict_field(schema) for name, schema in named.items()}, extra_behavior="forbid"
        )
    return SchemaValidator(cs.tagged_union_schema(choices, discriminator="kind")).validate_json


_read_line = _reader()
_about_picture = itemgetter(*About._fields[:-2])
_about_neuron = itemgetter(*About._fields)
