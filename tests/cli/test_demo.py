"""The demo, from its pictures to the checkpoints that it leaves."""

from __future__ import annotations

import csv
import functools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers_workspace import crayon
from PIL import Image

from crayon_sdk.cli.demo_pictures import draw_picture, write_pictures
from crayon_sdk.errors import OutputExistsError, SettingsError

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "answers.jsonl",
    "attention",
    "before-after.png",
    "demo.json",
    "evaluations",
    "maps.png",
    "maps.safetensors",
    "original",
    "patches.png",
    "patches.safetensors",
    "pictures",
    "pruning",
    "pruning-attention",
}
METHODS = ("Original", "More training", "Attention", "Pruning", "Pruning+Attention")
# The command with smaller sizes, and nothing else changed.
SMALL = """
import functools, crayon_sdk.cli.demo as demo
demo.run_demo = functools.partial(demo.run_demo, settings=demo.DemoSettings(
    train=64, test=16, size=64, original_epochs=1, attention_epochs=1, pruning_epochs=1, rows=4))
from crayon_sdk.cli import main
main()
"""


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # torch 2.6 keeps a temporary folder until Python ends.
    warnings = ("-W", "error", "-W", "ignore:Implicitly cleaning up:ResourceWarning")
    return subprocess.run(
        [sys.executable, *warnings, *(["-c", code] if code else ["-m", "crayon_sdk"]), "demo", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "160", "TERM": "dumb"},
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One small run: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    result = run(str(folder), code=SMALL)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_it_says_how_long_it_will_take(small):
    assert re.search(r"> About \d+ (seconds|minutes) to go on this machine", small[1])


class TestPictures:
    def test_seed_decides(self):
        first, again = (draw_picture(np.random.default_rng(3), 1, 0, 64) for _ in range(2))
        other = draw_picture(np.random.default_rng(4), 1, 0, 64)
        assert [image.tobytes() for image in first] == [image.tobytes() for image in again]
        assert first[0].tobytes() != other[0].tobytes()

    @pytest.mark.parametrize("label", [0, 1])
    def test_object_is_whole_and_of_a_sensible_size(self, label):
        for seed in range(20):
            mask = np.asarray(draw_picture(np.random.default_rng(seed), label, 0, 96)[1]) > 0
            assert 0.05 < mask.mean() < 0.4

    def test_stripes_stand_in_the_forest_and_lie_on_water(self):
        for background in (0, 1):
            picture, mask = draw_picture(np.random.default_rng(0), 0, background, 96)
            grey = np.ma.masked_array(np.asarray(picture.convert("L"), dtype=float), np.asarray(mask) > 0)
            across, down = grey.mean(axis=0).std(), grey.mean(axis=1).std()
            assert (across > down) == (background == 0)

    def test_correlation_and_balance(self, tmp_path):
        table = write_pictures(tmp_path, train=80, test=8, size=64, correlation=0.9)
        with open(table, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        counts = Counter((row["split"], row["label"], row["background"]) for row in rows)
        assert counts["train", "bird", "forest"] == counts["train", "fish", "water"] == 36
        assert counts["train", "bird", "water"] == counts["train", "fish", "forest"] == 4
        assert [counts["test", label, place] for label in ("bird", "fish") for place in ("forest", "water")] == [2] * 4


def test_the_network_is_trained_by_further_training_and_begins_without_a_record(tmp_path):
    from crayon_sdk.cli.demo_model import DemoSettings, train_original
    from crayon_sdk.data.dataset import ImageDataset

    table = write_pictures(tmp_path, train=64, test=8, size=64, correlation=0.95)
    dataset = ImageDataset.from_csv(table, split="train")
    settings = DemoSettings(train=64, test=8, size=64, original_accuracy=0.9)
    model, history = train_original(dataset, settings, seed=0)
    assert 1 < len(history) < settings.original_epochs
    assert history[-1]["training_accuracy"] >= 0.9 > max(epoch["training_accuracy"] for epoch in history[:-1])
    assert not model.training
    assert model.provenance.records == ()
    again, _ = train_original(dataset, settings, seed=0)
    other, _ = train_original(dataset, settings, seed=1)
    assert model.fingerprint == again.fingerprint != other.fingerprint


class TestSmallRun:
    def test_cards_show_pictures_and_claim_no_base_model(self, small):
        for name in ("attention", "pruning", "pruning-attention"):
            text = (small[0] / name / "README.md").read_text(encoding="utf-8")
            head = yaml.safe_load(text.split("---\n")[1])
            assert "base_model" not in head  # the network began with random weights
            assert head["license"] == "apache-2.0"
            assert "simulated-answers" in head["tags"]
            assert head["model-index"][0]["results"][0]["dataset"]["name"] == "test pictures that the demo drew"
            assert "](picture-1.png)" in text
            with Image.open(small[0] / name / "picture-1.png") as picture:
                assert picture.format == "PNG"

    def test_everything_is_there(self, small):
        folder, _ = small
        assert {path.name for path in folder.iterdir()} == FILES
        assert {path.name for path in (folder / "evaluations").iterdir()} == {
            "original.json",
            "more-training.json",
            "attention.json",
            "pruning.json",
            "pruning-attention.json",
        }
        assert not [path for path in folder.parent.iterdir() if path != folder]

    def test_table_says_that_answers_are_simulated(self, small):
        _, shown = small
        assert "corrected with simulated answers" in shown
        assert "The answers are simulated" in shown
        for word in (*METHODS, "bird/forest", "fish/water", "WGA", "MGA", "object energy"):
            assert word in shown

    def test_says_what_to_look_at_and_how_to_load(self, small):
        folder, shown = small
        assert str(folder / "before-after.png") in shown
        assert f'timm.create_model("local-dir:{folder / "attention"}", pretrained=True)' in shown
        code = shown.split("go on from here:")[1]
        compile("\n".join(line.strip() for line in code.splitlines()), "shown", "exec")

    def test_checkpoints_load_with_plain_timm(self, small):
        names = ["original", "attention", "pruning", "pruning-attention"]
        code = (
            "import sys, timm, torch\n"
            "for folder in sys.argv[1:]:\n"
            "    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()\n"
            "    print(tuple(model.forward_features(torch.zeros(1, 3, 64, 64)).shape), 'crayon_sdk' in sys.modules)"
        )
        folders = [str(small[0] / name) for name in names]
        result = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True)
        assert result.stdout == "(1, 128, 4, 4) False\n" * len(names), result.stderr

    def test_corrections_remember(self, small):
        from crayon_sdk import load_correction

        both = load_correction(small[0] / "pruning-attention")
        assert [record.method for record in (*both.parents, both.record)] == ["pruning", "attention"]
        assert both.record.simulated
        assert both.answers.all_simulated
        assert both.model.class_names == ("bird", "fish")
        assert both.before is not None
        assert both.after is not None

    def test_results_agree(self, small):
        from crayon_sdk import Evaluation, ImageDataset, evaluate, load_model

        folder, shown = small
        about = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
        assert tuple(about["summary"]) == METHODS
        assert about["simulated_answers"] is True
        saved = Evaluation.load(folder / "evaluations" / "attention.json")
        test = ImageDataset.from_csv(folder / "pictures" / "metadata.csv", split="test")
        again = evaluate(load_model(f"local-dir:{folder / 'attention'}"), test)
        assert again.predictions == saved.predictions
        assert about["summary"]["Attention"]["worst_group"] == saved.worst_group
        assert f"{100 * saved.mean_group:.1f}" in shown

    def test_answers_are_about_these_maps(self, small):
        from crayon_sdk import AnnotationSet, NeuronPatches, SaliencyMaps

        answers = AnnotationSet.load(small[0] / "answers.jsonl")
        maps = SaliencyMaps.load(small[0] / "maps.safetensors")
        patches = NeuronPatches.load(small[0] / "patches.safetensors")
        assert len(answers.annotators) == 2
        assert {answer.model for answer in answers} == {maps.model} == {patches.model}
        assert len(maps) == 64

    @pytest.mark.parametrize("name", ["before-after.png", "maps.png", "patches.png"])
    def test_sheets_are_pictures(self, small, name):
        with Image.open(small[0] / name) as sheet:
            assert sheet.width > 500
            assert sheet.height > 700

    def test_overwrite_replaces_an_earlier_demo_and_quiet_is_quiet(self, small, tmp_path, monkeypatch):
        from crayon_sdk.cli import demo
        from crayon_sdk.cli.demo import DemoSettings, run_demo

        sizes = {"train": 40, "test": 8, "size": 64, "rows": 2}
        epochs = {"original_epochs": 1, "attention_epochs": 1, "pruning_epochs": 1}
        monkeypatch.setattr(demo, "run_demo", functools.partial(run_demo, settings=DemoSettings(**sizes, **epochs)))
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "demo.json").write_text("{}")
        (folder / "old.txt").write_text("")
        result = crayon("demo", folder, "--overwrite", "--quiet", "--seed", 1)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
        assert {path.name for path in folder.iterdir()} == FILES
        with pytest.raises(OutputExistsError, match="exists already and is not empty"):
            run_demo(folder, settings=DemoSettings())


@pytest.mark.parametrize("wrong", [{"train": 10}, {"test": 6}, {"size": 80}, {"size": 32}])
def test_settings_that_do_not_fit(wrong):
    from crayon_sdk.cli.demo import DemoSettings

    with pytest.raises(SettingsError, match="expected at least 40 training pictures"):
        DemoSettings(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_full_run_corrects(tmp_path, seed):
    folder = tmp_path / "demo"
    assert run(str(folder), "--seed", str(seed)).returncode == 0
    summary = json.loads((folder / "demo.json").read_text(encoding="utf-8"))["summary"]
    before, control, after = (summary[name] for name in ("Original", "More training", "Attention"))
    assert before["worst_group"] < 0.45
    assert after["worst_group"] > 0.7
    assert after["worst_group"] > control["worst_group"] + 0.2
    assert after["energy_on_object"] > before["energy_on_object"]
