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
    except RuntimeError as error:
        raise SettingsError(f"expected device='auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device='cuda' was asked for, but torch finds no GPU here; use device='auto' or 'cpu'")
    return resolved


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
