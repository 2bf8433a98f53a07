"""How a model is built again: timm's ``config.json``, the Python that loads others, and timm in torchvision's place.

`to_timm` is for what both build alike: a corrected model then loads with plain timm.
"""

from __future__ import annotations

import json
from typing import Any

from crayon_sdk.errors import CrayonError, ModelLoadError, UnsupportedModelError
from crayon_sdk.models.adapters import PREFIX, TorchvisionModel
from crayon_sdk.models.alike import logits_of, noise, same_logits
from crayon_sdk.models.load import load_model
from crayon_sdk.models.split import SplitModel

__all__ = ["base_of", "can_be_built", "how_to_load", "is_timm", "remember_base", "timm_config", "to_timm"]

# Facts about the architecture and its licence that travel on; where the old weights came from does not.
_KEPT = ("fixed_input_size", "pool_size", "first_conv", "classifier", "license", "origin_url", "paper_ids", "tag")


def is_timm(model: SplitModel) -> bool:
    """Tell whether timm can build this architecture by name."""
    import timm

    return bool(getattr(model.model, "pretrained_cfg", None)) and timm.is_model(model.architecture)


def can_be_built(model: SplitModel) -> bool:
    """Tell whether timm or torchvision can build this architecture by name."""
    return is_timm(model) or model.architecture.startswith(PREFIX)


def base_of(model: SplitModel) -> dict[str, str]:
    """Say what a model was made from, as far as it is known.

    Returns:
        "architecture"; "model", the repository on the Hub its weights came from, or ""; "license" of those, or "".
    """
    known = getattr(model.model, "pretrained_cfg", None) or {}
    found = {"architecture": model.architecture, "model": known.get("hf_hub_id"), "license": known.get("license")}
    return {name: str(value or "") for name, value in found.items()}


def remember_base(model: SplitModel, base: dict[str, str]) -> None:
    """Let a model that was loaded again know what it was made from."""
    known = getattr(model.model, "pretrained_cfg", None)
    if isinstance(known, dict):
        known |= {key: base[name] for key, name in (("hf_hub_id", "model"), ("license", "license")) if base.get(name)}


def how_to_load(model: SplitModel) -> str:
    """Write the Python that loads a saved model without this package."""
    if is_timm(model):
        return 'timm.create_model("local-dir:FOLDER", pretrained=True)'
    fill = (
        'state = model.state_dict(); state.update(safetensors.torch.load_file("FOLDER/model.safetensors")); '
        "model.load_state_dict(state)"
    )
    if model.architecture.startswith(PREFIX):
        arguments = {"weights": None, "num_classes": model.num_classes} | model.model.arguments
        listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return f'model = torchvision.models.get_model("{model.architecture.removeprefix(PREFIX)}", {listed}); {fill}'
    if isinstance(model.model, TorchvisionModel):
        return f"model = the same {type(model.model.inner).__name__} of torchvision.models; {fill}"
    return (
        f"model = the same {model.architecture}, built as before; {fill} "
        "(of SplitModel(trunk=..., head=...): the names begin with trunk. and head.)"
    )


def timm_config(model: SplitModel) -> dict[str, Any]:
    """Describe a model so that ``timm.create_model("local-dir:...")`` builds the same one.

    Args:
        model: A timm model.

    Returns:
        JSON-able content of ``config.json``.
    """
    from timm.models import get_model_args

    module: Any = model.model
    known = module.pretrained_cfg
    preprocessing = model.preprocessing
    pretrained = {name: known[name] for name in _KEPT if known.get(name) is not None}
    pretrained |= {
        "custom_load": False,
        "num_classes": model.num_classes,
        "input_size": [3, *preprocessing.size],
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
        "interpolation": preprocessing.interpolation,
    }
    arguments = {name: value for name, value in get_model_args(module).items() if _is_json(value)}
    config: dict[str, Any] = {
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "num_features": module.num_features,
        "model_args": arguments | {"num_classes": model.num_classes},
        "pretrained_cfg": pretrained,
    }
    pool = getattr(module, "global_pool", None)
    if isinstance(pool, str):
        config["global_pool"] = pool
    if model.class_names:
        config["label_names"] = list(model.class_names)
    return config


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return value is not None


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
    images = noise(one).to(one.device, one.dtype)
    expected = logits_of(one, images)
    # Small logits, as random weights give, must not pass for equal ones.
    return same_logits(logits_of(other, images), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
