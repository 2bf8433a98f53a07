"""Every field of a checkpoint that is read is refused when it was altered, or proven to decide nothing."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from helpers_correction import SMALL, half_and_half, neuron_answers, noise_pictures, random_maps, split_model
from torch import nn

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.erm import ERMSettings, FurtherTraining
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Prediction
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.errors import FileFormatError, MismatchError, ModelLoadError
from crayon_sdk.models.load import load_model
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import load_correction

# Facts of the past, which nothing in the folder can prove, and which decide nothing: only their kind is checked.
TOLD = re.compile(
    r"(record|parents\.0)\.(settings(\..*)?|history\.\d\.(?!epoch).*|counts(\.(?!pruned|neurons).*)?|dataset|maps|answers"
    r"|seconds|created|versions(\..*)?|skipped.*)"
    r"|load|base\.(model|license)|evaluations\..*\.(skipped.*|grouped|groups\.\d\.name)"
)
# Written by timm for itself, or kept for it: neither we nor it read them from the folder of a whole model.
UNREAD = re.compile(r"pretrained_cfg\.(first_conv|classifier|origin_url|tag|paper_ids|pool_size|fixed_input_size).*")
# Of checkpoints that were written before these were, they are missing.
YOUNGER = re.compile(
    r"feature_shape|answers|base(\..*)?|evaluations(\..*)?|record\.(maps|pruned_neurons|skipped)(\..*)?"
)


def own_module():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    return SplitModel(trunk=trunk, head=head, preprocessing=SMALL)


def torchvision_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_model("torchvision:shufflenet_v2_x0_5", pretrained=False, num_classes=2, preprocessing=SMALL)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pruned and then guided model of timm, and a guided one of torchvision and of nobody."""
    place, dataset, held_out = tmp_path_factory.mktemp("saved"), noise_pictures(8), noise_pictures(4, seed=1)
    pruned = NeuronPruner(split_model(), epochs=1, device="cpu").fit(dataset, neuron_answers(range(5)), held_out)
    models = {"timm": pruned.model, "torchvision": torchvision_model(), "own": own_module()}
    settings = {"epochs": 1, "batch_size": 4, "alpha": 1.0, "beta": 1.0, "device": "cpu"}
    for name, model in models.items():
        corrector = AttentionCorrector(model, **settings)
        made = corrector.fit(dataset, random_maps(dataset), half_and_half(dataset), held_out)
        made.save(place / name)
    return place


def load(folder):
    return load_correction(folder, model=own_module() if folder.name == "own" else None)


# Of what is read by one and the same line, so many are enough.
ENOUGH = {"settings": 3, "versions": 1, "predictions": 1, "labels": 1, "membership": 1}


def paths(value, path=()):
    """Every place in a value of JSON, from the inside out; of a list the first one."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value[:1]))
        if isinstance(value, list)
        else []
    )
    for key, inner in items[: ENOUGH.get(path[-1], 100) if path else 100]:
        yield from paths(inner, (*path, key))
    if path:
        yield path


def others(value):
    """Values of the same kind, and one of another."""
    if isinstance(value, bool):
        return [not value, [{}]]
    if isinstance(value, int | float):
        return [value + 1, 10**9, [{}]]
    if isinstance(value, str):
        return [f"{value}x", [{}]]
    if isinstance(value, list):
        return [value[:-1], "text"] if value else ["text"]
    return [{}, [3]]


def altered(whole, path, change):
    """A copy in which one place was changed."""
    copy = json.loads(json.dumps(whole))
    *before, last = path
    place = copy
    for key in before:
        place = place[key]
    change(place, last)
    return copy


def decides(found, wanted):
    """Whether anything that a correction does is other than it was."""
    return not (
        found.model.fingerprint == wanted.model.fingerprint
        and found.model.preprocessing == wanted.model.preprocessing
        and found.model.class_names == wanted.model.class_names
        and torch.equal(found.model.neuron_mask, wanted.model.neuron_mask)
        and found.answers == wanted.answers
        and (found.before, found.after) == (wanted.before, wanted.after)
    )


def accepted(folder, name, *, whole_record):
    """The changes of a file that load, with what they made of it; everything else is refused in our words."""
    path = folder / name
    text = path.read_text(encoding="utf-8")
    whole, found = json.loads(text), []
    try:
        for place in paths(whole):
            if not whole_record and place[0] in ("record", "parents", "evaluations"):
                continue  # the same for every kind of model
            value = whole
            for key in place:
                value = value[key]
            changes = [
                ("gone" if new == {} else repr(new), lambda there, key, new=new: there.__setitem__(key, new))
                for new in others(value)
                if new != value
            ]
            changes.append(("gone", lambda there, key: there.__delitem__(key)))
            for what, change in changes:
                path.write_text(json.dumps(altered(whole, place, change)), encoding="utf-8")
                try:
                    loaded = load(folder)
                except (FileFormatError, MismatchError, ModelLoadError):
                    continue
                found.append((".".join(map(str, place)), what, loaded))
    finally:
        path.write_text(text, encoding="utf-8")
    return found


@pytest.mark.parametrize(
    ("kind", "name"),
    [("timm", "crayon.json"), ("timm", "config.json"), ("torchvision", "crayon.json"), ("own", "crayon.json")],
)
def test_every_field_that_is_altered_is_refused_or_decides_nothing(kind, name, saved):
    wanted, wrong = load(saved / kind), []
    for place, what, loaded in accepted(saved / kind, name, whole_record=kind == "timm"):
        if name == "config.json":
            harmless = UNREAD.fullmatch(place) or not decides(loaded, wanted)
        elif what == "gone":
            harmless = (YOUNGER.fullmatch(place) or TOLD.fullmatch(place)) is not None
        elif what in ("[{}]", "'text'", "[3]") and place != "load":
            harmless = False  # another kind of value
        elif place.split(".")[-1] == "method":  # a name that nobody here knows may be of another package
            harmless = what.endswith("x'") and not decides(loaded, wanted)
        else:
            told = TOLD.fullmatch(place) is not None
            harmless = told and (place.startswith("evaluations") or not decides(loaded, wanted))
        if not harmless:
            wrong.append((place, what))
    assert wrong == [], "\n".join(map(str, wrong))


@pytest.mark.parametrize("change", [lambda cut: cut[:-1], lambda cut: [*cut[:-1], 90], lambda cut: cut[::-1]])
def test_pruned_neurons_are_compared_with_weights_and_counts(change, saved, tmp_path):
    folder = shutil.copytree(saved / "timm", tmp_path / "timm")
    whole = json.loads((folder / "crayon.json").read_text())
    for record in (whole["record"], whole["parents"][0]):
        record["pruned_neurons"] = change(record["pruned_neurons"])
    (folder / "crayon.json").write_text(json.dumps(whole))
    with pytest.raises(MismatchError, match="pruned neurons"):
        load(folder)


@pytest.mark.parametrize("kind", ["timm", "torchvision", "own"])
def test_exchanged_answers_are_noticed(kind, saved, tmp_path):
    folder = shutil.copytree(saved / kind, tmp_path / kind)
    AnnotationSet(list(AnnotationSet.load(folder / "answers.jsonl"))[:-1]).save(folder / "answers.jsonl")
    with pytest.raises(MismatchError, match=r"answers in .*answers\.jsonl' are not those that crayon\.json describes"):
        load(folder)


def test_answers_of_an_older_checkpoint_are_compared_with_the_record(saved, tmp_path):
    folder = shutil.copytree(saved / "torchvision", tmp_path / "torchvision")
    whole = json.loads((folder / "crayon.json").read_text())
    del whole["answers"]
    (folder / "crayon.json").write_text(json.dumps(whole))
    load(folder)
    half_and_half(noise_pictures(4)).save(folder / "answers.jsonl")
    with pytest.raises(MismatchError, match=r"made with other answers than those in answers\.jsonl"):
        load(folder)


def test_weights_that_are_missing_are_said_to_be(saved, tmp_path):
    folder = shutil.copytree(saved / "timm", tmp_path / "timm")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"model\.safetensors is missing in .*copy the whole folder again"):
        load(folder)


def test_what_is_described_lies_beside_the_weights(saved, tmp_path):
    """Nothing else could tell that torchvision's builder got other arguments, or pictures another mean."""
    folder = shutil.copytree(saved / "torchvision", tmp_path / "torchvision")
    whole = json.loads((folder / "crayon.json").read_text())
    whole["preprocessing"]["mean"] = [0.5, 0.5, 0.5]
    (folder / "crayon.json").write_text(json.dumps(whole))
    with pytest.raises(MismatchError, match="says something else about the model"):
        load(folder)


def test_impossible_sizes_are_refused_before_anything_is_built(saved, tmp_path, monkeypatch):
    def build(*_arguments, **_keywords):
        raise AssertionError("a model was built")

    monkeypatch.setattr("crayon_sdk.results.correction.load_model", build)
    folder = shutil.copytree(saved / "timm", tmp_path / "timm")
    config, manifest = (json.loads((folder / name).read_text()) for name in ("config.json", "crayon.json"))
    config["pretrained_cfg"]["input_size"], manifest["preprocessing"]["size"] = [3, 9000, 9000], [9000, 9000]
    from crayon_sdk._base.files import read_tensors, write_tensors

    write_tensors(folder / "model.safetensors", read_tensors(folder / "model.safetensors")[0], {"format": "pt"})
    (folder / "crayon.json").write_text(json.dumps(manifest))
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match="9000 x 9000 pixels are too large"):
        load(folder)


def test_a_history_may_be_shorter_than_was_asked_for_only_where_training_had_enough(tmp_path):
    made = FurtherTraining(split_model(), epochs=9, until_accuracy=0.01, batch_size=4, device="cpu")
    folder = made.fit(noise_pictures(8)).save(tmp_path / "saved")
    found = load_correction(folder)
    assert 1 <= len(found.history) < 9
    assert found.history[-1]["enough"] == 1
    file = folder / "crayon.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    whole = json.dumps(told)
    del told["record"]["history"][-1]["enough"]
    file.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(FileFormatError, match="history, which does not have the 9 epochs in order"):
        load_correction(folder)
    told = json.loads(whole)
    told["record"]["settings"]["epochs"] = 0
    file.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(FileFormatError, match="history, which does not have the 0 epochs in order"):
        load_correction(folder)


def test_a_method_that_is_not_installed_here_is_named_and_changes_nothing(tmp_path, caplog):
    @method
    class Elsewhere(Method[ERMSettings], ERMSettings):
        method = "elsewhere"

        def objective(self, model, feed, settings):
            return Prediction(model, feed.labels)

    made = Elsewhere(split_model(), epochs=1, batch_size=4, device="cpu").fit(noise_pictures(8))
    folder = made.save(tmp_path / "saved")
    with caplog.at_level("WARNING"):
        found = load_correction(folder)
    assert caplog.messages == [
        f"{folder} was made by the method 'elsewhere', which no package that is installed here registers (entry points "
        "of the group crayon_sdk.methods); it is loaded all the same"
    ]
    assert (found.record, found.model.fingerprint) == (made.record, made.model.fingerprint)
    caplog.clear()
    FurtherTraining(split_model(), epochs=1, batch_size=4, device="cpu").fit(noise_pictures(8)).save(tmp_path / "erm")
    load_correction(tmp_path / "erm")
    assert not caplog.messages
