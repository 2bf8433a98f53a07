from __future__ import annotations

import copy

import pytest
import torch
from helpers_correction import half_and_half, noise_pictures, random_maps, split_model
from torch.nn import functional as F  # noqa: N812

import crayon_sdk as crayon
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.erm import ERMSettings, FurtherTraining
from crayon_sdk.errors import DataError, MismatchError, NonFiniteLossError, SettingsError

FAST = {"epochs": 2, "batch_size": 4, "device": "cpu"}


def weights(found):
    return torch.cat([tensor.double().flatten() for _, tensor in sorted(found.model.plain_state_dict().items())])


def test_training_equals_a_loop_by_hand():
    dataset, model = noise_pictures(8), split_model()
    plain = {"lr": 1e-3, "weight_decay": 0.0, "scheduler": "none", "average_decay": 0.0, "optimizer": "sgd"}
    found = FurtherTraining(model, **FAST, **plain, momentum=0.0).fit(dataset)
    by_hand = copy.deepcopy(model).train()
    images = torch.stack([dataset.row(position, None) for position in range(8)])
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=1e-3)
    for epoch in range(2):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(4):
            optimizer.zero_grad()
            F.cross_entropy(by_hand(images[rows]), dataset.labels[rows], reduction="sum").backward()
            optimizer.step()
    for name, tensor in by_hand.eval().plain_state_dict().items():
        torch.testing.assert_close(found.model.plain_state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_it_is_what_attention_does_without_guidance():
    dataset, model = noise_pictures(8), split_model()
    unguided = AttentionCorrector(model, alpha=0.0, beta=0.0, background_swap=0.0, **FAST)
    expected = unguided.fit(dataset, random_maps(dataset), half_and_half(dataset))
    found = FurtherTraining(model, logit_adjustment=1.0, **FAST).fit(dataset)
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-5, atol=1e-7)
    assert [e["loss"] for e in found.history] == pytest.approx([e["loss"] for e in expected.history], rel=1e-5)


def test_the_record_names_the_method_and_no_answers(tmp_path):
    dataset, model = noise_pictures(8), split_model()
    before = model.fingerprint
    found = FurtherTraining(model, **FAST, seed=3).fit(dataset, noise_pictures(4, seed=1))
    assert model.fingerprint == before
    record = found.record
    assert (record.method, record.counts, record.maps, record.simulated) == ("erm", {}, "", False)
    assert ERMSettings(**record.settings) == ERMSettings(epochs=2, batch_size=4, seed=3)
    assert [entry["epoch"] for entry in found.history] == [1, 2]
    assert "score" in found.history[0]
    loaded = crayon.load_correction(found.save(tmp_path / "saved"))
    assert loaded.record.method == "erm"
    for text in (str(loaded.card()), (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")):
        assert "Further training (ERM)" in text
    page = loaded.report(tmp_path / "report.html")
    assert "Further training (ERM)" in page.read_text(encoding="utf-8")


def test_one_seed_gives_one_result_and_a_stopped_run_goes_on(tmp_path, monkeypatch):
    dataset = noise_pictures(8)

    def fit(folder=None, seed=0):
        return FurtherTraining(split_model(), **FAST, seed=seed, checkpoint_dir=folder).fit(dataset)

    whole = fit()
    assert fit().record.corrected == whole.record.corrected != fit(seed=1).record.corrected
    real, steps = torch.optim.Adam.step, []

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == 3:  # the state was written after the first epoch, of two steps
            raise ZeroDivisionError
        return real(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path)
    monkeypatch.setattr(torch.optim.Adam, "step", real)
    with pytest.raises(MismatchError, match=r"settings\.seed \(there 0, now 1\)"):
        fit(tmp_path, seed=1)
    assert fit(tmp_path).record.corrected == whole.record.corrected


def test_it_ends_at_the_accuracy_that_was_asked_for(tmp_path):
    dataset = noise_pictures(8)
    more = {"batch_size": 4, "device": "cpu", "lr": 1e-3, "scheduler": "none"}
    long = FurtherTraining(split_model(), epochs=40, until_accuracy=1.0, checkpoint_dir=tmp_path / "run", **more)
    found = long.fit(dataset)
    accuracies = [entry["training_accuracy"] for entry in found.history]
    assert 1 < len(accuracies) < 40
    assert accuracies[-1] == 1.0 > max(accuracies[:-1])
    assert all(8 * accuracy == round(8 * accuracy) for accuracy in accuracies)
    # The same steps as without: only counted.
    plain = FurtherTraining(split_model(), epochs=len(accuracies), **more).fit(dataset)
    assert torch.equal(weights(plain), weights(found))
    assert [e["loss"] for e in plain.history] == [e["loss"] for e in found.history]
    assert not {"training_accuracy", "enough"} & plain.history[-1].keys()
    # It goes into the record, is read back, and a finished run does not go on.
    assert (found.record.settings["until_accuracy"], plain.record.settings["until_accuracy"]) == (1.0, None)
    found.save(tmp_path / "saved")
    assert crayon.load_correction(tmp_path / "saved").history == found.history
    assert long.fit(dataset).history == found.history


def test_accuracy_is_that_of_the_steps_not_of_the_pictures_to_evaluate_on():
    dataset = noise_pictures(8)
    found = FurtherTraining(split_model(), until_accuracy=1.0, **FAST).fit(dataset, noise_pictures(4, seed=1))
    assert all({"accuracy", "training_accuracy"} <= entry.keys() for entry in found.history)


def test_a_loss_that_breaks_carries_the_model_out():
    with pytest.raises(NonFiniteLossError) as caught:
        FurtherTraining(split_model(), **FAST).fit(noise_pictures(8, huge_at=2))
    assert not caught.value.model.training


def test_bad_settings_and_data():
    with pytest.raises(SettingsError, match="no setting of FurtherTraining called 'epcohs'; did you mean 'epochs'"):
        FurtherTraining(split_model(), epcohs=2)
    with pytest.raises(SettingsError, match="keep"):
        FurtherTraining(split_model(), keep="worst")
    with pytest.raises(SettingsError, match="pass evaluate_on="):
        FurtherTraining(split_model(), keep="best", **FAST).fit(noise_pictures(8))
    with pytest.raises(DataError, match="expected an ImageDataset, got list"):
        FurtherTraining(split_model()).fit([])


def test_it_tells_what_it_is():
    assert repr(FurtherTraining(split_model(), device="cpu")).startswith("FurtherTraining(test_resnet, epochs=6")
