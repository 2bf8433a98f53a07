"""Models from the Hub: the real client in a process of its own, against a real server on this machine."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from helpers_hub import Repository, serving
from helpers_hub_client import ask, environment_for, run
from helpers_workspace import save_model

from crayon_sdk.models.split import SplitModel


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(model_folder, tmp_path / "copy")


@pytest.fixture
def pickled(folder, tiny_model):
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_what_is_there_and_what_is_not(model_folder, pickled, tmp_path, tiny_model):
    repositories = {
        "ann/good": Repository({"main": model_folder}),
        "ann/pickle": Repository({"main": pickled}),
    }
    sources = ["hf-hub:ann/good", "hf-hub:ann/pickle", "hf-hub:ann/none", "hf-hub:not/a/name", "hf-hub:ann/good@v9"]
    with serving(repositories) as hub:
        (good, refused, missing, misspelt, revision), _ = ask(sources, hub.endpoint, tmp_path / "home")
    assert good == f"hf-hub:ann/good loaded {SplitModel(tiny_model()).fingerprint}"
    assert "ModelLoadError: 'hf-hub:ann/pickle' has no model.safetensors" in refused
    assert "pass allow_pickle=True" in refused
    assert "ModelLoadError: cannot fetch 'hf-hub:ann/none': no repository 'ann/none', or it is private" in missing
    assert "no token was found" in missing
    assert "hf auth login" in missing
    assert "ModelLoadError: cannot fetch 'hf-hub:not/a/name': " in misspelt
    assert "'ann/good' has no revision 'v9'; name a branch, a tag or a commit" in revision


def test_revisions(model_folder, folder, tmp_path, tiny_model):
    """A tag and a commit give the weights of that time."""
    from safetensors.torch import save_file

    old = tiny_model(seed=7)
    save_file(old.state_dict(), folder / "model.safetensors")
    repository = Repository({"main": model_folder, "v1": folder})
    sources = ["hf-hub:ann/birds", "hf-hub:ann/birds@v1", f"hf-hub:ann/birds@{repository.commit('v1')}"]
    with serving({"ann/birds": repository}) as hub:
        (newest, tagged, by_commit), _ = ask(sources, hub.endpoint, tmp_path / "home")
    assert newest.endswith(SplitModel(tiny_model()).fingerprint)
    assert tagged.endswith(SplitModel(old).fingerprint)
    assert by_commit.endswith(SplitModel(old).fingerprint)


@pytest.mark.parametrize(
    ("token", "private", "gated"),
    [
        ("hf_mine", "loaded", "loaded"),
        ("hf_other", "no repository 'ann/private', or it is private and the token that was found", "must be asked for"),
        ("hf_wrong", "the Hub refused to hand out 'ann/private' (401; the token that was found", "(401; "),
        ("", "it is private and no token was found, and without one may not read it", "must be asked for on its page"),
    ],
)
def test_private_repositories(model_folder, tmp_path, token, private, gated):
    """The token comes from the environment, goes to the server, and is never shown, not even by debug logs."""
    repositories = {
        "ann/private": Repository({"main": model_folder}, private=True),
        "ann/gated": Repository({"main": model_folder}, gated=True),
    }
    with serving(repositories) as hub:
        lines, everything = ask(
            ["hf-hub:ann/private", "hf-hub:ann/gated"], hub.endpoint, tmp_path / "home", token=token
        )
        assert ("ann/private", token) in hub.seen
    assert private in lines[0]
    assert gated in lines[1]
    if token:
        assert token not in everything


def test_offline(model_folder, tmp_path):
    """What was fetched before loads without a network; what was not is said to be missing, with no word of pickles."""
    with serving({"ann/good": Repository({"main": model_folder})}) as hub:
        (first,), _ = ask(["hf-hub:ann/good"], hub.endpoint, tmp_path / "home")
    sources = ["hf-hub:ann/good", "hf-hub:ann/other"]
    for offline in (True, False):  # switched off, and unreachable
        (again, never), _ = ask(sources, "http://127.0.0.1:9", tmp_path / "home", offline=offline)
        assert again == first
        assert "cannot fetch 'hf-hub:ann/other', the Hub cannot be reached, and it is not in the cache: " in never
        assert "pickle" not in never


def test_a_repository_that_is_no_model(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "no_such_net"}))
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / "model.safetensors", bare)
    repositories = {"ann/odd": Repository({"main": folder}), "ann/bare": Repository({"main": bare})}
    with serving(repositories) as hub:
        (odd, no_config), _ = ask(["hf-hub:ann/odd", "hf-hub:ann/bare"], hub.endpoint, tmp_path / "home")
    assert "ModelLoadError: cannot load 'hf-hub:ann/odd'" in odd
    assert "no_such_net" in odd
    assert "ModelLoadError: cannot load 'hf-hub:ann/bare'" in no_config


def test_published_weights_without_a_network(tmp_path, tiny_model):
    """A timm name: an answer within seconds, from the cache or in words; timm alone tries for a minute."""
    name = "test_resnet.r160_in1k"
    place = save_model(tmp_path / "published", num_classes=1000)
    with serving({f"timm/{name}": Repository({"main": place})}) as hub:
        (first,), _ = ask([name], hub.endpoint, tmp_path / "home")
    assert first.startswith(f"{name} loaded ")
    (again, never), written = ask([name, "resnet18"], "http://127.0.0.1:9", tmp_path / "home")
    assert again == first
    assert "ModelLoadError: the Hub cannot be reached (" in never
    assert "timm/resnet18.a1_in1k is not in the cache: check the network" in never
    assert "Retrying" not in written


def test_the_copy_leaves_no_trace_in_the_config(tmp_path):
    name = "test_resnet.r160_in1k"
    with serving({f"timm/{name}": Repository({"main": save_model(tmp_path / "m", num_classes=1000)})}) as hub:
        environment = environment_for(hub.endpoint, tmp_path / "home")
        online, _ = run(SHOW, [name], environment)
    offline, _ = run(SHOW, [name], environment | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert json.loads(offline) == json.loads(online)


SHOW = """
import json, sys
from crayon_sdk.models.load import load_model
print(json.dumps(load_model(sys.argv[1]).model.pretrained_cfg))
"""
