from __future__ import annotations

import torch
from helpers_correction import noise_pictures, split_model

from crayon_sdk._base.process import Processes
from crayon_sdk.correct.baselines.looking import gathered, logits_and_neurons, neurons_of, predictions_of
from crayon_sdk.correct.objective import PixelFeed
from crayon_sdk.data.pixels import PixelCache


def test_one_pass_gives_logits_and_neurons():
    model, images = split_model(), torch.rand(3, 3, 64, 64)
    logits, neurons = logits_and_neurons(model, images)
    torch.testing.assert_close(logits, model(images))
    torch.testing.assert_close(neurons, model.penultimate(model.features(images)))
    (gradient,) = torch.autograd.grad(neurons.sum(), next(model.parameters()))
    assert gradient.abs().sum() > 0


def test_all_pictures_are_looked_at_in_eval_mode_and_modes_are_given_back():
    dataset, model = noise_pictures(70), split_model()
    images = torch.stack([dataset.row(position, None) for position in range(70)])
    with torch.no_grad():
        logits, neurons = logits_and_neurons(model, images)
    model.train()
    with PixelCache(dataset, dataset.preprocessing) as cache:
        feed = PixelFeed(cache, dataset.labels)
        assert torch.equal(predictions_of(model, feed), logits.argmax(dim=1))
        torch.testing.assert_close(neurons_of(model, feed), neurons, rtol=1e-4, atol=1e-5)
    assert all(module.training for module in model.modules())


class Together(Processes):
    """Two processes, of which the other found this."""

    def __init__(self, other):
        super().__init__()
        self.size, self.other = 2, other

    def sum(self, values):
        return values + self.other


def test_what_processes_found_comes_together():
    mine = torch.tensor([4, 1]), torch.tensor([[0.5, 1.0], [2.0, 3.0]])
    assert gathered(*mine, 6, Processes()) == mine
    other = torch.zeros(6, 3, dtype=torch.float64)
    other[[1, 5]] = torch.tensor([[1.0, 4.0, 5.0], [1.0, 7.0, 8.0]], dtype=torch.float64)
    rows, values = gathered(*mine, 6, Together(other))
    assert rows.tolist() == [1, 4, 5]
    assert values.tolist() == [[3.0, 4.0], [0.5, 1.0], [7.0, 8.0]]  # the first came in both
    rows, classes = gathered(torch.tensor([2]), torch.tensor([7]), 3, Together(torch.zeros(3, 2)))
    assert (rows.tolist(), classes.tolist(), classes.dtype) == ([2], [7], torch.int64)
