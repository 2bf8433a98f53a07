"""Which cells the tables have: the paper's, with the paper's settings."""

from __future__ import annotations

import pytest
from helpers_correction import split_model

from crayon_sdk.correct.method import made
from crayon_sdk.correct.presets import ATTENTION, PRUNING
from crayon_sdk.errors import SettingsError
from crayon_sdk.paper import numbers
from crayon_sdk.paper.protocol import COMPARED
from crayon_sdk.paper.runner import nested
from crayon_sdk.paper.tables import TABLES, Plan, points_of


def plan(table, **more):
    return Plan(table=table, **({"preset": "waterbirds"} if table == "published" else {}), **more)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("preset", [None, "waterbirds", "waterbirds-release"])
def test_every_cell_can_be_made(table, preset):
    if table == "published" and preset is None:
        preset = "backgrounds-release"
    points = points_of(Plan(table=table, preset=preset))
    assert len({(point.series, point.label) for point in points}) == len(points)
    for point in points:
        if point.method not in ("", "softcon", "flac"):  # pictures of 64 are too small for their second network
            assert made(point.method, split_model(), nested(point.settings), device="cpu", seed=1)


def test_table1_with_published_settings():
    points = {point.series: point for point in points_of(Plan(table="published", preset="waterbirds-release"))}
    assert set(points) == {"original", *COMPARED, "attention", "pruning", "both"}
    assert points["attention"].settings["area_normalized"] is ATTENTION["waterbirds-release"].area_normalized is True
    assert points["pruning"].settings["epochs"] == PRUNING["waterbirds-release"].epochs == 5
    assert points["jtt"].settings["upweight"] == 100  # of which one form alone is stated
    some = points_of(Plan(table="published", preset="waterbirds", methods=("rrr", "original"), epochs=2))
    assert [(point.series, (point.settings or {}).get("epochs")) for point in some] == [("original", None), ("rrr", 2)]


def test_the_ablation_leaves_one_term_out():
    points = {point.label: point.settings for point in points_of(Plan(table="ablation", preset="waterbirds"))}
    assert (points["both terms"]["alpha"], points["both terms"]["beta"]) == (1e7, 2e5)
    assert (points["relevant only"]["alpha"], points["relevant only"]["beta"]) == (1e7, 0)
    assert (points["irrelevant only"]["alpha"], points["irrelevant only"]["beta"]) == (0, 2e5)
    both = points_of(Plan(table="ablation", methods=("both",), preset="waterbirds"))
    assert both[3].settings["attention.alpha"] == 0


def test_weights_are_those_of_the_figure():
    found = points_of(Plan(table="sensitivity", preset="waterbirds-release"))
    values = {name: [float(each.label) for each in found if each.series.endswith(name)] for name in ("alpha", "beta")}
    assert values == {"alpha": [1e5, 1e6, 1e7, 1e8, 1e9], "beta": [1e3, 1e4, 1e5, 1e6, 1e7]}
    own = points_of(Plan(table="sensitivity", alphas=(1.0,), methods=("attention",)))
    assert [each.settings["alpha"] for each in own[1:2]] == [1.0]
    assert [each.settings["beta"] for each in own[2:]] == pytest.approx([0.2, 2.0, 20.0, 200.0, 2000.0])


def test_answers_are_given_in_numbers_and_blindly():
    points = points_of(Plan(table="answers", counts=(50, 20), methods=("pruning",), controls=("yes",)))
    assert [(each.series, each.label, each.answers) for each in points] == [
        ("original", "original", ""),
        *(("CRAYON-Pruning", count, "real") for count in ("20", "50", "all")),
        *(("CRAYON-Pruning, yes", count, "yes") for count in ("20", "50", "all")),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"table": "ablation", "methods": ("pruning",)}, "no method of"),
        ({"table": "runtime", "shares": (0.5, 0.5)}, "each once"),
        ({"table": "runtime", "shares": (1.5,)}, "up to 1"),
        ({"table": "nothing"}, "one of published, ablation"),
        ({"table": "published"}, "expected a preset"),
        ({"table": "published", "preset": "birds"}, "no method has a preset called 'birds'"),
        ({"table": "published", "preset": "waterbirds", "methods": ("erm",)}, "no method with the preset"),
        ({"table": "ablation", "preset": "birds"}, "no preset of attention called 'birds'"),
        ({"table": "transfer", "methods": ("both",)}, "belong to one model"),
    ],
)
def test_what_makes_no_sense_is_refused(given, said):
    with pytest.raises(SettingsError, match=said):
        points_of(Plan(**given))


def test_the_numbers_of_the_paper():
    assert set(COMPARED) < set(numbers.TABLE1)
    assert numbers.TABLE1["both"]["waterbirds"] == (76.04, 86.03)
    assert numbers.TABLE1["boundingbox"]["backgrounds"] == (80.82, 9.81)
    assert numbers.TABLE1["lc"]["biased-celeba"] == (64.98, 84.80)
