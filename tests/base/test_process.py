from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from crayon_sdk._base.process import Processes, resolve_device, resolve_precision
from crayon_sdk.errors import SettingsError

CPU = torch.device("cpu")


def test_devices_and_precisions():
    assert resolve_device("cpu", CPU) == CPU
    assert resolve_precision("auto", CPU) is None
    assert resolve_precision("bfloat16", CPU) == torch.bfloat16
    with pytest.raises(SettingsError, match="got 'meta', which cannot be used here"):
        resolve_device("meta", CPU)
    with pytest.raises(SettingsError, match="got 'half'"):
        resolve_precision("half", CPU)


def test_one_process_changes_nothing():
    alone, module = Processes.found(CPU), nn.Linear(2, 1)
    positions, values = torch.arange(5), torch.ones(2)
    assert (alone.size, alone.index, alone.is_main) == (1, 0, True)
    assert alone.wrap(module) is module
    assert alone.share(positions) is positions
    assert alone.sum(values) is values
    assert (alone.any(True), alone.any(False)) == (True, False)
    alone.backward(module(torch.ones(1, 2)).sum())
    assert module.weight.grad.tolist() == [[1.0, 1.0]]
    alone.wait()


def test_accelerate_is_not_loaded_for_one_process():
    code = "import sys; from crayon_sdk._base.process import *; import torch; Processes.found(torch.device('cpu'))"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('accelerate' in sys.modules)"], capture_output=True)
    assert done.stdout.strip() == b"False"
