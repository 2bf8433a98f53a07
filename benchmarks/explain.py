"""What maps cost, against a forward pass without gradients and against other libraries, in one run.

python benchmarks/explain.py [--model resnet50] [--size 224] [--batch 16] [--images 64] [--repeats 5] [--device cpu]
                             [--short]

All get the same finished inputs from memory. grad-cam and torchcam are in the extra `bench`; what is not there is left
out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from rivals import captum_maps, pytorch_grad_cam_maps, torchcam_maps
from side_by_side import arguments, finish, network, noise, parsed, rounds
from torch import Tensor, nn

from crayon_sdk import Explainer, ImageDataset


def main() -> None:
    """Measure, print, write."""
    chosen = parsed(arguments(__doc__, images=64))
    model = network(chosen)
    images = model.preprocessing.normalize(noise(chosen.images, chosen.size))
    labels = torch.arange(chosen.images) % 2
    dataset = ImageDataset.from_torch(list(zip(images, labels.tolist(), strict=True)), preprocessed=True)
    explainer = Explainer(model, batch_size=chosen.batch, device=chosen.device, precision="float32")
    batches = list(zip(images.split(chosen.batch), labels.split(chosen.batch), strict=True))

    def forward() -> None:
        with torch.no_grad():
            for part, _ in batches:
                model(part.to(chosen.device))

    def by(maps: Callable[[Tensor, Tensor], Any]) -> Callable[[], None]:
        def work() -> None:
            for part, targets in batches:
                maps(part.to(chosen.device), targets.to(chosen.device))

        return work

    def last(network: nn.Module) -> nn.Module:
        return [each for each in network.modules() if isinstance(each, nn.Conv2d)][-1]

    variants: dict[str, Callable[[], Any]] = {
        "no-grad forward": forward,
        "Explainer.explain": lambda: [explainer.explain(dataset), None][1],
    }
    for name, rival in {
        "captum LayerGradCam": captum_maps,
        "pytorch-grad-cam": pytorch_grad_cam_maps,
        "torchcam": torchcam_maps,
    }.items():
        theirs = model.copy().model.eval()
        maps = rival(theirs, last(theirs))
        if maps is not None:
            variants[name] = by(maps)
    finish("explain", chosen, rounds(variants, chosen))


if __name__ == "__main__":
    main()
