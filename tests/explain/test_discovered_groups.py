"""Groups without group labels: found where the surround is the shortcut, and not where it is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from helpers_workspace import crayon, new_workspace
from torch import nn

from crayon_sdk import (
    AnnotationSet,
    AttentionCorrector,
    DiscoveredGroups,
    Explainer,
    ImageDataset,
    Preprocessing,
    evaluate,
    find_groups,
    simulate_answers,
    simulate_spot_answers,
)
from crayon_sdk._base.files import write_json, write_tensors
from crayon_sdk.cli.demo_pictures import write_pictures
from crayon_sdk.errors import DataError, FileFormatError, MismatchError, SettingsError, StaleError
from crayon_sdk.explain.groups import Grounds
from crayon_sdk.models.rebuild import timm_config
from crayon_sdk.models.split import SplitModel
from crayon_sdk.workspace.shipping import typed_commands

VIEW = Preprocessing(size=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SOUND = Grounds(accuracy=0.9, chance=0.5, sureness=0.6, agreement=0.8, stability=0.9, unusual=40)


def trained(train):
    """Six epochs from random weights."""
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
    return SplitModel(network.eval(), preprocessing=VIEW, class_names=train.class_names)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Birds mostly in front of a forest, fish mostly in front of water."""
    folder = tmp_path_factory.mktemp("pictures") / "task"
    write_pictures(folder, train=300, test=80, size=64, correlation=0.9)
    return tuple(ImageDataset.from_csv(folder / "metadata.csv", split=split) for split in ("train", "test"))


@pytest.fixture(scope="module")
def train(task):
    return task[0]


@pytest.fixture(scope="module")
def model(train):
    return trained(train)


@pytest.fixture(scope="module")
def maps(model, train):
    return Explainer(model, device="cpu").explain(train)


@pytest.fixture(scope="module")
def answers(maps, train):
    """About the spots of a third of the pictures; hardly any whole map is on the object."""
    given = simulate_spot_answers(maps, train)
    return AnnotationSet(each for each in given if each.id in set(train.ids[:100]))


@pytest.fixture(scope="module")
def groups(model, train, maps, answers):
    return find_groups(model, train, maps, answers, device="cpu")


def places(dataset):
    """Whether a picture stands in front of what is not usual for its class."""
    usual = {"bird": "forest", "fish": "water"}
    return torch.tensor([usual[name.split("/")[0]] != name.split("/")[1] for name in dataset.group_labels])


def test_pictures_in_an_unusual_surround_are_found(groups, train):
    true = places(train)
    assert groups.reliable, groups.grounds
    assert groups.unusual[true].float().mean() > 0.8
    assert groups.unusual[~true].float().mean() < 0.03
    assert groups.grounds.unusual == int(groups.unusual.sum()) == sum(map(len, list(groups.members.values())[1:3]))
    assert "pictures stand in a surround that is not that of their class" in repr(groups)


def test_they_are_found_in_other_pictures_too(groups, model, task):
    held_out = task[1]
    found, true = groups.of(model, held_out, device="cpu"), places(held_out)
    assert found.ids == held_out.ids
    assert (found.unusual == true).float().mean() > 0.85
    true_groups = evaluate(model, held_out, device="cpu")
    discovered = evaluate(model, found.on(held_out), device="cpu")
    assert [each.name for each in discovered.groups] == ["bird/like bird", "bird/like fish", "fish/like bird",
                                                         "fish/like fish"]  # fmt: skip
    assert discovered.worst_group == pytest.approx(true_groups.worst_group, abs=0.15)


def test_the_model_and_the_random_state_come_back(groups, model, train, maps, answers):
    before, state = model.fingerprint, torch.random.get_rng_state()
    again = find_groups(model, train, maps, answers, device="cpu")
    assert torch.equal(again.surround, groups.surround)
    assert again.grounds == groups.grounds
    assert model.fingerprint == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_at_most_two_forward_passes(model, train, maps, answers):
    seen = []
    first = next(module for module in model.model.modules() if isinstance(module, nn.Conv2d))
    handle = first.register_forward_hook(lambda module, given, made: seen.append(len(made)))
    try:
        find_groups(model, train, maps, answers, device="cpu")
    finally:
        handle.remove()
    assert sum(seen) == 2 * len(train)


def test_where_surround_and_class_have_nothing_in_common_nothing_is_found(tmp_path, model):
    write_pictures(tmp_path / "even", train=120, test=40, size=64, correlation=0.5)
    even = ImageDataset.from_csv(tmp_path / "even" / "metadata.csv", split="train")
    plain = trained(even)
    maps = Explainer(plain, device="cpu").explain(even)
    found = find_groups(plain, even, maps, simulate_answers(maps, even), device="cpu")
    assert not found.reliable
    assert "no reliable groups found: " in found.grounds.in_words
    with pytest.raises(MismatchError, match="no reliable groups found"):
        found.on(even)


def test_every_ground_can_be_lacking():
    assert SOUND.reliable
    assert "40 pictures stand in a surround" in SOUND.in_words
    nan = float("nan")
    for changes, words in (
        ({"accuracy": 0.6}, "the surround hardly tells the class"),
        ({"unusual": 9}, "only 9 pictures"),
        ({"sureness": 0.3}, "without conviction"),
        ({"sureness": nan}, "without conviction"),
        ({"agreement": 0.5}, "the model itself sees only 50 %"),
        ({"agreement": nan}, "the model itself sees only"),
        ({"stability": 0.4}, "with other folds 60 %"),
    ):
        lacking = replace(SOUND, **changes)
        assert not lacking.reliable
        assert words in lacking.in_words
    assert replace(SOUND, accuracy=0.5, chance=0.1).reliable  # of ten classes


def test_names_of_ones_own(groups, train):
    named = groups.named({"fish": "water"})
    assert list(named.counts) == ["bird/like bird", "bird/water", "fish/like bird", "fish/water"]
    assert named.on(train).group_names == ("surround",)
    assert set(named.on(train).group_labels) == set(named.counts)
    with pytest.raises(SettingsError, match="expected classes of bird, fish, got 'cat'"):
        groups.named({"cat": "sofa"})
    with pytest.raises(SettingsError, match="another name for every surround"):
        groups.named({"fish": "water", "bird": "water"})


def test_other_pictures_are_refused(groups, task):
    with pytest.raises(MismatchError, match=r"80 of 80 pictures are not among those that groups were found in.*of\(\)"):
        groups.on(task[1])
    with pytest.raises(DataError):
        groups.on("pictures")


def test_save_and_load(groups, model, task, tmp_path):
    groups.named({"fish": "water"}).save(tmp_path / "groups.safetensors")
    again = DiscoveredGroups.load(tmp_path / "groups.safetensors")
    assert (again.ids, again.grounds, again.class_names) == (groups.ids, groups.grounds, groups.class_names)
    assert again.names == {"fish": "water"}
    assert torch.equal(again.surround, groups.surround)
    one, two = (each.of(model, task[1], device="cpu") for each in (groups, again))
    assert torch.equal(one.surround, two.surround)
    whole = (tmp_path / "groups.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError):
        DiscoveredGroups.load(tmp_path / "half.safetensors")


@pytest.fixture(scope="module")
def workspace(model, task, tmp_path_factory):
    """A workspace of the same pictures, with answers and groups."""
    folder = tmp_path_factory.mktemp("work")
    write_tensors(folder / "model" / "model.safetensors", model.plain_state_dict(), {"format": "pt"})
    write_json(folder / "model" / "config.json", timm_config(model))
    pictures = task[0].files[0].parents[2]
    found = new_workspace(folder / "ws", pictures, folder / "model")
    found.explain(sheet=0, device="cpu")
    found.simulate_answers(kind="spot", count=100)
    return found


def test_in_a_workspace(workspace, train):
    shell = ("-w", workspace.folder)
    refused = crayon("evaluate", "original", "--groups", "discovered", *shell)
    assert refused.exit_code == 4
    assert "groups.safetensors" in refused.output
    assert "crayon groups" in refused.output

    found = crayon("groups", "--sheet", 2, "--device", "cpu", *shell)
    assert found.exit_code == 0, found.output
    assert "bird/like fish" in found.output
    assert "pictures stand in a surround" in found.output
    sheets = sorted(path.name for path in (workspace.folder / "pictures").iterdir())
    assert sheets == ["groups-1.png", "groups-2.png", "groups-3.png", "groups-4.png"]
    first = workspace.find_groups(sheet=0)
    again = workspace.find_groups(sheet=0)
    assert torch.equal(first.surround, again.surround)
    assert workspace.find_groups(names={"fish": "water", "bird": "forest"}, sheet=0).reliable

    by_columns = workspace.evaluate(["original"])["original"]
    discovered = workspace.evaluate(["original"], groups="discovered")["original"]
    assert [each.name for each in by_columns.groups] == ["bird/forest", "bird/water", "fish/forest", "fish/water"]
    assert [each.name for each in discovered.groups] == ["bird/forest", "bird/water", "fish/forest", "fish/water"]
    assert discovered.worst_group == pytest.approx(by_columns.worst_group, abs=0.15)
    states = {each.path: each.state for each in workspace.status()}
    assert states["groups.safetensors"] == "fresh"
    assert states["evaluations/test-discovered/original.json"] == "fresh"

    one = {"epochs": 1, "batch_size": 64}
    made = workspace.correct("erm", settings=one, groups="discovered", evaluate_on="test")
    assert made.before.worst_group == pytest.approx(discovered.worst_group)
    assert workspace.correct("erm", settings=one, groups="discovered", evaluate_on="test").record == made.record
    shown = crayon("correct", "--method", "erm", "--set", "erm.epochs=1", "--set", "erm.batch_size=64", *shell)
    assert shown.exit_code != 0
    assert "groups 'discovered' there, 'own' now" in shown.output
    compared = crayon("evaluate", "--groups", "discovered", *shell)
    assert compared.exit_code == 0, compared.output
    compared = crayon("compare", "original", "erm", "--groups", "discovered", *shell)
    assert compared.exit_code == 0, compared.output
    assert (workspace.folder / "evaluations" / "test-discovered" / "comparison.json").is_file()

    # Card and report show them beside the groups of the columns, and say that nobody labelled them.
    crayon("evaluate", *shell)
    page = workspace.report("erm", pictures=1).read_text(encoding="utf-8")
    card = (workspace.save("erm", workspace.folder.parent / "out") / "README.md").read_text(encoding="utf-8")
    after = workspace.evaluate(["erm"], groups="discovered")["erm"]
    for text in (page, card):
        assert "Nobody labelled these groups" in text
        assert "discovered group" in text
    assert f"| **worst** | | {100 * discovered.worst_group:.1f} | {100 * after.worst_group:.1f} |" in card
    said = typed_commands(workspace.manifest, workspace.command, "erm")
    assert [each.split()[1] for each in said][-4:] == ["groups", "correct", "evaluate", "evaluate"]
    assert said[-2].endswith("--split test --groups discovered erm")
    assert said[-1].endswith("--split test erm")

    workspace.simulate_answers(kind="spot", count=120, seed=1)
    states = {each.path: each for each in workspace.status()}
    assert states["groups.safetensors"].state == "stale"
    assert states["evaluations/test-discovered/original.json"].run.endswith("--split test --groups discovered original")
    with pytest.raises(StaleError, match=r"groups\.safetensors .* is stale"):
        workspace.evaluate(["original"], groups="discovered")


def test_attention_weighs_what_is_found(model, train, maps, answers, caplog):
    how = {"epochs": 1, "batch_size": 32, "device": "cpu", "background_swap": 0.0}
    found = AttentionCorrector(model, **how).fit(train, maps, answers)
    assert found.record.counts["unusual_surround"] > 20
    alike = AttentionCorrector(model, balance="never", **how).fit(train, maps, answers)
    assert "unusual_surround" not in alike.record.counts
    assert found.model.fingerprint != alike.model.fingerprint
