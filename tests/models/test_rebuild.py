from __future__ import annotations

import json

import timm
import torch
from helpers_correction import split_model
from torch import nn

from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.models.rebuild import is_timm, timm_config
from crayon_sdk.models.split import SplitModel


def test_timm_models_are_known_and_others_not():
    assert is_timm(split_model())
    home_made = SplitModel(
        trunk=nn.Conv2d(3, 4, 3, stride=8),
        head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        preprocessing=Preprocessing(size=(64, 64)),
    )
    assert not is_timm(home_made)


def test_config_describes_model_and_preprocessing():
    preprocessing = Preprocessing(
        size=(64, 96), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=0.9, crop_mode="border", interpolation="box"
    )
    module = timm.create_model("resnet18", pretrained=False, num_classes=3, output_stride=16)
    config = timm_config(SplitModel(module, preprocessing=preprocessing, class_names=["x", "y", "z"]))
    assert json.loads(json.dumps(config))["model_args"] == config["model_args"]
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("resnet18", 3, 512)
    assert config["model_args"]["output_stride"] == 16
    assert config["label_names"] == ["x", "y", "z"]
    pretrained = config["pretrained_cfg"]
    assert Preprocessing.from_config(pretrained) == preprocessing
    assert (pretrained["classifier"], pretrained["first_conv"]) == ("fc", "conv1")
    assert not {"url", "hf_hub_id", "file", "source"} & set(pretrained)


def test_arguments_that_json_cannot_hold_are_left_out():
    module = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2, norm_layer=nn.BatchNorm2d)
    config = timm_config(SplitModel(module))
    assert "norm_layer" not in config["model_args"]
    assert torch.is_tensor(module.fc.weight)


def test_replaced_classifier_counts_its_own_classes():
    module = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2)
    module.reset_classifier(5)
    config = timm_config(SplitModel(module))
    assert config["num_classes"] == config["model_args"]["num_classes"] == 5
    assert "label_names" not in config
