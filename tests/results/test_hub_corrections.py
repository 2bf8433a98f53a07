"""A correction goes to the Hub and comes back, over real HTTP; and what must not come back."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from helpers_correction import plain_correction, split_model
from helpers_hub import Fault, Repository, assert_whole, files_in, serving
from helpers_hub_client import environment_for, run

from crayon_sdk._base.files import read_tensors, write_tensors

PUSH = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
import huggingface_hub
huggingface_hub.logging.set_verbosity_debug()
from crayon_sdk import load_correction
correction = load_correction(sys.argv[1])
sys.stdout.write(repr(correction.push_to_hub("ann/birds", private=True)) + "\\n")
"""

PLAIN_TIMM = """
import json, sys
import timm, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
images = load_file(sys.argv[1])["images"]
found = {}
with torch.no_grad():
    for source in sys.argv[3:]:
        model = timm.create_model(source, pretrained=True).eval()
        found[source] = model(images)
        assert model.pretrained_cfg["label_names"] == ["left", "right"], model.pretrained_cfg
assert not [name for name in sys.modules if name.startswith("crayon")]
save_file(found, sys.argv[2])
"""

PULL = """
import json, logging, sys
logging.basicConfig(level=logging.DEBUG)
from crayon_sdk import load_correction, load_model
from crayon_sdk.errors import CrayonError
for source in sys.argv[1:]:
    try:
        if source.startswith("model="):
            said = {"model": load_model(source.removeprefix("model=")).fingerprint}
        else:
            found = load_correction(source)
            said = {"method": found.record.method, "answers": len(found.answers), "model": found.model.fingerprint}
            said |= {"parents": len(found.parents), "settings": found.record.settings}
            said["base"] = found.model.model.pretrained_cfg.get("hf_hub_id")
    except CrayonError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps(said) + "\\n")
"""


@pytest.fixture(scope="module")
def correction():
    model = split_model(1)
    model.class_names = ("left", "right")
    return plain_correction(model)


@pytest.fixture(scope="module")
def saved(correction, tmp_path_factory):
    return correction.save(tmp_path_factory.mktemp("saved") / "model")


def pull(sources, endpoint, home, *, token="hf_mine"):
    out, err = run(PULL, sources, environment_for(endpoint, home, token=token))
    assert token not in out + err
    return [json.loads(line) for line in out.splitlines()], err


def changed(saved, place, **files):
    """A copy of a saved correction with other files; ``None`` removes one."""
    shutil.copytree(saved, place)
    for name, content in files.items():
        path = place / name.replace("__", ".")
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
    return place


def test_there_and_back(correction, saved, tmp_path):
    """Saved, checked, published, loaded by plain timm with equal logits, and by us with everything behind it.

    A checkpoint of somebody else is loaded with a note.
    """
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    write_tensors(tmp_path / "images.safetensors", {"images": images})
    bare = changed(saved, tmp_path / "bare", crayon__json=None, answers__jsonl=None)
    others = {"ann/small": Repository({"main": saved}, lfs=False), "bob/bare": Repository({"main": bare})}
    with serving(others) as hub:
        environment = environment_for(hub.endpoint, tmp_path / "home", token="hf_mine")
        out, err = run(PUSH, [str(saved)], environment)
        assert "hf_mine" not in out + err
        repository = hub.repositories["ann/birds"]
        assert f"url='{hub.endpoint}/ann/birds'" in out
        assert f"commit='{repository.main.oid}'" in out
        assert repository.private
        assert len(repository.commits) == 2
        sent = files_in(saved)
        sent["README.md"] = sent["README.md"].replace(b"USER/NAME", b"ann/birds")
        assert b"ann/birds" in sent["README.md"]
        assert_whole(repository, sent)
        assert all(b"hf_mine" not in content for content in repository.main.files.values())

        sources = ["hf-hub:ann/birds", f"hf-hub:ann/birds@{repository.main.oid}", "hf-hub:ann/small"]
        arguments = [str(tmp_path / "images.safetensors"), str(tmp_path / "logits.safetensors"), *sources]
        run(PLAIN_TIMM, arguments, environment | {"HF_HOME": str(tmp_path / "elsewhere")}, cwd=tmp_path)
        everything = [*sources, "hf-hub:bob/bare", "hf-hub:ann/none"]
        (*pulled, foreign, missing), log = pull(everything, hub.endpoint, tmp_path / "third")
        assert hub.tokens_at["commit"] == hub.tokens_at["resolve"] == {"hf_mine"}
        assert hub.tokens_at["upload"] == hub.tokens_at["storage"] == {""}  # the other origin gets none
    found, _ = read_tensors(tmp_path / "logits.safetensors")
    with torch.no_grad():
        expected = correction.model(images)
    for source in sources:
        torch.testing.assert_close(found[source], expected, rtol=0, atol=1e-6)
    for each in pulled:
        assert each["method"] == correction.record.method
        assert each["settings"] == correction.record.settings
        assert each["parents"] == len(correction.parents)
        assert each["answers"] == len(correction.answers)
        assert each["model"] == correction.model.fingerprint
    assert "hf-hub:bob/bare has no crayon.json: a plain checkpoint, loaded as a model" in log
    assert (foreign["method"], foreign["answers"], foreign["base"]) == ("none", 0, "bob/bare")
    assert "no repository 'ann/none'" in missing["message"]


def test_what_is_refused(saved, tmp_path):
    """Nothing is run, nothing is written elsewhere, and the message says what is wrong."""
    config = json.loads((saved / "config.json").read_text())

    def altered(**changes):
        return json.dumps(config | changes).encode()

    overlay = {"pretrained_cfg_overlay": {"file": "/tmp/evil.bin", "source": ""}}
    weights = pickle.dumps({"a": 1})
    cases = {
        "pickle": ({"model__safetensors": None, "pytorch_model__bin": weights}, "has no model.safetensors"),
        "renamed": ({"model__safetensors": weights}, "is not a whole safetensors file"),
        "header": ({"model__safetensors": (1 << 60).to_bytes(8, "little") + b"{}"}, "its header claims 1,152,921,"),
        "short": ({"model__safetensors": b"\1\2"}, "is not a whole safetensors file"),
        "deep": ({"crayon__json": b"[" * 200_000}, "is not a readable JSON file"),
        "list": ({"crayon__json": b"[1]"}, "is not the crayon.json of a correction"),
        "shape": ({"crayon__json": b'{"format": "crayon-correction", "version": 1}'}, "is incomplete or altered"),
        "answers": ({"answers__jsonl": b'{"kind": "image"}\n{}\n'}, "line 1"),
        "configlist": ({"config__json": b"[]"}, "is not a timm config"),
        "elsewhere": (
            {"config__json": altered(pretrained_cfg=config["pretrained_cfg"] | {"hf_hub_filename": "evil.bin"})},
            "has its weights read from elsewhere (hf_hub_filename = 'evil.bin')",
        ),
        "overlay": ({"config__json": altered(model_args=overlay)}, "is no argument of a model"),
        "name": ({"config__json": altered(architecture="local-dir:/etc")}, "is no name of an architecture"),
    }
    repositories = {
        f"ann/{name}": Repository({"main": changed(saved, tmp_path / name, **files)})
        for name, (files, _) in cases.items()
    }
    files = files_in(saved)
    messages = {f"ann/{name}": message for name, (_, message) in cases.items()}
    for number, path in enumerate(("../../evil.json", "/etc/evil", "a/../../evil", "c:\\evil", "a\nb")):
        repositories[f"ann/path{number}"] = Repository({"main": files | {path: b"evil"}})
        messages[f"ann/path{number}"] = "which leads out of its folder; nothing was fetched"
    with serving(repositories) as hub:
        sources = [f"hf-hub:{name}" for name in messages]
        *found, by_load_model = pull([*sources, "model=hf-hub:ann/elsewhere"], hub.endpoint, tmp_path / "home")[0]
    for (name, message), each in zip(messages.items(), found, strict=True):
        assert message in each.get("message", ""), (name, each)
    assert "read from elsewhere" in by_load_model["message"]
    assert not list(tmp_path.rglob("evil*"))


def test_bytes_changed_on_the_way(correction, saved, tmp_path):
    """As many, but others: fetched again, and refused when they stay wrong; nothing wrong stays in the cache.

    Of a large file for ann, of the small ones for bob.
    """
    names = ["hf-hub:ann/birds", "hf-hub:bob/birds"]
    with serving({name.partition(":")[2]: Repository({"main": saved}) for name in names}) as hub:
        # Twice wrong, refused; wrong once more, and right. A HEAD goes before every small file, and counts too.
        hub.faults = [
            Fault("storage", "corrupt", times=3, owner="ann"),
            Fault("content", "corrupt", times=6, owner="bob"),
        ]
        (*refused, ann, bob), log = pull([*names, *names], hub.endpoint, tmp_path / "home")
    for each in refused:
        assert each["error"] == "FileFormatError"
        assert "does not have the hash that the Hub lists" in each["message"]
    assert ann["model"] == bob["model"] == correction.model.fingerprint
    assert log.count("was changed on the way; fetching it again") == 4
