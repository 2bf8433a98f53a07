"""`LearningFromFailure`: what a biased network finds hard counts more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from crayon_sdk._base.process import Processes
from crayon_sdk._base.settings import Number, Share
from crayon_sdk.correct.baselines.looking import gathered
from crayon_sdk.correct.baselines.published import COMPARED, OWN
from crayon_sdk.correct.baselines.second import SecondSettings, WithSecond
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed
from crayon_sdk.correct.settings import settings
from crayon_sdk.functional.biased import generalized_cross_entropy, relative_difficulty
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.models.split import SplitModel

__all__ = ["LFFSettings", "LearningFromFailure"]


@settings
class LFFSettings(SecondSettings):
    """How what is hard is found out."""

    smoothing: Share = 0.7
    """How much of the loss of a sample from before stays when it is seen again."""
    strength: Number = 1.0
    """Power to which the weights are raised; 0 weighs all alike, which is further training. Not of the authors."""
    trained: Literal["all", "last"] = "all"
    """"last" trains the last layers alone, of both networks, as the authors' code does with pretrained ones."""


_PRESETS = {
    "waterbirds": LFFSettings(**COMPARED["waterbirds"] | {"optimizer": "sgd", "lr": 5e-3, "epochs": 50}),
    "biased-celeba": LFFSettings(**COMPARED["biased-celeba"] | {"optimizer": "sgd", "lr": 5e-2, "epochs": 50}),
    "backgrounds": LFFSettings(
        **COMPARED["backgrounds"] | {"optimizer": "sgd", "lr": 1e-4, "epochs": 1, "weight_decay": 0.1}
    ),
    "celeba-own": LFFSettings(
        **OWN, lr=1e-4, weight_decay=1e-4, batch_size=256, epochs=200, init="pretrained", trained="last"
    ),
}


@method
class LearningFromFailure(Method[LFFSettings], LFFSettings):
    """LfF: train a copy of a model beside a second one that learns what is easy, weighing what the second finds hard.

    The second network learns by the generalised cross entropy; a sample counts by its share of the loss of both, each
    smoothed over its visits and divided by the largest of its class. Both start from the same weights. From a model
    that knows its training pictures by heart all losses are tiny, and the weights noise: ``init="pretrained"``.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "lff"
    title: ClassVar[str] = "Learning from Failure (LfF)"
    paper: ClassVar[str] = "Nam et al., NeurIPS 2020"
    presets = _PRESETS
    _shown = ("epochs", "lr", "q")

    @property
    def whole_batch(self) -> str:
        """Why a batch cannot come in parts."""
        return "pictures are weighed by the losses of the whole batch, before the step is made"

    def objective(self, model: SplitModel, feed: PixelFeed, settings: LFFSettings) -> Objective:
        """Both losses."""
        return _Failures(model, feed.labels, settings, autocast=self.autocast)


class _Failures(WithSecond):
    """Weighted cross entropy of the first, generalised of the second; losses of all samples so far."""

    losses: Tensor

    def __init__(self, model: SplitModel, labels: Tensor, settings: LFFSettings, **more: Any) -> None:
        super().__init__(model, labels, settings, **more)
        self.labels, self.processes = labels, Processes.found()
        # Of the second network and of the first; -1 where a sample was not seen yet.
        self.register_buffer("losses", torch.full((len(labels), 2), -1.0, device=labels.device))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Both losses, and the weights."""
        settings, labels = self.settings, batch.labels
        frozen = settings.trained == "last"
        first, second = (self._logits(network, batch, frozen) for network in (self.model, self.second))
        plain = [torch.nn.functional.cross_entropy(each, labels, reduction="none") for each in (second, first)]
        now = torch.stack([each.detach() for each in plain], dim=1)
        before = self.losses[batch.rows]
        now = torch.where(before < 0, now, settings.smoothing * before + (1 - settings.smoothing) * now)
        self._news = rows, now = gathered(batch.rows, now, len(self.losses), self.processes)
        losses = self.losses.index_put((rows,), now).clamp_min(0)
        weights = relative_difficulty(losses[:, 0], losses[:, 1], self.labels, self.model.num_classes)[batch.rows]
        each = torch.nn.functional.cross_entropy(first + self.offsets, labels, reduction="none")
        prediction = (weights**settings.strength * each).sum()
        biased = generalized_cross_entropy(second, labels, settings.q).sum()
        return {"loss": prediction + biased, "prediction": prediction, "biased": biased, "weight": weights.sum()}

    def _logits(self, network: SplitModel, batch: Batch, frozen: bool) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features = network.features(batch.images, autocast=self.autocast)
        if not frozen:
            return network.head(features)
        with torch.no_grad():
            inputs = network.final_inputs(features)
        return apply_final_layers(list(network.final_layers), inputs)

    def after_step(self, found: Mapping[str, Tensor], processes: Processes) -> None:
        """Keep the losses."""
        rows, now = self._news
        self.losses[rows] = now
