"""The card is read with parsers: YAML for its head, CommonMark for its text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from helpers_report import EVIL, PLACES, bare_correction, make_case
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image

from crayon_sdk._base.text import one_line
from crayon_sdk.answers.annotations import AnnotationSet, SpotAnswer
from crayon_sdk.errors import DataError, OutputError, SettingsError
from crayon_sdk.results.card import Card, escaped, model_card
from crayon_sdk.results.correction import load_correction
from crayon_sdk.results.evaluation import Evaluation, GroupResult
from crayon_sdk.results.facts import answer_facts, summary


@pytest.fixture(scope="module")
def case():
    return make_case()


@pytest.fixture(scope="module")
def correction(case):
    return case.correction


def parts(text):
    """Head and body, as a reader of the format takes them apart."""
    assert text.startswith("---\n")
    head, _, body = text[4:].partition("\n---\n")
    return yaml.safe_load(head), body


def tokens(body):
    """All tokens of the body, those inside of paragraphs too."""
    found = MarkdownIt("commonmark").enable("table").parse(body)
    return [each for token in found for each in (token, *(token.children or ()))]


def kinds(body):
    return {token.type for token in tokens(body)}


def shown(body):
    """What a reader sees, paragraph by paragraph."""
    found = MarkdownIt("commonmark").enable("table").parse(body)
    return ["".join(map(seen, token.children)) for token in found if token.type == "inline"]


def seen(token):
    if token.type in ("text", "code_inline"):
        return token.content
    return " " if token.type == "softbreak" else ""


def table(body):
    cells = shown(body[body.index("| ") : body.index("## Answers")])
    return [cells[at : at + 4] for at in range(0, len(cells) - len(cells) % 4, 4)]


def test_the_head_has_what_the_hub_indexes(correction):
    card = Card(base_model="timm/resnet50.a1_in1k", datasets=("me/birds",), evaluated_on="test pictures")
    head, _ = parts(correction.card(card))
    assert head["library_name"] == "timm"
    assert head["pipeline_tag"] == "image-classification"
    assert head["base_model"] == "timm/resnet50.a1_in1k"
    assert head["base_model_relation"] == "finetune"
    assert head["datasets"] == ["me/birds"]
    assert head["metrics"] == ["accuracy"]
    assert "image-classification" in head["tags"]
    assert "simulated-answers" not in head["tags"]
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {"type": "me/birds", "name": "test pictures"}
    values = {each["name"]: each["value"] for each in result["metrics"]}
    after = correction.after
    assert values == {
        "Worst-group accuracy": pytest.approx(after.worst_group, abs=1e-6),
        "Mean-group accuracy": pytest.approx(after.mean_group, abs=1e-6),
        "Accuracy": pytest.approx(after.accuracy, abs=1e-6),
    }
    assert all(type(value) is float for value in values.values())


def test_the_hubs_own_reader_understands_the_head(correction):
    data = ModelCard(correction.card(Card(evaluated_on="test pictures", license="mit"))).data
    assert data.license == "mit"
    assert {each.metric_name for each in data.eval_results} == {
        "Worst-group accuracy",
        "Mean-group accuracy",
        "Accuracy",
    }


def test_the_text_has_no_markup_of_names(correction):
    card = Card(title=EVIL[1], evaluated_on=EVIL[0])
    _, body = parts(correction.card(card))
    assert not {"html_block", "html_inline", "link_open", "image"} & kinds(body)
    assert shown(body)[0] == EVIL[1]
    # Every paragraph that holds a name holds it as it is.
    text = "\n".join(shown(body))
    for name in (*EVIL, PLACES[1], one_line(PLACES[0])):
        assert name in text


@pytest.mark.parametrize(
    "name",
    [
        "x\n---\nlicense: evil", "---", "- a", "{a: b}", "[x]", "!!python/object:os.system", "&a *a", "'\"", "yes",
        "null", "1e3", "# x", "a: b", "%TAG", "\u0085x", "\ufeffy", "`", "@x", "|", ">",
    ],
)  # fmt: skip
def test_no_name_breaks_the_head(correction, name):
    plain, _ = parts(correction.card(Card(title="plain", evaluated_on="plain")))
    head, _ = parts(correction.card(Card(title=name, evaluated_on=name)))
    assert head["model-index"][0]["name"] == one_line(name)
    for each in (plain, head):
        each.pop("model-index")
    assert head == plain


MARKUP = ["<b>", "a|b", "*a*", "_a_", "`x`", "[a](b)", "![a](b)", "\\", "~~a~~", "# a", "&lt;", "$x$", "a\n\nb"]
MARKUP += ["1. a", "- a", "> a", "http://a.example", "<!-- a", "| - |"]


@pytest.mark.parametrize("name", MARKUP)
def test_escaped_text_is_shown_as_it_is(name):
    body = f"before {escaped(name)} after\n\n| {escaped(name)} | y |\n| --- | --- |\n| {escaped(name)} | z |\n"
    assert shown(body) == [f"before {one_line(name)} after", one_line(name), "y", one_line(name), "z"]
    assert not {"html_inline", "html_block", "link_open", "image", "em_open", "code_inline"} & kinds(body)


def test_nothing_becomes_a_link_or_a_mention_by_itself():
    assert "https://" not in escaped("see https://a.example")
    assert "www." not in escaped("www.a.example")
    assert re.search(r"(?<!\\)@", escaped("@somebody")) is None


def test_the_table_is_the_evaluation(correction):
    _, body = parts(correction.card())
    rows = table(body)
    assert rows[0] == ["group", "n", "before", "after"]
    expected = []
    for old, new in zip(correction.before.groups, correction.after.groups, strict=True):
        cells = [
            f"{100 * each.accuracy:.1f} ({100 * each.interval[0]:.1f} to {100 * each.interval[1]:.1f})"
            for each in (old, new)
        ]
        expected.append([one_line(new.name), str(new.total), *cells])
    assert rows[1 : 1 + len(expected)] == expected
    ends = [f"{100 * each.worst_group:.1f}" for each in (correction.before, correction.after)]
    assert rows[1 + len(expected)] == ["worst", "", *ends]
    assert [row[0] for row in rows[1 + len(expected) :]] == ["worst", "mean", "all pictures"]


def test_card_and_report_say_the_same(correction):
    facts = correction.facts(evaluated_on="test pictures")
    _, body = parts(model_card(facts, Card(evaluated_on="test pictures")))
    text = "\n".join(shown(body))
    for sentence in summary(facts):
        assert sentence in text
    for each in answer_facts(facts.answers):
        assert each.by in text
        assert each.agreed in text
    assert facts.fingerprint in text


def test_what_was_done_is_there(correction):
    _, body = parts(correction.card())
    text = "\n".join(shown(body))
    for record in (*correction.parents, correction.record):
        assert f"epochs {record.settings['epochs']}, lr {record.settings['lr']}" in text
    assert "CRAYON-Pruning (Lee et al., IEEE BigData 2024): " in text
    assert "5 pruned" in text


def test_the_lines_that_load_it_are_python(correction):
    _, body = parts(correction.card())
    (fence,) = [token for token in tokens(body) if token.type == "fence"]
    assert fence.info == "python"
    compile(fence.content, "<card>", "exec")
    assert 'timm.create_model("hf-hub:USER/NAME", pretrained=True)' in fence.content


def test_the_lines_name_the_repository_where_it_is_known(correction):
    assert 'timm.create_model("hf-hub:me/birds", pretrained=True)' in correction.card(Card(repo_id="me/birds"))
    with pytest.raises(SettingsError, match="repo_id as on the Hub"):
        Card(repo_id='me/birds"); evil("')


def test_a_model_that_timm_cannot_build_says_what_loads_it(correction):
    facts = replace(correction.facts(), library="crayon-sdk", load="model = x()  # ``` ````")
    head, body = parts(model_card(facts))
    assert head["library_name"] == "crayon-sdk"
    (fence,) = [token for token in tokens(body) if token.type == "fence"]
    assert fence.content == "model = x()  # ``` ````\n"


def test_without_an_evaluation_no_number_is_made_up():
    head, body = parts(bare_correction().card())
    assert "model-index" not in head
    assert "table_open" not in kinds(body)
    text = "\n".join(shown(body))
    assert "It was not measured." in text
    assert "Nobody measured this model; measure it before you use it." in text


def test_of_many_groups_the_worst_are_shown(correction):
    after = Evaluation(tuple(GroupResult(f"g{number:03}", 100 - number, 100) for number in range(100)))
    _, body = parts(replace(correction, before=None, after=after).card())
    rows = table(body)
    assert len(rows) == 1 + 30 + 3
    assert rows[1][0] == "g099"
    assert "the 30 of 100 that are right least often" in "\n".join(shown(body))


@pytest.mark.parametrize(
    ("own", "config", "expected"),
    [("mit", "Apache-2.0", "mit"), ("", "Apache-2.0", "apache-2.0"), ("", "", None), ("", "ask us: <b>", "other")],
)
def test_the_licence_is_named_or_left_out(correction, own, config, expected):
    head, _ = parts(model_card(replace(correction.facts(), license=config), Card(license=own)))
    assert head.get("license") == expected


def test_a_base_model_is_named_only_when_its_weights_were_read(case):
    model = case.original.copy()
    config = model.model.pretrained_cfg
    for source, expected in (("hf-hub", "me/birds"), ("", None), ("local-dir", None)):
        model.model.pretrained_cfg = {**config, "source": source, "hf_hub_id": "me/birds"}
        head, _ = parts(replace(case.correction, model=model).card())
        assert head.get("base_model") == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_model": "a b"}, {"base_model": "a/b/c"}, {"base_model": "../x"}, {"datasets": ("x\ny",)},
        {"license": "MIT or so"},
    ],
)  # fmt: skip
def test_names_that_the_hub_could_not_have_are_refused(wrong):
    with pytest.raises(SettingsError, match="expected"):
        Card(**wrong)


def test_pictures_are_copied_and_shown(correction, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "my <pic>.png")
    folder = correction.save(tmp_path / "saved", card=Card(images=(tmp_path / "my <pic>.png",)))
    assert (folder / "picture-1.png").read_bytes() == (tmp_path / "my <pic>.png").read_bytes()
    _, body = parts((folder / "README.md").read_text(encoding="utf-8"))
    (image,) = [token for token in tokens(body) if token.type == "image"]
    assert image.attrs["src"] == "picture-1.png"


def test_without_permission_there_is_no_picture(correction, tmp_path):
    folder = correction.save(tmp_path / "saved")
    assert sorted(path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg")) == []
    assert (folder / "README.md").read_text(encoding="utf-8") == correction.card()
    assert load_correction(folder).card() == correction.card()


@pytest.mark.parametrize("content", [None, b"no png"])
def test_a_picture_that_is_none_stops_the_whole_save(correction, tmp_path, content):
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png"):
        correction.save(tmp_path / "saved", card=Card(images=(tmp_path / "x.png",)))
    assert not (tmp_path / "saved").exists()


def test_names_of_pictures_are_plain(correction):
    for name in ("../x.png", "a b.png", "x.svg", "x](y).png"):
        with pytest.raises(SettingsError, match="plain names"):
            correction.card(images=[name])


def test_a_full_disk_leaves_nothing(correction, full_disk):
    Image.effect_noise((700, 700), 90).save(full_disk.parent / "big.png")
    with pytest.raises(OutputError, match="disk is full"):
        correction.save(full_disk / "saved", card=Card(images=(full_disk.parent / "big.png",)))
    assert list(full_disk.iterdir()) == []


def test_answers_about_spots_are_called_so():
    bare = bare_correction()
    spots = AnnotationSet(SpotAnswer(id=f"s{n}", answer="no" if n else "yes", annotator="ann") for n in range(4))
    _, body = parts(replace(bare, answers=spots).card())
    text = "\n".join(shown(body))
    assert (
        "To the question whether the brightest spot of a map lies on what matters, 75 % of the 4 answers were no."
        in text
    )
    assert "4 yes/no answers about 4 bright spots" in text
    _, body = parts(replace(bare, answers=bare.answers.merge(spots)).card())
    text = "\n".join(shown(body))
    assert "about 2 pictures and 4 bright spots" in text
    assert "To the question whether a map's highlight lies on what matters" in text
