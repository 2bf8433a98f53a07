"""RRR, GradMask, ActDiff and Bounding Box: what they share, and what is each one's own."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_pictures
from helpers_objects import small_network, tagged_pictures

import crayon_sdk as crayon
from crayon_sdk.correct import methods
from crayon_sdk.correct.baselines.actdiff import ActDiff
from crayon_sdk.correct.objective import PixelFeed
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.models.split import SplitModel

FAST = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "device": "cpu"}
NAMES = ("rrr", "gradmask", "actdiff", "boundingbox")
every = pytest.mark.parametrize("name", NAMES)


def weights(found):
    return torch.cat([tensor.double().flatten() for _, tensor in sorted(found.model.plain_state_dict().items())])


def objective_of(name, dataset, model=None, **settings):
    """The objective in train mode, and all pictures as a batch."""
    model = model or small_network(dataset.num_classes)
    method = methods[name](model, device="cpu", **settings)
    cache = PixelCache(dataset, dataset.preprocessing)
    feed = PixelFeed(cache, dataset.labels, masks=dataset.mask_tensors(dataset.preprocessing))
    return method.objective(model.train(), feed, method.settings), feed.batch(torch.arange(len(dataset)))


@every
def test_without_weight_it_is_further_training_byte_for_byte(name):
    dataset, model = tagged_pictures(10), small_network()
    plain = methods["erm"](model, **FAST).fit(dataset)
    found = methods[name](model, weight=0.0, **FAST).fit(dataset)
    assert found.record.corrected == plain.record.corrected
    assert [each["loss"] for each in found.history] == [each["loss"] for each in plain.history]
    weighed = methods[name](model, weight=1.0, **FAST).fit(dataset)
    assert weighed.record.corrected != plain.record.corrected
    assert {"prediction", "penalty"} <= weighed.history[0].keys()


@every
def test_three_classes_a_batch_of_one_and_pictures_without_a_mask(name):
    dataset = tagged_pictures(9, classes=3, unmasked=(0, 4))
    found = methods[name](small_network(3), **FAST | {"batch_size": 1}).fit(dataset)
    assert found.record.counts["masks"] == 7
    objective, batch = objective_of(name, dataset)
    logits, penalties = objective.penalised(batch)
    assert logits.shape == (9, 3)
    assert penalties[[0, 4]].tolist() == [0.0, 0.0]
    assert bool((penalties[[1, 2, 3, 5, 6, 7, 8]] > 0).all())
    objective(batch)["loss"].backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in objective.parameters())


@every
def test_a_class_that_is_in_no_batch(name):
    dataset = tagged_pictures(8, classes=2)
    found = methods[name](small_network(3), **FAST).fit(dataset.with_classes(("c0", "c1", "c2"), {"c0": 0, "c1": 1}))
    assert weights(found).isfinite().all()


@every
def test_what_it_needs_is_asked_for_before_any_work(name, monkeypatch):
    monkeypatch.setattr("crayon_sdk.correct.method.PixelCache", None)
    with pytest.raises(DataError, match=f"method '{name}' needs object masks of the training pictures, and got none"):
        methods[name](small_network(), **FAST).fit(tagged_pictures(4, masks=False))
    with pytest.raises(DataError, match="expected masks that show an object in some of 4 samples"):
        methods[name](small_network(), **FAST).fit(tagged_pictures(4, unmasked=range(4)))
    with pytest.raises(SettingsError, match="no setting of"):
        methods[name](small_network(), wieght=1.0)


@every
def test_one_seed_one_result_and_a_stopped_run_goes_on(name, tmp_path, monkeypatch):
    dataset = tagged_pictures(8)

    def fit(folder=None, seed=0):
        return methods[name](small_network(), **FAST, seed=seed, checkpoint_dir=folder).fit(dataset)

    whole = fit()
    assert fit().record.corrected == whole.record.corrected != fit(seed=1).record.corrected
    real, steps = torch.optim.Adam.step, []

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == 4:
            raise ZeroDivisionError
        return real(self, *arguments)

    monkeypatch.setitem(RunFile.__init__.__kwdefaults__, "every_seconds", 0.0)
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path)
    monkeypatch.setattr(torch.optim.Adam, "step", real)
    assert fit(tmp_path).record.corrected == whole.record.corrected


@every
def test_card_and_report_name_method_and_paper(name, tmp_path):
    kind = methods[name]
    found = kind(small_network(), **FAST).fit(tagged_pictures(8), tagged_pictures(8, seed=1))
    assert kind.title in repr(found.card()) or kind.title in str(found.card())
    assert kind.paper in str(found.card())
    page = found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert kind.title in page
    assert kind.paper in page


@pytest.mark.parametrize("name", ["rrr", "gradmask", "boundingbox"])
def test_sums_weigh_alike_in_all_batches_where_the_published_form_does_not(name):
    dataset, model = tagged_pictures(12), small_network().eval()
    for per_batch in (False, True):
        objective, batch = objective_of(name, dataset, copy.deepcopy(model), per_batch=per_batch, weight=100.0)
        objective.eval()  # so that parts of a batch are alike
        whole = objective(batch)["loss"]
        feed = PixelFeed(PixelCache(dataset, dataset.preprocessing), dataset.labels, masks=batch.masks)
        halves = sum(objective(feed.batch(rows))["loss"] for rows in torch.arange(12).split(6))
        assert torch.allclose(halves, whole, rtol=1e-4) is (not per_batch)
        if per_batch:
            found = objective(batch)
            expected = found["prediction"] + 1200 * found["penalty"]
            torch.testing.assert_close(whole, expected)


def test_a_compiled_trunk_is_refused_where_it_is_differentiated_twice():
    model = small_network()
    model.compile_trunk = True
    for name in ("rrr", "gradmask"):
        with pytest.raises(SettingsError, match="load the model with compile=False"):
            methods[name](model)
    methods["actdiff"](model)


def test_a_margin_takes_two_classes():
    with pytest.raises(SettingsError, match="class"):
        methods["gradmask"](small_network(1))


@pytest.mark.parametrize("passes", ["apart", "both", "together"])
def test_shuffled_pictures_leave_the_running_statistics_alone_unless_they_are_asked_to(passes):
    dataset = tagged_pictures(8)
    objective, batch = objective_of("actdiff", dataset, passes=passes, weight=1.0)
    plain = copy.deepcopy(objective.model)
    norm, other = (
        next(m for m in each.modules() if isinstance(m, torch.nn.BatchNorm2d)) for each in (objective.model, plain)
    )
    torch.manual_seed(0)
    objective(batch)
    plain(batch.images)
    assert torch.allclose(norm.running_mean, other.running_mean) is (passes == "apart")
    assert norm.momentum == other.momentum


def test_the_published_weight_of_actdiff_is_a_switch():
    dataset = tagged_pictures(8)
    losses = {}
    for unscaled in (False, True):
        for weight in (0.5, 2.0):
            objective, batch = objective_of("actdiff", dataset, unscaled=unscaled, weight=weight)
            torch.manual_seed(0)
            found = objective(batch)
            losses[unscaled, weight] = (found["loss"] - found["prediction"]).item()
    assert losses[True, 0.5] == pytest.approx(losses[True, 2.0], rel=1e-4)
    assert losses[False, 2.0] == pytest.approx(4 * losses[False, 0.5], rel=1e-4)
    assert losses[True, 2.0] == pytest.approx(losses[False, 2.0] / 2, rel=1e-4)


def test_presets_are_those_of_crayons_authors():
    for name, data, expected in (
        ("rrr", "waterbirds", {"weight": 200.0, "lr": 5e-5, "epochs": 10, "batch_size": 128}),
        ("rrr", "biased-celeba", {"weight": 25000.0, "lr": 5e-6, "epochs": 5, "batch_size": 64}),
        ("rrr", "backgrounds", {"weight": 0.1, "lr": 1e-5, "batch_size": 256}),
        ("gradmask", "biased-celeba", {"lr": 5e-6}),
        ("actdiff", "waterbirds", {"weight": 0.1, "lr": 5e-5}),
        ("actdiff", "biased-celeba", {"weight": 1e-5, "lr": 5e-5}),
        ("actdiff", "backgrounds", {"weight": 1e-2, "lr": 1e-5}),
        ("boundingbox", "backgrounds", {"lr": 1e-5, "weight": 1e-3, "per_batch": True}),
    ):
        settings = methods[name].from_preset(data, small_network()).settings
        assert {key: getattr(settings, key) for key in expected} == expected
        assert (settings.optimizer, settings.weight_decay, settings.scheduler) == ("adam", 1e-4, "none")
    with pytest.raises(SettingsError, match="expected a preset of waterbirds, biased-celeba, backgrounds, got 'x'"):
        ActDiff.from_preset("x", small_network())


def test_a_timm_model_and_a_saved_result(tiny_model, tmp_path):
    """From the pixels of files on, with masks of a table."""
    model = SplitModel(tiny_model(), preprocessing=crayon.Preprocessing(size=(64, 64)))
    table = make_pictures(tmp_path / "pictures") / "metadata.csv"
    dataset = crayon.ImageDataset.from_csv(table, split="train", group_columns=["place"])
    for name in NAMES:
        found = methods[name](model, epochs=1, batch_size=8, device="cpu").fit(dataset)
        loaded = crayon.load_correction(found.save(tmp_path / name))
        assert (loaded.record.method, loaded.record.counts["masks"]) == (name, 16)
