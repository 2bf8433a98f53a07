"""Rules for crowds: against a slow Dawid and Skene of our own, people of known quality, and where they are used."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
from helpers_workspace import crayon, new_workspace, save_model

from crayon_sdk import AnnotationSet, ImageAnswer, NeuronAnswer, SpotAnswer
from crayon_sdk.answers.consensus import consensus, image_verdicts, neuron_verdicts
from crayon_sdk.answers.relevance import relevance_of
from crayon_sdk.errors import MissingExtraError, SettingsError, install_extra
from crayon_sdk.workspace.workspace import Workspace

RULES = ("dawid-skene", "mace")
by_each_rule = pytest.mark.parametrize("rule", RULES)


@pytest.fixture(autouse=True)
def crowd_kit(request):
    if "without_crowd_kit" not in request.node.name:
        pytest.importorskip("crowdkit", reason="crowd-kit is not installed: pip install '.[crowd]'")


def crowd(people, *, pictures=60, votes=3, seed=0):
    """Truth by picture, and answers of people who are right with a probability, or say yes to all ("yes")."""
    chance = random.Random(seed)
    truth = {f"{number:03}": chance.random() < 0.5 for number in range(pictures)}
    answers = AnnotationSet()
    for sample, right in truth.items():
        for name in chance.sample(sorted(people), votes):
            says = True if people[name] == "yes" else right == (chance.random() < people[name])
            answers.add(ImageAnswer(id=sample, answer="yes" if says else "no", annotator=name))
    return truth, answers


MIXED = {"ann": 0.97, "ben": 0.95, "cleo": 0.9, "dan": 0.7, "eve": 0.5, "fay": "yes"}


def slow_dawid_skene(answers, rounds=100, tolerance=1e-5):
    """Expectation and maximisation from the shares of votes, with dictionaries; no smoothing."""
    votes = {}
    for answer in answers.image_answers:
        votes.setdefault(answer.id, []).append((answer.annotator, answer.answer == "yes"))
    share = {sample: sum(yes for _, yes in own) / len(own) for sample, own in votes.items()}
    before = -math.inf
    for _ in range(rounds):
        prior = sum(share.values()) / len(share)
        says_yes = {}  # by person and truth
        for name in {name for own in votes.values() for name, _ in own}:
            for right in (True, False):
                weights = [
                    (share[sample] if right else 1 - share[sample], yes)
                    for sample, own in votes.items()
                    for who, yes in own
                    if who == name
                ]
                total = sum(weight for weight, _ in weights)
                says_yes[name, right] = sum(weight for weight, yes in weights if yes) / total if total else 0.0
        bound = 0.0
        for sample, own in votes.items():
            logs = {}
            for right in (True, False):
                chances = [says_yes[name, right] if yes else 1 - says_yes[name, right] for name, yes in own]
                logs[right] = math.log(max(prior if right else 1 - prior, 1e-300))
                logs[right] += sum(math.log(max(chance, 1e-10)) for chance in chances)
            top = max(logs.values())
            whole = top + math.log(sum(math.exp(value - top) for value in logs.values()))
            share[sample] = math.exp(logs[True] - whole)
            bound += whole
        if bound - before < tolerance:
            break
        before = bound
    return share


def test_dawid_skene_equals_a_slow_version():
    _, answers = crowd(MIXED, pictures=80, votes=4)
    expected = slow_dawid_skene(answers)
    found = consensus(answers, "dawid-skene").yes
    assert list(found) == list(expected)
    for sample, share in expected.items():
        assert found[sample] == pytest.approx(share, abs=2e-3)


@pytest.fixture(scope="module", params=RULES)
def judged(request):
    """A mixed crowd, judged once by each rule: truth, answers, consensus."""
    pytest.importorskip("crowdkit", reason="crowd-kit is not installed: pip install '.[crowd]'")
    truth, answers = crowd(MIXED, pictures=200)
    return truth, answers, consensus(answers, request.param)


def test_people_are_told_apart(judged):
    truth, answers, found = judged
    assert set(found.yes) == set(truth)
    assert all(0 <= share <= 1 for share in [*found.yes.values(), *found.skill.values()])
    assert min(found.skill[name] for name in ("ann", "ben")) > max(found.skill[name] for name in ("eve", "fay"))
    right = sum((share > 0.5) == truth[sample] for sample, share in found.yes.items())
    majority = answers.image_relevance("majority")
    assert right > sum((majority[sample] == "relevant") == truth[sample] for sample in truth)


def test_skill_is_the_expected_share_of_right_answers(judged):
    _, answers, found = judged
    for name in answers.annotators:
        own = [answer for answer in answers.image_answers if answer.annotator == name]
        shares = [found.yes[one.id] if one.answer == "yes" else 1 - found.yes[one.id] for one in own]
        assert found.skill[name] == pytest.approx(sum(shares) / len(shares))


def test_verdicts_by_probability(judged):
    _, answers, found = judged
    rule, yes = found.method, found.yes
    verdicts = answers.image_relevance(rule)
    assert list(verdicts) == list(dict.fromkeys(answer.id for answer in answers.image_answers))
    for sample, share in yes.items():
        expected = "relevant" if share > 0.7 else "irrelevant" if share < 0.5 else "mixed"
        assert verdicts[sample] == expected


def test_bounds_and_least_votes():
    _, answers = crowd(MIXED, pictures=30)
    yes = consensus(answers).yes
    strict = answers.image_relevance("dawid-skene", yes_share=0.999, maybe_share=0.001)
    assert {sample for sample, verdict in strict.items() if verdict == "mixed"} == {
        sample for sample, share in yes.items() if 0.001 <= share <= 0.999
    }
    assert answers.image_relevance("dawid-skene", min_votes=4) == {}


def test_same_answers_same_verdicts_and_no_trace(judged):
    _, answers, before = judged
    state = random.getstate()
    import numpy as np

    numbers = np.random.get_state()[1].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert consensus(answers, before.method) == before
    assert random.getstate() == state
    assert np.random.get_state()[1].tolist() == numbers


@by_each_rule
def test_few_and_one_sided_answers(rule):
    def relevance(*triples):
        made = [ImageAnswer(id=i, answer=a, annotator=who) for i, a, who in triples]
        return AnnotationSet(made).image_relevance(rule)

    assert relevance() == {}
    assert relevance(("a", "yes", "ann"), ("b", "yes", "ben")) == {"a": "relevant", "b": "relevant"}
    assert relevance(("a", "no", "ann")) == {"a": "irrelevant"}
    assert relevance(("a", "unsure", "ann")) == {"a": "mixed"}
    # "unsure" abstains; a later answer of the same person takes the place of the earlier one.
    both = relevance(("a", "unsure", "ann"), ("b", "yes", "ann"), ("c", "yes", "ann"), ("c", "no", "ann"))
    assert both == {"a": "mixed", "b": "relevant", "c": "irrelevant"}


def test_two_who_never_agree_are_mixed():
    split = [ImageAnswer(id=i, answer=a, annotator=w) for i in "ab" for a, w in (("yes", "ann"), ("no", "ben"))]
    assert AnnotationSet(split).image_relevance("dawid-skene") == {"a": "mixed", "b": "mixed"}


def test_neurons_by_the_majority_of_their_patches():
    rule = "dawid-skene"
    truth = {(neuron, patch): (neuron + patch) % 4 < 2 for neuron in range(8) for patch in range(3)}
    chance = random.Random(1)
    answers = AnnotationSet()
    for (neuron, patch), right in truth.items():
        for name, good in (("ann", 1.0), ("ben", 1.0), ("eve", 0.5)):
            says = right if chance.random() < good else chance.random() < 0.5
            about = {"neuron": neuron, "patch": patch, "id": "x.jpg", "annotator": name}
            answers.add(NeuronAnswer(answer="yes" if says else "no", **about))
    yes = consensus(answers, rule, kind="neuron").yes
    assert set(yes) == set(truth)
    verdicts = answers.neuron_relevance(rule)
    for neuron in range(8):
        no = sum(yes[neuron, patch] < 0.5 for patch in range(3))
        assert verdicts[neuron] == ("irrelevant" if no >= 2 else "relevant")
    assert set(verdicts.values()) == {"relevant", "irrelevant"}
    unsure = [NeuronAnswer(neuron=5, patch=0, id="x.jpg", answer="unsure", annotator="ann")]
    assert AnnotationSet(unsure).neuron_relevance(rule) == {5: "relevant"}


def test_rules_of_votes_are_as_before_without_crowd_kit():
    votes = {"a": [SimpleNamespace(answer=a) for a in ("yes", "yes", "no")]}
    for rule in ("unanimous", "majority", "share"):
        assert image_verdicts(votes, rule) == {"a": relevance_of(["yes", "yes", "no"], rule)}
    patches = {(3, 0): votes["a"], (3, 1): [SimpleNamespace(answer="no")]}
    assert neuron_verdicts(patches, "majority") == {3: "relevant"}
    assert neuron_verdicts(patches, "share", yes_share=1.0, maybe_share=0.8) == {3: "irrelevant"}


def test_what_is_refused_without_crowd_kit():
    _, answers = crowd(MIXED)
    with pytest.raises(SettingsError, match=r"method to be one of dawid-skene, mace, got 'majority'"):
        consensus(answers, "majority")
    with pytest.raises(SettingsError, match="kind='both' is unknown"):
        consensus(answers, kind="both")
    with pytest.raises(SettingsError, match=r"rule='mace' judges all pictures together: use AnnotationSet"):
        relevance_of(["yes"], "mace")


def test_without_crowd_kit_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "crowdkit.aggregation", None)
    _, answers = crowd(MIXED)
    with pytest.raises(
        MissingExtraError, match="'dawid-skene' needs crowd-kit, .*" + re.escape(install_extra("crowd"))
    ):
        answers.image_relevance("dawid-skene")
    assert answers.image_relevance("majority")


def test_pandas_is_loaded_only_when_it_is_needed_without_crowd_kit():
    code = "import sys, crayon_sdk.answers.consensus; assert not {'pandas', 'crowdkit', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- where it is used ---


@pytest.fixture(scope="module")
def ws(tmp_path_factory, picture_folder):
    """A workspace with three careful people and one who says yes to everything."""
    root = tmp_path_factory.mktemp("aggregation")
    workspace = new_workspace(root / "ws", picture_folder, save_model(root / "m"))
    workspace.explain(sheet=0)
    made = AnnotationSet()
    for number, sample in enumerate(workspace.dataset().ids):
        for name in ("ann", "ben", "cleo", "fay"):
            says = "yes" if name == "fay" or number % 2 else "no"
            made.add(ImageAnswer(id=sample, answer=says, annotator=name))
    workspace.add_answers(made, source="test")
    return workspace


def test_shown_from_the_shell(ws):
    result = json.loads(crayon("answer", "show", ws.folder, "--json").stdout)
    assert (result["image"]["mixed"], "people" in result) == (8, False)
    result = json.loads(crayon("answer", "show", ws.folder, "--rule", "dawid-skene", "--json").stdout)
    assert [result["image"][word] for word in ("relevant", "irrelevant", "mixed")] == [8, 8, 0]
    assert next(iter(result["people"])) == "fay"
    assert result["people"]["fay"] == pytest.approx({"answers": 16, "yes %": 100, "right % (estimated)": 50}, abs=0.1)
    shown = crayon("answer", "show", ws.folder, "--rule", "dawid-skene").stdout
    assert "right % (estimated)" in shown
    assert "by dawid-skene" in shown


def test_a_name_with_brackets_is_a_name(ws, tmp_path):
    shutil.copytree(ws.folder.parent, tmp_path, dirs_exist_ok=True)
    answer = ImageAnswer(id=ws.dataset().ids[0], answer="yes", annotator="[/bold] [red]eve")
    Workspace(tmp_path / "ws").add_answers(AnnotationSet([answer]), source="test")
    result = crayon("answer", "show", tmp_path / "ws", "--rule", "dawid-skene")
    assert (result.exit_code, "[/bold] [red]eve" in result.stdout) == (0, True), result.output


def test_corrected_from_the_shell(ws):
    line = ["correct", ws.folder, "--set", "attention.epochs=1", "--set", "attention.batch_size=8"]
    result = crayon(*line, "--set", "attention.answer_rule=dawid-skene", "--json")
    assert result.exit_code == 0, result.output
    record = Workspace(ws.folder).correction("attention").record
    assert record.settings["answer_rule"] == "dawid-skene"
    evidence = dict(zip(ws.maps().ids, ws.maps().evidence.tolist(), strict=True))
    odd = {sample: number % 2 for number, sample in enumerate(ws.dataset().ids)}
    assert record.counts["relevant"] == sum(evidence[sample] for sample in odd if odd[sample])
    assert record.counts["irrelevant"] == sum(evidence[sample] for sample in odd if not odd[sample])
    assert record.counts["mixed"] == 0


def test_without_crowd_kit_the_shell_says_so(ws, monkeypatch):
    monkeypatch.setitem(sys.modules, "crowdkit.aggregation", None)
    result = crayon("answer", "show", ws.folder, "--rule", "mace")
    assert (result.exit_code, install_extra("crowd") in " ".join(result.output.split())) == (2, True)


@by_each_rule
def test_spots_are_judged_as_pictures_are(rule):
    _, answers = crowd(MIXED)
    spots = AnnotationSet(SpotAnswer(**each.model_dump(exclude={"kind"})) for each in answers)
    assert consensus(spots, rule, kind="spot") == consensus(answers, rule)
    assert spots.spot_relevance(rule) == answers.image_relevance(rule)
    assert spots.image_relevance(rule) == {}
    both = answers.merge(spots)
    assert both.spot_relevance(rule) == both.image_relevance(rule) == answers.image_relevance(rule)
    assert both.spot_relevance(rule, min_votes=4) == {}
