"""A classifier as an ONNX file, checked before it takes its name."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crayon_sdk import __version__
from crayon_sdk._base.files import free_path, replace_file
from crayon_sdk._base.text import first_line
from crayon_sdk.errors import MissingExtraError, OutputError, install_extra
from crayon_sdk.functional.neurons import bake
from crayon_sdk.models.alike import noise, plain_copy, same_logits
from crayon_sdk.models.split import SplitModel

__all__ = ["INPUT", "OUTPUT", "export_onnx", "onnx_metadata"]

INPUT, OUTPUT = "images", "logits"
_TOLERANCE = 1e-4
_EXTRA = ("onnx", "onnxruntime", "onnxscript")
_TORCH = "2.9.1"  # as in pyproject.toml; 2.6 fails at batch norms, 2.8 writes what depends on the data as a constant


def onnx_metadata(model: SplitModel) -> dict[str, str]:
    """What one must know to use the file, as texts by name; it goes into the file's metadata_props.

    Args:
        model: The model.

    Returns:
        "preprocessing" and "class_names" as JSON; "architecture", "fingerprint", "made_with".
    """
    return {
        "architecture": model.architecture,
        "class_names": json.dumps(list(model.class_names), ensure_ascii=False),
        "fingerprint": model.fingerprint,
        "made_with": f"crayon-sdk {__version__}",
        "preprocessing": json.dumps(model.preprocessing.to_dict()),
    }


def export_onnx(model: SplitModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a model as one ONNX file, in float32, for any number of pictures at a time.

    Input "images" (N, 3, H, W): preprocessed pictures; output "logits" (N, K). The file is run by
    onnxruntime with one picture and with three, its logits are compared with the model's, and only
    then does it take its name.

    Args:
        model: The model; it comes back as it was.
        path: Ends in ".onnx".
        overwrite: Replace the file when it exists.

    Returns:
        The file.

    Raises:
        MissingExtraError: onnx, onnxruntime or onnxscript is not installed, or torch is older than 2.9.1.
        OutputExistsError: The file exists.
        OutputError: The model cannot be written as ONNX, the logits differ, or the disk is full.
        SettingsError: Another ending.
    """
    target = free_path(path, ".onnx", overwrite=overwrite)
    _needs_onnx()
    plain = _plain_module(model)
    with replace_file(target) as temporary:
        _write(plain, model, temporary)
        _check(temporary, plain, model)
    return target


def _needs_onnx() -> None:
    import importlib.util

    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if torch.__version__ < _TORCH:
        missing.append(f"torch {_TORCH} or newer (this is {torch.__version__})")
    if missing:
        raise MissingExtraError(f"ONNX files need {', '.join(missing)}: {install_extra('onnx')}")


class _Logits(nn.Module):
    """The forward of a split model without turning its features into a grid and back, which fixes their number."""

    def __init__(self, split: SplitModel) -> None:
        super().__init__()
        self.model = split.model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model.forward_head(self.model.forward_features(images))
        return logits


def _plain_module(model: SplitModel) -> nn.Module:
    """A copy in float32 on the CPU with plain weights: a mask is no part of ONNX."""
    copy = plain_copy(model)
    copy.to(memory_format=torch.contiguous_format)
    for layer in copy.final_layers:
        bake(layer)
    return _Logits(copy).eval().requires_grad_(False)


def _example(model: SplitModel, count: int) -> Tensor:
    return noise(model, count, seed=count)


def _write(plain: nn.Module, model: SplitModel, path: Path) -> None:
    import onnx

    with _quiet():
        try:
            # Two pictures: an axis of one would be taken for a constant.
            program: Any = torch.onnx.export(
                plain,
                (_example(model, 2),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
                dynamo=True,
                verbose=False,
            )
            proto = program.model_proto
        except Exception as error:
            raise OutputError(
                f"{model.architecture} cannot be written as ONNX: {first_line(error)}. Its layers may do what ONNX has "
                "no word for, or depend on the number of pictures"
            ) from error
    _forget_the_machine(proto.graph)
    for name, value in onnx_metadata(model).items():
        proto.metadata_props.add(key=name, value=value)
    try:
        path.write_bytes(proto.SerializeToString())
    except (ValueError, onnx.checker.ValidationError) as error:  # protobuf's limit of 2 GB
        raise OutputError(f"{model.architecture} is too large for one ONNX file: {first_line(error)}") from error


def _forget_the_machine(graph: Any) -> None:
    """Drop what the exporter notes at every node, among it the paths of the code on this machine."""
    for each in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        each.ClearField("metadata_props")
        each.ClearField("doc_string")


def _check(path: Path, plain: nn.Module, model: SplitModel) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = [session.run([OUTPUT], {INPUT: _example(model, count).numpy()})[0] for count in (1, 3)]
    except Exception as error:
        raise OutputError(
            f"the ONNX file was not written: onnxruntime cannot run what {model.architecture} became: "
            f"{first_line(error)}"
        ) from error
    for count, logits in zip((1, 3), found, strict=True):
        with torch.no_grad():
            expected = plain(_example(model, count))
        got = torch.from_numpy(logits)
        if not same_logits(got, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            gap = float((got - expected).abs().max()) if got.shape == expected.shape else float("inf")
            raise OutputError(
                f"the ONNX file was not written: run by onnxruntime with {count} pictures, {model.architecture} gives "
                f"logits that differ by {gap:.2g} (allowed: {_TOLERANCE:g})"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter has to say about itself away from those who cannot change it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
