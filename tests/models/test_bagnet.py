from __future__ import annotations

import pytest
import torch

from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError
from crayon_sdk.models.bagnet import FIELDS, BagNet18, bagnet18


@pytest.mark.parametrize("field", FIELDS)
def test_a_feature_depends_on_as_many_pixels_as_are_said(field):
    network = BagNet18(2, field).eval()
    images = torch.rand(1, 3, 90, 90, requires_grad=True)
    features = network.forward_features(images)
    middle = [side // 2 for side in features.shape[2:]]
    for down, along in (middle, (0, 0), (features.shape[2] - 1, 0)):
        (gradient,) = torch.autograd.grad(features[0, :, down, along].sum(), images, retain_graph=True)
        seen = gradient[0].abs().sum(dim=0) > 0
        rows, columns = seen.any(dim=1).nonzero().flatten(), seen.any(dim=0).nonzero().flatten()
        assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) == (field, field)
        assert seen.sum() == field**2  # all of them


def test_it_is_a_resnet_18_by_its_blocks():
    network = BagNet18(3, 33)
    assert len(network.blocks) == 8
    assert sum(module.kernel_size == (3, 3) for module in network.modules() if isinstance(module, torch.nn.Conv2d)) == 5
    assert network.get_classifier().in_features == 512


def test_it_splits_and_its_weights_come_from_the_seed():
    before = torch.get_rng_state()
    first, again, other = (bagnet18(3, Preprocessing(size=(64, 48)), field=9, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert first.fingerprint == again.fingerprint != other.fingerprint
    images = torch.rand(2, 3, 64, 48)
    torch.testing.assert_close(first(images), first.model(images))
    assert (first.num_neurons, first.num_classes) == (512, 3)


def test_a_field_that_does_not_fit():
    with pytest.raises(SettingsError, match=r"expected a field of 5, 9, 17, 33 pixels, got 43"):
        BagNet18(2, 43)
    with pytest.raises(SettingsError, match=r"at least 41 pixels a side for a BagNet-18 that sees 33, got 40"):
        bagnet18(2, Preprocessing(size=(40, 80)), field=33)
    for field in FIELDS:
        assert bagnet18(2, Preprocessing(size=(field + 8, field + 8)), field=field).map_size == (2, 2)
