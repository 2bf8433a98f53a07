"""One pass of a trunk over a data set; what explaining, evaluating and pruning share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from crayon_sdk._base.process import Processes
from crayon_sdk._base.progress import track
from crayon_sdk._base.text import first_few
from crayon_sdk.data.classes import match_classes
from crayon_sdk.data.dataset import ImageDataset, as_dataset
from crayon_sdk.data.pixels import PixelCache, Workers, batches
from crayon_sdk.data.preprocessing import effective_preprocessing
from crayon_sdk.errors import DataError, SettingsError, UnsupportedModelError
from crayon_sdk.models.parts import to_grid
from crayon_sdk.models.split import SplitModel, broken_weights, why_not_finite

__all__ = [
    "check_finite",
    "gives_intermediates",
    "in_classes_of",
    "intermediate_features",
    "laid_out",
    "portion",
    "predict",
    "stream_both",
    "stream_features",
    "stream_pictures",
]

_ALIKE = 0.05  # relative difference of features by two ways that rounding alone does not reach


def in_classes_of(dataset: ImageDataset, model: SplitModel) -> ImageDataset:
    """Bring data and model together: the same samples, with their labels in the classes of the model.

    Classes are found by name. The model's own order and names count; where it has none, or the data has only
    numbers, they are taken in their order, if there are as many.

    Args:
        dataset: Its ``class_map`` says what corresponds where the names do not.
        model: Its weights are looked at, too.

    Raises:
        DataError: The data set is empty, or no ImageDataset.
        SettingsError: It is not clear which class of the model a class of the data is.
        UnsupportedModelError: The model has weights that are no numbers.
    """
    if not len(as_dataset(dataset)):
        raise DataError("expected a data set with at least one sample, got an empty one")
    model.check_finite()
    highest = int(dataset.labels.max())
    if highest >= model.num_classes and not model.class_names and not dataset.class_map:
        name = dataset.class_names[highest] if highest < len(dataset.class_names) else str(highest)
        raise SettingsError(
            f"expected labels of the model's {model.num_classes} classes, got label {highest} ({name!r}); "
            f"load a model with at least {highest + 1} classes, or leave these samples out"
        )
    names, numbers = match_classes(
        dataset.class_names,
        model.class_names,
        model.num_classes,
        needed=[dataset.class_names[label] for label in dataset.labels.unique().tolist()],
        class_map=dataset.class_map,
        guessed=dataset.guessed_names,
        aliases=model.class_descriptions,
    )
    return dataset.with_classes(names, numbers)


def check_finite(model: SplitModel, values: Tensor, what: str, ids: Sequence[str]) -> None:
    """See that what a model gave for some samples is finite; a map or an accuracy of NaN says nothing.

    Args:
        model: The model.
        values: What it gave, (n, ...).
        what: What that is, such as "logits".
        ids: Of the n samples.

    Raises:
        DataError: It is not for some samples, though the model is sound.
        UnsupportedModelError: It is not for any, or the model has weights that are not finite.
    """
    fine = values.detach().flatten(1).isfinite().all(dim=1)
    if bool(fine.all()):
        return
    bad = [name for name, good in zip(ids, fine.tolist(), strict=True) if not good]
    found = f"the {what} of {model.architecture} are not finite (NaN or infinity) for {first_few(bad, 3)}"
    if bool(fine.any()) and not broken_weights(model.model):
        raise DataError(
            f"{found}, and are for {int(fine.sum())} others; its weights are finite. Look at these pictures: huge "
            "values in finished inputs, or a precision that is too low for them (precision='float32')"
        )
    raise UnsupportedModelError(f"{found}: {why_not_finite(model)}")


def laid_out(model: SplitModel, channels_last: bool, compiled: bool = False) -> SplitModel:
    """Put the weights of a model into the order channels last, or back, and have its trunk compiled, or not.

    Its maps and logits differ by rounding.
    """
    model.compile_trunk = compiled
    return model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def stream_pictures(
    model: SplitModel,
    dataset: ImageDataset,
    *,
    device: torch.device,
    batch_size: int = 64,
    num_workers: Workers = "auto",
    order: Sequence[int] | None = None,
    cache: PixelCache | None = None,
    doing: str = "looking",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through the pictures of a data set as a model sees them, keeping nothing.

    Args:
        model: The model.
        dataset: What to look at; must have samples.
        device: Where the pictures go.
        batch_size: Pictures at a time.
        num_workers: Processes that decode.
        order: Positions to go through; default all.
        cache: Pixels that are decoded already.
        doing: What the progress bar says.

    Yields:
        Positions (n,) int64 on the CPU and preprocessed pictures (n, 3, H, W) on the device.
    """
    preprocessing = effective_preprocessing(dataset, model.preprocessing)
    positions = range(len(dataset)) if order is None else order
    if cache is None:
        stream = batches(dataset, preprocessing, batch_size=batch_size, num_workers=num_workers, order=order)
    else:
        stream = ((rows, cache.get(rows)) for rows in torch.tensor(positions, dtype=torch.int64).split(batch_size))
    with track(doing, len(positions)) as advance:
        for indices, pixels in stream:
            yield indices, preprocessing.normalize(pixels.to(device, non_blocking=True))
            advance(len(indices))


def stream_features(
    model: SplitModel, dataset: ImageDataset, *, autocast: torch.dtype | None = None, **how: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the trunk over a data set without gradients, keeping nothing.

    The caller has put the model on the device and into the mode it wants.

    Args:
        model: The model.
        dataset: What to look at; must have samples.
        autocast: Reduced precision of the trunk.
        **how: As in `stream_pictures`; ``device`` is where the model is.

    Yields:
        Positions (n,) int64 on the CPU and features (n, C, h, w) on the device.

    Raises:
        DataError: The features of some samples are not finite.
        UnsupportedModelError: Those of all are not, or weights of the model.
    """
    for indices, images in stream_pictures(model, dataset, **how):
        with torch.no_grad():
            features = model.features(images, autocast=autocast)
        check_finite(model, features, "features", [dataset.ids[row] for row in indices.tolist()])
        yield indices, features


def stream_both(
    model: SplitModel, dataset: ImageDataset, *, autocast: torch.dtype | None = None, **how: Any
) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
    """Run the trunk over a data set without gradients, for its features and the intermediate ones at once.

    As `stream_features`. A model that means something else by its last features than ``forward_features()`` gives, by
    the first picture, is run twice.

    Args:
        model: The model; it has ``forward_intermediates()``.
        dataset: What to look at; must have samples.
        autocast: Reduced precision of the trunk.
        **how: As in `stream_pictures`; ``device`` is where the model is.

    Yields:
        Positions (n,) int64 on the CPU, features (n, C, h, w), and intermediate features as `intermediate_features`
        gives them for a map of (h, w), on the device.

    Raises:
        DataError: The features of some samples are not finite.
        UnsupportedModelError: Those of all are not, or weights of the model; or there are no intermediate features.
    """
    same: bool | None = None
    for indices, images in stream_pictures(model, dataset, **how):
        with torch.no_grad():
            final, found = _run(model, images, autocast, intermediates_only=False)
            final = final if autocast is None else final.float()
            features = to_grid(final, model.layout, (int(images.shape[2]), int(images.shape[3])))
            if same is None:
                known, first = model.features(images[:1], autocast=autocast), features[:1]
                same = known.shape == first.shape and bool((known - first).norm() <= _ALIKE * known.norm())
            features = features if same else model.features(images, autocast=autocast)
        check_finite(model, features, "features", [dataset.ids[row] for row in indices.tolist()])
        yield indices, features, _fitting(model, found, (int(features.shape[2]), int(features.shape[3])))


def predict(
    model: SplitModel,
    dataset: ImageDataset,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
    batch_size: int = 64,
    cache: PixelCache | None = None,
) -> Tensor:
    """Give the logits of every sample, in the order of the data set.

    The caller has put the model on ``device`` and into the mode it wants. Processes that were launched together share
    the work, and all get the whole.

    Returns:
        (N, K) float32 on the CPU.
    """
    order, processes = portion(len(dataset), batch_size)
    stream = stream_features(
        model,
        dataset,
        device=device,
        autocast=autocast,
        batch_size=batch_size,
        cache=cache,
        order=order,
        doing="evaluating",
    )
    logits = torch.zeros(len(dataset), model.num_classes)
    with torch.no_grad():
        for rows, features in stream:
            logits[rows] = model.head(features).float().cpu()
    logits = processes.merged(logits, torch.tensor(order, dtype=torch.int64))
    check_finite(model, logits, "logits", dataset.ids)
    return logits


def portion(count: int, batch_size: int, order: Sequence[int] | None = None) -> tuple[list[int], Processes]:
    """The samples of this process when those that were launched together look at some: every n-th batch.

    Whole batches, so that the same numbers come out as in one process, to the last bit.

    Args:
        count: How many samples there are.
        batch_size: Samples at a time.
        order: Positions to go through; default all.

    Returns:
        Positions, and with whom the others are shared; with fewer batches than processes every process looks at all.

    Example:
        >>> portion(3, 2)[0]
        [0, 1, 2]
    """
    positions = list(range(count)) if order is None else list(order)
    parts, processes = range(0, len(positions), batch_size), Processes.found()
    if len(parts) < processes.size:
        return positions, Processes()
    own = parts[processes.index :: processes.size]
    return [each for start in own for each in positions[start : start + batch_size]], processes


def gives_intermediates(model: SplitModel) -> bool:
    """Tell whether a model has ``forward_intermediates``, as timm models do."""
    return callable(getattr(model.model, "forward_intermediates", None))


def intermediate_features(
    model: SplitModel,
    images: Tensor,
    map_size: tuple[int, int],
    autocast: torch.dtype | None = None,
    *,
    least: float = 0.9,
    last: bool = False,
) -> list[Tensor]:
    """Run the trunk and give the feature maps that are up to five times as fine as the saliency map.

    Args:
        model: A split timm model.
        images: (N, 3, H, W) preprocessed.
        map_size: (h, w) of the saliency map.
        autocast: Reduced precision of the trunk.
        least: How fine a feature map must be, in units of the saliency map.
        last: Also the last one, which knows of every cell what is around it.

    Returns:
        One or more (N, C, H, W) float32, from early to late.

    Raises:
        UnsupportedModelError: The model has no ``forward_intermediates``, or no such maps.
    """
    return _fitting(model, _run(model, images, autocast, intermediates_only=True), map_size, least=least, last=last)


def _run(model: SplitModel, images: Tensor, autocast: torch.dtype | None, *, intermediates_only: bool) -> Any:
    if not gives_intermediates(model):
        raise UnsupportedModelError(
            f"the intermediate features of {model.architecture} are needed, and it has no forward_intermediates() as "
            "timm models have"
        )
    with torch.autocast(images.device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        return model.model.forward_intermediates(
            images.to(model.dtype), intermediates_only=intermediates_only, output_fmt="NCHW"
        )


def _fitting(
    model: SplitModel, found: list[Tensor], map_size: tuple[int, int], *, least: float = 0.9, last: bool = False
) -> list[Tensor]:
    fine = [max(each.shape[2] / map_size[0], each.shape[3] / map_size[1]) for each in found]
    fitting = [each.float() for each, how in zip(found, fine, strict=True) if least <= how < 5]
    if not last and len(fitting) > 1 and least <= fine[-1] < 5:
        fitting.pop()
    if not fitting:
        raise UnsupportedModelError(
            f"features about as fine as the map of {model.architecture} ({map_size[0]} x {map_size[1]}) or finer are "
            "needed, and it has none"
        )
    return fitting
