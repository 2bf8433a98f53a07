"""How time and memory of explaining grow with the number of pictures, with the maps in memory and in a file.

python benchmarks/scaling.py [--counts 1000 10000 100000] [--device cpu] [--short]

Pictures of 64 pixels are drawn as they are asked for; every run is a process of its own, whose peak is the most memory
that it ever had (a file that is mapped counts as far as it was looked at).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import machine, write_csv
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import Dataset

from crayon_sdk import Explainer, ImageDataset, Preprocessing, load_model

SIZE = 64


class Drawn(Dataset):
    """So many pictures, none of which is kept."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = torch.full((3, SIZE, SIZE), index % 251, dtype=torch.uint8)
        picture[:, index % SIZE] = 255
        return picture, index % 2


def one(count: int, device: str, into_file: bool) -> dict[str, float]:
    """Explain so many pictures in this process."""
    model = load_model("test_resnet", pretrained=False, num_classes=2, preprocessing=Preprocessing(size=(SIZE, SIZE)))
    dataset = ImageDataset.from_torch(Drawn(count), labels=torch.arange(count) % 2)
    ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        maps = Explainer(model, device=device).explain(
            dataset, Path(folder) / "maps.safetensors" if into_file else None
        )
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "CPU s": cpu, "MiB before": ready / 1024, "MiB at most": peak / 1024, "maps": len(maps)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--short", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--file", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        Console().print_json(json.dumps(one(chosen.one, chosen.device, chosen.file)))
        return
    rows = []
    for count in [8] if chosen.short else chosen.counts:
        for where in ("memory", "file"):
            command = [sys.executable, __file__, "--one", str(count), "--device", chosen.device]
            command += ["--file"] if where == "file" else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
            row = {"pictures": count, "maps in": where, **{name: f"{value:.1f}" for name, value in found.items()}}
            rows.append({**row, "pictures/s": f"{count / found['seconds']:.0f}"})
    table = Table(title=f"explaining on {machine()['cpu']}")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    if not chosen.short:
        Console().print(f"written to {write_csv('scaling.csv', rows).name}")


if __name__ == "__main__":
    main()
