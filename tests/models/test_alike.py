"""What counts as the same logits, and what a model is run on to see it."""

from __future__ import annotations

import torch
from helpers_correction import split_model

from crayon_sdk.models.alike import logits_of, noise, plain_copy, same_logits


def test_noise_is_the_same_for_the_same_seed():
    model = split_model()
    assert noise(model).shape == (2, 3, *model.preprocessing.size)
    assert torch.equal(noise(model, 3, seed=5), noise(model, 3, seed=5))
    assert not torch.equal(noise(model), noise(model, seed=1))


def test_a_plain_copy_gives_the_same_and_leaves_the_model_as_it_was():
    model = split_model().to(torch.bfloat16).train()
    model.compile_trunk = True
    before = model.fingerprint
    copy = plain_copy(model)
    assert (copy.dtype, copy.compile_trunk) == (torch.float32, False)
    assert same_logits(logits_of(copy, noise(model)), logits_of(plain_copy(model), noise(model)))
    assert (model.dtype, model.compile_trunk, model.training, model.fingerprint) == (torch.bfloat16, True, True, before)


def test_nan_equals_nan_and_another_shape_is_never_the_same():
    nan = torch.tensor([[torch.nan, 1.0]])
    assert same_logits(nan, nan.clone())
    assert not same_logits(nan, torch.tensor([[0.0, 1.0]]))
    assert not same_logits(torch.zeros(1, 2), torch.zeros(1, 1))
