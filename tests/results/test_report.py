"""The report says what is in the correction, says what is lacking, and nothing in it is markup but our own."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace

import pytest
from helpers_correction import split_model
from helpers_report import EVIL, PLACES, Page, bare_correction, evil_pictures, make_case
from PIL import Image

from crayon_sdk._base.text import one_line
from crayon_sdk.answers.annotations import AnnotationSet, SpotAnswer
from crayon_sdk.errors import MismatchError, MissingExtraError, OutputError, OutputExistsError, SettingsError
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.results.evaluation import evaluate
from crayon_sdk.results.report import Material, make_report

pytest.importorskip("matplotlib")

ALL = {"groups", "training", "maps-largest-change", "maps-random", "neurons"}


@pytest.fixture(scope="module")
def case():
    return make_case()


@pytest.fixture(scope="module")
def bare():
    return bare_correction()


@pytest.fixture(scope="module")
def saved(case, tmp_path_factory):
    place = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    given = {"evaluated_on": "test <pictures>", "commands": ["crayon x --name '<b>'"], "pictures": 3}
    return case.correction.report(place, **case.material(), **given)


@pytest.fixture(scope="module")
def page(saved):
    return Page(saved.read_text(encoding="utf-8"))


def test_the_page_is_whole_and_loads_nothing(page):
    assert page.still_open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base", "video", "svg"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"action", "srcset", "data"} & attributes.keys(), tag
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(str(link["href"]).startswith("#") for link in page.all("a"))


def test_its_style_loads_nothing(saved):
    style = re.search(r"<style>(.*?)</style>", saved.read_text(encoding="utf-8"), re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_every_link_leads_somewhere(page):
    places = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(link["href"])[1:] for link in page.all("a")} <= places


def test_names_are_shown_as_they_are(page):
    for name in (EVIL[0], EVIL[1], one_line(PLACES[0]), PLACES[1], "test <pictures>", "crayon x --name '<b>'"):
        assert name in page.text
    assert "\u202e" not in page.text


def test_pictures_are_the_files_beside_it(saved, page):
    beside = {path.name for path in saved.parent.iterdir()} - {"report.html"}
    assert {f"report-{name}.png" for name in ALL} <= beside
    assert len(page.all("img")) == len(beside)
    for path in saved.parent.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.format == "PNG"


def test_every_picture_has_words_and_a_size(page):
    for image in page.all("img"):
        assert len(str(image["alt"])) > 20
        assert 100 < int(str(image["width"])) < 1200
        assert int(str(image["height"])) > 50
    sheet = next(str(image["alt"]) for image in page.all("img") if str(image["alt"]).startswith("Largest change"))
    assert "t<i>" in sheet
    assert re.search(r"(right|wrong) before, (right|wrong) after", sheet)


def test_the_numbers_are_those_of_the_evaluation(case, page):
    before, after = (evaluate(model, case.test, device="cpu") for model in (case.original, case.correction.model))
    for old, new in zip(before.groups, after.groups, strict=True):
        cells = [
            f"{100 * each.accuracy:.1f} [{100 * each.interval[0]:.1f}, {100 * each.interval[1]:.1f}]"
            for each in (old, new)
        ]
        assert [one_line(new.name), str(new.total), *cells] in page.rows
    ends = [f"{100 * each.worst_group:.1f}" for each in (before, after)]
    assert [row[1:3] for row in page.rows if row[0] == "worst"] == [ends]


def test_rules_are_printed(page):
    assert "whose map changed most (mean absolute difference)" in page.text
    assert "drawn at random (seed 0)" in page.text
    assert "chosen by rules, not by hand, from all 8 pictures" in page.text


def test_how_it_was_made_is_there(case, page):
    record, parent = case.correction.record, case.correction.parents[0]
    prints = {"corrected model": record.corrected, "original model": parent.original, "training data": record.dataset}
    prints |= {"maps": record.maps, "answers": record.answers}
    for each in (prints, record.versions, record.settings, parent.settings):
        for name, value in each.items():
            assert [name, str(value)] in page.rows
    for each in (record, parent):
        for name, count in each.counts.items():
            assert [f"count: {name}", str(count)] in page.rows
    assert case.correction.facts().load in page.text
    assert f"Against the original, {case.correction.changes(case.original).sentence()}." in page.text
    assert ", ".join(map(str, record.pruned_neurons)) in page.text


def test_answers_are_counted_by_what_they_are_about(case, page):
    images, neurons = (case.correction.answers.counts(kind) for kind in ("image", "neuron"))
    assert ["answers", str(images["answers"]), str(neurons["answers"])] in page.rows
    assert ["answered by", "2 people", "1 person"] in page.rows
    words = [" / ".join(str(each[word]) for word in ("yes", "no", "unsure")) for each in (images, neurons)]
    assert ["yes / no / unsure", *words] in page.rows
    assert "simulated" not in page.text


def test_the_same_again_is_the_same_bytes_and_models_come_back_as_they_were(case, saved, tmp_path, snapshot):
    before = snapshot(case.original), snapshot(case.correction.model)
    given = {"evaluated_on": "test <pictures>", "commands": ["crayon x --name '<b>'"], "pictures": 3}
    again = case.correction.report(tmp_path / "report.html", **case.material(), **given)
    assert again.read_bytes() == saved.read_bytes()
    assert (snapshot(case.original), snapshot(case.correction.model)) == before


def test_what_is_lacking_is_said_and_nothing_crashes(bare, tmp_path):
    page = Page(bare.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    for words in (
        "There is no evaluation: pass dataset=",
        "There are no maps: report() was not given dataset= and original=.",
        "No neuron was cut.",
        "Nothing was trained: no correction has an epoch.",
        "was not evaluated, so nothing is known",
    ):
        assert words in page.text
    assert page.all("img") == []
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_without_the_original_there_is_an_after(bare, tmp_path):
    test = evil_pictures(4, grouped=False)
    page = Page(bare.report(tmp_path / "r.html", dataset=test).read_text(encoding="utf-8"))
    assert "The model before the correction was not evaluated." in page.text
    assert "so the groups are the classes" in page.text
    assert "report() was not given original=." in page.text
    assert len(page.all("img")) == 1


def test_cut_neurons_without_patches(case, tmp_path):
    page = Page(case.correction.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "5 of " in page.text
    assert "There are no patches to show: report() was not given patches= and train=." in page.text
    # Measured while it was corrected: there are accuracies without any data set.
    assert "report-groups" not in page.text
    assert [image for image in page.all("img") if "Accuracy of each group" in str(image["alt"])]


def test_a_report_that_is_replaced_leaves_no_picture_of_the_old_one(case, saved, tmp_path):
    place = tmp_path / "r.html"
    case.correction.report(place, **case.material(), pictures=1)
    assert (tmp_path / "r-neurons.png").exists()
    (tmp_path / "r-mine.png").write_text("mine")
    case.correction.report(place, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "r-groups.png", "r-training.png", "r-mine.png"}


def test_places_that_are_refused_before_any_work(bare, tmp_path):
    with pytest.raises(SettingsError, match=r"ends in \.html, got .*report'"):
        bare.report(tmp_path / "report")
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        bare.report(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        bare.report(tmp_path / "file" / "r.html")


def test_inputs_of_another_correction_are_refused(case, tmp_path):
    other = split_model(9)
    with pytest.raises(MismatchError, match="original= is not the model that was corrected"):
        case.correction.report(tmp_path / "r.html", dataset=case.test, original=other)
    patches = Explainer(other, device="cpu").explain_neurons(case.train, 1)
    with pytest.raises(MismatchError, match="patches are of another model"):
        case.correction.report(tmp_path / "r.html", train=case.train, patches=patches)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [{"pictures": 0}, {"pictures": 3, "candidates": 2}])
def test_settings_out_of_range(case, settings, tmp_path):
    with pytest.raises(SettingsError, match="1 <= pictures <= candidates"):
        case.correction.report(tmp_path / "r.html", **case.material(), **settings)


def test_of_many_pictures_the_rules_choose_from_some_and_say_so(case):
    material = Material(dataset=case.test, original=case.original, pictures=2, candidates=4)
    made = make_report(case.correction.facts(), case.correction.model, material)
    assert "from 4 of 8 pictures, drawn at random (seed 0)" in Page(made.html).text


def test_evaluations_of_other_pictures_are_not_taken_for_those_of_the_data_set(case):
    other = evaluate(case.original, case.train, device="cpu")
    wrong = replace(case.correction, before=other, after=other)
    made = make_report(wrong.facts(), wrong.model, Material(dataset=case.test))
    right = make_report(case.correction.facts(), case.correction.model, Material(dataset=case.test))
    measured, expected = (Page(each.html).rows[1] for each in (made, right))
    assert measured[3] == expected[3]
    assert measured[2].strip() == "-"  # nobody gave the model before, and what is known of it is about other pictures


def test_a_missing_extra_is_named(bare, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"plots need matplotlib: pip install .*\[report\]"):
        bare.report(tmp_path / "r.html")


def test_shown_sizes_are_those_of_the_pictures(saved, page):
    sheet = next(image for image in page.all("img") if str(image["alt"]).startswith("Random"))
    with Image.open(io.BytesIO((saved.parent / "report-maps-random.png").read_bytes())) as picture:
        assert (int(str(sheet["width"])), int(str(sheet["height"]))) == picture.size


def test_answers_about_spots_have_a_column(bare, tmp_path):
    spots = AnnotationSet(SpotAnswer(id=f"s{n}", answer="no", annotator="p", simulated=True) for n in range(3))
    found = replace(bare, answers=bare.answers.merge(spots)).report(tmp_path / "report.html")
    page = Page(found.read_text(encoding="utf-8"))
    assert ["", "about pictures", "about bright spots"] in page.rows
    assert ["about how many", "2", "3"] in page.rows
    assert ["answered by", "2 people", "1 simulated annotator, no person"] in page.rows
    assert "Some answers are simulated" in page.text
