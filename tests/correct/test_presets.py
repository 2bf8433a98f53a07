from __future__ import annotations

import pytest

from crayon_sdk.correct.presets import AFTER_PRUNING, ATTENTION, PRUNING, preset
from crayon_sdk.errors import SettingsError

# The table of published settings, as the authors' code has them: one row a line, typed in again.
ATTENTION_TABLE = """
waterbirds     10 128 adam 5e-5 1e-4 1e7 2e5 area none
biased-celeba  10  64 adam 1e-5 1e-4 5e7 1e6 sum  step
backgrounds    10 256 sgd  5e-6 1e-1 5e3 5e2 sum  none
"""
AFTER_PRUNING_TABLE = """
waterbirds     10 128 adam 5e-5 1e-4 1e7 2e5 area none
biased-celeba  10  64 adam 1e-5 1e-4 5e7 1e6 sum  step
backgrounds    10 256 sgd  5e-5 1e-1 1e3 5e1 sum  none
"""
PRUNING_TABLE = """
waterbirds     5  sgd  5e-5 step
biased-celeba  50 adam 5e-6 none
backgrounds    10 adam 5e-6 none
"""


def rows(table):
    return [line.split() for line in table.strip().splitlines()]


@pytest.mark.parametrize(
    ("presets", "row"),
    [(ATTENTION, row) for row in rows(ATTENTION_TABLE)] + [(AFTER_PRUNING, row) for row in rows(AFTER_PRUNING_TABLE)],
)
def test_attention_presets_are_the_published_ones(presets, row):
    name, epochs, batch_size, optimizer, lr, weight_decay, alpha, beta, form, scheduler = row
    found = preset(presets, name)
    assert (found.epochs, found.batch_size, found.optimizer) == (int(epochs), int(batch_size), optimizer)
    assert (found.lr, found.weight_decay) == (float(lr), float(weight_decay))
    assert (found.alpha, found.beta) == (float(alpha), float(beta))
    assert found.area_normalized == (form == "area")
    assert found.scheduler == scheduler
    assert found.target == ("predicted" if name == "backgrounds" else "label")
    assert (found.average_decay, found.warmup_epochs, found.clip_norm, found.keep) == (0, 0, 0, "last")
    assert (found.batch_norm, found.answer_rule) == ("train", "unanimous")


def test_steps_of_the_schedules():
    celeba, waterbirds = preset(ATTENTION, "biased-celeba"), preset(PRUNING, "waterbirds")
    assert (celeba.step_epochs, celeba.step_factor) == (3, 0.5)
    assert (waterbirds.step_epochs, waterbirds.step_factor) == (4, 0.2)
    assert preset(ATTENTION, "backgrounds").momentum == 0.9


@pytest.mark.parametrize("row", rows(PRUNING_TABLE))
def test_pruning_presets_are_the_published_ones(row):
    name, epochs, optimizer, lr, scheduler = row
    found = preset(PRUNING, name)
    assert (found.epochs, found.optimizer, found.lr, found.scheduler) == (int(epochs), optimizer, float(lr), scheduler)
    assert found.answer_rule == "majority"


@pytest.mark.parametrize("presets", [ATTENTION, AFTER_PRUNING, PRUNING])
def test_unknown_preset_lists_the_known_ones(presets):
    with pytest.raises(SettingsError, match="expected a preset of waterbirds, biased-celeba, backgrounds, got 'birds'"):
        preset(presets, "birds")
