"""What came out of a table: its files, its figure, the paper's numbers beside ours, and a page that collects all."""

from __future__ import annotations

import base64
import csv
import html
import io
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crayon_sdk._base.files import replace_file, write_text
from crayon_sdk._base.methods import title_of
from crayon_sdk._base.progress import duration
from crayon_sdk._base.showing import plain
from crayon_sdk.paper import numbers
from crayon_sdk.paper.tables import TABLES, Plan, Point
from crayon_sdk.show.style import LINES, figure, png

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Findings", "Fit", "Line", "write_page"]

Values = tuple[float | None, ...]
_STYLES = ("-", "--", ":", "-.", "--", ":")


@dataclass(frozen=True)
class Line:
    """A point of a table, over the seeds.

    Attributes:
        point: What was run.
        first: By seed, in [0, 1]: the worst group, or Mixed-Rand; none where it failed or was only timed.
        second: The mean group, or the gap.
        seconds: Of the correction alone.
        pictures: That were trained on.
        problem: Why something failed.
    """

    point: Point
    first: Values
    second: Values
    seconds: Values
    pictures: int
    problem: str = ""


@dataclass(frozen=True)
class Fit:
    """A straight line through times.

    Attributes:
        seconds_per_picture: Its slope.
        seconds: Where it begins.
        r_squared: Share of the variance that it explains; 1 where all times are on it.

    Example:
        >>> Fit.of([100, 200, 300], [11.0, 21.0, 31.0])
        Fit(seconds_per_picture=0.1, seconds=1.0, r_squared=1.0)
    """

    seconds_per_picture: float
    seconds: float
    r_squared: float

    @classmethod
    def of(cls, pictures: Sequence[float], seconds: Sequence[float]) -> Fit | None:
        """Fit one by least squares; none through fewer than two different numbers of pictures."""
        if len(set(pictures)) < 2:
            return None
        x, y = np.array(pictures, dtype=float), np.array(seconds, dtype=float)
        slope, start = np.polyfit(x, y, 1)
        spread = float(((y - y.mean()) ** 2).sum())
        rest = float(((y - slope * x - start) ** 2).sum())
        found = (float(slope), float(start), 1.0 if spread == 0 else 1 - rest / spread)
        return cls(*(round(each, 9) for each in found))


@dataclass(frozen=True)
class Findings:
    """A table of the paper on some pictures.

    Attributes:
        plan: What was run.
        lines: In its order.
        measures: Names of both numbers.
        data_set: Of the paper; "" for others.
        pictures: How many there are of each split.
        smallest_test_group: Pictures of the test group with the fewest.
        simulated: Answers are simulated from masks.
        seconds: Of all runs.
        machine: And versions.
        command: What was typed.
    """

    plan: Plan
    lines: tuple[Line, ...]
    measures: tuple[str, str]
    data_set: str
    pictures: Mapping[str, int]
    smallest_test_group: int
    simulated: bool
    seconds: float
    machine: Mapping[str, str]
    command: str = ""

    @property
    def name(self) -> str:
        """Of its files."""
        return self.plan.table

    def published(self, line: Line) -> tuple[float | None, float | None]:
        """The paper's numbers for a line, in per cent, or its seconds; none where the data are others."""
        point = line.point
        tables: Mapping[str, Any] = {
            "published": numbers.TABLE1.get(point.method or "original", {}),
            "ablation": numbers.ABLATION.get(point.label, {}) if point.method in ("", "attention") else {},
            "answers": numbers.TABLE1.get(point.method or "original", {})
            if point.count is None and point.answers in ("", "real")
            else numbers.ANSWERS.get((point.method, point.count or 0), {})
            if point.answers == "real"
            else {},
            "sensitivity": numbers.TABLE1["original"] if not point.method else {},
            "transfer": numbers.TRANSFER.get(point.method or "original", {}),
            "runtime": {},
        }
        if self.plan.table == "runtime":
            known = numbers.RUNTIME.get(self.data_set, {}).get(point.method)
            return (known if point.share == 1 else None, None)
        found: tuple[float | None, float | None] = tables[self.plan.table].get(self.data_set, (None, None))
        return found

    def fits(self) -> dict[str, Fit]:
        """Of runtimes: a straight line by method, where there are enough numbers of pictures."""
        found = {}
        for series in dict.fromkeys(line.point.series for line in self.lines):
            of_it = [line for line in self.lines if line.point.series == series]
            timed = [(line.pictures, each) for line in of_it for each in line.seconds if each is not None]
            fit = Fit.of(*zip(*timed, strict=True)) if timed else None
            if fit is not None:
                found[series] = fit
        return found if self.plan.table == "runtime" else {}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with everything in it."""
        return asdict(self) | {"fits": {name: asdict(fit) for name, fit in self.fits().items()}}

    def rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings and cells as people read them."""
        timed = self.plan.table == "runtime"
        ours = ("pictures", "seconds") if timed else tuple(f"{name} %" for name in self.measures)
        paper = ("paper, A6000: seconds",) if timed else tuple(f"paper: {name}" for name in self.measures)
        shown = bool(self.data_set)
        head = ("", "", *ours, *(paper if shown else ()), "time", "problem")
        body = []
        for line in self.lines:
            title = title_of(line.point.method) if line.point.method else "Original"
            series = title if line.point.series in (line.point.method, "original") else line.point.series
            label = "" if line.point.label == line.point.series else line.point.label
            values = (
                (f"{line.pictures:,}", _spread(line.seconds, 1))
                if timed
                else (_spread(line.first, 100), _spread(line.second, 100))
            )
            theirs = ["-" if each is None else f"{each:.2f}" for each in self.published(line)][: len(paper)]
            taken = sum(each or 0 for each in line.seconds)
            body.append((series, label, *values, *(theirs if shown else ()), duration(taken), line.problem))
        return head, body

    def csv(self) -> str:
        """A line for each point; shares in [0, 1], the paper's numbers in per cent."""
        written = io.StringIO()
        first, second = (each.lower().replace("-", "_") for each in self.measures)
        rows: list[dict[str, Any]] = []
        for line in self.lines:
            point, theirs = line.point, self.published(line)
            rows.append(
                {
                    "series": point.series,
                    "label": point.label,
                    "method": point.method,
                    "answers": point.answers,
                    "count": "" if point.count is None else point.count,
                    "pictures": line.pictures,
                    **{
                        f"{name}{what}": _number(each)
                        for name, values in ((first, line.first), (second, line.second), ("seconds", line.seconds))
                        for what, each in zip(("", "_sd"), _mean_and_deviation(values), strict=True)
                    },
                    **{
                        f"{name}_seed{seed}": _number(values[at] if at < len(values) else None)
                        for name, values in ((first, line.first), (second, line.second), ("seconds", line.seconds))
                        for at, seed in enumerate(self.plan.seeds)
                    },
                    f"paper_{first}": _number(theirs[0]),
                    f"paper_{second}": _number(theirs[1]),
                    "problem": line.problem,
                    **self.machine,
                    "command": self.command,
                }
            )
        writer = csv.DictWriter(written, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return written.getvalue()

    def about(self) -> list[str]:
        """How it was made, in sentences."""
        seeds = ", ".join(map(str, self.plan.seeds))
        several = len(self.plan.seeds) > 1
        form = self.plan.preset or "published losses, own weights"
        many = self.plan.epochs or 0
        epochs = f", {many} epoch{'s' * (many != 1)}" if many else ""
        said = [
            f"Mean over the seeds {seeds}, ± the standard deviation." if several else f"Seed {seeds} alone.",
            f"Settings: {form}{epochs}.",
        ]
        if self.plan.table != "runtime":
            said.append(
                f"{self.pictures['train']:,} training and {self.pictures['test']:,} test pictures; one picture of the "
                f"smallest test group is {100 / self.smallest_test_group:.1f} points."
            )
        if any(line.point.answers for line in self.lines):
            said.append("Answers are simulated from object masks." if self.simulated else "Answers are people's.")
        said += [
            f"{name}: {fit.seconds:.1f} s + {1000 * fit.seconds_per_picture:.2f} s per 1,000 pictures, "
            f"R² {fit.r_squared:.3f}."
            for name, fit in self.fits().items()
        ]
        return [*said, f"All of it took {duration(self.seconds)}."]

    def markdown(self) -> str:
        """The table, how it was made, and by what."""
        head, body = self.rows()
        table = [
            f"| {' | '.join(cells)} |"
            for cells in (head, ("---",) * len(head), *([each.replace("|", " ") for each in row] for row in body))
        ]
        facts = [f"- {name}: {value}" for name, value in self.machine.items()]
        facts += [f"- command: `{self.command}`"] if self.command else []
        title = TABLES[self.plan.table]
        picture = f"![{title}]({self.name}.png)"
        parts = [f"# {title}", " ".join(self.about()), picture, "\n".join(table), "\n".join(facts)]
        return "\n\n".join(parts) + "\n"

    def table(self) -> Table:
        """A rich table for the terminal."""
        from rich.table import Table

        head, body = self.rows()
        table = Table(*head, title=TABLES[self.plan.table])
        for row in body:
            table.add_row(*map(plain, row))
        return table

    def plot(self) -> bytes:
        """Bars with a dot for each seed, or lines over what is varied; PNG.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        if self.plan.table in ("answers", "sensitivity", "runtime"):
            return self._curves()
        with figure(7.2, 1.2 + 0.32 * len(self.lines)) as drawn:
            axes = drawn.add_subplot()
            for place, line in enumerate(self.lines):
                mean, _ = _mean_and_deviation(line.first)
                axes.barh(place, 100 * (mean or 0), 0.7, color=LINES[0])
                dots = [100 * each for each in line.first if each is not None]
                axes.plot(dots, [place] * len(dots), "o", color="#282828", markeredgecolor="white", markersize=3.5)
                theirs = self.published(line)[0]
                if theirs is not None:
                    axes.plot([theirs], [place], "D", color=LINES[1], markersize=5)
            names = [" ".join(filter(None, row[:2])) for row in self.rows()[1]]
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlim(0, 100)
            axes.set_xlabel(f"{self.measures[0]} in %: mean, every seed" + (", ◆ the paper" if self.data_set else ""))
            return png(drawn)

    def _curves(self) -> bytes:
        """A panel for each method, or weight; what is varied stands evenly spaced, but for times."""
        timed = self.plan.table == "runtime"
        panels: dict[str, list[Line]] = {}
        for line in self.lines:
            if line.point.method:
                panel = "" if timed else line.point.series.removesuffix(f", {line.point.answers}")
                panels.setdefault(panel, []).append(line)
        first = next((line.first for line in self.lines if not line.point.method), ())
        original, _ = _mean_and_deviation(first)
        with figure(3.4 * len(panels) + 1.4, 3.2) as drawn:
            for number, (panel, lines) in enumerate(panels.items(), start=1):
                axes = drawn.add_subplot(1, len(panels), number)
                labels = list(dict.fromkeys(line.point.label for line in lines))
                of_each: dict[str, list[Line]] = {}
                for line in lines:
                    of_each.setdefault(line.point.series if timed else f"answers: {line.point.answers}", []).append(
                        line
                    )
                for (name, own), colour, style in zip(of_each.items(), LINES, _STYLES, strict=False):
                    self._curve(axes, name, own, labels, colour=colour, style=style)
                if original is not None:
                    axes.axhline(100 * original, color="#8c8c8c", linewidth=1, label="Original")
                if not timed:
                    axes.set_xticks(range(len(labels)), labels)
                    axes.set_ylim(0, 100)
                axes.set_title(panel)
                words = {"answers": "answered pictures, or neurons", "runtime": "training pictures"}
                axes.set_xlabel(words.get(self.plan.table, panel.rpartition(", ")[2]))
                if number == 1:
                    axes.set_ylabel("seconds of a correction" if timed else f"{self.measures[0]} in %")
                    axes.legend(fontsize=7)
            return png(drawn)

    def _curve(
        self, axes: Any, name: str, lines: Sequence[Line], labels: Sequence[str], *, colour: str, style: str
    ) -> None:
        """Means with their deviations, and the paper's where it has some; through times the fitted line."""
        timed, fit = self.plan.table == "runtime", self.fits().get(name)
        across: list[float] = []
        along: list[float] = []
        for line in lines:
            mean, deviation = _mean_and_deviation(line.seconds if timed else line.first)
            theirs = None if timed else self.published(line)[0]
            x, scale = (line.pictures, 1) if timed else (labels.index(line.point.label), 100)
            if theirs is not None:
                axes.plot([x], [theirs], "D", color="#282828", markersize=5)
            if mean is not None:
                spread = [scale * (deviation or 0)]
                axes.errorbar([x], [scale * mean], yerr=spread, fmt="o", color=colour, markersize=4, capsize=2)
                across.append(x)
                along.append(scale * mean if fit is None else fit.seconds + fit.seconds_per_picture * x)
        axes.plot(across, along, style, color=colour, label=name)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``NAME.csv``, ``NAME.md`` and ``NAME.png``, and the page of all tables in the folder.

        Args:
            folder: Where to; what is there of these names is replaced.

        Raises:
            MissingExtraError: matplotlib is not installed.
            OutputError: They cannot be written.
        """
        write_text(Path(folder) / f"{self.name}.csv", self.csv())
        write_text(Path(folder) / f"{self.name}.md", self.markdown())
        with replace_file(Path(folder) / f"{self.name}.png") as temporary:
            temporary.write_bytes(self.plot())
        write_page(folder)


def write_page(folder: str | os.PathLike[str]) -> Path:
    """Collect all tables and figures of a folder on one HTML page, which needs no other file.

    Args:
        folder: Where `crayon bench` wrote them.

    Returns:
        The page, ``index.html``.

    Raises:
        OutputError: It cannot be written.
    """
    root, parts = Path(folder), []
    for name, title in (("table1", "Table I, settings chosen on the validation split"), *TABLES.items()):
        if not (root / f"{name}.csv").is_file():
            continue
        rows = list(csv.reader(io.StringIO((root / f"{name}.csv").read_text(encoding="utf-8"))))
        head, body = (rows[0], rows[1:]) if rows else ([], [])
        kept = range(head.index("problem") + 1 if "problem" in head else len(head))  # then comes the machine
        cells = "".join(
            f"<tr>{''.join(f'<{tag}>{html.escape(row[at])}</{tag}>' for at in kept)}</tr>"
            for tag, row in (("th", head), *(("td", row) for row in body))
        )
        picture = root / f"{name}.png"
        shown = base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else ""
        image = f'<img alt="{html.escape(title)}" src="data:image/png;base64,{shown}">' if shown else ""
        typed = body[0][head.index("command")] if body and "command" in head else ""
        parts.append(
            f"<h2>{html.escape(title)}</h2>{image}<p><code>{html.escape(typed)}</code></p>"
            f"<details><summary>{len(body)} lines</summary><div><table>{cells}</table></div></details>"
        )
    page = root / "index.html"
    write_text(page, _PAGE.replace("BODY", "\n".join(parts)))
    return page


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Tables of the paper</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #282828 }
img { max-width: 100% } div { overflow-x: auto }
table { border-collapse: collapse; font-size: 12px } th, td { border: 1px solid #ccc; padding: 2px 6px }
code { font-size: 12px; overflow-wrap: anywhere }
</style>
<h1>Tables of the paper</h1>
BODY
</html>
"""


def _mean_and_deviation(values: Values) -> tuple[float | None, float | None]:
    known = [each for each in values if each is not None]
    if not known:
        return None, None
    return statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None


def _spread(values: Values, scale: float) -> str:
    mean, deviation = _mean_and_deviation(values)
    if mean is None:
        return "-"
    return f"{scale * mean:.1f}" + ("" if deviation is None else f" ± {scale * deviation:.1f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
