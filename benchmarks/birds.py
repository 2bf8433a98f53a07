"""Correct a real model on real pictures: Original, ERM, Attention, Pruning, Pruning+Attention.

python benchmarks/birds.py [--runs attention:0 erm:0 ...] [--precision bfloat16] [--output DIR]

Answers are simulated from the object masks of the training split; settings are the
SDK's defaults, which were chosen on the validation split (docs/benchmarks/birds.md
says how). Interrupted, it goes on where it was. Needs the folder ``shared`` beside
the project; its pictures may not be redistributed, and neither may the contact sheet.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from machine import RESULTS, machine
from rich.console import Console
from rich.table import Table

import crayon_sdk as crayon
from crayon_sdk.correct import methods
from crayon_sdk.explain import contact_sheets
from crayon_sdk.results import evaluation

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
METHODS = ("erm", "erm-adjusted", "attention", "pruning", "pruning-fifth", "pruning-never", "both")
ABLATIONS = ("guidance", "swap", "refit")
NAMES = {
    "original": "Original",
    "erm": "ERM (same epochs, no guidance)",
    "erm-adjusted": "ERM, logit-adjusted",
    "attention": "Attention",
    "pruning": "Pruning",
    "pruning-fifth": "Pruning, a fifth of the neurons answered",
    "pruning-never": "Pruning, what was answered is cut",
    "both": "Pruning+Attention",
    "guidance": "Attention without exchanged backgrounds",
    "swap": "Attention without guidance of maps",
    "refit": "Last layer refitted, nothing cut",
}


class Birds:
    """The data, the model, and what was explained and answered once for all seeds."""

    def __init__(self, output: Path, precision: str) -> None:
        table = SHARED / "birds" / "metadata.csv"
        self.model = crayon.load_model(SHARED / "weights" / "birds_original")
        # Several times faster on a CPU; what is computed is the same.
        self.model.to(memory_format=torch.channels_last)
        self.splits = {name: crayon.ImageDataset.from_csv(table, split=name) for name in ("train", "val", "test")}
        self.train = self.splits["train"]
        self.output, self.precision = output, precision
        explainer = crayon.Explainer(self.model, score="margin")
        self.maps = explainer.explain(self.train)
        self.patches = explainer.explain_neurons(self.train)
        self.answers = crayon.simulate_answers(self.maps, self.train)
        self.neuron_answers = crayon.simulate_neuron_answers(self.patches, self.train)

    def fifth(self, seed: int) -> crayon.AnnotationSet:
        """Answers about a fifth of the neurons, drawn at random."""
        order = torch.randperm(len(self.patches), generator=torch.Generator().manual_seed(seed))
        chosen = set(order[: len(self.patches) // 5].tolist())
        return crayon.AnnotationSet(each for each in self.neuron_answers.neuron_answers if each.neuron in chosen)

    def correct(self, method: str, seed: int) -> crayon.Correction:
        """One correction."""
        pruner = methods["pruning"](self.model, seed=seed)
        if method == "refit":
            keep_all = (answer.model_copy(update={"answer": "yes"}) for answer in self.neuron_answers.neuron_answers)
            return pruner.fit(self.train, crayon.AnnotationSet(keep_all))
        if method == "pruning-never":
            return methods["pruning"](self.model, seed=seed, spread="never").fit(self.train, self.neuron_answers)
        if method.startswith("pruning"):
            return pruner.fit(self.train, self.fifth(seed) if method == "pruning-fifth" else self.neuron_answers)
        model = pruner.fit(self.train, self.fifth(seed)).model if method == "both" else self.model
        where = {"seed": seed, "precision": self.precision}
        where["checkpoint_dir"] = self.output / "runs" / f"{method}-{seed}"
        if method.startswith("erm"):
            adjustment = 0.0 if method == "erm" else 1.0
            return methods["erm"](model, logit_adjustment=adjustment, **where).fit(self.train)
        corrector = methods["attention"](
            model,
            **where,
            **({"background_swap": 0.0} if method == "guidance" else {}),
            **({"alpha": 0.0, "beta": 0.0} if method == "swap" else {}),
        )
        return corrector.fit(self.train, self.maps, self.answers)


def main() -> None:
    """Run, print the table, write JSON and the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs",
        nargs="+",
        metavar="METHOD:SEED",
        default=[f"{method}:{seed}" for seed in (0, 1, 2) for method in METHODS],
        help=f"which runs, in this order; methods are {', '.join(METHODS + ABLATIONS)}",
    )
    parser.add_argument("--precision", default="auto", help="of the trunk: auto, float32 or bfloat16")
    parser.add_argument("--output", type=Path, default=RESULTS / "birds")
    chosen = parser.parse_args()
    birds = Birds(chosen.output, chosen.precision)
    rows = [row(birds, "original", None, birds.model, None)]
    earlier = earlier_rows(chosen.output)
    for name in chosen.runs:
        method, _, seed = name.partition(":")
        found = birds.correct(method, int(seed))
        found.save(chosen.output / "models" / f"{method}-{seed}", overwrite=True)
        rows.append(row(birds, method, int(seed), found.model, found))
        Console().print(name, {split: rows[-1][split] for split in ("val", "test")})
        done = {(line["method"], line["seed"]) for line in rows}
        write(birds, rows + [line for line in earlier if (line["method"], line["seed"]) not in done], chosen.output)
        if name == "attention:0":
            sheet(birds, found)
    print_tables(earlier_rows(chosen.output) or rows)


def earlier_rows(output: Path) -> list[dict[str, object]]:
    """What this or an earlier call has measured and written here."""
    file = output / "birds.json"
    return json.loads(file.read_text())["rows"] if file.is_file() else []


def write(birds: Birds, rows: list[dict[str, object]], output: Path) -> None:
    """All numbers so far, each with its machine, and the answers."""
    answers = {
        "images": birds.answers.counts(),
        "neurons": birds.neuron_answers.counts() | {"distinct patches": birds.patches.num_distinct},
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "birds.json").write_text(json.dumps({"answers": answers, "rows": rows}, indent=1))


def row(
    birds: Birds, method: str, seed: int | None, model: crayon.SplitModel, correction: crayon.Correction | None
) -> dict[str, object]:
    """One line of the table as plain values; per cent."""
    line: dict[str, object] = {"method": NAMES[method], "seed": seed, "machine": machine()}
    for split in ("val", "test"):
        found = crayon.evaluate(model, birds.splits[split], train=birds.train)
        line[split] = {name: round(100 * value, 2) for name, value in found.summary().items()}
        line[f"{split} groups"] = {group.name: round(100 * group.accuracy, 1) for group in found.groups}
    if correction is not None:
        record = correction.record
        line |= {"counts": dict(record.counts), "seconds": record.seconds, "history": list(record.history)}
        line["settings"] = dict(record.settings)
    return line


def sheet(birds: Birds, found: crayon.Correction) -> None:
    """Maps before and after, of test pictures chosen by a rule, and the energy on the bird.

    Maps of the log odds: guiding the label's logit can leave it without any positive evidence.
    """
    test = birds.splits["test"]
    maps = {
        (name, score): crayon.Explainer(model, score=score).explain(test)
        for name, model in (("before", birds.model), ("after", found.model))
        for score in ("logit", "margin")
    }
    before, after = maps["before", "margin"], maps["after", "margin"]
    groups = dict(zip(test.ids, test.group_labels, strict=True))
    contact_sheets.before_after_sheet(
        test,
        before,
        after,
        contact_sheets.choose_ids(before, after, count=12, rule="random", groups=groups),
        birds.output / "before-after.png",
        predicted_before=crayon.evaluate(birds.model, test).predictions,
        predicted_after=crayon.evaluate(found.model, test).predictions,
        notes=("Attention, first seed; answers simulated from object masks; maps of the log odds (margin)",),
    )
    energy = {
        f"{name}, {score}": {
            "on the bird": round(statistics.mean(evaluation.energy_inside(found_maps, test).values()), 4),
            "maps without evidence": found_maps.num_empty,
        }
        for (name, score), found_maps in maps.items()
    }
    (birds.output / "energy.json").write_text(json.dumps(energy))


def print_tables(rows: list[dict[str, object]]) -> None:
    """Mean over seeds and every seed, for validation and test."""
    for split in ("val", "test"):
        table = Table(title=f"birds, {split} split, simulated answers: worst group / mean group, per cent")
        for name in ("method", "mean over seeds", "per seed", "median seconds"):
            table.add_column(name)
        for method in dict.fromkeys(str(line["method"]) for line in rows):
            own = [line for line in rows if line["method"] == method]
            pairs = [(line[split]["worst_group"], line[split]["mean_group"]) for line in own]
            worst, mean = (statistics.mean(values) for values in zip(*pairs, strict=True))
            seconds = statistics.median(line.get("seconds", 0.0) for line in own)
            table.add_row(
                method, f"{worst:.1f} / {mean:.1f}", ", ".join(f"{a:.1f} / {b:.1f}" for a, b in pairs), f"{seconds:.0f}"
            )
        Console(width=130).print(table)


if __name__ == "__main__":
    main()
