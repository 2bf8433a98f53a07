"""What every benchmark writes beside its numbers: machine, versions, command."""

from __future__ import annotations

import csv
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from crayon_sdk.results.correction import versions

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, str]:
    """Facts without which a number means nothing."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "gpu": gpu,
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        **versions(),
    }


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
