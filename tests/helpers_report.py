"""What the tests of report and card share: a correction, with names that want to be markup."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import torch
from helpers_correction import SIDE, SMALL, half_and_half, image_answers, neuron_answers, random_maps, split_model

from crayon_sdk.correct.attention import AttentionCorrector
from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.data.dataset import ImageDataset
from crayon_sdk.explain.explainer import Explainer
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.models.split import SplitModel
from crayon_sdk.results.correction import Correction

EVIL = ("<script>alert(1)</script>", "b|c: {x} `*_[y](http://z.example) $5$ www.z.example @you ![i](j)")
PLACES = ("la\u202end", 'wa"ter&<b>')


def evil_pictures(count: int = 12, *, seed: int = 0, grouped: bool = True, prefix: str = "s") -> ImageDataset:
    """Noise, brighter in the second class; every name in it is markup somewhere."""
    images = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    labels = [position % 2 for position in range(count)]
    images[1::2] += 0.3
    return ImageDataset.from_torch(
        [(image, label) for image, label in zip(images, labels, strict=True)],
        class_names=list(EVIL),
        ids=[f"{prefix}<i>{position}" for position in range(count)],
        groups={"place": [PLACES[position // 2 % 2] for position in range(count)]} if grouped else None,
        preprocessed=True,
        preprocessing=SMALL,
    )


@dataclass(frozen=True)
class Case:
    """A correction and what its report can be given."""

    correction: Correction
    original: SplitModel
    train: ImageDataset
    test: ImageDataset
    patches: NeuronPatches

    def material(self) -> dict[str, Any]:
        return {"dataset": self.test, "original": self.original, "train": self.train, "patches": self.patches}


def make_case() -> Case:
    """Pruning, then Attention, measured after each epoch."""
    train, test, original = evil_pictures(), evil_pictures(8, seed=1, prefix="t"), split_model()
    pruned = NeuronPruner(original, epochs=2, device="cpu").fit(train, neuron_answers(range(5), range(5, 9)), test)
    published = {"spread": "never"}  # so that the random maps of so small a model still change
    corrector = AttentionCorrector(pruned.model, epochs=2, batch_size=6, lr=1e-3, device="cpu", **published)
    found = corrector.fit(train, random_maps(train), half_and_half(train), test)
    return Case(found, original, train, test, Explainer(original, device="cpu").explain_neurons(train, 2))


def bare_correction() -> Correction:
    """Of answers about two pictures, without an evaluation."""
    train = evil_pictures(4, grouped=False)
    answers = image_answers({"s<i>0": "yes", "s<i>1": "no"})
    corrector = AttentionCorrector(split_model(1), epochs=0, device="cpu", background_swap=0.0)
    return corrector.fit(train, random_maps(train), answers)


class Page(HTMLParser):
    """Tags with their attributes, rows of tables, and all text."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text, self._open = "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        expected = self._open.pop()
        if expected != tag:
            raise ValueError(f"</{tag}> closes <{expected}>")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def still_open(self) -> list[str]:
        return self._open

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
