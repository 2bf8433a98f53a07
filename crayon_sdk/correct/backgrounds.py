"""Training pictures whose object stands on another background."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from crayon_sdk._base.progress import track
from crayon_sdk.correct.guidance import Guidance
from crayon_sdk.data.pixels import PixelCache, sent
from crayon_sdk.errors import UnsupportedModelError
from crayon_sdk.functional.highlights import (
    background_tiles,
    guided_filter,
    refine_maps,
    replace_background,
    sharpen,
)
from crayon_sdk.functional.saliency import resize_maps
from crayon_sdk.functional.views import shown
from crayon_sdk.models.passes import intermediate_features
from crayon_sdk.models.split import SplitModel, borrowed

__all__ = ["BackgroundSwap", "finer_features"]

_DENIED = (0.15, 0.45)  # certainty of a cell, below which it is no object, whatever it looks like
_BATCH = 64  # the clustering standardises features over a batch, so the batches must not depend on settings


class BackgroundSwap:
    """Gives pictures of a batch another background.

    Where the object is known in every picture (``found``), every picture is given other backgrounds. Else those whose
    map was found relevant are: a yes says that the highlight lies on the object, and with the finer features of the
    model that was explained the object under each relevant map is found once. In training objects are then laid on
    background tiles of other such pictures. These are drawn so that every class comes as often as the others: drawn
    evenly, a picture of the largest class would mostly get a background of its own class again.

    Args:
        model: The model before it is corrected, in any mode; it comes back as it was.
        cache: The training pictures.
        guidance: Which samples are relevant (at least one), and their maps.
        device: Where the model works.
        autocast: Reduced precision of the trunk.
        found: (N, h, w) in [0, 1], share of object, when it is known.
        labels: (N,) int64 classes, over which the other pictures are drawn evenly.

    Attributes:
        objects: (N, H / 2, W / 2) uint8, share of object in 255ths; zeros where a sample is
            not exchanged.

    Raises:
        UnsupportedModelError: The model does not give its intermediate features.
    """

    def __init__(
        self,
        model: SplitModel,
        cache: PixelCache,
        guidance: Guidance,
        *,
        device: torch.device,
        autocast: torch.dtype | None = None,
        found: Tensor | None = None,
        labels: Tensor,
    ) -> None:
        self._cache = cache
        # On the CPU, where every step draws from it.
        self._known = (guidance.relevant if found is None else torch.ones_like(guidance.relevant)).cpu()
        self._donors = self._known.nonzero().flatten()
        of = labels.cpu()[self._donors]
        self._chances = 1 / torch.bincount(of)[of]  # of a donor to be drawn
        self._grid = (int(guidance.reference.shape[1]), int(guidance.reference.shape[2]))
        self._fine = (4 * self._grid[0], 4 * self._grid[1])
        height, width = cache.get(self._donors[:1]).shape[2:]
        size = (max(int(height) // 2, 1), max(int(width) // 2, 1))
        # Bytes: in float32 they would take more room than the pictures.
        self.objects = torch.zeros(len(guidance.relevant), *size, dtype=torch.uint8, device=device)
        with borrowed(model, device), torch.no_grad(), track("cutting out objects", len(self._donors)) as advance:
            for rows in self._donors.to(device).split(_BATCH):
                images = cache.get(rows)
                starts = guidance.reference[rows] if found is None else found[rows]
                finer = finer_features(model, images, self._grid, autocast=autocast)
                coarse = refine_maps(starts, finer, size=self._fine)
                if found is not None:  # what is like the object by its colours alone is none
                    coarse = coarse * sharpen(resize_maps(starts, self._fine), *_DENIED)
                guides = nn.functional.interpolate(images.float(), size=size, mode="area")
                shares = sharpen(guided_filter(resize_maps(coarse, size), guides))
                self.objects[rows] = (255 * shares).round().to(torch.uint8)
                advance(len(rows))

    def _shares(self, rows: Tensor) -> Tensor:
        return self.objects[sent(rows, self.objects.device)].float() / 255

    def __call__(
        self,
        images: Tensor,
        batch: Tensor,
        share: float,
        *,
        drawn_for: Callable[[Callable[[int], Tensor]], Tensor] | None = None,
        view: Tensor | None = None,
    ) -> Tensor:
        """Exchange backgrounds; what is drawn comes from torch's own generator.

        Args:
            images: (n, 3, H, W) preprocessed pictures of the batch.
            batch: (n,) positions of the samples, on the CPU.
            share: Probability for each picture, in [0, 1].
            drawn_for: Draws for these samples, as `Batch.drawn` does; default for each of them.
            view: (n, 2, 3), which part of each picture ``images`` show; default all of it.

        Returns:
            (n, 3, H, W), a new tensor where anything was exchanged.
        """

        def donors_of(count: int) -> Tensor:
            return torch.multinomial(self._chances, count, replacement=True)

        drawn_for = drawn_for or (lambda draw: draw(len(batch)))
        drawn, donors = drawn_for(torch.rand) < share, self._donors[drawn_for(donors_of)]
        rows = (drawn & self._known[batch]).nonzero().flatten()
        if not len(rows):
            return images
        others, chosen = donors[rows], sent(rows, images.device)
        backgrounds = background_tiles(self._cache.get(others), self._shares(others), self._grid)
        objects = self._shares(batch[rows])
        if view is not None:
            objects = shown(objects, view[chosen].to(objects))
        swapped = replace_background(images[chosen], objects, backgrounds)
        return images.index_copy(0, chosen, swapped)


def finer_features(
    model: SplitModel, images: Tensor, map_size: tuple[int, int], *, autocast: torch.dtype | None = None
) -> list[Tensor]:
    """Run the trunk and give the feature maps that are about two and four times as fine as the saliency map.

    Args:
        model: A split timm model.
        images: (N, 3, H, W) preprocessed.
        map_size: (h, w) of the saliency map.
        autocast: Reduced precision of the trunk.

    Returns:
        One or more (N, C, H, W) float32.

    Raises:
        UnsupportedModelError: The model has no ``forward_intermediates``, or no such maps.
    """
    try:
        return intermediate_features(model, images, map_size, autocast, least=1.5, last=True)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"background_swap: {error}; set background_swap=0") from error
