"""What SplitModel finds in a model: how its features lie, and the layers at its end, whose inputs are the neurons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crayon_sdk.errors import UnsupportedModelError

__all__ = [
    "FinalLayer",
    "Layout",
    "apply_final_layers",
    "final_inputs",
    "find_final_layers",
    "from_grid",
    "grid_of",
    "layout_of",
    "to_grid",
    "tokens_are_in_order",
]

Layout = Literal["NCHW", "NHWC", "NLC"]


def layout_of(features: object, size: tuple[int, int]) -> tuple[Layout, tuple[int, int]] | None:
    """Find the grid in features by its shape, which is about that of the pictures.

    Args:
        features: What a trunk gives.
        size: (H, W) of the pictures.

    Returns:
        Layout and (h, w); ``None`` where there is no grid of more than one row and column.

    Example:
        >>> import torch
        >>> layout_of(torch.zeros(1, 7, 7, 768), (224, 224))
        ('NHWC', (7, 7))
        >>> layout_of(torch.zeros(1, 50, 768), (224, 224)) is None
        True
    """
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        return None
    if features.ndim == 3:
        grid = grid_of(int(features.shape[1]), size)
        return None if grid is None else ("NLC", grid)
    _, first, second, third = features.shape
    layout: Layout = "NCHW"
    grid = (second, third)
    if _distortion((first, second), size) < _distortion(grid, size):
        layout, grid = "NHWC", (first, second)
    return (layout, grid) if 1 not in grid and _distortion(grid, size) <= math.log(4) else None


def _distortion(grid: tuple[int, int], size: tuple[int, int]) -> float:
    return abs(math.log((grid[0] / size[0]) / (grid[1] / size[1])))


def grid_of(length: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of ``length`` tokens that cover pictures of ``size`` evenly; ``None`` if none do.

    Example:
        >>> grid_of(98, (224, 448)), grid_of(50, (224, 224))
        ((7, 14), None)
    """
    rows = round(math.sqrt(length * size[0] / size[1]))
    if rows < 2 or length % rows or length // rows < 2:
        return None
    grid = (rows, length // rows)
    return grid if _distortion(grid, size) < math.log(1.2) else None


def to_grid(features: Tensor, layout: Layout, size: tuple[int, int]) -> Tensor:
    """Show features as (N, C, h, w).

    Args:
        features: As the model gives them.
        layout: Theirs.
        size: (H, W) of the pictures.
    """
    if layout == "NCHW":
        return features
    if layout == "NHWC":
        return features.permute(0, 3, 1, 2)
    grid = grid_of(int(features.shape[1]), size)
    if grid is None:
        raise RuntimeError(f"{features.shape[1]} tokens do not cover pictures of {size[0]}x{size[1]} evenly")
    return features.transpose(1, 2).reshape(len(features), -1, *grid)


def from_grid(features: Tensor, layout: Layout) -> Tensor:
    """Give (N, C, h, w) back in the layout of the model."""
    if layout == "NCHW":
        return features
    return features.permute(0, 2, 3, 1) if layout == "NHWC" else features.flatten(2).transpose(1, 2)


def tokens_are_in_order(before: Tensor, after: Tensor, cell: tuple[int, int]) -> bool:
    """Tell whether what changed in a picture changed the features at the same place.

    Args:
        before: (1, C, h, w) of a picture.
        after: (1, C, h, w) of the same picture with another content in one cell.
        cell: (row, column) of that cell.

    Returns:
        False where features more than one cell away changed clearly more than those nearby. (With random
        weights LeViT's attention is even, so all its tokens change alike; that proves nothing.)
    """
    change = (after - before).square().sum(dim=1)[0]
    (row, column), most = cell, float(change.max())
    near = float(change[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].max())
    return near >= 0.9 * most


FinalLayer = nn.Linear | nn.Conv2d


def find_final_layers(model: Any, architecture: str) -> tuple[str, ...]:
    """Find the layers at the end of a model: linear, or a 1 x 1 convolution after pooling.

    Most models have one. Distilled ones have two, whose outputs are averaged. Where the
    model's classifier is a module with further layers, it is its last one.

    Args:
        model: Has ``get_classifier()``, as timm models do.
        architecture: For the message.

    Returns:
        Their names in the model.

    Raises:
        UnsupportedModelError: There are none.
    """
    roots = model.get_classifier()
    roots = tuple(roots) if isinstance(roots, tuple | list) else (roots,)
    found = [layer for root in roots for layer in _ends_of(root)]
    if not found:
        kind = ", ".join(type(root).__name__ for root in roots)
        raise UnsupportedModelError(
            f"expected a linear layer (or a 1 x 1 convolution) at the end of {architecture}, got {kind}; crayon-sdk "
            "needs it to know what a neuron is. Give the model a classifier (for timm: num_classes=K, or "
            "model.reset_classifier(K)), or wrap it as SplitModel(trunk=..., head=...)"
        )
    names = {id(module): name for name, module in model.named_modules()}
    return tuple(names[id(layer)] for layer in found)


def _ends_of(root: Any) -> list[nn.Module]:
    if not isinstance(root, nn.Module):
        return []
    layers = [module for module in root.modules() if _is_final(module)]
    # Of several, those with as many outputs as the last: a distilled head has one for each teacher.
    return [layer for layer in layers if _outputs(layer) == _outputs(layers[-1])]


def _is_final(module: nn.Module) -> bool:
    pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear) or pointwise


def _outputs(layer: Any) -> int:
    return int(layer.weight.shape[0])


def final_inputs(layers: Sequence[nn.Module], run: Callable[[], Tensor], architecture: str) -> tuple[Tensor, ...]:
    """Run a head and see what goes into its final layers.

    Args:
        layers: The final layers.
        run: Runs the head.
        architecture: For the message.

    Returns:
        (N, num_neurons) per layer, with the graph of ``run``.

    Raises:
        UnsupportedModelError: A layer is not used, or works on a grid.
    """
    seen: dict[int, Tensor] = {}

    def remember(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[id(layer)] = inputs[0]

    handles = [layer.register_forward_pre_hook(remember) for layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    if len(seen) < len(layers):
        raise UnsupportedModelError(
            f"the head of {architecture} never uses the layer that was given as its classifier; "
            "pass its last linear layer"
        )
    return tuple(_rows(seen[id(layer)], architecture) for layer in layers)


def _rows(inputs: Tensor, architecture: str) -> Tensor:
    if inputs.ndim == 4 and inputs.shape[2:] == (1, 1):
        return inputs.flatten(1)
    if inputs.ndim != 2:
        raise UnsupportedModelError(
            f"expected neurons of shape (N, num_neurons) before the last layer of {architecture}, got "
            f"{tuple(inputs.shape)}; pool before it, or wrap the model as SplitModel(trunk=..., head=...)"
        )
    return inputs


def apply_final_layers(layers: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Tensor:
    """Turn the inputs of the final layers into logits: the mean of what the layers give.

    Args:
        layers: The final layers.
        inputs: (N, num_neurons) for each.

    Returns:
        (N, K).
    """
    outputs = [
        layer(rows) if isinstance(layer, nn.Linear) else layer(rows[:, :, None, None]).flatten(1)
        for layer, rows in zip(layers, inputs, strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(dim=0)
