"""Several processes that work together: the same result as one, and the same end for all."""

from __future__ import annotations

import signal
import time

import pytest
import torch
from helpers_launch import Group, by_methods, disagree, look, train_at_a_pace

from crayon_sdk._base.files import read_json, read_tensors
from crayon_sdk._base.launch import is_main, launched
from crayon_sdk._base.methods import methods

ALONE = ("cnc", "flac", "lc", "softcon")
WHOLE = ("gradia", "groupdro", "lff")  # with the settings of `helpers_launch`; they take no batch in parts
SOME = ("attention",)
TIMEOUT = 120.0


def run(folder, size, target, *arguments):
    group = Group(size, target, folder, *arguments)
    codes = group.join(5 * TIMEOUT)
    assert codes == [0] * size, [group.said(index) for index in range(size)]
    return folder


def end_of(group, *, seconds=TIMEOUT):
    """What each process said as it ended; none may be left waiting."""
    codes = group.join(seconds)
    assert None not in codes, "a process waits for ever"
    return [group.said(index) for index in range(len(codes))]


def test_who_was_launched_is_read_from_the_environment(monkeypatch):
    for index, size, expected in (("1", "4", (1, 4)), ("0", "1", (0, 1)), ("", "", (0, 1)), ("7", "4", (0, 1))):
        monkeypatch.setenv("RANK", index)
        monkeypatch.setenv("WORLD_SIZE", size)
        assert launched() == expected
        assert is_main() is (expected[0] == 0)


def check_methods(tmp_path, names, norms, size=2, parts=1):
    alone = read_tensors(run(tmp_path / "1", 1, by_methods, names, norms) / "weights.safetensors")[0]
    together = read_tensors(run(tmp_path / "2", size, by_methods, names, norms, parts) / "weights.safetensors")[0]
    assert alone.keys() == together.keys()
    assert {key.split("/")[0] for key in alone} == set(names)
    for key, tensor in alone.items():
        torch.testing.assert_close(together[key], tensor, rtol=1e-8, atol=1e-8, msg=lambda text: f"{key}: {text}")  # noqa: B023


def test_two_processes_learn_what_one_learns(tmp_path):
    check_methods(tmp_path, SOME, ("train",))


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_by_every_method(tmp_path):
    check_methods(tmp_path, tuple(name for name in methods if name not in ALONE), ("train", "frozen"))


@pytest.mark.parametrize("size", [1, 2])
def test_batches_in_parts_teach_what_whole_ones_teach(tmp_path, size):
    check_methods(tmp_path, SOME, ("frozen",), size, parts=2)


@pytest.mark.slow
def test_batches_in_parts_teach_what_whole_ones_teach_by_every_method(tmp_path):
    names = tuple(name for name in methods if name not in (*ALONE, *WHOLE))
    check_methods(tmp_path, names, ("frozen",), 1, parts=3)


def test_a_method_that_takes_one_process_says_why(tmp_path):
    folder = run(tmp_path, 2, by_methods, ALONE, ("train",))
    said = read_tensors(folder / "weights.safetensors")[1]
    assert said.keys() == set(ALONE)
    for name, text in said.items():
        assert text.startswith(f"SettingsError: method '{name}' works in one process, and 2 were launched: "), text
        assert "whole batch" in text


@pytest.mark.parametrize("size", [2, 3])
def test_explaining_and_evaluating_gives_the_same_bytes(tmp_path, size):
    alone, together = run(tmp_path / "1", 1, look), run(tmp_path / "many", size, look)
    names = sorted(path.name for path in alone.iterdir())
    tensors = ["joined.safetensors", "maps.safetensors", "mixed.safetensors", "patches.safetensors"]
    assert names == ["evaluation.json", "few.json", *tensors]
    assert (alone / "joined.safetensors").read_bytes() == (alone / "maps.safetensors").read_bytes()
    assert sorted(path.name for path in together.iterdir()) == names  # the main process alone wrote
    for name in names:
        assert (alone / name).read_bytes() == (together / name).read_bytes(), name


def wait_for_step(folder, step):
    end = time.monotonic() + TIMEOUT
    while not ((folder / "step-1").exists() and int((folder / "step-1").read_text() or 0) >= step):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One process that was not stopped."""
    return run(tmp_path_factory.mktemp("whole"), 1, train_at_a_pace)


def check_same_end(folder, trained):
    weights = [read_tensors(place / "0.safetensors")[0] for place in (folder, trained)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=1e-5)
    assert read_json(folder / "0.json") == pytest.approx(read_json(trained / "0.json"), rel=1e-4)


def test_one_that_is_killed_ends_all_and_the_next_launch_goes_on(tmp_path, trained):
    group = Group(2, train_at_a_pace, tmp_path, 0.1)
    wait_for_step(tmp_path, 5)  # after an epoch of three steps the state is written
    group.send(1, signal.SIGKILL)
    said = end_of(group, seconds=30)
    assert said[0].startswith("LostProcessError: process 0 of 2 waited for another one, which has ended"), said[0]
    assert "also with another number of processes" in said[0]
    run(tmp_path, 3, train_at_a_pace)
    check_same_end(tmp_path, trained)
    assert all((tmp_path / f"{index}.safetensors").exists() for index in range(3))


def test_ctrl_c_in_one_stops_all_after_the_same_step(tmp_path, trained):
    group = Group(2, train_at_a_pace, tmp_path, 0.1)
    wait_for_step(tmp_path, 4)
    group.send(1, signal.SIGINT)
    said = end_of(group, seconds=30)
    assert said[0] == said[1]
    assert said[0].startswith("KeyboardInterrupt: stopped after step "), said[0]
    run(tmp_path, 1, train_at_a_pace)
    check_same_end(tmp_path, trained)


def test_nan_in_one_stops_all_at_the_same_step(tmp_path):
    said = end_of(Group(2, train_at_a_pace, tmp_path, 0.0, 4), seconds=60)
    assert said[0] == said[1]
    assert said[0].startswith("NonFiniteLossError: training stopped at step 5 (epoch 2): loss = nan"), said[0]


def test_processes_that_hold_different_things_are_refused(tmp_path):
    for text in end_of(Group(2, disagree, tmp_path / "other", "settings")):
        assert text.startswith("MismatchError: expected model, data and settings to be the same in all 2 pro"), text
    for text in end_of(Group(2, disagree, tmp_path / "few", "batches")):
        assert text.startswith("SettingsError: expected at least one sample of every batch for each of 2 process"), text
