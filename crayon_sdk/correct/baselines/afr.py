"""`AutomaticFeatureReweighting`: the last layer learns from held-out pictures that the model does not believe (AFR)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from crayon_sdk._base.settings import Count, Number, OneOrMore, Share
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.baselines.held_out import LearnsHeldOut, neurons_of_all
from crayon_sdk.correct.method import method
from crayon_sdk.correct.objective import Batch, FeatureFeed
from crayon_sdk.correct.pruning import LastLayer
from crayon_sdk.correct.settings import Optimizer, Rate, TrainingSettings, settings
from crayon_sdk.correct.work import Fit
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.functional.robust import error_weights
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import Correction

__all__ = ["AFRSettings", "AutomaticFeatureReweighting"]


@settings
class AFRSettings(TrainingSettings):
    """How the last layer is trained; by default by plain gradients of all pictures at once, as the authors do."""

    epochs: Count = 500
    batch_size: OneOrMore = 1_000_000
    lr: Rate = 2e-2
    optimizer: Optimizer = "sgd"
    momentum: Share = 0.0
    gamma: Number = 4.0
    """How much more the pictures count whose label the model does not believe: exp(-gamma p). 0 counts all of a class
    alike."""
    pull: Number = 0.0
    """Of the squared distance from the layer that was there (lambda): how much it holds the new one back."""


_PRESETS = {
    "waterbirds-own": AFRSettings(gamma=14.0, pull=0.2),
    "celeba-own": AFRSettings(epochs=100, lr=1e-2, gamma=1.8),
}


@method
class AutomaticFeatureReweighting(LearnsHeldOut[AFRSettings], AFRSettings):
    """AFR: train the last layer of a copy of a model on held-out pictures, most on those that it believes least.

    The pictures of a class count by ``exp(-gamma p)``, with p what the model that is given believes of their label, and
    all classes count the same. Neither groups nor masks are known. The pictures of ``evaluate_on`` are what is learned
    from: they measure nothing then, and the result is to be evaluated on others. CRAYON's authors do not compare with
    it, so the presets are its own authors'.

    Raises:
        SettingsError: A setting is unknown or out of range.
        UnsupportedModelError: The model has no feature map.
    """

    method = "afr"
    title: ClassVar[str] = "Automatic Feature Reweighting (AFR)"
    paper: ClassVar[str] = "Qiu et al., ICML 2023"
    presets = _PRESETS
    _shown = ("epochs", "lr", "gamma")

    def learned(self, fit: Fit, held_out: ImageDataset) -> Correction:
        """Train the layer, most on what is believed least."""
        file = fit.run_file(self.checkpoint_dir, self.method, held_out=held_out.fingerprint)
        feed = FeatureFeed(neurons_of_all(fit, held_out), held_out.labels.to(self.device))
        objective = _Reweighted(fit.model, feed, self.settings)
        history = fit.train(objective, feed, file, measured=False)
        return fit.finish(self.method, history, AnnotationSet(), {"pictures": len(held_out)})


class _Reweighted(LastLayer):
    """Weighted cross entropy, and how far the layer moved."""

    doing: ClassVar[str] = "reweighting features"

    def __init__(self, model: SplitModel, feed: FeatureFeed, settings: AFRSettings) -> None:
        super().__init__(model, feed.labels, logit_adjustment=settings.logit_adjustment)
        self.pull = settings.pull
        with torch.no_grad():
            logits = apply_final_layers(list(self.model), feed.features)
            self.weights = error_weights(logits, feed.labels, settings.gamma)
        self.start = [each.detach().clone() for each in self.model.parameters()]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """What the batch has of the published loss, whose weights sum to one over all pictures."""
        logits = apply_final_layers(list(self.model), batch.features) + self.offsets
        each = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
        prediction, share = (self.weights[batch.rows] * each).sum(), len(batch.rows) / len(self.weights)
        moved = [(now - then).square().sum() for now, then in zip(self.model.parameters(), self.start, strict=True)]
        loss = prediction + self.pull * share * torch.stack(moved).sum()
        # The history divides by the number of pictures, which the weights did already.
        return {"loss": loss, "prediction": prediction * len(self.weights)}
