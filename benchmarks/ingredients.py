"""What each part of the default correction brings: CRAYON-Attention with one part off at a time.

python benchmarks/ingredients.py [--tasks pets box faces] [--seeds 0 1 2] [--answers real]

The tasks, Originals and simulated answers are those of ``answers_needed.py``. The table has the mean of the seeds, and
of the difference to the default with the same seed its mean and 95 % interval (Student's t over the seeds; with three
of them it is wide, and says so by that). Finished runs are kept; a later call goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import answers_needed
from machine import RESULTS, machine
from rich.console import Console
from rich.table import Table

import crayon_sdk as crayon
from crayon_sdk.correct import methods

PARTS: dict[str, dict[str, Any]] = {
    "the default": {},
    "answers reach what was answered alone": {"spread": "never"},
    "no weights of unusual surrounds": {"balance": "never"},
    "backgrounds not exchanged": {"background_swap": 0.0},
    "maps not guided": {"alpha": 0.0, "beta": 0.0},
    "not fair to rare classes": {"logit_adjustment": 0.0},
    "weights not averaged": {"average_decay": 0.0},
}
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""97.5 % quantiles of Student's t, by the number of seeds."""


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = [*answers_needed.TASKS, *answers_needed.PHOTOGRAPHS]
    parser.add_argument("--tasks", nargs="+", default=["pets", "box", "faces"], choices=choices)
    parser.add_argument("--answers", default="real", help="as in answers_needed.py")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "answers-needed")
    chosen = parser.parse_args()
    for name in chosen.tasks:
        file = chosen.output / f"{name}-ingredients.json"
        rows = json.loads(file.read_text()) if file.is_file() else []
        done = {(row["part"], row["answers"], row["seed"]) for row in rows}
        wanted = [(part, chosen.answers, seed) for seed in chosen.seeds for part in PARTS]
        left = [each for each in wanted if each not in done]
        task = answers_needed._Task(name, chosen.output) if left else None
        for part, kind, seed in left:
            rows.append(row(task, part, kind, seed))
            file.write_text(json.dumps(rows, indent=1))
            Console().print({key: rows[-1][key] for key in ("task", "part", "seed", "worst_group", "mean_group")})
        print_table(name, chosen.answers, [each for each in rows if each["answers"] == chosen.answers])


def row(task: Any, part: str, kind: str, seed: int) -> dict[str, Any]:
    """One run; per cent."""
    corrector = methods["attention"](task.model, seed=seed, **task.settings | PARTS[part])
    made = corrector.fit(task.train, task.maps, task._answers(kind, seed))
    found = crayon.evaluate(made.model, task.test, train=task.train)
    line = {"task": task.name, "part": part, "answers": kind, "seed": seed}
    line |= {name: round(100 * value, 2) for name, value in found.summary().items()}
    line["groups"] = {group.name: round(100 * group.accuracy, 1) for group in found.groups}
    return line | {"seconds": round(made.record.seconds), "machine": machine()}


def print_table(name: str, answers: str, rows: list[dict[str, Any]]) -> None:
    """A line per part: the means, and what it brings."""
    table = Table(title=f"{name}, answers: {answers} (simulated); test split, worst / mean group, per cent")
    for heading in ("off", "mean of the seeds", "seeds", "difference, worst", "difference, mean"):
        table.add_column(heading)
    base = {each["seed"]: each for each in rows if each["part"] == "the default"}
    for part in PARTS:
        own = [each for each in rows if each["part"] == part]
        if own:
            worst, mean = (statistics.mean(each[key] for each in own) for key in ("worst_group", "mean_group"))
            seeds = ", ".join(f"{each['worst_group']:.1f}" for each in own)
            table.add_row(part, f"{worst:.1f} / {mean:.1f}", seeds, *(
                against(own, base, key) if own[0]["part"] != "the default" else ""
                for key in ("worst_group", "mean_group")
            ))  # fmt: skip
    Console(width=130).print(table)


def against(own: list[dict[str, Any]], base: dict[int, dict[str, Any]], key: str) -> str:
    """Mean difference to the default with the same seed, and its 95 % interval."""
    found = [each[key] - base[each["seed"]][key] for each in own if each["seed"] in base]
    if len(found) not in STUDENT:
        return ", ".join(f"{each:+.1f}" for each in found)
    half = STUDENT[len(found)] * statistics.stdev(found) / math.sqrt(len(found))
    return f"{statistics.mean(found):+.1f} ± {half:.1f}"


if __name__ == "__main__":
    main()
