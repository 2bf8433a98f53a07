"""Objects found by answers, on a small generated task with a network that has learned its shortcut."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import pytest
import timm
import torch
from helpers_correction import noise_pictures, random_maps, split_model
from torch import nn

from crayon_sdk import AnnotationSet, Explainer, ImageAnswer, ImageDataset, ObjectMaps, find_objects, simulate_answers
from crayon_sdk.answers.controls import control
from crayon_sdk.data.generated import generate
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import (
    AnswerError,
    CrayonError,
    DataError,
    FileFormatError,
    MismatchError,
    OutputError,
    SettingsError,
    UnsupportedModelError,
)
from crayon_sdk.explain import objects as objects_module
from crayon_sdk.explain.objects import Worth, objects_of
from crayon_sdk.functional.saliency import resize_maps
from crayon_sdk.models.split import SplitModel

VIEW = Preprocessing(size=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    table = generate("box", tmp_path_factory.mktemp("box") / "task", size=64, scale=0.2)
    return ImageDataset.from_csv(table, split="train")


@pytest.fixture(scope="module")
def model(train):
    """Six epochs, after which it goes by the box."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=2, output_stride=16)
        images = torch.stack([train.row(position, VIEW) for position in range(len(train))])
        images = VIEW.normalize(images) if images.dtype == torch.uint8 else images
        optimizer = torch.optim.Adam(network.train().parameters(), lr=2e-3)
        for _ in range(6):
            for batch in torch.randperm(len(images)).split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[batch]), train.labels[batch]).backward()
                optimizer.step()
    network.zero_grad(set_to_none=True)
    return SplitModel(network.eval(), preprocessing=VIEW)


@pytest.fixture(scope="module")
def maps(model, train):
    return Explainer(model, device="cpu").explain(train)


@pytest.fixture(scope="module")
def answers(maps, train):
    """About half of the pictures, as many of each class."""
    given = simulate_answers(maps, train)
    asked = set(train.ids[:100])
    return AnnotationSet(each for each in given if each.id in asked)


@pytest.fixture(scope="module")
def found(model, train, maps, answers):
    return find_objects(model, train, maps, answers, device="cpu")


def said(words):
    return AnnotationSet(ImageAnswer(id=sample, answer=word, annotator="ann") for sample, word in words.items())


def on_the_object(values, masks):
    """Mean share of a map that lies on the mask."""
    whole = resize_maps(values, (64, 64))
    return float(((whole * masks).sum(dim=(1, 2)) / whole.sum(dim=(1, 2))).mean())


def test_objects_lie_on_the_masks_better_than_the_maps_do(found, maps, train, answers):
    masks = torch.stack([train.mask_tensor(sample, VIEW) for sample in train.ids]).float()
    masks = masks / masks.max()
    asked = set(answers.image_relevance("unanimous"))
    assert asked == set(train.ids[:100])
    for rows in ([i for i, sample in enumerate(train.ids) if (sample in asked) is known] for known in (True, False)):
        assert len(rows) > 80
        by_objects, by_maps = (on_the_object(each[rows], masks[rows]) for each in (found.values, maps.values))
        assert by_objects > 1.25 * by_maps
        assert by_objects > 1.25 * float(masks[rows].mean())


def test_what_comes_out(found, train, maps):
    assert found.ids == train.ids
    assert len(found) == 200
    assert found.values.shape == (200, 8, 8)  # twice as fine as the maps
    assert maps.size == (4, 4)
    assert found.values.min() >= 0
    assert torch.equal(found.values.amax(dim=(1, 2)), torch.ones(200))
    assert found.values.dtype == torch.float32
    assert repr(found).startswith("ObjectMaps(200 pictures, 8 x 8; the answers go together: ")


def test_answers_of_people_who_look_go_together_and_others_contradict(model, train, maps):
    looked = simulate_answers(maps, train, strictness=(0.25, 0.25))  # enough of each kind
    worth = find_objects(model, train, maps, looked, device="cpu").worth
    assert min(worth.relevant, worth.irrelevant) >= 20
    assert worth.verdicts > 0.75
    assert worth.cells > 0.75
    assert worth.chance < 0.01
    assert not worth.contradictory
    assert worth.relevant + worth.irrelevant == sum(
        each != "mixed" for each in looked.image_relevance("unanimous").values()
    )
    contradictory = []
    for seed in range(4):
        worth = find_objects(model, train, maps, control(looked, "shuffled", seed=seed), device="cpu").worth
        contradictory.append(worth.contradictory)
        assert worth.verdicts < 0.75
    assert sum(contradictory) >= 3  # one in twenty looks better by chance


def test_exchanged_answers_go_together_as_well_and_call_something_else_the_object(model, train, maps):
    masks = torch.stack([train.mask_tensor(sample, VIEW) for sample in train.ids]).float()
    masks = masks / masks.max()
    looked = simulate_answers(maps, train, strictness=(0.25, 0.25))
    right, exchanged = (
        find_objects(model, train, maps, each, device="cpu") for each in (looked, control(looked, "inverted"))
    )
    assert exchanged.worth.chance < 0.01
    assert not exchanged.worth.contradictory
    assert on_the_object(right.values, masks) > 1.5 * on_the_object(exchanged.values, masks)


def test_only_yes_is_enough(model, train, maps):
    found = find_objects(model, train, maps, said(dict.fromkeys(train.ids[:20], "yes")), device="cpu")
    assert (found.worth.relevant, found.worth.irrelevant) == (20, 0)
    assert math.isnan(found.worth.verdicts)
    assert math.isnan(found.worth.chance)
    assert not found.worth.contradictory
    assert (
        found.worth.in_words == "all 20 maps that were answered are right: one answer for all would have said as much"
    )
    assert found.values.isfinite().all()
    # It is then what the maps show.
    assert on_the_object(found.values, resize_maps(maps.values, (64, 64))) > 0.3


@pytest.mark.parametrize("words", [{}, {"a": "no"}])
def test_only_no_says_why_it_is_not_enough(model, train, maps, words):
    given = said(dict.fromkeys(train.ids[:20], "no") if words else {})
    told = rf"at least one answered map that is right, got {20 if words else 0} .*what the object looks like"
    with pytest.raises(AnswerError, match=told):
        find_objects(model, train, maps, given, device="cpu")


def test_one_yes_and_one_no_are_too_few_to_tell(model, train, maps):
    worth = find_objects(model, train, maps, said({train.ids[0]: "yes", train.ids[1]: "no"}), device="cpu").worth
    assert worth.in_words == "1 clear yes are too few to learn what the object looks like; it takes 3"
    assert not worth.contradictory


def test_worth_in_words():
    assert Worth(0, 7, math.nan, math.nan, math.nan).in_words.startswith("all 7 maps that were answered are wrong")
    # The limit, by hand: with 20 of each the standard error is sqrt(41 / 4800) = 0.0924, and 1.645 of it 0.152.
    assert Worth(20, 20, 0.5, 0.54, 0.3).contradictory
    assert not Worth(20, 20, 0.5, 0.55, 0.3).contradictory
    assert "contradict each other: 54 % of the pairs" in Worth(20, 20, 0.5, 0.54, 0.3).in_words
    assert not Worth(19, 4000, 0.5, 0.5, 0.5).contradictory
    assert "do not show yet whether they go together" in Worth(19, 4000, 0.5, 0.5, 0.5).in_words
    assert "go together: 80 %" in Worth(20, 20, 0.5, 0.8, 0.001).in_words
    assert "2 clear yes are too few to learn" in Worth(2, 20, 0.5, 0.8, 0.001).in_words


def test_what_carries():
    assert Worth(3, 20, 0.5, 0.5, 0.5).carries
    assert Worth(3, 0, 0.9, math.nan, math.nan).carries
    assert not Worth(2, 20, 0.5, 0.9, 0.001).carries
    assert not Worth(20, 20, 0.5, 0.54, 0.3).carries


def test_chance_is_how_often_shuffled_answers_do_as_well(found):
    """By the normal approximation of Mann and Whitney's test."""
    worth = found.worth
    spread = math.sqrt((worth.relevant + worth.irrelevant + 1) / (12 * worth.relevant * worth.irrelevant))
    normal = torch.distributions.Normal(0.0, 1.0)
    assert worth.chance == pytest.approx(1 - float(normal.cdf(torch.tensor((worth.verdicts - 0.5) / spread))), abs=1e-6)


def test_mixed_answers_and_maps_without_evidence_are_left_out(model, train, maps, answers, found):
    first, second = train.ids[101], train.ids[103]  # nobody was asked about them
    torn = AnnotationSet(
        ImageAnswer(id=first, answer=word, annotator=person) for word, person in (("yes", "a"), ("no", "b"))
    )
    evidence = maps.evidence.clone()
    evidence[103] = False
    more = answers.merge(torn).merge(said({second: "yes"}))
    again = find_objects(model, train, replace(maps, evidence=evidence), more, device="cpu")
    assert again.worth == found.worth
    assert torch.equal(again.values, found.values)


def test_it_is_the_same_twice_and_leaves_no_trace(model, train, maps, answers, found, snapshot):
    model.model.layer1.train()
    before, values = snapshot(model), maps.values.clone()
    again = find_objects(model, train, maps, answers, device="cpu")
    assert snapshot(model) == before
    model.eval()
    assert torch.equal(again.values, found.values)
    assert again.worth == found.worth
    assert torch.equal(maps.values, values)


def test_the_order_of_the_data_set_is_that_of_the_result(model, train, maps, answers, found):
    turned = find_objects(model, train.subset(train.ids[::-1]), maps, answers, device="cpu")
    assert turned.ids == train.ids[::-1]
    torch.testing.assert_close(turned.values.flip(0), found.values, rtol=0, atol=0.02)


def test_reduced_precision_gives_nearly_the_same(model, train, maps, answers, found):
    reduced = find_objects(model, train, maps, answers, device="cpu", precision="bfloat16")
    assert (reduced.values - found.values).abs().mean() < 0.03


@pytest.mark.parametrize(
    ("yes", "no", "kept"),
    [(300, 200, (300, 200)), (100, 600, (100, 400)), (700, 90, (410, 90)), (400, 300, (250, 250))],
)
def test_of_many_answers_as_many_of_both_kinds_as_can_be_are_learned_from(yes, no, kept):
    relevant = torch.arange(yes + no) < yes
    chosen = objects_module.balanced_draw(relevant, 0)
    assert (int(relevant[chosen].sum()), int((~relevant[chosen]).sum())) == kept
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(chosen, objects_module.balanced_draw(relevant, 0))


def test_models_without_intermediate_features_are_refused(train, maps):
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU())
    own = SplitModel(
        trunk=trunk, head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)), preprocessing=VIEW
    )
    with pytest.raises(UnsupportedModelError, match=r"has no forward_intermediates\(\) as timm models have"):
        find_objects(own, train, maps, said({train.ids[0]: "yes"}), device="cpu")


def test_things_that_do_not_belong_together_are_refused(model, train, maps, answers):
    with pytest.raises(MismatchError):
        find_objects(model, train.subset(train.ids[:5]), maps, answers, device="cpu")
    with pytest.raises(MismatchError):
        find_objects(model, train, maps.select(train.ids[:5]), answers, device="cpu")
    other = dataclasses.replace(maps, preprocessing=Preprocessing(size=(64, 64), crop_pct=0.5))
    with pytest.raises(MismatchError, match="give the model that was explained"):
        find_objects(model, train, other, answers, device="cpu")
    for wrong in (
        (AnswerError, lambda: find_objects(model, train, answers, maps)),
        (SettingsError, lambda: find_objects(model, train, {}, answers)),
        (DataError, lambda: find_objects(model, maps, maps, answers)),
        (AnswerError, lambda: find_objects(model, train, maps, {train.ids[0]: "yes"})),
    ):
        with pytest.raises(wrong[0]):
            wrong[1]()
    with pytest.raises(CrayonError):
        find_objects(model, train, maps, answers, rule="loudest", device="cpu")


@pytest.mark.parametrize(("at", "name"), [(6, "'s6'"), (0, "picture number 1")])
def test_pictures_that_overflow_are_named(at, name):
    """One that nobody was asked about, and one that is learned from."""
    broken = noise_pictures(12, huge_at=at)
    with pytest.raises(DataError, match=rf"intermediate features .* not finite \(NaN or infinity\) for .*{name}"):
        find_objects(split_model(), broken, random_maps(broken), said({"s0": "yes", "s1": "no"}), device="cpu")


def test_features_too_large_for_half_precision_are_no_matter():
    """Layers without a normalisation give such numbers; what is learned does not depend on their scale."""
    dataset, given = noise_pictures(12), said({"s0": "yes", "s1": "no"})
    plain = split_model()
    module = plain.model.eval()
    usual = find_objects(plain, dataset, random_maps(dataset), given, device="cpu")
    hook = module.layer3.register_forward_hook(lambda _, __, features: 1e6 * features)
    try:
        large = find_objects(plain, dataset, random_maps(dataset), given, device="cpu")
    finally:
        hook.remove()
    torch.testing.assert_close(large.values, usual.values, rtol=0, atol=0.02)


def test_a_picture_without_anything_like_an_object_has_a_map_too(model, train, maps):
    """However certain it is: every picture has a most certain cell."""
    rows = torch.arange(0, 60)
    relevant = (rows % 2).bool()
    images = torch.stack([train.row(position, VIEW) for position in range(len(train))])
    images = VIEW.normalize(images) if images.dtype == torch.uint8 else images
    images[100] = 50.0
    values = objects_of(model, images.__getitem__, train.labels, rows, maps.values[rows], relevant).values
    assert values.isfinite().all()
    assert torch.equal(values.amax(dim=(1, 2)), torch.ones(len(train)))


def test_tensors_give_the_same(model, train, maps, answers, found):
    verdicts = {sample: each for sample, each in answers.image_relevance("unanimous").items() if each != "mixed"}
    rows = [train.index_of(sample) for sample in verdicts]
    images = torch.stack([train.row(position, VIEW) for position in range(len(train))])
    images = VIEW.normalize(images) if images.dtype == torch.uint8 else images
    relevant = torch.tensor([each == "relevant" for each in verdicts.values()])
    found = objects_of(model, images.__getitem__, train.labels, torch.tensor(rows), maps.values[rows], relevant)
    values, worth = found.values, found.worth
    torch.testing.assert_close(values, found.values, rtol=0, atol=1e-4)
    assert worth == found.worth


def test_save_and_load(found, tmp_path):
    found.save(tmp_path / "objects.safetensors")
    again = ObjectMaps.load(tmp_path / "objects.safetensors")
    assert (again.ids, again.worth) == (found.ids, found.worth)
    assert torch.equal(again.values, found.values)
    odd = replace(
        found, ids=tuple(f"ä b/{number}.jpg" for number in range(200)), worth=replace(found.worth, chance=math.nan)
    )
    odd.save(tmp_path / "objects.safetensors")
    again = ObjectMaps.load(tmp_path / "objects.safetensors")
    assert again.ids == odd.ids
    assert math.isnan(again.worth.chance)


def test_files_that_are_something_else_are_refused(found, maps, tmp_path):
    path = tmp_path / "objects.safetensors"
    maps.save(path)
    with pytest.raises(FileFormatError):
        ObjectMaps.load(path)
    found.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileFormatError):
        ObjectMaps.load(path)
    path.write_text("ids")
    with pytest.raises(FileFormatError):
        ObjectMaps.load(path)
    with pytest.raises(CrayonError):
        ObjectMaps.load(tmp_path / "nothing")
    with pytest.raises(OutputError):
        found.save(path / "below")
