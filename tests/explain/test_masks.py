"""Answers from object masks: thresholds, disagreement, noise, and what has no mask."""

from __future__ import annotations

import pytest
import torch

from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.records import ImageAnswer, SpotAnswer
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import DataError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.explain.masks import (
    drawn,
    highlight_share,
    simulate_answers,
    simulate_neuron_answers,
    simulate_spot_answers,
)
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional.neurons import TopPatches

SIDE = Preprocessing(size=(8, 8), interpolation="nearest")
SHARES = {"none": 0.0, "little": 0.25, "half": 0.5, "most": 0.75, "all": 1.0}


def dataset_of(masks, **options):
    pictures = [(torch.zeros(3, 8, 8), 0)] * len(masks)
    return ImageDataset.from_torch(pictures, ids=list(masks), masks=list(masks.values()), **options)


@pytest.fixture
def masks():
    """The object fills the upper rows: 0, 2, 4, 6 or 8 of 8."""
    made = {}
    for sample, share in SHARES.items():
        mask = torch.zeros(8, 8)
        mask[: round(share * 8)] = 1
        made[sample] = (mask * 255).byte().numpy()
    return dataset_of(made)


@pytest.fixture
def maps():
    return SaliencyMaps(
        tuple(SHARES), torch.ones(5, 4, 4), torch.tensor([0, 1, 0, 1, 0]), model="f", preprocessing=SIDE
    )


def words(answers, sample):
    return [answer.answer for answer in answers.image_answers if answer.id == sample]


def test_the_share_of_the_strong_highlight(masks, maps):
    assert highlight_share(maps, masks) == pytest.approx(SHARES)
    # Cells of at most half the maximum do not count, and the others count as strongly as they are.
    values = torch.full((5, 4, 4), 0.5)
    values[:, 0, 0], values[:, 3, 0], values[:, 3, 3] = 1.0, 0.6, 0.9
    weighted = SaliencyMaps(maps.ids, values, maps.targets, preprocessing=SIDE)
    shares = highlight_share(weighted, masks)
    assert shares["half"] == pytest.approx(1.0 / 2.5)
    assert (shares["none"], shares["all"]) == (0, pytest.approx(1))


def test_two_annotators_disagree_in_between(masks, maps):
    answers = simulate_answers(maps, masks)
    assert len(answers) == 10
    assert answers.all_simulated
    assert answers.annotators == ("simulated-1", "simulated-2")
    assert words(answers, "little") == ["no", "no"]
    assert words(answers, "half") == ["yes", "no"]
    assert words(answers, "most") == ["yes", "yes"]
    assert answers.image_relevance() == {
        "none": "irrelevant", "little": "irrelevant", "half": "mixed", "most": "relevant", "all": "relevant",
    }  # fmt: skip
    assert [answer.target for answer in answers if answer.id == "most"] == [1, 1]
    assert {answer.model for answer in answers} == {"f"}


@pytest.mark.parametrize(
    ("annotators", "strictness", "expected"),
    [
        (1, (0.4, 0.6), ["no", "no", "no", "yes", "yes"]),  # one annotator stands in the middle, 0.5 is not above
        (1, (0.0, 0.0), ["no", "yes", "yes", "yes", "yes"]),
        (1, (1.0, 1.0), ["no", "no", "no", "no", "no"]),
        (3, (0.2, 0.9), ["nnn", "ynn", "ynn", "yyn", "yyy"]),
    ],
)
def test_thresholds_are_spread_evenly(masks, maps, annotators, strictness, expected):
    answers = simulate_answers(maps, masks, annotators=annotators, strictness=strictness)
    found = ["".join(word[0] for word in words(answers, sample)) for sample in SHARES]
    assert found == [word if set(word) <= {"y", "n"} else word[0] for word in expected]


def test_noise(masks, maps):
    plain = [answer.answer for answer in simulate_answers(maps, masks)]
    flipped = [answer.answer for answer in simulate_answers(maps, masks, noise=1.0)]
    assert all({one, other} == {"yes", "no"} for one, other in zip(plain, flipped, strict=True))
    state = torch.get_rng_state()
    noisy = simulate_answers(maps, masks, noise=0.5, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert simulate_answers(maps, masks, noise=0.5, seed=3) == noisy
    assert simulate_answers(maps, masks, noise=0.5, seed=4) != noisy
    assert 0 < sum(one != other.answer for one, other in zip(plain, noisy, strict=True)) < 10


def test_no_evidence_or_no_mask_means_no_answer(maps):
    mask = torch.full((8, 8), 255, dtype=torch.uint8).numpy()
    masks = dataset_of({sample: None if sample == "none" else mask for sample in SHARES})
    evidence = torch.tensor([True, False, True, True, True])
    maps = SaliencyMaps(maps.ids, maps.values, maps.targets, evidence=evidence, preprocessing=SIDE)
    assert {answer.id for answer in simulate_answers(maps, masks)} == {"half", "most", "all"}


def test_data_without_masks(maps, masks):
    bare = ImageDataset.from_torch([(torch.zeros(3, 8, 8), 0)] * 5, ids=list(SHARES))
    with pytest.raises(DataError, match=r"object masks are needed; the data set has none"):
        simulate_answers(maps, bare)
    with pytest.raises(DataError, match=r"lacks 2 of 5 samples: 'none', 'all'; use the data set that was explained"):
        simulate_answers(maps, masks.subset(["little", "half", "most"]))


def test_how_the_pictures_were_cropped_must_be_known(maps, masks):
    maps = SaliencyMaps(maps.ids, maps.values, maps.targets)
    with pytest.raises(SettingsError, match=r"not known how the pictures were cropped.*with_preprocessing"):
        simulate_answers(maps, masks)
    assert len(simulate_answers(maps, masks.with_preprocessing(SIDE))) == 10


def test_settings(maps, masks):
    with pytest.raises(SettingsError, match=r"annotators >= 1 and noise from 0 to 1, got 0 and 0.0"):
        simulate_answers(maps, masks, annotators=0)
    with pytest.raises(SettingsError, match=r"got 2 and 1.5"):
        simulate_answers(maps, masks, noise=1.5)
    with pytest.raises(SettingsError, match=r"0 <= low <= high <= 1, got \(0.6, 0.4\)"):
        simulate_answers(maps, masks, strictness=(0.6, 0.4))


# --- neurons ---


@pytest.fixture
def patches():
    """Neurons 0 and 1 share the upper left cell of "half"; neuron 0 also has its lower right one."""
    top = TopPatches(
        torch.tensor([[2.0, 1.0], [1.0, 0.5]]), torch.tensor([[2, 2], [2, 0]]), torch.tensor([[0, 15], [0, 0]])
    )
    return NeuronPatches.from_top(top, list(SHARES), (4, 4), model="f", preprocessing=SIDE)


def test_every_neuron_of_a_shared_patch_gets_its_answer(masks, patches):
    answers = simulate_neuron_answers(patches, masks, annotators=2)
    assert answers.all_simulated
    found = {(one.neuron, one.patch, one.annotator): (one.id, one.answer) for one in answers.neuron_answers}
    assert len(found) == len(answers) == 8
    for annotator in ("simulated-1", "simulated-2"):
        assert found[0, 0, annotator] == found[1, 0, annotator] == ("half", "yes")
        assert found[0, 1, annotator] == ("half", "no")
        assert found[1, 1, annotator] == ("none", "no")


def test_neuron_noise_and_coverage(masks, patches):
    plain = simulate_neuron_answers(patches, masks)
    flipped = simulate_neuron_answers(patches, masks, noise=1.0)
    assert all(one.answer != other.answer for one, other in zip(plain, flipped, strict=True))
    noisy = [simulate_neuron_answers(patches, masks, noise=0.5, seed=seed) for seed in range(6)]
    for answers in noisy:  # a shared patch was looked at once
        shared = {one.answer for one in answers.neuron_answers if (one.neuron, one.patch) in {(0, 0), (1, 0)}}
        assert len(shared) == 1
    assert noisy[0] == simulate_neuron_answers(patches, masks, noise=0.5, seed=0)
    assert {one.answer for one in simulate_neuron_answers(patches, masks, coverage=1.0)} == {"no"}
    with pytest.raises(SettingsError, match=r"expected coverage from 0 to 1, got 2"):
        simulate_neuron_answers(patches, masks, coverage=2)


def test_drawn_answers_are_few_marked_and_nested():
    answers = AnnotationSet(
        ImageAnswer(id=f"{number}.png", answer="yes", annotator=name, simulated=True)
        for number in range(20)
        for name in ("a", "b")
    )
    few, more = drawn(answers, 3, seed=1), drawn(answers, 9, seed=1)
    assert drawn(answers, 3, seed=1) == few
    assert set(few) < set(more) < set(answers)
    assert len(few) == 6
    assert len({answer.id for answer in few}) == 3
    assert few.is_simulated
    assert drawn(answers, 3, seed=2) != few
    assert drawn(answers, None) is answers
    assert len(drawn(answers, 0)) == 0
    with pytest.raises(SettingsError, match="expected count >= 0, got -1"):
        drawn(answers, -1)


def test_spots_are_judged_by_their_share(masks):
    """The highlight covers everything; its brightest place lies at the top, or in row 2 of 4 (rows 4 and 5 of 8)."""
    values = torch.full((5, 4, 4), 0.6)
    values[:, 0, 1] = 1.0
    maps = SaliencyMaps(tuple(SHARES), values, torch.tensor([0, 1, 0, 1, 0]), model="f", preprocessing=SIDE)
    found = simulate_spot_answers(maps, masks)
    assert found.spot_answers == tuple(found)
    assert found.all_simulated
    assert found.spot_relevance() == {
        "none": "irrelevant", "little": "relevant", "half": "relevant", "most": "relevant", "all": "relevant",
    }  # fmt: skip
    assert ({each.model for each in found}, [each.target for each in found][:4]) == ({"f"}, [0, 0, 1, 1])
    assert found.annotators == ("simulated-1", "simulated-2")
    assert simulate_answers(maps, masks).image_relevance()["little"] == "irrelevant"

    # By hand: of the spot's rows some lie on the upper half, weighted by how bright they are.
    values = torch.zeros(5, 4, 4)
    values[:, 1, 1], values[:, 2, 1] = 0.8, 1.0
    maps = SaliencyMaps(tuple(SHARES), values, torch.zeros(5, dtype=torch.int64), preprocessing=SIDE)
    spot = maps.spots()["half"]
    share = float(spot[:4].sum() / spot.sum())
    assert 0 < share < 1
    for threshold, word in ((share - 1e-4, "yes"), (share + 1e-4, "no")):
        said = simulate_spot_answers(maps, masks, annotators=1, strictness=(threshold, threshold))
        assert next(each.answer for each in said if each.id == "half") == word


def test_spots_have_the_noise_and_the_refusals_of_pictures(masks, maps):
    plain = simulate_spot_answers(maps, masks)
    turned = simulate_spot_answers(maps, masks, noise=1.0)
    assert all({one.answer, other.answer} == {"yes", "no"} for one, other in zip(plain, turned, strict=True))
    assert simulate_spot_answers(maps, masks, noise=0.5, seed=3) == simulate_spot_answers(
        maps, masks, noise=0.5, seed=3
    )
    evidence = torch.tensor([True, False, True, True, True])
    some = SaliencyMaps(maps.ids, maps.values, maps.targets, evidence=evidence, preprocessing=SIDE)
    assert {each.id for each in simulate_spot_answers(some, masks)} == set(SHARES) - {"little"}
    for wrong, message in (
        ({"annotators": 0}, "expected annotators >= 1"),
        ({"noise": 2}, "noise from 0 to 1"),
        ({"strictness": (0.6, 0.4)}, "expected strictness"),
    ):
        with pytest.raises(SettingsError, match=message):
            simulate_spot_answers(maps, masks, **wrong)
    with pytest.raises(SettingsError, match="expected SaliencyMaps, got str"):
        simulate_spot_answers("maps", masks)


def test_pictures_and_spots_are_drawn_each_for_themselves():
    images = AnnotationSet(ImageAnswer(id=f"{number}.png", answer="yes", annotator="a") for number in range(20))
    spots = AnnotationSet(SpotAnswer(id=f"{number}.png", answer="no", annotator="a") for number in range(10, 30))
    few = drawn(images.merge(spots), 5, seed=1)
    assert (len(few.image_answers), len(few.spot_answers)) == (5, 5)
    assert few.only("image") == drawn(images, 5, seed=1)
    assert few.only("spot") == drawn(spots, 5, seed=1)
