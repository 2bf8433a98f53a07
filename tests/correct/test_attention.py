from __future__ import annotations

import copy
import dataclasses
import math
import warnings

import pytest
import timm
import torch
from helpers_correction import (
    SMALL,
    half_and_half,
    image_answers,
    neuron_answers,
    noise_pictures,
    random_maps,
    split_model,
)
from torch.nn import functional as F  # noqa: N812

from crayon_sdk._base.files import read_tensors
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.presets import AFTER_PRUNING, ATTENTION
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import (
    AnswerError,
    DataError,
    MismatchError,
    NonFiniteLossError,
    SettingsError,
    UnsupportedModelError,
)
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.masks import highlight_share
from crayon_sdk.functional.losses import attention_loss
from crayon_sdk.functional.saliency import normalize_maps
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.comparison import compare
from crayon_sdk.results.evaluation import evaluate

PLAIN = {
    "epochs": 2,
    "batch_size": 5,
    "lr": 1e-3,
    "scheduler": "none",
    "warmup_epochs": 0.0,
    "average_decay": 0.0,
    "background_swap": 0.0,
    "logit_adjustment": 0.0,
    "alpha": 10.0,
    "beta": 5.0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return noise_pictures(12)


def fit(model, dataset, *, maps=None, answers=None, **settings):
    corrector = AttentionCorrector(model, **PLAIN | settings)
    return corrector.fit(dataset, maps or random_maps(dataset), answers or half_and_half(dataset))


def weights(correction):
    return correction.model.plain_state_dict()


def assert_equal_states(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def assert_close_states(found, expected, atol):
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=atol, msg=lambda text: f"{name}: {text}")  # noqa: B023


def inputs_of(dataset):
    return torch.stack([dataset.row(position, None) for position in range(len(dataset))])


@pytest.mark.parametrize("area_normalized", [False, True])
@pytest.mark.parametrize("target", ["label", "predicted", 1])
def test_loss_of_one_step_is_equation_4(dataset, area_normalized, target):
    model, maps = split_model(), random_maps(dataset)
    settings = {"epochs": 1, "batch_size": 12, "area_normalized": area_normalized, "target": target, "spread": "never"}
    found = fit(model, dataset, maps=maps, **settings).history[0]
    # The same by hand: pooling and one linear layer have a closed form, w_k = W_yk / (h w).
    module = copy.deepcopy(model).train()
    features = module.features(inputs_of(dataset))
    logits = module.head(features)
    chosen = {"label": dataset.labels, "predicted": logits.argmax(1)}.get(target, torch.ones(12, dtype=torch.int64))
    cams = torch.relu(torch.einsum("nk,nkhw->nhw", module.classifier.weight[chosen] / 4, features))
    current = normalize_maps(cams)
    relevant, irrelevant = range(0, 12, 4), range(1, 12, 4)
    expected = F.cross_entropy(logits, dataset.labels, reduction="sum").item()
    for rows, weight, region in ((relevant, 10.0, 1 - maps.values), (irrelevant, 5.0, maps.values)):
        for row in rows:
            overlap = (current[row] * region[row]).sum().item()
            expected += weight / 3 * (overlap / region[row].sum().item() if area_normalized else overlap)
    assert found["loss"] * 12 == pytest.approx(expected, rel=1e-5)
    masks = [torch.tensor([row in rows for row in range(12)]) for rows in (relevant, irrelevant)]
    function = attention_loss(
        logits,
        dataset.labels,
        current,
        maps.values,
        *masks,
        alpha=10.0,
        beta=5.0,
        num_relevant=3,
        num_irrelevant=3,
        area_normalized=area_normalized,
    )
    assert found["loss"] * 12 == pytest.approx(function.item(), rel=1e-5)
    assert found["loss"] == pytest.approx(found["prediction"] + found["guidance"], rel=1e-6)


def test_without_weights_it_is_plain_fine_tuning(dataset):
    found = fit(split_model(), dataset, alpha=0.0, beta=0.0, weight_decay=1e-4)
    module = copy.deepcopy(split_model()).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=1e-4)
    inputs = inputs_of(dataset)
    for epoch in range(2):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(4):  # 12 samples in at most 5 at a time: three even batches
            optimizer.zero_grad()
            F.cross_entropy(module(inputs[batch]), dataset.labels[batch], reduction="sum").backward()
            optimizer.step()
    assert_close_states(weights(found), module.plain_state_dict(), 1e-6)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_logit_adjustment_raises_the_loss_of_rare_classes(dataset, strength):
    few = dataset.subset([name for position, name in enumerate(dataset.ids) if position % 2 == 0 or position == 1])
    settings = {"alpha": 0.0, "beta": 0.0, "epochs": 1, "batch_size": 7, "logit_adjustment": strength}
    found = fit(split_model(), few, answers=image_answers({"s0": "yes"}), **settings).history[0]
    with torch.no_grad():
        logits = copy.deepcopy(split_model()).train()(inputs_of(few)).double()
    expected = 0.0
    for row, label in zip(logits, few.labels.tolist(), strict=True):  # six of "a", one of "b"
        weights = [math.exp(row[k]) * share**strength for k, share in enumerate((6 / 7, 1 / 7))]
        expected -= math.log(weights[label] / sum(weights))
    assert found["prediction"] * 7 == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("score", ["logit", "margin"])
def test_maps_in_training_are_made_like_the_answered_ones(dataset, score):
    maps = dataclasses.replace(random_maps(dataset), score=score)
    found = fit(split_model(), dataset, maps=maps)
    assert found.record.settings["score"] == score
    assert_equal_states(weights(found), weights(fit(split_model(), dataset, maps=maps, score=score)))
    other = {"logit": "margin", "margin": "logit"}[score]
    assert fit(split_model(), dataset, maps=maps, score=other).history != found.history


def test_margin_of_a_single_class_is_refused():
    one = noise_pictures(4)
    one = one.with_classes(one.class_names, dict.fromkeys(one.class_names, 0))
    model = SplitModel(timm.create_model("test_resnet.r160_in1k", num_classes=1), preprocessing=SMALL)
    maps = dataclasses.replace(random_maps(one), score="margin")
    with pytest.raises(SettingsError, match="only one class"):
        fit(model, one, maps=maps)


def test_unguided_samples_count_in_the_prediction_only(dataset):
    plain = random_maps(dataset)
    other = dataclasses.replace(plain, values=plain.values.clone())
    unguided = [row for row in range(12) if row % 4 in (2, 3)]  # mixed, and not answered
    other.values[unguided] = random_maps(dataset, seed=9).values[unguided]
    one, two = (fit(split_model(), dataset, maps=maps) for maps in (plain, other))
    assert_equal_states(weights(one), weights(two))
    fewer = image_answers({name: word for name, word in zip(dataset.ids, ["yes", "no", None, None] * 3) if word})  # noqa: B905
    assert_equal_states(weights(one), weights(fit(split_model(), dataset, maps=plain, answers=fewer)))
    guided = dataclasses.replace(plain, values=random_maps(dataset, seed=9).values)
    assert not torch.equal(weights(one)["fc.weight"], weights(fit(split_model(), dataset, maps=guided))["fc.weight"])


def test_zero_maps_are_skipped_or_kept(dataset):
    maps = random_maps(dataset)
    maps.evidence[0], maps.values[0] = False, 1.0
    skipped, kept = (fit(split_model(), dataset, maps=maps, zero_maps=choice) for choice in ("skip", "keep"))
    assert (skipped.record.counts["relevant"], skipped.record.counts["without_evidence"]) == (2, 1)
    assert (kept.record.counts["relevant"], kept.record.counts["without_evidence"]) == (3, 0)
    assert not torch.equal(weights(skipped)["fc.weight"], weights(kept)["fc.weight"])
    assert skipped.record.settings["zero_maps"] == "skip"


def test_frozen_batch_norm_keeps_the_statistics(dataset):
    model = split_model()
    before = model.plain_state_dict()
    for choice, same in (("frozen", True), ("train", False)):
        after = weights(fit(model, dataset, batch_norm=choice))
        statistics = [name for name in after if "running" in name or "num_batches" in name]
        assert statistics
        assert all(torch.equal(after[name], before[name]) for name in statistics) is same
        assert not torch.equal(after["fc.weight"], before["fc.weight"])


def test_maps_of_another_architecture_guide(dataset):
    other = SplitModel(split_model(3, "mobilenetv3_small_050").model, preprocessing=SMALL)
    maps = Explainer(other, device="cpu").explain(dataset)
    maps = dataclasses.replace(maps, evidence=torch.ones(12, dtype=torch.bool)).resize(5, 3)
    answers = image_answers({"s0": "yes", "s1": "no"}, model=other.fingerprint)
    found = fit(split_model(), dataset, maps=maps, answers=answers, epochs=1)
    assert (found.record.counts["relevant"], found.record.counts["irrelevant"]) == (1, 1)
    assert found.record.maps == maps.fingerprint


def test_guidance_falls_on_pictures(picture_folder):
    train = ImageDataset.from_csv(picture_folder / "metadata.csv", split="train", preprocessing=SMALL)
    model = split_model()
    maps = Explainer(model, device="cpu").explain(train)
    shares = highlight_share(maps, train)
    order = sorted(shares, key=shares.__getitem__)
    answers = image_answers(dict.fromkeys(order[:6], "no") | dict.fromkeys(order[-6:], "yes"))
    found = fit(model, train, maps=maps, answers=answers, epochs=8, batch_size=8, alpha=100.0, beta=100.0)
    losses = [entry["guidance"] for entry in found.history]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["waterbirds", "biased-celeba", "backgrounds"])
@pytest.mark.parametrize("after_pruning", [False, True])
def test_presets_arrive_in_the_corrector(name, after_pruning):
    corrector = AttentionCorrector.from_preset(name, split_model(), after_pruning=after_pruning, seed=3)
    table = AFTER_PRUNING if after_pruning else ATTENTION
    assert corrector.settings == dataclasses.replace(table[name], seed=3)


def test_preset_that_does_not_exist():
    with pytest.raises(SettingsError, match="expected a preset of waterbirds"):
        AttentionCorrector.from_preset("cub", split_model())


def ordinary(model):
    return model


def frozen(model):
    return model.requires_grad_(False)


def half(model):
    return model.half()


def train_mode(model):
    model.train()
    model.model.layer1.eval()
    return model


def channels_last(model):
    return model.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("prepare", [ordinary, frozen, half, train_mode, channels_last])
def test_callers_objects_are_unchanged(prepare, dataset, snapshot):
    model = prepare(split_model())
    maps, answers = random_maps(dataset), half_and_half(dataset)
    before, values = snapshot(model), maps.values.clone()
    corrector = AttentionCorrector(model, **PLAIN | {"epochs": 1, "average_decay": 0.9})
    found = corrector.fit(dataset, maps, answers, noise_pictures(4, seed=1))
    assert snapshot(model) == before
    assert torch.equal(maps.values, values)
    assert answers == half_and_half(dataset)
    assert found.model is not model
    assert not any(module.training for module in found.model.modules())
    for (name, ours), (theirs_name, theirs) in zip(
        found.model.named_parameters(), model.named_parameters(), strict=True
    ):
        assert name == theirs_name
        assert (ours.dtype, ours.requires_grad, ours.stride()) == (theirs.dtype, theirs.requires_grad, theirs.stride())
        assert ours.grad is None
    assert found.record.original == model.fingerprint
    assert found.record.corrected == found.model.fingerprint != found.record.original
    assert found.before is not None
    assert found.after is not None


def test_failure_leaves_everything_unchanged_too(dataset, snapshot):
    model = train_mode(split_model())
    before = snapshot(model)
    with pytest.raises(NonFiniteLossError):
        fit(model, dataset, alpha=1e39)
    assert snapshot(model) == before


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_one_seed_one_result(dataset, average_decay):
    same = [fit(split_model(), dataset, seed=4, average_decay=average_decay) for _ in range(2)]
    assert_equal_states(weights(same[0]), weights(same[1]))
    other = fit(split_model(), dataset, seed=5, average_decay=average_decay)
    assert not torch.equal(weights(same[0])["fc.weight"], weights(other)["fc.weight"])


def test_best_epoch_needs_data_to_choose_by(dataset):
    with pytest.raises(SettingsError, match=r'keep="best" needs data to choose by: pass evaluate_on='):
        fit(split_model(), dataset, keep="best")


def test_best_epoch_is_the_best(dataset):
    held_out = noise_pictures(16, seed=5)
    corrector = AttentionCorrector(split_model(), **PLAIN | {"keep": "best", "epochs": 4})
    found = corrector.fit(dataset, random_maps(dataset), half_and_half(dataset), held_out)
    assert found.after.worst_group == max(entry["score"] for entry in found.history)
    assert found.after.groups[0].weight == 3


def test_overflowing_alpha_stops_at_the_first_step(dataset, tmp_path):
    model = split_model()
    with pytest.raises(
        NonFiniteLossError, match=r"stopped at step 1 \(epoch 1\): loss = .*guidance = .*alpha"
    ) as caught:
        fit(model, dataset, alpha=1e40, checkpoint_dir=tmp_path)
    assert (caught.value.step, caught.value.epoch) == (0, 0)
    assert_equal_states(caught.value.model.plain_state_dict(), model.plain_state_dict())
    assert not caught.value.model.training
    assert all(parameter.grad is None for parameter in caught.value.model.parameters())
    saved, _ = read_tensors(tmp_path / "training.safetensors")
    assert torch.equal(saved["module.model.fc.weight"], model.model.fc.weight)


def test_overflowing_rate_gives_finite_weights(dataset):
    with pytest.raises(NonFiniteLossError, match=r"Lower lr \(now 1e\+30\)") as caught:
        fit(split_model(), dataset, optimizer="sgd", lr=1e30, epochs=5)
    assert all(bool(tensor.isfinite().all()) for tensor in caught.value.model.plain_state_dict().values())


def test_a_run_that_diverged_in_its_last_step_says_so(dataset):
    """Its loss was still that of the weights before; what comes out is worth nothing, and could not be loaded."""
    with pytest.raises(
        NonFiniteLossError,
        match=r"diverged: after step 1 \(epoch 1\) the .* not finite, though the loss still is .*Lower lr \(now 1e",
    ) as caught:
        fit(split_model(), dataset, optimizer="sgd", lr=1e28, epochs=1, batch_size=12)
    assert (caught.value.step, caught.value.epoch) == (1, 0)


def test_a_model_that_is_nan_already_is_not_trained(dataset):
    model = split_model()
    with torch.no_grad():
        model.model.conv1[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(UnsupportedModelError, match=r"expected finite weights, got NaN .*'conv1\.0\.weight \("):
        fit(model, dataset)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_picture_that_overflows_stops_before_it_does_harm(device, tmp_path):
    broken, order = noise_pictures(12, huge_at=6), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    step = order.tolist().index(6) // 4
    with pytest.raises(
        NonFiniteLossError, match=rf"stopped at step {step + 1} .*gradient norm = nan.*huge values in the pictures"
    ) as caught:
        fit(split_model(), broken, checkpoint_dir=tmp_path, device=device)
    assert caught.value.step == step
    found = caught.value.model.plain_state_dict()
    assert all(bool(tensor.isfinite().all()) for tensor in found.values())
    saved, _ = read_tensors(tmp_path / "training.safetensors")
    assert_equal_states({f"module.model.{name}": tensor for name, tensor in found.items()}, {
        name: tensor for name, tensor in saved.items() if name.startswith("module.")
    })  # fmt: skip
    assert math.isfinite(caught.value.model(inputs_of(noise_pictures(2))).sum().item())


def test_labels_beyond_the_model_are_refused():
    three = ImageDataset.from_torch([(torch.rand(3, 64, 64), 2)] * 2, class_names=["a", "b", "c"], preprocessed=True)
    with pytest.raises(SettingsError, match=r"expected labels of the model's 2 classes, got label 2 \('c'\)"):
        fit(split_model(), three, answers=image_answers({"0": "yes"}), maps=random_maps(three))


def test_wrong_settings_are_refused_when_made():
    for settings, message in (
        ({"alpha": -1.0}, "expected alpha to be a number >= 0, got -1.0"),
        ({"target": 2}, "expected target='label', 'predicted' or a class index from 0 to 1, got 2"),
        ({"device": "tpu9"}, "expected device="),
        ({"precision": "half"}, "expected precision="),
    ):
        with pytest.raises(SettingsError, match=message):
            AttentionCorrector(split_model(), **settings)


def test_strict_false_drops_and_counts(dataset):
    answers = half_and_half(dataset).merge(image_answers({"gone": "yes"}))
    with pytest.raises(MismatchError, match="'gone'"):
        fit(split_model(), dataset, answers=answers)
    corrector = AttentionCorrector(split_model(), **PLAIN | {"epochs": 0})
    found = corrector.fit(dataset, random_maps(dataset), answers, strict=False)
    assert found.record.counts["dropped_answers"] == 2


def test_answers_about_neurons_alone_do_not_guide(dataset):
    with pytest.raises(AnswerError, match="none is about one"):
        fit(split_model(), dataset, answers=neuron_answers([1]))


def test_record_tells_what_was_done(dataset):
    found = fit(split_model(), dataset)
    record = found.record
    assert (record.method, record.dataset, record.simulated) == ("attention", dataset.fingerprint, False)
    assert record.answers == half_and_half(dataset).fingerprint
    assert (record.settings["alpha"], record.settings["epochs"]) == (10.0, 2)
    assert len(found.history) == 2
    assert found.before is found.after is None
    assert found.model.class_names == ("a", "b")


def test_second_correction_knows_the_first(dataset):
    first = fit(split_model(), dataset, epochs=1)
    second = fit(first.model, dataset, epochs=1, answers=image_answers({"s0": "no"}))
    assert second.parents == (first.record,)
    assert second.record.original == first.record.corrected
    assert len(second.answers) == len(half_and_half(dataset)) + 2


def test_model_that_was_changed_by_hand_is_refused_before_training(dataset, tmp_path):
    first = fit(split_model(), dataset, epochs=1)
    with torch.no_grad():
        first.model.model.fc.bias.add_(1)
    with pytest.raises(MismatchError, match=r"changed after its last correction, .*load_model\(model.model\)"):
        fit(first.model, dataset, checkpoint_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    assert fit(SplitModel(first.model.model, preprocessing=SMALL), dataset, epochs=1).parents == ()


def test_maps_for_another_target_are_a_warning(caplog):
    dataset, model = noise_pictures(6), split_model()
    maps, answers = random_maps(dataset), half_and_half(dataset)
    AttentionCorrector(model, epochs=1, target="predicted").fit(dataset, maps, answers)
    assert "evidence for the target label, and training guides that for the target predicted" in caplog.text
    caplog.clear()
    AttentionCorrector(model, epochs=1).fit(dataset, maps, answers)
    assert "the target" not in caplog.text


def test_wrong_things_are_told_before_the_work():
    dataset, model = noise_pictures(), split_model()
    maps, answers = random_maps(dataset), half_and_half(dataset)
    corrector, pruner = AttentionCorrector(model, device="cpu"), NeuronPruner(model, device="cpu")
    items = [dataset[sample] for sample in dataset]
    calls = [
        (AnswerError, "got dict; write AnnotationSet.from_dict", lambda: corrector.fit(dataset, maps, {})),
        (AnswerError, "got dict; write AnnotationSet.from_dict", lambda: pruner.fit(dataset, {"s0": "yes"})),
        (SettingsError, "expected SaliencyMaps, got AnnotationSet", lambda: corrector.fit(dataset, answers, maps)),
        (DataError, "expected an ImageDataset, got list", lambda: corrector.fit(items, maps, answers)),
        (DataError, "expected an ImageDataset, got list", lambda: corrector.fit(dataset, maps, answers, items)),
        (DataError, "expected an ImageDataset, got list", lambda: evaluate(model, items)),
        (DataError, "expected an ImageDataset, got list", lambda: evaluate(model, dataset, train=items)),
        (DataError, "expected an ImageDataset, got Tensor", lambda: Explainer(model).explain(torch.rand(3, 8, 8))),
        (DataError, "expected an ImageDataset, got str", lambda: Explainer(model).explain_neurons("birds")),
        (DataError, "got SaliencyMaps; the data set comes first", lambda: corrector.fit(maps, dataset, answers)),
        (AnswerError, "expected an AnnotationSet", lambda: Explainer(model).suggest(maps, answers={"s0": "yes"})),
        (DataError, "expected an ImageDataset, got list", lambda: maps.gallery(items)),
        (SettingsError, "expected a dict of evaluations by name", lambda: compare([1, 2])),
    ]
    for error, message, call in calls:
        with pytest.raises(error, match=message):
            call()


def test_a_correction_is_no_model():
    dataset = noise_pictures()
    done = NeuronPruner(split_model(), epochs=1, device="cpu").fit(dataset, neuron_answers([1]))
    with pytest.raises(SettingsError, match=r"expected a model, got Correction; give its .model"):
        AttentionCorrector(done)


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for_within_an_epoch():
    def waits(count):
        pictures = noise_pictures(count)
        settings = {"epochs": 1, "batch_size": 4, "background_swap": 0.5, "average_decay": 0.9, "device": "cuda"}
        corrector = AttentionCorrector(split_model(), **PLAIN | settings)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                corrector.fit(pictures, random_maps(pictures), half_and_half(pictures))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(each.message) for each in found)

    assert waits(16) == waits(24)  # two steps more; what goes before is done in one batch each time
