"""Every promise about models, on one small model of every timm module that has a map.

A tenth of the modules (another one in each version of the package) by default; all of
them with ``-m sweep``.
"""

from __future__ import annotations

import hashlib

import pytest
import timm
from helpers_families import CLASSES, REFUSED, SUPPORTED, TRANSFORMERS, check_family, make

import crayon_sdk
from crayon_sdk.errors import UnsupportedModelError
from crayon_sdk.models.split import SplitModel

SLOW = {"byoanet", "convmixer", "inception_resnet_v2", "inception_v4", "mobilenetv5", "nasnet", "pnasnet", "vgg"}


def _turn(module: str) -> bool:
    """Whether it is this module's turn, in this version; those that take a minute are for the whole sweep."""
    return (
        module not in SLOW
        and int(hashlib.sha256(f"{crayon_sdk.__version__} {module}".encode()).hexdigest(), 16) % 10 == 0
    )


def modules(table: dict[str, str]) -> list[pytest.param]:
    return [
        pytest.param(name, id=module, marks=() if _turn(module) else pytest.mark.sweep)
        for module, name in table.items()
    ]


@pytest.mark.parametrize("name", modules(SUPPORTED))
def test_family(name):
    check_family(name)


@pytest.mark.parametrize("name", modules(REFUSED))
def test_family_without_a_map_is_refused(name):
    with pytest.raises(UnsupportedModelError, match="a saliency map needs a grid"):
        SplitModel(make(name))


@pytest.mark.sweep
def test_every_module_of_timm_is_in_the_list():
    """A newer timm may bring new ones: look at them, and add them."""
    known = {*SUPPORTED, *REFUSED, *TRANSFORMERS}
    assert set(timm.list_modules()) - known == set()


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax"])
@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_convnext.r160_in1k", "test_efficientnet.r160_in1k"])
def test_kinds_of_pooling(name, pool):
    if "convnext" in name and pool == "catavgmax":
        pytest.skip("timm itself has no ConvNeXt with twice the width after pooling")
    split = check_family(name, global_pool=pool)
    width = split.feature_shape[0]
    assert split.num_neurons == (2 * width if pool == "catavgmax" else width)
    assert split.mixes_channels() == (pool == "catavgmax")


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_convnext.r160_in1k", "mobilenetv3_small_050"])
def test_dropout_before_the_classifier(name):
    check_family(name, drop_rate=0.5)


def test_no_classifier_and_no_pooling():
    with pytest.raises(UnsupportedModelError, match=r"got Identity.*num_classes=K"):
        SplitModel(timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=0))
    with pytest.raises(UnsupportedModelError, match=r"cannot be run on 160x160 pixels|pool before it"):
        SplitModel(timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=CLASSES, global_pool=""))
