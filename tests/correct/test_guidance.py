from __future__ import annotations

import pytest
import torch
from helpers_correction import image_answers, neuron_answers, noise_pictures, random_maps

from crayon_sdk.answers.annotations import AnnotationSet, ImageAnswer
from crayon_sdk.answers.records import SpotAnswer
from crayon_sdk.correct.guidance import current_targets, guidance_answers, guidance_of
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.errors import AnswerError, MismatchError
from crayon_sdk.explain.maps import SaliencyMaps

ANSWERS = {"s0": "yes", "s1": "no", "s2": ("yes", "no"), "s3": "no", "s5": "yes"}


@pytest.fixture
def dataset() -> ImageDataset:
    return noise_pictures(8)


def test_counts_and_sets_are_right(dataset):
    maps = random_maps(dataset)
    maps.evidence[5] = False
    found = guidance_of(dataset, maps, image_answers(ANSWERS), (2, 2))
    assert found.relevant.nonzero().flatten().tolist() == [0]
    assert found.irrelevant.nonzero().flatten().tolist() == [1, 3]
    assert dict(found.counts) == {
        "relevant": 1,
        "irrelevant": 2,
        "mixed": 1,
        "unanswered": 3,
        "without_evidence": 1,
    }
    for position in (0, 1, 3):
        assert torch.equal(found.reference[position], maps.values[position])
    assert torch.equal(found.reference[[2, 4, 5, 6, 7]], torch.ones(5, 2, 2))


def test_order_of_maps_and_answers_does_not_matter(dataset):
    maps = random_maps(dataset)
    turned = maps.select(list(reversed(maps.ids)))
    answers = AnnotationSet(reversed(list(image_answers(ANSWERS))))
    one, other = (
        guidance_of(dataset, maps, image_answers(ANSWERS), (2, 2)),
        guidance_of(dataset, turned, answers, (2, 2)),
    )
    assert torch.equal(one.reference, other.reference)
    assert torch.equal(one.relevant, other.relevant)
    assert torch.equal(one.irrelevant, other.irrelevant)


def test_kept_zero_maps_guide_with_ones(dataset):
    maps = random_maps(dataset)
    maps.evidence[5], maps.values[5] = False, 1.0
    found = guidance_of(dataset, maps, image_answers(ANSWERS), (2, 2), zero_maps="keep")
    assert found.relevant.nonzero().flatten().tolist() == [0, 5]
    assert found.counts["without_evidence"] == 0
    assert torch.equal(found.reference[5], torch.ones(2, 2))


def test_maps_of_another_size_are_resized_and_normalised(dataset):
    maps = random_maps(dataset, (6, 4))
    found = guidance_of(dataset, maps, image_answers(ANSWERS), (3, 2))
    slow = maps.values[0].view(3, 2, 2, 2).mean(dim=(1, 3))
    torch.testing.assert_close(found.reference[0], slow / slow.max())
    assert guidance_of(dataset, maps, image_answers(ANSWERS), (9, 9)).reference.shape == (8, 9, 9)


@pytest.mark.parametrize(("rule", "relevant"), [("unanimous", [0, 5]), ("majority", [0, 2, 5])])
def test_rule_decides(dataset, rule, relevant):
    answers = image_answers(ANSWERS | {"s2": ("yes", "no", "yes")})
    found = guidance_of(dataset, random_maps(dataset), answers, (2, 2), rule=rule)
    assert found.relevant.nonzero().flatten().tolist() == relevant


def test_only_mixed_answers_cannot_guide(dataset):
    answers = image_answers({"s0": ("yes", "no"), "s1": ("no", "yes")})
    with pytest.raises(AnswerError, match="no answer can guide anything: of 2 answered samples 2 are mixed and 0 have"):
        guidance_of(dataset, random_maps(dataset), answers, (2, 2))


def test_only_maps_without_evidence_cannot_guide(dataset):
    maps = random_maps(dataset)
    maps.evidence[:] = False
    with pytest.raises(AnswerError, match="0 are mixed and 2 have a map without evidence; give more answers"):
        guidance_of(dataset, maps, image_answers({"s0": "yes", "s1": "no"}), (2, 2))


@pytest.mark.parametrize("answers", [AnnotationSet(), neuron_answers([1])])
def test_no_answers_about_images(dataset, answers):
    with pytest.raises(AnswerError, match=r"expected answers about images or spots, got .* of which none is about one"):
        guidance_answers(answers, random_maps(dataset), dataset)


def test_answers_about_neurons_are_left_aside(dataset):
    both = image_answers(ANSWERS).merge(neuron_answers([1]))
    assert guidance_answers(both, random_maps(dataset), dataset) == image_answers(ANSWERS)


def test_ids_missing_in_the_data_set(dataset):
    answers = image_answers(ANSWERS | {"gone": "yes"})
    with pytest.raises(MismatchError, match=r"1 images that are not in the data set .*'gone'.*strict=False"):
        guidance_answers(answers, random_maps(dataset), dataset)
    used = guidance_answers(answers, random_maps(dataset), dataset, strict=False)
    assert used.dropped == 2
    assert len(used) == len(image_answers(ANSWERS))


def test_leaving_all_answers_out_is_refused(dataset):
    answers = image_answers({"train/s0": "yes", "train/s1": "no"})
    with pytest.raises(
        MismatchError, match=r"'train/s0', 'train/s1'\. Ids there look like 's0'.*none of these answers fits"
    ):
        guidance_answers(answers, random_maps(dataset), dataset)
    with pytest.raises(AnswerError, match=r"none of 4 answers is left: all are about another model, or about images"):
        guidance_answers(answers, random_maps(dataset), dataset, strict=False)


def test_ids_missing_in_the_maps(dataset):
    maps = random_maps(dataset).select(["s0", "s1", "s2", "s3"])
    with pytest.raises(MismatchError, match=r"1 images that are not in the maps .*'s5'"):
        guidance_answers(image_answers(ANSWERS), maps, dataset)
    assert guidance_answers(image_answers(ANSWERS), maps, dataset, strict=False).dropped == 2


def test_answers_for_another_model(dataset):
    plain = random_maps(dataset)
    maps = SaliencyMaps(plain.ids, plain.values, plain.targets, model="f" * 64)
    answers = image_answers({"s0": "yes"}, model="e" * 64)
    with pytest.raises(MismatchError, match="2 of 2 answers were made for another model than ffffffffffff"):
        guidance_answers(answers, maps, dataset)
    answers.add(ImageAnswer(id="s1", answer="no", annotator="p0"))  # of no known model: fits any
    used = guidance_answers(answers, maps, dataset, strict=False)
    assert [answer.id for answer in used] == ["s1"]
    assert used.dropped == 2


def test_targets_by_rule():
    labels = torch.tensor([1, 0, 1])
    assert torch.equal(current_targets("label", labels), labels)
    assert current_targets("predicted", labels) is None
    assert current_targets(0, labels).tolist() == [0, 0, 0]


def test_guidance_moves_to_a_device(dataset):
    found = guidance_of(dataset, random_maps(dataset), image_answers(ANSWERS), (2, 2))
    moved = found.to(torch.device("cpu"))
    assert torch.equal(moved.reference, found.reference)
    assert moved.counts == found.counts


def spot_answers(words):
    return AnnotationSet(SpotAnswer(id=sample, answer=word, annotator="ann") for sample, word in words.items())


def test_answers_about_spots_are_kept_apart(dataset):
    maps = random_maps(dataset)
    maps.evidence[7] = False
    both = image_answers(ANSWERS).merge(spot_answers({"s1": "yes", "s4": "no", "s6": "unsure", "s7": "yes"}))
    found = guidance_of(dataset, maps, guidance_answers(both, maps, dataset), (2, 2))
    assert found.relevant.nonzero().flatten().tolist() == [0, 5]
    assert found.irrelevant.nonzero().flatten().tolist() == [1, 3]
    assert (~found.spots.isnan()).nonzero().flatten().tolist() == [1, 4]
    assert found.spots[[1, 4]].tolist() == [1.0, 0.0]
    assert dict(found.counts) == {
        "relevant": 2, "irrelevant": 2, "mixed": 1, "unanswered": 0, "without_evidence": 1,
        "spots_on": 1, "spots_off": 1, "spots_mixed": 1,
    }  # fmt: skip
    for position in (0, 1, 3, 4, 5):
        assert torch.equal(found.reference[position], maps.values[position])


def test_spots_alone_are_enough(dataset):
    maps = random_maps(dataset)
    found = guidance_of(dataset, maps, spot_answers({"s0": "yes", "s1": "no"}), (2, 2))
    assert not found.relevant.any()
    assert not found.irrelevant.any()
    assert found.counts["unanswered"] == 6
    with pytest.raises(AnswerError, match="no answer can guide anything: of 1 answered samples 1 are mixed"):
        guidance_of(dataset, maps, spot_answers({"s0": "unsure"}), (2, 2))


def test_spots_count_by_how_many_agree(dataset):
    votes = {"s0": "yyyn", "s1": "nnu", "s2": "yn"}
    words = {"y": "yes", "n": "no", "u": "unsure"}
    answers = AnnotationSet(
        SpotAnswer(id=sample, answer=words[vote], annotator=str(person))
        for sample, said in votes.items()
        for person, vote in enumerate(said)
    )
    found = guidance_of(dataset, random_maps(dataset), answers, (2, 2))
    assert found.spots[:2].tolist() == pytest.approx([0.75, 0.5 / 3])
    assert found.spots[2:].isnan().all()
    assert [found.counts[name] for name in ("spots_on", "spots_off", "spots_mixed")] == [1, 1, 1]
