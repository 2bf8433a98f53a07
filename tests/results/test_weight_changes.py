from __future__ import annotations

import json
import math

import pytest
import torch
from helpers_correction import neuron_answers, noise_pictures, split_model

from crayon_sdk.correct.pruning import NeuronPruner
from crayon_sdk.errors import MismatchError
from crayon_sdk.results.weight_changes import weight_changes


def states(found):
    return {each.name: each.state for each in found.tensors}


def test_every_way_in_which_a_tensor_can_differ():
    before = {"same": torch.ones(2), "moved": torch.tensor([3.0, 4.0]), "gone": torch.ones(1), "size": torch.ones(2, 2)}
    after = {"same": torch.ones(2), "moved": torch.tensor([3.0, 3.0]), "new": torch.ones(3), "size": torch.ones(4)}
    found = weight_changes(before, after)
    assert states(found) == {
        "same": "same",
        "moved": "changed",
        "new": "added",
        "size": "reshaped",
        "gone": "removed",
    }
    assert [each.name for each in found.changed] == ["new", "size", "gone", "moved"]
    moved = found.changed[-1]
    assert (moved.relative, moved.largest, moved.shape) == (0.2, 1.0, (2,))
    # All that can be compared as one vector: (1, 1, 3, 4) and a difference of 1.
    assert found.relative == pytest.approx(1 / math.sqrt(27))


def test_counters_change_but_are_no_weights():
    before = {"weight": torch.tensor([2.0]), "num_batches_tracked": torch.tensor(0)}
    after = {"weight": torch.tensor([1.0]), "num_batches_tracked": torch.tensor(1000)}
    found = weight_changes(before, after)
    assert states(found)["num_batches_tracked"] == "changed"
    assert found.relative == 0.5


def test_nothing_changed():
    state = {"a": torch.tensor([1.0, math.nan])}
    found = weight_changes(state, {"a": state["a"].clone()})
    assert found.changed == ()
    assert found.sentence() == "none of 1 tensors changed"
    assert weight_changes({}, {}).relative == 0


def test_a_weight_that_became_nan_is_first_and_json_is_json():
    found = weight_changes(
        {"a": torch.ones(1), "b": torch.ones(1)}, {"a": torch.zeros(1), "b": torch.tensor([math.nan])}
    )
    assert [each.name for each in found.changed] == ["b", "a"]
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["tensors"][1]["relative"] is None
    assert values["tensors"][0]["relative"] == 1


def test_the_table_says_it_in_words():
    found = weight_changes({"fc.weight": torch.full((2, 2), 2.0)}, {"fc.weight": torch.full((2, 2), 3.0)})
    text = " ".join(str(found).split())
    for words in ("fc.weight", "2 x 2", "changed", "50 %", "1 of 1 tensors changed, together by 50 % of their norm"):
        assert words in text


@pytest.fixture(scope="module")
def pruned():
    original = split_model()
    return original, NeuronPruner(original, epochs=2, device="cpu").fit(noise_pictures(8), neuron_answers(range(5)))


def test_pruning_changes_the_last_layer_only(pruned):
    original, correction = pruned
    found = correction.changes(original)
    assert {each.name for each in found.changed} == {"fc.weight", "fc.bias"}
    before, after = original.model.state_dict(), correction.model.plain_state_dict()
    weight = next(each for each in found.changed if each.name == "fc.weight")
    expected = (after["fc.weight"] - before["fc.weight"]).norm() / before["fc.weight"].norm()
    assert weight.relative == pytest.approx(float(expected), rel=1e-5)
    assert len(found.tensors) == len(before)


def test_another_model_is_no_original(pruned):
    with pytest.raises(MismatchError, match="not the model that was corrected"):
        pruned[1].changes(split_model(5))
