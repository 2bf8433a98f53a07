"""`GroupDRO`: the worst group counts most."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from crayon_sdk._base.process import Processes
from crayon_sdk._base.settings import Number
from crayon_sdk.correct.baselines.published import OWN
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.settings import BaselineSettings, settings
from crayon_sdk.errors import DataError
from crayon_sdk.functional.robust import group_sums, new_group_weights
from crayon_sdk.models.split import SplitModel

__all__ = ["GroupDRO", "GroupDROSettings"]


@settings
class GroupDROSettings(BaselineSettings):
    """How the weights of the groups move."""

    step: Number = 0.01
    """How fast the weight of a group with a high loss grows (eta)."""
    adjustment: Number = 0.0
    """What is added to the loss of a group for that, divided by the root of its size (C): small groups overfit."""
    balanced: bool = True
    """Draw every group equally often, with replacement; else every picture comes once in an epoch, and rare groups are
    in few batches."""
    absent: Literal["keep", "decay"] = "keep"
    """What becomes of the weight of a group that is not in a batch: "keep" it, or let it fall as if its loss were zero
    ("decay"), as the authors' code does."""


_OWN: dict[str, Any] = {**OWN, "optimizer": "sgd", "momentum": 0.9, "batch_size": 128, "init": "pretrained"}
_OWN |= {"absent": "decay"}
_PRESETS = {
    # The authors' code; their paper's better rows, with strong decay and the best epoch, are not checked in the code.
    "waterbirds-own": GroupDROSettings(**_OWN, epochs=300, lr=1e-3, weight_decay=1e-4),
    "celeba-own": GroupDROSettings(**_OWN, epochs=50, lr=1e-4, weight_decay=1e-4),
    "waterbirds-strong": GroupDROSettings(**_OWN, epochs=300, lr=1e-5, weight_decay=1.0, keep="best"),
    "celeba-strong": GroupDROSettings(**_OWN, epochs=50, lr=1e-5, weight_decay=0.1, keep="best"),
}


@method
class GroupDRO(Method[GroupDROSettings], GroupDROSettings):
    """Group DRO: train a copy of a model on so that its worst group gets better.

    The mean losses of the groups are weighed, and a group with a high loss gains weight with every step. It knows the
    groups of all training pictures, which nobody else here does: an upper bound. CRAYON's authors do not compare with
    it, so the presets are its own authors'.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "groupdro"
    title: ClassVar[str] = "Group DRO"
    paper: ClassVar[str] = "Sagawa et al., ICLR 2020"
    needs = frozenset({"groups"})
    presets = _PRESETS
    _shown = ("epochs", "lr", "step")

    @property
    def whole_batch(self) -> str:
        """Why a batch cannot come in parts."""
        return "groups are weighed by their losses in the whole batch, before the step is made"

    def objective(self, model: SplitModel, feed: PixelFeed, settings: GroupDROSettings) -> Objective:
        """The weighted cross entropies of the groups."""
        if feed.groups is None:
            raise DataError("expected a feed with groups, got one without")
        processes = Processes.found()
        return _WorstGroup(model, feed.labels, feed.groups, settings, processes, self.autocast)


class _WorstGroup(Prediction):
    doing: ClassVar[str] = "training the worst group"
    added: Tensor
    log_weights: Tensor

    def __init__(
        self,
        model: SplitModel,
        labels: Tensor,
        groups: Tensor,
        settings: GroupDROSettings,
        processes: Processes,
        autocast: torch.dtype | None,
    ) -> None:
        super().__init__(model, labels, logit_adjustment=settings.logit_adjustment, autocast=autocast)
        self.settings, self.processes, self.groups = settings, processes, groups.cpu()
        sizes = torch.bincount(groups)
        self.register_buffer("added", settings.adjustment / sizes.sqrt(), persistent=False)
        self.register_buffer("log_weights", torch.full_like(self.added, 1 / len(sizes)).log())
        self.counted = {"groups": len(sizes), "smallest_group": int(sizes.min())}

    def epoch(self, number: int, seed: int, *, count: int) -> Tensor:
        """All samples, or as many with every group equally often."""
        if not self.settings.balanced:
            return super().epoch(number, seed, count=count)
        chances = 1 / torch.bincount(self.groups)[self.groups].double()
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        return torch.multinomial(chances, count, replacement=True, generator=generator)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The weights of the groups move, then their losses are weighed."""
        settings, number = self.settings, len(self.log_weights)
        logits = self.logits(batch) + self.offsets
        each = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
        sums, counts = self.processes.sum(torch.stack(group_sums(each.detach(), batch.groups, number)))
        moved = new_group_weights(
            self.log_weights, sums / counts.clamp_min(1) + self.added, counts > 0, settings.step, absent=settings.absent
        )
        self.log_weights.copy_(moved)
        # As many times as there are samples: "loss" is a sum over the batch.
        weights = moved.exp() * (counts.sum() / counts.clamp_min(1))
        return {"loss": (weights[batch.groups] * each).sum(), "prediction": each.detach().sum()}
