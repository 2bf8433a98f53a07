"""Explaining more pictures must not take more memory: ten times as many, and nearly the same peak."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXPLAIN = """
import resource, sys
import timm, torch
from torch.utils.data import Dataset
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.models.split import SplitModel
from crayon_sdk.data.preprocessing import Preprocessing

torch.set_num_threads(1)

class MadeUp(Dataset):
    def __init__(self, count):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(index)), index % 2

model = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2)

def pictures(count):
    labels = [index % 2 for index in range(count)]
    return ImageDataset.from_torch(MadeUp(count), labels=labels, class_names=["a", "b"])

explainer = Explainer(SplitModel(model, preprocessing=Preprocessing(size=(64, 64))), device="cpu", num_workers=0)
for count in map(int, sys.argv[2:]):
    result = getattr(explainer, sys.argv[1])(pictures(count))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    del result
"""


def peaks(what, *counts):
    """The peak of one process after each number of pictures."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXPLAIN, what, *map(str, counts)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return map(int, done.stdout.split())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is measured as on Linux")
@pytest.mark.parametrize("what", ["explain", "explain_neurons"])
def test_ten_times_the_pictures(what):
    few, many = peaks(what, 200, 2000)
    assert many < 1.15 * few, f"{what}: {few} kB for 200 pictures, {many} kB for 2000"
