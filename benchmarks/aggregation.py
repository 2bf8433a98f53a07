"""Rules of votes against rules that weigh people: verdicts of simulated crowds of mixed quality.

python benchmarks/aggregation.py [--seeds 5] [--pictures 300] [--votes 2 3 5]

Everybody sees a random share of the pictures; of each picture the truth is known (60 % yes). Good people are right with
95 %, noisy ones with 75 %, one kind says yes to everything, and spammers throw a coin. Needs the extra ``crowd``.
"""

from __future__ import annotations

import argparse
import random
import statistics

from machine import write_csv
from rich.console import Console
from rich.table import Table

import crayon_sdk as crayon
from crayon_sdk.answers.relevance import RULES

YES_SHARE = 0.6
RIGHT = {"good": 0.95, "noisy": 0.75}
CROWDS = {
    "mixed": {"good": 4, "noisy": 4, "always yes": 2, "spammer": 2},
    "mostly bad": {"good": 3, "noisy": 2, "always yes": 4, "spammer": 3},
    "all good": {"good": 12},
}
OUTCOMES = ("right", "wrong", "mixed")


def simulated(
    kinds: dict[str, int], pictures: int, votes: int, seed: int
) -> tuple[dict[str, bool], crayon.AnnotationSet]:
    """The truth, and what a crowd answers; every answer says that it is simulated."""
    chance = random.Random(seed)
    people = [(f"{kind} {number}", kind) for kind, count in kinds.items() for number in range(count)]
    truth = {f"{number:04}.jpg": chance.random() < YES_SHARE for number in range(pictures)}
    answers = crayon.AnnotationSet()
    for sample, yes in truth.items():
        for name, kind in chance.sample(people, votes):
            says = (
                yes == (chance.random() < RIGHT[kind])
                if kind in RIGHT
                else kind == "always yes" or chance.random() < 0.5
            )
            word = "yes" if says else "no"
            answers.add(crayon.ImageAnswer(id=sample, answer=word, annotator=name, simulated=True))
    return truth, answers


def outcomes(truth: dict[str, bool], answers: crayon.AnnotationSet, rule: str) -> dict[str, float]:
    """Per cent of pictures that a rule judges right, wrong, or not at all."""
    verdicts = answers.image_relevance(rule)
    words = {True: "relevant", False: "irrelevant"}
    found = [
        "mixed" if v == "mixed" else "right" if v == words[truth[sample]] else "wrong" for sample, v in verdicts.items()
    ]
    return {name: 100 * found.count(name) / len(found) for name in OUTCOMES}


def main() -> None:
    """Print the table, write the csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--votes", nargs="+", type=int, default=[2, 3, 5])
    chosen = parser.parse_args()
    rows = []
    for crowd, kinds in CROWDS.items():
        for votes in chosen.votes:
            made = [simulated(kinds, chosen.pictures, votes, seed) for seed in range(chosen.seeds)]
            for rule in RULES:
                each = [outcomes(truth, answers, rule) for truth, answers in made]
                line = {name: round(statistics.mean(one[name] for one in each), 1) for name in OUTCOMES}
                spread = round(statistics.pstdev(one["right"] for one in each), 1)
                rows.append({"crowd": crowd, "votes": votes, "rule": rule, **line, "spread of right": spread})
    write_csv("aggregation.csv", rows)
    table = Table(
        title=f"simulated crowds, {chosen.seeds} seeds of {chosen.pictures} pictures: right / wrong / mixed, per cent"
    )
    for heading in ("crowd", "votes", *RULES):
        table.add_column(heading)
    for crowd in CROWDS:
        for votes in chosen.votes:
            own = {row["rule"]: row for row in rows if (row["crowd"], row["votes"]) == (crowd, votes)}
            cells = [" / ".join(f"{own[rule][name]:.1f}" for name in OUTCOMES) for rule in RULES]
            table.add_row(crowd, str(votes), *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
