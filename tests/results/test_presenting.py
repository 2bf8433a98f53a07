"""A correction can be shown; what is shown is tested where it is made: report, card, changes, onnx_export."""

from __future__ import annotations

from dataclasses import fields, replace

from helpers_report import bare_correction

from crayon_sdk.results.correction import Correction
from crayon_sdk.results.presenting import Presenting


def test_the_facts_are_those_of_the_correction():
    correction = bare_correction()
    facts = correction.facts(evaluated_on="test pictures")
    assert facts.records == (correction.record.model_dump(mode="json"),)
    assert (facts.original, facts.fingerprint) == (correction.record.original, correction.model.fingerprint)
    assert facts.answers is correction.answers
    assert facts.place == "test pictures"
    assert replace(correction, parents=(correction.record,)).facts().records[0] == facts.records[0]


def test_showing_adds_no_field_to_the_correction():
    assert isinstance(bare_correction(), Presenting)
    names = [field.name for field in fields(Correction)]
    assert names[:6] == ["model", "record", "parents", "answers", "before", "after"]
    assert not set(vars(Presenting)) & set(names)
