"""Processes that work together, as a launcher starts them, but forked from one that has loaded everything."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers_correction import (
    _processes,
    _start_server,
    half_and_half,
    neuron_answers,
    noise_pictures,
    random_maps,
    split_model,
)

from crayon_sdk import cli
from crayon_sdk._base.files import write_json, write_tensors
from crayon_sdk._base.launch import launched
from crayon_sdk._base.methods import methods
from crayon_sdk._base.process import Processes
from crayon_sdk.correct import loop, work
from crayon_sdk.correct.erm import FurtherTraining
from crayon_sdk.correct.objective import FeatureFeed
from crayon_sdk.correct.settings import AttentionSettings
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import CrayonError
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.results.evaluation import evaluate

# As a user types it. Without a GPU it starts one process, unless it is told --multi_gpu.
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


class Group:
    """Some processes that run a function of this module together; what ends one is in ``said``."""

    def __init__(self, size: int, target: Callable[..., None], folder: Path, *arguments: Any) -> None:
        _start_server()
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.folder = folder
        self.members = [
            _processes.Process(target=_member, args=(index, size, port, target, folder, arguments), daemon=True)
            for index in range(size)
        ]
        for each in self.members:
            each.start()

    def join(self, seconds: float = 120.0) -> list[int | None]:
        """Exit codes; ``None`` of what still runs when the time is up, which is then killed."""
        end = time.monotonic() + seconds
        for each in self.members:
            each.join(max(end - time.monotonic(), 0))
        codes = [each.exitcode for each in self.members]
        for each in self.members:
            each.kill()
        return codes

    def said(self, index: int) -> str:
        """What ended a process."""
        path = self.folder / f"said-{index}.txt"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def send(self, index: int, number: int) -> None:
        os.kill(self.members[index].pid or 0, number)


def _member(
    index: int, size: int, port: int, target: Callable[..., None], folder: Path, arguments: tuple[Any, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if size > 1:
        os.environ |= {"RANK": str(index), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(port)
    try:
        target(folder, *arguments)
    except BaseException as error:
        known = isinstance(error, CrayonError | KeyboardInterrupt)
        text = f"{type(error).__name__}: {error}" if known else traceback.format_exc()
        (folder / f"said-{index}.txt").write_text(text, encoding="utf-8")
        os._exit(1)


FAST: dict[str, Any] = {"epochs": 2, "batch_size": 5, "device": "cpu"}
# By how much they learn, and what makes them look at everything that several processes must agree on.
SETTINGS: dict[str, dict[str, Any]] = {
    "actdiff": {"weight": 0.1},
    "boundingbox": {"per_batch": True},
    "evals": {"share": 0.5},
    "gradia": {"per_batch": True},
    "groupdro": {"step": 0.5},
    "jtt": {"first_epochs": 1},
}


def pictures(count: int = 13, seed: int = 0) -> ImageDataset:
    """Noise with groups and masks, of a number that no number of processes divides."""
    plain = noise_pictures(count, seed=seed)
    masks = torch.zeros(count, 64, 64, dtype=torch.bool)
    masks[:, 8:40, 16:48] = True
    return ImageDataset.from_torch(
        [(plain.row(row, None), int(plain.labels[row])) for row in range(count)],
        class_names=plain.class_names,
        ids=plain.ids,
        groups={"place": [("land", "water")[row // 2 % 2] for row in range(count)]},
        masks=list(masks),
        preprocessed=True,
        preprocessing=plain.preprocessing,
    )


def correct_by(name: str, norm: str | None = None, **more: Any) -> Any:
    """One correction by a method, on small data."""
    kind, model, train = methods[name], split_model(), pictures()
    settings = SETTINGS.get(name, {}) | more
    given: dict[str, Any] = {}
    if "maps" in kind.needs:
        given["maps"] = random_maps(train)
    if kind.needs & {"answers", "neuron answers"}:
        given["answers"] = half_and_half(train).merge(neuron_answers(range(10), range(10, 20)))
    given["evaluate_on"] = pictures(16, seed=1)
    if name == "both":
        fast = {key: value for key, value in FAST.items() if key != "device"} | {"optimizer": "sgd"}
        fast |= more | ({"batch_norm": norm} if norm else {})
        return kind(model, pruning={"epochs": 2, "batch_size": 5}, attention=fast, device="cpu").fit(train, **given)
    known = getattr(kind.settings_kind, "__dataclass_fields__", {})
    fast = {key: value for key, value in FAST.items() if key in known or key == "device"}
    fast |= {"optimizer": "sgd", "lr": 1e-3} if "optimizer" in known else {}
    fast |= {"batch_norm": norm} if norm and "batch_norm" in known else {}
    return kind(model, **fast | settings).fit(train, **given)


def by_methods(folder: Path, names: tuple[str, ...], norms: tuple[str, ...], parts: int = 1) -> None:
    """Correct by methods in float64, with batches in parts, and write down the weights, or why a method refuses."""
    weights, said = {}, {}
    for name in names:
        for norm in norms:
            found: list[Any] = []

            def train_finely(objective: Any, feed: Any, *others: Any, _found: list[Any] = found, **named: Any) -> Any:
                if isinstance(feed, FeatureFeed):
                    feed = FeatureFeed([each.double() for each in feed.features], feed.labels)
                history = loop.train(objective.double(), feed, *others, **named)
                _found.append({key: each.clone() for key, each in objective.model.state_dict().items()})
                return history

            work.train = train_finely
            try:
                known = getattr(methods[name], "settings_kind", AttentionSettings).__dataclass_fields__
                made = correct_by(name, norm, **{"accumulate": parts} if "accumulate" in known and parts > 1 else {})
            except CrayonError as error:
                said[name] = f"{type(error).__name__}: {error}"
                continue
            finally:
                work.train = loop.train
            last = found[-1] if found else made.model.plain_state_dict()
            weights |= {f"{name}/{norm}/{key}": each for key, each in last.items()}
    write_tensors(folder / "weights.safetensors", weights, said)


def look(folder: Path) -> None:
    """Explain and evaluate, and write down what came out."""
    model, data = split_model(), pictures(23)
    explainer = Explainer(model, batch_size=4, device="cpu")
    maps = explainer.explain(data)
    maps.save(folder / "maps.safetensors")
    halves = [maps.select(data.ids[:9]), maps.select(data.ids[9:])]
    assert len(SaliencyMaps.concatenate(halves, folder / "joined.safetensors")) == 23
    explainer.explain_neurons(data).save(folder / "patches.safetensors")
    explainer.model.mixes_channels = lambda: True  # as an attention head would: patches are placed one by one
    explainer.explain_neurons(data).save(folder / "mixed.safetensors")
    evaluate(model, data, batch_size=4, device="cpu").save(folder / "evaluation.json")
    evaluate(model, pictures(3), batch_size=4, device="cpu").save(folder / "few.json")


def train_at_a_pace(folder: Path, pace: float = 0.0, nan_at: int = -1) -> None:
    """Train with a state in the folder, each step lasting longer by ``pace`` seconds.

    At a step the second process may come to NaN, alone. What each process ended with lies in ``INDEX.safetensors``.
    """
    index, step = Processes.found().index, loop._Training._step

    def watched(self: Any, *batch: Any) -> Any:
        (folder / f"step-{index}").write_text(str(self.state.step), encoding="utf-8")
        time.sleep(pace)
        if index == 1 and self.state.step == nan_at:
            self.objective.offsets.fill_(float("nan"))
        return step(self, *batch)

    loop._Training._step = watched
    settings: dict[str, Any] = FAST | {"epochs": 4, "optimizer": "sgd", "lr": 1e-3, "average_decay": 0.5}
    method = FurtherTraining(split_model(), **settings, checkpoint_dir=folder / "state")
    corrected = method.fit(pictures(), evaluate_on=pictures(16, seed=1))
    weights = {name: each.double() for name, each in corrected.model.plain_state_dict().items()}
    os.environ.pop("RANK", None)  # every process writes here
    write_tensors(folder / f"{index}.safetensors", weights)
    write_json(folder / f"{index}.json", [entry["loss"] for entry in corrected.history])


def disagree(folder: Path, what: str) -> None:
    """Launched with other settings, or more processes than there are samples in a batch."""
    index = Processes.found().index
    if what == "settings":
        FurtherTraining(split_model(), **FAST, lr=0.1 * (1 + index)).fit(pictures())
    FurtherTraining(split_model(), **FAST | {"batch_size": 1}).fit(pictures())


def by_shell(folder: Path, *lines: list[str]) -> None:
    """Commands as from the shell, one after the other; what is said goes to ``INDEX.log``."""
    descriptor = os.open(folder / f"{launched()[0]}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for line in lines:
        sys.argv = ["crayon", *line]
        try:
            cli.main()
        except SystemExit as end:
            if end.code not in (0, None):
                raise
