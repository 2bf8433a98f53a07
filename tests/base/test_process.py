"""Where to work, how precisely, and in how many processes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crayon_sdk._base.process import Processes, machine, resolve_device, resolve_precision
from crayon_sdk.errors import SettingsError


def test_resolve_device():
    cpu = torch.device("cpu")
    assert resolve_device("cpu", cpu) == cpu
    assert resolve_device("auto", cpu).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(SettingsError, match=r"expected device='auto'.* 'cpu'.*got 'gpu'"):
        resolve_device("gpu", cpu)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_here():
    with pytest.raises(SettingsError, match=r"expected device='auto' or .*got 'cuda'.*finds no GPU"):
        resolve_device("cuda", torch.device("cpu"))


def test_resolve_precision():
    cpu = torch.device("cpu")
    assert [resolve_precision(name, cpu) for name in ("auto", "float32", "bfloat16")] == [None, None, torch.bfloat16]
    with pytest.raises(SettingsError, match=r"expected precision='auto', 'float32' or 'bfloat16', got 'half'"):
        resolve_precision("half", cpu)


@pytest.mark.parametrize("name", ["meta", "xla", "hpu", "vulkan", "cuda:99", ""])
def test_devices_that_cannot_work(name):
    with pytest.raises(SettingsError, match=rf"expected device='auto'.*got '{name}', which cannot be used here"):
        resolve_device(name, torch.device("cpu"))


def test_one_process_changes_nothing():
    alone, module = Processes.found(), nn.Linear(2, 1)
    positions, values = torch.arange(5), torch.ones(2)
    assert (alone.size, alone.index, alone.is_main) == (1, 0, True)
    assert alone.share(positions) is positions
    assert alone.sum(values) is alone.merged(values, positions[:2]) is values
    assert alone.stacked(values).tolist() == alone.each(values).tolist() == [[1.0, 1.0]]
    assert (alone.any(True), alone.any(False)) == (True, False)
    with alone.together():
        alone.backward(module(torch.ones(1, 2)).sum())
    alone.add_gradients(list(module.parameters()))
    assert module.weight.grad.tolist() == [[1.0, 1.0]]
    alone.check_same("anything", "what is held", "Hold the same.")
    alone.wait()


def test_the_machine_is_described_in_text():
    found = machine()
    assert found.keys() == {"cpu", "cores", "threads", "gpu"}
    assert all(isinstance(value, str) and value for value in found.values())
    assert found["threads"] == str(torch.get_num_threads())
