"""What is published is loaded first as its users will load it."""

from __future__ import annotations

import pytest
import torch
from helpers_correction import SMALL, plain_correction, split_model
from torch import nn

from crayon_sdk._base.files import write_tensors
from crayon_sdk.errors import OutputError
from crayon_sdk.models.load import load_model
from crayon_sdk.models.proof import check_in_fresh_process
from crayon_sdk.models.split import SplitModel


def test_other_weights_are_noticed(tmp_path):
    folder = plain_correction(split_model(1)).save(tmp_path / "saved")
    with pytest.raises(OutputError, match="nothing was published: in a process of its own, test_resnet gives other"):
        check_in_fresh_process(folder, split_model(2))


def test_what_does_not_load_is_noticed(tmp_path):
    model = split_model(1)
    folder = plain_correction(model).save(tmp_path / "saved")
    write_tensors(folder / "model.safetensors", {"a": torch.zeros(2)}, {"format": "pt"})
    with pytest.raises(OutputError, match="nothing was published: test_resnet does not load in a process of its own"):
        check_in_fresh_process(folder, model)


def test_torchvision_loads_without_timm_and_a_home_made_module_only_here(tmp_path):
    with torch.random.fork_rng(devices=[]):
        model = load_model("torchvision:shufflenet_v2_x0_5", pretrained=False, num_classes=2, preprocessing=SMALL)
        trunk = nn.Conv2d(3, 4, 3, stride=8)
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert check_in_fresh_process(plain_correction(model).save(tmp_path / "saved"), model)
    own = SplitModel(trunk=trunk, head=head, preprocessing=SMALL)
    assert not check_in_fresh_process(plain_correction(own).save(tmp_path / "own"), own)
