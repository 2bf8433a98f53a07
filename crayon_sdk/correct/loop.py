"""The one training loop: schedules, weight averaging, resuming, stopping safely.

Everything random in step ``t`` depends on ``(seed, t)`` alone and the learning rate is
a function of ``t``, so a run that was interrupted continues exactly where it was.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from crayon_sdk._base.process import Processes
from crayon_sdk._base.progress import track
from crayon_sdk.correct.objective import Batch, Feed, Objective
from crayon_sdk.correct.run_file import Run, RunFile
from crayon_sdk.correct.settings import TrainingSettings
from crayon_sdk.errors import NonFiniteLossError, SettingsError

__all__ = ["Averaging", "learning_rate", "train"]


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
        self._real = [tensor for tensor in self._live if tensor.is_floating_point() and tensor.numel()]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember what is there now."""
        torch._foreach_copy_(self._kept, self._live)

    @torch.no_grad()
    def undo(self) -> None:
        """Go back to what was there at the last `keep`."""
        torch._foreach_copy_(self._live, self._kept)

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Tell whether what is there now is finite; a GPU is waited for once."""
        # The largest of a tensor is NaN or infinite where anything in it is.
        return all(
            math.isfinite(largest) for largest in torch.stack(torch._foreach_norm(self._real, math.inf)).tolist()
        )


class Averaging:
    """An exponential moving average of a module's parameters and buffers.

    Early in training the decay is smaller, ``(1 + t) / (10 + t)``, so that the
    average does not cling to where it started.

    Args:
        module: What is averaged; its tensors stay the same ones, with other values.
        decay: Per step; 0 averages nothing.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        live = dict(module.state_dict(keep_vars=True)) if decay else {}
        self.state = {name: tensor.detach().clone() for name, tensor in live.items()}
        reals = {name for name, tensor in live.items() if tensor.is_floating_point()}
        self._reals, self._others = (
            ([self.state[name] for name in live if (name in reals) is real],
             [live[name] for name in live if (name in reals) is real])
            for real in (True, False)
        )  # fmt: skip

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after step ``step`` (from 0) into the average."""
        if self.decay:
            torch._foreach_lerp_(*self._reals, 1 - min(self.decay, (1 + step) / (10 + step)))
            if self._others[0]:
                torch._foreach_copy_(*self._others)

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
    objective: Objective,
    feed: Feed,
    settings: TrainingSettings,
    *,
    processes: Processes,
    file: RunFile | None = None,
    on_epoch: Callable[[], Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Train an objective in place.

    With ``settings.keep`` "best" the weights of the epoch with the highest "score" are kept, else the last ones.
    Training ends before the last epoch where the objective has ``enough``.

    Args:
        objective: What is minimised. Its ``model`` is the result; modes are the caller's business.
        feed: Where the samples come from.
        settings: Optimizer, schedule, averaging, seed.
        processes: Who works on it.
        file: Where to keep the state of the run, and to continue from.
        on_epoch: Called after every epoch with the weights that would be kept;
            gives measurements, of which "score" decides about the best epoch.

    Returns:
        One record per epoch: mean losses per sample, learning rate, seconds, measurements, and "enough" where that
        was the end.

    Raises:
        NonFiniteLossError: The loss, its gradient or the step made with it is NaN or
            infinite; the objective holds the state from before that step, and so does the file. Or
            it is ``broken`` after an epoch; the file is as it was before that epoch ended.
        KeyboardInterrupt: Ctrl-C; with a file the state was written first.
    """
    return _Training(objective, feed, settings, processes, file, on_epoch).run()


class _Training:
    """One run of the loop."""

    def __init__(
        self,
        objective: Objective,
        feed: Feed,
        settings: TrainingSettings,
        processes: Processes,
        file: RunFile | None,
        on_epoch: Callable[[], Mapping[str, Any]] | None,
    ) -> None:
        self.objective, self.feed, self.settings = objective, feed, settings
        self.processes, self.file, self.on_epoch = processes, file, on_epoch
        self.optimizer = _optimizer(objective, settings)
        self.average = Averaging(objective.model, settings.average_decay)
        self.undo = _Undo(objective)
        self.state = Run()
        if file is not None:
            file.restore(objective, self.optimizer, self.average.state, self.state)
        self.size = len(objective.epoch(0, settings.seed, count=len(feed)))  # samples of an epoch
        self.steps = max(math.ceil(self.size / settings.batch_size), 1)
        if self.size // self.steps < processes.size:
            raise SettingsError(
                f"expected at least one sample of every batch for each of {processes.size} processes, got batches of "
                f"{self.size // self.steps}; raise batch_size, or launch fewer processes"
            )
        processes.check_same(
            f"{self.state.step} {self.size}",
            "the step to go on from and the number of samples",
            "checkpoint_dir must lie on a disk that all of them see",
        )
        self.total = settings.epochs * self.steps
        self.keep_best = getattr(settings, "keep", "last") == "best"
        self.mean = getattr(settings, "reduction", "sum") == "mean"

    def run(self) -> list[dict[str, Any]]:
        """From where the file stands to the end."""
        state, steps, model = self.state, self.steps, self.objective.model
        device = next(self.objective.parameters()).device
        with (
            _deferred_interrupt(self.file is not None or self.processes.size > 1) as interrupted,
            _own_rng(device) as seed_rng,
            track(self.objective.doing, self.total) as bar,
        ):
            bar(state.step)
            for epoch in range(state.step // steps, self.settings.epochs):
                if state.history and "enough" in state.history[-1]:  # also in a run that goes on here
                    break
                started = time.monotonic()
                for batch in self._batches(epoch)[state.step % steps :]:
                    seed_rng(self.settings.seed * 1_000_003 + state.step)  # in all processes: see `Batch.drawn`
                    try:
                        found = self._step(batch)
                    except NonFiniteLossError:
                        self._save_and_leave()
                        raise
                    state.sums = {name: state.sums.get(name, 0.0) + value for name, value in found.items()}
                    self.average.update(state.step)
                    self.objective.after_step(found, self.processes)
                    state.step += 1
                    bar(1)
                    if state.step % steps:
                        stop = self.processes.any(interrupted.is_set())
                        if stop:
                            self._save_and_leave()
                            raise KeyboardInterrupt(self._stopped())
                        if self.file is not None and self.file.is_due():
                            self._save()
                with self.average.applied(model):
                    seconds = time.monotonic() - started
                    self._check_finite()
                    self._finish_epoch(seconds)
                self._save()
                if self.processes.any(interrupted.is_set()):
                    self.processes.wait()
                    raise KeyboardInterrupt(self._stopped())
        if self.keep_best and state.best:
            model.load_state_dict(state.best)
        elif self.average.decay:
            model.load_state_dict(self.average.state)
        return state.history

    def _save(self) -> None:
        if self.file is not None and self.processes.is_main:
            self.file.save(self.objective, self.optimizer, self.average.state, self.state)

    def _save_and_leave(self) -> None:
        self._save()
        self.processes.wait()  # the first that ends has the launcher end the others, too

    def _stopped(self) -> str:
        where = f"stopped after step {self.state.step} of {self.total}"
        return where if self.file is None else f"{where}; the same call continues there"

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        order = self.objective.epoch(epoch, self.settings.seed, count=len(self.feed))
        if len(order) != self.size:
            raise SettingsError(
                f"expected {type(self.objective).__name__}.epoch() to give {self.size} positions in every epoch, as in "
                f"the first, got {len(order)} in epoch {epoch + 1}"
            )
        # Even batches: a last one of a few samples would spoil the batch statistics right before they are used.
        return torch.tensor_split(order, self.steps)

    def _step(self, batch: Tensor) -> dict[str, float]:
        """Make one step; the sums over the batch."""
        settings, step = self.settings, self.state.step
        self.undo.keep()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, self.steps) * group["lr_factor"]
        self.optimizer.zero_grad(set_to_none=True)
        # Each group for itself: what a second network does must not decide about the steps of the first.
        groups = [list(group["params"]) for group in self.optimizer.param_groups]
        with self.processes.together():
            losses = self.objective(self._own(batch))
        self.processes.backward(
            losses["loss"] / len(batch) if self.mean else losses["loss"], list(itertools.chain(*groups))
        )
        norm = torch.stack([nn.utils.clip_grad_norm_(each, settings.clip_norm or math.inf) for each in groups]).max()
        sums = self.processes.sum(torch.stack([value.detach().double() for value in losses.values()]))
        values = torch.cat([sums, norm.detach().double().reshape(1)]).tolist()
        found = dict(zip([*losses, "gradient norm"], values, strict=True))
        broken = {name: value for name, value in found.items() if not math.isfinite(value)}
        why = ", ".join(f"{name} = {value}" for name, value in broken.items())
        if not broken:
            self.optimizer.step()
            if self.processes.any(not self.undo.is_finite()):
                why = "the weights or batch statistics after it are not finite"
        if why:
            self.undo.undo()
            raise NonFiniteLossError(
                f"training stopped at step {step + 1} (epoch {step // self.steps + 1}): {why}. "
                f"The weights from before this step are kept. Lower lr (now {settings.lr:g}), alpha or beta, "
                "or set clip_norm; and look for huge values in the pictures if they came preprocessed",
                step=step,
                epoch=step // self.steps,
            )
        found.pop("gradient norm")
        return found

    def _own(self, batch: Tensor) -> Batch:
        """What this process has of a batch."""
        if self.processes.size == 1:
            return self.feed.batch(batch)
        shares = batch.tensor_split(self.processes.size)
        first = sum(map(len, shares[: self.processes.index]))
        return replace(self.feed.batch(self.processes.share(batch)), whole=len(batch), first=first)

    def _check_finite(self) -> None:
        why, state = self.objective.broken(self.feed), self.state
        if self.processes.any(bool(why)):
            why = why or "what another process makes of pictures is not finite"
            parameters = self.objective.model.parameters()
            largest = max(float(weight.detach().abs().max()) for weight in parameters if weight.numel())
            loss = state.sums.get("loss", math.nan) / self.size
            raise NonFiniteLossError(
                f"training diverged: after step {state.step} (epoch {state.step // self.steps}) {why}, though the loss "
                f"still is {loss:.3g} and the largest weight {largest:.3g}. Lower lr (now {self.settings.lr:g}), alpha "
                "or beta, or set clip_norm",
                step=state.step,
                epoch=state.step // self.steps - 1,
            )

    def _finish_epoch(self, seconds: float) -> None:
        state = self.state
        record: dict[str, Any] = {"epoch": state.step // self.steps}
        record |= {name: total / self.size for name, total in state.sums.items()}
        record |= {"lr": learning_rate(self.settings, state.step - 1, self.steps), "seconds": round(seconds, 3)}
        record |= dict(self.on_epoch()) if self.on_epoch is not None else {}
        # Written down, since whoever reads a history that is shorter than was asked for should know why.
        record |= {"enough": 1} if self.processes.any(self.objective.enough(record)) else {}
        state.history.append(record)
        state.sums = {}
        score = record.get("score", -math.inf)
        if self.keep_best and score > state.best_score:
            state.best_score = score
            state.best = {name: tensor.detach().clone() for name, tensor in self.objective.model.state_dict().items()}


def _optimizer(objective: Objective, settings: TrainingSettings) -> torch.optim.Optimizer:
    parameters = [{"lr_factor": 1.0, **group} for group in objective.parameter_groups()]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


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
