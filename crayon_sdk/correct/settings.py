"""Settings of the correctors: frozen, checked when made, written into every checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crayon_sdk.answers.relevance import RULES, Rule
from crayon_sdk.errors import SettingsError

__all__ = ["ATTENTION_DEFAULTS", "PRUNING_DEFAULTS", "AttentionSettings", "PruningSettings", "TrainingSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a module is trained.

    Attributes:
        epochs: Passes over the data, not negative.
        batch_size: Samples per step.
        lr: Peak learning rate.
        weight_decay: L2 penalty ("adam", "sgd") or decoupled decay ("adamw").
        optimizer: "adam", "adamw" or "sgd".
        momentum: Of "sgd".
        scheduler: "none", "cosine" (to zero) or "step".
        warmup_epochs: Epochs over which the rate first rises from zero; may be a fraction.
        step_epochs: With "step": after how many epochs the rate falls.
        step_factor: With "step": what it is multiplied with each time.
        average_decay: Decay per step of the exponential moving average of the weights
            that is kept as the result; 0 keeps the last weights.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        logit_adjustment: How much of the log share of each class is added to the logits
            inside the cross entropy; 0 is the plain cross entropy, 1 is fair to rare classes.
        seed: Of everything random.

    Raises:
        SettingsError: A value is out of its range.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    optimizer: str = "adam"
    momentum: float = 0.9
    scheduler: str = "none"
    warmup_epochs: float = 0.0
    step_epochs: int = 1
    step_factor: float = 0.1
    average_decay: float = 0.0
    clip_norm: float = 0.0
    logit_adjustment: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 0, math.inf),
            ("batch_size", 1, math.inf),
            # Above, a float32 overflows before a loss can tell.
            ("lr", 0, 1e30),
            ("weight_decay", 0, 1e6),
            ("momentum", 0, 1),
            ("warmup_epochs", 0, math.inf),
            ("step_epochs", 1, math.inf),
            ("step_factor", 0, 1),
            ("average_decay", 0, 1),
            ("clip_norm", 0, math.inf),
            ("logit_adjustment", 0, 10),
            ("seed", 0, 2**32),
        ):
            check_range(name, getattr(self, name), low, high)
        for name in ("epochs", "batch_size", "step_epochs", "seed"):
            check_whole(name, getattr(self, name))
        check_choice("optimizer", self.optimizer, ("adam", "adamw", "sgd"))
        check_choice("scheduler", self.scheduler, ("none", "cosine", "step"))


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `SettingsError` unless ``low <= value <= high`` and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        limit = f"from {low} to {high}" if math.isfinite(high) else f">= {low}"
        raise SettingsError(f"expected {name} {limit}, got {value!r}")


def check_whole(name: str, value: float) -> None:
    """Raise `SettingsError` unless ``value`` is a whole number."""
    if not isinstance(value, int):
        raise SettingsError(f"expected {name} to be a whole number, got {value!r}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `SettingsError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise SettingsError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class AttentionSettings(TrainingSettings):
    """How CRAYON-Attention is done; training settings included.

    Attributes:
        alpha: Weight of the relevant term of Eq. 4.
        beta: Weight of the irrelevant term of Eq. 4.
        area_normalized: Divide each term by its area (the form of the published
            Waterbirds runs); else the plain sums of the paper.
        target: Whose evidence the current map shows: "label", "predicted" or a class index.
        score: What is differentiated for the current map, "logit" or "margin"; "maps" is
            what was differentiated for the maps that were answered.
        zero_maps: "skip" leaves samples whose reference map has no positive
            evidence out of the guidance; "keep" guides with a map of ones, as the authors' code does.
        background_swap: Probability that a relevant picture stands on another background in a step.
        batch_norm: "train" updates batch statistics as in the paper; "frozen" keeps
            those of the original model and normalises with them.
        answer_rule: From votes to relevance: "unanimous", "majority", "share", "dawid-skene" or "mace".
        keep: "last", or "best" on the data that is evaluated on.

    Raises:
        SettingsError: A value is out of its range.
    """

    alpha: float
    beta: float
    area_normalized: bool = True
    target: str | int = "label"
    score: str = "logit"
    zero_maps: str = "skip"
    background_swap: float = 0.0
    batch_norm: str = "train"
    answer_rule: Rule = "unanimous"
    keep: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, 0, math.inf)
        check_range("beta", self.beta, 0, math.inf)
        check_range("background_swap", self.background_swap, 0, 1)
        is_index = isinstance(self.target, int) and not isinstance(self.target, bool) and self.target >= 0
        if self.target not in ("label", "predicted") and not is_index:
            raise SettingsError(f"expected target='label', 'predicted' or a class index from 0, got {self.target!r}")
        check_choice("score", self.score, ("maps", "logit", "margin"))
        check_choice("zero_maps", self.zero_maps, ("skip", "keep"))
        check_choice("batch_norm", self.batch_norm, ("train", "frozen"))
        check_choice("answer_rule", self.answer_rule, RULES)
        check_choice("keep", self.keep, ("last", "best"))


@dataclass(frozen=True, kw_only=True)
class PruningSettings(TrainingSettings):
    """How CRAYON-Pruning is done; training settings of the last layer included.

    Attributes:
        answer_rule: From votes to relevance of a neuron: "majority" (ties relevant),
            "unanimous", "share", "dawid-skene" or "mace".
        least_share: With "share": a neuron stays when at least this share of its patches got a yes.

    Raises:
        SettingsError: A value is out of its range.
    """

    answer_rule: Rule = "majority"
    least_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("least_share", self.least_share, 0, 1)
        check_choice("answer_rule", self.answer_rule, RULES)


ATTENTION_DEFAULTS = AttentionSettings(
    alpha=1e3,
    beta=1e3,
    epochs=6,
    batch_size=64,
    lr=1e-4,
    weight_decay=1e-4,
    scheduler="cosine",
    average_decay=0.98,
    score="maps",
    background_swap=0.7,
    logit_adjustment=1.0,
)
"""What `AttentionCorrector` does when nothing is said (for models without intermediate features, no swap)."""

PRUNING_DEFAULTS = PruningSettings(
    epochs=10, batch_size=64, lr=1e-2, weight_decay=1e-4, scheduler="cosine", logit_adjustment=1.0
)
"""What `NeuronPruner` does when nothing is said."""
