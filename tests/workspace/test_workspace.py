"""The workspace: the same files as without it, what is stale, what goes on, what is refused."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import make_tiny_model
from helpers_workspace import FAST, FAST_ATTENTION, crayon, new_workspace, save_model, weights

import crayon_sdk
from crayon_sdk import (
    AnnotationSet,
    AttentionCorrector,
    Explainer,
    ImageAnswer,
    ImageDataset,
    NeuronAnswer,
    NeuronPruner,
    SpotAnswer,
    evaluate,
    load_model,
    simulate_answers,
    simulate_neuron_answers,
)
from crayon_sdk._base.files import hash_of_file, locked, read_tensors
from crayon_sdk.correct.presets import PRUNING
from crayon_sdk.errors import (
    DataError,
    FileFormatError,
    MismatchError,
    OutputExistsError,
    SettingsError,
    StaleError,
    UnsupportedModelError,
    WorkspaceBusyError,
)
from crayon_sdk.explain.asking import foresee
from crayon_sdk.results.comparison import compare
from crayon_sdk.results.evaluation import Evaluation
from crayon_sdk.workspace.manifest import DataSource, ModelSource
from crayon_sdk.workspace.names import checked_name
from crayon_sdk.workspace.steps import Steps
from crayon_sdk.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, picture_folder, model_folder):
    """A workspace after every step; nobody may change it."""
    workspace = new_workspace(tmp_path_factory.mktemp("finished") / "ws", picture_folder, model_folder)
    workspace.explain(sheet=2)
    workspace.simulate_answers()
    workspace.correct("both", attention=FAST_ATTENTION, pruning={"epochs": 2})
    workspace.correct("pruning", pruning={"epochs": 2})
    workspace.evaluate()
    workspace.compare()
    return workspace


@pytest.fixture
def ws(finished, tmp_path):
    """A copy that a test may change: a workspace can be copied."""
    shutil.copytree(finished.folder, tmp_path / "ws")
    return Workspace(tmp_path / "ws", lock_timeout=0.2)


def states(workspace):
    return {each.path: each.state for each in workspace.status()}


def test_every_file_is_where_it_should_be(finished):
    there = {path.relative_to(finished.folder).as_posix() for path in finished.folder.rglob("*") if path.is_file()}
    assert there - {".lock"} == {
        "workspace.json",
        "maps.safetensors",
        "patches.safetensors",
        "answers.jsonl",
        "pictures/maps.png",
        "pictures/patches.png",
        *(f"evaluations/test/{name}.json" for name in ("original", "both", "pruning", "comparison")),
        *(
            f"corrections/{name}/{file}"
            for name in ("both", "pruning")
            for file in ("README.md", "config.json", "model.safetensors", "crayon.json", "answers.jsonl")
        ),
    }
    assert set(states(finished).values()) == {"fresh"}
    assert len(states(finished)) == 11


def test_the_books_say_how_each_file_came_to_be(finished):
    entry = finished.manifest.files["corrections/both"]
    assert entry.made_by == "Workspace.correct('both')"
    base = {"model", "data", "pictures", "preprocessing", "behaviour"}
    assert set(entry.inputs) == base | {"maps", "answers about pictures", "answers about neurons"}
    assert entry.settings["attention"] == FAST_ATTENTION
    assert entry.versions["torch"] == torch.__version__.split("+")[0]
    assert entry.seconds > 0
    assert finished.manifest.answers[0]["source"] == "simulated"
    assert finished.manifest.answers[0]["simulated"]


def test_same_files_as_without_a_workspace(finished, picture_folder, model_folder, tmp_path):
    table = picture_folder / "metadata.csv"
    train, test = (ImageDataset.from_csv(table, split=split) for split in ("train", "test"))
    model = load_model(model_folder)
    explainer = Explainer(model, score="margin")
    maps, patches = explainer.explain(train), explainer.explain_neurons(train, 3)
    answers = simulate_answers(maps, train).merge(simulate_neuron_answers(patches, train))
    pruned = NeuronPruner(model, epochs=2).fit(train, answers)
    both = AttentionCorrector(pruned.model, **FAST_ATTENTION).fit(train, maps, answers)
    for made, name in ((maps, "maps.safetensors"), (patches, "patches.safetensors")):
        made.save(tmp_path / name)
        ours, theirs = read_tensors(tmp_path / name), read_tensors(finished.folder / name)
        assert ours[1] == theirs[1]
        assert all(torch.equal(ours[0][key], theirs[0][key]) for key in (*ours[0], *theirs[0]))
    answers.save(tmp_path / "answers.jsonl")
    assert (tmp_path / "answers.jsonl").read_bytes() == (finished.folder / "answers.jsonl").read_bytes()
    for made, name in ((pruned, "pruning"), (both, "both")):
        folder = made.save(tmp_path / name)
        assert weights(folder) == weights(finished.folder / "corrections" / name)
        assert (folder / "config.json").read_bytes() == (
            finished.folder / "corrections" / name / "config.json"
        ).read_bytes()
    evaluate(both.model, test, train=train).save(tmp_path / "both.json")
    assert (tmp_path / "both.json").read_bytes() == (finished.folder / "evaluations/test/both.json").read_bytes()


def test_what_is_fresh_is_left_alone(ws):
    before = {path: path.stat().st_mtime_ns for path in ws.folder.rglob("*") if path.is_file() and path.name[0] != "."}
    ws.explain(sheet=2)
    ws.correct("both", attention=FAST_ATTENTION, pruning={"epochs": 2})
    ws.evaluate()
    after = {path: path.stat().st_mtime_ns for path in ws.folder.rglob("*") if path.is_file() and path.name[0] != "."}
    assert before == after


def test_other_settings_make_it_again(ws):
    ws.explain(score="logit", sheet=0)
    assert ws.maps().score == "logit"
    found = states(ws)
    assert found["patches.safetensors"] == "fresh"
    assert found["corrections/both"] == found["pictures/maps.png"] == "stale"
    assert found["corrections/pruning"] == "fresh"
    reason = next(each for each in ws.status() if each.path == "corrections/both")
    assert reason.reason == "it was made from other inputs: maps"
    assert reason.run.startswith(f"crayon correct -w {ws.folder} --name both --method both --set attention.epochs=1")


def test_answers_that_come_later_make_corrections_stale_but_not_useless(ws, caplog):
    relevant = [sample for sample, verdict in ws.answers().image_relevance().items() if verdict == "relevant"]
    new = AnnotationSet(ImageAnswer(id=sample, answer="no", annotator="ann") for sample in relevant[:1])
    assert ws.add_answers(new, source="a test") == 1
    assert ws.add_answers(new, source="a test") == 0
    assert states(ws)["corrections/both"] == "stale"
    assert states(ws)["corrections/pruning"] == "fresh"
    assert ws.correction("both").record.method == "attention"
    assert "made from other inputs: answers about pictures; to make it again: crayon correct" in caplog.text
    old = weights(ws.folder / "corrections/both")
    ws.correct("both", attention=FAST_ATTENTION, pruning={"epochs": 2})
    assert states(ws)["corrections/both"] == "fresh"
    assert weights(ws.folder / "corrections/both") != old
    assert states(ws)["evaluations/test/both.json"] == "stale"
    with pytest.raises(
        StaleError, match=r"both.json .* is stale: it was made from other inputs: model. Run: crayon evaluate"
    ):
        ws.compare(["original", "both"])


def test_people_keep_their_answers_when_simulated_ones_are_made_again(ws):
    ws.add_answers(AnnotationSet([ImageAnswer(id=ws.dataset().ids[0], answer="no", annotator="ann")]), source="ann")
    before = len(ws.answers())
    ws.simulate_answers(noise=0.5, seed=1)
    assert len(ws.answers()) == before
    assert [each.annotator for each in ws.answers() if not each.simulated] == ["ann"]


def test_a_file_that_was_touched_is_noticed(ws):
    path = ws.folder / "maps.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StaleError, match=r"is stale: it was changed after it was made. Run: crayon explain"):
        ws.maps()
    path.unlink()
    with pytest.raises(StaleError, match=r"is missing: it is not there. Run: crayon explain"):
        ws.maps()


def test_a_step_that_did_not_end_is_noticed(ws):
    ws.ledger.forget("maps.safetensors")
    assert states(ws)["maps.safetensors"] == "unfinished"
    with pytest.raises(StaleError, match="is unfinished: the step that makes it did not end"):
        ws.maps()
    ws.explain(sheet=0)
    assert states(ws)["maps.safetensors"] == "fresh"


def test_same_name_with_other_settings_is_refused(ws):
    with pytest.raises(OutputExistsError, match=r"other settings \(pruning.epochs 2 there, 3 now\)"):
        ws.correct("pruning", pruning={"epochs": 3})
    made = ws.correct("pruning", pruning={"epochs": 3}, overwrite=True)
    assert made.record.settings["epochs"] == 3
    other = ws.correct("pruning", pruning={"epochs": 1}, name="short")
    assert other.record.settings["epochs"] == 1
    assert ws.corrections == ("both", "pruning", "short")


def rewrite(workspace, path, change):
    """The workspace with other settings in its books, opened anew."""
    books = json.loads((workspace.folder / "workspace.json").read_text())
    change(books["files"][path]["settings"])
    (workspace.folder / "workspace.json").write_text(json.dumps(books))
    return Workspace(workspace.folder)


def is_made_again(workspace, *arguments, **settings):
    before = (workspace.folder / "corrections" / arguments[0] / "crayon.json").read_bytes()
    workspace.correct(*arguments, **settings)
    return (workspace.folder / "corrections" / arguments[0] / "crayon.json").read_bytes() != before


def test_a_default_that_is_typed_is_no_other_setting(ws):
    told = {**FAST_ATTENTION, "lr": 1e-4, "background_swap": 0.7, "score": "margin", "alpha": 1000}
    assert not is_made_again(ws, "both", attention=told, pruning={"epochs": 2, "optimizer": "adam"})
    line = ["--method", "both", *FAST, "--set", "attention.lr=1e-4"]
    assert crayon("correct", ws.folder, *line).exit_code == 0
    with pytest.raises(OutputExistsError, match=r"\(attention.lr 0.0001 there, 0.001 now\)"):
        ws.correct("both", attention={**told, "lr": 1e-3}, pruning={"epochs": 2})


def test_precision_is_compared_as_it_is_computed(ws):
    same = {"pruning": {"epochs": 2}, "device": "cpu"}
    assert ws.manifest.files["corrections/pruning"].settings["precision"] == "auto"
    assert not is_made_again(ws, "pruning", precision="float32", **same)
    with pytest.raises(OutputExistsError, match=r"\(precision 'float32' there, 'bfloat16' now\)"):
        ws.correct("pruning", precision="bfloat16", **same)
    before = rewrite(ws, "corrections/pruning", lambda noted: noted.pop("computed"))  # of an earlier version
    assert not is_made_again(before, "pruning", precision="float32", **same)
    elsewhere = rewrite(ws, "corrections/pruning", lambda noted: noted.update(computed="bfloat16"))
    assert not is_made_again(elsewhere, "pruning", **same)  # made by a GPU, say; "auto" asks for nothing else
    with pytest.raises(OutputExistsError, match=r"\(precision 'bfloat16' there, 'float32' now\)"):
        elsewhere.correct("pruning", precision="float32", **same)


def test_settings_are_compared_whatever_preset_they_come_from(ws):
    ws.correct("pruning", name="a", preset="waterbirds", pruning={"epochs": 1})
    typed = {name: value for name, value in asdict(PRUNING["waterbirds"]).items() if name != "seed"}
    before = ws.manifest
    ws.correct("pruning", name="a", pruning=typed | {"epochs": 1})
    assert ws.manifest == before


def test_another_default_makes_another_correction(ws):
    assert ws.manifest.files["corrections/pruning"].settings["resolved"]["pruning"]["lr"] == 0.01
    then = rewrite(ws, "corrections/pruning", lambda noted: noted["resolved"]["pruning"].update(lr=0.5))
    with pytest.raises(OutputExistsError, match=r"other settings \(pruning.lr 0.5 there, 0.01 now\)"):
        then.correct("pruning", pruning={"epochs": 2})
    assert is_made_again(then, "pruning", pruning={"epochs": 2}, overwrite=True)


def test_a_setting_that_came_later_is_at_its_default(ws):
    then = rewrite(ws, "corrections/pruning", lambda noted: noted["resolved"]["pruning"].pop("least_share"))
    assert not is_made_again(then, "pruning", pruning={"epochs": 2})


def test_a_workspace_of_before_noted_what_was_typed(ws):
    for name in ("both", "pruning"):
        then = rewrite(ws, f"corrections/{name}", lambda noted: noted.pop("resolved"))
    assert states(then)["corrections/both"] == "fresh"
    assert not is_made_again(then, "both", attention={**FAST_ATTENTION, "lr": 1e-4}, pruning={"epochs": 2})
    assert not is_made_again(then, "pruning", pruning={"epochs": 2})
    with pytest.raises(OutputExistsError, match=r"other settings \(pruning.epochs 2 there, 3 now\)"):
        then.correct("pruning", pruning={"epochs": 3})
    then = rewrite(ws, "corrections/pruning", lambda noted: noted["pruning"].update(gone=1))
    with pytest.raises(OutputExistsError, match="other settings"):  # that this version does not know
        then.correct("pruning", pruning={"epochs": 2})
    assert is_made_again(then, "pruning", pruning={"epochs": 2}, overwrite=True)


def test_an_unfinished_run_of_before_is_found(ws):
    typed = {"method": "pruning", "preset": None, "attention": {}, "pruning": {"epochs": 3}}
    typed |= {"evaluate_on": None, "seed": 0, "precision": "auto", "strict": True}
    run = ws.ledger.run_folder("corrections-other", ws.holdings.correction_inputs("pruning"), typed)
    (run / "pruning").mkdir(parents=True)
    (run / "pruning/training.safetensors").write_bytes(b"no state of a run")
    with pytest.raises(FileFormatError, match="Nothing can go on from it: delete"):
        ws.correct("pruning", name="other", pruning={"epochs": 3})


def test_wrong_settings_are_refused_before_any_work(ws):
    with pytest.raises(SettingsError, match="no setting of AttentionCorrector called 'epoch'; did you mean 'epochs'"):
        ws.correct("both", name="x", attention={"epoch": 2})
    with pytest.raises(SettingsError, match="no setting of NeuronPruner called 'seed'"):
        ws.correct("pruning", name="x", pruning={"seed": 2})
    with pytest.raises(SettingsError, match="expected a preset of waterbirds"):
        ws.correct("pruning", name="x", preset="cub")
    assert not list(ws.folder.glob("runs/*"))


def test_preset_names_the_correction(ws):
    made = ws.correct("pruning", preset="waterbirds-release", pruning={"epochs": 1})
    assert made.record.settings["optimizer"] == "sgd"
    assert "pruning-waterbirds-release" in ws.corrections


def test_a_control_is_a_correction_of_its_own(ws, tmp_path):
    once = {"epochs": 1, "spread": "never"}  # else they would be refused: they contradict each other
    made = ws.correct("pruning", control="shuffled", pruning=once)
    assert "pruning-shuffled" in ws.corrections
    assert made.record.simulated
    assert {each.source for each in made.answers} == {"control:shuffled"}
    ws.export_answers(tmp_path / "same.jsonl", control="shuffled")
    same = AnnotationSet.load(tmp_path / "same.jsonl").only("neuron")
    assert sorted(map(repr, same)) == sorted(map(repr, made.answers))
    assert not is_made_again(ws, "pruning", control="shuffled", pruning=once)
    with pytest.raises(OutputExistsError, match=r"other settings \(control 'shuffled' there, 'no' now\)"):
        ws.correct("pruning", name="pruning-shuffled", control="no", pruning=once)
    with pytest.raises(SettingsError, match="takes answers with control='yes', got 'erm'"):
        ws.correct("erm", control="yes")
    with pytest.raises(SettingsError, match="expected a control, one of yes, no, shuffled, inverted, got 'maybe'"):
        ws.correct("pruning", name="x", control="maybe")


def test_a_last_layer_from_fresh_pictures(picture_folder, model_folder, tmp_path):
    fresh = new_workspace(tmp_path / "ws", picture_folder, model_folder, splits={"val": "test"})
    fresh.explain(sheet=0)
    fresh.simulate_answers()
    made = fresh.correct(attention=FAST_ATTENTION, refit_on="val")
    assert made.record.method == "refit"
    assert [each.method for each in made.parents] == ["attention"]
    assert made.record.counts["pictures"] == 8
    assert fresh.correct(attention=FAST_ATTENTION, refit_on="val").record == made.record  # left alone
    with pytest.raises(OutputExistsError, match="refit_on 'val' there, None now"):
        fresh.correct(attention=FAST_ATTENTION)
    (status,) = [each for each in fresh.status() if each.path == "corrections/attention"]
    assert status.state == "fresh"
    assert "--refit-on val" in status.run
    with pytest.raises(SettingsError, match='the test pictures may not be learned: take "val"'):
        fresh.correct(refit_on="test")


def test_saved_with_its_evaluations(ws, tmp_path):
    from crayon_sdk import load_correction

    found = load_correction(ws.save("both", tmp_path / "out"))
    assert found.before is not None
    assert found.after is not None
    assert found.after.predictions == ws.evaluate(["both"])["both"].predictions
    with pytest.raises(OutputExistsError, match="exists already"):
        ws.save("both", tmp_path / "out")


def test_there_is_no_such_correction(ws):
    with pytest.raises(StaleError, match=r"corrections/none is missing: .*there are: both, pruning"):
        ws.save("none", ws.folder / "out")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "original", "comparison", "a" * 101])
def test_names_that_cannot_be(name):
    with pytest.raises(SettingsError, match="expected a name of letters"):
        checked_name(name)


def test_questions(ws):
    assert ws.suggest() == ()
    first, again = ws.suggest(votes=3, seed=1), ws.suggest(votes=3, seed=1)
    assert first == again
    maps = ws.maps()
    assert {each.id for each in first} == {i for i, ok in zip(maps.ids, maps.evidence.tolist(), strict=True) if ok}
    assert all(each.votes == 2 for each in first)
    patches = ws.suggest(kind="neuron", votes=2, count=10_000)
    assert len({(each.neuron, each.patch) for each in patches}) == ws.patches().num_distinct
    with pytest.raises(SettingsError, match=r"kind='both' is unknown"):
        ws.suggest(kind="both")


def test_what_is_foretold_is_said_where_somebody_looked_at_the_pictures(ws):
    runs = list(ws.folder.glob("runs/outlook-*"))
    assert ws.foresight() is None
    assert ws.answering.known_outlook() is None
    assert list(ws.folder.glob("runs/outlook-*")) == runs == []  # a look costs a pass of the model, and is not taken
    found = ws.foresight(look=True)
    assert found.yes + found.no > 0
    assert ws.foresight() == found == foresee(ws.maps(), ws.answers(), ws.answering.outlook())
    assert ws.foresight("spot").in_words.startswith("nothing is answered yet")
    assert torch.equal(Workspace(ws.folder).answering.known_outlook().spots, ws.answering.outlook().spots)
    for kind in ("neuron", "spots"):
        with pytest.raises(SettingsError, match="kind="):
            ws.foresight(kind)
    # About other maps nobody has looked yet.
    ws.explain(target="predicted", sheet=0, again=True)
    assert ws.foresight() is None


def test_model_that_changed(ws, tmp_path):
    other = save_model(tmp_path / "other", seed=1)
    values = json.loads((ws.folder / "workspace.json").read_text())
    values["model"]["source"] = str(other)
    (ws.folder / "workspace.json").write_text(json.dumps(values))
    with pytest.raises(MismatchError, match=r"is not the model this workspace was made for .*--again"):
        _ = Workspace(ws.folder).model
    again = Workspace.create(ws.folder, ModelSource(source=str(other)), ws.manifest.data, again=True)
    assert states(again)["maps.safetensors"] == "stale"
    with pytest.raises(StaleError, match=r"corrections/both is stale: .*model"):
        again.correction("both")
    assert len(again.answers()) == len(ws.answers())  # nothing is lost


def test_pictures_that_changed(tmp_path, picture_folder, model_folder):
    shutil.copytree(picture_folder, tmp_path / "p")
    workspace = new_workspace(tmp_path / "ws", tmp_path / "p", model_folder)
    path = tmp_path / "p/images/cat/00.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StaleError, match=r"the train pictures changed since .*16 then, 16 now.*--again"):
        workspace.dataset()
    again = Workspace.create(workspace.folder, workspace.manifest.model, workspace.manifest.data, again=True)
    assert len(again.dataset()) == 16


def test_bad_pictures_are_left_out_and_remembered(tmp_path, picture_folder, model_folder):
    shutil.copytree(picture_folder, tmp_path / "p")
    (tmp_path / "p/images/cat/00.jpg").write_text("not a picture")
    (tmp_path / "p/images/cat/01.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 16 samples cannot be used.*the file is missing"):
        new_workspace(tmp_path / "ws", tmp_path / "p", model_folder)
    assert not (tmp_path / "ws").exists()
    workspace = new_workspace(tmp_path / "ws", tmp_path / "p", model_folder, skip_bad=True)
    assert len(workspace.dataset()) == 14
    assert set(workspace.manifest.splits["train"].skipped) == {"images/cat/00.jpg", "images/cat/01.jpg"}
    assert len(workspace.explain(sheet=0)[0]) == 14


def test_workspace_in_use(ws):
    with locked(ws.folder, doing="a test"):
        for step in (ws.explain, ws.simulate_answers, ws.correct, ws.evaluate, ws.compare):
            with pytest.raises(WorkspaceBusyError, match=r"in use by process .*a test"):
                step()


def test_leftovers_of_killed_processes_are_swept(ws):
    for place in (".", "corrections", "evaluations/test"):
        left = ws.folder / place / ".crayon-abcd1234"
        (left / "new").mkdir(parents=True)
        (left / ".crayon-lock").touch()
    mine = [ws.folder / ".gitignore", ws.folder / ".notes.abcd1234", ws.folder / "photos" / ".a.jpg.abcd1234"]
    (ws.folder / "photos").mkdir()
    for path in mine:
        path.write_text("mine")
    ws.evaluate(["original"])
    hidden = {path.name for path in ws.folder.rglob(".*")}
    assert hidden == {*(path.name for path in mine), ".lock"}


def test_second_make_is_refused(ws, model_folder):
    with pytest.raises(OutputExistsError, match="is a workspace already"):
        Workspace.create(ws.folder, ws.manifest.model, ws.manifest.data)


def test_classes_that_do_not_fit(tmp_path, picture_folder, model_folder):
    (tmp_path / "p/cat").mkdir(parents=True)
    (tmp_path / "p/dog").mkdir()
    shutil.copy(picture_folder / "images/cat/00.jpg", tmp_path / "p/cat")
    for number in (0, 1):
        shutil.copy(picture_folder / f"images/dog/0{number}.jpg", tmp_path / "p/dog")
    source = DataSource(folder=str(tmp_path / "p"))
    model = ModelSource(source=str(model_folder))
    with pytest.raises(DataError, match=r"1 of 2 classes have fewer than 2 training pictures: 'cat \(1\)'"):
        Workspace.create(tmp_path / "ws", model, source)
    made = Workspace.create(tmp_path / "ws", model, source.model_copy(update={"min_images_per_class": 1}))
    assert len(made.dataset()) == 3
    with pytest.raises(DataError, match="has no test pictures"):
        made.evaluate()
    shutil.copytree(tmp_path / "p/dog", tmp_path / "t/wolf")
    shutil.copytree(tmp_path / "p/dog", tmp_path / "t/cat")
    with pytest.raises(DataError, match=r"the test pictures have the classes \('cat', 'wolf'\)"):
        Workspace.create(
            tmp_path / "w2",
            model,
            DataSource(folder=str(tmp_path / "p"), test=str(tmp_path / "t"), min_images_per_class=1),
        )


def test_model_without_a_map(tmp_path, picture_folder):
    from safetensors.torch import save_file

    vit = make_tiny_model("test_vit.r160_in1k")
    (tmp_path / "vit").mkdir()
    save_file(vit.state_dict(), tmp_path / "vit/model.safetensors")
    (tmp_path / "vit/config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 2}))
    with pytest.raises(UnsupportedModelError):
        new_workspace(tmp_path / "ws", picture_folder, tmp_path / "vit")
    assert not (tmp_path / "ws").exists()


def test_maps_go_on_part_by_part(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("crayon_sdk.workspace.steps._BATCHES_PER_PART", 2)
    shutil.copytree(finished.folder, tmp_path / "ws")
    ws = Workspace(tmp_path / "ws")
    whole = Explainer.explain
    seen: list[int] = []

    def stops_at_the_third(self, dataset, path):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(dataset))
        return whole(self, dataset, path)

    monkeypatch.setattr(Explainer, "explain", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ws.explain(batch_size=3, sheet=0, again=True)
    assert seen == [6, 6]
    assert states(ws)["maps.safetensors"] == "fresh"  # the old ones, until the new ones are whole
    monkeypatch.setattr(
        Explainer, "explain", lambda self, dataset, path: seen.append(len(dataset)) or whole(self, dataset, path)
    )
    maps, _ = ws.explain(batch_size=3, sheet=0)
    assert seen == [6, 6, 4]
    assert maps.ids == ws.dataset().ids
    whole(Explainer(ws.model, score="margin", batch_size=3), ws.dataset()).save(tmp_path / "whole.safetensors")
    assert (tmp_path / "whole.safetensors").read_bytes() == (ws.folder / "maps.safetensors").read_bytes()
    assert not list((ws.folder / "runs").iterdir())


def test_groups_that_changed(tmp_path, picture_folder, model_folder):
    shutil.copytree(picture_folder, tmp_path / "p")
    workspace = new_workspace(tmp_path / "ws", tmp_path / "p", model_folder)
    table = tmp_path / "p/metadata.csv"
    table.write_text(table.read_text().replace(",land,", ",meadow,"))
    with pytest.raises(StaleError, match="ids, labels, groups or file sizes differ"):
        workspace.dataset()


def test_a_torn_line_of_answers_is_put_aside(ws):
    path = ws.folder / "answers.jsonl"
    count = len(ws.answers())
    with path.open("a") as file:
        file.write('{"kind": "image", "id": "im')
    ws.add_answers(AnnotationSet([ImageAnswer(id=ws.dataset().ids[0], answer="no", annotator="ann")]), source="ann")
    assert len(ws.answers()) == count + 1
    assert (ws.folder / "answers.jsonl.torn").read_text().strip() == '{"kind": "image", "id": "im'


def test_a_split_that_is_gone(ws, picture_folder):
    data = DataSource(folder=str(picture_folder / "images"))
    again = Workspace.create(ws.folder, ws.manifest.model, data, again=True)
    assert set(again.manifest.splits) == {"train"}
    assert states(again)["evaluations/test/both.json"] == "stale"
    with pytest.raises(DataError, match="has no test pictures"):
        again.evaluate()


def test_saving_spares_what_is_no_checkpoint(ws, tmp_path):
    before = {path for path in ws.folder.rglob("*") if path.is_file()}
    for target in (ws.folder, ws.folder.parent, ws.folder / "corrections" / "pruning"):
        with pytest.raises(OutputExistsError, match="or belongs to the workspace"):
            ws.save("both", target, overwrite=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds something else than a checkpoint"):
        ws.save("both", tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "a.jpg").read_text() == "mine"
    assert {path for path in ws.folder.rglob("*") if path.is_file()} - {ws.folder / ".lock"} == before - {
        ws.folder / ".lock"
    }
    ws.save("pruning", tmp_path / "out")
    ws.save("both", tmp_path / "out", overwrite=True)
    assert weights(tmp_path / "out") == weights(ws.folder / "corrections/both")


def test_another_view_of_the_pictures_makes_everything_stale(ws):
    model = ws.manifest.model.model_copy(update={"preprocessing": {"size": [96, 96]}})
    again = Workspace.create(ws.folder, model, ws.manifest.data, again=True)
    own = Workspace(ws.folder).model.preprocessing
    plain = load_model(model.source).preprocessing
    assert own.size == (96, 96)
    assert (own.mean, own.std, own.crop_pct, own.interpolation) == (
        plain.mean,
        plain.std,
        plain.crop_pct,
        plain.interpolation,
    )
    found = states(again)
    assert {found[name] for name in ("maps.safetensors", "corrections/both", "evaluations/test/both.json")} == {"stale"}


def test_a_model_that_was_loaded_before_is_not_used_for_another(ws, tmp_path):
    assert ws.model.num_classes == 2  # loaded
    other = save_model(tmp_path / "other", seed=1)
    Workspace.create(ws.folder, ModelSource(source=str(other)), ws.manifest.data, again=True)
    maps, _ = ws.explain(sheet=0)
    assert maps.model == load_model(other).fingerprint == ws.manifest.model_fingerprint


def test_stored_places_stay_where_they_are(tmp_path, picture_folder, model_folder, monkeypatch):
    place = tmp_path / "ws"
    shutil.copytree(model_folder, place / "model")
    workspace = new_workspace(place, picture_folder, place / "model")
    save_model(tmp_path / "model", seed=1)  # one of the same name, where one is
    monkeypatch.chdir(tmp_path)
    again = Workspace.create(place, workspace.manifest.model, workspace.manifest.data, again=True)
    assert again.manifest.model.source == "./model"
    assert again.manifest.model_fingerprint == workspace.manifest.model_fingerprint


def test_a_missing_correction_is_passed_over_and_made_again_by_what_is_said(ws, caplog):
    shutil.rmtree(ws.folder / "corrections/both")
    assert list(ws.evaluate()) == ["original", "pruning"]
    run = "--name both --method both --set attention.epochs=1 --set attention.batch_size=8 --set pruning.epochs=2"
    assert f"to make it again: crayon correct -w {ws.folder} {run}" in caplog.text
    ws.correct("both", attention=FAST_ATTENTION, pruning={"epochs": 2})
    assert states(ws)["corrections/both"] == "fresh"


def test_settings_that_are_not_used_are_no_others(ws):
    before = weights(ws.folder / "corrections/pruning")
    ws.correct("pruning", pruning={"epochs": 2}, attention={"epochs": 99})
    assert weights(ws.folder / "corrections/pruning") == before


def test_pruning_waits_until_the_guidance_can_begin(ws):
    (ws.folder / "maps.safetensors").unlink()
    with pytest.raises(StaleError, match=r"maps\.safetensors"):
        ws.correct("both", name="other")
    assert not list(ws.folder.glob("runs/*"))


def test_answers_about_earlier_maps_are_a_warning(ws, caplog):
    ws.explain(score="logit", sheet=0)
    ws.correct("attention", attention=FAST_ATTENTION)
    assert "the last answers were given about other maps" in caplog.text


def copy_of(model_folder, place, **config):
    """The model in another folder, with other entries in its config.json."""
    if not place.exists():
        shutil.copytree(model_folder, place)
    values = json.loads((place / "config.json").read_text())
    for name, value in config.items():
        inner = next((values[part] for part in ("pretrained_cfg", "model_args") if name in values[part]), values)
        (values["model_args"] if name in ("drop_rate", "act_layer") else inner)[name] = value
    (place / "config.json").write_text(json.dumps(values))
    return place


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mean": [0.1, 0.2, 0.3]}, r"its mean is \[0.1, 0.2, 0.3\], it was \["),
        ({"std": [1.0, 1.0, 1.0]}, "its std is"),
        ({"interpolation": "nearest"}, "its interpolation is 'nearest'"),
        ({"crop_pct": 0.5}, "its crop_pct is 0.5"),
        ({"drop_rate": 0.5}, "it was built with drop_rate None, now with 0.5"),
        ({"act_layer": "silu"}, "it was built with act_layer None, now with 'silu'|it gives other logits"),
        ({"label_names": ["dog", "cat"]}, "its classes are 'dog', 'cat', they were 'cat', 'dog'"),
    ],
)
def test_whatever_changes_the_numbers_is_noticed(tmp_path, picture_folder, model_folder, change, told):
    model = copy_of(model_folder, tmp_path / "model")
    made = new_workspace(tmp_path / "ws", picture_folder, model)
    if "drop_rate" in change and not made.manifest.behaviour.arguments:
        pytest.skip("this release of timm does not tell what a model was built with")
    before = made.ledger.base()
    copy_of(model_folder, model, **change)
    for step in ("explain", "correct", "evaluate"):
        with pytest.raises(
            MismatchError, match=rf"has the weights this workspace was made for, but .*(?:{told}).*--again"
        ):
            getattr(Workspace(made.folder), step)()
    again = Workspace.create(made.folder, made.manifest.model, made.manifest.data, again=True)
    assert again.model.num_classes == 2
    assert again.ledger.base() != before


def test_a_model_that_gives_other_logits_is_noticed(tmp_path, picture_folder, model_folder):
    made = new_workspace(tmp_path / "ws", picture_folder, model_folder)
    once = Workspace.create(made.folder, made.manifest.model, made.manifest.data, again=True)
    assert once.ledger.base() == made.ledger.base()
    manifest = json.loads((made.folder / "workspace.json").read_text())
    manifest["behaviour"]["logits"][0] += 1.0
    (made.folder / "workspace.json").write_text(json.dumps(manifest))
    with pytest.raises(MismatchError, match="it gives other logits for the same picture"):
        assert Workspace(made.folder).model


def test_a_changed_preprocessing_does_not_hide_behind_fresh_files(ws, tmp_path, model_folder):
    values = json.loads((ws.folder / "workspace.json").read_text())
    values["model"]["source"] = str(copy_of(model_folder, tmp_path / "other", mean=[0.1, 0.2, 0.3]))
    (ws.folder / "workspace.json").write_text(json.dumps(values))
    for call in (ws.evaluate, lambda: ws.correct("pruning", pruning={"epochs": 2})):
        with pytest.raises(MismatchError, match="its mean is"):
            call()


def as_before(folder):
    """Write workspace.json as the version before did: in schema 1, without classes and behaviour."""
    values = json.loads((folder / "workspace.json").read_text())
    values = {key: value for key, value in values.items() if key not in ("behaviour", "classes")} | {
        "schema_version": 1
    }
    values["data"].pop("class_map")
    for entry in values["files"].values():
        entry["inputs"].pop("behaviour", None)
    (folder / "workspace.json").write_text(json.dumps(values))
    return Workspace(folder)


def test_a_workspace_of_the_version_before(ws, tmp_path, model_folder):
    old = as_before(ws.folder)
    assert set(states(old).values()) == {"fresh"}
    written = (old.folder / "maps.safetensors").stat().st_mtime_ns
    old.explain(sheet=2)
    assert (old.folder / "maps.safetensors").stat().st_mtime_ns == written
    assert old.dataset().class_names == ("cat", "dog")
    old.correct("pruning", name="second", pruning={"epochs": 1})
    assert json.loads((old.folder / "workspace.json").read_text())["schema_version"] == 2
    assert set(states(Workspace(old.folder)).values()) == {"fresh"}
    values = json.loads((old.folder / "workspace.json").read_text())
    values["model"]["source"] = str(copy_of(model_folder, tmp_path / "other", label_names=["dog", "cat"]))
    (old.folder / "workspace.json").write_text(json.dumps(values))
    with pytest.raises(
        StaleError, match=r"order of the data \('cat', 'dog'\), and the model's are 'dog', 'cat'.*--again"
    ):
        Workspace(old.folder).evaluate()
    again = Workspace.create(old.folder, Workspace(old.folder).manifest.model, old.manifest.data, again=True)
    assert again.dataset().class_names == ("dog", "cat")
    assert states(again)["maps.safetensors"] == "stale"


def test_classes_of_the_model_by_name(tmp_path, picture_folder, model_folder):
    plain = new_workspace(tmp_path / "plain", picture_folder, model_folder)
    model = copy_of(model_folder, tmp_path / "model", label_names=["dog", "cat"])
    made = new_workspace(tmp_path / "ws", picture_folder, model)
    found, train = made.dataset(), plain.dataset()
    assert found.labels.tolist() == (1 - train.labels).tolist()
    assert (found.class_names, found.group_labels) == (("dog", "cat"), train.group_labels)
    assert (made.manifest.classes.moved, plain.manifest.classes.moved) == (True, False)
    maps, _ = made.explain(sheet=0)
    assert maps.targets.tolist() == found.labels.tolist()
    assert made.ledger.base().keys() - plain.ledger.base().keys() == {"classes"}
    other = copy_of(model_folder, tmp_path / "fish", label_names=["fish", "bird"])
    with pytest.raises(SettingsError, match=r"the data has 2 \('cat', 'dog'\), the model 2 \('fish', 'bird'\)"):
        new_workspace(tmp_path / "no", picture_folder, other)
    assert not (tmp_path / "no").exists()
    told = new_workspace(tmp_path / "told", picture_folder, other, class_map={"cat": "bird", "dog": "fish"})
    assert told.dataset("test").class_names == ("fish", "bird")
    assert told.dataset().labels.tolist() == found.labels.tolist()


def test_another_number_of_classes_is_refused(tmp_path, picture_folder, model_folder):
    source = DataSource(csv=str(picture_folder / "metadata.csv"))
    for wanted in (
        ModelSource(source=str(model_folder), num_classes=5),
        ModelSource(source=str(model_folder), model_args={"num_classes": 5}),
    ):
        with pytest.raises(
            SettingsError, match=r"expected weights for 5 classes .* have 2: the last layer would be new"
        ):
            Workspace.create(tmp_path / "ws", wanted, source)
    assert not (tmp_path / "ws").exists()
    made = Workspace.create(tmp_path / "ws", ModelSource(source=str(model_folder), num_classes=2), source)
    assert made.model.num_classes == 2


def test_weights_that_are_no_numbers(tmp_path, picture_folder, model_folder):
    from safetensors.torch import load_file, save_file

    place = copy_of(model_folder, tmp_path / "model")
    tensors = load_file(place / "model.safetensors")
    tensors["layer2.0.conv1.weight"][0] = float("nan")
    save_file(tensors, place / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"got NaN or infinity in 1 of .*'layer2\.0\.conv1\.weight \("):
        new_workspace(tmp_path / "ws", picture_folder, place)
    assert not (tmp_path / "ws").exists()


def test_pictures_in_two_splits_are_a_warning(tmp_path, picture_folder, model_folder, caplog):
    new_workspace(tmp_path / "fine", picture_folder, model_folder)
    assert "are also among" not in caplog.text
    root = tmp_path / "p"
    for split, numbers in (("train", (0, 1, 2)), ("test", (3, 4))):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for number in numbers:
                shutil.copy(picture_folder / f"images/{label}/0{number}.jpg", root / split / label)
    shutil.copy(root / "train/cat/00.jpg", root / "test/cat/other.jpg")
    (root / "test/dog/link.jpg").symlink_to(root / "train/dog/01.jpg")
    source = ModelSource(source=str(model_folder))
    Workspace.create(tmp_path / "ws", source, DataSource(folder=str(root)))
    told = "2 of the 6 test pictures are also among the train pictures (1 are the same files, the others have the same"
    assert told in caplog.text
    caplog.clear()
    Workspace.create(tmp_path / "same", source, DataSource(folder=str(root / "train"), test=str(root / "train")))
    assert "6 of the 6 test pictures are also among the train pictures (6 are the same files" in caplog.text


# --- files that were deleted or altered ---


@pytest.fixture(params=[8 << 20, 0], ids=["small", "large"])
def sizes(request, monkeypatch):
    """Every file counts as small, or as large."""
    monkeypatch.setattr("crayon_sdk.workspace.ledger._SMALL", request.param)
    return request.param


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


def garbage(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


FILES = [
    ("maps.safetensors", "maps.safetensors"),
    ("patches.safetensors", "patches.safetensors"),
    ("corrections/both/model.safetensors", "corrections/both"),
    ("corrections/both/crayon.json", "corrections/both"),
    ("corrections/both/config.json", "corrections/both"),
    ("corrections/both/answers.jsonl", "corrections/both"),
    ("evaluations/test/both.json", "evaluations/test/both.json"),
    ("answers.jsonl", "answers.jsonl"),
]


@pytest.mark.parametrize(("name", "entry"), FILES)
@pytest.mark.parametrize("harm", [Path.unlink, cut, flip, garbage])
def test_a_file_that_was_deleted_or_altered_is_not_fresh(name, entry, harm, ws, sizes):
    assert states(ws)[entry] == "fresh"
    harm(ws.folder / name)
    unseen = (harm is flip and not sizes) or (harm is garbage and not sizes and not name.endswith("safetensors"))
    unseen = unseen and name != "answers.jsonl"
    assert (states(ws)[entry] == "fresh") == unseen, "a flipped bit in a large file takes --verify"
    found = {each.path: each for each in ws.status(verify=True)}[entry]
    assert found.state in ("stale", "missing")
    assert found.run.startswith("crayon ")
    if name.startswith("corrections/"):
        reason = rf"corrections/both is stale: {Path(name).name} in it .*Run: crayon correct .*--name both"
        with pytest.raises(StaleError, match=reason) as caught:
            ws.correction("both")
        assert "pickle" not in str(caught.value)
    if harm is not flip:
        return  # the shell asks the same
    result = crayon("info", ws.folder, "--verify", "--json")
    assert result.exit_code == 0, result.output
    assert {each["path"]: each["state"] for each in json.loads(result.stdout)["status"]}[entry] == found.state


def test_what_was_lost_is_made_again_by_the_command_that_is_named(ws):
    before = weights(ws.folder / "corrections/both")
    (ws.folder / "corrections/both/model.safetensors").unlink()
    flip(ws.folder / "maps.safetensors")
    assert states(ws)["corrections/both"] == "stale"
    ws.explain(sheet=0)
    entry = ws.manifest.files["corrections/both"].settings
    ws.correct("both", attention=entry["attention"], pruning=entry["pruning"])
    assert weights(ws.folder / "corrections/both") == before
    assert states(ws)["corrections/both"] == "fresh"


def test_answers_that_are_gone_are_not_taken_for_none(ws):
    kept = (ws.folder / "answers.jsonl").read_bytes()
    (ws.folder / "answers.jsonl").unlink()
    for step in (ws.answers, lambda: ws.correct("attention"), ws.suggest):
        with pytest.raises(StaleError, match=r"answers\.jsonl in .* is missing: .*Run: crayon answer simulate"):
            step()
    assert "answers.jsonl" in crayon("info", ws.folder).stdout
    ws.simulate_answers()
    assert states(ws)["answers.jsonl"] == "fresh"
    (ws.folder / "answers.jsonl").write_bytes(kept[: len(kept) // 2])
    assert states(ws)["answers.jsonl"] == "stale"


def test_answers_corrected_by_hand_are_taken_in_again(ws):
    path = ws.folder / "answers.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    found = {each.path: each for each in ws.status()}
    assert found["answers.jsonl"].state == "stale"
    assert f"answer import -w {ws.folder} {path}" in found["answers.jsonl"].run
    ws.import_answers(path)
    assert states(ws)["answers.jsonl"] == "fresh"
    assert len(ws.answers()) == len(lines) - 1


def test_the_same_answers_again_are_read_once_and_not_written(ws, tmp_path):
    path, count = ws.folder / "answers.jsonl", len(ws.answers())
    shutil.copy(path, tmp_path / "copy.jsonl")
    (tmp_path / "other.jsonl").write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    before = path.stat()
    for name, known in (("copy", count), ("other", count - 1)):
        taken = ws.import_file(tmp_path / f"{name}.jsonl")
        assert (taken.new, taken.known, taken.total) == (0, known, count)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert states(ws)["answers.jsonl"] == "fresh"


def test_answers_that_a_hand_doubled_are_one(ws, tmp_path):
    path, count = ws.folder / "answers.jsonl", len(ws.answers())
    kept, new = path.read_text(), ImageAnswer(id=ws.dataset().ids[0], answer="no", annotator="ben")
    path.write_text(kept + kept.splitlines(keepends=True)[0])
    taken = ws.import_file(path)
    assert (taken.new, taken.total) == (0, count)
    assert len(path.read_text().splitlines()) == count
    path.write_text(kept + kept)
    assert ws.add_answers(AnnotationSet([new]), source="ben") == 1
    assert len(ws.answers()) == count + 1


def test_a_copy_of_answers_that_do_not_belong_here_is_refused_or_left_out(ws, tmp_path):
    """The same bytes as what is there, and all the same looked over: both were made by hand."""
    path, count = ws.folder / "answers.jsonl", len(ws.answers())
    with path.open("a") as file:
        file.write(ImageAnswer(id="lost.jpg", answer="no", annotator="ben").model_dump_json() + "\n")
    shutil.copy(path, tmp_path / "copy.jsonl")
    with pytest.raises(MismatchError, match=r"lost\.jpg"):
        ws.import_answers(tmp_path / "copy.jsonl")
    taken = ws.import_file(tmp_path / "copy.jsonl", strict=False)
    assert (taken.new, taken.known, taken.total) == (0, count, count + 1)
    path.write_text("image,answer\n1.jpg,yes\n")
    shutil.copy(path, tmp_path / "copy.csv")
    with pytest.raises(FileFormatError, match=r"answers\.jsonl"):
        ws.import_answers(tmp_path / "copy.csv")


def test_a_file_is_hashed_once_in_a_command(ws, monkeypatch):
    made = []

    def counting(path):
        made.append(path)
        return hash_of_file(path)

    fresh = Workspace(ws.folder)
    monkeypatch.setattr("crayon_sdk.workspace.ledger.hash_of_file", counting)
    fresh.status(verify=True)
    first = len(made)
    fresh.status(verify=True)
    fresh.maps()
    fresh.correction("both")
    assert (
        len(made)
        == first
        == len({(path, name) for path, entry in ws.manifest.files.items() for name in entry.parts}) + 1
    )


def test_answers_about_classes_or_patches_that_there_are_not_are_refused(ws, tmp_path):
    """Known where the model and its patches are: with who, about what, and the line."""
    before = (ws.folder / "answers.jsonl").read_bytes()
    good, known = ws.dataset().ids[:2]
    bad = ImageAnswer(id=known, answer="no", annotator="ben", target=7)
    fine = ImageAnswer(id=good, answer="no", annotator="ben", target=1)
    AnnotationSet([fine, bad]).save(tmp_path / "a.jsonl")
    with pytest.raises(
        MismatchError, match=rf"1 of 2 .* \(it has 2, from 0\): target 7 of '{known}' by ben \(line 2\)"
    ):
        ws.import_answers(tmp_path / "a.jsonl")
    patch = NeuronAnswer(neuron=4, patch=3, answer="no", annotator="ben")
    AnnotationSet([patch, fine]).save(tmp_path / "p.jsonl")
    with pytest.raises(
        MismatchError, match=r"1 of 2 .* \(a neuron has 3 at most, .*patch 3 of 'neuron 4' by ben \(line 1\)"
    ):
        ws.import_answers(tmp_path / "p.jsonl")
    assert (ws.folder / "answers.jsonl").read_bytes() == before
    assert ws.import_answers(tmp_path / "p.jsonl", strict=False) == 1
    taken = ws.import_file(tmp_path / "a.jsonl", strict=False)
    assert (taken.new, taken.known, taken.total) == (0, 1, len(ws.answers()))


def test_fit_refuses_answers_about_other_classes(finished):
    train, maps, answers = finished.dataset(), finished.maps(), finished.answers()
    wrong = answers.merge(
        AnnotationSet(
            [
                ImageAnswer(id=train.ids[0], answer="no", annotator="ben", target=2),
                NeuronAnswer(neuron=0, patch=0, answer="no", annotator="ben", target=2),
            ]
        )
    )
    with pytest.raises(MismatchError, match=rf"target 2 of '{train.ids[0]}' by ben"):
        AttentionCorrector(finished.model, **FAST_ATTENTION).fit(train, maps, wrong)
    with pytest.raises(MismatchError, match="target 2 of 'neuron 0' by ben"):
        NeuronPruner(finished.model, epochs=1).fit(train, wrong)


def test_clusters_come_from_a_column_of_the_table(tmp_path, picture_folder, model_folder):
    """A column that says which pictures show the same thing is drawn as a whole; the data set stays as it was."""
    shutil.copytree(picture_folder, tmp_path / "data")
    table = tmp_path / "data/metadata.csv"
    first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{first},pair", *(f"{row},{number // 2}" for number, row in enumerate(rows))]))
    ws = new_workspace(tmp_path / "ws", tmp_path / "data", model_folder)
    ws.evaluate()
    shutil.copy(ws.folder / "evaluations/test/original.json", tmp_path / "o.json")
    one = Evaluation.load(tmp_path / "o.json")
    with pytest.raises(DataError, match="no column 'pairs'"):
        ws.compare(["original"], cluster_column="pairs")
    clusters = ws.steps._clusters("pair", "test")
    assert set(clusters) == set(one.predictions)
    found = compare({"a": one, "b": one}, clusters=clusters)
    assert 1 < found.clusters < len(one.predictions)


def test_channels_last(tmp_path, picture_folder, model_folder):
    """The steps run in another order of memory, give the same by rounding, and go back when it is not asked for."""
    plain, other = (new_workspace(tmp_path / name, picture_folder, model_folder) for name in ("plain", "other"))
    maps, before = plain.explain(sheet=0)[0], plain.evaluate()["original"]
    found = other.explain(sheet=0, channels_last=True)[0]
    weight = other.model.model.conv1[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert torch.allclose(found.values, maps.values, atol=1e-3)
    assert found.model == maps.model
    assert other.evaluate(channels_last=True)["original"].predictions == before.predictions
    other.simulate_answers()
    made = other.correct(attention=FAST_ATTENTION, channels_last=True)
    assert made.model.model.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    other.evaluate(again=True)
    assert other.model.model.conv1[0].weight.is_contiguous()
    assert {each.state for each in other.status()} == {"fresh"}


def test_compiled(tmp_path, picture_folder, model_folder, monkeypatch):
    """The steps run through torch.compile where it is asked for, and only there."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, other = (new_workspace(tmp_path / name, picture_folder, model_folder) for name in ("plain", "other"))
    maps = plain.explain(sheet=0)[0]
    assert plain.model._compiled is None
    assert torch.allclose(other.explain(sheet=0, compile=True)[0].values, maps.values, atol=1e-3)
    assert other.model._compiled is not None
    other.simulate_answers()
    assert other.correct(attention=FAST_ATTENTION, compile=True).model.compile_trunk
    other.evaluate(["original"], compile=True)
    assert other.model.compile_trunk
    other.evaluate(["original"], again=True)
    assert not other.model.compile_trunk


# --- a workspace of a version before, as it was made by its code ---


@pytest.fixture
def before(tmp_path):
    """A copy of what the code of commit a2a42a2 made; see fixtures/make_workspace.py."""
    shutil.copytree(Path(__file__).parent / "fixtures" / "version_before", tmp_path / "before")
    return Workspace(tmp_path / "before")


def test_a_workspace_that_the_version_before_made_is_opened_and_gone_on_with(before):
    kept = {path: path.read_bytes() for path in before.folder.rglob("*.safetensors")}
    assert json.loads((before.folder / "workspace.json").read_text())["schema_version"] == 1
    assert {each.state for each in before.status(verify=True)} == {"fresh"}
    assert set(before.evaluate()) == {"original", "both", "pruning-waterbirds"}
    before.explain(sheet=0)
    before.correct("both", attention={"epochs": 2, "batch_size": 8}, pruning={"epochs": 2})
    before.correct("pruning", preset="waterbirds", pruning={"epochs": 1})
    assert {path: path.read_bytes() for path in before.folder.rglob("*.safetensors")} == kept
    assert before.correction("both").record.method == "attention"
    before.correct("attention", attention=FAST_ATTENTION)
    assert set(before.evaluate()["attention"].predictions) == set(before.dataset("test").ids)
    again = Workspace(before.folder)
    assert {each.state for each in again.status(verify=True) if "comparison" not in each.path} == {"fresh"}
    assert again.corrections == ("both", "pruning-waterbirds", "attention")


def test_nothing_of_the_machine_that_made_it_is_in_the_workspace_of_before(before):
    values = json.loads((before.folder / "workspace.json").read_text())
    assert values["model"]["source"].startswith("./")
    assert values["data"]["csv"].startswith("./")
    whole = sum(path.stat().st_size for path in before.folder.rglob("*") if path.is_file())
    assert whole < 300_000


# --- rooms ---


def test_a_workspace_holds_rooms_and_forwards_to_them(ws):
    rooms = (ws.inputs, ws.holdings, ws.steps, ws.answering, ws.shipping)
    assert {id(room.ledger) for room in rooms} == {id(ws.ledger)}
    assert Workspace.__mro__ == (Workspace, object)
    assert ws.answers().fingerprint == ws.holdings.answers().fingerprint
    assert inspect.signature(ws.suggest) == inspect.signature(ws.answering.suggest)
    assert inspect.getdoc(Workspace.correct) == inspect.getdoc(Steps.correct)
    ws.lock_timeout = 0.1
    assert ws.ledger.lock_timeout == 0.1


@pytest.mark.parametrize("module", ["workspace", "steps", "answering", "shipping", "holdings", "inputs", "ledger"])
def test_rooms_do_not_reach_into_each_other(module):
    """What begins with an underscore is asked of oneself only."""
    tree = ast.parse((Path(crayon_sdk.__file__).parent / "workspace" / f"{module}.py").read_text(encoding="utf-8"))
    private = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
    foreign = [f"{ast.unparse(node)}, line {node.lineno}" for node in private if ast.unparse(node.value) != "self"]
    assert not [each for each in foreign if "__" not in each]


def test_spots_from_masks_leave_the_others(ws):
    """Simulated answers of one kind are made again; all others stay, those of people too."""
    before = ws.answers()
    assert {each.kind for each in before} == {"image", "neuron"}
    said = AnnotationSet([SpotAnswer(id=ws.dataset().ids[0], answer="no", annotator="ann")])
    ws.add_answers(said, source="ann")
    made = ws.simulate_answers(kind="spot", count=3, seed=1)
    assert made.spot_answers == tuple(made)
    assert made.all_simulated
    assert len({each.id for each in made}) == 3
    assert ws.manifest.answers[-1]["kind"] == "spot"
    assert ws.answers() == before.merge(said, made)
    again = ws.simulate_answers(kind="spot", annotators=1)
    assert ws.answers() == before.merge(said, again)
    few = ws.simulate_answers(kind="neuron", neuron_count=2)
    assert (len(few.image_answers), ws.answers().only("image"), ws.answers().only("spot")) == (
        0, before.only("image"), said.merge(again),
    )  # fmt: skip
    ws.simulate_answers()
    assert ws.answers().only("spot") == said.merge(again)
    assert "kind" not in ws.manifest.answers[-1]
    with pytest.raises(SettingsError, match="kind='spots' is unknown"):
        ws.simulate_answers(kind="spots")
    assert ws.answers().only("spot") == said.merge(again)


def test_spots_go_out_and_come_back(ws, tmp_path):
    ws.simulate_answers(kind="spot")
    answers = ws.answers()
    for kind in ("jsonl", "csv", "mturk", "label-studio", "fiftyone"):
        ws.export_answers(tmp_path / kind, kind)
        assert ws.import_file(tmp_path / kind).new == 0
        assert ws.answers() == answers
    ws.export_answers(tmp_path / "shuffled", control="shuffled")
    assert AnnotationSet.load(tmp_path / "shuffled").counts("spot")["answers"] == answers.counts("spot")["answers"]
