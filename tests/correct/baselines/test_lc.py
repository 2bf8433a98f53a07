from __future__ import annotations

import pytest
import torch
from helpers_baselines import equals_further_training, goes_on, mixed_up, three_classes
from helpers_correction import split_model
from torch.nn import functional as F  # noqa: N812

from crayon_sdk._base.process import Processes
from crayon_sdk.correct.baselines.lc import LCSettings, LogitCorrection, _Corrected
from crayon_sdk.correct.objective import Batch
from crayon_sdk.errors import SettingsError
from crayon_sdk.functional.biased import bias_counts


def batch_of(dataset):
    count = len(dataset)
    images = torch.stack([dataset.row(position, None) for position in range(count)])
    return Batch(rows=torch.arange(count), labels=dataset.labels, images=images)


def test_without_correction_and_mixing_it_is_further_training():
    equals_further_training(LogitCorrection, eta=0.0, mixing=0.0)


def test_the_loss_equals_the_loops():
    dataset = mixed_up(8)
    batch, model = batch_of(dataset), split_model()
    objective = _Corrected(model, dataset.labels, LCSettings(mixing=0.0, temperature=0.5, prior="batch"))
    objective.epoch(0, 0, count=8)
    with torch.no_grad():
        objective.eval()
        objective.second.classifier.weight.mul_(3).add_(torch.randn(2, 96, generator=torch.Generator().manual_seed(1)))
        objective.second.classifier.bias.sub_(objective.second(batch.images).mean(dim=0))
        found = objective(batch)
        first, second = model(batch.images).double(), objective.second(batch.images).double()
    pseudo, labels = (second / 0.5).softmax(dim=1), dataset.labels.tolist()
    bias = pseudo.argmax(dim=1).tolist()
    assert len(set(bias)) == 2
    total = 0.0
    for i in range(8):
        column = []
        for y in range(2):
            own = [float(pseudo[j, y]) for j in range(8) if labels[j] == y and bias[j] == bias[i]]
            column.append(sum(own) / (len(own) + 1e-4))
        prior = torch.tensor([each / sum(column) for each in column], dtype=torch.float64)
        total += float(F.cross_entropy((first[i] + (prior + 1e-4).log())[None], dataset.labels[i : i + 1]))
    assert found["prediction"].item() == pytest.approx(total, rel=1e-4)
    p = second.softmax(dim=1).gather(1, dataset.labels[:, None])
    assert found["biased"].item() == pytest.approx(float((0.8 * p**0.8 * -p.log()).sum()), rel=1e-4)
    assert found["loss"].item() == pytest.approx(found["prediction"].item() + 2 * found["biased"].item(), rel=1e-5)


def test_counts_run_on_and_a_failed_step_leaves_none():
    dataset = mixed_up(8)
    batch, settings = batch_of(dataset), LCSettings(mixing=0.0, memory=0.5)
    objective = _Corrected(split_model(), dataset.labels, settings).eval()
    objective.epoch(0, 0, count=8)
    with torch.no_grad():
        first = split_model()(batch.images)
        pseudo = (first / 0.1).softmax(dim=1)
        bias, expected = pseudo.argmax(dim=1), torch.zeros(2, 2)
        for step in range(3):
            expected = 0.5 * expected + bias_counts(pseudo, dataset.labels)
            prior = ((expected + 1) / (expected + 1).sum(dim=0)).T[bias]
            entropy = F.cross_entropy(first + (prior + 1e-4).log(), dataset.labels, reduction="sum")
            before = objective.counts.clone()
            assert objective(batch)["prediction"].item() == pytest.approx(entropy.item(), rel=1e-4), step
            assert torch.equal(objective.counts, before)
            objective.after_step({}, Processes())
    torch.testing.assert_close(objective.counts, expected)
    assert "counts" in objective.state_dict()


def test_pictures_are_mixed_with_those_of_their_class(monkeypatch):
    dataset = mixed_up(8, wrong=())
    batch = batch_of(dataset)
    objective = _Corrected(split_model(), dataset.labels, LCSettings(epochs=4)).eval()
    seen = []
    monkeypatch.setattr(
        objective.model, "features", lambda images, autocast=None: seen.append(images) or torch.rand(8, 96, 2, 2)
    )
    shares = {}
    for epoch in (0, 4):
        objective.epoch(epoch, 0, count=8)
        torch.manual_seed(0)
        objective(batch)
        mixed = seen[-1]
        for i in range(8):
            others = [j for j in range(8) if dataset.labels[j] == dataset.labels[i] and j != i]
            away = [(batch.images[j] - batch.images[i]) for j in others]
            parts = [float(((mixed[i] - batch.images[i]) * each).sum() / each.square().sum()) for each in away]
            fits = [
                part
                for part, each in zip(parts, away, strict=True)
                if torch.allclose(mixed[i], batch.images[i] + part * each, atol=1e-5)
            ]
            shares.setdefault(epoch, []).append(max(fits))
    assert max(shares[0]) < 2 * 0.5 * 0.0068 + 1e-5  # 2r at the beginning, r = 0.5 e^-5
    assert 0.4 < max(shares[4]) <= 1.0
    drawn = {round(share, 4) for share in shares[4] if share > 1e-3}
    assert len(drawn) == 1  # one share for a batch


def test_the_second_network_goes_its_own_pace():
    objective = _Corrected(split_model(), torch.tensor([0, 1]), LCSettings())
    first, second = objective.parameter_groups()
    assert (second["lr_factor"], second["weight_decay"]) == (0.1, 0.0)
    assert "weight_decay" not in first
    assert len(first["params"]) == len(second["params"])


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_and_cells_may_be_empty(classes):
    dataset = mixed_up(5, classes=classes)
    model = three_classes() if classes == 3 else split_model()
    found = LogitCorrection(model, epochs=1, batch_size=1, batch_norm="frozen", device="cpu").fit(dataset)
    assert found.history[0]["loss"] > 0


def test_a_run_goes_on_with_as_much_mixing(tmp_path, monkeypatch):
    goes_on(LogitCorrection, mixed_up(), tmp_path, monkeypatch, steps=5)


def test_settings():
    with pytest.raises(SettingsError, match="temperature"):
        LogitCorrection(split_model(), temperature=0.0)
    with pytest.raises(SettingsError, match=r"expected q to be"):
        LogitCorrection(split_model(), q=0.0)
    for name, expected in (
        ("waterbirds", (5e-3, 0.1, 1e-3, 50, 128)),
        ("biased-celeba", (1e-3, 0.1, 1e-3, 50, 64)),
        ("backgrounds", (1e-4, 0.1, 0.1, 10, 256)),
        ("waterbirds-own", (1e-3, 0.1, 1e-4, 300, 32)),
    ):
        found = LogitCorrection.from_preset(name, split_model()).settings
        assert (found.lr, found.second_lr_factor, found.weight_decay, found.epochs, found.batch_size) == expected
        assert (found.q, found.temperature, found.eta, found.second_weight_decay) == (0.8, 0.1, 1.0, 0.0)
        assert (found.second_weight, found.mixing, found.mixing_epochs) == (2.0, 0.5, 50)
        assert found.prior == "batch"
    assert (found.optimizer, found.momentum, found.scheduler, found.step_epochs) == ("sgd", 0.0, "step", 50)
