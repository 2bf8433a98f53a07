"""Loading a checkpoint back: here, and in a process that knows nothing of this package."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from crayon_sdk._base.files import read_tensors, write_json, write_tensors
from crayon_sdk.errors import CrayonError, ModelLoadError, OutputError
from crayon_sdk.models.adapters import PREFIX
from crayon_sdk.models.alike import logits_of, noise, plain_copy, same_logits
from crayon_sdk.models.load import WEIGHTS, load_model
from crayon_sdk.models.rebuild import can_be_built, is_timm
from crayon_sdk.models.split import SplitModel, why_not_finite

__all__ = ["check_in_fresh_process", "check_loads_back", "filled"]

_TIMEOUT = 600
_LOAD_AND_RUN = """
import json, sys
import safetensors.torch, torch
place = sys.argv[1]
with open(place + "/how.json", encoding="utf-8") as file:
    how = json.load(file)
torch.set_num_threads(how["threads"])
if how["timm"]:
    import timm
    model = timm.create_model("local-dir:" + how["folder"], pretrained=True)
else:
    import torchvision
    model = torchvision.models.get_model(how["name"], weights=None, num_classes=how["classes"], **how["arguments"])
    state = model.state_dict()
    state.update(safetensors.torch.load_file(how["folder"] + "/model.safetensors"))
    model.load_state_dict(state)
assert not any(name.split(".")[0] == "crayon_sdk" for name in sys.modules)
images = safetensors.torch.load_file(place + "/images.safetensors")["images"]
with torch.no_grad():
    logits = model.float().eval()(images)
safetensors.torch.save_file({"logits": logits.contiguous()}, place + "/logits.safetensors")
"""


def check_in_fresh_process(folder: Path, model: SplitModel) -> bool:
    """Load a checkpoint as its users will, and compare the logits on fixed noise.

    The process gets no token of the Hub and may not ask it anything.

    Args:
        folder: What `Correction.save` wrote.
        model: The model that it was written from.

    Returns:
        Whether there was anything to compare: a home-made module exists in this process only.

    Raises:
        OutputError: It does not load there, or gives other logits.
    """
    if not can_be_built(model):
        return False
    images = noise(model, seed=1)
    how = {
        "timm": is_timm(model),
        "folder": str(folder.resolve()),
        "name": model.architecture.removeprefix(PREFIX),
        "classes": model.num_classes,
        "arguments": dict(getattr(model.model, "arguments", {})),
        "threads": torch.get_num_threads(),
    }
    with tempfile.TemporaryDirectory(prefix="crayon-check-") as name:
        place = Path(name)
        write_json(place / "how.json", how)
        write_tensors(place / "images.safetensors", {"images": images})
        _run(place, model.architecture)
        found = read_tensors(place / "logits.safetensors")[0]["logits"]
    if not same_logits(found, logits_of(plain_copy(model), images)):
        raise OutputError(
            f"nothing was published: in a process of its own, {model.architecture} gives other logits than the model "
            "in memory. It was probably changed after it was made; make it by name (timm.create_model with the same "
            "arguments) and load the weights into it"
        )
    return True


def _run(place: Path, architecture: str) -> None:
    environment = {name: value for name, value in os.environ.items() if "TOKEN" not in name.upper()}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "home")}
    try:
        done = subprocess.run(  # noqa: S603 - this Python, and a script of ours
            [sys.executable, "-c", _LOAD_AND_RUN, str(place)],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OutputError(f"nothing was published: no fresh process could check the checkpoint: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise OutputError(
            f"nothing was published: {architecture} does not load in a process of its own ({lines[-1][:300]})"
        )


def check_loads_back(folder: Path, model: SplitModel) -> None:
    """Compare the logits of what was written with those of the model, on fixed noise.

    Raises:
        OutputError: They differ, or are not finite.
    """
    images = noise(model)
    wanted = logits_of(plain_copy(model), images)
    if not bool(wanted.isfinite().all()):
        raise OutputError(
            f"the checkpoint was not written: the logits of {model.architecture} are not finite (NaN or infinity), "
            f"{why_not_finite(model)}, and correct again with a lower lr"
        )
    if can_be_built(model):
        try:
            loaded = load_model(f"local-dir:{folder}").to(torch.float32)
        except CrayonError as error:
            raise OutputError(
                f"the checkpoint was not written: {model.architecture} cannot be loaded back ({error}). It was "
                "probably changed after it was made; make it by name (timm.create_model with the same arguments) and "
                "load the weights into it"
            ) from error
    else:
        loaded = filled(model, folder).to("cpu", torch.float32)
    loaded.compile_trunk = False
    if not same_logits(logits_of(loaded, images), wanted):
        raise OutputError(
            f"the checkpoint was not written: loaded back, {model.architecture} gives other logits than the model in "
            "memory. It was probably changed after it was made (layers replaced, model_args lost); make it by name "
            "(timm.create_model with the same arguments) and load the weights into it"
        )


def filled(model: SplitModel, folder: Path) -> SplitModel:
    """Give a copy of a model the weights in a folder."""
    tensors, _ = read_tensors(folder / WEIGHTS)
    copy = model.copy()
    try:
        copy.model.load_state_dict(_with_masks(copy, tensors))
    except (RuntimeError, KeyError) as error:
        detail = " ".join(str(error).split())[:300]
        raise ModelLoadError(f"the weights in {str(folder)!r} do not fit {model.architecture}: {detail}") from error
    return copy


def _with_masks(model: SplitModel, plain: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Turn plain names into those of a pruned classifier where there is one."""
    state = dict(plain)
    for name, tensor in model.model.state_dict().items():
        if name.endswith("weight_mask"):
            stem = name.removesuffix("_mask")
            state |= {f"{stem}_orig": state.pop(stem), name: tensor}
    return state
