"""Shared fixtures: the optional data folder beside the project, small pictures, small models."""

from __future__ import annotations

import csv
import gc
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes of as many threads as there are cores would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start what runs in the background deaf to Ctrl-C, and all that the tests start would be deaf, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real pictures, weights and golden numbers that is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(
            f"no folder {SHARED.name!r} beside the project: real pictures and golden numbers are not distributed"
        )
    return SHARED


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., nn.Module]:
    """Make a small timm model with random weights: ``tiny_model(name=..., num_classes=2, seed=0)``."""
    return make_tiny_model


def make_tiny_model(
    name: str = "test_resnet.r160_in1k", num_classes: int = 2, seed: int = 0, **model_args: Any
) -> nn.Module:
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **model_args).eval()


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of 80 x 80 that nobody may change.

    ``images/cat/00.jpg`` ... ``images/dog/11.jpg``, ``masks/`` with the same names and ``metadata.csv``
    (image, label, split, place, mask; paths relative to it). A cat is a bright disc, a dog a bright
    square, somewhere in the picture; its place, "land" or "water", is the tint of the rest and mostly
    goes with the class. The first eight of each class are "train", the others "test".
    """
    return make_pictures(tmp_path_factory.mktemp("pictures"))


def make_pictures(root: Path, side: int = 80) -> Path:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    down, right = np.mgrid[:side, :side]
    rows = []
    for label in ("cat", "dog"):
        for number in range(12):
            top, left = generator.integers(18, side - 18, size=2)
            if label == "cat":
                inside = (down - top) ** 2 + (right - left) ** 2 < 14**2
            else:
                inside = (abs(down - top) < 13) & (abs(right - left) < 13)
            place = "land" if (label == "cat") != (number % 4 == 3) else "water"
            pixels = generator.integers(0, 60, size=(side, side, 3))
            pixels[..., 1 if place == "land" else 2] += 70
            pixels[inside] += 120
            image, mask = f"images/{label}/{number:02}.jpg", f"masks/{label}/{number:02}.png"
            for path, values in ((image, pixels), (mask, inside * 255)):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(root / path)
            rows.append((image, label, "train" if number < 8 else "test", place, mask))
    with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "split", "place", "mask"), *rows])
    return root


@pytest.fixture(scope="session")
def snapshot() -> Callable[[nn.Module], dict[str, object]]:
    """Describe everything about a model, and the global random states, so that two moments compare with ``==``."""
    return state_of


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built; nobody may change it."""
    needed = ("mkdocs", "mkdocs_click", "material", "mkdocstrings_handlers.python", "latex2mathml")
    for name in needed:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"{name.split('.')[0]} is not installed: make install")
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "crayon-test", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    gc.collect()  # files that are mapped into memory keep it busy
    subprocess.run(["umount", str(place)], check=True)


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def state_of(model: nn.Module) -> dict[str, object]:
    import random

    import numpy as np
    import torch

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    modules = list(model.named_modules())
    return {
        "bytes": {name: _digest(tensor) for name, tensor in tensors.items()},
        "state_dict": list(model.state_dict()),
        "formats": {name: (str(t.device), t.dtype, tuple(t.shape), t.stride()) for name, t in tensors.items()},
        "identity": {name: id(tensor) for name, tensor in tensors.items()},
        "requires_grad": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "gradients": {name: None if t.grad is None else _digest(t.grad) for name, t in tensors.items()},
        "training": {name: module.training for name, module in modules},
        "modules": {name: (type(module), id(module)) for name, module in modules},
        "hooks": {name: [len(getattr(module, hooks, ())) for hooks in _HOOKS] for name, module in modules},
        "attributes": {name: sorted(vars(module)) for name, module in modules},
        "torch_random": _digest(torch.get_rng_state()),
        "numpy_random": hashlib.sha256(repr(np.random.get_state(legacy=False)).encode()).hexdigest(),
        "python_random": hash(random.getstate()),
        "grad_enabled": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _digest(tensor: Any) -> str:
    import torch

    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(raw).hexdigest()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Make a database on a real PostgreSQL server: ``postgres()`` gives its URL."""
    from helpers_postgres import postgres_server

    with postgres_server() as new:
        yield new
