"""Answer files of other tools, as rows: MTurk and plain CSV, Label Studio, FiftyOne.

Every tool's file is a list of rows of texts to us: one row per answer, with the columns that we
know by many names and the others kept in the ``extra`` of the answer. Writing puts all of it
back, so that what was read, written and read again is the same.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import AnyAnswer, ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.errors import AnswerError, FileFormatError, MismatchError

__all__ = ["read_csv", "read_tool_json", "write_tool"]

# What we call it, and what others do; compared in lower case without "Input." and "Answer.".
_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("sample_id", "id", "image_id", "image", "image_url", "filepath", "filename", "img_filename", "path"),
    "answer": ("answer", "category.label", "choice", "response", "label"),
    "annotator": ("annotator", "workerid", "completed_by", "worker_id", "user", "rater"),
    "seconds": ("seconds", "worktimeinseconds", "lead_time"),
    "time": ("time", "submittime", "created_at"),
    "neuron": ("neuron",),
    "patch": ("patch",),
    "question": ("question",),
    "target": ("target",),
    "model": ("model",),
    "simulated": ("simulated",),
    "source": ("source",),
}
_ALIASES = frozenset(each for names in _NAMES.values() for each in names)
_WORDS = {
    **dict.fromkeys(("yes", "y", "true", "1", "relevant"), "yes"),
    **dict.fromkeys(("no", "n", "false", "0", "irrelevant"), "no"),
    **dict.fromkeys(("unsure", "u", "maybe", "not sure", "don't know", "skip", "?"), "unsure"),
}
_KEPT = "extra."  # before the name of a foreign column that one of ours would be taken for
_ZONES = {"UTC": 0, "GMT": 0, "PST": -8, "PDT": -7, "MST": -7, "MDT": -6, "CST": -6, "CDT": -5, "EST": -5, "EDT": -4}


@dataclass(frozen=True)
class _Row:
    where: str
    values: dict[str, str]
    problem: str = ""


def read_csv(text: str, ids: Sequence[str], *, name: str, annotator: str, strict: bool = True) -> AnnotationSet:
    r"""Read answers from a table: one that we wrote, MTurk's batch results, or any with the columns that we know.

    Args:
        text: The file.
        ids: All sample ids; what the table calls a picture must be one of them, or end in one.
        name: Of the file, for messages.
        annotator: Who answered, where no column says so.
        strict: Refuse the whole file for one bad row; else leave the row out and count it in ``dropped``.

    Raises:
        FileFormatError: A column is missing, or a row is bad; the message has its line.

    Example:
        >>> found = read_csv("image,answer\n/pictures/a.jpg,Yes\n", ["a.jpg"], name="t.csv", annotator="ann")
        >>> [(answer.id, answer.answer) for answer in found]
        [('a.jpg', 'yes')]
    """
    try:
        reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        header = [column or "" for column in reader.fieldnames or ()]
        rows = []
        _check_names(header, name)
        for values in reader:
            beyond = values.pop(None, None)
            problem = f"it has {len(header) + len(beyond)} cells, the header {len(header)}" if beyond else ""
            own = {key or "": value for key, value in values.items() if isinstance(value, str)}
            rows.append(_Row(f"line {reader.line_num}", own, problem))
    except csv.Error as error:
        raise FileFormatError(f"{name!r} is not a table of comma-separated values: {error}") from error
    _columns(tuple(header), name)
    expected = "one answer a row below the names of the columns"
    return _answers(rows, ids, name=name, annotator=annotator, strict=strict, expected=expected)


def _check_names(header: Sequence[str], name: str) -> None:
    """Refuse names that come twice: which of the two cells is meant cannot be told."""
    folded = [column.lower() if _bare(column) in _ALIASES else column for column in header]
    number = Counter(folded)
    twice = [column for column, name in zip(header, folded, strict=True) if column and number[name] > 1]
    if twice:
        raise FileFormatError(
            f"{name!r} has {len(twice)} columns named {', '.join(map(repr, twice))}; expected each name once: "
            f"delete or rename all but one of them. There are {', '.join(header)}"
        )


@functools.lru_cache(maxsize=64)
def _columns(columns: tuple[str, ...], name: str) -> dict[str, str]:
    """Which column is which: our name to theirs; the same for all rows of a table."""
    bare = {_bare(column): column for column in reversed(columns)}
    found = {ours: next((bare[each] for each in names if each in bare), "") for ours, names in _NAMES.items()}
    answers = [column for column in columns if column.startswith("Answer.")]
    if len(answers) == 1:
        found["answer"] = answers[0]
    lacking = [ours for ours in ("answer", "id") if not found[ours] and not (ours == "id" and found["neuron"])]
    if lacking:
        wanted = " and ".join(f"{ours} (or {', '.join(_NAMES[ours][1:4])})" for ours in lacking)
        raise FileFormatError(f"{name!r} has no column {wanted}; there are {', '.join(columns) or 'none'}")
    return {ours: theirs for ours, theirs in found.items() if theirs}


def _bare(column: str) -> str:
    return re.sub(r"^(input|answer)\.", "", column.lower())


def _answers(
    rows: Sequence[_Row], ids: Sequence[str], *, name: str, annotator: str, strict: bool, expected: str
) -> AnnotationSet:
    """Turn rows into answers, all or nothing unless ``strict`` is false; rejected and cancelled work is passed over."""
    find = _finder(ids)
    made = AnnotationSet()
    problems = []
    rejected = 0
    for row in rows:
        if _was_rejected(row.values):
            rejected += 1
            continue
        try:
            if row.problem:
                raise FileFormatError(row.problem)
            made.add(_answer(row.values, _columns(tuple(row.values), name), find, annotator))
        except (AnswerError, MismatchError, FileFormatError) as error:
            problems.append(f"{row.where}: {error}")
    if problems and strict:
        more = f" ({len(problems)} of {len(rows)} rows are bad)" if len(problems) > 1 else ""
        leave_out = ", or leave such rows out with strict=False" if len(made) else ""
        raise FileFormatError(f"{name!r}, {problems[0]}{more}. Nothing was taken; correct it{leave_out}")
    if not len(made):
        found = f"{len(rows)} rows, of which {rejected} were rejected or cancelled and {len(problems)} are bad"
        first = f" ({problems[0]})" if problems else ""
        raise FileFormatError(f"{name!r} has no answer in it: expected {expected}; found {found}{first}")
    made.dropped = len(problems)
    return made


def _was_rejected(values: Mapping[str, str]) -> bool:
    status = values.get("AssignmentStatus", "").strip().lower()
    return status == "rejected" or values.get("was_cancelled", "").strip().lower() in ("true", "1")


def _answer(
    values: Mapping[str, str], columns: Mapping[str, str], find: Callable[[str], str], annotator: str
) -> AnyAnswer:
    cells = {ours: values.get(theirs, "") for ours, theirs in columns.items()}
    plain = {ours: text.strip() for ours, text in cells.items()}
    word = _WORDS.get(plain["answer"].lower())
    if word is None:
        raise AnswerError(f"the answer is {cells['answer']!r}; expected yes, no or unsure")
    given: dict[str, Any] = {name: cells[name] for name in ("question", "model", "source") if cells.get(name)}
    given |= {"answer": word, "annotator": cells["annotator"] if plain.get("annotator") else annotator}
    given |= {name: _whole(name, plain[name]) for name in ("neuron", "patch", "target") if plain.get(name)}
    if plain.get("seconds"):
        given["seconds"] = _number("seconds", plain["seconds"])
    if plain.get("time"):
        given["time"] = _moment(plain["time"])
    given["simulated"] = plain.get("simulated", "").lower() in ("true", "1", "yes")
    of_kind = next((name for name, text in values.items() if _says_spot(name, text)), None)
    known = {*columns.values(), of_kind}
    extra: Any = {name.removeprefix(_KEPT): text for name, text in values.items() if name not in known and text != ""}
    called = cells.get("id", "")
    sample = find(called) if called else ""
    if called != sample:  # what the tool called the picture is kept too
        extra["called" if columns["id"] == "id" else columns["id"]] = called
    if "neuron" in given:
        if of_kind:
            raise AnswerError("the row is about a spot and names a neuron; expected one of the two")
        given.setdefault("patch", 0)
        return NeuronAnswer(id=sample, extra=extra, **given)
    if not sample:
        raise AnswerError("the row names no picture")
    if "patch" in given:
        raise AnswerError("the row names a patch and no neuron")
    return (SpotAnswer if of_kind else ImageAnswer)(id=sample, extra=extra, **given)


def _says_spot(name: str, text: str) -> bool:
    """Whether a cell says that the answer is about a spot; whatever else a column "kind" says is foreign."""
    return _bare(name) == "kind" and text.strip().lower() == "spot"


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise AnswerError(f"{name} is {text!r}; expected a whole number") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise AnswerError(f"{name} is {text!r}; expected a number") from None


def _moment(text: str) -> datetime:
    """ISO 8601, or as MTurk writes it: "Tue Nov 24 12:30:00 PST 2026"."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
    except ValueError:
        pass
    match = re.fullmatch(r"\w{3} (\w{3} \d+ [\d:]+) ([A-Z]{3}) (\d{4})", text)
    if match and match[2] in _ZONES:
        zone = timezone(timedelta(hours=_ZONES[match[2]]))
        try:
            return datetime.strptime(f"{match[1]} {match[3]}", "%b %d %H:%M:%S %Y").replace(tzinfo=zone)
        except ValueError:
            pass
    raise AnswerError(f"time is {text!r}; expected such as 2026-01-31T12:00:00Z")


def _finder(ids: Sequence[str]) -> Callable[[str], str]:
    """A function from what a tool calls a picture to its id: the id itself, or a path or address that ends in one."""
    whole = set(ids)
    by_name: dict[str, list[str]] = {}
    for each in ids:
        by_name.setdefault(each.rpartition("/")[2], []).append(each)

    def find(called: str) -> str:
        if called in whole:
            return called
        path = unquote(urlsplit(called).path) if "://" in called else called.replace("\\", "/")
        parts = path.strip("/").split("/")
        for start in range(len(parts)):
            if "/".join(parts[start:]) in whole:
                return "/".join(parts[start:])
        same = by_name.get(parts[-1], [])
        if len(same) == 1:
            return same[0]
        what = (
            f"{len(same)} pictures of that name" if same else f"no such picture; ids look like {min(ids, default='')!r}"
        )
        raise MismatchError(f"{called!r} is not in the data set ({what})")

    return find


def read_tool_json(
    value: object, ids: Sequence[str], *, name: str, annotator: str, strict: bool = True
) -> AnnotationSet:
    """Read answers from JSON of Label Studio (full or JSON_MIN export) or FiftyOne (a list of samples).

    Args:
        value: The parsed file.
        ids: All sample ids.
        name: Of the file, for messages.
        annotator: Who answered, where the file does not say so.
        strict: Refuse the whole file for one bad answer; else leave it out and count it in ``dropped``.

    Raises:
        FileFormatError: It is neither, or an answer is bad.
    """
    if isinstance(value, dict) and isinstance(value.get("samples"), list):
        rows = list(_fiftyone_rows(value["samples"]))
        fields = dict.fromkeys(key for sample in value["samples"] if isinstance(sample, dict) for key in sample)
        expected = (
            "samples of FiftyOne that have a field with a Classification (or Classifications) whose label is yes, no "
            f"or unsure, not {len(value['samples'])} samples with the fields {', '.join(map(str, fields)) or 'none'}"
        )
    elif isinstance(value, list) and value and all(isinstance(task, dict) for task in value):
        rows = list(_label_studio_rows(value))
        expected = (
            'tasks of Label Studio with "annotations" that have a choice of yes, no or unsure, or its JSON_MIN; not '
            f"{len(value)} tasks nobody has annotated"
        )
    else:
        raise FileFormatError(
            f"{name!r} is JSON of no kind that is known: expected Label Studio's list of tasks, FiftyOne's "
            '{"samples": [...]}, or a published list of yes/maybe/no'
        )
    return _answers(rows, ids, name=name, annotator=annotator, strict=strict, expected=expected)


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    found = {str(key): each for key, each in values.items() if each is not None}
    return {key: each if isinstance(each, str) else json.dumps(each) for key, each in found.items()}


def _label_studio_rows(tasks: Sequence[Mapping[str, Any]]) -> Iterator[_Row]:
    for position, task in enumerate(tasks):
        where = f"task {position}"
        data = task.get("data")
        if not isinstance(data, dict):  # JSON_MIN: a flat object per annotation
            flat = dict(task)
            flat["task_id"] = flat.pop("id", None)
            yield _Row(where, _texts(flat))
            continue
        about = _texts({"task_id": task.get("id")} | dict(data))
        annotations = task.get("annotations")
        if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
            known = ", ".join(map(str, task))
            yield _Row(
                where, {}, f'expected "annotations", a list of objects, in a task of Label Studio; it has {known}'
            )
            continue
        for annotation in annotations:
            yield _Row(where, about | _label_studio_answer(annotation))


def _label_studio_answer(annotation: Mapping[str, Any]) -> dict[str, str]:
    by = annotation.get("completed_by")
    person = by.get("email", by.get("id", "")) if isinstance(by, dict) else by
    choices = [
        str(choice)
        for part in annotation.get("result") or ()
        if isinstance(part, dict) and isinstance(part.get("value"), dict)
        for choice in part["value"].get("choices") or ()
    ]
    kept = ("created_at", "lead_time", "was_cancelled")
    return _texts(
        {name: annotation[name] for name in kept if name in annotation}
        | {"annotation_id": annotation.get("id"), "choice": choices[0] if choices else "", "completed_by": person}
    )


def _fiftyone_rows(samples: Sequence[object]) -> Iterator[_Row]:
    for position, sample in enumerate(samples):
        if not isinstance(sample, dict):
            yield _Row(f"sample {position}", {})
            continue
        about = {
            key: value
            for key, value in sample.items()
            if isinstance(value, str | int | float | bool) and not key.startswith("_")
        }
        for key, value in sample.items():
            for label in _classifications(value):
                own = {name: text for name, text in label.items() if not name.startswith("_")}
                own["answer"] = own.pop("label")
                own |= {} if key == "answer" else {"fiftyone_field": key}
                yield _Row(f"sample {position}", _texts(about | own))


def _classifications(value: object) -> list[Mapping[str, Any]]:
    """The labels in one field of a sample that are answers; other labels are about something else."""
    if not isinstance(value, dict):
        return []
    labels = value.get("classifications", [value] if value.get("_cls") == "Classification" else [])
    return [each for each in labels if isinstance(each, dict) and str(each.get("label", "")).lower() in _WORDS]


# --- writing ----------------------------------------------------------------------------------


def write_tool(answers: AnnotationSet, kind: str) -> str:
    """Write answers as another tool's file; read back, they are the same.

    Args:
        answers: All of them.
        kind: "csv", "mturk", "label-studio" or "fiftyone".

    Returns:
        The text of the file.

    Example:
        >>> one = AnnotationSet([ImageAnswer(id="a.jpg", answer="no", annotator="ann")])
        >>> print(write_tool(one, "mturk").splitlines()[1])
        a.jpg,no,ann
    """
    spots = len(answers.only("spot")) > 0
    rows = [_cells(answer, spots) for answer in answers]
    if kind == "csv":
        return _csv(rows, {})
    if kind == "mturk":
        theirs = {"id": "Input.sample_id", "answer": "Answer.category.label", "annotator": "WorkerId"}
        named = ("neuron", "patch", "question", "target", "model", "simulated", *(("kind",) if spots else ()))
        inputs = {name: f"Input.{name}" for name in named}
        return _csv(rows, theirs | inputs | {"seconds": "WorkTimeInSeconds", "time": "SubmitTime"})
    if kind == "label-studio":
        return json.dumps([_task(row) for row in rows], indent=1) + "\n"
    return json.dumps({"samples": [_sample(row) for row in rows]}, indent=1) + "\n"


def _cells(answer: AnyAnswer, spots: bool) -> dict[str, str]:
    values = answer.model_dump(mode="json", exclude={"kind", "extra"}, exclude_defaults=True)
    ordered = {name: values[name] for name in _NAMES if name in values}
    cells = {name: value if isinstance(value, str) else json.dumps(value) for name, value in ordered.items()}
    cells |= {"kind": answer.kind} if answer.kind == "spot" else {}
    return cells | {_safe(name, text, spots): text for name, text in answer.extra}


def _safe(name: str, text: str, spots: bool) -> str:
    """The name of a foreign column, such that it is read as foreign again; in a file with spots "kind" is ours."""
    taken = _says_spot(name, text) or (spots and _bare(name) == "kind")
    taken |= _bare(name) in _ALIASES or name.startswith(("Answer.", "_", _KEPT)) or _was_rejected({name: text})
    return f"{_KEPT}{name}" if taken else name


def _csv(rows: Sequence[Mapping[str, str]], names: Mapping[str, str]) -> str:
    columns = dict.fromkeys(["id", "answer", "annotator", *(name for row in rows for name in row)])
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")  # so that both are quoted inside
    writer.writerow([names.get(name, name) for name in columns])
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return out.getvalue()


def _task(row: Mapping[str, str]) -> dict[str, Any]:
    values = dict(row)
    choice = {"from_name": "answer", "to_name": "image", "type": "choices"}
    annotation: dict[str, Any] = {"result": [choice | {"value": {"choices": [values.pop("answer")]}}]}
    annotation["completed_by"] = {"email": values.pop("annotator")}
    if "seconds" in values:
        annotation["lead_time"] = float(values.pop("seconds"))
    if "time" in values:
        annotation["created_at"] = values.pop("time")
    task: dict[str, Any] = {"annotations": [annotation]}
    for name, owner in (("task_id", task), ("annotation_id", annotation)):
        if re.fullmatch(r"0|[1-9][0-9]{0,15}", values.get(name, "")):
            owner["id"] = int(values.pop(name))
    if "id" in values:
        values["sample_id"] = values.pop("id")
    return task | {"data": values}


def _sample(row: Mapping[str, str]) -> dict[str, Any]:
    values = dict(row)
    field, sample = "answer", values.pop("id", "")
    if re.fullmatch(r"[A-Za-z]\w*", values.get("fiftyone_field", "")) and _bare(values["fiftyone_field"]) not in _NAMES:
        field = values.pop("fiftyone_field")
    label = {"_cls": "Classification", "label": values.pop("answer")} | values
    return ({"sample_id": sample} if sample else {}) | {field: label}
