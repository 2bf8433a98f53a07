"""Correct a real model on real pictures: Original, ERM, Attention, Pruning, Pruning+Attention.

python benchmarks/birds.py [--split test] [--seeds 0 1 2] [--methods erm attention pruning both] [--output DIR]

Answers are simulated from the object masks of the training split; settings are the
SDK's defaults, which were chosen on the validation split (docs/benchmarks/birds.md
says how). Interrupted, it goes on where it was. Needs the folder ``shared`` beside
the project; its pictures may not be redistributed, and neither may the contact sheet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from machine import RESULTS, machine
from rich.console import Console
from rich.table import Table

import crayon_sdk as crayon
from crayon_sdk import evaluation, pictures

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
METHODS = ("erm", "attention", "pruning", "both")
NAMES = {"original": "Original", "erm": "ERM", "attention": "Attention", "pruning": "Pruning", "both": "Pruning+Attention"}


class Birds:
    """The data, the model, and what was explained and answered once for all seeds."""

    def __init__(self, split: str, output: Path) -> None:
        table = SHARED / "birds" / "metadata.csv"
        self.model = crayon.load_model(SHARED / "weights" / "birds_original")
        self.train = crayon.ImageDataset.from_csv(table, split="train")
        self.held_out = crayon.ImageDataset.from_csv(table, split=split)
        self.output = output
        explainer = crayon.Explainer(self.model)
        started = time.monotonic()
        self.maps = explainer.explain(self.train)
        self.patches = explainer.explain_neurons(self.train, patches_per_neuron=PATCHES)
        self.seconds_explaining = time.monotonic() - started
        self.answers = crayon.simulate_answers(self.maps, self.train).merge(
            crayon.simulate_neuron_answers(self.patches, self.train)
        )

    def correct(self, method: str, seed: int) -> crayon.Correction:
        """One correction, continued where an earlier run of this script was stopped."""
        folder = self.output / "runs" / f"{method}-{seed}"
        held_out = self.held_out
        if method == "pruning":
            return crayon.NeuronPruner(self.model, seed=seed).fit(self.train, self.answers, held_out)
        model = self.model
        if method == "both":
            model = crayon.NeuronPruner(self.model, seed=seed).fit(self.train, self.answers).model
        weights = {"alpha": 0.0, "beta": 0.0} if method == "erm" else {}
        corrector = crayon.AttentionCorrector(model, seed=seed, checkpoint_dir=folder, **weights)
        return corrector.fit(self.train, self.maps, self.answers, held_out)


PATCHES = 3


def main() -> None:
    """Run, print the table, write JSON and the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--output", type=Path, default=RESULTS / "birds")
    chosen = parser.parse_args()
    birds = Birds(chosen.split, chosen.output)
    rows = [row(birds, "original", None, 0.0, crayon.evaluate(birds.model, birds.held_out, train=birds.train))]
    for seed in chosen.seeds:
        for method in chosen.methods:
            found = birds.correct(method, seed)
            rows.append(row(birds, method, seed, found.record.seconds, found.after, found.history))
            Console().print(rows[-1]["method"], seed, rows[-1]["summary"])
            if method == "attention" and seed == chosen.seeds[0]:
                sheet(birds, found)
    print_table(rows, chosen.split)
    result = {"machine": machine(), "split": chosen.split, "answers": birds.answers.counts(), "rows": rows}
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / f"{chosen.split}.json").write_text(json.dumps(result, indent=1))
