"""Rows of Table I: what is searched fits the methods, and trials are the same for everybody."""

from __future__ import annotations

import pytest
from helpers_correction import split_model

from crayon_sdk._base.methods import methods
from crayon_sdk.correct.method import made
from crayon_sdk.errors import SettingsError
from crayon_sdk.paper.protocol import COMPARED, CRAYON, ROWS, Protocol, best, trials_of, with_epochs
from crayon_sdk.paper.table1 import nested


def test_every_method_of_the_package_has_a_row():
    assert set(methods) <= {row.method for row in ROWS.values()}
    assert len(COMPARED) == 12
    assert set(COMPARED) | set(CRAYON) <= set(ROWS)
    for row in ROWS.values():
        takes_answers = bool(row.method) and bool({"answers", "neuron answers"} & methods[row.method].needs)
        assert takes_answers == bool(row.answers), row.name
        if row.answers == "real":
            assert [each.answers for each in ROWS.values() if each.like == row.name] == ["yes", "shuffled"]


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.searched], ids=lambda row: row.name)
def test_every_trial_can_be_made(row):
    trials = trials_of(row, 100)
    assert len(trials) >= 6
    assert len({str(each) for each in trials}) == len(trials)
    for tried in trials:
        method = made(row.method, split_model(), nested(with_epochs(row, tried, 4)), device="cpu", seed=3)
        stages = getattr(method, "stages", {"": method})
        for name in row.epochs:
            part, _, setting = name.rpartition(".")
            assert getattr(stages[part], setting) == 4
        for name, value in {**row.fixed, **tried}.items():
            part, _, setting = name.rpartition(".")
            assert getattr(stages[part], setting) == value


def test_trials_are_a_draw_that_begins_with_what_is_listed_first():
    first = {"lr": 1e-4, "weight_decay": 1e-4}
    assert trials_of(ROWS["erm"], 1) == (first,)
    assert trials_of(ROWS["erm"], 4) == trials_of(ROWS["erm"], 9)[:4]
    # The same places of every grid, so that no row gets more rates than another.
    of_each = [[tried["lr"] for tried in trials_of(ROWS[name], 5)] for name in COMPARED]
    assert all(rates == of_each[0] for rates in of_each)


def test_settings_are_chosen_by_what_the_column_knows():
    def cell(name, **measured):
        return {"settings": name, "validation": measured}

    classes = cell("classes", worst_class=0.9, mean_class=0.9, worst_group=0.1, mean_group=0.5)
    groups = cell("groups", worst_class=0.8, mean_class=0.8, worst_group=0.7, mean_group=0.8)
    again = cell("again", worst_class=0.8, mean_class=0.8, worst_group=0.7, mean_group=0.9)
    failed = {"settings": "failed", "error": "NonFiniteLossError: the loss became NaN"}
    cells = [failed, classes, groups, again]
    assert best(cells, "class") is classes
    assert best(cells, "group") is again  # of equals the best mean
    assert best([failed], "group") is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"methods": ("jt",)}, "no row of Table I called 'jt'; did you mean 'jtt'"),
        ({"methods": ()}, "one or more"),
        ({"seeds": (1, 1)}, "each once"),
        ({"seeds": ()}, "one or more"),
        ({"trials": 0}, ">= 1"),
        ({"epochs": -1}, ">= 0"),
        ({"chosen_by": ("test",)}, "chosen_by"),
    ],
)
def test_protocols_that_make_no_sense(wrong, said):
    with pytest.raises(SettingsError, match=said):
        Protocol(**wrong)
