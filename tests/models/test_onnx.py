from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_correction import neuron_answers, noise_pictures, split_model
from PIL import Image
from torch import nn

from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import MissingExtraError, OutputError, OutputExistsError, SettingsError, install_extra
from crayon_sdk.models import onnx as onnx_export
from crayon_sdk.models.onnx import INPUT, OUTPUT, export_onnx
from crayon_sdk.models.split import SplitModel

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def pictures(count, side=64):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def pruned():
    original = split_model()
    original.class_names = ("Löwe", "<b>")
    dataset = replace(noise_pictures(8), class_map={"a": "Löwe", "b": "<b>"})
    return NeuronPruner(original, epochs=1, device="cpu").fit(dataset, neuron_answers(range(40)))


@pytest.fixture(scope="module")
def exported(pruned, tmp_path_factory):
    return pruned.export_onnx(tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_pruned_model_gives_the_same_logits_for_any_number_of_pictures(pruned, exported, count):
    images = pictures(count)
    with torch.no_grad():
        expected = pruned.model(images)
    torch.testing.assert_close(run(exported, images), expected, rtol=1e-4, atol=1e-4)


def test_the_weights_of_cut_neurons_are_zero_in_the_file(pruned, exported):
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(exported).graph.initializer}
    last = next(each for name, each in weights.items() if name.endswith("fc.weight"))
    last = last if last.shape[0] == 2 else last.T
    assert not np.abs(last[:, list(pruned.record.pruned_neurons)]).any()
    assert not [name for name in weights if "mask" in name]


def test_what_one_must_know_travels_along(pruned, exported):
    found = {each.key: each.value for each in onnx.load(exported).metadata_props}
    assert json.loads(found["class_names"]) == ["Löwe", "<b>"] == list(pruned.model.class_names)
    assert Preprocessing.from_dict(json.loads(found["preprocessing"])) == pruned.model.preprocessing
    assert found["fingerprint"] == pruned.model.fingerprint
    assert found["architecture"] == pruned.model.architecture


def test_the_file_is_valid(exported):
    onnx.checker.check_model(str(exported), full_check=True)


def test_no_path_of_this_machine_is_in_the_file(exported):
    raw = exported.read_bytes()
    assert b".py" not in raw
    assert b"site-packages" not in raw


def test_half_precision_is_written_as_float32_and_the_model_comes_back_as_it_was(tmp_path, snapshot):
    model = split_model(2).half().to(memory_format=torch.channels_last).train()
    before, images = snapshot(model), pictures(2)
    (tmp_path / "m.onnx").write_text("an older one")
    found = run(export_onnx(model, tmp_path / "m.onnx", overwrite=True), images)
    assert snapshot(model) == before
    with torch.no_grad():
        expected = split_model(2).half().float()(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_home_made_model(tmp_path):
    with torch.random.fork_rng(devices=[]):
        trunk = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    model = SplitModel(trunk=trunk, head=head, preprocessing=Preprocessing(size=(48, 32)))
    images = torch.rand(3, 3, 48, 32)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(run(export_onnx(model, tmp_path / "m.onnx"), images), expected, rtol=1e-4, atol=1e-4)


class _Wrong(nn.Module):
    """Where it is traced it does something else than where it is run."""

    def forward(self, features):
        return features * (2.0 if torch.compiler.is_compiling() else 1.0)


def test_other_logits_are_refused_and_nothing_is_left(tmp_path):
    model = SplitModel(
        trunk=nn.Conv2d(3, 4, 3, 4),
        head=nn.Sequential(_Wrong(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        preprocessing=Preprocessing(size=(32, 32)),
    )
    with pytest.raises(OutputError, match=r"gives\s+logits that differ by .*allowed: 0.0001"):
        export_onnx(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


class _Untraceable(nn.Module):
    def forward(self, features):
        return features * float(features.sum() > 0 and np.random.default_rng(0).random() >= 0)


def test_what_cannot_be_traced_is_refused_in_words(tmp_path):
    model = SplitModel(
        trunk=nn.Sequential(nn.Conv2d(3, 4, 3, 4), _Untraceable()),
        head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        preprocessing=Preprocessing(size=(32, 32)),
    )
    with pytest.raises(OutputError, match="cannot be written as ONNX"):
        export_onnx(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"ends in \.onnx, got .*m\.bin"):
        export_onnx(split_model(), tmp_path / "m.bin")
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        export_onnx(split_model(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_export, "_EXTRA", ("onnx", "no_such_package_here"))
    with pytest.raises(MissingExtraError) as caught:
        export_onnx(split_model(), tmp_path / "m.onnx")
    assert str(caught.value) == f"ONNX files need no_such_package_here: {install_extra('onnx')}"


def test_the_lines_of_the_page_give_the_logits_of_timm(exported, pruned, picture_folder, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "onnx.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- serve -->\n\n```python\n(.*?)```", page, re.DOTALL)
    shutil.copy(exported, tmp_path / "birds.onnx")
    with Image.open(picture_folder / "images" / "cat" / "00.jpg") as picture:
        picture.resize((97, 120)).save(tmp_path / "bird.jpg")
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(compile(code, "<page>", "exec"), found)
    preprocessing = pruned.model.preprocessing
    with Image.open("bird.jpg") as picture:
        pixels = torch.from_numpy(np.array(preprocessing.geometry(picture))).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = pruned.model(preprocessing.normalize(pixels))
    torch.testing.assert_close(torch.from_numpy(found["logits"]), expected, rtol=1e-4, atol=1e-4)
    assert capsys.readouterr().out.strip() == pruned.model.class_names[int(expected.argmax())]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "convnext_atto", "efficientnet_b0", "levit_128s", "torchvision:resnet18"]
)
def test_families(name, tmp_path):
    from crayon_sdk import load_model

    model = load_model(name, pretrained=False, num_classes=3)
    images = pictures(2, model.preprocessing.size[0])
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(run(export_onnx(model, tmp_path / "m.onnx"), images), expected, rtol=1e-4, atol=1e-4)
