"""The benchmarks of speed run, on next to nothing: what they measure is for a quiet machine."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SPEED = {
    "step": ["plain PyTorch loop", "FurtherTraining.fit", "AttentionCorrector.fit", "the authors' way"],
    "explain": ["no-grad forward", "Explainer.explain", "captum LayerGradCam"],
    "prune": ["no-grad forward over a cache", "NeuronPruner.fit, 10 epochs", "Explainer.explain_neurons"],
    "scaling": ["memory", "file"],
    "end_to_end": ["explain, fit, evaluate", "not training", "the authors' way"],
}


@pytest.mark.parametrize("name", SPEED)
def test_benchmarks_run(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--short"])
    before = set(sys.modules)
    with torch.random.fork_rng(devices=[]):
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    for module in {"machine", "side_by_side", "rivals"} & (set(sys.modules) - before):
        del sys.modules[module]
    shown = capsys.readouterr().out
    assert all(variant in shown for variant in SPEED[name]), shown
    assert "written to" not in shown  # what is short is no measurement


def test_what_runs_on_a_gpu_is_there_and_ends_in_time():
    script = FOLDER / "on_gpu.sh"
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    text = script.read_text()
    named = re.findall(r"^one (\d+) (benchmarks/\S+)", text, re.M)
    assert named
    assert all((FOLDER.parent / path).is_file() for _, path in named)
    seconds = [int(each) for each in re.findall(r"^timeout (\d+)", text, re.M)] + [int(each) for each, _ in named]
    assert sum(seconds) <= 9 * 60
    assert len({path + line for path, line in re.findall(r"^one \d+ (\S+)(.*)$", text, re.M)}) + 2 <= 8  # files
