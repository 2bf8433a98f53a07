"""What a million answers cost: loaded, saved, judged, and taken into a workspace twice.

python benchmarks/answers.py [--answers 1000000] [--people 500] [--runs 3]

The file is made here: everybody answers every picture once. Each step runs in a process of its own, so that its peak of
memory is its own; CPU seconds are those of user and system together. "start" imports what the steps need and does
nothing: what they take beyond their start is theirs. None of them loads torch.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from machine import write_csv
from PIL import Image
from rich.console import Console
from rich.table import Table

WORDS = ("yes", "no", "yes", "unsure")
LOAD = "from crayon_sdk.answers.annotations import AnnotationSet; answers = AnnotationSet.load({file!r}); "
STEPS = {
    "start": "import crayon_sdk.answers.annotations",
    "AnnotationSet.load": LOAD,
    "load and save": LOAD + "answers.save({out!r})",
    "load and image_relevance": LOAD + "answers.image_relevance()",
    "load and agreement": LOAD + "answers.agreement()",
    "load and fingerprint": LOAD + "answers.fingerprint",
    "load twice and merge": LOAD + "answers.merge(AnnotationSet.load({file!r}))",
    "start of crayon answer": "import crayon_sdk.workspace.answering, crayon_sdk.data.dataset, crayon_sdk.cli.commands",
    "crayon answer import": "crayon answer import -w {ws} {file}",
    "the same again": "crayon answer import -w {ws} {file}",
    "crayon answer show": "crayon answer show -w {ws}",
}
USED = """
import atexit, resource, sys
def say():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/status") as status:  # ru_maxrss of a child is at least that of its parent
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    sys.stderr.write("\\n%r" % [used.ru_utime + used.ru_stime, peak / 1024])
atexit.register(say)
"""
WORKSPACE = """
import sys, timm
from pathlib import Path
from crayon_sdk._base.files import write_json, write_tensors
from crayon_sdk.workspace.manifest import DataSource, ModelSource
from crayon_sdk.models.split import SplitModel
from crayon_sdk.models.rebuild import timm_config
from crayon_sdk.workspace.workspace import Workspace
model = SplitModel(timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2))
folder = Path(sys.argv[3])
folder.mkdir()
write_tensors(folder / "model.safetensors", model.plain_state_dict(), {"format": "pt"})
write_json(folder / "config.json", timm_config(model))
Workspace.create(sys.argv[1], ModelSource(source=str(folder)), DataSource(folder=sys.argv[2]))
"""


def pictures(folder: Path, count: int) -> list[str]:
    """Small pictures of two classes, and their ids."""
    ids = [f"{'ab'[number % 2]}/{number:06}.png" for number in range(count)]
    for number, sample in enumerate(ids):
        path = folder / sample
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 0)).save(path)
    return ids


def write_answers(path: Path, ids: list[str], people: int) -> None:
    """Everybody answers every picture, as lines the way the package writes them."""
    chance, moment = random.Random(0), datetime(2026, 1, 1, tzinfo=timezone.utc)
    with path.open("w") as file:
        for person in range(people):
            for number, sample in enumerate(ids):
                moment += timedelta(milliseconds=1700)
                line = {
                    "kind": "image",
                    "id": sample,
                    "answer": chance.choice(WORDS),
                    "annotator": f"person {person:03}",
                }
                line |= {"question": "Is the highlight mainly on the bird?", "model": ""}
                stamp = moment.isoformat().replace("+00:00", "Z")
                line |= {"time": stamp, "seconds": round(chance.random() * 5, 3), "simulated": False, "source": ""}
                file.write(json.dumps(line | {"target": number % 2}, separators=(",", ":")) + "\n")


def measured(step: str, places: dict[str, str]) -> tuple[float, float, float]:
    """CPU seconds, seconds on the clock and peak in MB of one step in a process of its own."""
    what = STEPS[step].format(**places)
    if what.startswith("crayon"):
        what = f"import sys; sys.argv = {what.split()!r}; from crayon_sdk.cli import main; main()"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", USED + what], capture_output=True, text=True, check=False)
    clock = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{step} failed: {done.stderr}")
    cpu, peak = json.loads(done.stderr.rsplit("\n", 1)[-1])
    return cpu, clock, peak


def main() -> None:
    """Print the table, write the csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {step: [] for step in STEPS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = pictures(folder / "pictures", chosen.answers // chosen.people)
        write_answers(folder / "answers.jsonl", ids, chosen.people)
        fresh = folder / "fresh"
        subprocess.run(
            [sys.executable, "-c", WORKSPACE, str(fresh), str(folder / "pictures"), str(folder / "model")], check=True
        )
        places = {"file": str(folder / "answers.jsonl"), "out": str(folder / "out.jsonl"), "ws": str(folder / "ws")}
        for _ in range(chosen.runs):
            shutil.rmtree(folder / "ws", ignore_errors=True)
            shutil.copytree(fresh, folder / "ws")
            for step in STEPS:
                found[step].append(measured(step, places))
                print(f"{step}: {found[step][-1]}", file=sys.stderr)
        same = (folder / "ws/answers.jsonl").read_bytes() == (folder / "answers.jsonl").read_bytes()
    table = Table("step", "CPU s", "clock s", "peak MB", title=f"{chosen.answers:,} answers, median of {chosen.runs}")
    rows = []
    for step, each in found.items():
        cpu, clock, peak = (statistics.median(column) for column in zip(*each, strict=True))
        spread = f"{min(one[0] for one in each):.1f} to {max(one[0] for one in each):.1f}"
        table.add_row(step, f"{cpu:.1f} ({spread})", f"{clock:.1f}", f"{peak:,.0f}")
        row = {"step": step, "answers": chosen.answers, "people": chosen.people, "runs": chosen.runs}
        rows.append(row | {"cpu_s": round(cpu, 2), "cpu_spread": spread, "clock_s": round(clock, 2), "mb": round(peak)})
    write_csv("answers.csv", rows)
    Console(width=120).print(table)
    print("the workspace's file equals the one that was taken in:", same)


if __name__ == "__main__":
    main()
