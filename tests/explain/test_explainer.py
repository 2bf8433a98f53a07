"""What people look at: maps and patches against slow versions, whatever the batch size."""

from __future__ import annotations

import inspect
import logging

import pytest
import torch

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, OutputError, SettingsError, UnsupportedModelError
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.functional.neurons import prune_neurons
from crayon_sdk.functional.saliency import logits_and_grad_cam, normalize_maps, target_scores
from crayon_sdk.models.passes import predict, stream_features
from crayon_sdk.models.split import SplitModel, borrowed
from crayon_sdk.results.evaluation import evaluate
from crayon_sdk.workspace.workspace import Workspace

SMALL = Preprocessing(size=(96, 96))
CPU = torch.device("cpu")


@pytest.fixture
def split(tiny_model):
    return SplitModel(tiny_model(), preprocessing=SMALL)


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return ImageDataset.from_csv(picture_folder / "metadata.csv", split="train")


def all_features(split, dataset):
    with borrowed(split, CPU):
        return torch.cat([features for _, features in stream_features(split, dataset, device=CPU, batch_size=5)])


def slow_cam(features, gradient):
    """ReLU(sum_k w_k A_k) of one sample, channel by channel."""
    total = torch.zeros(features.shape[1:])
    for channel, slope in zip(features, gradient, strict=True):
        total += slope.sum() / slope.numel() * channel
    return total.clamp_min(0)


# --- maps ---


@pytest.mark.parametrize("target", ["label", "predicted"])
def test_maps_in_a_file_are_the_same_file(split, dataset, target, tmp_path, caplog):
    with torch.no_grad():
        split.model.fc.weight[0] = -split.model.fc.weight[1].abs()  # some maps without evidence
    explainer = Explainer(split, batch_size=5, target=target)
    whole = explainer.explain(dataset)
    said = caplog.messages.copy()
    caplog.clear()
    streamed = explainer.explain(dataset, tmp_path / "new" / "streamed.safetensors")
    whole.save(tmp_path / "whole.safetensors")
    assert (tmp_path / "new" / "streamed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert caplog.messages == said
    assert (streamed.fingerprint, streamed.preprocessing) == (whole.fingerprint, whole.preprocessing)


def test_where_maps_cannot_be_written_none_are_made(split, tmp_path):
    (tmp_path / "file").touch()
    broken = ImageDataset.from_torch([(None, 0)], labels=[0], class_names=["a", "b"])  # looking at it would say so
    with pytest.raises(OutputError, match="cannot write"):
        Explainer(split).explain(broken, tmp_path / "file" / "maps.safetensors")


def test_maps_that_end_in_an_error_leave_the_file_from_before(split, tmp_path):
    pictures = [(torch.rand(3, 96, 96), 0)] * 5 + [(torch.full((3, 96, 96), 3e38), 0)]
    dataset = ImageDataset.from_torch(pictures, preprocessed=True, class_names=["a", "b"])
    path = tmp_path / "maps.safetensors"
    path.write_bytes(b"before")
    with pytest.raises(DataError, match="not finite"):
        Explainer(split, batch_size=2).explain(dataset, path)
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["conv1.0.weight", "fc.bias"])
def test_a_model_that_turned_nan_is_not_explained(split, dataset, name):
    what = "features" if name == "conv1.0.weight" else "logits"
    with torch.no_grad():
        split.model.get_parameter(name).view(-1)[0] = torch.nan
    message = rf"expected finite weights, got NaN or infinity in 1 of test_resnet's tensors: '{name} \(1 of"
    for step in (lambda: Explainer(split, batch_size=5).explain(dataset), lambda: evaluate(split, dataset)):
        with pytest.raises(UnsupportedModelError, match=message):
            step()
    with pytest.raises(UnsupportedModelError, match=f"the {what} of test_resnet are not finite .* for 'image 0'"):
        Explainer(split).saliency(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))
    if what == "features":
        with pytest.raises(UnsupportedModelError, match=message):
            Explainer(split).explain_neurons(dataset)


def test_weights_that_overflow_are_named_by_the_largest(split, dataset):
    with torch.no_grad():
        split.model.fc.weight.fill_(3e38)
    with pytest.raises(UnsupportedModelError, match=r"finite \(the largest: 3e\+38 in 'fc\.weight'\)"):
        Explainer(split).explain(dataset)


def test_maps_equal_a_slow_version(split, dataset):
    maps = Explainer(split, score="logit", device="cpu").explain(dataset)
    assert maps.ids == dataset.ids
    assert torch.equal(maps.targets, dataset.labels)
    assert (maps.model, maps.target_rule, maps.score) == (split.fingerprint, "label", "logit")
    assert (maps.class_names, maps.preprocessing) == (("cat", "dog"), SMALL)
    assert (maps.values.dtype, maps.size) == (torch.float32, split.map_size)
    for row, features in enumerate(all_features(split, dataset)):
        inputs = features[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(split.head(inputs)[0, dataset.labels[row]], inputs)
        slow = slow_cam(features, gradient[0])
        assert bool(maps.evidence[row]) == bool(slow.max() > 0)
        torch.testing.assert_close(maps.values[row], (slow + 1e-10) / (slow.max() + 1e-10), rtol=0, atol=1e-5)


def test_nothing_said_is_what_the_shell_does(split, dataset):
    said = Explainer(split, target="label", score="margin", device="cpu").explain(dataset)
    assert Explainer(split, device="cpu").explain(dataset).score == "margin"
    assert torch.equal(Explainer(split, device="cpu").explain(dataset).values, said.values)
    shell = inspect.signature(Workspace.explain).parameters
    ours = inspect.signature(Explainer).parameters
    assert all(ours[name].default == shell[name].default for name in ours.keys() & shell.keys())


@pytest.mark.parametrize("score", ["logit", "margin"])
@pytest.mark.parametrize("target", ["label", "predicted", 0, 1])
def test_targets_and_scores(split, dataset, target, score):
    maps = Explainer(split, target=target, score=score, device="cpu").explain(dataset)
    features = all_features(split, dataset)
    rules = {"label": dataset.labels, "predicted": split.head(features).argmax(dim=1)}
    chosen = rules[target] if target in rules else torch.full((len(dataset),), target)
    assert torch.equal(maps.targets, chosen)
    assert (maps.target_rule, maps.score) == (str(target), score)
    _, expected = logits_and_grad_cam(features, split.head, chosen, score=score, create_graph=True)
    torch.testing.assert_close(maps.values, normalize_maps(expected).detach(), rtol=0, atol=1e-5)


def test_the_margin_is_the_log_odds():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([0, 2, 1, 1])
    share = logits.softmax(dim=1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(target_scores(logits, targets, "margin"), (share / (1 - share)).log())
    assert torch.equal(
        target_scores(logits, targets), torch.stack([row[t] for row, t in zip(logits, targets, strict=True)])
    )


@pytest.mark.parametrize("target", [-1, 2, "both", 1.0, True, None])
def test_a_bad_target(split, target):
    with pytest.raises(SettingsError, match=r"'label', 'predicted' or a class index from 0 to 1, got"):
        Explainer(split, target=target)


def test_bad_settings(split, dataset):
    with pytest.raises(SettingsError, match=r"expected score='logit' or 'margin', got 'loss'"):
        Explainer(split, score="loss")
    with pytest.raises(SettingsError, match=r"expected batch_size >= 1, got 0"):
        Explainer(split, batch_size=0)
    with pytest.raises(SettingsError, match=r"expected precision="):
        Explainer(split, precision="float16")
    with pytest.raises(SettingsError, match=r"expected patches_per_neuron >= 1, got 0"):
        Explainer(split).explain_neurons(dataset, patches_per_neuron=0)


def test_maps_without_evidence_are_counted(split, dataset, caplog):
    """Features are not negative, so negative weights leave nothing that speaks for the class."""
    with torch.no_grad():
        split.classifier.weight[1] = -split.classifier.weight[1].abs()
        split.classifier.weight[0] = split.classifier.weight[0].abs()
    with caplog.at_level(logging.WARNING):
        maps = Explainer(split, device="cpu").explain(dataset)
    assert torch.equal(maps.evidence, dataset.labels == 0)
    assert maps.num_empty == 8
    assert maps.values[~maps.evidence].eq(1).all()
    assert "8 of 16 maps have no positive evidence for their target" in caplog.text
    caplog.clear()
    assert Explainer(split, target=0, device="cpu").explain(dataset).num_empty == 0
    assert not caplog.records


def test_the_batch_size_does_not_matter(split, dataset):
    runs = [Explainer(split, batch_size=size, device="cpu").explain(dataset) for size in (1, 5, 64)]
    for other in runs[1:]:
        torch.testing.assert_close(runs[0].values, other.values, rtol=0, atol=1e-5)
        assert torch.equal(runs[0].evidence, other.evidence)
    again = Explainer(split, batch_size=5, device="cpu").explain(dataset)
    assert again.fingerprint == runs[1].fingerprint


def test_saliency_takes_preprocessed_images(split, dataset):
    explainer = Explainer(split, device="cpu")
    images = torch.stack([SMALL.normalize(dataset.row(row, SMALL)) for row in range(4)])
    seen = explainer.saliency(images, dataset.labels[:4])
    torch.testing.assert_close(seen, explainer.explain(dataset).values[:4], rtol=0, atol=1e-5)
    assert not seen.requires_grad
    for wrong in (dataset.labels[:3], torch.tensor([0, 1, 2, 0]), torch.tensor([0, -1, 0, 0]), torch.rand(4)):
        with pytest.raises(SettingsError, match=r"expected images \(N, 3, H, W\) and N targets from 0 to 1, got"):
            explainer.saliency(images, wrong)
    with pytest.raises(SettingsError, match=r"expected images \(N, 3, H, W\)"):
        explainer.saliency(images[0], dataset.labels[:1])


def test_the_preprocessing_of_the_data_set_comes_first(split, dataset):
    other = Preprocessing(size=(64, 96))
    maps = Explainer(split, device="cpu").explain(dataset.with_preprocessing(other))
    assert maps.preprocessing == other
    assert maps.size == (2, 3)


def test_a_pruned_model_is_explained_as_it_predicts(split, dataset):
    keep = torch.zeros(split.num_neurons, dtype=torch.bool)
    keep[::2] = True
    prune_neurons(split.classifier, keep)
    maps = Explainer(split, score="logit", device="cpu").explain(dataset)
    features = all_features(split, dataset) * keep[:, None, None]
    _, expected = logits_and_grad_cam(features, split.head, dataset.labels)
    torch.testing.assert_close(maps.values, normalize_maps(expected), rtol=0, atol=1e-5)
    assert maps.model == split.fingerprint


# --- nothing is changed ---


@pytest.mark.parametrize("target", ["label", "predicted"])
def test_the_model_comes_back_as_it_was(tiny_model, dataset, snapshot, target):
    model = tiny_model().to(memory_format=torch.channels_last).train()
    model.layer2.eval()
    model.conv1.requires_grad_(False)
    split = SplitModel(model, preprocessing=SMALL)
    before = snapshot(model)
    explainer = Explainer(split, target=target, device="cpu")
    explainer.explain(dataset)
    explainer.explain_neurons(dataset)
    explainer.saliency(torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1]))
    assert snapshot(model) == before


def test_the_model_comes_back_after_a_failure(tiny_model, snapshot):
    class Broken(list):
        def __getitem__(self, index):
            if index == 3:
                raise OSError("this picture is gone")
            return torch.rand(3, 96, 96), 0

    split = SplitModel(tiny_model().train(), preprocessing=SMALL)
    torch.manual_seed(0)
    dataset = ImageDataset.from_torch(Broken([None] * 5), labels=[0] * 5, class_names=["cat", "dog"])
    before = {name: value for name, value in snapshot(split).items() if not name.endswith("random")}
    for explain in (Explainer(split, batch_size=2).explain, Explainer(split, batch_size=2).explain_neurons):
        with pytest.raises(DataError, match=r"sample '3' cannot be used: .*this picture is gone"):
            explain(dataset)
    assert {name: value for name, value in snapshot(split).items() if not name.endswith("random")} == before


# --- data that does not fit ---


def test_no_data(split, dataset):
    for explain in (Explainer(split).explain, Explainer(split).explain_neurons):
        with pytest.raises(DataError, match=r"expected a data set with at least one sample, got an empty one"):
            explain(dataset.subset([]))


def test_labels_outside_the_classes_of_the_model(split):
    pictures = [(torch.rand(3, 96, 96), label) for label in (0, 2)]
    dataset = ImageDataset.from_torch(pictures, class_names=["cat", "dog", "cow"])
    for explain in (Explainer(split).explain, Explainer(split).explain_neurons):
        with pytest.raises(
            SettingsError, match=r"model's 2 classes, got label 2 \('cow'\); load a model with at least 3"
        ):
            explain(dataset)


# --- patches ---


def test_patches_of_channels_equal_a_full_sort(split, dataset):
    patches = Explainer(split, device="cpu", batch_size=5).explain_neurons(dataset)
    assert not split.mixes_channels()
    assert (patches.num_neurons, patches.map_size, patches.model) == (96, (3, 3), split.fingerprint)
    features = all_features(split, dataset).flatten(2)
    for neuron in range(0, 96, 7):
        activation = features[:, neuron].mean(dim=1).tolist()
        best = sorted(range(len(activation)), key=lambda row: (-activation[row], row))[:3]
        found = patches.of(neuron)
        assert [patch.id for patch in found] == [dataset.ids[row] for row in best]
        for patch, row in zip(found, best, strict=True):
            assert patch.activation == pytest.approx(activation[row], abs=1e-5)
            assert patch.row * 3 + patch.column == features[row, neuron].argmax()


def same_patches(one, other):
    assert one.ids == other.ids
    for name in ("samples", "cells", "neurons"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    torch.testing.assert_close(one.activations, other.activations, rtol=0, atol=1e-5)


def test_the_batch_size_does_not_matter_for_patches(split, dataset):
    runs = [Explainer(split, batch_size=size, device="cpu").explain_neurons(dataset, 4) for size in (1, 5, 64)]
    for other in runs[1:]:
        same_patches(runs[0], other)


def test_fewer_pictures_than_patches(split, dataset):
    patches = Explainer(split, device="cpu").explain_neurons(dataset.subset(dataset.ids[:2]), patches_per_neuron=5)
    assert all(len(patches.of(neuron)) == 2 for neuron in range(96))
    assert set(patches.ids) == set(dataset.ids[:2])


def test_a_neuron_of_many_channels_has_its_own_map(tiny_model, dataset):
    """Between the features of a MobileNetV3 and its neurons stands a 1 x 1 convolution."""
    model = tiny_model("mobilenetv3_small_100")
    with torch.no_grad():  # as they are, its neurons hardly differ
        model.conv_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    split = SplitModel(model, preprocessing=SMALL)
    patches = Explainer(split, device="cpu", batch_size=64).explain_neurons(dataset, patches_per_neuron=2)
    assert (patches.num_neurons, patches.map_size) == (1024, (3, 3))
    features = all_features(split, dataset)
    with torch.no_grad():
        activations = split.penultimate(features)
    for neuron in (0, 100, 511, 1023):
        column = activations[:, neuron].tolist()
        best = sorted(range(len(column)), key=lambda row: -column[row])[:2]
        assert [patch.id for patch in patches.of(neuron)] == [dataset.ids[row] for row in best]
        for patch, row in zip(patches.of(neuron), best, strict=True):
            assert patch.activation == pytest.approx(column[row], abs=1e-5)
            inputs = features[row][None].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(split.penultimate(inputs)[0, neuron], inputs)
            own = slow_cam(features[row], gradient[0])
            # Two cells may be equal up to rounding: then either will do.
            assert own[patch.row, patch.column] == pytest.approx(own.max().item(), rel=1e-5, abs=1e-7)


# --- predictions ---


def test_predict_gives_the_logits_in_order(split, dataset):
    with borrowed(split, CPU):
        logits = predict(split, dataset, device=CPU, batch_size=5)
    images = torch.stack([SMALL.normalize(dataset.row(row, SMALL)) for row in range(len(dataset))])
    with torch.no_grad():
        torch.testing.assert_close(logits, split.model.eval()(images), rtol=1e-4, atol=1e-5)
