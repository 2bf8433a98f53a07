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
    def __len__(self):
        return int(sys.argv[1])
    def __getitem__(self, index):
        return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(index)), index % 2

model = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2)
data = MadeUp()
pictures = ImageDataset.from_torch(data, labels=[index % 2 for index in range(len(data))], class_names=["a", "b"])
explainer = Explainer(SplitModel(model, preprocessing=Preprocessing(size=(64, 64))), device="cpu", num_workers=0)
result = getattr(explainer, sys.argv[2])(pictures)
sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


def peak(count, what):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXPLAIN, str(count), what], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is measured as on Linux")
@pytest.mark.parametrize("what", ["explain", "explain_neurons"])
def test_ten_times_the_pictures(what):
    few, many = peak(200, what), peak(2000, what)
    assert many < 1.15 * few, f"{what}: {few} kB for 200 pictures, {many} kB for 2000"
