"""The method agrees with numbers made by the authors' released code, values and gradients, to 1e-9."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from crayon_sdk.functional.losses import attention_loss, irrelevant_loss, relevant_loss
from crayon_sdk.functional.neurons import bake, prune_neurons
from crayon_sdk.functional.saliency import logits_and_grad_cam, normalize_maps

YES, MAYBE, NO = 0, 1, 2
CASES = ("waterbirds_seed0", "waterbirds_pruned_seed0", "backgrounds_seed0")


class Case:
    """One golden file: the whole of Eq. 4 recomputed from its inputs."""

    def __init__(self, path, *, prune="mask"):
        self.golden = {name: tensor.double() if tensor.is_floating_point() else tensor
                       for name, tensor in load_file(path).items()}  # fmt: skip
        self.area = path.stem.startswith("waterbirds")
        golden = self.golden
        self.features = golden["features"].clone().requires_grad_()
        classes, neurons = golden["fc_weight"].shape
        self.fc = torch.nn.Linear(neurons, classes).double()
        with torch.no_grad():
            self.fc.weight.copy_(golden["fc_weight"])
            self.fc.bias.copy_(golden["fc_bias"])
        mask = golden["neuron_mask"]
        if prune == "layer":
            prune_neurons(self.fc, mask.bool())
        seen = self.features if prune == "layer" else self.features * mask[None, :, None, None]
        labels = golden["labels"]
        targets = labels if self.area else None
        self.logits, self.maps = logits_and_grad_cam(seen, self.head, targets, create_graph=True)
        self.current = normalize_maps(self.maps)
        self.reference = normalize_maps(golden["reference_maps"])
        self.relevant, self.irrelevant = golden["answers"] == YES, golden["answers"] == NO
        self.total = attention_loss(
            self.logits,
            labels,
            self.current,
            self.reference,
            self.relevant,
            self.irrelevant,
            alpha=float(golden["alpha"]),
            beta=float(golden["beta"]),
            num_relevant=int(self.relevant.sum()),
            num_irrelevant=int(self.irrelevant.sum()),
            area_normalized=self.area,
        )

    def head(self, features):
        return self.fc(features.mean(dim=(2, 3)))

    def agrees(self, name, value):
        torch.testing.assert_close(value.detach(), self.golden[name], rtol=1e-9, atol=1e-9)


@pytest.fixture(params=CASES)
def path(request, shared):
    return shared / "reference" / "golden" / f"{request.param}.safetensors"


def test_the_files_are_what_the_tests_take_them_for(path):
    case = Case(path)
    assert case.relevant.sum() == case.irrelevant.sum() == (case.golden["answers"] == MAYBE).sum() == 4
    pruned = int((case.golden["neuron_mask"] == 0).sum())
    assert (pruned > 0) == ("pruned" in path.stem)
    assert case.golden["reference_maps"].amax() != 1  # not normalised


def test_values(path):
    case = Case(path)
    case.agrees("logits", case.logits)
    case.agrees("gradcam", case.maps)
    prediction = torch.nn.functional.cross_entropy(case.logits, case.golden["labels"], reduction="sum")
    case.agrees("cross_entropy_sum", prediction)
    inside = [case.current, case.reference, case.area]
    case.agrees("relevant_sum", relevant_loss(*inside)[case.relevant].sum())
    case.agrees("irrelevant_sum", irrelevant_loss(*inside)[case.irrelevant].sum())
    case.agrees("total", case.total)


def test_gradients(path):
    case = Case(path)
    case.total.backward()
    case.agrees("grad_features", case.features.grad)
    case.agrees("grad_fc_weight", case.fc.weight.grad)
    case.agrees("grad_fc_bias", case.fc.bias.grad)


def test_a_pruned_layer_equals_masked_features(path):
    masked, layer = Case(path), Case(path, prune="layer")
    for name, value in (("logits", layer.logits), ("gradcam", layer.maps), ("total", layer.total)):
        layer.agrees(name, value)
    layer.total.backward()
    layer.agrees("grad_features", layer.features.grad)
    layer.agrees("grad_fc_bias", layer.fc.bias.grad)
    if "pruned" in path.stem:
        layer.agrees("grad_fc_weight", layer.fc.weight_orig.grad)
    bake(layer.fc)
    torch.testing.assert_close(layer.head(masked.golden["features"]), layer.golden["logits"], rtol=1e-9, atol=1e-9)
