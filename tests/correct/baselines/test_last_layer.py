"""DFR, loss-based sampling and AFR: a last layer from pictures that the network has not seen."""

from __future__ import annotations

import pytest
import torch
from helpers_objects import SMALL, small_network, tagged_pictures
from helpers_workspace import new_workspace, save_model
from torch import nn

import crayon_sdk as crayon
from crayon_sdk.correct import methods
from crayon_sdk.correct.baselines.afr import AFRSettings, AutomaticFeatureReweighting
from crayon_sdk.correct.baselines.held_out import put_last_layer
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.errors import DataError, MismatchError, SettingsError, UnsupportedModelError
from crayon_sdk.functional.robust import balanced_rows, error_weights, sparse_logistic
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.models.split import SplitModel

REFITS = ("dfr", "dfr-tr", "evals")


def fitted(name, model, dataset=None, held_out=None, **settings):
    kind = methods[name]
    given = {"evaluate_on": held_out or tagged_pictures(40, seed=1)} if "holdout" in kind.needs else {}
    return kind(model, device="cpu", **settings).fit(dataset or tagged_pictures(40), **given)


@pytest.mark.parametrize("name", [*REFITS, "afr"])
def test_nothing_changes_but_the_last_layer(name, tmp_path):
    model = small_network()
    before = model.fingerprint
    found = fitted(name, model)
    assert model.fingerprint == before
    for key, tensor in found.model.plain_state_dict().items():
        same = torch.equal(tensor, model.plain_state_dict()[key])
        assert same is ("head" not in key), key
    found.save(tmp_path / "saved")
    loaded = crayon.load_correction(tmp_path / "saved", model=small_network())
    assert (loaded.record.method, loaded.record.counts) == (name, found.record.counts)
    kind = methods[name]
    assert kind.paper in str(loaded.card())
    page = loaded.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert kind.title in page
    assert fitted(name, model).record.corrected == found.record.corrected


def test_the_layer_is_folded_back_so_that_it_takes_raw_neurons():
    """The same predictions as of the standardised regression, and the means of several draws."""
    model, train, held_out = small_network(), tagged_pictures(60), tagged_pictures(30, seed=1, follows=0.8)
    found = fitted("dfr", model, train, held_out, strength=0.5, repeats=3, seed=7)

    def neurons(dataset):
        images = torch.stack([dataset.row(position, SMALL) for position in range(len(dataset))])
        with torch.no_grad():
            return images, model.penultimate(model.features(images)).double()

    _, rows = neurons(train)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0)
    deviation[deviation == 0] = 1
    images, rows = neurons(held_out)
    generator, groups = torch.Generator().manual_seed(7), held_out.group_index()[0]
    layers = []
    for _ in range(3):
        drawn = balanced_rows(groups, generator)
        layers.append(sparse_logistic((rows[drawn] - mean) / deviation, held_out.labels[drawn], 2, 0.5))
    weight, bias = (sum(each) / 3 for each in zip(*layers, strict=True))
    expected = (rows - mean) / deviation @ weight.T + bias
    with torch.no_grad():
        torch.testing.assert_close(found.model(images).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", REFITS)
def test_the_strength_that_was_chosen_is_written_down(name):
    found = fitted(name, small_network())
    assert found.record.settings["strength"] in (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
    again = fitted(name, small_network(), strength=0.2)
    assert again.record.settings["strength"] == 0.2
    assert again.history == ()


@pytest.mark.parametrize("name", REFITS)
def test_more_classes_cut_neurons_and_two_layers(name):
    model = small_network(3)
    keep = torch.ones(16, dtype=torch.bool)
    keep[[2, 5]] = False
    model.prune(keep)
    found = fitted(name, model, tagged_pictures(90, classes=3), tagged_pictures(90, classes=3, seed=1), strength=1.0)
    assert found.record.pruned_neurons == (2, 5)
    assert not found.model.classifier.weight[:, [2, 5]].any()
    images = torch.randn(4, 3, 32, 32)
    assert found.model(images).isfinite().all()


def test_a_distilled_model_with_two_heads():
    model = SplitModel(crayon.load_model("levit_conv_128s", pretrained=False, num_classes=2).model)
    assert len(model.final_layers) == 2
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(2, 2 * model.num_neurons, generator=generator), torch.tensor([1.0, -1.0])
    put_last_layer(model, weight, bias)
    inputs = [torch.randn(3, model.num_neurons, generator=generator) for _ in range(2)]
    with torch.no_grad():
        found = apply_final_layers(list(model.final_layers), inputs)
    torch.testing.assert_close(found, torch.cat(inputs, dim=1) @ weight.T + bias, rtol=1e-4, atol=1e-3)


def test_what_they_need():
    model, train, held_out = small_network(), tagged_pictures(8, groups=False), tagged_pictures(8, groups=False)
    for name in ("dfr", "evals", "afr"):
        with pytest.raises(SettingsError, match=f"method '{name}' needs pictures to evaluate on, and got none"):
            methods[name](model, device="cpu").fit(train)
    with pytest.raises(DataError, match="method 'dfr' needs groups of the pictures to evaluate on, and got none"):
        methods["dfr"](model, device="cpu").fit(train, held_out)
    with pytest.raises(DataError, match="method 'dfr-tr' needs groups of the training pictures, and got none"):
        methods["dfr-tr"](model, device="cpu").fit(train, held_out)
    with pytest.raises(
        DataError, match=r"expected a picture or more with share=0\.1 of the smallest class, which has 4"
    ):
        methods["evals"](model, device="cpu").fit(train, held_out)
    lacking = tagged_pictures(40, seed=1)
    lacking = lacking.subset([name for name, label in zip(lacking.ids, lacking.labels, strict=True) if label == 0])
    for name in ("dfr", "evals"):
        with pytest.raises(
            DataError, match=r"expected pictures of all 2 classes .* got none of 1 \(the first is 'c1'\)"
        ):
            methods[name](model, device="cpu").fit(train, lacking)
    single = tagged_pictures(4, seed=1)
    with pytest.raises(DataError, match="expected two pictures or more of some group to choose strength by"):
        methods["dfr"](model, device="cpu").fit(train, single)
    assert methods["dfr"](model, device="cpu", strength=0.3).fit(train, single).record.counts["of_each_group"] == 1


def test_a_last_layer_without_biases_is_refused():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2, bias=False))
    model = SplitModel(trunk=nn.Conv2d(3, 4, 3, 4, 1), head=head, preprocessing=SMALL)
    with pytest.raises(UnsupportedModelError, match="expected a last layer with biases"):
        fitted("dfr", model)


def test_held_out_pictures_measure_nothing():
    for name in ("dfr", "evals", "afr"):
        found = fitted(name, small_network())
        assert (found.before, found.after) == (None, None)
    measured = methods["dfr-tr"](small_network(), device="cpu").fit(tagged_pictures(40), tagged_pictures(40, seed=1))
    assert measured.after is not None


def test_one_step_of_afr_is_the_published_one():
    model, held_out = small_network(), tagged_pictures(20, seed=1)
    found = fitted("afr", model, held_out=held_out, epochs=2, gamma=3.0, pull=0.5, lr=0.1)
    images = torch.stack([held_out.row(position, SMALL) for position in range(20)])
    layer = nn.Linear(16, 2)
    layer.load_state_dict(model.classifier.state_dict())
    start = [each.detach().clone() for each in layer.parameters()]
    with torch.no_grad():
        rows = model.penultimate(model.features(images))
        weights = error_weights(layer(rows), held_out.labels, 3.0)
    for _ in range(2):
        loss = (weights * nn.functional.cross_entropy(layer(rows), held_out.labels, reduction="none")).sum()
        loss = loss + 0.5 * sum(
            (now - then).square().sum() for now, then in zip(layer.parameters(), start, strict=True)
        )
        slopes = torch.autograd.grad(loss, list(layer.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(layer.parameters(), slopes, strict=True):
                parameter -= 0.1 * slope
    torch.testing.assert_close(found.model.classifier.weight, layer.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.model.classifier.bias, layer.bias, rtol=1e-4, atol=1e-6)


def test_afr_pulls_back_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    model = small_network()

    def moved(**settings):
        weight = fitted("afr", model, **settings).model.classifier.weight
        return (weight - model.classifier.weight).norm().item()

    assert moved(pull=5.0) < 0.5 * moved()
    whole = fitted("afr", model, epochs=6)
    real, steps = torch.optim.SGD.step, []

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == 4:
            raise ZeroDivisionError
        return real(self, *arguments)

    monkeypatch.setitem(RunFile.__init__.__kwdefaults__, "every_seconds", 0.0)
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(ZeroDivisionError):
        fitted("afr", model, epochs=6, checkpoint_dir=tmp_path)
    monkeypatch.setattr(torch.optim.SGD, "step", real)
    with pytest.raises(MismatchError, match="held_out"):
        fitted("afr", model, epochs=6, checkpoint_dir=tmp_path, held_out=tagged_pictures(41, seed=2))
    assert fitted("afr", model, epochs=6, checkpoint_dir=tmp_path).record.corrected == whole.record.corrected
    assert AutomaticFeatureReweighting.presets["waterbirds-own"] == AFRSettings(gamma=14.0, pull=0.2)


def test_a_workspace_learns_from_val_and_never_from_test(tmp_path, picture_folder):
    workspace = new_workspace(tmp_path / "ws", picture_folder, save_model(tmp_path / "m"), group_columns=("place",))
    with pytest.raises(
        SettingsError, match="method 'afr' learns from the pictures to evaluate on, and may not from the"
    ):
        workspace.correct("afr", evaluate_on="test")
    with pytest.raises(SettingsError, match="method 'dfr' needs pictures to evaluate on"):
        workspace.correct("dfr")
    found = workspace.correct("dfr-tr", settings={"strength": 0.3})
    assert found.record.method == "dfr-tr"
    assert workspace.correct("groupdro", settings={"epochs": 1, "batch_size": 8}).record.counts["groups"] == 4
    assert workspace.correct("rrr", settings={"epochs": 1, "batch_size": 8}).record.counts["masks"] == 16
    states = {each.path: each.state for each in workspace.status()}
    assert {states[f"corrections/{name}"] for name in ("dfr-tr", "groupdro", "rrr")} == {"fresh"}
    assert set(workspace.evaluate(split="test")) == {"original", "dfr-tr", "groupdro", "rrr"}
