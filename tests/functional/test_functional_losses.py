"""Eq. 1-4 against plain loops, and the corners where a division or a NaN lies in wait."""

from __future__ import annotations

import math

import pytest
import torch

from crayon_sdk.functional.losses import attention_loss, guidance_loss, irrelevant_loss, log_prior, relevant_loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    return {
        "logits": torch.randn(5, 3, generator=generator, dtype=torch.float64),
        "labels": torch.tensor([0, 1, 2, 1, 0]),
        "current": maps[0],
        "reference": maps[1],
        "relevant": torch.tensor([True, False, False, True, False]),
        "irrelevant": torch.tensor([False, True, False, False, True]),
    }


SETTINGS = {"alpha": 7.0, "beta": 3.0, "num_relevant": 11, "num_irrelevant": 4}


def slow_terms(current, reference, area):
    """Both guidance losses of one sample, as lists of lists of numbers."""
    cells = [(c, r) for row_c, row_r in zip(current, reference, strict=True) for c, r in zip(row_c, row_r, strict=True)]
    outside, inside = sum(1 - r for _, r in cells), sum(r for _, r in cells)
    relevant = sum(c * (1 - r) for c, r in cells)
    irrelevant = sum(c * r for c, r in cells)
    if area:
        relevant = relevant / outside if outside else 0.0
        irrelevant = irrelevant / inside if inside else 0.0
    return relevant, irrelevant


def slow_loss(batch, area, alpha, beta, num_relevant, num_irrelevant):
    total = 0.0
    for n, label in enumerate(batch["labels"].tolist()):
        logits = batch["logits"][n].tolist()
        total += math.log(sum(math.exp(value) for value in logits)) - logits[label]
        terms = slow_terms(batch["current"][n].tolist(), batch["reference"][n].tolist(), area)
        if batch["relevant"][n]:
            total += alpha / num_relevant * terms[0]
        if batch["irrelevant"][n]:
            total += beta / num_irrelevant * terms[1]
    return total


@pytest.mark.parametrize("area", [False, True])
def test_terms_equal_the_loops(batch, area):
    current, reference = batch["current"], batch["reference"]
    expected = [slow_terms(c, r, area) for c, r in zip(current.tolist(), reference.tolist(), strict=True)]
    ours = torch.stack([relevant_loss(current, reference, area), irrelevant_loss(current, reference, area)], dim=1)
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("area", [False, True])
def test_the_sum_equals_the_loops(batch, area):
    ours = attention_loss(**batch, **SETTINGS, area_normalized=area)
    assert ours.item() == pytest.approx(slow_loss(batch, area, **SETTINGS), rel=1e-12)


@pytest.mark.parametrize("area", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_reference_of_all_ones_or_zeros(batch, area, dtype, fill):
    current = batch["current"].to(dtype).requires_grad_()
    reference = torch.full_like(current, fill)
    empty, whole = (relevant_loss, irrelevant_loss) if fill == 1 else (irrelevant_loss, relevant_loss)
    assert empty(current, reference, area).eq(0).all()  # no region: nothing to penalise, and no 0 / 0
    expected = current.mean(dim=(1, 2)) if area else current.sum(dim=(1, 2))
    torch.testing.assert_close(whole(current, reference, area), expected)
    loss = guidance_loss(current, reference, batch["relevant"], batch["irrelevant"], **SETTINGS, area_normalized=area)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(current.grad).all()


def test_the_area_form_does_not_depend_on_the_resolution(batch):
    def finer(maps):
        return maps.repeat_interleave(2, 1).repeat_interleave(2, 2)

    current, reference = batch["current"], batch["reference"]
    for term in (relevant_loss, irrelevant_loss):
        fine = term(finer(current), finer(reference), True)
        torch.testing.assert_close(fine, term(current, reference, True))
        torch.testing.assert_close(term(finer(current), finer(reference)), 4 * term(current, reference))


@pytest.mark.parametrize("area", [False, True])
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e300])
def test_references_of_unanswered_samples_do_not_leak(batch, area, junk):
    def run(reference):
        current = batch["current"].clone().requires_grad_()
        logits = batch["logits"].clone().requires_grad_()
        changed = batch | {"current": current, "logits": logits, "reference": reference}
        loss = attention_loss(**changed, **SETTINGS, area_normalized=area)
        loss.backward()
        return loss.detach(), current.grad, logits.grad

    spoiled = batch["reference"].clone()
    spoiled[2] = junk
    for clean, other in zip(run(batch["reference"]), run(spoiled), strict=True):
        assert torch.equal(clean, other)


def test_unanswered_samples_get_no_gradient(batch):
    current = batch["current"].clone().requires_grad_()
    attention_loss(**batch | {"current": current}, **SETTINGS).backward()
    answered = batch["relevant"] | batch["irrelevant"]
    assert current.grad[~answered].eq(0).all()
    torch.testing.assert_close(current.grad[0], 7 / 11 * (1 - batch["reference"][0]))
    torch.testing.assert_close(current.grad[1], 3 / 4 * batch["reference"][1])


@pytest.mark.parametrize("area", [False, True])
def test_nobody_relevant(batch, area):
    """|R| = 0 or |I| = 0 leaves the other term and the prediction."""
    nobody = torch.zeros(5, dtype=torch.bool)
    settings = SETTINGS | {"num_relevant": 0}
    ours = attention_loss(**batch | {"relevant": nobody}, **settings, area_normalized=area)
    expected = slow_loss(batch | {"relevant": nobody}, area, 0.0, 3.0, 1, 4)
    assert ours.item() == pytest.approx(expected, rel=1e-12)
    settings |= {"num_irrelevant": 0}
    ours = attention_loss(**batch | {"relevant": nobody, "irrelevant": nobody}, **settings, area_normalized=area)
    prediction = torch.nn.functional.cross_entropy(batch["logits"], batch["labels"], reduction="sum")
    assert torch.equal(ours, prediction)


def test_mini_batches_add_up(batch):
    whole = attention_loss(**batch, **SETTINGS)
    parts = [
        attention_loss(**{name: value[rows] for name, value in batch.items()}, **SETTINGS)
        for rows in (slice(0, 2), slice(2, 3), slice(3, 5))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_log_prior_counts_classes():
    found = log_prior(torch.tensor([2, 0, 2, 2]), 4)
    assert found.tolist() == pytest.approx([math.log(share) for share in (1 / 4, 1 / 4, 3 / 4, 1 / 4)])


def test_a_region_of_no_area_has_no_loss_and_no_gradient():
    """Guided by a map of ones (zero_maps="keep"), nothing lies outside: the gradient was NaN in the area form."""
    current = torch.rand(2, 3, 3, requires_grad=True)
    reference = torch.stack([torch.ones(3, 3), torch.rand(3, 3)])
    yes, no = torch.tensor([True, True]), torch.tensor([False, False])
    weights = {"alpha": 1e7, "beta": 1e7, "num_relevant": 2, "num_irrelevant": 0}
    loss = guidance_loss(current, reference, yes, no, area_normalized=True, **weights)
    (gradient,) = torch.autograd.grad(loss, current)
    assert gradient.isfinite().all()
    assert not gradient[0].any()
    assert gradient[1].any()
