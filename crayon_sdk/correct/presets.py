"""The published settings, by data set, in two forms: as the paper says, and (``-release``) as the authors' code does.

The published numbers were made by the code. Where both say the same there are two names all the same for the methods of
the paper, so that one name fits all of them; of the methods that it compares with only one form is stated anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from crayon_sdk._base.methods import made_of, methods
from crayon_sdk._base.settings import settings_in
from crayon_sdk._base.text import unknown_name
from crayon_sdk.correct.settings import AttentionSettings, PruningSettings, TrainingSettings
from crayon_sdk.errors import SettingsError

SettingsT = TypeVar("SettingsT", bound=TrainingSettings)

__all__ = ["AFTER_PRUNING", "ATTENTION", "PRUNING", "PresetValue", "describe", "preset", "preset_names"]

# The published runs had none of what this package adds.
_PUBLISHED: dict[str, Any] = {
    "scheduler": "none",
    "average_decay": 0.0,
    "logit_adjustment": 0.0,
    "spread": "never",
}
_GUIDED: dict[str, Any] = {
    **_PUBLISHED,
    "score": "logit",
    "balance": "never",
    "background_swap": 0.0,
}

_PAPER: dict[str, AttentionSettings] = {
    "waterbirds": AttentionSettings(
        **_GUIDED, epochs=10, batch_size=128, lr=5e-5, weight_decay=1e-4, alpha=1e7, beta=2e5, area_normalized=False
    ),
    "biased-celeba": AttentionSettings(
        **_GUIDED, epochs=10, batch_size=64, lr=1e-5, weight_decay=1e-4, alpha=5e7, beta=1e6, area_normalized=False
    ),
    "backgrounds": AttentionSettings(
        **_GUIDED,
        epochs=10,
        batch_size=256,
        optimizer="sgd",
        lr=5e-6,
        momentum=0.0,
        weight_decay=1e-1,
        alpha=5e3,
        beta=5e2,
        area_normalized=False,
        target="predicted",
    ),
}
_RELEASE: dict[str, dict[str, Any]] = {
    "waterbirds": {"area_normalized": True, "zero_maps": "keep"},
    "biased-celeba": {"scheduler": "step-once", "step_epochs": 3, "step_factor": 0.5, "zero_maps": "keep"},
    "backgrounds": {"momentum": 0.9, "zero_maps": "keep"},
}

ATTENTION: dict[str, AttentionSettings] = _PAPER | {
    f"{name}-release": replace(_PAPER[name], **other) for name, other in _RELEASE.items()
}
"""CRAYON-Attention."""

AFTER_PRUNING: dict[str, AttentionSettings] = ATTENTION | {
    name: replace(ATTENTION[name], lr=5e-5, alpha=1e3, beta=5e1) for name in ("backgrounds", "backgrounds-release")
}
"""CRAYON-Attention on a pruned model (CRAYON-Pruning+Attention)."""

_CUT: dict[str, PruningSettings] = {
    "waterbirds": PruningSettings(**_PUBLISHED, epochs=10, batch_size=128, lr=5e-5, weight_decay=1e-4),
    "biased-celeba": PruningSettings(**_PUBLISHED, epochs=50, batch_size=64, lr=5e-6, weight_decay=1e-4),
    "backgrounds": PruningSettings(**_PUBLISHED, epochs=10, batch_size=256, lr=1e-6, weight_decay=1e-1),
}
PRUNING: dict[str, PruningSettings] = _CUT | {
    "waterbirds-release": replace(
        _CUT["waterbirds"],
        epochs=5,
        optimizer="sgd",
        momentum=0.0,
        scheduler="step-once",
        step_epochs=4,
        step_factor=0.2,
    ),
    "biased-celeba-release": _CUT["biased-celeba"],
    "backgrounds-release": replace(_CUT["backgrounds"], lr=5e-6),
}
"""CRAYON-Pruning."""


def preset(table: dict[str, SettingsT], name: str) -> SettingsT:
    """Look a preset up.

    Args:
        table: `ATTENTION`, `AFTER_PRUNING`, `PRUNING`, or that of another method.
        name: "waterbirds", "biased-celeba", "backgrounds", each with "-release" behind it or not, or what the table has
            besides.

    Raises:
        SettingsError: There is no preset of that name.

    Example:
        >>> preset(ATTENTION, "waterbirds").alpha
        10000000.0
    """
    if name not in table:
        raise SettingsError(f"expected a preset of {', '.join(table)}, got {name!r}")
    return table[name]


@dataclass(frozen=True)
class PresetValue:
    """A value of a preset.

    Attributes:
        method: Whose setting it is.
        setting: Its name.
        value: As it counts.
        source: Where it is from.
    """

    method: str
    setting: str
    value: Any
    source: str


_TRAINED = frozenset({"epochs", "batch_size", "optimizer", "lr", "weight_decay"})
# What CRAYON's authors say of each method, in the paper or in the training configuration beside their code.
_STATED: Mapping[str, frozenset[str]] = {
    "attention": _TRAINED | {"alpha", "beta"},
    "pruning": frozenset({"epochs", "lr"}),
    "jtt": _TRAINED | {"upweight"},
    "masktune": _TRAINED,
    "lff": _TRAINED | {"q"},
    "softcon": _TRAINED | {"auxiliary_epochs", "auxiliary_lr", "temperature", "prediction", "ratio"},
    "flac": _TRAINED | {"auxiliary_epochs", "auxiliary_lr", "alpha"},
    "lc": _TRAINED | {"eta", "q", "temperature", "second_lr_factor"},
    "cnc": _TRAINED,
    "rrr": _TRAINED | {"weight"},
    "gradmask": _TRAINED,
    "actdiff": _TRAINED | {"weight"},
    "gradia": _TRAINED,
    "boundingbox": _TRAINED,
    "unasked": _TRAINED | {"alpha", "beta"},  # those of "attention"
}
_IN_CODE: Mapping[str, frozenset[str]] = {
    "attention": frozenset({"target", "answer_rule"}),
    "pruning": frozenset({"batch_size", "optimizer", "weight_decay", "answer_rule"}),
}
_OFF = frozenset(_GUIDED) - {"score"}
_NOTES = {
    ("attention", "waterbirds", "area_normalized"): "the paper, Eq. 1 and 2: plain sums",
    ("attention", "biased-celeba", "area_normalized"): "the paper, Eq. 1 and 2: plain sums",
    ("attention", "backgrounds", "area_normalized"): "the paper, Eq. 1 and 2: plain sums",
    ("attention", "backgrounds", "momentum"): "not stated: plain SGD",
    ("pruning", "waterbirds", "optimizer"): "not stated: Adam, as for the other methods",
}


def preset_names() -> dict[str, tuple[str, ...]]:
    """Names of the presets of every method that has some.

    Example:
        >>> preset_names()["pruning"][:2], "erm" in preset_names()
        (('waterbirds', 'biased-celeba'), False)
    """
    found = {name: tuple(_table(made_of(name)[-1], name)) for name in methods}
    return {name: presets for name, presets in found.items() if presets}


def describe(method: str, name: str) -> tuple[PresetValue, ...]:
    """Every value of a preset of a method, with where it is from.

    Args:
        method: By name; of one that is made of others, all of theirs.
        name: Of the preset.

    Raises:
        SettingsError: There is no such method, or it has no such preset.

    Example:
        >>> found = {each.setting: each for each in describe("attention", "waterbirds-release")}
        >>> found["epochs"].value, found["epochs"].source
        (10, 'paper and training configuration')
    """
    found = []
    for part in made_of(method):
        table = _table(part, method)
        if name not in table:
            raise SettingsError(
                unknown_name(name, table, f"preset of {method}") if table else f"{method!r} has no presets"
            )
        known, plain = table[name], table.get(name.removesuffix("-release"), table[name])
        kind: Any = type(known)
        for setting, about in settings_in(kind).items():
            value, other = getattr(known, setting), getattr(plain, setting)
            if setting == "seed":
                continue
            source = _source(part, name, setting, value != about.default)
            found.append(
                PresetValue(part, setting, value, source if value == other else f"the authors' code; paper: {other}")
            )
    return tuple(found)


def _table(part: str, method: str) -> Mapping[str, Any]:
    if part == "attention" and len(made_of(method)) > 1:
        return AFTER_PRUNING
    found: Mapping[str, Any] = getattr(methods[part], "presets", {})
    return found


def _source(method: str, name: str, setting: str, changed: bool) -> str:
    own = name.rpartition("-")[2] in ("own", "strong")
    said = {
        _NOTES.get((method, name.removesuffix("-release"), setting), ""): True,
        "code of the method's authors": own and changed,
        "paper and training configuration": setting in _STATED.get(method, ()) and not own,
        "the authors' code; the paper does not say": setting in _IN_CODE.get(method, ()),
        "what this package adds, switched off": setting in _OFF and changed,
    }
    return next((text for text, fits in said.items() if text and fits), "not stated: default of this package")
