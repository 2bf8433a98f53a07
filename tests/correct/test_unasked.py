"""Guidance by the model's own maps, without a question asked."""

from __future__ import annotations

import pytest
import torch
from helpers_correction import noise_pictures, random_maps, split_model

import crayon_sdk as crayon
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import ImageAnswer
from crayon_sdk.correct import methods
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.unasked import UnaskedCorrector
from crayon_sdk.errors import AnswerError, SettingsError

FAST = {"epochs": 2, "batch_size": 4, "device": "cpu"}


def weights(found):
    return torch.cat([tensor.double().flatten() for _, tensor in sorted(found.model.plain_state_dict().items())])


@pytest.mark.parametrize("spread", ["auto", "never"])
def test_it_is_attention_with_a_yes_to_everything(spread):
    dataset, model = noise_pictures(8), split_model()
    maps = random_maps(dataset)
    everything = AnnotationSet(ImageAnswer(id=each, answer="yes", annotator="ann") for each in dataset.ids)
    expected = AttentionCorrector(model, spread=spread, **FAST).fit(dataset, maps, everything)
    found = UnaskedCorrector(model, spread=spread, **FAST).fit(dataset, maps)
    assert torch.equal(weights(found), weights(expected))


def test_the_record_names_the_method_and_holds_no_answers(tmp_path):
    dataset, model = noise_pictures(8), split_model()
    maps = random_maps(dataset)
    found = methods["unasked"](model, **FAST).fit(dataset, maps)
    assert (found.record.method, found.record.maps, len(found.answers)) == ("unasked", maps.fingerprint, 0)
    assert not found.record.simulated
    loaded = crayon.load_correction(found.save(tmp_path / "saved"))
    assert loaded.record == found.record
    assert torch.equal(weights(loaded), weights(found))


def test_what_it_needs():
    dataset, model = noise_pictures(8), split_model()
    with pytest.raises(SettingsError, match="needs the maps"):
        UnaskedCorrector(model, **FAST).fit(dataset, None)
    with pytest.raises(AnswerError, match="expected maps of the pictures"):
        UnaskedCorrector(model, **FAST).fit(dataset, random_maps(noise_pictures(4)).select([]))
    with pytest.raises(SettingsError, match="no setting of UnaskedCorrector called 'alhpa'; did you mean 'alpha'"):
        UnaskedCorrector(model, alhpa=2)
