"""Correctors from named settings: a preset, what is set on top of it, and the corrector's own defaults."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import nn

from crayon_sdk._base.text import unknown_name
from crayon_sdk.correct import presets
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.correct.settings import TrainingSettings
from crayon_sdk.errors import SettingsError

__all__ = ["attention_corrector", "neuron_pruner"]

CorrectorT = TypeVar("CorrectorT", AttentionCorrector, NeuronPruner)
SettingsT = TypeVar("SettingsT", bound=TrainingSettings)


def attention_corrector(
    model: nn.Module,
    values: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    after_pruning: bool = False,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    checkpoint_dir: str | os.PathLike[str] | None = None,
) -> AttentionCorrector:
    """Make an `AttentionCorrector` from values by name.

    Args:
        model: The model to correct.
        values: Keywords of `AttentionCorrector`; what is not named is the preset's, or its default.
        preset: Published settings to start from.
        after_pruning: Those for a model that was pruned before.
        seed: Of everything random.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).
        checkpoint_dir: Where the state is kept.

    Raises:
        SettingsError: A name or a value is wrong, or there is no such preset.
    """
    table = presets.AFTER_PRUNING if after_pruning else presets.ATTENTION
    where = {"seed": seed, "device": device, "precision": precision, "checkpoint_dir": checkpoint_dir}
    return _make(AttentionCorrector, model, values or {}, table, preset, where)


def neuron_pruner(
    model: nn.Module,
    values: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    checkpoint_dir: str | os.PathLike[str] | None = None,
) -> NeuronPruner:
    """Make a `NeuronPruner` from values by name; as `attention_corrector`.

    Args:
        model: The model to correct.
        values: Keywords of `NeuronPruner`.
        preset: Published settings to start from.
        seed: Of everything random.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).
        checkpoint_dir: Where the state is kept.

    Raises:
        SettingsError: A name or a value is wrong, or there is no such preset.
    """
    where = {"seed": seed, "device": device, "precision": precision, "checkpoint_dir": checkpoint_dir}
    return _make(NeuronPruner, model, values or {}, presets.PRUNING, preset, where)


def _make(
    kind: type[CorrectorT],
    model: nn.Module,
    values: Mapping[str, Any],
    table: Mapping[str, SettingsT],
    preset: str | None,
    where: Mapping[str, Any],
) -> CorrectorT:
    known = [name for name in inspect.signature(kind).parameters if name not in ("model", *where)]
    for name in values:
        if name not in known:
            raise SettingsError(unknown_name(name, known, f"setting of {kind.__name__}"))
    start = {} if preset is None else asdict(presets.preset(dict(table), preset))
    chosen = {name: value for name, value in start.items() if name in known} | dict(values)
    made: CorrectorT = kind(model, **chosen, **where)
    return made
