"""Objects under relevant maps of a real model, and what happens to the pictures of a batch."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from helpers_correction import half_and_half, image_answers, noise_pictures, random_maps, split_model
from torch import nn

from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.backgrounds import BackgroundSwap, finer_features
from crayon_sdk.correct.guidance import guidance_of
from crayon_sdk.data.pixels import PixelCache
from crayon_sdk.errors import SettingsError, UnsupportedModelError
from crayon_sdk.functional.highlights import guided_filter, refine_maps, sharpen
from crayon_sdk.functional.saliency import resize_maps
from crayon_sdk.models.passes import gives_intermediates
from crayon_sdk.models.split import SplitModel

CPU = torch.device("cpu")


def own_module():
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    return SplitModel(trunk=trunk, head=head)


@pytest.fixture
def swap():
    dataset, model = noise_pictures(12), split_model()
    guidance = guidance_of(dataset, random_maps(dataset), half_and_half(dataset), (2, 2))
    cache = PixelCache(dataset, model.preprocessing)
    return BackgroundSwap(model, cache, guidance, device=CPU, labels=dataset.labels), cache, guidance, model


def test_objects_are_the_refined_maps_of_relevant_pictures(swap):
    swap, cache, guidance, model = swap
    rows = guidance.relevant.nonzero().flatten()
    with torch.no_grad():
        finer = model.model.forward_intermediates(cache.get(rows), intermediates_only=True)
    finer = [each for each in finer if each.shape[2] in (4, 8)]
    coarse = resize_maps(refine_maps(guidance.reference[rows], finer, size=(8, 8)), (32, 32))
    expected = sharpen(guided_filter(coarse, nn.functional.avg_pool2d(cache.get(rows), 2)))
    torch.testing.assert_close(swap.objects[rows] / 255, expected, rtol=0, atol=0.51 / 255)
    assert len(finer) == 2
    assert not swap.objects[~guidance.relevant].any()


def test_only_relevant_pictures_change_and_objects_stay(swap):
    swap, cache, guidance, _ = swap
    batch = torch.tensor([3, 0, 5, 4, 8, 1])
    images = cache.get(batch)
    before = images.clone()
    found = swap(images, batch, 1.0)
    assert torch.equal(images, before)
    changed = (found != images).flatten(1).any(dim=1)
    assert torch.equal(changed, guidance.relevant[batch])
    whole = nn.functional.interpolate(swap.objects[batch][:, None] / 255, (64, 64), mode="bilinear")[:, 0] == 1
    inside = whole[:, None].expand_as(images) & guidance.relevant[batch][:, None, None, None]
    assert inside.any()
    torch.testing.assert_close(found[inside], images[inside])


def test_share_and_seed_decide_what_changes(swap):
    swap, cache, guidance, _ = swap
    rows = guidance.relevant.nonzero().flatten().repeat(200)
    images = cache.get(rows)
    assert swap(images, rows, 0.0) is images
    torch.manual_seed(0)
    first = swap(images, rows, 0.4)
    torch.manual_seed(0)
    assert torch.equal(first, swap(images, rows, 0.4))
    share = (first != images).flatten(1).any(dim=1).float().mean()
    assert 0.33 < share < 0.47


def test_finer_features_are_between_one_and_a_half_and_five_times_as_fine():
    images = torch.rand(2, 3, 64, 64)
    for name in ("test_resnet.r160_in1k", "test_convnext.r160_in1k", "test_efficientnet.r160_in1k"):
        sizes = [each.shape[2] for each in finer_features(split_model(name=name), images, (2, 2))]
        assert sizes == [8, 4], name


def test_reduced_precision_gives_nearly_the_same(swap):
    images, model = swap[1].get(torch.arange(4)), swap[3].eval()
    with torch.no_grad():
        full = finer_features(model, images, (2, 2))
        reduced = finer_features(model, images, (2, 2), autocast=torch.bfloat16)
    for expected, found in zip(full, reduced, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.05 * expected.norm()


def test_own_modules_say_what_to_do():
    model = own_module()
    assert not gives_intermediates(model)
    with pytest.raises(UnsupportedModelError, match=r"forward_intermediates.* set background_swap=0"):
        finer_features(model, torch.rand(1, 3, 64, 64), (8, 8))


def test_default_follows_the_model_and_what_was_asked_for_is_kept():
    assert AttentionCorrector(split_model()).settings.background_swap == 0.7
    assert AttentionCorrector(own_module()).settings.background_swap == 0.0
    assert AttentionCorrector(own_module(), background_swap=0.5).settings.background_swap == 0.5
    with pytest.raises(SettingsError, match=r"expected background_swap to be a number from 0 to 1, got 1\.5"):
        AttentionCorrector(split_model(), background_swap=1.5)


def test_asking_for_it_where_it_cannot_be_done_is_an_error():
    dataset = noise_pictures(8)
    corrector = AttentionCorrector(own_module(), background_swap=0.5, epochs=1)
    with pytest.raises(UnsupportedModelError, match="background_swap"):
        corrector.fit(dataset, random_maps(dataset), half_and_half(dataset))


def test_a_single_relevant_picture_is_no_reason_to_stop(caplog):
    dataset = noise_pictures(8)
    answers = image_answers({"s0": "yes", "s1": "no", "s2": "no"})
    with caplog.at_level(logging.WARNING, logger="crayon_sdk"):
        corrector = AttentionCorrector(split_model(), epochs=1, spread="never", device="cpu")
        found = corrector.fit(dataset, random_maps(dataset), answers)
    assert found.record.counts["relevant"] == 1
    assert "at least two relevant pictures" in caplog.text


def test_training_sees_the_other_backgrounds_and_the_callers_model_is_untouched():
    dataset, model = noise_pictures(12), split_model()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    fitted = {
        share: AttentionCorrector(model, epochs=1, background_swap=share, average_decay=0, device="cpu")
        .fit(dataset, random_maps(dataset), half_and_half(dataset))
        .history[0]["prediction"]
        for share in (0.0, 1.0)
    }
    assert fitted[0.0] != fitted[1.0]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
