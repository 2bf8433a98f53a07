"""The cell probe against slow versions in plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from crayon_sdk.functional.cells import (
    AnsweredCells,
    answered_cells,
    area_under_curve,
    cells_on_grid,
    fit_logistic,
    out_of_fold,
)
from crayon_sdk.functional.saliency import brightest_spot, resize_maps


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_answers(many=12, size=(4, 5)):
    """Maps with values on both sides of both limits; classes and verdicts in every combination, not balanced."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(many, 2, 3, generator=generator).square()
    maps[0] = torch.tensor([[0.0, 0.0, 1.0], [0.05, 0.0, 0.3]])
    relevant = torch.tensor([True, True, False] * 4)[:many]
    labels = torch.tensor([0, 1, 1, 0, 2, 0, 0, 0, 1, 0, 0, 2])[:many]
    return torch.rand(many, 7, *size, generator=generator), maps / maps.amax(dim=(1, 2), keepdim=True), relevant, labels


def slow_cells(features, maps, relevant, labels):
    """Picture by picture and cell by cell; (features, object?, picture, highlighted?) of each, and its weight."""
    cells = []
    for picture in range(len(maps)):
        grid = resize_maps(maps[picture : picture + 1], features.shape[2:])[0]
        highest = float(grid.max())
        for down in range(grid.shape[0]):
            for right in range(grid.shape[1]):
                share = float(grid[down, right]) / highest
                values = features[picture, :, down, right].tolist()
                if share >= 0.5:
                    cells.append((values, bool(relevant[picture]), picture, True))
                elif share <= 0.1 and bool(relevant[picture]):
                    cells.append((values, False, picture, False))
    weights = []
    kind = [(is_object, highlighted, int(labels[picture])) for _, is_object, picture, highlighted in cells]
    pictures = [(picture, highlighted) for _, _, picture, highlighted in cells]
    for number, (_, is_object, _, _) in enumerate(cells):
        alike = {pictures[other] for other in range(len(cells)) if kind[other] == kind[number]}
        kinds = {kind[other] for other in range(len(cells)) if cells[other][1] == is_object}
        weights.append(1 / pictures.count(pictures[number]) / len(alike) / len(kinds))
    return cells, weights


def test_channels_are_put_one_after_the_other_on_the_grid():
    small, large = noise(2, 3, 2, 2).float(), noise(2, 5, 8, 6).float()
    found = cells_on_grid([small, large], (4, 3))
    assert found.shape == (2, 8, 4, 3)
    for picture in range(2):
        for channel in range(8):
            one = small[picture, channel] if channel < 3 else large[picture, channel - 3]
            assert torch.equal(found[picture, channel], resize_maps(one[None], (4, 3))[0])
    # Two by two cells become their mean.
    torch.testing.assert_close(found[1, 3, 0, 0], large[1, 0, :2, :2].mean())


def test_cells_are_those_of_a_slow_version():
    features, maps, relevant, labels = some_answers()
    found = answered_cells(features, maps, relevant, labels)
    cells, weights = slow_cells(features, maps, relevant, labels)
    assert found.is_object.tolist() == [each[1] for each in cells]
    assert found.pictures.tolist() == [each[2] for each in cells]
    assert found.highlighted.tolist() == [each[3] for each in cells]
    assert found.features.tolist() == [each[0] for each in cells]
    torch.testing.assert_close(found.weights.double(), torch.tensor(weights, dtype=torch.float64), rtol=1e-5, atol=0)
    assert {(one, two) for _, one, _, two in cells} == {(True, True), (False, True), (False, False)}


def test_weights_are_balanced():
    features, maps, relevant, answered_labels = some_answers()
    found = answered_cells(features, maps, relevant, answered_labels)
    labels = answered_labels[found.pictures]
    for is_object in (True, False):
        chosen = found.is_object == is_object
        assert float(found.weights[chosen].sum()) == pytest.approx(1)
        sums = {}
        for highlighted, label, weight in zip(
            found.highlighted[chosen].tolist(), labels[chosen].tolist(), found.weights[chosen].tolist(), strict=True
        ):
            sums[highlighted, label] = sums.get((highlighted, label), 0) + weight
        assert len(sums) == (3 if is_object else 5)
        assert list(sums.values()) == pytest.approx([1 / len(sums)] * len(sums), rel=1e-5)


def test_cells_of_one_kind_only():
    features, maps, _, labels = some_answers()
    no = answered_cells(features, maps, torch.zeros(12, dtype=torch.bool), labels)
    assert not no.is_object.any()
    assert no.highlighted.all()
    assert float(no.weights.sum()) == pytest.approx(1)
    whole = answered_cells(features, torch.ones(12, 2, 3), torch.ones(12, dtype=torch.bool), labels)
    assert whole.is_object.all()
    assert len(whole.is_object) == 12 * 20


def task(many=60, seed=0):
    """Two kinds that overlap, and weights that are not alike."""
    features = noise(many, 4, seed=seed)
    targets = features[:, 0] + 0.5 * features[:, 1] + noise(many, seed=seed + 1) > 0.3
    return features, targets, noise(many, seed=seed + 2).abs() + 0.1


@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.01])
def test_the_gradient_is_zero_at_the_optimum(penalty):
    features, targets, weights = task()
    found = fit_logistic(features, targets, weights, penalty).tolist()
    total = float(weights.sum())
    gradient = [penalty * value for value in found[:-1]] + [0.0]
    for row, target, weight in zip(features.tolist(), targets.tolist(), weights.tolist(), strict=True):
        score = sum(value * one for value, one in zip([*row, 1.0], found, strict=True))
        wrong = weight / total * (1 / (1 + math.exp(-score)) - target)
        gradient = [one + wrong * value for one, value in zip(gradient, [*row, 1.0], strict=True)]
    assert max(map(abs, gradient)) < 1e-5


def test_it_is_the_fit_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, targets, weights = task()
    found = fit_logistic(features, targets, weights, 0.05)
    other = linear_model.LogisticRegression(C=1 / (0.05 * float(weights.sum())), tol=1e-10, max_iter=10_000)
    other.fit(features.numpy(), targets.numpy(), sample_weight=weights.numpy())
    expected = torch.tensor([*other.coef_[0], *other.intercept_])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_fit_works_where_nothing_needs_gradients_and_leaves_none():
    features, targets, weights = task()
    plain = fit_logistic(features, targets, weights, 0.1)
    with torch.no_grad():
        assert torch.equal(fit_logistic(features, targets, weights, 0.1), plain)
    assert not plain.requires_grad
    # Twice the weights are no other fit; a cell that counts twice is one that is there twice.
    assert torch.allclose(fit_logistic(features, targets, 2 * weights, 0.1), plain, atol=1e-6)
    doubled = weights.clone()
    doubled[7] *= 2
    again = (torch.cat([each, each[7:8]]) for each in (features, targets, weights))
    assert torch.allclose(fit_logistic(*again, 0.1), fit_logistic(features, targets, doubled, 0.1), atol=1e-4)


def test_no_cell_is_scored_by_a_probe_that_saw_its_picture():
    features, targets, weights = task()
    pictures = torch.tensor([3, 5, 8, 9, 11, 20, 21])[torch.arange(60) % 7]
    cells = AnsweredCells(features, targets, weights, pictures, torch.ones(60, dtype=torch.bool))
    scores = out_of_fold(cells, 0.1, folds=3, seed=5)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(5)).tolist()
    fold_of = {sorted(set(pictures.tolist()))[picture]: place % 3 for place, picture in enumerate(order)}
    for row in range(60):
        others = [other for other in range(60) if fold_of[int(pictures[other])] != fold_of[int(pictures[row])]]
        assert all(pictures[other] != pictures[row] for other in others)
        probe = fit_logistic(features[others], targets[others], weights[others], 0.1)
        assert float(scores[row]) == pytest.approx(float(features[row] @ probe[:-1] + probe[-1]), abs=1e-9)
    state = torch.get_rng_state()
    assert torch.equal(out_of_fold(cells, 0.1, folds=3, seed=5), scores)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_score_where_the_other_folds_are_all_alike():
    pictures = torch.arange(4)
    cells = AnsweredCells(
        noise(4, 2), torch.tensor([True, False, False, False]), torch.ones(4), pictures, torch.ones(4).bool()
    )
    scores = out_of_fold(cells, 0.1, folds=5)
    assert scores.isnan().tolist() == [True, False, False, False]
    one = AnsweredCells(noise(1, 2), torch.tensor([True]), torch.ones(1), torch.zeros(1).long(), torch.ones(1).bool())
    assert out_of_fold(one, 0.1).isnan().all()


@pytest.mark.parametrize("seed", range(5))
def test_area_is_the_share_of_pairs(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (40,), generator=generator).float()  # many ties
    positive = torch.rand(40, generator=generator) < 0.3
    pairs = [
        (one > other) + 0.5 * (one == other)
        for one in scores[positive].tolist()
        for other in scores[~positive].tolist()
    ]
    assert area_under_curve(scores, positive) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert area_under_curve(-scores, positive) == pytest.approx(1 - sum(pairs) / len(pairs), abs=1e-12)


def test_area_of_one_kind_is_none():
    for positive in (torch.ones(3).bool(), torch.zeros(3).bool()):
        assert math.isnan(area_under_curve(torch.rand(3), positive))
    assert area_under_curve(torch.ones(4), torch.tensor([True, False, True, False])) == 0.5


def test_a_spot_is_what_its_answer_is_about():
    """Cell by cell: of a spot the bright cells around the maximum, and what the whole map leaves out."""
    features, maps, relevant, labels = some_answers()
    spots = torch.arange(len(maps)) % 2 == 0
    found = answered_cells(features, maps, relevant, labels, spots)
    whole = answered_cells(features, maps, relevant, labels)
    about = brightest_spot(maps, (4, 5)) > 0
    for picture in range(len(maps)):
        mine, usual = (each.pictures == picture for each in (found, whole))
        if not spots[picture]:
            assert torch.equal(found.features[mine], whole.features[usual])
            continue
        lit = found.features[mine & found.highlighted]
        assert torch.equal(lit, features[picture].flatten(1).T[about[picture].flatten()])
        assert int((mine & ~found.highlighted).sum()) == int((usual & ~whole.highlighted).sum())
        assert bool((found.is_object[mine & found.highlighted] == relevant[picture]).all())
    assert float(found.weights[found.is_object].sum()) == pytest.approx(1.0)
    assert float(found.weights[~found.is_object].sum()) == pytest.approx(1.0)


def test_an_answer_that_is_half_as_certain_counts_half_as_much():
    features, maps, relevant, labels = some_answers()
    labels = torch.zeros_like(labels)
    certainty = torch.ones(len(maps))
    certainty[1] = 0.5
    found = answered_cells(features, maps, relevant, labels, None, certainty)
    per_picture = [float(found.weights[found.is_object & (found.pictures == row)].sum()) for row in (0, 1)]
    assert per_picture[1] == pytest.approx(per_picture[0] / 2)
    same = answered_cells(features, maps, relevant, labels, None, torch.full((len(maps),), 0.3))
    torch.testing.assert_close(same.weights, answered_cells(features, maps, relevant, labels).weights)
