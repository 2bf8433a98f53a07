"""Which pictures are asked about first: by the formulas, without what is answered, the same for the next person."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil

import numpy as np
import pytest
import torch
from helpers_workspace import crayon, new_workspace, save_model

from crayon_sdk import AnnotationSet, Explainer, ImageAnswer, ImageDataset, SpotAnswer, simulate_answers
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import FileFormatError, MismatchError, SettingsError
from crayon_sdk.explain.asking import (
    Asked,
    Foresight,
    Outlook,
    foresee,
    how_far,
    open_questions,
    question_words,
    suggest,
)
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.functional.selection import foretell
from crayon_sdk.models.split import SplitModel
from crayon_sdk.workspace.workspace import Workspace

METHODS = ("random", "coverage", "uncertain", "typical", "active")


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return ImageDataset.from_csv(picture_folder / "metadata.csv", split="train")


@pytest.fixture(scope="module")
def explainer(tiny_model):
    split = SplitModel(tiny_model(), preprocessing=Preprocessing(size=(96, 96)))
    return Explainer(split, score="margin", device="cpu", batch_size=5)


@pytest.fixture(scope="module")
def maps(explainer, dataset):
    return explainer.explain(dataset)


def answered(ids, annotator="ann"):
    return AnnotationSet(ImageAnswer(id=sample, answer="yes", annotator=annotator) for sample in ids)


def slow_neurons_and_losses(explainer, dataset, maps):
    """One picture at a time, through the whole model."""
    split = explainer.model
    neurons, losses = {}, {}
    for sample, target in zip(maps.ids, maps.targets.tolist(), strict=True):
        pixels = np.array(split.preprocessing.geometry(dataset.image(sample)).convert("RGB"))
        image = split.preprocessing.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        with torch.no_grad():
            values = split.penultimate(split.features(image))[0].tolist()
            logits = split(image)[0].tolist()
        length = math.sqrt(sum(value**2 for value in values))
        neurons[sample] = [value / length for value in values]
        losses[sample] = math.log(sum(math.exp(value - logits[target]) for value in logits))
    return neurons, losses


def slow_coverage(neurons, order, done):
    """Farthest first from what is done; a picture that nothing comes before is the first of the order."""
    taken, left, found = list(done), list(order), []
    while left:
        gaps = [min((math.dist(neurons[sample], neurons[one]) for one in taken), default=math.inf) for sample in left]
        found.append(left.pop(gaps.index(max(gaps))))
        taken.append(found[-1])
    return found


@pytest.mark.parametrize("done", [0, 3])
def test_orders_equal_slow_versions(explainer, dataset, maps, done):
    neurons, losses = slow_neurons_and_losses(explainer, dataset, maps)
    usable = [sample for sample, evidence in zip(maps.ids, maps.evidence.tolist(), strict=True) if evidence]
    answers = answered(usable[:done])
    by_chance = explainer.suggest(maps, 100, answers=answers, seed=2)
    assert set(by_chance) == set(usable[done:])
    uncertain = explainer.suggest(maps, 100, method="uncertain", dataset=dataset, answers=answers, seed=2)
    assert list(uncertain) == sorted(by_chance, key=lambda sample: -losses[sample])
    coverage = explainer.suggest(maps, 100, method="coverage", dataset=dataset, answers=answers, seed=2)
    assert list(coverage) == slow_coverage(neurons, by_chance, usable[:done])


@pytest.mark.parametrize("method", METHODS)
def test_a_short_list_is_the_beginning_of_a_long_one(explainer, dataset, maps, method):
    def ask(n, seed=0, answers=None, votes=1):
        return explainer.suggest(maps, n, method=method, dataset=dataset, seed=seed, answers=answers, votes=votes)

    whole = ask(100)
    assert whole == ask(100)
    assert len(set(whole)) == len(whole) == int(maps.evidence.sum())
    if method != "typical":  # of as many clusters as questions
        assert ask(4) == whole[:4]
    assert ask(100, seed=1)[0] != whole[0] or method == "uncertain"
    # What is answered is left out, and the rest goes on in the same order.
    assert ask(100, answers=answered(whole[:4])) == whole[4:]
    # A second person, when two are wanted, has the same pictures as the first.
    assert ask(100, answers=answered(whole[:4]), votes=2) == whole
    twice = answered(whole[:4]).merge(answered(whole[:4], "ben"))
    assert ask(100, answers=twice, votes=2) == whole[4:]


def suggested(highlights, count, answers=None, seed=0, evidence=None):
    """The rows that are asked about first, by what is highlighted alone."""
    many = len(highlights)
    ids, evidence = tuple(map(str, range(many))), torch.ones(many, dtype=torch.bool) if evidence is None else evidence
    maps = SaliencyMaps(ids, torch.ones(many, 1, 1), torch.zeros(many, dtype=torch.int64), evidence)
    outlook = Outlook(torch.ones(many, 1), torch.zeros(many), highlights)
    given = AnnotationSet() if answers is None else answered([ids[row] for row in answers])
    asked = suggest(maps, given, lambda: outlook, count=count, seed=seed, method="typical")
    return [int(question.id) for question in asked]


def test_typical_ones_of_what_nobody_was_asked_about_come_first():
    """Three heaps, of ten, six and four pictures, and one picture far from all without a map."""
    generator = torch.Generator().manual_seed(0)
    heap_of = [0] * 10 + [1] * 6 + [2] * 4 + [3]
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [99.0, 99.0]])
    points = centres[heap_of] + 0.1 * torch.randn(21, 2, generator=generator)
    evidence = torch.arange(21) < 20
    first = suggested(points, 3, evidence=evidence)
    assert [heap_of[row] for row in first] == [0, 1, 2]
    for row in first:
        heap = [other for other in range(20) if heap_of[other] == heap_of[row]]
        mean = points[heap].mean(dim=0)
        assert row == min(heap, key=lambda other: float((points[other] - mean).norm()))
    # Asked for two more where the largest heap has its answer, the other two come; what is covered comes last.
    again = suggested(points, 2, answers=[first[0]], evidence=evidence)
    assert {heap_of[row] for row in again} == {1, 2}
    assert sorted(suggested(points, 50, evidence=evidence)) == list(range(20))


def test_typical_of_everything_is_typical_of_a_hundred_clusters():
    points = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    whole = suggested(points, 2**31)
    assert sorted(whole) == list(range(3000))
    assert whole[:100] == suggested(points, 100)
    assert whole[100:] != suggested(points, 2**31, seed=1)[100:]


def test_pictures_of_a_data_set_in_another_order(explainer, dataset, maps):
    turned = dataset.subset(dataset.ids[::-1])
    for method in METHODS:
        first, second = (explainer.suggest(maps, 9, method=method, dataset=each) for each in (dataset, turned))
        assert first == second


def test_the_predicted_class_gives_the_least_confidence(tiny_model, dataset):
    explainer = Explainer(SplitModel(tiny_model(), preprocessing=Preprocessing(size=(96, 96))), target="predicted")
    maps = explainer.explain(dataset)
    _, losses = slow_neurons_and_losses(explainer, dataset, maps)
    assert max(losses.values()) <= math.log(2)
    first = explainer.suggest(maps, 1, method="uncertain", dataset=dataset)[0]
    usable = [sample for sample, evidence in zip(maps.ids, maps.evidence.tolist(), strict=True) if evidence]
    assert first == max(usable, key=losses.get)


def test_the_model_comes_back_as_it_was(explainer, dataset, maps, snapshot):
    before = snapshot(explainer.model)
    explainer.suggest(maps, 3, method="coverage", dataset=dataset)
    assert snapshot(explainer.model) == before


def test_what_is_refused(explainer, dataset, maps, tiny_model):
    with pytest.raises(
        SettingsError, match=r"method to be one of random, coverage, uncertain, typical, active, got 'best'"
    ):
        explainer.suggest(maps, 3, method="best")
    with pytest.raises(SettingsError, match=r"method='coverage' looks at the pictures: expected dataset="):
        explainer.suggest(maps, 3, method="coverage")
    for method in METHODS:
        with pytest.raises(SettingsError, match="count >= 1"):
            explainer.suggest(maps, 0, method=method, dataset=dataset)
    with pytest.raises(MismatchError, match=r"lacks 15 of 16 pictures .*give the one that was explained"):
        explainer.suggest(maps, 3, method="coverage", dataset=dataset.subset(dataset.ids[:1]))
    other = Explainer(SplitModel(tiny_model(seed=1), preprocessing=Preprocessing(size=(96, 96))))
    with pytest.raises(MismatchError, match="the maps are of another model"):
        other.suggest(maps, 3, method="uncertain", dataset=dataset)
    assert other.suggest(maps, 3) == explainer.suggest(maps, 3)
    more_classes = dataclasses.replace(maps, model="", targets=maps.targets + 1)
    with pytest.raises(MismatchError, match="maps are for classes up to 2, and the model has 2"):
        explainer.suggest(more_classes, 3, method="uncertain", dataset=dataset)


# --- in a workspace ---


@pytest.fixture(scope="module")
def place(tmp_path_factory, picture_folder):
    """A workspace with maps and patches and no answers; nobody may change it."""
    root = tmp_path_factory.mktemp("selection")
    new_workspace(root / "ws", picture_folder, save_model(root / "m")).explain(sheet=0)
    return root


@pytest.fixture
def ws(place, tmp_path):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "ws")


def outlooks(ws):
    return sorted((ws.folder / "runs").glob("outlook-*/outlook.safetensors"))


@pytest.mark.parametrize("method", METHODS)
def test_a_workspace_asks_in_the_same_order(ws, method):
    expected = Explainer(ws.model).suggest(ws.maps(), 7, method=method, dataset=ws.dataset(), seed=3)
    assert tuple(each.id for each in ws.suggest(count=7, method=method, seed=3)) == expected
    ws.add_answers(answered(expected[:2]), source="test")
    assert expected[2:] == tuple(each.id for each in ws.suggest(count=5, method=method, seed=3))
    assert [each.votes for each in ws.suggest(count=7, votes=2, method=method, seed=3)][:3] == [1, 1, 0]


def test_pictures_are_looked_at_once(ws, caplog):
    first = ws.suggest(count=100, method="coverage")
    (file,) = outlooks(ws)
    seen = Outlook.load(file)
    uncertain = ws.suggest(count=100, method="uncertain")
    Outlook(seen.neurons, -seen.surprise, seen.spots).save(file)  # only what is read back can turn the order round
    assert Workspace(ws.folder).suggest(count=100, method="uncertain") == uncertain[::-1]
    file.write_bytes(b"cut off")
    assert ws.suggest(count=100, method="coverage") == first
    assert torch.equal(Outlook.load(file).neurons, seen.neurons)
    # Maps of other classes: the surprise is another one, and what was kept about the old maps goes.
    ws.explain(target="predicted", sheet=0, again=True)
    ws.suggest(method="uncertain")
    (new,) = outlooks(ws)
    assert new != file
    with pytest.raises(FileFormatError, match="manifest of"):
        _ = (ws.maps().save(new), Outlook.load(new))
    shutil.rmtree(ws.folder / "runs")
    (ws.folder / "runs").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert len(ws.suggest(count=100, method="coverage")) == int(ws.maps().evidence.sum())
    assert "the next call looks at the pictures again" in caplog.text


def test_chance_looks_at_nothing(ws):
    ws.suggest()
    assert not outlooks(ws)
    ws.add_answers(simulate_answers(ws.maps(), ws.dataset()), source="test")
    assert ws.suggest(method="coverage") == ()
    assert not outlooks(ws)


def test_patches_are_asked_about_at_random(ws):
    for method in METHODS[1:]:
        with pytest.raises(SettingsError, match=f"method='{method}' chooses pictures; patches of neurons"):
            ws.suggest(kind="neuron", method=method)
    with pytest.raises(SettingsError, match="method to be one of"):
        ws.suggest(method="best")


def test_from_the_shell(ws, tmp_path):
    expected = [each.id for each in ws.suggest(count=4, method="coverage", seed=1)]
    result = crayon("suggest", ws.folder, "--method", "coverage", "--count", 4, "--seed", 1, "--json")
    assert [each["id"] for each in json.loads(result.stdout)["questions"]] == expected
    assert "'best' is not one of" in crayon("suggest", ws.folder, "--method", "best").output
    refused = crayon("suggest", ws.folder, "--method", "coverage", "--kind", "neuron")
    assert (refused.exit_code, "chooses pictures" in refused.output) == (2, True)
    out = tmp_path / "tasks"
    more = ["--method", "coverage", "--seed", 1]
    assert crayon("answer", "export-crowd", out, "-w", ws.folder, "--count", 2, *more).exit_code == 0
    tasks = json.loads((out / "tasks.json").read_text())
    assert [task["data"]["sample_id"] for task in tasks] == expected[:2]


# --- foretold ---


@pytest.fixture
def two_kinds():
    """Sixty maps whose spots show one of two things, and what the model makes of them."""
    points = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) * 0.3
    points[:, 0] += torch.where(torch.arange(60) % 2 == 0, 1.0, -1.0)
    maps = SaliencyMaps(tuple(f"s{row}" for row in range(60)), torch.rand(60, 3, 3) + 0.1, torch.zeros(60).long())
    return maps, Outlook(torch.eye(60), torch.zeros(60), points)


def said(rows, kind=SpotAnswer):
    return AnnotationSet(kind(id=f"s{row}", answer="no" if row % 2 else "yes", annotator="ann") for row in rows)


def test_what_is_foretold_decides_when_there_are_enough(two_kinds):
    maps, outlook = two_kinds
    none = foresee(maps, AnnotationSet(), outlook, kind="spot")
    assert (none.yes, none.no, none.change, none.enough) == (0, 0, 0.0, False)
    assert none.in_words == "nothing is answered yet; 20 typical ones are a good start"
    few = foresee(maps, said(range(6)), outlook, kind="spot")
    assert (few.yes, few.no, few.enough) == (3, 3, False)
    assert few.in_words == "6 of 20 typical ones are answered"
    enough = foresee(maps, said(range(30)), outlook, kind="spot")
    assert enough.enough
    assert enough.foretold == pytest.approx(0.5, abs=0.05)
    assert enough.in_words.startswith("enough: 50 % of the pictures")
    # Answers about whole maps are counted where whole maps are asked about.
    assert foresee(maps, said(range(6)), outlook).yes == 0
    assert foresee(maps, said(range(6), ImageAnswer), outlook).yes == 3


def test_answers_of_one_kind_say_that_nobody_needs_to_be_asked():
    right, wrong = Foresight(yes=18, no=2, foretold=1.0, change=0.1), Foresight(yes=0, no=25, foretold=0.0, change=0.0)
    assert right.in_words == "18 of 20 are yes: the maps are right, and nobody needs to be asked further"
    assert wrong.in_words == "25 of 25 are no: the maps are wrong, and nobody needs to be asked further"
    # Whatever the words say, the mark says the same.
    assert (right.enough, wrong.enough) == (True, True)
    assert (right.chooses, wrong.chooses) == (True, False)
    assert not Foresight(yes=19, no=0, foretold=1.0, change=0.0).enough
    assert Foresight(yes=12, no=9, foretold=0.5, change=0.2).in_words == (
        "the next answer may change 20 % of the pictures: go on"
    )


def test_active_asks_what_is_typical_and_then_what_is_least_certain(two_kinds):
    maps, outlook = two_kinds
    ask = {"count": 60, "kind": "spot"}
    first = suggest(maps, AnnotationSet(), lambda: outlook, method="active", **ask)
    assert [each.kind for each in first] == ["spot"] * 60
    assert [each.id for each in first[:20]] == [
        each.id for each in suggest(maps, AnnotationSet(), lambda: outlook, method="typical", count=20, kind="spot")
    ]
    given = said(range(24))
    then = suggest(maps, given, lambda: outlook, method="active", **ask)
    rows, yes = torch.arange(24), torch.arange(24) % 2 == 0
    certain = foretell(outlook.spots, rows, yes).abs()
    assert [int(each.id[1:]) for each in then] == sorted(range(24, 60), key=lambda row: float(certain[row]))
    # One kind of answers foretells nothing: typical ones again.
    same = suggest(maps, said(range(0, 50, 2)), lambda: outlook, method="active", **ask)
    assert len(same) == 35


# --- spots ---


def test_spots_are_asked_about_beside_their_pictures(maps):
    shown = [sample for sample, evidence in zip(maps.ids, maps.evidence.tolist(), strict=True) if evidence]
    done = answered(shown[:2])
    spots = AnnotationSet([SpotAnswer(id=shown[0], answer="no", annotator="ann")])
    total = int(maps.evidence.sum())
    assert how_far(maps, done.merge(spots)) == Asked(2, total)
    assert how_far(maps, done.merge(spots), kind="spot") == Asked(1, total)
    left = open_questions(maps, done.merge(spots), count=99, kind="spot")
    assert {each.kind for each in left} == {"spot"}
    assert {each.id for each in left} == set(shown[1:])
    assert [each.id for each in open_questions(maps, done, count=99, seed=5, kind="spot")] == [
        each.id for each in open_questions(maps, AnnotationSet(), count=99, seed=5)
    ]


def test_words_about_spots(maps, ws):
    assert question_words(maps, kind="spot") == "Is the bright spot on the {label}?"
    assert question_words(maps, "On the {label}?", kind="spot") == "On the {label}?"
    assert question_words(maps, kind="image") == question_words(maps)
    for source, kind in ((ws.patches(), "spot"), (ws.patches(), "image"), (maps, "neuron")):
        with pytest.raises(SettingsError, match=f"kind='{kind}' cannot be asked about {type(source).__name__}"):
            question_words(source, kind=kind)
        with pytest.raises(SettingsError, match="give maps for 'image' and 'spot', patches for 'neuron'"):
            open_questions(source, AnnotationSet(), kind=kind)
    with pytest.raises(SettingsError, match="kind='spots' is unknown"):
        how_far(maps, AnnotationSet(), kind="spots")


@pytest.mark.parametrize("method", METHODS)
def test_spots_come_in_the_order_of_their_pictures(explainer, dataset, maps, method):
    """As if the answers about spots were about pictures, and there were no others."""
    order = explainer.suggest(maps, 9, method=method, dataset=dataset, seed=3)
    given = AnnotationSet(SpotAnswer(id=sample, answer="yes", annotator="ann") for sample in order[:2])
    about = {"method": method, "dataset": dataset, "seed": 3, "kind": "spot"}
    assert explainer.suggest(maps, 9, **about) == order
    left = explainer.suggest(maps, 7, answers=given.merge(answered(maps.ids)), **about)
    assert left == explainer.suggest(maps, 7, method=method, dataset=dataset, seed=3, answers=answered(order[:2]))
    with pytest.raises(SettingsError, match="expected kind 'image' or 'spot', got 'neuron'"):
        explainer.suggest(maps, kind="neuron")


@pytest.mark.parametrize("method", METHODS)
def test_a_workspace_asks_about_spots(ws, method):
    order = [each.id for each in ws.suggest(count=5, method=method, seed=3)]
    found = ws.suggest(count=5, kind="spot", method=method, seed=3)
    assert ([each.id for each in found], {each.kind for each in found}) == (order, {"spot"})
    said = [SpotAnswer(id=sample, answer="yes", annotator="ann") for sample in order[:2]]
    assert ws.add_answers(AnnotationSet(said), source="test") == 2
    assert [each.id for each in ws.suggest(count=5, method=method, seed=3)] == order
    assert not {each.id for each in ws.suggest(count=99, kind="spot", method=method)} & set(order[:2])
    assert [each.votes for each in ws.suggest(count=5, kind="spot", votes=2, method=method, seed=3)][:3] == [1, 1, 0]
    assert ws.asked()["spot"] == Asked(2, int(ws.maps().evidence.sum()))
    with pytest.raises(MismatchError, match="are not in the training pictures"):
        ws.add_answers(AnnotationSet([SpotAnswer(id="nobody", answer="yes", annotator="ann")]), source="test")
    with pytest.raises(SettingsError, match="kind='spots' is unknown"):
        ws.suggest(kind="spots")
