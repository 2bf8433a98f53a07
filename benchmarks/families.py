"""Which of timm's architectures can be corrected: what a map and a neuron are in each, or why not.

python benchmarks/families.py [--kind convolutional|all] [--part 1/2] [--max-params 400] [--page]

Loads every registered architecture with random weights and three classes, splits it, and
checks that trunk and head together give what the model gives. Goes on where it was when it
was stopped; several parts can run side by side. ``--page`` writes docs/reference/families.md
from what was found. The other promises (maps as captum's, a step, pruning, saving) are checked
on one model of every module by tests/test_timm_families.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import timm
import torch
from machine import RESULTS, machine
from timm.models import _registry as registry

from crayon_sdk import SplitModel
from crayon_sdk.errors import CrayonError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers_families import TRANSFORMERS  # noqa: E402 - the tests say which modules are pure transformers

PAGE = ROOT / "docs" / "reference" / "families.md"
HEADING = "## Every architecture"


def main() -> None:
    """Look at architectures, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["convolutional", "all"], default="all", help="which modules")
    parser.add_argument("--part", default="1/1", help="such as 1/2: the first of two parts")
    parser.add_argument("--max-params", type=float, default=400, help="millions; larger ones are left out")
    parser.add_argument("--page", action="store_true", help="write the page from what was found")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    if chosen.page:
        write_page(found())
        return
    number, parts = (int(each) for each in chosen.part.split("/"))
    names = [
        name
        for name in timm.list_models()
        if chosen.kind == "all" or registry._model_to_module[name] not in TRANSFORMERS
    ]
    most = chosen.max_params * 1e6
    done = {row["name"] for row in found() if row["state"] != "too large" or row["params"] > most}
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"families-{number}-of-{parts}.jsonl").open("a") as file:
        for name in names[number - 1 :: parts]:
            if name not in done:
                row = look(name, most) | {"module": registry._model_to_module[name]}
                file.write(json.dumps(row | {"timm": timm.__version__}) + "\n")
                file.flush()
                print(row, flush=True)


def found() -> list[dict[str, Any]]:
    """Everything that was looked at before, one row per architecture."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("families-*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            # What was too large for one call may have been looked at in another.
            if row["name"] not in rows or row["state"] != "too large":
                rows[row["name"]] = row
    return sorted(rows.values(), key=lambda row: (row["module"], row["name"]))


def look(name: str, most: float) -> dict[str, Any]:
    """Split one architecture; "state" is supported, refused, too large or broken (in timm itself)."""
    started = time.monotonic()
    row: dict[str, Any] = {"name": name}
    try:
        with torch.device("meta"):
            row["params"] = sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())
    except Exception:  # some cannot be made without real tensors
        row["params"] = 0
    if row["params"] > most:
        return row | {"state": "too large"}
    try:
        model = timm.create_model(name, pretrained=False, num_classes=3).eval()
    except Exception as error:
        return row | {"state": "broken", "why": f"{type(error).__name__}: {error}"[:200]}
    row["params"] = sum(parameter.numel() for parameter in model.parameters())
    try:
        split = SplitModel(model)
        images = torch.rand(1, 3, *split.preprocessing.size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = model(images)
            difference = float((split(images) - expected).abs().max() / (expected.abs().max() + 1e-12))
        state = "supported" if difference < 1e-3 else "differs"
        row |= {
            "state": state,
            "layout": split.layout,
            "input": list(split.preprocessing.size),
            "map": list(split.map_size),
            "channels": split.feature_shape[0],
            "neurons": split.num_neurons,
            "mixes": split.mixes_channels(),
            "end": "+".join(type(layer).__name__ for layer in split.final_layers),
        }
    except CrayonError as error:
        row |= {"state": "refused", "why": str(error)}
    except Exception as error:
        row |= {"state": "broken", "why": f"{type(error).__name__}: {error}"[:200]}
    del model
    gc.collect()
    return row | {"seconds": round(time.monotonic() - started, 1)}


def write_page(rows: list[dict[str, Any]]) -> None:
    """The counts and a row per architecture, below what people wrote on the page."""
    facts = machine()
    lines = [
        HEADING,
        "",
        f"Made by `python benchmarks/families.py` with timm {facts['timm']}, torch {facts['torch']}; random weights, "
        "three classes, each at its own input size.",
        "",
        "| | looked at | supported | share | refused | left out (too large here) | cannot be made |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, kinds in (
        ("convolutional and hybrid", lambda module: module not in TRANSFORMERS),
        ("transformers and MLPs", lambda module: module in TRANSFORMERS),
    ):
        states = [row["state"] for row in rows if kinds(row["module"])]
        looked = sum(states.count(state) for state in ("supported", "refused", "differs"))
        if looked:
            counts = [states.count(state) for state in ("refused", "too large", "broken")]
            share = 100 * states.count("supported") / looked
            lines.append(
                f"| {title} | {looked} | {states.count('supported')} | {share:.1f} % | "
                + " | ".join(map(str, counts))
                + " |"
            )
    by_module: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_module[row["module"]].append(row)
    for module, own in by_module.items():
        lines += [
            "",
            f"### {module}",
            "",
            "| architecture | million weights | map | features | neurons | |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += [_line(row) for row in own]
    above = PAGE.read_text(encoding="utf-8").partition(HEADING)[0] if PAGE.exists() else "# Which models work\n\n"
    PAGE.write_text(above + "\n".join(lines) + "\n", encoding="utf-8")


def _line(row: dict[str, Any]) -> str:
    start = f"| {row['name']} | {row['params'] / 1e6:.1f}"
    if row["state"] != "supported":
        why = _short(row.get("why", "")) if row["state"] == "refused" else row["state"]
        return f"{start} | | | | {why} |"
    height, width = row["map"]
    neuron = "of several channels" if row["mixes"] else "one channel each"
    end = "" if row["end"] == "Linear" else f", {row['end']}"
    return f"{start} | {height} x {width} | {row['channels']} {row['layout']} | {row['neurons']} | {neuron}{end} |"


def _short(why: str) -> str:
    """The reason in a few words."""
    if "class token" in why:
        return "a class token decides"
    if "order of the picture" in why:
        return "tokens in another order"
    if "needs a grid" in why:
        return f"no grid: {why.partition('got ')[2].partition(' for images')[0]}"
    return why.partition(";")[0].replace("|", "/")[:120]


if __name__ == "__main__":
    main()
