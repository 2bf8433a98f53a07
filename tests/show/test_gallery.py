"""Galleries of maps: every picture where it belongs, every name as text, nothing fetched."""

from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import MismatchError, OutputError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps
from crayon_sdk.show.overlays import overlay

SIDE = 64
EVIL = '<script>alert("x")</script>'
COLOURS = ("red", "lime", "blue", "yellow")


def pictures(ids, class_names=("cat", "dog")):
    items = [(Image.new("RGB", (SIDE, SIDE), COLOURS[row % 4]), row % 2) for row in range(len(ids))]
    return ImageDataset.from_torch(items, ids=ids, class_names=class_names)


def maps_of(ids, **more):
    """Map n has n + 1 of 16 cells highlighted."""
    values = torch.zeros(len(ids), 16)
    for row in range(len(ids)):
        values[row, : row + 1] = 1.0
    about = {"preprocessing": Preprocessing(size=(SIDE, SIDE))} | more
    return SaliencyMaps(tuple(ids), values.view(-1, 4, 4), torch.tensor([row % 2 for row in range(len(ids))]), **about)


class Page(HTMLParser):
    """What a browser would find: tags, pictures, and the text of the body."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.words, self._style = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._style = tag in ("style", "title")
        if tag == "img":
            about = dict(attrs)
            kind, _, data = about["src"].partition(",")
            assert kind == "data:image/jpeg;base64"
            self.images.append((about["alt"], Image.open(io.BytesIO(base64.b64decode(data)))))

    def handle_data(self, data):
        if not self._style and data.strip():
            self.words.append(data.strip())

    def handle_endtag(self, tag):
        self._style = False


def close(one, other):
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean()) < 4


@pytest.fixture
def four():
    ids = ["a.png", "b.png", "c.png", "d.png"]
    return pictures(ids), maps_of(ids)


def test_every_panel_holds_its_picture(four):
    dataset, maps = four
    page = Page(maps.gallery(dataset, cell=SIDE)._repr_html_())
    assert len(page.images) == 12
    for row, sample in enumerate(maps.ids):
        shown = dict(page.images[3 * row : 3 * row + 3])
        original = dataset.image(sample)
        assert close(shown[f"{sample}: Original"], original)
        assert close(shown[f"{sample}: Highlight Overlaid"], overlay(original, maps.values[row]))
        assert close(shown[f"{sample}: Highlight in Orange"], overlay(original, maps.values[row], style="orange"))
    assert "evidence for dog" in page.words
    assert "4 of 4 pictures, in the order given" in page.words


def test_a_page_is_complete_and_fetches_nothing(four, tmp_path):
    dataset, maps = four
    made = maps.gallery(dataset, tmp_path / "new" / "maps.html")
    text = (tmp_path / "new" / "maps.html").read_text(encoding="utf-8")
    assert made._repr_html_() in text
    assert text.startswith("<!DOCTYPE html>")
    assert "Content-Security-Policy\" content=\"default-src 'none'" in text
    assert not re.search(r"https?:|//|<script|<link|url\(|@import", re.sub(r"base64,[^\"]+", "", text))
    assert len(made) == 4
    assert repr(made) == "Gallery(4 of 4 pictures, in the order given)"


def test_names_are_text_everywhere(tmp_path):
    ids = [f"{EVIL}.png", '" onerror="alert(1)', "a&amp;b", "new\nline"]
    dataset, maps = pictures(ids, (EVIL, "dog\udcff ' & <b>")), maps_of(ids)
    maps.gallery(dataset, tmp_path / "maps.html", title=EVIL)
    page = Page((tmp_path / "maps.html").read_text(encoding="utf-8"))
    ours = "html head meta title body div style h1 p figure img span figcaption strong"
    assert set(page.tags) == set(ours.split())
    for text in (EVIL, f"evidence for {EVIL}", *ids[:3], "new line", "evidence for dog? ' & <b>"):
        assert text in page.words
    assert page.images[3][0] == f"{ids[1]}: Original"
    maps.gallery(dataset, tmp_path / "maps.png")


def test_a_sheet_shows_the_same_pictures(four, tmp_path):
    dataset, maps = four
    maps.gallery(dataset, tmp_path / "maps.png", ids=["b.png"], cell=SIDE)
    with Image.open(tmp_path / "maps.png") as sheet:
        seen = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert (0, 255, 0) in seen  # the original
    assert (255, 0, 0) not in seen
    assert (244, 244, 244) in seen  # where nobody looks


def test_order_ids_and_limit(four):
    dataset, maps = four

    def shown(**settings):
        return [card.id for card in maps.gallery(dataset, **settings).cards]

    assert shown(order="widest") == ["d.png", "c.png", "b.png", "a.png"]
    assert shown(ids=["c.png", "a.png"]) == ["c.png", "a.png"]
    assert shown(ids=["c.png", "a.png"], order="widest", limit=1) == ["c.png"]
    assert shown(limit=2) == ["a.png", "b.png"]
    order = torch.randperm(4, generator=torch.Generator().manual_seed(3)).tolist()
    assert shown(order="random", seed=3) == [maps.ids[row] for row in order]
    many = [f"{row:02}" for row in range(30)]
    dataset, maps = pictures(many), maps_of(many[:15])
    assert len(maps.gallery(dataset)) == len(maps.gallery(dataset, limit=None)) == 15
    thirty = SaliencyMaps(tuple(many), torch.ones(30, 4, 4), torch.zeros(30).long(), preprocessing=maps.preprocessing)
    assert (len(thirty.gallery(dataset)), len(thirty.gallery(dataset, limit=None))) == (24, 30)


def test_a_map_without_evidence_claims_nothing(four):
    dataset, maps = four
    empty = SaliencyMaps(
        maps.ids,
        torch.ones(4, 4, 4),
        maps.targets,
        evidence=torch.tensor([False, True, True, True]),
        preprocessing=maps.preprocessing,
    )
    made = empty.gallery(dataset, order="widest", cell=SIDE)
    assert made.cards[-1].id == "a.png"
    assert made.cards[-1].warning == "no evidence anywhere"
    assert Page(made._repr_html_()).words.count("no evidence anywhere") == 1
    assert set(np.asarray(made.cards[-1].panels[1][1]).flatten().tolist()) == {244}


def test_overlaid_alone_when_it_is_the_style(four):
    dataset, maps = four
    made = maps.gallery(dataset, limit=1, style="overlaid")
    assert [name for name, _ in made.cards[0].panels] == ["Original", "Highlight Overlaid"]


def test_what_is_refused_leaves_no_file(four, tmp_path):
    dataset, maps = four
    for settings in ({"order": "best"}, {"style": "green"}, {"limit": 0}, {"cell": 10}):
        with pytest.raises(SettingsError, match="expected order given, random, widest"):
            maps.gallery(dataset, tmp_path / "x.html", **settings)
    for name in ("x.jpg", "x", "x.html.gz"):
        with pytest.raises(SettingsError, match=r"ends in \.html or \.png"):
            maps.gallery(dataset, tmp_path / name)
    with pytest.raises(SettingsError, match="expected a list of sample ids"):
        maps.gallery(dataset, ids="a.png")
    with pytest.raises(MismatchError, match="no saliency map"):
        maps.gallery(dataset, ids=["z.png"])
    with pytest.raises(MismatchError, match=r"the data set lacks 3 of 4 pictures"):
        maps.gallery(dataset.subset(["a.png"]), tmp_path / "x.html")
    with pytest.raises(SettingsError, match="not known how the pictures were cropped"):
        maps_of(maps.ids, preprocessing=None).gallery(dataset)
    with pytest.raises(SettingsError, match="at least one row"):
        maps.gallery(dataset, tmp_path / "x.png", ids=[])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        maps.gallery(dataset, tmp_path / "file" / "x.html")
    assert os.listdir(tmp_path) == ["file"]
