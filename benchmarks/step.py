"""What guidance, explaining and pruning cost, each against the plain thing in the same run.

python benchmarks/step.py [--model resnet50] [--size 224] [--batch 16] [--repeats 9] [--device auto]

Variants are timed in turn, again and again, so that a machine that slows down slows
them all; the medians and their ratio are reported.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import timm
import torch
from captum.attr import LayerGradCam
from machine import machine, write_csv
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from crayon_sdk import Explainer, ImageDataset, NeuronAnswer, NeuronPruner, Preprocessing, SplitModel
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.correct.backgrounds import BackgroundSwap
from crayon_sdk.correct.guidance import Guidance
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.functional.losses import attention_loss
from crayon_sdk.functional.saliency import grad_cam, logits_and_grad_cam, normalize_maps

Work = Callable[[], object]


def timed(variants: dict[str, Work], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every variant, ``repeats`` times in turn, after one unmeasured round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, work in variants.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def steps(split: SplitModel, images: Tensor, labels: Tensor) -> dict[str, Work]:
    """One optimizer step: plain, guided, and guided in the two-forward form."""
    optimizer = torch.optim.Adam(split.parameters(), lr=1e-6)
    answered = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    reference = torch.rand(len(labels), *split.map_size, device=labels.device)
    relevant, irrelevant = answered & (labels % 2 == 0), answered & (labels % 2 == 1)
    weights = {"alpha": 1e3, "beta": 1e3, "num_relevant": 100, "num_irrelevant": 100, "area_normalized": True}

    def finish(loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def guided(logits: Tensor, maps: Tensor) -> None:
        finish(attention_loss(logits, labels, normalize_maps(maps), reference, relevant, irrelevant, **weights))

    def plain() -> None:
        finish(nn.functional.cross_entropy(split(images), labels, reduction="sum"))

    def one_forward() -> None:
        guided(*logits_and_grad_cam(split.features(images), split.head, labels, create_graph=True))

    rows = torch.arange(len(labels))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator)
    dataset = ImageDataset.from_torch([(picture, 0) for picture in pixels])
    cache = PixelCache(dataset, split.preprocessing, device=images.device)
    guidance = Guidance(reference, answered, ~answered, torch.full((len(labels),), torch.nan), {})
    swap = BackgroundSwap(split, cache, guidance, device=images.device, labels=labels)

    def swapped() -> None:
        exchanged = swap(images, rows, 0.7)
        guided(*logits_and_grad_cam(split.features(exchanged), split.head, labels, create_graph=True))

    def two_forwards() -> None:
        logits = split(images)
        guided(logits, grad_cam(split.features(images), split.head, labels, create_graph=True))

    split.train()
    return {
        "plain step": plain,
        "attention step": one_forward,
        "attention step, background swap": swapped,
        "two-forward step": two_forwards,
    }


def looks(split: SplitModel, images: Tensor, labels: Tensor) -> dict[str, Work]:
    """A forward pass, and maps by the split and by captum on the whole model."""
    explainer = Explainer(split, device=images.device, precision="float32")
    split.eval()
    whole = nn.Sequential(split)
    last = next(m for m in reversed(list(split.model.modules())) if isinstance(m, nn.Conv2d))

    def forward() -> Tensor:
        with torch.no_grad():
            return split(images)

    return {
        "no-grad forward": forward,
        "explain (split)": lambda: explainer.saliency(images, labels),
        "explain (captum, whole model)": lambda: LayerGradCam(whole, last).attribute(images, target=labels),
    }


def pruning(split: SplitModel, size: int, count: int, device: torch.device) -> dict[str, Work]:
    """Ten epochs of pruning against one forward pass, both from pixels in memory."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    dataset = ImageDataset.from_torch([(pixels[i], i % split.num_classes) for i in range(count)])
    answers = AnnotationSet(
        NeuronAnswer(neuron=n, patch=0, answer="no" if n % 2 else "yes", annotator="benchmark", simulated=True)
        for n in range(split.num_neurons)
    )
    explainer = Explainer(split, device=device, precision="float32")

    def one_pass() -> None:
        for _ in explainer._features(dataset, "one pass"):
            pass

    pruner = NeuronPruner(split, epochs=10, device=device, precision="float32")
    return {"one forward pass": one_pass, "pruning, 10 epochs": lambda: pruner.fit(dataset, answers)}


def main() -> None:
    """Measure, print, write benchmarks/results/step-MODEL.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=64, help="pictures of the pruning benchmark")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    device = torch.device("cuda" if chosen.device == "auto" and torch.cuda.is_available() else "cpu")
    if chosen.device != "auto":
        device = torch.device(chosen.device)
    torch.manual_seed(0)
    model = timm.create_model(chosen.model, pretrained=False, num_classes=2).to(device)
    split = SplitModel(model, preprocessing=Preprocessing(size=(chosen.size, chosen.size)))
    images = torch.randn(chosen.batch, 3, chosen.size, chosen.size, device=device)
    labels = torch.arange(chosen.batch, device=device) % 2
    rows = []
    for block in (steps(split, images, labels), looks(split, images, labels)):
        rows += report(timed(block, chosen.repeats, device), chosen.batch)
    fits = pruning(split, chosen.size, chosen.images, device)
    rows += report(timed(fits, max(3, chosen.repeats // 3), device), chosen.images)
    table = Table(title=f"{chosen.model} at {chosen.size}, batch {chosen.batch}, {machine()['cpu']}")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Console().print(table, f"peak resident memory {peak:.0f} MiB")
    Console().print(f"written to {write_csv(f'step-{chosen.model}.csv', rows).name}")


def report(seconds: dict[str, list[float]], images: int) -> list[dict[str, object]]:
    """Medians, spread, and the ratio to the first variant."""
    base = statistics.median(next(iter(seconds.values())))
    return [
        {
            "what": name,
            "median s": f"{statistics.median(found):.4f}",
            "min s": f"{min(found):.4f}",
            "max s": f"{max(found):.4f}",
            "images/s": f"{images / statistics.median(found):.1f}",
            "ratio": f"{statistics.median(found) / base:.3f}",
            "runs": len(found),
        }
        for name, found in seconds.items()
    ]


if __name__ == "__main__":
    main()
