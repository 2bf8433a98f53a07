"""What the tests of workspace and command line share: a small model in a folder, and the shell in this process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result
from conftest import make_tiny_model
from helpers_correction import _processes, _start_server

from crayon_sdk import cli
from crayon_sdk._base.files import write_json, write_tensors
from crayon_sdk.models.rebuild import timm_config
from crayon_sdk.models.split import SplitModel
from crayon_sdk.workspace import workspace
from crayon_sdk.workspace.manifest import DataSource, ModelSource
from crayon_sdk.workspace.workspace import Workspace

assert cli.app
assert workspace  # loaded before the fork, so that children start at once

FAST = ["--set", "attention.epochs=1", "--set", "attention.batch_size=8", "--set", "pruning.epochs=2"]
FAST_ATTENTION = {"epochs": 1, "batch_size": 8}


def save_model(folder: Path, seed: int = 0, num_classes: int = 2, evidence: bool = False) -> Path:
    """A small timm model with random weights, as a folder that timm loads; with `evidence` in every map of it."""
    model = SplitModel(make_tiny_model(seed=seed, num_classes=num_classes))
    if evidence:
        with torch.no_grad():
            model.classifier.weight.abs_()
    folder.mkdir(parents=True)
    write_tensors(folder / "model.safetensors", model.plain_state_dict(), {"format": "pt"})
    write_json(folder / "config.json", timm_config(model))
    return folder


def new_workspace(folder: Path, pictures: Path, model: Path, **data: Any) -> Workspace:
    """A workspace over the small pictures of `conftest.make_pictures`."""
    source = DataSource(csv=str(pictures / "metadata.csv"), **data)
    return Workspace.create(folder, ModelSource(source=str(model)), source)


def crayon(*arguments: object) -> Result:
    """Run the command line in this process; stdout and stderr apart."""
    return CliRunner().invoke(cli.app, [str(each) for each in arguments], prog_name="crayon")


def weights(folder: Path) -> bytes:
    """The weights of a checkpoint, byte by byte."""
    return (folder / "model.safetensors").read_bytes()


def _whole_run(folder: str, log: str) -> None:
    """Explain, answer, correct and evaluate, each as from the shell; ends as the first that fails."""
    torch.set_num_threads(1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sets = ["--set", "attention.epochs=3", "--set", "attention.batch_size=4", "--set", "pruning.epochs=3"]
    for line in (
        ["explain", "--sheet", "2"],
        ["answer", "simulate"],
        ["correct", "--method", "both", *sets],
        ["evaluate"],
    ):
        sys.argv = ["crayon", *line, "-w", folder]
        try:
            cli.main()
        except SystemExit as end:
            if end.code not in (0, None):
                raise


class WholeRun:
    """`_whole_run` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        _start_server()
        self.log = folder.with_suffix(".log")
        self.process = _processes.Process(target=_whole_run, args=(str(folder), str(self.log)), daemon=True)
        self.process.start()

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process.is_alive():
            os.kill(self.process.pid or 0, number)

    def join(self, seconds: float = 300.0) -> int:
        self.process.join(seconds)
        return -99 if self.process.exitcode is None else self.process.exitcode

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""
