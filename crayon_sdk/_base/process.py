"""Where to work, how precisely, and how many processes work together."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import inspect
import os
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

from crayon_sdk._base.launch import launched
from crayon_sdk.errors import LostProcessError, MismatchError, SettingsError

__all__ = ["Processes", "machine", "resolve_device", "resolve_precision"]

# What gloo and NCCL say of a process that is gone; they have no kind of error for it in every case.
_LOST = re.compile(r"peer|gloo|NCCL|Broken pipe|Timed out|timed out|Socket", re.I)


def resolve_device(device: str | torch.device, model_device: torch.device) -> torch.device:
    """Turn "auto" into the GPU when there is one, else into the device of the model.

    Of several processes on a machine each gets a GPU of its own.

    Raises:
        SettingsError: The name is unknown, or there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and model_device.type == "cpu" else model_device
    try:
        resolved = torch.device(device)
        if resolved.type == "cuda" and launched()[1] > 1:
            resolved = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(resolved)  # where NCCL works
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
    """The processes that work together on one model; one is the same code with size 1.

    They are those that ``accelerate launch`` or ``torchrun`` started. What one of them calls here, all must call, in
    the same order: they wait for each other.

    Args:
        size: How many there are.
        index: Which one this is, from 0.

    Example:
        >>> alone = Processes()
        >>> alone.size, alone.is_main, alone.share(torch.arange(3)).tolist(), alone.any(False)
        (1, True, [0, 1, 2], False)
    """

    def __init__(self, size: int = 1, index: int = 0) -> None:
        self.size, self.index = size, index

    @classmethod
    def found(cls) -> Processes:
        """Those that were launched together, by what the launcher says in the environment.

        Raises:
            LostProcessError: They do not find each other.
        """
        index, size = launched()
        if size > 1 and not distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
            with _heard(index, size):
                distributed.init_process_group(backend)
            atexit.register(_leave)
        return cls(size, index)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files."""
        return self.index == 0

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run a network on a batch of which every process has a part; a process that is gone is an error in words.

        Every batch norm takes the statistics of the batch of all processes: as with SyncBatchNorm, but in every kind
        of batch norm, on every device, and for gradients of gradients.

        Raises:
            LostProcessError: Another process has ended, or cannot be reached.
        """
        if self.size == 1:
            yield
            return
        with _heard(self.index, self.size), _SharedStatistics(self):
            yield

    def share(self, positions: Tensor) -> Tensor:
        """The part of a batch that falls to this process; the parts of all make the batch."""
        return positions.tensor_split(self.size)[self.index] if self.size > 1 else positions

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are here.

        Args:
            loss: The part here of a sum over the samples of all processes.
        """
        with _heard(self.index, self.size):
            loss.backward()

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradients of all processes up, when each has those of its part.

        Args:
            parameters: What has gradients, in the same order everywhere; in one that no process used it stays ``None``.
        """
        if self.size == 1:
            return
        for dtype in {parameter.dtype: None for parameter in parameters}:
            those = [parameter for parameter in parameters if parameter.dtype == dtype]
            used = torch.tensor([each.grad is not None for each in those], dtype=dtype, device=those[0].device)
            gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in those]
            *added, users = self.sum(torch.cat([each.flatten() for each in (*gradients, used)])).split(
                [*(each.numel() for each in gradients), len(those)]
            )
            for number, (parameter, gradient) in enumerate(zip(those, added, strict=True)):
                if parameter.grad is not None or bool(users[number]):
                    parameter.grad = gradient.view_as(parameter)

    def sum(self, values: Tensor) -> Tensor:
        """Add values up over all processes, without gradient."""
        if self.size == 1:
            return values
        added = values.detach().clone(memory_format=torch.contiguous_format)
        with _heard(self.index, self.size):
            distributed.all_reduce(added)
        return added

    def stacked(self, values: Tensor) -> Tensor:
        """The values (...) of all processes in order, (size, ...), with gradients, also of higher order."""
        own = torch.arange(self.size, device=values.device) == self.index
        placed = torch.where(own.view(-1, *[1] * values.ndim), values, torch.zeros_like(values))
        return placed if self.size == 1 else cast(Tensor, _Sum.apply(placed, self))

    def merged(self, values: Tensor, mine: Tensor) -> Tensor:
        """Rows of which every process knows some, with all of them known: the same bytes everywhere.

        Args:
            values: (N, ...) of 4 or 8 bytes each.
            mine: (n,) int64, the rows that this process knows; no other process knows them.
        """
        if self.size == 1:
            return values
        whole = {4: torch.int32, 8: torch.int64}[values.element_size()]
        known = torch.zeros_like(values, memory_format=torch.contiguous_format)
        known[mine] = values[mine]
        return self.sum(known.view(whole)).view(values.dtype)  # as integers, of which all but one are 0

    def each(self, values: Tensor) -> Tensor:
        """The values (...) of all processes in order, (size, ...), to the last bit and without gradient."""
        return self.merged(values.detach().expand(self.size, *values.shape), torch.tensor([self.index]))

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process; the same answer in all of them."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag), device=_place())).item())

    def check_same(self, value: str, what: str, remedy: str) -> None:
        """See that all processes hold the same.

        Args:
            value: What is compared.
            what: It is, in words.
            remedy: What helps, as a sentence.

        Raises:
            MismatchError: They do not.
        """
        if self.size == 1:
            return
        number = int.from_bytes(hashlib.sha256(value.encode()).digest()[:7], "big")
        numbers = self.stacked(torch.tensor(number, device=_place())).tolist()
        if len(set(numbers)) > 1:
            other = next(index for index, each in enumerate(numbers) if each != numbers[0])
            raise MismatchError(
                f"expected {what} to be the same in all {self.size} processes, got another one in process {other} than "
                f"in process 0. {remedy}"
            )

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.any(False)


class _Sum(torch.autograd.Function):
    """Adds up over processes; so does its gradient, for every process has a part of the loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        return processes.sum(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return cast(Tensor, _Sum.apply(gradients[0], ctx.processes)), None


class _SharedStatistics(TorchFunctionMode):
    """Every batch norm that normalises by its batch takes that of all processes.

    Seen to where all kinds of it end, so that none has to be exchanged for another module.
    """

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        if function is not nn.functional.batch_norm:
            return function(*arguments, **(named or {}))
        given = inspect.signature(nn.functional.batch_norm).bind(*arguments, **(named or {}))
        given.apply_defaults()
        if not given.arguments["training"]:
            return function(*arguments, **(named or {}))
        return _batch_norm(self.processes, *given.args)


def _batch_norm(
    processes: Processes,
    images: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    _training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Batch norm over the batches of all processes, by sums of squares about the mean of each (Chan et al. 1979)."""
    high = images if images.dtype == torch.float64 else images.float()
    axes = [axis for axis in range(images.ndim) if axis != 1]
    wide = [1, -1, *[1] * (images.ndim - 2)]
    count = torch.full((images.shape[1],), images.numel() / images.shape[1], dtype=high.dtype, device=high.device)
    center = high.mean(dim=axes)
    spread = (high - center.view(wide)).square().sum(dim=axes)
    counts, centers, spreads = processes.stacked(torch.stack([count, center, spread])).unbind(dim=1)
    total = counts.sum(dim=0)
    middle = (counts * centers).sum(dim=0) / total
    biased = (spreads + counts * (centers - middle).square()).sum(dim=0) / total
    if mean is not None and var is not None:
        with torch.no_grad():
            mean.lerp_(middle.to(mean.dtype), momentum)
            var.lerp_((biased * total / (total - 1)).to(var.dtype), momentum)
    scale = (biased + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - middle * scale
    return (high * scale.view(wide) + shift.view(wide)).to(images.dtype)


def _place() -> torch.device:
    """Where small values lie that processes tell each other: where they can, beside the device."""
    alone = "gloo" not in str(distributed.get_backend_config())  # a group that the caller made
    return torch.device("cuda", torch.cuda.current_device()) if alone else torch.device("cpu")


@contextlib.contextmanager
def _heard(index: int, size: int) -> Iterator[None]:
    """Say in words that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if size == 1 or (not isinstance(error, distributed.DistError) and not _LOST.search(str(error))):
            raise
        raise LostProcessError(
            f"process {index} of {size} waited for another one, which has ended or cannot be reached "
            f"({' '.join(str(error).split())[:200]}). What it said is above, or on its machine. Launch the same again: "
            "with a checkpoint_dir, or in a workspace, the work goes on where it was last written down, also with "
            "another number of processes"
        ) from error


def _leave() -> None:
    with contextlib.suppress(Exception):
        distributed.destroy_process_group()
