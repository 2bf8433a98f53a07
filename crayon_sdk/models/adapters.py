"""Classifiers of others behind the three methods that timm models have: torchvision's, and any trunk and head.

`TorchvisionModel` borrows the children of the model it is made from, so its state dict
has torchvision's names and what is trained in one is trained in the other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from crayon_sdk._base.text import first_line
from crayon_sdk.errors import ModelLoadError, SettingsError, UnsupportedModelError

__all__ = ["PREFIX", "TorchvisionModel", "create_torchvision", "is_torchvision", "wrapped_module"]

PREFIX = "torchvision:"

_Step = str | Callable[[Tensor], Tensor]


def _flatten(features: Tensor) -> Tensor:
    return features.flatten(1)


def _mean(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3))


_INCEPTION3 = (
    "_transform_input Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 Mixed_5b "
    "Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c"
)
_GOOGLENET = (
    "_transform_input conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3 inception4a inception4b "
    "inception4c inception4d inception4e maxpool4 inception5a inception5b"
)
# By class: the children up to the features, then those up to the logits. The last one holds the classifier.
_PLANS: dict[str, tuple[tuple[_Step, ...], tuple[_Step, ...]]] = {
    "ResNet": (
        ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
        ("avgpool", _flatten, "fc"),
    ),
    "AlexNet": (("features",), ("avgpool", _flatten, "classifier")),
    "VGG": (("features",), ("avgpool", _flatten, "classifier")),
    "DenseNet": (("features", nn.functional.relu), (_mean, "classifier")),
    "MobileNetV2": (("features",), (_mean, "classifier")),
    "MobileNetV3": (("features",), ("avgpool", _flatten, "classifier")),
    "EfficientNet": (("features",), ("avgpool", _flatten, "classifier")),
    "ConvNeXt": (("features",), ("avgpool", "classifier")),
    "RegNet": (("stem", "trunk_output"), ("avgpool", _flatten, "fc")),
    "ShuffleNetV2": (("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"), (_mean, "fc")),
    "MNASNet": (("layers",), (_mean, "classifier")),
    "SwinTransformer": (("features", "norm"), ("permute", "avgpool", "flatten", "head")),
    "GoogLeNet": (tuple(_GOOGLENET.split()), ("avgpool", _flatten, "dropout", "fc")),
    "Inception3": (tuple(_INCEPTION3.split()), ("avgpool", "dropout", _flatten, "fc")),
    "MaxVit": (("stem", "blocks"), ("classifier",)),
}
# Weights of DenseNet name their layers as torchvision did long ago: "denselayer1.norm.1.weight".
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_REASONS = {
    "VisionTransformer": "only its class token reaches the classifier, the gradient of the patches is zero, and a map "
    "could show nothing; use a model that pools its features, such as torchvision:swin_t",
    "SqueezeNet": "its last layer is a convolution before the pooling, so that there is no penultimate neuron; use "
    "another model, or wrap it as SplitModel(trunk=..., head=...) with a linear layer at the end",
}


class TorchvisionModel(nn.Module):
    """A torchvision classifier with ``forward_features``, ``forward_head`` and ``get_classifier``.

    Auxiliary classifiers of GoogLeNet and Inception are kept and not used.

    Args:
        model: The classifier; its children are shared, not copied.
        name: ``"torchvision:resnet50"``, when it is known.
        arguments: What it was built with, apart from the number of classes.
        config: Preprocessing and class names in the terms of timm's ``pretrained_cfg``.

    Raises:
        UnsupportedModelError: It has no features that could be guided.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str = "",
        arguments: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        kind = type(model).__name__
        if kind not in _PLANS:
            reason = _REASONS.get(kind, "crayon-sdk does not know where its features are; wrap it as SplitModel(...)")
            raise UnsupportedModelError(f"expected a torchvision model with a map, got {name or kind}: {reason}")
        self._trunk_steps, self._head_steps = _PLANS[kind]
        self.name = name
        self.arguments = dict(arguments or {})
        usual = _IMAGENET | ({"input_size": (3, 299, 299)} if kind == "Inception3" else {})
        self.pretrained_cfg = usual | dict(config or {}) | {"architecture": name or kind}
        self.training = model.training
        # Shared dictionaries, not shared entries: whoever replaces a child replaces it in both.
        self.__dict__["inner"] = model
        self.__dict__.update({part: model.__dict__[part] for part in ("_modules", "_parameters", "_buffers")})

    def forward_features(self, images: Tensor) -> Tensor:
        """Turn images into features, channels first (Swin: channels last)."""
        for step in self._trunk_steps:
            for module in self._run(step):
                images = module(images)
        return images

    def forward_head(self, features: Tensor) -> Tensor:
        """Turn features into logits."""
        for step in self._head_steps:
            for module in self._run(step):
                features = module(features)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Turn images into logits."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """Give the last linear layer."""
        end = self.get_submodule(str(self._head_steps[-1]))
        linear = [module for module in end.modules() if isinstance(module, nn.Linear)]
        return linear[-1] if linear else end

    def forward_intermediates(
        self, images: Tensor, *, intermediates_only: bool = True, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        """Give the last features of every resolution, finest first; the arguments are timm's, with one choice each."""
        if not intermediates_only or output_fmt != "NCHW":
            raise NotImplementedError("only intermediates_only=True and output_fmt='NCHW'")
        last: dict[tuple[int, ...], Tensor] = {}
        for step in self._trunk_steps:
            for module in self._run(step):
                images = module(images)
                found = images.permute(0, 3, 1, 2) if "permute" in self._head_steps else images
                last[tuple(found.shape[2:])] = found
        return list(last.values())

    def _run(self, step: _Step) -> Iterator[Callable[[Tensor], Tensor]]:
        found = getattr(self.inner, step) if isinstance(step, str) else step
        if isinstance(found, nn.Sequential | nn.ModuleList):
            yield from found
        else:
            yield found


# What torchvision's ImageNet weights were trained with.
_IMAGENET: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bilinear",
}


def is_torchvision(model: object) -> bool:
    """Tell whether a module is one of torchvision's classifiers."""
    return type(model).__module__.startswith("torchvision.models.") and isinstance(model, nn.Module)


def create_torchvision(name: str, *, pretrained: bool, arguments: Mapping[str, Any]) -> TorchvisionModel:
    """Build a torchvision classifier by name.

    torchvision publishes its weights as pickles. They are read as tensors and nothing else
    (``weights_only=True``), after the hash in their name was compared.

    Args:
        name: ``"torchvision:resnet50"`` or ``"torchvision:resnet50.IMAGENET1K_V1"``.
        pretrained: Load its ImageNet weights (the best ones, when none are named).
        arguments: Of torchvision's builder. With another ``num_classes`` than the weights have, the last
            layer is new.

    Raises:
        ModelLoadError: There is no such model or weights, or they cannot be fetched.
        UnsupportedModelError: It has no features that could be guided.
    """
    import torchvision

    bare, _, tag = name.removeprefix(PREFIX).partition(".")
    known = torchvision.models.list_models(module=torchvision.models)
    if bare not in known:
        near = difflib.get_close_matches(bare, known, n=3) or known[:3]
        raise ModelLoadError(f"torchvision has no classifier {bare!r}; it has {', '.join(near)}")
    published = torchvision.models.get_model_weights(bare)
    if tag and tag not in published.__members__:
        raise ModelLoadError(f"no weights {tag!r} of {PREFIX}{bare}; there are {', '.join(published.__members__)}")
    weights = published[tag or "DEFAULT"]
    arguments = _own_arguments(bare, pretrained) | dict(arguments)
    try:
        model = torchvision.models.get_model(bare, weights=None, **arguments)
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"cannot build {PREFIX}{bare} with {arguments}: {error}") from error
    config = _config(weights)
    config["num_classes"] = len(weights.meta["categories"])
    if pretrained:
        _fill(model, weights, f"{PREFIX}{bare}")
        if arguments.get("num_classes", 1000) == 1000:
            config["label_names"] = list(weights.meta["categories"])
    kept = {key: value for key, value in arguments.items() if key not in ("num_classes", "init_weights")}
    return TorchvisionModel(model, name=f"{PREFIX}{bare}", arguments=kept, config=config)


def _own_arguments(name: str, pretrained: bool) -> dict[str, Any]:
    if name not in ("googlenet", "inception_v3"):
        return {}
    # As torchvision does with its own weights; and the auxiliary heads are for training from scratch.
    return {"aux_logits": False, "init_weights": not pretrained, "transform_input": pretrained}


def _config(weights: Any) -> dict[str, Any]:
    transform = weights.transforms()
    (crop,), (resize,) = transform.crop_size, transform.resize_size
    return {
        "input_size": (3, crop, crop),
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
        # A touch less, so that size / crop_pct never falls below the whole number that it stands for.
        "crop_pct": crop / (resize + 1e-3),
        "interpolation": transform.interpolation.value,
    }


def _fill(model: nn.Module, weights: Any, name: str) -> None:
    """Load published weights; a last layer with another number of classes stays as it is."""
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # a download, a pickle: neither has errors of one kind
        raise ModelLoadError(f"cannot fetch the weights {weights} of {name}: {first_line(error)}") from error
    own = model.state_dict()
    last = [key for key in list(own)[-2:] if key in state and own[key].shape != state[key].shape]
    for key in list(state):
        tensor = state.pop(key)
        key = _OLD_DENSENET.sub(r"\1\2", key)
        if key in own and key not in last:
            state[key] = tensor  # in place: the state knows its version, which MNASNet asks for
    if sorted([*state, *last]) != sorted(own):
        raise ModelLoadError(f"the weights {weights} do not fit {name} as it was built; leave model_args out")
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelLoadError(f"the weights {weights} do not fit {name}: {detail}") from error


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
