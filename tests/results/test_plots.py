from __future__ import annotations

import io

import pytest
from PIL import Image

from crayon_sdk.errors import SettingsError
from crayon_sdk.functional.metrics import wilson_interval
from crayon_sdk.results import plots
from crayon_sdk.results.evaluation import Evaluation, GroupResult
from crayon_sdk.results.facts import group_rows
from crayon_sdk.results.plots import MOST_GROUPS, group_plot, shown_groups, training_plot

pytest.importorskip("matplotlib")


def evaluation(*correct, total=10, name="g"):
    return Evaluation(tuple(GroupResult(f"{name}{number}", each, total) for number, each in enumerate(correct)))


@pytest.fixture
def figures(monkeypatch):
    """What was drawn, before it becomes a picture."""
    found = []
    real = plots.png
    monkeypatch.setattr(plots, "png", lambda figure: found.append(figure) or real(figure))
    return found


def test_bars_and_intervals_are_the_numbers(figures):
    png = group_plot(group_rows(evaluation(0, 5), evaluation(8, 10)))
    assert png.startswith(b"\x89PNG")
    axes = figures[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0, 50, 80, 100]
    # Every interval is drawn twice, white below dark; each line holds (low, high) of one group.
    ends = [tuple(round(float(x), 6) for x, _ in line) for each in axes.collections for line in each.get_segments()]
    expected = [tuple(round(100 * limit, 6) for limit in wilson_interval(c, 10)) for c in (0, 5, 8, 10)]
    assert sorted(ends) == sorted(expected * 2)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["g0\nn = 10", "g1\nn = 10"]
    assert [each.get_text() for each in figures[0].legends[0].get_texts()] == ["before", "after"]


def test_what_was_not_measured_has_no_bar(figures):
    group_plot(group_rows(None, evaluation(3)))
    assert [bar.get_width() for bar in figures[0].axes[0].patches] == [30]
    group_plot(group_rows(evaluation(3), Evaluation((GroupResult("g0", 0, 0),))))
    assert [bar.get_width() for bar in figures[1].axes[0].patches] == [30]


def test_different_sizes_before_and_after_are_both_said(figures):
    group_plot(group_rows(evaluation(3), evaluation(3, total=20)))
    assert figures[0].axes[0].get_yticklabels()[0].get_text() == "g0\nn = 10 / 20"


def test_of_many_groups_the_worst_are_shown():
    rows = group_rows(None, evaluation(*range(MOST_GROUPS + 10), total=100))
    assert [row.name for row in shown_groups(tuple(reversed(rows)))] == [f"g{n}" for n in range(MOST_GROUPS)]
    assert shown_groups(rows[:3]) == rows[:3]
    picture = Image.open(io.BytesIO(group_plot(rows)))
    assert picture.height < 3000


def test_names_are_drawn_as_they_are(figures):
    group_plot(group_rows(None, evaluation(1, name="$x_{1}$ \\frac \u9ce5 <b> " + "long " * 40)))
    text = figures[0].axes[0].get_yticklabels()[0].get_text()
    assert text.startswith("$x_{1}$")
    assert len(text) < 60


def test_nothing_to_draw_is_said():
    with pytest.raises(SettingsError, match="at least one group"):
        group_plot(group_rows(None, Evaluation((GroupResult("g", 0, 0),))))
    with pytest.raises(SettingsError, match="at least one epoch"):
        training_plot([{"method": "attention", "history": []}])


def record(method, **columns):
    epochs = len(next(iter(columns.values())))
    history = [{"epoch": n + 1, **{name: values[n] for name, values in columns.items()}} for n in range(epochs)]
    return {"method": method, "history": history}


def test_curves_are_the_history(figures):
    records = [
        record("pruning", loss=[3.0, 2.0]),
        record("attention", loss=[2.0, 1.0, 0.5], prediction=[1, 0.5, 0.2], worst_group=[0.1, 0.4, 0.9]),
        record("none", loss=[]),
    ]
    training_plot(records)
    lines = {
        (axes.get_title(loc="left"), str(line.get_label())): list(line.get_ydata())
        for axes in figures[0].axes
        for line in axes.lines
    }
    assert lines["CRAYON-Attention: loss per picture", "whole loss"] == [2.0, 1.0, 0.5]
    assert lines["CRAYON-Attention: loss per picture", "cross entropy"] == [1, 0.5, 0.2]
    assert lines["CRAYON-Attention: accuracy in %", "worst group"] == [10, 40, 90]
    assert lines["CRAYON-Pruning: loss per picture", "whole loss"] == [3.0, 2.0]
    assert len(lines) == 4


def test_flat_curves_and_zeros_have_room(figures):
    training_plot([record("pruning", loss=[3.0, 3.0]), record("attention", loss=[0.0, 0.0])])
    assert [axes.get_ylim()[0] for axes in figures[0].axes] == [0, 0]
    assert figures[0].axes[0].get_ylim()[1] > 3
    assert figures[0].axes[1].get_ylim()[1] > 0


def test_one_epoch_is_a_point(figures):
    training_plot([record("pruning", loss=[3.0])])
    assert figures[0].axes[0].lines[0].get_marker() == "o"
