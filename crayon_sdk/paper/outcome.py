"""What came out of Table I: its lines, its files, and whether the paper's claim holds."""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crayon_sdk._base.files import replace_file, write_text
from crayon_sdk._base.methods import NEEDS, methods
from crayon_sdk._base.progress import duration
from crayon_sdk._base.showing import plain
from crayon_sdk.paper.protocol import COMPARED, CRAYON, KNOWS, ROWS, Column, Protocol
from crayon_sdk.results.evaluation import per_cent
from crayon_sdk.show.style import AFTER, BEFORE, figure, png

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Claim", "Line", "Outcome"]


@dataclass(frozen=True)
class Line:
    """A row of the table, with settings that were chosen in one way.

    Attributes:
        row: Its name.
        chosen_by: By what its settings were chosen.
        settings: That were chosen, besides defaults; none where all trials failed.
        validation: The accuracy that they were chosen by.
        worst_group: On the test split by seed, in [0, 1]; none where the run failed.
        mean_group: Likewise.
        trials: How many settings were tried.
        failed_trials: How many of them failed.
        epochs: Of the chosen settings; none where the method's own count.
        seconds: Of all trials and runs.
        problem: Why something failed.
    """

    row: str
    chosen_by: Column
    settings: Mapping[str, Any] | None
    validation: float | None
    worst_group: tuple[float | None, ...]
    mean_group: tuple[float | None, ...]
    trials: int
    failed_trials: int
    epochs: int | None
    seconds: float
    problem: str = ""

    @property
    def title(self) -> str:
        """What it is called."""
        return ROWS[self.row].title

    @property
    def needs(self) -> str:
        """What the method is told besides labels."""
        method = ROWS[self.row].method
        return ", ".join(NEEDS[need] for need in sorted(methods[method].needs)) if method else ""

    @property
    def tried(self) -> str:
        """How many trials, in words."""
        return f"{self.trials or ''}" + (f" ({self.failed_trials} failed)" if self.failed_trials else "")

    @property
    def means(self) -> tuple[float | None, float | None]:
        """Worst and mean group over the seeds that ran."""
        worst, mean = ([each for each in seeds if each is not None] for seeds in (self.worst_group, self.mean_group))
        return (statistics.mean(worst), statistics.mean(mean)) if worst else (None, None)


@dataclass(frozen=True)
class Claim:
    """Whom a row of CRAYON's is better than, by the mean accuracy of the worst group.

    Attributes:
        row: Its name.
        chosen_by: By what all settings were chosen.
        above: Rows that it is better than.
        not_above: Rows that are as good or better.
        failed: Rows that cannot be used here: all that was tried failed.
        unknown: Rows that were not run.
    """

    row: str
    chosen_by: Column
    above: tuple[str, ...]
    not_above: tuple[str, ...]
    failed: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def holds(self) -> bool | None:
        """Whether it is above those of the twelve compared methods that can be used; none where some were not run."""
        if set(self.not_above) & set(COMPARED):
            return False
        return None if set(self.unknown) & set(COMPARED) else True

    @property
    def in_words(self) -> str:
        """All of it, in a sentence."""
        said = {True: "holds", False: "does not hold", None: "is not decided"}[self.holds]
        lists = (
            ("above", self.above),
            ("not above", self.not_above),
            ("failed here", self.failed),
            ("not run", self.unknown),
        )
        parts = [f"{words} {', '.join(names)}" for words, names in lists if names]
        return f"{ROWS[self.row].title} ({KNOWS[self.chosen_by]}): the claim {said}; {'; '.join(parts)}."


@dataclass(frozen=True)
class Outcome:
    """Table I on some pictures.

    Attributes:
        lines: That are finished, in order.
        protocol: What was run.
        pictures: How many there are of each split.
        smallest_test_group: Pictures of the test group with the fewest.
        seconds: Of all trials and runs; what two ways of choosing share counts once.
        machine: And versions.
        command: What was typed.
    """

    lines: tuple[Line, ...]
    protocol: Protocol
    pictures: Mapping[str, int]
    smallest_test_group: int
    seconds: float
    machine: Mapping[str, str]
    command: str = ""

    def claims(self) -> tuple[Claim, ...]:
        """Whom each row of CRAYON's is better than: of the twelve, of what needs no answers, and of blind answers."""
        found = []
        for column in self.protocol.chosen_by:
            means = {line.row: line.means[0] for line in self.lines if line.chosen_by == column}
            for name in (name for name in CRAYON if means.get(name) is not None):
                own = means[name]
                rivals = (*COMPARED, "erm", "unasked", *(row.name for row in ROWS.values() if row.like == name))
                run = [rival for rival in rivals if rival in means]
                measured = {rival: means[rival] for rival in run if means[rival] is not None}
                found.append(
                    Claim(
                        name,
                        column,
                        above=tuple(rival for rival, mean in measured.items() if _more(own, mean)),
                        not_above=tuple(rival for rival, mean in measured.items() if not _more(own, mean)),
                        failed=tuple(rival for rival in run if means[rival] is None),
                        unknown=tuple(rival for rival in rivals if rival not in run),
                    )
                )
        return tuple(found)

    @property
    def verdict(self) -> str:
        """Whether the paper's claim holds here, in a sentence for each way of choosing."""
        said = []
        for column in self.protocol.chosen_by:
            claims = [claim for claim in self.claims() if claim.chosen_by == column]
            parts = [
                f"{words} {_listed(claim.row for claim in claims if claim.holds is holds)}"
                for holds, words in ((True, "holds for"), (False, "does not hold for"), (None, "is not decided for"))
                if any(claim.holds is holds for claim in claims)
            ]
            failed = sorted(
                {rival for claim in claims for rival in claim.failed if rival in COMPARED}, key=COMPARED.index
            )
            said.append(
                f"Chosen by the {KNOWS[column]}: that CRAYON beats the twelve compared methods in the worst group "
                f"{'; it '.join(parts) or 'is not decided'}"
                + (f". Of the twelve, these cannot be used here: {_listed(failed)}." if failed else ".")
            )
        return " ".join(said)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with everything in it."""
        return asdict(self) | {
            "claims": [asdict(claim) | {"holds": claim.holds} for claim in self.claims()],
            "verdict": self.verdict,
        }

    def csv(self) -> str:
        """A line for each row and way of choosing; accuracies in [0, 1]."""
        written = io.StringIO()
        seeds = self.protocol.seeds
        rows = [
            {
                "row": line.row,
                "title": line.title,
                "paper": ROWS[line.row].paper,
                "needs": line.needs,
                "chosen_by": line.chosen_by,
                "wga": _cell(line.means[0]),
                "mga": _cell(line.means[1]),
                **{
                    f"{name}_seed{seed}": _cell(values[number] if number < len(values) else None)
                    for name, values in (("wga", line.worst_group), ("mga", line.mean_group))
                    for number, seed in enumerate(seeds)
                },
                "validation": _cell(line.validation),
                "settings": "" if line.settings is None else json.dumps(line.settings),
                "trials": line.trials,
                "failed_trials": line.failed_trials,
                "epochs": "" if line.epochs is None else line.epochs,
                "seconds": round(line.seconds, 1),
                "problem": line.problem,
                **self.machine,
                "command": self.command,
            }
            for line in self.lines
        ]
        if rows:
            writer = csv.DictWriter(written, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return written.getvalue()

    def markdown(self) -> str:
        """The table, what it says, and how it was made."""
        protocol = self.protocol
        parts = [
            "# Table I",
            f"Worst group / mean group on {self.pictures['test']:,} test pictures, per cent: mean over the seeds "
            f"{_listed(map(str, protocol.seeds))}, then each of them. One picture of the smallest test group is "
            f"{100 / self.smallest_test_group:.1f} points, and no smaller difference means anything. "
            "Answers are simulated from object masks.",
            self.verdict,
            "![Accuracy of the worst group of every method, a dot for every seed](table1.png)",
        ]
        for column in protocol.chosen_by:
            lines = [line for line in self.lines if line.chosen_by == column]
            problems = list(dict.fromkeys(line.problem for line in lines if line.problem))
            numbers = {problem: str(number) for number, problem in enumerate(problems, 1)}
            head = "| method | told besides labels | WGA / MGA | per seed | trials | time | problem |"
            body = [
                f"| {line.title} | {line.needs} | {_pair(*line.means)} | "
                f"{', '.join(_pair(*each) for each in zip(line.worst_group, line.mean_group, strict=True))} | "
                f"{line.tried} | {duration(line.seconds)} | {numbers.get(line.problem, '')} |"
                for line in lines
            ]
            parts += [
                f"## Settings chosen by the {KNOWS[column]}",
                "\n".join([head, "| --- " * 7 + "|", *body]),
                "\n".join(f"{number}. {problem}" for problem, number in numbers.items()),
                "\n".join(f"- {claim.in_words}" for claim in self.claims() if claim.chosen_by == column),
            ]
        facts = [f"- {name}: {value}" for name, value in self.machine.items()]
        epochs = f"{protocol.epochs} epoch{'s' * (protocol.epochs != 1)}"
        parts += [
            "## How it was made",
            f"Training pictures: {self.pictures['train']:,}; validation pictures: {self.pictures['validation']:,}. "
            f"Every method was given {protocol.trials} trials at most, with seed {protocol.seeds[0]}, of "
            f"{epochs}; controls (answers: yes, shuffled) have the settings that were chosen with real "
            f"answers. Test pictures were measured for chosen settings alone. All of it took {duration(self.seconds)}.",
            "\n".join([*facts, f"- command: `{self.command}`"] if self.command else facts),
        ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def plot(self) -> bytes:
        """Accuracies of the worst group: a bar for each way of choosing, a dot for each seed; PNG.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        names = [name for name in ROWS if any(line.row == name for line in self.lines)]
        columns = self.protocol.chosen_by
        height = 0.8 / len(columns)
        with figure(7.2, 1.3 + 0.3 * max(len(names), 1)) as drawn:
            axes = drawn.add_subplot()
            for number, (column, colour, hatch) in enumerate(zip(columns, (AFTER, BEFORE), ("", "///"), strict=False)):
                lines = [line for line in self.lines if line.chosen_by == column]
                places = [names.index(line.row) + (number - (len(columns) - 1) / 2) * height for line in lines]
                bars = [100 * (line.means[0] or 0) for line in lines]
                axes.barh(
                    places, bars, 0.92 * height, color=colour, hatch=hatch, edgecolor="white", linewidth=0,
                    label=f"chosen by {KNOWS[column]}",
                )  # fmt: skip
                dots = [
                    (100 * each, place)
                    for line, place in zip(lines, places, strict=True)
                    for each in line.worst_group
                    if each is not None
                ]
                if dots:
                    across, down = zip(*dots, strict=True)
                    axes.plot(across, down, "o", color="#282828", markeredgecolor="white", markersize=3.5)
                for line, place in zip(lines, places, strict=True):
                    if line.means[0] is None:
                        axes.text(1, place, "failed", va="center", fontsize=7)
            axes.set_yticks(range(len(names)), [ROWS[name].title for name in names])
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlim(0, 100)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
            axes.set_xlabel("accuracy of the worst test group in %: mean, and every seed")
            if self.lines:
                drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
            return png(drawn)

    def table(self, column: Column) -> Table:
        """A rich table for the terminal.

        Args:
            column: By what settings were chosen.
        """
        from rich.table import Table

        table = Table(title=f"Table I, settings chosen by the {KNOWS[column]}")
        for heading in ("method", "WGA / MGA", "per seed", "trials", "time", "problem"):
            table.add_column(heading)
        for line in (line for line in self.lines if line.chosen_by == column):
            each = ", ".join(_pair(*pair) for pair in zip(line.worst_group, line.mean_group, strict=True))
            cells = (line.title, _pair(*line.means), each, line.tried, duration(line.seconds), line.problem)
            table.add_row(*map(plain, cells))
        return table

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``table1.csv``, ``table1.md`` and ``table1.png``.

        Args:
            folder: Where to; what is there of these names is replaced.

        Raises:
            MissingExtraError: matplotlib is not installed.
            OutputError: They cannot be written.
        """
        write_text(Path(folder) / "table1.csv", self.csv())
        write_text(Path(folder) / "table1.md", self.markdown())
        with replace_file(Path(folder) / "table1.png") as temporary:
            temporary.write_bytes(self.plot())


def _more(own: float | None, other: float | None) -> bool:
    return own is not None and other is not None and own > other


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _pair(worst: float | None, mean: float | None) -> str:
    return f"{per_cent(worst)} / {per_cent(mean)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
