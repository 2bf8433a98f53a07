"""Answers on the Hub: the real `datasets` reads them, and we read back exactly what was published."""

from __future__ import annotations

import importlib.util
import json

import pytest
from helpers_correction import half_and_half, neuron_answers, noise_pictures
from helpers_hub import Fault, Repository, serving
from helpers_hub_client import environment_for, run, start

from crayon_sdk.answers.annotations import AnnotationSet, ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.answers.on_hub import answer_card
from crayon_sdk.errors import AnswerError

PUSH = """
import json, sys
from crayon_sdk import AnnotationSet
answers = AnnotationSet.load(sys.argv[1])
assert "torch" not in sys.modules
first = answers.push_to_hub("birds-answers", private=True)
again = answers.push_to_hub("ann/birds-answers")
back = AnnotationSet.from_hub("ann/birds-answers", revision=first.commit)
assert back == answers == AnnotationSet.from_hub("hf-hub:ann/birds-answers@main")
assert "torch" not in sys.modules
said = [first.url, first.changed, again.changed]
for bad in ("ann/none", "ann/empty", "ann/../x"):
    try:
        AnnotationSet.from_hub(bad)
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""

AWAY = """
import sys
from crayon_sdk import AnnotationSet
assert AnnotationSet.from_hub("ann/birds-answers") == AnnotationSet.load(sys.argv[1])
AnnotationSet.from_hub("ann/others")
"""

LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset("ann/birds-answers", split="train")
print(json.dumps({"features": {name: str(kind) for name, kind in rows.features.items()}, "rows": list(rows)}))
"""


def all_kinds() -> AnnotationSet:
    answers = half_and_half(noise_pictures(8)).merge(neuron_answers(range(3), [4]))
    answers.add(ImageAnswer(id="ä/1.jpg", answer="unsure", annotator="bob", target=1, seconds=2.5, simulated=True))
    answers.add(ImageAnswer(id="2", answer="no", annotator="bob", time="2026-01-31T12:00:00+01:00", source="grid"))
    answers.add(NeuronAnswer(neuron=7, patch=1, answer="no", annotator="bob", extra=(("HITId", "x1"), ("k", ""))))
    answers.add(SpotAnswer(id="3", answer="yes", annotator="bob", target=0, question="Spot?"))
    answers.add(ImageAnswer(id="3", answer="no", annotator="bob", time="2026-01-31T12:00:00.250Z", question="Bird?"))
    return answers


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A stand-in with answers on it, and what the process that published them said."""
    place = tmp_path_factory.mktemp("answers")
    all_kinds().save(place / "answers.jsonl")
    with serving({"datasets/ann/empty": Repository({"main": {"README.md": b""}})}) as hub:
        environment = environment_for(hub.endpoint, place / "home", token="hf_mine")
        out, err = run(PUSH, [str(place / "answers.jsonl")], environment)
        assert "hf_mine" not in out + err
        yield hub, json.loads(out), environment | {"HF_HOME": str(place / "other")}


def test_published_once_and_read_back(published, tmp_path):
    hub, (url, changed, again, missing, empty, odd), _ = published
    assert url == f"{hub.endpoint}/datasets/ann/birds-answers"
    assert (changed, again) == (True, False)
    repository = hub.repositories["datasets/ann/birds-answers"]
    assert repository.private
    assert [commit.title for commit in repository.history()] == ["Upload answers with crayon-sdk", "initial commit"]
    all_kinds().save(tmp_path / "answers.jsonl")
    assert repository.main.files["answers.jsonl"] == (tmp_path / "answers.jsonl").read_bytes()
    assert missing.startswith("HubError: cannot fetch 'hf-hub:ann/none': no repository 'ann/none'")
    assert empty == "HubError: 'hf-hub:ann/empty' has no answers.jsonl"
    assert odd.startswith("SettingsError: expected a repository such as")


def test_what_was_fetched_once_is_there_without_a_network(published, tmp_path):
    _, _, environment = published
    all_kinds().save(tmp_path / "answers.jsonl")
    home = environment["HF_HOME"].removesuffix("other") + "home"
    for offline in ("1", "0"):  # switched off, and unreachable
        away = environment | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": offline, "HF_HOME": home}
        _, err = start(AWAY, [str(tmp_path / "answers.jsonl")], away).communicate(timeout=120)
        assert "HubError: cannot fetch 'hf-hub:ann/others', the Hub cannot be reached, and it is not in" in err


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="datasets is not installed")
def test_datasets_reads_every_answer(published):
    _, _, environment = published
    found = json.loads(run(LOAD, [], environment)[0].splitlines()[-1])
    assert found["features"]["neuron"] == "Value('int64')"
    assert found["features"]["simulated"] == "Value('bool')"
    records = [json.loads(answer.model_dump_json()) for answer in all_kinds()]
    assert len(found["rows"]) == len(records)
    for row, record in zip(found["rows"], records, strict=True):
        extra = {name: value for name, value in (row.pop("extra") or {}).items() if value is not None}
        assert extra == record.pop("extra", {})
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in record.items() if value is not None
        }


MOVED = """
from crayon_sdk import AnnotationSet
print(*AnnotationSet.from_hub("ann/answers").annotators)
"""


@pytest.mark.parametrize("times", [1, 9])
def test_branch_that_moves_while_it_is_read(tmp_path, times):
    """Never the bytes of one commit with the hashes of another."""
    files = {
        revision: {"answers.jsonl": b'{"kind": "image", "id": "1", "answer": "no", "annotator": "%s"}\n' % who}
        for revision, who in (("main", b"old"), ("next", b"new"))
    }
    with serving({"datasets/ann/answers": Repository(files)}) as hub:
        hub.faults = [Fault("info", "move", times=times)]
        process = start(MOVED, [], environment_for(hub.endpoint, tmp_path / "home"))
        out, err = process.communicate(timeout=120)
    if times == 1:
        assert out == "new\n", err
    else:
        assert "HubError: 'hf-hub:ann/answers' changed while it was fetched; fetch it again" in err


def test_no_answers_are_not_published():
    with pytest.raises(AnswerError, match="there are no answers to publish"):
        AnnotationSet().push_to_hub("me/answers", dry_run=True)


def test_card_says_what_the_answers_are():
    from huggingface_hub import DatasetCard

    answers = all_kinds()
    card = DatasetCard(answer_card(answers, "ann/birds-answers", answers.counts()))
    about = card.data.to_dict()
    assert about["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "answers.jsonl"}]}]
    assert [each["name"] for each in about["dataset_info"]["features"]][-1] == "extra"
    assert f"{len(answers):,} yes/no answers by {len(answers.annotators)} annotators" in card.text
    assert "1 of them were made by a program in the place of people (simulated)" in card.text
    people = AnnotationSet(answer for answer in answers if not answer.simulated)
    assert "All were given by people." in answer_card(people, "me/x", people.counts())
    programs = AnnotationSet(answer for answer in answers if answer.simulated)
    assert "All were made by a program" in answer_card(programs, "me/x", programs.counts())
