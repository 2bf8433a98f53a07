"""What a report of a fault needs to say about the machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import torch

from crayon_sdk.results.correction import versions

__all__ = ["diagnose"]

_EXTRAS = {
    "annotate": ("fastapi", "uvicorn"),
    "crowd": ("crowdkit",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "report": ("matplotlib",),
}


def diagnose() -> dict[str, dict[str, str]]:
    """Look at versions, devices, precision, caches and the Hub login; nothing is sent anywhere.

    Returns:
        Facts as text by name, in sections. No token, and no variable that could hold one.

    Example:
        >>> list(diagnose())
        ['versions', 'machine', 'precision', 'folders', 'hub', 'extras']
    """
    others = {name: metadata.version(name) for name in ("huggingface-hub", "accelerate", "pillow", "numpy", "pydantic")}
    return {
        "versions": versions() | others,
        "machine": _machine(),
        "precision": _precision(),
        "folders": _folders(),
        "hub": _hub(),
        "extras": {extra: _installed(names) for extra, names in _EXTRAS.items()},
    }


def _machine() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {
        "system": platform.platform(),
        "python": sys.executable,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": f"{cores} usable, {torch.get_num_threads()} threads",
    }
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{device.name}, {device.total_memory / 2**30:.1f} GiB, {device.major}.{device.minor}"
    if not torch.cuda.is_available():
        found["cuda"] = f"none (torch built for {torch.version.cuda or 'no CUDA'})"
    found["mps"] = "yes" if torch.backends.mps.is_available() else "no"
    return found


def _precision() -> dict[str, str]:
    found = {"cpu bfloat16": _try_bfloat16("cpu")}
    if torch.cuda.is_available():
        native = "native" if torch.cuda.is_bf16_supported() else "not native"
        found["cuda bfloat16"] = f"{_try_bfloat16('cuda')}, {native}"
    return found


def _try_bfloat16(device: str) -> str:
    values = torch.ones(8, 8, device=device)
    try:
        with torch.autocast(device, dtype=torch.bfloat16):
            product = values @ values
    except RuntimeError as error:
        return f"fails: {str(error).splitlines()[0]}"
    return "works" if product.dtype == torch.bfloat16 and float(product[0, 0]) == 8 else "gives wrong results"


def _folders() -> dict[str, str]:
    from huggingface_hub import constants

    places = {
        "Hub cache": Path(constants.HF_HUB_CACHE),
        "torch cache": Path(torch.hub.get_dir()),
        "temporary": Path(tempfile.gettempdir()),
        "current": Path.cwd(),
    }
    return {name: f"{path}: {_writable(path)}" for name, path in places.items()}


def _writable(path: Path) -> str:
    there = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    state = "writable" if os.access(there, os.W_OK) else "NOT writable"
    missing = "" if there == path else ", not there yet"
    return f"{state}{missing}, {shutil.disk_usage(there).free / 2**30:.1f} GiB free"


def _hub() -> dict[str, str]:
    from huggingface_hub import constants, get_token

    return {
        "login": "a token is stored" if get_token() else "no token (crayon can still load public models)",
        "endpoint": constants.ENDPOINT,
        "offline": "yes" if constants.HF_HUB_OFFLINE else "no",
    }


def _installed(names: tuple[str, ...]) -> str:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return "installed" if not missing else f"not installed: {', '.join(missing)}"
