"""The method as pure functions of tensors: no state, no files, torch only.

- [`saliency`][crayon_sdk.functional.saliency]: Grad-CAM, normalising, resizing.
- [`losses`][crayon_sdk.functional.losses]: Eq. 1-4 of the paper.
- [`neurons`][crayon_sdk.functional.neurons]: strongest patches, pruning, baking.
- [`highlights`][crayon_sdk.functional.highlights]: the object under a relevant map, other backgrounds.
- [`cells`][crayon_sdk.functional.cells]: what answers say about cells of feature maps, carried to all pictures.
- [`metrics`][crayon_sdk.functional.metrics]: group accuracies and map energy.
- [`selection`][crayon_sdk.functional.selection]: which pictures to ask about first.
- [`weights`][crayon_sdk.functional.weights]: how far weights have moved.
"""

from crayon_sdk.functional import cells, highlights, losses, metrics, neurons, saliency, selection, weights

__all__ = ["cells", "highlights", "losses", "metrics", "neurons", "saliency", "selection", "weights"]
