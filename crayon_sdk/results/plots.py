"""Plots of a correction: accuracies of groups with their intervals, and how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from crayon_sdk._base.methods import title_of
from crayon_sdk._base.text import one_line
from crayon_sdk.errors import SettingsError
from crayon_sdk.results.facts import GroupRow
from crayon_sdk.show.style import AFTER, BEFORE, LINES, figure, png

__all__ = ["MOST_GROUPS", "group_plot", "shown_groups", "training_plot"]

MOST_GROUPS = 24
_LOSSES = {"loss": "whole loss", "prediction": "cross entropy", "guidance": "guidance (maps)"}
_ACCURACIES = {"worst_group": "worst group", "mean_group": "mean group", "accuracy": "all samples"}
_DASHES = ("-", "--", ":")  # told apart without colours too


def shown_groups(rows: Sequence[GroupRow]) -> tuple[GroupRow, ...]:
    """The groups that a plot has room for: all, or those with the lowest accuracy after."""
    if len(rows) <= MOST_GROUPS:
        return tuple(rows)

    return tuple(sorted(rows, key=attrgetter("rank"))[:MOST_GROUPS])


def group_plot(rows: Sequence[GroupRow]) -> bytes:
    """Draw the accuracy of every group before and after, with 95 % Wilson intervals, as PNG.

    Args:
        rows: Groups; of more than `MOST_GROUPS` those that are right least often are shown.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: There are none, or none was measured.
    """
    shown = shown_groups(rows)
    bars = [
        (name, colour, hatch, [getattr(row, name) for row in shown])
        for name, colour, hatch in (("before", BEFORE, "///"), ("after", AFTER, ""))
    ]
    bars = [bar for bar in bars if any(found is not None and found.total for found in bar[3])]
    if not bars:
        raise SettingsError("expected at least one group that was measured, got none")
    height = 0.34 if len(bars) == 2 else 0.5
    with figure(7.2, 1.1 + 0.52 * len(shown)) as drawn:
        axes = drawn.add_subplot()
        for number, (name, colour, hatch, found) in enumerate(bars):
            shift = (number - (len(bars) - 1) / 2) * height * 1.08
            there = [(place, one) for place, one in enumerate(found) if one is not None and one.total]
            accuracies = [100 * one.accuracy for _, one in there]
            limits = [(100 * low, 100 * high) for low, high in (one.interval for _, one in there)]
            spread = [
                [max(value - low, 0) for value, (low, _) in zip(accuracies, limits, strict=True)],
                [max(high - value, 0) for value, (_, high) in zip(accuracies, limits, strict=True)],
            ]
            places = [place + shift for place, _ in there]
            axes.barh(places, accuracies, height, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=name)
            # A white line under the dark one: seen on every bar.
            for ink, line, cap in (("white", 3.2, 2.2), ("#282828", 1.1, 1.1)):
                axes.errorbar(
                    accuracies, places, xerr=spread, fmt="none", ecolor=ink, elinewidth=line, capsize=2.8, capthick=cap
                )
            for place, value, (_, high) in zip(places, accuracies, limits, strict=True):
                axes.text(max(high, value) + 1.2, place, f"{value:.1f}", va="center", fontsize=8, color="#282828")
        axes.set_yticks(range(len(shown)), [_label(row) for row in shown])
        axes.set_ylim(len(shown) - 0.45, -0.55)
        axes.set_xlim(0, 110)
        axes.set_xticks(range(0, 101, 20))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("accuracy in %, with 95 % Wilson intervals")
        drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
        return png(drawn)


def _label(row: GroupRow) -> str:
    totals = dict.fromkeys(found.total for found in (row.before, row.after) if found is not None)
    return f"{one_line(row.name, limit=34)}\nn = {' / '.join(f'{total:,}' for total in totals)}"


def training_plot(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw how losses, and accuracies where they were measured, went in each correction, as PNG.

    Args:
        records: Of the corrections, oldest first; those without an epoch are left out.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: None of them has an epoch.
    """
    trained = [record for record in records if record["history"]]
    if not trained:
        raise SettingsError("expected at least one epoch of training, got none")
    wide = 2 if any(set(_ACCURACIES) & set(record["history"][0]) for record in trained) else 1
    with figure(7.2, 2.6 * len(trained)) as drawn:
        grid = drawn.subplots(len(trained), wide, squeeze=False)
        for axes, record in zip(grid, trained, strict=True):
            history = record["history"]
            name = title_of(record["method"])
            _lines(axes[0], history, _LOSSES, f"{name}: loss per picture")
            axes[0].set_ylim(0, 1.06 * max(axes[0].dataLim.y1, 1e-6))
            if wide == 2 and set(_ACCURACIES) & set(history[0]):
                _lines(axes[1], history, _ACCURACIES, f"{name}: accuracy in %", 100)
                axes[1].set_ylim(0, 103)
            elif wide == 2:
                axes[1].set_axis_off()
                axes[1].text(0, 0.5, "accuracy was not measured after every epoch", color="#5a5a5a")
        return png(drawn)


def _lines(
    axes: Any, history: Sequence[Mapping[str, Any]], names: Mapping[str, str], title: str, scale: int = 1
) -> None:
    from matplotlib.ticker import MaxNLocator

    present = [name for name in names if name in history[0]]
    for number, name in enumerate(present):
        points = [(entry["epoch"], scale * entry[name]) for entry in history if entry.get(name) is not None]
        marker = "o" if len(points) < 30 else None
        line = {"color": LINES[number], "marker": marker, "markersize": 3.5, "clip_on": False, "label": names[name]}
        axes.plot(*zip(*points, strict=True), _DASHES[number], **line)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(present) > 1:
        axes.legend()
