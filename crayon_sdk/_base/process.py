"""Where to work, and how precisely."""

from __future__ import annotations

import torch

from crayon_sdk.errors import SettingsError

__all__ = ["resolve_device", "resolve_precision"]


def resolve_device(device: str | torch.device, model_device: torch.device) -> torch.device:
    """Turn "auto" into the GPU when there is one, else into the device of the model.

    Raises:
        SettingsError: The name is unknown, or there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda") if torch.cuda.is_available() and model_device.type == "cpu" else model_device
    try:
        resolved = torch.device(device)
        # Only a device that gives numbers back can be worked on: "meta" and many a name that torch knows cannot.
        torch.ones(1, device=resolved).add(1).item()
    except Exception as error:  # each kind of device fails in its own way
        gpu = " (torch finds no GPU)" if str(device).startswith("cuda") and not torch.cuda.is_available() else ""
        raise SettingsError(
            f"expected device={_available()}, got {str(device)!r}, which cannot be used here{gpu}"
        ) from error
    return resolved


def _available() -> str:
    names = ["'auto'", "'cpu'", *(f"'cuda:{number}'" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("'mps'")
    return " or ".join((", ".join(names[:-1]), names[-1]))


def resolve_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Turn a precision setting into the autocast type of the trunk, ``None`` for float32.

    Raises:
        SettingsError: Not one of "auto", "float32", "bfloat16".
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise SettingsError(f"expected precision='auto', 'float32' or 'bfloat16', got {precision!r}")
    fast = precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return torch.bfloat16 if fast else None
