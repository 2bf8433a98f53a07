"""The Backgrounds Challenge as one call: accuracies on its variants, and the gap between two of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from crayon_sdk._base.process import resolve_device, resolve_precision
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.functional import metrics
from crayon_sdk.models.passes import predict
from crayon_sdk.models.split import as_split_model, borrowed
from crayon_sdk.paper.datasets.backgrounds import IMAGENET_TO_NINE, NINE, read_variants
from crayon_sdk.results.evaluation import Evaluation, evaluate, evaluation_of, per_cent

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Challenge", "run_challenge"]

_IMAGENET = 1000


@dataclass(frozen=True)
class Challenge:
    """How a model does on the Backgrounds Challenge.

    Attributes:
        variants: An evaluation of each variant by its name, such as "mixed_rand"; class 9 is none of the nine.
        many_classes: The model has the classes of ImageNet, which were mapped to the nine.

    Example:
        >>> from crayon_sdk.results.evaluation import GroupResult
        >>> same, rand = (Evaluation((GroupResult("dog", right, 100),)) for right in (91, 78))
        >>> round(Challenge({"mixed_same": same, "mixed_rand": rand}).background_gap, 2)
        0.13
    """

    variants: Mapping[str, Evaluation]
    many_classes: bool = False

    @property
    def background_gap(self) -> float:
        """BG-Gap: accuracy(Mixed-Same) - accuracy(Mixed-Rand), in [-1, 1]; lower is better."""
        return metrics.background_gap(self.variants["mixed_same"].accuracy, self.variants["mixed_rand"].accuracy)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: accuracies and the gap."""
        return {
            "accuracy": {name: found.accuracy for name, found in self.variants.items()},
            "background_gap": self.background_gap,
            "many_classes": self.many_classes,
        }

    def table(self) -> Table:
        """A rich table for the terminal."""
        from rich.table import Table

        table = Table("variant", "pictures", "accuracy %", title="Backgrounds Challenge")
        for name, found in self.variants.items():
            table.add_row(name, f"{sum(group.total for group in found.groups):,}", per_cent(found.accuracy))
        table.add_section()
        table.add_row("BG-Gap (points)", "", per_cent(self.background_gap))
        return table


def run_challenge(
    model: nn.Module,
    data: str | os.PathLike[str] | Mapping[str, ImageDataset],
    *,
    own_crop: bool = False,
    strict: bool = True,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Challenge:
    """Measure a model on all variants that there are, as the challenge does.

    Pictures are shown whole, without the model's crop, and with its mean and std. A model of ImageNet's 1,000 classes,
    in their own order, is right where the class that it names is one of those that make up the right one of the nine; a
    class that is none of the nine is wrong.

    Args:
        model: With nine classes (by their names, or in the order of the folders), or with ImageNet's 1,000.
        data: The folder of the challenge, or its variants by name.
        own_crop: Resize and crop as the model does otherwise, as in the runs of the CRAYON paper.
        strict: Refuse counts that are not the challenge's.
        batch_size: Pictures at a time.
        device: "auto" or a torch device.
        precision: "auto", "float32" or "bfloat16" (of the trunk).

    Returns:
        Accuracies and the gap.

    Raises:
        DataError: Mixed-Same or Mixed-Rand is not there, or not whole.
        SettingsError: The model has other classes.
    """
    split = as_split_model(model)
    known = data if isinstance(data, Mapping) else read_variants(data, strict=strict)
    lacking = [name for name in ("mixed_same", "mixed_rand") if name not in known]
    if lacking:
        raise DataError(f"expected the variants mixed_same and mixed_rand, of which the gap is, got no {lacking[0]}")
    many = split.num_classes == _IMAGENET
    if not many and split.num_classes != len(NINE):
        raise SettingsError(
            f"expected a model of the nine classes of the challenge or of ImageNet's {_IMAGENET:,}, got one of "
            f"{split.num_classes:,}"
        )
    place = resolve_device(device, split.device)
    found = {}
    for name, dataset in known.items():
        shown = dataset
        if not own_crop and dataset.preprocessing is None:
            shown = dataset.with_preprocessing(replace(split.preprocessing, crop_pct=1.0, crop_mode="squash"))
        if not many:
            found[name] = evaluate(split, shown, batch_size=batch_size, device=place, precision=precision)
            continue
        autocast = resolve_precision(precision, place)
        with borrowed(split, place):
            logits = predict(split, shown, device=place, autocast=autocast, batch_size=batch_size)
        nine = torch.full((_IMAGENET,), len(NINE))
        nine[list(IMAGENET_TO_NINE)] = torch.tensor(list(IMAGENET_TO_NINE.values()))
        found[name] = evaluation_of(nine[logits.argmax(dim=1)], shown)
    return Challenge(found, many)
