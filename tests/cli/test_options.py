"""Settings by name: one truth for the file, the options and the correctors."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import pytest

from crayon_sdk.cli.options import keys, merged, parse_assignments, read_config, sections
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.erm import FurtherTraining
from crayon_sdk.correct.method import made
from crayon_sdk.correct.presets import AFTER_PRUNING, ATTENTION, PRUNING
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.errors import FileFormatError, SettingsError
from crayon_sdk.workspace.manifest import DataSource, ModelSource
from crayon_sdk.workspace.serving import annotate
from crayon_sdk.workspace.workspace import Workspace

BESIDE = {"model", "device", "precision", "seed", "checkpoint_dir"}


@pytest.mark.parametrize(
    ("section", "corrector"), [("attention", AttentionCorrector), ("pruning", NeuronPruner), ("erm", FurtherTraining)]
)
def test_sections_are_the_keywords_of_the_correctors(section, corrector):
    parameters = inspect.signature(corrector).parameters
    assert set(keys(section)) == set(parameters) - BESIDE
    for name, setting in keys(section).items():
        assert parameters[name].default == setting.default
        assert setting.default is None or setting.sentence.endswith(f" Default {setting.default!r}.")
        assert f"\n    {name}: {setting.about}\n" in corrector.__doc__


@pytest.mark.parametrize(
    ("section", "method"),
    [
        ("explain", "explain"),
        ("simulate", "simulate_answers"),
        ("suggest", "suggest"),
        ("evaluate", "evaluate"),
        ("correct", "correct"),
        ("compare", "compare"),
        ("report", "report"),
    ],
)
def test_sections_are_the_keywords_of_the_workspace(section, method):
    parameters = inspect.signature(getattr(Workspace, method)).parameters
    for name, setting in keys(section).items():
        assert name in parameters
        assert parameters[name].default == setting.default


def test_the_section_annotate_is_the_keywords_of_the_app():
    parameters = inspect.signature(annotate).parameters
    assert set(keys("annotate")) == set(parameters) - {"workspace", "ready"}
    for name, setting in keys("annotate").items():
        assert parameters[name].default == setting.default


def test_the_section_init_has_the_defaults_of_the_sources():
    fields = {**DataSource.model_fields, **ModelSource.model_fields}
    same = keys("init").keys() & fields.keys()
    assert len(same) > 15
    for name in same:
        assert fields[name].default == keys("init")[name].default, name


def test_presets_are_exactly_the_published_ones(tiny_model):
    model = tiny_model()
    for name in ATTENTION:
        assert made("attention", model, preset=name).settings == AttentionCorrector.from_preset(name, model).settings
        after = made("attention", model, preset=name, after_pruning=True, seed=3).settings
        assert after == AttentionCorrector.from_preset(name, model, after_pruning=True, seed=3).settings
        assert made("pruning", model, preset=name).settings == NeuronPruner.from_preset(name, model).settings
    assert AFTER_PRUNING["backgrounds"] != ATTENTION["backgrounds"]
    assert set(PRUNING) == set(ATTENTION)


def test_values_on_top_of_a_preset(tiny_model):
    settings = made("attention", tiny_model(), {"epochs": 2}, preset="waterbirds").settings
    assert (settings.epochs, settings.alpha) == (2, 1e7)


def test_unknown_keyword_of_a_corrector(tiny_model):
    with pytest.raises(
        SettingsError, match=r"no setting of AttentionCorrector called 'epoch'; did you mean 'epochs'\?"
    ):
        made("attention", tiny_model(), {"epoch": 2})


def write(tmp_path, text):
    path = tmp_path / "crayon.toml"
    path.write_text(text)
    return path


def test_file_is_read_and_the_command_line_wins(tmp_path):
    config = read_config(write(tmp_path, '[explain]\nscore = "logit"\nbatch_size = 8\n[init]\ngroup_column = ["a"]\n'))
    assert config["explain"] == {"score": "logit", "batch_size": 8}
    chosen = merged("explain", config["explain"], {"batch_size": 16, "score": None})
    assert (chosen.batch_size, chosen.score) == (16, "logit")
    assert merged("init", config["init"], {}).group_column == ("a",)
    assert read_config(None) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[attention]\nepcohs = 3",
            r"crayon.toml: there is no setting in \[attention\] called 'epcohs'; did you mean 'epochs'\?",
        ),
        ("[atention]\n", r"there is no section called 'atention'; did you mean 'attention'\?"),
        ("[zzz]\n", "there is no section called 'zzz'; known: actdiff, afr, annotate"),
        ("explain = 3", r"expected a section \[explain\]"),
        ('[explain]\nbatch_size = "8"', r"expected explain.batch_size to be a whole number >= 1, got '8'"),
        ('[explain]\nscore = "odds"', r"expected explain.score to be one of margin, logit, got 'odds'"),
        ("[pruning]\nbatch_norm = 'frozen'", "no setting in .pruning. called 'batch_norm'"),
        ("[attention]\nseed = 1", "no setting in .attention. called 'seed'"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message):
        read_config(write(tmp_path, text))


def test_file_that_is_no_file(tmp_path):
    with pytest.raises(FileFormatError, match="is not a TOML file"):
        read_config(write(tmp_path, "a = ="))
    with pytest.raises(FileFormatError, match=r"cannot read .*No such file"):
        read_config(tmp_path / "missing.toml")


def test_assignments():
    found = parse_assignments(["attention.epochs=3", "attention.scheduler=step", 'pruning.optimizer="sgd"'])
    assert found == {"attention": {"epochs": 3, "scheduler": "step"}, "pruning": {"optimizer": "sgd"}}


@pytest.mark.parametrize("text", ["epochs=3", "attention.epochs", "explain.score=logit"])
def test_wrong_assignments(text):
    with pytest.raises(SettingsError, match=r"expected SECTION.KEY=VALUE"):
        parse_assignments([text])


def test_a_file_that_never_ends():
    with pytest.raises(FileFormatError, match="'/dev/zero' is longer than 1 MB"):
        read_config(Path("/dev/zero"))


@pytest.mark.parametrize("section", sections())
def test_every_number_has_a_range(section):
    """A setting that is a number has a least value; none takes what is none."""
    for name, setting in keys(section).items():
        kinds = _kinds(setting.hint)
        if kinds & {int, float} and bool not in kinds:
            for value in (-1, float("nan")) if float in kinds else (-1,):
                with pytest.raises(SettingsError, match=name):
                    merged(section, {name: value}, {})


def _kinds(hint):
    return {hint} if not get_args(hint) else {kind for each in get_args(hint) for kind in _kinds(each)}


def test_what_was_typed_is_named_as_it_was_typed():
    with pytest.raises(SettingsError, match=r"^expected --batch-size to be .* >= 1, got 0"):
        merged("explain", {}, {"batch_size": 0})
    with pytest.raises(SettingsError, match=r"^crayon.toml: expected explain.batch_size to be .* >= 1, got 0"):
        merged("explain", {"batch_size": 0}, {}, where="crayon.toml: ")
    with pytest.raises(SettingsError) as long:
        merged("explain", {"device": ["x" * 10**6]}, {})
    assert len(str(long.value)) < 400
