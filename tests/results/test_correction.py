from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from helpers_correction import (
    SMALL,
    half_and_half,
    neuron_answers,
    noise_pictures,
    plain_correction,
    random_maps,
    split_model,
)
from helpers_report import bare_correction
from torch import nn

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import (
    FileFormatError,
    MismatchError,
    ModelLoadError,
    OutputError,
    OutputExistsError,
    SettingsError,
)
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import Correction, check_output, load_correction, versions

FILES = ["README.md", "answers.jsonl", "config.json", "crayon.json", "model.safetensors"]


@pytest.fixture
def correction() -> Correction:
    return plain_correction(split_model())


def attention(model, **settings):
    dataset = noise_pictures(8)
    corrector = AttentionCorrector(model, epochs=1, batch_size=4, alpha=1.0, beta=1.0, device="cpu", **settings)
    return corrector.fit(dataset, random_maps(dataset), half_and_half(dataset), noise_pictures(4, seed=1))


def resnet():
    return split_model(1)


def dilated_resnet():
    return split_model(1, "resnet18", output_stride=16)


def convnext():
    return split_model(1, "convnext_atto")


def mobilenet_v3():
    return split_model(1, "mobilenetv3_small_050")


def same_padding():
    return split_model(1, "mobilenetv2_050", pad_type="same")


def pruned():
    return NeuronPruner(split_model(1), epochs=1, device="cpu").fit(noise_pictures(8), neuron_answers(range(9))).model


def channels_last():
    return split_model(1).to(memory_format=torch.channels_last)


def half():
    return split_model(1).half()


def compiled():
    return SplitModel(torch.compile(split_model(1).model), preprocessing=SMALL)


def data_parallel():
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(split_model(1).model)
        return SplitModel(wrapped, preprocessing=SMALL)
    finally:
        dist.destroy_process_group()


WRAPPED = [compiled, data_parallel]
MODELS = [resnet, dilated_resnet, convnext, mobilenet_v3, same_padding, pruned, channels_last, half, *WRAPPED]

PLAIN_TIMM = """
import json, sys
import torch, timm
torch.set_num_threads(1)  # as here: sums of other threads differ in the last digits
from safetensors.torch import load_file, save_file
images = load_file(sys.argv[1])["images"]
found, facts = {}, {}
with torch.no_grad():
    for folder in sys.argv[3:]:
        model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
        found[folder.rpartition("/")[2]] = model(images)
        data = timm.data.resolve_model_data_config(model)
        facts[folder.rpartition("/")[2]] = [model.pretrained_cfg.get("label_names"), data["input_size"], data["mean"]]
assert not [name for name in sys.modules if name.startswith("crayon")]
save_file(found, sys.argv[2], metadata={"facts": json.dumps(facts)})
"""


def test_plain_timm_gives_the_same_logits_in_a_fresh_process(tmp_path):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    write_tensors(tmp_path / "images.safetensors", {"images": images})
    expected, folders = {}, []
    for make in MODELS:
        model = make()
        model.class_names = ("left", "right")
        folders.append(str(plain_correction(model).save(tmp_path / make.__name__)))
        assert sorted(os.listdir(folders[-1])) == FILES
        with torch.no_grad():
            expected[make.__name__] = model.float()(images)
    arguments = [str(tmp_path / "images.safetensors"), str(tmp_path / "logits.safetensors"), *folders]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_TIMM, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found, metadata = read_tensors(tmp_path / "logits.safetensors")
    facts = json.loads(metadata["facts"])
    for name, logits in expected.items():
        torch.testing.assert_close(found[name], logits, rtol=0, atol=1e-6, msg=lambda text: f"{name}: {text}")  # noqa: B023
        assert facts[name] == [["left", "right"], [3, 64, 64], [0.0, 0.0, 0.0]]


def test_nothing_in_the_folder_is_a_pickle(correction, tmp_path):
    for path in correction.save(tmp_path / "saved").iterdir():
        first = path.read_bytes()[:2]
        assert path.suffix in (".json", ".jsonl", ".safetensors", ".md")
        assert not first.startswith((b"\x80", b"PK"))
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("make", MODELS)
def test_round_trip(make, tmp_path):
    correction = plain_correction(make())
    loaded = load_correction(correction.save(tmp_path / "saved"))
    assert (loaded.record, loaded.parents) == (correction.record, correction.parents)
    assert loaded.answers == correction.answers
    assert (loaded.before, loaded.after) == (correction.before, None)
    assert loaded.model.fingerprint == correction.model.fingerprint
    assert loaded.model.preprocessing == correction.model.preprocessing
    assert loaded.model.dtype == correction.model.dtype
    assert torch.equal(loaded.model.neuron_mask, correction.model.neuron_mask)
    assert loaded.model.provenance == correction.model.provenance


def test_preprocessing_and_class_names_travel(tmp_path):
    preprocessing = Preprocessing(
        size=(64, 96), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=0.9, crop_mode="squash", interpolation="box"
    )
    model = SplitModel(split_model().model, preprocessing=preprocessing, class_names=["Zürich", "b/c"])
    loaded = load_correction(plain_correction(model).save(tmp_path / "saved")).model
    assert loaded.preprocessing == preprocessing
    assert loaded.class_names == ("Zürich", "b/c")


@pytest.mark.parametrize("make", [resnet, half])
def test_correction_after_loading_goes_on(make, tmp_path):
    first = attention(make())
    loaded = load_correction(first.save(tmp_path / "first"))
    assert loaded.after == first.after
    second = attention(loaded.model)
    assert second.parents == (first.record,)
    again = load_correction(second.save(tmp_path / "second"))
    assert again.parents == (first.record,)
    assert again.answers == second.answers


def test_existing_folder_is_refused_and_replaced_only_when_asked(correction, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already; choose another name, or pass overwrite=True"):
        correction.save(tmp_path / "saved")
    assert os.listdir(tmp_path / "saved") == ["mine.txt"]
    correction.save(tmp_path / "saved", overwrite=True)
    assert sorted(os.listdir(tmp_path / "saved")) == FILES
    assert os.listdir(tmp_path) == ["saved"]


def test_the_folder_can_be_checked_before_the_work(tmp_path):
    assert check_output(tmp_path / "deep" / "saved") == tmp_path / "deep" / "saved"
    assert os.listdir(tmp_path) == []
    (tmp_path / "saved").mkdir()
    with pytest.raises(OutputExistsError, match="exists already"):
        check_output(tmp_path / "saved")
    assert check_output(tmp_path / "saved", overwrite=True) == tmp_path / "saved"
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        check_output(tmp_path / "file" / "saved")


def test_a_model_that_gives_nan_is_not_written(tmp_path):
    model = split_model()
    with torch.no_grad():
        model.model.fc.weight.fill_(3e38)
    with pytest.raises(
        OutputError, match=r"logits of test_resnet are not finite .*largest: 3e\+38 in 'fc\.weight'.*lower lr"
    ):
        plain_correction(model).save(tmp_path / "saved")
    assert os.listdir(tmp_path) == []


def bias_gone(module):
    module.fc = nn.Linear(96, 2, bias=False)


def other_activation(module):
    module.act1 = nn.Tanh()


def wider_stem(module):
    module.layer1 = nn.Sequential(module.layer1, nn.BatchNorm2d(32))


@pytest.mark.parametrize("change", [bias_gone, other_activation, wider_stem])
def test_model_that_would_not_load_back_is_not_written(change, tmp_path):
    module = split_model().model
    change(module)
    good = plain_correction(split_model()).save(tmp_path / "there")
    before = (good / "model.safetensors").read_bytes()
    correction = plain_correction(SplitModel(module, preprocessing=SMALL))
    with pytest.raises(OutputError, match=r"the checkpoint was not written: .*test_resnet.*timm\.create_model"):
        correction.save(tmp_path / "new")
    with pytest.raises(OutputError, match="the checkpoint was not written"):
        correction.save(good, overwrite=True)
    assert os.listdir(tmp_path) == ["there"]
    assert (good / "model.safetensors").read_bytes() == before


def test_home_made_model_is_saved_with_weights_only(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk, head = (
            nn.Conv2d(3, 4, 3, stride=8),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        )
    folder = plain_correction(SplitModel(trunk=trunk, head=head, preprocessing=SMALL)).save(tmp_path / "saved")
    assert "config.json" not in os.listdir(folder)
    tensors, _ = read_tensors(folder / "model.safetensors")
    assert torch.equal(tensors["trunk.weight"], trunk.weight)
    with pytest.raises(ModelLoadError, match=r"no config\.json in .*Build it yourself and pass it"):
        load_correction(folder)


SAVE_IN_A_BAD_PLACE = """
import os, subprocess, sys
sys.path[:0] = {paths!r}
mount = ["mount", "-t", "tmpfs", "-o", {options!r}, "tmpfs", {place!r}]
if subprocess.run(mount, capture_output=True).returncode:
    sys.exit(77)
from helpers_correction import split_model
from helpers_correction import plain_correction
from crayon_sdk.errors import OutputError
try:
    plain_correction(split_model()).save({place!r} + "/saved")
except OutputError as error:
    print(error, os.listdir({place!r}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("unshare"), reason="mounts of Linux")
@pytest.mark.parametrize(
    ("options", "message"), [("size=600k", "the disk is full; free some space"), ("ro", "the folder is not writable")]
)
def test_full_disk_and_read_only_folder(options, message, tmp_path):
    here = Path(__file__).resolve().parent
    place = tmp_path / "place"
    place.mkdir()
    script = SAVE_IN_A_BAD_PLACE.format(paths=[str(here), str(here.parent)], options=options, place=str(place))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", script],
        capture_output=True,
        text=True,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("a small file system cannot be mounted here")
    assert done.returncode == 0, done.stderr
    assert message in done.stdout
    assert "cannot write" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


def alter(folder, **changes):
    path = folder / "crayon.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_missing_manifest(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    (folder / "crayon.json").unlink()
    (folder / "config.json").unlink()
    with pytest.raises(FileFormatError, match=r"no crayon\.json in .*load_model\(\.\.\.\) loads a plain checkpoint"):
        load_correction(folder)
    with pytest.raises(FileFormatError, match=r"no folder at .*nowhere'; expected one that Correction.save wrote$"):
        load_correction(tmp_path / "nowhere")


def test_checkpoint_of_somebody_else_is_loaded_with_a_note(tmp_path, caplog):
    """And what is corrected from it has no parent that did nothing."""
    folder = plain_correction(split_model(3)).save(tmp_path / "saved")
    for name in ("crayon.json", "answers.jsonl"):
        (folder / name).unlink()
    with caplog.at_level("WARNING"):
        found = load_correction(folder)
    assert "has no crayon.json: a plain checkpoint, loaded as a model without answers, settings" in caplog.text
    assert found.model.fingerprint == split_model(3).fingerprint
    assert (found.record.method, found.parents, len(found.answers)) == ("none", (), 0)
    assert found.model.provenance.records == ()
    assert load_correction(found.save(tmp_path / "again")).record == found.record
    assert attention(found.model).parents == ()


def test_base_model_and_licence_travel(tmp_path):
    model = split_model(1)
    model.model.pretrained_cfg |= {"hf_hub_id": "timm/test_resnet.r160_in1k", "license": "cc-by-nc-4.0"}
    folder = plain_correction(model).save(tmp_path / "saved")
    base = {"architecture": "test_resnet", "model": "timm/test_resnet.r160_in1k", "license": "cc-by-nc-4.0"}
    assert json.loads((folder / "crayon.json").read_text())["base"] == base
    assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["license"] == "cc-by-nc-4.0"
    again = load_correction(folder)
    assert json.loads((again.save(tmp_path / "again") / "crayon.json").read_text())["base"] == base
    alter(folder, base=3)
    with pytest.raises(FileFormatError, match="incomplete or altered"):
        load_correction(folder)


def test_model_that_compiles_its_trunk_is_saved_without_compiling(tmp_path):
    model = SplitModel(split_model(1).model, preprocessing=SMALL, compile=True)
    folder = plain_correction(model).save(tmp_path / "saved")
    assert load_correction(folder).model.fingerprint == split_model(1).fingerprint


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": "other"}'])
def test_manifest_of_another_kind(text, correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    (folder / "crayon.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"is not the crayon\.json of a correction"):
        load_correction(folder)


def test_broken_manifest(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    path = folder / "crayon.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match="not a readable JSON file"):
        load_correction(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"record": None},
        {"record": {"method": "attention"}},
        {"parents": 3},
        {"parents": [1]},
        {"evaluations": []},
        {"evaluations": {"after": {"groups": []}}},
        {"evaluations": {"after": {"groups": [], "predictions": "ab"}}},
        {"class_names": 5},
        {"dtype": "int8"},
        {"dtype": []},
    ],
)
def test_altered_manifest(changes, correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    alter(folder, **changes)
    with pytest.raises(FileFormatError, match=r"crayon\.json' is incomplete or altered"):
        load_correction(folder)


def test_pruned_neurons_that_do_not_exist(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    record = json.loads((folder / "crayon.json").read_text())["record"]
    alter(folder, record=record | {"pruned_neurons": [4000]})
    with pytest.raises(FileFormatError, match="names pruned neurons that the model's 96 do not include"):
        load_correction(folder)


def test_newer_version(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    alter(folder, version=2)
    with pytest.raises(FileFormatError, match=r"written in version 2 of the format, .*reads version 1; upgrade"):
        load_correction(folder)


def test_foreign_weights(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    write_tensors(folder / "model.safetensors", split_model(5).plain_state_dict(), {"format": "pt"})
    with pytest.raises(MismatchError, match=r"are not those that crayon.json describes .*one of the two was replaced"):
        load_correction(folder)


@pytest.mark.parametrize("change", [{"mean": [0.1, 0.2, 0.3]}, {"interpolation": "nearest"}, {"crop_pct": 0.5}])
def test_preprocessing_that_was_changed(correction, tmp_path, change):
    folder = correction.save(tmp_path / "saved")
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchError, match=rf"contradict each other: pretrained_cfg\.{next(iter(change))} is "):
        load_correction(folder)


def test_preprocessing_that_is_missing(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    manifest = json.loads((folder / "crayon.json").read_text(encoding="utf-8"))
    del manifest["preprocessing"]
    (folder / "crayon.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"crayon\.json' is incomplete or altered: 'preprocessing'"):
        load_correction(folder)


def test_truncated_weights(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match="not a whole safetensors file"):
        load_correction(folder)


def test_missing_answers(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    (folder / "answers.jsonl").unlink()
    with pytest.raises(FileFormatError, match=r"answers\.jsonl"):
        load_correction(folder)


def test_saving_changes_nothing(correction, tmp_path, snapshot):
    model = correction.model.train()
    before = snapshot(model)
    correction.save(tmp_path / "saved")
    load_correction(tmp_path / "saved")
    assert snapshot(model) == before


def test_versions_name_the_software():
    assert versions()["timm"] == timm.__version__
    assert set(versions()) == {"python", "crayon-sdk", "torch", "torchvision", "timm", "captum", "safetensors"}


def test_a_name_of_the_hub_without_its_prefix():
    with pytest.raises(
        FileFormatError, match=r"no folder at 'me/x'; .*for a repository of the Hub write 'hf-hub:me/x'"
    ):
        load_correction("me/x")
    with pytest.raises(SettingsError, match="expected a folder or 'hf-hub:user/name', got int"):
        load_correction(3)


def test_tokens_are_not_taken(correction):
    for result in (correction, correction.answers):
        with pytest.raises(SettingsError, match="log in once with `hf auth login`, or set HF_TOKEN") as caught:
            result.push_to_hub("me/x", token="hf_secret")
        assert "hf_secret" not in str(caught.value)


def test_the_facts_are_those_of_the_correction():
    correction = bare_correction()
    facts = correction.facts(evaluated_on="test pictures")
    assert facts.records == (correction.record.model_dump(mode="json"),)
    assert (facts.original, facts.fingerprint) == (correction.record.original, correction.model.fingerprint)
    assert facts.answers is correction.answers
    assert facts.place == "test pictures"
    assert replace(correction, parents=(correction.record,)).facts().records[0] == facts.records[0]
