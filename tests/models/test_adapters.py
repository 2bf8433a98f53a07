"""torchvision's classifiers: by name, as objects, corrected, saved, converted to timm."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from helpers_correction import half_and_half, neuron_answers, noise_pictures, random_maps
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from crayon_sdk import AttentionCorrector, NeuronPruner, Preprocessing, SplitModel, load_correction, load_model, to_timm
from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk.correct.backgrounds import finer_features
from crayon_sdk.errors import FileFormatError, MismatchError, ModelLoadError, UnsupportedModelError
from crayon_sdk.functional.saliency import logits_and_grad_cam
from crayon_sdk.models.adapters import _PLANS, _REASONS
from crayon_sdk.results.correction import Correction

CLASSIFIERS = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
]


def load(name, num_classes=3, seed=0, **arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return load_model(f"torchvision:{name}", pretrained=False, num_classes=num_classes, **arguments)


def corrected(model, **settings):
    dataset = noise_pictures(8)
    corrector = AttentionCorrector(model, epochs=1, batch_size=4, alpha=1.0, beta=1.0, device="cpu", **settings)
    return corrector.fit(dataset, random_maps(dataset), half_and_half(dataset))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_family(name):
    """Trunk and head are the model, under its own names; maps can be trained; pictures are seen as torchvision does."""
    split = load(name)
    inner = split.model.inner.eval()
    assert list(split.plain_state_dict()) == list(inner.state_dict())
    images = torch.rand(3, 3, *split.preprocessing.size, generator=torch.Generator().manual_seed(1))
    features = split.features(images)
    assert features.shape[1:] == split.feature_shape
    assert min(split.map_size) > 1
    logits, cams = logits_and_grad_cam(features, split.head, torch.arange(3), create_graph=True)
    with torch.no_grad():
        assert torch.equal(logits, inner(images))
    first = next(parameter for parameter in split.parameters() if parameter.ndim == 4)
    (gradient,) = torch.autograd.grad(cams.sum(), first)
    assert gradient.abs().sum() > 0
    pixels = torch.randint(256, (300, 420, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    picture = Image.fromarray(pixels.numpy())
    seen = split.preprocessing.normalize(
        torchvision.transforms.functional.pil_to_tensor(split.preprocessing.geometry(picture))
    )
    expected = torchvision.models.get_model_weights(name).DEFAULT.transforms()(picture)
    assert torch.allclose(seen, expected, atol=1e-5)


def test_all_classifiers_are_known():
    """A family that a new torchvision brings must be looked at."""
    names = torchvision.models.list_models(module=torchvision.models)
    builders = [torchvision.models.get_model_builder(name) for name in names]
    kinds = {str(getattr(kind, "__name__", kind)) for kind in (each.__annotations__["return"] for each in builders)}
    assert kinds == _PLANS.keys() | _REASONS.keys()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_b_32", "only its class token reaches the classifier"),
        ("squeezenet1_1", "a convolution before the pooling"),
    ],
)
def test_refused(name, reason):
    with pytest.raises(UnsupportedModelError, match=f"got torchvision:{name}: .*{reason}"):
        load(name)


def test_names_and_arguments_that_do_not_exist():
    with pytest.raises(ModelLoadError, match=r"torchvision has no classifier 'resnet5'; it has .*resnet50"):
        load("resnet5")
    with pytest.raises(ModelLoadError, match=r"no weights 'V7' of torchvision:resnet18; there are IMAGENET1K_V1"):
        load("resnet18.V7")
    with pytest.raises(ModelLoadError, match=r"cannot build torchvision:resnet18 with .*depth"):
        load("resnet18", model_args={"depth": 3})


@pytest.mark.parametrize("name", ["mnasnet0_5", "mobilenet_v3_small", "googlenet"])
def test_a_correction_is_saved_and_loaded(name, tmp_path):
    """What crayon.json says how to load gives the same logits, in a process that never heard of this package."""
    model = load(name, num_classes=2)
    before = model.fingerprint
    correction = corrected(model)
    assert model.fingerprint == before
    folder = correction.save(tmp_path / "corrected")
    assert not (folder / "config.json").exists()
    again = load_correction(folder)
    assert again.model.fingerprint == correction.model.fingerprint
    assert again.model.architecture == f"torchvision:{name}"
    assert again.model.preprocessing == correction.model.preprocessing
    assert again.model.class_names == correction.model.class_names == ("a", "b")
    plain = load_model(folder)
    assert plain.fingerprint == again.model.fingerprint
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    save_file({"images": images}, tmp_path / "images.safetensors")
    how = json.loads((folder / "crayon.json").read_text())["load"].replace("FOLDER", str(folder))
    code = f"""
import sys, torch, torchvision, safetensors.torch
{how}
model.eval()
with torch.no_grad():
    logits = model(safetensors.torch.load_file({str(tmp_path / "images.safetensors")!r})["images"])
assert "crayon_sdk" not in sys.modules
print(logits.tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = again.model(images)
    assert torch.allclose(torch.tensor(json.loads(done.stdout)), expected, atol=1e-5)


def test_the_weights_alone(tmp_path):
    model = load("resnet18", num_classes=5)
    save_file({key: value.contiguous() for key, value in model.plain_state_dict().items()}, tmp_path / "w.safetensors")
    loaded = load_model(tmp_path / "w.safetensors", architecture="torchvision:resnet18")
    assert loaded.fingerprint == model.fingerprint
    assert loaded.num_classes == 5
    timms = load_model(tmp_path / "w.safetensors", architecture="resnet18")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(timms(images), model(images), atol=1e-5)


def test_an_altered_manifest(tmp_path):
    folder = corrected(load("mobilenet_v3_small", num_classes=2)).save(tmp_path / "corrected")
    manifest = json.loads((folder / "crayon.json").read_text())
    (folder / "crayon.json").write_text(json.dumps(manifest | {"architecture": "Home"}))
    with pytest.raises(MismatchError, match=r"says something else about the model .* than the file of its weights"):
        load_correction(folder)
    # A checkpoint of the version before: the file of the weights does not say whose they are.
    tensors, metadata = read_tensors(folder / "model.safetensors")
    metadata.pop("crayon_model")
    manifest.pop("base")
    write_tensors(folder / "model.safetensors", tensors, metadata)
    for change, error, match in (
        ({"architecture": "Home"}, ModelLoadError, "neither timm nor torchvision can build Home"),
        ({"architecture": "torchvision:../x"}, ModelLoadError, "torchvision has no classifier"),
        ({"model_args": 3}, FileFormatError, "is incomplete or altered"),
        ({"preprocessing": {"size": "x"}}, FileFormatError, "preprocessing is none that can be"),
    ):
        (folder / "crayon.json").write_text(json.dumps(manifest | change))
        with pytest.raises(error, match=match):
            load_correction(folder)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Published weights where torchvision keeps what it fetched; nothing is fetched in a test."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def publish(name, change=lambda state: state):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            model = torchvision.models.get_model(name, weights=None, **extra).eval()
        url = torchvision.models.get_model_weights(name).DEFAULT.url
        path = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(change(model.state_dict()), path)
        return model

    return publish


def as_published_long_ago(state):
    for key in list(state):
        new = key
        if "denselayer" in key:
            for part in ("norm", "conv"):
                new = new.replace(f".{part}1.", f".{part}.1.").replace(f".{part}2.", f".{part}.2.")
        state[new] = state.pop(key)
    return state


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "mnasnet0_5"])
def test_published_weights(name, published):
    """With the classes they were trained on, and with others, as timm does."""
    model = published(name, as_published_long_ago if name == "densenet121" else lambda state: state)
    whole = load_model(f"torchvision:{name}")
    assert whole.num_classes == len(whole.class_names) == 1000
    assert whole.class_names[0] == "tench"
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    if name == "googlenet":  # its weights were trained on inputs of another scale
        model.transform_input = True
    with torch.no_grad():
        assert torch.allclose(whole(images), model(images), atol=1e-5)
    other = load_model(f"torchvision:{name}", num_classes=2)
    assert other.num_classes == 2
    assert other.class_names == ()
    with torch.no_grad():
        assert torch.allclose(other.features(images), whole.features(images))


def test_weights_that_are_more_than_tensors_are_not_read(published):
    published("resnet18", lambda state: {"code": pytest.raises})
    with pytest.raises(ModelLoadError, match=r"cannot fetch the weights .* of torchvision:resnet18"):
        load_model("torchvision:resnet18")


def test_weights_that_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kind = torchvision.models.ResNet18_Weights
    monkeypatch.setattr(type(kind.DEFAULT), "url", "http://127.0.0.1:9/resnet18.pth", raising=False)
    with pytest.raises(ModelLoadError, match=r"cannot fetch the weights .* of torchvision:resnet18: "):
        load_model("torchvision:resnet18")


def test_an_object(caplog):
    """A model that somebody built is taken as it is; what it was trained on is not known."""
    model = torchvision.models.resnet18(num_classes=2).train()
    with caplog.at_level(logging.WARNING):
        split = SplitModel(model)
    assert "ImageNet's mean and std. Pass preprocessing=" in caplog.text
    assert split.preprocessing.mean == (0.485, 0.456, 0.406)
    assert all(module.training for module in model.modules())
    caplog.clear()
    mine = Preprocessing(size=(64, 64))
    assert SplitModel(nn.DataParallel(model), preprocessing=mine).preprocessing == mine
    assert not caplog.text
    assert split.model.conv1 is model.conv1
    result = corrected(split)
    assert result.model.model.inner is not model
    assert result.model.model.conv1 is result.model.model.inner.conv1


def test_an_object_is_saved(tmp_path):
    """It has no name to be built by: whoever loads it brings the model."""
    split = SplitModel(torchvision.models.shufflenet_v2_x0_5(num_classes=2))
    folder = corrected(split).save(tmp_path / "corrected")
    assert "the same ShuffleNetV2" in json.loads((folder / "crayon.json").read_text())["load"]
    with pytest.raises(ModelLoadError, match="neither timm nor torchvision can build ShuffleNetV2"):
        load_correction(folder)
    again = load_correction(folder, model=torchvision.models.shufflenet_v2_x0_5(num_classes=2))
    assert again.record.method == "attention"
    with pytest.raises(ModelLoadError, match="do not fit ShuffleNetV2"):
        load_correction(folder, model=torchvision.models.shufflenet_v2_x1_0(num_classes=2))


def test_backgrounds_are_exchanged():
    """The swap needs finer features, which these models give too."""
    model = load("mobilenet_v3_small", num_classes=2)
    found = finer_features(model, torch.rand(2, 3, 224, 224), model.map_size)
    assert [tuple(each.shape[2:]) for each in found] == [(28, 28), (14, 14)]
    swin = load("swin_t", num_classes=2)
    assert finer_features(swin, torch.rand(1, 3, 224, 224), swin.map_size)[-1].shape == (1, 384, 14, 14)
    assert AttentionCorrector(model).settings.background_swap == 0.7
    with pytest.raises(NotImplementedError, match="only intermediates_only=True"):
        model.model.forward_intermediates(torch.rand(1, 3, 64, 64), intermediates_only=False)


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "densenet121"])
def test_conversion_to_timm(name, tmp_path):
    model = load(name, class_names=["a", "b", "c"])
    keep = torch.ones(model.num_neurons, dtype=torch.bool)
    keep[3] = False
    model.prune(keep)
    before = model.fingerprint
    converted = to_timm(model)
    assert converted.architecture == name
    assert converted.preprocessing == model.preprocessing
    assert converted.class_names == ("a", "b", "c")
    assert torch.equal(converted.neuron_mask, keep)
    assert model.fingerprint == before
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(converted(images), model(images), atol=1e-5)
    dataset = noise_pictures(8)
    answers = neuron_answers([5], model=converted.fingerprint)
    folder = NeuronPruner(converted, epochs=1).fit(dataset, answers).save(tmp_path / "timm")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert loaded.get_classifier().weight[:, 3].abs().sum() == 0


def test_conversion_that_is_not_exact():
    with pytest.raises(UnsupportedModelError, match="timm has no architecture like torchvision:swin_t"):
        to_timm(load("swin_t"))
    with pytest.raises(UnsupportedModelError, match="have other names or shapes in timm"):
        to_timm(load("convnext_tiny"))
    with pytest.raises(UnsupportedModelError, match="gives other logits than torchvision:inception_v3"):
        to_timm(load("inception_v3", model_args={"transform_input": True}))
    with pytest.raises(UnsupportedModelError, match="expected a model of load_model"):
        to_timm(load_model("test_resnet.r160_in1k", pretrained=False))


def test_home_made_modules_are_loaded_into_what_is_given(tmp_path):
    def build():
        trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        return SplitModel(trunk=trunk, head=head, preprocessing=Preprocessing(size=(64, 64)))

    done: Correction = corrected(build())
    folder = done.save(tmp_path / "own")
    with pytest.raises(ModelLoadError, match="neither timm nor torchvision can build"):
        load_correction(folder)
    given = build()
    before = given.fingerprint
    again = load_correction(folder, model=given)
    assert again.model.fingerprint == done.model.fingerprint
    assert given.fingerprint == before
    assert not again.model.training
