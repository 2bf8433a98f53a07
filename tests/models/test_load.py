"""One door for every place a model can come from, and what it says when there is none."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import FileFormatError, ModelLoadError, SettingsError, UnsupportedModelError
from crayon_sdk.models.load import load_model
from crayon_sdk.models.rebuild import base_of, timm_config
from crayon_sdk.models.split import Provenance, SplitModel

TINY = "test_resnet.r160_in1k"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, tiny_model):
    """A model as timm publishes one: config.json and model.safetensors."""
    folder = tmp_path_factory.mktemp("model")
    split = SplitModel(tiny_model(), class_names=["cat", "dog"])
    (folder / "config.json").write_text(json.dumps(timm_config(split)))
    save_file(split.plain_state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy that may be spoiled."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def check_loaded(split, model):
    assert split.fingerprint == SplitModel(model).fingerprint
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(split(images), model(images))
    assert not any(module.training for module in split.modules())


def test_a_timm_name():
    split = load_model(TINY, pretrained=False, num_classes=3, class_names=["a", "b", "c"])
    assert (split.num_classes, split.class_names, split.map_size) == (3, ("a", "b", "c"), (5, 5))
    assert not split.training
    assert load_model(TINY, pretrained=False, preprocessing=Preprocessing(size=(96, 96))).map_size == (3, 3)


def test_the_callers_random_numbers_stay(folder):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    load_model(TINY, pretrained=False)
    load_model(folder)
    load_model(folder / "model.safetensors", architecture=TINY)
    with pytest.raises(ModelLoadError):
        load_model("no_such_model")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


@pytest.mark.parametrize("how", ["path", "text", "local-dir"])
def test_a_folder(model_folder, tiny_model, how):
    source = {"path": model_folder, "text": str(model_folder), "local-dir": f"local-dir:{model_folder}"}[how]
    split = load_model(source)
    check_loaded(split, tiny_model())
    assert split.class_names == ("cat", "dog")
    check_loaded(SplitModel(timm.create_model(f"local-dir:{model_folder}", pretrained=True).eval()), tiny_model())


def test_a_folder_in_the_working_directory(model_folder, tiny_model, monkeypatch):
    monkeypatch.chdir(model_folder.parent)
    check_loaded(load_model(model_folder.name), tiny_model())
    check_loaded(load_model(f"local-dir:{model_folder.name}"), tiny_model())


def test_a_weights_file(model_folder, tiny_model):
    path = model_folder / "model.safetensors"
    check_loaded(load_model(path, architecture=TINY), tiny_model())
    check_loaded(load_model(str(path), architecture="test_resnet", num_classes=2), tiny_model())


def test_real_weights(shared):
    """ImageNet weights fit to the last name, and see a bird in a picture of one."""
    path = shared / "data" / "weights" / "mobilenetv2_100_in1k.fp16.safetensors"
    split = load_model(path, architecture="mobilenetv2_100", model_args={"pad_type": "same"})
    assert (split.num_classes, split.num_neurons, split.map_size) == (1000, 1280, (7, 7))
    assert split.dtype == torch.float32
    birds = load_model(shared / "data" / "weights" / "birds_original")
    assert birds.class_names == ("landbird", "waterbird")
    assert birds.preprocessing.size == (160, 160)
    with pytest.raises(ModelLoadError, match=r"do not fit mobilenetv3_large_100"):
        load_model(path, architecture="mobilenetv3_large_100")


def test_a_model_object(tiny_model):
    model = tiny_model().train()
    split = load_model(model)
    assert split.model is model
    assert model.training
    assert load_model(split) is split


def test_a_split_model_with_something_new_keeps_the_rest(tiny_model):
    split = SplitModel(tiny_model(), preprocessing=Preprocessing(size=(96, 96)), class_names=["cat", "dog"])
    split.provenance = Provenance(records=({"made": "by hand"},))
    resized = load_model(split, preprocessing=Preprocessing(size=(128, 128)))
    assert (resized.class_names, resized.provenance, resized.map_size) == (split.class_names, split.provenance, (4, 4))
    renamed = load_model(split, class_names=["a", "b"])
    assert (renamed.class_names, renamed.preprocessing) == (("a", "b"), split.preprocessing)
    assert split.class_names == ("cat", "dog")


# --- what goes wrong ---


def test_an_unknown_name():
    with pytest.raises(ModelLoadError, match=r"cannot load 'resnett50'.*timm has .*resnet50"):
        load_model("resnett50")
    with pytest.raises(ModelLoadError, match=r"cannot load 'qqqqqqqq'.*see timm.list_models\(\)"):
        load_model("qqqqqqqq")
    with pytest.raises(ModelLoadError, match=r"cannot load 'resnet18.no_such_tag'"):
        load_model("resnet18.no_such_tag")


def test_arguments_that_do_not_fit(model_folder):
    with pytest.raises(ModelLoadError, match=r"cannot load 'test_resnet.*unexpected keyword argument 'colour'"):
        load_model(TINY, pretrained=False, model_args={"colour": "red"})
    with pytest.raises(SettingsError, match=r"architecture= goes with a .safetensors file, got 'resnet50'"):
        load_model("resnet50", architecture="resnet18")
    with pytest.raises(SettingsError, match=r"expected a name, a path or a model, got int"):
        load_model(50)
    with pytest.raises(UnsupportedModelError, match=r"a linear layer .* at the end"):
        load_model(TINY, pretrained=False, num_classes=0)


def test_no_folder(tmp_path):
    for source in (tmp_path / "none", f"local-dir:{tmp_path}/none", "local-dir:none"):
        with pytest.raises(
            ModelLoadError, match=r"no folder at '.*none'; expected one with config.json and model.safe"
        ):
            load_model(source)


def test_a_folder_without_config(folder):
    (folder / "config.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"config.json' is not a timm config: it names no architecture"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"config.json' is not a readable JSON file"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileFormatError, match=r"no file at '.*config.json'"):
        load_model(folder)


def test_a_folder_with_a_pickle_only(folder, tiny_model):
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelLoadError, match=r"has no model.safetensors.*a pickle that you trust, pass allow_pickle=True"
    ):
        load_model(folder)
    check_loaded(load_model(folder, allow_pickle=True), tiny_model())
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelLoadError, match=r"cannot load 'local-dir:.*No suitable checkpoints found"):
        load_model(folder, allow_pickle=True)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_weights_that_are_cut_off(folder, share):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for source, architecture in ((folder, None), (path, TINY)):
        with pytest.raises(FileFormatError, match=r"model.safetensors' is not a whole safetensors file.*cut off"):
            load_model(source, architecture=architecture)


def test_weights_that_do_not_fit(folder):
    path = folder / "model.safetensors"
    with pytest.raises(ModelLoadError, match=r"weights in model.safetensors do not fit test_resnet.*'num_classes': 5"):
        load_model(path, architecture=TINY, num_classes=5)
    with pytest.raises(ModelLoadError, match=r"do not fit test_efficientnet"):
        load_model(path, architecture="test_efficientnet")
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ModelLoadError, match=r"do not fit test_resnet.*Missing key"):
        load_model(path, architecture=TINY)
    with pytest.raises(ModelLoadError, match=r"cannot load 'local-dir:"):
        load_model(folder)


def test_a_weights_file_without_architecture(folder):
    with pytest.raises(
        SettingsError, match=r"'model.safetensors' holds weights only.*architecture=, such as 'resnet50'"
    ):
        load_model(folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"no weights file at '.*none.safetensors'"):
        load_model(folder / "none.safetensors", architecture=TINY)
    with pytest.raises(ModelLoadError, match=r"cannot load 'test_resnett'"):
        load_model(folder / "model.safetensors", architecture="test_resnett")


def test_a_new_last_layer_is_the_same_every_time_and_said(model_folder, caplog):
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(load_model(model_folder, num_classes=5))
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(seed)))
    assert made[0].fingerprint == made[1].fingerprint
    assert made[0].class_names == ()
    assert "have 2 classes, and num_classes=5: the last layer is new and random" in caplog.text
    caplog.clear()
    assert load_model(model_folder, num_classes=2).class_names == ("cat", "dog")
    assert load_model(TINY, pretrained=False, num_classes=5).num_classes == 5
    assert caplog.text == ""


def test_names_that_a_config_has_of_its_base_model(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["label_names"]
    config["pretrained_cfg"] |= {"num_classes": 3, "label_names": ["a", "b", "c"]}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder).class_names == ()
    config["pretrained_cfg"]["num_classes"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="as many label_names in the config as it has classes, 2, got 3"):
        load_model(folder)


def test_random_weights_come_from_nowhere():
    model = load_model("test_resnet.r160_in1k", pretrained=False, num_classes=2)
    assert base_of(model) == {"architecture": "test_resnet", "model": "", "license": ""}


def test_channels_are_looked_at_before_anything_is_fetched():
    with pytest.raises(UnsupportedModelError, match="expected a model of RGB pictures, resnet50 takes 1 channel"):
        load_model("resnet50", model_args={"in_chans": 1})


def test_a_name_of_the_hub_without_its_prefix():
    with pytest.raises(
        ModelLoadError, match=r"no folder at 'me/birds'; .*for a repository of the Hub write 'hf-hub:me/birds'"
    ):
        load_model("me/birds")


def test_tensors_that_do_not_fit_are_named(folder):
    """By timm's way and by ours: which tensors, and which shapes."""
    tensors, metadata = read_tensors(folder / "model.safetensors")
    first = next(iter(tensors))
    wrong = {("other" if name == first else name): tensor for name, tensor in tensors.items()}
    last = list(wrong)[-1]
    wrong[last] = torch.cat([wrong[last], wrong[last]])
    write_tensors(folder / "model.safetensors", wrong, metadata)
    with pytest.raises(ModelLoadError) as error:
        load_model(folder)
    for text in (first, "other", last, str(list(wrong[last].shape))):
        assert text in str(error.value), error.value
