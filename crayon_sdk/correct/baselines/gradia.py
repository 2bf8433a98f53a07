"""`GradIA`: people say which maps are reasonable; the others shall look like the object mask."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from crayon_sdk._base.process import Processes
from crayon_sdk._base.settings import Number
from crayon_sdk.answers.relevance import Rule
from crayon_sdk.correct.baselines.looking import predictions_of
from crayon_sdk.correct.baselines.published import COMPARED, OWN
from crayon_sdk.correct.method import Method, method
from crayon_sdk.correct.objective import Batch, Objective, PixelFeed, Prediction
from crayon_sdk.correct.settings import BaselineSettings, Rate, settings
from crayon_sdk.errors import SettingsError
from crayon_sdk.functional.object_guidance import attention_target, logits_and_signed_cam, stretched
from crayon_sdk.models.split import SplitModel

__all__ = ["GradIA", "GradIASettings"]

# (prediction, attention) by whether the map is reasonable and whether the model that is given is right.
_WEIGHTS = {(False, False): (1.0, 1.0), (False, True): (0.4, 1.6), (True, False): (0.8, 0.2), (True, True): (1.0, 0.0)}


@settings
class GradIASettings(BaselineSettings):
    """How attention counts."""

    lr: Rate = 1e-4
    attention_weight: Number = 1.0
    """What the published weights of attention are multiplied with; with 0, and ``prediction_weights`` false, this is
    further training."""
    prediction_weights: bool = True
    """Weigh also the cross entropy by how map and prediction were found, as published."""
    constant_weights: bool = False
    """Take the weights of the Grad-CAM for numbers, as the authors' code does: then attention teaches the features
    alone and not the head."""
    one_by_one: bool = False
    """Make maps in a pass for every picture of its own, as the authors' code does: then batch statistics are of single
    pictures, which moves the running ones away from those of prediction, and a step takes long."""
    per_batch: bool = False
    """Divide by the number of pictures in the batch whose attention counts, as the authors' code does: then each of
    them counts more where it is alone. Else by their share in the training set, and all count the same."""
    answer_rule: Rule = "unanimous"
    """From votes to whether a map is reasonable; "dawid-skene" and "mace" weigh people by how reliable they seem (extra
    ``crowd``)."""
    zero_maps: Literal["skip", "keep"] = "skip"
    """Whether answers about maps without evidence count."""


# As published, where the published code is not plainly at fault: maps of single pictures are not in the presets.
_FORM: dict[str, Any] = {"constant_weights": True, "per_batch": True}
_PRESETS = {
    "waterbirds": GradIASettings(**COMPARED["waterbirds"] | _FORM, lr=5e-5),
    "biased-celeba": GradIASettings(**COMPARED["biased-celeba"] | _FORM, lr=1e-3),
    "backgrounds": GradIASettings(**COMPARED["backgrounds"] | _FORM | {"epochs": 5}, lr=1e-6),
    "own": GradIASettings(**OWN, **_FORM, lr=1e-4, one_by_one=True),
}


@method
class GradIA(Method[GradIASettings], GradIASettings):
    """GradIA: train a copy of a model on so that maps that people found unreasonable look like the object.

    Every picture has two weights, by whether its map was found reasonable and whether the model that is given is right
    about it: of its cross entropy, and of the mean distance of its Grad-CAM map, stretched over [0, 1], from its object
    mask. An answer "yes" says that the map is reasonable, "no" that it is not; without a clear answer, or without a
    mask where one is needed, a picture counts with its cross entropy alone.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "gradia"
    title: ClassVar[str] = "GradIA"
    paper: ClassVar[str] = "Gao et al., CSCW 2022"
    needs = frozenset({"answers", "maps", "masks"})
    presets = _PRESETS
    _shown = ("epochs", "lr", "attention_weight")

    @property
    def alone(self) -> str:
        """Why one process is needed."""
        if not self.settings.one_by_one or self.settings.batch_norm == "frozen":
            return ""
        return 'with one_by_one=True and batch_norm="train" every process would take another number of batches'

    @property
    def whole_batch(self) -> str:
        """Why a batch cannot come in parts."""
        return "per_batch=True weighs by how many pictures of the whole batch count" if self.settings.per_batch else ""

    def objective(self, model: SplitModel, feed: PixelFeed, settings: GradIASettings) -> Objective:
        """The cross entropy and the distance of the maps, weighted."""
        if feed.guidance is None or feed.masks is None:
            raise SettingsError("attention takes a feed with guidance and masks, got one without")
        right = predictions_of(self.model, feed, self.autocast) == feed.labels
        weights = sample_weights(feed.guidance.relevant, feed.guidance.irrelevant, right)
        weights[feed.masks.flatten(1).all(dim=1)] = weights.new_tensor([1.0, 0.0])
        return _Attention(model, feed.labels, weights, settings, self.autocast)


def sample_weights(reasonable: Tensor, unreasonable: Tensor, right: Tensor) -> Tensor:
    """The published weights of every picture.

    Args:
        reasonable: (N,) bool, the map was found reasonable.
        unreasonable: (N,) bool, it was found not to be.
        right: (N,) bool, the model was right about the picture.

    Returns:
        (N, 2) float32, of prediction and of attention.

    Example:
        >>> no, yes = torch.tensor([False]), torch.tensor([True])
        >>> [[round(each, 1) for each in sample_weights(*case)[0].tolist()] for case in ((no, yes, yes), (no, no, yes))]
        [[0.4, 1.6], [1.0, 0.0]]
    """
    weights = torch.tensor([1.0, 0.0], device=right.device).repeat(len(right), 1)
    for (is_reasonable, is_right), pair in _WEIGHTS.items():
        found = reasonable if is_reasonable else unreasonable
        weights[found & (right == is_right)] = torch.tensor(pair, device=right.device)
    return weights


class _Attention(Prediction):
    doing: ClassVar[str] = "adjusting attention"

    def __init__(self, model: SplitModel, labels: Tensor, weights: Tensor, settings: Any, autocast: Any) -> None:
        super().__init__(model, labels, logit_adjustment=settings.logit_adjustment, autocast=autocast)
        self.settings, self.weights = settings, weights
        attended = int((weights[:, 1] > 0).sum())
        self.share = attended / len(weights)
        self.counted = {"attended": attended}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy and attention."""
        settings = self.settings
        of_prediction, of_attention = self.weights[batch.rows].unbind(dim=1)
        if settings.attention_weight and self.share:
            logits, maps = self._maps(batch, of_attention > 0)
        else:
            logits, maps = self.logits(batch), None
        if settings.prediction_weights:
            each = torch.nn.functional.cross_entropy(logits + self.offsets, batch.labels, reduction="none")
            prediction = (of_prediction * each).sum()
        else:
            prediction = self.prediction(logits, batch)
        if maps is None:
            return {"loss": prediction, "prediction": prediction}
        targets = attention_target(batch.masks, (int(maps.shape[1]), int(maps.shape[2])))
        distances = of_attention * (stretched(maps) - targets).abs().mean(dim=(1, 2))
        share: Tensor | float = self.share
        if settings.per_batch:
            share = Processes.found().sum((of_attention > 0).float().sum()).clamp_min(1) / batch.size
        attention = distances.sum() / share
        loss = prediction + settings.attention_weight * attention
        return {"loss": loss, "prediction": prediction, "attention": attention}

    def _maps(self, batch: Batch, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, K) and maps (n, h, w)."""
        how = {"constant_weights": self.settings.constant_weights}
        features = self.model.features(batch.images, autocast=self.autocast)
        logits, maps = logits_and_signed_cam(features, self.model.head, batch.labels, **how)
        if not self.settings.one_by_one:
            return logits, maps
        alone = list(maps.detach().split(1))
        for row in wanted.nonzero().flatten().tolist():
            features = self.model.features(batch.images[row : row + 1], autocast=self.autocast)
            _, alone[row] = logits_and_signed_cam(features, self.model.head, batch.labels[row : row + 1], **how)
        return logits, torch.cat(alone)
