"""From torchvision to timm, where that is exact: a corrected model then loads with plain timm."""

from __future__ import annotations

import torch

from crayon_sdk.errors import CrayonError, ModelLoadError, UnsupportedModelError
from crayon_sdk.models.adapters import PREFIX
from crayon_sdk.models.load import load_model
from crayon_sdk.models.split import SplitModel, borrowed

__all__ = ["to_timm"]


def to_timm(model: SplitModel) -> SplitModel:
    """Turn a torchvision model into timm's architecture of the same name, with the same weights.

    Exact where both name their weights alike: ResNet, ResNeXt, Wide ResNet and DenseNet. What
    comes out is compared with what went in, so nothing that is nearly the same passes.

    Args:
        model: Loaded as ``load_model("torchvision:...")``. It is not changed.

    Returns:
        A timm model on the same device, with the same preprocessing and class names, in eval mode.

    Raises:
        UnsupportedModelError: timm has no such architecture, or not with the same names and logits.

    Example:
        >>> torchvisions = load_model("torchvision:resnet18", pretrained=False, num_classes=2)
        >>> to_timm(torchvisions).architecture
        'resnet18'
    """
    name = model.architecture
    if not name.startswith(PREFIX):
        raise UnsupportedModelError(f"expected a model of load_model('torchvision:...'), got {name}")
    try:
        converted = load_model(
            name.removeprefix(PREFIX),
            pretrained=False,
            num_classes=model.num_classes,
            preprocessing=model.preprocessing,
            class_names=model.class_names or None,
        )
        converted.model.load_state_dict(model.plain_state_dict())
    except ModelLoadError as error:
        raise UnsupportedModelError(f"timm has no architecture like {name}: {error}") from error
    except (RuntimeError, CrayonError) as error:
        raise UnsupportedModelError(
            f"the weights of {name} have other names or shapes in timm, so that there is no exact conversion; "
            "keep it as it is, it can be corrected and saved too"
        ) from error
    converted = converted.to(model.device, model.dtype).eval()
    if not _alike(model, converted):
        raise UnsupportedModelError(
            f"timm's {converted.architecture} gives other logits than {name} with the same weights, so that there is "
            "no exact conversion; keep it as it is, it can be corrected and saved too"
        )
    keep = model.neuron_mask
    if not bool(keep.all()):
        converted.prune(keep)
    converted.provenance = model.provenance
    return converted


def _alike(one: SplitModel, other: SplitModel) -> bool:
    size = one.preprocessing.size
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(one.device, one.dtype)
    with borrowed(one, one.device), borrowed(other, one.device), torch.no_grad():
        expected = one(images)
        # Small logits, as random weights give, must not pass for equal ones.
        return torch.allclose(other(images), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
