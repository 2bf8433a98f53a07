"""The Backgrounds Challenge on a small copy: nine classes, and a thousand."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from helpers_correction import SMALL
from helpers_published import make_backgrounds
from helpers_workspace import save_model

from crayon_sdk.cli.commands import app
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.models.split import SplitModel
from crayon_sdk.paper.challenge import run_challenge
from crayon_sdk.paper.datasets.backgrounds import IMAGENET_TO_NINE, NINE


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_backgrounds(tmp_path_factory.mktemp("in9"), train=1, test=2, variants=("mixed_same", "mixed_rand"))


def that_says(tiny_model, classes, number):
    """A model that names one class whatever it sees."""
    model = tiny_model(num_classes=classes)
    with torch.no_grad():
        model.get_classifier().bias.zero_()
        model.get_classifier().bias[number] = 1e4
    return SplitModel(model, preprocessing=SMALL)


@pytest.mark.parametrize(
    ("classes", "number", "right"),
    [(9, 4, "carnivore"), (1000, 270, "carnivore"), (1000, 0, "fish"), (1000, 999, None)],
)
def test_what_is_said_counts_in_nine_classes(tiny_model, data, classes, number, right):
    model = that_says(tiny_model, classes, number)
    found = run_challenge(model, data, strict=False, device="cpu")
    assert found.many_classes == (classes == 1000)
    for evaluation in found.variants.values():
        assert {group.name: group.accuracy for group in evaluation.groups} == {
            name: float(name == right) for name in NINE
        }
    assert found.background_gap == 0
    assert (right is None) == (classes == 1000 and number not in IMAGENET_TO_NINE)


def test_pictures_are_shown_whole_unless_told_otherwise(tiny_model):
    """They differ outside of the centre only, which is all that the model's own crop leaves."""
    pictures = torch.rand(18, 3, 1, 1, generator=torch.Generator().manual_seed(0)).round().expand(-1, -1, 64, 64)
    pictures = pictures.clone()
    pictures[:, :, 12:52, 12:52] = 0.5
    dataset = ImageDataset.from_torch([(each, n % 9) for n, each in enumerate(pictures)], class_names=NINE)
    model = SplitModel(tiny_model(num_classes=9), preprocessing=Preprocessing(size=(64, 64), crop_pct=0.5))
    variants = {"mixed_same": dataset, "mixed_rand": dataset}
    found = {own: run_challenge(model, variants, own_crop=own, device="cpu") for own in (False, True)}
    seen = {own: len(set(each.variants["mixed_rand"].predictions.values())) for own, each in found.items()}
    assert seen[True] == 1
    assert seen[False] > 1


def test_what_cannot_be_measured_is_said(tiny_model, data, tmp_path):
    with pytest.raises(SettingsError, match="nine classes of the challenge or of ImageNet's 1,000, got one of 2"):
        run_challenge(tiny_model(), data, strict=False)
    with pytest.raises(DataError, match="4,050 test pictures"):
        run_challenge(tiny_model(num_classes=9), data)
    shutil.copytree(data / "bg_challenge" / "mixed_rand", tmp_path / "mixed_rand")
    with pytest.raises(DataError, match="got no mixed_same"):
        run_challenge(tiny_model(num_classes=9), tmp_path, strict=False)


def test_the_command(data, tmp_path):
    model = save_model(tmp_path / "model", num_classes=9)
    typed = ["paper", "background-gap", str(model), "--data", str(data), "--partial", "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["background_gap"] == found["accuracy"]["mixed_same"] - found["accuracy"]["mixed_rand"]
    assert CliRunner().invoke(app, [each for each in typed if each != "--partial"]).exit_code == 3
