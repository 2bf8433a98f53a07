"""What errors say about this installation."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from crayon_sdk.errors import install_extra, pip_command

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, ["pip", "install", "crayon-sdk[onnx]"]),
        ({"url": "file:///a%20clone", "dir_info": {}}, ["pip", "install", "/a clone[onnx]"]),
        ({"url": "file:///a/b", "dir_info": {"editable": True}}, ["pip", "install", "-e", "/a/b[onnx]"]),
        (
            {"url": "file:///d/crayon_sdk-1-py3-none-any.whl", "archive_info": {}},
            ["pip", "install", "crayon-sdk[onnx] @ file:///d/crayon_sdk-1-py3-none-any.whl"],
        ),
        (
            {"url": "https://host.example/c.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}},
            ["pip", "install", "crayon-sdk[onnx] @ git+https://host.example/c.git@0a1b"],
        ),
    ],
)
def test_the_command_fits_where_the_package_came_from(origin, command):
    assert shlex.split(pip_command("onnx", None if origin is None else json.dumps(origin))) == command


def test_a_source_folder_that_was_never_installed_is_named():
    code = "from crayon_sdk.errors import install_extra; print(install_extra('report'))"
    # Without site-packages (-S) nothing is installed.
    run = [sys.executable, "-S", "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True)
    assert shlex.split(done.stdout) == ["pip", "install", f"{ROOT}[report]"]


def test_the_command_of_this_installation_names_the_extra():
    first, second, *_, last = shlex.split(install_extra("annotate"))
    assert (first, second) == ("pip", "install")
    assert "[annotate]" in last
