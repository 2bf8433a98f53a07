"""`load_model`: one door for every place a model can come from.

A ``config.json`` is data from wherever it was fetched. timm takes a name, arguments and a
place of the weights from it; only what describes a model is let through.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from crayon_sdk._base.fetching import fetch, hub_hint, is_on_hub, offline_copy, split_source
from crayon_sdk._base.files import read_json, read_tensors
from crayon_sdk._base.text import first_line
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import CrayonError, FileFormatError, ModelLoadError, SettingsError, UnsupportedModelError
from crayon_sdk.models.adapters import PREFIX, create_torchvision
from crayon_sdk.models.parts import find_final_layers
from crayon_sdk.models.split import SplitModel, channels_problem

__all__ = ["WEIGHTS", "check_arguments", "check_timm_config", "load_model"]

_log = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
# They would have timm read another file, ask another server, or read a format of its own.
_LEAD_ELSEWHERE = ("hf_hub_filename", "custom_load", "state_dict")
_NO_ARGUMENTS = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable"),
    *("weights", "progress"),  # of torchvision's builders
)
_MOST = 1000  # entries of an argument
_PLAIN = (str, int, float, bool, type(None))


def load_model(
    source: str | os.PathLike[str] | nn.Module,
    *,
    architecture: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    pretrained: bool = True,
    model_args: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | None = None,
    allow_pickle: bool = False,
    compile: bool = False,
) -> SplitModel:
    """Load a classifier from wherever it is.

    Args:
        source: A timm name (``"resnet50"``), ``"torchvision:resnet50"`` (or
            ``"torchvision:resnet50.IMAGENET1K_V1"``), ``"hf-hub:user/name"`` (or
            ``"hf-hub:user/name@revision"``), ``"local-dir:folder"``, a folder that holds
            ``config.json`` and ``model.safetensors``, a ``.safetensors`` file (with
            ``architecture``), or a model object.
        architecture: The timm name, or ``"torchvision:..."``, of the weights in a ``.safetensors`` file.
        num_classes: Number of classes; ``None`` takes what the weights have. With another number
            the last layer is new: random, but the same every time, and a warning is logged.
        class_names: Names of the classes; ``None`` takes what the config says.
        pretrained: For a name: load its published weights. ``False`` gives random ones.
        model_args: Further arguments of ``timm.create_model``, or of torchvision's builder.
        preprocessing: Overrides the preprocessing of the model's config.
        allow_pickle: Read weights that exist only as a pickle, which can run
            code of whoever made it. Only for files that you trust.
        compile: Run the trunk through ``torch.compile``.

    Returns:
        The model in eval mode on the CPU (a model object is taken as it is).

    Raises:
        ModelLoadError: There is no such model, or its files do not fit.
        FileFormatError: The weights file is truncated or not safetensors.
        UnsupportedModelError: The model has no feature map or no linear classifier.

    Example:
        >>> model = load_model("test_resnet.r160_in1k", pretrained=False, num_classes=2)
        >>> model.map_size
        (5, 5)
    """
    if isinstance(source, nn.Module):
        return _from_module(source, preprocessing, class_names, compile)
    if not isinstance(source, str | os.PathLike):
        raise SettingsError(f"expected a name, a path or a model, got {type(source).__name__}")
    name = os.fspath(source)
    if (channels := dict(model_args or {}).get("in_chans", 3)) != 3:
        raise UnsupportedModelError(channels_problem(name, channels))
    args = dict(model_args or {}) | ({} if num_classes is None else {"num_classes": num_classes})
    if name.endswith(".safetensors"):
        module = _from_file(Path(name), architecture, args)
    elif architecture is not None:
        raise SettingsError(f"architecture= goes with a .safetensors file, got {name!r}")
    elif is_on_hub(name):
        module = _from_hub(name, args, allow_pickle)
    elif name.startswith("local-dir:") or os.path.sep in name or Path(name).is_dir():
        module = _from_folder(Path(name.removeprefix("local-dir:")), args, allow_pickle)
    else:
        module = _create(name, pretrained, args)
    return SplitModel(module.eval(), preprocessing=preprocessing, class_names=class_names, compile=compile)


def _from_module(
    source: nn.Module, preprocessing: Preprocessing | None, class_names: Sequence[str] | None, compile: bool
) -> SplitModel:
    if not isinstance(source, SplitModel):
        return SplitModel(source, preprocessing=preprocessing, class_names=class_names, compile=compile)
    if preprocessing is None and class_names is None and (source.compile_trunk or not compile):
        return source
    split = SplitModel(
        source.model,
        preprocessing=preprocessing or source.preprocessing,
        class_names=class_names or source.class_names,
        compile=compile or source.compile_trunk,
    )
    split.provenance = source.provenance
    return split


def _create(name: str, pretrained: bool, args: Mapping[str, Any], *, source: str = "") -> nn.Module:
    import timm

    cpu_state = torch.get_rng_state()
    try:
        # Random initialisation would otherwise move the caller's random numbers on.
        if pretrained and "num_classes" in args:
            # A last layer that the weights do not have is at least the same every time.
            torch.default_generator.manual_seed(0)
        if name.startswith(PREFIX):
            return _with_its_own_end(
                create_torchvision(name, pretrained=pretrained, arguments=args), name, pretrained, args
            )
        known = timm.get_pretrained_cfg(name) if pretrained and ":" not in name else None
        copy = None
        if known is not None and known.hf_hub_id and str(known.custom_load) != "hf":
            copy = offline_copy(known.hf_hub_id, [known.hf_hub_filename or WEIGHTS, "pytorch_model.bin"])
        overlay: dict[str, Any] = (
            {} if copy is None else {"pretrained_cfg_overlay": {"file": str(copy), "custom_load": False}}
        )
        module: Any = timm.create_model(name, pretrained=pretrained, **overlay, **args)
        if copy is not None:
            module.pretrained_cfg = {key: value for key, value in module.pretrained_cfg.items() if key != "file"}
        _with_its_own_end(module, source or name, pretrained, args)
        if not pretrained:  # timm names the weights all the same: nothing may be said to come from them
            module.pretrained_cfg = {**module.pretrained_cfg, "hf_hub_id": None, "license": None}
        return cast(nn.Module, module)
    except CrayonError:
        raise
    except Exception as error:
        raise ModelLoadError(f"cannot load {source or name!r}: {first_line(error)}{_near_names(name)}") from error
    finally:
        torch.set_rng_state(cpu_state)


def _with_its_own_end(module: Any, name: str, pretrained: bool, args: Mapping[str, Any]) -> nn.Module:
    """Say when the weights have no last layer for as many classes as were asked for."""
    own, asked = module.pretrained_cfg.get("num_classes"), args.get("num_classes")
    if pretrained and None not in (own, asked) and own != asked:
        _log.warning(
            "the weights of %s have %s classes, and num_classes=%s: the last layer is new and random (the same every "
            "time). Train it before you explain or correct the model",
            name,
            own,
            asked,
        )
    return cast(nn.Module, module)


def _near_names(name: str) -> str:
    import difflib

    import timm

    if ":" in name or name.split(".")[0] in timm.list_models():
        return ""
    near = difflib.get_close_matches(name, timm.list_models(), n=3)
    return f"; timm has {', '.join(near)}" if near else "; see timm.list_models() for the names"


def _from_file(path: Path, architecture: str | None, args: Mapping[str, Any]) -> nn.Module:
    if architecture is None:
        raise SettingsError(
            f"{path.name!r} holds weights only; say whose they are with architecture=, such as 'resnet50'"
        )
    if not path.is_file():
        raise ModelLoadError(f"no weights file at {str(path)!r}")
    tensors, _ = read_tensors(path)
    if "num_classes" not in args:
        args = dict(args) | _classes_of(architecture, tensors, args)
    module = _create(architecture, False, args)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ModelLoadError(
            f"the weights in {path.name} do not fit {architecture} with {dict(args) or 'no arguments'}: "
            f"{first_line(error)}"
        ) from error
    return module


def _classes_of(architecture: str, tensors: Mapping[str, torch.Tensor], args: Mapping[str, Any]) -> dict[str, int]:
    """Read the number of classes off the classifier's weight."""
    with torch.device("meta"):
        empty: Any = _create(architecture, False, args)
    if not callable(getattr(empty, "get_classifier", None)):
        return {}
    weight = tensors.get(f"{find_final_layers(empty, architecture)[0]}.weight")
    return {} if weight is None else {"num_classes": int(weight.shape[0])}


def _from_folder(folder: Path, args: Mapping[str, Any], allow_pickle: bool) -> nn.Module:
    if not folder.is_dir():
        raise ModelLoadError(
            f"no folder at {str(folder)!r}; expected one with config.json and {WEIGHTS}{hub_hint(str(folder))}"
        )
    if not (folder / "config.json").is_file() and (folder / "crayon.json").is_file():
        return _from_correction(folder, args)
    check_timm_config(folder / "config.json", other_weights=allow_pickle)
    weights = folder / WEIGHTS
    if weights.is_file():
        read_tensors(weights)
    elif not allow_pickle:
        raise ModelLoadError(
            f"{str(folder)!r} has no {WEIGHTS}. If its weights are a pickle that you trust, pass allow_pickle=True"
        )
    return _without_foreign_names(_create(f"local-dir:{folder}", True, args), folder)


def _without_foreign_names(module: nn.Module, folder: Path) -> nn.Module:
    """Forget names of classes that a config took over from a base model with another number of them."""
    config = read_json(folder / "config.json")
    inner = config.get("pretrained_cfg") or {}
    count = config.get("num_classes")
    if "label_names" not in config and None not in (count, inner.get("num_classes")) and count != inner["num_classes"]:
        cast(Any, module).pretrained_cfg["label_names"] = None
    return module


def _from_correction(folder: Path, args: Mapping[str, Any]) -> nn.Module:
    """Build what only crayon.json describes: a torchvision model that was corrected."""
    manifest = read_json(folder / "crayon.json", remedy="Copy the folder again, or save the correction again.")
    try:
        name, own = str(manifest["architecture"]), dict(manifest.get("model_args", {}))
        preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
        class_names = [str(each) for each in manifest["class_names"]]
    except (KeyError, TypeError, AttributeError, ValueError, SettingsError) as error:
        raise FileFormatError(f"{str(folder / 'crayon.json')!r} is incomplete or altered: {error}") from error
    check_arguments(folder / "crayon.json", own)
    if not name.startswith(PREFIX):
        raise ModelLoadError(
            f"no config.json in {str(folder)!r}: neither timm nor torchvision can build {name}. Build it yourself and "
            "pass it: crayon_sdk.load_correction(FOLDER, model=SplitModel(trunk=..., head=...))"
        )
    module: Any = _from_file(folder / WEIGHTS, name, own | dict(args))
    config = preprocessing.to_dict()
    size = config.pop("size")
    module.pretrained_cfg |= config | {"input_size": (3, *size), "label_names": class_names}
    return cast(nn.Module, module)


def _from_hub(name: str, args: Mapping[str, Any], allow_pickle: bool) -> nn.Module:
    # timm falls back to a pickle without a word; so the safetensors file is fetched first.
    found = fetch(name, ("config.json", WEIGHTS, "crayon.json"))
    if WEIGHTS not in found.names and not allow_pickle:
        raise ModelLoadError(
            f"{name!r} has no {WEIGHTS}. If its weights are a pickle that you trust, pass allow_pickle=True"
        )
    if WEIGHTS not in found.names:
        return _create(name, True, args)
    if "config.json" not in found.names and "crayon.json" in found.names:
        return _from_correction(found.folder, args)
    if "config.json" not in found.names:
        raise ModelLoadError(f"cannot load {name!r}: it has no config.json that says which model its weights are for")
    check_timm_config(found.folder / "config.json", other_weights=allow_pickle)
    weights = found.folder / WEIGHTS
    read_tensors(weights, remedy=f"Delete {str(weights)!r} from the cache, and fetch it again.")
    module: Any = _without_foreign_names(_create(f"local-dir:{found.folder}", True, args, source=name), found.folder)
    module.pretrained_cfg["hf_hub_id"] = split_source(name)[0]
    return cast(nn.Module, module)


def check_timm_config(path: Path, *, other_weights: bool = False) -> None:
    """See that a ``config.json`` describes a model of timm, and nothing else.

    Args:
        path: The file.
        other_weights: Let it name other weights than model.safetensors.

    Raises:
        FileFormatError: It is no JSON object of the expected shape, or has arguments that are none of a model.
        ModelLoadError: Its weights would be read from elsewhere.
    """
    config = read_json(path, remedy="Copy it again, or save the model again.")
    if not isinstance(config, dict) or "architecture" not in config:
        raise FileFormatError(f"{str(path)!r} is not a timm config: it names no architecture")
    name = config["architecture"]
    if not isinstance(name, str) or not name.replace(".", "_").isidentifier():
        raise FileFormatError(f"{str(path)!r} is not a timm config: {_short(name)} is no name of an architecture")
    about = config.get("pretrained_cfg", config)
    arguments = config.get("model_args") or {}
    if not isinstance(about, dict):
        raise FileFormatError(f"{str(path)!r}: expected an object as pretrained_cfg, got {_short(about)}")
    check_arguments(path, arguments)
    if not isinstance(config.get("num_classes", 0), int):
        raise FileFormatError(f"{str(path)!r}: expected a whole number as num_classes")
    elsewhere = [key for key in _LEAD_ELSEWHERE if about.get(key)]
    if elsewhere and not other_weights:
        raise ModelLoadError(
            f"{str(path)!r} has its weights read from elsewhere ({elsewhere[0]} = {_short(about[elsewhere[0]])}), not "
            f"from {WEIGHTS}. If you trust whoever made it, pass allow_pickle=True"
        )


def check_arguments(path: Path, arguments: object) -> None:
    """See that arguments for a builder of models are such, and nothing else.

    Args:
        path: Where they come from.
        arguments: What lies there as ``model_args``.

    Raises:
        FileFormatError: They are no object of plain values, or have names that are no arguments of a model.
    """
    if not isinstance(arguments, dict):
        raise FileFormatError(f"{str(path)!r}: expected an object as model_args, got {_short(arguments)}")
    wrong = [key for key, value in arguments.items() if key in _NO_ARGUMENTS or not _is_plain(value)]
    if wrong:
        raise FileFormatError(f"{str(path)!r}: {wrong[0]!r} in model_args is no argument of a model; it was altered")


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, list | dict) and len(value) <= _MOST)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
