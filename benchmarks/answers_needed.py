"""What answers are worth, and how many are needed: corrections with real answers, with few, and with blind ones.

python benchmarks/answers_needed.py [--tasks box faces ...] [--answers real 20 none yes ...] [--seeds 0 1 2]

Tasks are generated (`crayon_sdk.data.generated`: maps right in some pictures and wrong in others); "pets-box", the
photographs of pets with a box drawn in whose stripes go with the class; or "birds" and "pets" as they are. These
three need the folder ``shared`` beside the project. All training pictures count in the cross entropy, answered
or not. Answers are simulated from object masks, two annotators per picture:

- real: about the whole map of every picture; spots: about the brightest spot of every one;
- a number: about so many spots, those that ``suggest --method typical`` asks about first; with an "r" behind, such as
  20r: about so many spots, drawn at random; with a "w": about so many typical whole maps; with an "i": 20 typical
  spots with yes and no exchanged; with an "n": one answer in five is wrong;
- none: the same training without any; yes, no, shuffled, inverted: what people say who do not look
  (`crayon_sdk.answers.controls`). Answers that are refused because they contradict each other are marked so, and then
  forced with ``spread="never"``.

Every task has one Original, trained by plain cross entropy; a seed is that of the answers and of the correction.
Finished runs are kept; a later call goes on, and several may run at once on different tasks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import timm
import torch
from machine import RESULTS, machine
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

import crayon_sdk as crayon
from crayon_sdk.answers.controls import control
from crayon_sdk.answers.relevance import CONTROLS
from crayon_sdk.correct import methods
from crayon_sdk.data.generated import TASKS, add_shortcut, generate
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.explain.masks import simulate_spot_answers

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "answers-needed.png"
PHOTOGRAPHS = ("birds", "pets", "pets-box")
COLUMNS: dict[str, dict[str, Any]] = {
    "birds": {},
    "pets": {"mask_column": "mask", "group_columns": ["ground"]},
    "pets-box": {"mask_column": "mask", "group_columns": ["box"]},
}
ANSWERS = ("original", "none", "yes", "no", "shuffled", "inverted", "real", "20", "20r", "20w")
LINES = (
    ("", "spots", "#0072b2", "o", "typical spots, and all"),
    ("r", "spots", "#d55e00", "s", "spots at random"),
    ("w", "real", "#444444", "^", "typical whole maps, and all"),
)
"""What is asked about: behind the number, all of it, colour, mark, words."""
SECONDS = 1.2
"""What a person needs for a picture, as published."""
# Small, and on small pictures: a correction takes less than a minute on one core.
SIDE, NETWORK = 96, {"stem_width": 8, "channels": [16, 32, 64, 128], "output_stride": 16}
ORIGINAL = {"epochs": 25, "lr": 2e-3, "average_decay": 0.0}
CORRECTION = {"epochs": 8, "lr": 1e-3}
FINE_TUNED = {"epochs": 6, "lr": 1e-3, "average_decay": 0.0}


def main() -> None:
    """Run what is missing, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["box", "faces", "small"], choices=[*TASKS, *PHOTOGRAPHS])
    parser.add_argument("--answers", nargs="+", default=ANSWERS, help="real, spots, none, a control, 20, 20r, 20w, ...")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "answers-needed")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    for name in chosen.tasks:
        file = chosen.output / f"{name}.json"
        rows = json.loads(file.read_text()) if file.is_file() else []
        done = {(row["answers"], row["seed"]) for row in rows}
        wanted = [(kind, seed) for seed in chosen.seeds for kind in chosen.answers if kind != "original" or not seed]
        left = [each for each in wanted if each not in done]
        task = _Task(name, chosen.output) if left else None
        for kind, seed in left:
            rows.append(task.row(kind, seed))  # type: ignore[union-attr]
            file.write_text(json.dumps(rows, indent=1))
            Console().print({each: rows[-1][each] for each in ("task", "answers", "seed", "worst_group", "mean_group")})
    found = {name: json.loads((chosen.output / f"{name}.json").read_text()) for name in chosen.tasks}
    for name, rows in found.items():
        print_table(name, rows)
    draw(found, chosen.figure)


class _Task:
    """Data, Original, maps, and all answers that could be given."""

    def __init__(self, name: str, output: Path) -> None:
        self.name = name
        self.settings: dict[str, Any] = {}
        if name == "pets-box":
            folder = output / "drawn" / name
            if not (folder / "metadata.csv").is_file():
                table = SHARED / "pets" / "metadata.csv"
                plain = {s: crayon.ImageDataset.from_csv(table, split=s, **COLUMNS["pets"]) for s in ("train", "test")}
                add_shortcut(plain, folder)
            self._read(folder / "metadata.csv", **COLUMNS[name])
            self.model, self.settings = self._fine_tuned(output / "originals" / name), CORRECTION
        elif name in PHOTOGRAPHS:
            self._read(SHARED / name / "metadata.csv", **COLUMNS[name])
            self.model = crayon.load_model(SHARED / "weights" / f"{name}_original")
        else:
            folder = output / "drawn" / name
            table = folder / "metadata.csv"
            if not table.is_file():
                generate(name, folder, size=SIDE)
            self._read(table, mask_column="mask", group_columns=list(TASKS[name].shortcuts))
            self.model, self.settings = self._original(output / "originals" / name), CORRECTION
        self.model.to(memory_format=torch.channels_last)
        self.explainer = crayon.Explainer(self.model)
        self.maps = self.explainer.explain(self.train)
        self.answers = crayon.simulate_answers(self.maps, self.train)
        self.spots = simulate_spot_answers(self.maps, self.train)

    def _read(self, table: Path, **columns: Any) -> None:
        self.train, self.test = (crayon.ImageDataset.from_csv(table, split=s, **columns) for s in ("train", "test"))

    def _original(self, kept: Path) -> Any:
        """Trained by plain cross entropy from random weights, once."""
        if not kept.is_dir():
            torch.manual_seed(0)
            fresh = crayon.load_model(
                "resnet10t",
                pretrained=False,
                num_classes=len(self.train.class_names),
                class_names=self.train.class_names,
                model_args=NETWORK,
                preprocessing=Preprocessing(size=(SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
            )
            methods["erm"](fresh, **ORIGINAL).fit(self.train).save(kept)
        return crayon.load_model(kept)

    def _fine_tuned(self, kept: Path) -> Any:
        """ImageNet weights, trained further by plain cross entropy, once."""
        if not kept.is_dir():
            torch.manual_seed(0)
            network = timm.create_model("mobilenetv2_100", pad_type="same")
            weights = load_file(SHARED / "weights" / "mobilenetv2_100_in1k.fp16.safetensors")
            network.load_state_dict({name: value.float() for name, value in weights.items()})
            network.reset_classifier(len(self.train.class_names))
            view = crayon.load_model(SHARED / "weights" / "pets_original").preprocessing
            fresh = crayon.SplitModel(network, preprocessing=view, class_names=self.train.class_names)
            methods["erm"](fresh, **FINE_TUNED).fit(self.train).save(kept)
        return crayon.load_model(kept)

    def row(self, kind: str, seed: int) -> dict[str, Any]:
        """One run; per cent."""
        started, line = time.monotonic(), {"task": self.name, "answers": kind, "seed": seed}
        model = self.model
        if kind == "none":
            own = {name: self.settings[name] for name in ("epochs", "lr") if name in self.settings}
            model = methods["erm"](model, logit_adjustment=1.0, seed=seed, **own).fit(self.train).model
        elif kind != "original":
            answers = self._answers(kind, seed)
            said = [*answers.image_relevance().values(), *answers.spot_relevance().values()]
            line["verdicts"] = {verdict: said.count(verdict) for verdict in ("relevant", "irrelevant", "mixed")}
            model, line["refused"] = self._corrected(answers, seed)
        found = crayon.evaluate(model, self.test, train=self.train)
        line |= {name: round(100 * value, 2) for name, value in found.summary().items()}
        line["groups"] = {group.name: round(100 * group.accuracy, 1) for group in found.groups}
        return line | {"seconds": round(time.monotonic() - started), "machine": machine()}

    def _answers(self, kind: str, seed: int) -> crayon.AnnotationSet:
        if kind in CONTROLS:
            return control(self.answers, kind, seed=seed)
        if kind in ("real", "spots"):
            return self.answers if kind == "real" else self.spots
        count, how = int(kind.rstrip("rwin")), kind.lstrip("0123456789")
        method = "random" if how == "r" else "typical"
        asked = set(self.explainer.suggest(self.maps, count, method=method, dataset=self.train, seed=seed))
        source = self.answers if how == "w" else self.spots
        if how == "n":
            source = simulate_spot_answers(self.maps, self.train, annotators=1, noise=0.2, seed=seed)
        chosen = crayon.AnnotationSet(each for each in source if each.id in asked)
        return control(chosen, "inverted") if how == "i" else chosen

    def _corrected(self, answers: crayon.AnnotationSet, seed: int) -> tuple[Any, str]:
        """A corrected model, and why the answers were refused before they were forced, if they were."""
        try:
            corrector = methods["attention"](self.model, seed=seed, **self.settings)
            return corrector.fit(self.train, self.maps, answers).model, ""
        except crayon.errors.AnswerError as error:
            forced = methods["attention"](self.model, seed=seed, spread="never", **self.settings)
            return forced.fit(self.train, self.maps, answers).model, str(error)


def _order(kind: str) -> tuple[bool, int, str]:
    """Controls first, then real answers by their number."""
    blind = ("original", "none", *CONTROLS)
    if kind in blind:
        return False, blind.index(kind), ""
    return True, 2**31 if kind in ("real", "spots") else int(kind.rstrip("rwin")), kind


def print_table(name: str, rows: list[dict[str, Any]]) -> None:
    """A line per kind of answers: mean over seeds, and every seed."""
    table = Table(title=f"{name}, test split, simulated answers: worst group / mean group, per cent")
    for heading in ("answers", "yes, no, mixed", "mean", "per seed", "refused"):
        table.add_column(heading)
    for kind in sorted({row["answers"] for row in rows}, key=_order):
        own = sorted((row for row in rows if row["answers"] == kind), key=lambda row: row["seed"])
        pairs = [(row["worst_group"], row["mean_group"]) for row in own]
        worst, mean = (statistics.mean(values) for values in zip(*pairs, strict=True))
        each = ", ".join(f"{a:.1f} / {b:.1f}" for a, b in pairs)
        verdicts = ", ".join(str(count) for count in own[0].get("verdicts", {}).values())
        refused = sum(bool(row.get("refused")) for row in own)
        table.add_row(kind, verdicts, f"{worst:.1f} / {mean:.1f}", each, f"{refused} of {len(own)}" if refused else "")
    Console(width=130).print(table)


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Worst group against the number of answers, a panel per task; blind answers as lines across."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(4.2 * len(found), 4), layout="constrained", squeeze=False)
    looks = {"none": ("#777777", "-"), "yes": ("#009e73", "--"), "no": ("#cc79a7", "-."), "shuffled": ("#e69f00", ":")}
    for axes, (name, rows) in zip(panels[0], found.items(), strict=True):
        worst: dict[str, list[float]] = {}
        for row in rows:
            worst.setdefault(row["answers"], []).append(row["worst_group"])
        for suffix, everything, colour, mark, words in LINES:
            counts = sorted(int(kind.rstrip("rw")) for kind in worst if kind.rstrip("rw").isdigit()
                            and kind.lstrip("0123456789") == suffix)  # fmt: skip
            points = [(count, worst[f"{count}{suffix}"]) for count in counts]
            total = sum(next((row["verdicts"].values() for row in rows if row["answers"] == everything), ()))
            points += [(total, worst[everything])] if everything in worst else []
            if points:
                axes.plot([at for at, _ in points], [statistics.mean(each) for _, each in points], color=colour,
                          marker=mark, label=words)  # fmt: skip
                axes.fill_between([at for at, _ in points], *([limit(each) for _, each in points]
                                  for limit in (min, max)), color=colour, alpha=0.12, linewidth=0)  # fmt: skip
        for kind, (colour, line) in looks.items():
            if kind in worst:
                axes.axhline(statistics.mean(worst[kind]), color=colour, linestyle=line, linewidth=1.2, label=kind)
        axes.set_xscale("log")
        axes.set_xlim(4, 3000)
        axes.set_xticks([5, 20, 100, 1000], ["5", "20", "100", "1,000"])
        axes.minorticks_off()
        axes.set_title(name)
        axes.set_xlabel("pictures that were answered (simulated)")
        axes.set_ylim(0, 100)
        axes.grid(axis="y", alpha=0.3)
        above = axes.secondary_xaxis("top", functions=(lambda x: x * SECONDS / 60, lambda x: x * 60 / SECONDS))
        above.set_xlabel(f"minutes of a person, {SECONDS} s a picture", fontsize=8)
        axes.spines["right"].set_visible(False)
    panels[0][0].set_ylabel("accuracy of the worst group, %")
    handles = {word: line for axes in panels[0] for line, word in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
