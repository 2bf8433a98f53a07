from __future__ import annotations

import copy
import logging
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from crayon_sdk._base.process import Processes
from crayon_sdk.correct.erm import ERMSettings
from crayon_sdk.correct.loop import Averaging, _Training, learning_rate, train
from crayon_sdk.correct.objective import Batch, Objective
from crayon_sdk.correct.run_file import RunFile
from crayon_sdk.correct.settings import BaselineSettings, TrainingSettings
from crayon_sdk.errors import NonFiniteLossError, SettingsError, TrainingError

COUNT = 11


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # No bias before the norm: its gradient is rounding noise, which Adam would blow up.
        return nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()


def points(count=COUNT):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (count,), generator=generator)


class Watched(Objective):
    """An objective that remembers every batch, and the state that each step began with; a feed of itself."""

    def __init__(self, module, count=COUNT, scale=None):
        super().__init__(module)
        self.scale = scale or {}
        self.inputs, self.labels = points(count)
        self.batches, self.states = [], []

    def __len__(self):
        return len(self.labels)

    def batch(self, positions):
        return Batch(rows=positions, labels=self.labels[positions], features=(self.inputs[positions],))

    def forward(self, batch):
        self.states.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        loss = F.cross_entropy(self.model(*batch.features), batch.labels, reduction="sum")
        loss = loss * self.scale.get(len(self.batches), 1.0)
        self.batches.append(batch.rows)
        return {"loss": loss, "twice": 2 * loss.detach()}


def run(watched, settings, **more):
    return train(watched, watched, settings, processes=Processes(), **more)


def run_unwatched(watched, settings, *, file=None, looks_every=3):
    """As on a GPU: what the steps found is read every few of them."""
    return _Training(watched, watched, settings, Processes(), file, None, looks_every=looks_every).run()


def by_hand(module, batches, settings, steps_per_epoch):
    """Train step by step with the update rules written out; give the states after every step."""
    inputs, labels = points(max(int(batch.max()) for batch in batches) + 1)
    parameters = list(module.parameters())
    first = [torch.zeros_like(parameter) for parameter in parameters]
    second = [torch.zeros_like(parameter) for parameter in parameters]
    states = []
    for step, batch in enumerate(batches):
        lr = rate_by_hand(settings, step, steps_per_epoch)
        loss = F.cross_entropy(module(inputs[batch]), labels[batch], reduction="sum")
        gradients = list(torch.autograd.grad(loss, parameters))
        if settings.clip_norm:
            norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
            gradients = [gradient * min(1.0, settings.clip_norm / (norm + 1e-6)) for gradient in gradients]
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            with torch.no_grad():
                if settings.optimizer == "adamw":
                    parameter.sub_(lr * settings.weight_decay * parameter)
                else:
                    gradient = gradient + settings.weight_decay * parameter
                if settings.optimizer == "sgd":
                    first[i] = gradient if step == 0 else settings.momentum * first[i] + gradient
                    parameter.sub_(lr * first[i])
                    continue
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                mean, spread = first[i] / (1 - 0.9 ** (step + 1)), second[i] / (1 - 0.999 ** (step + 1))
                parameter.sub_(lr * mean / (spread.sqrt() + 1e-8))
        states.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
    return states


def rate_by_hand(settings, step, steps_per_epoch):
    rising = settings.warmup_epochs * steps_per_epoch
    if step < rising:
        return settings.lr * (step + 1) / (rising + 1)
    if settings.scheduler == "cosine":
        done = (step - rising) / (settings.epochs * steps_per_epoch - rising)
        return settings.lr * (1 + math.cos(math.pi * done)) / 2
    if settings.scheduler == "step":
        rate = settings.lr
        for epoch in range(1, step // steps_per_epoch + 1):
            rate *= settings.step_factor if epoch % settings.step_epochs == 0 else 1
        return rate
    return settings.lr


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-11, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(
    ("scheduler", "more"),
    [
        ("none", {}),
        ("none", {"clip_norm": 0.5}),
        ("cosine", {"warmup_epochs": 1.0}),
        ("cosine", {"warmup_epochs": 0.4, "clip_norm": 2.0}),
        ("step", {"step_epochs": 2, "step_factor": 0.3}),
        ("step", {"step_epochs": 1, "step_factor": 0.5, "warmup_epochs": 1.0}),
    ],
)
def test_training_equals_a_loop_by_hand(optimizer, scheduler, more):
    settings = TrainingSettings(
        epochs=5, batch_size=3, lr=0.02, weight_decay=0.1, optimizer=optimizer, scheduler=scheduler, **more
    )
    module, reference = net(), net()
    watched = Watched(module)
    history = run(watched, settings)
    assert len(watched.batches) == 5 * 4
    expected = by_hand(reference, watched.batches, settings, 4)
    for step in range(1, 20):
        assert_same(watched.states[step], expected[step - 1])
    assert_same(module.state_dict(), expected[-1])
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]
    assert [entry["lr"] for entry in history] == [
        pytest.approx(rate_by_hand(settings, 4 * epoch + 3, 4)) for epoch in range(5)
    ]


def test_rates_equal_those_of_torch():
    plain = nn.Linear(1, 1)
    for scheduler, make in (
        ("cosine", lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)),
        ("step", lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=6, gamma=0.1)),
    ):
        settings = TrainingSettings(epochs=4, batch_size=1, lr=0.3, scheduler=scheduler, step_epochs=2)
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.3)
        theirs = make(optimizer)
        for step in range(12):
            assert learning_rate(settings, step, 3) == pytest.approx(theirs.get_last_lr()[0])
            optimizer.step()
            theirs.step()


def test_warm_up_rises_from_zero_to_the_peak():
    settings = TrainingSettings(epochs=4, batch_size=1, lr=1.0, warmup_epochs=2.0)
    rates = [learning_rate(settings, step, 2) for step in range(8)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


def test_every_epoch_sees_every_sample_once_in_another_order():
    module = net()
    watched = Watched(module)
    run(watched, TrainingSettings(epochs=3, batch_size=4, lr=0.01))
    epochs = [torch.cat(watched.batches[3 * epoch : 3 * epoch + 3]).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (9, 4, [3, 3, 3]),
        (8, 4, [4, 4]),
        (10, 4, [4, 3, 3]),
        (5, 4, [3, 2]),
        (3, 4, [3]),
        (2, 1, [1, 1]),
        (4, 3, [2, 2]),
    ],
)
def test_batches_are_even_so_that_no_last_one_is_tiny(count, batch_size, sizes):
    module = net().eval()
    watched = Watched(module, count)
    history = run(watched, TrainingSettings(epochs=1, batch_size=batch_size, lr=0.01))
    assert [len(batch) for batch in watched.batches] == sizes
    assert len(history) == 1


def test_history_has_means_per_sample_and_measurements():
    module = net().eval()
    settings = TrainingSettings(epochs=2, batch_size=4, lr=0.0)
    watched = Watched(module)
    history = run(watched, settings, on_epoch=lambda: {"accuracy": 0.5})
    mean = F.cross_entropy(module(watched.inputs), watched.labels).item()
    for entry in history:
        assert entry["loss"] == pytest.approx(mean)
        assert entry["twice"] == pytest.approx(2 * mean)
        assert entry["accuracy"] == 0.5
        assert entry["seconds"] >= 0


def test_average_equals_a_slow_one():
    settings = TrainingSettings(epochs=6, batch_size=3, lr=0.05, average_decay=0.8)
    module = net()
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    plain = net()
    after = by_hand(plain, watched_batches(settings), settings, 4)
    run(Watched(module), settings)
    decays = [min(0.8, (1 + step) / (10 + step)) for step in range(len(after))]
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, after[-1][name])
            continue
        slow = start[name] * math.prod(decays)
        for step, state in enumerate(after):
            slow = slow + state[name] * (1 - decays[step]) * math.prod(decays[step + 1 :])
        torch.testing.assert_close(tensor, slow, rtol=1e-9, atol=1e-11)


def watched_batches(settings):
    module = net()
    watched = Watched(module)
    run(watched, settings)
    return watched.batches


def test_average_is_applied_for_a_while_only():
    module = net()
    average = Averaging(module, 0.9)
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        module[0].weight.add_(1)
    changed = copy.deepcopy(module.state_dict())
    seen = []
    with pytest.raises(ZeroDivisionError), average.applied(module):
        seen.append(copy.deepcopy(module.state_dict())) or 1 / 0
    assert_same(seen[0], before)
    assert_same(module.state_dict(), changed)


def test_measurements_see_the_averaged_weights():
    settings = TrainingSettings(epochs=3, batch_size=4, lr=0.1, average_decay=0.9)
    module, seen = net(), []
    run(Watched(module), settings, on_epoch=lambda: seen.append(module[0].weight.clone()) or {})
    assert torch.equal(seen[-1], module[0].weight)
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("average_decay", [0.0, 0.7])
def test_best_epoch_is_kept(average_decay):
    settings = ERMSettings(
        epochs=4, batch_size=4, lr=0.1, average_decay=average_decay, weight_decay=0.0, scheduler="none", keep="best"
    )
    module, seen, scores = net(), [], iter([0.1, 0.6, 0.6, 0.3])

    def measure():
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        return {"score": next(scores)}

    run(Watched(module), settings, on_epoch=measure)
    assert_same(module.state_dict(), seen[1])


def test_no_epochs_change_nothing():
    module = net()
    before = copy.deepcopy(module.state_dict())
    assert run(Watched(module), TrainingSettings(epochs=0, batch_size=4, lr=1.0)) == []
    assert_same(module.state_dict(), before)


def test_one_seed_gives_one_result_whatever_the_callers_random_state():
    def weights(seed, noise):
        torch.manual_seed(noise)
        module = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
        module.load_state_dict({k: torch.full_like(v, 0.1) + torch.arange(v.numel()).view_as(v) / 9
                                for k, v in module.state_dict().items()})  # fmt: skip
        run(Watched(module), TrainingSettings(epochs=2, batch_size=4, lr=0.1, seed=seed))
        return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

    with torch.random.fork_rng(devices=[]):
        first, again, other = weights(3, 0), weights(3, 99), weights(4, 0)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_callers_random_state_is_unchanged():
    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    module = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    before = states()
    run(Watched(module), TrainingSettings(epochs=2, batch_size=4, lr=0.1))
    assert states() == before
    with pytest.raises(NonFiniteLossError):
        run(Watched(module, scale={1: math.nan}), TrainingSettings(epochs=2, batch_size=4, lr=0.1))
    assert states() == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_loss_leaves_the_state_from_before_that_step(value, tmp_path):
    settings = TrainingSettings(epochs=3, batch_size=4, lr=0.05)
    module = net()
    watched = Watched(module, scale={4: value})
    file = RunFile(tmp_path, {"run": 1})
    message = (
        r"stopped at step 5 \(epoch 2\): loss = (nan|inf), .*Lower lr \(now 0.05\), alpha or beta, or set clip_norm"
    )
    with pytest.raises(NonFiniteLossError, match=message) as caught:
        run(watched, settings, file=file)
    assert (caught.value.step, caught.value.epoch) == (4, 1)
    # Buffers too: the forward of the broken step has moved the batch statistics.
    assert_same(module.state_dict(), watched.states[4])
    # What is on disk continues to the same end as an undisturbed run.
    resumed, undisturbed = net(5), net()
    run(Watched(resumed), settings, file=RunFile(tmp_path, {"run": 1}))
    run(Watched(undisturbed), settings)
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, undisturbed.state_dict()[name]), name


def test_nan_inputs_do_not_reach_the_batch_statistics():
    module = net()
    watched = Watched(module)
    watched.inputs[2, 1] = math.nan
    with pytest.raises(NonFiniteLossError, match="loss = nan, twice = nan, gradient norm = nan"):
        run(watched, TrainingSettings(epochs=1, batch_size=4, lr=0.05))
    assert all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())
    assert_same(module.state_dict(), watched.states[-1])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_that_overflows_is_taken_back(optimizer):
    module = net().float()
    watched = Watched(module, scale={1: 1e10})
    watched.inputs = watched.inputs.float()
    settings = TrainingSettings(epochs=3, batch_size=4, lr=1e30, weight_decay=1e6, optimizer=optimizer)
    with pytest.raises(NonFiniteLossError, match=r"stopped at step \d+ \(epoch 1\)"):
        run(watched, settings)
    assert all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())
    assert_same(module.state_dict(), watched.states[-1])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("more", [{}, {"average_decay": 0.7, "clip_norm": 0.5}])
def test_looking_seldom_changes_nothing(optimizer, more):
    settings = TrainingSettings(epochs=3, batch_size=3, lr=0.02, weight_decay=0.1, optimizer=optimizer, **more)
    seen, unseen = net(), net()
    assert [
        {name: value for name, value in entry.items() if name != "seconds"} for entry in run(Watched(seen), settings)
    ] == [
        {name: value for name, value in entry.items() if name != "seconds"}
        for entry in run_unwatched(Watched(unseen), settings)
    ]
    if more:  # the average is taken by other instructions
        assert_same(unseen.state_dict(), seen.state_dict())
    else:
        assert all(torch.equal(a, b) for a, b in zip(seen.parameters(), unseen.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("broken", [0, 4, 6])
@pytest.mark.parametrize("looks_every", [2, 3, 50])
def test_a_broken_step_that_is_seen_late_leaves_no_trace(optimizer, broken, looks_every, tmp_path):
    settings = TrainingSettings(epochs=3, batch_size=3, lr=0.05, optimizer=optimizer, average_decay=0.6)
    watched = Watched(net(), scale={broken: math.nan})
    message = (
        rf"stopped at step {broken + 1} \(epoch {broken // 4 + 1}\): loss = nan, twice = nan, gradient norm = nan\."
    )
    with pytest.raises(NonFiniteLossError, match=message) as caught:
        run_unwatched(watched, settings, file=RunFile(tmp_path, {}), looks_every=looks_every)
    assert (caught.value.step, caught.value.epoch) == (broken, broken // 4)
    assert len(watched.batches) > broken + 1 or looks_every < 3  # it went on for a while
    assert_same(watched.model.state_dict(), watched.states[broken])
    resumed, undisturbed = Watched(net(5)), Watched(net())
    history = run_unwatched(resumed, settings, file=RunFile(tmp_path, {}), looks_every=looks_every)
    expected = run_unwatched(undisturbed, settings, looks_every=looks_every)
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, undisturbed.state_dict()[name]), name
    assert [entry["loss"] for entry in history] == [entry["loss"] for entry in expected]


@pytest.mark.parametrize("looks_every", [1, 3])
def test_statistics_that_overflow_under_a_finite_loss_are_put_back(looks_every):
    watched = Watched(net().float())
    watched.inputs = watched.inputs.float()
    watched.inputs[7, 0] = 1e25  # its variance is infinite, and so what it is divided by
    with pytest.raises(NonFiniteLossError, match=r"step 1 .*the batch statistics after it are not finite") as caught:
        run_unwatched(watched, TrainingSettings(epochs=2, batch_size=11, lr=0.05), looks_every=looks_every)
    assert caught.value.step == 0
    assert_same(watched.model.state_dict(), watched.states[0])


def test_a_finite_norm_bounds_the_gradient():
    """What `_Reach` builds on: the squares of a gradient whose norm is finite are finite, unless it is one number."""
    for dtype, large in ((torch.float32, 2e19), (torch.float64, 2e154)):
        for gradients in ([(2,)], [(1,), (1,)], [(3, 4), (1,)], [(1000,)]):
            made = [torch.zeros(shape, dtype=dtype) for shape in gradients]
            made[0].view(-1)[0] = made[-1].view(-1)[-1] = large
            assert nn.utils.get_total_norm(made).isinf()


@pytest.mark.parametrize("looks_every", [1, 50])
def test_a_step_reads_no_weight_twice_and_nothing_back(looks_every, monkeypatch):
    """Nothing that is done besides the step itself grows with the weights; and with the steps, where one would wait."""
    weights, reads = 5 * 4000 + 4000 * 3, []

    class Ops(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            flat = torch.utils._pytree.tree_leaves(args)
            if sum(each.numel() for each in flat if isinstance(each, torch.Tensor)) >= weights:
                self.seen.append(op.overloadpacket.__name__)
            return op(*args, **(kwargs or {}))

    for name in ("tolist", "item", "__bool__", "__float__", "__int__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, _real=real: reads.append(1) or _real(self))
    found = []
    for batch_size in (11, 1):
        with torch.random.fork_rng(devices=[]):
            watched = Watched(nn.Sequential(nn.Linear(5, 4000, bias=False), nn.Linear(4000, 3, bias=False)).double())
        watched.forward = lambda batch, of=watched: {
            "loss": F.cross_entropy(of.model(*batch.features), batch.labels, reduction="sum")
        }
        training = _Training(
            watched, watched, TrainingSettings(epochs=1, batch_size=batch_size, lr=1e-3), Processes(), None, None,
            looks_every=looks_every,
        )  # fmt: skip
        reads.clear()
        with Ops() as ops:
            ops.seen = []
            training.run()
        found.append((len(reads), [ops.seen.count(name) for name in sorted(set(ops.seen))], sorted(set(ops.seen))))
    (few, _, _), (many, counts, names) = found
    assert dict(zip(names, counts, strict=True)) == {"_foreach_norm": 11, "_fused_adam_": 11}
    assert many == few or looks_every == 1


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weights_channels_last_go_on_where_they_were(optimizer, tmp_path):
    """A fused optimizer takes weight and state to lie in one order, whatever they say themselves."""

    class Seen(Watched):
        def __init__(self, seed):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 3)).double()
            super().__init__(module.to(memory_format=torch.channels_last))
            self.inputs = torch.rand(COUNT, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    settings = TrainingSettings(epochs=2, batch_size=3, lr=0.05, optimizer=optimizer)
    whole, stopped, resumed = Seen(0), Seen(0), Seen(1)
    run(whole, settings)
    stopped.scale = {5: math.nan}
    with pytest.raises(NonFiniteLossError):
        run(stopped, settings, file=RunFile(tmp_path, {}))
    run(resumed, settings, file=RunFile(tmp_path, {}))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_weights_that_do_not_lie_densely_are_trained_all_the_same():
    def sparse():
        module = nn.Linear(5, 3).double()
        module.weight = nn.Parameter((torch.arange(30.0).view(3, 10)[:, ::2] / 30).double())
        nn.init.zeros_(module.bias)
        return module

    settings = TrainingSettings(epochs=2, batch_size=4, lr=0.05)
    module, reference = sparse(), sparse()
    watched = Watched(module)
    run(watched, settings)
    assert_same(module.state_dict(), by_hand(reference, watched.batches, settings, 3)[-1])


def test_frozen_parameters_stay():
    module = net()
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    run(Watched(module), TrainingSettings(epochs=1, batch_size=4, lr=0.1, weight_decay=0.1))
    assert torch.equal(module[0].weight, before)


class Counting(Watched):
    """Draws the second half of the samples twice, and keeps a weight per sample that no optimizer touches."""

    def __init__(self, module):
        super().__init__(module)
        self.register_buffer("seen", torch.zeros(COUNT, dtype=torch.int64))
        self.second = nn.Linear(5, 3).double()
        for parameter in self.second.parameters():
            nn.init.constant_(parameter, 0.1)

    def epoch(self, number, seed, *, count):
        order = super().epoch(number, seed, count=count)
        return torch.where(order < 5, order + 5, order)

    def forward(self, batch):
        self.last = batch.rows
        losses = super().forward(batch)
        other = F.cross_entropy(self.second(*batch.features), batch.labels, reduction="sum")
        return {"loss": losses["loss"] + other, "other": other}

    def after_step(self, found, processes):
        assert found["other"] > 0
        assert processes.is_main
        self.seen += torch.bincount(self.last, minlength=COUNT)


def test_a_method_that_draws_otherwise_and_keeps_a_state_goes_on_where_it_was(tmp_path):
    settings = TrainingSettings(epochs=3, batch_size=4, lr=0.05, average_decay=0.5)
    undisturbed = Counting(net())
    run(undisturbed, settings)
    assert undisturbed.seen[:5].tolist() == [0] * 5
    assert undisturbed.seen.sum() == 3 * COUNT
    assert not torch.equal(undisturbed.second.weight, Counting(net()).second.weight)

    stopped, epochs = Counting(net()), []

    def stop():
        epochs.append(1)
        if len(epochs) == 2:
            raise ZeroDivisionError
        return {}

    with pytest.raises(ZeroDivisionError):
        run(stopped, settings, file=RunFile(tmp_path, {}), on_epoch=stop)
    resumed = Counting(net(7))
    run(resumed, settings, file=RunFile(tmp_path, {}))
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


class Content(Watched):
    """Has enough after an epoch, by what was measured after it."""

    def __init__(self, module, after):
        super().__init__(module)
        self.after, self.told = after, []

    def enough(self, record):
        self.told.append(record)
        return record["score"] >= self.after


def test_training_ends_where_the_objective_has_enough(tmp_path):
    settings = TrainingSettings(epochs=5, batch_size=4, lr=0.05, average_decay=0.5)
    shorter = TrainingSettings(epochs=2, batch_size=4, lr=0.05, average_decay=0.5)
    content, measured = Content(net(), 2), []

    def measure():
        measured.append(1)
        return {"score": len(measured)}

    history = run(content, settings, file=RunFile(tmp_path, {}), on_epoch=measure)
    assert [entry["epoch"] for entry in content.told] == [1, 2]
    assert all(entry["loss"] > 0 for entry in content.told)
    assert [(entry["epoch"], entry.get("enough")) for entry in history] == [(1, None), (2, 1)]
    plain = Watched(net())
    run(plain, shorter)
    for name, tensor in content.model.state_dict().items():
        assert torch.equal(tensor, plain.model.state_dict()[name]), name

    again = Content(net(7), 2)  # a run that had enough does not go on
    assert run(again, settings, file=RunFile(tmp_path, {}), on_epoch=measure) == history
    assert (again.batches, again.told, len(measured)) == ([], [], 2)
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, plain.model.state_dict()[name]), name


def test_a_run_stopped_within_the_epoch_that_is_enough_ends_where_it_would_have(tmp_path):
    settings = TrainingSettings(epochs=5, batch_size=4, lr=0.05)
    whole = Content(net(), 2)
    scores = iter(range(1, 9))
    run(whole, settings, on_epoch=lambda: {"score": next(scores)})
    stopped = Content(net(), 2)
    stopped.scale[4] = math.nan  # the second step of the second epoch
    with pytest.raises(NonFiniteLossError):
        run(stopped, settings, file=RunFile(tmp_path, {}), on_epoch=lambda: {"score": 1})
    resumed = Content(net(7), 2)
    history = run(resumed, settings, file=RunFile(tmp_path, {}), on_epoch=lambda: {"score": 2})
    assert [(entry["epoch"], entry.get("enough")) for entry in history] == [(1, None), (2, 1)]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_an_epoch_of_another_length_is_refused():
    class Shrinking(Watched):
        def epoch(self, number, seed, *, count):
            return torch.arange(3 if number else count)

    with pytest.raises(
        SettingsError, match=r"Shrinking\.epoch\(\) to give 11 positions in every epoch.*got 3 in epoch 2"
    ):
        run(Shrinking(net()), TrainingSettings(epochs=2, batch_size=4, lr=0.1))


class Two(Watched):
    """Two networks, the second at a pace of its own."""

    def __init__(self, module, **second):
        super().__init__(module)
        self.second, self.how = net(seed=3), second

    def parameter_groups(self):
        return [{"params": list(self.model.parameters())}, {"params": list(self.second.parameters()), **self.how}]

    def forward(self, batch):
        found = super().forward(batch)
        other = F.cross_entropy(self.second(*batch.features), batch.labels, reduction="sum")
        return {**found, "loss": found["loss"] + other}


def test_a_second_network_at_its_own_pace_leaves_the_first_alone():
    plain = {"epochs": 3, "batch_size": 4, "lr": 1e-2, "weight_decay": 0.1, "clip_norm": 0.5, "scheduler": "cosine"}
    settings = TrainingSettings(**plain)
    alone = Watched(net())
    run(alone, settings)
    both = Two(net(), lr_factor=0.1, weight_decay=0.0)
    run(both, settings)
    assert all(torch.equal(a, b) for a, b in zip(alone.model.parameters(), both.model.parameters(), strict=True))
    # The second is what it is alone at that pace.
    slow = Watched(net(seed=3))
    run(slow, TrainingSettings(**{**plain, "lr": 1e-3, "weight_decay": 0.0}))
    for a, b in zip(slow.model.parameters(), both.second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    still = Two(net(), lr_factor=0.0, weight_decay=0.0)
    run(still, settings)
    assert all(torch.equal(a, b) for a, b in zip(net(seed=3).parameters(), still.second.parameters(), strict=True))


def test_both_networks_and_their_paces_go_on(tmp_path):
    settings = TrainingSettings(epochs=3, batch_size=4, lr=1e-2)
    whole, stopped = Two(net(), lr_factor=0.5), Two(net(), lr_factor=0.5)
    run(whole, settings)
    stopped.scale = {5: math.nan}
    with pytest.raises(NonFiniteLossError):
        run(stopped, settings, file=RunFile(tmp_path, {"run": 1}))
    again = Two(net(seed=8), lr_factor=0.5)
    run(again, settings, file=RunFile(tmp_path, {"run": 1}))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_stage_before_has_a_file_of_its_own(tmp_path):
    file = RunFile(tmp_path, {"run": 1}, every_seconds=7.0)
    before = file.beside("first")
    assert (before.path, before.every_seconds) == (tmp_path / "first" / "training.safetensors", 7.0)
    assert before.identity == {"run": 1, "stage": "first"}


class Noisy(Watched):
    """Trained on inputs with noise that is drawn for the whole batch."""

    def forward(self, batch):
        noise = batch.drawn(lambda count: torch.randn(count, 5, dtype=torch.float64))
        (inputs,) = batch.features
        loss = F.cross_entropy(self.model(inputs + noise), batch.labels, reduction="sum")
        self.batches.append(batch.rows)
        return {"loss": loss, "noise": noise.sum()}


def in_parts(**more):
    plain = {"epochs": 3, "batch_size": 4, "lr": 0.02, "scheduler": "cosine", "average_decay": 0.5}
    return BaselineSettings(**plain | more)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("looks_every", [1, 3])
def test_a_batch_in_parts_makes_the_same_step(optimizer, reduction, looks_every):
    more = {"optimizer": optimizer, "reduction": reduction, "clip_norm": 0.5}
    whole, parted = Noisy(net().eval()), Noisy(net().eval())
    expected = run_unwatched(whole, in_parts(**more), looks_every=looks_every)
    history = run_unwatched(parted, in_parts(**more, accumulate=3), looks_every=looks_every)
    assert [len(batch) for batch in parted.batches[:9]] == [2, 1, 1, 2, 1, 1, 1, 1, 1]
    assert torch.equal(torch.cat(parted.batches), torch.cat(whole.batches))
    assert_same(parted.state_dict(), whole.state_dict())
    for found, other in zip(history, expected, strict=True):
        assert "accumulate" not in found
        assert {name: found[name] for name in ("loss", "noise")} == pytest.approx(
            {name: other[name] for name in ("loss", "noise")}, rel=1e-9
        )


def test_a_part_for_every_sample_at_most():
    with pytest.raises(
        SettingsError, match=r"for each of 1 processes and 4 parts \(accumulate\), got batches of 3; .*"
    ):
        run(Noisy(net().eval()), in_parts(accumulate=4))


class Narrow(nn.Module):
    """Has room for so many samples only, from a call on."""

    def __init__(self, room, start=0):
        super().__init__()
        self.room, self.start, self.calls = room, start, 0

    def forward(self, inputs):
        self.calls += 1
        if self.calls > self.start and len(inputs) > self.room:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 2.00 GiB")
        return inputs


def sixes(**more):
    return in_parts(batch_size=6, **more)


def narrow(room, start=0, **more):
    """The batch norm before has moved its statistics when it is found that there is no room."""
    module = net()
    return Noisy(nn.Sequential(*module[:2], Narrow(room, start), module[2]), **more)


@pytest.mark.parametrize("looks_every", [1, 3])
def test_what_memory_does_not_take_is_taken_in_parts_from_the_same_state(looks_every, caplog):
    asked, found = narrow(99), narrow(4)
    expected = run_unwatched(asked, sixes(accumulate=2), looks_every=looks_every)
    with caplog.at_level(logging.WARNING, logger="crayon_sdk"):
        history = run_unwatched(found, sixes(), looks_every=looks_every)
    for name, tensor in asked.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert [entry["loss"] for entry in history] == [entry["loss"] for entry in expected]
    assert [entry.get("accumulate") for entry in history] == [2, 2, 2]
    (said,) = caplog.messages
    assert said.startswith("the memory of cpu does not take 6 pictures at a time (out of memory. Tried to allocate 2.")
    assert said.endswith("step 1 is done again, and training goes on, with batches in 2 parts (accumulate=2)")


def test_memory_that_runs_out_later_changes_nothing_but_the_parts(tmp_path):
    whole, found = narrow(99), narrow(1, start=3)
    for each in (whole, found):
        each.model.eval()
    run(whole, sixes())
    with pytest.raises(TrainingError, match=r"does not take a batch of 5 in 4 parts \(out of memory\. Tried"):
        run(found, sixes())
    found = narrow(4, start=3)
    found.model.eval()
    history = run(found, sixes(), file=RunFile(tmp_path, {}))
    assert [entry.get("accumulate") for entry in history] == [None, 2, 2]
    assert_same(found.state_dict(), whole.state_dict())


def test_a_run_goes_on_in_the_parts_it_came_to(tmp_path):
    whole = narrow(4)
    run(whole, sixes())
    stopped = narrow(4)
    real = stopped.forward

    def until(batch):
        if len(stopped.batches) == 7:  # in the second epoch, with a step half done
            raise ZeroDivisionError
        return real(batch)

    stopped.forward = until
    with pytest.raises(ZeroDivisionError):
        run(stopped, sixes(), file=RunFile(tmp_path, {}, every_seconds=0))
    resumed = narrow(4)
    history = run(resumed, sixes(), file=RunFile(tmp_path, {}))
    assert len(resumed.batches) < len(whole.batches)
    assert [len(batch) for batch in resumed.batches[:2]] == [len(batch) for batch in whole.batches[6:8]]
    assert resumed.model[2].calls == len(resumed.batches)  # the whole batch was not tried again
    assert [entry["accumulate"] for entry in history] == [2, 2, 2]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_memory_that_runs_out_is_an_error_in_words_where_nothing_may_be_changed():
    with pytest.raises(TrainingError, match=r"memory of cpu does not take a batch of 5 \(out.*Take accumulate=2 with"):
        run(narrow(4), sixes(auto_batch_size=False))
    with pytest.raises(TrainingError, match=r"Take a lower batch_size \(now 4\)$"):
        run(narrow(2), TrainingSettings(epochs=1, batch_size=4, lr=0.1))
