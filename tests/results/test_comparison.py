"""Comparison of models, against a plain bootstrap and against what must be so."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics

import pytest
import torch

from crayon_sdk.errors import MismatchError, SettingsError
from crayon_sdk.functional.metrics import paired_bootstrap
from crayon_sdk.results.comparison import compare
from crayon_sdk.results.evaluation import Evaluation, GroupResult

SIZES = (40, 10)


def evaluation(right: dict[str, bool], **changes: object) -> Evaluation:
    """Two groups of 40 and 10 samples of class 0."""
    ids = [f"{group}-{number}" for group, size in enumerate(SIZES) for number in range(size)]
    membership = {sample: int(sample[0]) for sample in ids}
    groups = tuple(
        GroupResult(f"g{group}", sum(right[sample] for sample in ids if membership[sample] == group), size)
        for group, size in enumerate(SIZES)
    )
    values = {
        "predictions": {sample: 0 if right[sample] else 1 for sample in ids},
        "labels": dict.fromkeys(ids, 0),
        "membership": membership,
    }
    return Evaluation(groups, **(values | changes))


def drawn(share: float, seed: int) -> Evaluation:
    generator = random.Random(seed)
    ids = [f"{group}-{number}" for group, size in enumerate(SIZES) for number in range(size)]
    return evaluation({sample: generator.random() < share for sample in ids})


def test_bootstrap_equals_a_plain_one():
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(3, 50, generator=generator) < 0.6
    groups = torch.tensor([0] * 40 + [2] * 10)
    found = paired_bootstrap(correct, groups, 3, resamples=4000, seed=1)
    assert found.shape == (4000, 3, 3)
    assert found[..., 1].isnan().all()
    plain = random.Random(2)
    for group, rows in ((0, range(40)), (2, range(40, 50))):
        for one, other in ((0, 1), (1, 2)):
            values = []
            for _ in range(4000):
                sample = [plain.choice(rows) for _ in rows]
                values.append(sum(int(correct[one, i]) - int(correct[other, i]) for i in sample) / len(sample))
            ours = found[:, one, group] - found[:, other, group]
            assert ours.mean().item() == pytest.approx(statistics.mean(values), abs=0.02)
            assert ours.std().item() == pytest.approx(statistics.stdev(values), rel=0.1)


def test_clusters_of_one_are_no_clusters():
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(3, 50, generator=generator) < 0.6
    groups = torch.tensor([0] * 40 + [2] * 10)
    plain = paired_bootstrap(correct, groups, 3, resamples=50, seed=1)
    alone = paired_bootstrap(correct, groups, 3, clusters=torch.arange(50) * 7, resamples=50, seed=1)
    spread = [
        paired_bootstrap(correct, groups, 3, clusters=c, resamples=4000, seed=2) for c in (None, torch.arange(50))
    ]
    assert alone.shape == plain.shape
    assert alone[..., 1].isnan().all()
    for group in (0, 2):
        assert spread[1][..., group].std(dim=0).tolist() == pytest.approx(
            spread[0][..., group].std(dim=0).tolist(), rel=0.1
        )


def slow_cluster_bootstrap(correct, groups, clusters, resamples, seed):
    """Draw clusters among those that lie in the same groups, one by one, and count."""
    dice, members = random.Random(seed), {}
    for position, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(position)
    alike = {}
    for rows in members.values():
        alike.setdefault(frozenset(groups[row] for row in rows), []).append(rows)
    for _ in range(resamples):
        drawn = [row for own in alike.values() for _ in own for row in dice.choice(own)]
        yield [
            [statistics.mean(one[row] for row in drawn if groups[row] == group) for group in sorted(set(groups))]
            for one in correct
        ]


@pytest.mark.parametrize("uneven", [False, True])
def test_cluster_bootstrap_equals_a_slow_one(uneven):
    dice = random.Random(5)
    groups, clusters, correct = [], [], [[], []]
    for cluster in range(40):  # the same object on two backgrounds, which models get right or wrong together
        easy = dice.random() < 0.6
        for group in (0, 1) if cluster % 4 else (2,):
            for _ in range(1 + (cluster % 3 if uneven else 0)):
                groups.append(group)
                clusters.append(cluster)
                correct[0].append(easy)
                correct[1].append(easy if dice.random() < 0.7 else not easy)
    values = torch.tensor(correct), torch.tensor(groups), 3
    fast = paired_bootstrap(*values, clusters=torch.tensor(clusters), resamples=4000, seed=1)
    slow = torch.tensor(list(slow_cluster_bootstrap(correct, groups, clusters, 1500, 2)), dtype=torch.float64)
    assert fast.mean(dim=0).flatten().tolist() == pytest.approx(slow.mean(dim=0).flatten().tolist(), abs=0.015)
    for one, other in ((fast, slow), (fast[:, 1] - fast[:, 0], slow[:, 1] - slow[:, 0])):
        assert one.flatten(1).std(dim=0).tolist() == pytest.approx(other.flatten(1).std(dim=0).tolist(), rel=0.12)
    mean = [each.mean(dim=2).std(dim=0)[0].item() for each in (fast, paired_bootstrap(*values, resamples=4000))]
    assert mean[0] > 1.1 * mean[1]  # pictures that go together make less sure


def test_comparison_by_clusters():
    one, other = drawn(0.5, 0), drawn(0.6, 1)
    pairs = {sample: int(sample.split("-")[1]) // 2 for sample in one.predictions}
    plain, found = compare({"a": one, "b": other}), compare({"a": one, "b": other}, clusters=pairs)
    assert (plain.clusters, found.clusters) == (None, 20)
    assert found.to_dict()["clusters"] == 20
    assert "resamples of the 20 clusters of pictures" in str(found.table().caption)
    assert [each.value for each in found.differences] == [each.value for each in plain.differences]
    assert [each.low for each in found.differences] != [each.low for each in plain.differences]
    del pairs["0-3"]
    with pytest.raises(MismatchError, match="clusters= says nothing about 1 of 50 samples: '0-3'"):
        compare({"a": one, "b": other}, clusters=pairs)


def test_bootstrap_in_chunks_is_still_paired():
    correct = torch.ones(2, 3_000_000, dtype=torch.bool)
    correct[:, ::3] = False
    found = paired_bootstrap(correct, torch.zeros(3_000_000, dtype=torch.int64), 1, resamples=3)
    assert torch.equal(found[:, 0], found[:, 1])
    assert found[:, 0, 0].unique().numel() == 3


def test_equal_models_do_not_differ():
    one = drawn(0.7, seed=0)
    found = compare({"a": one, "b": one})
    assert [(each.model, each.value, each.low, each.high) for each in found.differences] == [("b", 0.0, 0.0, 0.0)] * 3
    assert not any(each.exceeds_noise for each in found.differences)


def test_a_large_difference_exceeds_the_noise_and_a_small_one_does_not():
    found = compare({"bad": drawn(0.2, 0), "good": drawn(0.95, 1), "same": drawn(0.2, 2)})
    by = {(each.model, each.number): each for each in found.differences}
    assert by["good", "accuracy"].exceeds_noise
    assert by["good", "worst_group"].low > 0
    assert not by["same", "accuracy"].exceeds_noise
    for each in found.differences:
        assert each.low <= each.value <= each.high or each.number == "worst_group"  # a minimum is biased


def test_intervals_cover_as_they_say():
    covered = 0
    for seed in range(60):
        pair = compare({"a": drawn(0.6, 2 * seed), "b": drawn(0.6, 2 * seed + 1)}, resamples=300)
        covered += next(not each.exceeds_noise for each in pair.differences if each.number == "accuracy")
    assert covered >= 51  # 95 % nominally; 51 of 60 leaves room for chance


def test_it_is_written_and_shown(tmp_path):
    found = compare({"before": drawn(0.2, 0), "after": drawn(0.95, 1)}, baseline="before", seed=3)
    found.save(tmp_path / "comparison.json")
    values = json.loads((tmp_path / "comparison.json").read_text())
    assert values["baseline"] == "before"
    assert values["samples"] == 50
    assert {each["number"] for each in values["differences"]} == {"worst_group", "mean_group", "accuracy"}
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as capture:
        console.print(found.table())
    assert "Δ worst group (WGA)" in capture.get()
    assert "*" in capture.get()


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["a"], {}, "expected at least two evaluations to compare, got 1"),
        (["a", "b"], {"baseline": "c"}, "expected a baseline of a, b, got 'c'"),
        (["a", "b"], {"confidence": 1.0}, "expected confidence in"),
        (["a", "b"], {"resamples": 10}, "resamples >= 100"),
    ],
)
def test_wrong_settings(names, settings, message):
    with pytest.raises(SettingsError, match=message):
        compare({name: drawn(0.5, 0) for name in names}, **settings)


def test_other_samples_or_groups():
    one, other = drawn(0.5, 0), drawn(0.5, 1)
    fewer = Evaluation(
        other.groups, dict(list(other.predictions.items())[1:]), labels=other.labels, membership=other.membership
    )
    with pytest.raises(MismatchError, match="different samples; 1 are in only one of them: '0-0'"):
        compare({"a": one, "b": fewer})
    moved = dataclasses.replace(other, membership={**other.membership, "0-0": 1})
    with pytest.raises(MismatchError, match="different labels or groups"):
        compare({"a": one, "b": moved})
    with pytest.raises(MismatchError, match="written by an older version: evaluate again"):
        compare({"a": one, "b": Evaluation(other.groups, other.predictions)})
