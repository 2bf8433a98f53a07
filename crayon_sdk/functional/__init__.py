"""The method as pure functions of tensors: no state, no files, torch only.

- [`saliency`][crayon_sdk.functional.saliency]: Grad-CAM, normalising, resizing.
- [`losses`][crayon_sdk.functional.losses]: Eq. 1-4 of the paper.
- [`neurons`][crayon_sdk.functional.neurons]: strongest patches, pruning, baking.
- [`highlights`][crayon_sdk.functional.highlights]: the object under a relevant map, other backgrounds.
- [`cells`][crayon_sdk.functional.cells]: what answers say about cells of feature maps, carried to all pictures.
- [`biased`][crayon_sdk.functional.biased]: what a biased network says about samples (LfF, LC).
- [`contrast`][crayon_sdk.functional.contrast]: losses that compare pairs of pictures (SoftCon, FLAC, CnC).
- [`masking`][crayon_sdk.functional.masking]: hiding what a model looks at (MaskTune).
- [`views`][crayon_sdk.functional.views]: random views of pictures.
- [`metrics`][crayon_sdk.functional.metrics]: group accuracies and map energy.
- [`selection`][crayon_sdk.functional.selection]: which pictures to ask about first.
- [`weights`][crayon_sdk.functional.weights]: how far weights have moved.
"""

from crayon_sdk.functional import (
    biased,
    cells,
    contrast,
    highlights,
    losses,
    masking,
    metrics,
    neurons,
    saliency,
    selection,
    views,
    weights,
)

__all__ = [
    "biased",
    "cells",
    "contrast",
    "highlights",
    "losses",
    "masking",
    "metrics",
    "neurons",
    "saliency",
    "selection",
    "views",
    "weights",
]
