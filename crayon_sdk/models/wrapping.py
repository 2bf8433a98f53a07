"""Any classifier behind the three methods that timm models have."""

from __future__ import annotations

from torch import Tensor, nn

from crayon_sdk.errors import SettingsError, UnsupportedModelError
from crayon_sdk.models.torchvision import TorchvisionModel, is_torchvision

__all__ = ["wrapped_module"]


class _TrunkAndHead(nn.Module):
    """Any trunk and head behind the three methods that timm models have."""

    def __init__(self, trunk: nn.Module, head: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self._classifier_name = next(name for name, module in head.named_modules() if module is classifier)

    def forward_features(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(images)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def get_classifier(self) -> nn.Module:
        return self.head.get_submodule(self._classifier_name) if self._classifier_name else self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def wrapped_module(
    model: nn.Module | None, trunk: nn.Module | None, head: nn.Module | None, classifier: nn.Linear | None
) -> nn.Module:
    """Take a timm model as it is, and put a torchvision model or a trunk and a head behind the same methods.

    Args:
        model: A model, compiled or data-parallel as it may be.
        trunk: Instead of it, a trunk.
        head: And its head.
        classifier: The last linear layer of the head; found by itself when left out.

    Raises:
        SettingsError: Neither a model nor both parts, or everything at once.
        UnsupportedModelError: The head has no linear layer, or torchvision's model no map.
    """
    if model is not None and trunk is None and head is None:
        plain = _unwrapped(model)
        return TorchvisionModel(plain) if is_torchvision(plain) else plain
    if model is not None or trunk is None or head is None:
        raise SettingsError("expected either a model, or both trunk= and head=")
    linear = classifier or next((m for m in reversed(list(head.modules())) if isinstance(m, nn.Linear)), None)
    if linear is None or all(linear is not module for module in head.modules()):
        raise UnsupportedModelError(
            f"expected a head that ends in a linear layer, got {type(head).__name__} without "
            f"{'one' if linear is None else 'the given classifier'}; pass the layer as classifier="
        )
    return _TrunkAndHead(trunk, head, linear)


def _unwrapped(model: nn.Module) -> nn.Module:
    # Compiled and data-parallel models keep the real one inside, one in the other if need be.
    wrapped = isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel)
    inner = getattr(model, "module" if wrapped else "_orig_mod", None)
    return model if inner is None else _unwrapped(inner)
