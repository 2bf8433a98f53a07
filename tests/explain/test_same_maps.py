"""Faster ways to run a trunk give the same maps: compiled, in bfloat16, channels last.

The tolerances are those that the documentation states (docs/how-to/faster.md); on a GPU the
same tests run with ``pytest -m gpu``.
"""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from helpers_correction import half_and_half, noise_pictures, random_maps

from crayon_sdk import AttentionCorrector, Explainer, ImageDataset, SplitModel, load_model
from crayon_sdk.errors import SettingsError

TIGHT, BFLOAT16 = 1e-3, 0.1
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def pictures(size, count=6):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def maps_of(split, device, **settings):
    images = pictures(split.preprocessing.size)
    return Explainer(split, device=device, **settings).saliency(images, torch.arange(6) % 2).cpu()


@pytest.fixture(params=["test_resnet.r160_in1k", "test_convnext.r160_in1k", "test_efficientnet.r160_in1k"])
def model(request, tiny_model):
    return tiny_model(request.param)


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last(model, device):
    plain = maps_of(SplitModel(copy.deepcopy(model)), device, precision="float32")
    other = maps_of(SplitModel(model.to(memory_format=torch.channels_last)), device, precision="float32")
    assert torch.allclose(other, plain, atol=TIGHT)


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16(model, device):
    """The trunk in bfloat16, the head and the gradient in float32."""
    plain = maps_of(SplitModel(model), device, precision="float32")
    reduced = maps_of(SplitModel(model), device, precision="bfloat16")
    assert not torch.equal(reduced, plain)
    assert (reduced - plain).abs().mean() < BFLOAT16 / 5
    assert torch.allclose(reduced, plain, atol=BFLOAT16)


@pytest.mark.parametrize("device", DEVICES)
def test_real_maps_in_bfloat16(shared, device):
    """On a trained model and real pictures, where evidence is not noise."""
    split = load_model(shared / "data" / "weights" / "birds_original")
    table = shared / "data" / "birds" / "metadata.csv"
    dataset = ImageDataset.from_csv(table, split="val")
    dataset = dataset.subset(dataset.ids[::20])
    full = Explainer(split, device=device, precision="float32", score="margin").explain(dataset)
    reduced = Explainer(split, device=device, precision="bfloat16", score="margin").explain(dataset)
    # Where there is hardly any evidence, rounding decides what is left of it.
    shift = (reduced.values - full.values).abs()[full.evidence & reduced.evidence].flatten(1)
    assert len(shift) > 30
    assert shift.mean() < BFLOAT16 / 5
    assert shift.max(dim=1).values.median() < BFLOAT16


@pytest.mark.parametrize(
    ("device", "backend"),
    [
        ("cpu", "aot_eager"),  # everything but the C++, which takes minutes
        pytest.param("cpu", "inductor", marks=pytest.mark.slow),
        pytest.param("cuda", "inductor", marks=pytest.mark.gpu),
    ],
)
def test_compiled(tiny_model, monkeypatch, device, backend):
    """Maps, and a whole correction: its copy of the model runs its own weights, not the old ones."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch.compiler.reset()
    model = tiny_model("test_resnet.r160_in1k")
    plain, compiled = SplitModel(model), SplitModel(model, compile=True)
    assert torch.allclose(maps_of(compiled, device), maps_of(plain, device), atol=TIGHT)
    assert compiled._compiled is not None
    assert plain._compiled is None
    dataset = noise_pictures(8)
    settings = {"epochs": 1, "batch_size": 4, "alpha": 1.0, "beta": 1.0, "lr": 1e-2, "device": device}
    results = [
        AttentionCorrector(split, background_swap=0.0, **settings).fit(
            dataset, random_maps(dataset), half_and_half(dataset)
        )
        for split in (plain, compiled)
    ]
    losses = [[entry["loss"] for entry in result.history] for result in results]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert results[1].model.compile_trunk
    images = pictures((64, 64)).to(results[0].model.device)
    with torch.no_grad():
        expected, found = (result.model(images) for result in results)
        assert torch.allclose(found, expected, atol=0.05)
        assert not torch.allclose(found, plain(images), atol=0.05)


def test_compiling_is_asked_for_by_name(tiny_model):
    """It reaches the model through every door, and a model that asks for it keeps it."""
    model = tiny_model()
    assert load_model(model, compile=True).compile_trunk
    assert not load_model(model).compile_trunk
    split = SplitModel(model, compile=True)
    assert load_model(split) is split
    assert load_model(split, class_names=["a", "b"]).compile_trunk
    again = load_model(SplitModel(model), compile=True)
    assert again.compile_trunk


def test_where_compiling_does_not_work(tiny_model, monkeypatch):
    def no_compiler(_module, _inputs):
        raise RuntimeError("no C++ compiler\nmore")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run: torch_compile(run, backend=no_compiler))
    split = SplitModel(tiny_model(), compile=True)
    with pytest.raises(SettingsError, match=r"compile=True does not work for test_resnet here: .*no C\+\+ compiler"):
        split(torch.rand(1, 3, 160, 160))
