"""A whole correction from JPEGs to an evaluated model, against the authors' way, in one run.

python benchmarks/end_to_end.py [--model resnet50] [--size 224] [--batch 16] [--images 64] [--epochs 10] [--repeats 3]
                                [--device cpu] [--precision auto] [--short]

Ours: explain, `fit` for all epochs, evaluate. The authors' way, from the description of the method: decode in every
epoch, two forward passes, float32; explaining and evaluating are not even counted for it. "not training" is what of
ours is not within an epoch.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from rivals import TwoForwards
from side_by_side import answers_to, arguments, as_jpegs, finish, network, parsed, rounds

from crayon_sdk import AttentionCorrector, Explainer, evaluate


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, images=64)
    parser.set_defaults(repeats=3)
    parser.add_argument("--epochs", type=int, default=10)
    chosen = parsed(parser)
    epochs = 1 if chosen.short else chosen.epochs
    where = {"device": chosen.device, "precision": chosen.precision}
    with tempfile.TemporaryDirectory() as folder:
        dataset, model = as_jpegs(Path(folder), chosen.images, chosen.size), network(chosen)
        corrector = AttentionCorrector(model, epochs=epochs, batch_size=chosen.batch, lr=1e-6, **where)
        spent: list[float] = []

        def ours() -> None:
            started = time.perf_counter()
            maps = Explainer(model, **where).explain(dataset)
            found = corrector.fit(dataset, maps, answers_to(maps))
            evaluate(found.model, dataset, device=chosen.device)
            spent.append(time.perf_counter() - started - sum(entry["seconds"] for entry in found.history))

        maps = Explainer(model, **where).explain(dataset)
        theirs = model.copy().train().to(memory_format=torch.contiguous_format)
        authors = TwoForwards(
            theirs.features, theirs.head, list(theirs.parameters()), dataset, dataset.labels, maps.values,
            torch.arange(chosen.images) // 2 % 2 == 0, batch=chosen.batch, device=chosen.device, root=folder,
            view=model.preprocessing,
        )  # fmt: skip
        variants = {
            "explain, fit, evaluate": ours,
            "not training": lambda: spent[-1],
            "the authors' way": lambda: [authors.epoch() for _ in range(epochs)] and None,
        }
        finish("end_to_end", chosen, rounds(variants, chosen))


if __name__ == "__main__":
    main()
