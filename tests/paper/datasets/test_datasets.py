"""The three data sets in the layouts in which they are published, whole and with something missing."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest
from helpers_published import make_backgrounds, make_celeba, make_waterbirds

from crayon_sdk.errors import DataError, FileFormatError, MismatchError
from crayon_sdk.paper.datasets import (
    ABOUT,
    published_answers,
    read_backgrounds,
    read_biased_celeba,
    read_waterbirds,
)
from crayon_sdk.paper.datasets.backgrounds import FOLDERS, IMAGENET_TO_NINE, NINE

READERS = {"waterbirds": read_waterbirds, "biased-celeba": read_biased_celeba, "backgrounds": read_backgrounds}
MAKERS = {"waterbirds": make_waterbirds, "biased-celeba": make_celeba, "backgrounds": make_backgrounds}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each of them, with all its pictures, in one folder; not decoded, for they are one file."""
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def read(whole):
    return {name: READERS[name](root, decode=False) for name, root in whole.items()}


@pytest.mark.parametrize(
    ("name", "train", "test", "groups"),
    [
        ("waterbirds", 4795, 5794, "waterbird/land"),
        ("biased-celeba", 20200, 8000, "smiling/blond"),
        ("backgrounds", 45405, 4050, "wheeled vehicle"),
    ],
)
def test_counts_are_the_papers(read, name, train, test, groups):
    data = read[name]
    assert (len(data.train), len(data.test)) == (train, test)
    assert (data.validation is None) == (name != "waterbirds")
    assert groups in data.test.group_labels
    for split in ("train", "test"):
        assert Counter(getattr(data, split).group_labels) == ABOUT[name].groups[split]


@pytest.mark.parametrize(
    ("name", "counts", "neurons"),
    [
        ("waterbirds", (3414, 1229, 152), 1034),
        ("biased-celeba", (5207, 4779, 10214), 1925),
        ("backgrounds", (2417, 42799, 189), 407),
    ],
)
def test_published_answers_attach(read, shared, name, counts, neurons):
    data = read[name]
    answers = published_answers(data, shared / "reference" / "annotations")
    found = Counter(answers.image_relevance().values())
    assert tuple(found[word] for word in ("relevant", "mixed", "irrelevant")) == counts
    assert list(answers.image_relevance()) == list(data.train.ids)
    verdicts = Counter(answers.neuron_relevance().values())
    assert sum(verdicts.values()) == 2048
    assert verdicts["irrelevant"] == neurons


def test_published_answers_need_the_published_pictures(read, tmp_path):
    (tmp_path / "biased_celeba_gradcam.json").write_text("[]")
    (tmp_path / "biased_celeba_neuron.json").write_text("[]")
    with pytest.raises(FileFormatError, match="no published answers"):
        published_answers(read["waterbirds"], tmp_path)
    some = make_celeba(tmp_path / "some", people=600)
    drawn = read_biased_celeba(some, seed=1, strict=False, decode=False)
    with pytest.raises(DataError, match="instead of seed="):
        published_answers(drawn, tmp_path)
    with pytest.raises(MismatchError, match="all 20,200 training pictures"):
        published_answers(read_biased_celeba(some, strict=False, decode=False), tmp_path)


def test_order_is_that_of_the_lists(read, whole):
    lines = (whole["waterbirds"] / "waterbird_complete95_forest2water2" / "metadata.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    assert list(read["waterbirds"].train.ids) == [row[1] for row in rows if row[3] == "0"]
    listed = (whole["biased-celeba"] / "biased_celeba_black_hair_1_100_train.csv").read_text().split("\n")[1:-1]
    assert list(read["biased-celeba"].train.ids) == [line.split()[0] for line in listed]
    assert list(read["backgrounds"].train.ids) == sorted(read["backgrounds"].train.ids)
    assert read["backgrounds"].train.class_names == NINE


def test_a_draw_of_celeba_is_that_of_its_seed(tmp_path):
    root = make_celeba(tmp_path, people=6000, lists=False)
    first, again, other = (read_biased_celeba(root, seed=seed, decode=False, strict=False) for seed in (0, 0, 1))
    assert first.drawn
    assert first.train.ids == again.train.ids != other.train.ids
    assert list(first.train.ids) == sorted(first.train.ids)  # as CelebA has them
    partition = dict(line.split() for line in (root / "list_eval_partition.txt").read_text().splitlines())
    assert {partition[name] for name in first.train.ids} == {"0"}
    assert {partition[name] for name in first.test.ids} == {"1", "2"}


def test_small_copies_are_read_whole(tmp_path):
    """Pictures, masks and labels of every layout, decoded."""
    birds = read_waterbirds(make_waterbirds(tmp_path / "birds", share=0.002), strict=False)
    assert birds.train.has_masks
    assert birds.train.mask(birds.train.ids[0]).getextrema() == (255, 255)
    assert birds.validation is not None
    faces = read_biased_celeba(make_celeba(tmp_path / "faces", people=120), masks=True, strict=False)
    mask = faces.train.mask(faces.train.ids[0])
    assert mask.size == (178, 218)
    assert [mask.getpixel(point) for point in ((69, 109), (106, 113), (90, 153), (88, 135), (10, 10))] == [
        255, 255, 255, 0, 0,
    ]  # fmt: skip
    assert faces.train.image(faces.train.ids[0]).size == (178, 218)
    in9 = read_backgrounds(make_backgrounds(tmp_path / "in9", train=2, test=1), masks=True, strict=False)
    assert in9.train.mask(in9.train.ids[0]).getextrema() == (255, 255)
    assert sorted(in9.variants) == ["mixed_rand", "mixed_same"]
    assert in9.test.labels.tolist() == list(range(9))


def test_other_layouts_of_the_same(tmp_path):
    """As the authors of the method, and torchvision, lay them out."""
    birds = make_waterbirds(tmp_path / "birds", share=0.002)
    base = birds / "waterbird_complete95_forest2water2"
    (base / "images").mkdir()
    for folder in [each for each in base.iterdir() if each.is_dir() and each.name != "images"]:
        shutil.move(folder, base / "images")
    shutil.move(birds / "segmentations", base)
    assert read_waterbirds(base, strict=False).train.has_masks
    faces = make_celeba(tmp_path / "faces", people=120)
    (faces / "celeba").mkdir()
    for name in ("img_align_celeba", "list_attr_celeba.txt"):
        shutil.move(faces / name, faces / "celeba")
    assert len(read_biased_celeba(faces, strict=False).train)
    in9 = make_backgrounds(tmp_path / "in9", train=1, test=1)
    shutil.move(in9 / "training" / "original", in9 / "bg_challenge")
    assert len(read_backgrounds(in9 / "bg_challenge", strict=False).train) == 9


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_there_is_said_with_where_to_get_it(name, tmp_path):
    about = ABOUT[name]
    with pytest.raises(DataError) as raised:
        READERS[name](tmp_path)
    said = str(raised.value)
    assert len(about.places) >= 2
    for part in (*about.places, about.licence, about.size, *about.layout.splitlines(), f"crayon paper fetch {name}"):
        assert part in said


def test_counts_that_are_not_the_papers(tmp_path):
    some = make_waterbirds(tmp_path / "some", share=0.01)
    with pytest.raises(DataError, match=r"expected the 4,795 train .* waterbird/land: 1 instead of 56.*strict=False"):
        read_waterbirds(some)
    faces = make_celeba(tmp_path / "faces", people=600)
    with pytest.raises(DataError, match=r"20,200 train .* smiling/black: \d+ instead of 10,000"):
        read_biased_celeba(faces)
    with pytest.raises(DataError, match="100 train pictures of 'not smiling/black' to draw"):
        read_biased_celeba(faces, seed=0)
    in9 = make_backgrounds(tmp_path / "in9", train=1, test=1)
    with pytest.raises(DataError, match="4,050 test pictures of Backgrounds Challenge"):
        read_backgrounds(in9)


def test_what_is_missing_or_broken_is_named(tmp_path):
    birds = make_waterbirds(tmp_path / "birds", share=0.01)
    next((birds / "segmentations").rglob("*.png")).unlink()
    with pytest.raises(DataError, match=r"its mask .* is missing"):
        read_waterbirds(birds, strict=False)
    with pytest.raises(DataError, match="no such folder of masks"):
        read_waterbirds(birds, masks=birds / "nowhere", strict=False)
    faces = make_celeba(tmp_path / "faces", people=60)
    (faces / "mine.txt").write_text("000001.jpg\n000005.jpg\n")
    with pytest.raises(DataError, match=r"people with black or blond hair.*1 others: '000005.jpg'"):
        read_biased_celeba(faces, train_list=faces / "mine.txt", strict=False)
    (faces / "list_attr_celeba.txt").write_text("2\nBald Young\n000001.jpg 1 -1\n")
    with pytest.raises(DataError, match="it lacks 'Black_Hair'"):
        read_biased_celeba(faces, strict=False)
    (faces / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read"):
        read_biased_celeba(faces, strict=False)
    in9 = make_backgrounds(tmp_path / "in9", train=1, test=1)
    shutil.rmtree(in9 / "bg_challenge" / "mixed_rand" / "val" / FOLDERS[3])
    with pytest.raises(DataError, match="no pictures of 03_reptile"):
        read_backgrounds(in9, strict=False)
    shutil.rmtree(in9 / "training" / "only_fg")
    with pytest.raises(DataError, match="only_fg/train"):
        read_backgrounds(make_backgrounds(tmp_path / "b", train=0, test=1), masks=True, strict=False)


def test_imagenet_in_nine_classes():
    counts = Counter(IMAGENET_TO_NINE.values())
    assert [counts[number] for number in range(9)] == [116, 52, 42, 36, 35, 27, 26, 20, 16]
    # Spot checks against ImageNet's own names: tench, goldfinch, chihuahua, wolf, ant, baboon, cello, minivan, python.
    named = {
        0: "fish",
        11: "bird",
        151: "dog",
        269: "carnivore",
        310: "insect",
        372: "primate",
        486: "musical instrument",
    }
    assert {number: NINE[IMAGENET_TO_NINE[number]] for number in named} == named
    assert 999 not in IMAGENET_TO_NINE
