"""A classifier seen as trunk and head, and how to get one.

``trunk -> features (N, C, h, w) -> head -> logits``: the prediction, the saliency
map and the neurons all live behind the features, so the trunk runs once. timm
models bring ``forward_features`` and ``forward_head``, torchvision's are given them, and any other module
comes in as ``SplitModel(trunk=..., head=...)``.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from crayon_sdk._base.files import sha256_of_each
from crayon_sdk._base.text import first_few, one_line
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError, UnsupportedModelError
from crayon_sdk.functional import neurons as neuron_functions
from crayon_sdk.models.adapters import TorchvisionModel, wrapped_module
from crayon_sdk.models.parts import (
    FinalLayer,
    Layout,
    apply_final_layers,
    final_inputs,
    find_final_layers,
    from_grid,
    layout_of,
    to_grid,
    tokens_are_in_order,
)

__all__ = ["Provenance", "SplitModel", "as_split_model", "borrowed", "broken_weights", "why_not_finite"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provenance:
    """What was done to a model before: records of its corrections, and the answers behind them.

    Attributes:
        records: One JSON-able record per correction, oldest first.
        answers: JSON-able answers used by them.
    """

    records: tuple[Mapping[str, Any], ...] = ()
    answers: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


class SplitModel(nn.Module):
    """A classifier as ``trunk -> features -> head -> logits``.

    Calling it gives the same logits as the model it wraps. The model is held, not
    copied; making a `SplitModel` changes nothing about it.

    Args:
        model: A timm or torchvision model, or any module with ``forward_features``,
            ``forward_head(features)`` and ``get_classifier``.
        trunk: Instead of ``model``: images (N, 3, H, W) to features (N, C, h, w) or (N, h, w, C).
        head: Instead of ``model``: features to logits (N, K), sample by sample.
        classifier: With ``head``: its last linear layer; found by itself when left out.
        preprocessing: What the model expects of pictures; from the timm config when left out.
        class_names: Names of the K classes; from the timm config when left out, if it has any.
        compile: Run the trunk through ``torch.compile``. The first batches take longer, and the maps
            differ by rounding. The head, through which maps are differentiated twice, stays as it is.

    Attributes:
        model: The wrapped module.
        feature_shape: (C, h, w) of the features at the preprocessing's size.
        layout: Of the wrapped model's own features: "NCHW", "NHWC" (as Swin has them) or "NLC" (tokens
            without a class token).

    Raises:
        UnsupportedModelError: No grid of features, no final linear layer, or
            a head that does not end in it; weights that are no numbers; names in the config that are
            not as many as its classes.
        SettingsError: ``class_names`` are not as many as the classes.

    Example:
        >>> import timm
        >>> split = SplitModel(timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2))
        >>> features = split.features(torch.rand(1, 3, 160, 160))
        >>> split.head(features).shape, split.num_neurons == split.classifier.in_features
        (torch.Size([1, 2]), True)
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        trunk: nn.Module | None = None,
        head: nn.Module | None = None,
        classifier: nn.Linear | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.compile_trunk = False
        self._compiled: Any = None
        # Any: nn.Module's attributes are typed as tensors or modules, never as timm's methods.
        self.model: Any = wrapped_module(model, trunk, head, classifier)
        self.training = getattr(self.model, "training", True)
        self._preprocessing = preprocessing or _own_preprocessing(self.model)
        self.provenance = Provenance()
        self.layout: Layout = "NCHW"
        self._final_names = self._find_end()
        self.class_names = _given_names(class_names, self.num_classes) if class_names else _own_names(self)
        self.check_finite()
        self.feature_shape = self._probe()
        self.compile_trunk = compile

    @property
    def preprocessing(self) -> Preprocessing:
        """What the model expects of pictures; with another size, the shape of the features is found again."""
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, preprocessing: Preprocessing) -> None:
        before, self._preprocessing = self._preprocessing, preprocessing
        if preprocessing.size != before.size:
            self.feature_shape = self._probe()

    def __repr__(self) -> str:  # nn.Module's has a line for every layer: print(split.model)
        names = f" ({one_line(', '.join(self.class_names), 60)})" if self.class_names else ""
        shape = "x".join(map(str, self.feature_shape))
        return (
            f"SplitModel({one_line(self.architecture)}, {self.num_classes} classes{names}, features {shape}, "
            f"{self.num_neurons:,} neurons, on {self.device})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the compiled trunk out: a copy of it would still run the old weights."""
        return self.__dict__ | {"_compiled": None}

    def features(self, images: Tensor, *, autocast: torch.dtype | None = None) -> Tensor:
        """Run the trunk.

        Args:
            images: (N, 3, H, W) preprocessed.
            autocast: Reduced precision for the trunk alone; the features come back as float32.

        Returns:
            (N, C, h, w).

        Raises:
            SettingsError: The trunk was to be compiled, and that does not work here.
        """
        if autocast is None:
            found = self._run_trunk(images.to(self.dtype))
        else:
            with torch.autocast(images.device.type, dtype=autocast):
                found = self._run_trunk(images)
            found = found.float()
        return to_grid(found, self.layout, (int(images.shape[2]), int(images.shape[3])))

    def _run_trunk(self, images: Tensor) -> Tensor:
        if not self.compile_trunk:
            found: Tensor = self.model.forward_features(images)
            return found
        from torch._dynamo.exc import TorchDynamoException  # a second of importing, for those who compile

        if self._compiled is None:
            self._compiled = torch.compile(self.model.forward_features)
        try:
            found = self._compiled(images)
        except TorchDynamoException as error:
            detail = " ".join(str(error).split())[:200]
            raise SettingsError(
                f"compile=True does not work for {self.architecture} here: {detail}. torch.compile needs a C++ "
                "compiler on the CPU and Triton on a GPU; leave compile out to run without"
            ) from error
        return found

    def head(self, features: Tensor) -> Tensor:
        """Turn features (N, C, h, w) into logits (N, K)."""
        logits: Tensor = self.model.forward_head(from_grid(features, self.layout))
        return logits

    def final_inputs(self, features: Tensor) -> tuple[Tensor, ...]:
        """Turn features (N, C, h, w) into the inputs (N, num_neurons) of every final layer."""
        return final_inputs(self.final_layers, lambda: self.head(features), self.architecture)

    def penultimate(self, features: Tensor) -> Tensor:
        """Turn features (N, C, h, w) into the neurons (N, num_neurons): the inputs of the (first) final layer."""
        return self.final_inputs(features)[0]

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits (N, K) of preprocessed images (N, 3, H, W)."""
        return self.head(self.features(images))

    @property
    def final_layers(self) -> tuple[FinalLayer, ...]:
        """The layers at the end, nearly always one; a distilled model averages two."""
        return tuple(self.model.get_submodule(name) for name in self._final_names)

    @property
    def classifier(self) -> FinalLayer:
        """The (first) layer at the end, linear or a 1 x 1 convolution; its inputs are the neurons."""
        return self.final_layers[0]

    def prune(self, keep: Tensor) -> None:
        """Cut neurons, in place, so that they stay cut in training.

        Args:
            keep: (num_neurons,) bool; false cuts the neuron.
        """
        for layer in self.final_layers:
            neuron_functions.prune_neurons(layer, keep)

    @property
    def num_neurons(self) -> int:
        """Number of penultimate neurons."""
        return int(self.classifier.weight.shape[1])

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.classifier.weight.shape[0])

    @property
    def map_size(self) -> tuple[int, int]:
        """(h, w) of the saliency map at the preprocessing's size."""
        return self.feature_shape[1:]

    @property
    def architecture(self) -> str:
        """The name of the architecture ("resnet50" in timm, "torchvision:resnet50"), or the class of the module."""
        config = getattr(self.model, "pretrained_cfg", None) or {}
        return str(config.get("architecture") or type(self.model).__name__)

    @property
    def device(self) -> torch.device:
        """Where the classifier's weights lie."""
        return next(self.classifier.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the classifier's weights."""
        return next(self.classifier.parameters()).dtype

    @property
    def neuron_mask(self) -> Tensor:
        """(num_neurons,) bool, false for pruned neurons."""
        return neuron_functions.neuron_mask(self.classifier)

    @property
    def class_descriptions(self) -> dict[str, str]:
        """What the config says about its class names, such as the words for the ids of ImageNet's classes."""
        told = (getattr(self.model, "pretrained_cfg", None) or {}).get("label_descriptions") or {}
        if isinstance(told, Sequence) and len(told) == len(self.class_names):
            told = dict(zip(self.class_names, told, strict=True))
        return {str(name): str(text) for name, text in told.items()} if isinstance(told, Mapping) else {}

    def check_finite(self) -> None:
        """See that every weight is a number.

        Raises:
            UnsupportedModelError: Some are NaN or infinite; the message names the tensors.
        """
        if broken := broken_weights(self.model):
            wrong = [f"{name} ({int((~each.isfinite()).sum()):,} of {each.numel():,})" for name, each in broken.items()]
            raise UnsupportedModelError(
                f"expected finite weights, got NaN or infinity in {len(wrong)} of {self.architecture}'s tensors: "
                f"{first_few(wrong)}. A training that diverged leaves such weights: take an earlier checkpoint"
            )

    @property
    def fingerprint(self) -> str:
        """sha256 of architecture and effective weights; the same on every device and after saving."""

        def parts() -> Iterator[bytes | str | memoryview]:
            yield self.architecture
            for name, tensor in sorted(self.plain_state_dict().items()):
                yield from (name, str(tensor.dtype), str(tuple(tensor.shape)))
                yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

        return sha256_of_each(parts())

    def plain_state_dict(self) -> dict[str, Tensor]:
        """The wrapped model's state dict with pruning baked in: the names that timm expects."""
        state = dict(self.model.state_dict())
        for name in [key for key in state if key.endswith("weight_orig") and f"{key[:-4]}mask" in state]:
            stem = name.removesuffix("_orig")
            state[stem] = state.pop(name) * state.pop(f"{stem}_mask")
        return state

    def copy(self) -> SplitModel:
        """A deep copy with the same modes, devices, formats and pruned neurons."""
        for layer in self.final_layers:
            if "weight" not in layer._parameters:
                # A pruned layer recomputes its weight in every forward; the cached one cannot be deep-copied.
                layer.weight = layer.weight.detach()
        return copy.deepcopy(self)

    def mixes_channels(self) -> bool:
        """Tell whether weights stand between the features and the neurons.

        Without any, neuron k is fed by feature channel k alone (pooling and norms
        aside) and that channel is its map; otherwise its map is its own Grad-CAM.
        """
        if self.feature_shape[0] != self.num_neurons:
            return True
        with borrowed(self, self.device), torch.enable_grad():
            features = torch.zeros(1, *self.feature_shape, device=self.device, dtype=self.dtype)
            weights = [p for p in self.model.parameters() if p.ndim >= 2 and p.requires_grad]
            neurons = self.penultimate(features)
            used = torch.autograd.grad(neurons.sum(), weights, allow_unused=True) if neurons.requires_grad else ()
        return any(gradient is not None for gradient in used)

    def _find_end(self) -> tuple[str, ...]:
        for method in ("forward_features", "forward_head", "get_classifier"):
            if not callable(getattr(self.model, method, None)):
                raise UnsupportedModelError(
                    f"expected a timm or torchvision model, got {type(self.model).__name__} without "
                    f"{method}(); wrap other modules as SplitModel(trunk=..., head=...)"
                )
        _check_initialised(self.model)
        return find_final_layers(self.model, self.architecture)

    def _probe(self) -> tuple[int, int, int]:
        height, width = self.preprocessing.size
        noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        images = noise.to(self.device, self.dtype)
        with borrowed(self, self.device), torch.no_grad():
            try:
                features = self._find_grid(images)
                self._check_end(features)
            except UnsupportedModelError as error:
                self._check_finite(images, error)
                raise
            except RuntimeError as error:
                first = next((m for m in self.model.modules() if isinstance(m, nn.Conv2d)), None)
                if first is not None and first.in_channels != 3:
                    raise UnsupportedModelError(channels_problem(self.architecture, first.in_channels)) from error
                raise UnsupportedModelError(
                    f"{self.architecture} cannot be run on {height}x{width} pixels: {error}; check preprocessing="
                ) from error
        return int(features.shape[1]), int(features.shape[2]), int(features.shape[3])

    def _check_finite(self, images: Tensor, cause: Exception) -> None:
        """Whatever is odd about NaN, it is not what ought to be changed."""
        features = self.model.forward_features(images)
        if not isinstance(features, Tensor):
            return
        for what, found in (("features", features), ("logits", self.model.forward_head(features))):
            if not bool(found.isfinite().all()):
                raise UnsupportedModelError(
                    f"the {what} of {self.architecture} are not finite (NaN or infinity) for noise of "
                    f"{images.shape[2]}x{images.shape[3]} pixels; {why_not_finite(self)}"
                ) from cause

    def _find_grid(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        raw = self.model.forward_features(images)
        found = layout_of(raw, (height, width))
        shape = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
        expected = (
            f"expected features of shape (N, C, h, w) or (N, h, w, C) with h, w > 1 from {self.architecture}, got "
            f"{shape} for images of {height}x{width}; a saliency map needs a grid. "
        )
        if found is None and isinstance(raw, Tensor) and raw.ndim == 3:
            raise UnsupportedModelError(
                f"{expected}Tokens are taken for one when they cover the picture evenly, which a class token prevents: "
                "it alone decides, and the gradient of the patches is zero. Use a model that pools its patches"
            )
        if found is None:
            raise UnsupportedModelError(f"{expected}Use a convolutional model, or larger images")
        self.layout = found[0]
        features = self.features(images)
        if self.layout == "NLC" and not self._keeps_order(images, features):
            raise UnsupportedModelError(
                f"{expected}The tokens of {self.architecture} are not in the order of the picture: a change in one "
                "cell changes another token most. Use a convolutional model"
            )
        return features

    def _keeps_order(self, images: Tensor, features: Tensor) -> bool:
        """Change one cell after the other, off every axis of symmetry, and see where the features change most."""
        rows, columns = features.shape[2:]
        height, width = images.shape[2] // rows, images.shape[3] // columns
        for row, column in ((0, columns - 1), (rows // 2, 0), (rows - 1, columns // 3)):
            changed = images.clone()
            place = changed[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
            place.copy_(1 - place.flip(2))
            if not tokens_are_in_order(features, self.features(changed), (row, column)):
                return False
        return True

    def _check_end(self, features: Tensor) -> None:
        version = features._version
        inputs, logits = self.final_inputs(features), self.head(features)
        if features._version != version:
            raise UnsupportedModelError(
                f"the head of {self.architecture} changes its input in place, and the map would be made of the "
                "changed features; use inplace=False in its first layer, or move that layer into the trunk"
            )
        expected = apply_final_layers(self.final_layers, inputs)
        if expected.shape != logits.shape or not torch.allclose(expected, logits, rtol=1e-3, atol=1e-4):
            raise UnsupportedModelError(
                f"expected the head of {self.architecture} to end in its classifier (logits of shape "
                f"(1, {self.num_classes})), got {tuple(logits.shape)} that are not what its last layer gives; "
                "wrap the model as SplitModel(trunk=..., head=...) with a linear layer at the end"
            )


def channels_problem(name: str, channels: int) -> str:
    """Say what to do with a model that does not take RGB."""
    grey = (
        "; give its trunk a first layer that makes grey of RGB: "
        "SplitModel(trunk=torch.nn.Sequential(torchvision.transforms.v2.Grayscale(), trunk), head=head)"
        if channels == 1
        else ""
    )
    return (
        f"expected a model of RGB pictures, {name} takes {channels} channel{'s' * (channels != 1)}. Make it with "
        f"in_chans=3; grey pictures are shown to it as RGB{grey}"
    )


def as_split_model(model: nn.Module) -> SplitModel:
    """Give ``model`` itself when it is split already, else split it.

    Raises:
        UnsupportedModelError: It cannot be split.
    """
    if isinstance(model, SplitModel):
        return model
    if not isinstance(model, nn.Module):
        inside = isinstance(getattr(model, "model", None), nn.Module)  # a Correction, an Explainer
        what = "give its .model" if inside else "load one with load_model(...)"
        raise SettingsError(f"expected a model, got {type(model).__name__}; {what}")
    return SplitModel(model)


def _check_initialised(model: nn.Module) -> None:
    lazy = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if any(is_lazy(tensor) for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
    ]
    if lazy:
        raise UnsupportedModelError(
            f"{type(model).__name__} has layers whose sizes are not known yet: {first_few(lazy)}. Run it once before, "
            "so that they get them: model(torch.zeros(1, 3, height, width)), or head(trunk(...)) of SplitModel(trunk=, "
            "head=); then train it, or load its weights"
        )


def broken_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights, and buffers that are saved with them, that are not finite, by name.

    >>> broken_weights(nn.Linear(2, 2))
    {}
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    return {name: tensor for name, tensor in tensors.items() if not bool(tensor.isfinite().all())}


def why_not_finite(split: SplitModel) -> str:
    """Say in words what makes a model give NaN or infinity, and what helps."""
    if broken := broken_weights(split.model):
        return (
            f"its weight {next(iter(broken))!r} is not finite. Training probably diverged: take the weights from before"
        )
    name, largest = max(
        (
            (name, float(tensor.detach().abs().max()))
            for name, tensor in split.model.named_parameters()
            if tensor.numel()
        ),
        key=lambda pair: pair[1],
    )
    return (
        f"its weights are finite (the largest: {largest:.3g} in {name!r}), and what they make of a picture overflows. "
        "Training probably diverged, or the precision is too low: take the weights from before, or float32"
    )


@contextlib.contextmanager
def borrowed(split: SplitModel, device: torch.device) -> Iterator[SplitModel]:
    """Use a model in eval mode on ``device`` and give it back as it was.

    The mode of every submodule and the device are restored however the block ends.
    """
    modes = [(module, module.training) for module in split.modules()]
    home = split.device
    try:
        split.eval()
        if home != device:
            split.to(device)
        with torch.inference_mode(False):  # a map needs a gradient
            yield split
    finally:
        if home != device:
            split.to(home)
        for module, training in modes:
            module.training = training


def _own_preprocessing(model: nn.Module) -> Preprocessing:
    if not getattr(model, "pretrained_cfg", None):
        return Preprocessing(size=(224, 224))
    from timm.data import resolve_model_data_config

    if isinstance(model, TorchvisionModel) and not model.name:
        _log.warning(
            "a torchvision model does not say what it was trained on; taking 224 pixels and ImageNet's mean and std. "
            "Pass preprocessing= to be sure, or load it by name: load_model('torchvision:...')"
        )
    return Preprocessing.from_config(resolve_model_data_config(model))


def _own_names(split: SplitModel) -> tuple[str, ...]:
    """The names in a model's config; none where these are of the classes that it had before."""
    config = getattr(split.model, "pretrained_cfg", None) or {}
    told, count = config.get("label_names") or (), split.num_classes
    if isinstance(told, Mapping):  # timm writes numbers to names where numbers are left out
        numbered = {str(key): str(name) for key, name in told.items()}
        told = [numbered.pop(str(number), f"class {number}") for number in range(count)] + list(numbered.values())
    names = tuple(map(str, told)) if isinstance(told, list | tuple) else ()
    if len(names) == count:
        return names
    if names and config.get("num_classes") == count:
        raise UnsupportedModelError(
            f"expected as many label_names in the config as it has classes, {count}, got {len(names)}: "
            f"{first_few(names)}. Correct them in config.json, or leave label_names out (in Python: class_names= "
            "replaces them)"
        )
    return ()  # inherited from a base model with other classes


def _given_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    if isinstance(names, str) or len(names) != count:
        raise SettingsError(f"expected {count} class_names, one for each class of the model, got {names!r}")
    return tuple(str(name) for name in names)
