"""How long the rest of a table takes: from its finished cells, else from a step of training here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from crayon_sdk._base.methods import made_of
from crayon_sdk._base.process import resolve_device
from crayon_sdk._base.progress import duration
from crayon_sdk.models.split import SplitModel
from crayon_sdk.paper.runner import Cell

__all__ = ["Estimate", "estimated", "seconds_of_step", "work_of"]

_PROBE = 16  # pictures of the step that an estimate is made from
# What an epoch costs, in epochs of further training, roughly: two networks, two passes, a derivative of the input.
_COSTS = {"lff": 2.0, "lc": 2.0, "softcon": 3.0, "flac": 2.0, "rrr": 2.5, "gradmask": 2.5, "actdiff": 2.0, "jtt": 2.0}
_LAST_LAYER = ("pruning", "refit", "dfr", "dfr-tr", "afr", "evals")  # look at the pictures, and train no trunk
_LOOK = 0.3  # of what an epoch costs


@dataclass(frozen=True)
class Estimate:
    """How long a table takes.

    Attributes:
        cells: How many it has, or may have at most.
        finished: How many are there.
        seconds: Of the others, one after the other, roughly.
        measured: Whether that is known from finished cells alone; else from a step of training here.
    """

    cells: int
    finished: int
    seconds: float
    measured: bool

    @property
    def in_words(self) -> str:
        """As people read it."""
        left = self.cells - self.finished
        source = "finished cells" if self.measured else "one step of training here, so within a factor of two or three"
        return (
            f"{self.cells:,} cells, {self.finished:,} of them finished; the other {left:,} take about "
            f"{duration(self.seconds)} of one process, by {source}"
            if left
            else f"{self.cells:,} cells, all finished"
        )

    @property
    def so_far(self) -> str:
        """Shorter, for the end of a line about a cell."""
        ahead = f", about {duration(self.seconds)} to go" if self.seconds else ""
        return f"{self.finished:,} of {self.cells:,}{ahead}"


def work_of(method: str, settings: Mapping[str, Any], pictures: float) -> float:
    """Pictures that go through a network, in those of further training.

    Args:
        method: Of the registry; "" for the model as it is.
        settings: Its settings; of one that is made of others ``PART.SETTING``.
        pictures: How many it trains on.

    Example:
        >>> work_of("erm", {"epochs": 2}, 100), work_of("actdiff", {"epochs": 2}, 100)
        (200.0, 400.0)
    """
    parts, found = made_of(method) if method else (), 0.0
    for part in parts:
        epochs = settings.get("epochs" if len(parts) == 1 else f"{part}.epochs", 6)
        found += pictures * (_LOOK if part in _LAST_LAYER else epochs * _COSTS.get(part, 1.0))
    return found


def seconds_of_step(model: SplitModel, device: str | torch.device) -> float:
    """Seconds of a picture of further training, by one step of a copy of the model."""
    place = resolve_device(device, model.device)
    network = model.copy().to(place).train()
    images = torch.zeros(_PROBE, 3, *network.preprocessing.size, device=place)
    labels = torch.zeros(_PROBE, dtype=torch.int64, device=place)
    taken = []
    for _ in range(2):  # the first one is slower
        started = time.monotonic()
        functional.cross_entropy(network.head(network.features(images)), labels).backward()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        taken.append(time.monotonic() - started)
    return min(taken) / _PROBE


def estimated(cells: Iterable[tuple[str, float, Cell | None]], step: Callable[[], float] | None = None) -> Estimate:
    """Estimate from what is finished.

    Args:
        cells: Of each its method, its work (0 where nothing is trained), and itself if it is finished.
        step: Gives the seconds of a picture of further training, for methods of which no cell is finished; without it
            they are taken to be as fast as the others.

    Example:
        >>> estimated([("erm", 10.0, {"seconds": 5.0, "error": ""}), ("erm", 30.0, None)]).seconds
        15.0
    """
    rates: dict[str, list[float]] = {}
    missing: list[tuple[str, float]] = []
    total = 0
    for method, work, cell in cells:
        total += 1
        if cell is None:
            missing.append((method, work))
        elif work and not cell["error"]:
            rates.setdefault(method, []).append(cell["seconds"] / work)
    known = {method: sum(each) / len(each) for method, each in rates.items()}
    unknown = {method for method, work in missing if work} - known.keys()
    other = step() if step is not None and unknown else sum(known.values()) / len(known) if known else 0.0
    seconds = sum(known.get(method, other) * work for method, work in missing)
    return Estimate(total, total - len(missing), seconds, measured=not unknown)
