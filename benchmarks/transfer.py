"""Maps and answers of one model guide another: the birds' Original guides three other architectures.

python benchmarks/transfer.py [--runs mobilenetv1:0 resnet:0 convnext:0 ...] [--precision bfloat16] [--output DIR]

The answers are simulated, about the maps of ``birds_original`` (a MobileNetV2). The students are
MobileNetV1 with ImageNet weights, and a ResNet and a ConvNeXt with random weights, each first trained here
on the training split by plain cross entropy: that is the student's Original. It is then corrected with the
teacher's maps and answers (transfer), and, to compare, trained on for as many epochs with the same settings
and no answers (erm, logit-adjusted like the correction). Finished runs are kept; a later call goes on. Needs
the folder ``shared`` beside the project.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, machine
from rich.console import Console
from rich.table import Table

import crayon_sdk as crayon
from crayon_sdk.correct import methods

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
STEPS = ("original", "erm", "transfer")


@dataclass(frozen=True)
class Student:
    """A model to guide: how it is made, trained first, and corrected."""

    architecture: str
    side: int
    weights: str = ""
    model_args: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    correction: dict[str, Any] = field(default_factory=dict)

    def make(self, seed: int) -> crayon.SplitModel:
        """Weights from ImageNet where there are any; the last layer, or everything, is random."""
        torch.manual_seed(seed)
        preprocessing = crayon.Preprocessing(size=(self.side, self.side), **IMAGENET)
        model = crayon.load_model(
            self.architecture,
            pretrained=False,
            num_classes=2,
            model_args=self.model_args,
            preprocessing=preprocessing,
            class_names=["landbird", "waterbird"],
        )
        if self.weights:
            published = crayon.load_model(
                SHARED / "weights" / self.weights, architecture=self.architecture, model_args=self.model_args
            )
            state = published.plain_state_dict()
            state |= {name: value for name, value in model.plain_state_dict().items() if name.startswith("classifier.")}
            model.model.load_state_dict(state)
        return model.to(memory_format=torch.channels_last)


STUDENTS = {
    "mobilenetv1": Student(
        "mobilenetv1_100",
        160,
        weights="mobilenetv1_100_in1k.fp16.safetensors",
        model_args={"pad_type": "same"},
        training={"epochs": 4, "lr": 1e-4, "average_decay": 0.0, "scheduler": "none"},
    ),
    "resnet": Student("resnet10t", 96, training={"epochs": 10, "lr": 1e-3}, correction={"epochs": 5, "lr": 5e-4}),
    "convnext": Student(
        "convnext_atto",
        96,
        training={"epochs": 10, "lr": 1e-3, "optimizer": "adamw", "weight_decay": 0.05, "warmup_epochs": 2},
        correction={"epochs": 5, "lr": 5e-4, "optimizer": "adamw", "weight_decay": 0.05},
    ),
}


def main() -> None:
    """Run, keep every row, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=[f"{name}:{seed}" for seed in (0, 1, 2) for name in STUDENTS])
    parser.add_argument("--precision", default="auto", help="of the trunk: auto, float32 or bfloat16")
    parser.add_argument("--output", type=Path, default=RESULTS / "transfer")
    chosen = parser.parse_args()
    table = SHARED / "birds" / "metadata.csv"
    splits = {name: crayon.ImageDataset.from_csv(table, split=name) for name in ("train", "val", "test")}
    teacher = crayon.load_model(SHARED / "weights" / "birds_original")
    maps = crayon.Explainer(teacher, score="margin").explain(splits["train"])
    answers = crayon.simulate_answers(maps, splits["train"])
    rows = earlier_rows(chosen.output)
    for run in chosen.runs:
        name, _, seed = run.partition(":")
        if not any((row["student"], row["seed"]) == (name, int(seed)) for row in rows):
            rows += student_rows(name, int(seed), splits, maps, answers, chosen)
            chosen.output.mkdir(parents=True, exist_ok=True)
            (chosen.output / "transfer.json").write_text(json.dumps(rows, indent=1))
    print_table(rows)


def earlier_rows(output: Path) -> list[dict[str, Any]]:
    """What was measured here before."""
    file = output / "transfer.json"
    return json.loads(file.read_text()) if file.is_file() else []


def student_rows(
    name: str,
    seed: int,
    splits: dict[str, crayon.ImageDataset],
    maps: crayon.SaliencyMaps,
    answers: crayon.AnnotationSet,
    chosen: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Train a student, correct it, and measure it after every step."""
    student = STUDENTS[name]
    fixed = {"seed": seed, "precision": chosen.precision}
    fresh = student.make(seed)

    def further(model: crayon.SplitModel, **settings: Any) -> crayon.Correction:
        return methods["erm"](model, **fixed, **settings).fit(splits["train"])

    original = further(fresh, **student.training)
    corrector = methods["attention"](original.model, **fixed, **student.correction)
    results = {
        "original": original,
        "erm": further(original.model, logit_adjustment=1.0, **student.correction),
        "transfer": corrector.fit(splits["train"], maps, answers),
    }
    rows = []
    for step, found in results.items():
        row = {"student": name, "seed": seed, "step": step, "seconds": found.record.seconds, "machine": machine()}
        row |= {"map": list(found.model.map_size), "counts": dict(found.record.counts)}
        for split in ("val", "test"):
            evaluation = crayon.evaluate(found.model, splits[split], train=splits["train"])
            row[split] = {key: round(100 * value, 2) for key, value in evaluation.summary().items()}
        rows.append(row)
        Console().print(name, seed, step, row["test"], f"{row['seconds']:.0f} s")
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    """Mean over seeds, and every seed."""
    table = Table(title="birds, test split, simulated answers about another model: worst group / mean group, per cent")
    for heading in ("student", "step", "mean over seeds", "per seed", "median seconds"):
        table.add_column(heading)
    for name in STUDENTS:
        for step in STEPS:
            own = sorted((r for r in rows if (r["student"], r["step"]) == (name, step)), key=lambda r: r["seed"])
            if own:
                pairs = [(row["test"]["worst_group"], row["test"]["mean_group"]) for row in own]
                worst, mean = (statistics.mean(values) for values in zip(*pairs, strict=True))
                each = ", ".join(f"{a:.1f} / {b:.1f}" for a, b in pairs)
                seconds = statistics.median(row["seconds"] for row in own)
                table.add_row(name, step, f"{worst:.1f} / {mean:.1f}", each, f"{seconds:.0f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
