"""Which cells the tables and figures of the paper have: methods, settings, answers, pictures. Nothing loads torch.

Settings are those of a preset, or without one the published losses with weights for data sets of a user's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from crayon_sdk._base.methods import made_of, title_of
from crayon_sdk._base.settings import Count, OneOrMore, check_names, settings
from crayon_sdk.errors import SettingsError
from crayon_sdk.paper.protocol import ROWS, with_epochs

__all__ = ["CRAYON", "TABLES", "Plan", "Point", "TableName", "points_of"]

TableName = Literal["published", "ablation", "answers", "sensitivity", "transfer", "runtime"]
TABLES: Mapping[TableName, str] = {
    "published": "Table I with published settings",
    "ablation": "Table II: the terms of CRAYON-Attention",
    "answers": "Fig. 4: number of answers, and blind ones",
    "sensitivity": "Fig. 5: alpha and beta",
    "transfer": "Table III: maps of one model guide another",
    "runtime": "Runtime by the number of training pictures",
}
"""Every table by name, in words."""

CRAYON = ("attention", "pruning", "both")


@settings
class Plan:
    """What is run of a table."""

    table: TableName
    """Which one."""
    methods: tuple[str, ...] = ()
    """Methods; none for those of the paper."""
    seeds: tuple[Count, ...] = (0, 1, 2)
    """Of all runs."""
    preset: str | None = None
    """Published settings; without one the published losses with weights that fit small data sets."""
    epochs: OneOrMore | None = None
    """In the place of the preset's, or of 6, of all methods that train a network."""
    counts: tuple[OneOrMore, ...] = (20, 50, 100, 200, 500)
    """With "answers": how many pictures, or neurons, are answered about; all of them come besides."""
    controls: tuple[str, ...] = ("yes", "shuffled")
    """With "answers": blind answers that are run besides."""
    alphas: tuple[float, ...] = ()
    """With "sensitivity": values; none for a hundredth to a hundred times the preset's, for Waterbirds 1e5 to 1e9."""
    betas: tuple[float, ...] = ()
    """Likewise; for Waterbirds 1e3 to 1e7."""
    shares: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """With "runtime": of the training pictures."""

    def __post_init__(self) -> None:
        for name in ("seeds", "counts", "shares"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise SettingsError(f"expected {name} to be one or more, each once, got {values!r}")
        if not all(0 < share <= 1 for share in self.shares):
            raise SettingsError(f"expected shares above 0 and up to 1, got {self.shares!r}")
        known = CRAYON if self.table in ("answers", "runtime") else ("attention", "both")
        if self.table != "published":
            check_names(self.methods, known, f"method of {TABLES[self.table]!r}")


@dataclass(frozen=True)
class Point:
    """A cell for each seed.

    Attributes:
        series: Line of the table, or of the figure.
        label: What it is within the line.
        method: Of the registry; "" for the model as it is.
        settings: All that are not defaults.
        answers: What people say: "real", a control, or "".
        count: About how many pictures or neurons; none for all.
        share: Of the training pictures.
        student: It is the other model that is corrected.
    """

    series: str
    label: str
    method: str = ""
    settings: Mapping[str, Any] | None = None
    answers: str = ""
    count: int | None = None
    share: float = 1.0
    student: bool = False

    @property
    def name(self) -> str:
        """For files and messages."""
        return "-".join(filter(None, (self.series, self.label))).replace(" ", "-").replace("/", "-")


def base_settings(method: str, preset: str | None, epochs: int | None) -> dict[str, Any]:
    """Settings that a method starts from; of one that is made of others ``PART.SETTING``.

    Args:
        method: By name.
        preset: Published settings.
        epochs: In their place.

    Raises:
        SettingsError: The method has no such preset, or is no row of Table I without one.

    Example:
        >>> base_settings("attention", None, 3)["epochs"], base_settings("both", "waterbirds", None)["attention.alpha"]
        (3, 10000000.0)
    """
    if preset is None:
        row = ROWS.get(f"{method}-published") or ROWS[method]
        first = {name: value for options in row.searched for name, value in options[0].items()}
        return with_epochs(row, first, epochs or 6)
    from crayon_sdk.correct.presets import describe

    parts = made_of(method)
    found = {
        each.setting if len(parts) == 1 else f"{each.method}.{each.setting}": each.value
        for each in describe(method, preset)
    }
    trained = [name for name in found if name.rpartition(".")[2] == "epochs" and not name.startswith("pruning")]
    return found | (dict.fromkeys(trained, epochs) if epochs and method != "pruning" else {})


def points_of(plan: Plan) -> tuple[Point, ...]:
    """All cells of a table but for their seeds, in its order.

    Args:
        plan: What is run.

    Raises:
        SettingsError: A method has no such preset.

    Example:
        >>> [point.label for point in points_of(Plan(table="ablation"))]
        ['original', 'both terms', 'relevant only', 'irrelevant only']
    """
    made: Mapping[TableName, Any] = {
        "published": _published,
        "ablation": _ablation,
        "answers": _answers,
        "sensitivity": _sensitivity,
        "transfer": _transfer,
        "runtime": _runtime,
    }
    found: tuple[Point, ...] = tuple(made[plan.table](plan))
    return found


def _point(plan: Plan, method: str, **more: Any) -> Point:
    row = ROWS.get(f"{method}-published") or ROWS[method]
    told = {"answers": row.answers, "series": method, "label": "", **more}
    return Point(method=method, settings=base_settings(method, plan.preset, plan.epochs), **told)


def _published(plan: Plan) -> list[Point]:
    from crayon_sdk.correct.presets import preset_names

    names, preset = preset_names(), plan.preset
    if preset is None:
        raise SettingsError("expected a preset, whose settings the rows have; name it with preset=")
    plain = preset.removesuffix("-release")
    fitting = {
        name: preset if preset in presets else plain
        for name, presets in names.items()
        if name != "unasked" and (preset in presets or plain in presets)
    }
    check_names(plan.methods, ["original", *fitting], f"method with the preset {preset!r}")
    if not fitting:
        raise SettingsError(f"no method has a preset called {preset!r}; see crayon preset list")
    rows = [name for name in ROWS if name in fitting] + [name for name in CRAYON if name not in ROWS]
    chosen = [name for name in dict.fromkeys((*rows, *fitting)) if not plan.methods or name in plan.methods]
    return [
        *([Point("original", "")] if not plan.methods or "original" in plan.methods else []),
        *(_point(replace(plan, methods=(), preset=fitting[name]), name) for name in chosen),
    ]


def _scaled(point: Point, **factors: float | None) -> Point:
    """The same with other weights; alpha and beta of "both" are those of its second stage."""
    known = dict(point.settings or {})
    for name, value in factors.items():
        key = f"attention.{name}" if point.method == "both" else name
        if value is not None:
            known[key] = value
    return replace(point, settings=known)


def _ablation(plan: Plan) -> list[Point]:
    found = [Point("original", "original")]
    for method in plan.methods or ("attention",):
        whole = _point(plan, method)
        found += [
            replace(_scaled(whole, alpha=alpha, beta=beta), label=label)
            for label, alpha, beta in (
                ("both terms", None, None),
                ("relevant only", None, 0.0),
                ("irrelevant only", 0.0, None),
            )
        ]
    return found


def _answers(plan: Plan) -> list[Point]:
    found = [Point("original", "original")]
    for method in plan.methods or CRAYON:
        for kind in ("real", *plan.controls):
            series = title_of(method) if kind == "real" else f"{title_of(method)}, {kind}"
            found += [
                replace(_point(plan, method), series=series, label=str(count or "all"), answers=kind, count=count)
                for count in (*sorted(plan.counts), None)
            ]
    return found


def _sensitivity(plan: Plan) -> list[Point]:
    found = [Point("original", "original")]
    birds = (plan.preset or "").removesuffix("-release") == "waterbirds"
    for method in plan.methods or ("attention",):
        whole = _point(plan, method)
        for weight, given, paper in (
            ("alpha", plan.alphas, (1e5, 1e6, 1e7, 1e8, 1e9)),
            ("beta", plan.betas, (1e3, 1e4, 1e5, 1e6, 1e7)),
        ):
            known = (whole.settings or {})[f"attention.{weight}" if method == "both" else weight]
            values = given or (paper if birds else tuple(known * 10.0**power for power in range(-2, 3)))
            found += [
                replace(
                    _scaled(whole, **{weight: value}),
                    series=f"{title_of(method)}, {weight}",
                    label=f"{value:g}",
                )
                for value in values
            ]
    return found


def _transfer(plan: Plan) -> list[Point]:
    methods: Sequence[str] = plan.methods or ("attention",)
    if "both" in methods:
        raise SettingsError("expected methods without answers about neurons, which belong to one model, got 'both'")
    return [
        Point("original", "original", student=True),
        *(replace(_point(plan, method), label="transfer", student=True) for method in methods),
    ]


def _runtime(plan: Plan) -> list[Point]:
    return [
        replace(_point(plan, method), series=title_of(method), label=f"{share:g}", share=share)
        for method in plan.methods or CRAYON
        for share in sorted(plan.shares)
    ]
