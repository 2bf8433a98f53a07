from __future__ import annotations

import pytest
import torch
from helpers_baselines import FAST, equals_further_training, goes_on, mixed_up, three_classes
from helpers_correction import noise_pictures, split_model
from torch.nn import functional as F  # noqa: N812

from crayon_sdk._base.process import Processes
from crayon_sdk.correct.baselines.lff import LearningFromFailure, LFFSettings, _Failures
from crayon_sdk.correct.objective import Batch
from crayon_sdk.functional.biased import relative_difficulty

PLAIN = {"scheduler": "none", "average_decay": 0.0, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}


def test_weighing_all_alike_it_is_further_training():
    equals_further_training(LearningFromFailure, strength=0.0)


def test_it_equals_two_networks_by_hand():
    dataset, model = mixed_up(8), split_model()
    settings = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "second_lr_factor": 3.0, "device": "cpu", **PLAIN}
    found = LearningFromFailure(model, q=0.7, **settings).fit(dataset)
    first, second = model.copy().train(), model.copy().train()
    images = torch.stack([dataset.row(position, None) for position in range(8)])
    labels = dataset.labels
    steps = [torch.optim.SGD(net.parameters(), lr=lr) for net, lr in ((first, 1e-3), (second, 3e-3))]
    smooth = {"first": {}, "second": {}}
    for epoch in range(2):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(4):
            out = {"first": first(images[rows]), "second": second(images[rows])}
            for name, logits in out.items():
                for row, value in zip(
                    rows.tolist(), F.cross_entropy(logits, labels[rows], reduction="none").tolist(), strict=True
                ):
                    before = smooth[name].get(row)
                    smooth[name][row] = value if before is None else 0.7 * before + 0.3 * value
            weights = []
            for row in rows.tolist():
                share = {
                    name: known[row] / max(known[other] for other in known if labels[other] == labels[row])
                    for name, known in smooth.items()
                }
                weights.append(share["second"] / (share["second"] + share["first"] + 1e-8))
            loss = (torch.tensor(weights) * F.cross_entropy(out["first"], labels[rows], reduction="none")).sum()
            p = out["second"].softmax(dim=1).gather(1, labels[rows][:, None])[:, 0]
            loss = loss + (1 - p**0.7).sum()  # of which the loss in use has the gradient
            for step in steps:
                step.zero_grad()
            loss.backward()
            for step in steps:
                step.step()
    for name, tensor in first.eval().plain_state_dict().items():
        torch.testing.assert_close(found.model.plain_state_dict()[name], tensor, rtol=1e-3, atol=1e-5)


def test_losses_of_a_class_without_maximum_are_no_nan():
    model, labels = split_model(), torch.tensor([0, 1])
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([200.0, 0.0]))  # the loss of class 0 is 0 exactly
    objective = _Failures(model, labels, LFFSettings())
    batch = Batch(rows=torch.tensor([0]), labels=labels[:1], images=torch.rand(1, 3, 64, 64))
    objective.eval()
    found = objective(batch)
    assert all(value.isfinite() for value in found.values())
    assert found["weight"].item() == 0.0


def test_losses_are_kept_with_the_run_and_a_failed_step_leaves_none():
    dataset = mixed_up(4)
    objective = _Failures(split_model(), dataset.labels, LFFSettings())
    images = torch.stack([dataset.row(position, None) for position in range(4)])
    rows = torch.tensor([2, 0])
    objective(Batch(rows=rows, labels=dataset.labels[rows], images=images[rows]))
    assert objective.losses.eq(-1).all()
    objective.after_step({}, Processes())
    assert (objective.losses >= 0).all(dim=1).tolist() == [True, False, True, False]
    assert "losses" in objective.state_dict()


def test_a_run_goes_on(tmp_path, monkeypatch):
    found = goes_on(LearningFromFailure, mixed_up(), tmp_path, monkeypatch, steps=4)
    assert {"prediction", "biased", "weight"} < found.history[0].keys()


def test_last_trains_the_last_layers_alone():
    dataset, model = noise_pictures(12), split_model()
    found = LearningFromFailure(model, trained="last", **FAST).fit(dataset)
    parameters = dict(found.model.named_parameters())
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, parameters[name])}
    assert moved == {"model.fc.weight", "model.fc.bias"}
    buffers = dict(found.model.named_buffers())
    assert any(not torch.equal(each, buffers[name]) for name, each in model.named_buffers())  # as published


def test_samples_of_three_classes_and_a_batch_of_one():
    dataset = mixed_up(7, classes=3)
    found = LearningFromFailure(three_classes(), epochs=1, batch_size=1, batch_norm="frozen", device="cpu").fit(dataset)
    assert 0 < found.history[0]["weight"] < 1


@pytest.mark.parametrize(
    ("name", "lr", "epochs", "decay", "batch"),
    [
        ("waterbirds", 5e-3, 50, 1e-4, 128),
        ("biased-celeba", 5e-2, 50, 1e-4, 64),
        ("backgrounds", 1e-4, 1, 0.1, 256),
        ("celeba-own", 1e-4, 200, 1e-4, 256),
    ],
)
def test_published_settings(name, lr, epochs, decay, batch):
    found = LearningFromFailure.from_preset(name, split_model()).settings
    assert (found.lr, found.epochs, found.weight_decay, found.batch_size) == (lr, epochs, decay, batch)
    assert (found.q, found.smoothing, found.strength) == (0.7, 0.7, 1.0)
    assert (found.optimizer, found.trained) == (("adam", "last") if "own" in name else ("sgd", "all"))


def test_it_learns_from_what_the_biased_network_fails_at(monkeypatch):
    """The weight of a sample whose label goes against what is easy is larger than that of the others."""
    dataset = mixed_up(16, wrong=(3, 8))
    settings = {"epochs": 12, "batch_size": 8, "lr": 3e-4, "second_lr_factor": 10.0, "device": "cpu"}
    corrector = LearningFromFailure(split_model(), **settings)
    made, real = [], LearningFromFailure.objective
    monkeypatch.setattr(LearningFromFailure, "objective", lambda *given: made.append(real(*given)) or made[0])
    corrector.fit(dataset)
    losses = made[0].losses
    weights = relative_difficulty(losses[:, 0], losses[:, 1], dataset.labels, 2)
    wrong = torch.zeros(16, dtype=torch.bool)
    wrong[[3, 8]] = True
    assert weights[wrong].min() > weights[~wrong].mean()
