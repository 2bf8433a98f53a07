from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers_correction import Attempt, half_and_half, neuron_answers, noise_pictures, random_maps, split_model
from torch import nn

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.objective import Objective
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.correct.run_file import Run, RunFile
from crayon_sdk.errors import FileFormatError, MismatchError, OutputError

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
STEPS = 20  # 4 epochs of 13 samples in 5 even batches of at most 3


def assert_same_weights(found: Path, expected: Path):
    ours, theirs = read_tensors(found)[0], read_tensors(expected)[0]
    assert ours.keys() == theirs.keys()
    different = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
    assert different == []


def losses(path: Path):
    return [entry["loss"] for entry in json.loads(read_tensors(path)[1]["history"])]


VARIANTS = {
    "attention": ("attention", {}),
    "attention, averaged, best": ("attention", {"average_decay": 0.9, "keep": "best"}),
    "attention, in parts": ("attention", {"accumulate": 2}),
    "pruning": ("pruning", {}),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Weights of runs that nobody disturbed, and that kept no state, by variant."""
    found = {}
    for name, (method, settings) in VARIANTS.items():
        out = tmp_path_factory.mktemp("undisturbed") / "weights.safetensors"
        attempt = Attempt(method, out, **settings)
        assert attempt.join() == 0
        assert attempt.steps == STEPS
        found[name] = out
    return found


@posix
@pytest.mark.parametrize("variant", VARIANTS)
def test_kill_9_at_several_moments(variant, undisturbed, tmp_path):
    method, settings = VARIANTS[variant]
    out, state = tmp_path / "weights.safetensors", tmp_path / "state"
    starts, jitter = [], random.Random(variant)
    for steps in (2, 3, 2, 3):  # a step is told before its state is written
        attempt = Attempt(method, out, state, pace=0.01, **settings)
        attempt.wait_for(steps)
        time.sleep(jitter.uniform(0, 0.03))  # before, in the middle of, or after writing the state
        attempt.send(signal.SIGKILL)
        assert attempt.join() == -signal.SIGKILL
        starts.append(attempt.started_at)
        if not (state / "training.safetensors").exists():
            continue  # killed before the first writing
        tensors, _ = read_tensors(state / "training.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    last = Attempt(method, out, state, **settings)
    assert last.join() == 0
    starts.append(last.started_at)
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] > starts[1] > 0
    assert last.steps == STEPS - starts[-1] < STEPS
    assert_same_weights(out, undisturbed[variant])
    assert losses(out) == losses(undisturbed[variant])


@posix
@pytest.mark.parametrize("variant", VARIANTS)
def test_ctrl_c_in_the_middle_of_an_epoch(variant, undisturbed, tmp_path):
    method, settings = VARIANTS[variant]
    out, state = tmp_path / "weights.safetensors", tmp_path / "state"
    attempt = Attempt(method, out, state, pace=0.05, **settings)
    attempt.wait_for(6)
    attempt.send(signal.SIGINT)
    assert attempt.join() == 1  # KeyboardInterrupt
    done = attempt.steps
    assert 6 <= done < STEPS
    again = Attempt(method, out, state, **settings)
    assert again.join() == 0
    assert again.started_at == done
    assert again.steps == STEPS - done
    assert_same_weights(out, undisturbed[variant])


@posix
def test_ctrl_c_of_a_script_says_how_to_continue(undisturbed, tmp_path):
    out, state = tmp_path / "weights.safetensors", tmp_path / "state"
    here = Path(__file__).resolve().parents[1]
    command = [sys.executable, str(here / "helpers_correction.py"), "attention", str(out), str(state)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])}
    steps = out.with_suffix(".steps")
    with subprocess.Popen([*command, "0.1"], stderr=subprocess.PIPE, text=True, env=environment) as script:
        end = time.monotonic() + 300
        while (not steps.exists() or steps.read_text().count("\n") < 4) and time.monotonic() < end:
            time.sleep(0.01)
        script.send_signal(signal.SIGINT)
        _, complaint = script.communicate(timeout=300)
    assert script.returncode not in (0, None)
    assert "KeyboardInterrupt: stopped after step" in complaint
    assert f"of {STEPS}; the same call continues there" in complaint
    again = Attempt("attention", out, state)
    assert again.join() == 0
    assert again.started_at >= 3
    assert_same_weights(out, undisturbed["attention"])


@posix
def test_second_ctrl_c_is_immediate(tmp_path):
    attempt = Attempt("attention", tmp_path / "weights.safetensors", tmp_path / "state", pace=12.0)
    attempt.wait_for(1)
    begun = time.monotonic()
    attempt.send(signal.SIGINT)
    time.sleep(0.1)
    attempt.send(signal.SIGINT)
    assert attempt.join() == 1
    assert time.monotonic() - begun < 11


def test_two_processes_give_the_same_bits_and_another_seed_does_not(undisturbed, tmp_path):
    for seed, expected in ((0, True), (1, False)):
        out = tmp_path / f"{seed}.safetensors"
        assert Attempt("attention", out, seed=seed).join() == 0
        ours, theirs = read_tensors(out)[0], read_tensors(undisturbed["attention"])[0]
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()) is expected


def attention(state, model=None, **settings):
    dataset = noise_pictures(8)
    settings = {"epochs": 1, "batch_size": 4, "device": "cpu", "alpha": 1.0, "beta": 1.0} | settings
    corrector = AttentionCorrector(model or split_model(), checkpoint_dir=state, **settings)
    return corrector.fit(dataset, random_maps(dataset), half_and_half(dataset))


def pruning(state, irrelevant=range(4), **settings):
    settings = {"epochs": 1, "batch_size": 4, "device": "cpu"} | settings
    pruner = NeuronPruner(split_model(), checkpoint_dir=state, **settings)
    return pruner.fit(noise_pictures(8), neuron_answers(irrelevant, [50]))


def test_finished_run_returns_the_same_weights_without_training(tmp_path):
    for number, fit in enumerate((attention, pruning)):
        state = tmp_path / str(number)
        first = fit(state, epochs=2)
        before = (state / "training.safetensors").read_bytes()
        again = fit(state, epochs=2)
        assert again.record.corrected == first.record.corrected
        assert [entry["loss"] for entry in again.history] == [entry["loss"] for entry in first.history]
        assert (state / "training.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda state: attention(state, lr=0.5), r"settings\.lr \(there 0\.0001, now 0\.5\)"),
        (lambda state: attention(state, seed=7, alpha=2.0), r"settings\.alpha .*, settings\.seed \(there 0, now 7\)"),
        (lambda state: attention(state, model=split_model(9)), r"different: model \(there '"),
        (lambda state: pruning(state), r"method \(there 'attention', now 'pruning'\)"),
    ],
)
def test_state_of_another_run_is_refused_and_untouched(other, named, tmp_path):
    attention(tmp_path)
    before = (tmp_path / "training.safetensors").read_bytes()
    with pytest.raises(MismatchError, match=f"holds the state of another run; different: .*{named.split(': ')[-1]}"):
        other(tmp_path)
    assert (tmp_path / "training.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]


def test_other_answers_are_another_run(tmp_path):
    pruning(tmp_path)
    with pytest.raises(MismatchError, match=r"different: answers .*Use another checkpoint_dir, or delete this one"):
        pruning(tmp_path, irrelevant=range(5))


@pytest.mark.parametrize("part", [0, 4, 100, 0.5, 0.999])
def test_truncated_state_is_refused(part, tmp_path):
    attention(tmp_path)
    path = tmp_path / "training.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: part if isinstance(part, int) else int(part * len(whole))])
    with pytest.raises(
        FileFormatError, match=r"not a whole safetensors file.*delete '.*training\.safetensors', and the"
    ):
        attention(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": "{"},
        {"manifest": "[]"},
        {"manifest": "{}"},
        {"identity": 3},
        {"step": "many"},
        {"history": None},
        {"sums": 3},
        {"tensors": {"other.weight": torch.ones(2)}},
        {"tensors": {"module.weight": torch.ones(2)}},
        {"tensors": {"average.nothing": torch.ones(2)}},
        {"tensors": {"optimizer.x.exp_avg": torch.ones(2)}},
    ],
)
def test_altered_state_is_refused(change, tmp_path):
    attention(tmp_path)
    path = tmp_path / "training.safetensors"
    tensors, metadata = read_tensors(path)
    manifest = json.loads(metadata["manifest"])
    tensors = change.pop("tensors", tensors)
    text = change.pop("manifest", None) or json.dumps(manifest | change)
    write_tensors(path, tensors, metadata | {"manifest": text})
    with pytest.raises(FileFormatError, match=r"is damaged \(.*delete '.*training\.safetensors', and the run starts"):
        attention(tmp_path)


def test_a_state_that_cannot_be_continued_is_refused_before_any_work(tmp_path, monkeypatch):
    attention(tmp_path)
    pruning(tmp_path / "pruned")
    (tmp_path / "training.safetensors").write_bytes(b"short")
    (tmp_path / "pruned" / "training.safetensors").write_bytes(b"short")
    (tmp_path / "file").touch()

    def work(*_arguments, **_keywords):
        raise AssertionError("work was begun")

    monkeypatch.setattr("crayon_sdk.correct.method.PixelCache", work)
    monkeypatch.setattr("crayon_sdk.correct.pruning.stream_features", work)
    for fit in (attention, pruning):
        with pytest.raises(FileFormatError, match="not a whole safetensors file"):
            fit(tmp_path if fit is attention else tmp_path / "pruned")
        with pytest.raises(OutputError, match="the folder above it does not exist or is a file"):
            fit(tmp_path / "file" / "runs")


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"format": "crayon-training-run"}, {"format": "crayon-training-run", "version": "2"}],
)
def test_foreign_state_is_refused(metadata, tmp_path):
    write_tensors(tmp_path / "training.safetensors", {"weight": torch.ones(2)}, metadata)
    with pytest.raises(FileFormatError, match="not the state of a training run in version 1; move it away"):
        attention(tmp_path)


def test_checkpoint_dir_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises((OutputError, FileFormatError), match="file"):
        attention(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_that_the_version_before_left_unfinished_goes_on(tmp_path):
    """Written by 0.1.0 after five of nine steps, when the loop took a module and a function."""
    shutil.copy(Path(__file__).with_name("unfinished-0.1.0.safetensors"), tmp_path / "training.safetensors")
    there = json.loads(read_tensors(tmp_path / "training.safetensors")[1]["manifest"])
    if there["identity"]["model"] != split_model().fingerprint:
        pytest.skip("torch or timm draws other weights here than where the run was begun")
    assert there["step"] == 5

    def fit(folder):
        then = {"spread": "never", "weight_decay": 1e-4}  # the defaults of that version
        pruner = NeuronPruner(split_model(), epochs=3, batch_size=4, device="cpu", checkpoint_dir=folder, **then)
        return pruner.fit(noise_pictures(12), neuron_answers(range(10), range(10, 20)))

    resumed, undisturbed = fit(tmp_path), fit(None)
    assert [entry["loss"] for entry in resumed.history] == pytest.approx([e["loss"] for e in undisturbed.history])
    ours, theirs = (found.model.plain_state_dict() for found in (resumed, undisturbed))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-7)


class Stateful(Objective):
    def __init__(self, model, size=2):
        super().__init__(model)
        self.register_buffer("weights", torch.zeros(size))
        self.register_buffer("fixed", torch.zeros(3), persistent=False)


def test_every_state_of_the_objective_comes_back(tmp_path):
    def make(size=2):
        objective = Stateful(nn.Linear(3, 2), size)
        return objective, torch.optim.Adam(objective.parameters())

    objective, optimizer = make()
    objective.weights[1] = 0.5
    RunFile(tmp_path, {}).save(objective, optimizer, {}, Run(step=1))
    assert [name for name in read_tensors(tmp_path / "training.safetensors")[0] if name.startswith("objective.")] == [
        "objective.weights"
    ]
    other, theirs = make()
    assert RunFile(tmp_path, {}).restore(other, theirs, {}, Run())
    assert other.weights.tolist() == [0.0, 0.5]
    for wrong in (make(5), (Objective(nn.Linear(3, 2)), theirs)):
        with pytest.raises(FileFormatError, match=r"is damaged .*the run starts from the beginning"):
            RunFile(tmp_path, {}).restore(*wrong, {}, Run())


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "sgd without momentum"])
def test_state_of_every_optimizer_comes_back(kind, tmp_path):
    def make():
        module = nn.Linear(3, 2)
        if kind.startswith("sgd"):
            return module, torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9 * (kind == "sgd"))
        return module, {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](module.parameters(), lr=0.1)

    def step(module, optimizer, value):
        optimizer.zero_grad()
        (module(torch.full((1, 3), value)) ** 2).sum().backward()
        optimizer.step()

    module, optimizer = make()
    step(module, optimizer, 1.0)
    average = {"weight": torch.ones(2, 3)}
    run = Run(step=1, history=[{"epoch": 1}], sums={"loss": 0.1}, best={"weight": torch.zeros(2)}, best_score=0.25)
    RunFile(tmp_path, {"lr": 0.1}).save(Objective(module), optimizer, average, run)
    step(module, optimizer, 2.0)

    other, theirs = make()
    found, kept = Run(), {"weight": torch.zeros(2, 3)}
    assert RunFile(tmp_path, {"lr": 0.1}).restore(Objective(other), theirs, kept, found)
    step(other, theirs, 2.0)
    assert torch.equal(other.weight, module.weight)
    assert torch.equal(kept["weight"], average["weight"])
    assert (found.step, found.history, found.sums, found.best_score) == (1, [{"epoch": 1}], {"loss": 0.1}, 0.25)
    assert torch.equal(found.best["weight"], run.best["weight"])


def test_no_file_means_a_new_run(tmp_path):
    module = nn.Linear(2, 2)
    file = RunFile(tmp_path / "new", {}, every_seconds=1000)
    assert not file.restore(Objective(module), torch.optim.Adam(module.parameters()), {}, Run())
    assert not file.is_due()
    assert RunFile(tmp_path, {}, every_seconds=0).is_due()
    assert not (tmp_path / "new").exists()
