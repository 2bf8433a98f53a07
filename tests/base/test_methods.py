"""Methods by name: the package's own, and those that another package registers, through Python and the shell."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers_correction import half_and_half, noise_pictures, random_maps, split_model
from helpers_workspace import crayon, new_workspace, save_model

import crayon_sdk
from crayon_sdk._base.costs import cost_of, measured_with
from crayon_sdk._base.methods import _OWN, GROUP, SETTINGS, methods, paper_of, settings_of, title_of, with_settings
from crayon_sdk.correct.method import made
from crayon_sdk.errors import AnswerError, DataError, SettingsError
from crayon_sdk.workspace.workspace import Workspace

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOCAL = """
    from torch.nn.functional import cross_entropy

    from crayon_sdk.correct import Prediction
    from crayon_sdk.correct.method import Method, method
    from crayon_sdk.correct.settings import ERMSettings, settings


    @settings
    class FocalSettings(ERMSettings):
        gamma: float = 2.0
        \"\"\"How much hard samples count.\"\"\"


    class FocalLoss(Prediction):
        def __init__(self, model, labels, gamma):
            super().__init__(model, labels)
            self.gamma = gamma

        def forward(self, batch):
            each = cross_entropy(self.logits(batch), batch.labels, reduction="none")
            hard = (1 - (-each).exp()) ** self.gamma
            return {"loss": (hard * each).sum(), "groups": batch.groups.double().sum()}


    @method
    class Focal(Method[FocalSettings], FocalSettings):
        method, needs = "focal", frozenset({"groups"})

        def objective(self, model, feed, settings):
            return FocalLoss(model, feed.labels, settings.gamma)


    class Odd(Focal):
        method, needs = "odd", frozenset({"grups"})


    nothing = 3
"""
POINTS = """
    [crayon_sdk.methods]
    focal = focal_method:Focal
    odd = focal_method:Odd
    other_name = focal_method:Focal
    gone = focal_method:Gone
    number = focal_method:nothing
    missing = no_such_module_anywhere:Focal
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Another package: a module and what pip would write down about it, on sys.path."""
    place = tmp_path / "site"
    about = place / "focal_method-1.0.dist-info"
    about.mkdir(parents=True)
    (place / "focal_method.py").write_text(textwrap.dedent(FOCAL))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: focal-method\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(textwrap.dedent(POINTS))
    monkeypatch.syspath_prepend(str(place))
    yield place
    sys.modules.pop("focal_method", None)


def test_names_are_known_and_classes_are_looked_up():
    assert list(methods) == sorted(methods)
    assert {"attention", "both", "erm", "pruning"} <= set(methods)
    assert crayon_sdk.correct.methods is methods
    assert methods["erm"] is crayon_sdk.FurtherTraining
    assert methods["attention"] is crayon_sdk.AttentionCorrector
    for name, kind in methods.items():
        assert kind.method == name
    assert settings_of("erm")().epochs == 6
    assert settings_of("attention") is methods["attention"].settings_kind
    assert settings_of("pruning") is methods["pruning"].settings_kind


def test_methods_of_the_package_with_settings_are_known_without_importing_them(monkeypatch):
    monkeypatch.setitem(_OWN, "later", "no_such_module_anywhere:Later")
    assert with_settings()[: len(SETTINGS)] == tuple(SETTINGS)
    assert set(with_settings()) == set(methods) - {name for name in _OWN if name == "both"}
    with pytest.raises(SettingsError, match="method 'both' has no settings of its own"):
        settings_of("both")


def test_every_method_says_what_it_is_called_and_where_it_is_published(package):
    for name in _OWN:
        assert title_of(name) != name
        # Its name and a year, or nothing where it is of this package alone.
        assert re.fullmatch(r"[\w. &-]+, [\w ]+ \d{4}|", paper_of(name)), name
    assert (title_of("focal"), paper_of("focal")) == ("focal", "")
    assert (title_of("gone"), title_of("of nobody")) == ("gone", "of nobody")


def test_the_shell_lists_the_methods(package):
    result = crayon("methods", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["methods"]
    assert list(found) == list(methods)
    of_the_paper = ("waterbirds", "biased-celeba", "backgrounds")
    assert found["attention"] == {
        "title": "CRAYON-Attention",
        "paper": "Lee et al., IEEE BigData 2024",
        "needs": ["answers", "maps"],
        "cost": asdict(cost_of("attention")),
        "presets": [f"{name}{form}" for form in ("", "-release") for name in of_the_paper],
    }
    assert found["both"]["presets"] == found["pruning"]["presets"] == found["attention"]["presets"]
    assert found["focal"] == {"title": "focal", "paper": "", "needs": ["groups"], "cost": None, "presets": []}
    assert "cannot be imported" in found["gone"]["problem"]  # and the others are listed all the same
    shown = " ".join(crayon("methods").stdout.split())
    assert all(name in shown for name in _OWN)
    assert measured_with() in shown


def test_every_method_says_what_it_costs():
    """As the benchmark wrote it: whether the network is trained is known, and further training is the unit."""
    assert {name for name in _OWN if cost_of(name) is None} == set()
    assert cost_of("erm").step == 1
    last_layer = {"afr", "dfr", "dfr-tr", "evals", "pruning", "refit"}
    assert {name for name in _OWN if cost_of(name).step is None} == last_layer
    assert cost_of("erm").in_words == "1.00 a step"
    assert cost_of("dfr").in_words.endswith(" epochs in all")
    assert all(cost_of(name).whole > 0 for name in _OWN)
    assert cost_of("focal") is None


def test_unknown_names_name_the_nearest():
    with pytest.raises(SettingsError, match="there is no method called 'atention'; did you mean 'attention'"):
        methods["atention"]
    assert methods.get("atention") is None
    assert "atention" not in methods
    with pytest.raises(SettingsError, match="method 'both' has no settings of its own"):
        settings_of("both")


def test_another_package_registers_a_method(package):
    kind = methods["focal"]
    assert kind.__name__ == "Focal"
    assert "focal" in methods
    dataset = noise_pictures(8)
    found = kind(split_model(), epochs=1, batch_size=4, gamma=1.5, device="cpu").fit(dataset)
    assert (found.record.method, found.record.settings["gamma"]) == ("focal", 1.5)
    assert found.history[0]["groups"] == pytest.approx(float(dataset.group_index()[0].double().mean()))
    assert made("focal", split_model(), {"gamma": 3.0}).settings.gamma == 3.0
    with pytest.raises(SettingsError, match="no setting of Focal called 'gama'; did you mean 'gamma'"):
        made("focal", split_model(), {"gama": 3.0})
    with pytest.raises(SettingsError, match="method 'focal' has no presets"):
        made("focal", split_model(), preset="waterbirds")


def test_the_method_of_the_page_works():
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "own-method.md"
    text = page.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert code.count("\n") <= 40
    names = {"__name__": "page"}
    exec(compile(code, str(page), "exec", dont_inherit=True), names)
    found = names["Focal"](split_model(), gamma=1.5, epochs=1, batch_size=4, device="cpu").fit(noise_pictures(8))
    assert (found.record.method, found.record.settings["gamma"]) == ("focal", 1.5)
    entries = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])["project"]["entry-points"]
    assert entries == {GROUP: {"focal": "your_package.focal:Focal"}}


def test_it_is_gone_with_its_package():
    assert "focal" not in methods


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "method 'gone' .*cannot be imported: AttributeError"),
        ("missing", "method 'missing' .*cannot be imported: ModuleNotFoundError: No module named 'no_such_module"),
        ("number", "expected method 'number' .* to be a class with fit, method, needs and settings_kind"),
        ("other_name", "expected method 'other_name' .* to call itself that, got method = 'focal'"),
        ("odd", "there is no need called 'grups'; did you mean 'groups'"),
    ],
)
def test_what_is_no_method_is_refused(name, message, package):
    with pytest.raises(SettingsError, match=message):
        methods[name]


def test_two_packages_with_one_name_are_refused(package):
    about = package / "another-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[crayon_sdk.methods]\nfocal = another:Focal\nerm = another:Mine\n")
    with pytest.raises(SettingsError, match="several packages call a method 'focal': another:Focal, focal_method:F"):
        methods["focal"]
    assert methods["erm"] is crayon_sdk.FurtherTraining  # nobody takes a name of ours


def test_what_a_method_needs_is_asked_for_before_any_work(package, monkeypatch):
    monkeypatch.setattr("crayon_sdk.correct.method.Fit", None)
    monkeypatch.setattr("crayon_sdk.correct.method.PixelCache", None)
    bare = crayon_sdk.ImageDataset.from_torch([(noise_pictures(2).row(0, None), 0)] * 2, preprocessed=True)
    with pytest.raises(DataError, match="method 'focal' needs groups of the training pictures, and got none"):
        methods["focal"](split_model()).fit(bare)
    dataset = noise_pictures(8)
    corrector = crayon_sdk.AttentionCorrector(split_model())
    with pytest.raises(AnswerError, match="method 'attention' needs answers about pictures"):
        corrector.fit(dataset, random_maps(dataset), None)
    with pytest.raises(SettingsError, match="method 'attention' needs the maps that were answered"):
        corrector.fit(dataset, None, half_and_half(dataset))
    lacking = (
        ("masks", "needs object masks"),
        ("holdout", "needs pictures to evaluate on"),
        ("holdout groups", "needs groups of the pictures to evaluate on"),
    )
    for need, message in lacking:
        monkeypatch.setattr(methods["focal"], "needs", frozenset({need}))
        with pytest.raises((DataError, SettingsError), match=message):
            methods["focal"](split_model()).fit(dataset)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


def test_the_shell_takes_any_method(package, tmp_path, picture_folder, model_folder):
    place = tmp_path / "ws"
    new_workspace(place, picture_folder, model_folder)
    sets = ["--set", "focal.epochs=1", "--set", "focal.batch_size=8", "--set", "focal.gamma=1.5"]
    result = crayon("correct", place, "--method", "focal", *sets, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)["record"]
    assert (record["method"], record["settings"]["gamma"]) == ("focal", 1.5)
    given = {"epochs": 1, "batch_size": 8, "gamma": 1.5}
    assert Workspace(place).correct("focal", settings=given).record.created == record["created"]  # it is there

    (tmp_path / "crayon.toml").write_text("[erm]\nepochs = 1\n")
    result = crayon("correct", place, "--method", "erm", "--config", tmp_path / "crayon.toml")
    assert result.exit_code == 0, result.output
    assert len(Workspace(place).correction("erm").history) == 1
    status = {each.path: each for each in Workspace(place).status()}
    assert {status[f"corrections/{name}"].state for name in ("focal", "erm")} == {"fresh"}
    assert "--method focal --set focal.epochs=1" in status["corrections/focal"].run

    listed = crayon("correct", place, "--list-settings", "--json")
    assert listed.exit_code == 2  # of the methods that are registered above, some cannot be used
    (package / "focal_method-1.0.dist-info" / "entry_points.txt").write_text(
        "[crayon_sdk.methods]\nfocal = focal_method:Focal\n"
    )
    listed = json.loads(crayon("correct", place, "--list-settings", "--json").stdout)
    assert {"attention", "erm", "focal", "pruning"} <= set(listed)
    assert "gamma" in listed["focal"]

    for line, message in (
        (["--method", "focel"], "there is no method called 'focel'; did you mean 'focal'"),
        (["--method", "focal", "--set", "focal.gama=2"], "did you mean 'gamma'"),
        (["--method", "erm", "--set", "focal.gamma=2"], "has no effect on --method erm"),
        (["--method", "erm", "--set", "erm.lr=-1"], "expected erm.lr to be a number from 0"),
        (["--method", "erm", "--preset", "waterbirds", "--name", "x"], "has no presets"),
        (["--method", "attention"], "Run: crayon explain"),
    ):
        result = crayon("correct", place, *line)
        assert result.exit_code in (2, 3, 4), result.output
        assert message in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr


def test_a_workspace_whose_method_is_gone_says_so(package, tmp_path, picture_folder, model_folder, monkeypatch):
    workspace = new_workspace(tmp_path / "ws", picture_folder, model_folder)
    workspace.correct("focal", settings={"epochs": 1, "batch_size": 8})
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(package)])
    (found,) = (each for each in Workspace(tmp_path / "ws").status() if each.path == "corrections/focal")
    assert (found.state, found.reason[:35]) == ("stale", "there is no method called 'focal'; ")
    # What it made needs nothing of it.
    assert crayon_sdk.load_correction(tmp_path / "ws" / "corrections" / "focal").record.method == "focal"
