"""What an object shows of itself: a few lines, a table when printed, an HTML table in a notebook."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser

import pytest
import torch
from helpers_correction import (
    SMALL,
    half_and_half,
    neuron_answers,
    noise_pictures,
    random_maps,
    split_model,
)
from helpers_workspace import new_workspace, save_model
from PIL import Image
from rich.console import Console

import crayon_sdk as crayon
from crayon_sdk._base.showing import as_html, as_text, fitted, plain
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional.neurons import TopPatches
from crayon_sdk.results.evaluation import GroupResult
from crayon_sdk.results.weight_changes import weight_changes

CLASSES = sorted(name for name in crayon.__all__ if isinstance(getattr(crayon, name), type))
LONG = "b" * 300


@pytest.fixture(scope="module")
def correction():
    dataset = noise_pictures()
    corrector = crayon.AttentionCorrector(split_model(), epochs=1, batch_size=6, device="cpu")
    return corrector.fit(dataset, random_maps(dataset), half_and_half(dataset), evaluate_on=dataset)


@pytest.fixture(scope="module")
def shown(tmp_path_factory, picture_folder, correction):
    """A real instance of every public class, with names as long as they come."""
    place, model, dataset = tmp_path_factory.mktemp("shown"), split_model(), noise_pictures()
    before, after = correction.before, correction.after
    answer = {"answer": "yes", "annotator": LONG, "question": LONG, "model": LONG, "extra": (("worker", LONG),)}
    return {
        "AnnotationSet": half_and_half(dataset),
        "AttentionCorrector": crayon.AttentionCorrector(model),
        "Card": crayon.Card(title=LONG, datasets=("me/birds",) * 20),
        "Comparison": crayon.compare({LONG: before, "after": after}),
        "Correction": correction,
        "CrayonError": crayon.CrayonError("expected this, got that"),
        "DataSource": crayon.DataSource(csv=f"{LONG}.csv"),
        "Evaluation": after,
        "Explainer": crayon.Explainer(model),
        "FurtherTraining": crayon.FurtherTraining(model),
        "ImageAnswer": crayon.ImageAnswer(id=LONG, **answer),
        "ImageDataset": dataset,
        "ModelSource": crayon.ModelSource(source=LONG),
        "NeuronAnswer": crayon.NeuronAnswer(neuron=0, patch=0, **answer),
        "NeuronPatches": crayon.Explainer(model).explain_neurons(dataset),
        "NeuronPruner": crayon.NeuronPruner(model),
        "DiscoveredGroups": crayon.find_groups(model, dataset, random_maps(dataset), half_and_half(dataset)),
        "ObjectMaps": crayon.find_objects(model, dataset, random_maps(dataset), half_and_half(dataset)),
        "Preprocessing": SMALL,
        "SaliencyMaps": random_maps(dataset),
        "SplitModel": model,
        "SpotAnswer": crayon.SpotAnswer(id=LONG, **answer),
        "UnaskedCorrector": crayon.UnaskedCorrector(model),
        "Workspace": new_workspace(place / "w", picture_folder, save_model(place / "m")),
    }


@pytest.mark.parametrize("name", CLASSES)
def test_repr_is_three_lines_at_most(shown, name):
    found = repr(shown[name])
    assert found.startswith(name)
    assert " object at 0x" not in found
    assert sum(math.ceil(len(line) / 120) for line in found.splitlines()) <= 3, found


def test_repr_says_what_matters(correction):
    model = repr(split_model())
    assert model.startswith("SplitModel(test_resnet, 2 classes, features ")
    assert repr(crayon.NeuronAnswer(neuron=0, patch=0, answer="no", annotator="ann")) == (
        "NeuronAnswer(answer='no', annotator='ann', neuron=0, patch=0)"
    )
    assert repr(crayon.Card(license="mit")) == "Card(license='mit')"
    assert repr(correction).startswith("Correction(attention of test_resnet, 18 answers, worst group ")


class Tables(HTMLParser):
    """Rows of cells, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def results(correction):
    pair = {"before": correction.before, "after": correction.after}
    changes = weight_changes(split_model().plain_state_dict(), correction.model.plain_state_dict())
    answers = half_and_half(noise_pictures())
    return {
        "evaluation": correction.after,
        "comparison": crayon.compare(pair),
        "changes": changes,
        "correction": correction,
        "answers": answers,
    }


def test_notebooks_get_a_table(correction):
    for name, result in results(correction).items():
        found = Tables(result._repr_html_())
        assert {"table", "th", "td"} <= found.tags, name
        assert "pre" not in found.tags
        assert len({len(row) for row in found.rows}) == 1, name
        assert len(found.rows) == 1 + len(result.table().rows)


def test_print_is_the_table_of_the_shell(correction):
    for result in (correction.after, crayon.compare({"before": correction.before, "after": correction.after})):
        shell = Console(file=io.StringIO(), width=100, color_system=None)
        shell.print(result.table())
        expected = [line.rstrip() for line in shell.file.getvalue().splitlines()]
        assert str(result).splitlines() == expected
    assert "worst group" in str(result)


def test_names_are_text_and_nothing_else():
    evil = "[red]<script>alert(1)</script>[/nope]"
    ids = [str(number) for number in range(4)]
    same = {"labels": dict.fromkeys(ids, 0), "membership": dict.fromkeys(ids, 0), "predictions": dict.fromkeys(ids, 0)}
    found = crayon.Evaluation((GroupResult(evil, 4, 4),), **same)
    both = crayon.compare({evil: found, "b": found})
    for result in (found, both):
        page = result._repr_html_()
        assert "<script" not in page
        assert evil in {cell for row in Tables(page).rows for cell in row}
        assert evil in str(result)


def test_a_wide_table_is_not_cut():
    from rich.table import Table

    table = Table(*(f"column {number}" for number in range(30)))
    table.add_row(*(["1"] * 30))
    assert "column 29" in as_text(table)
    assert "…" not in as_text(table)
    assert as_html(table).count("<th>") == 30
    assert plain("[b]") == r"\[b]"


@pytest.mark.parametrize("width", [200, 100, 80, 60, 48])
def test_a_narrow_table_loses_nothing(width):
    from rich.table import Table

    rows = [
        ("attention", "CRAYON-Attention", "answers about pictures, the maps", "waterbirds, biased-celeba-release"),
        ("afr", "Automatic Feature Reweighting (AFR)", "", "waterbirds-own, celeba-own"),
    ]
    table = Table("name", "method", "needs besides labels", "presets", title="All of them", caption="and no more")
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(fitted(table, console))
    found = console.file.getvalue()
    assert max(len(line) for line in found.splitlines()) <= width
    assert {word for row in rows for cell in row for word in cell.split()} <= set(found.split())
    assert "All of them" in found
    assert "and no more" in found
    assert ("━" in found) == (width >= 80)
    if width < 80:  # the rows are below each other; nothing is said where there is nothing
        assert (found.count("needs besides labels"), found.count("presets")) == (1, 2)


def test_few_columns_are_folded():
    from rich.table import Table

    table = Table("", "", show_header=False)
    table.add_row("folder", "a/long/path/" * 5)
    console = Console(file=io.StringIO(), width=40, color_system=None)
    console.print(fitted(table, console))
    lines = console.file.getvalue().splitlines()[1:-1]
    assert "".join(line.split("│")[2].strip() for line in lines) == "a/long/path/" * 5


def test_a_correction_that_was_not_measured_shows_its_counts():
    pruned = crayon.NeuronPruner(split_model(), epochs=1, device="cpu").fit(noise_pictures(), neuron_answers([1, 2]))
    rows = dict(row for row in Tables(pruned._repr_html_()).rows)
    assert rows["pruned"] == "2"
    assert repr(pruned) == "Correction(pruning of test_resnet, 6 answers)"


def test_notebooks_get_small_pictures(shown):
    for name in ("SaliencyMaps", "NeuronPatches"):
        page = shown[name]._repr_html_()
        found = re.findall(r'<img alt="(.+?)" width="(\d+)" height="(\d+)" src="data:image/png;base64,(.+?)">', page)
        assert len(found) == page.count("<img") > 0, name
        assert len(page) < 300_000
        assert repr(shown[name]) in page
        for alt, width, height, data in found:
            assert alt
            with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                assert picture.size == (int(width), int(height))
                assert len(picture.getcolors(100_000)) > 1, alt  # there is something to see


def test_a_glance_at_maps_is_short_and_honest():
    evil = "<script>alert(1)</script>"
    ids = (evil, "a/long/path/to/pictures/0001.png", *(f"{number}.png" for number in range(28)))
    evidence = torch.arange(30) != 1
    maps = crayon.SaliencyMaps(ids, torch.rand(30, 5, 7), torch.zeros(30, dtype=torch.int64), evidence)
    page = maps._repr_html_()
    assert page.count("<img") == 12
    assert "The first 12" in page
    assert page.count("no evidence") == 3  # caption, title and alternative text of one map
    without = base64.b64decode(re.findall(r"base64,([^\"]+)", page)[1])
    with Image.open(io.BytesIO(without)) as picture:
        assert picture.getcolors() == [(80 * 57, (244, 244, 244))]
    assert "<script" not in page
    assert "<figcaption>…s/0001.png, no evidence</figcaption>" in page  # the end, where paths differ
    assert 'width="80" height="57"' in page
    assert maps.select([])._repr_html_().count("<img") == 0
    odd = torch.tensor([[[float("nan"), 2.0], [-1.0, 0.5]]])
    assert crayon.SaliencyMaps(("a",), odd, torch.tensor([0]))._repr_html_().count("<img") == 1


def test_a_glance_at_patches_marks_their_places():
    values = torch.tensor([[0.5, 0.1], [-torch.inf, -torch.inf], [3.0, -torch.inf]])
    samples, cells = torch.tensor([[0, 1], [-1, -1], [1, -1]]), torch.tensor([[0, 3], [-1, -1], [2, -1]])
    patches = NeuronPatches.from_top(TopPatches(values, samples, cells), ["a.png", "b.png"], (2, 2))
    page = patches._repr_html_()
    assert re.findall(r"neuron (\d+), activation up to ([\d.]+)", page) == [("2", "3"), ("0", "0.5")]
    assert re.findall(r'alt="([^"]+)"', page) == [
        "row 2, column 1 of b.png",
        "row 1, column 1 of a.png",
        "row 2, column 2 of b.png",
    ]
    first = base64.b64decode(re.findall(r"base64,([^\"]+)", page)[0])
    with Image.open(io.BytesIO(first)) as picture:
        orange, paper = picture.getpixel((10, 60)), picture.getpixel((60, 10))
    assert orange != paper == (244, 244, 244)
    nothing = NeuronPatches.from_top(TopPatches(values[:0], samples[:0], cells[:0]), ["a.png"], (2, 2))
    assert nothing._repr_html_().count("<img") == 0
