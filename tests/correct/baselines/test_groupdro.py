"""Group DRO: its loss in plain loops, its sampling, its traps."""

from __future__ import annotations

import math

import pytest
import torch
from helpers_objects import small_network, tagged_pictures

from crayon_sdk.correct.baselines.groupdro import GroupDRO
from crayon_sdk.correct.erm import FurtherTraining
from crayon_sdk.correct.objective import PixelFeed
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import DataError

FAST = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "device": "cpu"}


def objective_of(dataset, **settings):
    model = small_network(dataset.num_classes)
    method = GroupDRO(model, device="cpu", **settings)
    groups, _ = dataset.group_index()
    feed = PixelFeed(PixelCache(dataset, dataset.preprocessing), dataset.labels, groups=groups)
    return method.objective(model.eval(), feed, method.settings), feed, groups


@pytest.mark.parametrize("adjustment", [0.0, 3.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_steps_equal_the_loops(adjustment, classes):
    dataset = tagged_pictures(24, classes=classes, follows=0.7)
    objective, feed, groups = objective_of(dataset, step=0.5, adjustment=adjustment, absent="decay")
    number = int(groups.max()) + 1
    sizes = [int((groups == group).sum()) for group in range(number)]
    q = [1 / number] * number
    for rows in torch.arange(24).split(8):
        batch = feed.batch(rows)
        logits = objective.logits(batch).detach()
        each = [-logits[n].log_softmax(0)[int(batch.labels[n])].item() for n in range(8)]
        means = []
        for group in range(number):
            there = [loss for loss, at in zip(each, batch.groups.tolist(), strict=True) if at == group]
            means.append(sum(there) / len(there) if there else 0.0)
        raised = [mean + adjustment / math.sqrt(size) for mean, size in zip(means, sizes, strict=True)]
        q = [weight * math.exp(0.5 * each) for weight, each in zip(q, raised, strict=True)]
        q = [weight / sum(q) for weight in q]
        found = objective(batch)
        expected = 8 * sum(weight * mean for weight, mean in zip(q, means, strict=True))
        assert found["loss"].item() == pytest.approx(expected, rel=1e-4)
        assert objective.log_weights.exp().tolist() == pytest.approx(q, rel=1e-4)


def test_with_one_group_it_is_further_training_byte_for_byte():
    dataset = tagged_pictures(20)
    alike = [name for name, group in zip(dataset.ids, dataset.group_labels, strict=True) if group == "c0/tag 0"]
    dataset, model = dataset.subset(alike), small_network()
    plain = FurtherTraining(model, **FAST).fit(dataset)
    found = GroupDRO(model, **FAST, balanced=False).fit(dataset)
    assert found.record.corrected == plain.record.corrected
    assert found.record.counts == {"groups": 1, "smallest_group": 5}


def test_groups_are_drawn_equally_often():
    dataset = tagged_pictures(200, follows=0.9)
    objective, _, groups = objective_of(dataset)
    drawn = torch.cat([objective.epoch(number, 0, count=200) for number in range(20)])
    shares = torch.bincount(groups[drawn]) / 4000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.04)
    assert torch.equal(objective.epoch(3, 1, count=200), objective.epoch(3, 1, count=200))
    assert not torch.equal(objective.epoch(3, 1, count=200), objective.epoch(4, 1, count=200))
    once, _, _ = objective_of(dataset, balanced=False)
    assert sorted(once.epoch(0, 0, count=200).tolist()) == list(range(200))


def test_a_group_that_is_in_no_batch_keeps_its_weight_unless_it_is_published_otherwise():
    dataset = tagged_pictures(16)
    for absent in ("keep", "decay"):
        objective, feed, groups = objective_of(dataset, absent=absent, step=0.5)
        there = (groups != 3).nonzero().flatten()
        for _ in range(20):
            objective(feed.batch(there))
        assert (objective.log_weights[3].exp().item() == pytest.approx(0.25, rel=1e-4)) is (absent == "keep")


def test_a_stopped_run_goes_on_with_its_weights(tmp_path, monkeypatch):
    dataset = tagged_pictures(16)

    def fit(folder=None, seed=0):
        return GroupDRO(small_network(), **FAST, step=1.0, seed=seed, checkpoint_dir=folder).fit(dataset)

    whole = fit()
    assert whole.record.corrected == fit().record.corrected != fit(seed=1).record.corrected
    real, steps = torch.optim.Adam.step, []

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == 6:
            raise ZeroDivisionError
        return real(self, *arguments)

    monkeypatch.setitem(RunFile.__init__.__kwdefaults__, "every_seconds", 0.0)
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path)
    monkeypatch.setattr(torch.optim.Adam, "step", real)
    assert fit(tmp_path).record.corrected == whole.record.corrected


def test_what_it_needs_and_its_presets():
    with pytest.raises(DataError, match="method 'groupdro' needs groups of the training pictures, and got none"):
        GroupDRO(small_network(), **FAST).fit(tagged_pictures(4, groups=False))
    assert set(GroupDRO.presets) == {"waterbirds-own", "celeba-own", "waterbirds-strong", "celeba-strong"}
    own = GroupDRO.presets["waterbirds-own"]
    assert (own.optimizer, own.lr, own.weight_decay, own.absent, own.init) == ("sgd", 1e-3, 1e-4, "decay", "pretrained")
    assert GroupDRO.presets["celeba-strong"].keep == "best"
