"""The one training loop: schedules, weight averaging, resuming, stopping safely.

Everything random in step ``t`` depends on ``(seed, t)`` alone and the learning rate is
a function of ``t``, so a run that was interrupted continues exactly where it was.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from crayon_sdk._base.process import Processes
from crayon_sdk._base.progress import track
from crayon_sdk.correct.objective import Batch, Feed, Objective
from crayon_sdk.correct.run_file import Run, RunFile
from crayon_sdk.correct.settings import TrainingSettings
from crayon_sdk.errors import NonFiniteLossError, SettingsError, TrainingError

__all__ = ["Averaging", "learning_rate", "train"]

_log = logging.getLogger(__name__)

_LOOK = 50  # steps of a GPU between two looks at what they found: each look waits for all of them
_ADAM = 10.0  # no step of Adam is longer than so many learning rates: 7.3 by Cauchy and Schwarz, with its usual betas


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
    if settings.scheduler in ("step", "step-once"):
        falls = step // steps_per_epoch // settings.step_epochs
        return settings.lr * settings.step_factor ** (falls if settings.scheduler == "step" else min(falls, 1))
    if settings.scheduler == "cosine":
        span = max(settings.epochs * steps_per_epoch - warmup, 1)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / span))
    return settings.lr


class _Buffers:
    """Batch statistics and the like. A forward pass moves them before anybody knows what comes of it."""

    def __init__(self, module: nn.Module) -> None:
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for buffer in module.buffers():
            if buffer.numel():
                kinds.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        self._live = list(kinds.values())

    def now(self) -> list[Tensor]:
        """Copies, end to end: one for each dtype."""
        return [torch.cat([buffer.reshape(-1) for buffer in buffers]) for buffers in self._live]

    @torch.no_grad()
    def put(self, copies: Sequence[Tensor]) -> None:
        """Go back to copies."""
        for buffers, copy in zip(self._live, copies, strict=True):
            parts = copy.split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(buffers, [part.view_as(each) for part, each in zip(parts, buffers, strict=True)])


class _Reach:
    """How far steps can have carried the weights, by the update rule alone.

    A finite gradient can make weights that are not finite only where the learning rate or the decay is absurd. Where
    this bound says that it cannot, nobody has to look at every weight after every step, or to keep a copy of it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, settings: TrainingSettings) -> None:
        self._groups, self._settings = optimizer.param_groups, settings
        self._weights = [weight for group in self._groups for weight in group["params"] if weight.numel()]
        self._limit = min((torch.finfo(weight.dtype).max for weight in self._weights), default=math.inf) / 4
        self._reached = self._measured()

    def is_safe(self) -> bool:
        """Tell whether all weights are finite after the next step if its gradient is; a GPU is seldom waited for."""
        reached = self._after(self._reached)
        if not reached < self._limit:
            reached = self._after(self._measured())  # the bound goes up whether the weights do or not
        self._reached = reached
        return reached < self._limit

    def _after(self, before: float) -> float:
        return max((self._after_of(group, before) for group in self._groups), default=0.0)

    def _after_of(self, group: Mapping[str, Any], before: float) -> float:
        rate, decay, settings = float(group["lr"]), float(group["weight_decay"]), self._settings
        if settings.optimizer == "adamw":
            return before * max(1.0, abs(1 - rate * decay)) + _ADAM * rate
        # Where the norm of a gradient is finite, so are the squares in it; but not where it is that of one number.
        several = sum(weight.numel() for weight in group["params"]) > 1
        pull = (math.sqrt(4 * self._limit) if several else math.inf) + decay * before
        if settings.optimizer == "sgd":
            pull = pull / (1 - settings.momentum) if settings.momentum < 1 else math.inf
        if not pull < self._limit:
            return math.inf
        return before + rate * (pull if settings.optimizer == "sgd" else _ADAM)

    def _measured(self) -> float:
        return max(torch.stack(torch._foreach_norm(self._weights, math.inf)).tolist()) if self._weights else 0.0


class _Tally:
    """What the steps of an epoch found, kept where it was found: looking at it makes a GPU wait.

    Args:
        device: Where that is.
        sums: Of the epoch so far, by name.

    Attributes:
        broken: 0; 1 from the first step on that is not finite. Fused optimizers leave everything as it is then.
    """

    def __init__(self, device: torch.device, sums: Mapping[str, float]) -> None:
        self.broken = torch.zeros((), device=device)
        self._before = sums
        self._names: tuple[str, ...] = ()
        self._sums = self._last = torch.zeros(0, dtype=torch.float64, device=device)

    def add(self, names: tuple[str, ...], sums: Tensor, *, norm: Tensor, sound: Tensor) -> dict[str, Tensor]:
        """Take a step in, unless one before it was broken.

        Args:
            names: Of the losses.
            sums: Of each over the batch, (n,) float64.
            norm: Of the gradient.
            sound: Bool, whether all else is finite.

        Returns:
            The sums by name.
        """
        values = torch.cat([sums, norm.detach().double().reshape(1)])
        if not self._names:
            self._names = names
            before = [self._before.get(name, 0.0) for name in self._names]
            self._sums = values.new_tensor([*before, 0.0])  # last of all: how many steps were sound
            self._last = values
        over = self.broken.bool()
        self._last = torch.where(over, self._last, values)
        over = over | ~(values.isfinite().all() & sound)
        self.broken.copy_(over)
        self._sums = self._sums + torch.where(over, 0.0, torch.cat([sums, sums.new_ones(1)]))
        return dict(zip(self._names, sums.unbind(), strict=True))

    def read(self) -> tuple[dict[str, float], int, str]:
        """Look: sums of the epoch, number of sound steps, and what was wrong with the one after them, "" if nothing."""
        if not self._names:
            return dict(self._before), 0, ""
        values = torch.cat([self._sums, self._last, self.broken.double().reshape(1)]).tolist()
        count = len(self._names)
        sums, last = values[:count], dict(zip([*self._names, "gradient norm"], values[count + 1 : -1], strict=True))
        wrong = ", ".join(f"{name} = {value}" for name, value in last.items() if not math.isfinite(value))
        why = (wrong or "the batch statistics after it are not finite") if values[-1] else ""
        return dict(zip(self._names, sums, strict=True)), int(values[count]), why


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
    def update(self, step: int, unless: Tensor | None = None) -> None:
        """Take the weights after step ``step`` (from 0) into the average.

        Args:
            step: Decides about the decay.
            unless: A number on the device; where it is 1 the average stays as it is.
        """
        if not self.decay:
            return
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        average, live = self._reals
        if unless is None:
            torch._foreach_lerp_(average, live, share)
        else:
            moves = torch._foreach_sub(live, average)
            torch._foreach_mul_(moves, (share * (1 - unless.double())).to(average[0].dtype))
            torch._foreach_add_(average, moves)
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
    Training ends before the last epoch where the objective has ``enough``. A batch goes through the objective in
    ``settings.accumulate`` parts, and in more where the memory of a GPU runs out (``settings.auto_batch_size``).

    Args:
        objective: What is minimised. Its ``model`` is the result; modes are the caller's business.
        feed: Where the samples come from.
        settings: Optimizer, schedule, averaging, seed.
        processes: Who works on it.
        file: Where to keep the state of the run, and to continue from.
        on_epoch: Called after every epoch with the weights that would be kept;
            gives measurements, of which "score" decides about the best epoch.

    Returns:
        One record per epoch: mean losses per sample, learning rate, seconds, measurements, "enough" where that
        was the end, and "accumulate" where a batch came in more parts at last than the settings say.

    Raises:
        NonFiniteLossError: The loss, its gradient or the step made with it is NaN or
            infinite; the objective holds the state from before that step, and so does the file. Or
            it is ``broken`` after an epoch; the file is as it was before that epoch ended.
        SettingsError: A batch has too few samples for the processes and parts.
        TrainingError: The memory of a GPU does not take a batch, in as many parts as may be tried.
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
        *,
        looks_every: int | None = None,
    ) -> None:
        self.objective, self.feed, self.settings = objective, feed, settings
        self.processes, self.file, self.on_epoch = processes, file, on_epoch
        self.optimizer = _optimizer(objective, settings)
        self.average = Averaging(objective.model, settings.average_decay)
        self.device = next(objective.parameters()).device
        self.looks_every = looks_every or (_LOOK if self.device.type == "cuda" else 1)
        self.buffers = _Buffers(objective)
        self.state = Run()
        if file is not None:
            file.restore(objective, self.optimizer, self.average.state, self.state)
        self.reach = _Reach(self.optimizer, settings)
        self.size = len(objective.epoch(0, settings.seed, count=len(feed)))  # samples of an epoch
        self.steps = max(math.ceil(self.size / settings.batch_size), 1)
        self.state.parts = max(self.state.parts, getattr(settings, "accumulate", 1))
        if not self._is_divisible(self.state.parts):
            parts = f" and {self.state.parts} parts (accumulate)" if self.state.parts > 1 else ""
            raise SettingsError(
                f"expected at least one sample of every batch for each of {processes.size} processes{parts}, got "
                f"batches of {self.size // self.steps}; raise batch_size, launch fewer processes"
                f"{', or lower accumulate' if parts else ''}"
            )
        processes.check_same(
            f"{self.state.step} {self.size}",
            "the step to go on from and the number of samples",
            "checkpoint_dir must lie on a disk that all of them see",
        )
        self.total = settings.epochs * self.steps
        self.keep_best = getattr(settings, "keep", "last") == "best"
        self.mean = getattr(settings, "reduction", "sum") == "mean"
        self.mirror, self.crop_area = getattr(settings, "mirror", 0.0), getattr(settings, "crop_area", 1.0)

    def run(self) -> list[dict[str, Any]]:
        """From where the file stands to the end."""
        state, steps, model = self.state, self.steps, self.objective.model
        with (
            _deferred_interrupt(self.file is not None or self.processes.size > 1) as interrupted,
            _own_rng(self.device) as seed_rng,
            track(self.objective.doing, self.total) as bar,
        ):
            bar(state.step)
            for epoch in range(state.step // steps, self.settings.epochs):
                if state.history and "enough" in state.history[-1]:  # also in a run that goes on here
                    break
                started = time.monotonic()
                self._begin_epoch()
                for batch in self._batches(epoch)[state.step % steps :]:
                    self._step(batch, lambda: seed_rng(self.settings.seed * 1_000_003 + state.step))
                    state.step += 1
                    bar(1)
                    looking = not state.step % self.looks_every
                    if state.step % steps:
                        # Several processes have to agree, which takes as long as looking; and all look at once.
                        free = looking or self.processes.size == 1
                        stop = free and self.processes.any(interrupted.is_set())
                        due = free and self.file is not None and self.file.is_due()
                        if stop or due or (looking and self.looks_every > 1):
                            self._look()
                        if due and not stop:
                            self._save()
                        if stop:
                            self._save_and_leave()
                            raise KeyboardInterrupt(self._stopped())
                self._look()
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

    def _begin_epoch(self) -> None:
        self.first, self.tally = self.state.step, _Tally(self.device, self.state.sums)
        if self.looks_every > 1:  # as GradScaler tells fused optimizers
            self.optimizer.found_inf = self.tally.broken  # type: ignore[attr-defined]

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

    def _step(self, batch: Tensor, seed: Callable[[], object]) -> None:
        """Make one step. What is not finite leaves no trace, whether that is seen at once or later."""
        settings, state, lazy = self.settings, self.state, self.looks_every > 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(settings, state.step, self.steps) * group["lr_factor"]
        risky = not self.reach.is_safe()
        weights = [weight.detach().clone() for weight in self.objective.parameters()] if risky else []
        before = self.tally.read()[0] if risky else {}
        buffers = self.buffers.now()
        losses = self._gradients(batch, seed, buffers)
        odd = ~_all_finite(self.buffers.now(), self.device)
        sums = self.processes.sum(torch.stack([*losses.values(), odd.double()]))
        found = self.tally.add(tuple(losses), sums[:-1], norm=self._norm(), sound=sums[-1] == 0)
        broken = self.tally.broken
        if (risky or not lazy) and bool(broken):
            self.buffers.put(buffers)
            self._look()
        self.optimizer.step()
        if risky and self.processes.any(not _all_finite(self.objective.parameters(), self.device)):
            self.buffers.put(buffers)
            with torch.no_grad():
                torch._foreach_copy_(list(self.objective.parameters()), weights)
            state.sums = before
            raise self._not_finite("the weights after it are not finite")
        self.objective.after_step(found, self.processes)
        if lazy:
            now = self.buffers.now()
            self.buffers.put([torch.where(broken.bool(), *each) for each in zip(buffers, now, strict=True)])
        self.average.update(state.step, unless=broken if lazy else None)

    def _gradients(self, batch: Tensor, seed: Callable[[], object], buffers: Sequence[Tensor]) -> dict[str, Tensor]:
        """Put the gradients of a batch into the weights, in as many parts as memory takes; its losses, float64."""
        trained = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        while True:
            try:
                losses = self._in_parts(batch, seed)
                self.processes.add_gradients(trained)
                return losses
            except torch.OutOfMemoryError as error:
                why = " ".join(str(error).split())[:200]
                if not self._may_divide():
                    raise TrainingError(self._too_large(why)) from error
            # Only here, where the error is gone, is the memory free that it held.
            self.buffers.put(buffers)
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.state.parts *= 2
            _log.warning(
                "the memory of %s does not take %d pictures at a time (%s): step %d is done again, and training goes "
                "on, with batches in %d parts (accumulate=%d)",
                self.device,
                math.ceil(2 * len(batch) / self.state.parts),
                why,
                self.state.step + 1,
                self.state.parts,
                self.state.parts,
            )

    def _in_parts(self, batch: Tensor, seed: Callable[[], object]) -> dict[str, Tensor]:
        """One pass over a batch, forward and back."""
        found: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for part in self._own(batch):
            seed()  # in all parts and processes alike: see `Batch.drawn`
            if self.mirror or self.crop_area < 1:
                part = part.augmented(mirror=self.mirror, least_area=self.crop_area)
            with self.processes.together():
                losses = self.objective(part)
            self.processes.backward(losses["loss"] / len(batch) if self.mean else losses["loss"])
            for name, value in losses.items():
                value = value.detach().double()
                found[name] = found[name] + value if name in found else value
        return found

    def _is_divisible(self, parts: int) -> bool:
        """Whether every process has a sample of every batch in each of so many parts."""
        return self.size // self.steps >= self.processes.size * parts

    def _may_divide(self) -> bool:
        # Several processes would have to agree in the middle of a pass, where they wait for each other's statistics.
        wanted = getattr(self.settings, "auto_batch_size", False)
        return wanted and self.processes.size == 1 and self._is_divisible(2 * self.state.parts)

    def _too_large(self, why: str) -> str:
        settings, parts = self.settings, self.state.parts
        further = f"accumulate={2 * parts} with the same batch_size, or " if hasattr(settings, "accumulate") else ""
        return (
            f"the memory of {self.device} does not take a batch of {self.size // self.steps} "
            f"{f'in {parts} parts ' if parts > 1 else ''}({why}). Take {further}a lower batch_size (now "
            f"{settings.batch_size})"
        )

    def _norm(self) -> Tensor:
        """Clip the gradients; the largest of their norms from before."""
        # Each group for itself: what a second network does must not decide about the steps of the first.
        norms = []
        for group in self.optimizer.param_groups:
            norm = nn.utils.get_total_norm([each.grad for each in group["params"] if each.grad is not None])
            if self.settings.clip_norm:
                nn.utils.clip_grads_with_norm_(group["params"], self.settings.clip_norm, norm)
            norms.append(norm.to(self.device))
        return torch.stack(norms).max()

    def _look(self) -> None:
        """Read what the steps of this epoch found."""
        state = self.state
        state.sums, sound, why = self.tally.read()
        if why:
            state.step = self.first + sound
            if not state.step:  # a fused optimizer makes room for its state before it leaves all as it is
                self.optimizer.state.clear()
            raise self._not_finite(why)

    def _not_finite(self, why: str) -> NonFiniteLossError:
        """The error about the step that was to come; what is kept is the state from before."""
        step = self.state.step
        self._save_and_leave()
        return NonFiniteLossError(
            f"training stopped at step {step + 1} (epoch {step // self.steps + 1}): {why}. "
            f"The weights from before this step are kept. Lower lr (now {self.settings.lr:g}), alpha or beta, "
            "or set clip_norm; and look for huge values in the pictures if they came preprocessed",
            step=step,
            epoch=step // self.steps,
        )

    def _own(self, batch: Tensor) -> Iterator[Batch]:
        """What this process has of a batch, in parts."""
        first = sum(map(len, batch.tensor_split(self.processes.size)[: self.processes.index]))
        for part in self.processes.share(batch).tensor_split(self.state.parts):
            yield replace(self.feed.batch(part), whole=len(batch), first=first)
            first += len(part)

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
        # The settings say what was asked for.
        record |= {"accumulate": state.parts} if state.parts > getattr(self.settings, "accumulate", 1) else {}
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
    # One pass over the weights in the place of ten; and what a GPU leaves as it is when a gradient is not finite.
    fused = all(_is_plain(weight) for group in parameters for weight in group["params"])
    how: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": fused}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=settings.momentum, **how)
    return (torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW)(parameters, **how)


def _is_plain(weight: Tensor) -> bool:
    """Whether a fused optimizer is right about it: that takes its state to lie in the order of the weight."""
    return weight.device.type in ("cpu", "cuda") and torch.empty_like(weight).stride() == weight.stride()


def _all_finite(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    """Bool, on the device."""
    found = [each.detach().isfinite().all() for each in tensors if each.is_floating_point()]
    return torch.stack([torch.ones((), dtype=torch.bool, device=device), *found]).all()


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
