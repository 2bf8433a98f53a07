"""The layers at the very end of a classifier: what goes into them are the neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crayon_sdk.errors import UnsupportedModelError

__all__ = ["FinalLayer", "apply_final_layers", "final_inputs", "find_final_layers"]

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
    outputs = list(_outputs_of(layers, inputs))
    return outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(dim=0)


def _outputs_of(layers: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Iterator[Tensor]:
    for layer, rows in zip(layers, inputs, strict=True):
        yield layer(rows) if isinstance(layer, nn.Linear) else layer(rows[:, :, None, None]).flatten(1)
