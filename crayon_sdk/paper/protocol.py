"""What is run for Table I: its rows, the settings that are searched for each of them, and how one is chosen.

All that was decided is in this file. Nothing here loads torch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from crayon_sdk._base.methods import paper_of, title_of
from crayon_sdk._base.settings import Count, OneOrMore, check_names, settings
from crayon_sdk.errors import SettingsError

__all__ = ["COMPARED", "CRAYON", "KNOWS", "ROWS", "Column", "Protocol", "Row", "best", "trials_of", "with_epochs"]

Column = Literal["class", "group"]
"""By what accuracy of the validation split settings are chosen: of the worst class, or of the worst group."""

KNOWS: dict[Column, str] = {"class": "worst class, no groups", "group": "worst group, groups known"}
Options = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: As it is typed.
        method: Of the registry; "" for the model as it is.
        fixed: Settings that are not the method's defaults; of a method made of others ``PART.SETTING``.
        searched: Of each thing that is searched the values, the first of which is tried first.
        epochs: Settings that are as many epochs as the protocol says.
        answers: What people say: "real" (by the masks), a control, or "" where nobody is asked.
        form: "published", or "" for this package's defaults.
        score: Of the maps that are answered.
        like: Of a control the row whose chosen settings it has.
    """

    name: str
    method: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    searched: tuple[Options, ...] = ()
    epochs: tuple[str, ...] = ("epochs",)
    answers: str = ""
    form: str = ""
    score: str = "margin"
    like: str = ""

    @property
    def title(self) -> str:
        """What it is called in the table."""
        if not self.method:
            return "Original"
        said = [each for each in (self.form and "as published", self.like and f"answers: {self.answers}") if each]
        return title_of(self.method) + (f", {', '.join(said)}" if said else "")

    @property
    def paper(self) -> str:
        """Where it is published."""
        return paper_of(self.method) if self.method else ""


def _values(name: str, *values: Any) -> Options:
    return tuple({name: value} for value in values)


_LR = _values("lr", 1e-4, 3e-5, 3e-4)
_LAST_LAYER_LR = _values("lr", 1e-2, 1e-3, 1e-1)


def _compared(name: str, weight: Options, **more: Any) -> Row:
    return Row(name, name, searched=(_LR, weight), **more)


def _under(part: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}.{name}": value for name, value in options.items()}


# The presets belong to data sets ten times as large. As published here means: the losses and nothing that this package
# adds, with weights in the published ratio, which are searched.
_PLAIN: dict[str, Any] = {"scheduler": "none", "average_decay": 0.0, "logit_adjustment": 0.0}
_PUBLISHED = _PLAIN | {"spread": "never", "balance": "never", "background_swap": 0.0}
_PUBLISHED_CUT = _PLAIN | {"spread": "never", "weight_decay": 1e-4}
_PUBLISHED_WEIGHT: Options = tuple({"alpha": alpha, "beta": alpha / 50} for alpha in (1e3, 1e2, 1e4))
_WEIGHT: Options = tuple({"alpha": weight, "beta": weight} for weight in (1e3, 1e2, 1e4))
_CUT: Options = ({"answer_rule": "majority"}, *({"answer_rule": "share", "least_share": s} for s in (0.3, 0.9)))
_HERE: tuple[Row, ...] = tuple(
    row
    for form, fixed, weight, score in (
        ("published", _PUBLISHED, _PUBLISHED_WEIGHT, "logit"),
        ("", {}, _WEIGHT, "margin"),
    )
    for row in (
        Row(
            f"attention{form and '-'}{form}",
            "attention",
            fixed,
            (_LR, weight),
            answers="real",
            form=form,
            score=score,
        ),
        Row(
            f"pruning{form and '-'}{form}",
            "pruning",
            _PUBLISHED_CUT if form else {},
            (_LAST_LAYER_LR, _CUT),
            epochs=(),  # of a last layer alone: seconds
            answers="real",
            form=form,
            score=score,
        ),
        Row(
            f"both{form and '-'}{form}",
            "both",
            _under("attention", fixed) | _under("pruning", _PUBLISHED_CUT if form else {}),
            tuple(tuple(_under("attention", each) for each in options) for options in (_LR, weight)),
            epochs=("attention.epochs",),
            answers="real",
            form=form,
            score=score,
        ),
    )
)
_GRADIA = _compared("gradia", _values("attention_weight", 1.0, 0.1, 10.0), answers="real", score="logit")


def _controls(row: Row) -> tuple[Row, ...]:
    return tuple(
        Row(
            f"{row.name}-{answers}",
            row.method,
            row.fixed,
            epochs=row.epochs,
            answers=answers,
            form=row.form,
            score=row.score,
            like=row.name,
        )
        for answers in ("yes", "shuffled")
    )


_AUXILIARY = ("epochs", "auxiliary_epochs")
_LISTED: tuple[Row, ...] = (
    Row("original", "", epochs=()),
    _compared("erm", _values("weight_decay", 1e-4, 1e-3, 1e-2)),
    _compared("jtt", _values("upweight", 20.0, 5.0, 100.0)),
    _compared("masktune", _values("deviations", 2.0, 1.0, 3.0), fixed={"epochs": 1}, epochs=()),  # as its authors say
    _compared("lff", _values("q", 0.7, 0.5, 0.9)),
    _compared("softcon", _values("contrast", 1.0, 0.1, 10.0), epochs=_AUXILIARY),
    _compared("flac", _values("alpha", 1000.0, 100.0, 10.0), epochs=_AUXILIARY),
    _compared("lc", _values("eta", 1.0, 0.5, 2.0)),
    _compared("cnc", _values("contrast", 0.75, 0.5, 0.25)),
    _compared("rrr", _values("weight", 200.0, 20.0, 2000.0)),
    _compared("gradmask", _values("weight", 0.2, 0.02, 2.0)),
    _compared("actdiff", _values("weight", 0.1, 0.01, 1.0)),
    _GRADIA,
    _compared("boundingbox", _values("weight", 1.0, 0.1, 10.0)),
    _compared("groupdro", _values("step", 0.01, 0.001, 0.1)),
    Row("dfr", "dfr", searched=(_values("strength", None, 1.0, 0.3, 0.1, 0.03, 0.01),), epochs=()),
    Row("dfr-tr", "dfr-tr", searched=(_values("strength", None, 1.0, 0.3, 0.1, 0.03, 0.01),), epochs=()),
    Row("afr", "afr", searched=(_values("gamma", 4.0, 1.0, 10.0), _values("pull", 0.0, 0.1, 1.0)), epochs=()),
    Row("evals", "evals", searched=(_values("share", 0.1, 0.05, 0.2, 0.4), _values("strength", None, 0.1)), epochs=()),
    Row("refit", "refit", searched=(_values("penalty", None, 10.0, 3.0, 1.0, 0.3, 0.1, 0.01),), epochs=()),
    *_HERE,
    Row("unasked", "unasked", searched=(_LR, _WEIGHT)),
    *_controls(_GRADIA),
    *(control for row in _HERE for control in _controls(row)),
)
ROWS: Mapping[str, Row] = {row.name: row for row in _LISTED}
"""Every row of the table by name, in its order."""

COMPARED = tuple(
    "jtt masktune lff softcon flac lc cnc rrr gradmask actdiff gradia boundingbox".split()  # noqa: SIM905 - a list of words
)
"""The twelve that the paper says CRAYON is better than."""

CRAYON = tuple(row.name for row in _HERE)


@settings
class Protocol:
    """How much is done for the table; the same for all rows."""

    methods: tuple[str, ...] = tuple(ROWS)
    """Rows of the table."""
    seeds: tuple[Count, ...] = (0, 1, 2)
    """Of the runs with chosen settings; settings are chosen with the first."""
    trials: OneOrMore = 8
    """Settings that are tried for each row."""
    epochs: Count = 6
    """For which every method trains, and auxiliary networks too; methods of a last layer alone have their own."""
    chosen_by: tuple[Column, ...] = ("class", "group")
    """By which accuracies of the validation split settings are chosen, each for itself: of the worst "class", for which
    no groups need be known, or of the worst "group"."""

    def __post_init__(self) -> None:
        check_names(self.methods, ROWS, "row of Table I")
        for name, values in (("methods", self.methods), ("seeds", self.seeds), ("chosen_by", self.chosen_by)):
            if not values or len(set(values)) < len(values):
                raise SettingsError(f"expected {name} to be one or more, each once, got {values!r}")

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows, in the order of the table."""
        return tuple(row for row in ROWS.values() if row.name in self.methods)


def trials_of(row: Row, count: int) -> tuple[dict[str, Any], ...]:
    """The settings that are tried for a row: what is listed first, then a draw without replacement from the rest.

    Args:
        row: Of the table.
        count: How many at most; fewer where there are not so many.

    Example:
        >>> len(trials_of(ROWS["erm"], 20)), trials_of(ROWS["erm"], 2)[0]
        (9, {'lr': 0.0001, 'weight_decay': 0.0001})
    """
    first, *others = [
        {name: value for part in parts for name, value in part.items()} for parts in itertools.product(*row.searched)
    ]
    random.Random(0).shuffle(others)  # noqa: S311 - the same places of every grid, for everybody
    return tuple([first, *others][:count])


def with_epochs(row: Row, tried: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """All settings of a run that are not defaults: fixed, of the protocol, and tried.

    Args:
        row: Of the table.
        tried: What was searched.
        epochs: Of the protocol.

    Example:
        >>> with_epochs(ROWS["erm"], {"lr": 1e-3}, 4)
        {'epochs': 4, 'lr': 0.001}
    """
    return {**row.fixed, **dict.fromkeys(row.epochs, epochs), **tried}


def best(found: Iterable[Mapping[str, Any]], column: Column) -> Mapping[str, Any] | None:
    """The trial with the best validation split: by the worst class or group, of equals by the mean, of these the first.

    Args:
        found: Finished cells of trials, with "validation", or with "error".
        column: What decides.

    Returns:
        One of them; none where all failed.
    """
    ran: Sequence[Mapping[str, Any]] = [cell for cell in found if not cell.get("error")]

    def accuracies(cell: Mapping[str, Any]) -> tuple[float, float]:
        measured = cell["validation"]
        return measured[f"worst_{column}"], measured[f"mean_{column}"]

    return max(ran, key=accuracies, default=None)
