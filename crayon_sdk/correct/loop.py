"""The one training loop: schedules, weight averaging, resuming, stopping safely.

Everything random in step ``t`` depends on ``(seed, t)`` alone and the learning rate is
a function of ``t``, so a run that was interrupted continues exactly where it was.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from crayon_sdk._base.progress import track
from crayon_sdk.correct.run_file import Run, RunFile
from crayon_sdk.correct.settings import TrainingSettings
from crayon_sdk.errors import NonFiniteLossError

__all__ = ["Averaging", "BatchLoss", "learning_rate", "train"]

BatchLoss = Callable[[Tensor], Mapping[str, Tensor]]
"""From sample positions (n,) int64 to scalars; the one called "loss" is minimised."""


def learning_rate(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step.

    Args:
        settings: Schedule and peak rate.
        step: Steps done so far.
        steps_per_epoch: Steps in an epoch.

    Example:
        >>> from crayon_sdk.correct.settings import TrainingSettings
        >>> settings = TrainingSettings(epochs=10, batch_size=1, lr=1.0, scheduler="cosine")
        >>> [round(learning_rate(settings, step, 1), 2) for step in (0, 5, 9)]
        [1.0, 0.5, 0.02]
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    if settings.scheduler == "step":
        return settings.lr * settings.step_factor ** (step // steps_per_epoch // settings.step_epochs)
    if settings.scheduler == "cosine":
        span = max(settings.epochs * steps_per_epoch - warmup, 1)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / span))
    return settings.lr


class _Undo:
    """Weights and buffers from before a step, so that a broken step leaves no trace."""

    def __init__(self, module: nn.Module) -> None:
        self._live = [*module.parameters(), *module.buffers()]
        self._kept = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember what is there now."""
        for live, kept in zip(self._live, self._kept, strict=True):
            kept.copy_(live)

    @torch.no_grad()
    def undo(self) -> None:
        """Go back to what was there at the last `keep`."""
        for live, kept in zip(self._live, self._kept, strict=True):
            live.copy_(kept)

    def is_finite(self) -> bool:
        """Tell whether what is there now is finite; a GPU is waited for once."""
        return bool(torch.stack([tensor.isfinite().all() for tensor in self._live]).all())


class Averaging:
    """An exponential moving average of a module's parameters and buffers.

    Early in training the decay is smaller, ``(1 + t) / (10 + t)``, so that the
    average does not cling to where it started.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()} if decay else {}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take the weights after step ``step`` (from 0) into the average."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, weight)
            else:
                self.state[name].copy_(tensor)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Use the averaged weights inside the block."""
        if not self.decay:
            yield
            return
        current = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        module.load_state_dict(self.state)
        try:
            yield
        finally:
            module.load_state_dict(current)


def train(
    module: nn.Module,
    batch_loss: BatchLoss,
    num_samples: int,
    settings: TrainingSettings,
    *,
    file: RunFile | None = None,
    on_epoch: Callable[[], Mapping[str, Any]] | None = None,
    broken: Callable[[], str] | None = None,
    keep_best: bool = False,
    doing: str = "training",
) -> list[dict[str, Any]]:
    """Train a module in place.

    Args:
        module: What is trained; its mode is the caller's business.
        batch_loss: From sample positions to the losses of that batch.
        num_samples: How many samples there are.
        settings: Optimizer, schedule, averaging, seed.
        file: Where to keep the state of the run, and to continue from.
        on_epoch: Called after every epoch with the weights that would be kept;
            gives measurements, of which "score" decides about the best epoch.
        broken: Called after every epoch with those weights, before ``on_epoch``: says what they
            make that is not finite, or "".
        keep_best: Keep the weights of the epoch with the highest "score".
        doing: What the progress bar says.

    Returns:
        One record per epoch: mean losses per sample, learning rate, seconds, measurements.

    Raises:
        NonFiniteLossError: The loss, its gradient or the step made with it is NaN or
            infinite; the module holds the state from before that step, and so does the file. Or
            something is ``broken`` after an epoch; the file is as it was before that epoch ended.
        KeyboardInterrupt: Ctrl-C; with a file the state was written first.
    """
    optimizer = _optimizer(module, settings)
    average = Averaging(module, settings.average_decay)
    undo = _Undo(module)
    run = Run()
    if file is not None:
        file.restore(module, optimizer, average.state, run)
    steps = max(_num_batches(num_samples, settings.batch_size), 1)
    total = settings.epochs * steps
    device = next(module.parameters()).device

    def save() -> None:
        if file is not None:
            file.save(module, optimizer, average.state, run)

    with _deferred_interrupt(file is not None) as interrupted, _own_rng(device) as seed_rng, track(doing, total) as bar:
        bar(run.step)
        for epoch in range(run.step // steps, settings.epochs):
            started = time.monotonic()
            for batch in _epoch_batches(num_samples, settings, epoch)[run.step % steps :]:
                seed_rng(settings.seed * 1_000_003 + run.step)
                try:
                    losses = _step(module, optimizer, batch_loss, batch, settings, run.step, steps, undo)
                except NonFiniteLossError:
                    save()
                    raise
                run.sums = {name: run.sums.get(name, 0.0) + value for name, value in losses.items()}
                if average.decay:
                    average.update(module, run.step)
                run.step += 1
                bar(1)
                if run.step % steps and (interrupted.is_set() or (file is not None and file.is_due())):
                    save()
                if run.step % steps and interrupted.is_set():
                    raise KeyboardInterrupt(_stopped(run.step, total))
            with average.applied(module):
                seconds = time.monotonic() - started
                _check_finite(module, run, num_samples, settings, steps, broken)
                _finish_epoch(module, run, num_samples, settings, steps, seconds, on_epoch, keep_best)
            save()
            if interrupted.is_set():
                raise KeyboardInterrupt(_stopped(run.step, total))
    if keep_best and run.best:
        module.load_state_dict(run.best)
    elif average.decay:
        module.load_state_dict(average.state)
    return run.history


def _optimizer(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def _num_batches(num_samples: int, batch_size: int) -> int:
    return math.ceil(num_samples / batch_size)


def _epoch_batches(num_samples: int, settings: TrainingSettings, epoch: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = torch.randperm(num_samples, generator=generator)
    # Even batches: a last one of a few samples would spoil the batch statistics right before they are used.
    return torch.tensor_split(order, max(_num_batches(num_samples, settings.batch_size), 1))


def _step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_loss: BatchLoss,
    batch: Tensor,
    settings: TrainingSettings,
    step: int,
    steps_per_epoch: int,
    undo: _Undo,
) -> dict[str, float]:
    undo.keep()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(settings, step, steps_per_epoch)
    optimizer.zero_grad(set_to_none=True)
    losses = batch_loss(batch)
    losses["loss"].backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), settings.clip_norm or math.inf)
    names = [*losses, "gradient norm"]
    values = torch.stack([value.detach().double() for value in (*losses.values(), norm)]).tolist()
    found = dict(zip(names, values, strict=True))
    broken = {name: value for name, value in found.items() if not math.isfinite(value)}
    why = ", ".join(f"{name} = {value}" for name, value in broken.items())
    if not broken:
        optimizer.step()
        why = "" if undo.is_finite() else "the weights or batch statistics after it are not finite"
    if why:
        undo.undo()
        raise NonFiniteLossError(
            f"training stopped at step {step + 1} (epoch {step // steps_per_epoch + 1}): {why}. "
            f"The weights from before this step are kept. Lower lr (now {settings.lr:g}), alpha or beta, "
            "or set clip_norm; and look for huge values in the pictures if they came preprocessed",
            step=step,
            epoch=step // steps_per_epoch,
        )
    found.pop("gradient norm")
    return found


def _check_finite(
    module: nn.Module,
    run: Run,
    num_samples: int,
    settings: TrainingSettings,
    steps: int,
    broken: Callable[[], str] | None,
) -> None:
    why = "" if broken is None else broken()
    if why:
        largest = max(float(weight.detach().abs().max()) for weight in module.parameters() if weight.numel())
        loss = run.sums.get("loss", math.nan) / num_samples
        raise NonFiniteLossError(
            f"training diverged: after step {run.step} (epoch {run.step // steps}) {why}, though the loss still is "
            f"{loss:.3g} and the largest weight {largest:.3g}. Lower lr (now {settings.lr:g}), alpha or beta, or set "
            "clip_norm",
            step=run.step,
            epoch=run.step // steps - 1,
        )


def _finish_epoch(
    module: nn.Module,
    run: Run,
    num_samples: int,
    settings: TrainingSettings,
    steps: int,
    seconds: float,
    on_epoch: Callable[[], Mapping[str, Any]] | None,
    keep_best: bool,
) -> None:
    record: dict[str, Any] = {"epoch": run.step // steps}
    record |= {name: total / num_samples for name, total in run.sums.items()}
    record |= {"lr": learning_rate(settings, run.step - 1, steps), "seconds": round(seconds, 3)}
    record |= dict(on_epoch()) if on_epoch is not None else {}
    run.history.append(record)
    run.sums = {}
    score = record.get("score", -math.inf)
    if keep_best and score > run.best_score:
        run.best_score = score
        run.best = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _stopped(step: int, total: int) -> str:
    return f"stopped after step {step} of {total}; the same call continues there"


@contextlib.contextmanager
def _own_rng(device: torch.device) -> Iterator[Callable[[int], object]]:
    """Seed the generators that training draws from, and give the caller's state back."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    try:
        yield lambda seed: [generator.manual_seed(seed) for generator in generators]
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextlib.contextmanager
def _deferred_interrupt(wanted: bool) -> Iterator[threading.Event]:
    """Let the running step end before Ctrl-C takes effect; a second Ctrl-C is immediate."""
    event = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
