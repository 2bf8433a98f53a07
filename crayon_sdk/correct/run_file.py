"""The file that a training run continues from: safetensors, replaced in one piece."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crayon_sdk._base.files import check_writable, read_metadata, read_tensors, write_tensors
from crayon_sdk.correct.objective import Objective
from crayon_sdk.errors import FileFormatError, MismatchError

__all__ = ["Run", "RunFile", "check_run_folder"]

_FORMAT = "crayon-training-run"
_PARTS = ("module", "objective", "average", "best", "optimizer")


@dataclass
class Run:
    """Where a training run stands.

    Attributes:
        step: Optimizer steps done.
        history: One record per finished epoch.
        sums: Sums of the running epoch, per name of a loss.
        best: Weights of the best epoch so far, when one is kept.
        best_score: Its score.
        parts: In how many parts a batch goes through the network; 0 where that was not settled yet.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = -math.inf
    parts: int = 0


def check_run_folder(folder: str | os.PathLike[str] | None) -> None:
    """See that the state of a run can be written in a folder, before any work is done.

    Raises:
        OutputError: It cannot.
    """
    if folder is not None:
        check_writable(folder)


# What was done before there were these settings, and a file does not say.
_BEFORE = {
    "settings.spread": "never",
    "settings.balance": "never",
    "settings.accumulate": 1,
    "settings.mirror": 0.0,
    "settings.crop_area": 1.0,
}


class RunFile:
    """State of one training run on disk.

    Args:
        folder: Where the file lies; one run per folder.
        identity: JSON-able facts that make two runs the same run (settings,
            fingerprints of model, data and answers). A file of another run is
            refused, never overwritten.
        every_seconds: How often the state is written within an epoch.
    """

    def __init__(
        self, folder: str | os.PathLike[str], identity: Mapping[str, Any], *, every_seconds: float = 60.0
    ) -> None:
        self.path = Path(folder) / "training.safetensors"
        self.identity = json.loads(json.dumps(identity))
        self.every_seconds = every_seconds
        self._written = time.monotonic()
        self._remedy = f"Nothing can go on from it: delete {str(self.path)!r}, and the run starts from the beginning."

    def beside(self, name: str) -> RunFile:
        """The file of another stage of the same run, in a folder of its own."""
        identity = {**self.identity, "stage": name}
        return RunFile(self.path.parent / name, identity, every_seconds=self.every_seconds)

    def check(self) -> None:
        """See that the file, when there is one, is the state of this run, before any work is done.

        Raises:
            MismatchError: The file belongs to another run; the message names what differs.
            FileFormatError: The file is not a whole state of a run.
        """
        if self.path.exists():
            self._manifest(read_metadata(self.path, remedy=self._remedy))

    def is_due(self) -> bool:
        """Tell whether the last writing is long enough ago."""
        return time.monotonic() - self._written >= self.every_seconds

    def save(
        self, objective: Objective, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor], run: Run
    ) -> None:
        """Write the whole state in one piece, with every state of the objective.

        Raises:
            OutputError: It cannot be written; the file from before is as it was.
        """
        tensors = {f"module.{name}": tensor for name, tensor in objective.model.state_dict().items()}
        tensors |= {f"objective.{name}": tensor for name, tensor in _own_state(objective).items()}
        tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in run.best.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
        manifest = {
            "identity": self.identity,
            "step": run.step,
            "history": run.history,
            "sums": run.sums,
            "best_score": run.best_score if run.best else None,
            "parts": run.parts,
        }
        write_tensors(self.path, tensors, {"format": _FORMAT, "version": "1", "manifest": json.dumps(manifest)})
        self._written = time.monotonic()

    def restore(
        self, objective: Objective, optimizer: torch.optim.Optimizer, average: dict[str, Tensor], run: Run
    ) -> bool:
        """Continue from the file if there is one; everything given is changed in place.

        Raises:
            MismatchError: The file belongs to another run; the message names what differs.
            FileFormatError: The file is not a whole state of a run.
        """
        if not self.path.exists():
            return False
        tensors, metadata = read_tensors(self.path, remedy=self._remedy)
        manifest = self._manifest(metadata)
        try:
            self._fill(objective, optimizer, average, run, tensors, manifest)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise self._damaged(error) from error
        return True

    def _manifest(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        if metadata.get("format") != _FORMAT or metadata.get("version") != "1" or "manifest" not in metadata:
            raise FileFormatError(
                f"{str(self.path)!r} is not the state of a training run in version 1; move it away, "
                "or use another checkpoint_dir"
            )
        try:
            manifest: dict[str, Any] = json.loads(metadata["manifest"])
            identity = _flat(manifest["identity"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(error) from error
        self._check(identity)
        return manifest

    def _damaged(self, error: Exception) -> FileFormatError:
        detail = " ".join(str(error).split())[:200]
        return FileFormatError(f"{str(self.path)!r} is damaged ({type(error).__name__}: {detail}). {self._remedy}")

    def _fill(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        average: dict[str, Tensor],
        run: Run,
        tensors: Mapping[str, Tensor],
        manifest: Mapping[str, Any],
    ) -> None:
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in _PARTS}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        objective.model.load_state_dict(parts["module"])
        own = _own_state(objective)
        if own.keys() != parts["objective"].keys():
            raise KeyError(f"state of {type(objective).__name__}: {sorted(own.keys() ^ parts['objective'].keys())}")
        for name, tensor in parts["objective"].items():
            own[name].copy_(tensor)
        for name, tensor in parts["average"].items():
            average[name].copy_(tensor)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition(".")
            weight = weights[int(index)]
            if tensor.shape == weight.shape:  # a fused optimizer takes both to lie in one order, such as channels last
                tensor = torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor)
            state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        run.step, run.history, run.sums = int(manifest["step"]), list(manifest["history"]), dict(manifest["sums"])
        run.parts = int(manifest.get("parts", 0))  # not in files of earlier versions
        if parts["best"]:
            run.best, run.best_score = parts["best"], float(manifest["best_score"])

    def _check(self, there: Mapping[str, Any]) -> None:
        now = _flat(self.identity)
        there = {name: value for name, value in _BEFORE.items() if name in now} | dict(there)
        different = [key for key in sorted(set(there) | set(now)) if there.get(key) != now.get(key)]
        if different:
            listed = ", ".join(
                f"{key} (there {_short(there.get(key))}, now {_short(now.get(key))})" for key in different
            )
            raise MismatchError(
                f"{str(self.path.parent)!r} holds the state of another run; different: {listed}. "
                "Use another checkpoint_dir, or delete this one"
            )


def _own_state(objective: Objective) -> dict[str, Tensor]:
    """What a method keeps besides the weights of the result."""
    return {name: value for name, value in objective.state_dict().items() if not name.startswith("model.")}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested facts under dotted names, so that a message names the one setting that differs."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}..."
