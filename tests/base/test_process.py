"""Where to work, and how precisely."""

from __future__ import annotations

import pytest
import torch

from crayon_sdk._base.process import resolve_device, resolve_precision
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
