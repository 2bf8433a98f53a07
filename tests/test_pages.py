"""The Python blocks of the pages run as they stand, page by page, on small generated pictures.

A page is read from top to bottom, so its blocks share their names. What a page calls by name without making it is here:
`model`, `train`, `test`, `val`, `maps`, `answers` ... A block that cannot run carries a comment above it that says why:
`<!-- not run: it needs ... -->`. README and the first page are run by tests/test_first_steps.py.
"""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers_workspace import save_model

import crayon_sdk as crayon

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>.+?) -->\n\n)?^```python\n(?P<code>.*?)^```$", re.M | re.S)

# Pages that are not run here, and why.
ELSEWHERE = {
    "index.md": "tests/test_first_steps.py",
    "benchmarks/table1.md": "takes minutes; tests/paper/test_table1.py does it on less",
    "concepts/groups-without-labels.md": "needs groups that are reliable; tests/explain/test_discovered_groups.py",
    "how-to/onnx.md": "tests/models/test_onnx.py",
    "notebooks/explain_answer_correct.md": "tests/test_notebooks.py",
    "notebooks/transfer_and_publish.md": "tests/test_notebooks.py",
}

# Where the reader has a model on the Hub or weights of the real size, the test has a folder and small ones.
STAND_INS = {
    "hf-hub:me/birds-corrected@COMMIT": "local-dir:birds-corrected",
    "hf-hub:me/birds-corrected": "local-dir:birds-corrected",
    'load_correction("local-dir:': 'load_correction("',
    'ModelSource(source="hf-hub:me/birds")': 'ModelSource(source="local-dir:birds-resnet50")',
    'csv="metadata.csv"': 'csv="birds/metadata.csv"',
    'correct("both")': 'correct("both", settings={"attention": {"epochs": 1}})',
    "local-dir:pets-corrected": "local-dir:birds-corrected",
    "JustTrainTwice(model, upweight=50)": "JustTrainTwice(model, upweight=2, epochs=1, first_epochs=1)",
}
SHORT = re.compile(r"((?:AttentionCorrector|FurtherTraining|UnaskedCorrector)\(\w+)")  # one epoch does


def pages() -> dict[str, list[str]]:
    """Path below docs/ -> its blocks that run."""
    found = {}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        blocks = [match["code"] for match in BLOCK.finditer(path.read_text(encoding="utf-8")) if not match["why"]]
        name = path.relative_to(ROOT / "docs").as_posix()
        if blocks and name not in ELSEWHERE:
            found[name] = blocks
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory, picture_folder):
    """What the pages start from: pictures, models, a correction, and answers about pictures, spots and neurons."""
    place = tmp_path_factory.mktemp("pages")
    rows = []
    for row in csv.DictReader((picture_folder / "metadata.csv").read_text(encoding="utf-8").splitlines()):
        label = {"cat": "landbird", "dog": "waterbird"}[row["label"]]
        image, mask = (f"{split}/{label}/{int(Path(row['image']).stem) + 1:04}" for split in (row["split"], "masks"))
        for source, target in ((row["image"], f"{image}.jpg"), (row["mask"], f"{mask}.png")):
            (place / "birds" / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture_folder / source, place / "birds" / target)
        rows.append((f"{image}.jpg", label, row["split"], row["place"], f"{mask}.png"))
    with (place / "birds" / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "split", "place", "mask"), *rows])
    shutil.copy(place / "birds" / "train" / "landbird" / "0001.jpg", place / "bird.jpg")
    shutil.copy(ROOT / "docs" / "images" / "report-maps.png", place / "before-after.png")
    save_model(place / "birds-resnet50", evidence=True)
    shutil.copytree(place / "birds-resnet50", place / "birds-convnext")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        names = {kind: start(kind) for kind in ("table", "folder")}
        corrector = crayon.AttentionCorrector(names["table"]["model"], epochs=1, batch_size=8, spread="never")
        corrector.fit(*(names["table"][name] for name in ("train", "maps", "answers"))).save("birds-corrected")
    return place, names


def start(kind: str) -> dict[str, object]:
    """What a page may call by name, with the pictures read from the table or from the folder."""
    model = crayon.load_model("local-dir:birds-resnet50")
    test = crayon.ImageDataset.from_csv("birds/metadata.csv", split="test", group_columns=["place"])
    train = crayon.ImageDataset.from_csv("birds/metadata.csv", split="train", mask_column="mask")
    explainer = crayon.Explainer(model)
    maps = explainer.explain(train)
    answers = crayon.simulate_answers(maps, train, annotators=2, strictness=(0.1, 0.2))
    if kind == "table":
        answers = answers + crayon.simulate_neuron_answers(explainer.explain_neurons(train), train)
    else:
        train = crayon.ImageDataset.from_folder("birds/train")
        maps = explainer.explain(train)
        answers = crayon.AnnotationSet(
            each.model_copy(update={"id": each.id.removeprefix("train/")}) for each in answers.image_answers
        )
    names = {"crayon": crayon, "model": model, "train": train, "maps": maps, "answers": answers, "test": test}
    return {**names, "val": test, "validation": test, "fresh": test, "ids": maps.ids[:4]}


@pytest.mark.parametrize("page", pages())
def test_the_blocks_of_a_page_run(page, world, monkeypatch):
    place, names = world
    monkeypatch.chdir(place)
    code = "\n".join(pages()[page])
    for shown, here in STAND_INS.items():
        code = code.replace(shown, here)
    code = SHORT.sub(r"\1, epochs=1", code)
    known = names["folder" if "from_folder" in code else "table"]
    Path("answers.jsonl").unlink(missing_ok=True)
    known["answers"].save("answers.jsonl")
    with torch.random.fork_rng(devices=[]):
        exec(compile(code, page, "exec"), dict(known))


def test_a_block_that_is_not_run_says_why():
    for path in (ROOT / "docs").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert len(BLOCK.findall(text)) == len(re.findall(r"^[ \t]*```python", text, re.M)), path.name
        assert not re.search(r"<!-- not run: -->|<!-- not run -->", text), path.name


def test_links_of_the_pages_outside_the_site_lead_somewhere():
    for page in (*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md")):
        for _, link in re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            if re.match(r"https?:", link):
                continue
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in slugs, f"{page.name}: {link}"


def test_every_picture_says_what_it_shows():
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        assert "![](" not in page.read_text(encoding="utf-8"), page.name
