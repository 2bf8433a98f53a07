"""Maps on disk and back; files that are damaged, and maps that are not there."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from crayon_sdk._base.files import read_tensors, write_tensors
from crayon_sdk.data.preprocessing import Preprocessing
from crayon_sdk.errors import FileFormatError, MismatchError, SettingsError
from crayon_sdk.explain.maps import SaliencyMaps, as_maps
from crayon_sdk.explain.patches import NeuronPatches
from crayon_sdk.functional.saliency import brightest_spot, normalize_maps, resize_maps


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return SaliencyMaps(
        ids=("a/1.jpg", "größe.png", "c"),
        values=normalize_maps(torch.rand(3, 4, 5, generator=generator)),
        targets=torch.tensor([1, 0, 1]),
        evidence=torch.tensor([True, False, True]),
        model="f" * 64,
        target_rule="predicted",
        score="margin",
        class_names=("cat", "dog"),
        preprocessing=Preprocessing(size=(96, 64), mean=(0.1, 0.2, 0.3)),
    )


def same(one, other):
    for name in ("values", "targets", "evidence"):
        assert torch.equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for name in ("ids", "model", "target_rule", "score", "class_names", "preprocessing", "fingerprint"):
        assert getattr(one, name) == getattr(other, name)


def test_save_and_load(maps, tmp_path):
    maps.save(tmp_path / "deep" / "maps.safetensors")
    same(SaliencyMaps.load(tmp_path / "deep" / "maps.safetensors"), maps)
    plain = SaliencyMaps(("a",), torch.ones(1, 2, 2), torch.tensor([0]))
    plain.save(tmp_path / "plain.safetensors")
    same(SaliencyMaps.load(tmp_path / "plain.safetensors"), plain)
    assert plain.evidence.tolist() == [True]


def test_words(maps):
    assert (len(maps), maps.size, maps.num_empty) == (3, (4, 5), 1)
    assert repr(maps) == "SaliencyMaps(3 maps of 4x5, target predicted, 1 empty)"


def test_select(maps):
    chosen = maps.select(["c", "a/1.jpg"])
    assert chosen.ids == ("c", "a/1.jpg")
    assert torch.equal(chosen.values, maps.values[[2, 0]])
    assert chosen.evidence.tolist() == [True, True]
    assert (chosen.model, chosen.target_rule, chosen.score) == (maps.model, "predicted", "margin")
    same(maps.select(maps.ids), maps)
    assert maps.select([]).size == (4, 5)
    with pytest.raises(MismatchError, match=r"no saliency map for 2 of 3 samples \('x', 'y'\); explain the data set"):
        maps.select(["x", "c", "y"])


@pytest.mark.parametrize("size", [(2, 2), (8, 9), (8, 2), (4, 5)])
def test_resize(maps, size):
    resized = maps.resize(*size)
    torch.testing.assert_close(resized.values, normalize_maps(resize_maps(maps.values, size)))
    assert resized.size == size
    assert resized.values.amax(dim=(1, 2)).eq(1).all()
    assert torch.equal(resized.evidence, maps.evidence)
    assert maps.size == (4, 5)


def test_the_fingerprint_is_of_the_content(maps):
    assert len(maps.fingerprint) == 64
    assert maps.select(maps.ids[:2]).fingerprint != maps.fingerprint
    assert maps.resize(3, 3).fingerprint != maps.fingerprint


@pytest.mark.parametrize(
    ("ids", "values", "targets"),
    [(2, (3, 4, 4), 3), (3, (3, 4, 4), 2), (3, (3, 1, 4, 4), 3)],
)
def test_lengths_that_do_not_fit(ids, values, targets):
    with pytest.raises(SettingsError, match=r"expected N different ids, values \(N, h, w\) and N targets"):
        SaliencyMaps(tuple("abc"[:ids]), torch.ones(values), torch.zeros(targets, dtype=torch.int64))
    with pytest.raises(SettingsError, match=r"got 2 ids \(1 different\)"):
        SaliencyMaps(("a", "a"), torch.ones(2, 3, 3), torch.tensor([0, 1]))


# --- files that are not maps ---


def test_cut_off_at_any_place(maps, tmp_path):
    path = tmp_path / "maps.safetensors"
    maps.save(path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"not a whole safetensors file.*cut off"):
            SaliencyMaps.load(path)
    with pytest.raises(FileFormatError, match=r"no file at"):
        SaliencyMaps.load(tmp_path / "none.safetensors")


def test_another_kind_of_file(maps, tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"values": maps.values})
    with pytest.raises(FileFormatError, match=r"is not a crayon-saliency-maps file \(its format is None\)"):
        SaliencyMaps.load(path)
    path.write_text("id,answer\n1,yes\n" * 10)
    with pytest.raises(FileFormatError, match=r"not a whole safetensors file"):
        SaliencyMaps.load(path)
    maps.save(path)
    with pytest.raises(FileFormatError, match=r"is not a crayon-neuron-patches file \(its format is 'crayon-saliency-"):
        NeuronPatches.load(path)


def damage(path, change, **metadata):
    tensors, known = read_tensors(path)
    manifest = json.loads(known["manifest"])
    change(manifest)
    write_tensors(path, tensors, known | {"manifest": json.dumps(manifest)} | metadata)


def test_another_version(maps, tmp_path):
    path = tmp_path / "a.safetensors"
    maps.save(path)
    damage(path, lambda _manifest: None, version="2")
    with pytest.raises(FileFormatError, match=r"has version '2', expected version '1'; upgrade crayon-sdk"):
        SaliencyMaps.load(path)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda manifest, name=name: manifest.pop(name) for name in ("ids", "model", "target_rule", "preprocessing")),
        *(lambda manifest, name=name: manifest.update({name: 3}) for name in ("ids", "class_names", "preprocessing")),
        lambda manifest: manifest["preprocessing"].update(size=[0, 1]),
        lambda manifest: manifest["preprocessing"].update(colour="red"),
    ],
)
def test_a_damaged_manifest(maps, tmp_path, change):
    path = tmp_path / "a.safetensors"
    maps.save(path)
    damage(path, change)
    with pytest.raises(FileFormatError, match=r"the manifest of '.*a.safetensors' is damaged \(.*make the file again"):
        SaliencyMaps.load(path)


def test_a_manifest_that_is_not_json_or_too_short(maps, tmp_path):
    path = tmp_path / "a.safetensors"
    maps.save(path)
    damage(path, lambda manifest: manifest["ids"].pop())
    with pytest.raises(FileFormatError, match=r"damaged \(SettingsError: expected N different ids"):
        SaliencyMaps.load(path)
    damage(path, lambda _manifest: None, manifest="{")
    with pytest.raises(FileFormatError, match=r"has no readable manifest; make it again"):
        SaliencyMaps.load(path)


def test_parts_are_put_together():
    maps = SaliencyMaps(("a", "b", "c"), torch.rand(3, 2, 2), torch.tensor([0, 1, 0]), model="m")
    found = SaliencyMaps.concatenate([maps.select(["a"]), maps.select(["b", "c"])])
    assert found.fingerprint == maps.fingerprint
    with pytest.raises(MismatchError, match="got 2 ways among 2 parts"):
        SaliencyMaps.concatenate([maps, SaliencyMaps(("d",), torch.rand(1, 3, 3), torch.tensor([0]))])
    with pytest.raises(MismatchError, match="got 0 ways"):
        SaliencyMaps.concatenate([])


def test_a_map_is_known_by_its_sample():
    maps = SaliencyMaps(("a", "b"), torch.rand(2, 4, 5), torch.tensor([0, 1]))
    other = SaliencyMaps(("c",), torch.rand(1, 4, 5), torch.tensor([1]))
    assert list(maps) == ["a", "b"]
    assert ("b" in maps, "z" in maps, 0 in maps) == (True, False, False)
    assert torch.equal(maps["b"], maps.values[1])
    assert (maps + other).ids == ("a", "b", "c")
    with pytest.raises(SettingsError, match=r"maps are known by sample ids, which are texts, got 0; maps.ids"):
        maps[0]
    with pytest.raises(SettingsError, match=r"expected a list of sample ids, got the text 'ab'"):
        maps.select("ab")
    with pytest.raises(MismatchError, match="no saliency map for 1 of 1 samples"):
        maps["z"]
    with pytest.raises(SettingsError, match="different"):
        maps + maps
    with pytest.raises(TypeError):
        maps + 1
    with pytest.raises(
        SettingsError, match=r"expected SaliencyMaps, got list; Explainer\(model\).explain\(dataset\) makes"
    ):
        as_maps([1])


def test_spots_are_of_the_same_maps(maps):
    spots = maps.spots()
    assert torch.equal(spots.values, brightest_spot(maps.values, (2 * maps.size[0], 2 * maps.size[1])))
    assert spots.size == (2 * maps.size[0], 2 * maps.size[1])
    for name in ("ids", "model", "target_rule", "score", "class_names", "preprocessing"):
        assert getattr(spots, name) == getattr(maps, name)
    assert torch.equal(spots.targets, maps.targets)
    assert torch.equal(spots.evidence, maps.evidence)
    assert torch.equal(maps.select(maps.ids[:1]).spots().values, spots.values[:1])
    assert len(maps.select([]).spots()) == 0


@pytest.mark.parametrize("sizes", [[3], [1, 2], [1, 1, 1]])
def test_a_file_in_parts_is_the_same_file(maps, sizes, tmp_path):
    maps.save(tmp_path / "whole.safetensors")
    one = torch.zeros(1)
    like = dataclasses.replace(
        maps, values=one.expand(3, 4, 5), targets=one.long().expand(3), evidence=one.bool().expand(3)
    )
    with like.saved_in_parts(tmp_path / "parts.safetensors") as put:
        row = 0
        for size in sizes:
            part = slice(row, row + size)
            put(row, maps.values[part], maps.targets[part], maps.evidence[part])
            row += size
    assert (tmp_path / "parts.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("row", [-1, 2])
def test_a_part_that_does_not_fit_is_refused(maps, row, tmp_path):
    def misplaced():
        with maps.saved_in_parts(tmp_path / "maps.safetensors") as put:
            put(row, maps.values[:2], maps.targets[:2], maps.evidence[:2])

    with pytest.raises(SettingsError, match=rf"'values' that fit into \(3, 4, 5\), got \(2, 4, 5\) from row {row}"):
        misplaced()
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_not_finished_is_none(maps, tmp_path):
    path = tmp_path / "maps.safetensors"
    maps.save(path)
    before = path.read_bytes()

    def half():
        with maps.saved_in_parts(path) as put:
            put(0, maps.values[:1], maps.targets[:1], maps.evidence[:1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["maps.safetensors"]


def test_maps_of_files_are_put_together_without_being_in_memory(tmp_path):
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            made = op(*args, **(kwargs or {}))
            given = {each.untyped_storage().data_ptr() for each in torch.utils._pytree.tree_leaves(args)
                     if isinstance(each, torch.Tensor)}  # fmt: skip
            for each in torch.utils._pytree.tree_leaves(made):
                if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in given:
                    self.bytes = max(self.bytes, each.untyped_storage().nbytes())
            return made

    made = [
        SaliencyMaps(tuple(f"{part}-{row}" for row in range(10)), torch.rand(10, 5, 5), torch.full((10,), part))
        for part in range(8)
    ]
    for number, part in enumerate(made):
        part.save(tmp_path / f"{number}.safetensors")
    parts = [SaliencyMaps.load(tmp_path / f"{number}.safetensors") for number in range(8)]
    with Largest() as largest:
        found = SaliencyMaps.concatenate(parts, tmp_path / "streamed.safetensors")
    assert largest.bytes <= 10 * 5 * 5 * 4
    whole = SaliencyMaps.concatenate(made)
    assert found.ids == whole.ids
    whole.save(tmp_path / "whole.safetensors")
    assert (tmp_path / "streamed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    with pytest.raises(SettingsError, match="different"):
        SaliencyMaps.concatenate([parts[0], parts[0]], tmp_path / "twice.safetensors")
    assert not (tmp_path / "twice.safetensors").exists()
