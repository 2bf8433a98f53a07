"""What is minimised: `Objective`, the `Batch` it is given, and the feeds that batches come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from crayon_sdk._base.process import Processes
from crayon_sdk.correct.guidance import Guidance
from crayon_sdk.data.pixels import PixelCache, sent
from crayon_sdk.functional.losses import log_prior
from crayon_sdk.functional.saliency import normalize_maps
from crayon_sdk.functional.views import is_still_shown, shown, view_transforms
from crayon_sdk.models.split import SplitModel, borrowed

__all__ = ["Batch", "FeatureFeed", "Feed", "Objective", "PixelFeed", "Prediction"]

# Every epoch, and every step of it, draws from a generator of its own: apart for all seeds that one would give.
_APART = 1_000_003


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some samples of the training set, on the device.

    What the method does not need is ``None``; the types say what it is where it is needed.

    Attributes:
        rows: (n,) int64 positions in the training set.
        positions: The same on the CPU, where what is drawn for a step is drawn: to ask a GPU is to wait for it.
        labels: (n,) int64 classes.
        images: (n, 3, H, W) float32 preprocessed pictures.
        features: In the place of pictures: what goes into each final layer, (n, num_neurons) float32.
        groups: (n,) int64 numbers of groups, by class and irrelevant attributes.
        masks: (n, H, W) bool, where the object is; everywhere in a picture of which that is not known.
        reference: (n, h, w) float32 maps that were answered; ones where a sample is not guided.
        relevant: (n,) bool, the map was found relevant.
        irrelevant: (n,) bool, the map was found irrelevant.
        whole: How many samples the batch has over all processes and parts; 0 where all are here.
        first: The place in it of the first sample that is here.
        view: (n, 2, 3), which part of each picture is shown, and whether mirrored; ``None`` where all are as they are.
    """

    rows: Tensor
    labels: Tensor
    positions: Tensor = None  # type: ignore[assignment]
    images: Tensor = None  # type: ignore[assignment]
    features: tuple[Tensor, ...] = ()
    groups: Tensor = None  # type: ignore[assignment]
    masks: Tensor = None  # type: ignore[assignment]
    reference: Tensor = None  # type: ignore[assignment]
    relevant: Tensor = None  # type: ignore[assignment]
    irrelevant: Tensor = None  # type: ignore[assignment]
    whole: int = 0
    first: int = 0
    view: Tensor = None  # type: ignore[assignment]

    @property
    def size(self) -> int:
        """How many samples the batch has over all processes and parts."""
        return self.whole or len(self.rows)

    def drawn(self, draw: Callable[[int], Tensor]) -> Tensor:
        """Draw something for every sample of the batch, such that many processes, or parts, draw what one would.

        Args:
            draw: Gives (count, ...) from the global random numbers, which are those of all processes and parts here.

        Returns:
            (n, ...) of the samples that are here.
        """
        return draw(self.size)[self.first : self.first + len(self.rows)]

    def seen(self, values: Tensor) -> Tensor:
        """What lies over the whole pictures of this batch, as they are shown.

        Args:
            values: (n, h, w) or (n, C, h, w) floating point.

        Returns:
            The same where pictures are shown as they are.
        """
        return values if self.view is None else shown(values, self.view.to(values))

    @torch.no_grad()
    def augmented(self, *, mirror: float, least_area: float) -> Batch:
        """Show some part of every picture, and some mirrored, with mask and map.

        A mask that shows no object any more is one of which that is not known; a map of which not even half of the
        highlight is left guides nothing, others are normalised again.

        Args:
            mirror: How likely a picture is mirrored.
            least_area: Share of a picture that is shown at least.
        """
        keys = self.drawn(lambda count: torch.rand(count, 5))
        view = sent(view_transforms(keys, least_area=least_area, flip=mirror), self.rows.device)
        moved = replace(self, view=view)
        new: dict[str, Any] = {"images": moved.seen(self.images)}
        if self.masks is not None:
            masks = moved.seen(self.masks.float()) > 0.5
            new["masks"] = masks | ~masks.any(dim=2).any(dim=1)[:, None, None]
        if self.reference is not None:
            maps = moved.seen(self.reference)
            there = is_still_shown(self.reference, maps)
            new |= {"relevant": self.relevant & there, "irrelevant": self.irrelevant & there}
            new["reference"] = torch.where(there[:, None, None], normalize_maps(maps), 1.0)
        return replace(moved, **new)


class Feed(Protocol):
    """Where batches come from."""

    def __len__(self) -> int:
        """How many samples there are."""

    def batch(self, positions: Tensor) -> Batch:
        """The samples at (n,) int64 positions."""


class PixelFeed:
    """Batches of pictures from a cache, with what else is known about them.

    Args:
        cache: The training pictures; batches come to its device.
        labels: (N,) int64 classes.
        guidance: Reference maps and verdicts.
        groups: (N,) int64 numbers of groups.
        masks: (N, H, W) bool.
    """

    def __init__(
        self,
        cache: PixelCache,
        labels: Tensor,
        *,
        guidance: Guidance | None = None,
        groups: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> None:
        self.cache = cache
        self.guidance = None if guidance is None else guidance.to(cache.device)
        facts = {"labels": labels, "groups": groups, "masks": masks}
        self._facts = {name: value.to(cache.device) for name, value in facts.items() if value is not None}
        if self.guidance is not None:
            self._facts |= {name: getattr(self.guidance, name) for name in ("reference", "relevant", "irrelevant")}

    @property
    def labels(self) -> Tensor:
        """(N,) int64 classes, on the device."""
        return self._facts["labels"]

    @property
    def groups(self) -> Tensor | None:
        """(N,) int64 numbers of groups, on the device."""
        return self._facts.get("groups")

    @property
    def masks(self) -> Tensor | None:
        """(N, H, W) bool, on the device."""
        return self._facts.get("masks")

    def __len__(self) -> int:
        return len(self.cache)

    def batch(self, positions: Tensor) -> Batch:
        """The samples at (n,) int64 positions."""
        rows = sent(positions, self.cache.device)
        known: dict[str, Any] = {name: value[rows] for name, value in self._facts.items()}
        return Batch(rows=rows, positions=positions, images=self.cache.get(positions), **known)


class FeatureFeed:
    """Batches of features that were computed once.

    Args:
        features: (N, num_neurons) float32 for each final layer, on the device.
        labels: (N,) int64 classes, on the device.
    """

    def __init__(self, features: Sequence[Tensor], labels: Tensor) -> None:
        self.features, self.labels = tuple(features), labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, positions: Tensor) -> Batch:
        """The samples at (n,) int64 positions."""
        rows = sent(positions, self.labels.device)
        features = tuple(each[rows] for each in self.features)
        return Batch(rows=rows, positions=positions, labels=self.labels[rows], features=features)


class Objective(nn.Module):
    """What is minimised. Calling it is the only door to what is trained, for whatever many processes must agree on.

    Parameters and persistent buffers besides those of ``model`` are the state of the method: they are trained and
    kept with a stopped run, and are no part of the result.

    Args:
        model: What is corrected, or a part of it; its mode is the caller's business.
    """

    doing: ClassVar[str] = "training"
    """What the progress bar says."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.counted: dict[str, int] = {}
        """What the record counts beside the answers."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over the batch by name; "loss" is minimised, the others are recorded.

        A batch may come in parts (``accumulate``), one call for each: then the sums of all are one step.
        """
        raise NotImplementedError

    def epoch(self, number: int, seed: int, *, count: int) -> Tensor:
        """Positions of the samples of an epoch in order; overridden by methods that draw them otherwise.

        Args:
            number: Of the epoch, from 0.
            seed: Of the run.
            count: How many samples there are.

        Returns:
            (M,) int64, the same M in every epoch; it depends on the arguments alone.
        """
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed * _APART + number))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained; overridden by methods that train a second network at another pace.

        Returns:
            Groups as those of `torch.optim`, each with its "params". Beside these a group may say "lr_factor", with
            which the learning rate of the settings is multiplied, and "weight_decay".
        """
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def after_step(self, found: Mapping[str, Tensor], processes: Processes) -> None:
        """Called after every step with its sums; overridden by methods that keep a state, in buffers of theirs.

        Args:
            found: Float64 numbers on the device; reading one makes a GPU wait. It is not known yet there whether they
                are finite: buffers are put back where they are not.
            processes: Who made the step.
        """

    def enough(self, record: Mapping[str, Any]) -> bool:
        """Say whether training ends with the epoch of this record; the last one of the settings is the end anyway.

        Args:
            record: What the history says about the epoch, measurements included.
        """
        return False

    def broken(self, feed: Feed) -> str:
        """Say what the result makes of samples that is not finite; "" when all is. Called after every epoch."""
        return ""


class Prediction(Objective):
    """Cross entropy (Eq. 3), summed over the batch: plain training, and what most methods add to.

    Args:
        model: Is trained.
        labels: (N,) of the whole training set, for the share of each class.
        logit_adjustment: How much of the log share of each class is added to the logits.
        autocast: Reduced precision of the trunk.
    """

    offsets: Tensor
    model: SplitModel

    def __init__(
        self,
        model: SplitModel,
        labels: Tensor,
        *,
        logit_adjustment: float = 0.0,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(model)
        self.autocast = autocast
        self.register_buffer("offsets", logit_adjustment * log_prior(labels, model.num_classes), persistent=False)

    def logits(self, batch: Batch) -> Tensor:
        """(n, K) float32 of the pictures of a batch."""
        return self.model.head(self.model.features(batch.images, autocast=self.autocast))

    def prediction(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy of the batch, summed."""
        return nn.functional.cross_entropy(logits + self.offsets, batch.labels, reduction="sum")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The cross entropy."""
        return {"loss": self.prediction(self.logits(batch), batch)}

    @torch.no_grad()
    def broken(self, feed: Feed) -> str:
        """Look at features and logits of training pictures, and of noise."""
        device = self.offsets.device
        images = feed.batch(torch.arange(min(8, len(feed)))).images
        noise = torch.randn(2, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
        with borrowed(self.model, device):
            for where, pixels in (("training pictures", images), ("noise", noise)):
                features = self.model.features(pixels, autocast=self.autocast)
                for what, found in (("features", features), ("logits", self.model.head(features))):
                    if not bool(found.isfinite().all()):
                        return f"the {what} of {where} are not finite"
        return ""
