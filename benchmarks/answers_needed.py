"""How many answers are needed, and which: worst-group accuracy of the birds against the share of answered pictures.

python benchmarks/answers_needed.py [--seeds 0 1 2] [--shares 2 5 10 25 50 100] [--methods random coverage uncertain]

The answers are simulated from object masks, two annotators per picture, and given in the order in which
`Explainer.suggest` asks. All training pictures count in the cross entropy, answered or not. So that the grid can be
run on two cores, a run is smaller than in `birds.py`: pictures of 128 pixels (maps of 4 x 4), two epochs, and only the
last blocks of the network are trained. All of it, as there: --side 160 --epochs 6 --lr 1e-4 --first-block 0, with
--output and --figure elsewhere.

Finished runs are kept; a later call goes on. The seeds come one after the other, and within each the shares, so that a
call that is stopped leaves whole lines. Needs the folder ``shared`` beside the project.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, machine
from rich.console import Console
from rich.table import Table

import crayon_sdk as crayon
from crayon_sdk.correct import methods

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "answers-needed.png"
METHODS = ("random", "coverage", "uncertain")
# Blue, vermilion and green of Okabe and Ito: told apart by colour-blind people too; and so are the marks.
LOOKS = {"random": ("#0072b2", "o", "-"), "coverage": ("#d55e00", "s", "--"), "uncertain": ("#009e73", "^", ":")}
METRICS = ("worst_group", "mean_group")


def main() -> None:
    """Run what is missing, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--shares", nargs="+", type=float, default=[10, 2, 100, 5, 25, 50], help="in per cent")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--side", type=int, default=128, help="of the pictures, in pixels")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--first-block", type=int, default=5, help="blocks before this one stay as they are; 0: none")
    parser.add_argument("--output", type=Path, default=RESULTS / "answers-needed")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    chosen = parser.parse_args()
    protocol = {name: getattr(chosen, name) for name in ("side", "epochs", "lr", "first_block")}
    rows = [row for row in earlier_rows(chosen.output) if row["protocol"] == protocol]
    wanted = [run for run in runs(chosen) if not any(_is(row, *run) for row in rows)]
    if wanted:
        birds = Birds(protocol, chosen.output)
        for method, share, seed in wanted:
            rows.append(birds.row(method, share, seed))
            chosen.output.mkdir(parents=True, exist_ok=True)
            (chosen.output / "answers-needed.json").write_text(json.dumps(rows, indent=1))
            Console().print({name: rows[-1][name] for name in ("method", "share", "seed", "seconds", *METRICS)})
    print_table(rows)
    draw(rows, chosen.figure)


def runs(chosen: argparse.Namespace) -> Iterator[tuple[str, float, int]]:
    """Method, share and seed of every run; no answers and all answers are the same for every method."""
    yield "original", 0.0, 0
    for seed in chosen.seeds:
        yield "random", 0.0, seed
        for share in chosen.shares:
            for method in ("random",) if share >= 100 else chosen.methods:
                yield method, share, seed


def _is(row: dict[str, Any], method: str, share: float, seed: int) -> bool:
    return (row["method"], row["share"], row["seed"]) == (method, share, seed)


def earlier_rows(output: Path) -> list[dict[str, Any]]:
    """What was measured here before."""
    file = output / "answers-needed.json"
    return json.loads(file.read_text()) if file.is_file() else []


def _stop_gradient(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0].detach(),)


class Birds:
    """The data, the model, its maps, and all answers that could be given."""

    def __init__(self, protocol: dict[str, Any], output: Path) -> None:
        self.protocol = protocol
        folder, table = SHARED / "weights" / "birds_original", SHARED / "birds" / "metadata.csv"
        side = (protocol["side"], protocol["side"])
        preprocessing = replace(crayon.load_model(folder).preprocessing, size=side)
        self.model = crayon.load_model(folder, preprocessing=preprocessing).to(memory_format=torch.channels_last)
        # The blocks before take most of the time of a step and are the least to blame.
        if protocol["first_block"]:
            self.model.model.blocks[protocol["first_block"]].register_forward_pre_hook(_stop_gradient)
        self.train, self.test = (crayon.ImageDataset.from_csv(table, split=split) for split in ("train", "test"))
        self.explainer = crayon.Explainer(self.model, score="margin")
        kept = output / f"maps-{protocol['side']}.safetensors"
        if not kept.is_file():
            output.mkdir(parents=True, exist_ok=True)
            self.explainer.explain(self.train).save(kept)
        self.maps = crayon.SaliencyMaps.load(kept)
        self.answers = crayon.simulate_answers(self.maps, self.train)
        self.orders: dict[tuple[str, int], tuple[str, ...]] = {}

    def order(self, method: str, seed: int) -> tuple[str, ...]:
        """All pictures in the order in which they are asked about."""
        if (method, seed) not in self.orders:
            self.orders[method, seed] = self.explainer.suggest(
                self.maps, len(self.maps), method=method, dataset=self.train, seed=seed
            )
        return self.orders[method, seed]

    def row(self, method: str, share: float, seed: int) -> dict[str, Any]:
        """One run; per cent."""
        started = time.monotonic()
        asked = self.order(method, seed)[: round(share / 100 * len(self.maps))] if share else ()
        model, counts = self.model, {}
        if method != "original":
            given = frozenset(asked)
            answers = crayon.AnnotationSet(answer for answer in self.answers if answer.id in given)
            corrected = self._correct(answers, seed)
            model, counts = corrected.model, dict(corrected.record.counts)
        groups = [self.train.group_of(self.train.index_of(sample)) for sample in asked]
        found = crayon.evaluate(model, self.test, train=self.train)
        line = {"method": method, "share": share, "seed": seed, "asked": len(asked), "protocol": self.protocol}
        line |= {"asked groups": {name: groups.count(name) for name in sorted(set(groups))}, "counts": counts}
        line |= {name: round(100 * value, 2) for name, value in found.summary().items()}
        line["groups"] = {group.name: round(100 * group.accuracy, 1) for group in found.groups}
        return line | {"seconds": round(time.monotonic() - started), "machine": machine()}

    def _correct(self, answers: crayon.AnnotationSet, seed: int) -> crayon.Correction:
        """With no answers: the same training, told nothing."""
        settings = {"epochs": self.protocol["epochs"], "lr": self.protocol["lr"], "seed": seed}
        settings |= {"batch_norm": "frozen", "average_decay": 0.95} if self.protocol["first_block"] else {}
        if not len(answers):
            return methods["erm"](self.model, logit_adjustment=1.0, **settings).fit(self.train)
        return methods["attention"](self.model, **settings).fit(self.train, self.maps, answers)


def summary(rows: list[dict[str, Any]]) -> dict[tuple[str, float], dict[str, Any]]:
    """By method and share: counts of pictures and answers, mean of each metric, and every seed's."""
    found = {}
    for key in dict.fromkeys((row["method"], row["share"]) for row in rows):
        own = sorted((row for row in rows if (row["method"], row["share"]) == key), key=lambda row: row["seed"])
        each = {name: [row[name] for row in own] for name in METRICS}
        about = {name: [row["counts"].get(name, 0) for row in own] for name in ("relevant", "irrelevant")}
        found[key] = {"asked": own[0]["asked"], "each": each, "counts": about, "seeds": len(own)}
        found[key] |= {name: statistics.mean(values) for name, values in each.items()}
    return found


def print_table(rows: list[dict[str, Any]]) -> None:
    """A line per share and method."""
    table = Table(title="birds, test split, simulated answers: worst group / mean group, per cent")
    for heading in ("answered", "pictures", "order", "relevant / irrelevant", "mean", "per seed"):
        table.add_column(heading)
    for (method, share), found in sorted(summary(rows).items(), key=lambda item: (item[0][1], item[0][0])):
        pairs = ", ".join(f"{a:.1f} / {b:.1f}" for a, b in zip(*found["each"].values(), strict=True))
        kinds = " / ".join(f"{statistics.mean(values):.0f}" for values in found["counts"].values())
        mean = f"{found['worst_group']:.1f} / {found['mean_group']:.1f}"
        order = method if share else {"original": "Original", "random": "same training, no answers"}[method]
        table.add_row(f"{share:g} %", str(found["asked"]), order, kinds if share else "", mean, pairs)
    Console(width=130).print(table)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Worst group against the share of answers, a line per method, like Figure 4 of the paper."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = summary(rows)
    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    shares = sorted({share for method, share in found if method != "original" and share})
    for method in METHODS:
        own = [share for share in shares if (method if share < 100 else "random", share) in found]
        points = [found[method if share < 100 else "random", share] for share in own]
        if not points:
            continue
        colour, mark, line = LOOKS[method]
        places = [shares.index(share) for share in own]
        means = [point["worst_group"] for point in points]
        axes.plot(places, means, line, color=colour, marker=mark, markersize=7, label=method)
        lowest, highest = ([limit(p["each"]["worst_group"]) for p in points] for limit in (min, max))
        axes.fill_between(places, lowest, highest, color=colour, alpha=0.12, linewidth=0)
    for key, words, line in (
        (("random", 0.0), "same training,\nno answers", "-."),
        (("original", 0.0), "Original", "-"),
    ):
        if key in found:
            axes.axhline(found[key]["worst_group"], color="#777777", linestyle=line, linewidth=1.2, label=words)
    axes.set_xticks(range(len(shares)), [f"{share:g} %" for share in shares])
    axes.set_xlabel("pictures that were answered (simulated)")
    axes.set_ylabel("accuracy of the worst group, %")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
