"""What the benchmarks of speed share: pictures, rounds in which all take turns, medians and ratios, one table and CSV.

The machine may be busy with other work. All variants are timed in turn, again and again, so that a slower moment slows
all of them; ratios are the medians of the ratios within a round. Beside the time on the clock there is that of the CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import timm
import torch
from machine import machine, write_csv
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from crayon_sdk import AnnotationSet, ImageAnswer, ImageDataset, Preprocessing, SaliencyMaps, SplitModel

# A variant does its work and gives the seconds that count, or None where all of them do.
Work = Callable[[], float | None]

_NO = 30  # pictures, of which half get a no


def arguments(doc: str | None, *, images: int, batch: int = 16) -> argparse.ArgumentParser:
    """What all of them can be told."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--short", action="store_true", help="seconds, to see that it runs: the figures mean nothing")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What it was told."""
    chosen = parser.parse_args()
    if chosen.short:
        chosen.model, chosen.size, chosen.batch, chosen.images, chosen.repeats = "test_resnet", 64, 4, 8, 1
    chosen.device = torch.device(chosen.device)
    return chosen


def network(chosen: argparse.Namespace) -> SplitModel:
    """A network with random weights, channels last, which gives pictures of noise some of each class."""
    torch.manual_seed(0)
    model = timm.create_model(chosen.model, pretrained=False, num_classes=2).eval()
    view = Preprocessing(size=(chosen.size, chosen.size), crop_pct=1.0)
    return SplitModel(model, preprocessing=view).to(chosen.device).to(memory_format=torch.channels_last)


def noise(count: int, size: int) -> Tensor:
    """(n, 3, H, W) uint8."""
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def in_memory(pixels: Tensor) -> ImageDataset:
    """Pictures that need no decoding; of every two one is of each class."""
    return ImageDataset.from_torch([(each, index % 2) for index, each in enumerate(pixels)])


def as_jpegs(folder: Path, count: int, size: int) -> ImageDataset:
    """Smooth noise in JPEGs of 1.5 times that size, which have to be decoded and resized."""
    for index, small in enumerate(noise(count, 16)):
        path = folder / str(index % 2) / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small.permute(1, 2, 0).numpy()).resize((3 * size // 2, 3 * size // 2)).save(path, quality=90)
    return ImageDataset.from_folder(folder)


def answers_to(maps: SaliencyMaps) -> AnnotationSet:
    """A yes to most maps, and a no to a few: of many that mean nothing it would be noticed that they do."""
    return AnnotationSet(
        ImageAnswer(
            id=sample, answer="no" if index < _NO and index // 2 % 2 else "yes", annotator="benchmark", simulated=True
        )
        for index, sample in enumerate(maps.ids)
    )


def rounds(variants: Mapping[str, Work], chosen: argparse.Namespace) -> list[dict[str, object]]:
    """Time all variants in turn; one row each, with its ratio to the first."""
    on_gpu, found = chosen.device.type == "cuda", {name: [] for name in variants}
    peaks: dict[str, float] = {}
    for turn in range(chosen.repeats + 1):
        for name, work in variants.items():
            if on_gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started, cpu = time.perf_counter(), time.process_time()
            seconds = work()
            if on_gpu:
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated() / 2**20
            whole = time.perf_counter() - started
            if turn or chosen.short:  # the first round wakes everything up
                found[name].append((whole if seconds is None else seconds, whole, time.process_time() - cpu))
    first = next(iter(found.values()))
    return [
        {
            "what": name,
            "median s": f"{statistics.median(each[0] for each in times):.4f}",
            "least s": f"{min(each[0] for each in times):.4f}",
            "images/s": f"{chosen.images / statistics.median(each[0] for each in times):.1f}",
            "ratio": f"{statistics.median(one[0] / base[0] for one, base in zip(times, first, strict=True)):.3f}",
            "whole s": f"{statistics.median(each[1] for each in times):.4f}",
            "whole CPU s": f"{statistics.median(each[2] for each in times):.4f}",
            "peak MiB on GPU": f"{peaks[name]:.0f}" if on_gpu else "",
            "runs": len(times),
        }
        for name, times in found.items()
    ]


def finish(name: str, chosen: argparse.Namespace, rows: Sequence[Mapping[str, object]]) -> None:
    """Print the table; write the CSV, unless it was to be short."""
    title = f"{name}: {chosen.model} at {chosen.size}, batch {chosen.batch}, {chosen.images} images, {chosen.device}"
    table = Table(title=f"{title}, {machine()['gpu' if chosen.device.type == 'cuda' else 'cpu']}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console = Console(width=max(Console().width, 150))
    console.print(table)
    if not chosen.short:
        facts = {"size": chosen.size, "batch": chosen.batch, "images": chosen.images, "device": str(chosen.device)}
        path = write_csv(f"{name}-{chosen.model}-{chosen.device.type}.csv", [{**row, **facts} for row in rows])
        console.print(f"written to {path.name}")
