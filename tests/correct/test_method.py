"""A method takes its keywords, its documentation and its checks from the declaration of its settings."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from helpers_correction import half_and_half, noise_pictures, random_maps, split_model
from helpers_workspace import crayon
from pydantic import Field

from crayon_sdk._base.methods import SETTINGS, methods
from crayon_sdk._base.settings import settings
from crayon_sdk.cli.options import keys, parse_assignments, read_config
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.method import method
from crayon_sdk.correct.presets import ATTENTION, PRUNING
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.correct.settings import AttentionSettings, PruningSettings
from crayon_sdk.errors import SettingsError
from crayon_sdk.results.correction import load_correction

ROOT = Path(__file__).resolve().parents[2]
FAST = {"epochs": 1, "batch_size": 6, "background_swap": 0.0, "device": "cpu"}


@settings
class LoudSettings(AttentionSettings):
    """Attention with a volume."""

    volume: Annotated[float, Field(ge=0, le=11)] = 3.0
    """How loud it is said."""


@method
class LoudCorrector(AttentionCorrector, LoudSettings):
    """CRAYON-Attention, loud.

    Raises:
        SettingsError: It is too loud.
    """


@pytest.fixture
def loud(monkeypatch):
    """The one more setting as if it were declared in the package."""
    monkeypatch.setitem(SETTINGS, "attention", f"{__name__}:LoudSettings")


def test_a_new_setting_is_a_keyword():
    parameter = inspect.signature(LoudCorrector).parameters["volume"]
    assert (parameter.default, parameter.annotation, parameter.kind) == (3.0, float, parameter.KEYWORD_ONLY)
    assert "    volume: How loud it is said. A number from 0 to 11.\n" in inspect.getdoc(LoudCorrector)
    assert LoudCorrector(split_model(), volume=4).settings == LoudSettings(volume=4, background_swap=0.7)
    with pytest.raises(SettingsError, match="expected volume to be a number from 0 to 11, got 12"):
        LoudCorrector(split_model(), volume=12)


def test_a_new_setting_is_in_the_file(loud, tmp_path):
    path = tmp_path / "crayon.toml"
    path.write_text("[attention]\nvolume = 5")
    assert read_config(path) == {"attention": {"volume": 5}}
    assert parse_assignments(["attention.volume=5"]) == {"attention": {"volume": 5}}
    path.write_text("[attention]\nvolume = 12")
    with pytest.raises(SettingsError, match=r"crayon.toml: expected attention.volume to be a number from 0 to 11, got"):
        read_config(path)
    with pytest.raises(SettingsError, match="did you mean 'volume'"):
        parse_assignments(["attention.volum=5"])


def test_a_new_setting_is_in_the_help(loud):
    shown = " ".join(crayon("correct", "--help").stdout.split())
    assert "volume How loud it is said. A number from 0 to 11. Default 3.0." in shown
    assert "How loud it is said." in " ".join(crayon("correct", "--list-settings", "--json").stdout.split())
    assert "it is set with --set attention.volume=VALUE" in crayon("correct", "--volume", 3).stderr


def test_a_new_setting_is_on_the_page_of_the_reference():
    griffe = pytest.importorskip("griffe")
    extensions = griffe.load_extensions(str(ROOT / "docs" / "declared.py"))
    sys.modules.setdefault(__name__, sys.modules[LoudCorrector.__module__])
    page: Any = griffe.load(__name__, extensions=extensions, search_paths=[str(Path(__file__).parent)])
    parts = {part.kind.value: part.value for part in page["LoudCorrector"].docstring.parse("google")}
    shown = {each.name: each for each in parts["parameters"]}
    assert list(shown) == list(inspect.signature(LoudCorrector).parameters)
    assert (str(shown["volume"].annotation), shown["volume"].default) == ("float", "3.0")
    assert shown["volume"].description == "How loud it is said. A number from 0 to 11."
    assert "raises" in parts


def test_a_new_setting_is_in_the_record(loud, tmp_path):
    dataset = noise_pictures()
    made = LoudCorrector(split_model(), volume=4, **FAST).fit(dataset, random_maps(dataset), half_and_half(dataset))
    assert made.record.settings["volume"] == 4.0
    assert made.record.settings.keys() == {field.name for field in dataclasses.fields(LoudSettings)}
    assert load_correction(made.save(tmp_path / "made")).record == made.record


@pytest.mark.parametrize(
    ("corrector", "of_settings"), [(AttentionCorrector, AttentionSettings), (NeuronPruner, PruningSettings)]
)
def test_a_corrector_takes_every_setting_of_its_class(corrector, of_settings):
    parameters = inspect.signature(corrector).parameters
    assert next(iter(parameters)) == "model"
    beside = {"model": inspect.Parameter.empty, "device": "auto", "precision": "auto", "checkpoint_dir": None}
    assert {name: each.default for name, each in parameters.items()} == beside | {
        field.name: field.default for field in dataclasses.fields(of_settings)
    }
    doc = inspect.getdoc(corrector)
    assert all(f"    {name}: " in doc.partition("Args:")[2] for name in parameters)
    made = corrector(split_model())
    assert made.settings == dataclasses.replace(of_settings(), **_of_the_model(made))


def _of_the_model(made):
    return {"background_swap": 0.7} if isinstance(made, AttentionCorrector) else {}


def test_a_corrector_is_what_counts():
    model = split_model()
    made = AttentionCorrector(model, alpha=3, device="cpu")
    assert (made.alpha, made.background_swap, made.settings.alpha) == (3.0, 0.7, 3.0)
    assert (made.model, str(made.device), made.autocast, made.checkpoint_dir) == (model, "cpu", None, None)
    assert repr(made) == "AttentionCorrector(test_resnet, alpha=3.0, beta=1000.0, epochs=6, lr=0.0001, on cpu)"
    assert made != AttentionCorrector(model, alpha=3, device="cpu")
    again = dataclasses.replace(made, model=split_model(1), beta=4.0, checkpoint_dir="run")
    assert again.settings == dataclasses.replace(made.settings, beta=4.0)
    assert again.checkpoint_dir == "run"
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.alpha = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("corrector", [AttentionCorrector, NeuronPruner])
def test_a_keyword_that_does_not_exist(corrector):
    message = f"there is no setting of {corrector.__name__} called 'epoch'; did you mean 'epochs'"
    with pytest.raises(SettingsError, match=message):
        corrector(split_model(), epoch=2)
    with pytest.raises(SettingsError, match=message):
        corrector.from_preset("waterbirds", split_model(), epoch=2)


def test_values_on_top_of_a_preset():
    model = split_model()
    attention = AttentionCorrector.from_preset("waterbirds", model, epochs=2, seed=3, device="cpu")
    assert attention.settings == dataclasses.replace(ATTENTION["waterbirds"], epochs=2, seed=3)
    pruning = NeuronPruner.from_preset("waterbirds", model, lr=0.5)
    assert pruning.settings == dataclasses.replace(PRUNING["waterbirds"], lr=0.5)


def test_what_depends_on_the_model_is_filled_in_and_checked():
    model = split_model()
    assert AttentionCorrector(model, background_swap=0.25).settings.background_swap == 0.25
    with pytest.raises(SettingsError, match="class index from 0 to 1, got 2"):
        AttentionCorrector(model, target=2)


def test_sections_have_what_is_not_set_for_all_methods():
    assert "seed" not in keys("attention")
    assert keys("attention").keys() | {"seed"} == {field.name for field in dataclasses.fields(AttentionSettings)}


@pytest.mark.parametrize("name", ["cnc", "flac", "lc", "softcon", "lff", "groupdro"])
def test_a_method_that_takes_whole_batches_says_why(name):
    with pytest.raises(SettingsError, match=f"expected accumulate=1 for method '{name}', got 2: .* the whole batch"):
        methods[name](split_model(), accumulate=2)
    made = methods[name](split_model())
    assert made.settings.auto_batch_size is False
    assert methods["erm"](split_model(), accumulate=2).settings.auto_batch_size is True
    assert not made.alone or made.whole_batch == made.alone


def test_gradia_takes_whole_batches_where_it_counts_in_them():
    kind = methods["gradia"]
    assert kind(split_model(), accumulate=2).settings.accumulate == 2
    with pytest.raises(SettingsError, match="per_batch=True weighs by how many pictures of the whole batch count"):
        kind(split_model(), accumulate=2, per_batch=True)
