"""What the table says: computed from its lines."""

from __future__ import annotations

import csv
import io

import pytest
from PIL import Image

from crayon_sdk.paper import outcome
from crayon_sdk.paper.outcome import Line, Outcome
from crayon_sdk.paper.protocol import COMPARED, Protocol


def line(row, *worst, chosen_by="class", problem=""):
    return Line(
        row=row,
        chosen_by=chosen_by,
        settings={"epochs": 3} if worst else None,
        validation=0.5 if worst else None,
        worst_group=worst,
        mean_group=tuple(each and (each + 1) / 2 for each in worst),
        trials=4,
        failed_trials=0 if worst else 4,
        epochs=3,
        seconds=60.0,
        problem=problem,
    )


def table(*lines, chosen_by=("class",)):
    protocol = Protocol(seeds=(0, 1), chosen_by=chosen_by)
    pictures = {"train": 40, "validation": 20, "test": 50}
    return Outcome(lines, protocol, pictures, 5, 300.0, {"cpu": "a | b"}, "crayon bench table1")


def compared(**worst):
    return [line(name, worst.get(name, 0.4), worst.get(name, 0.4)) for name in COMPARED]


def test_the_claim_is_decided_by_the_mean_over_the_seeds():
    (claim,) = table(*compared(), line("both", 0.3, 0.6), line("erm", 0.5, 0.5)).claims()
    assert claim.holds is True
    assert claim.above == COMPARED
    assert claim.not_above == ("erm",)  # of no concern to the claim, and said
    assert claim.unknown == ("unasked", "both-yes", "both-shuffled")
    assert "not above erm" in claim.in_words
    (claim,) = table(*compared(rrr=0.45), line("both", 0.3, 0.6)).claims()  # as good is not better
    assert claim.holds is False
    assert claim.not_above == ("rrr",)
    assert "does not hold" in claim.in_words


def test_what_failed_is_no_rival_and_what_was_not_run_may_be():
    lines = [each for each in compared() if each.row != "jtt"]
    (claim,) = table(*lines, line("jtt", problem="TrainingError: no errors"), line("both", 0.5, 0.5)).claims()
    assert claim.holds is True
    assert claim.failed == ("jtt",)
    assert "cannot be used here: jtt" in table(*lines, line("jtt"), line("both", 0.5, 0.5)).verdict
    (claim,) = table(*lines, line("both", 0.5, 0.5)).claims()
    assert claim.holds is None
    assert "is not decided for both" in table(*lines, line("both", 0.5, 0.5)).verdict
    assert table(*lines, line("both")).claims() == ()  # CRAYON itself failed
    assert "is not decided" in table(*lines).verdict


def test_each_way_of_choosing_has_its_own_verdict():
    by_group = [line(name, 0.7, 0.7, chosen_by="group") for name in (*COMPARED, "both")]
    found = table(*compared(), line("both", 0.5, 0.5), *by_group, chosen_by=("class", "group"))
    assert [claim.holds for claim in found.claims()] == [True, False]
    assert "worst class, no groups: that CRAYON beats" in found.verdict
    first, second = found.verdict.split("Chosen by the worst group")
    assert "holds for both" in first
    assert "does not hold for both" in second


def test_files_hold_every_seed_and_every_problem(tmp_path):
    pytest.importorskip("matplotlib")
    problem = "AnswerError: yes | no"
    found = table(line("erm", 0.25, None, problem=problem), line("both"))
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [(row["wga"], row["wga_seed0"], row["wga_seed1"], row["problem"]) for row in rows] == [
        ("0.2500", "0.2500", "", problem),
        ("", "", "", ""),
    ]
    assert rows[0]["epochs"] == "3"
    assert rows[0]["cpu"] == "a | b"
    text = found.markdown()
    assert "25.0 / 62.5, - / -" in text
    assert "4 (4 failed)" in text
    assert "\n\n1. AnswerError: yes | no\n\n" in text  # below the table, which a long one would spread out
    assert "](table1.png)" in text
    widths = {row.count("|") for row in text.splitlines() if row.startswith("|")}
    assert widths == {8}  # nothing broke a cell
    assert "20.0 points" in text
    assert "5 minutes" in text
    found.save(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["table1.csv", "table1.md", "table1.png"]
    assert table().csv() == ""
    table().save(tmp_path)  # before any row is finished


def test_the_figure_shows_bars_dots_and_failures(monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    real = outcome.png
    monkeypatch.setattr(outcome, "png", lambda figure: drawn.append(figure) or real(figure))
    shown = table(
        line("erm", 0.2, 0.4), line("erm", 0.6, 0.6, chosen_by="group"), line("cnc"), chosen_by=("class", "group")
    ).plot()
    Image.open(io.BytesIO(shown)).verify()
    (axes,) = drawn[0].axes
    assert [round(bar.get_width()) for bar in axes.patches] == [30, 0, 60]
    assert sorted(each for points in axes.lines for each in points.get_xdata()) == [20, 40, 60, 60]
    assert [text.get_text() for text in axes.texts] == ["failed"]
