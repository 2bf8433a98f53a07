"""Checkpoints of other people: what timm may be handed, and what it may not.

A ``config.json`` is data from wherever it was fetched. timm takes a name, arguments and a
place of the weights from it; only what describes a model is let through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crayon_sdk._base.files import read_json
from crayon_sdk.errors import FileFormatError, ModelLoadError

__all__ = ["WEIGHTS", "check_arguments", "check_timm_config"]

WEIGHTS = "model.safetensors"
# They would have timm read another file, ask another server, or read a format of its own.
_LEAD_ELSEWHERE = ("hf_hub_filename", "custom_load", "state_dict")
_NO_ARGUMENTS = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable"),
    *("weights", "progress"),  # of torchvision's builders
)
_MOST = 1000
_PLAIN = (str, int, float, bool, type(None))


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
