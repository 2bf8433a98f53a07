"""What the correctors share: a copy to work on, measuring it, and the record at the end."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, TypeVar

import torch
from torch import nn

from crayon_sdk._base.process import Processes
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.loop import train
from crayon_sdk.correct.objective import Feed, Objective
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.correct.settings import TrainingSettings
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.data.preprocessing import effective_preprocessing
from crayon_sdk.errors import MismatchError, NonFiniteLossError, SettingsError
from crayon_sdk.models.passes import in_classes_of, predict
from crayon_sdk.models.split import SplitModel, borrowed
from crayon_sdk.results.correction import Correction, CorrectionRecord, versions
from crayon_sdk.results.evaluation import Evaluation, evaluation_of, warn_of_training_pictures

__all__ = ["Fit", "into_training"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Fit:
    """One correction while it is being made.

    Args:
        original: The caller's model; it is copied.
        dataset: The training set.
        evaluate_on: What to measure on, or ``None``.
        device: Where to work.
        autocast: Reduced precision of the trunk.
        settings: What goes into the record.

    Attributes:
        model: The copy that is corrected, on ``device``.
        dataset: The training set, in the classes of the model; ``evaluate_on`` likewise.
        original: Fingerprint of the caller's model.
    """

    def __init__(
        self,
        original: SplitModel,
        dataset: ImageDataset,
        evaluate_on: ImageDataset | None,
        device: torch.device,
        autocast: torch.dtype | None,
        settings: Any,
    ) -> None:
        dataset = in_classes_of(dataset, original)
        if evaluate_on is not None:
            evaluate_on = in_classes_of(evaluate_on, original)
            warn_of_training_pictures(evaluate_on, dataset)
        if getattr(settings, "keep", "last") == "best" and evaluate_on is None:
            raise SettingsError('keep="best" needs data to choose by: pass evaluate_on= (never the test set)')
        records = original.provenance.records
        self._parents = tuple(CorrectionRecord.model_validate(record) for record in records)
        self.original = original.fingerprint
        if self._parents and self._parents[-1].corrected != self.original:
            raise MismatchError(
                "the model was changed after its last correction, so its history would be wrong; "
                "load it with load_model(model.model) to start a new one"
            )
        self._started = time.monotonic()
        self._home, self._dtype = original.device, original.dtype
        # Pruning renames a weight and moves it behind its bias: names, not positions.
        self._trainable = {_plain(name): p.requires_grad for name, p in original.named_parameters()}
        self.model = original.copy().to(device, torch.float32)
        self.model.preprocessing = effective_preprocessing(dataset, original.preprocessing)
        self.model.class_names = dataset.class_names
        self.dataset, self.evaluate_on = dataset, evaluate_on
        self.device, self.autocast, self.settings = device, autocast, settings
        self._cache: PixelCache | None = None
        processes = Processes.found()
        if processes.size > 1:
            processes.check_same(
                json.dumps(self.identity(""), sort_keys=True),
                "model, data and settings",
                "Launch the same command on all machines, with the same files",
            )
        self._before = self._evaluate()

    def identity(self, method: str, **inputs: str) -> dict[str, Any]:
        """The facts that make two runs the same run."""
        settings = asdict(self.settings)
        settings.pop("auto_batch_size", None)  # what came of it is in the state of the run
        return {
            "method": method,
            "settings": settings,
            "model": self.original,
            "dataset": self.dataset.fingerprint,
            "preprocessing": self.model.preprocessing.to_dict(),
            "evaluate_on": self.evaluate_on.fingerprint if self.evaluate_on is not None else "",
            "precision": str(self.autocast or torch.float32),
            **inputs,
        }

    def run_file(self, folder: str | os.PathLike[str] | None, method: str, **inputs: str) -> RunFile | None:
        """Where the state of the run is kept; a file that is there already is looked at before any work.

        Raises:
            MismatchError: The file belongs to another run.
            FileFormatError: The file is not a whole state of a run.
        """
        if folder is None:
            return None
        file = RunFile(folder, self.identity(method, **inputs))
        file.check()
        return file

    def train(self, objective: Objective, feed: Feed, file: RunFile | None, *, measured: bool) -> list[dict[str, Any]]:
        """Train the copy, or a part of it; a loss that is not finite carries the model out with it.

        Args:
            objective: Of the copy.
            feed: Of the training set.
            file: Where the state of the run is kept.
            measured: Measure on ``evaluate_on`` after every epoch.
        """
        on_epoch = self.measure if measured and self.evaluate_on is not None else None
        with self.training(frozen_norm=self.frozen_norm):
            return train(objective, feed, self.settings, processes=Processes.found(), file=file, on_epoch=on_epoch)

    @property
    def frozen_norm(self) -> bool:
        """Whether batch statistics stay as they are."""
        return bool(getattr(self.settings, "batch_norm", "train") == "frozen")

    def start_from(self, start: SplitModel) -> None:
        """Take over the weights of another model of the same architecture."""
        self.model.model.load_state_dict(start.model.state_dict())

    def train_first(
        self, name: str, objective: Objective, feed: Feed, settings: TrainingSettings, file: RunFile | None
    ) -> list[dict[str, Any]]:
        """Train another network in a stage before; a run that was stopped goes on there, too.

        Args:
            name: Of the stage, and of its folder.
            objective: Of that network.
            feed: Of the training set.
            settings: Of that stage; they must follow from those of the run.
            file: Of the run.
        """
        into_training(objective.model, frozen_norm=self.frozen_norm)
        stage = None if file is None else file.beside(name)
        return train(objective, feed, settings, processes=Processes.found(), file=stage)

    def map_size(self, cache: PixelCache) -> tuple[int, int]:
        """(h, w) of the features for the pictures in a cache."""
        with borrowed(self.model, self.device), torch.no_grad():
            shape = self.model.features(cache.get(torch.zeros(1, dtype=torch.int64)), autocast=self.autocast).shape
        return int(shape[2]), int(shape[3])

    @contextlib.contextmanager
    def training(self, *, frozen_norm: bool = False) -> Iterator[None]:
        """Put the whole copy into train mode; a loss that is not finite carries the model out with it."""
        into_training(self.model, frozen_norm=frozen_norm)
        try:
            yield
        except NonFiniteLossError as error:
            error.model = self._finished()
            raise

    def measure(self) -> dict[str, Any]:
        """Accuracies on ``evaluate_on``; "score" is what the best epoch is chosen by."""
        found = self._evaluate()
        return {} if found is None else found.summary() | {"score": found.worst_group}

    def finish(
        self,
        method: str,
        history: Sequence[Mapping[str, Any]],
        answers: AnnotationSet,
        counts: Mapping[str, int],
        *,
        maps: str = "",
    ) -> Correction:
        """Take the copy home and write down what was done to it."""
        provenance = self.model.provenance
        model = self._finished()
        after = self._evaluate()
        record = CorrectionRecord(
            method=method,
            settings=asdict(self.settings),
            history=tuple(dict(entry) for entry in history),
            counts=dict(counts),
            pruned_neurons=tuple((~model.neuron_mask).nonzero().flatten().tolist()),
            original=self.original,
            corrected=model.fingerprint,
            dataset=self.dataset.fingerprint,
            maps=maps,
            answers=AnnotationSet().merge(answers).fingerprint,  # as they are saved: equal ones once
            simulated=answers.is_simulated,
            skipped={sample.id: sample.reason for sample in self.dataset.skipped},
            seconds=round(time.monotonic() - self._started, 3),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=versions(),
        )
        everything = AnnotationSet.from_records(provenance.answers).merge(answers)
        return Correction(model, record, self._parents, everything, self._before, after)

    def _finished(self) -> SplitModel:
        model = self.model.to(self._home, self._dtype).eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self._trainable[_plain(name)])
            parameter.grad = None
        # A pruned layer shows the weight of its last forward, which is not that of the result.
        if not model.neuron_mask.all():
            model.prune(model.neuron_mask)
            for layer in model.final_layers:
                layer.weight = layer.weight.detach()
        return model

    def _evaluate(self) -> Evaluation | None:
        if self.evaluate_on is None:
            return None
        if self._cache is None:
            preprocessing = effective_preprocessing(self.evaluate_on, self.model.preprocessing)
            self._cache = PixelCache(self.evaluate_on, preprocessing, device=self.device)
        with borrowed(self.model, self.device):
            logits = predict(
                self.model, self.evaluate_on, device=self.device, autocast=self.autocast, cache=self._cache
            )
        same_groups = self.evaluate_on.group_names == self.dataset.group_names
        return evaluation_of(logits.argmax(dim=1), self.evaluate_on, self.dataset if same_groups else None)


def into_training(model: ModuleT, *, frozen_norm: bool = False) -> ModuleT:
    """Make all of a network trainable, in train mode.

    Args:
        model: It is changed in place.
        frozen_norm: Leave batch statistics as they are, and normalise with them.
    """
    model.train().requires_grad_(True)
    for module in model.modules():
        if frozen_norm and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def _plain(name: str) -> str:
    return name.removesuffix("_orig")
