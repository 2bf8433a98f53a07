"""What pruning with ten epochs costs, against one forward pass over the same pictures, in one run.

python benchmarks/prune.py [--model resnet50] [--size 224] [--images 64] [--repeats 5] [--device cpu] [--short]
"""

from __future__ import annotations

import torch
from side_by_side import arguments, finish, in_memory, network, noise, parsed, rounds

from crayon_sdk import AnnotationSet, Explainer, NeuronAnswer, NeuronPruner
from crayon_sdk.data.pixels import PixelCache


def main() -> None:
    """Measure, print, write."""
    chosen = parsed(arguments(__doc__, images=64, batch=64))
    model = network(chosen)
    dataset = in_memory(noise(chosen.images, chosen.size))
    cache = PixelCache(dataset, model.preprocessing, device=chosen.device)
    # Few, for of many that mean nothing it would be noticed that they do.
    said = (("no" if n % 2 else "yes", dataset.ids[n % len(dataset)]) for n in range(30))
    answers = AnnotationSet(
        NeuronAnswer(neuron=n, patch=0, id=sample, answer=word, annotator="benchmark", simulated=True)
        for n, (word, sample) in enumerate(said)
    )
    explainer = Explainer(model, device=chosen.device, precision="float32")
    how = {"epochs": 10, "device": chosen.device, "precision": "float32"}
    published, pruner = NeuronPruner(model, spread="never", **how), NeuronPruner(model, **how)

    def forward() -> None:
        with torch.no_grad():
            for rows in torch.arange(chosen.images).split(chosen.batch):
                model(cache.get(rows))

    variants = {
        "no-grad forward over a cache": forward,
        "NeuronPruner.fit, 10 epochs, as published": lambda: [published.fit(dataset, answers), None][1],
        "NeuronPruner.fit, 10 epochs": lambda: [pruner.fit(dataset, answers), None][1],
        "Explainer.explain_neurons": lambda: [explainer.explain_neurons(dataset), None][1],
    }
    finish("prune", chosen, rounds(variants, chosen))


if __name__ == "__main__":
    main()
