"""Which pictures to ask people about first."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.pixels import Workers
from crayon_sdk.errors import MismatchError, SettingsError, first_few
from crayon_sdk.explain.maps import SaliencyMaps, readable
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.explain.questions import Question, open_questions
from crayon_sdk.functional.selection import k_centre, surprise
from crayon_sdk.models.passes import stream_features
from crayon_sdk.models.split import SplitModel, borrowed

__all__ = ["Method", "Outlook", "look", "suggest"]

Method = Literal["random", "coverage", "uncertain"]
"""In which order pictures are asked about."""

_EVERYTHING = 2**31


@dataclass(frozen=True)
class Outlook:
    """What a model makes of the pictures of some maps, in their order.

    Attributes:
        neurons: (N, D) float32, inputs of the final classifier (pooled trunk features), each of length one.
        surprise: (N,) float32, ``-log p`` of the class that the map is for.
    """

    neurons: Tensor
    surprise: Tensor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: It cannot be written.
        """
        write_tensors(path, {"neurons": self.neurons, "surprise": self.surprise})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Outlook:
        """Read what `save` wrote.

        Raises:
            FileFormatError: The file is truncated, or holds something else.
        """
        tensors, _ = read_tensors(path)
        with readable(path):
            return cls(tensors["neurons"], tensors["surprise"])


def look(
    model: SplitModel,
    dataset: ImageDataset,
    maps: SaliencyMaps,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
    batch_size: int = 64,
    num_workers: Workers = "auto",
) -> Outlook:
    """Run a model once over the pictures of maps.

    Args:
        model: The model that was explained.
        dataset: Has the pictures.
        maps: Which pictures, and for which class of each.
        device: Where to compute.
        autocast: Reduced precision of the trunk.
        batch_size: Pictures at a time.
        num_workers: Processes that decode.

    Raises:
        MismatchError: The maps are of another model, of other pictures, or for other classes.
    """
    if maps.model and maps.model != model.fingerprint:
        raise MismatchError(
            f"the maps are of another model ({maps.model[:12]}) than this one ({model.fingerprint[:12]}); "
            "choose with the model that was explained, or at random"
        )
    known = {sample: position for position, sample in enumerate(as_dataset(dataset).ids)}
    missing = [sample for sample in maps.ids if sample not in known]
    if missing:
        raise MismatchError(
            f"the data set lacks {len(missing)} of {len(maps)} pictures that there are maps of "
            f"({first_few(missing)}); give the one that was explained"
        )
    if len(maps) and int(maps.targets.max()) >= model.num_classes:
        raise MismatchError(
            f"the maps are for classes up to {int(maps.targets.max())}, and the model has {model.num_classes}; "
            "choose with the model that was explained, or at random"
        )
    order = [known[sample] for sample in maps.ids]
    neurons, doubts = [], []
    with borrowed(model, device), torch.no_grad():
        stream = stream_features(
            model,
            dataset,
            device=device,
            autocast=autocast,
            batch_size=batch_size,
            num_workers=num_workers,
            order=order,
            doing="looking",
        )
        for targets, (_, features) in zip(maps.targets.split(batch_size), stream, strict=True):
            neurons.append(F.normalize(model.penultimate(features).float(), dim=1).cpu())
            doubts.append(surprise(model.head(features).float().cpu(), targets))
    return Outlook(torch.cat(neurons), torch.cat(doubts))


def suggest(
    maps: SaliencyMaps | NeuronPatches,
    answers: AnnotationSet,
    outlook: Callable[[], Outlook],
    *,
    count: int = 20,
    votes: int = 1,
    seed: int = 0,
    method: Method = "random",
) -> tuple[Question, ...]:
    """Choose what to ask next.

    Args:
        maps: Maps, or patches, to ask about; maps without evidence are left out.
        answers: What was answered.
        outlook: Gives what the model makes of the pictures of the maps; not called for "random".
        count: How many questions at most, at least 1.
        votes: How many people are to answer each, at least 1.
        seed: Of the random order, which the other methods start from and break ties with.
        method: "random"; "coverage": the picture whose neurons differ most from all that were asked about
            before ([`k_centre`][crayon_sdk.functional.selection.k_centre]); or "uncertain": the picture
            whose class the model expected least ([`surprise`][crayon_sdk.functional.selection.surprise]).

    Returns:
        Questions in the order to ask them. With more votes the same call gives the same order, so that the
        next person starts with the pictures that the first one had.

    Raises:
        SettingsError: A setting is out of range, or patches are to be chosen by anything but chance.
    """
    if method not in get_args(Method):
        raise SettingsError(f"expected method to be one of {', '.join(get_args(Method))}, got {method!r}")
    if method == "random":
        return open_questions(maps, answers, count=count, votes=votes, seed=seed)
    if not isinstance(maps, SaliencyMaps):
        raise SettingsError(f"method={method!r} chooses pictures; patches of neurons are asked about at random")
    if count < 1:
        raise SettingsError(f"expected count >= 1, got {count}")
    asked = open_questions(maps, answers, count=_EVERYTHING, votes=votes, seed=seed)
    if not asked:
        return ()
    seen, row_of = outlook(), {sample: row for row, sample in enumerate(maps.ids)}
    rows = torch.tensor([row_of[question.id] for question in asked])
    if method == "uncertain":
        order = seen.surprise[rows].argsort(descending=True, stable=True)
    else:
        done = maps.evidence.clone()
        done[rows] = False  # the rest has its answers
        order = k_centre(seen.neurons[rows], seen.neurons[done], count=min(count, len(rows)))
    return tuple(asked[position] for position in order[:count].tolist())
