"""Every promise about a model, checked on one; and one small model of every timm module."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from conftest import state_of
from torch import Tensor, nn

from crayon_sdk.answers.annotations import AnnotationSet, ImageAnswer, NeuronAnswer
from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.functional.losses import relevant_loss
from crayon_sdk.functional.saliency import has_evidence, logits_and_grad_cam, normalize_maps
from crayon_sdk.models.parts import apply_final_layers
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import load_correction

# The smallest architecture of each module (by parameters, timm 1.0.31), but of transformers that only come with
# hundreds of millions of parameters or pictures of 768 pixels: benchmarks/families.py loads those.
SUPPORTED = {
    "byoanet": "halonet_h1",
    "byobnet": "test_byobnet",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "cpubone": "cpubone_nano",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "test_efficientnet",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
}
REFUSED = {
    "beit": "beit_base_patch16_224",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "crossvit": "crossvit_tiny_240",
    "deit": "deit_tiny_patch16_224",
    "efficientvim": "efficientvim_m1",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "pit": "pit_ti_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "volo": "volo_d1_224",
    "xcit": "xcit_nano_12_p8_224",
}
# No convolution but the one that cuts the patches: not counted among convolutional and hybrid architectures.
TRANSFORMERS = {
    "beit",
    "cait",
    "convit",
    "crossvit",
    "davit",
    "deepseek_vit",
    "deit",
    "eva",
    "gemma4_vit",
    "hiera",
    "hieradet_sam2",
    "mlp_mixer",
    "mvitv2",
    "naflexvit",
    "nest",
    "pit",
    "qwen3_vit",
    "sequencer",
    "swin_transformer",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
    "tnt",
    "twins",
    "vision_transformer",
    "vision_transformer_relpos",
    "vision_transformer_sam",
    "volo",
    "xcit",
}

CLASSES = 3


def make(name: str, **model_args: Any) -> nn.Module:
    """A model with random weights, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False, num_classes=CLASSES, **model_args).eval()


def check_family(name: str, **model_args: Any) -> SplitModel:
    """Check every promise on one architecture; raises AssertionError.

    Args:
        name: timm name.
        model_args: Further arguments of ``timm.create_model``.
    """
    model = make(name, **model_args)
    # Not zero: distilled heads and layer scales start there, and nothing would depend on anything.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    split = SplitModel(model)
    images = torch.rand(2, 3, *split.preprocessing.size, generator=torch.Generator().manual_seed(0))
    before = state_of(model)
    check_split(split, model, images)
    check_maps(split, images)
    check_attention_step(split.copy())
    check_pruning(split.copy(), images)
    check_corrections(split, images)
    assert state_of(model) == before
    return split


def check_split(split: SplitModel, model: nn.Module, images: Tensor) -> None:
    """Trunk and head together are the model, and its end is where the neurons go."""
    with torch.no_grad():
        features = split.features(images)
        assert features.shape == (2, *split.feature_shape)
        logits = split.head(features)
        assert logits.shape == (2, CLASSES)
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)
        assert split.penultimate(features).shape == (2, split.num_neurons)
        inputs = split.final_inputs(features)
        torch.testing.assert_close(apply_final_layers(split.final_layers, inputs), logits, rtol=1e-4, atol=1e-5)


def check_maps(split: SplitModel, images: Tensor) -> None:
    """The map that is trained on is the one that captum makes."""
    # In double precision: with random weights maps can be so faint that the order of a sum shows in float32.
    split, images = split.copy().to(torch.float64), images.double()
    with torch.no_grad():
        features = split.features(images)
    for score in ("logit", "margin"):
        explainer = Explainer(split, device="cpu", precision="float32", score=score)
        for target in range(CLASSES):
            targets = torch.full((2,), target)
            _, ours = logits_and_grad_cam(features, split.head, targets, score=score, create_graph=True)
            theirs = explainer.saliency(images, targets)
            torch.testing.assert_close(normalize_maps(ours).to(theirs), theirs, rtol=1e-5, atol=1e-5)


def with_evidence(split: SplitModel) -> tuple[Tensor, Tensor, str]:
    """A picture, a class and a score whose map is not empty: with random weights most can be."""
    for seed in range(20):
        images = torch.rand(1, 3, *split.preprocessing.size, generator=torch.Generator().manual_seed(seed))
        images = images.to(split.dtype)
        with torch.no_grad():
            features = split.features(images)
        for score in ("logit", "margin"):
            for target in range(CLASSES):
                targets = torch.tensor([target])
                if has_evidence(logits_and_grad_cam(features, split.head, targets, score=score)[1]).all():
                    return images, targets, score
    raise AssertionError("no picture has a map with evidence")


def check_attention_step(split: SplitModel) -> None:
    """A step down the gradient of the guidance lowers it, and it reaches the trunk from top to bottom."""
    split.to(torch.float64)
    images, targets, score = with_evidence(split)
    parameters = dict(split.named_parameters())

    def loss() -> Tensor:
        _, cams = logits_and_grad_cam(split.features(images), split.head, targets, score=score, create_graph=True)
        reference = torch.linspace(0, 1, cams.shape[2]).expand_as(cams)  # looks at one side
        return relevant_loss(normalize_maps(cams), reference, area_normalized=True).sum()

    start = loss()
    found = torch.autograd.grad(start, list(parameters.values()), allow_unused=True)
    gradients = {name: g for name, g in zip(parameters, found, strict=True) if g is not None and bool(g.any())}
    filters = [name for name, parameter in parameters.items() if parameter.ndim >= 2]
    assert gradients.keys() & set(filters[:5]), "no gradient at the bottom of the trunk"
    norm = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt()
    for size in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        _move(parameters, gradients, -size / float(norm))
        lower = bool(loss() < start)
        _move(parameters, gradients, size / float(norm))
        if lower:
            return
    raise AssertionError("no step along the gradient lowers the guidance")


@torch.no_grad()
def _move(parameters: dict[str, nn.Parameter], gradients: dict[str, Tensor], size: float) -> None:
    for name, gradient in gradients.items():
        parameters[name].add_(gradient, alpha=size)


def check_pruning(split: SplitModel, images: Tensor) -> None:
    """Cutting neurons is the same as zeroing what goes into the classifier."""
    keep = torch.arange(split.num_neurons) % 3 > 0
    with torch.no_grad():
        features = split.features(images)
        cut = [inputs * keep for inputs in split.final_inputs(features)]
        expected = apply_final_layers(split.final_layers, cut)
        split.prune(keep)
        torch.testing.assert_close(split(images), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(split.neuron_mask, keep)


def check_corrections(split: SplitModel, images: Tensor) -> None:
    """Prune, then guide, then save: cut neurons stay cut, plain timm gives equal logits (saving compares them)."""
    pictures = torch.cat([images, images.flip(3)])
    dataset = ImageDataset.from_torch(
        [(picture, index % CLASSES) for index, picture in enumerate(pictures)],
        class_names=[str(number) for number in range(CLASSES)],
        preprocessed=True,
        preprocessing=split.preprocessing,
    )
    cut = range(0, split.num_neurons, 3)
    about_neurons = AnnotationSet(
        NeuronAnswer(neuron=n, patch=0, answer="no" if n in cut else "yes", annotator="a", simulated=True)
        for n in range(split.num_neurons)
    )
    small: dict[str, Any] = {"device": "cpu", "precision": "float32", "epochs": 1, "batch_size": 4}
    pruned = NeuronPruner(split, **small).fit(dataset, about_neurons)
    maps = Explainer(split, device="cpu", precision="float32", score="margin").explain(dataset)
    about_maps = AnnotationSet(
        ImageAnswer(id=sample, answer="no" if index % 2 else "yes", annotator="a", simulated=True)
        for index, sample in enumerate(dataset.ids)
    )
    options = {**small, "background_swap": 0.0, "zero_maps": "keep", "lr": 1e-5}
    both = AttentionCorrector(pruned.model, **options).fit(dataset, maps, about_maps)
    assert set(both.record.pruned_neurons) == set(cut)
    with torch.no_grad():
        for layer in both.model.final_layers:
            assert not layer.weight.detach()[:, list(cut)].any()
    with tempfile.TemporaryDirectory() as place:
        folder = both.save(Path(place) / "saved")
        again = load_correction(folder)
        assert again.record == both.record
        with torch.no_grad():
            torch.testing.assert_close(again.model(images), both.model(images), rtol=1e-4, atol=1e-5)
