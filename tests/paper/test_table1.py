"""Table I on a generated task: whole, stopped and taken up again, by two at once, with methods that fail."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from helpers_correction import noise_pictures, split_model

from crayon_sdk._base.files import locked
from crayon_sdk.data.generated import TASKS, generate
from crayon_sdk.errors import DataError, FileFormatError, OutputError
from crayon_sdk.paper import table1
from crayon_sdk.paper.protocol import Protocol
from crayon_sdk.paper.table1 import Pictures, estimate_table, halves_of, read_pictures, run_table, scores_of
from crayon_sdk.results.evaluation import evaluate

pytest.importorskip("matplotlib")

GROUPS = list(TASKS["box"].shortcuts)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """40 training, 8 validation, 24 test pictures."""
    return generate("box", tmp_path_factory.mktemp("task") / "box", size=40, scale=0.04)


@pytest.fixture(scope="module")
def pictures(task):
    return read_pictures(task.parent, group_columns=GROUPS)


def run(output, pictures, *methods, **how):
    """The table, and what was made for it."""
    told = []
    settings = {"seeds": (0,), "trials": 2, "epochs": 1, **how}
    found = run_table(
        Protocol(methods=methods, **settings), split_model(), pictures, output, device="cpu", on_cell=told.append
    )
    return found, told


def cells(output):
    return {path.name: json.loads(path.read_text()) for path in sorted((output / "cells").glob("[!.]*.json"))}


def measured(found):
    return [(line.row, line.chosen_by, line.settings, line.worst_group, line.mean_group) for line in found.lines]


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """A table that ran through, its folder, and what was made."""
    output = tmp_path_factory.mktemp("table") / "new"
    rows = ("original", "erm", "cnc", "pruning", "pruning-yes")
    return output, *run(output, pictures, *rows, seeds=(3, 1))


def test_the_whole_table(whole):
    output, found, told = whole
    assert len(told) == len(cells(output))
    lines = {(line.row, line.chosen_by): line for line in found.lines}
    assert len(lines) == len(found.lines) == 2 * 5
    for (row, _), line in lines.items():
        assert line.trials == {"original": 0, "pruning-yes": 0}.get(row, 2)
        if row != "cnc":
            assert len(line.worst_group) == (1 if row == "original" else 2)
            assert all(0 <= worst <= mean <= 1 for worst, mean in zip(line.worst_group, line.mean_group, strict=True))
    assert lines["pruning-yes", "class"].settings == lines["pruning", "class"].settings
    assert found.seconds == pytest.approx(sum(each["seconds"] for each in cells(output).values()))
    with open(output / "table1.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows[:3]] == ["original", "erm", "cnc"]
    assert {"wga_seed3", "mga_seed1", "trials", "epochs", "seconds", "cpu", "torch", "command"} <= rows[0].keys()
    text = (output / "table1.md").read_text(encoding="utf-8")
    assert found.verdict in text
    assert "CRAYON-Pruning, answers: yes" in text
    assert (output / "table1.png").read_bytes().startswith(b"\x89PNG")


def test_a_failed_method_has_a_line_that_says_why(whole):
    output, found, _ = whole
    failed = [line for line in found.lines if line.row == "cnc"]
    for line in failed:
        assert line.failed_trials == 2
        assert line.means == (None, None)
        assert line.problem.startswith("TrainingError: ")
        assert line.problem in (output / "table1.md").read_text(encoding="utf-8")
    assert all(claim.failed == ("cnc",) and claim.holds is None for claim in found.claims())


def test_no_cell_is_made_twice(whole, pictures):
    output, found, _ = whole
    before = {path: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    rows = ("original", "erm", "cnc", "pruning", "pruning-yes")
    again, told = run(output, pictures, *rows, seeds=(3, 1))
    assert told == []
    assert measured(again) == measured(found)
    assert before == {path: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    assert not list((output / "cells").glob(".*"))  # no locks are left
    more, told = run(output, pictures, "erm", seeds=(3, 1, 0))
    assert len(told) == len({line.settings["weight_decay"] for line in more.lines})
    assert "seed 0, chosen" in told[0]


def test_how_long_it_takes_is_said_before_and_on_the_way(whole, pictures, tmp_path):
    output, _, told = whole
    rows = ("original", "erm", "cnc", "pruning", "pruning-yes")
    protocol = Protocol(methods=rows, seeds=(3, 1), trials=2, epochs=1)
    ahead = estimate_table(protocol, split_model(), pictures, tmp_path / "out", device="cpu")
    # One original; of each of three rows two trials and two settings with two seeds; of the control the latter.
    assert (ahead.cells, ahead.finished, ahead.measured) == (1 + 3 * (2 + 4) + 4, 0, False)
    assert 0 < ahead.seconds < 600
    assert not (tmp_path / "out").exists()
    done = estimate_table(protocol, split_model(), pictures, output, device="cpu")
    assert (done.cells, done.finished, done.seconds) == (len(told), len(told), 0)
    assert told[1].partition("; ")[2].startswith("2 of 23, about ")
    assert told[-1].endswith(f"; {len(told)} of {len(told)}")
    half = tmp_path / "half"
    shutil.copytree(output, half)
    for path in (half / "cells").glob("pruning-seed1-chosen*.json"):
        path.unlink()
    left = estimate_table(protocol, split_model(), pictures, half, device="cpu")
    assert left.finished < left.cells == done.cells
    assert left.measured
    assert left.seconds > 0


def test_a_stop_in_the_middle_goes_on(whole, pictures, tmp_path):
    _, found, _ = whole
    output, said = tmp_path / "stopped", []

    def stop(text):
        said.append(text)
        if len(said) == 3:  # both trials of "erm" are done, and one of its models would have been kept
            raise KeyboardInterrupt

    rows = Protocol(methods=("original", "erm"), seeds=(3, 1), trials=2, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run_table(rows, split_model(), pictures, output, device="cpu", on_cell=stop)
    assert len(cells(output)) == 3
    again, rest = run(output, pictures, "original", "erm", seeds=(3, 1))
    assert len(rest) == len(cells(output)) - 3
    assert measured(again) == [each for each in measured(found) if each[0] in ("original", "erm")]


def test_choosing_never_sees_the_test_split(task, tmp_path):
    copy = tmp_path / "task"
    shutil.copytree(task.parent, copy)
    pictures = read_pictures(copy / "metadata.csv", group_columns=GROUPS)
    for picture in pictures.test.files:
        picture.unlink()
    with pytest.raises(DataError):
        run(tmp_path / "out", pictures, "erm")
    found = cells(tmp_path / "out")
    assert [cell["role"] for cell in found.values()] == ["trial", "trial"]  # chosen, and no further
    assert not any("test" in cell or "test" in cell["made_from"]["pictures"] for cell in found.values())


def test_methods_that_learn_from_held_out_pictures_are_chosen_by_others(pictures, tmp_path):
    for grouped in (True, False):
        learned, judged = halves_of(pictures.validation, grouped=grouped)
        assert not set(learned) & set(judged)
        assert set(learned) | set(judged) == set(pictures.validation)
        assert abs(len(learned) - len(judged)) <= 4
        assert len(set(judged.labels.tolist())) == 2
    run(tmp_path, pictures, "afr", trials=1)
    trials = [cell for cell in cells(tmp_path).values() if cell["role"] == "trial"]
    _, judged = halves_of(pictures.validation, grouped=False)
    assert all(
        sum(total for _, total in cell["validation"]["groups"].values()) == len(judged) < len(pictures.validation)
        for cell in trials
    )


def test_what_another_process_makes_is_waited_for(whole, pictures, tmp_path, monkeypatch):
    output, found, _ = whole
    name, second = [name for name, cell in cells(output).items() if (cell["row"], cell["role"]) == ("erm", "trial")]
    seen = []

    def other_is_done(_):
        seen.extend(cells(tmp_path))
        shutil.copy(output / "cells" / name, tmp_path / "cells" / name)

    monkeypatch.setattr(table1.time, "sleep", other_is_done)
    (tmp_path / "cells").mkdir()
    with locked(tmp_path / "cells", doing="another one", name=f".{Path(name).stem}"):
        again, told = run(tmp_path, pictures, "erm", seeds=(3, 1))
    assert seen == [second]  # what could be done meanwhile
    assert len(told) == len(cells(tmp_path)) - 1
    assert measured(again) == [each for each in measured(found) if each[0] == "erm"]


def test_cells_that_are_broken(pictures, tmp_path):
    run(tmp_path, pictures, "original")
    next((tmp_path / "cells").glob("*.json")).write_text("{")
    with pytest.raises(FileFormatError, match="Delete it"):
        run(tmp_path, pictures, "original")


def test_what_is_missing_is_said_before_the_work(task, pictures, tmp_path):
    with pytest.raises(DataError, match="group_columns="):
        read_pictures(task)
    (task.parent / "other.csv").write_text(task.read_text().replace(",val,", ",dev2,"))
    with pytest.raises(DataError, match="no split 'val'"):
        read_pictures(task.parent / "other.csv", group_columns=GROUPS)
    plain = noise_pictures(8)
    with pytest.raises(DataError, match=r"object masks .* 'rrr'"):
        run(tmp_path / "out", Pictures(plain, plain, plain), "erm", "rrr")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        run(tmp_path / "file", pictures, "original")
    assert not (tmp_path / "out").exists()


def test_scores_know_classes_and_groups(pictures):
    found = evaluate(split_model(), pictures.test, device="cpu")
    scores = scores_of(found)
    assert (scores["worst_group"], scores["mean_group"]) == (found.worst_group, found.mean_group)
    right = {label: [] for label in found.labels.values()}
    for sample, label in found.labels.items():
        right[label].append(found.predictions[sample] == label)
    accuracies = [sum(each) / len(each) for each in right.values()]
    assert scores["worst_class"] == min(accuracies)
    assert scores["mean_class"] == pytest.approx(sum(accuracies) / 2)
