"""What an epoch of `fit` costs, against a plain fine-tuning loop and the authors' way, in one run.

python benchmarks/step.py [--model resnet50] [--size 224] [--batch 16] [--images 64] [--repeats 5] [--device cpu]
                          [--short]

The seconds of `fit` are those of its history; "whole s" has all that comes before and after, too.
"""

from __future__ import annotations

import torch
from rivals import PlainFineTuning, TwoForwards
from side_by_side import answers_to, arguments, finish, in_memory, network, noise, parsed, rounds

from crayon_sdk import AttentionCorrector, Explainer
from crayon_sdk._base.process import resolve_precision
from crayon_sdk.correct.erm import FurtherTraining


def main() -> None:
    """Measure, print, write."""
    chosen = parsed(arguments(__doc__, images=64))
    model, pixels = network(chosen), noise(chosen.images, chosen.size)
    dataset, view = in_memory(pixels), model.preprocessing
    maps = Explainer(model, device=chosen.device).explain(dataset)
    answers = answers_to(maps)
    labels, relevant = dataset.labels, torch.arange(chosen.images) // 2 % 2 == 0
    how = {"epochs": 1, "batch_size": chosen.batch, "lr": 1e-6, "device": chosen.device, "precision": chosen.precision}
    dtype = resolve_precision(chosen.precision, chosen.device)
    plain = PlainFineTuning(
        model.copy().model, pixels, labels, view, batch=chosen.batch, device=chosen.device, dtype=dtype
    )
    theirs = model.copy().train().to(memory_format=torch.contiguous_format)
    authors = TwoForwards(
        theirs.features, theirs.head, list(theirs.parameters()), view.normalize(pixels), labels, maps.values, relevant,
        batch=chosen.batch, device=chosen.device,
    )  # fmt: skip
    attention = AttentionCorrector(model, **how)
    as_published = AttentionCorrector(model, **how, spread="never", background_swap=0.0, average_decay=0.0)
    further = FurtherTraining(model, **how)

    def guided(corrector: AttentionCorrector) -> float:
        return float(corrector.fit(dataset, maps, answers).history[0]["seconds"])

    variants = {
        "plain PyTorch loop": plain.epoch,
        "FurtherTraining.fit": lambda: further.fit(dataset).history[0]["seconds"],
        "AttentionCorrector.fit": lambda: guided(attention),
        "the same, as the paper has it": lambda: guided(as_published),
        "the authors' way, decoded once": authors.epoch,
    }
    finish("step", chosen, rounds(variants, chosen))


if __name__ == "__main__":
    main()
