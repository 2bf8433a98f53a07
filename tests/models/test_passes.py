from __future__ import annotations

import pytest
import timm
import torch
from helpers_correction import SMALL, neuron_answers, noise_pictures, split_model

from crayon_sdk.answers.annotations import AnnotationSet, ImageAnswer
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import DataError, SettingsError, UnsupportedModelError
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.models.passes import (
    check_finite,
    in_classes_of,
    intermediate_features,
    predict,
    stream_both,
    stream_features,
    stream_pictures,
)
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.evaluation import evaluate

CPU = torch.device("cpu")


@pytest.fixture
def pictures(picture_folder) -> ImageDataset:
    return ImageDataset.from_csv(picture_folder / "metadata.csv", split="test")


def slow_features(model, dataset, position):
    images = SMALL.normalize(dataset.row(position, SMALL))[None]
    with torch.no_grad():
        return model.features(images)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("order", [None, [5, 0, 3]])
def test_features_equal_one_by_one(pictures, cached, order):
    model = split_model()
    cache = PixelCache(pictures, SMALL) if cached else None
    stream = stream_features(model, pictures, device=CPU, batch_size=3, order=order, cache=cache)
    rows, seen = [], []
    for indices, features in stream:
        assert len(indices) == len(features) <= 3
        assert not features.requires_grad
        rows += indices.tolist()
        seen.append(features)
    assert rows == (list(range(len(pictures))) if order is None else order)
    for position, features in zip(rows, torch.cat(seen), strict=True):
        torch.testing.assert_close(features, slow_features(model, pictures, position)[0], rtol=1e-4, atol=1e-5)


def test_data_set_may_bring_its_own_preprocessing(pictures):
    from dataclasses import replace

    model = split_model()
    other = replace(SMALL, size=(96, 128))
    ((_, features),) = stream_features(model, pictures.with_preprocessing(other), device=CPU)
    assert tuple(features.shape[2:]) == (3, 4)


def test_logits_come_in_the_order_of_the_data_set(pictures):
    model = split_model()
    logits = predict(model, pictures, device=CPU, batch_size=3)
    with torch.no_grad():
        slow = torch.cat([model.head(slow_features(model, pictures, p)) for p in range(len(pictures))])
    torch.testing.assert_close(logits, slow, rtol=1e-4, atol=1e-5)
    assert (logits.dtype, logits.requires_grad) == (torch.float32, False)


def test_bfloat16_trunk_gives_float32_logits(pictures):
    model = split_model()
    reduced = predict(model, pictures, device=CPU, autocast=torch.bfloat16)
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, predict(model, pictures, device=CPU), rtol=0.1, atol=0.05)


def test_labels_are_checked(pictures):
    in_classes_of(pictures, split_model())
    with pytest.raises(DataError, match="expected a data set with at least one sample, got an empty one"):
        in_classes_of(pictures.subset([]), split_model())
    three = ImageDataset.from_torch([(torch.zeros(3, 8, 8), 2)], class_names=["a", "b", "c"])
    with pytest.raises(SettingsError, match="load a model with at least 3 classes, or leave these samples out"):
        in_classes_of(three, split_model())


def named(*names):
    model = split_model()
    return SplitModel(model.model, preprocessing=model.preprocessing, class_names=names)


def test_classes_are_found_by_name(pictures):
    assert in_classes_of(pictures, named("cat", "dog")) is pictures
    turned = in_classes_of(pictures, named("dog", "cat"))
    assert turned.labels.tolist() == (1 - pictures.labels).tolist()
    assert (turned.class_names, turned.group_labels) == (("dog", "cat"), pictures.group_labels)
    with pytest.raises(SettingsError, match=r"the data has 2 \('cat', 'dog'\), the model 2 \('fish', 'bird'\)"):
        in_classes_of(pictures, named("fish", "bird"))


def test_classes_are_what_the_user_says(picture_folder):
    path, said = picture_folder / "metadata.csv", {"cat": "bird", "dog": "fish"}
    told = ImageDataset.from_csv(path, split="test", class_map=said)
    found = in_classes_of(told, named("fish", "bird"))
    assert found.labels.tolist() == (1 - told.labels).tolist()
    assert found.class_names == ("fish", "bird")
    assert in_classes_of(found, named("fish", "bird")) is found
    numbered = in_classes_of(ImageDataset.from_csv(path, class_map={"cat": 1, "dog": 0}), split_model())
    assert numbered.class_names == ("dog", "cat")
    with pytest.raises(SettingsError, match="class_map names 'cow', which the data does not have"):
        ImageDataset.from_csv(path, class_map={"cow": "bird"})
    with pytest.raises(SettingsError, match="says that 'cat' is 'bear', which the model does not have"):
        in_classes_of(ImageDataset.from_csv(path, class_map={"cat": "bear"}), named("fish", "bird"))


def test_every_door_takes_classes_by_name(picture_folder):
    """The same weights with the two classes the other way round, and named so, are the same model."""
    model = named("cat", "dog")
    turned = model.copy()
    with torch.no_grad():
        for tensor in (turned.classifier.weight, turned.classifier.bias):
            tensor.copy_(tensor.flip(0))
    turned.class_names = ("dog", "cat")
    train = ImageDataset.from_csv(picture_folder / "metadata.csv", split="train")
    one, other = (evaluate(each, train, train=train) for each in (model, turned))
    assert {group.name: group.correct for group in one.groups} == {group.name: group.correct for group in other.groups}
    assert one.summary() == other.summary()
    first, second = (Explainer(each).explain(train) for each in (model, turned))
    torch.testing.assert_close(first.values, second.values)
    assert [first.class_names[t] for t in first.targets] == [second.class_names[t] for t in second.targets]
    answers = AnnotationSet.from_records([])
    for sample in train.ids[::2]:
        answers.add(ImageAnswer(id=sample, answer="yes", annotator="p"))
    for kind, given in ((AttentionCorrector, answers), (NeuronPruner, neuron_answers([0, 1]))):
        made = []
        for each, maps in ((model, first), (turned, second)):
            corrector = kind(each, epochs=1, device="cpu")
            made.append(
                corrector.fit(train, maps, given) if kind is AttentionCorrector else corrector.fit(train, given)
            )
        assert [each.model.class_names for each in made] == [("cat", "dog"), ("dog", "cat")]
        weights = [each.model.classifier.weight for each in made]
        torch.testing.assert_close(weights[0], weights[1].flip(0), rtol=1e-3, atol=1e-4)


def test_a_model_of_many_classes(pictures):
    module = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=1000)
    model = SplitModel(module, preprocessing=SMALL)
    with pytest.raises(SettingsError, match=r"the model 1,000 without names\. Say which .*class_map="):
        evaluate(model, pictures)
    ids = [f"n{number:08}" for number in range(1000)]
    words = {"n00000281": "tabby, tabby cat", "n00000152": "Japanese spaniel, dog"}
    module.pretrained_cfg = {**module.pretrained_cfg, "label_names": ids, "label_descriptions": words}
    known = SplitModel(module, preprocessing=SMALL)
    with pytest.raises(SettingsError, match="'cat' cannot be found in the model"):
        in_classes_of(pictures, known)
    module.pretrained_cfg["label_descriptions"]["n00000281"] = "cat, house cat"
    found = in_classes_of(pictures, known)
    assert set(found.labels.tolist()) == {281, 152}
    assert found.class_names == tuple(ids)


def test_numbers_go_by_number(tmp_path, picture_folder):
    text = (picture_folder / "metadata.csv").read_text()
    path = tmp_path / "metadata.csv"
    path.write_text(text.replace(",cat,", ",0,").replace(",dog,", ",1,"))
    data = ImageDataset.from_csv(path, root=picture_folder, split="test")
    assert in_classes_of(data, split_model()) is data
    found = in_classes_of(data, named("fish", "bird"))
    assert found.labels.tolist() == data.labels.tolist()
    assert found.class_names == ("fish", "bird")
    assert in_classes_of(data, named("0", "1")) is data


def test_weights_that_are_no_numbers_are_named(pictures):
    model = split_model()
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    for work in (Explainer(model).explain, lambda data: evaluate(model, data)):
        with pytest.raises(UnsupportedModelError, match=r"'fc\.weight \(1 of"):
            work(pictures)


def test_finished_inputs_go_in_as_they_are():
    dataset, model = noise_pictures(4), split_model()
    with torch.no_grad():
        expected = model(torch.stack([dataset.row(position, None) for position in range(4)]))
    torch.testing.assert_close(predict(model, dataset, device=CPU), expected, rtol=1e-4, atol=1e-5)


def test_a_sample_that_overflows_is_named():
    model, values = split_model(), torch.zeros(3, 2)
    check_finite(model, values, "logits", ("a", "b", "c"))
    values[1, 0] = torch.inf
    with pytest.raises(
        DataError, match=r"not finite \(NaN or infinity\) for 'b', and are for 2 others; its weights are"
    ):
        check_finite(model, values, "logits", ("a", "b", "c"))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "mobilenetv2_035"])
def test_one_run_gives_features_and_intermediate_ones(name):
    """The same as two runs give, in one; a model whose last intermediate features are others is run twice."""
    data = noise_pictures(5)
    model = SplitModel(timm.create_model(name, num_classes=2).eval(), preprocessing=SMALL)
    runs = []
    model.model.forward_features = _counted(model.model.forward_features, runs)
    found = list(stream_both(model, data, device=CPU, batch_size=2))
    assert len(runs) == 1  # of the first picture
    assert torch.cat([rows for rows, _, _ in found]).tolist() == list(range(5))
    alone = torch.cat([each for _, each in stream_features(model, data, device=CPU, batch_size=2)])
    assert torch.allclose(torch.cat([features for _, features, _ in found]), alone, atol=1e-4)
    size = (int(alone.shape[2]), int(alone.shape[3]))
    for (_, _, middle), (_, images) in zip(found, stream_pictures(model, data, device=CPU, batch_size=2), strict=True):
        with torch.no_grad():
            wanted = intermediate_features(model, images, size)
        assert [each.shape for each in middle] == [each.shape for each in wanted]
        assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(middle, wanted, strict=True))
    plain, runs[:] = model.model.forward_intermediates, []

    def other(*args, **how):
        final, middle = plain(*args, **how)
        return 2 * final, middle

    model.model.forward_intermediates = other
    again = torch.cat([features for _, features, _ in stream_both(model, data, device=CPU, batch_size=2)])
    assert torch.allclose(again, alone, atol=1e-4)
    assert len(runs) == 1 + 3


def _counted(function, calls):
    def counting(*args, **how):
        calls.append(1)
        return function(*args, **how)

    return counting
