"""What a step of every registered method costs, in units of one of further training (ERM), measured in one run.

python benchmarks/methods.py [--model resnet18] [--size 128] [--batch 16] [--images 64] [--epochs 2] [--rounds 2]
                             [--methods rrr jtt ...] [--device auto] [--keep]

Every method trains as it does for its users, on a generated data set with masks and groups, with simulated answers; the
network is new, so that it makes errors. All are timed in turn, again and again, so that a machine that slows down slows
them all. A step is the time between two steps of the optimizer in the last stage, the median of all; pictures are those
that go through a network in it, the same one in two forms, or in two networks, counted twice. Methods that do not train
the network have no such step: what they cost is the whole of a correction, without decoding, in units of an epoch of
further training. With --keep the numbers become those that `crayon methods` shows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from machine import machine, write_csv
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from crayon_sdk import Explainer, ImageDataset, Preprocessing, SplitModel
from crayon_sdk._base.costs import FILE
from crayon_sdk._base.settings import settings_in
from crayon_sdk.correct import methods
from crayon_sdk.correct.settings import NetworkSettings
from crayon_sdk.data.generated import generate
from crayon_sdk.errors import CrayonError
from crayon_sdk.explain.masks import simulate_answers, simulate_neuron_answers
from crayon_sdk.models.passes import predict

WHOLE = "whole, in epochs of ERM"
# Of the first stages, which are measured as part of nothing but the whole; and of few held-out pictures.
SHORT = {"auxiliary_epochs": 1, "auxiliary_batch_size": 32, "share": 0.5}


class Clock:
    """When steps of an optimizer end, and how many pictures went through a network until then."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.pictures = device, 0
        self.ends: list[tuple[float, int]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        def step(*_: Any) -> None:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.ends.append((time.perf_counter(), self.pictures))

        def look(module: nn.Module, inputs: Any) -> None:
            if isinstance(module, nn.Conv2d) and module.in_channels == 3:
                self.pictures += len(inputs[0])

        hooks = register_optimizer_step_post_hook(step), register_module_forward_pre_hook(look)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def steps(self, last: int) -> tuple[list[float], list[int]]:
        """Seconds and pictures of the last so many steps."""
        ends = self.ends[-last:]
        pairs = list(itertools.pairwise(ends))
        return [end[0] - start[0] for start, end in pairs], [end[1] - start[1] for start, end in pairs]


class Bench:
    """Pictures, answers and a network."""

    def __init__(self, folder: Path, chosen: argparse.Namespace, device: torch.device) -> None:
        self.chosen, self.device = chosen, device
        table = generate("pair", folder / "pictures", size=chosen.size, scale=chosen.images / 1000)
        read = {"group_columns": ("other",)}
        preprocessing = Preprocessing(size=(chosen.size, chosen.size), crop_pct=1.0)
        self.train, self.val = (
            ImageDataset.from_csv(table, split=split, **read).with_preprocessing(preprocessing)
            for split in ("train", "val")
        )
        torch.manual_seed(0)
        plain = timm.create_model(chosen.model, pretrained=False, num_classes=self.train.num_classes).to(device)
        self.model = SplitModel(plain.eval(), preprocessing=preprocessing)
        # A new network gives nearly all pictures one class. Half of them each: then it is right and wrong about both.
        logits = predict(self.model, self.train, device=device)
        with torch.no_grad():
            self.model.classifier.bias[0] -= (logits[:, 0] - logits[:, 1]).median().to(device)
        explainer = Explainer(self.model, device=device)
        self.maps = explainer.explain(self.train)
        patches = explainer.explain_neurons(self.train)
        self.answers = simulate_answers(self.maps, self.train).merge(simulate_neuron_answers(patches, self.train))

    def kinds(self, name: str) -> tuple[bool, dict[str, Any]]:
        """Whether a method trains the network, and what it is made with."""
        kind, chosen = methods[name], self.chosen
        shared = {"epochs": chosen.epochs, "batch_size": chosen.batch, "lr": 1e-6}
        parts = getattr(kind, "parts", ())
        if parts:
            settings: dict[str, Any] = {each: self.kinds(each)[1] for each in parts}
            return any(self.kinds(each)[0] for each in parts), settings
        known, trains = settings_in(kind.settings_kind), issubclass(kind.settings_kind, NetworkSettings)
        wanted = {**SHORT, **(shared if trains else {})}
        return trains, {key: value for key, value in wanted.items() if key in known}

    def measured(self, name: str) -> dict[str, Any]:
        """One correction."""
        trains, settings = self.kinds(name)
        needs = methods[name].needs
        given: dict[str, Any] = {"maps": self.maps} if "maps" in needs else {}
        given |= {"answers": self.answers} if {"answers", "neuron answers"} & needs else {}
        given |= {"evaluate_on": self.val} if {"holdout", "holdout groups"} & needs else {}
        clock = Clock(self.device)
        started = time.perf_counter()
        with clock.running():
            methods[name](self.model, device=self.device, precision="float32", **settings).fit(self.train, **given)
        whole = time.perf_counter() - started
        if not trains:
            return {"whole": whole}
        least = self.chosen.epochs * (len(self.train) // self.chosen.batch)
        seconds, pictures = clock.steps(least)
        return {"whole": whole, "seconds": seconds, "pictures": statistics.median(pictures)}


def main() -> None:
    """Measure, print, write benchmarks/results/methods-MODEL.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=list(methods), choices=list(methods), metavar="NAME")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    device = torch.device("cuda" if chosen.device == "auto" and torch.cuda.is_available() else "cpu")
    if chosen.device != "auto":
        device = torch.device(chosen.device)
    names = ["erm", *(name for name in chosen.methods if name != "erm")]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen, device)
        bench.measured("erm")  # the first is slow
        for _ in range(chosen.rounds):
            for name in names:
                try:
                    found[name].append(bench.measured(name))
                except CrayonError as error:  # noqa: PERF203 - one that cannot be measured leaves the others measured
                    console.print(f"{name}: {type(error).__name__}: {error}", style="red", markup=False)
    rows = report(found, chosen.batch, len(bench.train))
    table = Table(title=f"{chosen.model} at {chosen.size}, batch {chosen.batch}, {machine()['cpu']}, on {device.type}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    if chosen.keep:
        keep(rows, chosen)
    console.print(f"written to {write_csv(f'methods-{chosen.model}-{device.type}.csv', rows).name}")


def keep(rows: list[dict[str, object]], chosen: argparse.Namespace) -> None:
    """Write what `crayon methods` shows."""
    costs = {
        row["method"]: {"step": float(str(row["ratio"])) if row["ratio"] else None, "whole": float(str(row[WHOLE]))}
        for row in rows
    }
    about = {name: getattr(chosen, name) for name in ("model", "size", "batch", "images", "epochs", "rounds")}
    text = json.dumps(about | {"machine": machine(), "methods": dict(sorted(costs.items()))}, indent=1)
    FILE.write_text(text + "\n", encoding="utf-8")


def report(found: dict[str, list[dict[str, Any]]], batch: int, images: int) -> list[dict[str, object]]:
    """A row for every method."""
    steps = {
        name: statistics.median(second for run in runs for second in run["seconds"])
        for name, runs in found.items()
        if runs and "seconds" in runs[0]
    }
    epoch = steps["erm"] * images / batch
    rows: list[dict[str, object]] = []
    for name, runs in found.items():
        if not runs:
            continue
        row: dict[str, object] = {"method": name, "step s": "", "ratio": "", "pictures": "", "per picture": ""}
        if name in steps:
            ratio, views = steps[name] / steps["erm"], statistics.median(run["pictures"] for run in runs) / batch
            row |= {"step s": f"{steps[name]:.4f}", "ratio": f"{ratio:.2f}", "pictures": f"{views:.2f}"}
            row["per picture"] = f"{ratio / views:.2f}"
        whole = statistics.median(run["whole"] for run in runs)
        rows.append(row | {WHOLE: f"{whole / epoch:.2f}", "runs": len(runs)})
    return rows


if __name__ == "__main__":
    main()
