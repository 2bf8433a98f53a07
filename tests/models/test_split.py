"""One model, seen as trunk and head: the same numbers as before, and nothing changed about it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import SettingsError, UnsupportedModelError
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.functional.losses import attention_loss
from crayon_sdk.functional.neurons import bake, prune_neurons
from crayon_sdk.functional.saliency import has_evidence, logits_and_grad_cam, normalize_maps
from crayon_sdk.models.split import SplitModel, as_split_model, borrowed

SMALL = Preprocessing(size=(16, 16))
# Name, side of the square input, whether weights stand between features and neurons.
FAMILIES = [
    ("resnet18", 64, False),
    ("resnet50", 64, False),
    ("convnext_atto", 64, False),
    ("convnext_tiny", 64, False),
    ("efficientnet_b0", 64, False),
    ("mobilenetv2_100", 64, False),
    ("mobilenetv3_small_100", 64, True),
    ("mobilenetv3_large_100", 64, True),
    ("densenet121", 64, False),
    ("regnety_002", 64, False),
    ("vgg11_bn", 64, True),  # its head, a convolution of 7 x 7, blows smaller features up to that
    ("resnext50_32x4d", 64, False),
    ("inception_v3", 139, False),
]


def split_of(name, side, num_classes=3):
    """Random weights, without the time that timm takes to draw them."""
    arguments = {"aux_logits": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=num_classes, **arguments)
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.ndim >= 2:
                tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=generator)
            else:
                tensor.fill_(0 if key.endswith(("bias", "running_mean", "num_batches_tracked")) else 1)
        model.get_classifier().weight.normal_(0.1, 0.3, generator=generator)
        model.get_classifier().bias.normal_(generator=generator)
    return SplitModel(model, preprocessing=Preprocessing(size=(side, side)))


@pytest.mark.parametrize(("name", "side", "mixes"), FAMILIES)
def test_family(name, side, mixes, snapshot):
    """Everything that is promised of a split model, for one architecture of each family."""
    split = split_of(name, side)
    model, before = split.model, snapshot(split.model)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, side, side, generator=generator)
    targets = torch.tensor([0, 1, 2])
    with torch.no_grad():
        expected = model(images)
        features = split.features(images)
        torch.testing.assert_close(split(images), expected)
        torch.testing.assert_close(split.head(features), expected)
        torch.testing.assert_close(split.classifier(split.penultimate(features)), expected)
    assert tuple(features.shape[1:]) == split.feature_shape
    assert split.map_size == tuple(features.shape[2:])

    seen = Explainer(split, device="cpu", score="logit").saliency(images, targets)
    assert split.mixes_channels() == mixes

    # What people look at (captum) is what is trained on.
    features = features.detach().requires_grad_()
    logits, maps = logits_and_grad_cam(features, split.head, targets, create_graph=True)
    assert has_evidence(maps).any()
    torch.testing.assert_close(normalize_maps(maps).detach(), seen, rtol=0, atol=1e-5)

    # The guidance terms alone reach the trunk through the features, and the classifier.
    loss = attention_loss(
        torch.zeros_like(logits),
        targets,
        normalize_maps(maps),
        torch.rand(maps.shape, generator=generator),
        torch.tensor([True, True, True]),
        torch.tensor([False, False, False]),
        alpha=1.0,
        beta=1.0,
        num_relevant=3,
        num_irrelevant=1,
    )
    to_trunk, to_head = torch.autograd.grad(loss, [features, split.classifier.weight])
    for gradient in (to_trunk, to_head):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0
    assert snapshot(model) == before


def test_the_loss_reaches_the_first_layer_of_the_trunk(tiny_model):
    split = SplitModel(tiny_model())
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    _, maps = logits_and_grad_cam(split.features(images), split.head, torch.tensor([0, 1]), create_graph=True)
    normalize_maps(maps).square().sum().backward()
    assert split.model.conv1[0].weight.grad.abs().max() > 0
    assert split.classifier.weight.grad.abs().max() > 0


# --- nothing is changed ---


def test_making_one_changes_nothing(tiny_model, snapshot):
    model = tiny_model().to(memory_format=torch.channels_last)
    model.train()
    model.layer2.eval()
    model.conv1.requires_grad_(False)
    before = snapshot(model)
    split = SplitModel(model)
    assert split.model is model
    split.mixes_channels()
    _ = split.fingerprint
    split.copy()
    assert snapshot(model) == before


def test_borrowed_gives_back_after_a_failure(tiny_model, snapshot):
    split = SplitModel(tiny_model())
    split.train()
    split.model.layer3.eval()
    before = snapshot(split)

    def interrupted():
        with borrowed(split, split.device) as lent:
            assert not any(module.training for module in lent.modules())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert snapshot(split) == before


def test_works_inside_inference_mode(tiny_model):
    model = tiny_model()
    with torch.inference_mode():
        split = SplitModel(model)
        images = torch.rand(1, 3, 160, 160)
        maps = Explainer(split, device="cpu").saliency(images, torch.tensor([1]))
        assert torch.is_inference_mode_enabled()
    assert maps.amax() == 1


# --- what it takes ---


@pytest.mark.parametrize(
    ("name", "shape"),
    [("vit_tiny_patch16_224", r"\(1, 197, 192\)"), ("test_vit", r"\(1, 101, 64\)")],
)
def test_a_transformer_is_refused(name, shape):
    model = timm.create_model(name, pretrained=False, num_classes=2)
    with pytest.raises(UnsupportedModelError, match=rf"expected features of shape \(N, C, h, w\).*{name}.*got {shape}"):
        SplitModel(model)


def test_channels_at_the_end():
    """(N, h, w, C), as Swin has them: the split shows them as (N, C, h, w)."""
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", pretrained=False, num_classes=2, depths=(1, 1, 1, 1), embed_dim=24
    ).eval()
    split = SplitModel(model)
    assert split.layout == "NHWC"
    assert (split.feature_shape, split.num_neurons, split.mixes_channels()) == ((192, 7, 7), 192, False)
    images = torch.rand(2, 3, 224, 224)
    torch.testing.assert_close(split(images), model(images))
    torch.testing.assert_close(split.features(images), model.forward_features(images).permute(0, 3, 1, 2))
    assert split.copy().layout == "NHWC"


def test_a_convolution_at_the_end():
    model = timm.create_model("resnetv2_18", pretrained=False, num_classes=3).eval()
    split = SplitModel(model)
    assert isinstance(split.classifier, nn.Conv2d)
    images = torch.rand(2, 3, 224, 224)
    features = split.features(images)
    neurons = split.penultimate(features)
    assert neurons.shape == (2, split.num_neurons)
    by_hand = neurons @ split.classifier.weight[:, :, 0, 0].T + split.classifier.bias
    torch.testing.assert_close(split(images), by_hand)
    keep = torch.arange(split.num_neurons) % 3 > 0
    split.prune(keep)
    assert torch.equal(split.neuron_mask, keep)
    cut = (neurons * keep) @ model.get_classifier().weight_orig[:, :, 0, 0].T + split.classifier.bias
    torch.testing.assert_close(split(images), cut)


def test_two_classifiers_that_are_averaged():
    model = timm.create_model("efficientformerv2_s0", pretrained=False, num_classes=3).eval()
    split = SplitModel(model)
    assert len(split.final_layers) == 2
    images = torch.rand(2, 3, 224, 224)
    features = split.features(images)
    neurons = split.penultimate(features)
    mean = (model.head(neurons) + model.head_dist(neurons)) / 2
    torch.testing.assert_close(split(images), mean)
    keep = torch.arange(split.num_neurons) % 2 > 0
    split.prune(keep)
    torch.testing.assert_close(split(images), (model.head(neurons * keep) + model.head_dist(neurons * keep)) / 2)
    assert not split.plain_state_dict()["head_dist.weight"][:, ::2].any()


def test_tokens_without_a_class_token():
    model = timm.create_model("levit_128s", pretrained=False, num_classes=2).eval()
    split = SplitModel(model)
    assert (split.layout, split.feature_shape) == ("NLC", (384, 4, 4))
    images = torch.rand(2, 3, 224, 224)
    torch.testing.assert_close(split(images), model(images))
    tokens = model.forward_features(images)
    torch.testing.assert_close(split.features(images)[:, :, 1, 2], tokens[:, 6])


def test_tokens_in_another_order_are_refused():
    """The same model, and its tokens turned round."""
    model = timm.create_model("twins_svt_small", pretrained=False, num_classes=2).eval()
    assert SplitModel(model).layout == "NLC"
    forward = model.forward_features
    model.forward_features = lambda images: forward(images).flip(1)
    with pytest.raises(UnsupportedModelError, match=r"tokens of twins_svt_small are not in the order of the picture"):
        SplitModel(model)


def test_features_that_are_no_map():
    for name, shape in (("test_vit.r160_in1k", r"\(1, 101, 64\)"), ("coat_tiny", "list")):
        model = timm.create_model(name, pretrained=False, num_classes=2)
        with pytest.raises(UnsupportedModelError, match=rf"with h, w > 1 from .*, got {shape} for images"):
            SplitModel(model)


def test_a_map_of_one_cell_is_refused(tiny_model):
    with pytest.raises(
        UnsupportedModelError, match=r"h, w > 1.*got \(1, 96, 1, 1\) for images of 32x32.*larger images"
    ):
        SplitModel(tiny_model(), preprocessing=Preprocessing(size=(32, 32)))


def test_no_classifier_is_refused(tiny_model):
    with pytest.raises(UnsupportedModelError, match=r"a linear layer .* at the end.*got Identity.*num_classes=K"):
        SplitModel(tiny_model(num_classes=0))


def test_an_end_that_is_not_linear_is_refused(tiny_model):
    model = tiny_model()
    model.fc = nn.Sequential(model.fc, nn.Sigmoid())
    with pytest.raises(UnsupportedModelError, match=r"end in its classifier .* that are not what its last layer gives"):
        SplitModel(model)


@pytest.mark.parametrize("wrong", [5, nn.Conv2d(3, 4, 3)])
def test_a_module_of_another_kind_is_refused(wrong):
    with pytest.raises(
        UnsupportedModelError, match=r"expected a timm or torchvision model, got .* without forward_features\(\)"
    ):
        SplitModel(wrong)


@pytest.mark.parametrize("end", ["sigmoid", "hidden", "elsewhere"])
def test_a_head_that_does_not_end_in_its_classifier(end):
    linear = nn.Linear(4, 2)
    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear]
    match = r"expected the head of _TrunkAndHead to end in its classifier"
    if end == "sigmoid":
        layers.append(nn.Sigmoid())
    elif end == "hidden":
        layers.append(nn.Linear(2, 7))
        match += r".*logits of shape \(1, 2\)\), got \(1, 7\) that are not what its last layer gives"
    head = nn.Sequential(*layers)
    if end == "elsewhere":
        head[2] = nn.Linear(4, 2)
        head.forward = lambda features: head[2](features.mean((2, 3)))
        head.spare = linear
        match = r"the head of _TrunkAndHead never uses the layer that was given as its classifier"
    with pytest.raises(UnsupportedModelError, match=match):
        SplitModel(trunk=nn.Conv2d(3, 4, 3), head=head, classifier=linear, preprocessing=SMALL)


def pooled(channels, *, inplace=False):
    return nn.Sequential(
        nn.ReLU(inplace=inplace),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 6),
        nn.Tanh(),
        nn.Linear(6, 2),
    )


def test_trunk_and_head(snapshot):
    """Any two modules; the classifier is found inside the Sequential."""
    trunk, head = nn.Conv2d(3, 4, 3, stride=2), pooled(4)
    both = nn.Sequential(trunk, head)
    before = snapshot(both)
    split = SplitModel(trunk=trunk, head=head, preprocessing=SMALL, class_names=["cat", "dog"])
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(split(images), both(images))
    assert split.classifier is head[-1]
    assert (split.num_neurons, split.num_classes, split.feature_shape) == (6, 2, (4, 7, 7))
    assert split.class_names == ("cat", "dog")
    assert split.mixes_channels()
    features = split.features(images)
    torch.testing.assert_close(split.classifier(split.penultimate(features)), split(images))
    copied = split.copy()
    assert torch.equal(copied(images), split(images))
    assert copied.classifier is not split.classifier
    assert snapshot(both)["bytes"] == before["bytes"]
    assert snapshot(both)["hooks"] == before["hooks"]


def test_a_classifier_nested_in_a_model_of_ones_own():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Conv2d(3, 4, 3, stride=2)
            self.end = nn.Sequential(nn.Flatten(1), nn.Dropout(0.9), nn.Sequential(nn.Linear(4, 2)))

        def forward_features(self, images):
            return self.trunk(images)

        def forward_head(self, features, pre_logits=False):
            neurons = features.mean((2, 3))
            return neurons if pre_logits else self.end(neurons)

        def get_classifier(self):
            return self.end[2][0]

    split = SplitModel(Net(), preprocessing=SMALL)
    assert (split.num_neurons, split.mixes_channels()) == (4, False)


def test_a_head_that_works_in_place_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"changes its input in place.*inplace=False"):
        SplitModel(trunk=nn.Conv2d(3, 4, 3), head=pooled(4, inplace=True), preprocessing=SMALL)


def test_trunk_and_head_that_do_not_fit():
    with pytest.raises(UnsupportedModelError, match=r"cannot be run on 16x16 pixels: .*mat1 and mat2"):
        SplitModel(trunk=nn.Conv2d(3, 4, 3), head=pooled(5), preprocessing=SMALL)


def test_half_of_a_model(tiny_model):
    trunk = nn.Conv2d(3, 4, 3)
    for wrong in ({}, {"trunk": trunk}, {"head": pooled(4)}, {"model": tiny_model(), "trunk": trunk}):
        with pytest.raises(SettingsError, match=r"either a model, or both trunk= and head="):
            SplitModel(**wrong)
    with pytest.raises(UnsupportedModelError, match=r"head that ends in a linear layer, got Sequential without one"):
        SplitModel(trunk=trunk, head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(UnsupportedModelError, match=r"got Sequential without the given classifier"):
        SplitModel(trunk=trunk, head=pooled(4), classifier=nn.Linear(6, 2))


def test_wrappers_are_taken_off(tiny_model):
    model = tiny_model()
    compiled = torch.compile(model)
    for wrapped in (
        nn.DataParallel(model),
        compiled,
        nn.DataParallel(compiled),
        torch.compile(nn.DataParallel(model)),
    ):
        assert SplitModel(wrapped).model is model


def test_as_split_model(tiny_model):
    split = SplitModel(tiny_model())
    assert as_split_model(split) is split
    assert as_split_model(split.model).model is split.model
    with pytest.raises(SettingsError, match=r"expected a model, got str; load one with load_model"):
        as_split_model("resnet50")


def test_class_names(tiny_model):
    assert SplitModel(tiny_model(), class_names=["cat", "dog"]).class_names == ("cat", "dog")
    with pytest.raises(SettingsError, match="expected 2 class_names, one for each class of the model, got"):
        SplitModel(tiny_model(), class_names=["only", "three", "names"])


@pytest.mark.parametrize(
    ("names", "own", "expected"),
    [
        (["fish", "bird"], 2, ("fish", "bird")),
        ({"1": "bird", "0": "fish"}, 2, ("fish", "bird")),
        ({"1": "bird"}, 2, ("class 0", "bird")),
        (["fish", "bird", "cat"], 3, ()),  # of a base model
        (["fish", "bird", "cat"], 2, None),
        ({"0": "fish", "1": "bird", "2": "cat"}, 2, None),
        ("fish", 2, ()),
    ],
)
def test_names_in_the_config(tiny_model, names, own, expected):
    model = tiny_model()
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": names, "num_classes": own}
    if expected is not None:
        assert SplitModel(model).class_names == expected
        return
    with pytest.raises(UnsupportedModelError, match=r"as many label_names in the config as it has classes, 2, got 3"):
        SplitModel(model)
    assert SplitModel(model, class_names=["a", "b"]).class_names == ("a", "b")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "bn1.running_var"])
def test_weights_that_are_no_numbers(tiny_model, name, value):
    model = tiny_model()
    split = SplitModel(tiny_model())
    for each in (model, split.model):
        each.state_dict()[name].view(-1)[3] = value
    with pytest.raises(UnsupportedModelError, match=rf"NaN or infinity in 1 of test_resnet's tensors: '{name} \(1 of"):
        SplitModel(model)
    with pytest.raises(UnsupportedModelError, match=name):
        split.check_finite()
    model = tiny_model()
    model.pretrained_cfg["label_names"] = {"0": "cat", "1": "dog"}
    assert SplitModel(model).class_names == ("cat", "dog")


# --- identity ---


def test_the_fingerprint_is_of_the_numbers(tiny_model):
    split = SplitModel(tiny_model())
    expected = split.fingerprint
    assert len(expected) == 64
    assert split.copy().fingerprint == expected
    assert SplitModel(tiny_model()).fingerprint == expected
    assert SplitModel(tiny_model().to(memory_format=torch.channels_last)).fingerprint == expected
    assert SplitModel(torch.compile(nn.DataParallel(tiny_model()))).fingerprint == expected
    assert SplitModel(tiny_model(), preprocessing=Preprocessing(size=(96, 96))).fingerprint == expected
    assert SplitModel(tiny_model().train().requires_grad_(False)).fingerprint == expected
    if torch.cuda.is_available():
        assert SplitModel(tiny_model().cuda()).fingerprint == expected
    assert SplitModel(tiny_model(seed=1)).fingerprint != expected
    for name in ("fc.bias", "conv1.0.weight", "layer4.0.bn1.running_var"):
        changed = tiny_model()
        changed.state_dict()[name].view(-1)[0] += 1e-3
        assert SplitModel(changed).fingerprint != expected, name


def test_a_pruned_model_has_the_fingerprint_of_the_baked_one(tiny_model):
    split = SplitModel(tiny_model())
    original = split.fingerprint
    keep = torch.ones(split.num_neurons, dtype=torch.bool)
    keep[::3] = False
    prune_neurons(split.classifier, keep)
    pruned = split.fingerprint
    assert pruned != original
    assert sorted(split.plain_state_dict()) == sorted(tiny_model().state_dict())
    bake(split.classifier)
    assert split.fingerprint == pruned


@pytest.mark.parametrize("after_a_step", [False, True])
def test_a_copy_of_a_pruned_model_stays_pruned(tiny_model, after_a_step):
    split = SplitModel(tiny_model().train())
    split.model.layer1.eval()
    keep = torch.ones(split.num_neurons, dtype=torch.bool)
    keep[:5] = False
    prune_neurons(split.classifier, keep)
    if after_a_step:
        split(torch.rand(2, 3, 64, 64)).sum().backward()
    copied = split.copy()
    assert torch.equal(copied.neuron_mask, keep)
    assert [module.training for module in copied.modules()] == [module.training for module in split.modules()]
    assert copied.fingerprint == split.fingerprint
    optimizer = torch.optim.SGD(copied.parameters(), lr=0.1, weight_decay=0.1)
    copied(torch.rand(2, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    copied.eval()
    features = torch.rand(1, *copied.feature_shape)
    before = copied.head(features)
    features[:, :5] += 7
    assert torch.equal(copied.head(features), before)
    assert copied.classifier.weight_orig.data_ptr() != split.classifier.weight_orig.data_ptr()
    split(torch.rand(2, 3, 64, 64)).sum().backward()  # and the first one still works


def test_frozen_weights_do_not_hide_that_channels_are_mixed():
    split = split_of("mobilenetv3_small_100", 64)
    split.requires_grad_(False)
    assert split.mixes_channels()


# --- precisions ---


def test_only_the_trunk_is_in_reduced_precision(tiny_model):
    split = SplitModel(tiny_model())
    images = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        full, reduced = split.features(images), split.features(images, autocast=torch.bfloat16)
    assert reduced.dtype == torch.float32
    assert not torch.equal(full, reduced)
    torch.testing.assert_close(full, reduced, rtol=0.1, atol=0.1)


def test_double_precision(tiny_model):
    split = SplitModel(tiny_model().double())
    assert split(torch.rand(1, 3, 160, 160)).dtype == torch.float64
    assert Explainer(split, device="cpu").saliency(torch.rand(1, 3, 160, 160), torch.tensor([0])).shape == (1, 5, 5)


def test_one_channel():
    grey = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2, in_chans=1)
    with pytest.raises(
        UnsupportedModelError, match=r"expected a model of RGB pictures, test_resnet takes 1 channel.*Grayscale"
    ):
        SplitModel(grey)
    # What the message says works.
    from torchvision.transforms import v2

    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = grey

        def forward(self, images):
            return self.model.forward_features(images)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.fc = grey.global_pool, grey.fc

        def forward(self, features):
            return self.fc(self.pool(features))

    split = SplitModel(trunk=nn.Sequential(v2.Grayscale(), Trunk()), head=Head().eval())
    assert split(torch.rand(2, 3, 160, 160)).shape == (2, 2)


@pytest.mark.parametrize("where", ["trunk", "head"])
def test_layers_without_a_size_are_named(where):
    trunk = nn.LazyConv2d(4, 3, stride=8) if where == "trunk" else nn.Conv2d(3, 4, 3, stride=8)
    last = nn.LazyLinear(2) if where == "head" else nn.Linear(4, 2)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    small = Preprocessing(size=(64, 64))
    named = r"trunk \(LazyConv2d\)" if where == "trunk" else r"head\.2 \(LazyLinear\)"
    with pytest.raises(UnsupportedModelError, match=f"sizes are not known yet: '{named}'. Run it once before"):
        SplitModel(trunk=trunk, head=head, preprocessing=small)
    head(trunk(torch.zeros(1, 3, 64, 64)))
    assert SplitModel(trunk=trunk, head=head, preprocessing=small).num_neurons == 4


@pytest.mark.parametrize("part", ["conv1.0", "fc"])
def test_a_model_of_nan_is_not_said_to_lack_a_linear_layer(part, tiny_model):
    module = tiny_model()
    with torch.no_grad():
        module.get_submodule(part).weight.fill_(torch.nan)
    with pytest.raises(UnsupportedModelError, match=rf"expected finite weights, got NaN .*'{part}\.weight \("):
        SplitModel(module, preprocessing=Preprocessing(size=(64, 64)))
