"""Tables with known settings, on a generated task: whole, stopped, by several processes, and foretold."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers_correction import SMALL, noise_pictures, plain_correction, split_model
from helpers_published import make_backgrounds

from crayon_sdk._base.files import sha256_of
from crayon_sdk.data.generated import generate
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.paper.datasets import read_backgrounds
from crayon_sdk.paper.measured import estimate, run_plan
from crayon_sdk.paper.runner import Bench, Pictures, read_pictures, target_of
from crayon_sdk.paper.tables import Plan, points_of
from crayon_sdk.results.evaluation import evaluate

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """40 training, 8 validation, 24 test pictures."""
    return generate("box", tmp_path_factory.mktemp("task") / "box", size=40, scale=0.04)


@pytest.fixture(scope="module")
def pictures(task):
    return read_pictures(task.parent, group_columns=["box"])


def run(pictures, output, table, *, seeds=(0,), **how):
    told = []
    keep = {name: how.pop(name) for name in ("student", "data_set", "command") if name in how}
    plan = Plan(table=table, seeds=seeds, epochs=1, **how)
    return run_plan(plan, split_model(), pictures, output, device="cpu", on_cell=told.append, **keep), told


def cells(output):
    return sorted(path.name for path in (output / "cells").glob("[!.]*.json"))


def test_an_ablation_whole_and_again(pictures, tmp_path):
    found, told = run(
        pictures, tmp_path, "ablation", seeds=(3, 1), data_set="waterbirds", command="crayon bench ablation"
    )
    assert len(told) == len(cells(tmp_path)) == 1 + 3 * 2
    assert told[-1].endswith("7 of 7")
    assert "to go" in told[2]
    for line in found.lines:
        assert len(line.first) == (1 if not line.point.method else 2)
        assert all(0 <= worst <= mean <= 1 for worst, mean in zip(line.first, line.second, strict=True))
    # The first line of both terms and of one differ, so that alpha and beta arrived.
    cell = [json.loads((tmp_path / "cells" / name).read_text()) for name in cells(tmp_path)]
    assert {(each["settings"].get("alpha"), each["settings"].get("beta")) for each in cell} == {
        (None, None), (1e3, 20.0), (1e3, 0.0), (0.0, 20.0),
    }  # fmt: skip
    again, told = run(pictures, tmp_path, "ablation", seeds=(3, 1))
    assert told == []
    assert [line.first for line in again.lines] == [line.first for line in found.lines]
    assert not list((tmp_path / "cells").glob(".*"))
    more, told = run(pictures, tmp_path, "ablation", seeds=(3, 1, 0))
    assert len(told) == 3
    assert len(more.lines[1].first) == 3


def test_answers_in_numbers(pictures, tmp_path):
    found, _ = run(
        pictures, tmp_path, "answers", methods=("attention", "pruning"), counts=(20,), controls=("shuffled",)
    )
    assert {(line.point.method, line.point.answers, line.point.count) for line in found.lines[1:]} == {
        (method, answers, count)
        for method in ("attention", "pruning")
        for answers in ("real", "shuffled")
        for count in (20, None)
    }
    assert (tmp_path / "answers.png").read_bytes().startswith(b"\x89PNG")


def test_runtimes_have_a_line_through_them(pictures, tmp_path):
    found, _ = run(pictures, tmp_path, "runtime", methods=("pruning",), shares=(0.25, 0.5, 1.0))
    assert [line.pictures for line in found.lines] == [10, 20, 40]
    assert all(line.seconds[0] > 0 and line.first == (None,) for line in found.lines)
    assert set(found.fits()) == {"CRAYON-Pruning"}
    assert "R²" in (tmp_path / "runtime.md").read_text(encoding="utf-8")
    with open(tmp_path / "runtime.csv", newline="", encoding="utf-8") as file:
        assert [row["pictures"] for row in csv.DictReader(file)] == ["10", "20", "40"]


def test_one_model_guides_another(pictures, tmp_path):
    with pytest.raises(SettingsError, match="student="):
        run(pictures, tmp_path / "no", "transfer")
    assert not (tmp_path / "no").exists()
    student = split_model(seed=1)
    found, _ = run(pictures, tmp_path, "transfer", student=student)
    assert [line.point.student for line in found.lines] == [True, True]
    made = [json.loads((tmp_path / "cells" / name).read_text())["made_from"] for name in cells(tmp_path)]
    assert {each["student"] for each in made} == {student.fingerprint}


def test_a_method_that_fails_has_a_line_that_says_why(pictures, tmp_path):
    found, _ = run(pictures, tmp_path, "published", methods=("cnc", "original"), preset="waterbirds")
    assert found.lines[1].first == (None,)
    assert found.lines[1].problem.startswith("TrainingError: ")
    assert found.lines[1].problem in (tmp_path / "published.md").read_text(encoding="utf-8")


def test_the_gap_is_measured_where_there_is_one(tmp_path):
    data = read_backgrounds(make_backgrounds(tmp_path / "in9", train=1, test=1), strict=False)
    train, test, same = (
        each.with_preprocessing(SMALL) for each in (data.train, data.test, data.variants["mixed_same"])
    )
    shown = Pictures(train, None, test, same)
    import timm

    from crayon_sdk.models.split import SplitModel

    model = SplitModel(timm.create_model("test_resnet.r160_in1k", num_classes=9).eval(), preprocessing=SMALL)
    plan = Plan(table="published", preset="backgrounds", methods=("original", "lff"), seeds=(0,), epochs=1)
    found = run_plan(plan, model, shown, tmp_path / "out", device="cpu", data_set="backgrounds")
    assert found.measures == ("MR", "BG-Gap")
    assert found.lines[0].second == (0.0,)  # all pictures are the same
    assert found.published(found.lines[1]) == (78.23, 12.41)


def test_maps_are_those_that_the_settings_are_for(pictures, tmp_path):
    """With the presets of the Backgrounds Challenge maps show the predicted class, in explaining and in training."""
    point = points_of(Plan(table="published", preset="backgrounds", methods=("both",)))[0]
    assert target_of(point.settings) == "predicted"
    bench = Bench(split_model(), pictures, tmp_path, device="cpu")
    predicted = evaluate(bench.model, pictures.train, device="cpu").predictions
    maps = bench.maps("logit", target_of(point.settings))
    assert dict(zip(maps.ids, maps.targets.tolist(), strict=True)) == predicted
    answers = bench.real_answers("both", "logit", target_of(point.settings))
    assert {each.id: each.target for each in answers.image_answers}.items() <= predicted.items()
    found, _ = run(pictures, tmp_path, "published", methods=("attention",), preset="backgrounds")
    assert found.lines[0].problem == ""


def test_how_long_it_takes_is_said_before(pictures, tmp_path):
    plan = Plan(table="ablation", seeds=(0, 1), epochs=1)
    ahead = estimate(plan, split_model(), pictures, tmp_path / "out", device="cpu")
    assert (ahead.cells, ahead.finished, ahead.measured) == (7, 0, False)
    assert 0 < ahead.seconds < 600
    assert "7 cells, 0 of them finished" in ahead.in_words
    assert not (tmp_path / "out").exists()
    run(pictures, tmp_path / "out", "ablation")
    after = estimate(plan, split_model(), pictures, tmp_path / "out", device="cpu")
    assert (after.cells, after.finished, after.measured) == (7, 4, True)
    run(pictures, tmp_path / "out", "ablation", seeds=(0, 1))
    done = estimate(plan, split_model(), pictures, tmp_path / "out", device="cpu")
    assert (done.finished, done.seconds, done.in_words) == (7, 0, "7 cells, all finished")


def test_what_is_missing_is_said_before_the_work(pictures, tmp_path):
    plain = noise_pictures(8)
    with pytest.raises(DataError, match="object masks"):
        run(Pictures(plain, None, plain), tmp_path / "out", "ablation")
    assert not (tmp_path / "out").exists()


def test_cells_of_the_version_before_are_read(pictures, tmp_path):
    """The file of a cell is named by what it is made from; a change of that makes every finished run worthless."""
    bench = Bench(split_model(), pictures, tmp_path)
    settings = {"epochs": 1, "lr": 0.1}
    about = {"method": "erm", "answers": "", "maps": "margin", "role": "trial"}
    identity = bench.identity(settings, 0, "train", "validation", **about)
    assert set(identity) == {*about, "settings", "seed", "model", "pictures", "crayon-sdk"}
    assert set(identity["pictures"]) == {"train", "validation"}
    expected = sha256_of(json.dumps(identity, sort_keys=True))[:16]
    assert bench.path_of("erm-seed0-trial", identity).name == f"erm-seed0-trial-{expected}.json"
    assert set(bench.identity(settings, 0)["pictures"]) == {"train", "validation", "test"}


def start(task, model, output):
    code = "from crayon_sdk.cli import main; main()"
    typed = ["bench", "answers", "--data", task.parent, "--group-column", "box", "--model", model, "--output", output]
    typed += [
        "--methods",
        "attention",
        "--counts",
        "20",
        "--seeds",
        "0",
        "1",
        "--epochs",
        "2",
        "--device",
        "cpu",
        "--json",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.argv[1:] = {[str(each) for each in typed]!r}; {code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_several_processes_make_no_cell_twice_and_take_over_that_of_a_dead_one(task, tmp_path):
    model = plain_correction(split_model()).save(tmp_path / "model")
    output = Path(tmp_path / "out")
    first, second = start(task, model, output), start(task, model, output)
    end = time.monotonic() + 120
    while not list((output / "cells").glob(".*-owner.json")) and time.monotonic() < end:
        time.sleep(0.01)
    owner = json.loads(next((output / "cells").glob(".*-owner.json")).read_text())
    dead, alive = (first, second) if owner["pid"] == first.pid else (second, first)
    dead.send_signal(signal.SIGKILL)
    said, _ = dead.communicate(timeout=120), None
    assert dead.returncode == -signal.SIGKILL
    shown, told = alive.communicate(timeout=240)
    assert alive.returncode == 0, told
    found = json.loads(shown)
    assert len(found["lines"]) == 7
    assert len(cells(output)) == 1 + 6 * 2
    made = [line for text in (said[1], told) for line in text.splitlines() if ", seed " in line]
    assert len(made) == len({line.partition(":")[0] for line in made}) >= len(cells(output)) - 1
