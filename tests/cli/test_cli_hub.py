"""`crayon push` from the shell, against the stand-in."""

from __future__ import annotations

import json

import pytest
from helpers_hub import serving
from helpers_hub_client import environment_for, run
from helpers_workspace import FAST, crayon, save_model

RUNS = """
import json, os, sys
from click.testing import CliRunner
from crayon_sdk import cli
for token, *line in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"] = token
    done = CliRunner().invoke(cli.app, line, prog_name="crayon")
    sys.stdout.write(json.dumps([done.exit_code, done.stdout, done.stderr]) + "\\n")
"""


@pytest.fixture(scope="module")
def ws(tmp_path_factory, picture_folder):
    place = tmp_path_factory.mktemp("shell") / "ws"
    model = save_model(place.parent / "m")
    for line in (
        ["init", place, "--model", model, "--csv", picture_folder / "metadata.csv"],
        ["explain", place, "--sheet", 0],
        ["answer", "simulate", place],
        ["correct", place, *FAST[:4]],
        ["evaluate", "-w", place],
    ):
        done = crayon(*line)
        assert done.exit_code == 0, done.output
    return place


def test_push_from_the_shell(ws, tmp_path):
    push = ["push", "attention", "ann/birds", "-w", str(ws)]
    lines = [
        ["hf_mine", *push, "--dry-run"],
        ["hf_mine", *push, "--private", "-m", "Birds", "--card-images", "images/*"],
        ["hf_mine", *push, "-m", "No pictures"],
        ["hf_readonly", *push],
        ["hf_mine", "push", "none", "ann/birds", "-w", str(ws)],
        ["hf_mine", *push, "--create-pr", "--revision", "x"],
        ["hf_mine", "answer", "push", "birds-answers", "-w", str(ws), "-q"],
        ["hf_mine", "answer", "push", "ann/birds-answers", "-w", str(ws), "--json"],
        ["hf_mine", "answer", "import", "hf-hub:ann/birds-answers", "-w", str(ws)],
    ]
    with serving() as hub:
        out, err = run(RUNS, [json.dumps(lines)], environment_for(hub.endpoint, tmp_path / "home"))
    dry, pushed, bare, refused, missing, odd, answers, again, taken = map(json.loads, out.splitlines())
    assert "hf_mine" not in out + err
    assert "hf_readonly" not in out + err
    repository = hub.repositories["ann/birds"]
    sizes = {path: len(content) for path, content in repository.main.files.items() if path != ".gitattributes"}
    assert dry[0] == 0
    assert "Would be published on" in dry[1]
    assert f"{sizes['model.safetensors']:,}" in dry[1]
    assert pushed[:2] == [0, f"{hub.endpoint}/ann/birds\n"]
    assert "hashes compared" in pushed[2]
    assert 'timm.create_model("hf-hub:ann/birds", pretrained=True)' in pushed[2]
    assert repository.private
    assert [commit.title for commit in repository.history()] == ["No pictures", "Birds", "initial commit"]
    with_picture = repository.history()[1].files
    assert with_picture["picture-1.png"].startswith(b"\x89PNG")
    assert b"](picture-1.png)" in with_picture["README.md"]
    assert b"hf-hub:ann/birds" in with_picture["README.md"]
    # What was allowed once is not allowed for good.
    assert bare[0] == 0
    assert "removed there, as of an earlier model: picture-1.png" in bare[2]
    assert "picture-1.png" not in repository.main.files
    assert json.loads(repository.main.files["crayon.json"])["evaluations"].keys() == {"before", "after"}
    assert not [path for path, content in repository.main.files.items() if str(ws.parent).encode() in content]
    assert (refused[0], refused[1]) == (7, "")
    assert "may only read" in refused[2]
    assert missing[0] == 4
    assert odd[0] == 2
    assert "a pull request goes to main" in odd[2]
    assert answers == [0, f"{hub.endpoint}/datasets/ann/birds-answers\n", ""]
    facts, there = json.loads(again[1]), hub.repositories["datasets/ann/birds-answers"].main
    assert (facts["changed"], facts["commit"]) == (False, there.oid)
    assert facts["size"] == sum(len(there.files[path]) for path in ("answers.jsonl", "README.md"))
    assert "it is there already" in again[2]
    lines = (ws / "answers.jsonl").read_bytes()
    assert there.files["answers.jsonl"] == lines
    assert taken[1].startswith("0 new answers")
