"""What a table says: computed from its lines, with the paper's numbers beside."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from crayon_sdk.errors import OutputError
from crayon_sdk.paper.findings import Findings, Fit, Line, write_page
from crayon_sdk.paper.tables import Plan, points_of

pytest.importorskip("matplotlib")


def findings(table, *, data_set="waterbirds", **how):
    """Made up: the first seed is a tenth below the second."""
    plan = Plan(table=table, seeds=(0, 1), **{"preset": "waterbirds", **how})
    lines = tuple(
        Line(
            point=point,
            first=(None, None) if table == "runtime" else (0.5, 0.6),
            second=(None, None) if table == "runtime" else (0.7, 0.8),
            seconds=(10.0 * point.share + 1, 10.0 * point.share + 1),
            pictures=int(1000 * point.share),
            problem="it has a | in it" if number == 2 else "",
        )
        for number, point in enumerate(points_of(plan))
    )
    return Findings(
        plan=plan,
        lines=lines,
        measures=("WGA", "MGA"),
        data_set=data_set,
        pictures={"train": 4795, "test": 5794},
        smallest_test_group=642,
        simulated=True,
        seconds=60.0,
        machine={"cpu": "one", "torch": "2"},
        command="crayon bench <all>",
    )


def test_the_papers_numbers_stand_beside_ours():
    text = findings("published").markdown()
    assert "| CRAYON-Pruning+Attention |  | 55.0 ± 7.1 | 75.0 ± 7.1 | 76.04 | 86.03 |" in text
    assert "| Original |  | 55.0 ± 7.1 | 75.0 ± 7.1 | 28.35 | 72.08 |" in text
    assert "it has a   in it" in text
    assert "command: `crayon bench <all>`" in text
    other = findings("published", data_set="").markdown()
    assert "paper" not in other.lower().replace("published", "")
    assert "| Original |  | 55.0 ± 7.1 | 75.0 ± 7.1 | 22 seconds |" in other


@pytest.mark.parametrize(
    ("table", "label", "theirs"),
    [
        ("ablation", "relevant only", (67.38, None)),
        ("ablation", "both terms", (72.31, 85.23)),
        ("answers", "500", (69.69, 83.64)),
        ("answers", "all", (72.31, 85.23)),
        ("answers", "20", (None, None)),
        ("transfer", "transfer", (76.73, 88.59)),
        ("sensitivity", "original", (28.35, 72.08)),
        ("runtime", "1", (288.0, None)),
        ("runtime", "0.5", (None, None)),
    ],
)
def test_which_number_belongs_to_which_line(table, label, theirs):
    found = findings(table)
    lines = [line for line in found.lines if line.point.label == label]
    assert found.published(lines[0]) == theirs
    assert replace(found, data_set="").published(lines[0]) == (None, None)


def test_blind_answers_have_no_number_of_the_paper():
    found = findings("answers")
    blind = [line for line in found.lines if line.point.answers == "shuffled"]
    assert len(blind) == 18
    assert {found.published(line) for line in blind} == {(None, None)}


def test_a_line_through_times():
    fits = findings("runtime").fits()
    assert list(fits) == ["CRAYON-Attention", "CRAYON-Pruning", "CRAYON-Pruning+Attention"]
    assert fits["CRAYON-Pruning"] == Fit(0.01, 1.0, 1.0)
    assert findings("ablation").fits() == {}
    assert Fit.of([5, 5], [1.0, 2.0]) is None
    assert Fit.of([1, 2, 3], [1.0, 3.0, 1.0]).r_squared == 0


@pytest.mark.parametrize("table", ["published", "ablation", "answers", "sensitivity", "transfer", "runtime"])
def test_files_of_every_table(table, tmp_path):
    found = findings(table)
    found.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["index.html", *(f"{table}.{ending}" for ending in ("csv", "md", "png"))]
    )
    rows = list(csv.DictReader(io.StringIO((tmp_path / f"{table}.csv").read_text(encoding="utf-8"))))
    assert len(rows) == len(found.lines) == found.table().row_count
    if table != "runtime":
        assert {row["wga"] for row in rows} == {"0.55"}
        assert {row["mga_seed1"] for row in rows} == {"0.8"}


def test_one_page_collects_all(tmp_path):
    for table in ("ablation", "runtime"):
        findings(table).save(tmp_path)
    (tmp_path / "table1.csv").write_text("row,problem,cpu,command\nerm,<b>,one,crayon bench table1\n")
    page = write_page(tmp_path).read_text(encoding="utf-8")
    assert page.count("<h2>") == 3
    assert page.count("data:image/png;base64,") == 2
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<td>one</td>" not in page  # the machine is in the files
    assert "crayon bench &lt;all&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_page(tmp_path / "file")
