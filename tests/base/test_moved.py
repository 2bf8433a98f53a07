from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from crayon_sdk._base.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_is_the_module_that_took_its_place(old):
    sys.modules.pop(f"crayon_sdk.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"crayon_sdk\.{old} is now crayon_sdk\.{MOVED[old]}"):
        found = import_module(f"crayon_sdk.{old}")
    assert found is import_module(f"crayon_sdk.{MOVED[old]}")
    assert found.__name__ == f"crayon_sdk.{MOVED[old]}"


def test_names_come_from_old_paths_and_from_folders_that_were_modules():
    code = (
        "from crayon_sdk.corrector import AttentionCorrector as old\n"
        "from crayon_sdk.data import ImageDataset\nfrom crayon_sdk.models import SplitModel\n"
        "from crayon_sdk.workspace import Workspace\nimport crayon_sdk as crayon\n"
        "assert (old, ImageDataset) == (crayon.AttentionCorrector, crayon.ImageDataset)\n"
        "assert (SplitModel, Workspace) == (crayon.SplitModel, crayon.Workspace)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_never_was_is_still_missing():
    with pytest.raises(ModuleNotFoundError):
        import_module("crayon_sdk.correcter")
