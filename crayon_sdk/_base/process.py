"""Where to work, how precisely, and how many processes work together."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from crayon_sdk.errors import SettingsError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Processes", "machine", "resolve_device", "resolve_precision"]


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


def machine() -> dict[str, str]:
    """Facts about the machine without which a measured time means nothing.

    Example:
        >>> list(machine())
        ['cpu', 'cores', 'threads', 'gpu']
    """
    cpu, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


class Processes:
    """The processes that work together on one training; one is the same code with size 1.

    A thin face of Accelerate, which is imported where there are several (``accelerate launch SCRIPT``).

    Args:
        accelerator: Of several processes; ``None`` for this one alone.

    Attributes:
        size: How many there are.
        index: Which one this is, from 0.

    Example:
        >>> alone = Processes()
        >>> alone.size, alone.is_main, alone.share(torch.arange(3)).tolist(), alone.any(False)
        (1, True, [0, 1, 2], False)
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.size = 1 if accelerator is None else int(accelerator.num_processes)
        self.index = 0 if accelerator is None else int(accelerator.process_index)

    @classmethod
    def found(cls, device: torch.device) -> Processes:
        """Those that were launched together, by what the launcher says in the environment.

        Args:
            device: Where this one works; decides about how they talk.
        """
        if int(os.environ.get("WORLD_SIZE") or 1) < 2:
            return cls()
        from accelerate import Accelerator

        return cls(Accelerator(cpu=device.type == "cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files."""
        return self.index == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose backward pass gathers the gradients of all; to be called in the place of ``module``."""
        wrapped: nn.Module = module if self._accelerator is None else self._accelerator.prepare_model(module)
        return wrapped

    def share(self, positions: Tensor) -> Tensor:
        """The part of a batch that falls to this process; the parts of all make the batch."""
        return positions.tensor_split(self.size)[self.index] if self.size > 1 else positions

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss that is a sum over the samples of all processes."""
        if self._accelerator is None:
            loss.backward()
        else:
            self._accelerator.backward(loss * self.size)  # what wraps takes the mean over processes

    def sum(self, values: Tensor) -> Tensor:
        """Add values up over all processes."""
        if self._accelerator is None:
            return values
        added: Tensor = self._accelerator.reduce(values, reduction="sum")
        return added

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process; the same answer in all of them."""
        if self._accelerator is None:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self._accelerator.device)).item())

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
