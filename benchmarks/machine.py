"""What every benchmark writes beside its numbers: machine, versions, command."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from crayon_sdk._base.process import machine as of_here
from crayon_sdk.results.correction import versions

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, str]:
    """Facts without which a number means nothing."""
    return {**of_here(), "command": " ".join([Path(sys.executable).name, *sys.argv]), **versions()}


def write_csv(name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows with the machine in every one of them."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / name
    facts = machine()
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts])
        writer.writeheader()
        writer.writerows({**row, **facts} for row in rows)
    return path
