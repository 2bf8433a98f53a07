from __future__ import annotations

import io
import logging

import pytest
from helpers_report import make_case
from PIL import Image

from crayon_sdk.explain.contact_sheets import choose_ids
from crayon_sdk.results.evaluation import evaluate
from crayon_sdk.results.exhibits import Exhibit, card_sheet, map_pair, map_sentences, map_sheets, neuron_sheet

SETTINGS = {"score": "margin", "device": "cpu"}


@pytest.fixture(scope="module")
def case():
    return make_case()


@pytest.fixture(scope="module")
def evaluations(case):
    return tuple(evaluate(model, case.test, device="cpu") for model in (case.original, case.correction.model))


def pair_of(case, evaluations, **settings):
    given = {"settings": SETTINGS, "count": 3, "candidates": 100, "seed": 0} | settings
    return map_pair(case.original, case.correction.model, case.test, evaluations[1], **given)


def test_wrong_pictures_are_wrong_and_the_draw_can_be_repeated(case, evaluations):
    after = evaluations[1]
    wrong = {sample for sample in case.test.ids if after.predictions[sample] != after.labels[sample]}
    assert 0 < len(wrong) < len(case.test)  # else this says nothing
    first, again, other = (pair_of(case, evaluations, seed=seed, count=2) for seed in (0, 0, 3))
    assert set(first.wrong) <= wrong
    assert first.num_wrong == len(wrong)
    assert len(first.wrong) == min(2, len(wrong))
    assert first.wrong == again.wrong
    assert {pair_of(case, evaluations, seed=seed, count=2).wrong for seed in range(6)} != {other.wrong}


def test_only_what_can_be_shown_is_explained(case, evaluations):
    pair = pair_of(case, evaluations, candidates=3)
    assert len(pair.candidates) == 3
    assert set(pair.before.ids) == {*pair.candidates, *pair.wrong}
    assert pair.before.ids == pair.after.ids
    assert (pair.before.model, pair.after.model) == (case.original.fingerprint, case.correction.model.fingerprint)


def test_each_sheet_shows_what_its_rule_chose(case, evaluations):
    pair = pair_of(case, evaluations)
    found, lacking = map_sheets(pair, case.test, *evaluations, count=2)
    sheets = {sheet.name: sheet for sheet in found}
    assert list(sheets) == ["maps-largest-change", "maps-random", "maps-still-wrong"]
    assert lacking == []
    changed = choose_ids(pair.before, pair.after, count=2, rule="largest change")
    named = [sheets["maps-largest-change"].alt.find(sample) for sample in changed.ids]
    assert -1 not in named
    assert named == sorted(named)
    assert changed.rule in sheets["maps-largest-change"].caption
    for sample in pair.wrong:
        assert f"{sample} (" in sheets["maps-still-wrong"].alt
    assert "right after" not in sheets["maps-still-wrong"].alt


def test_nothing_wrong_any_more_is_said(case, evaluations):
    after = evaluations[1]
    from dataclasses import replace

    perfect = replace(after, predictions=dict(after.labels))
    pair = pair_of(case, (evaluations[0], perfect))
    found, lacking = map_sheets(pair, case.test, evaluations[0], perfect, count=2)
    assert [sheet.name for sheet in found] == ["maps-largest-change", "maps-random"]
    assert lacking == ["Still wrong: none; every picture is classified rightly now."]


def test_maps_without_evidence_are_counted_and_not_warned_about(case, evaluations, caplog):
    with caplog.at_level(logging.WARNING):
        pair = pair_of(case, evaluations)
    assert not [each for each in caplog.records if "guide" in each.getMessage()]
    assert logging.getLogger("crayon_sdk.explain.explainer").filters == []
    expected = [maps.select(pair.candidates).num_empty for maps in (pair.before, pair.after)]
    assert map_sentences(pair, case.test) == (
        f"Without positive evidence are {expected[0]} of the maps before and {expected[1]} after."
    )


def test_cut_neurons_are_shown(case):
    facts = case.correction.facts()
    sheet = neuron_sheet(facts, case.patches, case.train, count=3, seed=0)
    assert "3 of 5 neurons that were cut, drawn at random (seed 0)" in sheet.caption
    numbers = [int(word) for word in sheet.alt.replace(",", " ").split() if word.isdigit()]
    assert len(numbers) == 3
    assert set(numbers) <= set(facts.pruned)
    with Image.open(io.BytesIO(sheet.png)) as picture:
        assert picture.format == "PNG"


def test_a_card_shows_every_group_that_there_is_room_for(case, monkeypatch):
    from crayon_sdk.results import exhibits

    drawn = []
    real = exhibits.before_after_sheet
    monkeypatch.setattr(
        exhibits, "before_after_sheet", lambda *args, **how: drawn.append(args[3]) or real(*args, **how)
    )
    for _ in range(2):
        card_sheet(case.original, case.correction.model, case.test, settings=SETTINGS, count=4)
    groups = dict(zip(case.test.ids, case.test.group_labels, strict=True))
    assert len({groups[sample] for sample in drawn[0].ids}) == len(set(groups.values())) == 4
    assert drawn[0] == drawn[1]
    assert drawn[0].rule == "4 of the 8 pictures that may be shown, drawn at random (seed 0)"
    card_sheet(case.original, case.correction.model, case.test, settings=SETTINGS, count=2)
    assert len(drawn[2].ids) == 2


def test_a_plot_is_shown_at_its_size_in_inches():
    written = io.BytesIO()
    Image.new("RGB", (320, 160)).save(written, "PNG", dpi=(160, 160))
    assert (Exhibit("x", written.getvalue()).width, Exhibit("x", written.getvalue()).height) == (192, 96)
    plain = io.BytesIO()
    Image.new("RGB", (320, 160)).save(plain, "PNG")
    assert Exhibit("x", plain.getvalue()).width == 320
