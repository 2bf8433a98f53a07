"""Comparison of models, against a plain bootstrap and against what must be so."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics

import pytest
import torch

from crayon_sdk.comparison import compare
from crayon_sdk.errors import MismatchError, SettingsError
from crayon_sdk.evaluation import Evaluation, GroupResult
from crayon_sdk.functional.metrics import paired_bootstrap

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
